# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OCI Windows layer tar: a reader that trusts nothing, and a writer.

The format is a POSIX tar in pax form (POSIX.1-2017 pax, "ustar Interchange
Format" and "pax Header Block") with Windows' attributes in pax records, as
go-winio backuptar/tar.go and hcsshim pkg/ociwclayer write and read it. The
reader also takes GNU's long names and base-256 numbers.

``tarfile`` is not used: it takes a damaged header for the end of the archive,
does not miss the end mark, and reads a header's announced gigabytes into memory.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import InvalidArgument
from .ntfsnames import PATH_UNITS, fault, fold, link_fault

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symlink"
HARD_LINK = "hard link"
WHITEOUT = "whiteout"
STREAM = "alternate stream"

#: hcsshim internal/wclayer/legacy.go: what a layer consists of.
FILES = "Files"
HIVES = "Hives"
UTILITY_VM = "UtilityVM"
UTILITY_VM_FILES = "UtilityVM/Files"

WHITEOUT_PREFIX = ".wh."
_MEANS_DELETION = f"begins with {WHITEOUT_PREFIX!r}, which in a layer tar means a deletion"

#: go-winio backuptar/tar.go.
FILE_ATTRIBUTES = "MSWINDOWS.fileattr"
CREATION_TIME = "LIBARCHIVE.creationtime"

#: Far above any layer seen: Windows Server Core has some 200,000 entries and 6 GB.
MAX_ENTRIES = 2_000_000
MAX_SIZE = 256 * 1024**3

#: What deflate makes of a layer is 2 to 5 times smaller; above this, and past
#: the first ``_RATIO_GRACE`` bytes, it is taken for a bomb.
MAX_RATIO = 250
_RATIO_GRACE = 256 * 1024**2

# A security descriptor has at most 64 KiB, all extended attributes of a file too.
_MAX_PAX_HEADER = 1024**2
_BLOCK = 512
_CHUNK = 1024**2
_NANOSECONDS = 1_000_000_000

# FILETIME begins with 1601, and 63 bits of 100 ns last until 30828 (MS-DTYP 2.3.3).
_FIRST_SECOND = -11_644_473_600
_LAST_SECOND = 910_692_730_085

_TIME = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]*))?")

# Types of header blocks.
_TYPES = {"0": FILE, "\0": FILE, "7": FILE, "1": HARD_LINK, "2": SYMLINK, "5": DIRECTORY}
_SPECIAL_TYPES = {"3": "a character device", "4": "a block device", "6": "a FIFO", "S": "a sparse file of GNU tar"}
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = "x", "g", "L", "K"


class Entry(NamedTuple):
    """One checked entry of a layer.

    ``name`` has forward slashes, no ``.`` or ``..``, and spells each directory
    as the entry that made it did. For a whiteout it is the deleted path, for
    an alternate stream the file, directory or symbolic link it belongs to,
    with the stream's name in ``link``. ``link`` of a hard link is an entry's
    name, of a symbolic link the text of the link. ``size`` is in bytes;
    ``mode`` holds permission bits, 0 if the writer knew none, which Windows
    does not. ``pax`` has all pax records that apply, ``MSWINDOWS.*`` among
    them.
    """

    name: str
    kind: str
    size: int
    mode: int
    mtime_ns: int
    link: str
    pax: Dict[str, str]


