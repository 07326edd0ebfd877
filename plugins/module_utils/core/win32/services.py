# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Service Control Manager: find, create, change, start, stop and delete services (advapi32.dll).

Each function opens the service for what it does, and closes it again: a service that is deleted disappears when the
last handle is closed. All functions raise Win32Error.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .errors import ERROR_SERVICE_DOES_NOT_EXIST, Win32Error, call_error
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

#: States of a service (winsvc.h).
SERVICE_STOPPED = 1
SERVICE_START_PENDING = 2
SERVICE_STOP_PENDING = 3
SERVICE_RUNNING = 4

#: How a service starts (winnt.h).
SERVICE_AUTO_START = 2
SERVICE_DEMAND_START = 3
SERVICE_DISABLED = 4

ERROR_SERVICE_ALREADY_RUNNING = 1056
ERROR_SERVICE_CANNOT_ACCEPT_CTRL = 1061
ERROR_SERVICE_NOT_ACTIVE = 1062
ERROR_SERVICE_MARKED_FOR_DELETE = 1072

# winsvc.h, winnt.h
_SC_MANAGER_CONNECT = 0x1
_SC_MANAGER_CREATE_SERVICE = 0x2
_SERVICE_QUERY_CONFIG = 0x1
_SERVICE_CHANGE_CONFIG = 0x2
_SERVICE_QUERY_STATUS = 0x4
_SERVICE_ENUMERATE_DEPENDENTS = 0x8
_SERVICE_START = 0x10
_SERVICE_STOP = 0x20
_DELETE = 0x10000
_SERVICE_WIN32_OWN_PROCESS = 0x10
_SERVICE_ERROR_NORMAL = 1
_SERVICE_NO_CHANGE = 0xFFFFFFFF
_SERVICE_CONFIG_DESCRIPTION = 1
_SERVICE_CONFIG_FAILURE_ACTIONS = 2
_SERVICE_CONFIG_FAILURE_ACTIONS_FLAG = 4
_SC_ACTION_RESTART = 1
_SC_STATUS_PROCESS_INFO = 0
_SERVICE_CONTROL_STOP = 1
_SERVICE_ACTIVE = 1

# The largest answers of QueryServiceConfig and EnumDependentServices, in bytes.
_CONFIG_SIZE = 8192
_LIST_SIZE = 65536

_ADVICE: Dict[int, str] = {
    5: "Run the task as an elevated administrator.",
    1051: "Services that run depend on this one. Stop them first.",
    1053: "The service did not answer in time. See its log and the event log System.",
    1058: "The service is disabled. Set its start type to automatic.",
    1072: "The service is being deleted. Close services.msc and other programs, and run the task again.",
}


class ServiceConfig(ctypes.Structure):
    """QUERY_SERVICE_CONFIGW."""

    _fields_ = [
        ("dwServiceType", DWORD),
        ("dwStartType", DWORD),
        ("dwErrorControl", DWORD),
        ("lpBinaryPathName", LPCWSTR),
        ("lpLoadOrderGroup", LPCWSTR),
        ("dwTagId", DWORD),
        ("lpDependencies", PVOID),
        ("lpServiceStartName", LPCWSTR),
        ("lpDisplayName", LPCWSTR),
    ]


class ServiceStatusProcess(ctypes.Structure):
    """SERVICE_STATUS_PROCESS."""

    _fields_ = [
        ("dwServiceType", DWORD),
        ("dwCurrentState", DWORD),
        ("dwControlsAccepted", DWORD),
        ("dwWin32ExitCode", DWORD),
        ("dwServiceSpecificExitCode", DWORD),
        ("dwCheckPoint", DWORD),
        ("dwWaitHint", DWORD),
        ("dwProcessId", DWORD),
        ("dwServiceFlags", DWORD),
    ]


class EnumServiceStatus(ctypes.Structure):
    """ENUM_SERVICE_STATUSW; ``ServiceStatus`` is a SERVICE_STATUS."""

    _fields_ = [("lpServiceName", LPCWSTR), ("lpDisplayName", LPCWSTR), ("ServiceStatus", DWORD * 7)]


class Action(ctypes.Structure):
    """SC_ACTION: what to do after a failure, and after how many milliseconds."""

    _fields_ = [("Type", ctypes.c_int), ("Delay", DWORD)]


class FailureActions(ctypes.Structure):
    """SERVICE_FAILURE_ACTIONSW."""

    _fields_ = [
        ("dwResetPeriod", DWORD),
        ("lpRebootMsg", LPCWSTR),
        ("lpCommand", LPCWSTR),
        ("cActions", DWORD),
        ("lpsaActions", ctypes.POINTER(Action)),
    ]


