# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels that a task wants: which of them to write, and writing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Mapping, Sequence

from ..model import Info

if TYPE_CHECKING:
    from ..snapshots import Snapshots


def changes(current: Mapping[str, str], wanted: Mapping[str, str], purge: bool, kept: Sequence[str]) -> Dict[str, str]:
    """Return the labels to write, by key; an empty value removes the label.

    ``wanted`` is merged into ``current``. With ``purge``, labels that are
    neither wanted nor ``kept`` are removed.
    """
    changed = {key: value for key, value in wanted.items() if current.get(key, "") != value}
    if purge:
        changed.update({key: "" for key in current if key not in wanted and key not in kept})
    return changed


def write(store: Snapshots, name: str, changed: Mapping[str, str]) -> Info:
    """Write changed labels and return the new info. Other labels, also new ones of other tasks, stay."""
    return store.update(name, changed, [f"labels.{key}" for key in changed])
