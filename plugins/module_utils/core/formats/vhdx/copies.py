# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check and repair the structures that a VHDX file holds twice.

These are the headers (2.2.2) and the region tables (2.2.3). One good copy is
enough to use the disk.
"""

from __future__ import annotations

import os
from typing import List, Tuple

from ...failpoint import failpoint
from ...files import StrPath, write_at
from .bat import end_of_structures
from .checksum import checksum_matches
from .headers import current_header, write_header
from .reader import load_stable, read_regions
from .replay import replay_log
from .structures import (
    HEADER_OFFSETS,
    HEADER_SIGNATURE,
    HEADER_SIZE,
    REGION_TABLE_OFFSETS,
    REGION_TABLE_SIZE,
    DiskInfo,
    new_guid,
)
from .view import View, open_disk


def _damaged_copies(view: View) -> Tuple[List[int], List[int], bytes]:
    """Return the offsets of damaged headers and region tables that have a good copy, and the good table."""
    headers = []
    for position in HEADER_OFFSETS:
        raw = view.read(position, HEADER_SIZE, "a header")
        if raw[: len(HEADER_SIGNATURE)] != HEADER_SIGNATURE or not checksum_matches(raw):
            headers.append(position)
    good, _regions = read_regions(view, current_header(view))
    tables = [
        position
        for position in REGION_TABLE_OFFSETS
        if view.read(position, REGION_TABLE_SIZE, "a region table") != good
    ]
    return headers, tables, good


def check(path: StrPath) -> List[str]:
    """Read the file except for the contents of the blocks; returns the names of damaged copies.

    A name is ``header 1`` or ``region table 2``. A pending log is not damage.
    Raises FailedPrecondition for a disk that cannot be used, also for one with
    blocks beyond the end of the file; otherwise what ``read_info`` raises.
    """
    path = os.fspath(path)
    with open_disk(path, "rb", "cannot read disk") as file:
        disk = load_stable(file, path)
        end_of_structures(file, disk, path)
        if disk.info.log_pending:
            return []
        headers, tables, _good = _damaged_copies(View(file, path))
    found = [f"header {HEADER_OFFSETS.index(position) + 1}" for position in headers]
    return found + [f"region table {REGION_TABLE_OFFSETS.index(position) + 1}" for position in tables]


def repair(path: StrPath) -> DiskInfo:
    """Rewrite damaged copies from the good ones, and replay a pending log.

    A crash at any instruction is safe: the good copy is not changed. The
    caller ensures that no other process writes to the file. Raises what
    ``check`` raises.
    """
    path = os.fspath(path)
    replay_log(path)
    with open_disk(path, "r+b", "cannot repair disk") as file:
        disk = load_stable(file, path)
        headers, tables, good = _damaged_copies(View(file, path))
        for position in tables:
            failpoint("vhdx.repair.region_table")
            write_at(file, position, good)
        failpoint("vhdx.repair.flush")
        os.fsync(file.fileno())
        failpoint("vhdx.repair.flushed")
        if headers:
            write_header(file, disk.header, file_write_guid=new_guid())
        return load_stable(file, path).info
