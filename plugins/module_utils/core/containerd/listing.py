# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List the snapshots of containerd's store, and what needs each of them."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..errors import SnapshotterError
from ..filters.language import parse_all, snapshot_adaptor
from ..model import ACTIVE, COMMITTED, VIEW, Info, Mount, layer_mount
from ..outcome import Outcome
from .node import ContainerdNode
from .picture import Picture, Snapshot
from .references import References, UsedBy


def list_snapshots(
    node: ContainerdNode,
    names: Optional[Sequence[str]] = None,
    filters: Optional[Sequence[str]] = None,
    usage: bool = False,
    mounts: bool = False,
    scratch: bool = False,
) -> Outcome:
    """Return infos by key, by filters, or of all snapshots, as ``core.listing`` does for our own store.

    All namespaces are listed, unless the node names one. Each entry also has
    its ``namespace``, ``directory``, ``used_by`` (see ``references.UsedBy``) and
    ``collectable``: whether garbage collection removes it. The result also has
    ``containerd``: where the store is. A snapshot without a record is left out,
    as in containerd's own lists; a warning counts them.
    """
    picture = node.read()
    return Outcome(False, listing(node, picture, names, filters, usage=usage, mounts=mounts, scratch=scratch))


def listing(
    node: ContainerdNode,
    picture: Picture,
    names: Optional[Sequence[str]] = None,
    filters: Optional[Sequence[str]] = None,
    *,
    usage: bool = False,
    mounts: bool = False,
    scratch: bool = False,
    quiet: bool = False,
) -> Dict[str, Any]:
    """``list_snapshots`` of a store that was read. ``quiet``: without warnings, because findings say the same."""
    parsed = parse_all(filters or ())
    mistakes = parsed.mistakes()
    wanted = None if names is None else frozenset(names)
    reader = _Reader(node, picture, quiet)
    found = []
    for snapshot in picture.snapshots:
        if node.namespace not in ("", snapshot.namespace) or (wanted is not None and snapshot.key not in wanted):
            continue
        info = snapshot.info()
        if info is None:
            reader.unreadable += 1
        elif not filters or parsed.matches(snapshot_adaptor(info)):
            found.append(reader.entry(snapshot, info, usage=usage, mounts=mounts, scratch=scratch))
    if not quiet:
        node.warnings.extend(mistakes)
        if reader.unreadable:
            node.warnings.append(
                f"{reader.unreadable} of the snapshots cannot be listed, because a record is missing or of unknown "
                "kind: run store_check, which names them"
            )
    return {"snapshots": found, "exists": True, "mistakes": mistakes, "containerd": node.describe(picture)}


class _Reader:
    """Makes the entries of a list. ``unreadable`` counts the snapshots without one."""

    def __init__(self, node: ContainerdNode, picture: Picture, quiet: bool) -> None:
        self.unreadable = 0
        self._node = node
        self._picture = picture
        self._quiet = quiet
        now, version = time.time_ns(), picture.metadata.version
        self._references = {
            name: References(namespace, now, version)
            for name, namespace in picture.metadata.namespaces.items()
            if node.namespace in ("", name)
        }
        self._snapshots = {(snapshot.namespace, snapshot.key): snapshot for snapshot in picture.snapshots}

    def entry(self, snapshot: Snapshot, info: Info, *, usage: bool, mounts: bool, scratch: bool) -> Dict[str, Any]:
        used_by = self._references[snapshot.namespace].used_by(self._node.snapshotter, snapshot.key)
        directory = self._directory(info.id)
        entry: Dict[str, Any] = {
            **info._asdict(),
            "namespace": snapshot.namespace,
            "directory": self._node.layers.display_path(directory),
            "used_by": _shown(used_by),
            "collectable": not used_by.is_kept,
        }
        if usage:
            entry["usage"] = self._read(entry, lambda: self._usage(snapshot, directory))
        if mounts:
            entry["mounts"] = [mount._asdict() for mount in self._mounts(snapshot, info)]
        if scratch:
            entry["scratch"] = self._read(entry, lambda: self._scratch(info, directory))
        return entry

    def _directory(self, layer_id: int) -> str:
        return os.path.join(self._picture.paths.snapshots, str(layer_id))

    def _usage(self, snapshot: Snapshot, directory: str) -> Any:
        record = snapshot.record
        return record.usage if record is not None and record.usage else self._node.layers.disk_usage(directory)

    def _scratch(self, info: Info, directory: str) -> Any:
        found = self._node.layers.scratch_info(directory) if info.kind == ACTIVE else None
        return found._replace(path=self._node.layers.display_path(found.path)) if found else None

    def _mounts(self, snapshot: Snapshot, info: Info) -> List[Mount]:
        """Return the mount that containerd's Windows snapshotter returns. A view has a directory of its own there."""
        if info.kind == COMMITTED:
            return []
        parents: List[str] = []
        above: Optional[Snapshot] = self._snapshots.get((snapshot.namespace, info.parent))
        while above is not None and above.record is not None and len(parents) < len(self._snapshots):
            parents.append(self._node.layers.display_path(self._directory(above.record.id)))
            above = self._snapshots.get((above.namespace, above.entry.parent))
        source = self._node.layers.display_path(self._directory(info.id))
        return [layer_mount(source, parents, info.kind == VIEW)]

    def _read(self, entry: Dict[str, Any], look: Callable[[], Any]) -> Optional[Dict[str, Any]]:
        """Return what ``look`` finds, None and the ``error`` of the entry if that cannot be read."""
        try:
            found = look()
        except SnapshotterError as error:
            if not self._quiet and "error" not in entry:
                name = f'snapshot "{entry["name"]}" of the namespace {entry["namespace"]}'
                entry["error"] = {
                    "code": error.code,
                    "message": f"{name}: {error.message}",
                    "details": error.details,
                }
                self._node.warnings.append(entry["error"]["message"])
            return None
        return dict(found._asdict()) if found else None


def _shown(used_by: UsedBy) -> Dict[str, List[str]]:
    """Return what needs a snapshot, as replies have it: ``roots`` are the keys of snapshots with the root label."""
    return {
        "images": list(used_by.images),
        "containers": list(used_by.containers),
        "sandboxes": list(used_by.sandboxes),
        "leases": list(used_by.leases),
        "roots": [key for _snapshotter, key in used_by.labelled],
        "content": list(used_by.content),
        "ingests": list(used_by.ingests),
        "children": list(used_by.children),
    }
