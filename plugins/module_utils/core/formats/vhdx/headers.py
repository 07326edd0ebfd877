# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and write the headers (2.2.2) of a VHDX file."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from ...errors import NotImplementedHere
from ...failpoint import failpoint
from ...files import write_at
from .checksum import checksum_matches, with_checksum
from .structures import (
    ALIGNMENT,
    FILE_TYPE_SIGNATURE,
    HEADER,
    HEADER_OFFSETS,
    HEADER_SIGNATURE,
    HEADER_SIZE,
    Header,
)
from .view import View

# The number counts updates, so a real file is far below. The limit leaves room to count on.
_MAX_SEQUENCE_NUMBER = 1 << 63


def current_header(view: View) -> Header:
    """Return the current header (2.2.2) of a file that has the type identifier of VHDX (2.2.1)."""
    if view.read(0, len(FILE_TYPE_SIGNATURE), "the file type identifier") != FILE_TYPE_SIGNATURE:
        raise view.damaged(f"it does not start with {FILE_TYPE_SIGNATURE.decode()}")
    valid = []
    for position in HEADER_OFFSETS:
        raw = view.read(position, HEADER_SIZE, "a header")
        signature, _checksum, *fields = HEADER.unpack_from(raw)
        if signature == HEADER_SIGNATURE and checksum_matches(raw):
            valid.append(Header(position, *fields))
    if not valid:
        raise view.damaged("both headers are damaged")
    # Disk2vhd writes two equal headers (QEMU block/vhdx.c). Different headers with the same number have no order.
    if len(valid) == 2 and valid[0].sequence_number == valid[1].sequence_number and valid[0][1:] != valid[1][1:]:
        raise view.damaged("two different headers have the same sequence number")
    header = max(valid, key=lambda candidate: candidate.sequence_number)
    if header.version != 1:
        raise NotImplementedHere(
            f"{view.name} has VHDX version {header.version}, only version 1 is supported", path=view.name
        )
    if header.sequence_number > _MAX_SEQUENCE_NUMBER:
        raise view.damaged(f"header sequence number {header.sequence_number} is out of range")
    if header.log_offset % ALIGNMENT or header.log_length % ALIGNMENT:
        raise view.damaged("the log is not aligned to 1 MiB")
    if header.log_length and header.log_offset < ALIGNMENT:
        raise view.damaged("the log overlaps the header section")
    if header.log_offset + header.log_length > view.size:
        raise view.damaged("the log lies beyond the end of the file")
    return header


def header_bytes(header: Header) -> bytes:
    """Return a header as the file holds it."""
    return with_checksum(HEADER.pack(HEADER_SIGNATURE, 0, *header[1:]).ljust(HEADER_SIZE, b"\0"))


def write_header(file: BinaryIO, current: Header, *, flush: bool = True, **changes: Any) -> Header:
    """Make the other header the current one (2.2.2.1); durably, unless the caller flushes the file."""
    (position,) = (offset for offset in HEADER_OFFSETS if offset != current.position)
    header = current._replace(position=position, sequence_number=current.sequence_number + 1, **changes)
    failpoint("vhdx.header.write")
    write_at(file, position, header_bytes(header))
    if flush:
        failpoint("vhdx.header.flush")
        os.fsync(file.fileno())
        failpoint("vhdx.header.flushed")
    return header
