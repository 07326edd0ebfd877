# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of containerd's API and their messages, as data.

Only what the collection uses is here. The numbers are those of containerd's api/services/*/v1/*.proto and api/types.
They are the same in containerd 1.6 to 2.3; later fields are marked.
"""

from __future__ import annotations

from typing import Dict, NamedTuple

from ..rpc.protobuf import BOOLEAN, BYTES, INTEGER, TEXT, TEXT_MAP, Field, Schema

#: Kinds of snapshots in messages.
VIEW = 1
ACTIVE = 2
COMMITTED = 3

#: What a message of Content.Write asks for.
STATUS = 0
WRITE = 1
COMMIT = 2

EMPTY: Schema = {}
TIMESTAMP: Schema = {"seconds": Field(1, INTEGER), "nanos": Field(2, INTEGER)}
FIELD_MASK: Schema = {"paths": Field(1, TEXT, repeated=True)}
FILTERS: Schema = {"filters": Field(1, TEXT, repeated=True)}

# -- types that several services use --------------------------------------------

MOUNT: Schema = {
    "type": Field(1, TEXT),
    "source": Field(2, TEXT),
    "target": Field(3, TEXT),
    "options": Field(4, TEXT, repeated=True),
}
DESCRIPTOR: Schema = {
    "media_type": Field(1, TEXT),
    "digest": Field(2, TEXT),
    "size": Field(3, INTEGER),
    "annotations": Field(5, TEXT_MAP),
}

# -- Snapshots -----------------------------------------------------------------

SNAPSHOT: Schema = {
    "name": Field(1, TEXT),
    "parent": Field(2, TEXT),
    "kind": Field(3, INTEGER),
    "created": Field(4, TIMESTAMP),
    "updated": Field(5, TIMESTAMP),
    "labels": Field(6, TEXT_MAP),
}
SNAPSHOT_KEY: Schema = {"snapshotter": Field(1, TEXT), "key": Field(2, TEXT)}
PREPARE: Schema = {**SNAPSHOT_KEY, "parent": Field(3, TEXT), "labels": Field(4, TEXT_MAP)}
MOUNTS: Schema = {"mounts": Field(1, MOUNT, repeated=True)}
COMMIT_SNAPSHOT: Schema = {
    "snapshotter": Field(1, TEXT),
    "name": Field(2, TEXT),
    "key": Field(3, TEXT),
    "labels": Field(4, TEXT_MAP),
    # Since containerd 2.2.
    "parent": Field(5, TEXT),
}
ONE_SNAPSHOT: Schema = {"info": Field(1, SNAPSHOT)}
UPDATE_SNAPSHOT: Schema = {
    "snapshotter": Field(1, TEXT),
    "info": Field(2, SNAPSHOT),
    "mask": Field(3, FIELD_MASK),
}
LIST_SNAPSHOTS: Schema = {"snapshotter": Field(1, TEXT), "filters": Field(2, TEXT, repeated=True)}
SNAPSHOTS: Schema = {"infos": Field(1, SNAPSHOT, repeated=True)}
CLEANUP: Schema = {"snapshotter": Field(1, TEXT)}
USAGE: Schema = {"size": Field(1, INTEGER), "inodes": Field(2, INTEGER)}

# -- Leases --------------------------------------------------------------------

LEASE: Schema = {"id": Field(1, TEXT), "created": Field(2, TIMESTAMP), "labels": Field(3, TEXT_MAP)}
CREATE_LEASE: Schema = {"id": Field(1, TEXT), "labels": Field(3, TEXT_MAP)}
ONE_LEASE: Schema = {"lease": Field(1, LEASE)}
DELETE_LEASE: Schema = {"id": Field(1, TEXT), "sync": Field(2, BOOLEAN)}
LEASES: Schema = {"leases": Field(1, LEASE, repeated=True)}
RESOURCE: Schema = {"id": Field(1, TEXT), "type": Field(2, TEXT)}
LEASE_RESOURCE: Schema = {"id": Field(1, TEXT), "resource": Field(2, RESOURCE)}
LEASE_ID: Schema = {"id": Field(1, TEXT)}
RESOURCES: Schema = {"resources": Field(1, RESOURCE, repeated=True)}

# -- Namespaces ------------------------------------------------------------------

NAMESPACE: Schema = {"name": Field(1, TEXT), "labels": Field(2, TEXT_MAP)}
NAME: Schema = {"name": Field(1, TEXT)}
ONE_NAMESPACE: Schema = {"namespace": Field(1, NAMESPACE)}
LIST_NAMESPACES: Schema = {"filter": Field(1, TEXT)}
NAMESPACES: Schema = {"namespaces": Field(1, NAMESPACE, repeated=True)}

# -- Images --------------------------------------------------------------------

IMAGE: Schema = {
    "name": Field(1, TEXT),
    "labels": Field(2, TEXT_MAP),
    "target": Field(3, DESCRIPTOR),
    "created": Field(7, TIMESTAMP),
    "updated": Field(8, TIMESTAMP),
}
ONE_IMAGE: Schema = {"image": Field(1, IMAGE)}
IMAGES: Schema = {"images": Field(1, IMAGE, repeated=True)}
UPDATE_IMAGE: Schema = {"image": Field(1, IMAGE), "mask": Field(2, FIELD_MASK)}
DELETE_IMAGE: Schema = {"name": Field(1, TEXT), "sync": Field(2, BOOLEAN)}

# -- Containers ----------------------------------------------------------------

RUNTIME: Schema = {"name": Field(1, TEXT)}
# Without the specification and the extensions of the runtime, which can be large.
CONTAINER: Schema = {
    "id": Field(1, TEXT),
    "labels": Field(2, TEXT_MAP),
    "image": Field(3, TEXT),
    "runtime": Field(4, RUNTIME),
    "snapshotter": Field(6, TEXT),
    "snapshot_key": Field(7, TEXT),
    "created": Field(8, TIMESTAMP),
    "updated": Field(9, TIMESTAMP),
    # Since containerd 1.7.
    "sandbox": Field(11, TEXT),
}
CONTAINER_ID: Schema = {"id": Field(1, TEXT)}
ONE_CONTAINER: Schema = {"container": Field(1, CONTAINER)}

# -- Content -------------------------------------------------------------------

BLOB: Schema = {
    "digest": Field(1, TEXT),
    "size": Field(2, INTEGER),
    "created": Field(3, TIMESTAMP),
    "updated": Field(4, TIMESTAMP),
    "labels": Field(5, TEXT_MAP),
}
DIGEST: Schema = {"digest": Field(1, TEXT)}
ONE_BLOB: Schema = {"info": Field(1, BLOB)}
UPDATE_BLOB: Schema = {"info": Field(1, BLOB), "mask": Field(2, FIELD_MASK)}
BLOBS: Schema = {"infos": Field(1, BLOB, repeated=True)}
READ_BLOB: Schema = {"digest": Field(1, TEXT), "offset": Field(2, INTEGER), "size": Field(3, INTEGER)}
PIECE: Schema = {"offset": Field(1, INTEGER), "data": Field(2, BYTES)}
INGEST: Schema = {
    "started": Field(1, TIMESTAMP),
    "updated": Field(2, TIMESTAMP),
    "ref": Field(3, TEXT),
    "offset": Field(4, INTEGER),
    "total": Field(5, INTEGER),
    "expected": Field(6, TEXT),
}
REF: Schema = {"ref": Field(1, TEXT)}
ONE_INGEST: Schema = {"status": Field(1, INGEST)}
INGESTS: Schema = {"statuses": Field(1, INGEST, repeated=True)}
WRITE_REQUEST: Schema = {
    "action": Field(1, INTEGER),
    "ref": Field(2, TEXT),
    "total": Field(3, INTEGER),
    "expected": Field(4, TEXT),
    "offset": Field(5, INTEGER),
    "data": Field(6, BYTES),
    "labels": Field(7, TEXT_MAP),
}
WRITE_ANSWER: Schema = {
    "action": Field(1, INTEGER),
    "started": Field(2, TIMESTAMP),
    "updated": Field(3, TIMESTAMP),
    "offset": Field(4, INTEGER),
    "total": Field(5, INTEGER),
    "digest": Field(6, TEXT),
}

# -- Diff, Version, Introspection -------------------------------------------------

APPLY: Schema = {"diff": Field(1, DESCRIPTOR), "mounts": Field(2, MOUNT, repeated=True)}
APPLIED: Schema = {"applied": Field(1, DESCRIPTOR)}
DIFF: Schema = {
    "left": Field(1, MOUNT, repeated=True),
    "right": Field(2, MOUNT, repeated=True),
    "media_type": Field(3, TEXT),
    "ref": Field(4, TEXT),
    "labels": Field(5, TEXT_MAP),
}
DIFFERENCE: Schema = {"diff": Field(3, DESCRIPTOR)}
VERSION: Schema = {"version": Field(1, TEXT), "revision": Field(2, TEXT)}
# google.rpc.Status
PROBLEM: Schema = {"code": Field(1, INTEGER), "message": Field(2, TEXT)}
PLUGIN: Schema = {
    "type": Field(1, TEXT),
    "id": Field(2, TEXT),
    "exports": Field(5, TEXT_MAP),
    "capabilities": Field(6, TEXT, repeated=True),
    "init_err": Field(7, PROBLEM),
}
PLUGINS: Schema = {"plugins": Field(1, PLUGIN, repeated=True)}
# The fields after "uuid" are those of containerd 2.
SERVER: Schema = {"uuid": Field(1, TEXT), "pid": Field(2, INTEGER)}


class Method(NamedTuple):
    """A method: its path, and the schemas of its messages in both directions."""

    path: str
    request: Schema
    answer: Schema


def _method(name: str, request: Schema, *answer: Schema) -> Method:
    service = name.partition("/")[0]
    return Method(f"/containerd.services.{service.lower()}.v1.{name}", request, answer[0] if answer else EMPTY)


#: All methods by their names, for example ``Snapshots/Stat``.
METHODS: Dict[str, Method] = {
    name: _method(name, *schemas)
    for name, schemas in {
        "Snapshots/Prepare": (PREPARE, MOUNTS),
        "Snapshots/View": (PREPARE, MOUNTS),
        "Snapshots/Mounts": (SNAPSHOT_KEY, MOUNTS),
        "Snapshots/Commit": (COMMIT_SNAPSHOT,),
        "Snapshots/Remove": (SNAPSHOT_KEY,),
        "Snapshots/Stat": (SNAPSHOT_KEY, ONE_SNAPSHOT),
        "Snapshots/Update": (UPDATE_SNAPSHOT, ONE_SNAPSHOT),
        "Snapshots/List": (LIST_SNAPSHOTS, SNAPSHOTS),
        "Snapshots/Usage": (SNAPSHOT_KEY, USAGE),
        "Snapshots/Cleanup": (CLEANUP,),
        "Leases/Create": (CREATE_LEASE, ONE_LEASE),
        "Leases/Delete": (DELETE_LEASE,),
        "Leases/List": (FILTERS, LEASES),
        "Leases/AddResource": (LEASE_RESOURCE,),
        "Leases/DeleteResource": (LEASE_RESOURCE,),
        "Leases/ListResources": (LEASE_ID, RESOURCES),
        "Namespaces/Get": (NAME, ONE_NAMESPACE),
        "Namespaces/List": (LIST_NAMESPACES, NAMESPACES),
        "Namespaces/Create": (ONE_NAMESPACE, ONE_NAMESPACE),
        "Namespaces/Delete": (NAME,),
        "Images/Get": (NAME, ONE_IMAGE),
        "Images/List": (FILTERS, IMAGES),
        "Images/Create": (ONE_IMAGE, ONE_IMAGE),
        "Images/Update": (UPDATE_IMAGE, ONE_IMAGE),
        "Images/Delete": (DELETE_IMAGE,),
        "Containers/Get": (CONTAINER_ID, ONE_CONTAINER),
        "Containers/ListStream": (FILTERS, ONE_CONTAINER),
        "Content/Info": (DIGEST, ONE_BLOB),
        "Content/Update": (UPDATE_BLOB, ONE_BLOB),
        "Content/List": (FILTERS, BLOBS),
        "Content/Delete": (DIGEST,),
        "Content/Read": (READ_BLOB, PIECE),
        "Content/Status": (REF, ONE_INGEST),
        "Content/ListStatuses": (FILTERS, INGESTS),
        "Content/Write": (WRITE_REQUEST, WRITE_ANSWER),
        "Content/Abort": (REF,),
        "Diff/Apply": (APPLY, APPLIED),
        "Diff/Diff": (DIFF, DIFFERENCE),
        "Version/Version": (EMPTY, VERSION),
        "Introspection/Plugins": (FILTERS, PLUGINS),
        "Introspection/Server": (EMPTY, SERVER),
    }.items()
}
