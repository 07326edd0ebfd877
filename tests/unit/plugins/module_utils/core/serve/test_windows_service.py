# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the log of the service, and what surrounds the server in a service of Windows."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import threading

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import protection
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve import logs, main, windows_service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import eventlog
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store


@pytest.fixture
def restored(monkeypatch):
    """Put back what the service changes in its process: that of the log, and that of ``main.open_server``."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    threshold, interval, umask = gc.get_threshold(), sys.getswitchinterval(), os.umask(0o022)
    os.umask(umask)
    for name in ("TEMP", "TMP"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(logs.faulthandler, "enable", lambda _file: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)
    os.umask(umask)


def test_the_log_is_protected_and_rotated(tmp_path, monkeypatch, restored):
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    path = tmp_path / "logs" / "service.log"
    logs.start(str(path), "warning")
    assert protection.is_protected(str(path.parent))
    log = logging.getLogger("test")
    log.info("not this")
    for number in range(100):
        log.warning("line %d %s", number, "x" * 100)
    names = sorted(name for name in os.listdir(path.parent) if name.startswith("service"))
    assert names == ["service.log", *(f"service.log.{number}" for number in range(1, 6))]
    text = path.read_text(encoding="utf-8")
    assert text.endswith(f"WARNING line 99 {'x' * 100}\n")
    assert "not this" not in text


def test_a_log_that_another_program_has_open_grows_on(tmp_path, monkeypatch, restored):
    monkeypatch.setattr(logs, "MAX_BYTES", 200)
    path = tmp_path / "logs" / "service.log"
    logs.start(str(path))
    attempts = []

    def refuse(*paths):
        attempts.append(paths)
        raise PermissionError(13, "in use", paths[0])

    monkeypatch.setattr(os, "rename", refuse)
    log = logging.getLogger("test")
    for number in range(20):
        log.info("line %d", number)
    assert path.read_text(encoding="utf-8").count("line") == 20
    # It is not tried again with each line.
    assert len(attempts) == 1


def test_a_thread_that_fails_is_logged(tmp_path, restored):
    path = tmp_path / "logs" / "service.log"
    logs.start(str(path))
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    assert "the thread worker ended by a defect of the service" in path.read_text(encoding="utf-8")
    assert "ZeroDivisionError" in path.read_text(encoding="utf-8")


# -- the service of Windows --------------------------------------------------------------------------------------------


class Exit(BaseException):
    """Instead of the end of the process."""


class Control:
    """What the service says to the manager."""

    def __init__(self, said, stop):
        self.said, self.stop = said, stop

    def pending(self, _seconds):
        if self.said[-1:] != ["pending"]:
            self.said.append("pending")

    def running(self):
        self.said.append("running")
        self.stop()

    def stopped(self):
        self.said.append("stopped")


@pytest.fixture
def service(tmp_path, monkeypatch, restored):
    """Run the service once. Return what it said, the events, and the exit code of its process."""

    def run(address="", report=None):
        said, events, codes = [], [], []

        def leave(code):
            codes.append(code)
            raise Exit

        monkeypatch.setattr(windows_service.dispatcher, "Control", lambda _name, stop: Control(said, stop))
        monkeypatch.setattr(windows_service.os, "_exit", leave)
        monkeypatch.setattr(eventlog, "report", report or (lambda *event: events.append(event)))
        options = {
            "--service": "wcow-test",
            "--address": address or str(tmp_path / "socket"),
            "--root": str(tmp_path / "root"),
            "--layers": "emulated",
            "--version": "1.0.0",
            "--log": str(tmp_path / "logs" / "service.log"),
        }
        process = windows_service._Process([text for pair in options.items() for text in pair])
        try:
            process.run()
        except Exit:
            pass
        return said, [(event[1], event[2], event[3]) for event in events], codes

    return run


@pytest.mark.posix
def test_a_service_says_when_it_runs_and_when_it_has_stopped(service, tmp_path):
    said, events, codes = service()
    assert (said, codes) == (["pending", "running", "stopped"], [])
    assert [event[:2] for event in events] == [(4, 1), (4, 2)]
    assert events[0][2].startswith("The proxy snapshotter 1.0.0 serves ")
    assert not (tmp_path / "logs" / "running").exists()


@pytest.mark.posix
def test_a_service_that_cannot_start_ends_without_a_word(service, tmp_path):
    """Only then does Windows restart it, whatever its settings are."""
    said, events, codes = service("relative")
    assert (said, codes) == (["pending"], [1])
    ((kind, event, text),) = events
    assert (kind, event) == (1, 3)
    assert text.startswith("The proxy snapshotter cannot start: 'relative' is not an absolute path")
    assert "ERROR cannot start: " in (tmp_path / "logs" / "service.log").read_text()
    assert not (tmp_path / "logs" / "running").exists()


@pytest.mark.posix
def test_a_service_that_fails_leaves_a_mark_for_the_next_start(service, tmp_path, monkeypatch):
    def fail(_server):
        raise RuntimeError("out of order 100%")

    with monkeypatch.context() as patched:
        patched.setattr(main.Server, "serve", fail)
        said, events, codes = service()
    assert (said, codes) == (["pending", "running"], [1])
    assert events[-1] == (1, 4, "The proxy snapshotter failed: RuntimeError: out of order 100%")
    assert (tmp_path / "logs" / "running").exists()
    _said, events, codes = service(str(tmp_path / "other"))
    assert [event[:2] for event in events] == [(2, 5), (4, 1), (4, 2)]
    assert "did not stop the last time" in events[0][2]
    assert codes == []


@pytest.mark.posix
def test_an_event_log_that_cannot_be_written_does_not_stop_the_service(service):
    def refuse(*_):
        raise FailedPrecondition("no event log")

    said, _events, codes = service(report=refuse)
    assert (said, codes) == (["pending", "running", "stopped"], [])


def test_missing_streams_are_replaced(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    windows_service._replace_streams()
    assert sys.stdin.read() == ""
    print("nothing", file=sys.stderr)
    print("nothing")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


@pytest.mark.posix
def test_temporary_files_are_on_the_volume_of_the_store(tmp_path, monkeypatch):
    """vmcompute.dll extracts layers in the directory that TEMP names."""
    monkeypatch.setenv("TEMP", "before")
    monkeypatch.setenv("TMP", "before")
    root = tmp_path / "root"
    options = main.parse(["--address", str(tmp_path / "socket"), "--root", str(root), "--layers", "emulated"])
    main._use_volume_of(options)
    assert os.environ["TEMP"] == "before"
    assert not root.exists()
    with contextlib.closing(open_store(str(root))) as store:
        store.prepare("a")
    main._use_volume_of(options)
    assert protection.is_protected(str(root / "transport"))
    assert (os.environ["TEMP"], os.environ["TMP"]) == (str(root / "transport"),) * 2
