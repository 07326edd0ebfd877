# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Win32 backup streams: complete files and directories, as BackupRead and BackupWrite transfer them.

A sequence of WIN32_STREAM_ID headers, each followed by a name and contents
(MS-BKUP 2.1; Win32 reference, WIN32_STREAM_ID; go-winio backup.go).
"""

from __future__ import annotations

import struct
from typing import Dict, Iterator, List, NamedTuple, Optional

from ..errors import FailedPrecondition, InvalidArgument
from .layerfile import DIRECTORY_ATTRIBUTE, FileTimes, LayerFile, Source, Stream
from .tar.layertar import DIRECTORY, FILE, MAX_SIZE

#: Stream ids, MS-BKUP 2.1.
DATA = 1
EXTENDED_ATTRIBUTES = 2
SECURITY = 3
ALTERNATE_DATA = 4
LINK = 5
PROPERTY = 6
OBJECT_ID = 7
REPARSE = 8
SPARSE_BLOCK = 9
TRANSACTION = 10

#: Stream attribute of a file with holes: its contents follow in sparse blocks.
SPARSE_ATTRIBUTE = 0x8

# Id, attributes, size of the content, size of the name in bytes.
_HEADER = struct.Struct("<IIQI")
_OFFSET = struct.Struct("<q")

# A colon, 255 units, a colon and a type.
_MAX_NAME = 1024
# NTFS keeps 64 KiB of extended attributes, two ACLs of 64 KiB each, 16 KiB of a reparse point.
_MAX_METADATA = {EXTENDED_ATTRIBUTES: 65536, SECURITY: 262144, REPARSE: 16384}
# What a layer does not keep, as with hcsshim: the file's place in the source volume, and transactions.
_DATA_TYPE = ":$DATA"
_CHUNK = 1 << 20
_ZEROS = bytes(1 << 16)


class StreamHeader(NamedTuple):
    """Header of one stream; ``size`` in bytes, ``name`` as on the wire, e.g. ``:notes:$DATA``."""

    id: int
    attributes: int
    size: int
    name: str


class BackupReader:
    """Parses a backup stream: iterate over the headers, and ``read`` the content of the last one.

    The iteration skips what is not read. ``what`` is the name of the file in
    messages. Every fault is an InvalidArgument, also a stream that is cut off.
    """

    def __init__(self, source: Source, what: str) -> None:
        self._source = source
        self._what = what
        self._left = 0

    def __iter__(self) -> Iterator[StreamHeader]:
        while True:
            self.skip()
            data = self._source.read(_HEADER.size)
            if not data:
                return
            data += self._exactly(_HEADER.size - len(data))
            id_, attributes, size, name_size = _HEADER.unpack(data)
            if not DATA <= id_ <= TRANSACTION:
                raise InvalidArgument(f"the backup stream of {self._what} has an unknown stream ID {id_}")
            if name_size > _MAX_NAME or name_size % 2:
                raise InvalidArgument(
                    f"the backup stream of {self._what} is damaged: {name_size} bytes of a stream's name"
                )
            name = self._exactly(name_size).decode("utf-16-le", "surrogatepass")
            self._left = size
            yield StreamHeader(id_, attributes, size, name)

    def read(self, limit: int = _CHUNK) -> bytes:
        """Read at most ``limit`` more bytes of the current stream; none only at its end."""
        data = self._source.read(min(limit, self._left))
        if not data and self._left and limit:
            raise self._cut_off()
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Skip the rest of the current stream."""
        if self._left and self._source.skip(self._left) != self._left:
            raise self._cut_off()
        self._left = 0

    def content(self, header: StreamHeader) -> bytes:
        """Read all of a stream that holds metadata of a file, which is always small."""
        if header.size > _MAX_METADATA[header.id]:
            raise InvalidArgument(
                f"the backup stream of {self._what} is damaged: {header.size} bytes of stream {header.id}"
            )
        self._left = 0
        return self._exactly(header.size)

    def block_offset(self, header: StreamHeader) -> int:
        """Return the offset of the current sparse block in the file; its data, ``header.size`` - 8 bytes, come next."""
        if header.size < _OFFSET.size:
            raise InvalidArgument(f"the backup stream of {self._what} is damaged: a sparse block without an offset")
        self._left -= _OFFSET.size
        offset: int = _OFFSET.unpack(self._exactly(_OFFSET.size))[0]
        return offset

    def _exactly(self, count: int) -> bytes:
        parts: List[bytes] = []
        while count:
            data = self._source.read(count)
            if not data:
                raise self._cut_off()
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def _cut_off(self) -> InvalidArgument:
        return InvalidArgument(f"the backup stream of {self._what} is cut off")


class Summary(NamedTuple):
    """A backup stream without its data: metadata as in LayerFile, and the size of each data stream.

    ``sizes`` maps stream names to bytes, holes included, in order; the
    content's name is empty.
    """

    security: bytes
    eas: bytes
    reparse: bytes
    sizes: Dict[str, int]


