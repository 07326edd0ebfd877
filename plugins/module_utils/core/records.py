# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a store, as a check reads them and a repair changes them.

In check mode the snapshotter works on a copy of the metadata. A check reads
the file itself, and only a repair writes to it.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Dict, Iterator, Optional

from .errors import FailedPrecondition, Unavailable
from .lineage import Lineage
from .lock import FileLock
from .metastore.file import Metastore
from .metastore.transaction import Damage, Entry
from .model import Info, Usage


class Records:
    """What ``load`` read: ``infos`` by name in byte order, ``names`` by id, and their ``lineage``.

    ``next_id`` is the id that the next snapshot gets according to the records,
    ``last_id`` the highest id that was given out or is in use. ``has_lost``
    says whether a record is missing that another names as its parent: then any
    directory without a record may be the layer of that parent.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._metadata: Optional[Metastore] = None
        self._entries: Dict[str, Entry] = {}
        self.are_loaded = False
        self.infos: Dict[str, Info] = {}
        self.names: Dict[int, str] = {}
        self.lineage = Lineage({})
        self.next_id = 1
        self.last_id = 0
        self.has_lost = False

    def close(self) -> None:
        if self._metadata is not None:
            self._metadata.close()

    def load(self) -> Damage:
        """Read all records, unless the returned damage is beyond repair. Raises FailedPrecondition."""
        self._metadata = Metastore(self._path)
        with self._metadata.read() as tx:
            damage = tx.damage()
            if damage.beyond_repair:
                return damage
            self._entries = {entry.info.name: entry for entry in tx.records()}
            self.infos = {name: entry.info for name, entry in self._entries.items()}
            self.next_id = tx.next_id()
        self.lineage = Lineage({name: info.parent for name, info in self.infos.items()})
        self.names = {info.id: name for name, info in self.infos.items()}
        self.last_id = max([self.next_id - 1, *self.names])
        self.has_lost = any(info.parent and info.parent not in self.infos for info in self.infos.values())
        self.are_loaded = True
        return damage

    def usage(self, info: Info) -> Usage:
        """The recorded usage."""
        return self._entries[info.name].usage

    def owner(self, info: Info) -> Optional[str]:
        """The process that is recorded as committing a snapshot, None if there is none."""
        return self._entries[info.name].holder

    def is_current(self, layer_id: int, name: str) -> bool:
        """Whether the snapshot with this id still has this name; empty if the id has no record."""
        if self._metadata is None:
            return True
        with self._metadata.read() as tx:
            return (tx.find_name(layer_id) or "") == name

    def are_being_written(self) -> bool:
        """Whether a process writes now, which may be about to record the next id."""
        try:
            with self._open().write(wait=False):
                return False
        except Unavailable:
            return True
        except FailedPrecondition:
            # No process writes to a store that is read-only.
            return False

    # -- repairs ----------------------------------------------------------------

    @contextlib.contextmanager
    def change_recorded(self, info: Info) -> Iterator[None]:
        """A write transaction in which the snapshot still has its record. Raises Unavailable if it has not."""
        with self._open().write() as tx:
            if tx.find_name(info.id) != info.name:
                raise Unavailable("another process has changed it meanwhile")
            yield

    @contextlib.contextmanager
    def change_unrecorded(self, layer_id: int) -> Iterator[None]:
        """A write transaction in which an id has no record and does not get one. Raises Unavailable if it has one."""
        with self._open().write() as tx:
            if tx.find_name(layer_id) is not None:
                raise Unavailable("it has a record now")
            if layer_id <= self.last_id + 1:
                tx.skip_ids(layer_id)
            yield

    def clear_owner(self, info: Info, lock: Callable[[int], FileLock]) -> None:
        """Forget which process commits a snapshot. ``lock`` takes its lock, inside the write transaction."""
        with self._open().write() as tx, lock(info.id):
            tx.set_owner(info.name, None)

    def set_usage(self, info: Info, usage: Usage) -> None:
        with self._open().write() as tx:
            tx.set_usage(info.name, usage)

    def rebuild_indexes(self) -> None:
        with self._open().write() as tx:
            tx.rebuild_indexes()

    def skip_ids(self, last: int) -> None:
        """Make sure that no id up to ``last`` is given out again."""
        self._open().skip_ids(last)

    def _open(self) -> Metastore:
        if self._metadata is None:
            raise FailedPrecondition("database not open")
        return self._metadata
