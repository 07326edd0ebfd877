# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure the state of many snapshots of one store (``ensure_set``)."""

from __future__ import annotations

from typing import Any, Dict

from ..plugin_utils._action import SnapshotterAction, drop_unset
from .snapshot import ActionModule as SnapshotAction

#: The options that all items of a list can have in common.
COMMON = ("state", "parent", "parent_image", "labels", "purge_labels", "rootfs_size", "uvm_scratch")

#: An item that has one of these gets none of them from the defaults.
_PARENTS = ("parent", "parent_image")

#: What only active snapshots take.
_ACTIVE = ("rootfs_size", "uvm_scratch")


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/snapshot_set.py."""

    module = "wcow.snapshotter.snapshot_set"
    operation = "ensure_set"
    stores = ("own", "containerd")
    returned = ("outcomes", "pruned", "kept", "actions", "containerd")
    options = {
        "snapshots": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": SnapshotAction.options,
            "required_if": SnapshotAction.required_if,
            "mutually_exclusive": SnapshotAction.mutually_exclusive,
        },
        "defaults": {
            "type": "dict",
            "options": {
                # A default of its own would outrank that of an item.
                name: {key: value for key, value in SnapshotAction.options[name].items() if key != "default"}
                for name in COMMON
            },
            "mutually_exclusive": SnapshotAction.mutually_exclusive,
        },
        "on_error": {"type": "str", "choices": ["stop", "continue"], "default": "stop"},
        "prune": {"type": "bool", "default": False},
        "prune_filters": {"type": "list", "elements": "str"},
    }
    required_if = (("prune", True, ("prune_filters",)),)

    def complete(self, arguments: Dict[str, Any]) -> Dict[str, Any]:
        defaults, snapshots = arguments.get("defaults"), arguments.get("snapshots")
        if isinstance(defaults, dict) and isinstance(snapshots, list):
            arguments["snapshots"] = [_complete(item, defaults) for item in snapshots]
        return arguments

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        snapshots = [drop_unset(item) for item in options["snapshots"]]
        given = {name: value for name, value in options.items() if name != "defaults"}
        return self.ask(self.operation, {**drop_unset(given), "snapshots": snapshots})


def _complete(item: Any, defaults: Dict[str, Any]) -> Any:
    """Return an item with the defaults for what it does not set. Its labels are merged into theirs.

    A default that the state of the item does not take is left out.
    """
    if not isinstance(item, dict):
        return item
    given = {name: value for name, value in item.items() if value is not None}
    left_out = _PARENTS if any(name in given for name in _PARENTS) else ()
    if {**defaults, **given}.get("state", "active") != "active":
        left_out += _ACTIVE
    common = {name: value for name, value in defaults.items() if name not in left_out}
    labels = [options.get("labels") for options in (common, given)]
    merged = {**common, **given}
    if all(isinstance(found, dict) for found in labels):
        merged["labels"] = {**labels[0], **labels[1]}
    return merged
