# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VHDX disk files: create, read, replay the log, grow.

The format is [MS-VHDX], revision 8.0; section numbers in this file are its.
Names of structures and fields are the specification's.

``grow`` changes structures that lie apart (virtual disk size in the metadata
region, place and length of the BAT in both region tables), so it uses the log
as section 2.3 asks. The order, with a flush after each step:

1. the other header: a new FileWriteGuid (2.2.2.1);
2. the new BAT, if the old one is too small, in space that nothing refers to,
   and one log entry with every 4 KB sector that has to change;
3. the other header: LogGuid names that entry, new DataWriteGuid;
4. the remaining header, the same;
5. the sectors at their final places;
6. both headers, one after the other: LogGuid zero.

Before step 3 is on the disk the file has the old size, and from then on the
new one, whatever of the later steps is lost: opening the file replays the
log. A torn header fails its checksum and leaves the other one current.
Section 2.2.2 wants LogGuid set before the log is overwritten; we set it
after. Its point is that no stale entry counts, and none does while LogGuid is
zero; the other way round, a crash between the two leaves a log without a
valid sequence, which section 2.3.3 calls corrupt.

``grow_new`` makes the same changes to a file that nobody has yet, without all
that: the whole file is flushed once, or thrown away.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from ..durable import sync_directory
from ..errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    SnapshotterError,
    Unavailable,
    os_error,
)
from ..failpoint import failpoint

KIB = 1024
MIB = 1024 * KIB
TIB = 1024 * 1024 * MIB

#: 2.6.2.2: the largest VirtualDiskSize, in bytes.
MAX_VIRTUAL_SIZE = 64 * TIB
#: Payload block size of the scratch disks that Windows makes (hcsshim computestorage/helpers.go,
#: containerd plugins/snapshots/windows/cimfs.go). A BAT of 1 MiB then serves disks up to 127 GiB.
DEFAULT_BLOCK_SIZE = MIB
#: 2.6.2.4 and 2.6.2.5.
SECTOR_SIZES = (512, 4096)

FIXED = "fixed"
DYNAMIC = "dynamic"
DIFFERENCING = "differencing"

# 2.1: everything after the header section is aligned to this.
_ALIGNMENT = MIB
# 2.2.1
_FILE_TYPE_SIGNATURE = b"vhdxfile"
_CREATOR = "wcow.snapshotter".encode("utf-16-le")
# 2.2.2
_HEADER_OFFSETS = (64 * KIB, 128 * KIB)
_HEADER_SIZE = 4 * KIB
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_HEADER_SIGNATURE = b"head"
# A count of updates, so no real file comes near; leaves room to count on.
_MAX_SEQUENCE_NUMBER = 1 << 63
# 2.2.3
_REGION_TABLE_OFFSETS = (192 * KIB, 256 * KIB)
_REGION_TABLE_SIZE = 64 * KIB
_REGION_TABLE_HEADER = struct.Struct("<4sIII")
_REGION_TABLE_ENTRY = struct.Struct("<16sQII")
_REGION_TABLE_SIGNATURE = b"regi"
_MAX_ENTRIES = 2047
# 2.3.1
_LOG_SECTOR = 4 * KIB
_LOG_ENTRY_HEADER = struct.Struct("<4sIIIQII16sQQ")
_LOG_ENTRY_SIGNATURE = b"loge"
_LOG_DESCRIPTOR = struct.Struct("<4s4s8sQQ")
_ZERO_SIGNATURE = b"zero"
_DATA_SIGNATURE = b"desc"
_DATA_SECTOR = struct.Struct("<4sI4084sI")
_DATA_SECTOR_SIGNATURE = b"data"
# Windows and QEMU make logs of 1 MiB. The limits keep a hostile file from costing
# minutes: the log is checked in Python, and zeroing is for metadata, of which the
# BAT of a 64 TiB disk (513 MiB) is the largest.
_MAX_LOG_LENGTH = 4 * MIB
_MAX_ZEROED = 1024 * MIB
# 2.5.1
_BAT_ENTRY_SIZE = 8
_BLOCK_STATE_MASK = 7
_PAYLOAD_BLOCK_FULLY_PRESENT = 6
# 2.4
_SECTORS_PER_BITMAP_BLOCK = 1 << 23
# 2.6.1
_METADATA_TABLE_SIZE = 64 * KIB
_METADATA_TABLE_HEADER = struct.Struct("<8sHH20s")
_METADATA_TABLE_ENTRY = struct.Struct("<16sIIII")
_METADATA_SIGNATURE = b"metadata"
_MAX_ITEM_LENGTH = MIB
_MAX_USER_ITEMS = 1024
_IS_USER = 1
_IS_VIRTUAL_DISK = 2
_IS_REQUIRED = 4
# 2.6.2.1
_FILE_PARAMETERS = struct.Struct("<II")
_MIN_BLOCK_SIZE = MIB
_MAX_BLOCK_SIZE = 256 * MIB
_LEAVE_BLOCK_ALLOCATED = 1
_HAS_PARENT = 2

_READ_ATTEMPTS = 10
_WINDOWS_SHARING_VIOLATIONS = (32, 33)


StrPath = Union[str, "os.PathLike[str]"]


class DiskInfo(NamedTuple):
    """What a VHDX file says of its disk. Sizes in bytes.

    ``disk_type`` is ``fixed``, ``dynamic`` or ``differencing``; ``disk_id`` is
    VirtualDiskId as a lower-case GUID without braces; ``file_size`` the
    present length of the file. With ``log_pending`` the other values are
    those that hold once the log has been replayed.
    """

    virtual_size: int
    block_size: int
    logical_sector_size: int
    physical_sector_size: int
    disk_type: str
    disk_id: str
    file_size: int
    log_pending: bool


class _Header(NamedTuple):
    """A valid header (2.2.2) and where it lies."""

    position: int
    sequence_number: int
    file_write_guid: bytes
    data_write_guid: bytes
    log_guid: bytes
    log_version: int
    version: int
    log_length: int
    log_offset: int


class _Region(NamedTuple):
    """A region table entry (2.2.3.2) and its number in the table."""

    number: int
    guid: bytes
    offset: int
    length: int
    required: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class _Update(NamedTuple):
    """A write that the log asks for; ``data`` None writes zeros."""

    offset: int
    length: int
    data: Optional[bytes]


