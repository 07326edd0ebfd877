# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write bbolt databases in one go, for lab nodes that simulate containerd and for tests.

The pages of all buckets are written at once, from values in memory. bbolt itself can open and change the result. What
this writer does not do: change single pages, and keep a list of free pages.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import Dict, List, Tuple, Union

_PAGE = struct.Struct("<QHHI")
_ELEMENT = struct.Struct("<IIII")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_BUCKET = struct.Struct("<QQ")
_META = struct.Struct("<IIIIQQQQQ")
_BRANCH, _LEAF, _META_PAGE, _FREELIST = 1, 2, 4, 16
_FREELIST_PAGE = 2

#: The freelist page of a database that keeps no list of free pages. bbolt then looks for them when it opens the file.
NO_FREELIST = (1 << 64) - 1

# Flags of an element, its key, its value.
_Item = Tuple[int, bytes, bytes]


@dataclasses.dataclass
class Bucket:
    """The items of a bucket, which are values or buckets, and its sequence."""

    items: Dict[bytes, Union[bytes, Bucket]] = dataclasses.field(default_factory=dict)
    sequence: int = 0


def database(root: Bucket, page_size: int = 4096, transaction: int = 1) -> bytes:
    """Return a database with these top-level buckets. ``page_size`` is a power of two from 1 KiB to 32 MiB."""
    page, data = tree_pages(root, page_size, _FREELIST_PAGE + 1)
    pages = _FREELIST_PAGE + 1 + len(data) // page_size
    numbers = (transaction - transaction % 2, transaction - 1 + transaction % 2)
    metas = [meta_page(root, page, pages, current, page_size, _FREELIST_PAGE) for current in numbers]
    freelist = _PAGE.pack(_FREELIST_PAGE, _FREELIST, 0, 0)
    return b"".join([*metas, freelist.ljust(page_size, b"\0"), data])


def tree_pages(root: Bucket, page_size: int, first: int) -> Tuple[int, bytes]:
    """Return the root page of these top-level buckets, and the contents of all their pages. They start at ``first``."""
    writer = _Writer(page_size, first)
    page = writer.tree(root)
    return page, b"".join(writer.pages)


def meta_page(
    root: Bucket, page: int, pages: int, transaction: int, page_size: int, freelist: int = NO_FREELIST
) -> bytes:
    """Return the meta page of a transaction. Its page number is the lowest bit of the transaction id.

    ``page`` is the root page, ``pages`` the high-water mark: no page of the state has this number or a higher one.
    """
    meta = _META.pack(0xED0CDAED, 2, page_size, 0, page, root.sequence, freelist, pages, transaction)
    checksum = 0xCBF29CE484222325
    for byte in meta:
        checksum = (checksum ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    header = _PAGE.pack(transaction % 2, _META_PAGE, 0, 0)
    return (header + meta + struct.pack("<Q", checksum)).ljust(page_size, b"\0")


class _Writer:
    """Builds pages from the bottom up. ``pages`` starts with page ``first``; an element of it is one page."""

    def __init__(self, page_size: int, first: int) -> None:
        self.page_size = page_size
        self._first = first
        self.pages: List[bytes] = []

    def tree(self, bucket: Bucket) -> int:
        """Add the pages of a bucket. Return its root page."""
        groups = self._split(
            [(isinstance(value, Bucket), key, self._value(value)) for key, value in sorted(bucket.items.items())]
        )
        level = [(group[0][1] if group else b"", self._add(_LEAF, _leaf(group), len(group))) for group in groups]
        while len(level) > 1:
            level = self._branches(level)
        return level[0][1]

    def _value(self, value: Union[bytes, Bucket]) -> bytes:
        if isinstance(value, bytes):
            return value
        items: List[_Item] = [(0, key, inner) for key, inner in sorted(value.items.items()) if isinstance(inner, bytes)]
        if len(items) == len(value.items):
            page = _PAGE.pack(0, _LEAF, len(items), 0) + _leaf(items)
            if len(page) <= self.page_size // 4:
                return _BUCKET.pack(0, value.sequence) + page
        return _BUCKET.pack(self.tree(value), value.sequence)

    def _split(self, items: List[_Item]) -> List[List[_Item]]:
        """Divide items into leaf pages. An item that is larger than a page gets one of its own, with overflow pages."""
        groups: List[List[_Item]] = [[]]
        used = _PAGE.size
        for item in items:
            size = _ELEMENT.size + len(item[1]) + len(item[2])
            if groups[-1] and used + size > self.page_size:
                groups.append([])
                used = _PAGE.size
            groups[-1].append(item)
            used += size
        return groups

    def _branches(self, level: List[Tuple[bytes, int]]) -> List[Tuple[bytes, int]]:
        """Add the branch pages that lead to the pages of a level. Return the level above it: first keys and pages."""
        above = []
        while level:
            count = used = 0
            while count < len(level) and (count < 2 or used + 16 + len(level[count][0]) <= self.page_size - _PAGE.size):
                used += _BRANCH_ELEMENT.size + len(level[count][0])
                count += 1
            part, level = level[:count], level[count:]
            heads = keys = b""
            for index, (key, page) in enumerate(part):
                heads += _BRANCH_ELEMENT.pack((count - index) * _BRANCH_ELEMENT.size + len(keys), len(key), page)
                keys += key
            above.append((part[0][0], self._add(_BRANCH, heads + keys, count)))
        return above

    def _add(self, flags: int, content: bytes, count: int) -> int:
        number = self._first + len(self.pages)
        overflow = (_PAGE.size + len(content) - 1) // self.page_size
        data = (_PAGE.pack(number, flags, count, overflow) + content).ljust((overflow + 1) * self.page_size, b"\0")
        self.pages.extend(data[at : at + self.page_size] for at in range(0, len(data), self.page_size))
        return number


def _leaf(items: List[_Item]) -> bytes:
    """Return the elements of a leaf page, without its header."""
    heads: List[bytes] = []
    data: List[bytes] = []
    used = 0
    for index, (flags, key, value) in enumerate(items):
        offset = (len(items) - index) * _ELEMENT.size + used
        heads.append(_ELEMENT.pack(flags, offset, len(key), len(value)))
        data += (key, value)
        used += len(key) + len(value)
    return b"".join(heads + data)