class LayerReader:
    """Iterates over the entries of a plain layer tar, and reads their contents.

    ``read`` gives the content of the entry that came last; what is not read is
    skipped. When the iteration is over, the stream has been read to its very
    end, and ``size``, ``digest`` (``sha256:<hex>``, the diff id of the OCI
    image specification) and ``entries`` tell of all of it.

    Every fault is an InvalidArgument that names the entry.
    """

    def __init__(self, stream: BinaryIO, *, max_entries: int = MAX_ENTRIES, max_size: int = MAX_SIZE) -> None:
        self.size = 0
        self.entries = 0
        self._stream = stream
        self._hash = hashlib.sha256()
        self._max_entries = max_entries
        self._max_size = max_size
        self._left = 0
        self._padding = 0
        self._last = ""
        self._seen: Dict[Tuple[int, str], _Seen] = {}
        self._stream_owner = ("", "")

    @property
    def digest(self) -> str:
        """The SHA-256 of all that was read so far."""
        return "sha256:" + self._hash.hexdigest()

    def read(self, limit: int = _CHUNK) -> bytes:
        """At most ``limit`` further bytes of the present entry, none at its end."""
        data = self._take(min(limit, self._left))
        self._left -= len(data)
        return data

    def __iter__(self) -> Iterator[Entry]:
        defaults: Dict[str, str] = {}
        while True:
            records = dict(defaults)
            header = self._header()
            while header and header.type in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
                extension = self._extension(header)
                if header.type == _PAX:
                    records.update(_pax_records(extension, self._where()))
                elif header.type == _PAX_GLOBAL:
                    defaults.update(_pax_records(extension, self._where()))
                    records = {**defaults, **records}
                else:
                    key = "path" if header.type == _GNU_NAME else "linkpath"
                    records[key] = _text(extension.rstrip(b"\0"), self._where())
                header = self._header()
                if header is None:
                    raise InvalidArgument(f"the layer ends in the middle of an entry, {self._where()}")
            if header is None:
                self._drain()
                return
            entry = self._entry(header, records)
            self.entries += 1
            if self.entries > self._max_entries or len(self._seen) > 2 * self._max_entries:
                raise InvalidArgument(f"entry {entry.name!r} is one too many: a layer has at most {self._max_entries}")
            self._left = entry.size
            self._padding = -entry.size % _BLOCK
            yield entry
            while self.read():
                pass
            self._take(self._padding)
            self._last = entry.name

    # -- bytes ---------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        """Exactly ``count`` bytes of the stream."""
        parts: List[bytes] = []
        wanted = count
        while wanted:
            data = self._stream.read(wanted)
            if not data:
                raise InvalidArgument(f"the layer is cut off, {self._where()}: get it again")
            parts.append(data)
            wanted -= len(data)
            self._hash.update(data)
        self.size += count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _drain(self) -> None:
        while True:
            data = self._stream.read(_CHUNK)
            if not data:
                return
            self._hash.update(data)
            self.size += len(data)
            if self.size > self._max_size:
                raise InvalidArgument(f"the layer goes on after its end mark, past {self._max_size} bytes")

    def _where(self) -> str:
        return f"after entry {self._last!r}" if self._last else "before its first entry was complete"

    # -- headers -------------------------------------------------------------

    def _header(self) -> Optional[_Header]:
        """The next header block, or None at the end mark, which is two blocks of zeros."""
        if self.size > self._max_size:
            raise InvalidArgument(f"the layer is larger than {self._max_size} bytes")
        block = self._take(_BLOCK)
        if not any(block):
            if any(self._take(_BLOCK)):
                raise InvalidArgument(f"the layer has a single block of zeros {self._where()}: it is damaged")
            return None
        return _parse_header(block, self._where())

    def _extension(self, header: _Header) -> bytes:
        if header.size > _MAX_PAX_HEADER:
            raise InvalidArgument(
                f"the extended header {self._where()} has {header.size} bytes: at most {_MAX_PAX_HEADER}"
            )
        data = self._take(header.size)
        self._take(-header.size % _BLOCK)
        return data

    def _entry(self, header: _Header, records: Dict[str, str]) -> Entry:
        raw = records.get("path", header.name)
        if header.type not in _TYPES:
            what = _SPECIAL_TYPES.get(header.type, f"of the unknown type {header.type!r}")
            raise InvalidArgument(f"entry {raw!r} is {what}: a Windows layer holds no such thing")
        if any(key.startswith("GNU.sparse.") for key in records):
            raise InvalidArgument(f"entry {raw!r} is {_SPECIAL_TYPES['S']}: a Windows layer holds no such thing")
        kind = _TYPES[header.type]
        # Archives older than POSIX mark a directory by its name alone.
        if kind == FILE and raw.endswith("/"):
            kind = DIRECTORY
        size = header.size
        if "size" in records:
            size = _decimal(records["size"], f"entry {raw!r} has a size")
        if kind != FILE:
            size = 0
        if size > self._max_size - self.size:
            raise InvalidArgument(
                f"entry {raw!r} has {size} bytes: the layer would be larger than {self._max_size} bytes"
            )
        mtime_ns = header.mtime * _NANOSECONDS
        if "mtime" in records:
            try:
                mtime_ns = time_from_text(records["mtime"])
            except InvalidArgument as error:
                raise error.prefixed(f"entry {raw!r} is refused") from None
        if not _FIRST_SECOND * _NANOSECONDS <= mtime_ns < _LAST_SECOND * _NANOSECONDS:
            raise InvalidArgument(f"entry {raw!r} has a time that Windows cannot hold")
        link = records.get("linkpath", header.link)
        name, kind, link = self._place(raw, kind, link)
        return Entry(name, kind, size, header.mode & 0o777, mtime_ns, link, records)

    # -- names ---------------------------------------------------------------

    def _place(self, raw: str, kind: str, link: str) -> Tuple[str, str, str]:
        """Check an entry's name and link; returns name, kind and link as the entry has them."""
        (owner, owner_name), self._stream_owner = self._stream_owner, ("", "")
        if kind == FILE and owner and raw.startswith(owner + ":"):
            stream = raw[len(owner) + 1 :]
            problem = fault(stream)
            if problem:
                raise InvalidArgument(f"entry {raw!r}: the name of the stream {problem}")
            self._stream_owner = (owner, owner_name)
            return owner_name, STREAM, stream
        components = self._components(raw, kind)
        if components[-1].startswith(WHITEOUT_PREFIX):
            return self._whiteout(raw, kind, components)
        if kind == HARD_LINK:
            link = self._hard_link(raw, link)
        elif kind == SYMLINK:
            problem = link_fault(len(components) - _root_length(components) - 1, link)
            if problem:
                raise InvalidArgument(f"entry {raw!r} links to {link!r}, {problem}")
        name = self._register(raw, components, kind)
        if kind != HARD_LINK:
            self._stream_owner = (raw.removesuffix("/"), name)
        return name, kind, link

    def _components(self, raw: str, kind: str) -> List[str]:
        text = raw[:-1] if kind == DIRECTORY and raw.endswith("/") else raw
        if len(text.encode("utf-16-le")) > 2 * PATH_UNITS:
            raise InvalidArgument(f"entry {raw[:100]!r}... has a name of more than {PATH_UNITS} UTF-16 units")
        components = text.split("/")
        for component in components:
            problem = fault(component)
            if problem:
                what = f"{component!r} {problem}" if component else "names must be relative, without empty parts"
                raise InvalidArgument(f"entry {raw!r} is refused: {what}")
        for component in components[:-1]:
            if component.startswith(WHITEOUT_PREFIX):
                raise InvalidArgument(f"entry {raw!r} is refused: {component!r} {_MEANS_DELETION}")
        root = components[0]
        if root not in (FILES, HIVES, UTILITY_VM):
            raise InvalidArgument(
                f"entry {raw!r} is refused: a layer consists of {FILES}, {HIVES} and {UTILITY_VM} only"
            )
        if root == UTILITY_VM and components[1:2] not in ([], [FILES]):
            raise InvalidArgument(f"invalid UtilityVM layer: entry {raw!r} is not below {UTILITY_VM_FILES}")
        if kind != DIRECTORY and len(components) <= _root_length(components):
            raise InvalidArgument(f"entry {raw!r} is refused: it must be a directory")
        if kind in (SYMLINK, HARD_LINK) and root == HIVES:
            raise InvalidArgument(f"entry {raw!r} is refused: there are no links in {HIVES}")
        return components

    def _whiteout(self, raw: str, kind: str, components: List[str]) -> Tuple[str, str, str]:
        self._directory(raw, components[:-1], note=False)
        base = components[-1][len(WHITEOUT_PREFIX) :]
        problem = fault(base)
        if problem or kind != FILE or components[0] == HIVES:
            raise InvalidArgument(f"invalid tombstone {raw!r}" + (f": {base!r} {problem}" if problem else ""))
        return "/".join([*components[:-1], base]), WHITEOUT, ""

    def _hard_link(self, raw: str, link: str) -> str:
        try:
            target = self._components(link, HARD_LINK)
            number, path = self._directory(link, target[:-1], note=False)
        except InvalidArgument as error:
            raise error.prefixed(f"invalid hard link in layer: entry {raw!r}") from None
        found = self._seen.get((number, fold(target[-1])))
        if found and found.kind not in (FILE, HARD_LINK):
            raise InvalidArgument(
                f"invalid hard link in layer: entry {raw!r} links to {link!r}, which is a {found.kind}"
            )
        return path + (found.name if found else target[-1])

    def _register(self, raw: str, components: List[str], kind: str) -> str:
        """Note a name; refuses one that an earlier entry has. Returns it as it is spelled."""
        number, path = self._directory(raw, components[:-1], note=True)
        key = (number, fold(components[-1]))
        found = self._seen.get(key)
        if found is None:
            self._seen[key] = _Seen(kind, components[-1], len(self._seen) + 1)
        elif not found.kind == kind == DIRECTORY:
            raise InvalidArgument(
                f"entry {raw!r} is refused: there is an entry {path + found.name!r} already, a {found.kind}, "
                "and the names are one to Windows"
            )
        return path + self._seen[key].name

    def _directory(self, raw: str, components: List[str], *, note: bool) -> Tuple[int, str]:
        """The number of the directory that an entry lies in, and how it is spelled, a slash at the end.

        Refuses one that an earlier entry made a file or a link. A number of
        -1: no entry lies in it.
        """
        number, spelled = 0, []
        for component in components:
            key = (number, fold(component))
            found = self._seen.get(key)
            if found is None:
                found = _Seen(DIRECTORY, component, len(self._seen) + 1 if note else -1)
                if note:
                    self._seen[key] = found
            spelled.append(found.name)
            if found.kind != DIRECTORY:
                path = "/".join(spelled)
                raise InvalidArgument(f"entry {raw!r} is refused: it lies below {path!r}, which is a {found.kind}")
            number = found.number
        return number, "".join(f"{name}/" for name in spelled)