DLL = Library(
    "advapi32.dll",
    "every Windows",
    {
        "ChangeServiceConfig2W": (BOOL, HANDLE, DWORD, PVOID),
        "ChangeServiceConfigW": (BOOL, HANDLE, DWORD, DWORD, DWORD, LPCWSTR, *[PVOID] * 5, LPCWSTR),
        "CloseServiceHandle": (BOOL, HANDLE),
        "ControlService": (BOOL, HANDLE, DWORD, PVOID),
        "CreateServiceW": (HANDLE, HANDLE, LPCWSTR, LPCWSTR, *[DWORD] * 4, LPCWSTR, *[PVOID] * 5),
        "DeleteService": (BOOL, HANDLE),
        "EnumDependentServicesW": (BOOL, HANDLE, DWORD, PVOID, DWORD, ctypes.POINTER(DWORD), ctypes.POINTER(DWORD)),
        "OpenSCManagerW": (HANDLE, LPCWSTR, LPCWSTR, DWORD),
        "OpenServiceW": (HANDLE, HANDLE, LPCWSTR, DWORD),
        "QueryServiceConfig2W": (BOOL, HANDLE, DWORD, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "QueryServiceConfigW": (BOOL, HANDLE, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "QueryServiceStatusEx": (BOOL, HANDLE, ctypes.c_int, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "StartServiceW": (BOOL, HANDLE, DWORD, PVOID),
    },
)


class Service(NamedTuple):
    """A service: the command line of its process, how it starts, its state, and its process (0 if it has none).

    Environment variables in the command line are not expanded. ``exit_code`` is a Win32 code; if that is 1066, it is
    the service's own code.
    """

    command_line: str
    start_type: int
    state: int
    process: int
    exit_code: int

    @property
    def is_running(self) -> bool:
        """Whether the service runs. A service that starts or stops does not."""
        return self.state == SERVICE_RUNNING


class Recovery(NamedTuple):
    """What Windows does after a failure: restarts, each after a number of milliseconds.

    After ``reset`` seconds without a failure, the next one is the first again. ``on_exit_code`` also counts a service
    that stops by itself with an exit code as failed, not only a process that ends without a word.
    """

    delays: Tuple[int, ...]
    reset: int
    on_exit_code: bool


def find_service(name: str) -> Optional[Service]:
    """Return the service with a name; None if there is none."""
    try:
        with _opened(name, _SERVICE_QUERY_CONFIG | _SERVICE_QUERY_STATUS) as service:
            config, _buffer = _query_config(service)
            status = _query_status(service)
    except Win32Error as error:
        if error.winerror == ERROR_SERVICE_DOES_NOT_EXIST:
            return None
        raise
    specific = status.dwWin32ExitCode == 1066  # ERROR_SERVICE_SPECIFIC_ERROR
    exit_code = status.dwServiceSpecificExitCode if specific else status.dwWin32ExitCode
    line = config.lpBinaryPathName or ""
    return Service(line, config.dwStartType, status.dwCurrentState, status.dwProcessId, exit_code)


def create_service(name: str, title: str, command_line: str) -> None:
    """Create a service of LocalSystem that starts with Windows. ``title`` is its display name."""
    with _manager(_SC_MANAGER_CONNECT | _SC_MANAGER_CREATE_SERVICE) as manager:
        value = DLL.call(
            "CreateServiceW",
            manager,
            name,
            title,
            0,
            _SERVICE_WIN32_OWN_PROCESS,
            SERVICE_AUTO_START,
            _SERVICE_ERROR_NORMAL,
            command_line,
            *[None] * 5,
        )
        if not value:
            raise _error("CreateService", name)
        DLL.call("CloseServiceHandle", value)


def change_service(name: str, title: str, command_line: str) -> None:
    """Set display name and command line, and that the service starts with Windows. Valid from its next start."""
    with _opened(name, _SERVICE_CHANGE_CONFIG) as service:
        arguments = (_SERVICE_NO_CHANGE, SERVICE_AUTO_START, _SERVICE_NO_CHANGE, command_line, *[None] * 5, title)
        _check(name, "ChangeServiceConfigW", service, *arguments)


def set_description(name: str, text: str) -> None:
    """Set the description that services.msc shows."""
    with _opened(name, _SERVICE_CHANGE_CONFIG) as service:
        # SERVICE_DESCRIPTIONW: one pointer to the text.
        _change(name, service, _SERVICE_CONFIG_DESCRIPTION, ctypes.c_wchar_p(text))


def set_recovery(name: str, recovery: Recovery) -> None:
    """Set what Windows does after a failure of the service."""
    actions = (Action * len(recovery.delays))(*[Action(_SC_ACTION_RESTART, delay) for delay in recovery.delays])
    wanted = FailureActions(recovery.reset, None, None, len(actions), ctypes.cast(actions, ctypes.POINTER(Action)))
    # Actions that restart a service need the right to start it.
    with _opened(name, _SERVICE_CHANGE_CONFIG | _SERVICE_START) as service:
        _change(name, service, _SERVICE_CONFIG_FAILURE_ACTIONS, wanted)
        _change(name, service, _SERVICE_CONFIG_FAILURE_ACTIONS_FLAG, BOOL(recovery.on_exit_code))


def get_recovery(name: str) -> Recovery:
    """Return what Windows does after a failure of the service. Actions other than restarts count as none."""
    with _opened(name, _SERVICE_QUERY_CONFIG) as service:
        buffer = _query(name, service, _SERVICE_CONFIG_FAILURE_ACTIONS)
        found = FailureActions.from_buffer(buffer)
        actions: List[Action] = [found.lpsaActions[number] for number in range(found.cActions)]
        delays = tuple(action.Delay for action in actions if action.Type == _SC_ACTION_RESTART)
        flag = BOOL.from_buffer(_query(name, service, _SERVICE_CONFIG_FAILURE_ACTIONS_FLAG))
        return Recovery(delays, found.dwResetPeriod, bool(flag.value))


def list_dependents(name: str) -> List[str]:
    """Return the names of the running services that depend on a service, in the order in which they can be stopped."""
    with _opened(name, _SERVICE_ENUMERATE_DEPENDENTS) as service:
        buffer, needed, count = ctypes.create_string_buffer(_LIST_SIZE), DWORD(), DWORD()
        arguments = (_SERVICE_ACTIVE, buffer, len(buffer), ctypes.byref(needed), ctypes.byref(count))
        _check(name, "EnumDependentServicesW", service, *arguments)
        entries = (EnumServiceStatus * count.value).from_buffer(buffer) if count.value else ()
        return [entry.lpServiceName for entry in entries]


def start_service(name: str) -> None:
    """Ask for the start of a service; ``find_service`` tells when it runs. Nothing happens if it runs already."""
    with _opened(name, _SERVICE_START) as service:
        _check(name, "StartServiceW", service, 0, None, unless=ERROR_SERVICE_ALREADY_RUNNING)


def stop_service(name: str) -> bool:
    """Ask a service to stop; ``find_service`` tells when it has. Nothing happens if it does not run.

    Return False if it cannot be asked now, because it starts or stops.
    """
    with _opened(name, _SERVICE_STOP) as service:
        status = (DWORD * 7)()
        try:
            _check(name, "ControlService", service, _SERVICE_CONTROL_STOP, status, unless=ERROR_SERVICE_NOT_ACTIVE)
        except Win32Error as error:
            if error.winerror == ERROR_SERVICE_CANNOT_ACCEPT_CTRL:
                return False
            raise
    return True


def delete_service(name: str) -> None:
    """Delete a service. It disappears when it has stopped and no program has it open."""
    with _opened(name, _DELETE) as service:
        _check(name, "DeleteService", service, unless=ERROR_SERVICE_MARKED_FOR_DELETE)


# -- handles and errors ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _manager(access: int) -> Iterator[HANDLE]:
    value = DLL.call("OpenSCManagerW", None, None, access)
    if not value:
        raise _error("OpenSCManager", "")
    try:
        yield HANDLE(value)
    finally:
        DLL.call("CloseServiceHandle", value)


@contextlib.contextmanager
def _opened(name: str, access: int) -> Iterator[HANDLE]:
    with _manager(_SC_MANAGER_CONNECT) as manager:
        value = DLL.call("OpenServiceW", manager, name, access)
        if not value:
            raise _error("OpenService", name)
        try:
            yield HANDLE(value)
        finally:
            DLL.call("CloseServiceHandle", value)


def _query_config(service: HANDLE) -> Tuple[ServiceConfig, Any]:
    """Return the configuration, and the buffer that has its texts."""
    buffer, needed = ctypes.create_string_buffer(_CONFIG_SIZE), DWORD()
    _check("", "QueryServiceConfigW", service, buffer, len(buffer), ctypes.byref(needed))
    return ServiceConfig.from_buffer(buffer), buffer


def _query_status(service: HANDLE) -> ServiceStatusProcess:
    status, needed = ServiceStatusProcess(), DWORD()
    arguments = (_SC_STATUS_PROCESS_INFO, ctypes.byref(status), ctypes.sizeof(status), ctypes.byref(needed))
    _check("", "QueryServiceStatusEx", service, *arguments)
    return status


def _query(name: str, service: HANDLE, level: int) -> Any:
    buffer, needed = ctypes.create_string_buffer(_CONFIG_SIZE), DWORD()
    _check(name, "QueryServiceConfig2W", service, level, buffer, len(buffer), ctypes.byref(needed))
    return buffer


def _change(name: str, service: HANDLE, level: int, value: Any) -> None:
    _check(name, "ChangeServiceConfig2W", service, level, ctypes.byref(value))


def _check(name: str, export: str, *native: Any, unless: int = 0) -> None:
    """Call an export. Raises Win32Error if it fails, except with the code ``unless``."""
    if not DLL.call(export, *native):
        error = _error(export.removesuffix("W"), name)
        if not unless or error.winerror != unless:
            raise error


def _error(call: str, name: str) -> Win32Error:
    error = call_error(call, last_error(), name and f"of the service {name}")
    if error.winerror in _ADVICE:
        error.details.setdefault("advice", _ADVICE[error.winerror])
    return error
