# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what a node says about itself for the report of a problem."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sqlite3
import sys
import types
from typing import Iterator, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.files import EMULATED_DRIVES
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import description, served
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.emulated import EmulatedManager
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.manager import NAME

pytestmark = pytest.mark.posix


@pytest.fixture
def log(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A lab node with a service that does not run. Return the path of its log."""
    monkeypatch.setenv(EMULATED_DRIVES, str(tmp_path))
    monkeypatch.setattr(served, "TIMEOUT", 0.2)
    path = tmp_path / "C/logs/service.log"
    path.parent.mkdir(parents=True)
    options = {"--address": served.PIPE, "--root": r"C:\store", "--version": "1.2.3", "--log": str(path)}
    program = ["python", "-I", "-X", "utf8", "start.py"]
    EmulatedManager(NAME, str(tmp_path / "home")).install(
        [*program, *(text for pair in options.items() for text in pair)]
    )
    return path


def test_a_node_without_a_service(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATED_DRIVES, str(tmp_path))
    outcome = description.describe_node(None, lines=10)
    assert not outcome.changed
    found = outcome.result
    assert found["python"]["version"] == sys.version.split()[0]
    assert found["python"]["sqlite"] == sqlite3.sqlite_version
    assert found["system"]["version"]
    assert (found["service"], found["logs"], found["problems"]) == (None, [], [])


def registry(**values: object) -> types.SimpleNamespace:
    """Return Windows' registry with some values, or without any, as the module winreg gives it."""

    @contextlib.contextmanager
    def open_key(_root: int, path: str) -> Iterator[str]:
        assert path.endswith(r"\Windows NT\CurrentVersion")
        yield path

    def query_value(_key: str, name: str) -> Tuple[object, int]:
        if name not in values:
            raise FileNotFoundError(2, "The system cannot find the file specified")
        return values[name], 1

    return types.SimpleNamespace(HKEY_LOCAL_MACHINE=1, OpenKey=open_key, QueryValueEx=query_value)


@pytest.mark.parametrize("has_values", [True, False])
def test_the_version_of_windows(monkeypatch: pytest.MonkeyPatch, has_values: bool) -> None:
    values = {"ProductName": "Windows Server 2022 Datacenter", "InstallationType": "Server Core", "UBR": 2700}
    build = types.SimpleNamespace(major=10, minor=0, build=20348)
    monkeypatch.setitem(sys.modules, "winreg", registry(**(values if has_values else {})))
    monkeypatch.setattr(sys, "getwindowsversion", lambda: build, raising=False)
    monkeypatch.setenv("PROCESSOR_ARCHITECTURE", "AMD64")
    monkeypatch.setattr(sys, "platform", "win32")
    problems: List[str] = []
    found = description._system(problems)
    monkeypatch.undo()
    names = ("name", "version", "edition", "architecture")
    if has_values:
        wanted = ("Windows Server 2022 Datacenter", "10.0.20348.2700", "Server Core", "AMD64")
    else:
        wanted = ("Windows", "10.0.20348", "", "AMD64")
    assert tuple(found[name] for name in names) == wanted
    assert len(problems) == (not has_values)


def test_a_service_that_does_not_run(log: pathlib.Path) -> None:
    log.write_text("\n".join(f"line {number}" for number in range(50)))
    (log.parent / "crash.log").write_text("Fatal Python error\n")
    found = description.describe_node(None, lines=3).result
    service = found["service"]
    assert (service["version"], service["root"], service["address"]) == ("1.2.3", r"C:\store", served.PIPE)
    assert service["health"] is None
    assert "no process serves there" in service["problem"]
    assert [entry["lines"] for entry in found["logs"]] == [["line 47", "line 48", "line 49"], ["Fatal Python error"]]
    assert [entry["lines"] for entry in description.describe_node(None).result["logs"]] == [[], []]


def test_a_long_log_is_not_read_as_a_whole(log: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "_TAIL", 20)
    log.write_bytes(b"one line \xff\nanother line\nthe last line\n")
    assert description.describe_node(None, lines=9).result["logs"][0]["lines"] == ["the last line"]


def test_what_cannot_be_read_is_a_problem(log: pathlib.Path, tmp_path: pathlib.Path) -> None:
    log.mkdir()
    assert f"cannot read {log}: Is a directory" in description.describe_node(None, lines=9).result["problems"]
    (tmp_path / f"services/{NAME}.json").write_text("no JSON")
    found = description.describe_node(None, lines=9).result
    assert found["problems"][0].startswith(f"cannot read how the service {NAME} is installed")
    assert (found["service"], found["logs"]) == (None, [])


@pytest.mark.parametrize("place", [{"root": "no absolute path"}, {"store": "containerd"}])
def test_it_needs_no_store(place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMULATED_DRIVES, str(tmp_path))
    operations = [{"operation": "describe_node", "arguments": {}}]
    (entry,) = door.handle(json.dumps({"protocol": 1, **place, "operations": operations}).encode())["results"]
    assert (entry["ok"], entry["changed"], entry["warnings"]) == (True, False, [])
