# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copy a disk file without its holes."""

from __future__ import annotations

import errno
import os
from typing import BinaryIO, Iterator, Tuple

from ..errors import FailedPrecondition
from ..failpoint import failpoint
from ..files import StrPath, new_disk_file, only_files, os_error, read_at, write_at
from ..formats.vhdx.growth import grow_new
from ..formats.vhdx.structures import MIB

# VHDX aligns its structures and blocks to this, so few chunks are only partly zero.
_CHUNK = MIB
_ZEROS = bytes(_CHUNK)


def copy_disk(source: StrPath, destination: StrPath, size: int = 0) -> int:
    """Copy a disk file to a new file, exclusively and durably; returns the source's length in bytes.

    With ``size`` the virtual size of the copy is at least that many bytes.

    Holes of the source stay holes, and runs of zeros become holes, where the
    file system supports them. On NTFS the new file does not get the sparse
    attribute: Windows does not attach a VHDX file that has it. The source is
    only read.

    Raises FailedPrecondition if the source is missing, is not a file or
    changes during the copy, AlreadyExists if the destination exists, NotFound
    if its directory is missing, Unavailable if the volume is full or the
    source is in use. Messages name both paths. An error removes the
    destination. With ``size`` also raises what ``vhdx.grow`` raises.
    """
    source, destination = os.fspath(source), os.fspath(destination)
    what = f"cannot copy disk {source} to {destination}"
    try:
        with open(source, "rb", buffering=0, opener=only_files) as origin:
            length = origin.seek(0, os.SEEK_END)
            extents = list(_data_extents(origin, length))
            with new_disk_file(destination, what, sum(end - start for start, end in extents)) as copy:
                for start, end in extents:
                    _copy_extent(origin, copy, start, end)
                failpoint("copy.length")
                copy.truncate(length)
                if size:
                    grow_new(copy, size, destination)
    except EOFError:
        raise FailedPrecondition(f"{what}: {source} became shorter during the copy; try again", path=source) from None
    except OSError as error:
        raise os_error(error, f"{what}: cannot read {source}", path=source) from error
    return length


def _copy_extent(origin: BinaryIO, copy: BinaryIO, start: int, end: int) -> None:
    """Copy what is not zero between two offsets; raises EOFError if the source ends before the second."""
    for offset in range(start, end, _CHUNK):
        chunk = read_at(origin, offset, min(_CHUNK, end - offset))
        if offset + len(chunk) < min(offset + _CHUNK, end):
            raise EOFError
        if chunk != _ZEROS[: len(chunk)]:
            failpoint("copy.chunk")
            write_at(copy, offset, chunk)


def _data_extents(file: BinaryIO, length: int) -> Iterator[Tuple[int, int]]:
    """Yield start and end of each part that is not a hole; one part if the system cannot tell."""
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
