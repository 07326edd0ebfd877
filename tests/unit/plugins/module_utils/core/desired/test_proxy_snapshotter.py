# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the desired state of the proxy snapshotter with a service manager that only remembers."""

from __future__ import annotations

import os
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import discovery
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.configuration import ProxyPlugin
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.usage import Users
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired import proxy_configuration
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired import proxy_snapshotter as desired
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import versions
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.manager import State
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store

PIPE = r"\\.\pipe\wcow-snapshotter"


class Manager:
    """A service manager. The versions in ``failing`` end when they start."""

    module = "core.serve.emulated_service"

    def __init__(self):
        self.state = None
        self.calls = []
        self.failing = set()
        self.processes = 100

    def find(self):
        return self.state

    def install(self, arguments):
        self.calls.append("install")
        running, process = (self.state.is_running, self.state.process) if self.state else (False, 0)
        self.state = State(arguments, running, process, [])

    def start(self):
        self.calls.append("start")
        if self.version in self.failing:
            raise Unavailable("the service ended while it started")
        self.processes += 1
        self.state = self.state._replace(is_running=True, process=self.processes)
        return self.processes

    def stop(self):
        self.calls.append("stop")
        if self.state is not None:
            self.state = self.state._replace(is_running=False, process=0)

    def remove(self):
        self.calls.append("remove")
        self.state = None

    @property
    def version(self):
        return desired._settings(self.state)["--version"]


@pytest.fixture
def manager(monkeypatch):
    made = Manager()

    def ask(_address, *_rest):
        if not made.state.is_running:
            raise Unavailable("nothing answers")
        return {"process": made.state.process, "version": made.version}

    def wait(address, process, version, _seconds, _is_running):
        assert ask(address) == {"process": process, "version": version}
        return ask(address)

    monkeypatch.setattr(desired, "open_manager", lambda _home: made)
    monkeypatch.setattr(desired.health, "ask", ask)
    monkeypatch.setattr(desired.health, "wait_until_healthy", wait)

    def own_version(version, module):
        return versions.make_version(version, b"boot " + version.encode(), b"boot", module)

    monkeypatch.setattr(versions, "own_version", own_version)
    monkeypatch.setattr(desired, "count_users", lambda *_: Users(0, 0, 0))
    return made


@pytest.fixture
def ensure(store, manager, tmp_path):
    def run(state="present", version="1.0.0", dry_run=False, **options):
        opened = open_store(store.root, dry_run=True) if dry_run else store
        directory = str(tmp_path / "home")
        return desired.ensure_proxy_snapshotter(opened, state, version=version, directory=directory, **options)

    return run


def versions_in(tmp_path):
    return [name.partition("-")[0] for name in versions.list_versions(str(tmp_path / "home"))]


def test_it_is_installed_once(ensure, manager, store, tmp_path):
    planned = ensure(dry_run=True)
    assert (planned.changed, manager.calls, os.path.exists(tmp_path / "home")) == (True, [], False)
    done = ensure()
    assert done.result["actions"] == planned.result["actions"]
    assert [action.split()[0] for action in done.result["actions"]][-3:] == ["write", "create", "start"]
    assert manager.calls == ["install", "stop", "start"]
    assert done.result["service"] == {
        "name": "wcow-snapshotter",
        "running": True,
        "version": "1.0.0",
        "directory": str(tmp_path / "home" / os.listdir(tmp_path / "home")[0]),
        "pipe": PIPE,
        "root": store.root,
        "log": str(tmp_path / "home" / "logs" / "service.log"),
        "log_level": "info",
    }
    assert done.result["health"] == {"process": 101, "version": "1.0.0"}
    assert (done.result["previous_version"], done.result["downtime"]) == (None, None)
    assert done.result["diff"] == {"before": None, "after": done.result["service"]}

    again = ensure()
    assert (again.changed, again.result["actions"], again.result["health"]) == (False, [], done.result["health"])
    assert len(manager.calls) == 3


