# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A committed snapshot is imported from a layer tar, or exported to one: ``ensure_layer``, ``ensure_export``."""

from __future__ import annotations

from typing import Any, Dict

from ..plugin_utils._action import SnapshotterAction, given
from ..plugin_utils._upload import upload

#: Stands for a file that the node has not received: enough to ask whether it is needed, or to change labels.
UNSENT = {"staged": "sha256:" + 64 * "0"}


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/layer.py."""

    module = "wcow.snapshotter.layer"
    operation = "ensure_layer"
    returned = ("snapshot", "layer", "dest", "actions")
    options = {
        "state": {"type": "str", "choices": ["imported", "exported"], "default": "imported"},
        "name": {"type": "str", "required": True},
        "src": {"type": "str"},
        "remote_src": {"type": "bool", "default": False},
        "parent": {"type": "str"},
        "labels": {"type": "dict"},
        "digest": {"type": "str"},
        "dest": {"type": "str"},
        "force": {"type": "bool", "default": False},
    }
    required_if = (("state", "imported", ("src",)), ("state", "exported", ("dest",)))

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {name: value for name, value in given(options).items() if name not in ("state", "remote_src")}
        if options["state"] == "exported":
            return self.ask("ensure_export", arguments)
        if options["remote_src"]:
            return self.ask(self.operation, arguments)
        plan = self.ask(self.operation, {**arguments, "src": UNSENT}, check_mode=True)
        if not plan["changed"]:
            return plan
        source = UNSENT
        if any(action.startswith("import ") for action in plan["result"]["actions"]):
            path = self._find_needle("files", options["src"])
            source = UNSENT if self._task.check_mode else {"staged": upload(path, self.ask)}
        return self.ask(self.operation, {**arguments, "src": source})
