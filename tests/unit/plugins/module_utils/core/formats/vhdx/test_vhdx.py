# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test VHDX files: field by field, with damage in every place, and with a crash at every write.

The tests build files "written by others" from the specification. They use only the checksum of the code under test,
which has its own test vectors.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import random
import struct
import subprocess
import sys
import uuid

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import (
    checksum as checksums,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import (
    creation,
    growth,
    headers,
    reader,
    replay,
    structures,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import view as views
from ansible_collections.wcow.snapshotter.tests.builders.vhdx_files import (
    BAT,
    BAT_GUID,
    DISK_ID,
    FILE_PARAMETERS,
    FULLY_PRESENT,
    GIB,
    HEADERS,
    KIB,
    LOCATOR,
    LOG_ID,
    LOGICAL_SECTOR_SIZE,
    METADATA,
    METADATA_GUID,
    MIB,
    PHYSICAL_SECTOR_SIZE,
    REGIONS,
    REQUIRED,
    TABLES,
    TIB,
    UNKNOWN,
    USER,
    VIRTUAL_DISK,
    VIRTUAL_DISK_ID,
    VIRTUAL_DISK_SIZE,
    WRITE_ID,
    bat_of,
    block_of,
    checksum,
    guid,
    info_of,
    items_for,
    log_entry,
    others_file,
    pending,
    put,
    put_block,
    put_header,
    put_items,
    put_regions,
    save,
    size_sectors,
)
from hypothesis import given
from hypothesis import strategies as st

# -- checksums and GUIDs ---------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # from RFC 3720 B.4, with the check value of the CRC catalogue
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_vectors(data, crc):
    assert checksums.crc32c(data) == crc


@given(st.binary(max_size=40), st.integers(0, 700))
def test_crc32c_of_a_zero_tail_is_what_byte_by_byte_gives(data, zeros):
    crc = 0xFFFFFFFF
    for byte in data + bytes(zeros):
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert checksums.crc32c(data + bytes(zeros)) == crc ^ 0xFFFFFFFF


@given(st.uuids())
def test_guids_in_binary_form(value):
    assert structures.guid_bytes(str(value)) == value.bytes_le
    assert structures.guid_text(value.bytes_le) == str(value)


def test_new_guids_are_random_ones():
    one, other = (uuid.UUID(bytes_le=structures.new_guid()) for _ in range(2))
    assert one != other
    assert (one.version, one.variant) == (4, uuid.RFC_4122)


# -- create ----------------------------------------------------------------------


def test_create_writes_these_very_fields(tmp_path):
    path = tmp_path / "disk.vhdx"
    info = creation.create(path, 20 * GIB, disk_id=DISK_ID, write_id=WRITE_ID)
    assert info == structures.DiskInfo(20 * GIB, MIB, 512, 4096, "dynamic", DISK_ID, 4 * MIB, False)
    image = path.read_bytes()
    assert len(image) == 4 * MIB
    assert image[:42] == b"vhdxfile" + "wcow.snapshotter".encode("utf-16-le") + b"\0\0"

    for sequence_number, offset in ((1, 64 * KIB), (2, 128 * KIB)):
        header = struct.unpack_from("<4sIQ16s16s16sHHIQ", image, offset)
        assert header[0] == b"head"
        assert header[2:] == (sequence_number, guid(WRITE_ID), guid(WRITE_ID), bytes(16), 0, 1, MIB, MIB)
        assert image[offset + 80 : offset + 4096] == bytes(4016)
        raw = bytearray(image[offset : offset + 4096])
        checksum(raw, 0, 4096)
        assert raw == image[offset : offset + 4096]

    table = image[192 * KIB : 256 * KIB]
    assert table == image[256 * KIB : 320 * KIB]
    assert struct.unpack_from("<4sIII", table)[2:] == (2, 0)
    assert struct.unpack_from("<16sQII", table, 16) == (guid(BAT_GUID), 3 * MIB, MIB, 1)
    assert struct.unpack_from("<16sQII", table, 48) == (guid(METADATA_GUID), 2 * MIB, MIB, 1)
    assert table[80:] == bytes(64 * KIB - 80)

    metadata = image[2 * MIB : 3 * MIB]
    assert struct.unpack_from("<8sHH20s", metadata) == (b"metadata", 0, 5, bytes(20))
    found = {}
    for index in range(5):
        name, offset, length, flags, _ = struct.unpack_from("<16sIIII", metadata, 32 + 32 * index)
        found[str(uuid.UUID(bytes_le=name))] = (flags, metadata[offset : offset + length])
    assert found == {
        FILE_PARAMETERS: (REQUIRED, struct.pack("<II", MIB, 0)),
        VIRTUAL_DISK_SIZE: (VIRTUAL_DISK | REQUIRED, struct.pack("<Q", 20 * GIB)),
        VIRTUAL_DISK_ID: (VIRTUAL_DISK | REQUIRED, guid(DISK_ID)),
        LOGICAL_SECTOR_SIZE: (VIRTUAL_DISK | REQUIRED, struct.pack("<I", 512)),
        PHYSICAL_SECTOR_SIZE: (VIRTUAL_DISK | REQUIRED, struct.pack("<I", 4096)),
    }
    assert image[MIB : 2 * MIB] == bytes(MIB)
    assert image[3 * MIB :] == bytes(MIB)


def test_create_is_deterministic_with_both_ids_and_unique_without(tmp_path):
    paths = [tmp_path / name for name in "abcd"]
    for path in paths[:2]:
        creation.create(path, GIB, disk_id=DISK_ID.upper(), write_id=WRITE_ID)
    one, other = (creation.create(path, GIB) for path in paths[2:])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert one.disk_id != other.disk_id
    assert paths[2].read_bytes()[80 * KIB :] != paths[3].read_bytes()[80 * KIB :]


@pytest.mark.parametrize("size", [1, 512, 513, MIB, 127 * GIB, 128 * GIB, 2 * TIB + 1, 64 * TIB - 1, 64 * TIB])
@pytest.mark.parametrize("block_size", [MIB, 32 * MIB, 256 * MIB])
@pytest.mark.parametrize(("logical", "physical"), [(512, 512), (512, 4096), (4096, 4096)])
def test_what_create_says_is_what_read_info_finds(tmp_path, size, block_size, logical, physical):
    path = tmp_path / "disk.vhdx"
    info = creation.create(
        path, size, block_size=block_size, logical_sector_size=logical, physical_sector_size=physical, disk_id=DISK_ID
    )
    rounded = -(-size // logical) * logical
    assert info == reader.read_info(path)
    assert info[:6] == (rounded, block_size, logical, physical, "dynamic", DISK_ID)
    assert info.file_size == path.stat().st_size
    entries = -(-rounded // block_size)
    entries += (entries - 1) // (2**23 * logical // block_size)
    assert info.file_size == 3 * MIB + -(-entries * 8 // MIB) * MIB
    if hasattr(os, "SEEK_HOLE"):
        assert path.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"virtual_size": 0}, "invalid disk size 0: must be from 1 to 70368744177664 bytes (64 TiB)"),
        ({"virtual_size": -1}, "invalid disk size -1: must be from 1 to 70368744177664 bytes (64 TiB)"),
        ({"virtual_size": 64 * TIB + 1}, "invalid disk size 70368744177665: must be from 1 to"),
        ({"block_size": 0}, "invalid block size 0: must be a power of two from 1 MiB to 256 MiB"),
        ({"block_size": 3 * MIB}, "invalid block size 3145728: "),
        ({"block_size": 512 * KIB}, "invalid block size 524288: "),
        ({"block_size": 512 * MIB}, "invalid block size 536870912: "),
        ({"logical_sector_size": 1024}, "invalid sector size 1024: must be 512 or 4096"),
        ({"physical_sector_size": 0}, "invalid sector size 0: must be 512 or 4096"),
        ({"disk_id": "{" + DISK_ID + "}"}, "invalid disk id '{11223344-"),
        ({"disk_id": "gg" + DISK_ID[2:]}, "invalid disk id 'gg223344-"),
        ({"write_id": ""}, "invalid write id '': must be a GUID without braces"),
    ],
)
def test_create_refuses_and_leaves_nothing(tmp_path, arguments, message):
    with pytest.raises(errors.InvalidArgument) as caught:
        creation.create(tmp_path / "disk.vhdx", **{"virtual_size": GIB, **arguments})
    assert caught.value.message.startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_create_never_touches_what_is_there(tmp_path):
    path = tmp_path / "disk.vhdx"
    path.write_bytes(b"precious")
    with pytest.raises(errors.AlreadyExists, match=r"cannot create disk .*disk\.vhdx: File exists"):
        creation.create(path, GIB)
    assert path.read_bytes() == b"precious"
    if os.name == "posix":  # Windows creates the target of a link.
        link = tmp_path / "link.vhdx"
        link.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(errors.AlreadyExists):
            creation.create(link, GIB)
        assert not (tmp_path / "elsewhere").exists()


def test_create_without_the_directory(tmp_path):
    with pytest.raises(errors.NotFound, match=r"cannot create disk .*missing"):
        creation.create(tmp_path / "missing" / "disk.vhdx", GIB)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_create_on_a_full_volume_says_what_is_needed_and_leaves_nothing(tmp_path, monkeypatch, code):
    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "disk.vhdx"
    with pytest.raises(errors.Unavailable) as caught:
        creation.create(path, GIB)
    assert f"cannot create disk {path}: {os.strerror(code)}: needs {4 * MIB} bytes, " in caught.value.message
    assert caught.value.details["needed"] == 4 * MIB
    assert f"{caught.value.details['free']} free on {caught.value.details['volume']}" in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), errors.FailedPrecondition),
        (OSError(errno.EROFS, "Read-only file system"), errors.FailedPrecondition),
        (OSError(errno.EFBIG, "File too large"), errors.FailedPrecondition),
        (OSError(errno.EIO, "Input/output error"), errors.Internal),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_create_leaves_nothing_on_other_errors(tmp_path, monkeypatch, error, expected):
    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected):
        creation.create(tmp_path / "disk.vhdx", GIB)
    assert list(tmp_path.iterdir()) == []


