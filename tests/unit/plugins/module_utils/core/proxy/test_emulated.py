# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the manager of lab nodes with the service itself, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import emulated, health, versions

pytestmark = pytest.mark.posix

NAME = "wcow-test"


@pytest.fixture
def manager(home):
    made = emulated.EmulatedManager(NAME, home)
    yield made
    made.remove()


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_life_of_a_service(manager, make_version, command, home):
    version = make_version()
    versions.write(home, version)
    assert manager.find() is None
    with pytest.raises(FailedPrecondition, match="there is no service"):
        manager.start()
    arguments = command(version)
    manager.install(arguments)
    assert manager.find() == (arguments, False, 0, [])
    manager.stop()

    process = manager.start()
    assert manager.find() == (arguments, True, process, [])
    # A second start changes nothing.
    assert manager.start() == process
    address = arguments[arguments.index("--address") + 1]
    found = health.wait_until_healthy(address, process, "1.0.0", 10, lambda: True)
    assert (found["process"], found["version"], found["calls"]) == (process, "1.0.0", 0)
    with pytest.raises(Unavailable, match=rf"the process {process} answers, with version 1.0.0"):
        health.wait_until_healthy(address, process, "2.0.0", 2, lambda: True)
    with pytest.raises(Unavailable, match=r"the process 1 has ended"):
        health.wait_until_healthy(address, 1, "1.0.0", 10, lambda: False)

    manager.stop()
    assert manager.find() == (arguments, False, 0, [])
    with open(os.path.join(home, "logs", "service.log"), encoding="utf-8") as file:
        assert file.read().splitlines()[-1].endswith("INFO stopped")
    manager.remove()
    assert manager.find() is None
    assert not os.path.exists(home + ".service")


def test_a_service_that_cannot_start(manager, make_version, command, home):
    version = make_version()
    versions.write(home, version)
    manager.install(command(version, address="relative"))
    with pytest.raises(Unavailable, match="ended while it started, with the exit code 1"):
        manager.start()
    assert "'relative' is not an absolute path" in versions.last_problem(os.path.join(home, "logs", "service.log"))
    os.chmod(os.path.join(home, version.name), 0o755)
    with pytest.raises(Unavailable, match="ended while it started"):
        manager.start()
    assert "other accounts can access" in versions.last_problem(os.path.join(home, "logs", "service.log"))


def test_a_killed_service_is_found_dead_and_starts_again(manager, make_version, command, home):
    version = make_version()
    versions.write(home, version)
    manager.install(command(version))
    process = manager.start()
    os.kill(process, signal.SIGKILL)
    until(lambda: manager.find().process == 0)
    assert not manager.find().is_running
    assert manager.start() != process


def test_a_service_ends_when_its_directory_is_deleted(manager, make_version, command, home):
    """That of a lab whose process was killed."""
    version = make_version()
    versions.write(home, version)
    manager.install(command(version))
    process = manager.start()
    os.rename(home + ".service", home + ".deleted")
    until(lambda: not is_alive(process))
    os.rename(home + ".deleted", home + ".service")


def is_alive(process):
    """Whether a child of this process runs. It is a child here, so it becomes a zombie."""
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        return file.read().rpartition(") ")[2][0] != "Z"


def test_no_other_process_gets_a_signal(manager, home):
    """The lock file names a process that does not hold the lock: the service has ended, and the number is reused."""
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    manager.install(["program"])
    with open(os.path.join(home + ".service", f"{NAME}.lock"), "w", encoding="ascii") as file:
        file.write(f"{other.pid} running")
    assert manager.find() == (["program"], False, 0, [])
    manager.stop()
    assert not manager._tell_to_stop(other.pid)
    assert other.poll() is None
    other.communicate(b"\n")
    assert other.returncode == 0


def test_a_record_that_cannot_be_read(manager, home):
    manager.install(["program"])
    path = os.path.join(home + ".service", f"{NAME}.json")
    assert emulated.recorded(home + ".service") == [NAME]
    with open(path, encoding="utf-8") as file:
        assert json.load(file) == {"arguments": ["program"]}
    with open(path, "w", encoding="utf-8") as file:
        file.write("{}")
    with pytest.raises(FailedPrecondition, match="remove the file"):
        manager.find()
    manager.install(["program"])


def test_a_program_that_no_manager_started():
    with pytest.raises(FailedPrecondition, match="not by hand"), emulated.serving(NAME):
        pass


def test_the_environment_of_the_task_is_not_that_of_the_service(manager, tmp_path, monkeypatch):
    seen = tmp_path / "environment"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\nenv > '{seen}'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("WCOW_SECRET", "1")
    manager.install([str(program)])
    with pytest.raises(Unavailable, match="with the exit code 3"):
        manager.start()
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "WCOW_EMULATED_SERVICE_DIRECTORY"}
    manager.install([str(tmp_path / "missing")])
    with pytest.raises(FailedPrecondition, match="cannot start"):
        manager.start()
