# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and write entries of the log (2.3) of a VHDX file."""

from __future__ import annotations

import struct
from typing import BinaryIO, Dict, List, NamedTuple, Optional, Tuple

from ...errors import NotImplementedHere
from ...files import read_at
from .checksum import checksum_matches, with_checksum
from .structures import LOG_SECTOR, MAX_VIRTUAL_SIZE, MIB, REGION_TABLE_OFFSETS, TIB, Header, Update, round_up
from .view import View

# 2.3.1
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


class LogEntry(NamedTuple):
    """A valid log entry (2.3.1); ``offset`` and ``tail`` count from the start of the log."""

    offset: int
    length: int
    tail: int
    sequence_number: int
    flushed_file_offset: int
    last_file_offset: int
    updates: List[Update]


def _log_entry(log: bytes, length: int, offset: int, log_guid: bytes) -> Optional[LogEntry]:
    """Return the log entry at ``offset``, or None if no valid one starts there.

    ``log`` holds the ring of ``length`` bytes twice, so that an entry that
    wraps is contiguous. The checksum is checked last: only one of the entries
    that claim a sector gets that far, which limits the work on a hostile log.
    """
    signature, _checksum, entry_length, tail, sequence, count, _reserved, guid, flushed, last = (
        _LOG_ENTRY_HEADER.unpack_from(log, offset)
    )
    if signature != _LOG_ENTRY_SIGNATURE or guid != log_guid or sequence == 0:
        return None
    if entry_length % LOG_SECTOR or not 0 < entry_length <= length or tail % LOG_SECTOR or tail >= length:
        return None
    data_offset = round_up(_LOG_ENTRY_HEADER.size + count * _LOG_DESCRIPTOR.size, LOG_SECTOR)
    if data_offset > entry_length:
        return None
    updates = []
    for index in range(count):
        signature, trailing, leading, file_offset, number = _LOG_DESCRIPTOR.unpack_from(
            log, offset + _LOG_ENTRY_HEADER.size + index * _LOG_DESCRIPTOR.size
        )
        # The log does not change the file type identifier and the headers.
        if number != sequence or file_offset % LOG_SECTOR or file_offset < REGION_TABLE_OFFSETS[0]:
            return None
        if signature == _ZERO_SIGNATURE:
            zero_length = int.from_bytes(leading, "little")
            if zero_length % LOG_SECTOR:
                return None
            updates.append(Update(file_offset, zero_length, None))
        elif signature == _DATA_SIGNATURE:
            if data_offset + LOG_SECTOR > entry_length:
                return None
            signature, high, middle, low = _DATA_SECTOR.unpack_from(log, offset + data_offset)
            if signature != _DATA_SECTOR_SIGNATURE or high << 32 | low != sequence:
                return None
            updates.append(Update(file_offset, LOG_SECTOR, leading + middle + trailing))
            data_offset += LOG_SECTOR
        else:
            return None
    if data_offset != entry_length or not checksum_matches(log[offset : offset + entry_length]):
        return None
    return LogEntry(offset, entry_length, tail, sequence, flushed, last, updates)


def _active_sequence(log: bytes, log_guid: bytes) -> List[LogEntry]:
    """Return the entries to replay, oldest first (2.3.3); none if the log has no valid sequence."""
    length = len(log)
    ring = log + log
    entries: Dict[int, Optional[LogEntry]] = {
        offset: _log_entry(ring, length, offset, log_guid) for offset in range(0, length, LOG_SECTOR)
    }
    active: List[LogEntry] = []
    start = 0
    while start < length:
        sequence: List[LogEntry] = []
        head = start
        while head < start + length:
            entry = entries[head % length]
            if entry is None or (sequence and entry.sequence_number != sequence[-1].sequence_number + 1):
                break
            sequence.append(entry)
            head += entry.length
        tails = [index for index, entry in enumerate(sequence) if entry.offset == sequence[-1].tail]
        if not tails:
            start += LOG_SECTOR
            continue
        if not active or sequence[-1].sequence_number > active[-1].sequence_number:
            active = sequence[tails[0] :]
        start = head
    return active


def apply_log(view: View, header: Header) -> None:
    """Add the updates of a pending log to the view (2.3.3)."""
    if header.log_version != 0:
        raise NotImplementedHere(f"{view.name} has a log of version {header.log_version}", path=view.name)
    if header.log_length > _MAX_LOG_LENGTH:
        raise NotImplementedHere(
            f"{view.name} has a pending log of {header.log_length} bytes, more than the limit of "
            f"{_MAX_LOG_LENGTH}; attach the disk on Windows once to replay the log",
            path=view.name,
        )
    sequence = _active_sequence(view.read(header.log_offset, header.log_length, "the log"), header.log_guid)
    if not sequence:
        raise view.damaged("its log must be replayed but has no valid sequence")
    newest = sequence[-1]
    if newest.flushed_file_offset > view.file_size:
        raise view.damaged(
            f"it was cut to {view.file_size} bytes; according to its log it had {newest.flushed_file_offset}"
        )
    updates = [update for entry in sequence for update in entry.updates]
    limit = MAX_VIRTUAL_SIZE + TIB
    if max([newest.last_file_offset] + [update.offset + update.length for update in updates]) > limit:
        raise view.damaged("its log writes beyond any possible end of the file")
    if sum(update.length for update in updates if update.data is None) > _MAX_ZEROED:
        raise view.damaged(f"its log zeros more than {_MAX_ZEROED} bytes")
    view.updates = updates
    view.size = max([view.file_size, newest.last_file_offset] + [update.offset + update.length for update in updates])


def sector_updates(file: BinaryIO, writes: List[Tuple[int, bytes]]) -> List[Update]:
    """Return the 4 KB sectors that ``writes`` (offset, data) change, with their new content."""
    sectors: Dict[int, bytes] = {}
    changed = set()
    for offset, data in writes:
        for sector in range(offset // LOG_SECTOR * LOG_SECTOR, offset + len(data), LOG_SECTOR):
            old = sectors.get(sector) or read_at(file, sector, LOG_SECTOR)
            start, end = max(offset, sector), min(offset + len(data), sector + LOG_SECTOR)
            new = old[: start - sector] + data[start - offset : end - offset] + old[end - sector :]
            sectors[sector] = new
            if new != old:
                changed.add(sector)
    return [Update(sector, LOG_SECTOR, sectors[sector]) for sector in sorted(changed)]


def log_entry_bytes(updates: List[Update], log_guid: bytes, file_size: int) -> bytes:
    """Return a log entry (2.3.1) that is a complete sequence at the start of the log."""
    sequence_number = 1
    descriptors = data_sectors = b""
    for update in updates:
        data = update.data or b""
        descriptors += _LOG_DESCRIPTOR.pack(_DATA_SIGNATURE, data[-4:], data[:8], update.offset, sequence_number)
        data_sectors += _DATA_SECTOR.pack(_DATA_SECTOR_SIGNATURE, 0, data[8:-4], sequence_number)
    descriptor_length = round_up(_LOG_ENTRY_HEADER.size + len(descriptors), LOG_SECTOR)
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
    return with_checksum((header + descriptors).ljust(descriptor_length, b"\0") + data_sectors)