class _Seen(NamedTuple):
    """A name of an earlier entry, or of a directory that it lies in.

    Known by the number of the directory above it, 0 for the layer, and its
    folded name: whole paths would make a layer of deep directories cost the
    square of its size.
    """

    kind: str
    name: str
    number: int


class _Header(NamedTuple):
    """One header block as it stands; ``mtime`` in seconds."""

    name: str
    type: str
    size: int
    mode: int
    mtime: int
    link: str


def _root_length(components: List[str]) -> int:
    return 2 if components[0] == UTILITY_VM else 1


def _parse_header(block: bytes, where: str) -> _Header:
    checksum = sum(block) - sum(block[148:156]) + 8 * 0x20
    if checksum != _number(block[148:156], where):
        raise InvalidArgument(f"the layer has a damaged header {where}: the checksum is wrong; is it a tar?")
    name = block[:100]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0")[0] + b"/" + name
    kind = chr(block[156])
    size = _number(block[124:136], where)
    mtime = _number(block[136:148], where)
    if size < 0:
        raise InvalidArgument(f"the layer has a header with a negative size {where}")
    # Names that pax records replace may be cut or in another encoding, so nothing is said of them here.
    texts = [field.split(b"\0")[0].decode("utf-8", "backslashreplace") for field in (name, block[157:257])]
    return _Header(texts[0], kind, size, _number(block[100:108], where), mtime, texts[1])


