# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read one consistent view of containerd's store.

A store is three things: the entries in meta.db, the records in metadata.db, and the directories below ``snapshots``.
A reader cannot lock them. Instead it checks that neither database has a newer transaction after everything was read.
If one has, it reads again, so the view is of one moment. containerd changes directories shortly before and after its
transactions. Therefore a directory can differ from the records for a moment, without a fault.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from ..errors import Damaged, NotFound, SnapshotterError
from ..files import file_error, only_files, os_error, read_at
from ..formats import bolt
from ..model import KINDS, Info
from . import databases
from .databases import EMPTY_STORE, Entry, Metadata, Record, Store
from .lock import is_locked

_ID = re.compile(r"[1-9][0-9]{0,19}", re.ASCII)
_REMOVAL = "rm-"

_Records = TypeVar("_Records")


class Paths:
    """Where a store is, from containerd's root directory and the name of a snapshotter."""

    def __init__(self, root: str, snapshotter: str) -> None:
        self.metadata = os.path.join(root, "io.containerd.metadata.v1.bolt", "meta.db")
        home = os.path.join(root, f"io.containerd.snapshotter.v1.{snapshotter}")
        self.store = os.path.join(home, "metadata.db")
        self.snapshots = os.path.join(home, "snapshots")


class Snapshot(NamedTuple):
    """A snapshot of a namespace: its ``entry`` in meta.db, and its ``record`` in metadata.db.

    ``record`` is None if it is missing. ``has_directory`` says whether ``snapshots/<id>`` exists.
    """

    namespace: str
    key: str
    entry: Entry
    record: Optional[Record]
    has_directory: bool

    def info(self) -> Optional[Info]:
        """Return what containerd's API says about the snapshot, or None if its record is missing or of unknown kind.

        The API leaves a snapshot without a record out of its lists (core/metadata/snapshot.go, overlayInfo).
        """
        if self.record is None or self.record.kind not in KINDS:
            return None
        labels = {**self.record.labels, **self.entry.labels}
        entry = self.entry
        return Info(self.record.kind, self.key, entry.parent, labels, entry.created, entry.updated, self.record.id)


class Directories(NamedTuple):
    """The names below ``snapshots``: ids of layers, ids of removal directories (``rm-<id>``), and all other names."""

    layers: Tuple[int, ...]
    removals: Tuple[int, ...]
    others: Tuple[str, ...]


class Picture(NamedTuple):
    """A store at one moment.

    ``snapshots`` is in the order of namespaces and keys. ``orphans`` has the records of metadata.db, by key, that no
    entry names. ``unknown`` has a sentence for each thing in the databases that this collection does not know; then
    nothing may be repaired. ``is_running`` says whether a process, which is containerd, has meta.db open.
    """

    paths: Paths
    metadata: Metadata
    store: Store
    directories: Directories
    snapshots: List[Snapshot]
    orphans: Dict[str, Record]
    unknown: Tuple[str, ...]
    is_running: bool

    @property
    def next_id(self) -> int:
        """The id that the next snapshot gets."""
        return self.store.last_id + 1


def read_picture(root: str, snapshotter: str, seconds: float = 10.0) -> Picture:
    """Read the store of a snapshotter below containerd's root directory, while containerd runs or not.

    A snapshotter without metadata.db or without the directory ``snapshots`` has no records or no layers: containerd
    creates both with the first snapshot.

    Raises NotFound if there is no meta.db, FailedPrecondition for a file that is not a database, Damaged for a
    damaged one, and Changing if each attempt met a change, for this many seconds.
    """
    paths = Paths(root, snapshotter)
    metadata_file = _Database(paths.metadata)
    store_file = _Database(paths.store)
    deadline = time.monotonic() + seconds
    while True:
        # An attempt that ends like this has used all of the time.
        with contextlib.suppress(bolt.Changing):
            metadata_file.read(deadline)
            store_file.read(deadline)
            directories = _list_directories(paths.snapshots)
            if metadata_file.is_current() and store_file.is_current():
                break
        if time.monotonic() >= deadline:
            raise bolt.Changing(
                f"{paths.metadata} or {paths.store} changed during each attempt to read both, for {seconds:g} seconds; "
                "run the task again when containerd starts and removes fewer containers",
                path=paths.metadata,
            )
    metadata = metadata_file.decode(databases.decode_metadata)
    if metadata is None:
        raise NotFound(
            f"there is no {paths.metadata}; is {root} containerd's root directory, and did containerd ever start?",
            path=paths.metadata,
        )
    store = store_file.decode(databases.decode_store)
    return _join(paths, snapshotter, metadata, store or EMPTY_STORE, directories)


class _Database:
    """A database of which one state is read. A missing file is a state, too."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._state: Optional[bolt.State] = None

    def read(self, deadline: float) -> None:
        """Read the newest state, unless it is the present one. Try until this moment of ``time.monotonic``."""
        if self._state is not None and self.is_current():
            return
        # Both states at once would need twice the memory.
        self._state = None
        seconds = max(0.0, deadline - time.monotonic())
        self._state = self._with_file(lambda read: bolt.read_state(read, seconds))

    def is_current(self) -> bool:
        """Return whether there was no commit since the state was read."""
        return self._with_file(bolt.newest_meta) == (self._state.meta if self._state is not None else None)

    def decode(self, decode: Callable[[bolt.State], _Records]) -> Optional[_Records]:
        """Return the records of the state, and forget the state. Return None for a missing file."""
        state, self._state = self._state, None
        with _naming(self._path):
            return decode(state) if state is not None else None

    def _with_file(self, use: Callable[[bolt.Read], _Records]) -> Optional[_Records]:
        """Call a function with the reader of the file. Return None if there is no file."""
        try:
            with open(self._path, "rb", buffering=0, opener=only_files) as file, _naming(self._path):
                return use(lambda offset, length: read_at(file, offset, length))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise file_error(error, f"cannot read {self._path}", self._path) from None


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name the file in the errors of the block."""
    try:
        yield
    except Damaged as error:
        raise Damaged(
            f"{path}: {error.message}; nothing was changed: check the volume for errors, and restore the file from a "
            "backup while containerd is stopped",
            path=path,
        ) from None
    except SnapshotterError as error:
        raise type(error)(f"{path}: {error.message}", path=path) from None


def _list_directories(path: str) -> Directories:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise os_error(error, f"cannot list {path}", path=path) from None
    layers, removals, others = [], [], []
    for name in names:
        if _ID.fullmatch(name):
            layers.append(int(name))
        elif name.startswith(_REMOVAL) and _ID.fullmatch(name, len(_REMOVAL)):
            removals.append(int(name[len(_REMOVAL) :]))
        else:
            others.append(name)
    return Directories(tuple(sorted(layers)), tuple(sorted(removals)), tuple(sorted(others)))


def _join(paths: Paths, snapshotter: str, metadata: Metadata, store: Store, directories: Directories) -> Picture:
    layers = frozenset(directories.layers)
    named = set()
    snapshots = []
    for namespace, objects in metadata.namespaces.items():
        for key, entry in objects.snapshots.get(snapshotter, {}).items():
            record = store.records.get(entry.name)
            named.add(entry.name)
            snapshots.append(Snapshot(namespace, key, entry, record, record is not None and record.id in layers))
    orphans = {key: record for key, record in store.records.items() if key not in named}
    unknown = [f"{paths.metadata}: {what}" for what in metadata.unknown]
    unknown.extend(f"{paths.store}: {what}" for what in store.unknown)
    return Picture(paths, metadata, store, directories, snapshots, orphans, tuple(unknown), is_locked(paths.metadata))
