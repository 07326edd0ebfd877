# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite's errors as errors of the core.

Only what proves that the contents of the file are wrong is ``Damaged``. A
failing volume, a missing permission or a defect of the core is not a reason to
restore a backup.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from ..errors import Damaged, FailedPrecondition, Internal, SnapshotterError, Unavailable

#: How long a writer waits in the write queue, and then again for the writer before it to end, seconds.
BUSY_TIMEOUT = 30.0

#: Longest metadata file, bytes; reading takes a multiple of that in memory. It holds about 90,000 snapshots.
MAXIMUM_SIZE = 128 * 1024**2

#: In its messages SQLite quotes the schema, which in a damaged file may not be UTF-8.
SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)

# The size of a new index of the write-ahead log is 32 KiB.
_SIDE_FILES_SIZE = 64 * 1024

# Primary result codes (sqlite.org/rescode.html).
_ERROR, _BUSY, _LOCKED, _READONLY, _INTERRUPT, _IOERR, _CORRUPT = 1, 5, 6, 8, 9, 10, 11
_FULL, _CANTOPEN, _PROTOCOL, _TOOBIG, _CONSTRAINT, _NOTADB = 13, 14, 15, 18, 19, 26

# Python has the code of an error since 3.11. These are parts of SQLite's messages; one can contain a later one.
_TEXTS = (
    ("no such table", _ERROR),
    ("malformed", _CORRUPT),
    ("is locked", _BUSY),
    ("database or disk is full", _FULL),
    ("disk I/O error", _IOERR),
    ("unable to open", _CANTOPEN),
    ("readonly database", _READONLY),
    ("interrupted", _INTERRUPT),
    ("locking protocol", _PROTOCOL),
    ("too big", _TOOBIG),
    ("constraint failed", _CONSTRAINT),
    ("not a database", _NOTADB),
)

# Errors with the code _ERROR, and of Python's module, that come from the contents of a file.
_DAMAGE = ("unsupported file format", "Could not decode to UTF-8")


class TranslatedErrors:
    """A context that raises SQLite's errors as errors of the core."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, SQLITE_ERRORS):
            raise translate(error, self._path) from error
        if isinstance(error, FileNotFoundError):
            # Another task deletes it between two looks at it.
            raise _removed(self._path) from error


def translate(error: Exception, path: str) -> SnapshotterError:
    """Return an error of SQLite about the metadata file ``path`` as an error of the core."""
    text, code = str(error), _code(error)
    if code in (_BUSY, _LOCKED, _PROTOCOL):
        return locked_too_long(path)
    if "no such table" in text or (code == _READONLY and not os.path.exists(path)):
        return _removed(path)
    if code == _FULL and not _is_full(path) and _is_large(path):
        return FailedPrecondition(
            f"{path} has reached the limit of {MAXIMUM_SIZE >> 20} MiB, nothing was changed; remove snapshots",
            path=path,
        )
    if code == _FULL or (code in (_IOERR, _CANTOPEN) and _is_full(path)):
        return Unavailable(
            f"{path}: the volume is full, nothing was changed; free some space and run the task again", path=path
        )
    if code == _IOERR:
        name = getattr(error, "sqlite_errorname", "")
        return Unavailable(
            f"{path}: {text}{name and f' ({name})'}, nothing was changed; check that the volume works and that it, and "
            "the quota of this user, have free space; then run the task again",
            path=path,
        )
    if code == _READONLY:
        return FailedPrecondition(f"{path} cannot be written: it is read-only for this user", path=path)
    if code == _CANTOPEN:
        return FailedPrecondition(
            f"{path} cannot be opened: its directory is missing, unreadable or read-only for this user", path=path
        )
    is_content = code in (_CORRUPT, _NOTADB, _CONSTRAINT, _TOOBIG, _INTERRUPT) or isinstance(error, UnicodeDecodeError)
    if is_content or any(damage in text for damage in _DAMAGE):
        if code == _INTERRUPT:
            text = "a query on it does not end"
        return Damaged(f"{path} is damaged ({text}); restore it from a backup, nothing was changed", path=path)
    return Internal(f"{path}: {text}", path=path)


def _removed(path: str) -> Unavailable:
    return Unavailable(f"{path}: the store has been removed meanwhile; run the task again", path=path)


def locked_too_long(path: str) -> Unavailable:
    """Return the error for metadata that other processes do not release."""
    return Unavailable(
        f"{path}: other processes have kept the metadata locked for {BUSY_TIMEOUT:g} s; run the task again", path=path
    )


def _code(error: Exception) -> int:
    """Return the primary result code of an error, 0 if it is not known."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return int(code) & 0xFF
    text = str(error)
    return next((code for part, code in _TEXTS if part in text), 0)


def _is_large(path: str) -> bool:
    try:
        return os.path.getsize(path) > MAXIMUM_SIZE // 2
    except OSError:
        return False


def _is_full(path: str) -> bool:
    """Whether the volume lacks room for SQLite's side files, which SQLite does not report as a full volume."""
    directory = os.path.dirname(path)
    try:
        if hasattr(os, "statvfs"):
            status = os.statvfs(directory)
            return status.f_bavail * status.f_frsize < _SIDE_FILES_SIZE or (status.f_files > 0 and status.f_favail < 2)
        import shutil

        return shutil.disk_usage(directory).free < _SIDE_FILES_SIZE
    except OSError:
        return False
