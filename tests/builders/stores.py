# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build stores with emulated layers."""

from __future__ import annotations

from typing import Dict, Optional

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter


def open_store(root: str, dry_run: bool = False) -> Snapshotter:
    """Open the store at ``root`` as a task does. The caller closes it."""
    layers = EmulatedLayers()
    return Snapshotter(root, DryRun(layers) if dry_run else layers, dry_run=dry_run)


def add_committed(store: Snapshotter, name: str, parent: str = "", labels: Optional[Dict[str, str]] = None) -> None:
    """Prepare and commit an empty snapshot."""
    store.prepare(f"{name} in progress", parent)
    store.commit(name, f"{name} in progress", labels)
