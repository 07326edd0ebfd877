# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata file: open, create, copy, lock.

A process may open one file several times. Each ``Metastore`` is one
connection of SQLite, and one thread at a time may use it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any, Optional, Tuple

from ..errors import Damaged, FailedPrecondition
from ..failpoint import failpoint
from ..files import sync_directory
from ..lock import FileLock
from . import errors as sqlite_errors
from . import schema
from .errors import MAXIMUM_SIZE, SQLITE_ERRORS, TranslatedErrors, locked_too_long, translate
from .transaction import MAXIMUM_VALUE, Transaction

# How much SQLite may do in one transaction, in operations of its virtual machine, and how often it is counted. It does
# tens of millions a second. A walk over 20,000 snapshots takes less than a million.
_MAXIMUM_STEPS = 200_000_000
_STEPS = 1_000_000

# Sizes of SQLite (sqlite.org/c3ref/c_limit_attached.html): the length of a value or row, which Python can limit since
# 3.11, and the default of pages.
_LIMIT_LENGTH = 0
_PAGE_SIZE = 4096

# The creation of a metadata file ends with the deletion of its first name.
_CREATION_SECONDS = 0.5


class Metastore:
    """The metadata file of one store.

    With ``create``, a missing file is created. Without it, a missing file is
    an empty store that cannot be written to: reading never creates anything.
    ``path`` None is a store in memory.
    """

    def __init__(self, path: Optional[str], *, create: bool = False) -> None:
        self._path = path or ":memory:"
        self._connection: Optional[sqlite3.Connection] = None
        self._budget = _Budget()
        # The file that is open, and the version of its schema that was checked.
        self._identity: Optional[Tuple[int, int]] = None
        self._schema_version = 0
        location = self._path
        with TranslatedErrors(self._path):
            if path is not None and not os.path.exists(path):
                if create:
                    _create(path)
                else:
                    location = ":memory:"
            if os.name == "nt" and location != ":memory:":
                _wait_for_creator(location)
            identity = _identity(location)
            self._connection = self._open(location)
            # None if the file was replaced meanwhile: it is not known then which one is open.
            self._identity = identity if identity == _identity(location) else None
        self._write_queue = None if location == ":memory:" else _write_queue(location)

    def _open(self, location: str) -> sqlite3.Connection:
        if location != ":memory:":
            # Before SQLite reads the schema, which can be as large as the file.
            self._refuse_size(os.path.getsize(location))
        uri = location if location == ":memory:" else _uri(location, "rw")
        connection = sqlite3.connect(
            uri, timeout=sqlite_errors.BUSY_TIMEOUT, isolation_level=None, uri=True, check_same_thread=False
        )
        try:
            # Another program may have written this file (sqlite.org/security.html).
            connection.set_progress_handler(self._budget, _STEPS)
            if hasattr(connection, "setlimit"):
                connection.setlimit(_LIMIT_LENGTH, 2 * MAXIMUM_VALUE)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA max_page_count = {MAXIMUM_SIZE // _PAGE_SIZE}")
            if location == ":memory:":
                connection.executescript(schema.TABLES)
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_size(self, size: int) -> None:
        if size > MAXIMUM_SIZE:
            raise Damaged(
                f"{self._path} has {size} bytes, but the metadata of a store has at most {MAXIMUM_SIZE}; restore it "
                "from a backup, nothing was changed",
                path=self._path,
            )

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        # In one transaction, because another process may retire the file meanwhile.
        connection.execute("BEGIN")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != schema.APPLICATION_ID:
            raise Damaged(
                f"{self._path} is not the metadata of a snapshot store; use another root, or move that file away",
                path=self._path,
            )
        if version == schema.RETIRED:
            raise FailedPrecondition(
                f"{self._path} is of a store that is being removed, or whose removal was interrupted; run the module "
                "store: state=absent finishes the removal, state=present makes a new store",
                path=self._path,
            )
        if version > schema.VERSION:
            raise FailedPrecondition(
                f"{self._path} was written by a newer version of the collection (schema {version}, this one "
                f"knows {schema.VERSION}); update the collection on the controller",
                schema=version,
            )
        # The write-ahead log can have more pages than the file.
        self._refuse_size(connection.execute("PRAGMA page_count").fetchone()[0] * _PAGE_SIZE)
        # A trigger or a view runs the code of its author in our queries.
        found = connection.execute(
            f"SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT {len(schema.OBJECTS) + 1}"
        )
        difference = sorted({str(name) for _type, name, *_rest in schema.OBJECTS.symmetric_difference(found)})
        self._schema_version = connection.execute("PRAGMA schema_version").fetchone()[0]
        connection.execute("ROLLBACK")
        if difference:
            raise Damaged(
                f"{self._path} is damaged: another program changed its schema ({difference[0][:64]!r}); restore it "
                "from a backup, nothing was changed",
                path=self._path,
            )

    def copy_to_memory(self) -> Metastore:
        """An independent copy of the present state in memory, for a dry run that changes nothing on disk."""
        copy = Metastore(None)
        with TranslatedErrors(self._path):
            self._live().backup(copy._live())
            copy._live().execute("PRAGMA foreign_keys = ON")
        return copy

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise FailedPrecondition("database not open")
        return self._connection

    def is_current(self) -> bool:
        """Return True if the file that is open still has its path, and the schema that was checked."""
        if self._connection is None or self._identity is None or self._identity != _identity(self._path):
            return False
        try:
            found = self._connection.execute("PRAGMA schema_version").fetchone()[0]
        except sqlite3.Error:
            return False
        return bool(found == self._schema_version)

    def close(self) -> None:
        """Close the file. A second close does nothing; any other use after it fails with "database not open"."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def read(self) -> _Scope:
        """A context in which all reads see one state."""
        return _Scope(self._live(), self._path, self._budget)

    def write(self, *, wait: bool = True, durable: bool = True) -> _Scope:
        """A context for one change: committed (and on disk) at its end, undone on any exception.

        Without ``durable`` a power cut may undo it, until a later change is on
        disk. That is for what means nothing after a restart. Other processes
        see it at once, and a process that is killed does not lose it.
        Raises Unavailable if other writers keep it waiting for longer than
        ``errors.BUSY_TIMEOUT`` allows (without ``wait``: if there is one now) or the
        volume is full, FailedPrecondition for a read-only file.
        """
        return _WriteScope(self._live(), self._path, self._budget, self._write_queue, wait, durable)

    def skip_ids(self, last: int) -> None:
        """Make sure that no id up to ``last`` is given out again."""
        with self.write() as tx:
            tx.skip_ids(last)


def _identity(path: str) -> Optional[Tuple[int, int]]:
    """Return what tells a file from all others, None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_retired(path: str) -> bool:
    """Whether ``Transaction.retire`` ended a metadata file. Raises as ``Metastore`` does."""
    with TranslatedErrors(path):
        connection = sqlite3.connect(_uri(path, "ro"), uri=True)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.close()
    return bool(application == schema.APPLICATION_ID and version == schema.RETIRED)


def _wait_for_creator(path: str) -> None:
    """Wait until the thread that created the file has deleted the other name of it, for at most half a second.

    Windows refuses write access to a file while another handle deletes one of
    its names. SQLite then opens it read-only, without an error.
    """
    deadline = time.monotonic() + _CREATION_SECONDS
    while os.stat(path).st_nlink > 1 and time.monotonic() < deadline:
        time.sleep(0.01)


def _uri(path: str, mode: str) -> str:
    """How SQLite opens the existing file ``path``; ``mode`` is ``rw`` or ``ro``.

    On a read-only volume SQLite cannot create the side files that it needs
    even for reading. No process can write there, so SQLite may do without
    them, provided that the last writer left nothing in the write-ahead log.
    """
    from urllib.parse import quote

    options = ""
    log = path + "-wal"
    if not os.access(os.path.dirname(path), os.W_OK) and not (os.path.exists(log) and os.path.getsize(log)):
        options = "&immutable=1"
    # Neither mode creates a file, even where ``path`` is a link to a missing one. The authority is empty because
    # "//a" is a path to POSIX.
    return f"file:{'//' if path.startswith('/') else ''}{quote(path.replace(os.sep, '/'))}?mode={mode}{options}"


# -- creating ------------------------------------------------------------------


def _create(path: str) -> None:
    """Write the whole file under another name, and link it to ``path`` unless that name is taken.

    So no process ever sees half a schema, and of two that create the file one wins.
    """
    from threading import get_native_id

    # No two running threads have the same id. An ended one may have had it, and left its files: SQLite would
    # apply that log to the new file.
    unlinked = f"{path}.{get_native_id()}.new"
    _delete_database(unlinked)
    failpoint("metadata.create.draft")
    # SQLite gives its side files the mode of this one.
    os.close(os.open(unlinked, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    try:
        failpoint("metadata.create.schema")
        connection = sqlite3.connect(unlinked, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript("BEGIN;" + schema.TABLES + "COMMIT;")
            failpoint("metadata.create.committed")
            # Switch to WAL last: on a full volume, pages that are only in the log would be missing in the linked file.
            connection.execute("PRAGMA journal_mode = WAL")
            failpoint("metadata.create.journal")
        finally:
            connection.close()
        with _write_queue(path) as queue:
            try:
                if not queue.acquire(sqlite_errors.BUSY_TIMEOUT):
                    raise locked_too_long(path)
            except OSError:
                # A file system without locks.
                pass
            _set_log_aside(path)
            failpoint("metadata.create.link")
            try:
                os.link(unlinked, path)
            except FileExistsError:
                pass
        failpoint("metadata.create.linked")
        sync_directory(os.path.dirname(path))
    finally:
        _delete_database(unlinked)
    failpoint("metadata.create.done")


def _set_log_aside(path: str) -> None:
    """Rename the log of a database that is gone; SQLite would apply it to a new database of that name.

    The caller is first in the write queue: only then may a database get that name.
    """
    if os.path.lexists(path):
        return
    for suffix in ("-journal", "-wal", "-shm"):
        if os.path.lexists(path + suffix):
            failpoint("metadata.create.aside")
            os.replace(path + suffix, f"{path}.lost{suffix}")


def _delete_database(path: str) -> None:
    """Delete a database that no process uses, with the side files that a failure may leave."""
    for name in (path, path + "-journal", path + "-wal", path + "-shm"):
        if os.path.lexists(name):
            os.unlink(name)


# -- transactions --------------------------------------------------------------


def _write_queue(path: str) -> FileLock:
    """The lock that the writers of all threads and processes queue for; its owner waits for SQLite's own lock.

    SQLite alone makes a waiting process ask less and less often, so that a
    process that writes again and again would keep all others out.
    """
    return FileLock(f"{path}-turn")


class _Budget:
    """The work that SQLite may still do in one transaction, which foreign data could make endless."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._left = _MAXIMUM_STEPS // _STEPS

    def __call__(self) -> bool:
        """Count some work. True interrupts the query."""
        self._left -= 1
        return self._left < 0


class _Scope:
    """BEGIN on entry; COMMIT, or ROLLBACK on an exception, at the end."""

    def __init__(self, connection: sqlite3.Connection, path: str, budget: _Budget) -> None:
        self._connection = connection
        self._path = path
        self._budget = budget

    def __enter__(self) -> Transaction:
        self._budget.renew()
        with TranslatedErrors(self._path):
            self._connection.execute("BEGIN")
        return Transaction(self._connection)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is None:
            with TranslatedErrors(self._path):
                try:
                    failpoint("metadata.commit.before")
                    self._connection.execute("COMMIT")
                    failpoint("metadata.commit.after")
                    return
                except sqlite3.Error:
                    self._rollback()
                    raise
        self._rollback()
        if isinstance(error, SQLITE_ERRORS):
            raise translate(error, self._path) from error

    def _rollback(self) -> None:
        # SQLite rolls back by itself after some errors (disk full, I/O).
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class _WriteScope(_Scope):
    """The same for a change; ``queue`` is None where no other thread or process can write."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        budget: _Budget,
        queue: Optional[FileLock],
        wait: bool,
        durable: bool,
    ) -> None:
        super().__init__(connection, path, budget)
        self._queue = queue
        self._wait = wait
        self._durable = durable

    def __enter__(self) -> Transaction:
        if self._queue is None:
            return self._begin()
        with self._queue:
            try:
                if not self._queue.acquire(sqlite_errors.BUSY_TIMEOUT if self._wait else 0.0):
                    raise locked_too_long(self._path)
            except OSError:
                # No file can be made here, so nothing can be written either: SQLite says why.
                pass
            return self._begin()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            if not self._durable:
                self._connection.execute("PRAGMA synchronous = FULL")

    def _begin(self) -> Transaction:
        if self._durable:
            return self._begin_now()
        # The log is then flushed by the next durable change, which flushes all of it, and before it is copied into the
        # file (sqlite.org/pragma.html#pragma_synchronous).
        with TranslatedErrors(self._path):
            self._connection.execute("PRAGMA synchronous = NORMAL")
        try:
            return self._begin_now()
        except BaseException:
            self._connection.execute("PRAGMA synchronous = FULL")
            raise

    def _begin_now(self) -> Transaction:
        self._budget.renew()
        with TranslatedErrors(self._path):
            if self._wait:
                self._connection.execute("BEGIN IMMEDIATE")
            else:
                self._connection.execute("PRAGMA busy_timeout = 0")
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                finally:
                    self._connection.execute(f"PRAGMA busy_timeout = {sqlite_errors.BUSY_TIMEOUT * 1000:.0f}")
        return Transaction(self._connection)