def summarize(source: Source, what: str, *, max_size: int = MAX_SIZE) -> Summary:
    """Read a backup stream, and skip its data.

    Metadata may come after the data, so a caller that needs the metadata first
    must read twice. Raises InvalidArgument for a damaged stream, and for more than
    ``max_size`` bytes of data.
    """
    metadata = {SECURITY: b"", EXTENDED_ATTRIBUTES: b"", REPARSE: b""}
    sizes: Dict[str, int] = {}
    total = 0
    sparse: Optional[str] = None
    reader = BackupReader(source, what)
    for header in reader:
        if header.id == SPARSE_BLOCK:
            offset = reader.block_offset(header)
            if sparse is None or offset < sizes[sparse]:
                raise InvalidArgument(f"the backup stream of {what} is damaged: a misplaced sparse block")
            end = offset + header.size - _OFFSET.size
            total += end - sizes[sparse]
            sizes[sparse] = end
        else:
            sparse = None
        if header.id in metadata:
            metadata[header.id] = reader.content(header)
        elif header.id in (DATA, ALTERNATE_DATA):
            name = _stream_name(header)
            if name in sizes:
                raise InvalidArgument(f"the backup stream of {what} is damaged: it has the stream {name!r} twice")
            sizes[name] = header.size
            total += header.size
            sparse = name if header.attributes & SPARSE_ATTRIBUTE else None
        if total > max_size:
            raise InvalidArgument(f"{what} has {total} bytes: a layer has at most {max_size}")
    return Summary(metadata[SECURITY], metadata[EXTENDED_ATTRIBUTES], metadata[REPARSE], sizes)


def load(
    name: str, attributes: int, times: FileTimes, source: Source, what: str, *, start: int = 0, max_size: int = MAX_SIZE
) -> LayerFile:
    """Return the record of a file whose backup stream comes next in ``source``, ``start`` bytes after its beginning.

    Leaves the source open: the streams of the record come from it, and raise
    FailedPrecondition if the file changed since. Raises
    InvalidArgument for a damaged stream, and for more than ``max_size`` bytes.
    """
    security, eas, reparse, sizes = summarize(source, what, max_size=max_size)
    kind = DIRECTORY if attributes & DIRECTORY_ATTRIBUTE else FILE
    streams = _streams(source, what, start, sizes)
    return LayerFile(name, kind, attributes, times, security, eas, reparse, streams=streams)


def _streams(source: Source, what: str, start: int, sizes: Dict[str, int]) -> Iterator[Stream]:
    """Yield the data streams of a backup stream; ``sizes`` come from ``summarize``."""
    if not any(sizes.values()):
        yield from (Stream(name, 0, iter(())) for name in sizes)
        return
    source.rewind()
    source.skip(start)
    reader = BackupReader(source, what)
    headers = iter(reader)
    header = next(headers, None)

    def chunks(size: int) -> Iterator[bytes]:
        nonlocal header
        position = 0
        while header is not None:
            for data in iter(reader.read, b""):
                yield data
                position += len(data)
            header = next(headers, None)
            if header is None or header.id != SPARSE_BLOCK:
                break
            offset = reader.block_offset(header)
            if not position <= offset <= size - header.size + _OFFSET.size:
                raise _changed(what)
            while position < offset:
                hole = _ZEROS[: offset - position]
                yield hole
                position += len(hole)
        if position != size:
            raise _changed(what)

    found = 0
    while header is not None:
        if header.id not in (DATA, ALTERNATE_DATA):
            header = next(headers, None)
            continue
        name = _stream_name(header)
        if header.size > sizes.get(name, -1):
            raise _changed(what)
        content = chunks(sizes[name])
        yield Stream(name, sizes[name], content)
        for _piece in content:
            pass
        found += 1
    if found != len(sizes):
        raise _changed(what)


def encode(file: LayerFile) -> Iterator[bytes]:
    """Yield the backup stream of a record, in hcsshim's order: metadata, content, alternate streams.

    Consumes the streams of the record. BackupRead returns extended attributes
    last, but BackupWrite accepts any order (go-winio backuptar/tar.go).
    """
    for id_, data in (
        (SECURITY, file.security),
        (EXTENDED_ATTRIBUTES, file.eas),
        (REPARSE, file.reparse),
    ):
        if data:
            yield _HEADER.pack(id_, 0, len(data), 0) + data
    for stream in file.streams:
        name = f":{stream.name}{_DATA_TYPE}".encode("utf-16-le", "surrogatepass") if stream.name else b""
        yield _HEADER.pack(ALTERNATE_DATA if stream.name else DATA, 0, stream.size, len(name)) + name
        yield from stream.chunks


def _stream_name(header: StreamHeader) -> str:
    """Return the name for ``Stream``: ``notes`` for ``:notes:$DATA``."""
    if header.id == DATA:
        return ""
    name = header.name[header.name.startswith(":") :]
    return name.removesuffix(_DATA_TYPE)


def _changed(what: str) -> FailedPrecondition:
    return FailedPrecondition(f"{what} was changed while it was read: try again when nothing writes to it")
