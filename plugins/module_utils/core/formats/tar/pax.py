# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Headers of a tar in pax form: a strict reader, and a writer.

The format is POSIX.1-2017 pax, "ustar Interchange Format" and "pax Header
Block". The reader also accepts GNU's long names and base-256 numbers.

``tarfile`` is not used: it takes a damaged header for the end of the archive,
accepts an archive without an end mark, and reads a header of any announced
size into memory.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, NamedTuple, Optional, Pattern, Tuple

from ...errors import InvalidArgument

BLOCK = 512

#: What ends an archive.
END_MARK = bytes(2 * BLOCK)

# Header types (ustar typeflag). Some old writers use \0 for a file; 7 is a contiguous file.
FILE_TYPES = ("0", "\0", "7")
HARD_LINK_TYPE = "1"
SYMLINK_TYPE = "2"
DIRECTORY_TYPE = "5"
SPARSE_TYPE = "S"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = "x", "g", "L", "K"
_EXTENSIONS = (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK)

# Bytes of the extended headers before one entry: a security descriptor has at most 64 KiB, and so have all extended
# attributes of a file. Of an archive: Windows Server Core has some 250 MB in 200,000 entries.
_MAX_EXTENSION = 1024**2
_MAX_EXTENSIONS = 1024**3

# Records of global headers are copied for each entry.
_MAX_DEFAULTS = 64
_MAX_DEFAULT_SIZE = 64 * 1024

# All readers need these keys. Other keys are kept only for a reader that names them.
_KEYS = re.compile(rb"path|linkpath|size|GNU\.sparse\..*", re.DOTALL)

_NANOSECONDS = 1_000_000_000
_MAX_OCTAL = 8**11

_TIME = re.compile(r"(-?)([0-9]{1,20})(?:\.([0-9]*))?")

Records = Dict[bytes, bytes]


class Header(NamedTuple):
    """One header block as it is in the archive; ``size`` in bytes, ``mtime`` in seconds.

    Pax records may replace its names, so bytes of them that are not UTF-8 are
    escaped instead of refused; ``unreadable`` says that ``name`` had some. In
    ``link`` they are replaced, as Go does.
    """

    name: str
    type: str
    size: int
    mode: int
    mtime: int
    link: str
    unreadable: bool


class HeaderReader:
    """Reads the headers of an archive, one entry after another.

    ``take`` returns exactly that many bytes of the archive, or raises.
    ``subject`` names the archive in errors, and ``where`` the place in it:
    ``after entry 'a'``. Records are kept if the pattern ``keys`` matches their
    whole key, or if every reader needs them; the values of others may be
    anything. All faults are InvalidArgument.
    """

    def __init__(
        self,
        take: Callable[[int], bytes],
        subject: str,
        where: Callable[[], str],
        keys: Pattern[bytes] = _KEYS,
    ) -> None:
        self._take = take
        self._subject = subject
        self._where = where
        self._keys = keys
        self._defaults: Records = {}
        self._extensions = 0

    def next(self) -> Optional[Tuple[Header, Records]]:
        """Return the next entry's header and the pax records that apply to it, or None at a block of zeros.

        The position is then after the header, or after the first block of the
        end mark. GNU's long names become the records ``path`` and ``linkpath``.
        """
        own: Records = {}
        before = self._extensions
        header = self._header()
        while header and header.type in _EXTENSIONS:
            extension = self._extension(header.size, before)
            if header.type == _PAX:
                own.update(self._parse_records(extension))
            elif header.type == _PAX_GLOBAL:
                self._set_defaults(self._parse_records(extension))
            else:
                own[b"path" if header.type == _GNU_NAME else b"linkpath"] = extension.rstrip(b"\0")
            header = self._header()
            if header is None:
                raise InvalidArgument(f"{self._subject} ends in the middle of an entry, {self._where()}")
        if header is None:
            return None
        return header, {**self._defaults, **own}

    def text(self, data: bytes) -> str:
        """Decode a key or value of a record; InvalidArgument if it is not UTF-8."""
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidArgument(
                f"{self._subject} has an extended header {self._where()} that is not UTF-8: {data[:100]!r}"
            ) from None

    def _header(self) -> Optional[Header]:
        block = self._take(BLOCK)
        if not any(block):
            return None
        counted = block[:148] + block[156:]
        checksum = sum(counted) + 8 * 0x20
        # Some programs add up the bytes as signed numbers.
        signed = checksum - 256 * sum(byte > 127 for byte in counted)
        if self._number(block[148:156]) not in (checksum, signed):
            raise self._damaged("the checksum is wrong")
        name = block[:100]
        if block[257:263] == b"ustar\0" and block[345]:
            name = block[345:500].split(b"\0")[0] + b"/" + name
        size = self._number(block[124:136])
        mtime = self._number(block[136:148])
        if size < 0:
            raise InvalidArgument(f"{self._subject} has a header with a negative size {self._where()}")
        name = name.split(b"\0")[0]
        path = name.decode("utf-8", "backslashreplace")
        link = block[157:257].split(b"\0")[0].decode("utf-8", "replace")
        return Header(path, chr(block[156]), size, self._number(block[100:108]), mtime, link, path.encode() != name)

    def _extension(self, size: int, before: int) -> bytes:
        """Read an extended header; ``before`` is the sum of all before this entry. A header block counts as well."""
        self._extensions += BLOCK + size
        for limit, start, what in (
            (_MAX_EXTENSION, before, "before one entry"),
            (_MAX_EXTENSIONS, 0, "in one archive"),
        ):
            if self._extensions - start > limit + BLOCK:
                raise InvalidArgument(
                    f"the extended header {self._where()} has {size} bytes: at most {limit} bytes of such headers are "
                    f"read {what}"
                )
        data = self._take(size)
        self._take(-size % BLOCK)
        return data

    def _set_defaults(self, records: Records) -> None:
        self._defaults.update(records)
        size = sum(len(key) + len(value) for key, value in self._defaults.items())
        if len(self._defaults) > _MAX_DEFAULTS or size > _MAX_DEFAULT_SIZE:
            raise InvalidArgument(
                f"{self._subject} has global extended headers with {len(self._defaults)} records of {size} bytes "
                f"{self._where()}: at most {_MAX_DEFAULTS} records of {_MAX_DEFAULT_SIZE} bytes apply to all entries"
            )

    def _number(self, field: bytes) -> int:
        """Parse a numeric field: octal text, or GNU's base-256 with the top bit set (GNU tar manual, "Extensions")."""
        if field[0] in (0x80, 0xFF):
            negative = 256 ** (len(field) - 1) if field[0] == 0xFF else 0
            return int.from_bytes(field[1:], "big", signed=False) - negative
        text = field.split(b"\0")[0].strip(b" ")
        if text.strip(b"01234567"):
            raise self._damaged(f"{field!r} is not a number")
        return int(text or b"0", 8)

    def _parse_records(self, data: bytes) -> Records:
        """Parse an extended header: of each record its length in bytes, a space, key, ``=``, value, a line feed."""
        records: Records = {}
        position = 0
        while position < len(data):
            space = data.find(b" ", position, position + 8)
            digits = data[position:space]
            if space < 0 or not digits.isdigit():
                raise self._damaged_extension()
            end = position + int(digits)
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
                raise self._damaged_extension()
            if self._keys.fullmatch(key) or _KEYS.fullmatch(key):
                records[key] = value
            position = end
        return records

    def _damaged(self, reason: str) -> InvalidArgument:
        return InvalidArgument(f"{self._subject} has a damaged header {self._where()}: {reason}; is it a tar?")

    def _damaged_extension(self) -> InvalidArgument:
        return InvalidArgument(f"{self._subject} has a damaged extended header {self._where()}")


