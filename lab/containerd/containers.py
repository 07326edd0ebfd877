# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Containers (core/metadata/containers.go)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
)

from ..bolt import Bucket
from . import calls, messages, records
from .calls import Call
from .store import Store

_PACKAGE = "containerd.services.containers.v1"
_Container = messages.message(f"{_PACKAGE}.Container")
_Response = messages.message(f"{_PACKAGE}.ContainerResponse")
_ListResponse = messages.message(f"{_PACKAGE}.ListContainersResponse")

#: What an update without paths replaces, by the names of the paths.
_FIELDS = {"spec": "spec", "image": "image", "snapshotkey": "snapshot_key"}


class Containers:
    """The calls of the service. A request is one of ``messages``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: Any, call: Call) -> Any:
        """Return a container."""
        bucket = records.find(self._store.meta.root, *call.path("containers", request.id))
        if bucket is None:
            raise NotFound(f'container "{request.id}" in namespace "{call.namespace}": not found')
        return _Response(container=_container(request.id, bucket))

    def list(self, request: Any, call: Call) -> Any:
        """Return the containers that the filters match."""
        return _ListResponse(containers=self._matching(request, call))

    def list_stream(self, request: Any, call: Call) -> Iterator[Any]:
        """Return the containers that the filters match, one in each message."""
        for container in self._matching(request, call):
            yield _Response(container=container)

    def create(self, request: Any, call: Call) -> Any:
        """Create a container. Its image and its snapshot need not exist."""
        container = request.container
        _check(container, "create container failed validation: ")
        with self._store.meta.update() as root:
            containers = records.make(root, *call.path("containers"))
            if records.find(containers, container.id):
                raise AlreadyExists(f'container "{container.id}": already exists')
            now = time.time_ns()
            bucket = records.make(containers, container.id)
            _write(bucket, container, now, now)
        return _Response(container=_container(container.id, bucket))

    def update(self, request: Any, call: Call) -> Any:
        """Change the fields of a container that the paths name; all that can change without paths."""
        wanted = request.container
        if not wanted.id:
            raise InvalidArgument("must specify a container id: invalid argument")
        paths = request.update_mask.paths or ["labels", "extensions", *_FIELDS]
        calls.check_paths(paths, _FIELDS, ("labels", "extensions"), f'"{wanted.id}"')
        with self._store.meta.update() as root:
            bucket = records.find(root, *call.path("containers", wanted.id))
            if bucket is None:
                raise NotFound(f'container "{wanted.id}": not found')
            container = _container(wanted.id, bucket)
            if not request.update_mask.paths:
                _check_constants(container, wanted)
            labels = calls.updated_map(container.labels, wanted.labels, "labels", paths)
            container.labels.clear()
            container.labels.update(labels)
            replaced = "extensions" in paths
            if replaced:
                container.extensions.clear()
            for name, extension in wanted.extensions.items():
                if replaced or f"extensions.{name}" in paths:
                    container.extensions[name].CopyFrom(extension)
            for path, field in _FIELDS.items():
                if path in paths:
                    container.ClearField(field)
                    container.MergeFrom(_Container(**{field: getattr(wanted, field)}))
            _check(container, "update failed validation: ")
            _write(bucket, container, records.read_times(bucket)[0], time.time_ns())
        return _Response(container=_container(wanted.id, bucket))

    def delete(self, request: Any, call: Call) -> Any:
        """Delete a container. The collector deletes its snapshot later."""
        with self._store.meta.update() as root:
            containers = records.find(root, *call.path("containers"))
            if containers is None or not records.find(containers, request.id):
                raise NotFound(f"container {request.id}: not found")
            del containers.items[request.id.encode()]
        self._store.deletions += 1
        return calls.Empty()

    def _matching(self, request: Any, call: Call) -> Sequence[Any]:
        found = records.find(self._store.meta.root, *call.path("containers"))
        containers = [_container(container_id, bucket) for container_id, bucket in records.buckets(found)]
        return calls.matching(containers, request.filters, _fields)


def _check(container: Any, prefix: str) -> None:
    calls.check_identifier(container.id, f"{prefix}container.ID: ")
    calls.check_labels(container.labels, f"{prefix}containers.Labels")
    if "" in container.extensions:
        raise InvalidArgument(f"{prefix}container.Extension keys must not be zero-length: invalid argument")
    if not container.runtime.name:
        raise InvalidArgument(f"{prefix}container.Runtime.Name must be set: invalid argument")
    if not container.HasField("spec"):
        raise InvalidArgument(f"{prefix}container.Spec must be set: invalid argument")
    if container.snapshot_key and not container.snapshotter:
        raise InvalidArgument(
            f"{prefix}container.Snapshotter must be set if container.SnapshotKey is set: invalid argument"
        )


def _check_constants(old: Any, new: Any) -> None:
    if old.snapshotter != new.snapshotter:
        raise InvalidArgument("container.Snapshotter field is immutable: invalid argument")
    if old.runtime.name != new.runtime.name:
        raise InvalidArgument("container.Runtime.Name field is immutable: invalid argument")


def _container(container_id: str, bucket: Bucket) -> Any:
    runtime = records.find(bucket, "runtime") or Bucket()
    container = _Container(
        id=container_id,
        labels=records.read_map(bucket, "labels"),
        image=records.text(bucket, "image"),
        snapshotter=records.text(bucket, "snapshotter"),
        snapshot_key=records.text(bucket, "snapshotKey"),
        sandbox=records.text(bucket, "sandboxid"),
    )
    container.runtime.name = records.text(runtime, "name")
    if records.value(runtime, "options"):
        container.runtime.options.ParseFromString(records.value(runtime, "options"))
    if records.value(bucket, "spec"):
        container.spec.ParseFromString(records.value(bucket, "spec"))
    extensions = records.find(bucket, "extensions")
    for name in records.keys(extensions) if extensions else ():
        container.extensions[name].ParseFromString(records.value(extensions, name) if extensions else b"")
    created, updated = records.read_times(bucket)
    calls.set_time(container.created_at, created)
    calls.set_time(container.updated_at, updated)
    return container


def _write(bucket: Bucket, container: Any, created: int, updated: int) -> None:
    records.write_times(bucket, created, updated)
    bucket.items[b"spec"] = container.spec.SerializeToString()
    bucket.items[b"image"] = container.image.encode()
    bucket.items[b"snapshotter"] = container.snapshotter.encode()
    bucket.items[b"snapshotKey"] = container.snapshot_key.encode()
    if container.sandbox:
        bucket.items[b"sandboxid"] = container.sandbox.encode()
    runtime = bucket.items[b"runtime"] = Bucket({b"name": container.runtime.name.encode()})
    if container.runtime.HasField("options"):
        runtime.items[b"options"] = container.runtime.options.SerializeToString()
    bucket.items.pop(b"extensions", None)
    for name, extension in container.extensions.items():
        records.make(bucket, "extensions").items[name.encode()] = extension.SerializeToString()
    records.write_map(bucket, "labels", container.labels)


def _fields(container: Any) -> dict[str, Any]:
    return {
        "id": container.id,
        "runtime": {"name": container.runtime.name},
        "image": container.image or None,
        "labels": dict(container.labels),
    }
