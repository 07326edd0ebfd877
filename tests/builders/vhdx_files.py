# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build VHDX files as other programs write them, from the specification alone.

Only the checksum comes from the code under test. It has its own test vectors.
"""

from __future__ import annotations

import io
import struct
import uuid

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import checksum as checksums
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import reader

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

DISK_ID = "11223344-5566-7788-99aa-bbccddeeff00"
WRITE_ID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
LOG_ID = uuid.UUID("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")

LOG, METADATA, BAT = 1 * MIB, 2 * MIB, 3 * MIB
HEADERS = (64 * KIB, 128 * KIB)
TABLES = (192 * KIB, 256 * KIB)

BAT_GUID = "2dc27766-f623-4200-9d64-115e9bfd4a08"
METADATA_GUID = "8b7ca206-4790-4b9a-b8fe-575f050f886e"
FILE_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
VIRTUAL_DISK_SIZE = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
VIRTUAL_DISK_ID = "beca12ab-b2e6-4523-93ef-c309e000c746"
LOGICAL_SECTOR_SIZE = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
PHYSICAL_SECTOR_SIZE = "cda348c7-445d-4471-9cc9-e9885251c556"
PARENT_LOCATOR = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"
UNKNOWN = "01234567-89ab-cdef-0123-456789abcdef"

USER, VIRTUAL_DISK, REQUIRED = 1, 2, 4
FULLY_PRESENT = 6


def guid(text):
    return uuid.UUID(text).bytes_le


def put(image, offset, data):
    image[offset : offset + len(data)] = data


def checksum(image, offset, length):
    put(image, offset + 4, bytes(4))
    put(image, offset + 4, struct.pack("<I", checksums.crc32c(bytes(image[offset : offset + length]))))


def put_header(image, which, sequence_number, **fields):
    values = {
        "file_write": guid(WRITE_ID),
        "data_write": guid(WRITE_ID),
        "log_guid": bytes(16),
        "log_version": 0,
        "version": 1,
        "log_length": MIB,
        "log_offset": LOG,
    }
    values.update(fields)
    raw = struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, sequence_number, *values.values())
    put(image, HEADERS[which], raw.ljust(4 * KIB, b"\0"))
    checksum(image, HEADERS[which], 4 * KIB)


def put_regions(image, regions, tables=TABLES):
    for offset in tables:
        put(image, offset, struct.pack("<4sIII", b"regi", 0, len(regions), 0))
        for index, (name, start, length, required) in enumerate(regions):
            put(image, offset + 16 + 32 * index, struct.pack("<16sQII", guid(name), start, length, required))
        checksum(image, offset, 64 * KIB)


def put_items(image, items):
    put(image, METADATA, struct.pack("<8sHH20s", b"metadata", 0, len(items), b""))
    for index, (name, offset, flags, value) in enumerate(items):
        entry = struct.pack("<16sIIII", guid(name), offset, len(value), flags, 0)
        put(image, METADATA + 32 + 32 * index, entry)
        put(image, METADATA + offset, value)


REGIONS = [(BAT_GUID, BAT, MIB, 1), (METADATA_GUID, METADATA, MIB, 1)]


def items_for(size, block_size=2 * MIB, flags=0, logical=512, physical=512, locator=b""):
    """Return metadata items in an order and at offsets that the code under test does not use."""
    items = [
        (PHYSICAL_SECTOR_SIZE, 200000, VIRTUAL_DISK | REQUIRED, struct.pack("<I", physical)),
        (LOGICAL_SECTOR_SIZE, 65536, VIRTUAL_DISK | REQUIRED, struct.pack("<I", logical)),
        (VIRTUAL_DISK_ID, 65541, VIRTUAL_DISK | REQUIRED, guid(DISK_ID)),
        # This item crosses the border between two log sectors, so a growth has to log both.
        (VIRTUAL_DISK_SIZE, 19 * 4096 - 3, VIRTUAL_DISK | REQUIRED, struct.pack("<Q", size)),
        (FILE_PARAMETERS, 70000, REQUIRED, struct.pack("<II", block_size, flags)),
        (UNKNOWN, 80000, USER, b"somebody's"),
    ]
    if locator:
        items.append((PARENT_LOCATOR, 90000, REQUIRED, locator))
    return items


def parent_locator(entries):
    table, strings = b"", b""
    start = 20 + 12 * len(entries)
    for key, value in entries.items():
        raw_key, raw_value = key.encode("utf-16-le"), value.encode("utf-16-le")
        key_offset = start + len(strings)
        table += struct.pack("<IIHH", key_offset, key_offset + len(raw_key), len(raw_key), len(raw_value))
        strings += raw_key + raw_value
    kind = guid("b04aefb7-d19e-4a81-b789-25b8e9445913")
    return struct.pack("<16sHH", kind, 0, len(entries)) + table + strings


LOCATOR = parent_locator(
    {
        "parent_linkage": "{" + WRITE_ID + "}",
        "relative_path": ".\\blank-base.vhdx",
        "absolute_win32_path": "\\\\?\\C:\\x",
    }
)


def others_file(size=GIB, **parameters):
    """Return a valid file of 4 MiB as a mutable byte array."""
    image = bytearray(4 * MIB)
    put(image, 0, b"vhdxfile" + "other program".encode("utf-16-le"))
    put_header(image, 0, 8)
    put_header(image, 1, 7)
    put_regions(image, REGIONS)
    put_items(image, items_for(size, **parameters))
    return image


def log_entry(updates, sequence_number, *, tail=0, log_guid=LOG_ID.bytes_le, flushed=4 * MIB, last=4 * MIB):
    """Return a log entry. ``updates`` are (offset, 4 KiB of data) or (offset, length to zero)."""
    descriptors = data = b""
    for offset, what in updates:
        if isinstance(what, int):
            descriptors += struct.pack("<4sIQQQ", b"zero", 0, what, offset, sequence_number)
            continue
        descriptors += struct.pack("<4s4s8sQQ", b"desc", what[-4:], what[:8], offset, sequence_number)
        data += struct.pack("<4sI4084sI", b"data", sequence_number >> 32, what[8:-4], sequence_number & 0xFFFFFFFF)
    length = -(-(64 + len(descriptors)) // 4096) * 4096
    header = struct.pack(
        "<4sIIIQII16sQQ",
        b"loge",
        0,
        length + len(data),
        tail,
        sequence_number,
        len(updates),
        0,
        log_guid,
        flushed,
        last,
    )
    entry = bytearray((header + descriptors).ljust(length, b"\0") + data)
    checksum(entry, 0, len(entry))
    return bytes(entry)


def put_log(image, *entries):
    """Write entries, given as (offset in the log, bytes). An entry wraps at the end of the log."""
    for offset, entry in entries:
        for start in range(0, len(entry), 4096):
            put(image, LOG + (offset + start) % MIB, entry[start : start + 4096])


def size_sectors(image, size):
    """Return the updates that set the virtual size of an ``others_file``."""
    start = METADATA + 18 * 4096
    sectors = bytearray(image[start : start + 2 * 4096])
    put(sectors, 4096 - 3, struct.pack("<Q", size))
    return [(start, bytes(sectors[:4096])), (start + 4096, bytes(sectors[4096:]))]


def pending(image, *entries):
    put_log(image, *entries)
    put_header(image, 1, 9, log_guid=LOG_ID.bytes_le)
    return image


def info_of(image):
    return reader.read_info(io.BytesIO(bytes(image)))


def bat_of(image):
    """Return the offset of the BAT in the first region table."""
    (count,) = struct.unpack_from("<I", image, TABLES[0] + 8)
    for index in range(count):
        name, offset, _, _ = struct.unpack_from("<16sQII", image, TABLES[0] + 16 + 32 * index)
        if name == guid(BAT_GUID):
            return offset
    raise AssertionError("no BAT")


def put_block(image, index, data):
    """Append a payload block that is fully present. ``index`` counts BAT entries."""
    offset = len(image)
    image += data
    put(image, bat_of(image) + 8 * index, struct.pack("<Q", offset | FULLY_PRESENT))


def block_of(image, index):
    (entry,) = struct.unpack_from("<Q", image, bat_of(image) + 8 * index)
    assert entry & 7 == FULLY_PRESENT
    offset = entry >> 20 << 20
    return bytes(image[offset : offset + MIB])


def save(path, image):
    path.write_bytes(bytes(image))
    return path
