# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Win32 codes, HRESULTs and exceptions of Windows as errors with advice."""

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
ERROR_BROKEN_PIPE = 109
ERROR_DISK_FULL = 112
ERROR_BUSY = 170
ERROR_ALREADY_EXISTS = 183
ERROR_FILENAME_EXCED_RANGE = 206
ERROR_PIPE_BUSY = 231
ERROR_NO_DATA = 232
ERROR_PIPE_NOT_CONNECTED = 233
ERROR_PIPE_CONNECTED = 535
ERROR_IO_INCOMPLETE = 996
ERROR_IO_PENDING = 997
ERROR_SERVICE_DOES_NOT_EXIST = 1060
ERROR_DEVICE_NOT_CONNECTED = 1167
ERROR_DIRECTORY = 267
ERROR_NOT_FOUND = 1168
ERROR_NOT_ALL_ASSIGNED = 1300
ERROR_PRIVILEGE_NOT_HELD = 1314
ERROR_TIMEOUT = 1460
ERROR_REPARSE_POINT_ENCOUNTERED = 4395


class Win32Error(SnapshotterError):
    """A native call failed; ``winerror`` is its code.

    It is the Win32 code of what the call returned, or the HRESULT itself
    (unsigned) if it has none. ``details`` has the same number, the name of the
    ``call`` and, for known codes, an ``advice``: what the code means here and
    what to do.

    A missing file inside a layer is not a missing snapshot, so no code becomes
    a NotFound.
    """

    @property
    def winerror(self) -> int:
        code: int = self.details["winerror"]
        return code


class Win32Unavailable(Win32Error, Unavailable):
    """Another process uses the layer, or Windows was too busy: try again later."""


class Win32FailedPrecondition(Win32Error, FailedPrecondition):
    """The process or the host lacks something that the call needs."""


# The class of a code in any call, or in the call that the key names.
_CLASSES: Dict[Union[int, Tuple[str, int]], Type[Win32Error]] = {
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
    ("PrepareLayer", ERROR_ALREADY_EXISTS): Win32Unavailable,
}

_PREPARED = (
    "Another program has prepared the layer: a container runs in it, or it is mounted, for example by ctr. It was left "
    "as it is. Try again when the container or mount has ended. If there is none, restart the node."
)

# What a code means in any call, or in the call that the key names.
_ADVICE: Dict[Union[int, Tuple[str, int]], str] = {
    ERROR_WRITE_PROTECT: "The volume is write protected. A BitLocker policy for fixed drives does that to new disks.",
    ERROR_HANDLE_DISK_FULL: "The volume is full. Free space on it and try again.",
    ERROR_DISK_FULL: "The volume is full. Free space on it and try again.",
    ERROR_NOT_ALL_ASSIGNED: "The account lacks a privilege. Run as an elevated administrator.",
    ERROR_PRIVILEGE_NOT_HELD: "The account lacks a privilege. Run as an elevated administrator.",
    ERROR_REPARSE_POINT_ENCOUNTERED: "A junction or symbolic link is on the path to a file of the layer. It was not "
    "followed, because it can lead out of the layer.",
    ("PrepareLayer", ERROR_ALREADY_EXISTS): _PREPARED,
    ("DeactivateLayer", ERROR_BUSY): _PREPARED,
    ("BfSetupFilter", ERROR_ACCESS_DENIED): "Bindings need an elevated administrator.",
    ("BfSetupFilter", ERROR_INVALID_PARAMETER): "The path has a binding already, or this Windows does not know the "
    "option: a binding with a single target needs a build above 17763 (Windows Server 2022).",
    ("BfRemoveMapping", ERROR_INVALID_PARAMETER): "Nothing is bound to this path.",
    ("BfRemoveMapping", ERROR_NOT_FOUND): "Nothing is bound to this path.",
    ("OpenVirtualDisk", ERROR_SHARING_VIOLATION): "The disk is in use: its layer is activated, mounted or run.",
    ("AttachVirtualDisk", ERROR_SHARING_VIOLATION): "The disk is in use: its layer is activated, mounted or run.",
    ("FSCTL_EXTEND_VOLUME", ERROR_INVALID_PARAMETER): "The volume has this size already: NTFS reserves one cluster "
    "of the partition.",
}

