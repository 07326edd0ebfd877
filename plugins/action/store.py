# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure that a store exists with its settings, or remove it (``ensure_store``)."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/store.py."""

    module = "wcow.snapshotter.store"
    operation = "ensure_store"
    stores = ("own", "containerd")
    returned = ("store", "preflight", "proxy_snapshotter", "actions", "containerd")
    options = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "rootfs_size": {"type": "str"},
        "force": {"type": "bool", "default": False},
    }
