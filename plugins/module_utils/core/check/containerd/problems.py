# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between containerd's two databases and its directories, as one reading shows them."""

from __future__ import annotations

import os
import time
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

from ...containerd.databases import Namespace
from ...containerd.node import ContainerdNode
from ...containerd.picture import Picture, Snapshot
from ...containerd.references import References, UsedBy
from ...model import VIEW

#: What the name of a removal directory begins with. No record can own such a directory.
REMOVAL = "rm-"

#: The label of a snapshot that a repair creates and removes at once. Its value is the lease of the repair.
#: The lease has the label, too.
REPAIR_LABEL = "wcow.snapshotter/repair"

# Only labels with these names reach metadata.db (core/snapshots/snapshotter.go, FilterInheritedLabels).
_INHERITED = ("containerd.io/snapshot/", "containerd.io/snapshot.ref")

Identity = Tuple[str, Tuple[Union[str, int], ...]]


class Problem(NamedTuple):
    """A difference. ``what`` tells it from others of its code, in each reading. ``path`` is native, ``""`` without one.

    ``is_layer`` says whether the path is a directory that can be freed. ``namespace`` and ``child`` are given where
    the problem is an entry of meta.db, or its link to a child.
    """

    code: str
    what: Tuple[Union[str, int], ...]
    message: str
    snapshot: str = ""
    layer_id: Optional[int] = None
    path: str = ""
    is_layer: bool = False
    namespace: str = ""
    child: str = ""

    @property
    def identity(self) -> Identity:
        """The problem in each reading."""
        return self.code, self.what


def find_problems(node: ContainerdNode, picture: Picture) -> Dict[Identity, Problem]:
    """Return all differences of one reading by their identity."""
    subjects: Sequence[Callable[[ContainerdNode, Picture], Iterator[Problem]]] = (
        _check_schema,
        _check_entries,
        _check_records,
        _check_directories,
        _check_references,
    )
    return {problem.identity: problem for check_subject in subjects for problem in check_subject(node, picture)}


class Uses:
    """What needs the snapshots of one reading. A namespace is examined when it is first asked for."""

    def __init__(self, picture: Picture, snapshotter: str) -> None:
        self._picture = picture
        self._snapshotter = snapshotter
        self._now = time.time_ns()
        self._references: Dict[str, References] = {}

    def used_by(self, snapshot: Snapshot) -> UsedBy:
        """Return what needs a snapshot."""
        return self._of(snapshot.namespace).used_by(self._snapshotter, snapshot.key)

    def is_kept(self, snapshot: Snapshot) -> bool:
        """Return whether garbage collection keeps a snapshot."""
        return self._of(snapshot.namespace).is_kept(self._snapshotter, snapshot.key)

    def _of(self, namespace: str) -> References:
        references = self._references.get(namespace)
        if references is None:
            metadata = self._picture.metadata
            references = References(metadata.namespaces[namespace], self._now, metadata.version)
            self._references[namespace] = references
        return references


def _check_schema(_node: ContainerdNode, picture: Picture) -> Iterator[Problem]:
    for sentence in picture.unknown:
        yield Problem("unknown_schema", (sentence,), sentence)


def _check_entries(node: ContainerdNode, picture: Picture) -> Iterator[Problem]:
    """Compare the entries of meta.db with each other, with the records and with the directories."""
    keys: Dict[str, Dict[str, Snapshot]] = {}
    for snapshot in picture.snapshots:
        keys.setdefault(snapshot.namespace, {})[snapshot.key] = snapshot
    uses = Uses(picture, node.snapshotter)
    for snapshot in picture.snapshots:
        what = (snapshot.namespace, snapshot.key)
        name = f'"{snapshot.key}" of the namespace {snapshot.namespace}'
        known = keys[snapshot.namespace]
        layer_id = snapshot.record.id if snapshot.record else None
        for child in (child for child in snapshot.entry.children if child not in known):
            message = (
                f'{name} has the child "{child}", which does not exist: containerd refuses to remove it ("cannot '
                f'remove snapshot with child"){_future(uses, snapshot)}'
            )
            parent = Problem("dangling_child", (*what, child), message, snapshot.key, layer_id)
            yield parent._replace(namespace=snapshot.namespace, child=child)
        if REPAIR_LABEL in snapshot.entry.labels:
            message = f"{name} was created by a repair, which ended before it removed it"
            abandoned = Problem("abandoned_repair", (*what, snapshot.entry.name), message, snapshot.key, layer_id)
            yield abandoned._replace(namespace=snapshot.namespace)
        if snapshot.entry.parent and snapshot.entry.parent not in known:
            yield Problem(
                "broken_chain",
                what,
                f'{name} has the parent "{snapshot.entry.parent}", which does not exist',
                snapshot.key,
            )
        if snapshot.record is None:
            message = (
                f"{name} has no record in metadata.db: containerd does not list it, and an import that needs it fails "
                f'with "missing parent"{_future(uses, snapshot)}'
            )
            yield Problem("missing_record", what, message, snapshot.key, namespace=snapshot.namespace)
            continue
        path = os.path.join(picture.paths.snapshots, str(snapshot.record.id))
        # containerd 1.6 and 1.7 create no directory for a view (snapshots/windows/windows.go, createSnapshot).
        has_layer = snapshot.has_directory or snapshot.record.kind == VIEW
        if not has_layer and snapshot.record.id not in picture.directories.removals:
            message = f"{name} has no directory: {node.layers.display_path(path)} does not exist"
            yield Problem("missing_directory", what, message, snapshot.key, snapshot.record.id, path)
        difference = _find_difference(snapshot, known)
        if difference:
            message = f"{name} has {difference}"
            yield Problem("record_mismatch", what, message, snapshot.key, snapshot.record.id, path)


