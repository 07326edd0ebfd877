# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one check sees of a store, shared by all subjects."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from ..errors import SnapshotterError
from ..lock import FileLock
from ..model import Info
from ..proxy.served import find_of_store
from ..store import METADATA_FILE
from .findings import CODES, Case, Finding, NotRepaired

if TYPE_CHECKING:
    from ..store import OwnSnapshots


class StoreState:
    """The store, its records and the options of the check.

    ``quick``: do not visit all files of all layers. ``minimum_free``: the
    bytes that should be free on the volume. ``at_restart``: schedule what
    cannot be destroyed now for the next start of the node.
    ``destroy_unknown``: repair ``unknown_directory``. ``exists`` is false
    where there is no store. ``served`` is the proxy snapshotter of the store.
    Raises as ``find_of_store``.
    """

    def __init__(
        self,
        snapshots: OwnSnapshots,
        *,
        quick: bool = False,
        minimum_free: int = 0,
        at_restart: bool = False,
        destroy_unknown: bool = False,
    ) -> None:
        # First, because the task may have to begin again with another payload.
        self.served = find_of_store(snapshots.root, snapshots.layers.native, snapshots.warnings)
        self.snapshots = snapshots
        self.root = snapshots.root
        self.directories = snapshots.store.directories
        self.layers = snapshots.layers
        self.metadata_path = os.path.join(snapshots.root, METADATA_FILE)
        self.records = snapshots.store.records()
        self.quick = quick
        self.minimum_free = minimum_free
        self.at_restart = at_restart
        self.destroy_unknown = destroy_unknown
        self.exists = os.path.lexists(self.metadata_path)
        self._has_layer: Dict[int, bool] = {}

    def __enter__(self) -> StoreState:
        return self

    def __exit__(self, *error: object) -> None:
        self.records.close()

    def report(
        self,
        code: str,
        message: str,
        repair: Optional[Callable[[], str]] = None,
        plan: str = "",
        *,
        info: Optional[Info] = None,
        layer_id: Optional[int] = None,
        path: str = "",
        reclaimable: int = 0,
    ) -> Case:
        """A finding with its repair, as ``Case`` describes both. ``path`` is native; ``reclaimable`` is in bytes."""
        severity, remedy = CODES[code]
        finding = Finding(
            code=code,
            severity=severity,
            snapshot=info.name if info else "",
            id=info.id if info else layer_id,
            path=self.display(path) if path else "",
            message=message,
            remedy=remedy,
            reclaimable=reclaimable,
            repairable=repair is not None,
            repaired=False,
            action="",
        )
        return Case(finding, repair, plan)

    def display(self, path: str) -> str:
        """A native path as messages spell it."""
        return self.layers.display_path(path)

    def has_layer(self, layer_id: int) -> bool:
        """Whether a layer is on disk, under its own name or as ``rm-<id>``."""
        if layer_id not in self._has_layer:
            directory, removal = self.directories.directory(layer_id), self.directories.removal_directory(layer_id)
            self._has_layer[layer_id] = os.path.isdir(directory) or os.path.lexists(removal)
        return self._has_layer[layer_id]

    def parent_directories(self, info: Info) -> List[str]:
        """The layer directories of all parents, nearest first. The chain of parents must be complete."""
        parents = self.records.lineage.with_ancestors(info.parent)
        return [self.directories.directory(self.records.infos[parent].id) for parent in parents]

    def is_locked(self, layer_id: int) -> bool:
        """Whether a running process works on the files of a layer. Creates no lock file."""
        if not os.path.exists(self.directories.lock_path(layer_id)):
            return False
        try:
            lock = self.directories.lock(layer_id)
        except SnapshotterError:
            # No process works on a store that is read-only.
            return False
        if lock is None:
            return True
        lock.release()
        return False

    def lock(self, layer_id: int) -> FileLock:
        """Take the lock of a layer. Raises NotRepaired if another process has it."""
        lock = self.directories.lock(layer_id)
        if lock is None:
            raise NotRepaired("another process works on it; run the task again when that process has ended")
        return lock

    def size(self, path: str) -> int:
        """The bytes that a directory occupies, 0 if it cannot be read."""
        try:
            return self.layers.disk_usage(path).size
        except (OSError, SnapshotterError):
            return 0
