# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of the store itself: it exists, protected and with settings, or it is gone.

Tasks inherit the settings of the store: ``rootfs_size`` is the size in bytes
of scratch disks that are prepared without a size of their own.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Union

from ..errors import Damaged, FailedPrecondition, InvalidArgument, NotFound, SnapshotterError, Unavailable
from ..layers import protection
from ..lineage import Lineage
from ..outcome import Outcome
from ..proxy.served import find_of_store
from ..sizes import parse_size
from ..store import METADATA_FILE, list_some
from .result import ABSENT, PRESENT

if TYPE_CHECKING:
    from ..store import OwnSnapshots


def ensure_store(
    snapshots: OwnSnapshots,
    state: str = PRESENT,
    rootfs_size: Union[int, str, None] = None,
    force: bool = False,
    asks_service: bool = True,
) -> Outcome:
    """Make the store at the root ``present`` or ``absent``.

    ``present`` creates it or adopts what is there, gives root, directories and
    metadata to the administrators alone, and keeps ``rootfs_size`` (0 deletes
    the setting, None leaves it). Layers without metadata are adopted only with ``force``: they
    stay where they are, and their ids are never used again.

    ``absent`` removes a store without snapshots; with ``force`` also one with
    snapshots, mounts first, then leaf by leaf, even if its metadata is
    damaged. What does not belong to the store stays, with the root, and a
    warning says so.

    The result of ``present`` has ``proxy_snapshotter``: how the service does
    that serves the store (``proxy.served``), None without one, and if
    ``asks_service`` is False.

    Raises InvalidArgument for options that exclude each other,
    FailedPrecondition for a root that is something else or belongs to
    containerd, for links in place of its directories, for layers without
    metadata and for snapshots that prevent a removal, for the removal of a store
    that a service serves to containerd, and what removing raises.
    """
    if state not in (PRESENT, ABSENT):
        raise InvalidArgument(f"state {state!r} is not one of {PRESENT}, {ABSENT}")
    if state == ABSENT and rootfs_size is not None:
        raise InvalidArgument(f"rootfs_size goes with state={PRESENT}, not with state={ABSENT}")
    # Before anything else: with force, metadata that cannot be read would not be a reason to stop.
    snapshots.store.refuse_containerd()
    task = _Task(snapshots, damage_matters=state == PRESENT or not force)
    served = find_of_store(snapshots.root, snapshots.layers.native, snapshots.warnings) if asks_service else None
    if state == ABSENT:
        if served is not None:
            _refuse_served(snapshots)
        return task.make_absent(force)
    done = task.make_present(rootfs_size, force)
    if served is not None and served.problem:
        # The store itself is as the task states.
        snapshots.warnings.append(served.sentence())
    done.result["proxy_snapshotter"] = served and served._asdict()
    return done


def _refuse_served(snapshots: OwnSnapshots) -> None:
    """Raise FailedPrecondition: a service serves the store. In a dry run, a task before this one may remove it."""
    message = (
        f"a service serves the store in {snapshots.store.display_root} to containerd; remove it first with the module "
        "proxy_snapshotter and state=absent, which makes sure that containerd uses nothing of the store"
    )
    if not snapshots.store.dry_run:
        raise FailedPrecondition(message, root=snapshots.store.display_root)
    snapshots.warnings.append(message)


