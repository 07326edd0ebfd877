# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The structures of MS-VHDX: where they lie, their fields, and GUIDs.

Numbers in comments are sections of [MS-VHDX], revision 8.0, and the names of
structures and fields in this package are those of the specification. This
module, ``checksum`` and ``log`` work on bytes. The other modules read and write
files, and translate errors of the operating system.
"""

from __future__ import annotations

import os
import struct
from typing import List, NamedTuple, Optional

from ...errors import InvalidArgument

KIB = 1024
MIB = 1024 * KIB
TIB = 1024 * 1024 * MIB

#: 2.6.2.2: the largest VirtualDiskSize, in bytes.
MAX_VIRTUAL_SIZE = 64 * TIB
#: 2.6.2.4 and 2.6.2.5.
SECTOR_SIZES = (512, 4096)

FIXED = "fixed"
DYNAMIC = "dynamic"
DIFFERENCING = "differencing"

# 2.1: everything after the header section is aligned to this.
ALIGNMENT = MIB
# 2.2.1
FILE_TYPE_SIGNATURE = b"vhdxfile"
# 2.2.2
HEADER_OFFSETS = (64 * KIB, 128 * KIB)
HEADER_SIZE = 4 * KIB
HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
HEADER_SIGNATURE = b"head"
# 2.2.3
REGION_TABLE_OFFSETS = (192 * KIB, 256 * KIB)
REGION_TABLE_SIZE = 64 * KIB
REGION_TABLE_HEADER = struct.Struct("<4sIII")
REGION_TABLE_ENTRY = struct.Struct("<16sQII")
REGION_TABLE_SIGNATURE = b"regi"
MAX_ENTRIES = 2047
# 2.3.1
LOG_SECTOR = 4 * KIB
# 2.5.1
BAT_ENTRY_SIZE = 8
# 2.6.1
METADATA_TABLE_SIZE = 64 * KIB
METADATA_TABLE_HEADER = struct.Struct("<8sHH20s")
METADATA_TABLE_ENTRY = struct.Struct("<16sIIII")
METADATA_SIGNATURE = b"metadata"
IS_USER = 1
IS_VIRTUAL_DISK = 2
IS_REQUIRED = 4
# 2.6.2.1
FILE_PARAMETERS = struct.Struct("<II")
MIN_BLOCK_SIZE = MIB
MAX_BLOCK_SIZE = 256 * MIB
LEAVE_BLOCK_ALLOCATED = 1
HAS_PARENT = 2


class DiskInfo(NamedTuple):
    """What a VHDX file says about its disk. Sizes are in bytes.

    ``disk_type`` is ``fixed``, ``dynamic`` or ``differencing``. ``disk_id`` is
    VirtualDiskId as a lower-case GUID without braces. ``file_size`` is the
    present length of the file. With ``log_pending`` the other values are the
    ones after a replay of the log.
    """

    virtual_size: int
    block_size: int
    logical_sector_size: int
    physical_sector_size: int
    disk_type: str
    disk_id: str
    file_size: int
    log_pending: bool


class Header(NamedTuple):
    """A valid header (2.2.2) and its position in the file."""

    position: int
    sequence_number: int
    file_write_guid: bytes
    data_write_guid: bytes
    log_guid: bytes
    log_version: int
    version: int
    log_length: int
    log_offset: int


class Region(NamedTuple):
    """A region table entry (2.2.3.2) and its index in the table."""

    entry_index: int
    guid: bytes
    offset: int
    length: int
    required: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class Update(NamedTuple):
    """A write that the log contains; ``data`` None writes zeros."""

    offset: int
    length: int
    data: Optional[bytes]


class Disk(NamedTuple):
    """A checked file: the public facts, and what a change of the file needs."""

    info: DiskInfo
    header: Header
    updates: List[Update]
    size_after_replay: int
    region_table: bytes
    bat: Region
    virtual_size_position: int


def round_up(value: int, unit: int) -> int:
    """Return the next multiple of ``unit`` at or above ``value``."""
    return -(-value // unit) * unit


def check_size(virtual_size: int, logical_sector_size: int) -> int:
    """Return ``virtual_size`` rounded up to whole sectors; InvalidArgument outside 1 byte to 64 TiB."""
    if not 0 < virtual_size <= MAX_VIRTUAL_SIZE:
        raise InvalidArgument(
            f"invalid disk size {virtual_size}: must be from 1 to {MAX_VIRTUAL_SIZE} bytes (64 TiB)", size=virtual_size
        )
    return round_up(virtual_size, logical_sector_size)


def guid_bytes(text: str) -> bytes:
    """Return a GUID in binary form. On Windows the import of the uuid module starts a process, so it is not used."""
    digits = text.split("-")
    if [len(part) for part in digits] != [8, 4, 4, 4, 12]:
        raise ValueError(text)
    raw = bytes.fromhex("".join(digits))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_text(guid: bytes) -> str:
    """Return a binary GUID as lower-case text without braces."""
    raw = (guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]).hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def new_guid() -> bytes:
    """Return a random (version 4) GUID in binary form."""
    raw = bytearray(os.urandom(16))
    raw[7] = raw[7] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


NO_GUID = bytes(16)
BAT_GUID = guid_bytes("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_GUID = guid_bytes("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS_GUID = guid_bytes("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
VIRTUAL_DISK_SIZE_GUID = guid_bytes("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
VIRTUAL_DISK_ID_GUID = guid_bytes("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR_SIZE_GUID = guid_bytes("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR_SIZE_GUID = guid_bytes("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR_GUID = guid_bytes("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
