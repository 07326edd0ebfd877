# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts for bare nodes, executed on the files of a lab node, and ended at each of their statements."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import shutil
import subprocess

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._powershell import CLEAN, INSTALL, LOOK

from lab import package
from lab.dotnet import PowerShellError
from lab.host import HostFiles
from lab.language import Stopped, read

DIRECTORY = r"C:\Program Files\wcow\python"
OLD, NEW = package.content("3.12.10"), package.content("3.13.0")


class Node:
    """A node whose scripts end before their statement ``end``, or meet there what ``meanwhile`` does."""

    def __init__(self, directory):
        self.files = HostFiles("node1", directory)
        self.files.create(with_python=False)
        self.place = self.files.native(DIRECTORY)
        self.input = []
        self.end = None
        self.meanwhile = None

    def native(self, words):
        program = self.files.program(words[0])
        if program is None:
            raise PowerShellError(f"The term '{words[0]}' is not recognized")
        try:
            return subprocess.run([program, *words[1:]], capture_output=True, text=True, check=True).stdout.strip()
        except OSError as error:
            raise PowerShellError(f"Program '{words[0]}' failed to run: {error}") from error

    def stopped(self):
        if self.end is not None:
            self.end -= 1
        if self.end == -1 and self.meanwhile is not None:
            self.meanwhile()
            return False
        return self.end is not None and self.end < 0 and self.meanwhile is None

    def run(self, script, lines=(), **request):
        self.input = [json.dumps({"directory": DIRECTORY, **request}), *lines]
        (answer,) = read(script)[0].run(self)
        return json.loads(answer)

    def install(self, data, answer, **changes):
        marker = json.dumps({"version": answer})
        request = {"sha256": hashlib.sha256(data).hexdigest(), "version": answer, "marker": marker, **changes}
        lines = [base64.b64encode(data[start : start + 100]).decode() for start in range(0, len(data), 100)]
        return self.run(INSTALL, lines, **request)

    def left(self):
        return sorted(path.name for path in self.place.parent.iterdir() if path.name.startswith("python.wcow-"))

    def version(self):
        found = self.run(LOOK)
        assert found["exists"] == bool(found.get("marker"))
        return found.get("version")


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_from_nothing_to_another_version_and_away(node):
    assert node.run(LOOK) == {"exists": False, "empty": True, "protected": False, "left": []}
    assert node.install(OLD, "3.12.10") == {"installed": True}
    found = node.run(LOOK)
    assert (found["exists"], found["empty"], found["protected"], found["left"]) == (True, False, True, [])
    assert (json.loads(found["marker"]), found["version"]) == ({"version": "3.12.10"}, "3.12.10")
    assert sorted(path.name for path in node.place.iterdir()) == ["LICENSE.txt", "python.exe", "wcow-runtime.json"]
    assert node.install(NEW, "3.13.0") == {"installed": True}
    assert node.version() == "3.13.0"
    (old,) = node.left()
    assert old.startswith("python.wcow-old-")
    assert node.run(CLEAN) == {"left": []}
    assert node.left() == []
    assert node.run(CLEAN, absent=True) == {"left": []}
    assert list(node.place.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"sha256": "0" * 64}, "verify", f"its SHA-256 is {hashlib.sha256(NEW).hexdigest().upper()}"),
        ({"version": "3.13.1"}, "try", "its python.exe answers '3.13.0'"),
        ({"url": "http://127.0.0.1:9/python.zip"}, "receive", 'Exception calling "DownloadFile" with "2" argument(s)'),
    ],
)
def test_another_package_than_was_asked_for(node, changes, step, words):
    node.install(OLD, "3.12.10")
    answer = node.install(NEW, "3.13.0", **changes)
    assert answer["step"] == step
    assert words in answer["error"]
    assert node.left() == []
    assert node.version() == "3.12.10"


@pytest.mark.parametrize(
    ("data", "step"), [(b"no zip", "unpack"), (b"", "unpack"), (package.content("3.13.0")[:-30], "unpack")]
)
def test_a_package_that_cannot_be_unpacked(node, data, step):
    answer = node.install(data, "3.13.0")
    assert answer["step"] == step
    assert list(node.place.parent.iterdir()) == []


def test_a_runtime_that_runs_stays(node):
    node.install(OLD, "3.12.10")
    node.files.running.append(node.files.identity(node.place / "python.exe"))
    for answer in (node.install(NEW, "3.13.0"), node.run(CLEAN, absent=True)):
        assert answer["step"] == "replace"
        assert "being used by another process" in answer["error"]
    assert node.left() == []
    assert node.version() == "3.12.10"


