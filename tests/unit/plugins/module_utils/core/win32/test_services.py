# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test services and events with a DLL that remembers calls. tests/wine/service_cases.py makes the calls."""

from __future__ import annotations

import ctypes

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import dispatcher, eventlog, services
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32.errors import Win32Error


@pytest.fixture
def calls(monkeypatch):
    """Record the calls of services.DLL. ``calls.codes`` has the error codes of exports that fail."""

    class Calls(list):
        codes = {}

        def named(self, name):
            return [arguments for called, *arguments in self if called == name]

    made = Calls()
    made.codes = {}

    def call(export, *arguments):
        made.append((export, *arguments))
        made.last = made.codes.get(export, 0)
        return 0 if made.last else 1

    monkeypatch.setattr(services.DLL, "call", call)
    monkeypatch.setattr(services, "last_error", lambda: made.last)
    return made


def test_a_service_is_created_to_start_with_windows(calls):
    services.create_service("name", "title", '"program" x')
    ((_manager, *arguments),) = calls.named("CreateServiceW")
    # All access is not asked for; own process, automatic start, errors are logged; no group, dependencies, account.
    assert arguments == ["name", "title", 0, 0x10, 2, 1, '"program" x', None, None, None, None, None]
    assert len(calls.named("CloseServiceHandle")) == 2


def test_a_service_is_changed_in_place(calls):
    services.change_service("name", "title", '"program" y')
    ((_service, *arguments),) = calls.named("ChangeServiceConfigW")
    unchanged = 0xFFFFFFFF
    assert arguments == [unchanged, 2, unchanged, '"program" y', None, None, None, None, None, "title"]
    assert calls.named("OpenServiceW")[0][1:] == ["name", 0x2]


def test_recovery_needs_the_right_to_start(calls, monkeypatch):
    written = {}

    def change(_name, _service, level, value):
        if level == 2:
            written["actions"] = [
                (value.lpsaActions[n].Type, value.lpsaActions[n].Delay) for n in range(value.cActions)
            ]
            written["reset"] = value.dwResetPeriod
        else:
            written["flag"] = (level, value.value)

    monkeypatch.setattr(services, "_change", change)
    services.set_recovery("name", services.Recovery((1000, 5000, 30000), 86400, True))
    assert written == {"actions": [(1, 1000), (1, 5000), (1, 30000)], "reset": 86400, "flag": (4, 1)}
    assert calls.named("OpenServiceW")[0][1:] == ["name", 0x2 | 0x10]


def test_recovery_is_read(calls, monkeypatch):
    actions = (services.Action * 2)(services.Action(1, 1000), services.Action(0, 5))
    found = services.FailureActions(60, None, None, 2, ctypes.cast(actions, ctypes.POINTER(services.Action)))
    answers = {2: found, 4: ctypes.c_int32(1)}

    def query(_name, _service, level):
        return ctypes.create_string_buffer(bytes(answers[level]), 8192)

    monkeypatch.setattr(services, "_query", query)
    assert services.get_recovery("name") == services.Recovery((1000,), 60, True)


@pytest.mark.parametrize(
    ("function", "export", "harmless"),
    [
        (services.start_service, "StartServiceW", 1056),
        (services.stop_service, "ControlService", 1062),
        (services.delete_service, "DeleteService", 1072),
    ],
)
def test_what_is_already_done_is_not_an_error(calls, function, export, harmless):
    calls.codes[export] = harmless
    function("name")
    calls.codes[export] = 5
    with pytest.raises(Win32Error) as caught:
        function("name")
    assert (caught.value.winerror, caught.value.details["advice"]) == (5, "Run the task as an elevated administrator.")
    assert "of the service name" in caught.value.message
    # Two handles for each of the two.
    assert len(calls.named("CloseServiceHandle")) == 4


def test_a_service_that_starts_cannot_be_asked_to_stop(calls):
    assert services.stop_service("name")
    calls.codes["ControlService"] = 1061
    assert not services.stop_service("name")


def test_no_service(calls):
    calls.codes["OpenServiceW"] = 1060
    assert services.find_service("name") is None
    calls.codes["OpenServiceW"] = 5
    with pytest.raises(Win32Error):
        services.find_service("name")
    calls.codes = {"OpenSCManagerW": 5}
    with pytest.raises(Win32Error, match="OpenSCManager"):
        services.create_service("name", "title", "program")


