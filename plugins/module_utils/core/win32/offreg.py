# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""offreg.dll: the offline registry library, which creates hive files.

Its exports return a Win32 code (offreg.h of the Windows Driver Kit). Every
function raises Win32Error.
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import trace
from .errors import call_error
from .kernel32 import long_path
from .library import DWORD, LPCWSTR, PVOID, Library

DLL = Library(
    "offreg.dll",
    "Windows 10 and Windows Server 2016 or newer",
    {
        "ORCreateHive": (DWORD, ctypes.POINTER(PVOID)),
        "ORSaveHive": (DWORD, PVOID, LPCWSTR, DWORD, DWORD),
        "ORCloseHive": (DWORD, PVOID),
    },
)


def create_empty_hive(path: str, major: int, minor: int) -> None:
    """Save a hive without keys, for Windows ``major.minor``, to a file that does not exist yet.

    The three native calls are one function, because nothing else is done with
    the hive in memory.
    """
    path = long_path(path)
    hive = PVOID()
    _call("ORCreateHive", path, ctypes.byref(hive))
    try:
        _call("ORSaveHive", path, hive, path, major, minor, version=f"{major}.{minor}")
    finally:
        _call("ORCloseHive", path, hive)


def _call(export: str, path: str, *native: Any, **described: Any) -> None:
    with trace.Call(f"offreg.{export}", {"path": path, **described}) as call:
        code = DLL.call(export, *native)
        if code:
            call.failed = code
    if code:
        raise call_error(export, code, path)
