# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many of containerd's records use a snapshotter."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import NotFound
from .picture import read_picture


class Users(NamedTuple):
    """The snapshots that containerd keeps in a snapshotter, and the containers that run from it, in all namespaces."""

    snapshots: int
    containers: int
    namespaces: int


def count_users(root: str, snapshotter: str) -> Users:
    """Count the records in meta.db below containerd's root directory; none without that file.

    Records can be changed meanwhile. Raises as ``picture.read_picture``.
    """
    try:
        picture = read_picture(root, snapshotter)
    except NotFound:
        return Users(0, 0, 0)
    snapshots = containers = namespaces = 0
    for namespace in picture.metadata.namespaces.values():
        own = len(namespace.snapshots.get(snapshotter, ()))
        running = sum(each.snapshotter == snapshotter for each in namespace.containers.values())
        snapshots, containers = snapshots + own, containers + running
        namespaces += bool(own or running)
    return Users(snapshots, containers, namespaces)