class _Task:
    """One task: the state before it, and what it did."""

    def __init__(self, snapshots: OwnSnapshots, damage_matters: bool) -> None:
        self._snapshots = snapshots
        store = self._store = snapshots.store
        self._shown = store.display_root
        self._actions: List[str] = []
        self._damaged = False
        self._existed = store.has_metadata()
        # Whether this task has passed the point of no return of a removal.
        self._ends = False
        try:
            self._before = self._describe()
        except (SnapshotterError, OSError) as error:
            if self._is_ended():
                # Since a moment ago.
                self._before = None
                return
            if damage_matters or not isinstance(error, Damaged):
                raise
            # The content cannot be read, but all of it is to go.
            self._damaged = True
            self._before = {"root": self._shown, "layers": store.layers.name, "snapshots": None}

    # -- present -------------------------------------------------------------

    def make_present(self, rootfs_size: Union[int, str, None], force: bool) -> Outcome:
        size = None
        if rootfs_size is not None:
            size = 0 if str(rootfs_size).strip() == "0" else parse_size(rootfs_size, "rootfs_size")
        unprotected = self._store.find_unprotected()
        creates = not self._store.has_metadata() or self._store.is_retired()
        adopts = creates and self._refuse_foreign(force)
        self._store.protect()
        if creates:
            self._create(adopts)
        if unprotected:
            self._actions.append("protect")
        if size is not None and size != ((self._before or {}).get("rootfs_size") or 0):
            self._store.set_rootfs_size(size)
            self._actions.append("configure")
        if self._store.dry_run:
            return self._outcome(self._planned(size))
        return self._outcome(self._describe() if self._actions else self._before)

    def _refuse_foreign(self, force: bool) -> bool:
        """Return True if ``force`` adopts layers without metadata; raise for anything else in the root."""
        self._store.refuse_foreign()
        layers = self._store.directories.layer_ids()
        if layers and not force:
            raise FailedPrecondition(
                f"{self._shown} has {len(layers)} layers but no {METADATA_FILE}; restore that file from a backup, or "
                "set force=true to start with an empty list of snapshots (the layers stay on disk, unused)",
                root=self._shown,
            )
        return bool(layers)

    def _create(self, adopts: bool) -> None:
        self._actions.append("create")
        if self._store.dry_run and not adopts:
            return
        if self._store.is_retired():
            with self._store.ending():
                if self._store.is_retired():
                    self._store.delete_metadata()
        self._store.create(adopt=adopts)

    def _planned(self, size: Optional[int]) -> Dict[str, Any]:
        planned = dict(
            self._before
            or {"root": self._shown, "layers": self._store.layers.name, "snapshots": 0, "rootfs_size": None}
        )
        planned["protected"] = True
        if size is not None:
            planned["rootfs_size"] = size or None
        return planned

    # -- absent --------------------------------------------------------------

    def make_absent(self, force: bool) -> Outcome:
        try:
            return self._make_absent(force)
        except (OSError, SnapshotterError) as error:
            if isinstance(error, Unavailable) or self._ends or not self._is_ended():
                raise
            raise Unavailable(f"another task removes the store in {self._shown}; run the task again") from error

    def _is_ended(self) -> bool:
        """Return True if there was a store, and another process has removed it or begun to."""
        if not self._existed:
            return False
        # The file can disappear while it is read.
        return not self._store.has_metadata() or self._is_retired() or not self._store.has_metadata()

    def _make_absent(self, force: bool) -> Outcome:
        if not os.path.lexists(self._store.root):
            return self._outcome(None)
        entries = self._store.entries()
        if any(self._store.is_own_entry(name) for name in entries):
            if force:
                self._store.discard_links()
            self._store.refuse_unsafe()
        if self._is_usable():
            self._remove_snapshots(force)
        elif entries and not any(self._store.is_own_entry(name) for name in entries):
            self._store.warnings.append(f"{self._shown} is not a store; it is left as it is")
            return self._outcome(self._before)
        self._actions.append("remove")
        if self._store.dry_run:
            self._find_layers(force)
            return self._outcome(None)
        if self._is_usable():
            self._store.destroy_leftovers()
            self._find_layers(force)
            self._store.retire()
        self._ends = True
        with self._store.ending():
            if self._is_usable():
                raise Unavailable(f"another task has just created a store in {self._shown}; run the task again")
            # Otherwise another task has deleted it meanwhile, and a third one may create it.
            if self._store.has_metadata() or not self._existed:
                self._destroy_layers(force)
                self._store.delete_directories()
                # Last, because a process that finds none could create a store while this one is deleted.
                self._store.delete_metadata()
        left = self._store.delete_root()
        if left:
            self._store.warnings.append(f"{self._shown} stays: it has {list_some(left)}, which is not the store's")
        return self._outcome(None)

    def _remove_snapshots(self, force: bool) -> None:
        infos = self._snapshots.walk()
        if infos and not force:
            raise FailedPrecondition(
                f"the store in {self._shown} has {len(infos)} snapshots ({list_some([info.name for info in infos])}); "
                "remove them first, or set force=true to remove everything",
                root=self._shown,
                snapshots=len(infos),
            )
        lineage = Lineage({info.name: info.parent for info in infos})
        names = lineage.leaves_first()
        for name in names:
            # Another task can remove the snapshot meanwhile.
            with contextlib.suppress(NotFound):
                for target in self._snapshots.mounted_at(name):
                    self._snapshots.unmount(target)
        if not lineage.is_cyclic():
            self._actions += [f"remove {name}" for name in self._snapshots.remove_all(names)]
            return
        # Each snapshot of a cycle has a child. Such records can only go with the file.
        self._damaged = True
        for name in names:
            try:
                self._snapshots.remove(name)
            except (NotFound, FailedPrecondition):
                continue
            self._actions.append(f"remove {name}")

    def _find_layers(self, force: bool) -> List[str]:
        """Return the layers that no record knows. Raises FailedPrecondition if there are any, and no ``force``."""
        directories = self._store.directories
        directories.refuse_link(directories.snapshots)
        left = [name for name in self._store.entries(directories.snapshots) if not directories.is_marker(name)]
        if left and not force:
            raise FailedPrecondition(
                f"{self._shown} has {list_some(left)} in its snapshots; no record knows these entries, or they could "
                "not be destroyed. The module store_check explains each of them; force=true destroys them",
                root=self._shown,
                found=left,
            )
        return [os.path.join(directories.snapshots, name) for name in left]

    def _destroy_layers(self, force: bool) -> None:
        paths = self._find_layers(force)
        # All mounts end before the first layer is destroyed, because each needs its parents.
        for path in paths:
            for target in self._store.layers.mounted_at(path):
                self._store.layers.unmount(target)
        for path in paths:
            self._store.layers.destroy(path)

    # -- both ----------------------------------------------------------------

    def _is_usable(self) -> bool:
        """Return True if there is metadata that can be read and that is not retired."""
        try:
            return self._store.has_metadata() and not self._damaged and not self._store.is_retired()
        except SnapshotterError:
            # Another task can delete the file while it is read.
            if self._store.has_metadata():
                raise
            return False

    def _is_retired(self) -> bool:
        """Return True if the metadata can be read and is retired."""
        try:
            return self._store.is_retired()
        except SnapshotterError:
            return False

    def _describe(self) -> Optional[Dict[str, Any]]:
        """Return the store as the module returns it; None if there is none."""
        if not self._store.has_metadata() or self._store.is_retired():
            return None
        count, size = self._store.read_summary()
        return {
            "root": self._shown,
            "layers": self._store.layers.name,
            "snapshots": count,
            "rootfs_size": size or None,
            "protected": protection.is_protected(self._store.root),
        }

    def _outcome(self, after: Optional[Dict[str, Any]]) -> Outcome:
        result = {"store": after, "actions": self._actions, "diff": {"before": self._before, "after": after}}
        return Outcome(bool(self._actions), result)
