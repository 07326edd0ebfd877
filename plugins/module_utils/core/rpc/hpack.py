# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compress and decompress the header lists of HTTP/2 (HPACK, RFC 7541).

The encoder uses neither the dynamic table nor Huffman codes: our header lists are short, and a peer understands each
form. The decoder understands everything, because a peer can use the dynamic table before it gets our settings.
"""

from __future__ import annotations

import collections
import functools
from typing import Deque, Dict, Iterable, List, Tuple

Header = Tuple[str, str]

#: Size of the dynamic table in bytes, as RFC 7541 section 4.1 counts: SETTINGS_HEADER_TABLE_SIZE before any settings.
TABLE_SIZE = 4096

#: Size of a header list in bytes, counted in the same way. gRPC's own limit is 8 KiB; a long error message needs more.
MAX_LIST_SIZE = 1 << 16

# What an entry costs in addition to its name and value (section 4.1).
_ENTRY_SIZE = 32

# Blocks that are kept in their encoded form.
_REMEMBERED_BLOCKS = 16

# Appendix A, in the order of the indexes. A value follows its name after "="; "~" stands for a space.
_STATIC_ENTRIES = """
:authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204
:status=206 :status=304 :status=400 :status=404 :status=500 accept-charset accept-encoding=gzip,~deflate accept-language
accept-ranges accept access-control-allow-origin age allow authorization cache-control content-disposition
content-encoding content-language content-length content-location content-range content-type cookie date etag expect
expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified link location
max-forwards proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_STATIC_TABLE: List[Header] = [
    (name, value.replace("~", " ")) for name, _is, value in (entry.partition("=") for entry in _STATIC_ENTRIES.split())
]
_INDEXES = {entry: index for index, entry in reversed(list(enumerate(_STATIC_TABLE, 1)))}

# Appendix B. A letter is the length of the code of one symbol, from 0 to 256: "a" is 5 bits, "z" is 30 bits. The codes
# ascend with their length, and with the symbol among codes of one length. Therefore the lengths define them.
_CODE_LENGTHS = (
    "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhfibcccccccccccccccccccc"
    "ccdcdioijbkabababbbaccbbbabcbaabccccckgjixprpprrrsrssssststtrstssssqrsrsstrqprrssqsrrt"
    "qrssqqrqsrssprrrsrrsvvporsruvvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwvz"
)
# The symbol that ends a text. A text does not contain it.
_END = 256


class HpackError(ValueError):
    """A header block that cannot be decompressed. The connection has to end: the table is not known any more."""


class Decoder:
    """Decompresses the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._table: Deque[Header] = collections.deque()
        self._size = 0
        self._limit = TABLE_SIZE

    def decode(self, block: bytes) -> List[Header]:
        """Return the header list of a block. Bytes that are not UTF-8 are replaced. Raises HpackError."""
        headers: List[Header] = []
        at = size = 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _read_number(block, at, 7)
                header = self._entry(index)
            elif first & 0xE0 == 0x20:
                if headers:
                    raise HpackError("the size of the table changes after the first header")
                limit, at = _read_number(block, at, 5)
                self._resize(limit)
                continue
            else:
                indexed = first & 0x40
                index, at = _read_number(block, at, 6 if indexed else 4)
                name, at = (self._entry(index)[0], at) if index else _read_text(block, at)
                value, at = _read_text(block, at)
                header = (name, value)
                if indexed:
                    self._add(header)
            size += _size_of(header)
            if size > MAX_LIST_SIZE:
                raise HpackError(f"the header list has more than {MAX_LIST_SIZE} bytes")
            headers.append(header)
        return headers

    def _entry(self, index: int) -> Header:
        if 1 <= index <= len(_STATIC_TABLE):
            return _STATIC_TABLE[index - 1]
        if 1 <= index <= len(_STATIC_TABLE) + len(self._table):
            return self._table[index - len(_STATIC_TABLE) - 1]
        raise HpackError(f"no header has the index {index}")

    def _resize(self, limit: int) -> None:
        if limit > TABLE_SIZE:
            raise HpackError(f"the table has at most {TABLE_SIZE} bytes, not {limit}")
        self._limit = limit
        self._evict(0)

    def _add(self, header: Header) -> None:
        """Add an entry. An entry that is larger than the table only empties it (section 4.4)."""
        size = _size_of(header)
        self._evict(size)
        if size <= self._limit:
            self._table.appendleft(header)
            self._size += size

    def _evict(self, needed: int) -> None:
        while self._table and self._size + needed > self._limit:
            self._size -= _size_of(self._table.pop())


def encode(headers: Iterable[Header]) -> bytes:
    """Return a header block. Names are in lower case."""
    return _encode(tuple(headers))


# All answers have the same headers, and those that succeed the same trailers.
@functools.lru_cache(maxsize=_REMEMBERED_BLOCKS)
def _encode(headers: Tuple[Header, ...]) -> bytes:
    block = bytearray()
    for header in headers:
        if header in _INDEXES:
            block += _number(_INDEXES[header], 7, 0x80)
            continue
        block.append(0)
        for text in header:
            data = text.encode()
            block += _number(len(data), 7, 0)
            block += data
    return bytes(block)


def _number(value: int, bits: int, flags: int) -> bytes:
    """Encode a number (section 5.1), whose first byte has ``flags`` above its ``bits``."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([flags | value])
    encoded = bytearray([flags | most])
    value -= most
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_number(block: bytes, at: int, bits: int) -> Tuple[int, int]:
    """Return the number at a position, and the position after it."""
    most = (1 << bits) - 1
    try:
        value = block[at] & most
        if value < most:
            return value, at + 1
        # Five bytes hold each length that a connection allows.
        for shift in range(0, 35, 7):
            at += 1
            value += (block[at] & 0x7F) << shift
            if block[at] < 0x80:
                return value, at + 1
    except IndexError:
        raise HpackError("the header block is cut off") from None
    raise HpackError("a number in the header block is too large")


def _read_text(block: bytes, at: int) -> Tuple[str, int]:
    """Return the text at a position, and the position after it."""
    length, start = _read_number(block, at, 7)
    end = start + length
    if end > len(block):
        raise HpackError("the header block is cut off")
    data = block[start:end]
    return (_from_huffman(data) if block[at] & 0x80 else data).decode(errors="replace"), end


def _from_huffman(data: bytes) -> bytes:
    codes = _codes()
    text = bytearray()
    code = length = 0
    for byte in data:
        for shift in range(7, -1, -1):
            code = code << 1 | byte >> shift & 1
            length += 1
            symbol = codes.get((length, code))
            if symbol is not None:
                if symbol == _END:
                    raise HpackError("a text contains the symbol that ends it")
                text.append(symbol)
                code = length = 0
    # The padding is the start of the symbol that ends a text: ones, shorter than a byte (section 5.2).
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("a text ends in the middle of a symbol")
    return bytes(text)


@functools.cache
def _codes() -> Dict[Tuple[int, int], int]:
    """Return the symbol of each Huffman code, by its length in bits and its value."""
    codes: Dict[Tuple[int, int], int] = {}
    code = previous = 0
    for length, symbol in sorted((ord(letter) - ord("a") + 5, symbol) for symbol, letter in enumerate(_CODE_LENGTHS)):
        code <<= length - previous
        previous = length
        codes[length, code] = symbol
        code += 1
    return codes


def _size_of(header: Header) -> int:
    return len(header[0].encode()) + len(header[1].encode()) + _ENTRY_SIZE
