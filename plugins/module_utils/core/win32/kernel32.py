# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel32.dll: files, their attributes, the backup functions, volumes.

Constants and structures are those of the Windows SDK (fileapi.h, winbase.h,
winioctl.h). File times are those of Windows: 100 ns since 1601-01-01 UTC. A
time of 0 in a call that sets times leaves the time unchanged.
"""

from __future__ import annotations

import ctypes
import ntpath
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import InvalidArgument
from . import trace
from .errors import (
    ERROR_FILE_NOT_FOUND,
    ERROR_LOCK_VIOLATION,
    ERROR_NO_MORE_FILES,
    ERROR_PATH_NOT_FOUND,
    ERROR_SEEK,
    ERROR_WRITE_FAULT,
    Win32Error,
    call_error,
)
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
DELETE = 0x00010000
READ_CONTROL = 0x00020000
WRITE_DAC = 0x00040000
WRITE_OWNER = 0x00080000
ACCESS_SYSTEM_SECURITY = 0x01000000
FILE_READ_ATTRIBUTES = 0x80
FILE_WRITE_ATTRIBUTES = 0x100

FILE_SHARE_READ = 0x1
FILE_SHARE_WRITE = 0x2
FILE_SHARE_DELETE = 0x4
SHARE_ALL = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE

OPEN_EXISTING = 3

FILE_FLAG_BACKUP_SEMANTICS = 0x02000000
FILE_FLAG_OPEN_REPARSE_POINT = 0x00200000

FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_REPARSE_POINT = 0x400

MOVEFILE_DELAY_UNTIL_REBOOT = 0x4
PROCESS_QUERY_LIMITED_INFORMATION = 0x1000

LOCKFILE_FAIL_IMMEDIATELY = 0x1
LOCKFILE_EXCLUSIVE_LOCK = 0x2

IOCTL_DISK_GET_LENGTH_INFO = 0x0007405C
FSCTL_EXTEND_VOLUME = 0x000900F0

_INVALID_HANDLE = ctypes.c_void_p(-1).value
_TH32CS_SNAPPROCESS = 0x2
_FILE_BASIC_INFO = 0
_FILE_STANDARD_INFO = 1
_FILE_ID_BOTH_DIRECTORY_INFO = 10
_FILE_ID_BOTH_DIRECTORY_RESTART_INFO = 11
_FILE_ID_INFO = 18
_VOLUME_NAME_DOS = 0x0
_VOLUME_NAME_GUID = 0x1
_MAX_PATH = 260
_MAX_PATH_UNITS = 32768


class FileBasicInfo(ctypes.Structure):
    """FILE_BASIC_INFO."""

    _fields_ = [
        ("CreationTime", ctypes.c_int64),
        ("LastAccessTime", ctypes.c_int64),
        ("LastWriteTime", ctypes.c_int64),
        ("ChangeTime", ctypes.c_int64),
        ("FileAttributes", DWORD),
    ]


class FileStandardInfo(ctypes.Structure):
    """FILE_STANDARD_INFO."""

    _fields_ = [
        ("AllocationSize", ctypes.c_int64),
        ("EndOfFile", ctypes.c_int64),
        ("NumberOfLinks", DWORD),
        ("DeletePending", ctypes.c_ubyte),
        ("Directory", ctypes.c_ubyte),
    ]


class FileIdInfo(ctypes.Structure):
    """FILE_ID_INFO."""

    _fields_ = [("VolumeSerialNumber", ctypes.c_uint64), ("FileId", ctypes.c_ubyte * 16)]


class FileIdBothDirectoryInfo(ctypes.Structure):
    """FILE_ID_BOTH_DIR_INFO without the name behind it: the name starts at the offset of ``FileName``."""

    _fields_ = [
        ("NextEntryOffset", DWORD),
        ("FileIndex", DWORD),
        ("CreationTime", ctypes.c_int64),
        ("LastAccessTime", ctypes.c_int64),
        ("LastWriteTime", ctypes.c_int64),
        ("ChangeTime", ctypes.c_int64),
        ("EndOfFile", ctypes.c_int64),
        ("AllocationSize", ctypes.c_int64),
        ("FileAttributes", DWORD),
        ("FileNameLength", DWORD),
        ("EaSize", DWORD),
        ("ShortNameLength", ctypes.c_ubyte),
        ("ShortName", ctypes.c_uint16 * 12),
        ("FileId", ctypes.c_int64),
        ("FileName", ctypes.c_uint16 * 1),
    ]


class Overlapped(ctypes.Structure):
    """OVERLAPPED."""

    _fields_ = [
        ("Internal", ctypes.c_size_t),
        ("InternalHigh", ctypes.c_size_t),
        ("Offset", DWORD),
        ("OffsetHigh", DWORD),
        ("hEvent", HANDLE),
    ]


class ProcessEntry(ctypes.Structure):
    """PROCESSENTRY32W (tlhelp32.h)."""

    _fields_ = [
        ("dwSize", DWORD),
        ("cntUsage", DWORD),
        ("th32ProcessID", DWORD),
        ("th32DefaultHeapID", ctypes.c_size_t),
        ("th32ModuleID", DWORD),
        ("cntThreads", DWORD),
        ("th32ParentProcessID", DWORD),
        ("pcPriClassBase", ctypes.c_int32),
        ("dwFlags", DWORD),
        ("szExeFile", ctypes.c_uint16 * _MAX_PATH),
    ]


DLL = Library(
    "kernel32.dll",
    "Windows Server 2016 or newer",
    {
        "CloseHandle": (BOOL, HANDLE),
        "CreateFileW": (HANDLE, LPCWSTR, DWORD, DWORD, PVOID, DWORD, DWORD, HANDLE),
        "GetFileInformationByHandleEx": (BOOL, HANDLE, ctypes.c_int, PVOID, DWORD),
        "SetFileInformationByHandle": (BOOL, HANDLE, ctypes.c_int, PVOID, DWORD),
        "GetFinalPathNameByHandleW": (DWORD, HANDLE, PVOID, DWORD, DWORD),
        "LockFileEx": (BOOL, HANDLE, DWORD, DWORD, DWORD, DWORD, ctypes.POINTER(Overlapped)),
        "ReadFile": (BOOL, HANDLE, PVOID, DWORD, ctypes.POINTER(DWORD), PVOID),
        "WriteFile": (BOOL, HANDLE, PVOID, DWORD, ctypes.POINTER(DWORD), PVOID),
        "BackupRead": (BOOL, HANDLE, PVOID, DWORD, ctypes.POINTER(DWORD), BOOL, BOOL, ctypes.POINTER(PVOID)),
        "BackupWrite": (BOOL, HANDLE, PVOID, DWORD, ctypes.POINTER(DWORD), BOOL, BOOL, ctypes.POINTER(PVOID)),
        "BackupSeek": (
            BOOL,
            HANDLE,
            DWORD,
            DWORD,
            ctypes.POINTER(DWORD),
            ctypes.POINTER(DWORD),
            ctypes.POINTER(PVOID),
        ),
        "DeviceIoControl": (BOOL, HANDLE, DWORD, PVOID, DWORD, PVOID, DWORD, ctypes.POINTER(DWORD), PVOID),
        "OpenProcess": (HANDLE, DWORD, BOOL, DWORD),
        "CreateToolhelp32Snapshot": (HANDLE, DWORD, DWORD),
        "Process32FirstW": (BOOL, HANDLE, ctypes.POINTER(ProcessEntry)),
        "Process32NextW": (BOOL, HANDLE, ctypes.POINTER(ProcessEntry)),
        "QueryFullProcessImageNameW": (BOOL, HANDLE, DWORD, PVOID, ctypes.POINTER(DWORD)),
        "MoveFileExW": (BOOL, LPCWSTR, LPCWSTR, DWORD),
        "GetVolumePathNameW": (BOOL, LPCWSTR, PVOID, DWORD),
        "GetVolumeInformationW": (BOOL, LPCWSTR, PVOID, DWORD, PVOID, PVOID, PVOID, PVOID, DWORD),
        "GetDiskFreeSpaceExW": (BOOL, LPCWSTR, PVOID, ctypes.POINTER(ctypes.c_uint64), PVOID),
        "LocalFree": (HANDLE, HANDLE),
    },
)


class Handle:
    """An open file, disk or token that the end of a ``with`` block closes. ``path`` is for messages."""

    def __init__(self, value: int, path: str) -> None:
        #: What ctypes passes for this object.
        self._as_parameter_: Optional[int] = value
        self.path = path

    def close(self) -> None:
        """Close the handle; again does nothing. Every function rejects a closed handle."""
        value, self._as_parameter_ = self._as_parameter_, None
        if value is not None:
            DLL.call("CloseHandle", value)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class BasicInfo(NamedTuple):
    """Times and attributes of a file (FILE_BASIC_INFO). A call that sets them leaves values of 0 unchanged."""

    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    attributes: int


class StandardInfo(NamedTuple):
    """Sizes of a file in bytes, its number of hard links, and whether it is a directory."""

    allocation_size: int
    size: int
    links: int
    directory: bool


class DirectoryEntry(NamedTuple):
    """One name in a directory; ``size`` in bytes."""

    name: str
    attributes: int
    size: int


# -- paths and files ---------------------------------------------------------


def long_path(path: str) -> str:
    r"""The form of an absolute path that Windows does not interpret or limit in length: ``\\?\C:\x``.

    ``/``, ``.`` and ``..`` are resolved here, because Windows does not resolve
    them in that form. A path that has the prefix, and a device path
    (``\\.\x``), are returned unchanged. Raises InvalidArgument for a relative
    path.
    """
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    drive, rest = ntpath.splitdrive(path.replace("/", "\\"))
    if not drive or not rest.startswith("\\"):
        raise InvalidArgument(f"{path!r} is not an absolute Windows path, for example C:\\data", path=path)
    normal = ntpath.normpath(drive + rest)
    return "\\\\?\\UNC\\" + normal[2:] if normal.startswith("\\\\") else "\\\\?\\" + normal


def create_file(
    path: str, access: int, share: int = SHARE_ALL, disposition: int = OPEN_EXISTING, flags: int = 0
) -> Handle:
    """Open or create a file, directory (with FILE_FLAG_BACKUP_SEMANTICS) or volume (path without a last backslash)."""
    value = DLL.call("CreateFileW", long_path(path), access, share, None, disposition, flags, None)
    if value is None or value == _INVALID_HANDLE:
        raise call_error("CreateFile", last_error(), path)
    return Handle(value, path)


def read_file(file: Handle, size: int) -> bytes:
    """Read up to ``size`` bytes at the position of the file; fewer only at its end."""
    buffer = ctypes.create_string_buffer(size)
    got = DWORD()
    _check("ReadFile", file.path, file, buffer, size, ctypes.byref(got), None)
    return ctypes.string_at(buffer, got.value)


def write_file(file: Handle, data: bytes) -> None:
    """Write all of ``data`` at the position of the file."""
    written = DWORD()
    _check("WriteFile", file.path, file, data, len(data), ctypes.byref(written), None)
    if written.value != len(data):
        raise call_error("WriteFile", ERROR_WRITE_FAULT, file.path)


def try_lock(file: Handle, offset: int, exclusive: bool) -> bool:
    """Lock one byte of a file, which need not exist. Return False if another handle has a lock that excludes this one.

    The lock ends when the handle is closed. The file must be open for reading or writing.
    """
    flags = LOCKFILE_FAIL_IMMEDIATELY | (LOCKFILE_EXCLUSIVE_LOCK if exclusive else 0)
    where = Overlapped(0, 0, offset & 0xFFFFFFFF, offset >> 32, None)
    if DLL.call("LockFileEx", file, flags, 0, 1, 0, ctypes.byref(where)):
        return True
    code = last_error()
    if code != ERROR_LOCK_VIOLATION:
        raise call_error("LockFileEx", code, file.path)
    return False


def final_path(file: Handle) -> str:
    r"""The path of an open file with every link and mount point resolved, e.g. ``C:\data``.

    On a volume without a drive letter it is ``\\?\Volume{<GUID>}\data``.
    """
    try:
        return _plain(_final_path(file, _VOLUME_NAME_DOS))
    except Win32Error as error:
        if error.winerror not in {ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND}:
            raise
        return _final_path(file, _VOLUME_NAME_GUID)


def delete_at_restart(path: str) -> None:
    """Tell Windows to delete a file or an empty directory at its next start. Needs an administrator.

    Windows deletes in the order of these calls.
    """
    _check("MoveFileEx", path, long_path(path), None, MOVEFILE_DELAY_UNTIL_REBOOT, export="MoveFileExW")


# -- information about open files --------------------------------------------


def get_basic_info(file: Handle) -> BasicInfo:
    """Times and attributes of an open file."""
    info = FileBasicInfo()
    _query(file, _FILE_BASIC_INFO, info)
    return BasicInfo(info.CreationTime, info.LastAccessTime, info.LastWriteTime, info.ChangeTime, info.FileAttributes)


def set_basic_info(file: Handle, info: BasicInfo) -> None:
    """Set times and attributes of a file open with FILE_WRITE_ATTRIBUTES; values of 0 are left unchanged."""
    native = FileBasicInfo(*info)
    size = ctypes.sizeof(native)
    _check("SetFileInformationByHandle", file.path, file, _FILE_BASIC_INFO, ctypes.byref(native), size)


def get_standard_info(file: Handle) -> StandardInfo:
    """Sizes, links and kind of an open file."""
    info = FileStandardInfo()
    _query(file, _FILE_STANDARD_INFO, info)
    return StandardInfo(info.AllocationSize, info.EndOfFile, info.NumberOfLinks, bool(info.Directory))


def get_file_id(file: Handle) -> Tuple[int, bytes]:
    """The identity of an open file, the same for all its names: the volume's serial number and 16 bytes."""
    info = FileIdInfo()
    _query(file, _FILE_ID_INFO, info)
    return info.VolumeSerialNumber, bytes(info.FileId)


