# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store is there, protected and with settings, or it is gone: ``ensure_store`` of the core."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/store.py."""

    module = "wcow.snapshotter.store"
    operation = "ensure_store"
    returned = ("store", "actions")
    options = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "rootfs_size": {"type": "str"},
        "force": {"type": "bool", "default": False},
    }
