# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Services and processes of this node.

If the environment variable ``WCOW_EMULATED_SERVICES`` names a file, that file describes them, as on a lab node. It is
JSON::

    {"services": {"containerd": {"command_line": "C:\\containerd.exe --run-service", "is_running": true}},
     "processes": {"4242": "C:\\containerd.exe --config C:\\config.toml"}}

Both keys are optional. A file that is not JSON is an error (FailedPrecondition). Without the variable, a host that is
not Windows has no services, and its processes are not looked at.
"""

from __future__ import annotations

import json
import ntpath
import os
import sys
from typing import Any, Dict, Iterator, NamedTuple, Optional

from ..errors import FailedPrecondition
from ..formats import commandline

VARIABLE = "WCOW_EMULATED_SERVICES"


class Program(NamedTuple):
    """A service or a process: its name for users, the command line of its process, and whether it runs.

    The command line is empty if it is not known, because the service runs a wrapper.
    """

    name: str
    command_line: str
    is_running: bool


def find_service(name: str, program: str) -> Optional[Program]:
    """Return the service with a name; None if there is none.

    The service starts ``program``, for example ``containerd.exe``, or a wrapper that does. Of nssm, the command line is
    known: it is in the values ``Application`` and ``AppParameters`` of the registry key ``Parameters`` of the service.
    On Windows, raises Win32Error.
    """
    title = f"service {name}"
    if VARIABLE in os.environ:
        service = _emulated("services").get(name)
        return service and Program(title, service["command_line"], service["is_running"])
    if sys.platform == "win32":
        import winreg

        from ..win32 import services

        found = services.find_service(name)
        if found is None:
            return None
        possible = (winreg.ExpandEnvironmentStrings(found.command_line), _wrapped_command_line(name))
        command_line = next((each for each in possible if _runs(each, program)), "")
        return Program(title, command_line, found.is_running)
    return None


def find_processes(program: str) -> Iterator[Program]:
    """Iterate over the processes that run a program, for example ``containerd.exe``. On Windows, raises Win32Error."""
    if VARIABLE in os.environ:
        for number, command_line in _emulated("processes").items():
            if _runs(command_line, program):
                yield Program(f"process {number}", command_line, True)
    elif sys.platform == "win32":
        from ..win32 import kernel32

        for process, name in kernel32.list_processes():
            if name.lower() == program.lower():
                command_line = _command_line(process)
                if command_line is not None:
                    yield Program(f"process {process}", command_line, True)


def _emulated(kind: str) -> Dict[str, Any]:
    path = os.environ[VARIABLE]
    try:
        with open(path, encoding="utf-8") as file:
            found: Dict[str, Any] = json.load(file).get(kind, {})
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"cannot read {path}, which {VARIABLE} names: {error}; correct the file") from None
    return found


def _runs(command_line: str, program: str) -> bool:
    arguments = commandline.split(command_line)
    return bool(arguments) and ntpath.basename(arguments[0]).lower() in {program.lower(), ntpath.splitext(program)[0]}


def _command_line(process: int) -> Optional[str]:
    """Return the command line of a process; None if the process has ended."""
    from ..win32 import kernel32, ntdll
    from ..win32.errors import ERROR_INVALID_PARAMETER, Win32Error

    try:
        opened = kernel32.open_process(process)
    except Win32Error as error:
        if error.winerror == ERROR_INVALID_PARAMETER:
            return None
        raise
    with opened:
        try:
            return ntdll.get_command_line(opened)
        except Win32Error as error:
            if error.details.get("ntstatus") == ntdll.STATUS_PROCESS_IS_TERMINATING:
                return None
            raise


def _wrapped_command_line(service: str) -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    path = rf"SYSTEM\CurrentControlSet\Services\{service}\Parameters"
    values = {}
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            for name in ("Application", "AppParameters"):
                values[name] = winreg.ExpandEnvironmentStrings(str(winreg.QueryValueEx(key, name)[0]))
    except FileNotFoundError:
        # Another kind of service, or one without parameters.
        pass
    application = values.get("Application")
    return f'"{application}" {values.get("AppParameters", "")}' if application else ""
