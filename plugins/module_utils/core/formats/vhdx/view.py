# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a VHDX file, and read it as it is after a replay of its log."""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, Iterator, List, cast

from ...errors import FailedPrecondition
from ...files import file_error, read_at, translating_os_errors
from .structures import Update


@contextlib.contextmanager
def open_disk(path: str, mode: str, action: str) -> Iterator[BinaryIO]:
    """Open a disk file without a buffer; operating system errors of the block become ``<action> <path>: ...``."""
    with translating_os_errors(action, path, translate=file_error), open(path, mode, buffering=0) as file:
        yield cast(BinaryIO, file)


class View:
    """The file as it is after ``updates``. Each read checks the bounds."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.file_size = file.seek(0, os.SEEK_END)
        self.size = self.file_size
        self.updates: List[Update] = []

    def damaged(self, what: str) -> FailedPrecondition:
        """Return the error for a damaged file; ``what`` says what is wrong with it."""
        return FailedPrecondition(f"{self.name} is not a usable VHDX file: {what}", path=self.name)

    def read(self, offset: int, length: int, what: str) -> bytes:
        """Read ``length`` bytes at ``offset``; FailedPrecondition names ``what`` if the file ends earlier."""
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