def list_directory(directory: Handle) -> List[DirectoryEntry]:
    """The entries of an open directory (GENERIC_READ), without ``.`` and ``..``, in the order of the file system."""
    buffer = ctypes.create_string_buffer(64 * 1024)
    kind = _FILE_ID_BOTH_DIRECTORY_RESTART_INFO
    names = []
    while DLL.call("GetFileInformationByHandleEx", directory, kind, buffer, len(buffer)):
        kind = _FILE_ID_BOTH_DIRECTORY_INFO
        for offset, entry in _entries(buffer, FileIdBothDirectoryInfo):
            name = _text(buffer, offset + FileIdBothDirectoryInfo.FileName.offset, entry.FileNameLength)
            if name not in {".", ".."}:
                names.append(DirectoryEntry(name, entry.FileAttributes, entry.EndOfFile))
    code = last_error()
    if code != ERROR_NO_MORE_FILES:
        raise call_error("GetFileInformationByHandleEx", code, directory.path)
    return names


# -- the backup functions ----------------------------------------------------


class BackupReader:
    """Read a file as one backup stream, the format of ``formats/backupstream.py``, with BackupRead.

    ``security`` says whether the stream includes the security descriptor. Then
    the handle needs READ_CONTROL and, for the audit list,
    ACCESS_SYSTEM_SECURITY.
    """

    def __init__(self, file: Handle, security: bool) -> None:
        self._file = file
        self._security = security
        self._context = PVOID()
        self._buffer = ctypes.create_string_buffer(0)

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""
        if len(self._buffer) < size:
            self._buffer = ctypes.create_string_buffer(size)
        return ctypes.string_at(self._buffer, self._call(self._buffer, size, False))

    def skip(self, size: int) -> int:
        """Skip ``size`` bytes, at most to the end of the current stream; return how many were skipped."""
        low, high = DWORD(), DWORD()
        arguments = (size & 0xFFFFFFFF, size >> 32, ctypes.byref(low), ctypes.byref(high))
        if not DLL.call("BackupSeek", self._file, *arguments, ctypes.byref(self._context)):
            code = last_error()
            # This is the end of the stream; the count says so as well.
            if code != ERROR_SEEK:
                raise call_error("BackupSeek", code, self._file.path)
        return int(high.value << 32 | low.value)

    def close(self) -> None:
        """Free the context that Windows keeps for the reader. The file stays open."""
        if self._context.value is not None:
            self._call(None, 0, True)

    def _call(self, buffer: Any, size: int, abort: bool) -> int:
        got = DWORD()
        arguments = (ctypes.byref(got), abort, self._security, ctypes.byref(self._context))
        _check("BackupRead", self._file.path, self._file, buffer, size, *arguments)
        return got.value

    def __enter__(self) -> BackupReader:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class BackupWriter:
    """The inverse of BackupReader: write a backup stream to an existing file with BackupWrite.

    ``security`` says whether security descriptors in the stream are applied.
    Then the handle needs WRITE_DAC, WRITE_OWNER and, for the audit list,
    ACCESS_SYSTEM_SECURITY.
    """

    def __init__(self, file: Handle, security: bool) -> None:
        self._file = file
        self._security = security
        self._context = PVOID()

    def write(self, data: bytes) -> int:
        """Write the next bytes of the stream, all of them; return their number."""
        if self._call(data, len(data), False) != len(data):
            raise call_error("BackupWrite", ERROR_WRITE_FAULT, self._file.path)
        return len(data)

    def close(self) -> None:
        """Free the context that Windows keeps for the writer. The file stays open."""
        if self._context.value is not None:
            self._call(None, 0, True)

    def _call(self, data: Any, size: int, abort: bool) -> int:
        done = DWORD()
        arguments = (ctypes.byref(done), abort, self._security, ctypes.byref(self._context))
        _check("BackupWrite", self._file.path, self._file, data, size, *arguments)
        return done.value

    def __enter__(self) -> BackupWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


