# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Windows event log: register a source, and report events to the log Application (advapi32.dll).

The texts of events come from EventCreate.exe, a program of Windows whose message table has the ids 1 to 1000, each with
one text that the event brings along.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any

from ..errors import InvalidArgument
from .errors import call_error
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

#: Kinds of events (winnt.h).
ERROR = 1
WARNING = 2
INFORMATION = 4

#: Characters that a text can have; the limit of ReportEvent is 31,839.
MAX_TEXT = 30_000

MESSAGES = r"%SystemRoot%\System32\EventCreate.exe"
_KEY = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
_ALL_TYPES = 7
_LARGEST_ID = 1000

DLL = Library(
    "advapi32.dll",
    "every Windows",
    {
        "DeregisterEventSource": (BOOL, HANDLE),
        "RegisterEventSourceW": (HANDLE, LPCWSTR, LPCWSTR),
        "ReportEventW": (
            BOOL,
            HANDLE,
            ctypes.c_uint16,
            ctypes.c_uint16,
            DWORD,
            PVOID,
            ctypes.c_uint16,
            DWORD,
            ctypes.POINTER(LPCWSTR),
            PVOID,
        ),
    },
)


def is_registered(source: str) -> bool:
    """Return True if the source has its message file. Raises OSError."""
    winreg = _registry()
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{_KEY}\{source}") as key:
            return bool(winreg.QueryValueEx(key, "EventMessageFile")[0] == MESSAGES)
    except FileNotFoundError:
        return False


def register(source: str) -> None:
    """Make a source known, so that viewers show the texts of its events. Raises OSError."""
    winreg = _registry()
    with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, rf"{_KEY}\{source}") as key:
        winreg.SetValueEx(key, "EventMessageFile", 0, winreg.REG_EXPAND_SZ, MESSAGES)
        winreg.SetValueEx(key, "TypesSupported", 0, winreg.REG_DWORD, _ALL_TYPES)


def unregister(source: str) -> None:
    """Remove what ``register`` made. Events that are in the log stay there. Raises OSError."""
    winreg = _registry()
    with contextlib.suppress(FileNotFoundError):
        winreg.DeleteKey(winreg.HKEY_LOCAL_MACHINE, rf"{_KEY}\{source}")


def report(source: str, kind: int, event: int, text: str) -> None:
    """Report an event. ``event`` is its id, 1 to 1000. Raises Win32Error, InvalidArgument for another id."""
    if not 1 <= event <= _LARGEST_ID:
        raise InvalidArgument(f"the id {event} of an event is not from 1 to {_LARGEST_ID}")
    handle = DLL.call("RegisterEventSourceW", None, source)
    if not handle:
        raise call_error("RegisterEventSource", last_error(), source)
    try:
        texts = (LPCWSTR * 1)(escape(text))
        if not DLL.call("ReportEventW", handle, kind, 0, event, None, 1, 0, texts, None):
            raise call_error("ReportEvent", last_error(), source)
    finally:
        DLL.call("DeregisterEventSource", handle)


def escape(text: str) -> str:
    """Return a text that viewers show as it is: they replace ``%1`` by another text, and a NUL ends it."""
    shown = text.replace("%", "%%").replace("\0", "\\0")
    if len(shown) <= MAX_TEXT:
        return shown
    cut = shown[: MAX_TEXT - 3]
    # An odd number of percent signs at the end would stand for something.
    if (len(cut) - len(cut.rstrip("%"))) % 2:
        cut = cut[:-1]
    return cut + "..."


def _registry() -> Any:
    if sys.platform != "win32":
        raise OSError("only Windows has a registry")
    import winreg

    return winreg