def _future(uses: Uses, snapshot: Snapshot) -> str:
    """Say whether containerd removes a snapshot by itself."""
    if uses.is_kept(snapshot):
        return ", and its garbage collection keeps it"
    return "; nothing needs it, so its next garbage collection removes it"


def _find_difference(snapshot: Snapshot, known: Dict[str, Snapshot]) -> str:
    """Return how the record of a snapshot differs from its entry, ``""`` if it does not."""
    record, entry = snapshot.record, snapshot.entry
    if record is None:
        return ""
    parent = known[entry.parent].entry.name if entry.parent in known else ""
    if (not entry.parent or entry.parent in known) and record.parent != parent:
        return f'another parent in metadata.db ("{record.parent}") than in meta.db ("{parent}")'
    for label, value in entry.labels.items():
        if label.startswith(_INHERITED) and record.labels.get(label) != value:
            return f"the label {label}={value} in meta.db, but not in metadata.db"
    return ""


def _check_records(node: ContainerdNode, picture: Picture) -> Iterator[Problem]:
    """Report records that containerd does not know, and an index that does not have their parents."""
    for key, record in picture.orphans.items():
        path = os.path.join(picture.paths.snapshots, str(record.id))
        yield Problem(
            "uncollected_record",
            (key,),
            f'"{key}" was removed, but its record and layer are still there: {node.layers.display_path(path)}; '
            "containerd looks for it when another snapshot of the snapshotter was removed",
            key,
            record.id,
            path,
            is_layer=True,
        )
    records = picture.store.records
    expected = {
        (records[record.parent].id, record.id): key for key, record in records.items() if record.parent in records
    }
    for parent, child in expected.keys() ^ picture.store.children.keys():
        name = expected.get((parent, child)) or picture.store.children.get((parent, child), "")
        state = "lacks" if (parent, child) in expected else "has, without such records,"
        message = f'the index of children in metadata.db {state} "{name}" ({child}) as a child of {parent}'
        yield Problem("record_index", (parent, child), message, name, child)


def _check_directories(node: ContainerdNode, picture: Picture) -> Iterator[Problem]:
    """Report directories that no record names."""
    owned = {record.id: key for key, record in picture.store.records.items()}
    top = picture.paths.snapshots
    for layer_id in picture.directories.removals:
        path = os.path.join(top, f"{REMOVAL}{layer_id}")
        shown = node.layers.display_path(path)
        if layer_id in owned and layer_id not in picture.directories.layers:
            message = f'{shown} belongs to "{owned[layer_id]}": its removal was interrupted'
            yield Problem("interrupted_removal", (layer_id,), message, owned[layer_id], layer_id, path)
        else:
            message = f"{shown} waits to be destroyed; containerd does not try again"
            yield Problem("leftover_removal", (layer_id,), message, "", layer_id, path, is_layer=True)
    for layer_id in picture.directories.layers:
        if layer_id in owned:
            continue
        path = os.path.join(top, str(layer_id))
        shown = node.layers.display_path(path)
        if layer_id == picture.next_id:
            message = f"{shown} has the id of the next snapshot, which would get these files"
            yield Problem("next_directory", (layer_id,), message, "", layer_id, path, is_layer=True)
        elif layer_id < picture.next_id:
            message = f"{shown} has no record: a removal was interrupted, or the record was lost"
            yield Problem("unknown_directory", (layer_id,), message, "", layer_id, path, is_layer=True)
        else:
            message = (
                f"{shown} has no record, and metadata.db never gave out its id: the file is older than the directory. "
                "No repair destroys it: restore the newer metadata.db, or move the directory away while containerd is "
                "stopped"
            )
            yield Problem("unknown_directory", (layer_id,), message, "", layer_id, path)
    for name in picture.directories.others:
        path = os.path.join(top, name)
        message = f"{node.layers.display_path(path)} is not a layer of this store"
        yield Problem("foreign_entry", (name,), message, path=path)


def _check_references(node: ContainerdNode, picture: Picture) -> Iterator[Problem]:
    """Report containers and leases whose snapshot does not exist."""
    for name, namespace in picture.metadata.namespaces.items():
        for kind, owner, key in _references(namespace, node.snapshotter):
            if key not in namespace.snapshots.get(node.snapshotter, {}):
                message = (
                    f'the {kind} "{owner}" of the namespace {name} needs the snapshot "{key}", which does not exist'
                )
                yield Problem("missing_snapshot", (name, kind, owner, key), message, key)


def _references(namespace: Namespace, snapshotter: str) -> Iterator[Tuple[str, str, str]]:
    """Yield what names a snapshot of the snapshotter: a container or a lease, its id, and the key."""
    for owner, container in namespace.containers.items():
        if container.snapshotter == snapshotter and container.snapshot_key:
            yield "container", owner, container.snapshot_key
    for owner, lease in namespace.leases.items():
        # If containerd ends during a repair, its lease stays for a day. It can name what another repair has removed.
        if REPAIR_LABEL in lease.labels:
            continue
        for other, key in lease.snapshots:
            if other == snapshotter:
                yield "lease", owner, key
