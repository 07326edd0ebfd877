# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store as a whole: that it exists, protected and with settings, or that it is gone.

Settings are what tasks inherit from the store: ``rootfs_size``, the size in
bytes of the scratch disks that are prepared without one of their own.
"""

from __future__ import annotations

import graphlib
import os
from typing import Any, Dict, List, Optional, Union

from .check import check
from .ensure import ABSENT, Outcome
from .errors import FailedPrecondition, InvalidArgument, Unavailable
from .failpoint import failpoint
from .layers import protection
from .metastore import ROOTFS_SIZE, is_retired
from .model import Info
from .sizes import parse_size
from .snapshotter import METADATA_FILE, Snapshotter

PRESENT = "present"


def ensure_store(
    snapshotter: Snapshotter,
    state: str = PRESENT,
    rootfs_size: Union[int, str, None] = None,
    force: bool = False,
) -> Outcome:
    """The store at the root is ``present`` or ``absent``.

    ``present`` makes it or adopts what is there, lets only administrators in
    and keeps ``rootfs_size`` (0 forgets it, None leaves it). Layers without
    metadata are adopted only with ``force``: they stay where they are, and no
    number of theirs is given out again.

    ``absent`` removes a store without snapshots; with ``force`` everything in
    it, mounts first, then leaf by leaf, even if its metadata is damaged. What
    is not the store's stays, with the root, and a warning says so.

    Raises InvalidArgument for options that do not go together,
    FailedPrecondition for a root that is something else, for layers without
    metadata and for snapshots that are in the way, and what removing raises.
    """
    if state not in (PRESENT, ABSENT):
        raise InvalidArgument(f"state {state!r} is none of {PRESENT}, {ABSENT}")
    if state == ABSENT and rootfs_size is not None:
        raise InvalidArgument(f"rootfs_size goes with state={PRESENT}, not with state={ABSENT}")
    store = _Store(snapshotter, damage_matters=state == PRESENT or not force)
    return store.present(rootfs_size, force) if state == PRESENT else store.absent(force)


class _Store:
    """One task: what was, and what it did."""

    def __init__(self, snapshotter: Snapshotter, damage_matters: bool) -> None:
        self._snapshotter = snapshotter
        self._directories = snapshotter.directories
        self._layers = snapshotter.layers
        self._root = snapshotter.root
        self._shown = snapshotter.layers.presented(snapshotter.root)
        self._metadata = os.path.join(self._root, METADATA_FILE)
        self._actions: List[str] = []
        self._damaged = False
        try:
            self._before = self._describe()
        except FailedPrecondition:
            if damage_matters:
                raise
            # Everything is to go, and what is in it cannot be read.
            self._damaged = True
            self._before = {"root": self._shown, "layers": self._layers.name, "snapshots": None}

    # -- present -------------------------------------------------------------

    def present(self, rootfs_size: Union[int, str, None], force: bool) -> Outcome:
        size = None
        if rootfs_size is not None:
            size = 0 if str(rootfs_size).strip() == "0" else parse_size(rootfs_size, "rootfs_size")
        strays: List[int] = []
        if not os.path.lexists(self._metadata) or self._is_retired():
            strays = self._refuse_foreign(force)
            self._create(strays)
        if os.path.lexists(self._root) and not protection.is_protected(self._root):
            self._actions.append("protect")
            if not self._snapshotter.rehearsing:
                failpoint("store.protect")
                protection.protect(self._root)
                failpoint("store.protected")
        if size is not None:
            self._set_rootfs_size(size)
        after = self._describe()
        if self._snapshotter.rehearsing:
            after = self._planned(after, size)
        return self._outcome(after)

    def _refuse_foreign(self, force: bool) -> List[int]:
        """The numbers of layers without metadata, if ``force`` adopts them; raises for anything else in the root."""
        others = [name for name in _names(self._root) if not self._is_own(name)]
        if self._snapshotter.is_containerds():
            raise FailedPrecondition(
                f"{self._shown} is the root of a snapshotter of containerd; name another root for this store",
                root=self._shown,
            )
        if others:
            raise FailedPrecondition(
                f"{self._shown} is no store, and not empty: it has {_listed(others)}; name another root, or empty it",
                root=self._shown,
                found=others,
            )
        layers = self._directories.layers()
        if layers and not force:
            raise FailedPrecondition(
                f"{self._shown} has {len(layers)} layers but no {METADATA_FILE}; restore that file from a backup, or "
                "set force=true to begin with an empty list of snapshots (the layers stay on disk, unused)",
                root=self._shown,
            )
        return layers

    def _create(self, strays: List[int]) -> None:
        self._actions.append("create")
        if self._snapshotter.rehearsing and not strays:
            return
        if self._is_retired():
            self._delete_metadata()
        metadata = self._snapshotter.create(adopt=bool(strays))
        if strays:
            metadata.burn(max(strays))

    def _set_rootfs_size(self, size: int) -> None:
        wanted = {ROOTFS_SIZE: str(size)} if size else {}
        with self._snapshotter.metadata().write() as tx:
            if tx.settings() != wanted:
                tx.set_settings(wanted)
                self._actions.append("configure")

    def _planned(self, after: Optional[Dict[str, Any]], size: Optional[int]) -> Dict[str, Any]:
        planned = dict(after or {"root": self._shown, "layers": self._layers.name, "snapshots": 0, "rootfs_size": None})
        planned["protected"] = True
        if size is not None:
            planned["rootfs_size"] = size or None
        return planned

    # -- absent --------------------------------------------------------------

    def absent(self, force: bool) -> Outcome:
        if not os.path.lexists(self._root):
            return self._outcome(None)
        if self._is_in_use():
            self._remove_snapshots(force)
        elif _names(self._root) and not any(self._is_own(name) for name in _names(self._root)):
            self._snapshotter.warnings.append(f"{self._shown} is not a store; it is left as it is")
            return self._outcome(self._before)
        self._destroy_layers(force)
        self._actions.append("remove")
        if self._snapshotter.rehearsing:
            return self._outcome(None)
        self._retire()
        self._delete_metadata()
        self._delete_directories()
        return self._outcome(None)

    def _remove_snapshots(self, force: bool) -> None:
        infos = self._snapshotter.walk()
        if infos and not force:
            raise FailedPrecondition(
                f"the store in {self._shown} has {len(infos)} snapshots ({_listed([info.name for info in infos])}); "
                "remove them first, or set force=true to remove everything",
                root=self._shown,
                snapshots=len(infos),
            )
        circle = _has_circle(infos)
        for info in _leaves_first(infos):
            for target in self._snapshotter.mounted_at(info.name):
                self._snapshotter.unmount(target)
            try:
                self._snapshotter.remove(info.name)
            except FailedPrecondition:
                if not circle:
                    raise
                # Each has a child; such records can only go with the file.
                self._damaged = True
                continue
            self._actions.append(f"remove {info.name}")

    def _destroy_layers(self, force: bool) -> None:
        """Destroy what the records do not know. Raises if anything of it stays."""
        if not self._snapshotter.rehearsing and self._is_in_use():
            check(self._snapshotter, repair=True, quick=True, only=("leftover_removal", "orphan_directory"))
        snapshots = self._directories.snapshots
        self._directories.refuse_link()
        left = [name for name in _names(snapshots) if not self._directories.is_mark(name)]
        if left and not force:
            raise FailedPrecondition(
                f"{self._shown} has {_listed(left)} in its snapshots, which no record knows or which could not be "
                "destroyed; the module store_check says what it is; force=true destroys it",
                root=self._shown,
                found=left,
            )
        if not self._snapshotter.rehearsing:
            for name in left:
                self._layers.destroy(os.path.join(snapshots, name))

    def _retire(self) -> None:
        """Make sure that nobody makes a snapshot from here on."""
        if not self._is_in_use():
            return
        with self._snapshotter.metadata().write() as tx:
            if tx.census():
                raise Unavailable(
                    f"another task has just made a snapshot in {self._shown}; run the task again", root=self._shown
                )
            tx.retire()

    def _delete_metadata(self) -> None:
        self._snapshotter.forget_metadata()
        for name in _names(self._root):
            if name.startswith(METADATA_FILE):
                self._delete(os.path.join(self._root, name))

    def _delete(self, path: str) -> None:
        failpoint("store.delete")
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable(
                f"cannot delete {self._layers.presented(path)}: {error.strerror}; another process may have it open: "
                "run the task again"
            ) from error

    def _delete_directories(self) -> None:
        for directory in (self._directories.locks, self._directories.incoming, self._directories.snapshots):
            failpoint("store.discard")
            self._layers.discard(directory)
        left = _names(self._root)
        if left:
            self._snapshotter.warnings.append(f"{self._shown} stays: it has {_listed(left)}, which is not the store's")
        else:
            failpoint("store.rmdir")
            os.rmdir(self._root)
            failpoint("store.gone")

    # -- both ----------------------------------------------------------------

    def _is_own(self, name: str) -> bool:
        own = (self._directories.snapshots, self._directories.locks, self._directories.incoming)
        return name.startswith(METADATA_FILE) or os.path.join(self._root, name) in own

    def _is_in_use(self) -> bool:
        """Whether there are metadata that can be read and that nobody has retired."""
        return os.path.lexists(self._metadata) and not self._damaged and not self._is_retired()

    def _is_retired(self) -> bool:
        """Whether a removal of this store has passed the point of no return."""
        return os.path.lexists(self._metadata) and is_retired(self._metadata)

    def _describe(self) -> Optional[Dict[str, Any]]:
        """The store as the module returns it; None if there is none."""
        if not os.path.lexists(self._metadata) or self._is_retired():
            return None
        with self._snapshotter.metadata().read() as tx:
            count, settings = len(tx.id_map()), tx.settings()
        size = settings.get(ROOTFS_SIZE)
        return {
            "root": self._shown,
            "layers": self._layers.name,
            "snapshots": count,
            "rootfs_size": int(size) if size else None,
            "protected": protection.is_protected(self._root),
        }

    def _outcome(self, after: Optional[Dict[str, Any]]) -> Outcome:
        result = {"store": after, "actions": self._actions, "diff": {"before": self._before, "after": after}}
        return Outcome(bool(self._actions), result)


def _names(directory: str) -> List[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FailedPrecondition(f"cannot read {directory}: {error.strerror}") from error


def _listed(names: List[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _has_circle(infos: List[Info]) -> bool:
    """Whether some snapshot is its own ancestor."""
    try:
        graphlib.TopologicalSorter({info.name: [info.parent] for info in infos}).prepare()
    except graphlib.CycleError:
        return True
    return False


def _leaves_first(infos: List[Info]) -> List[Info]:
    """Snapshots in an order in which each comes before its parent."""
    depth: Dict[str, int] = {}
    parents = {info.name: info.parent for info in infos}
    for info in infos:
        chain: List[str] = []
        name = info.name
        while name and name not in depth and name not in chain:
            chain.append(name)
            name = parents.get(name, "")
        level = depth.get(name, 0)
        for member in reversed(chain):
            level += 1
            depth[member] = level
    return sorted(infos, key=lambda info: (-depth[info.name], info.name))
