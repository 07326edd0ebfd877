# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of one file of a layer, and the interface to a directory of such files.

A reader (``transport.read``, ``baselayer.read``, ``layerfiletar.read``) yields
records, and a writer (``transport.Writer``, ``baselayer.Writer``,
``layerfiletar.write``) consumes them, so any reader can feed any writer.
Readers and writers know the formats. They open files only through
``LayerRoot``, whose implementation knows how to do that on Windows.
"""

from __future__ import annotations

import abc
from typing import Callable, Generator, Iterator, List, NamedTuple, Optional, Protocol, Tuple

from ..errors import InvalidArgument, NotFound

#: File attributes, MS-FSCC 2.6.
DIRECTORY_ATTRIBUTE = 0x10
REPARSE_POINT = 0x400

#: 1970 in ticks of a FILETIME: 100 ns since 1601 (MS-DTYP 2.3.3).
UNIX_EPOCH = 116_444_736_000_000_000
_TICK_NS = 100


class FileTimes(NamedTuple):
    """When a file was created, read, written and changed in any way: FILETIME ticks, 0 to 2**63 - 1.

    When a file is written, 0 leaves that time unchanged.
    """

    creation: int
    access: int
    write: int
    change: int


class Stream(NamedTuple):
    """One data stream of a file.

    ``name`` is empty for the content of the file, or the name of an alternate
    stream without colon and type. ``chunks`` have ``size`` bytes in total;
    read them before the next stream. Holes of a sparse file are zeros.
    """

    name: str
    size: int
    chunks: Iterator[bytes]


class LayerFile(NamedTuple):
    r"""One file of a layer: the neutral form between transport folder, layer directory and tar.

    ``name`` has forward slashes and begins with ``Files``, ``Hives`` or
    ``UtilityVM``. ``kind`` is layertar's ``FILE``, ``DIRECTORY``,
    ``HARD_LINK`` or ``WHITEOUT``; a file or directory with ``reparse`` data is
    a symbolic link, a junction or what else the tag says. ``attributes`` are
    those of MS-FSCC 2.6. ``security`` is a self-relative security descriptor
    (MS-DTYP 2.4.6), ``eas`` a list of FILE_FULL_EA_INFORMATION (MS-FSCC
    2.4.16), ``reparse`` a REPARSE_DATA_BUFFER (MS-FSCC 2.1.2); empty where
    there is none. ``link`` is the name of the file that a hard link is another
    name of.

    ``streams`` begins with the content, if the file has one. It is valid until
    the reader continues with the next record; what was not read is then lost. A
    whiteout has only a name, a hard link has no contents.
    """

    name: str
    kind: str
    attributes: int = 0
    times: FileTimes = FileTimes(0, 0, 0, 0)
    security: bytes = b""
    eas: bytes = b""
    reparse: bytes = b""
    link: str = ""
    streams: Iterator[Stream] = iter(())


#: What a reader returns. Its ``close`` closes the open file.
Records = Generator[LayerFile, None, None]


class FileInfo(NamedTuple):
    """What the file system says about a file; links are not followed.

    ``size`` is that of the content in bytes, ``links`` the number of hard
    links, ``identity`` equal for two names of one file on one volume.
    """

    attributes: int
    times: FileTimes
    size: int
    links: int
    identity: bytes


class Source(Protocol):
    """Bytes of an open file."""

    def read(self, limit: int) -> bytes:
        """Read at most ``limit`` more bytes; none only at the end."""

    def skip(self, count: int) -> int:
        """Skip ``count`` bytes, of a backup stream inside one stream; returns how many there were."""

    def rewind(self) -> None:
        """Go back to the beginning. If the file changed, a backup stream may then differ."""

    def close(self) -> None:
        """Close the file. Closing it again is not an error."""


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""

    def close(self) -> None:
        """Close the file; raises if it is not written completely. Closing it again is not an error."""


class LayerRoot(abc.ABC):
    """A directory and everything below it. Names of files are relative to it and have forward slashes.

    No operation follows a reparse point, neither on the way to a file nor at
    the end of its name. A name on such a way is an InvalidArgument, and so is
    a name with a colon, with an empty, ``.`` or ``..`` component, or with a
    slash at the beginning. Names work as in NTFS: any length up to its limits,
    device names and trailing dots, without regard to case.

    Operations raise NotFound if a file, or a directory above it, does not
    exist; AlreadyExists if it exists and must not; FailedPrecondition if the
    file does not allow the operation or a privilege is missing.
    """

    @abc.abstractmethod
    def path(self, name: str) -> str:
        """Return the native path of a file, for messages."""

    @abc.abstractmethod
    def stat(self, name: str) -> Optional[FileInfo]:
        """Return what is known about a file; None if it, or a directory above it, does not exist."""

    @abc.abstractmethod
    def names(self, name: str) -> List[str]:
        """Return the names in a directory, in any order; those in the root itself if ``name`` is empty."""

    # -- reading -------------------------------------------------------------

    @abc.abstractmethod
    def open_file(self, name: str) -> Source:
        """Read the content of a file."""

    @abc.abstractmethod
    def open_backup(self, name: str, *, security: bool) -> Source:
        """Read a file or directory as a backup stream (BackupRead), its security descriptor included on request."""

    # -- writing -------------------------------------------------------------

    @abc.abstractmethod
    def create_file(self, name: str, times: FileTimes) -> Sink:
        """Create a file, and write its content. Closing it sets these times."""

    @abc.abstractmethod
    def create_backup(
        self, name: str, attributes: int, times: FileTimes, *, security: bool, existing: bool = False
    ) -> Sink:
        """Create a file or directory, as its attributes say, and write it as a backup stream (BackupWrite).

        Closing it sets these attributes and times; attributes 0 change
        nothing. Without ``security``, a security descriptor in the stream is
        skipped. With ``existing`` the directory may already exist.
        """

    @abc.abstractmethod
    def make_directory(self, name: str) -> None:
        """Create a directory."""

    @abc.abstractmethod
    def set_info(self, name: str, attributes: int, times: FileTimes) -> None:
        """Set the attributes and times of a directory."""

    @abc.abstractmethod
    def link(self, name: str, root: LayerRoot, target: str) -> None:
        """Create ``name`` as a hard link to ``target`` in ``root``, which has the same type and volume."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Delete one file, link or empty directory, also a read-only one. FailedPrecondition if it is not empty."""

    @abc.abstractmethod
    def remove_tree(self, name: str) -> None:
        """Delete a file, or a directory with everything below it. It is not an error if it is missing."""


