# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel32.dll: files, their attributes, the backup functions, volumes.

Constants and structures are those of the Windows SDK (fileapi.h, winbase.h,
winioctl.h). File times are Windows': 100 ns since 1601-01-01 UTC, where 0
means "leave as it is" to who writes them.
"""

from __future__ import annotations

import ctypes
import ntpath
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import InvalidArgument
from . import trace
from .errors import (
    ERROR_FILE_NOT_FOUND,
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
WRITE_DAC = 0x00040000
WRITE_OWNER = 0x00080000
ACCESS_SYSTEM_SECURITY = 0x01000000
FILE_READ_ATTRIBUTES = 0x80
FILE_WRITE_ATTRIBUTES = 0x100

FILE_SHARE_READ = 0x1
FILE_SHARE_WRITE = 0x2
FILE_SHARE_DELETE = 0x4
SHARE_ALL = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE

CREATE_NEW = 1
OPEN_EXISTING = 3

FILE_FLAG_BACKUP_SEMANTICS = 0x02000000
FILE_FLAG_OPEN_REPARSE_POINT = 0x00200000

FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_REPARSE_POINT = 0x400

MOVEFILE_DELAY_UNTIL_REBOOT = 0x4
PROCESS_QUERY_LIMITED_INFORMATION = 0x1000

IOCTL_DISK_GET_LENGTH_INFO = 0x0007405C
FSCTL_EXTEND_VOLUME = 0x000900F0

_INVALID_HANDLE = ctypes.c_void_p(-1).value
_FILE_BASIC_INFO = 0
_FILE_STANDARD_INFO = 1
_FILE_ID_BOTH_DIRECTORY_INFO = 10
_FILE_ID_BOTH_DIRECTORY_RESTART_INFO = 11
_FILE_ID_INFO = 18
_VOLUME_NAME_DOS = 0x0
_VOLUME_NAME_GUID = 0x1
_MAX_PATH = 260
_MAX_PATH_UNITS = 32768
_FORMAT_MESSAGE_PLAIN = 0x3200  # FROM_SYSTEM, ARGUMENT_ARRAY, IGNORE_INSERTS
_ENGLISH = 0x409
_ANY_LANGUAGE = 0


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


DLL = Library(
    "kernel32.dll",
    "Windows Server 2016 or newer",
    {
        "CloseHandle": (BOOL, HANDLE),
        "CreateFileW": (HANDLE, LPCWSTR, DWORD, DWORD, PVOID, DWORD, DWORD, HANDLE),
        "GetFileInformationByHandleEx": (BOOL, HANDLE, ctypes.c_int, PVOID, DWORD),
        "SetFileInformationByHandle": (BOOL, HANDLE, ctypes.c_int, PVOID, DWORD),
        "GetFinalPathNameByHandleW": (DWORD, HANDLE, PVOID, DWORD, DWORD),
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
        "QueryFullProcessImageNameW": (BOOL, HANDLE, DWORD, PVOID, ctypes.POINTER(DWORD)),
        "MoveFileExW": (BOOL, LPCWSTR, LPCWSTR, DWORD),
        "GetVolumePathNameW": (BOOL, LPCWSTR, PVOID, DWORD),
        "GetVolumeInformationW": (BOOL, LPCWSTR, PVOID, DWORD, PVOID, PVOID, PVOID, PVOID, DWORD),
        "GetDiskFreeSpaceExW": (BOOL, LPCWSTR, PVOID, ctypes.POINTER(ctypes.c_uint64), PVOID),
        "LocalFree": (HANDLE, HANDLE),
        "FormatMessageW": (DWORD, DWORD, PVOID, DWORD, DWORD, PVOID, DWORD, PVOID),
    },
)


class Handle:
    """An open file, disk or token, which the end of a ``with`` block closes. ``path`` is for messages."""

    def __init__(self, value: int, path: str) -> None:
        #: What ctypes passes for this object.
        self._as_parameter_: Optional[int] = value
        self.path = path

    def close(self) -> None:
        """Close it; a second time nothing happens. A closed handle is an invalid one to every function."""
        value, self._as_parameter_ = self._as_parameter_, None
        if value is not None:
            DLL.call("CloseHandle", value)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class BasicInfo(NamedTuple):
    """Times and attributes of a file (FILE_BASIC_INFO). ``attributes`` 0 means "leave as they are" when written."""

    creation_time: int
    last_access_time: int
    last_write_time: int
    change_time: int
    attributes: int


class StandardInfo(NamedTuple):
    """What a file occupies: sizes in bytes, names that lead to it, and whether it is a directory."""

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
    r"""The spelling of an absolute path that Windows takes as it stands and at any length: ``\\?\C:\x``.

    Nothing in it is interpreted afterwards, so ``/``, ``.`` and ``..`` are
    resolved here. A path that has the prefix, and a device path (``\\.\x``),
    stay as they are. Raises InvalidArgument for a relative path.
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
    """Up to ``size`` bytes from the position of the file; fewer only at its end."""
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
    """Have Windows delete a file or an empty directory when it starts the next time. Needs an administrator.

    Files are deleted in the order of these calls.
    """
    _check("MoveFileEx", path, long_path(path), None, MOVEFILE_DELAY_UNTIL_REBOOT, export="MoveFileExW")


