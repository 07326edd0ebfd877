# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a layer is made of, wherever it lies: the record of one file, and the directory that it is read from or goes to.

A reader (``transport.read``, ``baselayer.read``, ``layerfiletar.read``) gives
records, a writer (``transport.Writer``, ``baselayer.Writer``,
``layerfiletar.write``) takes them, so any reader may feed any writer. Readers
and writers know the formats and reach files only through ``LayerRoot``; how
Windows opens a file is a matter of its implementation.
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
    """When a file was made, read, written and changed in any way: FILETIME ticks, 0 to 2**63 - 1.

    To a file that is written, 0 means: leave that time as it is.
    """

    creation: int
    access: int
    write: int
    change: int


class Stream(NamedTuple):
    """One data stream of a file.

    ``name`` is empty for the file's own content, else the name of an alternate
    stream, without colon and type. ``chunks`` are ``size`` bytes in all, to be
    taken before the next stream; holes of a sparse file come as zeros.
    """

    name: str
    size: int
    chunks: Iterator[bytes]


class LayerFile(NamedTuple):
    r"""One file of a layer: the neutral form between transport folder, layer directory and tar.

    ``name`` has forward slashes and begins with ``Files``, ``Hives`` or
    ``UtilityVM``. ``kind`` is layertar's ``FILE``, ``DIRECTORY``,
    ``HARD_LINK`` or ``WHITEOUT``; a file or directory with ``reparse`` data is
    a symbolic link, a junction or whatever the tag says. ``attributes`` are
    those of MS-FSCC 2.6. ``security`` is a self-relative security descriptor
    (MS-DTYP 2.4.6), ``eas`` a list of FILE_FULL_EA_INFORMATION (MS-FSCC
    2.4.16), ``reparse`` a REPARSE_DATA_BUFFER (MS-FSCC 2.1.2); empty where
    there is none. ``link`` is the name of the file that a hard link is another
    name of.

    ``streams`` begins with the content, if the file has one, and is good until
    the next record is asked for; what of it was not taken is lost. A whiteout
    has a name only, a hard link no contents.
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


#: What a reader gives: its ``close`` lets go of the file that is open.
Records = Generator[LayerFile, None, None]


class FileInfo(NamedTuple):
    """What the file system says of a file, links not followed.

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
        """At most ``limit`` further bytes, fewer only at the end; none there."""

    def skip(self, count: int) -> int:
        """Pass over ``count`` bytes, which for a backup stream lie inside one stream; returns how many there were."""

    def rewind(self) -> None:
        """Start over. A backup stream may be another then, if the file was changed meanwhile."""

    def close(self) -> None:
        """Let go of the file. Closing again is no error."""


class Sink(Protocol):
    """A file that is being written."""

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""

    def close(self) -> None:
        """Let go of the file; raises if it is not written in full. Closing again is no error."""


class LayerRoot(abc.ABC):
    """A directory and what is below it, each file named relative to it, with forward slashes.

    No operation passes through a reparse point on the way to a file, nor
    follows one that a name ends at; that, a name with a colon, an empty or
    dotted component, or one that begins with a slash is an InvalidArgument.
    Names are taken as NTFS takes them: of any length up to its limits, device
    names and trailing dots included, whatever the case.

    Besides: NotFound for a file, or a directory above it, that does not exist;
    AlreadyExists for one that does where it must not; FailedPrecondition for
    what the file is unfit for, a missing privilege too.
    """

    @abc.abstractmethod
    def path(self, name: str) -> str:
        """The native path of a file, for messages."""

    @abc.abstractmethod
    def stat(self, name: str) -> Optional[FileInfo]:
        """What is known of a file; None if it, or a directory above it, does not exist."""

    @abc.abstractmethod
    def names(self, name: str) -> List[str]:
        """The names of what is in a directory, in any order; of what is in the root itself if ``name`` is empty."""

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
        """Make a new file and write its content; it has these times once it is closed."""

    @abc.abstractmethod
    def create_backup(
        self, name: str, attributes: int, times: FileTimes, *, security: bool, existing: bool = False
    ) -> Sink:
        """Make a new file or directory, by its attributes, and write it as a backup stream (BackupWrite).

        It has these attributes and times once it is closed; attributes 0
        leave them as they are. A security descriptor in the stream is passed
        over unless ``security``. With ``existing`` the directory may exist.
        """

    @abc.abstractmethod
    def make_directory(self, name: str) -> None:
        """Make a new directory."""

    @abc.abstractmethod
    def set_info(self, name: str, attributes: int, times: FileTimes) -> None:
        """Set the attributes and times of a directory."""

    @abc.abstractmethod
    def link(self, name: str, root: LayerRoot, target: str) -> None:
        """Make ``name`` another name of the file ``target`` of ``root``, which is of the same kind and volume."""

    @abc.abstractmethod
    def remove(self, name: str) -> None:
        """Delete one file, link or empty directory, a read-only one too. FailedPrecondition if it is not empty."""

    @abc.abstractmethod
    def remove_tree(self, name: str) -> None:
        """Delete a file, or a directory with all below it. A missing one is no error."""


def is_plain_directory(info: FileInfo) -> bool:
    """Whether files can be below; a symbolic link to a directory and a junction have a directory's attribute too."""
    return info.attributes & (DIRECTORY_ATTRIBUTE | REPARSE_POINT) == DIRECTORY_ATTRIBUTE


def walk(root: LayerRoot, top: str, skip: Callable[[str], bool]) -> Iterator[Tuple[str, FileInfo]]:
    """All that is at and below ``top``, parents first, in the order of code points; no reparse point is entered.

    What is skipped is not looked at, nor is what is below it. A directory is
    listed when its successor is asked for. Raises NotFound without ``top``.
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
    """The FILETIME of nanoseconds since 1970. Raises InvalidArgument for a time that FILETIME cannot hold."""
    ticks = time_ns // _TICK_NS + UNIX_EPOCH
    if not 0 <= ticks < 1 << 63:
        raise InvalidArgument("a time that Windows cannot hold")
    return ticks


def to_nanoseconds(ticks: int) -> int:
    """Nanoseconds since 1970 of a FILETIME."""
    return (ticks - UNIX_EPOCH) * _TICK_NS