# -- processes ---------------------------------------------------------------


def list_processes() -> Iterator[Tuple[int, str]]:
    """The id of each process, and the file name of the program that it runs, e.g. ``vmwp.exe``."""
    value = DLL.call("CreateToolhelp32Snapshot", _TH32CS_SNAPPROCESS, 0)
    if value is None or value == _INVALID_HANDLE:
        raise call_error("CreateToolhelp32Snapshot", last_error())
    entry = ProcessEntry(dwSize=ctypes.sizeof(ProcessEntry))
    with Handle(value, "processes") as snapshot:
        call = "Process32FirstW"
        while DLL.call(call, snapshot, ctypes.byref(entry)):
            call = "Process32NextW"
            name = _text(bytes(entry.szExeFile), 0, ctypes.sizeof(entry.szExeFile))
            yield entry.th32ProcessID, name.partition("\0")[0]
        code = last_error()
        if code != ERROR_NO_MORE_FILES:
            raise call_error(call.removesuffix("W"), code)


def open_process(process: int) -> Handle:
    """Open a process for questions about it. An id that no process has is an error (87)."""
    value = DLL.call("OpenProcess", PROCESS_QUERY_LIMITED_INFORMATION, False, process)
    if not value:
        raise call_error("OpenProcess", last_error(), str(process))
    return Handle(value, str(process))


