# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find what needs each snapshot, and what garbage collection frees.

containerd keeps what a root leads to, in each namespace alone (core/metadata/gc.go). Roots are images, containers,
leases that have not expired, content that is being written, and all content and snapshots with the label
``containerd.io/gc.root``. An image leads to its target. Content and snapshots lead to what their labels
``containerd.io/gc.ref.*`` name: the manifest to the config, and the config to the topmost snapshot of the image. A
snapshot leads to its parent.

Versions of containerd differ in the labels that they follow. This module follows all of them, so it reports no
snapshot as unused that one of them keeps:

* back references (``gc.bref.*``): what the label names leads to the owner of the label;
* conditional references (``gc.cond.snapshot``), as if their condition were met.

Later versions also keep what is mounted. That is not in meta.db, so it is not known here.
"""

from __future__ import annotations

from typing import Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from .databases import Namespace
from .times import parse_rfc3339

ROOT_LABEL = "containerd.io/gc.root"
EXPIRE_LABEL = "containerd.io/gc.expire"
FLAT_LABEL = "containerd.io/gc.flat"

# Labels that make a reference begin with one of these. The kind of what they name follows.
_REFERENCE = "containerd.io/gc.ref."
_BACK_REFERENCE = "containerd.io/gc.bref."
_CONDITIONAL = "containerd.io/gc.cond.snapshot"

# Kinds of nodes. A snapshot has the kind "snapshot/<snapshotter>". If a flat lease holds a snapshot, that has a second
# node, because its labels are not followed.
_SNAPSHOT = "snapshot/"
_FLAT_SNAPSHOT = "flat snapshot/"
_CONTENT = "content"
_IMAGE = "image"
_CONTAINER = "container"
_LEASE = "lease"
_SANDBOX = "sandbox"
_INGEST = "ingest"

# The roots of a node are remembered if they are not more than these. Others are found by a walk.
_FEW = 16

# The first version of the schema whose containerd frees images that have expired. Earlier ones keep them.
_VERSION_WITH_EXPIRED_IMAGES = 4


class UsedBy(NamedTuple):
    """What needs a snapshot: names of images, ids of containers, leases and sandboxes, references of ingests.

    ``labelled`` has the snapshots with the root label, as pairs of snapshotter and key: the snapshot itself, or others
    that need it. ``content`` has the digests of content with the root label. ``children`` are the keys of the
    snapshots that have this one as their parent, whether something needs them or not. ``is_kept`` is False if garbage
    collection frees the snapshot. All lists are sorted.
    """

    images: Tuple[str, ...]
    containers: Tuple[str, ...]
    leases: Tuple[str, ...]
    labelled: Tuple[Tuple[str, str], ...]
    content: Tuple[str, ...]
    sandboxes: Tuple[str, ...]
    ingests: Tuple[str, ...]
    children: Tuple[str, ...]
    is_kept: bool


class References:
    """What needs the snapshots of one namespace at the time ``now``, in nanoseconds since 1970-01-01 UTC.

    ``version`` is that of meta.db's schema. The work is proportional to the number of records and labels. An answer
    takes longer only if more than 16 roots lead to the snapshot.
    """

    def __init__(self, namespace: Namespace, now: int, version: int) -> None:
        self._snapshots = namespace.snapshots
        self._children: Dict[Tuple[str, str], List[str]] = {}
        self._graph = _Graph()
        self._add_snapshots()
        self._add_content(namespace, now)
        self._add_images(namespace, now, version)
        self._add_containers(namespace)
        self._add_leases(namespace, now)
        self._graph.close()

    def used_by(self, snapshotter: str, key: str) -> UsedBy:
        """Return what needs a snapshot.

        For a key without a snapshot, the answer names what needs it in vain: a container, for example.
        """
        found: Dict[str, List[str]] = {}
        labelled: List[Tuple[str, str]] = []
        for kind, name in self._graph.roots_of((_SNAPSHOT + snapshotter, key), (_FLAT_SNAPSHOT + snapshotter, key)):
            if kind.startswith(_SNAPSHOT):
                labelled.append((kind[len(_SNAPSHOT) :], name))
            else:
                found.setdefault(kind, []).append(name)
        kinds = (_IMAGE, _CONTAINER, _LEASE, _CONTENT, _SANDBOX, _INGEST)
        images, containers, leases, content, sandboxes, ingests = (tuple(sorted(found.get(kind, ()))) for kind in kinds)
        children = tuple(sorted(self._children.get((snapshotter, key), ())))
        return UsedBy(
            images,
            containers,
            leases,
            tuple(sorted(labelled)),
            content,
            sandboxes,
            ingests,
            children,
            bool(found or labelled),
        )

    def is_kept(self, snapshotter: str, key: str) -> bool:
        """Return whether garbage collection keeps a snapshot."""
        return self._graph.is_live((_SNAPSHOT + snapshotter, key)) or self._graph.is_live(
            (_FLAT_SNAPSHOT + snapshotter, key)
        )

    def keeps_content(self, digest: str) -> bool:
        """Return whether garbage collection keeps a blob."""
        return self._graph.is_live((_CONTENT, digest))

    def freed(self, snapshotter: str) -> Iterator[str]:
        """Yield the keys of the snapshots that the next garbage collection frees, in the order of the database."""
        return (key for key in self._snapshots.get(snapshotter, {}) if not self.is_kept(snapshotter, key))

    def _add_snapshots(self) -> None:
        graph = self._graph
        for snapshotter, entries in self._snapshots.items():
            for key, entry in entries.items():
                node = graph.node(_SNAPSHOT + snapshotter, key)
                if entry.parent:
                    graph.add(node, graph.node(_SNAPSHOT + snapshotter, entry.parent))
                    self._children.setdefault((snapshotter, entry.parent), []).append(key)
                if entry.labels:
                    _add_references(graph, node, entry.labels)
                    if _has_root_label(entry.labels):
                        graph.add_root(node)

    def _add_content(self, namespace: Namespace, now: int) -> None:
        graph = self._graph
        for digest, blob in namespace.blobs.items():
            if blob.labels:
                node = graph.node(_CONTENT, digest)
                _add_references(graph, node, blob.labels)
                if _has_root_label(blob.labels):
                    graph.add_root(node)
        for reference, ingest in namespace.ingests.items():
            node = graph.node(_INGEST, reference)
            if ingest.expected:
                graph.add(node, graph.node(_CONTENT, ingest.expected))
            expires = parse_rfc3339(ingest.expires)
            if expires is not None and now <= expires:
                graph.add_root(node)

    def _add_images(self, namespace: Namespace, now: int, version: int) -> None:
        graph = self._graph
        for name, image in namespace.images.items():
            node = graph.node(_IMAGE, name)
            graph.add(node, graph.node(_CONTENT, image.digest))
            _add_references(graph, node, image.labels)
            if version < _VERSION_WITH_EXPIRED_IMAGES or not _is_expired(image.labels, now):
                graph.add_root(node)

    def _add_containers(self, namespace: Namespace) -> None:
        graph = self._graph
        for name, container in namespace.containers.items():
            node = graph.node(_CONTAINER, name)
            graph.add_root(node)
            if container.snapshotter:
                graph.add(node, graph.node(_SNAPSHOT + container.snapshotter, container.snapshot_key))
            _add_references(graph, node, container.labels)
        for name, labels in namespace.sandboxes.items():
            node = graph.node(_SANDBOX, name)
            graph.add_root(node)
            _add_references(graph, node, labels)

    def _add_leases(self, namespace: Namespace, now: int) -> None:
        graph = self._graph
        for name, lease in namespace.leases.items():
            if _is_expired(lease.labels, now):
                continue
            node = graph.node(_LEASE, name)
            graph.add_root(node)
            for reference in lease.ingests:
                graph.add(node, graph.node(_INGEST, reference))
            if FLAT_LABEL in lease.labels:
                # A flat lease holds content and images without what their labels lead to, so no snapshot of them.
                for snapshotter, key in lease.snapshots:
                    graph.add(node, self._flat(snapshotter, key))
                continue
            for snapshotter, key in lease.snapshots:
                graph.add(node, graph.node(_SNAPSHOT + snapshotter, key))
            for digest in lease.content:
                graph.add(node, graph.node(_CONTENT, digest))
            for image in lease.images:
                graph.add(node, graph.node(_IMAGE, image))

    def _flat(self, snapshotter: str, key: str) -> int:
        """Return the node of a snapshot in a flat lease. Add it with its parents, unless it is there."""
        graph, kind = self._graph, _FLAT_SNAPSHOT + snapshotter
        entries = self._snapshots.get(snapshotter, {})
        is_new = not graph.has(kind, key)
        first = node = graph.node(kind, key)
        while is_new and key in entries and entries[key].parent:
            key = entries[key].parent
            is_new = not graph.has(kind, key)
            parent = graph.node(kind, key)
            graph.add(node, parent)
            node = parent
        return first


class _Graph:
    """Who refers to whom. Nodes are numbers; each stands for a kind and a name."""

    def __init__(self) -> None:
        self._numbers: Dict[str, Dict[str, int]] = {}
        self._identities: List[Tuple[str, str]] = []
        self._references: List[List[int]] = []
        self._roots: List[int] = []
        self._is_root = bytearray()
        self._is_live = bytearray()
        # The nodes that refer to a node, of those that a root leads to.
        self._referrers: List[List[int]] = []
        # For each node a node that the same roots lead to.
        self._same: List[int] = []
        # These roots, if they are few and known.
        self._few: List[Optional[FrozenSet[int]]] = []

    def has(self, kind: str, name: str) -> bool:
        return name in self._numbers.get(kind, ())

    def node(self, kind: str, name: str) -> int:
        """Return the number of a node, which is added if it is new."""
        numbers = self._numbers.setdefault(kind, {})
        number = numbers.get(name)
        if number is None:
            number = numbers[name] = len(self._identities)
            self._identities.append((kind, name))
            self._references.append([])
        return number

    def add(self, owner: int, target: int) -> None:
        """Add a reference from one node to another."""
        self._references[owner].append(target)

    def add_root(self, node: int) -> None:
        self._roots.append(node)

    def close(self) -> None:
        """Prepare the answers. Nodes and references cannot be added any more."""
        count = len(self._identities)
        self._is_root = bytearray(count)
        self._is_live = bytearray(count)
        self._referrers = [[] for _node in range(count)]
        waiting = []
        for root in self._roots:
            self._is_root[root] = 1
            if not self._is_live[root]:
                self._is_live[root] = 1
                waiting.append(root)
        while waiting:
            owner = waiting.pop()
            for target in self._references[owner]:
                self._referrers[target].append(owner)
                if not self._is_live[target]:
                    self._is_live[target] = 1
                    waiting.append(target)
        self._find_same(count)
        self._references = []

    def _find_same(self, count: int) -> None:
        """Find nodes that the same roots lead to, so that an answer does not walk through a whole chain.

        Each node comes after its referrers. Nodes of a circle, and nodes below one, have no such order. They are left
        out, and ``roots_of`` walks through them.
        """
        self._same = list(range(count))
        self._few = [None] * count
        missing = [len(referrers) for referrers in self._referrers]
        waiting = [node for node in range(count) if self._is_live[node] and not missing[node]]
        while waiting:
            node = waiting.pop()
            self._merge(node, {self._same[referrer] for referrer in self._referrers[node]})
            for target in self._references[node]:
                missing[target] -= 1
                if not missing[target]:
                    waiting.append(target)

    def _merge(self, node: int, referrers: Set[int]) -> None:
        """Find out which roots lead to a node, from those of its referrers."""
        if self._is_root[node]:
            self._few[node] = self._union(referrers, frozenset((node,)))
            return
        if len(referrers) > 1:
            few = self._few[node] = self._union(referrers, frozenset())
            # All roots of the node can be those of one referrer.
            referrers = {referrer for referrer in referrers if few is not None and self._few[referrer] == few}
        if referrers:
            self._same[node] = referrers.pop()

    def _union(self, nodes: Set[int], roots: FrozenSet[int]) -> Optional[FrozenSet[int]]:
        for node in nodes:
            few = self._few[node]
            if few is None or len(roots) + len(few) > 2 * _FEW:
                return None
            roots |= few
        return roots if len(roots) <= _FEW else None

    def is_live(self, identity: Tuple[str, str]) -> bool:
        """Return whether a root leads to a node."""
        number = self._numbers.get(identity[0], {}).get(identity[1])
        return number is not None and bool(self._is_live[number])

    def roots_of(self, *identities: Tuple[str, str]) -> List[Tuple[str, str]]:
        """Return the roots that lead to one of these nodes."""
        numbers = [self._numbers.get(kind, {}).get(name) for kind, name in identities]
        waiting = [self._same[number] for number in numbers if number is not None]
        seen = set(waiting)
        found: Set[int] = set()
        while waiting:
            node = waiting.pop()
            few = self._few[node]
            if few is not None:
                found |= few
                continue
            if self._is_root[node]:
                found.add(node)
            for referrer in self._referrers[node]:
                same = self._same[referrer]
                if same not in seen:
                    seen.add(same)
                    waiting.append(same)
        return [self._identities[node] for node in found]


def _add_references(graph: _Graph, owner: int, labels: Mapping[str, str]) -> None:
    """Add what the labels of an object refer to, as containerd reads them (gc.go, sendLabelRefs)."""
    for label, value in labels.items():
        if label.startswith(_REFERENCE):
            kind = _kind(label[len(_REFERENCE) :])
            if kind is not None:
                graph.add(owner, graph.node(kind, value))
        elif label.startswith(_BACK_REFERENCE):
            kind = _kind(label[len(_BACK_REFERENCE) :])
            if kind is not None:
                graph.add(graph.node(kind, value), owner)
        elif label.startswith(_CONDITIONAL):
            snapshotter = label[len(_CONDITIONAL) :].lstrip("./").partition("/")[0]
            graph.add(owner, graph.node(_SNAPSHOT + snapshotter, value.partition("|")[2]))


def _kind(reference: str) -> Optional[str]:
    """Return the kind of node that the rest of a label names, None if containerd ignores it.

    The rest is ``snapshot.<snapshotter>``, or another kind. A name can follow: ``content.config``, ``content/l.0``.
    """
    if reference.startswith("snapshot."):
        return _SNAPSHOT + reference[len("snapshot.") :].partition("/")[0]
    for kind in (_CONTENT, _IMAGE, _CONTAINER):
        if reference == kind or reference.startswith((f"{kind}.", f"{kind}/")):
            return kind
    return None


def _has_root_label(labels: Mapping[str, str]) -> bool:
    return any(label.startswith(ROOT_LABEL) for label in labels)


def _is_expired(labels: Mapping[str, str], now: int) -> bool:
    """Return whether the label of a lease or an image names a time before now. containerd ignores other texts."""
    expires = parse_rfc3339(labels.get(EXPIRE_LABEL, ""))
    return expires is not None and now > expires