# -- the service itself ------------------------------------------------------------------------------------------------


@pytest.fixture
def control(monkeypatch):
    """A control, and the words that it said: state, accepted controls, exit codes, checkpoint and hint."""
    said, stops = [], []

    def call(export, *arguments):
        if export == "SetServiceStatus":
            status = arguments[1]._obj
            said.append(tuple(getattr(status, name) for name, _kind in status._fields_[1:]))
        return 7

    monkeypatch.setattr(dispatcher.DLL, "call", call)
    made = dispatcher.Control("", lambda: stops.append(1))
    made.said, made.stops = said, stops
    return made


def test_the_words_of_a_service(control):
    control.pending(30)
    control.pending(30)
    control.running()
    control.pending(30)
    assert control._handle(4, 0, None, None) == 0
    assert control._handle(200, 0, None, None) == 120
    assert control._handle(1, 0, None, None) == 0
    control.running()
    control.pending(30)
    assert control._handle(5, 0, None, None) == 0
    control.stopped()
    control.stopped()
    control.pending(30)
    assert control.said == [
        (2, 0, 0, 0, 1, 30000),
        (2, 0, 0, 0, 2, 30000),
        # Running: it accepts stop and shutdown.
        (4, 5, 0, 0, 0, 0),
        (3, 0, 0, 0, 1, 30000),
        (3, 0, 0, 0, 2, 30000),
        (1, 0, 0, 0, 0, 0),
    ]
    assert control.stops == [1]


def test_an_own_exit_code(control):
    control.stopped(3)
    assert control.said == [(1, 0, 1066, 3, 0, 0)]


def test_an_error_does_not_leave_the_handler(control, monkeypatch, caplog):
    monkeypatch.setattr(control, "_stop", lambda: 1 / 0)
    control.running()
    assert control._handle(1, 0, None, None) == 0
    assert "the request 1 of the manager failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_service_stops_although_windows_does_not_take_the_word(control, monkeypatch, caplog):
    control.running()
    monkeypatch.setattr(dispatcher.DLL, "call", lambda *_: 0)
    assert control._handle(1, 0, None, None) == 0
    assert control.stops == [1]
    assert "SetServiceStatus" in caplog.text


def test_a_process_that_is_not_a_service(monkeypatch):
    monkeypatch.setattr(dispatcher.DLL, "call", lambda *_: 0)
    monkeypatch.setattr(dispatcher, "last_error", lambda: 1063)
    assert not dispatcher.run(lambda: None)
    monkeypatch.setattr(dispatcher, "last_error", lambda: 5)
    with pytest.raises(Win32Error):
        dispatcher.run(lambda: None)


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("fe80::1%1 is 100 % full", "fe80::1%%1 is 100 %% full"),
        ("a\0b", "a\\0b"),
        ("x" * 30000, "x" * 30000),
        ("x" * 30001, "x" * 29997 + "..."),
        ("x" * 29996 + "%%%%", "x" * 29996 + "..."),
        ("x" * 29995 + "%%%%", "x" * 29995 + "%%..."),
    ],
)
def test_texts_are_shown_as_they_are(text, escaped):
    assert eventlog.escape(text) == escaped


def test_an_event(monkeypatch):
    made = []

    def call(export, *arguments):
        made.append((export, arguments[9 - 2][0] if export == "ReportEventW" else None, arguments))
        return 1

    monkeypatch.setattr(eventlog.DLL, "call", call)
    eventlog.report("source", eventlog.ERROR, 4, "100%")
    (register, report, end) = made
    assert register[2] == (None, "source")
    assert (report[1], report[2][1:4], report[2][5]) == ("100%%", (1, 0, 4), 1)
    assert end[0] == "DeregisterEventSource"
    with pytest.raises(InvalidArgument, match="is not from 1 to 1000"):
        eventlog.report("source", eventlog.ERROR, 1001, "")
    monkeypatch.setattr(eventlog.DLL, "call", lambda export, *_: export != "ReportEventW")
    monkeypatch.setattr(eventlog, "last_error", lambda: 1500)
    with pytest.raises(Win32Error, match="ReportEvent source"):
        eventlog.report("source", eventlog.ERROR, 4, "x")


@pytest.mark.posix
def test_other_systems_have_no_registry():
    with pytest.raises(OSError, match="only Windows"):
        eventlog.register("source")
