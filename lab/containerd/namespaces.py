# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Namespaces (core/metadata/namespaces.go)."""

from __future__ import annotations

from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
)

from ..bolt import Bucket
from . import calls, messages, records
from .calls import Call
from .store import Store

_PACKAGE = "containerd.services.namespaces.v1"
_Namespace = messages.message(f"{_PACKAGE}.Namespace")
_Response = messages.message(f"{_PACKAGE}.NamespaceResponse")
_ListResponse = messages.message(f"{_PACKAGE}.ListNamespacesResponse")


class Namespaces:
    """The calls of the service. A request is one of ``messages``. The namespace of the call does not matter."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: Any, call: Call) -> Any:
        """Return a namespace with its labels."""
        return _Response(namespace=_namespace(request.name, self._find(request.name)))

    def list(self, request: Any, call: Call) -> Any:
        """Return all namespaces."""
        found = records.buckets(records.find(self._store.meta.root, "v1"))
        return _ListResponse(namespaces=[_namespace(name, bucket) for name, bucket in found])

    def create(self, request: Any, call: Call) -> Any:
        """Create a namespace."""
        name = request.namespace.name
        calls.check_identifier(name)
        calls.check_labels(request.namespace.labels, "namespace.Labels")
        with self._store.meta.update() as root:
            if records.find(root, "v1", name):
                raise AlreadyExists(f'namespace "{name}": already exists')
            namespace = records.make(root, "v1", name)
            records.write_map(namespace, "labels", request.namespace.labels)
            records.make(namespace, "labels")
        return _Response(namespace=_namespace(name, namespace))

    def update(self, request: Any, call: Call) -> Any:
        """Change the labels of a namespace."""
        name = request.namespace.name
        paths = request.update_mask.paths or ["labels"]
        calls.check_paths(paths, (), ("labels",), f'namespace "{name}"')
        with self._store.meta.update():
            namespace = self._find(name)
            old = records.read_map(namespace, "labels")
            labels = calls.updated_map(old, request.namespace.labels, "labels", paths)
            calls.check_labels(labels, "namespace.Labels")
            records.write_map(namespace, "labels", labels)
        return _Response(namespace=_namespace(name, namespace))

    def delete(self, request: Any, call: Call) -> Any:
        """Delete an empty namespace. A lease does not count."""
        namespace = self._find(request.name)
        contents = {
            "images": records.find(namespace, "images"),
            "blobs": records.find(namespace, "content", "blob"),
            "containers": records.find(namespace, "containers"),
        }
        for snapshotter, snapshots in records.buckets(records.find(namespace, "snapshots")):
            contents[f'snapshots on "{snapshotter}" snapshotter'] = snapshots
        left = [what for what, bucket in contents.items() if bucket and bucket.items]
        if left:
            raise FailedPrecondition(
                f'namespace "{request.name}" must be empty, but it still has {", ".join(left)}: failed precondition'
            )
        with self._store.meta.update() as root:
            del records.make(root, "v1").items[request.name.encode()]
        return calls.Empty()

    def _find(self, name: str) -> Bucket:
        namespace = records.find(self._store.meta.root, "v1", name)
        if namespace is None:
            raise NotFound(f'namespace "{name}": not found')
        return namespace


def _namespace(name: str, bucket: Bucket) -> Any:
    return _Namespace(name=name, labels=records.read_map(bucket, "labels"))
