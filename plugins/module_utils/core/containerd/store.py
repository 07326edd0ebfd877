# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One namespace of containerd's store, as desired states work on it (``core/snapshots`` has the interface).

Records change through the API. Layers are directories of this host: their disks, mounts and exports are the work of
the layer store, while a lease keeps containerd's garbage collection away from the snapshot.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from typing import TYPE_CHECKING, BinaryIO, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import labels as label_rules
from ..errors import FailedPrecondition, InvalidArgument, NotFound, NotImplementedHere, SnapshotterError
from ..formats.digest import is_digest
from ..formats.imagenames import say_unknown
from ..formats.ntfsnames import path_key
from ..keys import is_unpack_key
from ..layers.base import SCRATCH
from ..lineage import Lineage
from ..lock import FileLock
from ..model import (
    ACTIVE,
    COMMITTED,
    MOUNT_TYPE,
    PARENT_LAYER_PATHS,
    Description,
    ImportResult,
    Info,
    Mount,
    ScratchInfo,
    TopLayer,
    with_article,
)
from .client import TASK_LEASE, Resource
from .dry_run import DryRunClient
from .manifests import Manifests
from .node import ContainerdNode
from .picture import Picture
from .references import References
from .snapshots import ROOT_LABEL, ContainerdSnapshots

if TYPE_CHECKING:
    from ..snapshots import Unpack


class _Layer(NamedTuple):
    """The layer directory of a snapshot and those of its parents, nearest first; native paths."""

    directory: str
    parents: List[str]


