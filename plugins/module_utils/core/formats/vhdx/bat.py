# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Size and contents of the block allocation table, BAT (2.5)."""

from __future__ import annotations

import struct
from typing import BinaryIO, Iterator, Tuple

from ...errors import FailedPrecondition
from ...files import read_at
from .structures import ALIGNMENT, BAT_ENTRY_SIZE, DIFFERENCING, KIB, Disk, DiskInfo, round_up

# 2.5.1
_BLOCK_STATE_MASK = 7
_PAYLOAD_BLOCK_FULLY_PRESENT = 6
# 2.4
_SECTORS_PER_BITMAP_BLOCK = 1 << 23

# The table is read and compared in pieces of this size, small enough for the memory to be reused.
_ZEROS = bytes(64 * KIB)


def bat_entries(info: DiskInfo) -> int:
    """Return the number of BAT entries (2.5): one for each payload block and each sector bitmap block.

    A sector bitmap entry follows the payload entries of its chunk. Only a
    differencing disk has one for the last, incomplete chunk. The payload
    entries of that chunk are then complete.
    """
    chunk_ratio = _SECTORS_PER_BITMAP_BLOCK * info.logical_sector_size // info.block_size
    payload_blocks = -(-info.virtual_size // info.block_size)
    if info.disk_type == DIFFERENCING:
        return -(-payload_blocks // chunk_ratio) * (chunk_ratio + 1)
    return payload_blocks + max(payload_blocks - 1, 0) // chunk_ratio


def bat_length(info: DiskInfo) -> int:
    """Return the least length in bytes of the BAT region of a disk."""
    return max(round_up(bat_entries(info) * BAT_ENTRY_SIZE, ALIGNMENT), ALIGNMENT)


def nonzero_pieces(file: BinaryIO, offset: int, length: int) -> Iterator[Tuple[int, bytes]]:
    """Yield the pieces that are not all zero, at most 64 KiB each, with their distance from ``offset``.

    A BAT of half a gigabyte is nearly all zero, so this keeps it cheap.
    """
    for start in range(0, length, len(_ZEROS)):
        piece = read_at(file, offset + start, min(len(_ZEROS), length - start))
        if piece != _ZEROS[: len(piece)]:
            yield start, piece


def end_of_structures(file: BinaryIO, disk: Disk, name: str) -> int:
    """Return a multiple of 1 MiB at or after the end of the file and of every block.

    The last block may end after the end of the file. A block that starts after
    the end is damage, and growing the disk would make that worse: it raises
    FailedPrecondition.
    """
    end = disk.info.file_size
    for _offset, piece in nonzero_pieces(file, disk.bat.offset, bat_entries(disk.info) * BAT_ENTRY_SIZE):
        entries = struct.unpack(f"<{len(piece) // BAT_ENTRY_SIZE}Q", piece)
        present = (entry for entry in entries if entry & _BLOCK_STATE_MASK >= _PAYLOAD_BLOCK_FULLY_PRESENT)
        last = max(present, default=0) // ALIGNMENT * ALIGNMENT
        if last >= disk.info.file_size:
            raise FailedPrecondition(
                f"{name} is not a usable VHDX file: a block at {last} lies beyond the end of the file", path=name
            )
        end = max(end, last + disk.info.block_size)
    return round_up(end, ALIGNMENT)
