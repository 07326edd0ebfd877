# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""virtdisk.dll: attach a VHDX file as a disk.

Structures and constants are those of virtdisk.h of the Windows SDK. The exports
return a Win32 code and do not set GetLastError.
"""

from __future__ import annotations

import ctypes
from typing import Any

from . import trace
from .errors import call_error
from .kernel32 import Handle
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Guid, Library


class VirtualStorageType(ctypes.Structure):
    """VIRTUAL_STORAGE_TYPE; if it is all zero, Windows detects the type."""

    _fields_ = [("DeviceId", ctypes.c_uint32), ("VendorId", Guid)]


class OpenVirtualDiskParameters(ctypes.Structure):
    """OPEN_VIRTUAL_DISK_PARAMETERS with its Version2."""

    _fields_ = [
        ("Version", ctypes.c_uint32),
        ("GetInfoOnly", BOOL),
        ("ReadOnly", BOOL),
        ("ResiliencyGuid", Guid),
    ]


DLL = Library(
    "virtdisk.dll",
    "every Windows since 7 and Server 2008 R2",
    {
        "OpenVirtualDisk": (
            DWORD,
            ctypes.POINTER(VirtualStorageType),
            LPCWSTR,
            DWORD,
            DWORD,
            ctypes.POINTER(OpenVirtualDiskParameters),
            ctypes.POINTER(HANDLE),
        ),
        "AttachVirtualDisk": (DWORD, HANDLE, PVOID, DWORD, DWORD, PVOID, PVOID),
        "DetachVirtualDisk": (DWORD, HANDLE, DWORD, DWORD),
    },
)

_ACCESS_DETACH = 0x40000

#: Flag of ``attach_virtual_disk``: exempt the disk from the BitLocker policy for fixed drives, which makes new disks
#: read-only (hcsshim issue 2464).
ATTACH_BYPASS_DEFAULT_ENCRYPTION_POLICY = 0x20


def open_virtual_disk(path: str) -> Handle:
    """Open a disk file to attach it. The disk must not be attached. Raises Win32Error.

    Parameters of version 2 require access 0, which grants full access.
    """
    handle = HANDLE()
    kind, parameters = VirtualStorageType(), OpenVirtualDiskParameters(Version=2)
    _call(
        "OpenVirtualDisk",
        path,
        *(ctypes.byref(kind), path, 0, 0, ctypes.byref(parameters), ctypes.byref(handle)),
    )
    return Handle(handle.value or 0, path)


def attach_virtual_disk(disk: Handle, flags: int = ATTACH_BYPASS_DEFAULT_ENCRYPTION_POLICY) -> None:
    """Attach an open disk file as a disk of this host until ``disk`` is closed. Raises Win32Error."""
    _call("AttachVirtualDisk", disk.path, disk, None, flags, 0, None, None, flags=flags)


def detach_virtual_disk(path: str) -> None:
    """End an attachment that outlives its process, such as that of Mount-DiskImage. Raises Win32Error."""
    handle, kind = HANDLE(), VirtualStorageType()
    # An attached disk can be opened only with this access, and so without parameters of version 2.
    _call("OpenVirtualDisk", path, ctypes.byref(kind), path, _ACCESS_DETACH, 0, None, ctypes.byref(handle))
    with Handle(handle.value or 0, path) as disk:
        _call("DetachVirtualDisk", path, disk, 0, 0)


def _call(export: str, subject: str, *native: Any, **described: Any) -> None:
    with trace.Call(f"virtdisk.{export}", {"path": subject, **described}) as call:
        code = DLL.call(export, *native)
        if code:
            call.failed = code
    if code:
        raise call_error(export, code, subject)
