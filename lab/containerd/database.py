# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bbolt database file that one process changes, under bbolt's lock.

All buckets are in memory. Each commit writes the whole tree to pages that the newest state does not use, and then one
of the two meta pages, in turn. So a process that reads the file meanwhile finds one state or the next one, as with
bbolt, and a commit that the end of the process interrupts leaves the state before it. Nothing is flushed to the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt as reader

from ..bolt import Bucket, database, meta_page, tree_pages

_PAGE_SIZE = 4096
_META_PAGES = 2


class Database:
    """The buckets of a database file, and their changes. ``commits`` counts the commits of this object."""

    def __init__(self, path: Path) -> None:
        """Open or create a database. As bbolt, wait while another process has the lock. Raises as ``read_state``."""
        self.commits = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if not os.fstat(self._file).st_size:
                os.pwrite(self._file, database(Bucket(), _PAGE_SIZE), 0)
            state = reader.read_state(lambda offset, length: os.pread(self._file, length, offset))
        except BaseException:
            os.close(self._file)
            raise
        self.root = _loaded(state.root)
        self._page_size = state.meta.page_size
        self._transaction = state.meta.transaction
        self._pages = state.meta.pages
        # The pages of the newest state, from the first to the one behind the last.
        self._used = (_META_PAGES, self._pages)

    def close(self) -> None:
        """Close the file, which releases the lock."""
        os.close(self._file)

    @contextlib.contextmanager
    def update(self) -> Iterator[Bucket]:
        """A transaction that changes the buckets. An exception undoes its changes."""
        before = _copied(self.root)
        try:
            yield self.root
        except BaseException:
            self.root = before
            raise
        self._commit()

    def _commit(self) -> None:
        first, end = self._used
        page, data = tree_pages(self.root, self._page_size, _META_PAGES)
        count = len(data) // self._page_size
        if _META_PAGES + count <= first:
            start = _META_PAGES
        else:
            start = end
            page, data = tree_pages(self.root, self._page_size, start)
        self._used = (start, start + count)
        self._pages = max(self._pages, start + count)
        self._transaction += 1
        self.commits += 1
        os.pwrite(self._file, data, start * self._page_size)
        # The file has all pages below the high-water mark.
        if os.fstat(self._file).st_size < self._pages * self._page_size:
            os.truncate(self._file, self._pages * self._page_size)
        meta = meta_page(self.root, page, self._pages, self._transaction, self._page_size)
        os.pwrite(self._file, meta, self._transaction % 2 * self._page_size)


def _loaded(bucket: reader.Bucket) -> Bucket:
    items = {key: value if isinstance(value, bytes) else _loaded(value) for key, value in bucket.items()}
    return Bucket(items, bucket.sequence)


def _copied(bucket: Bucket) -> Bucket:
    items = {key: value if isinstance(value, bytes) else _copied(value) for key, value in bucket.items.items()}
    return Bucket(items, bucket.sequence)
