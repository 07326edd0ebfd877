# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock that bbolt holds on a database.

A process has this lock for as long as it has the database open: containerd from its start to its end. On POSIX it is
flock on the whole file, on Windows LockFileEx on the byte at offset 2^64-1 (go.etcd.io/bbolt, bolt_unix.go,
bolt_windows.go). Neither prevents reading. A process that opens the database waits for the lock, so a containerd that
starts meanwhile waits, too.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, Iterator, Optional

from ..files import file_error, only_files

_OFFSET = (1 << 64) - 1
# Seconds between two attempts, as in bbolt.
_PAUSE = 0.05


class DatabaseLock:
    """The lock on the database at ``path``. An object belongs to one thread.

    The end of a ``with`` block releases the lock, and so does the end of the process.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._close: Optional[Callable[[], None]] = None

    def acquire(self, exclusive: bool = True) -> bool:
        """Take the lock without waiting. Return False if another process has it.

        Locks that are not ``exclusive`` do not exclude each other. Raises an error of the core if the file cannot be
        opened.
        """
        return self._acquire_windows(exclusive) if os.name == "nt" else self._acquire_posix(exclusive)

    def release(self) -> None:
        """Release the lock. Without a lock, nothing happens."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def _acquire_windows(self, exclusive: bool) -> bool:
        from ..win32 import kernel32

        file = kernel32.create_file(self._path, kernel32.GENERIC_READ)
        return self._keep(file.close, lambda: kernel32.try_lock(file, _OFFSET, exclusive))

    def _acquire_posix(self, exclusive: bool) -> bool:
        import fcntl

        try:
            descriptor = only_files(self._path, os.O_RDONLY)
        except OSError as error:
            raise file_error(error, f"cannot open {self._path}", self._path) from None

        def lock() -> bool:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        return self._keep(lambda: os.close(descriptor), lock)

    def _keep(self, close: Callable[[], None], lock: Callable[[], bool]) -> bool:
        """Take the lock, and keep the file open if that succeeds."""
        is_locked = False
        try:
            is_locked = lock()
        finally:
            if not is_locked:
                close()
        if is_locked:
            self._close = close
        return is_locked

    def __enter__(self) -> DatabaseLock:
        return self

    def __exit__(self, *error: Any) -> None:
        self.release()


def is_locked(path: str) -> bool:
    """Return whether a process has the database at ``path`` open. Raises an error of the core if there is no file."""
    with DatabaseLock(path) as lock:
        # Two of these questions at the same time must not take each other for containerd.
        return not lock.acquire(exclusive=False)


@contextlib.contextmanager
def lock_databases(*paths: str, seconds: float) -> Iterator[bool]:
    """Hold the locks on these databases in a ``with`` block: containerd cannot start before its end.

    The block gets False, and no lock, if another process has one of them for this many seconds. A missing database
    needs no lock, but the first one must exist. Raises an error of the core if a file cannot be opened.
    """
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        for path in paths:
            if path != paths[0] and not os.path.exists(path):
                continue
            lock = stack.enter_context(DatabaseLock(path))
            while not lock.acquire():
                if time.monotonic() > deadline:
                    stack.close()
                    yield False
                    return
                time.sleep(_PAUSE)
        yield True