def test_what_runs_beside_it_stays_and_is_reported(node):
    node.install(OLD, "3.12.10")
    node.install(NEW, "3.13.0")
    (old,) = node.left()
    node.files.running.append(node.files.identity(node.place.parent / old / "python.exe"))
    (left,) = node.run(CLEAN)["left"]
    assert left.startswith(rf"{DIRECTORY}.wcow-old-")
    assert "is denied" in left
    # It has not lost its library.
    assert len(list((node.place.parent / old).iterdir())) == 3
    node.files.running.clear()
    assert node.run(CLEAN) == {"left": []}
    assert node.left() == []


def test_if_the_new_one_cannot_be_renamed_the_old_one_comes_back(node, monkeypatch):
    node.install(OLD, "3.12.10")
    naps = []
    monkeypatch.setattr("time.sleep", naps.append)
    rename = type(node.place).rename

    def refuse(path, target):
        if "wcow-new" in path.name:
            raise PermissionError("Access to the path is denied.")
        return rename(path, target)

    monkeypatch.setattr(type(node.place), "rename", refuse)
    answer = node.install(NEW, "3.13.0")
    assert (answer["step"], len(naps)) == ("replace", 9)
    assert "denied" in answer["error"]
    assert node.left() == []
    assert node.version() == "3.12.10"


def test_a_scanner_that_lets_go(node, monkeypatch):
    holds = iter([True, True])
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    rename = type(node.place).rename

    def slow(path, target):
        if "wcow-new" in path.name and next(holds, False):
            raise PermissionError("Access to the path is denied.")
        return rename(path, target)

    monkeypatch.setattr(type(node.place), "rename", slow)
    assert node.install(NEW, "3.13.0") == {"installed": True}
    assert node.version() == "3.13.0"


def test_a_program_that_others_could_have_changed_is_not_run(node):
    node.install(OLD, "3.12.10")
    node.place.chmod(0o755)
    (node.place / "python.exe").write_text("#!/bin/sh\ntouch $HOME/run\n")
    found = node.run(LOOK)
    assert found["protected"] is False
    assert "version" not in found
    assert node.install(OLD, "3.12.10") == {"installed": True}
    assert node.version() == "3.12.10"


@pytest.mark.parametrize("damage", ["gone", "empty", "no program"])
def test_a_damaged_runtime_is_found(node, damage):
    node.install(OLD, "3.12.10")
    program = node.place / "python.exe"
    if damage == "gone":
        program.unlink()
    elif damage == "empty":
        program.write_bytes(b"")
    else:
        program.chmod(0o600)
    assert not node.version()


def test_links_are_not_followed(node, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    node.install(OLD, "3.12.10")
    (node.place / "link").symlink_to(outside)
    node.run(CLEAN, absent=True)
    assert list(node.place.parent.iterdir()) == []
    assert (outside / "keep").read_text() == "kept"


def interrupted(node, run):
    """End what ``run`` runs before each of its statements in turn, until it gets through; how often it was ended."""
    for end in itertools.count():
        node.end = end
        try:
            run()
        except Stopped:
            node.end = None
            yield end
        else:
            node.end = None
            return


def test_an_interruption_at_each_statement_of_an_upgrade(node, figures):
    tried = 0
    for _end in interrupted(node, lambda: node.install(NEW, "3.13.0")):
        tried += 1
        # Between two renames there is no runtime; at no time is there half of one.
        assert node.version() in {None, "3.12.10", "3.13.0"}
        assert node.install(NEW, "3.13.0") == {"installed": True}
        assert node.version() == "3.13.0"
        assert node.run(CLEAN) == {"left": []}
        assert node.left() == []
        shutil.rmtree(node.place)
        node.install(OLD, "3.12.10")
    assert tried > 40
    figures(operations_killed=1, kills=tried, losses=0)


def test_an_interruption_at_each_statement_of_a_removal(node, figures):
    node.install(OLD, "3.12.10")
    tried = 0
    for _end in interrupted(node, lambda: node.run(CLEAN, absent=True)):
        tried += 1
        exists = node.run(LOOK)["exists"]
        assert node.version() == ("3.12.10" if exists else None)
        assert node.run(CLEAN, absent=exists) == {"left": []}
        assert list(node.place.parent.iterdir()) == []
        node.install(OLD, "3.12.10")
    assert tried > 10
    figures(operations_killed=1, kills=tried, losses=0)


def test_another_run_at_each_statement_of_an_upgrade(tmp_path, monkeypatch):
    """Whoever wins, there is a whole runtime, and the one that loses says so."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    node, other = Node(tmp_path), Node(tmp_path)

    def rival():
        assert other.run(LOOK)["exists"] in {True, False}
        assert other.install(NEW, "3.13.0") == {"installed": True}
        assert other.run(CLEAN) == {"left": []}

    node.meanwhile = rival
    lost = 0
    for end in range(44):
        node.install(OLD, "3.12.10")
        node.end = end
        answer = node.install(NEW, "3.13.0")
        node.end = None
        lost += "error" in answer
        assert node.version() == "3.13.0"
        assert node.run(CLEAN) == {"left": []}
        assert node.left() == []
        shutil.rmtree(node.place)
    assert 0 < lost < 44