# -- information about open files --------------------------------------------


def get_basic_info(file: Handle) -> BasicInfo:
    """Times and attributes of an open file."""
    info = FileBasicInfo()
    _query(file, _FILE_BASIC_INFO, info)
    return BasicInfo(info.CreationTime, info.LastAccessTime, info.LastWriteTime, info.ChangeTime, info.FileAttributes)


def set_basic_info(file: Handle, info: BasicInfo) -> None:
    """Set times and attributes of a file open with FILE_WRITE_ATTRIBUTES; what is 0 stays."""
    native = FileBasicInfo(*info)
    size = ctypes.sizeof(native)
    _check("SetFileInformationByHandle", file.path, file, _FILE_BASIC_INFO, ctypes.byref(native), size)


def get_standard_info(file: Handle) -> StandardInfo:
    """Sizes, links and kind of an open file."""
    info = FileStandardInfo()
    _query(file, _FILE_STANDARD_INFO, info)
    return StandardInfo(info.AllocationSize, info.EndOfFile, info.NumberOfLinks, bool(info.Directory))


def get_file_id(file: Handle) -> Tuple[int, bytes]:
    """What tells one file from all others, whatever its name: the number of its volume and 16 bytes."""
    info = FileIdInfo()
    _query(file, _FILE_ID_INFO, info)
    return info.VolumeSerialNumber, bytes(info.FileId)


