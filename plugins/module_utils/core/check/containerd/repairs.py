# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what can be repaired, and how: it depends on whether containerd runs, and on what needs a snapshot."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from ...containerd.node import ContainerdNode
from ...containerd.picture import Picture, Snapshot
from ...model import COMMITTED
from ..findings import WOULD_BE
from . import on_disk, through_api
from .problems import Problem, Uses

# What completes "it was" and "it would be" for repairs through the API.
_THROUGH_API = {
    "next_directory": "removed with a throw-away snapshot",
    "uncollected_record": "removed by containerd's garbage collection",
    "abandoned_repair": "removed",
    "dangling_child": "removed from the children of the snapshot",
    "missing_record": "removed from meta.db",
}

# The same for repairs of directories.
_ON_DISK = {
    "interrupted_removal": "renamed back",
    "leftover_removal": "destroyed",
    "unknown_directory": "destroyed",
    "next_directory": "destroyed",
}

_NOT_REPAIRED = "not repaired: "


class Plan:
    """What a repair does with the problems of one reading. ``only`` has the codes that the task names."""

    def __init__(
        self, node: ContainerdNode, picture: Picture, problems: Sequence[Problem], only: Sequence[str]
    ) -> None:
        self._node = node
        self._picture = picture
        self._problems = problems
        self._only = only
        self._uses = Uses(picture, node.snapshotter)
        self._snapshots = {(found.namespace, found.key): found for found in picture.snapshots}
        # Why the problems with a repair are not repaired now, "" for those that are.
        self._refusals = {problem.identity: self._refusal(problem) for problem in problems if self._done(problem)}

    def is_repairable(self, problem: Problem) -> bool:
        return self._refusals.get(problem.identity) == ""

    def preview(self) -> List[Dict[str, Any]]:
        """Return the ``action`` of each finding in check mode."""
        return [{"action": self._action(problem, WOULD_BE + self._done(problem))} for problem in self._problems]

    def carry_out(self, at_restart: bool) -> List[Dict[str, Any]]:
        """Repair. Return ``action`` and ``repaired`` of each finding."""
        possible = [problem for problem in self._problems if self.is_repairable(problem)]
        # First directories: with one called rm-<id>, containerd cannot remove the snapshot that has this id.
        directories = [problem for problem in possible if self._is_on_disk(problem)]
        reasons = on_disk.repair(self._node, directories, at_restart, is_running=self._picture.is_running)
        entries = [problem for problem in possible if not self._is_on_disk(problem)]
        if entries:
            reasons.update(through_api.repair(self._node, self._picture, entries, at_restart))
        return [self._outcome(problem, reasons.get(problem.identity, "")) for problem in self._problems]

    def _outcome(self, problem: Problem, reason: str) -> Dict[str, Any]:
        if not self.is_repairable(problem):
            return {"action": self._action(problem, "")}
        if reason:
            return {"action": _NOT_REPAIRED + reason}
        return {"action": self._done(problem), "repaired": True}

    def _action(self, problem: Problem, repairable: str) -> str:
        """Return why a problem is not repaired, or the text for one that is repairable, or ``""`` without a repair."""
        refusal = self._refusals.get(problem.identity)
        if refusal is None:
            return ""
        return _NOT_REPAIRED + refusal if refusal else repairable

    # -- the ways to repair ----------------------------------------------------

    def _done(self, problem: Problem) -> str:
        """Return the phrase for a repair, ``""`` if there is none in any state of containerd."""
        if self._picture.unknown:
            return ""
        return (_ON_DISK if self._is_on_disk(problem) else _THROUGH_API).get(problem.code, "")

    def _is_on_disk(self, problem: Problem) -> bool:
        """Return whether a problem is repaired without the API."""
        if problem.code == "next_directory":
            return not self._picture.is_running
        if problem.code == "unknown_directory":
            # Without ``is_layer``, the records may be older than the directory.
            return problem.is_layer and problem.code in self._only
        return problem.code in _ON_DISK

    # -- refusals --------------------------------------------------------------

    def _refusal(self, problem: Problem) -> str:
        """Return why a problem is not repaired now, ``""`` if it is."""
        if self._is_on_disk(problem):
            return ""
        if problem.code == "missing_record":
            needs = self._needs(self._snapshots[problem.namespace, problem.snapshot])
            if needs:
                return f"{needs}; remove that first, then import or pull the image again"
        if problem.code == "dangling_child":
            record = self._snapshots[problem.namespace, problem.snapshot].record
            if record is None or record.kind != COMMITTED:
                return "containerd takes no child for this snapshot, because it is not committed or has no record"
        if not self._picture.is_running:
            return "containerd does not run, and only containerd changes its records; start it, then run this again"
        return ""

    def _needs(self, snapshot: Snapshot) -> str:
        """Say what needs an entry without a record, ``""`` if nothing does.

        Root labels of entries without a record do not count: what they keep is lost already.
        """
        used = self._uses.used_by(snapshot)
        labelled = [
            key for name, key in used.labelled if name != self._node.snapshotter or self._has_record(snapshot, key)
        ]
        based = [key for key in used.children if self._has_record(snapshot, key)]
        for kind, names in (
            ("the image", used.images),
            ("the container", used.containers),
            ("the lease", used.leases),
            ("the sandbox", used.sandboxes),
            ("the content", used.content),
            ("the upload", used.ingests),
            ("the snapshot with a root label", labelled),
            ("the child", based),
        ):
            if names:
                more = f" and {len(names) - 1} more need it" if len(names) > 1 else " needs it"
                return f'{kind} "{names[0]}"{more}'
        return ""

    def _has_record(self, snapshot: Snapshot, key: str) -> bool:
        """Return whether another snapshot of the same namespace has a record."""
        found = self._snapshots.get((snapshot.namespace, key))
        return found is not None and found.record is not None
