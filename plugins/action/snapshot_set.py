# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many snapshots of one store are as a list says: ``ensure_set`` of the core."""

from __future__ import annotations

from typing import Any, Dict

from ..plugin_utils._action import SnapshotterAction, TaskFailure, given
from .snapshot import ActionModule as SnapshotAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/snapshot_set.py."""

    module = "wcow.snapshotter.snapshot_set"
    operation = "ensure_set"
    returned = ("outcomes", "pruned", "kept", "actions")
    options = {
        "snapshots": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": SnapshotAction.options,
            "required_if": SnapshotAction.required_if,
        },
        "on_error": {"type": "str", "choices": ["stop", "continue"], "default": "stop"},
        "prune": {"type": "bool", "default": False},
        "prune_filters": {"type": "list", "elements": "str"},
    }
    required_if = (("prune", True, ("prune_filters",)),)

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        snapshots = [_given(number, item) for number, item in enumerate(options["snapshots"])]
        return self.ask(self.operation, {**given(options), "snapshots": snapshots})


def _given(number: int, item: Dict[str, Any]) -> Dict[str, Any]:
    try:
        return given(item)
    except TaskFailure as failure:
        raise TaskFailure(failure.code, f"snapshots[{number}]: {failure}", failure.details) from None
