# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure a minimum size of scratch disks (``ensure_scratch``, once for each disk)."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from ..plugin_utils._action import SnapshotterAction, TaskFailure, raise_for_error


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/scratch.py."""

    module = "wcow.snapshotter.scratch"
    operation = "ensure_scratch"
    stores = ("own", "containerd")
    returned = ("scratch", "previous_size", "outcomes", "actions", "containerd")
    options = {
        "key": {"type": "str"},
        "keys": {"type": "list", "elements": "str", "no_log": False},
        "rootfs_size": {"type": "str", "required": True, "aliases": ["size"]},
    }
    required_one_of = (("key", "keys"),)
    mutually_exclusive = (("key", "keys"),)

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        keys = options["keys"]
        if keys is None:
            return self.ask(self.operation, {"key": options["key"], "size": options["rootfs_size"]})
        keys = list(dict.fromkeys(keys))
        operations = [(self.operation, {"key": key, "size": options["rootfs_size"]}) for key in keys]
        entries = self.ask_all(operations, on_error="continue") if operations else []
        outcomes: List[Dict[str, Any]] = []
        actions: List[str] = []
        diff: Dict[str, Dict[str, Any]] = {"before": {}, "after": {}}
        failures: List[Tuple[str, TaskFailure]] = []
        place: Dict[str, Any] = {}
        for key, entry in zip(keys, entries):
            try:
                done = raise_for_error(entry)
            except TaskFailure as failure:
                failures.append((key, failure))
                error = {"code": failure.code, "message": str(failure), "details": failure.details}
                outcomes.append({"key": key, "changed": False, "error": error})
                continue
            result = done["result"]
            outcomes.append({"key": key, "changed": done["changed"]})
            outcomes[-1].update((name, result[name]) for name in ("scratch", "previous_size"))
            actions += result["actions"]
            place = {name: result[name] for name in ("containerd",) if name in result}
            for side, states in diff.items():
                states.update(result["diff"][side])
        changed = any(outcome["changed"] for outcome in outcomes)
        return {
            "changed": changed,
            "result": {
                "outcomes": outcomes,
                "actions": actions,
                "diff": diff,
                "failure": _first_failure(failures, len(keys)),
                **place,
            },
        }


def _first_failure(failures: List[Tuple[str, TaskFailure]], disks: int) -> Optional[Dict[str, Any]]:
    """The first failure and the number of failures, None if there is none."""
    if not failures:
        return None
    key, first = failures[0]
    message = f'{len(failures)} of {disks} disks failed; the first: "{key}": {first}'
    return {"code": first.code, "message": message, "details": {"key": key, "failed": len(failures)}}