def is_plain_directory(info: FileInfo) -> bool:
    """Return True for real directories only: symbolic links to directories and junctions have the attribute too."""
    return info.attributes & (DIRECTORY_ATTRIBUTE | REPARSE_POINT) == DIRECTORY_ATTRIBUTE


def walk(root: LayerRoot, top: str, skip: Callable[[str], bool]) -> Iterator[Tuple[str, FileInfo]]:
    """Yield ``top`` and everything below it, parents first, sorted by code points; does not enter reparse points.

    Skipped names and everything below them are not opened. A directory is
    listed when the iteration continues after it. Raises NotFound if ``top``
    does not exist.
    """
    pending = [top]
    while pending:
        name = pending.pop()
        info = root.stat(name)
        if info is None:
            raise NotFound(f"{root.path(name)} does not exist")
        yield name, info
        if is_plain_directory(info):
            children = [f"{name}/{child}" for child in root.names(name)]
            pending += sorted((child for child in children if not skip(child)), reverse=True)


def from_nanoseconds(time_ns: int) -> int:
    """Return nanoseconds since 1970 as a FILETIME. Raises InvalidArgument for a time that FILETIME cannot hold."""
    ticks = time_ns // _TICK_NS + UNIX_EPOCH
    if not 0 <= ticks < 1 << 63:
        raise InvalidArgument("a time that Windows cannot hold")
    return ticks


def to_nanoseconds(ticks: int) -> int:
    """Return a FILETIME as nanoseconds since 1970."""
    return (ticks - UNIX_EPOCH) * _TICK_NS