def test_an_upgrade_keeps_one_older_version(ensure, manager, tmp_path):
    ensure()
    done = ensure(version="1.1.0")
    assert [action.split()[0] for action in done.result["actions"]] == ["write", "change", "restart"]
    assert done.result["previous_version"] == "1.0.0"
    assert done.result["downtime"] >= 0
    assert manager.calls[-3:] == ["install", "stop", "start"]
    assert versions_in(tmp_path) == ["1.0.0", "1.1.0"]
    third = ensure(version="1.2.0")
    assert third.result["actions"][-1].startswith("remove version 1.0.0")
    assert versions_in(tmp_path) == ["1.1.0", "1.2.0"]
    assert not ensure(version="1.2.0").changed


def test_it_moves_to_another_python(ensure, manager, monkeypatch, tmp_path):
    """A running Python cannot be replaced. A task that runs with another one lets the service use it."""
    ensure()
    other = tmp_path / "second" / "python.exe"
    other.parent.mkdir(mode=0o700)
    other.symlink_to(sys.executable)
    monkeypatch.setattr(desired.sys, "executable", str(other))
    done = ensure()
    assert done.result["actions"] == ["change the service", "restart the service"]
    assert manager.state.arguments[0] == str(other)
    assert not ensure().changed


def test_a_version_that_does_not_run_gives_way_to_the_old_one(ensure, manager, tmp_path):
    ensure()
    before = manager.state
    (tmp_path / "home" / "logs").mkdir()
    (tmp_path / "home" / "logs" / "service.log").write_text("now ERROR cannot start: no right\n")
    manager.failing = {"1.1.0"}
    with pytest.raises(FailedPrecondition) as caught:
        ensure(version="1.1.0")
    assert caught.value.message == (
        "the proxy snapshotter does not run in version 1.1.0: the service ended while it started; its log says: "
        "cannot start: no right. The service runs version 1.0.0 again, as before"
    )
    assert manager.state == before._replace(process=102)
    assert not ensure().changed

    manager.failing = {"1.0.0", "1.1.0"}
    with pytest.raises(Unavailable, match=r"Version 1\.0\.0 does not run any more, either"):
        ensure(version="1.1.0")


def test_a_first_version_that_does_not_run(ensure, manager):
    manager.failing = {"1.0.0"}
    with pytest.raises(FailedPrecondition, match="the proxy snapshotter does not run: the service ended"):
        ensure()
    manager.failing = set()
    assert ensure().result["actions"] == ["start the service"]


@pytest.mark.parametrize(
    ("damage", "actions"),
    [
        (lambda manager, _home: manager.stop(), ["start the service"]),
        (lambda manager, _home: setattr(manager, "state", manager.state._replace(process=1)), []),
        (
            lambda manager, _home: setattr(manager, "state", manager.state._replace(settings=["it does not start"])),
            ["change the service", "restart the service"],
        ),
        (
            lambda _manager, home: next(home.glob("*/core.zip")).write_bytes(b"other"),
            ["write version", "restart the service"],
        ),
    ],
)
def test_what_is_not_as_wanted_is_corrected(ensure, manager, tmp_path, damage, actions):
    ensure()
    damage(manager, tmp_path / "home")
    done = ensure().result["actions"]
    assert [action[: len(wanted)] for action, wanted in zip(done, actions)] == actions
    assert len(done) == len(actions)
    assert not ensure().changed


def test_a_service_that_does_not_answer_is_restarted(ensure, manager, monkeypatch):
    ensure()
    answer = desired.health.ask

    def fail(*_):
        raise Unavailable("nothing answers")

    monkeypatch.setattr(desired.health, "ask", fail)
    assert ensure().result["actions"] == ["restart the service"]
    # Another program has the pipe.
    monkeypatch.setattr(desired.health, "ask", lambda *_: {"process": 1, "version": "1.0.0"})
    assert ensure(dry_run=True).result["actions"] == ["restart the service"]
    monkeypatch.setattr(desired.health, "ask", answer)
    assert not ensure().changed


