# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""advapi32.dll: the privileges of this process, and security descriptors as text."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any, Iterator

from ..errors import FailedPrecondition, InvalidArgument
from .errors import (
    ERROR_NOT_ALL_ASSIGNED,
    Win32FailedPrecondition,
    call_error,
    message,
)
from .kernel32 import DLL as KERNEL32
from .kernel32 import (
    FILE_ATTRIBUTE_REPARSE_POINT,
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES,
    READ_CONTROL,
    WRITE_DAC,
    WRITE_OWNER,
    Handle,
    create_file,
    get_basic_info,
    get_standard_info,
)
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

#: Reading any file, and opening it with the backup flag: BackupRead, ExportLayer.
BACKUP = "SeBackupPrivilege"
#: Writing any file and its owner: BackupWrite, ImportLayer, DestroyLayer.
RESTORE = "SeRestorePrivilege"
#: Opening a file for its audit list (ACCESS_SYSTEM_SECURITY).
SECURITY = "SeSecurityPrivilege"


class Luid(ctypes.Structure):
    """LUID: a number of 64 bits that is aligned as a number of 32 bits."""

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
        "GetKernelObjectSecurity": (BOOL, HANDLE, DWORD, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "SetKernelObjectSecurity": (BOOL, HANDLE, DWORD, PVOID),
        "OpenProcessToken": (BOOL, HANDLE, DWORD, ctypes.POINTER(HANDLE)),
        "GetTokenInformation": (BOOL, HANDLE, ctypes.c_int, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "ConvertSidToStringSidW": (BOOL, PVOID, ctypes.POINTER(PVOID)),
    },
)

_CURRENT_PROCESS = -1
_CURRENT_THREAD = -2
_SECURITY_IMPERSONATION = 2
_TOKEN_QUERY = 0x8
_TOKEN_ADJUST_PRIVILEGES = 0x20
_SE_PRIVILEGE_ENABLED = 0x2
_WIN_BUILTIN_ADMINISTRATORS_SID = 26
_SECURITY_MAX_SID_SIZE = 68
_SDDL_REVISION_1 = 1
_TOKEN_USER = 1
# TOKEN_USER: a pointer to the SID, attributes, and the SID itself behind them.
_TOKEN_USER_SIZE = 16 + _SECURITY_MAX_SID_SIZE
# SECURITY_INFORMATION (winnt.h): the owner and the access list.
_OWNER_AND_DACL = 0x1 | 0x4


@contextlib.contextmanager
def privileges(*names: str) -> Iterator[None]:
    """Enable privileges in the calling thread until the end of a ``with`` block.

    The thread gets a token of its own, so other threads are not affected;
    threads started in the block do not inherit it. Blocks do not nest: the end
    of an inner block also disables the privileges of the outer one. Raises
    Win32FailedPrecondition that names the privilege that the account lacks.
    """
    _check("ImpersonateSelf", _SECURITY_IMPERSONATION)
    try:
        token = HANDLE()
        # Open it as the process, because the new token may not have the right to open itself.
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
    """The self-relative security descriptor of a text in SDDL. Raises InvalidArgument for any other text."""
    descriptor, size = PVOID(), DWORD()
    call = "ConvertStringSecurityDescriptorToSecurityDescriptorW"
    if not DLL.call(call, text, _SDDL_REVISION_1, ctypes.byref(descriptor), ctypes.byref(size)):
        reason = message(last_error())
        raise InvalidArgument(f"{text!r} is not a security descriptor in SDDL: {reason}", sddl=text)
    try:
        return ctypes.string_at(descriptor, size.value)
    finally:
        KERNEL32.call("LocalFree", descriptor)


@functools.cache
def user_sid() -> str:
    """The SID of the account of this process, as text."""
    token = HANDLE()
    _check("OpenProcessToken", _CURRENT_PROCESS, _TOKEN_QUERY, ctypes.byref(token))
    with Handle(token.value or 0, "process token") as opened:
        user, size = (PVOID * (_TOKEN_USER_SIZE // ctypes.sizeof(PVOID) + 1))(), DWORD()
        _check("GetTokenInformation", opened, _TOKEN_USER, user, ctypes.sizeof(user), ctypes.byref(size))
    text = PVOID()
    _check("ConvertSidToStringSidW", user[0], ctypes.byref(text))
    return _take_text(text)


def read_security(path: str) -> str:
    """Owner and access list of a file or directory, as SDDL; those of a link itself. Raises Win32Error."""
    flags = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT
    needed = DWORD()
    with create_file(path, READ_CONTROL, flags=flags) as file:
        DLL.call("GetKernelObjectSecurity", file, _OWNER_AND_DACL, None, 0, ctypes.byref(needed))
        descriptor = ctypes.create_string_buffer(max(needed.value, 1))
        _check("GetKernelObjectSecurity", file, _OWNER_AND_DACL, descriptor, needed.value, ctypes.byref(needed))
    text, size = PVOID(), DWORD()
    _check(
        "ConvertSecurityDescriptorToStringSecurityDescriptorW",
        descriptor,
        _SDDL_REVISION_1,
        _OWNER_AND_DACL,
        ctypes.byref(text),
        ctypes.byref(size),
    )
    return _take_text(text)


def write_security(path: str, sddl: str) -> None:
    """Set owner and access list of one file or directory to those of a text in SDDL.

    Everything below a directory keeps its own, which SetNamedSecurityInfo
    would change. Raises Win32Error, InvalidArgument for a text that is not
    SDDL, FailedPrecondition for a link and for a file with several names.
    """
    descriptor = descriptor_from_sddl(sddl)
    access = FILE_READ_ATTRIBUTES | WRITE_DAC | WRITE_OWNER
    flags = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT
    with privileges(BACKUP, RESTORE), create_file(path, access, flags=flags) as file:
        if get_basic_info(file).attributes & FILE_ATTRIBUTE_REPARSE_POINT:
            raise FailedPrecondition(f"{path} is a link or a mount point, whose access rights are not changed")
        links = get_standard_info(file).links
        if links > 1:
            raise FailedPrecondition(f"{path} has {links} names (hard links): delete the others")
        _check("SetKernelObjectSecurity", file, _OWNER_AND_DACL, descriptor)


def _take_text(text: PVOID) -> str:
    """The text at a pointer that Windows returned; its memory is freed."""
    try:
        return ctypes.wstring_at(text.value or 0)
    finally:
        KERNEL32.call("LocalFree", text)


def _enable(token: Handle, name: str) -> None:
    luid = Luid()
    if not DLL.call("LookupPrivilegeValueW", None, name, ctypes.byref(luid)):
        raise call_error("LookupPrivilegeValue", last_error(), name)
    wanted = TokenPrivileges(1, luid, _SE_PRIVILEGE_ENABLED)
    _check("AdjustTokenPrivileges", token, False, ctypes.byref(wanted), 0, None, None)
    # The call succeeds even if it enabled nothing.
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