# What a code means in a call of vmcompute.dll.
_LAYER_ADVICE: Dict[int, str] = {
    ERROR_FILE_NOT_FOUND: "A file that the layer needs is missing: the layer directory is incomplete, or a layer "
    "was exported that was never prepared.",
    ERROR_PATH_NOT_FOUND: "The layer directory, or the directory of one of its parents, is missing.",
    ERROR_ACCESS_DENIED: "Either the account is not an elevated administrator, or something still uses the layer: a "
    "container, a mount, or a crash that left it activated. Unmount it, or remove the snapshot, which deactivates it.",
    ERROR_NOT_READY: "The disk of the layer is not there yet: the layer was prepared without being activated, or "
    "Windows was too slow (Server 2019, when it starts many containers at once). Try again.",
    ERROR_SHARING_VIOLATION: "Another program has a file of the layer open: look for running containers, mounts, "
    "virus scanners and backups. If there is none, the image may be for a different build of Windows than the host.",
    ERROR_INVALID_PARAMETER: "Windows rejects a value. On Windows 1903 and 1909, a disk above 20 GB causes this if the "
    "volume in it was not grown, too; on other versions, a layer directory may be damaged.",
    ERROR_DEVICE_NOT_CONNECTED: "The disk of the layer disappeared while it was attached. This happens on Windows "
    "Server 2019 when it starts many containers at once. Try again.",
    ERROR_NOT_FOUND: "The layer is not activated or not prepared.",
    ERROR_TIMEOUT: "Windows prepares one layer at a time, and was asked for too many at once, by this or another "
    "program such as containerd. Try again when the host is less busy.",
    0xC0000420: "Windows' own code failed. This happens when a layer is destroyed while a layer over it is mounted.",
    0xC0370101: "The image is for a different build of Windows than the host.",
    0xC0370105: "The layer or its container is not in a state that allows this, for example still running.",
    0xC0370106: "The Host Compute Service, or the container it ran, ended unexpectedly. See the event log "
    "Microsoft-Windows-Hyper-V-Compute, and restart the service vmcompute if it does not answer.",
}


def hcs_error(title: str, call: str, hresult: int, suffix: str = "", subject: str = "") -> Win32Error:
    """The error for a failed call of vmcompute.dll, in the sentence of hcsshim (internal/hcserror/hcserror.go).

    ``title`` is hcsshim's name for the function, odd spellings included,
    ``call`` the name of the export, ``suffix`` what hcsshim adds at the end.
    With a ``subject``, a path, the sentence is that of Go's os.PathError,
    followed by the code.
    """
    code = win32_code(hresult)
    advice = _ADVICE.get((call, code)) or _LAYER_ADVICE.get(code) or _ADVICE.get(code)
    failed = f" {subject}:" if subject else " failed in Win32:"
    return _error(f"hcsshim::{title}{failed} {message(code)} (0x{code:x}){suffix}", call, code, advice)


def call_error(call: str, code: int, subject: str = "") -> Win32Error:
    """The error for any other failed call: ``<call> <subject>: <text> (0x..)``; ``subject`` is a path or empty."""
    head = f"{call} {subject}" if subject else call
    advice = _ADVICE.get((call, code)) or _ADVICE.get(code)
    return _error(f"{head}: {message(code)} (0x{code:x})", call, code, advice)


def _error(sentence: str, call: str, code: int, advice: Optional[str]) -> Win32Error:
    details: Dict[str, Any] = {"call": call, "winerror": code}
    if advice:
        details["advice"] = advice
    kind = _CLASSES.get((call, code)) or _CLASSES.get(code, Win32Error)
    return kind(sentence, **details)


def win32_code(hresult: int) -> int:
    """The Win32 code inside an HRESULT, or the HRESULT as an unsigned number if it holds none.

    An HRESULT (MS-ERREF 2.1) holds a Win32 code if its facility is 7. The
    severity and customer bits are ignored, as in hcsshim
    (internal/wclayer/zsyscall_windows.go).
    """
    if hresult & 0x1FFF0000 == 0x00070000:
        return hresult & 0xFFFF
    return hresult & 0xFFFFFFFF


def message(code: int) -> str:
    """Windows' sentence for a code.

    A code without a sentence reads ``winapi error #<code>``, as in Go's runtime
    and so in hcsshim.
    """
    text = ""
    if sys.platform == "win32":
        from .messages import format_message

        text = format_message(code)
    return text or f"winapi error #{code}"
