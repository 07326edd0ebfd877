# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Snapshots: the entries of meta.db in front of the snapshotter (core/metadata/snapshot.go)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
)

from ..bolt import Bucket
from . import calls, messages, records
from .calls import Call
from .snapshotter import ACTIVE, NAME, VIEW, Mount, Record
from .store import Store

_PACKAGE = "containerd.services.snapshots.v1"
_Info = messages.message(f"{_PACKAGE}.Info")
_InfoResponse = messages.message(f"{_PACKAGE}.InfoResponse")
_ListResponse = messages.message(f"{_PACKAGE}.ListSnapshotsResponse")
_MountsResponse = messages.message(f"{_PACKAGE}.MountsResponse")
_UsageResponse = messages.message(f"{_PACKAGE}.UsageResponse")

#: Labels that reach the snapshotter: this one, and those that begin with the other text.
_REFERENCE = "containerd.io/snapshot.ref"
_INHERITED = "containerd.io/snapshot/"

_KINDS = {1: "view", 2: "active", 3: "committed"}


class Snapshots:
    """The calls of the service. A request is one of ``messages``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._snapshotter = store.snapshotter

    def prepare(self, request: Any, call: Call) -> Any:
        """Create an active snapshot."""
        return self._create(request, call, ACTIVE)

    def view(self, request: Any, call: Call) -> Any:
        """Create a view."""
        return self._create(request, call, VIEW)

    def mounts(self, request: Any, call: Call) -> Any:
        """Return how to mount an active snapshot or a view."""
        entry = self._entry(request, call, request.key)
        return _mounted(self._snapshotter.mounts(records.text(entry, "name")))

    def commit(self, request: Any, call: Call) -> Any:
        """Turn an active snapshot into a committed one."""
        calls.check_labels(request.labels, "info.Labels")
        with self._store.meta.update() as root:
            snapshots = self._bucket(request, call)
            if snapshots is None:
                raise NotFound(f'can not find snapshotter "{NAME}": not found')
            if records.find(snapshots, request.name):
                raise AlreadyExists(f'snapshot "{request.name}": already exists')
            self._lease(root, call, request.name)
            old = self._entry(request, call, request.key)
            name = f"{call.namespace}/{records.next_sequence(snapshots)}/{request.name}"
            parent = records.text(old, "parent")
            entry = records.make(snapshots, request.name)
            _write(entry, name, parent, dict(request.labels))
            if parent:
                children = records.make(self._parent(snapshots, parent), "children")
                children.items.pop(request.key.encode(), None)
                children.items[request.name.encode()] = b""
            del snapshots.items[request.key.encode()]
            self._unlease(root, call, request.key)
            self._snapshotter.commit(name, records.text(old, "name"), _inherited(request.labels))
        return calls.Empty()

    def remove(self, request: Any, call: Call) -> Any:
        """Delete the entry of a snapshot. The collector deletes its record and layer later."""
        with self._store.meta.update() as root:
            entry = self._entry(request, call, request.key)
            snapshots = records.make(root, *call.path("snapshots", NAME))
            if records.keys(records.find(entry, "children")):
                raise FailedPrecondition("cannot remove snapshot with child: failed precondition")
            parent = records.text(entry, "parent")
            if parent:
                records.make(self._parent(snapshots, parent), "children").items.pop(request.key.encode(), None)
            del snapshots.items[request.key.encode()]
            self._unlease(root, call, request.key)
        self._store.deletions += 1
        self._store.dirty_snapshotters.add(NAME)
        return calls.Empty()

    def stat(self, request: Any, call: Call) -> Any:
        """Return the info of a snapshot."""
        entry = self._entry(request, call, request.key)
        return _InfoResponse(info=self._info(request.key, entry))

    def update(self, request: Any, call: Call) -> Any:
        """Change the labels of a snapshot."""
        key = request.info.name
        if not key:
            raise InvalidArgument("invalid argument")
        paths = request.update_mask.paths or ["labels"]
        with self._store.meta.update():
            entry = self._entry(request, call, key)
            calls.check_paths(paths, (), ("labels",), f'snapshot "{key}"')
            labels = calls.updated_map(records.read_map(entry, "labels"), request.info.labels, "labels", paths)
            calls.check_labels(labels, "info.Labels")
            records.write_map(entry, "labels", labels)
            entry.items[b"updatedat"] = records.encode_time(time.time_ns())
            self._snapshotter.update(records.text(entry, "name"), _inherited(labels))
        return _InfoResponse(info=self._info(key, entry))

    def list(self, request: Any, call: Call) -> Iterator[Any]:
        """Return the infos of the snapshots that the filters match. An entry without record is left out."""
        infos = []
        for key, entry in records.buckets(self._bucket(request, call)):
            try:
                infos.append(self._info(key, entry))
            except NotFound:
                continue
        for batch in calls.batches(calls.matching(infos, request.filters, _fields)):
            yield _ListResponse(info=batch)

    def usage(self, request: Any, call: Call) -> Any:
        """Return the disk usage of a snapshot."""
        entry = self._entry(request, call, request.key)
        size, inodes = self._snapshotter.usage(records.text(entry, "name"))
        return _UsageResponse(size=size, inodes=inodes)

    def cleanup(self, request: Any, call: Call) -> Any:
        """Raise NotImplementedHere: the snapshotter for Windows has no clean-up."""
        self._bucket(request, call)
        raise NotImplementedHere("snapshotter does not implement Cleanup method: not implemented")

    def _create(self, request: Any, call: Call, kind: int) -> Any:
        calls.check_labels(request.labels, "info.Labels")
        key, parent, target = request.key, request.parent, request.labels.get(_REFERENCE, "")
        with self._store.meta.update() as root:
            self._bucket(request, call)
            snapshots = records.make(root, *call.path("snapshots", NAME))
            if target and records.find(snapshots, target):
                raise AlreadyExists(f'target snapshot "{target}": already exists')
            if records.find(snapshots, key):
                raise AlreadyExists(f'snapshot "{key}": already exists')
            parent_name = records.text(self._parent(snapshots, parent), "name") if parent else ""
            name = f"{call.namespace}/{records.next_sequence(snapshots)}/{key}"
        mounts = self._snapshotter.create(kind, name, parent_name, _inherited(request.labels))
        try:
            with self._store.meta.update() as root:
                snapshots = records.make(root, *call.path("snapshots", NAME))
                self._lease(root, call, key)
                if parent:
                    records.make(self._parent(snapshots, parent), "children").items[key.encode()] = b""
                _write(records.make(snapshots, key), name, parent, dict(request.labels))
        except BaseException:
            self._snapshotter.remove(name)
            raise
        return _mounted(mounts)

    def _bucket(self, request: Any, call: Call) -> Bucket | None:
        """Return the entries of the namespace, None if it has none. Raises InvalidArgument for other snapshotters."""
        if not request.snapshotter:
            raise InvalidArgument("snapshotter argument missing: invalid argument")
        if request.snapshotter != NAME:
            raise InvalidArgument(f"snapshotter not loaded: {request.snapshotter}: invalid argument")
        return records.find(self._store.meta.root, *call.path("snapshots", NAME))

    def _entry(self, request: Any, call: Call, key: str) -> Bucket:
        snapshots = self._bucket(request, call)
        entry = records.find(snapshots, key) if snapshots else None
        if entry is None:
            raise NotFound(f"snapshot {key} does not exist: not found")
        return entry

    @staticmethod
    def _parent(snapshots: Bucket, parent: str) -> Bucket:
        found = records.find(snapshots, parent)
        if found is None:
            raise NotFound(f"parent snapshot {parent} does not exist: not found")
        return found

    def _info(self, key: str, entry: Bucket) -> Any:
        """Return an info: the labels of both databases, the kind of the record, everything else of the entry."""
        record: Record = self._snapshotter.record(records.text(entry, "name"))
        info = _Info(name=key, parent=records.text(entry, "parent"), kind=record.kind)
        created, updated = records.read_times(entry)
        calls.set_time(info.created_at, created)
        calls.set_time(info.updated_at, updated)
        info.labels.update({**record.labels, **records.read_map(entry, "labels")})
        return info

    @staticmethod
    def _lease(root: Bucket, call: Call, key: str) -> None:
        lease = call.leased(root)
        if lease is not None:
            records.make(lease, "snapshots", NAME).items[key.encode()] = b""

    @staticmethod
    def _unlease(root: Bucket, call: Call, key: str) -> None:
        if call.lease:
            held = records.find(root, *call.path("leases", call.lease, "snapshots", NAME))
            if held is not None:
                held.items.pop(key.encode(), None)


def _write(entry: Bucket, name: str, parent: str, labels: dict[str, str]) -> None:
    now = time.time_ns()
    records.write_times(entry, now, now)
    records.write_map(entry, "labels", labels)
    entry.items[b"name"] = name.encode()
    if parent:
        entry.items[b"parent"] = parent.encode()


def _inherited(labels: Any) -> dict[str, str]:
    return {key: text for key, text in labels.items() if key == _REFERENCE or key.startswith(_INHERITED)}


def _mounted(mounts: list[Mount]) -> Any:
    return _MountsResponse(mounts=[mount._asdict() for mount in mounts])


def _fields(info: Any) -> dict[str, Any]:
    return {"kind": _KINDS.get(info.kind), "name": info.name, "parent": info.parent, "labels": dict(info.labels)}