def _number(field: bytes, where: str) -> int:
    """A numeric field: octal text, or GNU's base-256 with the top bit set (GNU tar manual, "Extensions")."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big", signed=False) - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    text = field.split(b"\0")[0].strip(b" ")
    if text.strip(b"01234567"):
        raise InvalidArgument(f"the layer has a damaged header {where}: {field!r} is not a number; is it a tar?")
    return int(text or b"0", 8)


def _pax_records(data: bytes, where: str) -> Dict[str, str]:
    """The records of an extended header: length of it all in bytes, a space, key, ``=``, value, a line feed."""
    records: Dict[str, str] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space]
        if space < 0 or not digits.isdigit():
            raise InvalidArgument(f"the layer has a damaged extended header {where}")
        end = position + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise InvalidArgument(f"the layer has a damaged extended header {where}")
        records[_text(key, where)] = _text(value, where)
        position = end
    return records


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument(f"the layer has an extended header {where} that is not UTF-8: {data[:100]!r}") from None


def _decimal(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise InvalidArgument(f"{what} {text[:40]!r} that is not a number")
    return int(text)


# -- writing -------------------------------------------------------------------

#: What ends an archive.
END_MARK = bytes(2 * _BLOCK)


def header(
    name: str,
    kind: str,
    *,
    size: int = 0,
    mode: int = 0,
    mtime_ns: int = 0,
    link: str = "",
    pax: Optional[Dict[str, str]] = None,
) -> bytes:
    """The header of an entry: the same bytes for the same arguments, which are as in ``Entry``.

    The name of a whiteout is the deleted path, and it gets no other attribute.
    Content follows, then ``padding(size)``.

    Raises:
        InvalidArgument: a part of the name would be read as a whiteout. A
            container can make such files; a tar cannot hold them.

    """
    directory, _slash, base = name.rpartition("/")
    for component in directory.split("/") if kind == WHITEOUT else name.split("/"):
        if component.startswith(WHITEOUT_PREFIX):
            raise InvalidArgument(f"{name!r}: {component!r} {_MEANS_DELETION}; rename or remove it")
    if kind == WHITEOUT:
        return _blocks(f"{directory}/{WHITEOUT_PREFIX}{base}", "0", 0, 0, 0, "", {})
    seconds, nanoseconds = divmod(mtime_ns, _NANOSECONDS)
    records = dict(pax or {})
    if nanoseconds or not 0 <= seconds < 8**11:
        records["mtime"] = time_text(mtime_ns)
    types = {FILE: "0", HARD_LINK: "1", SYMLINK: "2", DIRECTORY: "5"}
    return _blocks(name, types[kind], size, mode, seconds if 0 <= seconds < 8**11 else 0, link, records)


def padding(size: int) -> bytes:
    """The zeros that fill up the last block of a content of this many bytes."""
    return bytes(-size % _BLOCK)


def time_from_text(text: str) -> int:
    """The inverse of ``time_text``: of ``[-]seconds[.fraction]``, where the sign is that of the whole."""
    found = _TIME.fullmatch(text)
    if not found:
        raise InvalidArgument(f"it has a time {text[:40]!r} that is not a number")
    sign, seconds, fraction = found.groups("")
    time_ns = int(seconds + fraction[:9].ljust(9, "0"))
    return -time_ns if sign else time_ns


def time_text(time_ns: int) -> str:
    """A time in nanoseconds since 1970 as pax writes it."""
    seconds, fraction = divmod(abs(time_ns), _NANOSECONDS)
    text = f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".") if fraction else str(seconds)
    return "-" + text if time_ns < 0 else text


def _blocks(name: str, kind: str, size: int, mode: int, seconds: int, link: str, records: Dict[str, str]) -> bytes:
    texts = {"path": name, "linkpath": link}
    records.update((key, text) for key, text in texts.items() if not text.isascii() or len(text) > 100)
    if size >= 8**11:
        records["size"] = str(size)
    block = _block(name, kind, 0 if "size" in records else size, mode, seconds, link)
    if not records:
        return block
    data = b"".join(_pax_record(key, records[key]) for key in sorted(records))
    return _block("PaxHeader", _PAX, len(data), 0o644, 0, "") + data + padding(len(data)) + block


def _block(name: str, kind: str, size: int, mode: int, seconds: int, link: str) -> bytes:
    fields = [
        (name.encode("ascii", "replace"), 100),
        (b"%07o" % mode, 8),
        (b"%07o" % 0, 8),
        (b"%07o" % 0, 8),
        (b"%011o" % size, 12),
        (b"%011o" % seconds, 12),
        (b" " * 8, 8),
        (kind.encode("ascii"), 1),
        (link.encode("ascii", "replace"), 100),
        (b"ustar\00000", 8),
        (b"", 64),
        (b"%07o" % 0, 8),
        (b"%07o" % 0, 8),
        (b"", 167),
    ]
    block = b"".join(value[:length].ljust(length, b"\0") for value, length in fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax_record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text)
    # The length counts its own digits.
    while length != len(text) + len(str(length)):
        length = len(text) + len(str(length))
    return str(length).encode("ascii") + text


# -- compression ---------------------------------------------------------------


def open_layer(stream: BinaryIO, *, max_ratio: int = MAX_RATIO) -> BinaryIO:
    """The plain tar of a layer that is plain or compressed with gzip (RFC 1952), told by its first bytes.

    The result raises InvalidArgument while it is read: for damaged or cut off
    data, and for data that decompresses to more than ``max_ratio`` times its size.
    """
    head = b""
    while len(head) < 4:
        data = stream.read(4 - len(head))
        if not data:
            break
        head += data
    if head == b"\x28\xb5\x2f\xfd":
        raise InvalidArgument("the layer is compressed with zstd: decompress it first, or pack it with gzip")
    source = _Joined(head, stream)
    if head[:2] == b"\x1f\x8b":
        return io.BufferedReader(_Gunzip(source, max_ratio), _CHUNK)
    return io.BufferedReader(source, _CHUNK)


class _Joined(io.RawIOBase):
    """Bytes read ahead, then the rest of their stream."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._stream.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Gunzip(io.RawIOBase):
    """Decompresses gzip members one after another, never more at once than was asked for."""

    def __init__(self, source: io.RawIOBase, max_ratio: int) -> None:
        import zlib

        self._zlib = zlib
        self._member = zlib.decompressobj(wbits=31)
        self._source = source
        self._max_ratio = max_ratio
        self._taken = 0
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            if self._member.eof:
                rest = (self._member.unused_data or self._fetch()).lstrip(b"\0")
                if not rest:
                    return 0
                self._member = self._zlib.decompressobj(wbits=31)
            else:
                rest = self._member.unconsumed_tail or self._fetch()
                if not rest:
                    raise InvalidArgument("the compressed layer is cut off: get it again")
            try:
                data = self._member.decompress(rest, len(buffer))
            except self._zlib.error as error:
                raise InvalidArgument(f"the compressed layer is damaged: {error}; get it again") from None
        self._given += len(data)
        if self._given > max(_RATIO_GRACE, self._taken * self._max_ratio):
            raise InvalidArgument(
                f"the compressed layer grows to more than {self._max_ratio} times its size: "
                "if it is no trick, decompress it first"
            )
        buffer[: len(data)] = data
        return len(data)

    def _fetch(self) -> bytes:
        data = self._source.read(65536) or b""
        self._taken += len(data)
        return data
