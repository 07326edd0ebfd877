# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Leases (core/metadata/leases.go)."""

from __future__ import annotations

import secrets
import time
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.digest import is_digest

from ..bolt import Bucket
from . import calls, messages, records
from .calls import Call
from .collector import Collector
from .store import Store

_PACKAGE = "containerd.services.leases.v1"
_Lease = messages.message(f"{_PACKAGE}.Lease")
_CreateResponse = messages.message(f"{_PACKAGE}.CreateResponse")
_ListResponse = messages.message(f"{_PACKAGE}.ListResponse")
_ListResourcesResponse = messages.message(f"{_PACKAGE}.ListResourcesResponse")

#: The types of resources that have no snapshotter behind a slash.
_PLAIN_TYPES = ("content", "ingests", "images")


class Leases:
    """The calls of the service. A request is one of ``messages``."""

    def __init__(self, store: Store, collector: Collector) -> None:
        self._store = store
        self._collector = collector

    def create(self, request: Any, call: Call) -> Any:
        """Create a lease. It gets a random id if the request has none."""
        lease_id = request.id or f"{time.time_ns()}-{secrets.token_urlsafe(3)}"
        path = call.path("leases")
        with self._store.meta.update() as root:
            leases = records.make(root, *path)
            if records.find(leases, lease_id):
                raise AlreadyExists(f'lease "{lease_id}": already exists')
            lease = records.make(leases, lease_id)
            lease.items[b"createdat"] = records.encode_time(time.time_ns())
            records.write_map(lease, "labels", request.labels)
        return _CreateResponse(lease=_lease(lease_id, lease))

    def delete(self, request: Any, call: Call) -> Any:
        """Delete a lease. With ``sync``, the collector has finished when this method returns."""
        self._find(call, request.id)
        with self._store.meta.update() as root:
            del records.make(root, *call.path("leases")).items[request.id.encode()]
        self._store.deletions += 1
        if request.sync:
            self._collector.collect()
        return calls.Empty()

    def list(self, request: Any, call: Call) -> Any:
        """Return the leases that the filters match."""
        found = records.find(self._store.meta.root, *call.path("leases"))
        leases = [_lease(lease_id, lease) for lease_id, lease in records.buckets(found)]
        return _ListResponse(leases=calls.matching(leases, request.filters, _fields))

    def add_resource(self, request: Any, call: Call) -> Any:
        """Let a lease hold a resource, which need not exist."""
        self._find(call, request.id)
        path = _resource_path(request.resource)
        with self._store.meta.update():
            records.make(self._find(call, request.id), *path).items[request.resource.id.encode()] = b""
        return calls.Empty()

    def delete_resource(self, request: Any, call: Call) -> Any:
        """Let a lease no longer hold a resource."""
        self._find(call, request.id)
        path = _resource_path(request.resource)
        with self._store.meta.update():
            held = records.find(self._find(call, request.id), *path)
            if held is not None:
                held.items.pop(request.resource.id.encode(), None)
        self._store.deletions += 1
        return calls.Empty()

    def list_resources(self, request: Any, call: Call) -> Any:
        """Return what a lease holds."""
        lease = self._find(call, request.id)
        found = [(kind, key) for kind in _PLAIN_TYPES for key in records.keys(records.find(lease, kind))]
        for snapshotter, held in records.buckets(records.find(lease, "snapshots")):
            found += [(f"snapshots/{snapshotter}", key) for key in records.keys(held)]
        return _ListResourcesResponse(resources=[{"id": key, "type": kind} for kind, key in found])

    def _find(self, call: Call, lease_id: str) -> Bucket:
        lease = records.find(self._store.meta.root, *call.path("leases", lease_id))
        if lease is None:
            raise NotFound(f'lease "{lease_id}": not found')
        return lease


def _lease(lease_id: str, lease: Bucket) -> Any:
    result = _Lease(id=lease_id, labels=records.read_map(lease, "labels"))
    calls.set_time(result.created_at, records.decode_time(records.value(lease, "createdat")))
    return result


def _fields(lease: Any) -> dict[str, Any]:
    return {"id": lease.id, "labels": dict(lease.labels)}


def _resource_path(resource: Any) -> list[str]:
    """Return the path of the bucket, inside a lease, that has the keys of resources of this type."""
    path: list[str] = resource.type.split("/")
    if path[0] in _PLAIN_TYPES:
        if len(path) != 1:
            raise InvalidArgument(f"invalid resource type {resource.type}: invalid argument")
        if path[0] == "content" and not is_digest(resource.id):
            raise InvalidArgument(f"invalid content resource id {resource.id}: invalid argument")
    elif path[0] == "snapshots":
        if len(path) != 2:
            raise InvalidArgument(f"invalid snapshot resource type {resource.type}: invalid argument")
    else:
        raise NotImplementedHere(f"resource type {resource.type} not supported yet: not implemented")
    return path