class _LogEntry(NamedTuple):
    """A valid log entry (2.3.1); ``offset`` and ``tail`` count from the start of the log."""

    offset: int
    length: int
    tail: int
    sequence_number: int
    flushed_file_offset: int
    last_file_offset: int
    updates: List[_Update]


class _Disk(NamedTuple):
    """A checked file: the public facts, and what ``grow`` needs to change them."""

    info: DiskInfo
    header: _Header
    updates: List[_Update]
    size_after_replay: int
    region_table: bytes
    bat: _Region
    virtual_size_position: int


# -- GUIDs and checksums ---------------------------------------------------------


def _guid_bytes(text: str) -> bytes:
    """A GUID in binary form. The uuid module is not used: on Windows its import runs a process."""
    digits = text.split("-")
    if [len(part) for part in digits] != [8, 4, 4, 4, 12]:
        raise ValueError(text)
    raw = bytes.fromhex("".join(digits))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def _guid_text(guid: bytes) -> str:
    raw = (guid[3::-1] + guid[5:3:-1] + guid[7:5:-1] + guid[8:]).hex()
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def _new_guid() -> bytes:
    """A random (version 4) GUID in binary form."""
    raw = bytearray(os.urandom(16))
    raw[7] = raw[7] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


_NO_GUID = bytes(16)
_BAT_GUID = _guid_bytes("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA_GUID = _guid_bytes("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS_GUID = _guid_bytes("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VIRTUAL_DISK_SIZE_GUID = _guid_bytes("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_VIRTUAL_DISK_ID_GUID = _guid_bytes("beca12ab-b2e6-4523-93ef-c309e000c746")
_LOGICAL_SECTOR_SIZE_GUID = _guid_bytes("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PHYSICAL_SECTOR_SIZE_GUID = _guid_bytes("cda348c7-445d-4471-9cc9-e9885251c556")
_PARENT_LOCATOR_GUID = _guid_bytes("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")

# 2.6.2: name and least length of the items that this module understands.
_METADATA_ITEMS = {
    _FILE_PARAMETERS_GUID: ("File Parameters", _FILE_PARAMETERS.size),
    _VIRTUAL_DISK_SIZE_GUID: ("Virtual Disk Size", 8),
    _VIRTUAL_DISK_ID_GUID: ("Virtual Disk ID", 16),
    _LOGICAL_SECTOR_SIZE_GUID: ("Logical Sector Size", 4),
    _PHYSICAL_SECTOR_SIZE_GUID: ("Physical Sector Size", 4),
    _PARENT_LOCATOR_GUID: ("Parent Locator", 20),
}

# Read and compared as one piece, small enough for its memory to be reused.
_ZEROS = bytes(64 * KIB)

# CRC-32C, bits reversed as usual: bit 31 is the coefficient of x^0.
_POLYNOMIAL = 0x82F63B78
_ONE = 0x80000000


@functools.cache
def _crc_table() -> List[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _bit in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return table


def _multiply(first: int, second: int) -> int:
    """The product of two polynomials modulo the CRC's."""
    product = 0
    while first:
        if first & _ONE:
            product ^= second
        first = first << 1 & 0xFFFFFFFF
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product


@functools.lru_cache(maxsize=1024)
def _power_of_zeros(count: int) -> int:
    """What ``count`` zero bytes multiply the register by: x^8 to that power."""
    power, factor = _ONE, _ONE >> 8
    while count:
        if count & 1:
            power = _multiply(factor, power)
        factor = _multiply(factor, factor)
        count >>= 1
    return power


def _crc32c(data: bytes) -> int:
    """The CRC-32C of ``data``.

    The structures are mostly a tail of zeros, which costs one comparison and
    one product instead of a step a byte. Their lengths are few, so their
    powers are remembered.
    """
    head = data[:_LOG_SECTOR] if data[_LOG_SECTOR:] == bytes(max(len(data) - _LOG_SECTOR, 0)) else data
    body = head.rstrip(b"\0")
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in body:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return _multiply(_power_of_zeros(len(data) - len(body)), crc) ^ 0xFFFFFFFF


def _checksum_matches(structure: bytes) -> bool:
    """Whether the Checksum field, bytes 4 to 8 of every such structure, is right."""
    (stored,) = struct.unpack_from("<I", structure, 4)
    return bool(_crc32c(structure[:4] + bytes(4) + structure[8:]) == stored)


def _with_checksum(structure: bytes) -> bytes:
    zeroed = structure[:4] + bytes(4) + structure[8:]
    return zeroed[:4] + struct.pack("<I", _crc32c(zeroed)) + zeroed[8:]


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


# -- files -----------------------------------------------------------------------


def file_error(error: OSError, doing: str, path: str, needed: int = 0) -> SnapshotterError:
    """The SnapshotterError for an operating system error on a disk file.

    ``doing`` starts the message: ``cannot create disk <path>``.
    ``needed`` is the space in bytes that the work takes on the volume of
    ``path``, for the message of a full volume.
    """
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{doing}: {reason}", path=path)
    if isinstance(error, FileExistsError):
        return AlreadyExists(f"{doing}: {reason}", path=path)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        import shutil

        volume = os.path.dirname(os.path.abspath(path))
        while not os.path.ismount(volume):
            volume = os.path.dirname(volume)
        free = shutil.disk_usage(volume).free
        return Unavailable(
            f"{doing}: {reason}: needs {needed} bytes, {free} free on {volume}; free some space and try again",
            path=path,
            needed=needed,
            free=free,
            volume=volume,
        )
    if getattr(error, "winerror", None) in _WINDOWS_SHARING_VIOLATIONS:
        return Unavailable(f"{doing}: {reason}", path=path)
    if isinstance(error, (PermissionError, IsADirectoryError, NotADirectoryError)) or error.errno in (
        errno.EROFS,
        errno.EFBIG,
    ):
        return FailedPrecondition(f"{doing}: {reason}", path=path)
    return os_error(error, doing, path=path)


@contextlib.contextmanager
def new_disk_file(path: str, doing: str, needed: int) -> Iterator[BinaryIO]:
    """A disk file that is whole or absent: created exclusively, durable after the block.

    Only its owner may read it. On any error in the block the file is removed
    again and an operating system error becomes
    ``file_error(error, doing, path, needed)``.
    """
    created = False
    try:
        failpoint("disk.create")
        with open(path, "x+b", buffering=0, opener=_private) as file:
            created = True
            failpoint("disk.write")
            yield file
            failpoint("disk.flush")
            os.fsync(file.fileno())
        failpoint("disk.flushed")
        sync_directory(os.path.dirname(os.path.abspath(path)))
        failpoint("disk.made")
    except BaseException as error:
        if created:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if isinstance(error, OSError):
            raise file_error(error, doing, path, needed) from error
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``offset``, fewer only at the end of the file."""
    file.seek(offset)
    data = b""
    while len(data) < length:
        more = file.read(length - len(data))
        if not more:
            break
        data += more
    return data


def write_at(file: BinaryIO, offset: int, data: bytes) -> None:
    """Write all of ``data`` at ``offset``."""
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


# -- reading ---------------------------------------------------------------------


class _View:
    """The file as it reads once ``updates`` have been written; every read is bounded."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.file_size = file.seek(0, os.SEEK_END)
        self.size = self.file_size
        self.updates: List[_Update] = []

    def damaged(self, what: str) -> FailedPrecondition:
        return FailedPrecondition(f"{self.name} is not a usable VHDX file: {what}", path=self.name)

    def read(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes at ``offset``; FailedPrecondition names ``what`` if the file ends before."""
        if offset + length > self.size:
            raise self.damaged(f"{what} lies beyond the end of the file")
        data = bytearray(read_at(self._file, offset, length).ljust(length, b"\0"))
        for update in self.updates:
            start = max(offset, update.offset)
            end = min(offset + length, update.offset + update.length)
            if start < end:
                piece = bytes(end - start)
                if update.data is not None:
                    piece = update.data[start - update.offset : end - update.offset]
                data[start - offset : end - offset] = piece
        return bytes(data)


def _current_header(view: _View) -> _Header:
    """The current header (2.2.2) of a file that is marked as VHDX (2.2.1)."""
    if view.read(0, len(_FILE_TYPE_SIGNATURE), "the file type identifier") != _FILE_TYPE_SIGNATURE:
        raise view.damaged(f"it does not start with {_FILE_TYPE_SIGNATURE.decode()}")
    valid = []
    for position in _HEADER_OFFSETS:
        raw = view.read(position, _HEADER_SIZE, "a header")
        signature, _checksum, *fields = _HEADER.unpack_from(raw)
        if signature == _HEADER_SIGNATURE and _checksum_matches(raw):
            valid.append(_Header(position, *fields))
    if not valid:
        raise view.damaged("both headers are damaged")
    # Disk2vhd writes twins (QEMU block/vhdx.c); different headers with one number have no order.
    if len(valid) == 2 and valid[0].sequence_number == valid[1].sequence_number and valid[0][1:] != valid[1][1:]:
        raise view.damaged("two different headers have the same sequence number")
    header = max(valid, key=lambda candidate: candidate.sequence_number)
    if header.version != 1:
        raise NotImplementedHere(f"{view.name} has VHDX version {header.version}, only 1 is known", path=view.name)
    if header.sequence_number > _MAX_SEQUENCE_NUMBER:
        raise view.damaged(f"header sequence number {header.sequence_number} is out of range")
    if header.log_offset % _ALIGNMENT or header.log_length % _ALIGNMENT:
        raise view.damaged("the log is not aligned to 1 MiB")
    if header.log_length and header.log_offset < _ALIGNMENT:
        raise view.damaged("the log overlaps the header section")
    if header.log_offset + header.log_length > view.size:
        raise view.damaged("the log lies beyond the end of the file")
    return header


def _log_entry(log: bytes, length: int, offset: int, log_guid: bytes) -> Optional[_LogEntry]:
    """The log entry at ``offset``, or None where no valid one starts.

    ``log`` holds the ring of ``length`` bytes twice, so that an entry that
    wraps is contiguous. The checksum comes last: only one of the entries that
    claim a sector gets that far, which bounds the work on a hostile log.
    """
    signature, _checksum, entry_length, tail, sequence, count, _reserved, guid, flushed, last = (
        _LOG_ENTRY_HEADER.unpack_from(log, offset)
    )
    if signature != _LOG_ENTRY_SIGNATURE or guid != log_guid or sequence == 0:
        return None
    if entry_length % _LOG_SECTOR or not 0 < entry_length <= length or tail % _LOG_SECTOR or tail >= length:
        return None
    data_offset = _round_up(_LOG_ENTRY_HEADER.size + count * _LOG_DESCRIPTOR.size, _LOG_SECTOR)
    if data_offset > entry_length:
        return None
    updates = []
    for index in range(count):
        signature, trailing, leading, file_offset, number = _LOG_DESCRIPTOR.unpack_from(
            log, offset + _LOG_ENTRY_HEADER.size + index * _LOG_DESCRIPTOR.size
        )
        # The log is for structures other than the file type identifier and the headers.
        if number != sequence or file_offset % _LOG_SECTOR or file_offset < _REGION_TABLE_OFFSETS[0]:
            return None
        if signature == _ZERO_SIGNATURE:
            zero_length = int.from_bytes(leading, "little")
            if zero_length % _LOG_SECTOR:
                return None
            updates.append(_Update(file_offset, zero_length, None))
        elif signature == _DATA_SIGNATURE:
            if data_offset + _LOG_SECTOR > entry_length:
                return None
            signature, high, middle, low = _DATA_SECTOR.unpack_from(log, offset + data_offset)
            if signature != _DATA_SECTOR_SIGNATURE or high << 32 | low != sequence:
                return None
            updates.append(_Update(file_offset, _LOG_SECTOR, leading + middle + trailing))
            data_offset += _LOG_SECTOR
        else:
            return None
    if data_offset != entry_length or not _checksum_matches(log[offset : offset + entry_length]):
        return None
    return _LogEntry(offset, entry_length, tail, sequence, flushed, last, updates)


def _active_sequence(log: bytes, log_guid: bytes) -> List[_LogEntry]:
    """The entries to replay, oldest first (2.3.3); empty if the log has no valid sequence."""
    length = len(log)
    ring = log + log
    entries: Dict[int, Optional[_LogEntry]] = {
        offset: _log_entry(ring, length, offset, log_guid) for offset in range(0, length, _LOG_SECTOR)
    }
    active: List[_LogEntry] = []
    start = 0
    while start < length:
        sequence: List[_LogEntry] = []
        head = start
        while head < start + length:
            entry = entries[head % length]
            if entry is None or (sequence and entry.sequence_number != sequence[-1].sequence_number + 1):
                break
            sequence.append(entry)
            head += entry.length
        tails = [index for index, entry in enumerate(sequence) if entry.offset == sequence[-1].tail]
        if not tails:
            start += _LOG_SECTOR
            continue
        if not active or sequence[-1].sequence_number > active[-1].sequence_number:
            active = sequence[tails[0] :]
        start = head
    return active


def _apply_log(view: _View, header: _Header) -> None:
    """Put the updates of a pending log over the view (2.3.3)."""
    if header.log_version != 0:
        raise NotImplementedHere(f"{view.name} has a log of version {header.log_version}", path=view.name)
    if header.log_length > _MAX_LOG_LENGTH:
        raise NotImplementedHere(
            f"{view.name} has a pending log of {header.log_length} bytes, at most {_MAX_LOG_LENGTH} are read here; "
            "attach the disk once on Windows to have it replayed",
            path=view.name,
        )
    sequence = _active_sequence(view.read(header.log_offset, header.log_length, "the log"), header.log_guid)
    if not sequence:
        raise view.damaged("its log has to be replayed but holds no valid sequence")
    newest = sequence[-1]
    if newest.flushed_file_offset > view.file_size:
        raise view.damaged(
            f"it has been cut to {view.file_size} bytes, its log says that it had {newest.flushed_file_offset}"
        )
    updates = [update for entry in sequence for update in entry.updates]
    limit = MAX_VIRTUAL_SIZE + TIB
    if max([newest.last_file_offset] + [update.offset + update.length for update in updates]) > limit:
        raise view.damaged("its log writes beyond any possible end of the file")
    if sum(update.length for update in updates if update.data is None) > _MAX_ZEROED:
        raise view.damaged(f"its log zeros more than {_MAX_ZEROED} bytes")
    view.updates = updates
    view.size = max([view.file_size, newest.last_file_offset] + [update.offset + update.length for update in updates])


def _regions(view: _View, header: _Header) -> Tuple[bytes, Dict[bytes, _Region]]:
    """The first valid region table (2.2.3) and its entries by GUID."""
    for position in _REGION_TABLE_OFFSETS:
        table = view.read(position, _REGION_TABLE_SIZE, "a region table")
        signature, _checksum, count, _reserved = _REGION_TABLE_HEADER.unpack_from(table)
        if signature == _REGION_TABLE_SIGNATURE and count <= _MAX_ENTRIES and _checksum_matches(table):
            break
    else:
        raise view.damaged("both region tables are damaged")
    regions: Dict[bytes, _Region] = {}
    for index in range(count):
        region = _Region(
            index,
            *_REGION_TABLE_ENTRY.unpack_from(table, _REGION_TABLE_HEADER.size + index * _REGION_TABLE_ENTRY.size),
        )
        label = f"region {_guid_text(region.guid)}"
        if region.guid in regions:
            raise view.damaged(f"{label} is listed twice")
        if region.offset < _ALIGNMENT or region.offset % _ALIGNMENT or region.length % _ALIGNMENT:
            raise view.damaged(f"{label} is not aligned to 1 MiB")
        if region.end > view.size:
            raise view.damaged(f"{label} lies beyond the end of the file")
        if region.required & 1 and region.guid not in (_BAT_GUID, _METADATA_GUID):
            raise NotImplementedHere(f"{view.name} requires the unknown {label}", path=view.name)
        regions[region.guid] = region
    for guid, label in ((_BAT_GUID, "BAT"), (_METADATA_GUID, "metadata")):
        if guid not in regions:
            raise view.damaged(f"it has no {label} region")
    taken = sorted(
        [(header.log_offset, header.log_offset + header.log_length)]
        + [(region.offset, region.end) for region in regions.values()]
    )
    if any(left[1] > right[0] for left, right in zip(taken, taken[1:])):
        raise view.damaged("its regions or its log overlap")
    return table, regions


def _metadata(view: _View, region: _Region) -> Dict[bytes, Tuple[int, bytes]]:
    """Position in the file and bytes of each known metadata item (2.6); unknown ones are checked only."""
    if region.length < _METADATA_TABLE_SIZE:
        raise view.damaged("the metadata region is too small")
    table = view.read(region.offset, _METADATA_TABLE_SIZE, "the metadata table")
    signature, _reserved, count, _more_reserved = _METADATA_TABLE_HEADER.unpack_from(table)
    if signature != _METADATA_SIGNATURE or count > _MAX_ENTRIES:
        raise view.damaged("the metadata table is damaged")
    items: Dict[bytes, Tuple[int, bytes]] = {}
    seen = set()
    spans = []
    for index in range(count):
        guid, offset, length, flags, _reserved = _METADATA_TABLE_ENTRY.unpack_from(
            table, _METADATA_TABLE_HEADER.size + index * _METADATA_TABLE_ENTRY.size
        )
        user = bool(flags & _IS_USER)
        label, least = f"metadata item {_guid_text(guid)}", 0
        known = not user and guid in _METADATA_ITEMS
        if known:
            label, least = _METADATA_ITEMS[guid]
        elif flags & _IS_REQUIRED:
            raise NotImplementedHere(f"{view.name} requires the unknown {label}", path=view.name)
        if (guid, user) in seen:
            raise view.damaged(f"{label} is listed twice")
        seen.add((guid, user))
        if length < least or length > _MAX_ITEM_LENGTH:
            raise view.damaged(f"{label} has a length of {length} bytes")
        if length and not _METADATA_TABLE_SIZE <= offset <= region.length - length:
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
        if guid not in items and guid != _PARENT_LOCATOR_GUID:
            raise view.damaged(f"it has no {label} item")
    return items


def _bat_entries(info: DiskInfo) -> int:
    """How many BAT entries a disk has (2.5): one a payload block, one a sector bitmap block.

    A sector bitmap entry follows the payload entries of its chunk. Only a
    differencing disk has one for the last, incomplete chunk, whose payload
    entries are then all there.
    """
    chunk_ratio = _SECTORS_PER_BITMAP_BLOCK * info.logical_sector_size // info.block_size
    payload_blocks = -(-info.virtual_size // info.block_size)
    if info.disk_type == DIFFERENCING:
        return -(-payload_blocks // chunk_ratio) * (chunk_ratio + 1)
    return payload_blocks + max(payload_blocks - 1, 0) // chunk_ratio


def _bat_length(info: DiskInfo) -> int:
    """The least length in bytes of the BAT region of a disk."""
    return max(_round_up(_bat_entries(info) * _BAT_ENTRY_SIZE, _ALIGNMENT), _ALIGNMENT)


def _load(view: _View, header: _Header) -> _Disk:
    """Check the whole file but its blocks, and say what it is."""
    log_pending = header.log_guid != _NO_GUID
    if log_pending:
        _apply_log(view, header)
    region_table, regions = _regions(view, header)
    items = _metadata(view, regions[_METADATA_GUID])

    block_size, flags = _FILE_PARAMETERS.unpack(items[_FILE_PARAMETERS_GUID][1])
    virtual_size_position, virtual_size_bytes = items[_VIRTUAL_DISK_SIZE_GUID]
    virtual_size = int.from_bytes(virtual_size_bytes, "little")
    logical = int.from_bytes(items[_LOGICAL_SECTOR_SIZE_GUID][1], "little")
    physical = int.from_bytes(items[_PHYSICAL_SECTOR_SIZE_GUID][1], "little")
    if block_size & block_size - 1 or not _MIN_BLOCK_SIZE <= block_size <= _MAX_BLOCK_SIZE:
        raise view.damaged(f"its block size is {block_size}")
    if logical not in SECTOR_SIZES or physical not in SECTOR_SIZES:
        raise view.damaged(f"its sector sizes are {logical} and {physical}")
    if virtual_size % logical or virtual_size > MAX_VIRTUAL_SIZE:
        raise view.damaged(f"its virtual size is {virtual_size}")
    disk_type = FIXED if flags & _LEAVE_BLOCK_ALLOCATED else DYNAMIC
    if flags & _HAS_PARENT:
        disk_type = DIFFERENCING
        if _PARENT_LOCATOR_GUID not in items:
            raise view.damaged("it is a differencing disk without a parent locator")
    info = DiskInfo(
        virtual_size=virtual_size,
        block_size=block_size,
        logical_sector_size=logical,
        physical_sector_size=physical,
        disk_type=disk_type,
        disk_id=_guid_text(items[_VIRTUAL_DISK_ID_GUID][1]),
        file_size=view.file_size,
        log_pending=log_pending,
    )
    bat = regions[_BAT_GUID]
    if _bat_entries(info) * _BAT_ENTRY_SIZE > bat.length:
        raise view.damaged(f"its BAT region is too small for a virtual size of {virtual_size}")
    return _Disk(info, header, view.updates, view.size, region_table, bat, virtual_size_position)


def _load_stable(file: BinaryIO, name: str) -> _Disk:
    """Load while somebody else may be writing.

    Every writer changes the header before and after its other changes, so
    what was read under one and the same header belongs together. The length
    of the file is part of that, hence a new view after the header.
    """
    for _attempt in range(_READ_ATTEMPTS):
        header = _current_header(_View(file, name))
        damage: Optional[FailedPrecondition] = None
        try:
            disk = _load(_View(file, name), header)
        except FailedPrecondition as error:
            damage = error
        if _current_header(_View(file, name)) == header:
            if damage:
                raise damage
            return disk
    raise Unavailable(f"{name} is being changed by somebody else; try again", path=name)


def read_info(path_or_file: Union[StrPath, BinaryIO]) -> DiskInfo:
    """What a VHDX file says of its disk, of any type, written by anybody.

    Reads the headers, a pending log, the region tables and the metadata, not
    the blocks; nothing is written, and another process may have the file
    open. A pending log is applied in memory. Of a file object the position
    changes.

    Raises NotFound for a missing file, FailedPrecondition for a damaged one
    (the message says what is wrong), NotImplementedHere for one that needs
    something newer, Unavailable if the file is held or never at rest.
    """
    if not isinstance(path_or_file, (str, os.PathLike)):
        return _load_stable(path_or_file, str(getattr(path_or_file, "name", "the file"))).info
    path = os.fspath(path_or_file)
    try:
        with open(path, "rb", buffering=0) as file:
            return _load_stable(file, path).info
    except OSError as error:
        raise file_error(error, f"cannot read disk {path}", path) from error


# -- writing ---------------------------------------------------------------------


def _checked_size(virtual_size: int, logical_sector_size: int) -> int:
    """``virtual_size`` rounded up to whole sectors; InvalidArgument outside 1 to 64 TiB."""
    if not 0 < virtual_size <= MAX_VIRTUAL_SIZE:
        raise InvalidArgument(
            f"invalid disk size {virtual_size}: must be from 1 to {MAX_VIRTUAL_SIZE} bytes (64 TiB)", size=virtual_size
        )
    return _round_up(virtual_size, logical_sector_size)


def _given_guid(text: Optional[str], name: str) -> bytes:
    if text is None:
        return _new_guid()
    try:
        return _guid_bytes(text)
    except ValueError:
        raise InvalidArgument(f"invalid {name} {text!r}: must be a GUID without braces") from None


def _header_bytes(header: _Header) -> bytes:
    return _with_checksum(_HEADER.pack(_HEADER_SIGNATURE, 0, *header[1:]).ljust(_HEADER_SIZE, b"\0"))


def create(
    path: StrPath,
    virtual_size: int,
    *,
    block_size: int = DEFAULT_BLOCK_SIZE,
    logical_sector_size: int = 512,
    physical_sector_size: int = 4096,
    disk_id: Optional[str] = None,
    write_id: Optional[str] = None,
) -> DiskInfo:
    """Write a new, empty dynamic VHDX file; exclusively, and durable on return.

    ``virtual_size`` in bytes, 1 to 64 TiB, is rounded up to whole logical
    sectors. ``block_size`` is a power of two from 1 MiB to 256 MiB, a sector
    size 512 or 4096. ``disk_id`` (VirtualDiskId) and ``write_id`` (the first
    FileWriteGuid and DataWriteGuid) are GUIDs without braces, random if not
    given; with both given the same arguments write the same bytes.

    Raises InvalidArgument for a value out of range, AlreadyExists if there is
    a file, NotFound without the directory, Unavailable on a full volume. On
    any error no file is left.
    """
    path = os.fspath(path)
    if block_size & block_size - 1 or not _MIN_BLOCK_SIZE <= block_size <= _MAX_BLOCK_SIZE:
        raise InvalidArgument(f"invalid block size {block_size}: must be a power of two from 1 MiB to 256 MiB")
    for size in (logical_sector_size, physical_sector_size):
        if size not in SECTOR_SIZES:
            raise InvalidArgument(f"invalid sector size {size}: must be 512 or 4096")
    disk_guid = _given_guid(disk_id, "disk id")
    write_guid = _given_guid(write_id, "write id")
    info = DiskInfo(
        virtual_size=_checked_size(virtual_size, logical_sector_size),
        block_size=block_size,
        logical_sector_size=logical_sector_size,
        physical_sector_size=physical_sector_size,
        disk_type=DYNAMIC,
        disk_id=_guid_text(disk_guid),
        file_size=0,
        log_pending=False,
    )
    # The BAT is last, where it can grow in place until the first block is written.
    log_offset, metadata_offset, bat_offset = _ALIGNMENT, 2 * _ALIGNMENT, 3 * _ALIGNMENT
    info = info._replace(file_size=bat_offset + _bat_length(info))

    regions = ((_BAT_GUID, bat_offset, _bat_length(info)), (_METADATA_GUID, metadata_offset, _ALIGNMENT))
    region_table = _REGION_TABLE_HEADER.pack(_REGION_TABLE_SIGNATURE, 0, len(regions), 0)
    region_table += b"".join(_REGION_TABLE_ENTRY.pack(*region, 1) for region in regions)
    region_table = _with_checksum(region_table.ljust(_REGION_TABLE_SIZE, b"\0"))

    items = (
        (_FILE_PARAMETERS_GUID, _IS_REQUIRED, _FILE_PARAMETERS.pack(block_size, 0)),
        (_VIRTUAL_DISK_SIZE_GUID, _IS_REQUIRED | _IS_VIRTUAL_DISK, struct.pack("<Q", info.virtual_size)),
        (_VIRTUAL_DISK_ID_GUID, _IS_REQUIRED | _IS_VIRTUAL_DISK, disk_guid),
        (_LOGICAL_SECTOR_SIZE_GUID, _IS_REQUIRED | _IS_VIRTUAL_DISK, struct.pack("<I", logical_sector_size)),
        (_PHYSICAL_SECTOR_SIZE_GUID, _IS_REQUIRED | _IS_VIRTUAL_DISK, struct.pack("<I", physical_sector_size)),
    )
    metadata_table = _METADATA_TABLE_HEADER.pack(_METADATA_SIGNATURE, 0, len(items), bytes(20))
    item_bytes = b""
    for guid, flags, value in items:
        item_offset = _METADATA_TABLE_SIZE + len(item_bytes)
        metadata_table += _METADATA_TABLE_ENTRY.pack(guid, item_offset, len(value), flags, 0)
        item_bytes += value

    with new_disk_file(path, f"cannot create disk {path}", info.file_size) as file:
        file.truncate(info.file_size)
        failpoint("vhdx.create.identifier")
        write_at(file, 0, _FILE_TYPE_SIGNATURE + _CREATOR)
        for sequence_number, position in enumerate(_HEADER_OFFSETS, 1):
            header = _Header(position, sequence_number, write_guid, write_guid, _NO_GUID, 0, 1, _ALIGNMENT, log_offset)
            failpoint("vhdx.create.header")
            write_at(file, position, _header_bytes(header))
        for position in _REGION_TABLE_OFFSETS:
            failpoint("vhdx.create.region_table")
            write_at(file, position, region_table)
        failpoint("vhdx.create.metadata")
        write_at(file, metadata_offset, metadata_table)
        write_at(file, metadata_offset + _METADATA_TABLE_SIZE, item_bytes)
    return info


def _write_header(file: BinaryIO, current: _Header, *, flush: bool = True, **changes: Any) -> _Header:
    """Make the other header the current one (2.2.2.1), durably unless the caller sees to that."""
    (position,) = (offset for offset in _HEADER_OFFSETS if offset != current.position)
    header = current._replace(position=position, sequence_number=current.sequence_number + 1, **changes)
    failpoint("vhdx.header.write")
    write_at(file, position, _header_bytes(header))
    if flush:
        failpoint("vhdx.header.flush")
        os.fsync(file.fileno())
        failpoint("vhdx.header.flushed")
    return header


def _finish_log(file: BinaryIO, header: _Header, updates: List[_Update], file_size: int) -> None:
    """Write the updates of the pending log to their places, then declare the log empty.

    ``file_size`` is the least length of the file afterwards. Idempotent: after
    a crash anywhere in here the same updates are written again.
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
        # Beyond the old end the file is zero already.
        for start in range(update.offset, min(update.offset + update.length, present), _ALIGNMENT):
            write_at(file, start, bytes(min(_ALIGNMENT, update.offset + update.length - start)))
    failpoint("vhdx.log.flush")
    os.fsync(file.fileno())
    for _header in _HEADER_OFFSETS:
        header = _write_header(file, header, log_guid=_NO_GUID)


def _replay(file: BinaryIO, disk: _Disk) -> None:
    header = _write_header(file, disk.header, file_write_guid=_new_guid())
    _finish_log(file, header, disk.updates, disk.size_after_replay)


def replay_log(path: StrPath) -> DiskInfo:
    """Write a pending log to its final places (2.3.3); without one nothing is written.

    Safe at any instruction. The whole file is checked as it would be after
    the replay before the first byte is written. Raises as ``read_info`` does.
    """
    path = os.fspath(path)
    try:
        with open(path, "r+b", buffering=0) as file:
            disk = _load_stable(file, path)
            if disk.info.log_pending:
                _replay(file, disk)
            return _load_stable(file, path).info
    except OSError as error:
        raise file_error(error, f"cannot replay the log of disk {path}", path) from error


def _nonzero_pieces(file: BinaryIO, offset: int, length: int) -> Iterator[Tuple[int, bytes]]:
    """The pieces, at most 64 KiB each, that are not all zero, each with its distance from ``offset``.

    A BAT of half a gigabyte is nearly all zero, so this is what makes it cheap.
    """
    for start in range(0, length, len(_ZEROS)):
        piece = read_at(file, offset + start, min(len(_ZEROS), length - start))
        if piece != _ZEROS[: len(piece)]:
            yield start, piece


def _end_of_structures(file: BinaryIO, disk: _Disk, name: str) -> int:
    """A multiple of 1 MiB at or after the end of the file and of every block.

    A last block may be longer than the file that holds it; one that starts
    after the end is damage, and to grow would make it worse.
    """
    end = disk.info.file_size
    for _offset, piece in _nonzero_pieces(file, disk.bat.offset, _bat_entries(disk.info) * _BAT_ENTRY_SIZE):
        entries = struct.unpack(f"<{len(piece) // _BAT_ENTRY_SIZE}Q", piece)
        present = (entry for entry in entries if entry & _BLOCK_STATE_MASK >= _PAYLOAD_BLOCK_FULLY_PRESENT)
        last = max(present, default=0) // _ALIGNMENT * _ALIGNMENT
        if last >= disk.info.file_size:
            raise FailedPrecondition(
                f"{name} is not a usable VHDX file: a block at {last} lies beyond the end of the file", path=name
            )
        end = max(end, last + disk.info.block_size)
    return _round_up(end, _ALIGNMENT)


def _place_bat(file: BinaryIO, disk: _Disk, grown: DiskInfo, name: str) -> Tuple[_Region, int]:
    """Where the BAT of the grown disk goes, and how long the file has to be."""
    used = _bat_entries(disk.info) * _BAT_ENTRY_SIZE
    needed = _bat_length(grown)
    # New entries have to read as zero: PAYLOAD_BLOCK_NOT_PRESENT. Nothing says that the unused
    # rest of the region does; if it does not, a new region is the simple way out.
    rest_is_zero = not any(True for _piece in _nonzero_pieces(file, disk.bat.offset + used, disk.bat.length - used))
    if needed <= disk.bat.length and rest_is_zero:
        return disk.bat, _round_up(disk.info.file_size, _ALIGNMENT)
    end = _end_of_structures(file, disk, name)
    offset = disk.bat.offset if disk.bat.end == end and rest_is_zero else end
    return disk.bat._replace(offset=offset, length=needed), offset + needed


def _sector_updates(file: BinaryIO, writes: List[Tuple[int, bytes]]) -> List[_Update]:
    """The 4 KB sectors that ``writes`` (offset, data) change, with their new content."""
    sectors: Dict[int, bytes] = {}
    changed = set()
    for offset, data in writes:
        for sector in range(offset // _LOG_SECTOR * _LOG_SECTOR, offset + len(data), _LOG_SECTOR):
            old = sectors.get(sector) or read_at(file, sector, _LOG_SECTOR)
            start, end = max(offset, sector), min(offset + len(data), sector + _LOG_SECTOR)
            new = old[: start - sector] + data[start - offset : end - offset] + old[end - sector :]
            sectors[sector] = new
            if new != old:
                changed.add(sector)
    return [_Update(sector, _LOG_SECTOR, sectors[sector]) for sector in sorted(changed)]


def _log_entry_bytes(updates: List[_Update], log_guid: bytes, file_size: int) -> bytes:
    """One log entry (2.3.1) that is a sequence by itself at the start of the log."""
    sequence_number = 1
    descriptors = data_sectors = b""
    for update in updates:
        data = update.data or b""
        descriptors += _LOG_DESCRIPTOR.pack(_DATA_SIGNATURE, data[-4:], data[:8], update.offset, sequence_number)
        data_sectors += _DATA_SECTOR.pack(_DATA_SECTOR_SIGNATURE, 0, data[8:-4], sequence_number)
    descriptor_length = _round_up(_LOG_ENTRY_HEADER.size + len(descriptors), _LOG_SECTOR)
    header = _LOG_ENTRY_HEADER.pack(
        _LOG_ENTRY_SIGNATURE,
        0,
        descriptor_length + len(data_sectors),
        0,
        sequence_number,
        len(updates),
        0,
        log_guid,
        file_size,
        file_size,
    )
    return _with_checksum((header + descriptors).ljust(descriptor_length, b"\0") + data_sectors)


class _Growth(NamedTuple):
    """What growing a disk changes: its size, the place of its BAT, the length of the file, and (offset, data)."""

    info: DiskInfo
    bat: _Region
    file_size: int
    writes: List[Tuple[int, bytes]]


def _growth(file: BinaryIO, disk: _Disk, new_size: int, name: str) -> _Growth:
    grown = disk.info._replace(virtual_size=new_size, log_pending=False)
    bat, file_size = _place_bat(file, disk, grown, name)
    writes = [(disk.virtual_size_position, struct.pack("<Q", new_size))]
    if bat != disk.bat:
        table = bytearray(disk.region_table)
        entry_offset = _REGION_TABLE_HEADER.size + bat.number * _REGION_TABLE_ENTRY.size
        _REGION_TABLE_ENTRY.pack_into(table, entry_offset, *bat[1:])
        region_table = _with_checksum(bytes(table))
        writes += [(position, region_table) for position in _REGION_TABLE_OFFSETS]
    return _Growth(grown._replace(file_size=file_size), bat, file_size, writes)


def _copy_bat(file: BinaryIO, disk: _Disk, bat: _Region) -> None:
    """Write the entries of the BAT to their new place, if it has one."""
    if bat.offset != disk.bat.offset:
        for start, piece in _nonzero_pieces(file, disk.bat.offset, _bat_entries(disk.info) * _BAT_ENTRY_SIZE):
            failpoint("vhdx.grow.bat")
            write_at(file, bat.offset + start, piece)


def _refuse_fixed(info: DiskInfo, doing: str) -> None:
    if info.disk_type == FIXED:
        raise NotImplementedHere(f"{doing}: it is a fixed disk; grow it with Resize-VHD or convert it to a dynamic one")


def grow_new(file: BinaryIO, new_size: int, name: str) -> DiskInfo:
    """As ``grow``, for the open file of a disk that nobody knows yet; OSError is not translated.

    The caller makes it durable, or throws it away, as a whole. So nothing
    needs the log, an order, or a flush of its own.
    """
    disk = _load_stable(file, name)
    new_size = _checked_size(new_size, disk.info.logical_sector_size)
    if new_size <= disk.info.virtual_size:
        return disk.info
    _refuse_fixed(disk.info, f"cannot grow disk {name}")
    if disk.info.log_pending:
        _replay(file, disk)
        disk = _load_stable(file, name)
    growth = _growth(file, disk, new_size, name)
    failpoint("vhdx.grow_new.extend")
    file.truncate(growth.file_size)
    _copy_bat(file, disk, growth.bat)
    for offset, data in growth.writes:
        failpoint("vhdx.grow_new.write")
        write_at(file, offset, data)
    failpoint("vhdx.grow_new.header")
    _write_header(file, disk.header, flush=False, file_write_guid=_new_guid(), data_write_guid=_new_guid())
    failpoint("vhdx.grow_new.done")
    return growth.info


def grow(path: StrPath, new_size: int) -> DiskInfo:
    """Make the virtual size at least ``new_size`` bytes, in place; says what the disk is now.

    ``new_size``, 1 to 64 TiB, is rounded up to whole logical sectors. A disk
    that is large enough already is not touched. Whoever reads after a crash
    at any instruction finds the old size or the new one (see the text of this
    module). The caller sees to it that nobody else writes.

    Differencing disks grow too: the linkage to the parent holds the parent's
    GUID, not the child's, new blocks start as not present, and it is what
    Windows does with its own scratch disks, which are differencing. A disk
    that is itself a parent must not grow, its children would reject it
    (2.6.2.6.3); the file does not tell, so that is the caller's part.

    Raises NotImplementedHere for fixed disks, whose new blocks would all have
    to be allocated; otherwise as ``read_info`` and ``create`` do.
    """
    path = os.fspath(path)
    doing = f"cannot grow disk {path}"
    info = read_info(path)
    new_size = _checked_size(new_size, info.logical_sector_size)
    if new_size <= info.virtual_size:
        return info
    _refuse_fixed(info, doing)
    needed = 0
    try:
        with open(path, "r+b", buffering=0) as file:
            disk = _load_stable(file, path)
            if disk.info.log_pending:
                _replay(file, disk)
                disk = _load_stable(file, path)
            growth = _growth(file, disk, new_size, path)
            needed = growth.file_size - disk.info.file_size
            updates = _sector_updates(file, growth.writes)
            log_guid = _new_guid()
            log_entry = _log_entry_bytes(updates, log_guid, growth.file_size)
            if len(log_entry) > disk.header.log_length:
                raise FailedPrecondition(f"{doing}: it has no log to do that safely", path=path)

            header = _write_header(file, disk.header, file_write_guid=_new_guid())
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
            data_guid = _new_guid()
            for _header in _HEADER_OFFSETS:
                header = _write_header(file, header, log_guid=log_guid, log_version=0, data_write_guid=data_guid)
            _finish_log(file, header, updates, growth.file_size)
            return growth.info
    except OSError as error:
        raise file_error(error, doing, path, needed) from error


# -- care ------------------------------------------------------------------------


def _damaged_copies(view: _View) -> Tuple[List[int], List[int], bytes]:
    """Offsets of headers and of region tables that are damaged where the other copy is not; the good table."""
    headers = []
    for position in _HEADER_OFFSETS:
        raw = view.read(position, _HEADER_SIZE, "a header")
        if raw[: len(_HEADER_SIGNATURE)] != _HEADER_SIGNATURE or not _checksum_matches(raw):
            headers.append(position)
    good, _regions_of_it = _regions(view, _current_header(view))
    tables = [
        position
        for position in _REGION_TABLE_OFFSETS
        if view.read(position, _REGION_TABLE_SIZE, "a region table") != good
    ]
    return headers, tables, good


def check(path: StrPath) -> List[str]:
    """Read everything but the contents of the blocks; which copies of what is kept twice are damaged.

    Headers (2.2.2) and region tables (2.2.3) are kept twice, and one good
    copy is enough. A pending log is no damage. Raises FailedPrecondition for
    a disk that cannot be used, also for one whose blocks lie beyond the end
    of the file; otherwise as ``read_info`` does.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb", buffering=0) as file:
            disk = _load_stable(file, path)
            _end_of_structures(file, disk, path)
            if disk.info.log_pending:
                return []
            headers, tables, _good = _damaged_copies(_View(file, path))
    except OSError as error:
        raise file_error(error, f"cannot read disk {path}", path) from error
    found = [f"header {_HEADER_OFFSETS.index(position) + 1}" for position in headers]
    return found + [f"region table {_REGION_TABLE_OFFSETS.index(position) + 1}" for position in tables]


def repair(path: StrPath) -> DiskInfo:
    """Write what is kept twice and damaged once anew from the good copy, and replay a pending log.

    Safe at any instruction: the good copy is not touched. The caller sees to
    it that nobody else writes. Raises as ``check`` does.
    """
    path = os.fspath(path)
    replay_log(path)
    try:
        with open(path, "r+b", buffering=0) as file:
            disk = _load_stable(file, path)
            headers, tables, good = _damaged_copies(_View(file, path))
            for position in tables:
                failpoint("vhdx.repair.region_table")
                write_at(file, position, good)
            failpoint("vhdx.repair.flush")
            os.fsync(file.fileno())
            failpoint("vhdx.repair.flushed")
            if headers:
                _write_header(file, disk.header, file_write_guid=_new_guid())
            return _load_stable(file, path).info
    except OSError as error:
        raise file_error(error, f"cannot repair disk {path}", path) from error