def process_name(process: int) -> str:
    """The file name of the program that a process runs, e.g. ``vmwp.exe``."""
    size = DWORD(_MAX_PATH_UNITS)
    buffer = ctypes.create_unicode_buffer(size.value)
    with open_process(process) as handle:
        _check(
            "QueryFullProcessImageName",
            handle.path,
            *(handle, 0, buffer, ctypes.byref(size)),
            export="QueryFullProcessImageNameW",
        )
    return ntpath.basename(buffer.value)


# -- volumes -----------------------------------------------------------------


def volume_of(path: str) -> str:
    r"""The root of the volume that holds ``path``, links and mount points resolved, e.g. ``C:\`` or ``D:\mounted\``.

    ``path`` need not exist: its nearest existing ancestor decides.
    """
    while True:
        try:
            with create_file(path, 0, flags=FILE_FLAG_BACKUP_SEMANTICS) as file:
                resolved = final_path(file)
            break
        except Win32Error as error:
            parent = ntpath.dirname(path)
            if parent == path or error.winerror not in {ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND}:
                raise
            path = parent
    size = max(len(resolved) + 2, _MAX_PATH)
    buffer = ctypes.create_unicode_buffer(size)
    _check("GetVolumePathName", resolved, long_path(resolved), buffer, size, export="GetVolumePathNameW")
    return _plain(buffer.value)


