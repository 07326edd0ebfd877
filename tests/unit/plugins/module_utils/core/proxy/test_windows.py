# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the Windows service of the proxy snapshotter with a Service Control Manager that remembers."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import restart
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import NotImplementedHere, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import windows
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.manager import NAME
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import eventlog, services

STOPPED, START_PENDING, RUNNING = 1, 2, 4
NEVER_STARTED = 1077


class Scm:
    """Services by name, as (command line, start type, state, process, exit code), and the calls that change them."""

    def __init__(self, monkeypatch):
        self.services, self.recovery, self.sources, self.calls = {}, {}, set(), []
        self.busy = 0
        self.after_start = (RUNNING, 42, 0)
        for name in ("find_service", "create_service", "change_service", "set_description", "start_service"):
            monkeypatch.setattr(services, name, getattr(self, name))
        monkeypatch.setattr(services, "stop_service", self.stop_service)
        monkeypatch.setattr(services, "delete_service", self.services.pop)
        monkeypatch.setattr(services, "set_recovery", self.recovery.__setitem__)
        monkeypatch.setattr(services, "get_recovery", self.recovery.get)
        monkeypatch.setattr(services, "list_dependents", lambda _name: ["kubelet", "agent"])
        monkeypatch.setattr(eventlog, "is_registered", lambda source: source in self.sources)
        monkeypatch.setattr(eventlog, "register", self.sources.add)
        monkeypatch.setattr(eventlog, "unregister", self.sources.discard)
        monkeypatch.setattr(windows, "_PAUSE", 0)
        monkeypatch.setattr(restart, "_PAUSE", 0)

    def find_service(self, name):
        return self.services.get(name)

    def create_service(self, name, _title, command_line):
        self.calls.append("create")
        self.services[name] = services.Service(command_line, 2, STOPPED, 0, NEVER_STARTED)

    def change_service(self, name, _title, command_line):
        self.calls.append("change")
        self.services[name] = self.services[name]._replace(command_line=command_line, start_type=2)

    def set_description(self, _name, _text):
        self.calls.append("describe")

    def start_service(self, name):
        self.calls.append(f"start {name}")
        state, process, code = self.after_start
        self.services[name] = self.services[name]._replace(state=state, process=process, exit_code=code)

    def stop_service(self, name):
        self.calls.append(f"stop {name}")
        if self.busy:
            self.busy -= 1
            return False
        self.services[name] = self.services[name]._replace(state=STOPPED, process=0, exit_code=0)
        return True


@pytest.fixture
def scm(monkeypatch):
    return Scm(monkeypatch)


PROGRAM = [r"C:\Program Files\python.exe", "-I", r"C:\x y\start.py"]


def test_the_settings_of_the_service(scm):
    manager = windows.WindowsManager()
    assert manager.find() is None
    manager.install(PROGRAM)
    assert scm.services[NAME].command_line == r'"C:\Program Files\python.exe" -I "C:\x y\start.py"'
    assert scm.recovery[NAME] == services.Recovery((1000, 5000, 30000), 86400, True)
    assert manager.find() == (PROGRAM, False, 0, [])
    # What an administrator has changed.
    scm.services[NAME] = scm.services[NAME]._replace(start_type=4)
    scm.recovery[NAME] = services.Recovery((), 0, False)
    scm.sources.clear()
    assert len(manager.find().settings) == 3
    manager.install(PROGRAM)
    assert manager.find().settings == []
    assert [call for call in scm.calls if call != "describe"] == ["create", "change"]


def test_the_life_of_the_service(scm):
    manager = windows.WindowsManager()
    manager.install(PROGRAM)
    assert manager.start() == 42
    # A service that is just starting cannot be asked to stop.
    scm.busy = 3
    manager.stop()
    assert scm.calls.count(f"stop {NAME}") == 4
    manager.start()
    manager.remove()
    assert scm.services == {}
    assert scm.sources == set()


def test_a_service_that_ends_while_it_starts(scm):
    manager = windows.WindowsManager()
    manager.install(PROGRAM)
    scm.after_start = (STOPPED, 0, 1067)
    with pytest.raises(Unavailable, match=r"ended while it started: .*\(1067\)"):
        manager.start()


def test_a_service_that_hangs(scm, monkeypatch):
    manager = windows.WindowsManager()
    manager.install(PROGRAM)
    monkeypatch.setattr(windows, "START_TIME", 0.05)
    monkeypatch.setattr(windows, "STOP_TIME", 0.05)
    scm.after_start = (START_PENDING, 42, 0)
    with pytest.raises(Unavailable, match="does not run after"):
        manager.start()
    scm.busy = 10**9
    with pytest.raises(Unavailable, match=r"\(process 42\) does not stop within"):
        manager.stop()


def test_containerd_is_restarted_with_what_depends_on_it(scm, monkeypatch):
    for name in ("containerd", "kubelet", "agent"):
        scm.create_service(name, name, name)
    with pytest.raises(NotImplementedHere):
        monkeypatch.setattr(restart.os, "name", "posix")
        restart.restart("containerd")
    scm.calls.clear()
    monkeypatch.setattr(restart.os, "name", "nt")
    assert restart.restart("containerd") == ["kubelet", "agent", "containerd"]
    assert scm.calls == [
        *("stop kubelet", "stop agent", "stop containerd"),
        *("start containerd", "start agent", "start kubelet"),
    ]
    monkeypatch.setattr(restart, "TIME", 0.05)
    scm.after_start = (START_PENDING, 0, 0)
    with pytest.raises(Unavailable, match="the service containerd does not start within"):
        restart.restart("containerd")
