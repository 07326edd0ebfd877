# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by test_win32.py in Windows: the proxy snapshotter as a service, from its installation to its removal.

Wine has a Service Control Manager. It does not keep what happens after a failure (ChangeServiceConfig2, 2 and 4), so
these two calls are replaced; test_services.py has their arguments. It does not notice when a process is killed.
"""

from __future__ import annotations

import os
import uuid
import winreg

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired import proxy_snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import commandline
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import health, versions, windows
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.manager import NAME
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import eventlog, services
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _payload
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store

EVENTS = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"


@pytest.fixture
def recovery(monkeypatch):
    """What Wine does not keep, by the name of the service."""
    kept = {}
    monkeypatch.setattr(services, "set_recovery", kept.__setitem__)
    monkeypatch.setattr(services, "get_recovery", lambda name: kept.get(name, services.Recovery((), 0, False)))
    return kept


@pytest.fixture
def ensure(tmp_path, monkeypatch, recovery):
    def own_version(version, module):
        payload = _payload.payload("service")
        return versions.make_version(
            version, payload.data, payload.data[payload.boot.start : payload.boot.stop], module
        )

    pipe = rf"\\.\pipe\wcow-{uuid.uuid4()}"
    monkeypatch.setattr(versions, "own_version", own_version)

    def run(state="present", version="1.0.0", **options):
        # With a space, as in C:\Program Files.
        home, store = str(tmp_path / "program files"), open_store(str(tmp_path / "root"))
        try:
            return proxy_snapshotter.ensure_proxy_snapshotter(
                store, state, version=version, pipe=pipe, directory=home, **options
            )
        finally:
            store.close()

    yield run
    if services.find_service(NAME) is not None:
        windows.WindowsManager().remove()


def test_every_prototype_has_its_export():
    assert services.DLL.missing() == []
    assert eventlog.DLL.missing() == []


def test_the_life_of_a_service(ensure, recovery):
    done = ensure()
    service, found = done.result["service"], done.result["health"]
    assert done.result["actions"][-3:] == [f"write version {os.path.basename(service['directory'])}"] + [
        f"{verb} the service" for verb in ("create", "start")
    ]
    assert (found["version"], found["calls"], found["errors"]) == ("1.0.0", 0, 0)
    assert recovery == {NAME: services.Recovery((1000, 5000, 30000), 86400, True)}
    installed = services.find_service(NAME)
    assert (installed.state, installed.start_type, installed.process) == (4, 2, found["process"])
    assert installed.command_line.startswith('"')
    assert commandline.split(installed.command_line)[4].startswith(service["directory"])
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{EVENTS}\{NAME}") as key:
        assert winreg.QueryValueEx(key, "EventMessageFile")[0] == r"%SystemRoot%\System32\EventCreate.exe"

    with Client(connect(service["pipe"], "default")) as client:
        client.prepare("wcow", "default/1/a")
        assert client.stat("wcow", "default/1/a").name == "default/1/a"
    assert health.ask(service["pipe"])["calls"] == 2

    assert not ensure().changed

    upgraded = ensure(version="1.1.0")
    assert upgraded.result["actions"][1:] == ["change the service", "restart the service"]
    assert upgraded.result["health"]["version"] == "1.1.0"
    assert upgraded.result["previous_version"] == "1.0.0"
    assert services.find_service(NAME).process == upgraded.result["health"]["process"]
    assert 0 < upgraded.result["downtime"] < 60_000
    with Client(connect(service["pipe"], "default")) as client:
        assert client.stat("wcow", "default/1/a").name == "default/1/a"

    restarted = ensure("restarted", version="1.1.0")
    assert restarted.result["health"]["process"] != upgraded.result["health"]["process"]
    with open(service["log"], encoding="utf-8") as file:
        log = file.read()
    assert log.count("INFO serve the store") == 3
    assert log.count("INFO stopped") == 2
    assert "ERROR" not in log

    gone = ensure("absent")
    assert gone.result["actions"] == ["remove the service", "remove its files"]
    assert services.find_service(NAME) is None
    assert not os.path.exists(os.path.dirname(service["directory"]))
    with pytest.raises(FileNotFoundError):
        winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{EVENTS}\{NAME}")
    with pytest.raises(Unavailable):
        health.ask(service["pipe"])
    assert not ensure("absent").changed


def test_an_upgrade_that_fails_goes_back(ensure, monkeypatch):
    before = ensure()

    def own_version(version, module):
        return versions.make_version(version, b"raise SystemExit(3)", b"raise SystemExit(3)", module)

    monkeypatch.setattr(versions, "own_version", own_version)
    with pytest.raises(FailedPrecondition, match=r"does not run in version 2.0.0.*runs version 1.0.0 again, as before"):
        ensure(version="2.0.0")
    found = health.ask(before.result["service"]["pipe"])
    assert (found["version"], found["process"]) == ("1.0.0", services.find_service(NAME).process)


def test_events(tmp_path):
    source = f"wcow-{uuid.uuid4()}"
    assert not eventlog.is_registered(source)
    eventlog.register(source)
    assert eventlog.is_registered(source)
    eventlog.report(source, eventlog.ERROR, 4, "100 % of C:\\ is used")
    eventlog.unregister(source)
    eventlog.unregister(source)
    assert not eventlog.is_registered(source)


def test_dependents_of_a_service():
    assert services.list_dependents("RpcSs") == []
