# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install, upgrade, restart or remove the proxy snapshotter on a node (``ensure_proxy_snapshotter``)."""

from __future__ import annotations

from typing import Any, Dict

from ..plugin_utils._action import SnapshotterAction, drop_unset
from ..plugin_utils._version import collection_version


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/proxy_snapshotter.py."""

    module = "wcow.snapshotter.proxy_snapshotter"
    operation = "ensure_proxy_snapshotter"
    payload_kind = "service"
    returned = (
        "service",
        "health",
        "previous_version",
        "downtime",
        "configuration",
        "restart_needed",
        "actions",
    )
    options = {
        "state": {"type": "str", "choices": ["present", "restarted", "absent"], "default": "present"},
        "pipe": {"type": "str", "default": r"\\.\pipe\wcow-snapshotter"},
        "directory": {"type": "str", "default": r"C:\Program Files\wcow\snapshotter"},
        "name": {"type": "str", "default": "wcow"},
        "log_level": {"type": "str", "choices": ["error", "warning", "info", "debug"], "default": "info"},
        "manage_configuration": {"type": "bool", "default": False},
        "default_snapshotter": {"type": "bool", "default": False},
        "restart_containerd": {"type": "bool", "default": False},
        "containerd_root": {"type": "str"},
        "containerd_address": {"type": "str"},
    }

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        return self.ask(self.operation, {**drop_unset(options), "version": collection_version()})
