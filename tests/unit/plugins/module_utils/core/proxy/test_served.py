# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how tasks find the proxy snapshotter and show how it does: one that answers, stops, hangs, or is another one."""

from __future__ import annotations

import os
import pathlib
import socket
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.containerd import (
    store_check as containerd_check,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import discovery
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.configuration import ProxyPlugin
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.node import ContainerdNode
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.store import ensure_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.files import EMULATED_DRIVES
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import drives
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import served
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.emulated import EmulatedManager
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.manager import NAME
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.listener import Server, UnixListener
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store as open_served
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders import containerd_databases as build

pytestmark = pytest.mark.posix

ROOT = r"C:\ProgramData\wcow"


class Host:
    """A lab node with a store, and with a service that serves it at a pipe, as far as its record says."""

    def __init__(self, directory: pathlib.Path) -> None:
        (directory / "C").mkdir()
        (directory / "pipe").mkdir()
        self.directory = directory
        self.root = drives.to_native(ROOT)
        self._servers: List[Any] = []

    def install(self, root: str = ROOT, pipe: str = served.PIPE) -> None:
        program = ["python", "-I", "-X", "utf8", "start.py"]
        options = ["--service", NAME, "--address", pipe, "--root", root]
        EmulatedManager(NAME, str(self.directory / "home")).install([*program, *options])

    def serve(self, pipe: str = "wcow-snapshotter") -> None:
        address = os.path.join(self.directory, "pipe", pipe)
        service = Service(lambda later: open_served(ROOT, "emulated", later), "1.2.3")
        server = Server(UnixListener(address), service)
        thread = threading.Thread(target=server.serve)
        thread.start()
        self._servers.append((server, thread))

    def stop(self) -> None:
        for server, thread in self._servers:
            server.stop()
            thread.join()

    def store(self) -> Snapshotter:
        return Snapshotter(ROOT, EmulatedLayers())


@pytest.fixture
def host(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv(EMULATED_DRIVES, str(tmp_path))
    # A busy machine may need longer than a service is given.
    monkeypatch.setattr(served, "TIMEOUT", 20.0)
    made = Host(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def store(host: Host) -> Iterator[Snapshotter]:
    opened = host.store()
    ensure_store(opened, rootfs_size="40GB")
    yield opened
    opened.close()


def test_a_service_that_answers(host: Host, store: Snapshotter) -> None:
    host.install()
    host.serve()
    found = check_store(store).result
    assert (found["healthy"], found["rootfs_size"]) == (True, 40 * 1024**3)
    shown = found["proxy_snapshotter"]
    assert (shown["address"], shown["snapshotter"], shown["problem"]) == (served.PIPE, "", "")
    health: Dict[str, Any] = shown["health"]
    assert (health["version"], health["root"], health["errors"]) == ("1.2.3", ROOT, 0)
    assert ensure_store(store).result["proxy_snapshotter"]["health"]["version"] == "1.2.3"
    assert store.warnings == []


@pytest.mark.parametrize("is_served", [False, True])
def test_stores_that_no_service_serves(host: Host, store: Snapshotter, is_served: bool) -> None:
    if is_served:
        host.install(root=r"C:\other")
        host.serve()
    assert check_store(store).result["proxy_snapshotter"] is None
    assert ensure_store(store).result["proxy_snapshotter"] is None


def test_a_service_that_does_not_run(host: Host, store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "TIMEOUT", 1.0)
    host.install()
    found = check_store(store, repair=True).result
    (finding,) = found["findings"]
    assert (finding["code"], finding["severity"], finding["repairable"]) == ("proxy_not_answering", "error", False)
    problem = f"no process serves there; see whether the service {NAME} runs"
    reason = f"the proxy snapshotter does not answer at {served.PIPE}: {problem}"
    assert finding["message"] == reason
    assert found["proxy_snapshotter"]["health"] is None
    assert not found["healthy"]
    # The store itself is as it should be.
    done = ensure_store(store)
    assert (done.changed, store.warnings) == (False, [reason])
    # It runs again before the second is over.
    threading.Timer(0.2, host.serve).start()
    monkeypatch.setattr(served, "TIMEOUT", 20.0)
    assert check_store(store).result["proxy_snapshotter"]["health"]["version"] == "1.2.3"


@pytest.mark.parametrize("force", [False, True])
def test_a_store_that_a_service_serves_is_not_removed(
    host: Host, store: Snapshotter, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the service does not run: containerd's layers are there all the same."""
    monkeypatch.setattr(served, "TIMEOUT", 0.2)
    host.install()
    with pytest.raises(FailedPrecondition, match="remove it first with the module proxy_snapshotter and state=absent"):
        ensure_store(store, "absent", force=force)
    assert ensure_store(store).result["actions"] == []


def test_a_service_that_hangs(host: Host, store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "TIMEOUT", 1.0)
    host.install()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.join(host.directory, "pipe", "wcow-snapshotter"))
        listening.listen()
        started = time.monotonic()
        found = served.find_of_store(host.root, drives.to_native, [])
        # Ten times the limit, because the machine may be busy.
        assert time.monotonic() - started < 10
    assert found is not None
    assert (found.health, "did not finish" in found.problem) == (None, True)


def test_services_that_cannot_be_read(host: Host, store: Snapshotter) -> None:
    host.install()
    (record,) = (host.directory / "services").glob("*.json")
    record.write_text("{")
    assert check_store(store).result["healthy"]
    ensure_store(store)
    assert all("not known whether a service serves the store: cannot read how" in each for each in store.warnings)
    assert len(store.warnings) == 2


def test_without_a_store(host: Host) -> None:
    opened = host.store()
    found = check_store(opened).result
    assert (found["exists"], found["rootfs_size"], found["proxy_snapshotter"]) == (False, None, None)
    opened.close()


@pytest.mark.parametrize("only", [["low_free_space"], ["proxy_not_answering"]])
def test_the_codes_that_a_task_names(
    host: Host, store: Snapshotter, only: List[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "TIMEOUT", 0.2)
    host.install()
    findings = check_store(store, only=only).result["findings"]
    assert [finding["code"] for finding in findings] == [code for code in only if code == "proxy_not_answering"]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (served.PIPE, r"\\.\pipe\WCOW-snapshotter", True),
        (served.PIPE, "npipe:////./pipe/wcow-snapshotter", True),
        (served.PIPE, r"\\.\pipe\wcow-snapshotter2", False),
        ("/run/wcow.sock", "unix:///run/wcow.sock", True),
        ("/run/wcow.sock", "/run/Wcow.sock", False),
    ],
)
def test_addresses(first: str, second: str, is_same: bool) -> None:
    assert served.is_same_address(first, second) is is_same


# -- containerd ----------------------------------------------------------------------------------------------------


@pytest.fixture
def check_containerd(host: Host, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dict[str, Any]]:
    """Return a function that checks a containerd with two snapshots of ``wcow``, and with these proxy plugins."""
    objects = build.Objects()
    objects.snapshot("base")
    objects.snapshot("work", "base")
    build.write_root(
        drives.to_native(r"C:\containerd"), build.metadata(4, k8s=objects), build.store(build.Records()), []
    )
    find = discovery.find
    # Nothing changes between the two readings.
    monkeypatch.setattr(containerd_check, "PAUSE", 0.0)

    def check(snapshotter: str, **addresses: str) -> Dict[str, Any]:
        plugins = {name: ProxyPlugin("snapshot", address) for name, address in addresses.items()}
        plugins["content"] = ProxyPlugin("content", served.PIPE)

        def found(options: discovery.Options, release: str = "") -> discovery.Containerd:
            result = find(options, release)
            return result._replace(configuration=result.configuration._replace(proxy_plugins=plugins))

        monkeypatch.setattr(discovery, "find", found)
        options = discovery.Options(r"\\.\pipe\none", r"C:\containerd", snapshotter)
        node = ContainerdNode(options, "", EmulatedLayers())
        result = containerd_check.check_store(node, inventory=True).result
        return {**result, "warnings": node.warnings}

    return check


def test_a_proxy_plugin_of_containerd(host: Host, check_containerd: Any) -> None:
    """Its snapshots have no records in containerd's root, and that is not a problem that a repair may solve."""
    host.serve()
    found = check_containerd("windows", wcow=served.PIPE)
    shown = found["proxy_snapshotter"]
    assert (shown["snapshotter"], shown["health"]["version"]) == ("wcow", "1.2.3")
    assert [finding["code"] for finding in found["findings"]] == ["missing_record", "missing_record"]
    found = check_containerd("windows", windows=served.PIPE)
    assert (found["healthy"], found["findings"], found["inventory"]) == (True, [], [])
    assert any("is a proxy plugin: its records and layers are not in" in text for text in found["warnings"])


def test_proxy_plugins_by_their_addresses(host: Host, check_containerd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers our call is ours; so is one that does not answer at the address of our service."""
    host.serve("elsewhere")
    found = check_containerd("windows", another=r"\\.\pipe\elsewhere")
    assert found["proxy_snapshotter"]["address"] == r"\\.\pipe\elsewhere"
    monkeypatch.setattr(served, "TIMEOUT", 0.2)
    assert check_containerd("windows", another=r"\\.\pipe\nowhere")["proxy_snapshotter"] is None
    found = check_containerd("windows", wcow=served.PIPE)
    assert found["proxy_snapshotter"]["problem"] == f"no process serves there; see whether the service {NAME} runs"
    codes = [finding["code"] for finding in found["findings"]]
    assert codes == ["missing_record", "missing_record", "proxy_not_answering"]
    host.install(pipe=r"\\.\pipe\chosen")
    assert check_containerd("windows", wcow=served.PIPE)["proxy_snapshotter"] is None
    found = check_containerd("windows", wcow=r"npipe:////./pipe/chosen")
    assert found["proxy_snapshotter"]["problem"] == f"no process serves there; see whether the service {NAME} runs"
