# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Windows' three kinds of error code mean, and the sentences made of them."""

from __future__ import annotations

import sys
from typing import Any, Dict, Optional, Tuple, Type, Union

from ..errors import FailedPrecondition, SnapshotterError, Unavailable

ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_ACCESS_DENIED = 5
ERROR_NO_MORE_FILES = 18
ERROR_WRITE_PROTECT = 19
ERROR_NOT_READY = 21
ERROR_SEEK = 25
ERROR_WRITE_FAULT = 29
ERROR_SHARING_VIOLATION = 32
ERROR_LOCK_VIOLATION = 33
ERROR_HANDLE_DISK_FULL = 39
ERROR_INVALID_PARAMETER = 87
ERROR_DISK_FULL = 112
ERROR_BUSY = 170
ERROR_ALREADY_EXISTS = 183
ERROR_FILENAME_EXCED_RANGE = 206
ERROR_DEVICE_NOT_CONNECTED = 1167
ERROR_DIRECTORY = 267
ERROR_NOT_FOUND = 1168
ERROR_NOT_ALL_ASSIGNED = 1300
ERROR_PRIVILEGE_NOT_HELD = 1314
ERROR_TIMEOUT = 1460
ERROR_REPARSE_POINT_ENCOUNTERED = 4395


class Win32Error(SnapshotterError):
    """A native call failed; ``winerror`` is its code.

    That is a Win32 code wherever there is one for what the call returned, else
    the HRESULT itself (unsigned). ``details`` has the same number, the name of
    the ``call`` and, for codes whose meaning is known, an ``advice``: what it
    really means and what to do.

    A missing file inside a layer is not a missing snapshot, so no code makes
    this a NotFound.
    """

    @property
    def winerror(self) -> int:
        code: int = self.details["winerror"]
        return code


class Win32Unavailable(Win32Error, Unavailable):
    """Somebody else has the layer, or Windows was too busy: trying again later is right."""


class Win32FailedPrecondition(Win32Error, FailedPrecondition):
    """The process or the host lacks something that the call needs."""


_CLASSES: Dict[int, Type[Win32Error]] = {
    ERROR_NOT_READY: Win32Unavailable,
    ERROR_SHARING_VIOLATION: Win32Unavailable,
    ERROR_LOCK_VIOLATION: Win32Unavailable,
    ERROR_HANDLE_DISK_FULL: Win32Unavailable,
    ERROR_DISK_FULL: Win32Unavailable,
    ERROR_BUSY: Win32Unavailable,
    ERROR_DEVICE_NOT_CONNECTED: Win32Unavailable,
    ERROR_TIMEOUT: Win32Unavailable,
    ERROR_ACCESS_DENIED: Win32FailedPrecondition,
    ERROR_NOT_ALL_ASSIGNED: Win32FailedPrecondition,
    ERROR_PRIVILEGE_NOT_HELD: Win32FailedPrecondition,
}

# What a code means whoever returns it, or in the one call that is named.
_ADVICE: Dict[Union[int, Tuple[str, int]], str] = {
    ERROR_WRITE_PROTECT: "The volume is write protected. A BitLocker policy for fixed drives does that to new disks.",
    ERROR_HANDLE_DISK_FULL: "The volume is full. Free space on it and try again.",
    ERROR_DISK_FULL: "The volume is full. Free space on it and try again.",
    ERROR_NOT_ALL_ASSIGNED: "The account lacks a privilege. Run as an elevated administrator.",
    ERROR_PRIVILEGE_NOT_HELD: "The account lacks a privilege. Run as an elevated administrator.",
    ERROR_REPARSE_POINT_ENCOUNTERED: "A junction or symbolic link lies on the way to a file of the layer. It was not "
    "followed, because it could lead out of the layer.",
    ("BfSetupFilter", ERROR_ACCESS_DENIED): "Bindings need an elevated administrator.",
    ("BfSetupFilter", ERROR_INVALID_PARAMETER): "The path has a binding already, or this Windows does not know the "
    "option: a binding with a single target needs a build above 17763 (Windows Server 2022).",
    ("BfRemoveMapping", ERROR_INVALID_PARAMETER): "Nothing is bound to this path.",
    ("BfRemoveMapping", ERROR_NOT_FOUND): "Nothing is bound to this path.",
    ("OpenVirtualDisk", ERROR_SHARING_VIOLATION): "The disk is in use: its layer is activated, mounted or run.",
    ("AttachVirtualDisk", ERROR_SHARING_VIOLATION): "The disk is in use: its layer is activated, mounted or run.",
    ("FSCTL_EXTEND_VOLUME", ERROR_INVALID_PARAMETER): "The volume has this size already; NTFS keeps one cluster of "
    "the partition for itself.",
}

