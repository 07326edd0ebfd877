# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's API in a dry run: changes of snapshots happen in memory, everything else is asked.

A later call of the same task sees the changes of the earlier ones. Nothing is written, and no lease is made.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence

from .. import labels as label_rules
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ..model import ACTIVE, COMMITTED, VIEW, Info, Mount, now
from .client import Client, Lease, Resource
from .connection import Connection


class DryRunClient(Client):
    """A client whose snapshots change only in memory. Each operation raises as that of ``Client``.

    Images, content and namespaces must not be changed through it.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        # None is a snapshot that was removed. The key is the snapshotter and the key of the snapshot.
        self._planned: Dict[str, Dict[str, Optional[Info]]] = {}

    def is_planned(self, snapshotter: str, key: str) -> bool:
        """Return True for a snapshot that exists only in this dry run."""
        return self._planned.get(snapshotter, {}).get(key) is not None

    # -- leases ------------------------------------------------------------------

    def create_lease(self, lease: str, labels: Optional[Mapping[str, str]] = None, seconds: int = 0) -> Lease:
        return Lease(lease, now(), dict(labels or {}))

    def delete_lease(self, lease: str, sync: bool = False) -> None:
        """Do nothing: there is no such lease."""

    def add_to_lease(self, lease: str, resource: Resource) -> None:
        """Do nothing: there is no such lease."""

    # -- snapshots ---------------------------------------------------------------

    def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None
    ) -> List[Mount]:
        return self._plan(snapshotter, ACTIVE, key, parent, labels)

    def view(
        self, snapshotter: str, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None
    ) -> List[Mount]:
        return self._plan(snapshotter, VIEW, key, parent, labels)

    def mounts(self, snapshotter: str, key: str) -> List[Mount]:
        """See ``Client``. A planned snapshot has no directory, and no mounts."""
        self.stat(snapshotter, key)
        return [] if self.is_planned(snapshotter, key) else super().mounts(snapshotter, key)

    def commit(self, snapshotter: str, name: str, key: str, labels: Optional[Mapping[str, str]] = None) -> None:
        info = self.stat(snapshotter, key)
        if info.kind != ACTIVE:
            raise FailedPrecondition(f'snapshot "{key}" is not active: failed precondition', key=key)
        if self._find(snapshotter, name) is not None:
            raise AlreadyExists(f'snapshot "{name}": already exists', name=name)
        self._plans(snapshotter)[key] = None
        self._put(snapshotter, COMMITTED, name, info.parent, labels)

    def remove_snapshot(self, snapshotter: str, key: str) -> None:
        self.stat(snapshotter, key)
        if any(info.parent == key for info in self.snapshots(snapshotter)):
            raise FailedPrecondition("cannot remove snapshot with child: failed precondition", key=key)
        self._plans(snapshotter)[key] = None

    def stat(self, snapshotter: str, key: str) -> Info:
        info = self._find(snapshotter, key)
        if info is None:
            raise NotFound(f'snapshot "{key}": not found', key=key)
        return info

    def update_snapshot(
        self, snapshotter: str, name: str, labels: Mapping[str, str], fieldpaths: Sequence[str] = ()
    ) -> Info:
        info = self.stat(snapshotter, name)
        wanted = label_rules.select(name, info.labels, labels, fieldpaths)
        changed = info._replace(labels={key: value for key, value in wanted.items() if value}, updated=now())
        self._plans(snapshotter)[name] = changed
        return changed

    def snapshots(self, snapshotter: str, *filters: str) -> List[Info]:
        """See ``Client``. All snapshots are returned: filters cannot be asked about planned ones."""
        found = {info.name: info for info in super().snapshots(snapshotter)}
        for key, info in self._plans(snapshotter).items():
            found.pop(key, None)
            if info is not None:
                found[key] = info
        return list(found.values())

    def collect_garbage(self) -> None:
        """Do nothing: nothing was removed."""

    # -- the plan ----------------------------------------------------------------

    def _plans(self, snapshotter: str) -> Dict[str, Optional[Info]]:
        return self._planned.setdefault(snapshotter, {})

    def _find(self, snapshotter: str, key: str) -> Optional[Info]:
        plans = self._plans(snapshotter)
        if key in plans:
            return plans[key]
        try:
            return super().stat(snapshotter, key)
        except NotFound:
            return None

    def _plan(
        self, snapshotter: str, kind: str, key: str, parent: str, labels: Optional[Mapping[str, str]]
    ) -> List[Mount]:
        if self._find(snapshotter, key) is not None:
            raise AlreadyExists(f'snapshot "{key}": already exists', key=key)
        if parent:
            above = self._find(snapshotter, parent)
            if above is None:
                raise NotFound(f'parent snapshot "{parent}": not found', parent=parent)
            if above.kind != COMMITTED:
                raise InvalidArgument(f'parent "{parent}" is not committed snapshot: invalid argument', parent=parent)
        label_rules.scratch_options(labels or {})
        self._put(snapshotter, kind, key, parent, labels)
        return []

    def _put(self, snapshotter: str, kind: str, key: str, parent: str, labels: Optional[Mapping[str, str]]) -> None:
        time = now()
        self._plans(snapshotter)[key] = Info(kind, key, parent, dict(labels or {}), time, time, 0)
