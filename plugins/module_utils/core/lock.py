# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock between processes that the death of its holder releases."""

from __future__ import annotations

import os
import time
from typing import Any, Optional

# Seconds between two attempts of a process that waits.
_PAUSE = 0.002


class FileLock:
    """An exclusive lock on a file, which is made if it is not there; its directory is not.

    The operating system keeps it (flock; LockFile on Windows), so that it is
    gone with the process that held it, whatever ended that process. The file
    itself stays: unlinking a locked file would let two processes lock two
    files of one name.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: Optional[int] = None

    def acquire(self, wait: float = 0.0) -> bool:
        """Take the lock; False if somebody else still has it after ``wait`` seconds.

        All who wait ask equally often, so that none is left behind. Raises
        OSError if the file cannot be made, or its file system has no locks.
        """
        deadline = time.monotonic() + wait
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            while not _lock(descriptor):
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(_PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back. Without it, nothing happens."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        # Whoever took it may have failed before it came to the block that gives it back.
        self.release()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()


def _lock(descriptor: int) -> bool:
    """Lock an open file; False if somebody else has done so. Any other reason is raised."""
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            # EACCES in Microsoft's C library, whatever errno was before in Wine's. Nothing else can be wrong here.
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