# What a code means when vmcompute.dll returns it.
_LAYER_ADVICE: Dict[int, str] = {
    ERROR_FILE_NOT_FOUND: "A file that the layer needs is missing: the layer directory is incomplete, or an export "
    "was asked of a layer that was never prepared.",
    ERROR_PATH_NOT_FOUND: "The layer directory or one of its parents' is missing.",
    ERROR_ACCESS_DENIED: "Either the account is not an elevated administrator, or something still uses the layer: a "
    "container, a mount, or what a crash left activated. Unmount it, or remove the snapshot, which deactivates it.",
    ERROR_NOT_READY: "The disk of the layer is not there yet: it was prepared without being activated, or Windows "
    "(Server 2019, when it starts many containers at once) was too slow. Try again.",
    ERROR_SHARING_VIOLATION: "Another program has a file of the layer open: look for running containers, mounts, "
    "virus scanners and backups. If there is none, the image may be made for another build of Windows than the host.",
    ERROR_INVALID_PARAMETER: "Windows refuses a value. On Windows 1903 and 1909 a disk above 20 GB does that if the "
    "volume in it was not grown with it; elsewhere a layer directory may be damaged.",
    ERROR_BUSY: "The layer is still in use: it must be unprepared before it is deactivated.",
    ERROR_DEVICE_NOT_CONNECTED: "The disk of the layer went away while it was attached, as happens on Windows Server "
    "2019 when it starts many containers at once. Try again.",
    ERROR_NOT_FOUND: "The layer is not activated or not prepared.",
    ERROR_TIMEOUT: "Windows prepares one layer at a time, and too many were asked for at once, also by other programs "
    "such as containerd. Try again when the host has less to do.",
    0xC0000420: "Windows' own code failed. It does so when a layer is destroyed while a layer over it is mounted.",
    0xC0370101: "The image is made for another build of Windows than the host's.",
    0xC0370105: "The layer or its container is not in a state that allows this, for example still running.",
    0xC0370106: "The Host Compute Service, or the container it ran, ended unexpectedly. See the event log "
    "Microsoft-Windows-Hyper-V-Compute, and restart the service vmcompute if it does not answer.",
}


def hcs_error(title: str, call: str, hresult: int, suffix: str = "") -> Win32Error:
    """The error for a failed call of vmcompute.dll, in the sentence of hcsshim (internal/hcserror/hcserror.go).

    ``title`` is hcsshim's name of the function, odd spellings included,
    ``call`` the name of the export, ``suffix`` what hcsshim adds at the end.
    """
    code = win32_code(hresult)
    advice = _LAYER_ADVICE.get(code) or _ADVICE.get(code)
    return _error(f"hcsshim::{title} failed in Win32: {message(code)} (0x{code:x}){suffix}", call, code, advice)


def call_error(call: str, code: int, subject: str = "") -> Win32Error:
    """The error for any other failed call: ``<call> <subject>: <text> (0x..)``; ``subject`` is a path or empty."""
    head = f"{call} {subject}" if subject else call
    advice = _ADVICE.get((call, code)) or _ADVICE.get(code)
    return _error(f"{head}: {message(code)} (0x{code:x})", call, code, advice)


def _error(sentence: str, call: str, code: int, advice: Optional[str]) -> Win32Error:
    details: Dict[str, Any] = {"call": call, "winerror": code}
    if advice:
        details["advice"] = advice
    return _CLASSES.get(code, Win32Error)(sentence, **details)


def win32_code(hresult: int) -> int:
    """The Win32 code inside an HRESULT, or the HRESULT as an unsigned number if it holds none.

    An HRESULT (MS-ERREF 2.1) carries a Win32 code if its facility is 7; like
    hcsshim (internal/wclayer/zsyscall_windows.go) this looks past the severity
    and customer bits.
    """
    if hresult & 0x1FFF0000 == 0x00070000:
        return hresult & 0xFFFF
    return hresult & 0xFFFFFFFF


def message(code: int) -> str:
    """Windows' sentence for a code.

    Codes without a sentence read as in Go's runtime (``winapi error #<code>``),
    because hcsshim shows them so.
    """
    text = ""
    if sys.platform == "win32":
        from .kernel32 import format_message

        text = format_message(code)
    return text or f"winapi error #{code}"
