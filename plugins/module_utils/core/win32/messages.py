# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""FormatMessage: Windows' sentences for error codes.

It is an export of kernel32.dll. It has a module of its own because errors.py
needs it, and kernel32.py needs errors.py.
"""

from __future__ import annotations

import ctypes

from .library import DWORD, PVOID, Library

DLL = Library(
    "kernel32.dll",
    "Windows Server 2016 or newer",
    {"FormatMessageW": (DWORD, DWORD, PVOID, DWORD, DWORD, PVOID, DWORD, PVOID)},
)

_PLAIN = 0x3200  # FORMAT_MESSAGE_FROM_SYSTEM, _ARGUMENT_ARRAY, _IGNORE_INSERTS
_ENGLISH = 0x409
_ANY_LANGUAGE = 0


def format_message(code: int) -> str:
    """Windows' sentence for a code, empty if it has none; in English, which users search for, if the host has it."""
    buffer = ctypes.create_unicode_buffer(2048)
    for language in (_ENGLISH, _ANY_LANGUAGE):
        if DLL.call("FormatMessageW", _PLAIN, None, code, language, buffer, len(buffer), None):
            return buffer.value.rstrip("\r\n")
    return ""
