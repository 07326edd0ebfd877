# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repair containerd's records through its API, while it runs.

Each repair is something that any client may do, and it removes nothing that is needed:

* The removal of a throw-away snapshot makes containerd compare the records of the snapshotter with meta.db, in its next
  garbage collection. Without such a removal, the collector does not look (metadata/db.go, ``dirtySS``). The snapshot
  gets the next id, and takes along a directory that has it.
* A view with the key of a child that does not exist, and its removal, take the key out of its parent's children. That
  works for parents that are needed, too. A lease keeps the collector from the view meanwhile: it would leave the key.
* An entry without a record is removed if nothing needs it.

What a repair creates has the label ``wcow.snapshotter/repair``, by which a check finds what an interrupted repair left.
"""

from __future__ import annotations

import contextlib
from typing import Dict, Iterator, List, Sequence

from ...containerd.client import Client
from ...containerd.node import KUBERNETES, ContainerdNode
from ...containerd.picture import Picture
from ...errors import AlreadyExists, NotFound, SnapshotterError
from ...failpoint import failpoint
from ...keys import is_unpack_key
from ..findings import NotRepaired
from . import on_disk
from .problems import REPAIR_LABEL, Identity, Problem, find_problems

_LEASE_LABELS = {REPAIR_LABEL: "true"}

# A part of containerd's error if a directory has the next id and files in it, except on Windows. The snapshotter can
# have deleted the directory when it says so (snapshots/native/native.go, createSnapshot).
_DIRECTORY_EXISTS = "file exists"


def repair(
    node: ContainerdNode, picture: Picture, problems: Sequence[Problem], at_restart: bool = False
) -> Dict[Identity, str]:
    """Repair problems of the store in ``picture``. Return why each is still there, ``""`` if it is not.

    A new reading decides that. What cannot be repaired does not keep the others from it.
    """
    repairs = _Repairs(node, picture, at_restart)
    try:
        # A directory with the next id comes first, because every new snapshot would get it.
        repairs.throw_away([problem for problem in problems if not problem.namespace])
        for namespace in sorted({problem.namespace for problem in problems if problem.namespace}):
            repairs.repair_entries(namespace, [problem for problem in problems if problem.namespace == namespace])
        return repairs.verify(problems)
    finally:
        repairs.close()


class _Repairs:
    """The repairs of one task, and why some of them failed."""

    def __init__(self, node: ContainerdNode, picture: Picture, at_restart: bool) -> None:
        self._node = node
        self._picture = picture
        self._at_restart = at_restart
        self._clients: Dict[str, Client] = {}
        self._reasons: Dict[Identity, str] = {}
        # What is unpacked at the moment, or was when an import ended: keys that will exist.
        self._unpacked = {
            (found.namespace, found.key.partition(" ")[2]) for found in picture.snapshots if is_unpack_key(found.key)
        }

    def close(self) -> None:
        for client in self._clients.values():
            self._node.warnings.extend(client.warnings)
            client.close()

    def throw_away(self, problems: Sequence[Problem]) -> None:
        """Repair directories with the next id, and uncollected records: one throw-away snapshot repairs them all."""
        if not problems:
            return
        blocking = [problem for problem in problems if problem.code == "next_directory"]
        with self._noting(*problems):
            try:
                self._throw_away()
            except SnapshotterError as error:
                if not blocking or _DIRECTORY_EXISTS not in error.message:
                    raise
                for problem in blocking:
                    on_disk.move_aside(self._node, problem)
                    self._destroy_removal(problem)
                self._throw_away()
        for problem in blocking:
            with self._noting(problem):
                self._finish(problem)

    def repair_entries(self, namespace: str, problems: Sequence[Problem]) -> None:
        """Repair entries of meta.db, and collect what that frees."""
        with self._noting(*problems):
            client = self._client(namespace)
            with client.lease(_LEASE_LABELS) as lease:
                for problem in problems:
                    with self._noting(problem):
                        if problem.code == "abandoned_repair":
                            self._remove_abandoned(client, problem)
                        elif problem.code == "dangling_child":
                            self._unlink(client, lease, problem)
            for problem in self._children_first(problems):
                with self._noting(problem):
                    failpoint("check.entry.remove")
                    client.remove_snapshot(self._node.snapshotter, problem.snapshot)
            failpoint("check.entries.collect")
            client.collect_garbage()

    def verify(self, problems: Sequence[Problem]) -> Dict[Identity, str]:
        """Read the store again. Return for each problem why it is still there, ``""`` if it is not."""
        try:
            found = find_problems(self._node, self._node.read())
        except SnapshotterError as error:
            unknown = f"done, but the store could not be read afterwards: {on_disk.explain(error)}"
            return {problem.identity: self._reasons.get(problem.identity, unknown) for problem in problems}
        left = "it is still there after the repair; the log of containerd says why"
        reasons = {}
        for problem in problems:
            reason = self._reasons.get(problem.identity, "")
            # Nothing else says what became of such a directory.
            is_gone = problem.identity not in found and not (reason and problem.code == "next_directory")
            reasons[problem.identity] = "" if is_gone else reason or left
        return reasons

    # -- the parts of the above ------------------------------------------------

    @contextlib.contextmanager
    def _noting(self, *problems: Problem) -> Iterator[None]:
        """Note an error of the block as the reason why these problems are not repaired."""
        try:
            yield
        except (NotRepaired, SnapshotterError, OSError) as error:
            for problem in problems:
                self._reasons.setdefault(problem.identity, on_disk.explain(error))

    def _client(self, namespace: str) -> Client:
        client = self._clients.get(namespace)
        if client is None:
            client = self._clients[namespace] = self._node.connect(namespace)
        return client

    def _throw_away(self) -> None:
        """Create a snapshot and remove it, and collect garbage."""
        namespaces = self._picture.metadata.namespaces
        preferred = self._node.namespace or KUBERNETES
        client = self._client(preferred if preferred in namespaces or not namespaces else min(namespaces))
        with client.lease(_LEASE_LABELS) as lease:
            failpoint("check.throw_away.prepare")
            client.prepare(self._node.snapshotter, lease, labels={REPAIR_LABEL: lease})
            failpoint("check.throw_away.remove")
            self._remove_own(client, lease)
        failpoint("check.throw_away.collect")
        client.collect_garbage()
        failpoint("check.throw_away.collected")

    def _finish(self, problem: Problem) -> None:
        """Destroy what is left of a directory that had the next id. Raises NotRepaired if a snapshot has it."""
        picture = self._node.read()
        for found in picture.snapshots:
            if found.record and found.record.id == problem.layer_id and REPAIR_LABEL in found.entry.labels:
                raise NotRepaired("another task repairs it at the same time")
        owner = on_disk.owner(picture, problem)
        if owner:
            raise NotRepaired(
                f'"{owner}" was created meanwhile and has these files, which an interrupted Prepare left: remove it '
                "and create it again"
            )
        if problem.layer_id in picture.directories.removals:
            self._destroy_removal(problem)
        elif problem.layer_id in picture.directories.layers:
            raise NotRepaired("it is still there: another snapshot got its id meanwhile; run the check again")

    def _destroy_removal(self, problem: Problem) -> None:
        reason = on_disk.destroy_removal(self._node, problem, self._at_restart)
        if reason:
            raise NotRepaired(reason)

    def _remove_abandoned(self, client: Client, problem: Problem) -> None:
        """Remove what an interrupted repair created, and its lease."""
        entry = next(
            found.entry
            for found in self._picture.snapshots
            if (found.namespace, found.key) == (problem.namespace, problem.snapshot)
        )
        lease = entry.labels[REPAIR_LABEL]
        outer, client.connection.lease = client.connection.lease, lease
        try:
            self._remove_own(client, problem.snapshot)
        finally:
            client.connection.lease = outer
        failpoint("check.abandoned.removed")
        client.drop_lease(lease)

    def _unlink(self, client: Client, lease: str, problem: Problem) -> None:
        """Take the key of a child that does not exist out of the children of its parent."""
        if (problem.namespace, problem.child) in self._unpacked:
            # For some milliseconds the key exists, and the import would take the view for its layer.
            raise NotRepaired("an import of this child is under way; run the check again when it has ended")
        failpoint("check.unlink.view")
        try:
            client.view(self._node.snapshotter, problem.child, problem.snapshot, {REPAIR_LABEL: lease})
        except AlreadyExists:
            raise NotRepaired("the child exists again") from None
        failpoint("check.unlink.remove")
        self._remove_own(client, problem.child)
        failpoint("check.unlink.removed")

    def _remove_own(self, client: Client, key: str) -> None:
        """Remove what a repair created. Another task that found it can have removed it first."""
        with contextlib.suppress(NotFound):
            client.remove_snapshot(self._node.snapshotter, key)

    def _children_first(self, problems: Sequence[Problem]) -> Iterator[Problem]:
        """Yield the entries without a record, and each after those that are based on it."""
        waiting = {problem.snapshot: problem for problem in problems if problem.code == "missing_record"}
        parents = {
            found.key: found.entry.parent
            for found in self._picture.snapshots
            if found.key in waiting and found.namespace == waiting[found.key].namespace
        }
        while waiting:
            needed = {parents[key] for key in waiting}
            # A circle has no beginning. containerd refuses its entries, and says why.
            leaves: List[str] = [key for key in waiting if key not in needed] or list(waiting)
            for key in leaves:
                yield waiting.pop(key)