class ContainerdStore(ContainerdSnapshots):
    """The snapshots of one namespace. It implements ``snapshots.SnapshotStore``.

    ``picture`` is what was read of the store before. A removal refuses what an
    image, a container, a lease or the root label of another snapshot needs; the
    root label of the snapshot itself and the leases of tasks do not count. ``close`` waits until
    containerd has collected the layers of what was removed. Operations on layers need mounts of the type
    ``windows-layer``.
    """

    #: Labels that the store gives to each snapshot. Purging keeps them.
    managed_labels = (ROOT_LABEL,)

    def __init__(self, node: ContainerdNode, picture: Picture, namespace: str) -> None:
        client = node.connect(namespace)
        self._dry_run: Optional[DryRunClient] = DryRunClient(client.connection) if node.dry_run else None
        super().__init__(self._dry_run or client, node.snapshotter)
        self.node = node
        self.namespace = namespace
        self.root = node.root
        self.layers = node.layers
        self.dry_run = node.dry_run
        self._picture = picture
        self._manifests: Optional[Manifests] = None
        self._has_removed = False
        # The ids of snapshots by key and time of creation: the API does not tell them.
        self._ids: Dict[Tuple[str, str], int] = {}
        self._learn()

    @property
    def warnings(self) -> List[str]:
        """Sentences for the user about what went wrong without failing an operation."""
        return self.client.warnings

    @warnings.setter
    def warnings(self, warnings: List[str]) -> None:
        self.client.warnings = warnings

    # -- reading -----------------------------------------------------------------

    def describe(self, *names: str, scratch: bool = True) -> Dict[str, Description]:
        """See the interface. Each snapshot is read at a moment of its own."""
        found: Dict[str, Description] = {}
        for name in names:
            try:
                info = self.stat(name)
                mounts = [] if info.kind == COMMITTED else self.mounts(name)
            except NotFound:
                continue
            info = info._replace(id=self._find_id(info, mounts))
            if scratch:
                self._require_layers(info, mounts)
            found[name] = Description(info, mounts, self._scratch_of(info, mounts) if scratch else None)
        return found

    def scratch(self, key: str) -> Optional[ScratchInfo]:
        info = self.stat(key)
        return None if info.kind == COMMITTED else self._scratch_of(info, self.mounts(key))

    def children(self, name: str) -> List[str]:
        return [info.name for info in self.walk() if info.parent == name]

    def users(self, names: Sequence[str]) -> Dict[str, List[str]]:
        self._read()
        namespace = self._picture.metadata.namespaces.get(self.namespace)
        if namespace is None:
            return {}
        references = References(namespace, time.time_ns(), self._picture.metadata.version)
        parents = {key: entry.parent for key, entry in namespace.snapshots.get(self.snapshotter, {}).items()}
        lineage = Lineage(parents)
        found: Dict[str, List[str]] = {}
        for name in names:
            used = references.used_by(self.snapshotter, name)
            users = [f'image "{image}"' for image in used.images]
            users += [f'container "{container}"' for container in used.containers]
            users += [f'sandbox "{sandbox}"' for sandbox in used.sandboxes]
            users += [f'lease "{lease}"' for lease in used.leases if not lease.startswith(TASK_LEASE)]
            users += [f'content "{digest}" with the label {ROOT_LABEL}' for digest in used.content]
            users += [f'upload "{ref}"' for ref in used.ingests]
            users += [
                f'snapshot "{key}" of {snapshotter} with the label {ROOT_LABEL}'
                for snapshotter, key in used.labelled
                # A snapshot on top of this one is its child or a child of that: see ``children``.
                if snapshotter != self.snapshotter or name not in lineage.with_ancestors(key)
            ]
            if users:
                found[name] = users
        return found

    def top_layers(self, image: str) -> List[TopLayer]:
        namespace = self._picture.metadata.namespaces.get(self.namespace)
        record = namespace.images.get(image) if namespace else None
        if namespace is None or record is None:
            known = [name for name in namespace.images if not is_digest(name)] if namespace else []
            raise NotFound(
                f"in the namespace {self.namespace}, {say_unknown(image, known)}. Pull the image, or import it with "
                "the module image",
                image=image,
            )
        if self._manifests is None:
            self._manifests = Manifests(self.root, namespace.blobs)
        layers = self._manifests.top_layers(image, record.digest)
        entries = namespace.snapshots.get(self.snapshotter, {})
        unpacked = [layer for layer in layers if layer.name in entries]
        if not unpacked:
            raise NotFound(
                f'the image "{image}" is not unpacked in the snapshotter {self.snapshotter}: its top layer '
                f'"{layers[0].name}" does not exist. The module image with this name unpacks it, and so does the first '
                "container of the image",
                image=image,
            )
        return unpacked

    def default_rootfs_size(self) -> int:
        """See the interface. containerd has no such setting."""
        return 0

    # -- changing ----------------------------------------------------------------

    def commit(self, name: str, key: str, labels: Optional[Mapping[str, str]] = None, parent: str = "") -> Info:
        before = self.describe(key, scratch=False).get(key)
        info = super().commit(name, key, labels, parent)
        if before is not None:
            # A commit keeps the layer.
            self._ids[info.name, info.created] = before.info.id
            info = info._replace(id=before.info.id)
        return info

    def remove(self, key: str) -> None:
        self._refuse_needed([key])
        super().remove(key)
        self._has_removed = True

    def remove_all(self, keys: Sequence[str]) -> List[str]:
        self._refuse_needed(keys)
        removed = super().remove_all(keys)
        self._has_removed = self._has_removed or bool(removed)
        return removed

    def close(self) -> None:
        if self._has_removed:
            self._has_removed = False
            try:
                self.client.collect_garbage()
            except SnapshotterError as error:
                self.warnings.append(
                    f"the snapshots are removed, but containerd did not collect their layers yet: {error}; its next "
                    "garbage collection does that"
                )
        super().close()

    def grow_scratch(self, key: str, size: int) -> ScratchInfo:
        info, layer = self._open_layer(key)
        if info.kind != ACTIVE:
            raise FailedPrecondition(
                f'snapshot "{key}" is {with_article(info.kind)}; only the scratch disk of an active snapshot can grow',
                key=key,
            )
        scratch = self._scratch_of(info, self.mounts(key))
        if scratch is not None and self._dry_run and self._dry_run.is_planned(self.snapshotter, key):
            return scratch._replace(virtual_size=max(size, scratch.virtual_size))
        # The layer store has its own message for a disk that is mounted without a container.
        if scratch is not None and scratch.attached and not self.layers.mounted_at(layer.directory):
            raise FailedPrecondition(
                f'the scratch disk of "{key}" cannot grow while it is attached{self._say_users(key)}: end what uses it '
                "first. A pod gets a new disk when it is made again, so a larger C: of a running pod needs a new pod",
                key=key,
                holders=self.layers.holders(layer.directory),
            )
        try:
            grown = self.layers.grow_scratch(layer.directory, size)
        except NotFound:
            raise FailedPrecondition(
                f'snapshot "{key}" has no scratch disk: it was prepared without a parent or to unpack a layer', key=key
            ) from None
        return self._shown(grown)

    # -- mounts ------------------------------------------------------------------

    def mount(self, key: str, target: str) -> None:
        """See the interface. A view can be mounted if containerd gave it a disk, as containerd 2 does."""
        native = self.layers.native(target)
        info, layer = self._open_layer(key)
        if self._dry_run is not None:
            return
        if info.kind != ACTIVE and not self._has_disk(info, layer.directory):
            raise FailedPrecondition(
                f'the view "{key}" has no disk of its own, so it cannot be mounted without a container; prepare an '
                "active snapshot of the same parent, and mount that",
                key=key,
            )
        self.layers.mount(layer.directory, layer.parents, native, info.kind != ACTIVE)

    def unmount(self, target: str) -> None:
        self.layers.unmount(self.layers.native(target))

    def mounted_at(self, key: str) -> List[str]:
        directory = self._open_layer(key)[1].directory
        return [self.layers.display_path(target) for target in self.layers.mounted_at(directory)] if directory else []

    def is_mounted(self, key: str, target: str) -> bool:
        directory = self._open_layer(key)[1].directory
        return bool(directory) and self.layers.is_mounted(directory, self.layers.native(target))

    def _has_disk(self, view: Info, directory: str) -> bool:
        """Return True if the mount of a view is its own directory, not that of its parent, and has a disk."""
        is_own = os.path.basename(directory) == str(self._find_id(view, []))
        return is_own and os.path.lexists(os.path.join(directory, SCRATCH))

    # -- layer tars --------------------------------------------------------------

    def import_layer(
        self, name: str, parent: str, labels: Mapping[str, str], fill: Callable[[Unpack], ImportResult]
    ) -> ImportResult:
        raise NotImplementedHere(
            "containerd's store gets layers as parts of images, so that its garbage collection knows them: use the "
            "module image"
        )

    def export_layer(self, name: str, stream: BinaryIO) -> None:
        info = self.stat(name)
        if info.kind != COMMITTED:
            raise FailedPrecondition(
                f'snapshot "{name}" is {with_article(info.kind)}; only a committed snapshot is a layer', name=name
            )
        self._hold_snapshot(name)
        chain: List[str] = []
        above = info
        while len(chain) <= len(self._ids):
            directory = os.path.join(self._picture.paths.snapshots, str(self._find_id(above, [])))
            self._require(above.name, directory)
            chain.append(directory)
            if not above.parent:
                break
            above = self.stat(above.parent)
        self.layers.export_layer(chain[0], chain[1:], stream)

    def lock_export(self, path: str) -> Optional[FileLock]:
        """See the interface. containerd's root is not ours: the lock file is in the directory for temporary files."""
        digest = hashlib.sha256(path_key(os.path.realpath(path)).encode()).hexdigest()[:16]
        lock = FileLock(os.path.join(tempfile.gettempdir(), f"wcow-export-{digest}"))
        return lock if lock.acquire() else None

    # -- ids and directories -------------------------------------------------------

    def _read(self) -> None:
        """Read the store again."""
        self._picture = self.node.read()
        self._learn()

    def _learn(self) -> None:
        """Take over the ids of the picture."""
        for snapshot in self._picture.snapshots:
            if snapshot.namespace == self.namespace and snapshot.record is not None:
                self._ids[snapshot.key, snapshot.entry.created] = snapshot.record.id

    def _find_id(self, info: Info, mounts: Sequence[Mount]) -> int:
        """Return the id of a snapshot, 0 if it is not known: in a dry run, or if the snapshot was just removed."""
        if info.kind == ACTIVE and mounts and mounts[0].type == MOUNT_TYPE:
            # The source of an active snapshot is its own directory. That spares the databases.
            name = mounts[0].source.replace("\\", "/").rpartition("/")[2]
            return int(name) if name.isdecimal() else 0
        known = (info.name, info.created)
        if known not in self._ids and not (self._dry_run and self._dry_run.is_planned(self.snapshotter, info.name)):
            self._read()
        return self._ids.get(known, 0)

    def _open_layer(self, key: str) -> Tuple[Info, _Layer]:
        """Return the info and the layer of an active snapshot or view, and keep it for the time of the task.

        A snapshot that a dry run planned has ``""`` for the directory. Raises FailedPrecondition for a layer that is
        missing, or that is not a directory.
        """
        info = self.stat(key)
        mounts = [] if info.kind == COMMITTED else self.mounts(key)
        if not mounts:
            return info, _Layer("", [])
        mount = mounts[0]
        if mount.type != MOUNT_TYPE:
            raise FailedPrecondition(
                f"the snapshotter {self.snapshotter} mounts its layers as {mount.type}, and only {MOUNT_TYPE} is "
                "managed; to work with another snapshotter, set the option snapshotter",
                key=key,
            )
        self._hold_snapshot(key)
        layer = _Layer(self.layers.native(mount.source), [self.layers.native(path) for path in _parents(mount)])
        self._require(key, layer.directory)
        return info, layer

    def _hold_snapshot(self, key: str) -> None:
        """Add a snapshot to the lease of the task: containerd does not collect it, whatever becomes of its users."""
        self._hold()
        self.client.add_to_lease(self._lease, Resource(key, f"snapshots/{self.snapshotter}"))

    def _require_layers(self, info: Info, mounts: Sequence[Mount]) -> None:
        """Raise FailedPrecondition if the layer of a snapshot or of one of its parents does not exist."""
        if info.kind == COMMITTED and info.id:
            self._require(info.name, os.path.join(self._picture.paths.snapshots, str(info.id)))
        for mount in mounts:
            if mount.type == MOUNT_TYPE:
                for parent in _parents(mount):
                    self._require(info.name, self.layers.native(parent), "a parent layer")

    def _require(self, key: str, directory: str, what: str = "the layer") -> None:
        if not os.path.isdir(directory):
            path = self.layers.display_path(directory)
            raise FailedPrecondition(
                f'{what} of snapshot "{key}" is missing: {path} does not exist; store_check names the snapshot that '
                "has lost it. Remove that one and what is based on it, then create them or pull the image again",
                key=key,
                path=path,
            )

    def _scratch_of(self, info: Info, mounts: Sequence[Mount]) -> Optional[ScratchInfo]:
        """Return the scratch disk of an active snapshot; in a dry run, the disk that it would have."""
        if info.kind != ACTIVE:
            return None
        if not mounts:
            is_disk = bool(info.parent) and not is_unpack_key(info.name)
            return ScratchInfo("", label_rules.scratch_options(info.labels).size, 0, False, None) if is_disk else None
        if mounts[0].type != MOUNT_TYPE:
            return None
        directory = self.layers.native(mounts[0].source)
        self._require(info.name, directory)
        found = self.layers.scratch_info(directory)
        return found and self._shown(found)

    def _shown(self, found: ScratchInfo) -> ScratchInfo:
        return found._replace(path=self.layers.display_path(found.path))

    # -- what needs a snapshot -----------------------------------------------------

    def _refuse_needed(self, keys: Sequence[str]) -> None:
        for key, users in self.users(keys).items():
            raise FailedPrecondition(
                f'cannot remove "{key}": it is needed by {_listed(users)}. Remove what needs it; afterwards containerd '
                "collects the snapshot",
                key=key,
                users=users,
            )

    def _say_users(self, key: str) -> str:
        """Return what has the disk of a snapshot in use, as a part of a sentence: ``, by container "a"``."""
        containers = [user for user in self.users([key]).get(key, []) if user.startswith("container ")]
        return f", by {_listed(containers)}" if containers else ""


def _listed(users: Sequence[str]) -> str:
    return " and ".join(users) if len(users) < 3 else f"{', '.join(users[:2])} and {len(users) - 2} more"


def _parents(mount: Mount) -> List[str]:
    """Return the layer paths of the parents that a mount names, nearest first. Raises InvalidArgument."""
    for option in mount.options:
        if option.startswith(PARENT_LAYER_PATHS):
            try:
                parents = json.loads(option[len(PARENT_LAYER_PATHS) :]) or []
            except ValueError:
                parents = None
            if not isinstance(parents, list) or not all(isinstance(path, str) for path in parents):
                raise InvalidArgument(f"containerd returned a mount whose parents cannot be read: {option[:200]}")
            return parents
    return []
