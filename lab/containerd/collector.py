# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's garbage collector: mark what roots need, delete the rest (core/metadata/gc.go, plugins/gc/scheduler.go).

A node of the graph is a kind of object, its namespace and its key. The key of a snapshot is ``<snapshotter>/<key>``.

As in containerd, deleting the entry of a snapshot leaves the link to it in the entry of its parent, if that stays.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, SnapshotterError

from ..bolt import Bucket
from . import records
from .snapshotter import NAME, Record
from .store import Store

_LEASE, _CONTENT, _SNAPSHOT, _INGEST, _IMAGE = "lease", "content", "snapshot", "ingest", "image"
# What a lease with the label gc.flat holds: the object and its parents, not what its labels name.
_FLAT_CONTENT, _FLAT_SNAPSHOT = "flat content", "flat snapshot"

_ROOT = "containerd.io/gc.root"
_EXPIRE = "containerd.io/gc.expire"
_FLAT = "containerd.io/gc.flat"
_CONTENT_REFERENCE = re.compile(r"containerd\.io/gc\.ref\.content(?:[./].*)?", re.DOTALL)
_SNAPSHOT_REFERENCE = re.compile(r"containerd\.io/gc\.ref\.snapshot\.([^/]*)(?:/.*)?", re.DOTALL)

#: Seconds from the start to the first collection, and between the times at which one may be due.
_STARTUP_DELAY = 0.1
_INTERVAL = 0.5
#: The commits to meta.db that make a collection due, even if they deleted nothing.
_MUTATIONS = 100

_logger = logging.getLogger(__name__)


class Node(NamedTuple):
    """An object that the collector may delete."""

    kind: str
    namespace: str
    key: str


