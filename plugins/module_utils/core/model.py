# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that the core passes around (containerd core/snapshots/snapshotter.go).

They are named tuples: a walk makes twenty thousand of them, and every request
pays for the import of this module.
"""

from __future__ import annotations

import json
import time
from typing import Any, Dict, List, NamedTuple, Tuple

#: The three kinds, as filters and replies spell them.
ACTIVE = "active"
VIEW = "view"
COMMITTED = "committed"
KINDS = (ACTIVE, VIEW, COMMITTED)


class Info(NamedTuple):
    """What the metadata says of one snapshot.

    ``created`` and ``updated`` are RFC 3339 in UTC with nine decimals, the
    form in which they are stored and replied. ``parent`` is ``""`` for a
    snapshot without one. ``id`` names the layer directory and never changes.
    """

    kind: str
    name: str
    parent: str
    labels: Dict[str, str]
    created: str
    updated: str
    id: int


class Snapshot(NamedTuple):
    """A snapshot as the layer store needs it: ids, nearest parent first."""

    kind: str
    id: int
    parent_ids: Tuple[int, ...]


class Usage(NamedTuple):
    """Disk use: ``size`` in bytes, ``inodes`` as a count of files and directories."""

    size: int
    inodes: int


class Mount(NamedTuple):
    """How to mount a snapshot (containerd core/mount/mount.go)."""

    type: str
    source: str
    options: List[str]


#: core/mount/mount_windows.go: the only mount type that these layers have.
MOUNT_TYPE = "windows-layer"
PARENT_LAYER_PATHS = "parentLayerPaths="


def layer_mount(source: str, parents: List[str], read_only: bool) -> Mount:
    """The mount of a layer directory, parents nearest first.

    The list is Go's compact JSON: ``null`` for no parents, and ``<``, ``>``
    and ``&`` escaped as Go's encoder does, so that the text compares equal
    with what containerd writes for the same paths.
    """
    text = "null"
    if parents:
        text = json.dumps(parents, ensure_ascii=False, separators=(",", ":"))
        for char in "<>&\u2028\u2029":
            text = text.replace(char, f"\\u{ord(char):04x}")
    return Mount(MOUNT_TYPE, source, ["ro" if read_only else "rw", PARENT_LAYER_PATHS + text])


def now() -> str:
    """The present time as RFC 3339, UTC, nine decimals."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def info_as_dict(info: Info) -> Dict[str, Any]:
    """An info in the form of the reply."""
    return info._asdict()
