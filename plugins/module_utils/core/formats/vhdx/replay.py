# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replay the log of a VHDX file: write its updates to their places (2.3.3)."""

from __future__ import annotations

import os
from typing import BinaryIO, List

from ...failpoint import failpoint
from ...files import StrPath, write_at
from .headers import write_header
from .reader import load_stable
from .structures import ALIGNMENT, HEADER_OFFSETS, NO_GUID, Disk, DiskInfo, Header, Update, new_guid
from .view import open_disk


def finish_log(file: BinaryIO, header: Header, updates: List[Update], file_size: int) -> None:
    """Write the updates of the pending log to their places, then mark the log as empty.

    ``file_size`` is the least length of the file afterwards. Idempotent: after
    a crash at any point the next replay writes the same updates again.
    """
    present = file.seek(0, os.SEEK_END)
    failpoint("vhdx.log.extend")
    if present < file_size:
        file.truncate(file_size)
    for update in updates:
        failpoint("vhdx.log.apply")
        if update.data is not None:
            write_at(file, update.offset, update.data)
            continue
        # After the old end the file is already zero.
        for start in range(update.offset, min(update.offset + update.length, present), ALIGNMENT):
            write_at(file, start, bytes(min(ALIGNMENT, update.offset + update.length - start)))
    failpoint("vhdx.log.flush")
    os.fsync(file.fileno())
    for _header in HEADER_OFFSETS:
        header = write_header(file, header, log_guid=NO_GUID)


def replay_pending(file: BinaryIO, disk: Disk, name: str) -> Disk:
    """Replay a pending log of the disk that was read from ``file``, and return what the file says then."""
    if disk.info.log_pending:
        _replay(file, disk)
        disk = load_stable(file, name)
    return disk


def _replay(file: BinaryIO, disk: Disk) -> None:
    header = write_header(file, disk.header, file_write_guid=new_guid())
    finish_log(file, header, disk.updates, disk.size_after_replay)


def replay_log(path: StrPath) -> DiskInfo:
    """Write the updates of a pending log to their places (2.3.3); write nothing if no log is pending.

    A crash at any instruction is safe. The file is checked, as it will be
    after the replay, before the first byte is written. Raises what
    ``read_info`` raises.
    """
    path = os.fspath(path)
    with open_disk(path, "r+b", "cannot replay the log of disk") as file:
        return replay_pending(file, load_stable(file, path), path).info