def list_directory(directory: Handle) -> List[DirectoryEntry]:
    """The names in an open directory (GENERIC_READ), without ``.`` and ``..``, in the order of the file system."""
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
    """A file as one stream of bytes in the format of ``formats/backupstream.py``: a context manager over BackupRead.

    ``security`` says whether the stream has the security descriptor, for which
    the handle needs READ_CONTROL and, for the audit list,
    ACCESS_SYSTEM_SECURITY.
    """

    def __init__(self, file: Handle, security: bool) -> None:
        self._file = file
        self._security = security
        self._context = PVOID()
        self._buffer = ctypes.create_string_buffer(0)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, cut anywhere; empty at the end."""
        if len(self._buffer) < size:
            self._buffer = ctypes.create_string_buffer(size)
        return ctypes.string_at(self._buffer, self._call(self._buffer, size, False))

    def skip(self, size: int) -> int:
        """Go ``size`` bytes forward, at most to the end of the present stream; returns how many it were."""
        low, high = DWORD(), DWORD()
        arguments = (size & 0xFFFFFFFF, size >> 32, ctypes.byref(low), ctypes.byref(high))
        if not DLL.call("BackupSeek", self._file, *arguments, ctypes.byref(self._context)):
            code = last_error()
            # The end of the stream stopped it, which the count tells as well.
            if code != ERROR_SEEK:
                raise call_error("BackupSeek", code, self._file.path)
        return int(high.value << 32 | low.value)

    def close(self) -> None:
        """Give back what Windows remembers of the reading. The file stays open."""
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
    """The inverse of BackupReader, over BackupWrite: gives an existing file the contents of a stream.

    ``security`` says whether security descriptors in the stream are obeyed,
    for which the handle needs WRITE_DAC, WRITE_OWNER and, for the audit list,
    ACCESS_SYSTEM_SECURITY.
    """

    def __init__(self, file: Handle, security: bool) -> None:
        self._file = file
        self._security = security
        self._context = PVOID()

    def write(self, data: bytes) -> int:
        """Take the next bytes of the stream, cut anywhere; returns their number, which is all of them."""
        if self._call(data, len(data), False) != len(data):
            raise call_error("BackupWrite", ERROR_WRITE_FAULT, self._file.path)
        return len(data)

    def close(self) -> None:
        """Give back what Windows remembers of the writing. The file stays open."""
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


def process_name(process: int) -> str:
    """The file name of the program that a process runs, e.g. ``vmwp.exe``."""
    value = DLL.call("OpenProcess", PROCESS_QUERY_LIMITED_INFORMATION, False, process)
    if not value:
        raise call_error("OpenProcess", last_error(), str(process))
    size = DWORD(_MAX_PATH_UNITS)
    buffer = ctypes.create_unicode_buffer(size.value)
    with Handle(value, str(process)) as handle:
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
    r"""Open a volume itself, for ``get_length`` and ``extend_volume``: ``\\?\Volume{<GUID>}``, perhaps with ``\``."""
    return create_file(volume.removesuffix("\\"), GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE)


def get_length(volume: Handle) -> int:
    """Bytes of the partition under an open volume (IOCTL_DISK_GET_LENGTH_INFO)."""
    with trace.Call("kernel32.IOCTL_DISK_GET_LENGTH_INFO", {"path": volume.path}) as call:
        data = _recorded(call, volume, "IOCTL_DISK_GET_LENGTH_INFO", IOCTL_DISK_GET_LENGTH_INFO, b"", 8)
        length = call.result = int.from_bytes(data, "little")
    return length


def volume_size(volume: str) -> int:
    """Bytes that the file system of a volume spans, used and free, as far as quotas let this account see."""
    total = ctypes.c_uint64()
    _check(
        "GetDiskFreeSpaceEx",
        volume,
        *(_with_backslash(volume), None, ctypes.byref(total), None),
        export="GetDiskFreeSpaceExW",
    )
    return total.value


def extend_volume(volume: Handle, sectors: int) -> None:
    """Make the NTFS of an open volume ``sectors`` of 512 bytes long.

    The partition must have the room, and one cluster more: NTFS keeps that.
    Windows refuses a length that is not more than the present one (87).
    """
    with trace.Call("kernel32.FSCTL_EXTEND_VOLUME", {"path": volume.path, "sectors": sectors}) as call:
        _recorded(call, volume, "FSCTL_EXTEND_VOLUME", FSCTL_EXTEND_VOLUME, sectors.to_bytes(8, "little"), 0)


# -- what the functions above are made of ------------------------------------


def format_message(code: int) -> str:
    """Windows' sentence for a code, in English if the host has it, for that is what people search for; or empty."""
    buffer = ctypes.create_unicode_buffer(2048)
    for language in (_ENGLISH, _ANY_LANGUAGE):
        if DLL.call("FormatMessageW", _FORMAT_MESSAGE_PLAIN, None, code, language, buffer, len(buffer), None):
            return buffer.value.rstrip("\r\n")
    return ""


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


def _recorded(call: trace.Call, file: Handle, name: str, code: int, data: bytes, size: int) -> bytes:
    try:
        return _device_io_control(file, name, code, data, size)
    except Win32Error as error:
        call.failed = error.winerror
        raise


def _entries(buffer: Any, kind: Any) -> Iterator[Tuple[int, Any]]:
    """The chained structures that Windows put into a buffer, each with its offset."""
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
