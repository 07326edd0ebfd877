# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired states of snapshots, disks, mounts and exports on containerd's store.

They are those of our own store. What they need besides is the namespace, and a connection to containerd.
"""

from __future__ import annotations

from typing import Any, Callable

from ..containerd.node import ContainerdNode
from ..containerd.store import ContainerdStore
from ..outcome import Outcome
from . import layer_export, mount, scratch, snapshot, snapshot_set


def ensure_snapshot(node: ContainerdNode, **arguments: Any) -> Outcome:
    """``snapshot.ensure_snapshot``. A label ``containerd.io/gc.root`` keeps what it creates."""
    return _run(node, snapshot.ensure_snapshot, arguments)


def ensure_set(node: ContainerdNode, **arguments: Any) -> Outcome:
    """``snapshot_set.ensure_set``. Pruning keeps what an image, a container, a lease or another root label needs."""
    return _run(node, snapshot_set.ensure_set, arguments)


def ensure_scratch(node: ContainerdNode, **arguments: Any) -> Outcome:
    """``scratch.ensure_scratch``. The disk of a container that runs is refused."""
    return _run(node, scratch.ensure_scratch, arguments)


def ensure_mount(node: ContainerdNode, **arguments: Any) -> Outcome:
    """``mount.ensure_mount``."""
    return _run(node, mount.ensure_mount, arguments)


def ensure_export(node: ContainerdNode, **arguments: Any) -> Outcome:
    """``layer_export.ensure_export``."""
    return _run(node, layer_export.ensure_export, arguments)


def _run(node: ContainerdNode, ensure: Callable[..., Outcome], arguments: Any) -> Outcome:
    """Call ``ensure`` with the store of the task's namespace. The result also says where the store is."""
    picture = node.read()
    namespace = node.one_namespace(picture)
    store = ContainerdStore(node, picture, namespace)
    try:
        outcome = ensure(store, **arguments)
    finally:
        store.close()
        node.warnings.extend(store.warnings)
    outcome.result["containerd"] = {**node.describe(picture), "namespace": namespace}
    return outcome
