# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's side of the Service Control Manager: run this process as a Windows service (advapi32.dll).

The manager waits 30 seconds for a new process to call ``run``, so a program imports little before. It calls the main
function in a thread of its own, and the handler while no other service of the host can start or stop.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any, Callable

from .errors import call_error
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

#: States (winsvc.h).
STOPPED = 1
START_PENDING = 2
STOP_PENDING = 3
RUNNING = 4

#: GetLastError of ``run`` in a process that the manager did not start.
ERROR_FAILED_SERVICE_CONTROLLER_CONNECT = 1063

# winsvc.h, winerror.h
_OWN_PROCESS = 0x10
_ACCEPT_STOP = 0x1
_ACCEPT_SHUTDOWN = 0x4
_CONTROL_STOP = 1
_CONTROL_INTERROGATE = 4
_CONTROL_SHUTDOWN = 5
_NO_ERROR = 0
_ERROR_CALL_NOT_IMPLEMENTED = 120
_ERROR_SERVICE_SPECIFIC_ERROR = 1066

if sys.platform == "win32":
    _FUNCTION = ctypes.WINFUNCTYPE
else:
    # The layouts are the same, so that their tests run everywhere.
    _FUNCTION = ctypes.CFUNCTYPE

_MAIN = _FUNCTION(None, DWORD, PVOID)
_HANDLER = _FUNCTION(DWORD, DWORD, DWORD, PVOID, PVOID)


class ServiceStatus(ctypes.Structure):
    """SERVICE_STATUS."""

    _fields_ = [
        ("dwServiceType", DWORD),
        ("dwCurrentState", DWORD),
        ("dwControlsAccepted", DWORD),
        ("dwWin32ExitCode", DWORD),
        ("dwServiceSpecificExitCode", DWORD),
        ("dwCheckPoint", DWORD),
        ("dwWaitHint", DWORD),
    ]


class TableEntry(ctypes.Structure):
    """SERVICE_TABLE_ENTRYW."""

    _fields_ = [("lpServiceName", LPCWSTR), ("lpServiceProc", _MAIN)]


DLL = Library(
    "advapi32.dll",
    "every Windows",
    {
        "RegisterServiceCtrlHandlerExW": (HANDLE, LPCWSTR, _HANDLER, PVOID),
        "SetServiceStatus": (BOOL, HANDLE, ctypes.POINTER(ServiceStatus)),
        "StartServiceCtrlDispatcherW": (BOOL, ctypes.POINTER(TableEntry)),
    },
)


class Control:
    """What a running service tells the manager. ``stop`` is called once when the service has to stop; it returns soon.

    The methods raise Win32Error.
    """

    def __init__(self, name: str, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._lock = threading.Lock()
        self._state = START_PENDING
        self._checkpoint = 0
        # Windows calls it as long as the process lives.
        self._handler = _HANDLER(self._handle)
        self._handle_value = DLL.call("RegisterServiceCtrlHandlerExW", name, self._handler, None)
        if not self._handle_value:
            raise call_error("RegisterServiceCtrlHandlerEx", last_error(), name)

    def pending(self, seconds: float) -> None:
        """Say that the start or the stop goes on, and that the next word comes within these seconds."""
        with self._lock:
            if self._state in (START_PENDING, STOP_PENDING):
                self._checkpoint += 1
                self._say(0, 0, seconds)

    def running(self) -> None:
        """Say that the service does its work. After a request to stop, nothing happens."""
        with self._lock:
            if self._state == START_PENDING:
                self._state, self._checkpoint = RUNNING, 0
                self._say(_ACCEPT_STOP | _ACCEPT_SHUTDOWN, 0, 0.0)

    def stopped(self, code: int = 0) -> None:
        """Say that the service has ended; ``code`` is its own, 0 for success. It is the last act of the process.

        Windows can end the process at any moment after it.
        """
        with self._lock:
            if self._state != STOPPED:
                self._state, self._checkpoint = STOPPED, 0
                self._say(0, code, 0.0)

    def _handle(self, control: int, _kind: int, _data: Any, _context: Any) -> int:
        try:
            if control in (_CONTROL_STOP, _CONTROL_SHUTDOWN):
                self._begin_stop()
            elif control != _CONTROL_INTERROGATE:
                return _ERROR_CALL_NOT_IMPLEMENTED
        except BaseException as error:
            import logging

            logging.getLogger(__name__).error("the request %d of the manager failed", control, exc_info=error)
        return _NO_ERROR

    def _begin_stop(self) -> None:
        with self._lock:
            if self._state not in (START_PENDING, RUNNING):
                return
            self._state, self._checkpoint = STOP_PENDING, 1
            try:
                self._say(0, 0, 30.0)
            finally:
                # The service has to stop, whether or not Windows takes the word.
                self._stop()

    def _say(self, accepted: int, code: int, seconds: float) -> None:
        general = _ERROR_SERVICE_SPECIFIC_ERROR if code else _NO_ERROR
        status = ServiceStatus(
            _OWN_PROCESS, self._state, accepted, general, code, self._checkpoint, int(seconds * 1000)
        )
        if not DLL.call("SetServiceStatus", self._handle_value, ctypes.byref(status)):
            raise call_error("SetServiceStatus", last_error())


def run(main: Callable[[], None]) -> bool:
    """Run ``main`` as a Windows service, in another thread. Return when the service has said that it has stopped.

    Return False, without running anything, in a process that the manager did not start. Raises Win32Error.
    """
    entry = _MAIN(lambda _count, _arguments: main())
    # Of the only service of a process, Windows ignores the name.
    table = (TableEntry * 2)(TableEntry("", entry), TableEntry(None, _MAIN()))
    if DLL.call("StartServiceCtrlDispatcherW", table):
        return True
    code = last_error()
    if code == ERROR_FAILED_SERVICE_CONTROLLER_CONNECT:
        return False
    raise call_error("StartServiceCtrlDispatcher", code)
