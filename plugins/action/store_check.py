# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a store and repair it on request (``check``)."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/store_check.py."""

    module = "wcow.snapshotter.store_check"
    operation = "check"
    stores = ("own", "containerd")
    returned = (
        "healthy",
        "exists",
        "summary",
        "findings",
        "counts",
        "snapshots",
        "reclaimable",
        "reclaimed",
        "free",
        "total",
        "rootfs_size",
        "proxy_snapshotter",
        "inventory",
        "containerd",
    )
    options = {
        "repair": {"type": "bool", "default": False},
        "only": {"type": "list", "elements": "str"},
        "quick": {"type": "bool", "default": False},
        "minimum_free": {"type": "str"},
        "at_restart": {"type": "bool", "default": False},
        "inventory": {"type": "bool", "default": False},
    }
