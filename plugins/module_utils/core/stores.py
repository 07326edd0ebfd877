# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening the store that a request names: the one place that knows the implementations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict

from .files import EMULATED_DRIVES
from .layers.base import LayerStore

if TYPE_CHECKING:
    from .containerd.node import ContainerdNode
    from .snapshots import SnapshotStore


def open_store(root: str, layers: str, dry_run: bool) -> SnapshotStore:
    """Return the store at ``root``.

    ``layers`` is ``windows``, ``emulated``, or ``auto`` for the one that suits
    the host. Raises as ``OwnStore``. The caller closes the store.
    """
    from .snapshotter import Snapshotter

    return Snapshotter(root, open_layers(layers, dry_run), dry_run=dry_run)


def open_containerd(
    root: str, address: str, namespace: str, snapshotter: str, layers: str, dry_run: bool
) -> ContainerdNode:
    """Return the store of the containerd that runs on this host.

    What is empty is asked of the host. ``layers`` as in ``open_store``. Raises
    as ``ContainerdNode``. The caller closes it.
    """
    from .containerd.discovery import Options
    from .containerd.node import ContainerdNode

    options = Options(address, root, snapshotter)
    return ContainerdNode(options, namespace, open_layers(layers, dry_run), dry_run=dry_run)


def display_paths(reply: Dict[str, Any]) -> Dict[str, Any]:
    """Return a reply in which the paths of a lab node have drive letters, and no path of the lab's own host occurs."""
    if EMULATED_DRIVES not in os.environ:
        return reply
    from .layers.emulated import drives

    displayed: Dict[str, Any] = drives.display(reply)
    return displayed


def open_layers(name: str, dry_run: bool) -> LayerStore:
    """Return the layer store with a name, as ``open_store`` has it."""
    opened: LayerStore
    if name == "windows" or (name == "auto" and os.name == "nt"):
        from .layers.windows.store import WindowsLayers

        opened = WindowsLayers()
    else:
        from .layers.emulated.store import EmulatedLayers

        opened = EmulatedLayers()
    if dry_run:
        from .layers.dry_run import DryRun

        return DryRun(opened)
    return opened
