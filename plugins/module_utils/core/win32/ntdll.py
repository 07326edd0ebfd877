# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ntdll.dll: open files relative to an open directory, and other calls of the native interface.

Structures and constants are those of the Windows Driver Kit (ntifs.h, wdm.h).
Functions raise Win32Error with the Win32 code of the NTSTATUS; ``details`` has
the NTSTATUS, too.
"""

from __future__ import annotations

import ctypes
from typing import Any, List, NamedTuple

from .errors import ERROR_FILENAME_EXCED_RANGE, Win32Error, call_error
from .kernel32 import SHARE_ALL, Handle
from .library import DWORD, HANDLE, PVOID, Library

NTSTATUS = ctypes.c_int32

#: What ``details`` has for a process that has ended.
STATUS_PROCESS_IS_TERMINATING = "0xc000010a"

FILE_OPEN = 1
FILE_CREATE = 2

FILE_DIRECTORY_FILE = 0x1
FILE_NON_DIRECTORY_FILE = 0x40
FILE_OPEN_REPARSE_POINT = 0x200000

_FILE_SYNCHRONOUS_IO_NONALERT = 0x20
_FILE_OPEN_FOR_BACKUP_INTENT = 0x4000
_SYNCHRONIZE = 0x100000
_OBJ_DONT_REPARSE = 0x1000
_FILE_LINK_INFORMATION = 11
_PROCESS_COMMAND_LINE_INFORMATION = 60
_SYSTEM_TIME_OF_DAY_INFORMATION = 3
_FILE_PROCESS_IDS_USING_FILE_INFORMATION = 47
_FILE_DISPOSITION_INFORMATION_EX = 64
_FILE_DISPOSITION_DELETE = 0x1
# The name is gone at once, even if another process still has the file open for reading.
_FILE_DISPOSITION_POSIX_SEMANTICS = 0x2
# Since Windows 10 1809, the oldest we support. Clearing the attribute would affect every hard link of the file.
_FILE_DISPOSITION_IGNORE_READONLY_ATTRIBUTE = 0x10
_MAXIMUM_NAME_SIZE = 0xFFFE  # bytes: what the length in a UNICODE_STRING can say


class UnicodeString(ctypes.Structure):
    """UNICODE_STRING; the lengths count bytes."""

    _fields_ = [("Length", ctypes.c_uint16), ("MaximumLength", ctypes.c_uint16), ("Buffer", PVOID)]


class ObjectAttributes(ctypes.Structure):
    """OBJECT_ATTRIBUTES."""

    _fields_ = [
        ("Length", DWORD),
        ("RootDirectory", HANDLE),
        ("ObjectName", ctypes.POINTER(UnicodeString)),
        ("Attributes", DWORD),
        ("SecurityDescriptor", PVOID),
        ("SecurityQualityOfService", PVOID),
    ]


class IoStatusBlock(ctypes.Structure):
    """IO_STATUS_BLOCK; ``Pointer`` is a union with ``Status``."""

    _fields_ = [("Pointer", PVOID), ("Information", ctypes.c_size_t)]


class FileLinkInformation(ctypes.Structure):
    """FILE_LINK_INFORMATION; the name continues behind the structure."""

    _fields_ = [
        ("ReplaceIfExists", ctypes.c_ubyte),
        ("RootDirectory", HANDLE),
        ("FileNameLength", DWORD),
        ("FileName", ctypes.c_uint16 * 1),
    ]


class OsVersionInfo(ctypes.Structure):
    """OSVERSIONINFOW."""

    _fields_ = [
        ("dwOSVersionInfoSize", DWORD),
        ("dwMajorVersion", DWORD),
        ("dwMinorVersion", DWORD),
        ("dwBuildNumber", DWORD),
        ("dwPlatformId", DWORD),
        ("szCSDVersion", ctypes.c_uint16 * 128),
    ]


_IO_STATUS = ctypes.POINTER(IoStatusBlock)

DLL = Library(
    "ntdll.dll",
    "Windows Server 2016 or newer",
    {
        "NtCreateFile": (
            NTSTATUS,
            ctypes.POINTER(HANDLE),
            DWORD,
            ctypes.POINTER(ObjectAttributes),
            _IO_STATUS,
            PVOID,
            DWORD,
            DWORD,
            DWORD,
            DWORD,
            PVOID,
            DWORD,
        ),
        "NtSetInformationFile": (NTSTATUS, HANDLE, _IO_STATUS, PVOID, DWORD, ctypes.c_int),
        "NtQueryInformationFile": (NTSTATUS, HANDLE, _IO_STATUS, PVOID, DWORD, ctypes.c_int),
        "NtQueryInformationProcess": (NTSTATUS, HANDLE, ctypes.c_int, PVOID, DWORD, ctypes.POINTER(DWORD)),
        "NtQuerySystemInformation": (NTSTATUS, ctypes.c_int, PVOID, DWORD, PVOID),
        "RtlNtStatusToDosError": (DWORD, DWORD),
        "RtlGetVersion": (NTSTATUS, ctypes.POINTER(OsVersionInfo)),
    },
)


class Version(NamedTuple):
    """A version of Windows, e.g. 10, 0, 20348 for Windows Server 2022."""

    major: int
    minor: int
    build: int


def get_version() -> Version:
    """The real version of Windows, independent of the manifest of python.exe."""
    info = OsVersionInfo(dwOSVersionInfoSize=ctypes.sizeof(OsVersionInfo))
    _check("RtlGetVersion", "", ctypes.byref(info))
    return Version(info.dwMajorVersion, info.dwMinorVersion, info.dwBuildNumber)


def get_boot_time() -> int:
    """When this Windows started, as a FILETIME of the clock of that moment: setting the clock does not change it."""
    # SYSTEM_TIMEOFDAY_INFORMATION: BootTime is the first number; BootTimeBias, the fifth, is what the clock was set by.
    numbers = (ctypes.c_int64 * 6)()
    _check("NtQuerySystemInformation", "", _SYSTEM_TIME_OF_DAY_INFORMATION, numbers, ctypes.sizeof(numbers), None)
    return numbers[0] - numbers[4]


def create_file(
    root: Handle,
    name: str,
    access: int,
    *,
    share: int = SHARE_ALL,
    disposition: int = FILE_OPEN,
    options: int = 0,
) -> Handle:
    r"""Open or create ``name`` (with ``\`` between its parts) below an open directory. No reparse point is followed.

    A reparse point on the way is an error (4395). So is one at the end, unless
    ``options`` has FILE_OPEN_REPARSE_POINT, which opens the reparse point
    itself. Enabled privileges are used (backup intent). Nothing in the name is
    interpreted: ``..`` is a name that does not exist.
    """
    path = f"{root.path}\\{name}" if name else root.path
    encoded = name.encode("utf-16-le", "surrogatepass")
    if len(encoded) > _MAXIMUM_NAME_SIZE:
        raise call_error("NtCreateFile", ERROR_FILENAME_EXCED_RANGE, path)
    text = ctypes.create_string_buffer(encoded)
    string = UnicodeString(len(encoded), len(encoded), ctypes.cast(text, PVOID))
    objects = ObjectAttributes(
        Length=ctypes.sizeof(ObjectAttributes),
        RootDirectory=root._as_parameter_,
        ObjectName=ctypes.pointer(string),
        Attributes=_OBJ_DONT_REPARSE,
    )
    handle = HANDLE()
    _check(
        "NtCreateFile",
        path,
        ctypes.byref(handle),
        access | _SYNCHRONIZE,
        ctypes.byref(objects),
        ctypes.byref(IoStatusBlock()),
        None,
        0,
        share,
        disposition,
        options | _FILE_OPEN_FOR_BACKUP_INTENT | _FILE_SYNCHRONOUS_IO_NONALERT,
        None,
        0,
    )
    return Handle(handle.value or 0, path)


def link_file(file: Handle, directory: Handle, name: str) -> None:
    """Give an open file (FILE_WRITE_ATTRIBUTES) one more name, in an open directory of the same volume.

    An existing name is an error.
    """
    encoded = name.encode("utf-16-le", "surrogatepass")
    offset = FileLinkInformation.FileName.offset
    # With a name of one character the buffer would be shorter than the structure, which Windows rejects.
    buffer = ctypes.create_string_buffer(max(offset + len(encoded), ctypes.sizeof(FileLinkInformation)))
    information = FileLinkInformation.from_buffer(buffer)
    information.RootDirectory = directory._as_parameter_
    information.FileNameLength = len(encoded)
    ctypes.memmove(ctypes.byref(buffer, offset), encoded, len(encoded))
    arguments = (ctypes.byref(IoStatusBlock()), buffer, len(buffer), _FILE_LINK_INFORMATION)
    _check("NtSetInformationFile", f"{directory.path}\\{name}", file, *arguments)


def delete_file(file: Handle) -> None:
    """Delete an open file or empty directory (DELETE), read-only or not; the name is gone once the handle is closed."""
    flags = DWORD(
        _FILE_DISPOSITION_DELETE | _FILE_DISPOSITION_POSIX_SEMANTICS | _FILE_DISPOSITION_IGNORE_READONLY_ATTRIBUTE
    )
    arguments = (ctypes.byref(IoStatusBlock()), ctypes.byref(flags), ctypes.sizeof(flags))
    _check("NtSetInformationFile", file.path, file, *arguments, _FILE_DISPOSITION_INFORMATION_EX)


def get_processes(file: Handle) -> List[int]:
    """The ids of all processes that have a file open, including this one (FILE_READ_ATTRIBUTES).

    Id 4 is the kernel, which has a disk file open while the disk is attached.
    """
    # FILE_PROCESS_IDS_USING_FILE_INFORMATION: their number, then as many ids, each as wide as a pointer.
    buffer = (ctypes.c_size_t * 1024)()
    arguments = (ctypes.byref(IoStatusBlock()), buffer, ctypes.sizeof(buffer))
    _check("NtQueryInformationFile", file.path, file, *arguments, _FILE_PROCESS_IDS_USING_FILE_INFORMATION)
    return list(buffer[1 : 1 + (buffer[0] & 0xFFFFFFFF)])


def get_command_line(process: Handle) -> str:
    """The command line with which an open process was started."""
    # A UNICODE_STRING, and its text behind it.
    buffer = ctypes.create_string_buffer(ctypes.sizeof(UnicodeString) + _MAXIMUM_NAME_SIZE + 2)
    arguments = (process, _PROCESS_COMMAND_LINE_INFORMATION, buffer, ctypes.sizeof(buffer), ctypes.byref(DWORD()))
    _check("NtQueryInformationProcess", process.path, *arguments)
    string = UnicodeString.from_buffer(buffer)
    return ctypes.string_at(string.Buffer or 0, string.Length).decode("utf-16-le", "surrogatepass")


def _check(call: str, subject: str, *arguments: Any) -> None:
    # Success is 0 only: a call that is pending or partly done has not done its work.
    status = DLL.call(call, *arguments) & 0xFFFFFFFF
    if status:
        raise _error(call, subject, status)


def _error(call: str, subject: str, status: int) -> Win32Error:
    error = call_error(call, DLL.call("RtlNtStatusToDosError", status), subject)
    error.details["ntstatus"] = f"0x{status:08x}"
    return error
