# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The LayerRoot of Windows: files of a layer by handles and backup functions."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Type

from ...errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from ...formats.layerfile import DIRECTORY_ATTRIBUTE, FileInfo, FileTimes, LayerRoot, Sink, Source
from ...win32 import kernel32, ntdll, safefile
from ...win32.errors import (
    ERROR_ALREADY_EXISTS,
    ERROR_DIRECTORY,
    ERROR_FILE_NOT_FOUND,
    ERROR_PATH_NOT_FOUND,
    ERROR_REPARSE_POINT_ENCOUNTERED,
    Win32Error,
)

# winerror.h
_ERROR_FILE_EXISTS = 80
_ERROR_DIR_NOT_EMPTY = 145

_CLASSES: Dict[int, Type[SnapshotterError]] = {
    ERROR_FILE_NOT_FOUND: NotFound,
    ERROR_PATH_NOT_FOUND: NotFound,
    _ERROR_FILE_EXISTS: AlreadyExists,
    ERROR_ALREADY_EXISTS: AlreadyExists,
    ERROR_REPARSE_POINT_ENCOUNTERED: InvalidArgument,
    _ERROR_DIR_NOT_EMPTY: FailedPrecondition,
    ERROR_DIRECTORY: FailedPrecondition,
}

# hcsshim internal/wclayer/legacy.go: the access that writing any backup stream takes.
_WRITE = kernel32.GENERIC_READ | kernel32.GENERIC_WRITE | kernel32.WRITE_DAC | kernel32.WRITE_OWNER

_CHUNK = 1 << 20


class WindowsRoot(LayerRoot):
    """A directory of a layer, open until the end of a ``with`` block.

    SeBackupPrivilege and SeRestorePrivilege must be enabled. Security
    descriptors need SeSecurityPrivilege as well.
    """

    def __init__(self, directory: str) -> None:
        with _translate_errors():
            self._handle = safefile.open_root(directory)

    def __enter__(self) -> WindowsRoot:
        return self

    def __exit__(self, *error: Any) -> None:
        self._handle.close()

    def path(self, name: str) -> str:
        return "\\".join([self._handle.path, *name.split("/")]) if name else self._handle.path

    def stat(self, name: str) -> Optional[FileInfo]:
        options = ntdll.FILE_OPEN_REPARSE_POINT
        try:
            with _translate_errors(), self._open(name, kernel32.FILE_READ_ATTRIBUTES, options=options) as file:
                basic, standard = kernel32.get_basic_info(file), kernel32.get_standard_info(file)
                volume, number = kernel32.get_file_id(file)
        except NotFound:
            return None
        times = FileTimes(basic.creation_time, basic.last_access_time, basic.last_write_time, basic.change_time)
        identity = volume.to_bytes(8, "little") + number
        return FileInfo(basic.attributes, times, standard.size, standard.links, identity)

    def names(self, name: str) -> List[str]:
        with (
            _translate_errors(),
            self._open(name, kernel32.GENERIC_READ, options=ntdll.FILE_DIRECTORY_FILE) as directory,
        ):
            return [entry.name for entry in kernel32.list_directory(directory)]

    # -- reading -------------------------------------------------------------

    def open_file(self, name: str) -> Source:
        options = ntdll.FILE_NON_DIRECTORY_FILE
        return _FileSource(lambda: self._open(name, kernel32.GENERIC_READ, options=options))

    def open_backup(self, name: str, *, security: bool) -> Source:
        access = kernel32.GENERIC_READ | (kernel32.ACCESS_SYSTEM_SECURITY if security else 0)
        options = ntdll.FILE_OPEN_REPARSE_POINT
        return _BackupSource(lambda: self._open(name, access, options=options), security)

    # -- writing -------------------------------------------------------------

    def create_file(self, name: str, times: FileTimes) -> Sink:
        with _translate_errors():
            access = kernel32.GENERIC_READ | kernel32.GENERIC_WRITE
            file = self._open(name, access, share=kernel32.FILE_SHARE_READ, disposition=ntdll.FILE_CREATE)
        return _FileSink(file, 0, times)

    def create_backup(
        self, name: str, attributes: int, times: FileTimes, *, security: bool, existing: bool = False
    ) -> Sink:
        access = _WRITE | (kernel32.ACCESS_SYSTEM_SECURITY if security else 0)
        options = ntdll.FILE_OPEN_REPARSE_POINT
        if attributes & DIRECTORY_ATTRIBUTE:
            options |= ntdll.FILE_DIRECTORY_FILE
        with _translate_errors():
            disposition = ntdll.FILE_OPEN if existing and self.stat(name) else ntdll.FILE_CREATE
            file = self._open(name, access, share=kernel32.FILE_SHARE_READ, disposition=disposition, options=options)
        return _BackupSink(file, attributes, times, security)

    def make_directory(self, name: str) -> None:
        with _translate_errors():
            safefile.make_directory(self._handle, _relative(name))

    def set_info(self, name: str, attributes: int, times: FileTimes) -> None:
        with _translate_errors():
            safefile.set_directory_info(self._handle, _relative(name), kernel32.BasicInfo(*times, attributes))

    def link(self, name: str, root: LayerRoot, target: str) -> None:
        if not isinstance(root, WindowsRoot):
            raise TypeError(f"{root!r} is not a WindowsRoot")
        with _translate_errors():
            safefile.link(root._handle, _relative(target), self._handle, _relative(name))  # noqa: SLF001 - its own class

    def remove(self, name: str) -> None:
        with _translate_errors():
            safefile.remove(self._handle, _relative(name))

    def remove_tree(self, name: str) -> None:
        with _translate_errors():
            safefile.remove_all(self._handle, _relative(name))

    def _open(self, name: str, access: int, **options: int) -> kernel32.Handle:
        return safefile.open_file(self._handle, _relative(name), access, **options)