class Collector:
    """Collects shortly after the start and after deletions, in a thread, and on demand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._commits = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the present collection."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if self._ended.wait(_STARTUP_DELAY):
            return
        self.collect()
        while not self._ended.wait(_INTERVAL):
            if self._store.deletions or self._store.meta.commits - self._commits >= _MUTATIONS:
                self.collect()

    def collect(self) -> None:
        """Delete all that no root needs: entries of meta.db first, then layers and blobs that no entry names."""
        with self._store.lock:
            marked = _reachable(self._store.meta.root)
            unneeded = [node for node in _everything(self._store.meta.root) if _unmarked(node, marked)]
            if unneeded:
                with self._store.meta.update() as root:
                    for node in unneeded:
                        _remove(root, node)
                        self._mark_dirty(node)
            self._store.deletions = 0
            if NAME in self._store.dirty_snapshotters:
                self._clean_snapshotter()
            self._store.dirty_snapshotters.clear()
            if self._store.dirty_content:
                self._clean_content()
            self._store.dirty_content = False
            self._commits = self._store.meta.commits

    def _mark_dirty(self, node: Node) -> None:
        if node.kind == _SNAPSHOT:
            self._store.dirty_snapshotters.add(node.key.partition("/")[0])
        elif node.kind in (_CONTENT, _INGEST):
            self._store.dirty_content = True

    def _clean_snapshotter(self) -> None:
        """Remove each record that no entry of meta.db names, children first."""
        seen = set()
        for _name, namespace in records.buckets(records.find(self._store.meta.root, "v1")):
            for _key, entry in records.buckets(records.find(namespace, "snapshots", NAME)):
                seen.add(records.text(entry, "name"))
        for record in _children_first(self._store.snapshotter.records()):
            if record.key in seen:
                continue
            try:
                self._store.snapshotter.remove(record.key)
            except FailedPrecondition as error:
                _logger.warning("failed to remove snapshot %s: %s", record.key, error)
            except SnapshotterError as error:
                _logger.warning("snapshot garbage collection failed: %s", error)
                return

    def _clean_content(self) -> None:
        """Delete each blob and each ingest that no namespace has."""
        blobs: set[str] = set()
        ingests: set[str] = set()
        for _name, namespace in records.buckets(records.find(self._store.meta.root, "v1")):
            blobs.update(digest for digest, _blob in records.buckets(records.find(namespace, "content", "blob")))
            for _ref, ingest in records.buckets(records.find(namespace, "content", "ingests")):
                blobs.add(records.text(ingest, "expected"))
                ingests.add(records.text(ingest, "ref"))
        for blob in self._store.content.glob("blobs/sha256/*"):
            if f"sha256:{blob.name}" not in blobs:
                blob.unlink()
        for ingest_directory in self._store.content.glob("ingest/*"):
            if (ingest_directory / "ref").read_text(encoding="utf-8") not in ingests:
                shutil.rmtree(ingest_directory)


def _children_first(found: list[Record]) -> list[Record]:
    """Order records for removal. One whose parents lead to a missing record is left out, as in containerd."""
    children: dict[str, list[Record]] = {}
    for record in found:
        children.setdefault(record.parent, []).append(record)
    ordered: list[Record] = []
    waiting = list(children.get("", []))
    while waiting:
        record = waiting.pop()
        ordered.append(record)
        waiting += children.get(record.key, [])
    return ordered[::-1]


def _reachable(root: Bucket) -> set[Node]:
    marked: set[Node] = set()
    waiting = list(_roots(root))
    while waiting:
        node = waiting.pop()
        if node not in marked:
            marked.add(node)
            waiting += _references(root, node)
    return marked


def _unmarked(node: Node, marked: set[Node]) -> bool:
    flat = {_CONTENT: _FLAT_CONTENT, _SNAPSHOT: _FLAT_SNAPSHOT}.get(node.kind, node.kind)
    return node not in marked and node._replace(kind=flat) not in marked


def _roots(root: Bucket) -> Iterator[Node]:
    """Iterate over what is needed by itself. All containers are."""
    now = time.time_ns()
    for name, namespace in records.buckets(records.find(root, "v1")):
        for lease_id, lease in records.buckets(records.find(namespace, "leases")):
            if not _is_expired(lease, now):
                yield Node(_LEASE, name, lease_id)
                yield from _leased(name, lease)
        for image_name, image in records.buckets(records.find(namespace, "images")):
            if not _is_expired(image, now):
                yield Node(_IMAGE, name, image_name)
        for reference, ingest in records.buckets(records.find(namespace, "content", "ingests")):
            expires = records.value(ingest, "expireat")
            if expires and records.decode_time(expires) >= now:
                yield Node(_INGEST, name, reference)
        for digest, blob in records.buckets(records.find(namespace, "content", "blob")):
            if _ROOT in records.read_map(blob, "labels"):
                yield Node(_CONTENT, name, digest)
        for _id, container in records.buckets(records.find(namespace, "containers")):
            snapshotter = records.text(container, "snapshotter")
            if snapshotter:
                yield Node(_SNAPSHOT, name, f"{snapshotter}/{records.text(container, 'snapshotKey')}")
            yield from _labelled(name, container)
        for snapshotter, snapshots in records.buckets(records.find(namespace, "snapshots")):
            for key, snapshot in records.buckets(snapshots):
                if _ROOT in records.read_map(snapshot, "labels"):
                    yield Node(_SNAPSHOT, name, f"{snapshotter}/{key}")


def _is_expired(bucket: Bucket, now: int) -> bool:
    """Return whether the time in the label gc.expire is past. A text that is not a time is ignored."""
    text = records.read_map(bucket, "labels").get(_EXPIRE)
    try:
        expires = dt.datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except ValueError:
        return False
    return expires is not None and expires.tzinfo is not None and expires.timestamp() * 1e9 < now


def _leased(namespace: str, lease: Bucket) -> Iterator[Node]:
    is_flat = _FLAT in records.read_map(lease, "labels")
    for digest in records.keys(records.find(lease, "content")):
        yield Node(_FLAT_CONTENT if is_flat else _CONTENT, namespace, digest)
    for snapshotter, held in records.buckets(records.find(lease, "snapshots")):
        for key in records.keys(held):
            yield Node(_FLAT_SNAPSHOT if is_flat else _SNAPSHOT, namespace, f"{snapshotter}/{key}")
    for kind, bucket in ((_INGEST, "ingests"), (_IMAGE, "images")):
        for key in records.keys(records.find(lease, bucket)):
            yield Node(kind, namespace, key)


def _references(root: Bucket, node: Node) -> Iterator[Node]:
    """Iterate over what an object needs. One that does not exist needs nothing."""
    bucket = records.find(root, *_path(node))
    if bucket is None:
        return
    if node.kind == _IMAGE:
        target = records.find(bucket, "target")
        if target is not None:
            yield Node(_CONTENT, node.namespace, records.text(target, "digest"))
    elif node.kind == _INGEST:
        yield Node(_CONTENT, node.namespace, records.text(bucket, "expected"))
    elif node.kind in (_SNAPSHOT, _FLAT_SNAPSHOT):
        parent = records.text(bucket, "parent")
        if parent:
            snapshotter = node.key.partition("/")[0]
            yield Node(node.kind, node.namespace, f"{snapshotter}/{parent}")
    if node.kind in (_IMAGE, _CONTENT, _SNAPSHOT):
        yield from _labelled(node.namespace, bucket)


def _labelled(namespace: str, bucket: Bucket) -> Iterator[Node]:
    """Iterate over what the labels gc.ref name."""
    for label, text in records.read_map(bucket, "labels").items():
        if _CONTENT_REFERENCE.fullmatch(label):
            yield Node(_CONTENT, namespace, text)
        snapshotter = _SNAPSHOT_REFERENCE.fullmatch(label)
        if snapshotter:
            yield Node(_SNAPSHOT, namespace, f"{snapshotter[1]}/{text}")


def _everything(root: Bucket) -> Iterator[Node]:
    """Iterate over all that the collector may delete. It does not delete containers."""
    for name, namespace in records.buckets(records.find(root, "v1")):
        for kind, path in (
            (_LEASE, ["leases"]),
            (_IMAGE, ["images"]),
            (_INGEST, ["content", "ingests"]),
            (_CONTENT, ["content", "blob"]),
        ):
            for key, _bucket in records.buckets(records.find(namespace, *path)):
                yield Node(kind, name, key)
        for snapshotter, snapshots in records.buckets(records.find(namespace, "snapshots")):
            for key, _bucket in records.buckets(snapshots):
                yield Node(_SNAPSHOT, name, f"{snapshotter}/{key}")


def _remove(root: Bucket, node: Node) -> None:
    *path, key = _path(node)
    parent = records.find(root, *path)
    if parent is not None:
        del parent.items[key.encode()]


def _path(node: Node) -> list[str]:
    """Return where meta.db has an object."""
    start = ["v1", node.namespace]
    if node.kind in (_SNAPSHOT, _FLAT_SNAPSHOT):
        snapshotter, _slash, key = node.key.partition("/")
        return [*start, "snapshots", snapshotter, key]
    middle = {_LEASE: ["leases"], _IMAGE: ["images"], _INGEST: ["content", "ingests"]}.get(node.kind)
    return [*start, *(middle or ["content", "blob"]), node.key]
