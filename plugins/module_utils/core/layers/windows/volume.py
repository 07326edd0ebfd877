# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NTFS volume inside a scratch disk (hcsshim internal/wclayer/expandscratchsize.go)."""

from __future__ import annotations

import os
from typing import Optional

from ...win32 import kernel32, virtdisk, vmcompute
from ...win32.errors import ERROR_SHARING_VIOLATION, Win32Error
from ..base import SCRATCH

# The template's volume has clusters of 4 KiB, its disk sectors of 512 bytes.
_CLUSTER = 4096
_SECTOR = 512


def grow(directory: str) -> None:
    """Grow the volume of a scratch disk to the size of its partition. The disk must not be attached.

    ExpandSandboxSize grows only the disk and the partition. The disk is
    attached for the growth and always detached again.
    """
    with virtdisk.open_virtual_disk(os.path.join(directory, SCRATCH)) as disk:
        virtdisk.attach_virtual_disk(disk)
        path = vmcompute.get_layer_mount_path(directory)
        with kernel32.open_volume(path) as volume:
            clusters = kernel32.get_length(volume) // _CLUSTER
            # NTFS reserves one cluster, and Windows rejects a size that is not larger.
            if kernel32.volume_size(path) // _CLUSTER + 1 < clusters:
                kernel32.extend_volume(volume, clusters * (_CLUSTER // _SECTOR))


def size(directory: str) -> Optional[int]:
    """Bytes of the volume of a mounted layer; None if Windows does not tell."""
    try:
        return kernel32.volume_size(vmcompute.get_layer_mount_path(directory))
    except Win32Error:
        return None


def is_in_use(path: str) -> bool:
    """Whether another program forbids writing to a disk file, as Windows does while the disk is attached."""
    try:
        with kernel32.create_file(path, kernel32.GENERIC_READ | kernel32.GENERIC_WRITE):
            return False
    except Win32Error as error:
        if error.winerror != ERROR_SHARING_VIOLATION:
            raise
        return True
