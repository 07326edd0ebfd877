# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scratch disk of an active snapshot is at least so large: ``ensure_scratch`` of the core."""

from __future__ import annotations

from ..plugin_utils._action import SnapshotterAction


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/scratch.py."""

    module = "wcow.snapshotter.scratch"
    operation = "ensure_scratch"
    returned = ("scratch", "previous_size", "actions")
    options = {
        "key": {"type": "str", "required": True},
        "size": {"type": "str", "required": True},
    }