def parse_decimal(text: str, what: str) -> int:
    """Parse a decimal number of a record; ``what`` begins the message of the InvalidArgument."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise InvalidArgument(f"{what} {text[:40]!r} that is not a number")
    return int(text)


def time_from_text(text: str) -> int:
    """Parse a time of a record, ``[-]seconds[.fraction]``: nanoseconds since 1970. The sign applies to the whole."""
    found = _TIME.fullmatch(text)
    if not found:
        raise InvalidArgument(f"it has a time {text[:40]!r} that is not a number")
    sign, seconds, fraction = found.groups("")
    time_ns = int(seconds + fraction[:9].ljust(9, "0"))
    return -time_ns if sign else time_ns


# -- writing -------------------------------------------------------------------


def header(name: str, kind: str, *, size: int, mode: int, mtime_ns: int, link: str, pax: Dict[str, str]) -> bytes:
    """Return the header of an entry: the same bytes for the same arguments.

    ``kind`` is a header type. ``pax`` are records to add.
    """
    seconds, nanoseconds = divmod(mtime_ns, _NANOSECONDS)
    is_octal = 0 <= seconds < _MAX_OCTAL
    texts = {"path": name, "linkpath": link}
    records = dict(pax)
    if nanoseconds or not is_octal:
        records["mtime"] = time_text(mtime_ns)
    records.update((key, text) for key, text in texts.items() if not text.isascii() or len(text) > 100)
    if size >= _MAX_OCTAL:
        records["size"] = str(size)
    block = _block(name, kind, 0 if "size" in records else size, mode, seconds if is_octal else 0, link)
    if not records:
        return block
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    return _block("PaxHeader", _PAX, len(data), 0o644, 0, "") + data + padding(len(data)) + block


def padding(size: int) -> bytes:
    """Return the zeros that fill the last block of a content of ``size`` bytes."""
    return bytes(-size % BLOCK)


def time_text(time_ns: int) -> str:
    """Format a time in nanoseconds since 1970 for a record."""
    seconds, fraction = divmod(abs(time_ns), _NANOSECONDS)
    text = f"{seconds}.{fraction:09d}".rstrip("0").rstrip(".") if fraction else str(seconds)
    return "-" + text if time_ns < 0 else text


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


def _record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text)
    # The length counts its own digits.
    while length != len(text) + len(str(length)):
        length = len(text) + len(str(length))
    return str(length).encode("ascii") + text
