# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight of containerd's store: whether tasks can work with it."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, List, NamedTuple, Union

from ..check.volume import measure_space
from ..containerd.client import Client
from ..containerd.databases import KNOWN_VERSIONS
from ..containerd.node import KUBERNETES, ContainerdNode
from ..containerd.picture import Picture
from ..errors import FailedPrecondition, InvalidArgument, NotFound, NotImplementedHere, SnapshotterError
from ..layers import protection
from ..outcome import Outcome
from .result import ABSENT, PRESENT

_SNAPSHOTTER = "io.containerd.snapshotter.v1"


class _Preflight(NamedTuple):
    """What containerd says about itself, and a sentence for each problem. Texts are empty if it does not answer."""

    version: str
    revision: str
    plugins: List[str]
    problems: List[str]


def ensure_store(
    node: ContainerdNode, state: str = PRESENT, rootfs_size: Union[int, str, None] = None, force: bool = False
) -> Outcome:
    """Verify that tasks can work with containerd's store. Nothing is changed.

    The result has the ``store``, and ``preflight``: the version of containerd,
    the versions of the schema of its databases, its snapshotters that are
    loaded, and the free space in bytes.

    Raises FailedPrecondition with everything that is missing,
    NotImplementedHere for ``absent``, InvalidArgument for settings that
    containerd does not have, and as ``ContainerdNode.read``.
    """
    if state == ABSENT:
        raise NotImplementedHere(
            f"containerd's store in {node.layers.display_path(node.root)} cannot be removed by a task: containers run "
            "from it, and containerd is its owner. To free its space, remove images and containers (with kubelet or "
            "crictl), then run store_check with repair=true. To remove the store of this collection, set store: own"
        )
    if state != PRESENT:
        raise InvalidArgument(f"state {state!r} is not one of {PRESENT}, {ABSENT}")
    if rootfs_size is not None:
        raise InvalidArgument(
            "containerd has no setting rootfs_size for new scratch disks: remove the option rootfs_size, and grow the "
            "disks that exist with the module scratch"
        )
    if force:
        raise InvalidArgument("force is about the store of this collection: remove the option force")
    picture = node.read()
    first = next((snapshot for snapshot in picture.snapshots if snapshot.record is not None), None)
    namespace = first.namespace if first else node.namespace or KUBERNETES
    found = _ask(node, namespace, first.key if first else "")
    free, total = measure_space(node.root)
    preflight = {
        "version": found.version,
        "revision": found.revision,
        "schema": picture.metadata.version,
        "schema_known": not picture.unknown,
        "snapshotters": found.plugins,
        "running": picture.is_running,
        "free": free,
        "total": total,
    }
    problems = [*found.problems, *_find_unknown(picture)]
    if problems:
        raise FailedPrecondition("; ".join(problems), problems=problems, preflight=preflight)
    store = {
        "root": node.layers.display_path(node.root),
        "layers": node.layers.name,
        "snapshots": len(picture.snapshots),
        "rootfs_size": None,
        "protected": protection.is_protected(node.root),
    }
    result: Dict[str, Any] = {
        "store": store,
        "preflight": preflight,
        "actions": [],
        "diff": {"before": store, "after": store},
        "containerd": {**node.describe(picture), "namespace": namespace},
    }
    return Outcome(False, result)


def _find_unknown(picture: Picture) -> List[str]:
    """Return a sentence about schemas that this collection does not know, if there are any."""
    if not picture.unknown:
        return []
    known = " and ".join(str(version) for version in KNOWN_VERSIONS)
    sentences = "; ".join(picture.unknown)
    remedy = "and repairs nothing here: install a newer version of the collection"
    return [f"{sentences}; this collection knows the versions {known} of meta.db, {remedy}"]


def _ask(node: ContainerdNode, namespace: str, key: str) -> _Preflight:
    """Ask containerd. ``key`` names a snapshot of the namespace, ``""`` if there is none."""
    found = _Preflight("", "", [], [])
    try:
        with node.connect(namespace) as client:
            version = client.version()
            found = found._replace(version=version.version, revision=version.revision)
            _ask_about_plugins(node, client, found)
            if key and not found.problems:
                _ask_about(node, client, found, key)
    except SnapshotterError as error:
        found.problems.append(error.message)
    return found


def _ask_about_plugins(node: ContainerdNode, client: Client, found: _Preflight) -> None:
    """Add the snapshotters that are loaded, and a problem if the one of the task is not among them."""
    problems = {plugin.id: plugin.problem for plugin in client.plugins(f"type=={_SNAPSHOTTER}")}
    found.plugins.extend(sorted(name for name, problem in problems.items() if not problem))
    if node.snapshotter not in found.plugins:
        reason = problems.get(node.snapshotter) or "containerd has no such plugin"
        found.problems.append(
            f"the snapshotter {node.snapshotter} is not loaded: {reason}. Loaded are "
            f"{', '.join(found.plugins) or 'none'}: set the option snapshotter, or correct containerd's configuration "
            "and restart it"
        )


def _ask_about(node: ContainerdNode, client: Client, found: _Preflight, key: str) -> None:
    """Ask the snapshotter about a snapshot. A proxy plugin counts as loaded even if no process serves it."""
    try:
        # Another task can remove the snapshot meanwhile.
        with contextlib.suppress(NotFound):
            client.stat(node.snapshotter, key)
    except SnapshotterError as error:
        found.problems.append(f"the snapshotter {node.snapshotter} does not answer: {error.message}. Start its service")
