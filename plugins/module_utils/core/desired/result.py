# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tasks return: snapshots as modules show them, actions, and the difference."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from ..errors import AlreadyExists
from ..model import COMMITTED, Description, Info, with_article
from ..outcome import Outcome

ABSENT = "absent"
PRESENT = "present"


def as_returned(found: Optional[Description]) -> Optional[Dict[str, Any]]:
    """Return a snapshot as modules return it: info, rootfs size in bytes, mounts; None for None."""
    if found is None:
        return None
    shown: Dict[str, Any] = found.info._asdict()
    shown["rootfs_size"] = _rootfs_size(found)
    shown["mounts"] = [mount._asdict() for mount in found.mounts]
    return shown


def _rootfs_size(found: Description) -> Optional[int]:
    """Return the size in bytes; None without a disk, and in a dry run that does not know the template."""
    return (found.scratch.virtual_size or None) if found.scratch else None


def outcome(
    actions: List[str], before: Mapping[str, Description], after: Mapping[str, Description], **result: Any
) -> Outcome:
    """Return the outcome of a task about snapshots: ``actions`` in order, and the snapshots it touched."""
    result["actions"] = actions
    result["diff"] = {"before": _as_diff(before), "after": _as_diff(after if actions else before)}
    return Outcome(bool(actions), result)


def _as_diff(snapshots: Mapping[str, Description]) -> Dict[str, Any]:
    return {
        name: {
            "kind": found.info.kind,
            "parent": found.info.parent,
            "labels": found.info.labels,
            "rootfs_size": _rootfs_size(found),
        }
        for name, found in snapshots.items()
    }


def without(snapshots: Mapping[str, Description], name: str) -> Dict[str, Description]:
    """Return the snapshots without one of them."""
    return {key: found for key, found in snapshots.items() if key != name}


def kind_and_parent(info: Info) -> str:
    """Return what a snapshot is, for sentences: ``a view with parent "base"``."""
    return f"{with_article(info.kind)} " + (f'with parent "{info.parent}"' if info.parent else "without a parent")


def require_committed(info: Info, parent: Optional[str]) -> None:
    """Raise AlreadyExists unless a snapshot is committed and, if ``parent`` is not None, has that parent."""
    if info.kind != COMMITTED or (parent is not None and info.parent != parent):
        wanted = "a committed snapshot" + (f' with parent "{parent}"' if parent is not None else "")
        raise AlreadyExists(
            f'"{info.name}" is {kind_and_parent(info)}, not {wanted}; remove it first, or use another name',
            **info._asdict(),
        )