def filesystem_name(volume: str) -> str:
    """The file system of the volume with this root, e.g. ``NTFS`` or ``ReFS``."""
    buffer = ctypes.create_unicode_buffer(_MAX_PATH + 1)
    arguments = (_with_backslash(volume), None, 0, None, None, None, buffer, len(buffer))
    _check("GetVolumeInformation", volume, *arguments, export="GetVolumeInformationW")
    return buffer.value


def open_volume(volume: str) -> Handle:
    r"""Open a volume for ``get_length`` and ``extend_volume``: ``\\?\Volume{<GUID>}``, with or without a last ``\``."""
    return create_file(volume.removesuffix("\\"), GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE)


def get_length(volume: Handle) -> int:
    """Bytes of the partition under an open volume (IOCTL_DISK_GET_LENGTH_INFO)."""
    with trace.Call("kernel32.IOCTL_DISK_GET_LENGTH_INFO", {"path": volume.path}) as call:
        data = _control_and_trace(call, volume, "IOCTL_DISK_GET_LENGTH_INFO", IOCTL_DISK_GET_LENGTH_INFO, b"", 8)
        length = call.result = int.from_bytes(data, "little")
    return length


def volume_size(volume: str) -> int:
    """Bytes of the file system of a volume, used and free, as far as quotas of this account show them."""
    total = ctypes.c_uint64()
    _check(
        "GetDiskFreeSpaceEx",
        volume,
        *(_with_backslash(volume), None, ctypes.byref(total), None),
        export="GetDiskFreeSpaceExW",
    )
    return total.value


