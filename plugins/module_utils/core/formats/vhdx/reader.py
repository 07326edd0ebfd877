# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a VHDX file: regions, metadata, and what they say about the disk."""

from __future__ import annotations

import os
from typing import BinaryIO, Dict, Optional, Tuple, Union

from ...errors import FailedPrecondition, NotImplementedHere, Unavailable
from ...files import StrPath
from .bat import bat_entries
from .checksum import checksum_matches
from .headers import current_header
from .log import apply_log
from .structures import (
    ALIGNMENT,
    BAT_ENTRY_SIZE,
    BAT_GUID,
    DIFFERENCING,
    DYNAMIC,
    FILE_PARAMETERS,
    FILE_PARAMETERS_GUID,
    FIXED,
    HAS_PARENT,
    IS_REQUIRED,
    IS_USER,
    LEAVE_BLOCK_ALLOCATED,
    LOGICAL_SECTOR_SIZE_GUID,
    MAX_BLOCK_SIZE,
    MAX_ENTRIES,
    MAX_VIRTUAL_SIZE,
    METADATA_GUID,
    METADATA_SIGNATURE,
    METADATA_TABLE_ENTRY,
    METADATA_TABLE_HEADER,
    METADATA_TABLE_SIZE,
    MIB,
    MIN_BLOCK_SIZE,
    NO_GUID,
    PARENT_LOCATOR_GUID,
    PHYSICAL_SECTOR_SIZE_GUID,
    REGION_TABLE_ENTRY,
    REGION_TABLE_HEADER,
    REGION_TABLE_OFFSETS,
    REGION_TABLE_SIGNATURE,
    REGION_TABLE_SIZE,
    SECTOR_SIZES,
    VIRTUAL_DISK_ID_GUID,
    VIRTUAL_DISK_SIZE_GUID,
    Disk,
    DiskInfo,
    Header,
    Region,
    guid_text,
)
from .view import View, open_disk

_READ_ATTEMPTS = 10

# 2.6.1
_MAX_ITEM_LENGTH = MIB
_MAX_USER_ITEMS = 1024

# 2.6.2: name and least length of the items that this module understands.
_METADATA_ITEMS = {
    FILE_PARAMETERS_GUID: ("File Parameters", FILE_PARAMETERS.size),
    VIRTUAL_DISK_SIZE_GUID: ("Virtual Disk Size", 8),
    VIRTUAL_DISK_ID_GUID: ("Virtual Disk ID", 16),
    LOGICAL_SECTOR_SIZE_GUID: ("Logical Sector Size", 4),
    PHYSICAL_SECTOR_SIZE_GUID: ("Physical Sector Size", 4),
    PARENT_LOCATOR_GUID: ("Parent Locator", 20),
}


def read_regions(view: View, header: Header) -> Tuple[bytes, Dict[bytes, Region]]:
    """Return the first valid region table (2.2.3) and its entries by GUID."""
    for position in REGION_TABLE_OFFSETS:
        table = view.read(position, REGION_TABLE_SIZE, "a region table")
        signature, _checksum, count, _reserved = REGION_TABLE_HEADER.unpack_from(table)
        if signature == REGION_TABLE_SIGNATURE and count <= MAX_ENTRIES and checksum_matches(table):
            break
    else:
        raise view.damaged("both region tables are damaged")
    regions: Dict[bytes, Region] = {}
    for index in range(count):
        region = Region(
            index,
            *REGION_TABLE_ENTRY.unpack_from(table, REGION_TABLE_HEADER.size + index * REGION_TABLE_ENTRY.size),
        )
        label = f"region {guid_text(region.guid)}"
        if region.guid in regions:
            raise view.damaged(f"{label} is listed twice")
        if region.offset < ALIGNMENT or region.offset % ALIGNMENT or region.length % ALIGNMENT:
            raise view.damaged(f"{label} is not aligned to 1 MiB")
        if region.end > view.size:
            raise view.damaged(f"{label} lies beyond the end of the file")
        if region.required & 1 and region.guid not in (BAT_GUID, METADATA_GUID):
            raise NotImplementedHere(f"{view.name} requires the unknown {label}", path=view.name)
        regions[region.guid] = region
    for guid, label in ((BAT_GUID, "BAT"), (METADATA_GUID, "metadata")):
        if guid not in regions:
            raise view.damaged(f"it has no {label} region")
    taken = sorted(
        [(header.log_offset, header.log_offset + header.log_length)]
        + [(region.offset, region.end) for region in regions.values()]
    )
    if any(left[1] > right[0] for left, right in zip(taken, taken[1:])):
        raise view.damaged("its regions or its log overlap")
    return table, regions


