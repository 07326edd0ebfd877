# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one mount on the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import FailedPrecondition, InvalidArgument, NotFound
from ..model import COMMITTED, VIEW
from ..outcome import Outcome
from .result import kind_and_parent

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore

MOUNTED = "mounted"
UNMOUNTED = "unmounted"


def ensure_mount(store: SnapshotStore, state: str, key: str = "", target: str = "") -> Outcome:
    """Make the active snapshot or view ``key`` ``mounted`` at ``target``, or ``unmounted``.

    ``unmounted`` takes either the target, or the key, which is then unmounted
    from all its targets. Raises InvalidArgument for options that exclude each
    other, NotFound, and what ``mount`` and ``unmount`` of the store raise.
    """
    if state not in (MOUNTED, UNMOUNTED):
        raise InvalidArgument(f"state {state!r} is not one of {MOUNTED}, {UNMOUNTED}")
    if state == MOUNTED and not (key and target):
        raise InvalidArgument("state=mounted needs key and target")
    if state == UNMOUNTED and bool(key) == bool(target):
        raise InvalidArgument("state=unmounted needs exactly one of key and target")
    return _mounted(store, key, target) if state == MOUNTED else _unmounted(store, key, target)


def _mounted(store: SnapshotStore, key: str, target: str) -> Outcome:
    try:
        info = store.stat(key)
    except NotFound as error:
        raise error.with_context(f'"{key}"') from None
    if info.kind == COMMITTED:
        raise FailedPrecondition(f'"{key}" is {kind_and_parent(info)}; mount a view of it instead', key=key)
    before = store.is_mounted(key, target)
    if not before:
        store.mount(key, target)
    return Outcome(
        not before,
        {
            "mount": {"key": key, "target": target, "read_only": info.kind == VIEW},
            "actions": [] if before else [f"mount {key}"],
            "diff": {"before": {target: key if before else None}, "after": {target: key}},
        },
    )


def _unmounted(store: SnapshotStore, key: str, target: str) -> Outcome:
    if target:
        targets = [target] if store.layers.mounted_layer(store.layers.native(target)) else []
    else:
        try:
            targets = store.mounted_at(key)
        except NotFound:
            targets = []
    for mounted in targets:
        store.unmount(mounted)
    diff = {"before": dict.fromkeys(targets, "mounted"), "after": dict.fromkeys(targets, "unmounted")}
    return Outcome(bool(targets), {"mount": None, "actions": [f"unmount {path}" for path in targets], "diff": diff})