def extend_volume(volume: Handle, sectors: int) -> None:
    """Make the NTFS of an open volume ``sectors`` sectors of 512 bytes long.

    The partition must be at least one cluster longer, because NTFS reserves
    one. Windows rejects a length that is not above the current one (87).
    """
    with trace.Call("kernel32.FSCTL_EXTEND_VOLUME", {"path": volume.path, "sectors": sectors}) as call:
        _control_and_trace(call, volume, "FSCTL_EXTEND_VOLUME", FSCTL_EXTEND_VOLUME, sectors.to_bytes(8, "little"), 0)


# -- what the functions above are made of ------------------------------------


def _check(call: str, subject: str, *arguments: Any, export: str = "") -> None:
    if not DLL.call(export or call, *arguments):
        raise call_error(call, last_error(), subject)


def _query(file: Handle, kind: int, info: ctypes.Structure) -> None:
    _check("GetFileInformationByHandleEx", file.path, file, kind, ctypes.byref(info), ctypes.sizeof(info))


def _final_path(file: Handle, volume_name: int) -> str:
    size = _MAX_PATH
    while True:
        buffer = ctypes.create_unicode_buffer(size)
        length = DLL.call("GetFinalPathNameByHandleW", file, buffer, size, volume_name)
        if not length:
            raise call_error("GetFinalPathNameByHandle", last_error(), file.path)
        if length < size:
            return buffer.value
        size = length + 1


def _device_io_control(file: Handle, name: str, code: int, data: bytes, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size) if size else None
    got = DWORD()
    arguments = (data or None, len(data), buffer, size, ctypes.byref(got), None)
    _check(name, file.path, file, code, *arguments, export="DeviceIoControl")
    return buffer.raw[: got.value] if buffer else b""


def _control_and_trace(call: trace.Call, file: Handle, name: str, code: int, data: bytes, size: int) -> bytes:
    try:
        return _device_io_control(file, name, code, data, size)
    except Win32Error as error:
        call.failed = error.winerror
        raise


def _entries(buffer: Any, kind: Any) -> Iterator[Tuple[int, Any]]:
    """The structures that Windows has chained in a buffer, each with its offset."""
    offset = 0
    while True:
        entry = kind.from_buffer(buffer, offset)
        yield offset, entry
        if not entry.NextEntryOffset:
            return
        offset += entry.NextEntryOffset


def _text(buffer: Any, offset: int, size: int) -> str:
    return bytes(buffer[offset : offset + size]).decode("utf-16-le", "surrogatepass")


def _plain(path: str) -> str:
    """The inverse of ``long_path``, except for volumes that have no other name."""
    if path.startswith("\\\\?\\UNC\\"):
        return "\\\\" + path.removeprefix("\\\\?\\UNC\\")
    return path if path.startswith("\\\\?\\Volume{") else path.removeprefix("\\\\?\\")


def _with_backslash(volume: str) -> str:
    return volume if volume.endswith("\\") else volume + "\\"
