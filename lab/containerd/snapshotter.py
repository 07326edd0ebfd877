# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's snapshotter for Windows, on emulated layers.

It has the records of metadata.db and the layer directories (plugins/snapshots/windows, core/snapshots/storage of
containerd 2.3). A record belongs to the namespace that the beginning of its key names, of which this module knows
nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels as label_rules
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.base import SCRATCH
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import layer_mount

from ..bolt import Bucket
from . import records
from .database import Database

NAME = "windows"

VIEW, ACTIVE, COMMITTED = 1, 2, 3

#: A snapshot whose key contains this text is for unpacking a layer, so it gets no scratch.
_UNPACK = "extract"

_logger = logging.getLogger(__name__)


class Record(NamedTuple):
    """A record of metadata.db. ``size`` in bytes and ``inodes`` are 0 unless it is committed."""

    key: str
    id: int
    kind: int
    parent: str
    labels: dict[str, str]
    created: int
    updated: int
    size: int
    inodes: int


class Mount(NamedTuple):
    """How to mount a snapshot. Paths are paths of Windows."""

    type: str
    source: str
    options: list[str]


class WindowsSnapshotter:
    """The snapshots in the directory ``root``. The caller serializes the calls."""

    def __init__(self, root: Path) -> None:
        self.directories = root / "snapshots"
        self.directories.mkdir(parents=True, exist_ok=True)
        self.database = Database(root / "metadata.db")
        self.layers = EmulatedLayers()

    def close(self) -> None:
        """Close metadata.db."""
        self.database.close()

    def records(self) -> list[Record]:
        """Return all records, in the order of their keys."""
        return [_record(key, bucket) for key, bucket in records.buckets(self._snapshots())]

    def record(self, key: str) -> Record:
        """Return one record. Raises NotFound."""
        return _record(key, self._bucket(key))

    def directory(self, layer_id: int) -> Path:
        """Return the layer directory of an id."""
        return self.directories / str(layer_id)

    def create(self, kind: int, key: str, parent: str, labels: Mapping[str, str]) -> list[Mount]:
        """Prepare an active snapshot or a view. Return how to mount it."""
        with self.database.update() as root:
            record = self._add(root, kind, key, parent, labels)
            parents = self._parents(parent)
            directory = self.directory(record.id)
            # As on Windows, a directory that is already there is used with what lies in it.
            directory.mkdir(exist_ok=True)
            try:
                self._fill(directory, key, parents, labels)
            except BaseException:
                self.layers.destroy(str(directory))
                raise
        return self._mounts(record)

    def mounts(self, key: str) -> list[Mount]:
        """Return how to mount an active snapshot or a view."""
        record = self.record(key)
        if record.kind == COMMITTED:
            raise FailedPrecondition(
                f"failed to get snapshot mount: requested snapshot {key} not active or view: failed precondition"
            )
        return self._mounts(record)

    def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Turn an active snapshot into a committed one. It keeps its id."""
        with self.database.update() as root:
            snapshots = records.make(root, "v1", "snapshots")
            record = self.record(key)
            if records.find(snapshots, name):
                raise AlreadyExists(f"failed to commit snapshot: committed snapshot {name}: already exists")
            if record.kind != ACTIVE:
                raise FailedPrecondition(
                    f'failed to commit snapshot: snapshot "{key}" is not active: failed precondition'
                )
            directory = self.directory(record.id)
            if _UNPACK not in key:
                self.layers.convert(str(directory), self._parents(record.parent))
            now = time.time_ns()
            bucket = records.make(snapshots, name)
            _write(bucket, record._replace(kind=COMMITTED, created=now, updated=now, labels=dict(labels)))
            bucket.items[b"size"] = records.encode_varint(_size_of(directory))
            bucket.items[b"inodes"] = records.encode_varint(0)
            del snapshots.items[key.encode()]
            if record.parent:
                link = _link(self.record(record.parent).id, record.id)
                records.make(root, "v1", "parents").items[link] = name.encode()

    def remove(self, key: str) -> None:
        """Delete a snapshot. Its layer becomes a removal directory first, which stays if it cannot be deleted."""
        with self.database.update() as root:
            record = self._drop(root, key)
            directory = self.directory(record.id)
            removed = directory.with_name(f"rm-{record.id}")
            if directory.exists():
                directory.rename(removed)
        try:
            self.layers.destroy(str(removed))
        except SnapshotterError as error:
            _logger.warning("Failed to remove root filesystem %s: %s", removed, error)

    def forget(self, key: str) -> int:
        """Delete a record without its layer. Return its id. containerd never does this."""
        with self.database.update() as root:
            return self._drop(root, key).id

    def skip_id(self) -> int:
        """Give out an id without a record. Return it. containerd never does this."""
        with self.database.update() as root:
            return records.next_sequence(records.make(root, "v1", "snapshots"))

    def last_id(self) -> int:
        """Return the id that was given out last; 0 if there was none."""
        snapshots = self._snapshots()
        return snapshots.sequence if snapshots else 0

    def update(self, key: str, labels: Mapping[str, str]) -> Record:
        """Replace the labels of a snapshot."""
        with self.database.update():
            bucket = self._bucket(key)
            records.write_map(bucket, "labels", labels)
            bucket.items[b"updatedat"] = records.encode_time(time.time_ns())
        return self.record(key)

    def usage(self, key: str) -> tuple[int, int]:
        """Return the size in bytes and the inodes. On Windows the inodes are always 0."""
        record = self.record(key)
        if record.kind == ACTIVE:
            return _size_of(self.directory(record.id)), 0
        return record.size, record.inodes

    def _snapshots(self) -> Bucket | None:
        return records.find(self.database.root, "v1", "snapshots")

    def _bucket(self, key: str) -> Bucket:
        bucket = records.find(self.database.root, "v1", "snapshots", key)
        if bucket is None:
            raise NotFound("snapshot does not exist: not found")
        return bucket

    def _add(self, root: Bucket, kind: int, key: str, parent: str, labels: Mapping[str, str]) -> Record:
        snapshots = records.make(root, "v1", "snapshots")
        parents = records.make(root, "v1", "parents")
        prefix = "failed to create snapshot: "
        if parent:
            found = records.find(snapshots, parent)
            if found is None:
                raise NotFound(f'{prefix}missing parent "{parent}" bucket: not found')
            if _record(parent, found).kind != COMMITTED:
                raise InvalidArgument(f'{prefix}parent "{parent}" is not committed snapshot: invalid argument')
        if records.find(snapshots, key):
            raise AlreadyExists(f"{prefix}snapshot {key}: already exists")
        now = time.time_ns()
        layer_id = records.next_sequence(snapshots)
        record = Record(key, layer_id, kind, parent, dict(labels), now, now, 0, 0)
        _write(records.make(snapshots, key), record)
        if parent:
            parents.items[_link(self.record(parent).id, layer_id)] = key.encode()
        return record

    def _fill(self, directory: Path, key: str, parents: list[str], labels: Mapping[str, str]) -> None:
        """Put into a layer directory what Windows has there after Prepare."""
        if _UNPACK in key:
            return
        options = label_rules.scratch_options(labels)
        if not parents:
            if not (directory / "Files").exists():
                self.layers.create_base(str(directory))
            return
        if options.uvm:
            self.layers.create_uvm_scratch(str(directory), parents)
        (directory / SCRATCH).unlink(missing_ok=True)
        self.layers.create_scratch(str(directory), parents, options.size)

    def _drop(self, root: Bucket, key: str) -> Record:
        snapshots = records.make(root, "v1", "snapshots")
        links = records.make(root, "v1", "parents")
        bucket = records.find(snapshots, key)
        if bucket is None:
            raise NotFound(f"failed to remove: snapshot {key}: not found")
        record = _record(key, bucket)
        prefix = records.encode_uvarint(record.id) + b"\0"
        if any(link.startswith(prefix) for link in links.items):
            raise FailedPrecondition("failed to remove: cannot remove snapshot with child: failed precondition")
        if record.parent:
            links.items.pop(_link(self.record(record.parent).id, record.id), None)
        del snapshots.items[key.encode()]
        return record

    def _parents(self, parent: str) -> list[str]:
        """Return the layer directories of a parent and of its own parents, nearest first."""
        found = []
        while parent:
            record = self.record(parent)
            found.append(str(self.directory(record.id)))
            parent = record.parent
        return found

    def _mounts(self, record: Record) -> list[Mount]:
        source = self.layers.display_path(str(self.directory(record.id)))
        parents = [self.layers.display_path(path) for path in self._parents(record.parent)]
        mount = layer_mount(source, parents, read_only=record.kind == VIEW)
        # Without parents, containerd 2 leaves out the option that names them.
        return [Mount(mount.type, mount.source, mount.options if parents else mount.options[:1])]


def _record(key: str, bucket: Bucket) -> Record:
    created, updated = records.read_times(bucket)
    return Record(
        key,
        records.decode_uvarint(records.value(bucket, "id")),
        (records.value(bucket, "kind") or b"\0")[0],
        records.text(bucket, "parent"),
        records.read_map(bucket, "labels"),
        created,
        updated,
        records.decode_varint(records.value(bucket, "size")),
        records.decode_varint(records.value(bucket, "inodes")),
    )


def _write(bucket: Bucket, record: Record) -> None:
    bucket.items[b"id"] = records.encode_uvarint(record.id)
    bucket.items[b"kind"] = bytes([record.kind])
    if record.parent:
        bucket.items[b"parent"] = record.parent.encode()
    records.write_times(bucket, record.created, record.updated)
    records.write_map(bucket, "labels", record.labels)


def _link(parent: int, child: int) -> bytes:
    """Return the key of the index ``v1/parents``."""
    return records.encode_uvarint(parent) + b"\0" + records.encode_uvarint(child)


def _size_of(directory: Path) -> int:
    """Return the sum of the lengths of all files, which is the disk usage that containerd measures on Windows."""
    return sum(
        os.lstat(os.path.join(parent, name)).st_size
        for parent, _directories, names in os.walk(directory)
        for name in names
    )
