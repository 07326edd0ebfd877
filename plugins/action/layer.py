# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import a committed snapshot from a layer tar, or export it (``ensure_layer``, ``ensure_export``)."""

from __future__ import annotations

from typing import Any, Dict

from ..module_utils.core.files import file_problem
from ..module_utils.core.formats.digest import parse_digest
from ..plugin_utils._action import SnapshotterAction, TaskFailure, drop_unset
from ..plugin_utils._upload import UNSENT, check_source, import_layer, upload


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/layer.py."""

    module = "wcow.snapshotter.layer"
    operation = "ensure_layer"
    stores = ("own", "containerd")
    returned = ("snapshot", "layer", "dest", "actions", "containerd")
    options = {
        "state": {"type": "str", "choices": ["imported", "exported"], "default": "imported"},
        "name": {"type": "str", "required": True},
        "src": {"type": "str"},
        "remote_src": {"type": "bool", "default": False},
        "parent": {"type": "str"},
        "parent_image": {"type": "str"},
        "labels": {"type": "dict"},
        "digest": {"type": "str"},
        "dest": {"type": "str"},
        "force": {"type": "bool", "default": False},
    }
    required_if = (("state", "imported", ("src",)), ("state", "exported", ("dest",)))
    mutually_exclusive = (("parent", "parent_image"),)

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        arguments = {name: value for name, value in drop_unset(options).items() if name not in ("state", "remote_src")}
        if options["state"] == "exported":
            return self.ask("ensure_export", arguments)
        if self.store == "containerd":
            raise TaskFailure(
                "not_implemented",
                "containerd's store gets layers as parts of images, so that its garbage collection knows them: use the "
                "module image, or export a layer with state=exported",
            )
        if self._task.check_mode:
            # The plan of a real run must not assume anything.
            arguments["assume"] = True
        # The node has the message about an empty src.
        if options["remote_src"] or not options["src"].strip():
            return self.ask(self.operation, arguments)
        plan = self.ask(self.operation, {**arguments, "src": UNSENT}, check_mode=True)
        if not plan["changed"]:
            return plan
        if not any(action.startswith("import ") for action in plan["result"]["actions"]):
            return self.ask(self.operation, {**arguments, "src": UNSENT})
        check_source(options["src"])
        path = self._find_needle("files", options["src"])
        # The node has accepted this digest above.
        diff_id = parse_digest(options["digest"], "digest") if options["digest"] else ""
        try:
            problem = file_problem(path)
            if problem:
                what = f"{path} on the controller {problem}: src must be a layer tar"
                raise TaskFailure("invalid_argument", what)
            if self._task.check_mode:
                return self.ask(self.operation, {**arguments, "src": UNSENT})
            return import_layer(arguments, path, lambda: upload(path, self.ask, diff_id), self.ask)
        except OSError as error:
            what = f"Cannot read {path} on the controller: {error.strerror}"
            raise TaskFailure("failed_precondition", what) from None
