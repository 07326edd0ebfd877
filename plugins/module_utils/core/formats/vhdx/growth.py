# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Grow a VHDX disk.

``grow`` changes structures in different places: the virtual disk size in the
metadata region, the offset and length of the BAT in both region tables. So it
uses the log as section 2.3 asks. The order, with a flush after each step:

1. the other header: a new FileWriteGuid (2.2.2.1);
2. the new BAT, if the old one is too small, in space that nothing refers to,
   and one log entry with every 4 KB sector that has to change;
3. the other header: LogGuid names that entry, new DataWriteGuid;
4. the remaining header, the same;
5. the sectors in their final places;
6. both headers, one after the other: LogGuid zero.

Before step 3 is on the disk the file has the old size. From then on it has the
new size, whichever of the later steps are lost: opening the file replays the
log. A torn header fails its checksum and leaves the other one current.
Section 2.2.2 asks to set LogGuid before the log is overwritten. This module
sets it afterwards. The purpose of that rule is that no stale entry counts, and
none counts while LogGuid is zero. In the order of the specification, a crash
between the two leaves a log without a valid sequence, which section 2.3.3
calls corrupt.

``grow_new`` makes the same changes to a file that no other process knows yet,
without log and order: the caller flushes the whole file once, or removes it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from typing import BinaryIO, List, NamedTuple, Tuple

from ...errors import FailedPrecondition, NotImplementedHere
from ...failpoint import failpoint
from ...files import StrPath, file_error, write_at
from .bat import bat_entries, bat_length, end_of_structures, nonzero_pieces
from .checksum import with_checksum
from .headers import write_header
from .log import log_entry_bytes, sector_updates
from .reader import load_stable
from .replay import finish_log, replay_pending
from .structures import (
    ALIGNMENT,
    BAT_ENTRY_SIZE,
    FIXED,
    HEADER_OFFSETS,
    REGION_TABLE_ENTRY,
    REGION_TABLE_HEADER,
    REGION_TABLE_OFFSETS,
    Disk,
    DiskInfo,
    Region,
    check_size,
    new_guid,
    round_up,
)
from .view import open_disk


def _place_bat(file: BinaryIO, disk: Disk, grown: DiskInfo, name: str) -> Tuple[Region, int]:
    """Return where the BAT of the grown disk goes, and the length that the file then needs."""
    used = bat_entries(disk.info) * BAT_ENTRY_SIZE
    needed = bat_length(grown)
    # New entries must read as zero: PAYLOAD_BLOCK_NOT_PRESENT. The specification does not promise that
    # for the unused rest of the region. If the rest is not zero, the BAT moves to a new region.
    rest_is_zero = not any(True for _piece in nonzero_pieces(file, disk.bat.offset + used, disk.bat.length - used))
    if needed <= disk.bat.length and rest_is_zero:
        return disk.bat, round_up(disk.info.file_size, ALIGNMENT)
    end = end_of_structures(file, disk, name)
    offset = disk.bat.offset if disk.bat.end == end and rest_is_zero else end
    return disk.bat._replace(offset=offset, length=needed), offset + needed


class _Growth(NamedTuple):
    """What growing a disk changes: its size, the place of its BAT, the length of the file, and (offset, data)."""

    info: DiskInfo
    bat: Region
    file_size: int
    writes: List[Tuple[int, bytes]]


def _plan_growth(file: BinaryIO, disk: Disk, new_size: int, name: str) -> _Growth:
    grown = disk.info._replace(virtual_size=new_size, log_pending=False)
    bat, file_size = _place_bat(file, disk, grown, name)
    writes = [(disk.virtual_size_position, struct.pack("<Q", new_size))]
    if bat != disk.bat:
        table = bytearray(disk.region_table)
        entry_offset = REGION_TABLE_HEADER.size + bat.entry_index * REGION_TABLE_ENTRY.size
        REGION_TABLE_ENTRY.pack_into(table, entry_offset, *bat[1:])
        region_table = with_checksum(bytes(table))
        writes += [(position, region_table) for position in REGION_TABLE_OFFSETS]
    return _Growth(grown._replace(file_size=file_size), bat, file_size, writes)


def _copy_bat(file: BinaryIO, disk: Disk, bat: Region) -> None:
    """Write the entries of the BAT to its new place, if it moves."""
    if bat.offset != disk.bat.offset:
        for start, piece in nonzero_pieces(file, disk.bat.offset, bat_entries(disk.info) * BAT_ENTRY_SIZE):
            failpoint("vhdx.grow.bat")
            write_at(file, bat.offset + start, piece)


