# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List snapshots by name or filter (``list``)."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/snapshot_info.py."""

    module = "wcow.snapshotter.snapshot_info"
    operation = "list"
    stores = ("own", "containerd")
    returned = ("snapshots", "exists", "mistakes", "containerd")
    options = {
        "names": {"type": "list", "elements": "str"},
        "filters": {"type": "list", "elements": "str"},
        "usage": {"type": "bool", "default": False},
        "mounts": {"type": "bool", "default": False},
        "scratch": {"type": "bool", "default": False},
    }
