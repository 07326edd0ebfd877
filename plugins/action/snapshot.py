# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ensure the state of one snapshot (``ensure_snapshot``)."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/snapshot.py."""

    module = "wcow.snapshotter.snapshot"
    operation = "ensure_snapshot"
    stores = ("own", "containerd")
    returned = ("snapshot", "actions", "containerd")
    options = {
        "state": {"type": "str", "choices": ["active", "view", "committed", "absent"], "default": "active"},
        "key": {"type": "str"},
        "name": {"type": "str"},
        "parent": {"type": "str"},
        "parent_image": {"type": "str"},
        "labels": {"type": "dict"},
        "purge_labels": {"type": "bool", "default": False},
        "rootfs_size": {"type": "str"},
        "uvm_scratch": {"type": "bool"},
        "creates": {"type": "str"},
        "recursive": {"type": "bool", "default": False},
    }
    required_if = (
        ("state", "active", ("key",)),
        ("state", "view", ("key",)),
        ("state", "committed", ("name",)),
        ("state", "absent", ("key", "name"), True),
    )
    mutually_exclusive = (("parent", "parent_image"),)