def _refuse_fixed(info: DiskInfo, what: str) -> None:
    if info.disk_type == FIXED:
        raise NotImplementedHere(f"{what}: it is a fixed disk; grow it with Resize-VHD or convert it to a dynamic one")


def grow_new(file: BinaryIO, new_size: int, name: str) -> DiskInfo:
    """Grow the open file of a disk that no other process knows yet, as ``grow`` does; OSError is not translated.

    The caller makes the file durable, or removes it, as a whole. So the log,
    the order of changes and flushes are not needed.
    """
    disk = load_stable(file, name)
    new_size = check_size(new_size, disk.info.logical_sector_size)
    if new_size <= disk.info.virtual_size:
        return disk.info
    _refuse_fixed(disk.info, f"cannot grow disk {name}")
    disk = replay_pending(file, disk, name)
    growth = _plan_growth(file, disk, new_size, name)
    failpoint("vhdx.grow_new.extend")
    file.truncate(growth.file_size)
    _copy_bat(file, disk, growth.bat)
    for offset, data in growth.writes:
        failpoint("vhdx.grow_new.write")
        write_at(file, offset, data)
    failpoint("vhdx.grow_new.header")
    write_header(file, disk.header, flush=False, file_write_guid=new_guid(), data_write_guid=new_guid())
    failpoint("vhdx.grow_new.done")
    return growth.info


def grow(path: StrPath, new_size: int) -> DiskInfo:
    """Make the virtual size at least ``new_size`` bytes, in place; returns what the disk is then.

    ``new_size``, 1 byte to 64 TiB, is rounded up to whole logical sectors. A
    disk that is already large enough is not changed. After a crash at any
    instruction a reader finds the old size or the new one (see the module
    docstring). The caller ensures that no other process writes to the file.

    Differencing disks grow too: the linkage to the parent holds the parent's
    GUID, not the child's, new blocks start as not present, and Windows does
    the same with its own scratch disks, which are differencing. A disk that is
    itself a parent must not grow, because its children would reject it
    (2.6.2.6.3). The file does not say whether it is one: the caller must know.

    Raises NotImplementedHere for fixed disks, because all of their new blocks
    would have to be allocated; otherwise what ``read_info`` and ``create``
    raise.
    """
    path = os.fspath(path)
    with open_disk(path, "rb", "cannot read disk") as file:
        disk = load_stable(file, path)
    new_size = check_size(new_size, disk.info.logical_sector_size)
    if new_size <= disk.info.virtual_size:
        return disk.info
    what = f"cannot grow disk {path}"
    _refuse_fixed(disk.info, what)
    with open_disk(path, "r+b", "cannot grow disk") as file:
        disk = replay_pending(file, disk, path)
        growth = _plan_growth(file, disk, new_size, path)
        try:
            _grow_safely(file, disk, growth, what, path)
        except OSError as error:
            raise file_error(error, what, path, growth.file_size - disk.info.file_size) from error
        return growth.info


def _grow_safely(file: BinaryIO, disk: Disk, growth: _Growth, what: str, path: str) -> None:
    """Make the changes in the order that the module docstring describes."""
    updates = sector_updates(file, growth.writes)
    log_guid = new_guid()
    log_entry = log_entry_bytes(updates, log_guid, growth.file_size)
    if len(log_entry) > disk.header.log_length:
        raise FailedPrecondition(f"{what}: it has no log to do that safely", path=path)

    header = write_header(file, disk.header, file_write_guid=new_guid())
    try:
        failpoint("vhdx.grow.extend")
        file.truncate(growth.file_size)
        _copy_bat(file, disk, growth.bat)
        failpoint("vhdx.grow.log")
        write_at(file, header.log_offset, log_entry)
        failpoint("vhdx.grow.flush")
        os.fsync(file.fileno())
        failpoint("vhdx.grow.flushed")
    except OSError:
        # Nothing refers to the new space yet.
        with contextlib.suppress(OSError):
            file.truncate(disk.info.file_size)
        raise
    data_guid = new_guid()
    for _header in HEADER_OFFSETS:
        header = write_header(file, header, log_guid=log_guid, log_version=0, data_write_guid=data_guid)
    finish_log(file, header, updates, growth.file_size)
