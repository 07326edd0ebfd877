# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules for mounts that both layer stores share.

``display_path`` is the store's ``LayerStore.display_path``: it spells the
paths in the messages.
"""

from __future__ import annotations

import os
import stat
from typing import Callable, Sequence

from ..errors import FailedPrecondition, InvalidArgument
from ..failpoint import failpoint
from ..formats.ntfsnames import path_key
from .base import SCRATCH


def check_target(
    target: str,
    layers: Sequence[str],
    is_mount_target: Callable[[str], bool],
    display_path: Callable[[str], str] = str,
) -> None:
    """Raise InvalidArgument if no layer may be mounted at ``target``.

    A target is not the root of a volume, does not lie in another mount, and
    neither contains one of the directories ``layers`` nor lies in one.
    ``is_mount_target`` tells whether something is mounted at a directory.
    """
    if os.path.dirname(target) == target:
        raise InvalidArgument(f"{display_path(target)} is the root of a volume: mount at a directory below it")
    ancestor = os.path.dirname(target)
    while os.path.dirname(ancestor) != ancestor:
        if is_mount_target(ancestor):
            raise InvalidArgument(
                f"{display_path(target)} lies in the mount at {display_path(ancestor)}: mount somewhere else"
            )
        ancestor = os.path.dirname(ancestor)
    resolved = _resolve(target)
    for layer in layers:
        other = _resolve(layer)
        if resolved.startswith(other) or other.startswith(resolved):
            raise InvalidArgument(
                f"mount target {display_path(target)} and layer {display_path(layer)} lie in one another: "
                "mount somewhere else"
            )


def _resolve(path: str) -> str:
    """The path without links, in the case that compares, with a separator at its end."""
    return os.path.join(path_key(os.path.realpath(path)), "")


def check_writable(directory: str, parents: Sequence[str], display_path: Callable[[str], str] = str) -> None:
    """Raise FailedPrecondition if a layer cannot be mounted for writing because it is a read-only layer."""
    # A layer without parents and scratch disk may be an unfinished base, even if it was converted in vain.
    if parents and not os.path.lexists(os.path.join(directory, SCRATCH)):
        raise FailedPrecondition(
            f"{display_path(directory)} is a read-only layer: mount it read-only, or prepare a snapshot of it"
        )


def make_target(target: str, display_path: Callable[[str], str] = str) -> bool:
    """Create the target of a mount if it does not exist; return whether it was created.

    Raises FailedPrecondition if it is anything but an empty directory.
    """
    created = not os.path.lexists(target)
    failpoint("mount.target")
    if created:
        os.makedirs(target)
    elif not stat.S_ISDIR(os.lstat(target).st_mode) or os.listdir(target):
        raise FailedPrecondition(f"{display_path(target)} is not an empty directory: nothing can be mounted there")
    return created
