# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create an empty dynamic VHDX file."""

from __future__ import annotations

import os
import struct
from typing import Optional

from ...errors import InvalidArgument
from ...failpoint import failpoint
from ...files import StrPath, new_disk_file, write_at
from .bat import bat_length
from .checksum import with_checksum
from .headers import header_bytes
from .structures import (
    ALIGNMENT,
    BAT_GUID,
    DYNAMIC,
    FILE_PARAMETERS,
    FILE_PARAMETERS_GUID,
    FILE_TYPE_SIGNATURE,
    HEADER_OFFSETS,
    IS_REQUIRED,
    IS_VIRTUAL_DISK,
    LOGICAL_SECTOR_SIZE_GUID,
    MAX_BLOCK_SIZE,
    METADATA_GUID,
    METADATA_SIGNATURE,
    METADATA_TABLE_ENTRY,
    METADATA_TABLE_HEADER,
    METADATA_TABLE_SIZE,
    MIB,
    MIN_BLOCK_SIZE,
    NO_GUID,
    PHYSICAL_SECTOR_SIZE_GUID,
    REGION_TABLE_ENTRY,
    REGION_TABLE_HEADER,
    REGION_TABLE_OFFSETS,
    REGION_TABLE_SIGNATURE,
    REGION_TABLE_SIZE,
    SECTOR_SIZES,
    VIRTUAL_DISK_ID_GUID,
    VIRTUAL_DISK_SIZE_GUID,
    DiskInfo,
    Header,
    check_size,
    guid_bytes,
    guid_text,
    new_guid,
)

#: Payload block size of the scratch disks that Windows makes (hcsshim computestorage/helpers.go,
#: containerd plugins/snapshots/windows/cimfs.go). A BAT of 1 MiB then serves disks up to 127 GiB.
DEFAULT_BLOCK_SIZE = MIB

# 2.2.1
_CREATOR = "wcow.snapshotter".encode("utf-16-le")


def _parse_guid(text: Optional[str], name: str) -> bytes:
    if text is None:
        return new_guid()
    try:
        return guid_bytes(text)
    except ValueError:
        raise InvalidArgument(f"invalid {name} {text!r}: must be a GUID without braces") from None


def create(
    path: StrPath,
    virtual_size: int,
    *,
    block_size: int = DEFAULT_BLOCK_SIZE,
    logical_sector_size: int = 512,
    physical_sector_size: int = 4096,
    disk_id: Optional[str] = None,
    write_id: Optional[str] = None,
    flush_name: bool = True,
) -> DiskInfo:
    """Create an empty dynamic VHDX file; exclusively, and durable on return.

    Without ``flush_name`` the caller makes its name durable, by ``sync_directory``.
    ``virtual_size``, 1 byte to 64 TiB, is rounded up to whole logical sectors.
    ``block_size`` is a power of two from 1 MiB to 256 MiB, a sector size is
    512 or 4096. ``disk_id`` (VirtualDiskId) and ``write_id`` (the first
    FileWriteGuid and DataWriteGuid) are GUIDs without braces, by default
    random ones. With both, the same arguments write the same bytes.

    Raises InvalidArgument for a value out of range, AlreadyExists if the file
    exists, NotFound if its directory is missing, Unavailable if the volume is
    full. An error leaves no file.
    """
    path = os.fspath(path)
    if block_size & block_size - 1 or not MIN_BLOCK_SIZE <= block_size <= MAX_BLOCK_SIZE:
        raise InvalidArgument(f"invalid block size {block_size}: must be a power of two from 1 MiB to 256 MiB")
    for size in (logical_sector_size, physical_sector_size):
        if size not in SECTOR_SIZES:
            raise InvalidArgument(f"invalid sector size {size}: must be 512 or 4096")
    disk_guid = _parse_guid(disk_id, "disk id")
    write_guid = _parse_guid(write_id, "write id")
    info = DiskInfo(
        virtual_size=check_size(virtual_size, logical_sector_size),
        block_size=block_size,
        logical_sector_size=logical_sector_size,
        physical_sector_size=physical_sector_size,
        disk_type=DYNAMIC,
        disk_id=guid_text(disk_guid),
        file_size=0,
        log_pending=False,
    )
    # The BAT is last: it can grow in place until the first block is written.
    log_offset, metadata_offset, bat_offset = ALIGNMENT, 2 * ALIGNMENT, 3 * ALIGNMENT
    info = info._replace(file_size=bat_offset + bat_length(info))

    regions = ((BAT_GUID, bat_offset, bat_length(info)), (METADATA_GUID, metadata_offset, ALIGNMENT))
    region_table = REGION_TABLE_HEADER.pack(REGION_TABLE_SIGNATURE, 0, len(regions), 0)
    region_table += b"".join(REGION_TABLE_ENTRY.pack(*region, 1) for region in regions)
    region_table = with_checksum(region_table.ljust(REGION_TABLE_SIZE, b"\0"))

    items = (
        (FILE_PARAMETERS_GUID, IS_REQUIRED, FILE_PARAMETERS.pack(block_size, 0)),
        (VIRTUAL_DISK_SIZE_GUID, IS_REQUIRED | IS_VIRTUAL_DISK, struct.pack("<Q", info.virtual_size)),
        (VIRTUAL_DISK_ID_GUID, IS_REQUIRED | IS_VIRTUAL_DISK, disk_guid),
        (LOGICAL_SECTOR_SIZE_GUID, IS_REQUIRED | IS_VIRTUAL_DISK, struct.pack("<I", logical_sector_size)),
        (PHYSICAL_SECTOR_SIZE_GUID, IS_REQUIRED | IS_VIRTUAL_DISK, struct.pack("<I", physical_sector_size)),
    )
    metadata_table = METADATA_TABLE_HEADER.pack(METADATA_SIGNATURE, 0, len(items), bytes(20))
    item_bytes = b""
    for guid, flags, value in items:
        item_offset = METADATA_TABLE_SIZE + len(item_bytes)
        metadata_table += METADATA_TABLE_ENTRY.pack(guid, item_offset, len(value), flags, 0)
        item_bytes += value

    with new_disk_file(path, f"cannot create disk {path}", info.file_size, flush_name=flush_name) as file:
        file.truncate(info.file_size)
        failpoint("vhdx.create.identifier")
        write_at(file, 0, FILE_TYPE_SIGNATURE + _CREATOR)
        for sequence_number, position in enumerate(HEADER_OFFSETS, 1):
            header = Header(position, sequence_number, write_guid, write_guid, NO_GUID, 0, 1, ALIGNMENT, log_offset)
            failpoint("vhdx.create.header")
            write_at(file, position, header_bytes(header))
        for position in REGION_TABLE_OFFSETS:
            failpoint("vhdx.create.region_table")
            write_at(file, position, region_table)
        failpoint("vhdx.create.metadata")
        write_at(file, metadata_offset, metadata_table)
        write_at(file, metadata_offset + METADATA_TABLE_SIZE, item_bytes)
    return info