def _relative(name: str) -> str:
    if "\\" in name:
        raise InvalidArgument(f"{name!r} is not the name of a file in a layer: it contains a backslash")
    return name.replace("/", "\\")


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise a Win32 error about the file itself as the class that LayerRoot promises."""
    try:
        yield
    except Win32Error as error:
        kind = _CLASSES.get(error.winerror)
        if kind is None:
            raise
        raise kind(error.message, **error.details) from error


class _FileSource:
    """The content of a file."""

    def __init__(self, opener: Callable[[], kernel32.Handle]) -> None:
        self._opener = opener
        with _translate_errors():
            self._file = opener()

    def read(self, limit: int) -> bytes:
        return kernel32.read_file(self._file, limit)

    def skip(self, count: int) -> int:
        skipped = 0
        while skipped < count:
            data = self.read(min(count - skipped, _CHUNK))
            if not data:
                break
            skipped += len(data)
        return skipped

    def rewind(self) -> None:
        # BackupRead keeps more state than a file position, so both kinds of source start again with a new handle.
        self.close()
        with _translate_errors():
            self._file = self._opener()

    def close(self) -> None:
        self._file.close()


class _BackupSource(_FileSource):
    """A file as a backup stream, through BackupRead."""

    def __init__(self, opener: Callable[[], kernel32.Handle], security: bool) -> None:
        super().__init__(opener)
        self._security = security
        self._reader: Optional[kernel32.BackupReader] = None

    def read(self, limit: int) -> bytes:
        return self._open_reader().read(limit)

    def skip(self, count: int) -> int:
        # BackupSeek works only after something was read.
        return self._open_reader().skip(count) if count else 0

    def _open_reader(self) -> kernel32.BackupReader:
        if self._reader is None:
            self._reader = kernel32.BackupReader(self._file, self._security)
        return self._reader

    def close(self) -> None:
        reader, self._reader = self._reader, None
        try:
            if reader:
                reader.close()
        finally:
            super().close()


class _FileSink:
    """The content of a new file. Attributes and times are set at the end, because writing changes them."""

    def __init__(self, file: kernel32.Handle, attributes: int, times: FileTimes) -> None:
        self._file = file
        self._info = kernel32.BasicInfo(*times, attributes)
        self._closed = False

    def write(self, data: bytes) -> None:
        kernel32.write_file(self._file, data)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with self._file:
                kernel32.set_basic_info(self._file, self._info)


class _BackupSink(_FileSink):
    """A file as a backup stream, through BackupWrite."""

    def __init__(self, file: kernel32.Handle, attributes: int, times: FileTimes, security: bool) -> None:
        super().__init__(file, attributes, times)
        self._writer = kernel32.BackupWriter(file, security)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        if not self._closed:
            try:
                self._writer.close()
            finally:
                super().close()
