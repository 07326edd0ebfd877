# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read bbolt databases, also while another process writes to them.

bbolt is the key-value store of containerd: nested buckets of sorted keys, each bucket a B+ tree of pages in one file
(go.etcd.io/bbolt, page.go, bucket.go, db.go). A transaction writes new pages, then one of two meta pages. The meta page
with a valid checksum and the higher transaction id is the root of the newest committed state.

Pages have no checksums. Changed bytes inside a value pass unnoticed. Structural damage is an error: each page belongs
to one bucket, keys ascend, and elements do not overlap. Therefore a reader never loops, and the keys and values of a
state are never larger than its pages.
"""

from __future__ import annotations

import struct
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import Damaged, FailedPrecondition, Unavailable

#: Reads ``length`` bytes at ``offset`` of the file. It returns fewer bytes at the end of the file.
Read = Callable[[int, int], bytes]

#: The largest state that is read, in bytes. 20,000 snapshots with labels take 92 MB.
MAX_SIZE = 1 << 30

# Page header: id, flags, number of elements, number of overflow pages.
_PAGE = struct.Struct("<QHHI")
_BRANCH_PAGE = 0x01
_LEAF_PAGE = 0x02
# Offset from the element itself to the key, size of the key, page id.
_BRANCH_ELEMENT = struct.Struct("<IIQ")
# Flags, offset from the element itself to the key, sizes of key and value.
_LEAF_ELEMENT = struct.Struct("<IIII")
_BUCKET_FLAG = 1
# The value of a bucket: root page or 0 for an inline bucket, sequence.
_BUCKET = struct.Struct("<QQ")
# Magic, version, page size, flags, root page, sequence of the root bucket, freelist page, number of pages, transaction,
# checksum.
_META = struct.Struct("<IIIIQQQQQQ")
_MAGIC = 0xED0CDAED
_VERSION = 2
# The bytes that are read at once. Between two of these pieces, the reader looks for a commit.
_PIECE = 1 << 20
# bbolt looks for the second meta page at these page sizes if the first one is not valid.
_PAGE_SIZES = tuple(1024 << shift for shift in range(16))


class Changing(Unavailable):
    """A database changed during each attempt to read it."""


class Meta(NamedTuple):
    """A meta page: the root of one committed state. The state consists of the first ``pages`` pages."""

    page_size: int
    root: int
    sequence: int
    pages: int
    transaction: int


class Bucket:
    """A bucket of one state.

    ``sequence`` is the counter of the bucket: containerd takes ids from it.
    """

    __slots__ = ("_inline", "_location", "_root", "_state", "sequence")

    def __init__(
        self, state: State, location: int, sequence: int, root: int, inline: Optional[Tuple[bytes, int, int]]
    ) -> None:
        self.sequence = sequence
        self._state = state
        # Where the value of the bucket is in the file. This identifies the bucket.
        self._location = location
        self._root = root
        # The page inside the value of an inline bucket: the bytes of the page around it, start and end in them.
        self._inline = inline

    def items(self) -> Iterator[Tuple[bytes, Union[bytes, Bucket]]]:
        """Iterate over the keys in ascending order, with their values or buckets.

        Raises Damaged at structural damage.
        """
        state = self._state
        if self._inline is not None:
            data, start, end = self._inline
            if end - start < _PAGE.size:
                raise _damage(f"the inline bucket at offset {self._location} has {end - start} bytes")
            _number, flags, count, _overflow = _PAGE.unpack_from(data, start)
            if flags != _LEAF_PAGE:
                raise _damage(f"the inline bucket at offset {self._location} is not a leaf page")
            return iter(self._leaf(data, 0, count, start, end))
        flags, count, data, end = state.page(self._root, self._location)
        if flags == _LEAF_PAGE:
            return iter(self._leaf(data, self._root * state.meta.page_size, count, 0, end))
        return self._walk()

    def _walk(self) -> Iterator[Tuple[bytes, Union[bytes, Bucket]]]:
        """Iterate over the elements of all leaf pages."""
        state = self._state
        pages = [self._root]
        seen = set()
        last = b""
        while pages:
            number = pages.pop()
            if number in seen:
                raise _damage(f"two branches lead to page {number}")
            seen.add(number)
            flags, count, data, end = state.page(number, self._location)
            if flags != _LEAF_PAGE:
                pages.extend(reversed(_branches(number, count, data, end)))
                continue
            elements = self._leaf(data, number * state.meta.page_size, count, 0, end)
            if elements:
                if elements[0][0] <= last:
                    raise _damage(f"key {elements[0][0]!r} comes after key {last!r}")
                last = elements[-1][0]
                yield from elements

    def _leaf(
        self, data: bytes, offset: int, count: int, start: int, end: int
    ) -> List[Tuple[bytes, Union[bytes, Bucket]]]:
        """Return the elements of a leaf page from ``start`` to ``end`` of ``data``, which is at ``offset`` of the file.

        Zeros at the end of ``data`` can be missing.
        """
        at = start + _PAGE.size
        free = at + count * _LEAF_ELEMENT.size
        if free > end:
            raise _damage(f"{count} elements do not fit into the page at offset {offset + start}")
        if free > len(data):
            data = data.ljust(end, b"\0")
        last = b""
        found: List[Tuple[bytes, Union[bytes, Bucket]]] = []
        for flags, distance, key_size, value_size in _LEAF_ELEMENT.iter_unpack(data[at:free]):
            key_at = at + distance
            value_at = key_at + key_size
            after = value_at + value_size
            if key_at < free or not key_size or after > end or flags > _BUCKET_FLAG:
                raise _damage(f"the element at offset {offset + at} does not fit into its page")
            if after > len(data):
                data = data.ljust(end, b"\0")
            key = data[key_at:value_at]
            if key <= last:
                raise _damage(f"key {key!r} comes after key {last!r}")
            found.append((key, self._bucket(data, offset, value_at, after) if flags else data[value_at:after]))
            last = key
            free = after
            at += _LEAF_ELEMENT.size
        return found

    def _bucket(self, data: bytes, offset: int, start: int, end: int) -> Bucket:
        """Return the bucket whose value is from ``start`` to ``end`` of ``data``."""
        if end - start < _BUCKET.size:
            raise _damage(f"the bucket at offset {offset + start} has a value of {end - start} bytes")
        root, sequence = _BUCKET.unpack_from(data, start)
        if root:
            return Bucket(self._state, offset + start, sequence, root, None)
        if self._inline is not None:
            raise _damage(f"the bucket at offset {self._location} is inline and has an inline bucket")
        return Bucket(self._state, offset + start, sequence, 0, (data, start + _BUCKET.size, end))


class State:
    """One committed state of a database. ``root`` is the bucket of all top-level keys.

    ``pages`` has the bytes of each page, without the zeros at its end. Most pages of containerd hold one record of a
    few hundred bytes, so this takes a tenth of the size of the file.
    """

    def __init__(self, meta: Meta, pages: Sequence[bytes]) -> None:
        self.meta = meta
        self.pages = pages
        self.root = Bucket(self, 0, meta.sequence, meta.root, None)
        # The bucket to which each page belongs.
        self._owners: Dict[int, int] = {}

    def page(self, number: int, bucket: int) -> Tuple[int, int, bytes, int]:
        """Return a page that belongs to this bucket: flags, number of elements, bytes, size.

        The bytes include those of the overflow pages. Zeros at their end can be missing.
        """
        if not 2 <= number < self.meta.pages:
            raise _damage(f"page {number} is not one of the pages 2 to {self.meta.pages - 1}")
        data = self.pages[number]
        found, flags, count, overflow = _PAGE.unpack_from(data.ljust(_PAGE.size, b"\0"))
        if found != number:
            raise _damage(f"page {number} has the id {found}")
        if flags not in (_BRANCH_PAGE, _LEAF_PAGE):
            raise _damage(f"page {number} has the flags {flags:#x}")
        if number + overflow >= self.meta.pages:
            raise _damage(f"page {number} has {overflow} overflow pages, which is past the last page")
        size = self.meta.page_size
        for each in range(number, number + overflow + 1):
            if self._owners.setdefault(each, bucket) != bucket:
                raise _damage(f"page {each} belongs to two buckets")
        if overflow:
            data = b"".join(page.ljust(size, b"\0") for page in self.pages[number : number + overflow + 1])
        return flags, count, data, (overflow + 1) * size


def _branches(number: int, count: int, data: bytes, end: int) -> List[int]:
    """Return the pages to which a branch page leads, in the order of their keys."""
    free = _PAGE.size + count * _BRANCH_ELEMENT.size
    if not count or free > end:
        raise _damage(f"branch page {number} has {count} elements")
    return [page for _distance, _size, page in _BRANCH_ELEMENT.iter_unpack(data.ljust(free, b"\0")[_PAGE.size : free])]


def read_state(read: Read, seconds: float = 10.0) -> State:
    """Read the newest committed state of a database, without a lock.

    A writer can change the file while it is read. The transaction after the state that is read writes only pages which
    do not belong to it. The second one after it can reuse them, and it starts when the meta page of the first one has
    been written. Therefore the pages are those of the state if its meta page is the newest valid one before and after
    they are read. A meta page that is just being written has no valid checksum, so it does not count yet.

    Raises FailedPrecondition if the file is not a bbolt database, Damaged if it is damaged, and Changing if each
    reading met a commit for this many seconds.
    """
    deadline = time.monotonic() + seconds
    meta = newest_meta(read)
    while True:
        size = meta.pages * meta.page_size
        if size > MAX_SIZE:
            raise FailedPrecondition(f"the database has {size} bytes; databases of up to {MAX_SIZE} bytes are read")
        pages: List[bytes] = []
        piece = max(_PIECE, meta.page_size)
        after = meta
        for offset in range(0, size, piece):
            data = read(offset, min(piece, size - offset))
            # A commit makes this attempt useless. The time until the next commit is longest right after one, so the
            # next attempt starts at once.
            after = newest_meta(read)
            if after != meta:
                break
            if len(data) < min(piece, size - offset):
                raise _damage(f"the file has {offset + len(data)} bytes, and its pages need {size}")
            pages.extend(data[at : at + meta.page_size].rstrip(b"\0") for at in range(0, len(data), meta.page_size))
        if after == meta:
            return State(meta, pages)
        if time.monotonic() >= deadline:
            raise Changing(f"the database changed during each attempt to read it, for {seconds:g} seconds")
        meta = after


def newest_meta(read: Read) -> Meta:
    """Return the valid meta page with the higher transaction id. Raises FailedPrecondition if there is none."""
    metas = []
    first = _parse_meta(read(0, _PAGE.size + _META.size))
    if first is not None:
        metas.append(first)
    for size in _PAGE_SIZES if first is None else (first.page_size,):
        second = _parse_meta(read(size, _PAGE.size + _META.size))
        if second is not None and second.page_size == size:
            metas.append(second)
            break
    if not metas:
        raise FailedPrecondition("the file is not a bbolt database of version 2: it has no valid meta page")
    return max(metas, key=lambda meta: meta.transaction)


def _parse_meta(data: bytes) -> Optional[Meta]:
    if len(data) < _PAGE.size + _META.size:
        return None
    magic, version, page_size, _flags, root, sequence, _freelist, pages, transaction, checksum = _META.unpack_from(
        data, _PAGE.size
    )
    if magic != _MAGIC or version != _VERSION or page_size not in _PAGE_SIZES:
        return None
    if _fnv1a(data[_PAGE.size : _PAGE.size + _META.size - 8]) != checksum:
        return None
    return Meta(page_size, root, sequence, pages, transaction)


def _fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash, the checksum of meta pages."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _damage(what: str) -> Damaged:
    return Damaged(f"the database is damaged: {what}")