def _read_metadata(view: View, region: Region) -> Dict[bytes, Tuple[int, bytes]]:
    """Return position in the file and bytes of each known metadata item (2.6); unknown ones are only checked."""
    if region.length < METADATA_TABLE_SIZE:
        raise view.damaged("the metadata region is too small")
    table = view.read(region.offset, METADATA_TABLE_SIZE, "the metadata table")
    signature, _reserved, count, _more_reserved = METADATA_TABLE_HEADER.unpack_from(table)
    if signature != METADATA_SIGNATURE or count > MAX_ENTRIES:
        raise view.damaged("the metadata table is damaged")
    items: Dict[bytes, Tuple[int, bytes]] = {}
    seen = set()
    spans = []
    for index in range(count):
        guid, offset, length, flags, _reserved = METADATA_TABLE_ENTRY.unpack_from(
            table, METADATA_TABLE_HEADER.size + index * METADATA_TABLE_ENTRY.size
        )
        user = bool(flags & IS_USER)
        label, least = f"metadata item {guid_text(guid)}", 0
        known = not user and guid in _METADATA_ITEMS
        if known:
            label, least = _METADATA_ITEMS[guid]
        elif flags & IS_REQUIRED:
            raise NotImplementedHere(f"{view.name} requires the unknown {label}", path=view.name)
        if (guid, user) in seen:
            raise view.damaged(f"{label} is listed twice")
        seen.add((guid, user))
        if length < least or length > _MAX_ITEM_LENGTH:
            raise view.damaged(f"{label} has a length of {length} bytes")
        if length and not METADATA_TABLE_SIZE <= offset <= region.length - length:
            raise view.damaged(f"{label} lies outside the metadata region")
        if length:
            spans.append((offset, offset + length))
        if known:
            position = region.offset + offset
            items[guid] = (position, view.read(position, least, label))
    if sum(user for _guid, user in seen) > _MAX_USER_ITEMS:
        raise view.damaged(f"it has more than {_MAX_USER_ITEMS} user metadata items")
    spans.sort()
    if any(left[1] > right[0] for left, right in zip(spans, spans[1:])):
        raise view.damaged("its metadata items overlap")
    for guid, (label, _flags) in _METADATA_ITEMS.items():
        if guid not in items and guid != PARENT_LOCATOR_GUID:
            raise view.damaged(f"it has no {label} item")
    return items


def load(view: View, header: Header) -> Disk:
    """Check the file except for the contents of its blocks, and return what it says."""
    log_pending = header.log_guid != NO_GUID
    if log_pending:
        apply_log(view, header)
    region_table, regions = read_regions(view, header)
    items = _read_metadata(view, regions[METADATA_GUID])

    block_size, flags = FILE_PARAMETERS.unpack(items[FILE_PARAMETERS_GUID][1])
    virtual_size_position, virtual_size_bytes = items[VIRTUAL_DISK_SIZE_GUID]
    virtual_size = int.from_bytes(virtual_size_bytes, "little")
    logical = int.from_bytes(items[LOGICAL_SECTOR_SIZE_GUID][1], "little")
    physical = int.from_bytes(items[PHYSICAL_SECTOR_SIZE_GUID][1], "little")
    if block_size & block_size - 1 or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise view.damaged(f"its block size is {block_size}")
    if logical not in SECTOR_SIZES or physical not in SECTOR_SIZES:
        raise view.damaged(f"its sector sizes are {logical} and {physical}")
    if virtual_size % logical or virtual_size > MAX_VIRTUAL_SIZE:
        raise view.damaged(f"its virtual size is {virtual_size}")
    disk_type = FIXED if flags & LEAVE_BLOCK_ALLOCATED else DYNAMIC
    if flags & HAS_PARENT:
        disk_type = DIFFERENCING
        if PARENT_LOCATOR_GUID not in items:
            raise view.damaged("it is a differencing disk without a parent locator")
    info = DiskInfo(
        virtual_size=virtual_size,
        block_size=block_size,
        logical_sector_size=logical,
        physical_sector_size=physical,
        disk_type=disk_type,
        disk_id=guid_text(items[VIRTUAL_DISK_ID_GUID][1]),
        file_size=view.file_size,
        log_pending=log_pending,
    )
    bat = regions[BAT_GUID]
    if bat_entries(info) * BAT_ENTRY_SIZE > bat.length:
        raise view.damaged(f"its BAT region is too small for a virtual size of {virtual_size}")
    return Disk(info, header, view.updates, view.size, region_table, bat, virtual_size_position)


def load_stable(file: BinaryIO, name: str) -> Disk:
    """Load while another process may write to the file.

    Every writer changes the header before and after its other changes. So the
    values are consistent if the header is the same before and after reading
    them. The length of the file is one of these values: the header is read
    first, and then a new view takes the length.
    """
    for _attempt in range(_READ_ATTEMPTS):
        header = current_header(View(file, name))
        damage: Optional[FailedPrecondition] = None
        try:
            disk = load(View(file, name), header)
        except FailedPrecondition as error:
            damage = error
        if current_header(View(file, name)) == header:
            if damage:
                raise damage
            return disk
    raise Unavailable(f"{name} is being changed by another process; run the task again", path=name)


def read_info(path_or_file: Union[StrPath, BinaryIO]) -> DiskInfo:
    """Return what a VHDX file of any type, written by any program, says about its disk.

    Reads the headers, a pending log, the region tables and the metadata, not
    the blocks. Writes nothing; another process may have the file open. A
    pending log is applied in memory. The position of a file object changes.

    Raises NotFound for a missing file, FailedPrecondition for a damaged one
    (the message says what is wrong), NotImplementedHere for one that needs
    a feature that is not supported here, Unavailable if the file is in use or
    changes all the time.
    """
    if not isinstance(path_or_file, (str, os.PathLike)):
        return load_stable(path_or_file, str(getattr(path_or_file, "name", "the file"))).info
    path = os.fspath(path_or_file)
    with open_disk(path, "rb", "cannot read disk") as file:
        return load_stable(file, path).info