def test_create_flushes_file_and_directory(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def recording(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    path = tmp_path / "disk.vhdx"
    creation.create(path, GIB)
    expected = [path.stat().st_ino] + ([tmp_path.stat().st_ino] if os.name == "posix" else [])
    assert flushed == expected


# -- read_info -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "disk_type"),
    [
        ({"flags": 0}, "dynamic"),
        ({"flags": 1}, "fixed"),
        ({"flags": 2, "locator": LOCATOR}, "differencing"),
        ({"flags": 3, "locator": LOCATOR}, "differencing"),
    ],
)
def test_read_info_of_each_disk_type(parameters, disk_type):
    image = others_file(3 * GIB, logical=4096, physical=4096, **parameters)
    assert info_of(image) == structures.DiskInfo(3 * GIB, 2 * MIB, 4096, 4096, disk_type, DISK_ID, 4 * MIB, False)


def test_read_info_takes_paths_and_files(tmp_path):
    path = save(tmp_path / "disk.vhdx", others_file())
    expected = reader.read_info(path)
    assert reader.read_info(str(path)) == expected
    with open(path, "rb") as buffered:
        assert reader.read_info(buffered) == expected


def test_read_info_while_another_process_has_the_file_open_for_writing(tmp_path):
    path = save(tmp_path / "disk.vhdx", others_file())
    holder = subprocess.Popen(
        [sys.executable, "-c", f"f = open({str(path)!r}, 'r+b'); print('open', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline().strip() == b"open"
        assert reader.read_info(path).virtual_size == GIB
    finally:
        holder.communicate(b"\n", timeout=10)


def test_read_info_needs_no_right_to_write(tmp_path):
    path = save(tmp_path / "disk.vhdx", others_file())
    path.chmod(0o400)
    before = path.stat()
    reader.read_info(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_read_info_of_missing_file_and_directory(tmp_path):
    with pytest.raises(errors.NotFound, match=r"cannot read disk .*none\.vhdx"):
        reader.read_info(tmp_path / "none.vhdx")
    with pytest.raises(errors.SnapshotterError, match="cannot read disk"):
        reader.read_info(tmp_path)


def test_the_header_with_the_greater_sequence_number_counts():
    image = others_file()
    put_header(image, 0, 7, log_offset=2**40)
    put_header(image, 1, 8)
    assert info_of(image).virtual_size == GIB
    put_header(image, 0, 9, log_offset=2**40)
    with pytest.raises(errors.FailedPrecondition, match="the log lies beyond the end of the file"):
        info_of(image)
    image[HEADERS[0] + 100] ^= 1  # This header is not valid any more, so the other one is current.
    assert info_of(image).virtual_size == GIB


def test_identical_headers_are_accepted_and_contradicting_ones_not():
    image = others_file()
    put_header(image, 0, 5)
    put_header(image, 1, 5)
    assert info_of(image).virtual_size == GIB
    put_header(image, 1, 5, data_write=guid(DISK_ID))
    with pytest.raises(errors.FailedPrecondition, match="two different headers have the same sequence number"):
        info_of(image)


def test_the_second_region_table_stands_in_for_the_first():
    image = others_file()
    put(image, TABLES[0], bytes(64 * KIB))
    assert info_of(image).virtual_size == GIB


def test_a_file_without_a_log_can_be_read():
    image = others_file()
    put_header(image, 0, 9, log_length=0, log_offset=0)
    assert info_of(image).virtual_size == GIB


def regions(*entries):
    return lambda image: put_regions(image, list(entries))


def items(*entries):
    return lambda image: put_items(image, list(entries))


def item_replaced(name, **fields):
    def damage(image):
        changed = []
        for entry in items_for(GIB):
            values = dict(zip(("name", "offset", "flags", "value"), entry))
            changed.append(tuple({**values, **(fields if entry[0] == name else {})}.values()))
        put_items(image, changed)

    return damage


def empty(image):
    del image[:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, "the file type identifier lies beyond the end of the file"),
        (lambda image: put(image, 0, b"vhdxfilE"), "it does not start with vhdxfile"),
        (lambda image: image.__delitem__(slice(100 * KIB, None)), "a header lies beyond the end of the file"),
        (lambda image: put(image, HEADERS[0], bytes(128 * KIB)), "both headers are damaged"),
        (lambda image: put_header(image, 0, 2**64 - 1), "header sequence number 18446744073709551615 is out of range"),
        (lambda image: put_header(image, 0, 9, log_offset=MIB + 4096), "the log is not aligned to 1 MiB"),
        (lambda image: put_header(image, 0, 9, log_length=4096), "the log is not aligned to 1 MiB"),
        (lambda image: put_header(image, 0, 9, log_offset=0), "the log overlaps the header section"),
        (lambda image: put_header(image, 0, 9, log_length=2**32 - MIB), "the log lies beyond the end of the file"),
        (lambda image: put_header(image, 0, 9, log_offset=2**64 - MIB), "the log lies beyond the end of the file"),
        (lambda image: put_header(image, 0, 9, log_offset=BAT), "its regions or its log overlap"),
        (lambda image: put(image, TABLES[0], bytes(128 * KIB)), "both region tables are damaged"),
        (regions(REGIONS[0]), "it has no metadata region"),
        (regions(REGIONS[1]), "it has no BAT region"),
        (regions(*REGIONS, REGIONS[0]), f"region {BAT_GUID} is listed twice"),
        (regions((BAT_GUID, 0, MIB, 1), REGIONS[1]), f"region {BAT_GUID} is not aligned to 1 MiB"),
        (regions((BAT_GUID, BAT + 512, MIB, 1), REGIONS[1]), f"region {BAT_GUID} is not aligned to 1 MiB"),
        (regions((BAT_GUID, BAT, 4096, 1), REGIONS[1]), f"region {BAT_GUID} is not aligned to 1 MiB"),
        (regions((BAT_GUID, BAT, 2 * MIB, 1), REGIONS[1]), f"region {BAT_GUID} lies beyond the end of the file"),
        (regions((BAT_GUID, 2**64 - MIB, MIB, 1), REGIONS[1]), f"region {BAT_GUID} lies beyond the end of the file"),
        (regions(REGIONS[0], (METADATA_GUID, BAT, MIB, 1)), "its regions or its log overlap"),
        (regions(REGIONS[0], (METADATA_GUID, METADATA, 0, 1)), "the metadata region is too small"),
        (regions((BAT_GUID, BAT, 0, 1), REGIONS[1]), "its BAT region is too small for a virtual size of 1073741824"),
        (lambda image: put(image, METADATA, b"Metadata"), "the metadata table is damaged"),
        (lambda image: put(image, METADATA + 10, b"\xff\xff"), "the metadata table is damaged"),
        (items(*items_for(GIB)[1:]), "it has no Physical Sector Size item"),
        (items(*items_for(GIB), items_for(GIB)[0]), "Physical Sector Size is listed twice"),
        (item_replaced(VIRTUAL_DISK_SIZE, value=b"1234567"), "Virtual Disk Size has a length of 7 bytes"),
        (item_replaced(VIRTUAL_DISK_SIZE, offset=64 * KIB - 1), "Virtual Disk Size lies outside the metadata region"),
        (item_replaced(VIRTUAL_DISK_SIZE, offset=MIB - 7), "Virtual Disk Size lies outside the metadata region"),
        (item_replaced(VIRTUAL_DISK_SIZE, offset=70004), "its metadata items overlap"),
        (item_replaced(FILE_PARAMETERS, value=struct.pack("<II", 0, 0)), "its block size is 0"),
        (item_replaced(FILE_PARAMETERS, value=struct.pack("<II", 3 * MIB, 0)), "its block size is 3145728"),
        (item_replaced(FILE_PARAMETERS, value=struct.pack("<II", 512 * MIB, 0)), "its block size is 536870912"),
        (item_replaced(FILE_PARAMETERS, value=struct.pack("<II", MIB, 2)), "a differencing disk without a parent"),
        (item_replaced(LOGICAL_SECTOR_SIZE, value=struct.pack("<I", 0)), "its sector sizes are 0 and 512"),
        (item_replaced(PHYSICAL_SECTOR_SIZE, value=struct.pack("<I", 513)), "its sector sizes are 512 and 513"),
        (item_replaced(VIRTUAL_DISK_SIZE, value=struct.pack("<Q", 513)), "its virtual size is 513"),
        (item_replaced(VIRTUAL_DISK_SIZE, value=struct.pack("<Q", 2**63)), "its virtual size is 9223372036854775808"),
        (
            item_replaced(VIRTUAL_DISK_SIZE, value=struct.pack("<Q", TIB)),
            "too small for a virtual size of 1099511627776",
        ),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    image = others_file()
    damage(image)
    path = save(tmp_path / "disk.vhdx", image)
    for operation in (reader.read_info, replay.replay_log, lambda disk: growth.grow(disk, 2 * GIB)):
        with pytest.raises(errors.FailedPrecondition) as caught:
            operation(path)
        assert caught.value.message.startswith(f"{path} is not a usable VHDX file: ")
        assert message in caught.value.message
    assert path.read_bytes() == image


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda image: put_header(image, 0, 9, version=2), "has VHDX version 2, only version 1 is supported"),
        (regions(*REGIONS, (UNKNOWN, BAT, 0, 1)), f"requires the unknown region {UNKNOWN}"),
        (items(*items_for(GIB), (UNKNOWN, 0, REQUIRED, b"")), f"requires the unknown metadata item {UNKNOWN}"),
        (
            lambda image: put_header(image, 0, 9, log_guid=LOG_ID.bytes_le, log_version=1),
            "has a log of version 1",
        ),
    ],
)
def test_what_is_newer_is_not_implemented(damage, message):
    image = others_file()
    damage(image)
    with pytest.raises(errors.NotImplementedHere, match=message):
        info_of(image)


def test_a_log_too_long_to_check_is_refused_with_a_remedy(tmp_path):
    image = others_file()
    put_header(image, 0, 9, log_guid=LOG_ID.bytes_le, log_length=5 * MIB, log_offset=4 * MIB)
    path = save(tmp_path / "disk.vhdx", image)
    os.truncate(path, 9 * MIB)
    with pytest.raises(errors.NotImplementedHere, match="attach the disk on Windows once"):
        reader.read_info(path)


def test_unknown_regions_and_items_that_are_not_required_do_not_matter():
    image = others_file() + bytes(2 * MIB)
    put_regions(image, [(UNKNOWN, 5 * MIB, MIB, 0), *REGIONS])
    put_items(image, [(UNKNOWN, 0, 0, b""), *items_for(GIB)])
    assert info_of(image).virtual_size == GIB


def test_too_many_user_items():
    image = others_file()
    names = (str(uuid.UUID(int=number)) for number in range(1025))
    put_items(image, [*items_for(GIB)[:5], *((name, 0, USER, b"") for name in names)])
    with pytest.raises(errors.FailedPrecondition, match="more than 1024 user metadata items"):
        info_of(image)


# -- the log ---------------------------------------------------------------------


def entry_pair(image, *, first=5, tail=0):
    """Return two log entries. The second overrides the first."""
    one = log_entry(size_sectors(image, 2 * GIB), first, tail=tail)
    two = log_entry(size_sectors(image, 3 * GIB), first + 1, tail=tail)
    return one, two


@pytest.mark.parametrize("start", [0, 4096, 512 * KIB, MIB - 4096, MIB - 8192, MIB - 12288, MIB - 16384])
def test_a_pending_log_counts_wherever_it_lies(tmp_path, start):
    image = others_file()
    one, two = entry_pair(image, tail=start)
    pending(image, (start, one), (start + len(one), two))
    assert info_of(image)[0] == 3 * GIB
    assert info_of(image).log_pending
    path = save(tmp_path / "disk.vhdx", image)
    info = replay.replay_log(path)
    assert info == info_of(image)._replace(log_pending=False) == reader.read_info(path)

    replayed = bytearray(path.read_bytes())
    for header in HEADERS:  # a new FileWriteGuid of the session, the same DataWriteGuid, an empty log
        _, _, _, file_write, data_write, log_guid = struct.unpack_from("<4sIQ16s16s16s", replayed, header)
        assert file_write != guid(WRITE_ID)
        assert (data_write, log_guid) == (guid(WRITE_ID), bytes(16))
    expected = bytearray(image)
    for offset, sector in size_sectors(image, 3 * GIB):
        put(expected, offset, sector)
    assert replayed[192 * KIB :] == expected[192 * KIB :]


def test_replay_without_a_log_writes_nothing(tmp_path):
    image = others_file()
    path = save(tmp_path / "disk.vhdx", image)
    assert replay.replay_log(path) == info_of(image)
    assert path.read_bytes() == image


def test_only_the_newest_sequence_is_replayed_and_only_from_its_tail():
    image = others_file()
    old = log_entry(size_sectors(image, 9 * GIB), 3, tail=64 * KIB)
    flushed = log_entry([(BAT, b"\x01" * 4096)], 40, tail=0)
    newest = log_entry(size_sectors(image, 2 * GIB), 41, tail=len(flushed))
    foreign = log_entry(size_sectors(image, 8 * GIB), 42, tail=0, log_guid=guid(DISK_ID))
    pending(image, (0, flushed), (len(flushed), newest), (len(flushed + newest), foreign), (64 * KIB, old))
    view = views.View(io.BytesIO(bytes(image)), "disk")
    disk = reader.load(view, headers.current_header(view))
    assert disk.info.virtual_size == 2 * GIB
    assert [update.offset for update in disk.updates] == [offset for offset, _ in size_sectors(image, GIB)]


def test_a_sequence_whose_tail_is_gone_gives_way_to_an_older_whole_one():
    image = others_file()
    whole = log_entry(size_sectors(image, 2 * GIB), 7, tail=128 * KIB)
    headless = log_entry(size_sectors(image, 9 * GIB), 9, tail=256 * KIB)
    pending(image, (0, headless), (128 * KIB, whole))
    assert info_of(image).virtual_size == 2 * GIB


def test_zero_descriptors_are_applied_in_order(tmp_path):
    image = others_file() + b"\xee" * MIB
    entry = log_entry([(4 * MIB, MIB), (4 * MIB + 4096, b"\x77" * 4096), (4 * MIB + 8192, 2 * MIB)], 1, last=6 * MIB)
    pending(image, (0, entry))
    path = save(tmp_path / "disk.vhdx", image)
    assert replay.replay_log(path).file_size == 6 * MIB + 8192
    assert path.read_bytes()[4 * MIB :] == bytes(4096) + b"\x77" * 4096 + bytes(2 * MIB)


def damaged(offset, data):
    def damage(entry):
        put(entry, offset, data)
        checksum(entry, 0, len(entry))

    return damage


def torn(entry):
    entry[6000] ^= 1


@pytest.mark.parametrize(
    "damage",
    [
        torn,
        damaged(0, b"logE"),
        damaged(8, struct.pack("<I", 0)),
        damaged(8, struct.pack("<I", 4096)),
        damaged(8, struct.pack("<I", 2 * MIB)),
        damaged(8, struct.pack("<I", 16384)),
        damaged(12, struct.pack("<I", 4096)),
        damaged(12, struct.pack("<I", 5)),
        damaged(12, struct.pack("<I", MIB)),
        damaged(16, struct.pack("<Q", 0)),
        damaged(16, struct.pack("<Q", 6)),
        damaged(24, struct.pack("<I", 1)),
        damaged(24, struct.pack("<I", 2**32 - 1)),
        damaged(32, bytes(16)),
        damaged(64, b"Desc"),
        damaged(64, b"zero" + bytes(4) + struct.pack("<Q", 5)),
        damaged(80, struct.pack("<Q", METADATA + 5)),
        damaged(80, struct.pack("<Q", HEADERS[0])),
        damaged(88, struct.pack("<Q", 6)),
        damaged(4096, b"Data"),
        damaged(4100, struct.pack("<I", 1)),
        damaged(8188, struct.pack("<I", 6)),
    ],
)
def test_a_log_without_a_valid_entry_is_damage(damage):
    image = others_file()
    entry = bytearray(log_entry(size_sectors(image, 2 * GIB), 5))
    assert info_of(pending(bytearray(image), (0, bytes(entry)))).virtual_size == 2 * GIB
    damage(entry)
    with pytest.raises(errors.FailedPrecondition, match="its log must be replayed but has no valid sequence"):
        info_of(pending(image, (0, bytes(entry))))


@pytest.mark.parametrize(
    ("updates", "fields", "message"),
    [
        ([], {"flushed": 5 * MIB}, "it was cut to 4194304 bytes; according to its log it had 5242880"),
        ([], {"last": 2**50}, "its log writes beyond any possible end of the file"),
        ([(2**60, 4096)], {}, "its log writes beyond any possible end of the file"),
        ([(BAT, 2**63)], {}, "its log writes beyond any possible end of the file"),
        ([(BAT, GIB), (BAT, 4096)], {}, "its log zeros more than 1073741824 bytes"),
    ],
)
def test_a_hostile_log_is_refused(tmp_path, updates, fields, message):
    image = others_file()
    pending(image, (0, log_entry(updates, 1, **fields)))
    path = save(tmp_path / "disk.vhdx", image)
    for operation in (reader.read_info, replay.replay_log):
        with pytest.raises(errors.FailedPrecondition, match=message):
            operation(path)
    assert path.read_bytes() == image


def test_nothing_is_replayed_if_the_result_would_be_damaged(tmp_path):
    image = others_file()
    pending(image, (0, log_entry([(METADATA, bytes(4096))], 1)))
    path = save(tmp_path / "disk.vhdx", image)
    with pytest.raises(errors.FailedPrecondition, match="the metadata table is damaged"):
        replay.replay_log(path)
    assert path.read_bytes() == image


# -- grow ------------------------------------------------------------------------


def test_grow_in_place(tmp_path):
    path = tmp_path / "disk.vhdx"
    before = creation.create(path, 20 * GIB, disk_id=DISK_ID, write_id=WRITE_ID)
    old = path.read_bytes()
    info = growth.grow(path, 40 * GIB)
    assert info == before._replace(virtual_size=40 * GIB) == reader.read_info(path)
    new = path.read_bytes()
    position = METADATA + 65536 + 8
    assert struct.unpack_from("<Q", new, position) == (40 * GIB,)
    # Only the headers, the log and the size changed.
    assert new[192 * KIB : MIB] == old[192 * KIB : MIB]
    assert new[METADATA:position] == old[METADATA:position]
    assert new[position + 8 :] == old[position + 8 :]
    headers = [struct.unpack_from("<4sIQ16s16s16sHHIQ", new, offset) for offset in HEADERS]
    assert sorted(header[2] for header in headers) == [6, 7]
    assert headers[0][3:] == headers[1][3:]
    assert guid(WRITE_ID) not in headers[0][3:5]
    assert headers[0][5] == bytes(16)


@pytest.mark.parametrize("size", [1, 20 * GIB - 1, 20 * GIB])
def test_a_large_enough_disk_is_not_touched(tmp_path, size):
    path = tmp_path / "disk.vhdx"
    before = creation.create(path, 20 * GIB)
    image = path.read_bytes()
    path.chmod(0o400)
    assert growth.grow(path, size) == before
    assert path.read_bytes() == image


@pytest.mark.parametrize(("logical", "rounded"), [(512, 20 * GIB + 512), (4096, 20 * GIB + 4096)])
def test_grow_rounds_up_to_whole_sectors(tmp_path, logical, rounded):
    path = tmp_path / "disk.vhdx"
    creation.create(path, 20 * GIB, logical_sector_size=logical)
    assert growth.grow(path, 20 * GIB + 1).virtual_size == rounded


@pytest.mark.parametrize("size", [0, -5, 64 * TIB + 1])
def test_grow_refuses_a_size_out_of_range(tmp_path, size):
    path = tmp_path / "disk.vhdx"
    creation.create(path, GIB)
    with pytest.raises(errors.InvalidArgument, match=f"invalid disk size {size}: "):
        growth.grow(path, size)


def test_grow_of_a_missing_file(tmp_path):
    with pytest.raises(errors.NotFound, match=r"none\.vhdx"):
        growth.grow(tmp_path / "none.vhdx", GIB)


def test_grow_refuses_a_fixed_disk_with_a_remedy(tmp_path):
    path = save(tmp_path / "disk.vhdx", others_file(flags=1))
    with pytest.raises(errors.NotImplementedHere, match="it is a fixed disk; grow it with Resize-VHD"):
        growth.grow(path, 2 * GIB)
    assert growth.grow(path, GIB).disk_type == "fixed"


def test_grow_needs_a_log(tmp_path):
    image = others_file()
    put_header(image, 0, 9, log_length=0, log_offset=0)
    path = save(tmp_path / "disk.vhdx", image)
    with pytest.raises(errors.FailedPrecondition, match="it has no log to do that safely"):
        growth.grow(path, 2 * GIB)
    assert path.read_bytes() == image


def test_a_bat_at_the_end_of_the_file_is_extended(tmp_path):
    path = tmp_path / "disk.vhdx"
    creation.create(path, GIB)
    sizes = [growth.grow(path, size).file_size for size in (100 * GIB, 200 * GIB, 64 * TIB)]
    assert sizes == [4 * MIB, 5 * MIB, 3 * MIB + 513 * MIB]
    with open(path, "rb") as file:
        header_section = file.read(MIB)
    for table in TABLES:
        assert struct.unpack_from("<16sQII", header_section, table + 16)[1:] == (BAT, 513 * MIB, 1)


def test_a_bat_with_blocks_behind_it_moves_to_the_end_and_keeps_its_entries(tmp_path):
    path = tmp_path / "disk.vhdx"
    creation.create(path, 100 * GIB)
    image = bytearray(path.read_bytes())
    blocks = {0: b"\xa1" * MIB, 4095: b"\xa2" * MIB, 4097: b"\xa3" * MIB, 102423: b"\xa4" * MIB}
    for index, data in blocks.items():
        put_block(image, index, data)
    save(path, image)
    info = growth.grow(path, 300 * GIB)
    assert info.file_size == (4 + 4 + 3) * MIB
    grown = path.read_bytes()
    assert bat_of(grown) == 8 * MIB
    assert {index: block_of(grown, index) for index in blocks} == blocks
    entries = struct.unpack(f"<{3 * MIB // 8}Q", grown[8 * MIB :])
    assert sum(1 for entry in entries if entry) == len(blocks)
    assert reader.read_info(path).virtual_size == 300 * GIB


def test_a_new_bat_goes_behind_a_block_that_the_file_holds_in_part(tmp_path):
    image = others_file(block_size=32 * MIB)
    put_block(image, 0, b"\x55" * MIB)
    path = save(tmp_path / "disk.vhdx", image)
    growth.grow(path, 5 * TIB)
    assert bat_of(path.read_bytes()) == (4 + 32) * MIB


def test_a_block_beyond_the_end_of_the_file_stops_a_move(tmp_path):
    image = others_file(block_size=MIB)
    put(image, BAT + 8, struct.pack("<Q", 900 * MIB | FULLY_PRESENT))
    put(image, BAT + 16, struct.pack("<Q", 2**63))  # a state that reserves the offset
    path = save(tmp_path / "disk.vhdx", image)
    with pytest.raises(errors.FailedPrecondition, match="a block at 943718400 lies beyond the end of the file"):
        growth.grow(path, TIB)
    assert path.read_bytes() == image


def test_rubbish_behind_the_bat_never_becomes_a_block(tmp_path):
    image = others_file(block_size=MIB)
    put(image, BAT + 1024 * 8, b"\xff" * 64)
    path = save(tmp_path / "disk.vhdx", image)
    growth.grow(path, 2 * GIB)
    grown = path.read_bytes()
    bat = bat_of(grown)
    assert bat == 4 * MIB
    assert grown[bat : bat + MIB] == bytes(MIB)


def test_a_differencing_disk_grows_with_whole_chunks(tmp_path):
    # Chunk ratio 2048: 31 chunks have 63519 entries and fit, 64 chunks have 131136 and do not.
    image = others_file(flags=2, locator=LOCATOR)
    path = save(tmp_path / "disk.vhdx", image)
    assert growth.grow(path, 63 * 4 * GIB).file_size == 4 * MIB
    info = growth.grow(path, 63 * 4 * GIB + 512)
    assert (info.disk_type, info.virtual_size, info.file_size) == ("differencing", 63 * 4 * GIB + 512, 5 * MIB)
    grown = path.read_bytes()
    assert LOCATOR in grown
    assert reader.read_info(path) == info


def test_grow_replays_a_pending_log_first(tmp_path):
    image = others_file()
    pending(image, (0, log_entry(size_sectors(image, 2 * GIB), 1)))
    path = save(tmp_path / "disk.vhdx", image)
    assert growth.grow(path, 2 * GIB).log_pending
    assert path.read_bytes() == image
    info = growth.grow(path, 3 * GIB)
    assert info == reader.read_info(path)
    assert info == structures.DiskInfo(3 * GIB, 2 * MIB, 512, 512, "dynamic", DISK_ID, 4 * MIB, False)


def test_grow_repairs_a_damaged_region_table_when_it_moves_the_bat(tmp_path):
    image = others_file(block_size=MIB)
    put_block(image, 0, b"\x55" * MIB)
    put(image, TABLES[0] + 20000, b"\xff" * 9000)
    path = save(tmp_path / "disk.vhdx", image)
    growth.grow(path, TIB)
    grown = path.read_bytes()
    assert grown[TABLES[0] : TABLES[1]] == grown[TABLES[1] : TABLES[1] + 64 * KIB]
    assert block_of(grown, 0) == b"\x55" * MIB


def test_grow_aligns_a_file_with_a_ragged_end(tmp_path):
    path = save(tmp_path / "disk.vhdx", others_file() + b"rag")
    assert growth.grow(path, 2 * GIB).file_size == 5 * MIB
    assert reader.read_info(path).virtual_size == 2 * GIB


def test_many_growths_in_a_row(tmp_path):
    path = tmp_path / "disk.vhdx"
    creation.create(path, GIB)
    generator = random.Random(20260101)
    written = {}
    size = GIB
    for step in range(40):
        if step % 4 == 0:
            image = bytearray(path.read_bytes())
            index = generator.randrange(1000) if not written else max(written) + 1
            written[index] = bytes([step + 1]) * MIB
            put_block(image, index, written[index])
            save(path, image)
        size += generator.randrange(1, 30 * GIB)
        info = growth.grow(path, size)
        assert info.virtual_size == -(-size // 512) * 512
        assert reader.read_info(path) == info
    grown = path.read_bytes()
    assert {index: block_of(grown, index) for index in written} == written
    assert len(grown) < 64 * MIB


def test_a_full_volume_leaves_the_old_size(tmp_path, monkeypatch):
    path = save(tmp_path / "disk.vhdx", others_file())
    fsync = os.fsync
    calls = []

    def full_at_the_second(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(errors.Unavailable, match=f"needs {256 * MIB} bytes, "):
        growth.grow(path, 64 * TIB)
    assert reader.read_info(path) == info_of(others_file())
    assert growth.grow(path, 64 * TIB)[0] == 64 * TIB


# -- crashes ---------------------------------------------------------------------


class RecordingFile(io.FileIO):
    """A file that records its writes in ``self.operations``."""

    operations: list

    def write(self, data):
        self.operations.append(("write", self.tell(), bytes(data)))
        return super().write(data)

    def truncate(self, size=None):
        self.operations.append(("truncate", size, b""))
        return super().truncate(size)


def recorded(monkeypatch, work):
    """Run ``work``; return its writes as a list of epochs. A flush ends an epoch."""
    operations = []
    fsync = os.fsync

    def opened(path, mode, buffering):
        assert buffering == 0
        file = RecordingFile(path, mode.replace("b", ""))
        file.operations = operations
        return file

    def flush(descriptor):
        operations.append(None)
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(views, "open", opened, raising=False)
        patch.setattr(os, "fsync", flush)
        work()
    assert operations[-1] is None
    return [list(group) for is_flush, group in itertools.groupby(operations, lambda item: item is None) if not is_flush]


def apply(image, operations):
    for kind, offset, data in operations:
        if kind == "truncate":
            image[offset:] = bytes(max(0, offset - len(image)))
        else:
            if offset > len(image):
                image += bytes(offset - len(image))
            put(image, offset, data)


def crash_images(before, epochs, generator):
    """Yield (number of complete epochs, image) for images that a crash can leave.

    An image has all epochs before the current one, and a part of the writes of the current one. A disk may hold any
    subset of the writes that were not flushed, and any subset of the 512-byte sectors of one write. Samples stand for
    all subsets where there are more than 64.
    """
    durable = bytearray(before)
    for number, epoch in enumerate(epochs):
        subsets = list(itertools.product((False, True), repeat=len(epoch)))
        for kept in subsets if len(subsets) <= 64 else generator.sample(subsets, 64):
            image = bytearray(durable)
            apply(image, itertools.compress(epoch, kept))
            yield number, image
        for _ in range(12):
            pieces = []
            for kind, offset, data in epoch:
                if kind == "truncate":
                    pieces.append((kind, offset, data))
                pieces += [(kind, offset + start, data[start : start + 512]) for start in range(0, len(data), 512)]
            image = bytearray(durable)
            apply(image, (piece for piece in pieces if generator.random() < 0.5))
            yield number, image
        apply(durable, epoch)
    yield len(epochs), durable


def scratch_disk(tmp_path, size, moved):
    """Create a dynamic disk; return its path and its bytes. If ``moved``, growth has to move its BAT."""
    path = tmp_path / "disk.vhdx"
    creation.create(path, size)
    image = bytearray(path.read_bytes())
    if moved:
        put_block(image, 7, b"\x5a" * MIB)
        save(path, image)
    return path, image


@pytest.mark.parametrize(
    ("size", "new_size", "moved"),
    [(20 * GIB, 40 * GIB, False), (20 * GIB, 200 * GIB, False), (20 * GIB, 200 * GIB, True)],
    ids=["same BAT", "BAT extended", "BAT moved"],
)
def test_a_crash_at_any_write_leaves_the_old_or_the_new_disk(tmp_path, monkeypatch, size, new_size, moved):
    path, before = scratch_disk(tmp_path, size, moved)
    epochs = recorded(monkeypatch, lambda: growth.grow(path, new_size))
    assert len(epochs) == 7
    generator = random.Random(7)
    outcomes = set()
    checked = recovered = 0
    for complete, image in crash_images(before, epochs, generator):
        info = info_of(image)
        outcomes.add(info.virtual_size)
        checked += 1
        if complete < 2:
            assert info.virtual_size == size
        if complete > 2:
            assert info.virtual_size == new_size
        if generator.random() < 0.25:
            recovered += 1
            survivor = save(tmp_path / "survivor.vhdx", image)
            assert replay.replay_log(survivor).virtual_size == info.virtual_size
            assert not reader.read_info(survivor).log_pending
            assert growth.grow(survivor, new_size).virtual_size == new_size
            if moved:
                assert block_of(survivor.read_bytes(), 7) == b"\x5a" * MIB
    assert outcomes == {size, new_size}
    assert checked > 90
    assert recovered > 10
    assert bytes(image) == path.read_bytes()


def test_a_crash_during_replay_loses_nothing(tmp_path, monkeypatch):
    path, before = scratch_disk(tmp_path, 20 * GIB, moved=True)
    epochs = recorded(monkeypatch, lambda: growth.grow(path, 200 * GIB))
    image = bytearray(before)
    for epoch in epochs[:3]:
        apply(image, epoch)
    assert info_of(image).log_pending
    save(path, image)
    writes = recorded(monkeypatch, lambda: replay.replay_log(path))
    for _, survivor in crash_images(image, writes, random.Random(8)):
        assert info_of(survivor).virtual_size == 200 * GIB
    assert block_of(survivor, 7) == b"\x5a" * MIB


def test_the_largest_growth_survives_a_crash_after_each_write(tmp_path, monkeypatch):
    path, before = scratch_disk(tmp_path, GIB, moved=True)
    epochs = recorded(monkeypatch, lambda: growth.grow(path, 64 * TIB))
    survivor = save(tmp_path / "survivor.vhdx", before)
    sizes = []
    for kind, offset, data in itertools.chain.from_iterable(epochs):
        if kind == "truncate":
            os.truncate(survivor, offset)
        else:
            with open(survivor, "r+b") as file:
                file.seek(offset)
                file.write(data)
        sizes.append(reader.read_info(survivor).virtual_size)
    assert sizes == sorted(sizes)
    assert set(sizes) == {GIB, 64 * TIB}


class InterruptedFile(io.FileIO):
    """A file on which another process does ``work`` just before read number ``when``."""

    reads = 0

    def __init__(self, path, when, work):
        super().__init__(path)
        self.when, self.work = when, work

    def read(self, size=-1):
        self.reads += 1
        if self.reads == self.when:
            self.work()
        return super().read(size)


def test_a_reader_in_the_middle_of_a_growth_sees_one_disk(tmp_path):
    for when in range(1, 40):
        path, _ = scratch_disk(tmp_path, 20 * GIB, moved=True)
        with InterruptedFile(path, when, lambda path=path: growth.grow(path, 200 * GIB)) as file:
            info = reader.read_info(file)
            assert (info.virtual_size, info.file_size) in {(20 * GIB, 5 * MIB), (200 * GIB, 7 * MIB)}
            reads = file.reads
        path.unlink()
        if reads < when:
            break
    else:
        pytest.fail("no read was the last")
    assert when > 10


def test_a_file_that_never_rests_is_unavailable():
    image = others_file()
    numbers = itertools.count(10)

    class Restless(io.BytesIO):
        def seek(self, offset, whence=os.SEEK_SET):
            if whence == os.SEEK_END:
                put_header(image, 1, next(numbers))
                self.getbuffer()[:] = image
            return super().seek(offset, whence)

    with pytest.raises(errors.Unavailable, match="being changed by another process; run the task again"):
        reader.read_info(Restless(bytes(image)))