def test_a_restart(ensure, manager):
    with pytest.raises(NotFound, match="there is no service wcow-snapshotter to restart"):
        ensure("restarted")
    ensure()
    assert ensure("restarted", dry_run=True).result["actions"] == ["restart the service"]
    done = ensure("restarted")
    assert (done.changed, done.result["actions"]) == (True, ["restart the service"])
    assert done.result["health"]["process"] == 102
    assert manager.calls[-2:] == ["stop", "start"]


def test_absent(ensure, manager, store, tmp_path, monkeypatch):
    assert not ensure("absent").changed
    ensure()
    monkeypatch.setattr(desired, "count_users", lambda *_: Users(3, 2, 1))
    with pytest.raises(
        FailedPrecondition,
        match=r"uses the snapshotter wcow: it has 3 snapshots and 2 containers of it in 1 namespaces",
    ) as caught:
        ensure("absent")
    assert caught.value.details == {"snapshotter": "wcow", "snapshots": 3, "containers": 2, "namespaces": 1}
    assert manager.state.is_running
    monkeypatch.setattr(desired, "count_users", lambda *_: Users(0, 0, 0))
    planned = ensure("absent", dry_run=True)
    assert manager.state.is_running
    done = ensure("absent")
    assert done.result["actions"] == planned.result["actions"] == ["remove the service", "remove its files"]
    assert (done.result["service"], done.result["health"]) == (None, None)
    assert done.result["previous_version"] == "1.0.0"
    assert manager.state is None
    assert not os.path.exists(tmp_path / "home")
    # Snapshots belong to the store.
    assert store.exists()
    assert not ensure("absent").changed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "there"}, "state 'there' is not one of present, absent, restarted"),
        ({"log_level": "loud"}, "log_level 'loud' is not one of"),
        ({"pipe": "/run/x.sock"}, "is not the name of a pipe"),
        ({"default_snapshotter": True}, "go with manage_configuration=true"),
        ({"restart_containerd": True}, "go with manage_configuration=true"),
    ],
)
def test_options_that_cannot_be_right(ensure, manager, options, message):
    with pytest.raises(InvalidArgument, match=message):
        ensure(**options)
    assert manager.calls == []


def test_a_directory_of_others_is_refused(ensure, manager, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("")
    with pytest.raises(FailedPrecondition, match=r"has notes.txt"):
        ensure()
    assert manager.calls == []
    done = ensure("absent")
    assert done.result["actions"] == ["remove its files"]
    assert (tmp_path / "home" / "notes.txt").exists()


def test_the_configuration_of_containerd(ensure, manager, monkeypatch, tmp_path):
    """It is planned before anything is changed, and written when the service serves."""
    config = tmp_path / "config.toml"
    config.write_text(
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.configs.x.auth]\npassword = "hunter2"\n'
    )
    found = discovery.find(discovery.Options(address="/run/none.sock", root=str(tmp_path)))._replace(
        config=str(config), program="process 1"
    )
    monkeypatch.setattr(proxy_configuration.discovery, "find", lambda *_: found)
    planned = ensure(dry_run=True, manage_configuration=True)
    assert planned.result["actions"][-2:] == [f"create {config}.wcow.bak", f"change {config}"]
    assert planned.result["restart_needed"]
    assert manager.calls == []
    done = ensure(manage_configuration=True, restart_containerd=True)
    assert done.result["actions"] == planned.result["actions"]
    assert f"address = '{PIPE}'" in config.read_text().replace('"', "'")
    assert done.result["configuration"]["files"] == [
        {"path": f"{config}.wcow.bak", "action": "create"},
        {"path": str(config), "action": "change"},
    ]
    assert done.result["configuration"]["verified"] is False
    assert "hunter2" not in repr(done.result)
    diff = done.result["diff"]
    assert any("wcow" in line for line in diff["after"]["configuration"][str(config)])
    assert diff["after"]["service"]["running"]
    assert not ensure(manage_configuration=True).changed
    gone = ensure("absent", manage_configuration=True)
    assert f"change {config}" in gone.result["actions"]
    assert "wcow" not in config.read_text()


