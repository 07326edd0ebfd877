# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lock between processes and threads that ends with its process."""

from __future__ import annotations

import os
import time
from typing import Any, Optional

# Seconds between two attempts of a waiting process.
_PAUSE = 0.002


class FileLock:
    """An exclusive lock on a file. The file is created if it does not exist; its directory must exist.

    The operating system keeps the lock (flock; LockFile on Windows) and
    releases it when the process ends in any way. Two objects exclude each
    other, in one process as well; an object belongs to one thread. The file
    itself stays: if a locked file were unlinked, two processes could lock two
    files of the same name.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: Optional[int] = None

    def acquire(self, wait: float = 0.0) -> bool:
        """Take the lock; return False if another owner still has it after ``wait`` seconds.

        All waiting processes try equally often, so none of them starves.
        Raises OSError if the file cannot be created or is a link, or its file
        system has no locks.
        """
        deadline = time.monotonic() + wait
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._path, flags, 0o600)
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
        """Release the lock; without a lock, nothing happens."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        # An error may end the owner between acquire and the block that releases the lock.
        self.release()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()


def _lock(descriptor: int) -> bool:
    """Lock an open file; return False if it is locked. Raises OSError for any other reason."""
    if os.name == "nt":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            # Microsoft's C library gives EACCES, Wine's the previous errno. The call has no other error.
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
