# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount or unmount a snapshot (``ensure_mount``)."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/mount.py."""

    module = "wcow.snapshotter.mount"
    operation = "ensure_mount"
    stores = ("own", "containerd")
    returned = ("mount", "actions", "containerd")
    options = {
        "state": {"type": "str", "choices": ["mounted", "unmounted"], "default": "mounted"},
        "key": {"type": "str"},
        "target": {"type": "str"},
    }
    required_if = (
        ("state", "mounted", ("key", "target")),
        ("state", "unmounted", ("key", "target"), True),
    )
