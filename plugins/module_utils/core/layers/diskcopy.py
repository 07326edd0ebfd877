# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copying a disk file without its holes."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO, Iterator, Tuple

from ..errors import FailedPrecondition
from ..failpoint import failpoint
from ..formats.vhdx import MIB, StrPath, grow_new, new_disk_file, read_at, write_at

# VHDX aligns its structures and blocks to this, so a chunk is seldom half zero.
_CHUNK = MIB
_ZEROS = bytes(_CHUNK)


def copy_disk(source: StrPath, destination: StrPath, size: int = 0) -> int:
    """Copy a disk file to a new file, exclusively and durably; returns the source's length in bytes.

    With ``size`` the virtual size of the copy is at least that many bytes.

    Holes of the source stay holes, and runs of zeros become holes, where the
    file system has them. On NTFS the new file is an ordinary one on purpose:
    Windows attaches no VHDX that has the sparse attribute. The source is
    only read.

    Raises FailedPrecondition if the source is missing, is not a file or
    changes meanwhile, AlreadyExists if there is a destination, NotFound
    without its directory, Unavailable on a full volume. Messages name both
    paths; on any error the destination is removed. With ``size`` also what
    ``vhdx.grow`` raises.
    """
    source, destination = os.fspath(source), os.fspath(destination)
    doing = f"cannot copy disk {source} to {destination}"
    try:
        with open(source, "rb", buffering=0) as origin:
            length = origin.seek(0, os.SEEK_END)
            extents = list(_data_extents(origin, length))
            with new_disk_file(destination, doing, sum(end - start for start, end in extents)) as copy:
                for start, end in extents:
                    _copy_extent(origin, copy, start, end)
                failpoint("copy.length")
                copy.truncate(length)
                if size:
                    grow_new(copy, size, destination)
    except EOFError:
        raise FailedPrecondition(f"{doing}: {source} became shorter meanwhile; try again", path=source) from None
    except OSError as error:
        raise FailedPrecondition(f"{doing}: cannot read {source}: {error.strerror}", path=source) from error
    return length


def _copy_extent(origin: BinaryIO, copy: BinaryIO, start: int, end: int) -> None:
    """Copy what is not zero between two offsets; EOFError if the source ends before."""
    for offset in range(start, end, _CHUNK):
        chunk = read_at(origin, offset, min(_CHUNK, end - offset))
        if offset + len(chunk) < min(offset + _CHUNK, end):
            raise EOFError
        if chunk != _ZEROS[: len(chunk)]:
            failpoint("copy.chunk")
            write_at(copy, offset, chunk)


def _data_extents(file: BinaryIO, length: int) -> Iterator[Tuple[int, int]]:
    """Start and end of each stretch of the file that is not a hole; one stretch if nobody can tell."""
    end = 0
    while end < length:
        if not hasattr(os, "SEEK_DATA"):
            yield end, length
            return
        try:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            stop = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            start, stop = end, length
        yield start, min(stop, length)
        end = stop