@pytest.mark.parametrize(
    ("place", "comment", "remedy"),
    [
        ("", "", "; restart it"),
        ("agent/etc/containerd", "", "; restart the service rke2, which starts it"),
        ("", "# k0s_managed=true\n", "; k0s restarts it after a change of its directory; if it did not, restart k0s"),
    ],
)
def test_a_containerd_that_the_task_cannot_restart(ensure, store, place, comment, remedy, monkeypatch, tmp_path):
    config = tmp_path / place / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"{comment}version = 2\nimports = ['{tmp_path}/conf.d/*.toml']\n")
    (tmp_path / "conf.d").mkdir()
    found = discovery.find(discovery.Options(address="/run/none.sock", root=str(tmp_path)))
    monkeypatch.setattr(
        proxy_configuration.discovery, "find", lambda *_: found._replace(config=str(config), program="process 1")
    )
    ensure(manage_configuration=True, restart_containerd=True)
    (warning,) = store.warnings
    assert warning.startswith("containerd (process 1) does not know its new configuration yet")
    assert warning.endswith(remedy)


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """Return a function that sets what containerd's configuration says about snapshotters."""

    def configure(default="windows", runtimes=(), **addresses):
        found = discovery.find(discovery.Options(address="/run/none.sock", root=str(tmp_path)))
        plugins = {name: ProxyPlugin("snapshot", address) for name, address in addresses.items()}
        configuration = found.configuration._replace(
            snapshotter=default, runtime_snapshotters=dict(runtimes), proxy_plugins=plugins
        )
        found = found._replace(config="config.toml", configuration=configuration)
        monkeypatch.setattr(desired.discovery, "find", lambda *_: found)

    return configure


@pytest.mark.parametrize("user", [{"default": "ours"}, {"runtimes": {"runhcs": "ours"}}])
def test_a_service_that_new_pods_need_stays(ensure, configured, manager, user):
    """The configuration can give the service another name than the task."""
    ensure()
    configured(**user, ours="npipe:////./pipe/WCOW-snapshotter", other=r"\\.\pipe\other")
    with pytest.raises(FailedPrecondition, match=r"config.toml makes ours the snapshotter of new pods.*name=ours"):
        ensure("absent")
    assert manager.state.is_running


def test_records_under_each_name_of_the_service_are_counted(ensure, configured, manager, monkeypatch):
    ensure()
    configured(ours=PIPE)
    monkeypatch.setattr(desired, "count_users", lambda _root, name: Users(3 if name == "ours" else 0, 0, 1))
    with pytest.raises(FailedPrecondition, match="containerd uses the snapshotter ours: it has 3 snapshots"):
        ensure("absent")
    assert manager.state.is_running


def test_settings_that_stay_are_reported(ensure, configured, manager, store):
    ensure()
    configured(wcow=PIPE, other=r"\\.\pipe\other")
    ensure("absent")
    assert manager.state is None
    (warning,) = store.warnings
    assert warning.startswith("config.toml still names the snapshotter wcow; run the module proxy_snapshotter with")


def test_a_configuration_that_cannot_be_changed_stops_the_task(ensure, manager, monkeypatch, tmp_path):
    found = discovery.find(discovery.Options(address="/run/none.sock", root=str(tmp_path)))
    monkeypatch.setattr(proxy_configuration.discovery, "find", lambda *_: found._replace(config=str(tmp_path / "no")))
    with pytest.raises(FailedPrecondition, match="no containerd was found"):
        ensure(manage_configuration=True)
    assert manager.calls == []
    assert not os.path.exists(tmp_path / "home")


def test_a_difference_shows_what_changed_without_secrets():
    before = b"a\nb\npassword = 'x'\nc\nd\ne\nf\n"
    after = b"a\nb\npassword = 'x'\nnew\nc\nd\ne\ng\n"
    assert proxy_configuration.excerpts(before, after) == (
        ["password =...", "c", "...", "e", "f"],
        ["password =...", "new", "c", "...", "e", "g"],
    )
    assert proxy_configuration.excerpts(b"same", b"same") == ([], [])
