# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""advapi32.dll: the privileges of this process, and security descriptors as text."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Iterator

from ..errors import InvalidArgument
from .errors import ERROR_NOT_ALL_ASSIGNED, Win32FailedPrecondition, call_error, message
from .kernel32 import DLL as KERNEL32
from .kernel32 import Handle
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

#: Reading any file, and opening it with the backup flag: BackupRead, ExportLayer.
BACKUP = "SeBackupPrivilege"
#: Writing any file and its owner: BackupWrite, ImportLayer, DestroyLayer.
RESTORE = "SeRestorePrivilege"
#: Opening a file for its audit list (ACCESS_SYSTEM_SECURITY).
SECURITY = "SeSecurityPrivilege"


class Luid(ctypes.Structure):
    """LUID: a number of 64 bits that is aligned as one of 32."""

    _fields_ = [("LowPart", DWORD), ("HighPart", ctypes.c_int32)]


class TokenPrivileges(ctypes.Structure):
    """TOKEN_PRIVILEGES with one LUID_AND_ATTRIBUTES."""

    _fields_ = [("PrivilegeCount", DWORD), ("Luid", Luid), ("Attributes", DWORD)]


DLL = Library(
    "advapi32.dll",
    "every Windows",
    {
        "ImpersonateSelf": (BOOL, ctypes.c_int),
        "RevertToSelf": (BOOL,),
        "OpenThreadToken": (BOOL, HANDLE, DWORD, BOOL, ctypes.POINTER(HANDLE)),
        "LookupPrivilegeValueW": (BOOL, LPCWSTR, LPCWSTR, ctypes.POINTER(Luid)),
        "AdjustTokenPrivileges": (BOOL, HANDLE, BOOL, ctypes.POINTER(TokenPrivileges), DWORD, PVOID, PVOID),
        "CreateWellKnownSid": (BOOL, ctypes.c_int, PVOID, PVOID, ctypes.POINTER(DWORD)),
        "CheckTokenMembership": (BOOL, HANDLE, PVOID, ctypes.POINTER(BOOL)),
        "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
            BOOL,
            LPCWSTR,
            DWORD,
            ctypes.POINTER(PVOID),
            ctypes.POINTER(DWORD),
        ),
        "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
            BOOL,
            PVOID,
            DWORD,
            DWORD,
            ctypes.POINTER(PVOID),
            ctypes.POINTER(DWORD),
        ),
        "GetFileSecurityW": (BOOL, LPCWSTR, DWORD, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "SetFileSecurityW": (BOOL, LPCWSTR, DWORD, PVOID),
    },
)

_CURRENT_THREAD = -2
_SECURITY_IMPERSONATION = 2
_TOKEN_QUERY = 0x8
_TOKEN_ADJUST_PRIVILEGES = 0x20
_SE_PRIVILEGE_ENABLED = 0x2
_WIN_BUILTIN_ADMINISTRATORS_SID = 26
_SECURITY_MAX_SID_SIZE = 68
_SDDL_REVISION_1 = 1
# SECURITY_INFORMATION (winnt.h): the owner and the list of who may do what.
_OWNER_AND_DACL = 0x1 | 0x4


@contextlib.contextmanager
def privileges(*names: str) -> Iterator[None]:
    """Enable privileges in the calling thread for the length of a ``with`` block.

    The thread gets a token of its own, so other threads see nothing of it;
    threads started inside do not inherit it. Blocks do not nest: the end of
    the inner one also takes what the outer one enabled. Raises
    Win32FailedPrecondition naming the privilege that the account lacks.
    """
    _check("ImpersonateSelf", _SECURITY_IMPERSONATION)
    try:
        token = HANDLE()
        # As the process, not as the token just made, so that its rights do not matter.
        rights = _TOKEN_ADJUST_PRIVILEGES | _TOKEN_QUERY
        _check("OpenThreadToken", _CURRENT_THREAD, rights, True, ctypes.byref(token))
        with Handle(token.value or 0, "thread token") as opened:
            for name in names:
                _enable(opened, name)
        yield
    finally:
        _check("RevertToSelf")


def is_administrator() -> bool:
    """Whether the process runs elevated as a member of the local group Administrators."""
    size = DWORD(_SECURITY_MAX_SID_SIZE)
    sid = ctypes.create_string_buffer(size.value)
    _check("CreateWellKnownSid", _WIN_BUILTIN_ADMINISTRATORS_SID, None, sid, ctypes.byref(size))
    member = BOOL()
    _check("CheckTokenMembership", None, sid, ctypes.byref(member))
    return bool(member.value)


def descriptor_from_sddl(text: str) -> bytes:
    """The self-relative security descriptor that a text in SDDL describes; InvalidArgument if it is none."""
    descriptor, size = PVOID(), DWORD()
    call = "ConvertStringSecurityDescriptorToSecurityDescriptorW"
    if not DLL.call(call, text, _SDDL_REVISION_1, ctypes.byref(descriptor), ctypes.byref(size)):
        reason = message(last_error())
        raise InvalidArgument(f"{text!r} is not a security descriptor in SDDL: {reason}", sddl=text)
    try:
        return ctypes.string_at(descriptor, size.value)
    finally:
        KERNEL32.call("LocalFree", descriptor)


def read_security(path: str) -> str:
    """Owner and access list of a file or directory, as SDDL. Raises Win32Error."""
    needed = DWORD()
    DLL.call("GetFileSecurityW", path, _OWNER_AND_DACL, None, 0, ctypes.byref(needed))
    descriptor = ctypes.create_string_buffer(max(needed.value, 1))
    _check("GetFileSecurityW", path, _OWNER_AND_DACL, descriptor, needed.value, ctypes.byref(needed))
    text, size = PVOID(), DWORD()
    _check(
        "ConvertSecurityDescriptorToStringSecurityDescriptorW",
        descriptor,
        _SDDL_REVISION_1,
        _OWNER_AND_DACL,
        ctypes.byref(text),
        ctypes.byref(size),
    )
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        KERNEL32.call("LocalFree", text)


def write_security(path: str, sddl: str) -> None:
    """Give one file or directory the owner and the access list of a text in SDDL; what is below it keeps its own.

    SetNamedSecurityInfo would go on to everything below. Raises Win32Error,
    InvalidArgument for a text that is no SDDL.
    """
    descriptor = descriptor_from_sddl(sddl)
    with privileges(RESTORE):
        _check("SetFileSecurityW", path, _OWNER_AND_DACL, descriptor)


def _enable(token: Handle, name: str) -> None:
    luid = Luid()
    if not DLL.call("LookupPrivilegeValueW", None, name, ctypes.byref(luid)):
        raise call_error("LookupPrivilegeValue", last_error(), name)
    wanted = TokenPrivileges(1, luid, _SE_PRIVILEGE_ENABLED)
    _check("AdjustTokenPrivileges", token, False, ctypes.byref(wanted), 0, None, None)
    # The call also succeeds if it enabled nothing.
    if last_error() == ERROR_NOT_ALL_ASSIGNED:
        raise Win32FailedPrecondition(
            f"the account that runs this lacks the privilege {name}; run as an elevated administrator",
            call="AdjustTokenPrivileges",
            winerror=ERROR_NOT_ALL_ASSIGNED,
            privilege=name,
        )


def _check(export: str, *native: Any) -> None:
    if not DLL.call(export, *native):
        raise call_error(export, last_error())
