# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Destroy a layer directory that no record needs."""

from __future__ import annotations

from ..errors import SnapshotterError
from ..layers.base import LayerStore
from .findings import NotRepaired


def destroy(layers: LayerStore, path: str, at_restart: bool) -> None:
    """Destroy a removal directory. Raises NotRepaired, with who uses it.

    ``at_restart``: what cannot be destroyed now is scheduled for the next start of the node.
    """
    try:
        layers.destroy_with_retries(path)
    except SnapshotterError as error:
        raise NotRepaired(_explain_failure(layers, path, error, at_restart)) from error


def _explain_failure(layers: LayerStore, path: str, error: SnapshotterError, at_restart: bool) -> str:
    """Why a layer was not destroyed, and what was scheduled for the next start of the node."""
    reason = error.message
    holders = layers.holders(path)
    if holders:
        reason += f"; in use: {'; '.join(holders)}"
    if not at_restart:
        return reason
    try:
        count = layers.destroy_at_restart(path)
    except SnapshotterError as refused:
        return f"{reason}; and not scheduled: {refused.message}"
    return f"{reason}; {count} files and directories are scheduled for the next start of the node"
