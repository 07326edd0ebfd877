# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values of snapshots and mounts (containerd core/snapshots/snapshotter.go).

They are named tuples because a walk may make 20,000 of them, and because every
request waits for the import of this module.
"""

from __future__ import annotations

import json
import time
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

#: The three kinds, as filters and replies spell them.
ACTIVE = "active"
VIEW = "view"
COMMITTED = "committed"
KINDS = (ACTIVE, VIEW, COMMITTED)


class Info(NamedTuple):
    """The metadata of one snapshot.

    ``created`` and ``updated`` are RFC 3339 in UTC with nine decimals, as they
    are stored and as replies have them. ``parent`` is ``""`` for a snapshot
    without one. ``id`` names the layer directory and never changes.
    """

    kind: str
    name: str
    parent: str
    labels: Dict[str, str]
    created: str
    updated: str
    id: int


class Snapshot(NamedTuple):
    """The ids of a snapshot and of its parents, nearest first."""

    kind: str
    id: int
    parent_ids: Tuple[int, ...]


class TopLayer(NamedTuple):
    """The committed snapshot that is the top layer of an image, and the Windows version, ``""`` if it is not known."""

    name: str
    os_version: str


class Usage(NamedTuple):
    """Disk usage: ``size`` in bytes, ``inodes`` as the number of files and directories."""

    size: int
    inodes: int


class Mount(NamedTuple):
    """How to mount a snapshot (containerd core/mount/mount.go)."""

    type: str
    source: str
    options: List[str]


class ScratchInfo(NamedTuple):
    """A scratch disk. Sizes are in bytes.

    ``virtual_size`` is the size of the disk that a container sees as C:,
    ``file_size`` the length of the VHDX file. ``attached`` says whether the
    disk is in use now. ``volume_size`` is the size of the NTFS volume inside,
    None if the store cannot tell, for example because the disk is not attached.
    """

    path: str
    virtual_size: int
    file_size: int
    attached: bool
    volume_size: Optional[int]


class ImportResult(NamedTuple):
    """What an import read: tar bytes after decompression, their SHA-256, entries; sentences for the user.

    ``labels`` follow from what was read. The snapshot gets them, unless its creator gives other values.
    """

    size: int
    digest: str
    entries: int
    warnings: Sequence[str] = ()
    labels: Mapping[str, str] = {}


class Description(NamedTuple):
    """One snapshot at one moment: its info, how to mount it (empty if it is committed), its scratch disk."""

    info: Info
    mounts: List[Mount]
    scratch: Optional[ScratchInfo]


#: core/mount/mount_windows.go: the only mount type that these layers have.
MOUNT_TYPE = "windows-layer"
PARENT_LAYER_PATHS = "parentLayerPaths="


def layer_mount(source: str, parents: List[str], read_only: bool) -> Mount:
    """The mount of a layer directory, parents nearest first.

    The list is Go's compact JSON: ``null`` for no parents, ``<``, ``>`` and
    ``&`` escaped as Go's encoder does. So the text is equal to the one that
    containerd writes for the same paths.
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


def with_article(kind: str) -> str:
    """Return a kind as sentences name it: ``an active snapshot``, ``a view``, ``a committed snapshot``."""
    return {ACTIVE: "an active snapshot", VIEW: "a view", COMMITTED: "a committed snapshot"}[kind]
