# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the report about a fleet, on the controller, from earlier results of the nodes."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..plugin_utils import _report
from ..plugin_utils._action import TaskFailure, refuse_other_types


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """Documented in plugins/modules/report.py."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    options: Dict[str, Dict[str, Any]] = {
        "dest": {"type": "str", "required": True},
        "hosts": {"type": "list", "elements": "str"},
        "check": {"type": "str", "default": "wcow_check"},
        "merge": {"type": "list", "elements": "str", "default": []},
        "metrics": {"type": "str"},
    }
    returned = ("files", "nodes", "states")

    def run(self, tmp: Optional[str] = None, task_vars: Optional[Dict[str, Any]] = None) -> Dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            refuse_other_types(self.options, self._task.args)
        except TaskFailure as failure:
            raise AnsibleActionFail(str(failure)) from None
        _result, options = self.validate_argument_spec(argument_spec=self.options)
        variables = task_vars or {}
        hosts = options["hosts"]
        if hosts is None:
            hosts = variables["ansible_play_hosts_all"]
        generated = _report.now()
        try:
            merged = [node for path in options["merge"] for node in _report.read(self._absolute(path))]
        except _report.Malformed as error:
            raise AnsibleActionFail(f"merge: {error}") from None
        except OSError as error:
            raise AnsibleActionFail(
                f"merge: cannot read {error.filename}: {error.strerror}. Name the report.json of an earlier report"
            ) from None
        try:
            report = _report.report_of(generated, [*merged, *self._nodes(hosts, options, variables, generated)])
            directory = self._absolute(options["dest"])
            metrics = self._absolute(options["metrics"]) if options["metrics"] else ""
            files = [] if self._task.check_mode else _report.write(directory, report, metrics)
        except OSError as error:
            raise AnsibleActionFail(
                f"Cannot write the report: {error.strerror}: {error.filename}. Make sure that the directory exists, "
                "that the user who runs Ansible may write to it, and that the volume has free space"
            ) from None
        nodes = {
            node["node"]: {
                "state": node["state"],
                "bad": node["state"] in _report.BAD_STATES,
                "message": node["message"],
            }
            for node in report["nodes"]
        }
        states: Dict[str, int] = {}
        for node in nodes.values():
            states[node["state"]] = states.get(node["state"], 0) + 1
        return {"changed": True, "files": files, "nodes": nodes, "states": states}

    @staticmethod
    def _nodes(
        hosts: List[str], options: Dict[str, Any], variables: Dict[str, Any], audited: str
    ) -> Iterator[Dict[str, Any]]:
        for host in hosts:
            if host not in variables["hostvars"]:
                raise AnsibleActionFail(f"hosts: {host!r} is not in the inventory")
            # The variables are named and read raw, not passed through templates: those of 500 hosts would take longer
            # than everything else, and what nodes have said must not be templated anyway.
            check = variables["hostvars"].raw_get(host).get(options["check"])
            yield _report.node_of(str(host), audited, check)

    def _absolute(self, path: str) -> str:
        """``path`` as the user means it: relative to where ansible-playbook was started."""
        return os.path.abspath(os.path.expanduser(path))
