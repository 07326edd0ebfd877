# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired size of one scratch disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from ..errors import NotFound
from ..model import ACTIVE
from ..outcome import Outcome
from ..sizes import parse_size
from .result import outcome
from .snapshot import grow

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore


def ensure_scratch(store: SnapshotStore, key: str, size: Union[int, str]) -> Outcome:
    """Make the scratch disk of the active snapshot ``key`` at least ``size``. It never shrinks.

    Raises NotFound, FailedPrecondition (not active, no scratch disk), InvalidArgument (size).
    """
    wanted = parse_size(size, "rootfs_size")
    current = store.describe(key).get(key)
    if current is None:
        raise NotFound(f'"{key}": snapshot does not exist: not found', key=key)
    scratch = current.scratch
    if current.info.kind != ACTIVE or scratch is None:
        # The strict operation raises the error for this.
        scratch = store.grow_scratch(key, wanted)
    after = current
    actions = []
    if scratch.virtual_size < wanted:
        after = grow(store, current, wanted, {})
        actions.append(f"grow {key}")
    return outcome(
        actions,
        {key: current},
        {key: after},
        scratch=after.scratch._asdict() if after.scratch else None,
        previous_size=scratch.virtual_size,
    )
