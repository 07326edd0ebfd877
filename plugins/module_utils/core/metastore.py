# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata of the snapshots, in SQLite.

The functions, the order of their checks, their error classes and sentences
are those of containerd core/snapshots/storage/bolt.go. Different on purpose:

* an id is given out once: whoever knows that one was drawn without a COMMIT,
  or is in use without a record, has it passed over with ``burn``;
* an empty store answers: a walk is empty, a lookup says that the *snapshot*
  does not exist, where bolt has no bucket to look in yet;
* the walk asks an index where a filter names kind, name, parent or a label.

One ``Metastore`` is one connection and belongs to one thread.
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from . import model
from .durable import sync_directory
from .errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
)
from .failpoint import failpoint
from .lock import FileLock
from .model import ACTIVE, COMMITTED, VIEW, Info, Snapshot, Usage

if TYPE_CHECKING:
    from . import filters

#: In the file's header: "wcow", and the schema's version. A higher version is refused.
APPLICATION_ID = 0x77636F77
SCHEMA_VERSION = 1

# The schema's version in a file whose tables are gone for good, see ``Transaction.retire``.
_RETIRED = 0

#: The setting that tasks inherit: bytes of a scratch disk whose task names no size.
ROOTFS_SIZE = "rootfs_size"

#: How long a writer waits for its turn, and then again for the one before it to end, seconds.
BUSY_TIMEOUT = 30.0

#: Longest key or name, in bytes of UTF-8.
MAXIMUM_KEY_LENGTH = 4096

# The table is clustered by name: a walk is in byte order (SQLite compares text
# with memcmp) without a sort. Labels are kept twice, as one JSON text for
# reading and as rows for searching; _write_labels is the only writer of both.
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE snapshots (
    name    TEXT PRIMARY KEY NOT NULL,
    id      INTEGER NOT NULL UNIQUE,
    kind    TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
    parent  TEXT REFERENCES snapshots (name),
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    labels  TEXT NOT NULL,
    size    INTEGER NOT NULL,
    inodes  INTEGER NOT NULL,
    holder  TEXT
) WITHOUT ROWID;
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE INDEX snapshots_by_kind ON snapshots (kind);
CREATE TABLE labels (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    id    INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    PRIMARY KEY (key, value, id)
) WITHOUT ROWID;
CREATE INDEX labels_by_id ON labels (id);
CREATE TABLE sequence (last INTEGER NOT NULL);
INSERT INTO sequence VALUES (0);
CREATE TABLE settings (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
"""

_INFO = "kind, name, coalesce(parent, ''), labels, created, updated, id"


def _quote(text: str) -> str:
    """Go's %q for the texts that our sentences quote."""
    return json.dumps(text, ensure_ascii=False)


def check_key(key: str, what: str) -> None:
    """Raise InvalidArgument for an empty or overlong key, or one that is not Unicode text."""
    if not key:
        raise InvalidArgument(f"{what} must not be empty")
    try:
        length = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} {key!r} is not valid Unicode: {error.reason}") from None
    if length > MAXIMUM_KEY_LENGTH:
        raise InvalidArgument(
            f"{what} is {length} bytes long; at most {MAXIMUM_KEY_LENGTH} bytes are possible: {key[:64]!r}...",
            length=length,
            maximum=MAXIMUM_KEY_LENGTH,
        )


class Record(NamedTuple):
    """An info with the usage that was stored at commit."""

    info: Info
    usage: Usage


class Entry(NamedTuple):
    """Everything that one record holds; ``holder`` is the mark of who converts it."""

    info: Info
    usage: Usage
    holder: Optional[str]


class Damage(NamedTuple):
    """What is wrong inside the file, sentences: what only a backup mends, and what the records themselves mend."""

    beyond_repair: List[str]
    indexes: List[str]


class Metastore:
    """The metadata file of one store.

    With ``create`` the file is made if it is missing. Without, a missing file
    is an empty store that cannot be written to: reading never creates
    anything. ``path`` None is a store in memory.
    """

    def __init__(self, path: Optional[str], *, create: bool = False) -> None:
        self._path = path or ":memory:"
        self._connection: Optional[sqlite3.Connection] = None
        location = self._path
        with _Translated(self._path):
            if path is not None and not os.path.exists(path):
                if create:
                    self._create(path)
                else:
                    location = ":memory:"
            self._connection = self._open(location)
        self._turn = None if location == ":memory:" else FileLock(f"{location}-turn")

    def _open(self, location: str) -> sqlite3.Connection:
        connection = sqlite3.connect(_uri(location), timeout=BUSY_TIMEOUT, isolation_level=None, uri=True)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            if location == ":memory:":
                connection.executescript(_SCHEMA)
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise FailedPrecondition(
                f"{self._path} is not the metadata of a snapshot store; use another root, or move that file away",
                path=self._path,
            )
        if version == _RETIRED:
            raise FailedPrecondition(
                f"{self._path} is of a store that is being removed, or whose removal was interrupted; run the module "
                "store: state=absent finishes the removal, state=present makes a new store",
                path=self._path,
            )
        if version > SCHEMA_VERSION:
            raise FailedPrecondition(
                f"{self._path} was written by a newer version of the collection (schema {version}, this one "
                f"knows {SCHEMA_VERSION}); update the collection on the controller",
                schema=version,
            )

    def _create(self, path: str) -> None:
        """Make the file under a name of its own, whole, and give it the real name if that is still free.

        So nobody ever sees half a schema, and of two processes one wins.
        """
        draft = f"{path}.{os.getpid()}.new"
        # A dead process may have had the same number. Its log would become a part of the new file.
        _delete_database(draft)
        failpoint("metadata.create.draft")
        # SQLite gives its side files the mode of this one.
        os.close(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
        try:
            failpoint("metadata.create.schema")
            connection = sqlite3.connect(draft, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
                failpoint("metadata.create.committed")
                # Last: what were in the log only when the volume is full would not be in the file that gets the name.
                connection.execute("PRAGMA journal_mode = WAL")
                failpoint("metadata.create.journal")
            finally:
                connection.close()
            with FileLock(f"{path}-turn") as turn:
                try:
                    if not turn.acquire(BUSY_TIMEOUT):
                        raise _kept_locked(path)
                except OSError:
                    # A file system without locks.
                    pass
                _set_log_aside(path)
                failpoint("metadata.create.link")
                try:
                    os.link(draft, path)
                except FileExistsError:
                    pass
            failpoint("metadata.create.linked")
            sync_directory(os.path.dirname(path))
        finally:
            _delete_database(draft)
        failpoint("metadata.create.done")

    def copy_to_memory(self) -> Metastore:
        """An independent copy of the present state in memory, for a rehearsal that leaves no trace."""
        copy = Metastore(None)
        with _Translated(self._path):
            self._live().backup(copy._live())
            copy._live().execute("PRAGMA foreign_keys = ON")
        return copy

    def _live(self) -> sqlite3.Connection:
        if self._connection is None:
            raise FailedPrecondition("database not open")
        return self._connection

    def close(self) -> None:
        """Close the file. Closing twice is fine; any use after it fails with "database not open"."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def read(self) -> _Scope:
        """A context in which all reads see one state."""
        return _Scope(self._live(), self._path, "BEGIN")

    def write(self, *, wait: bool = True) -> _Scope:
        """A context for one change: committed (and on disk) at its end, undone on any exception.

        Raises Unavailable if other processes keep it waiting for longer than
        ``BUSY_TIMEOUT`` allows (without ``wait``: if one writes now) or the
        volume is full, FailedPrecondition for a read-only file.
        """
        return _Scope(self._live(), self._path, "BEGIN IMMEDIATE", BUSY_TIMEOUT if wait else 0.0, turn=self._turn)

    def burn(self, last: int) -> None:
        """Make sure that no id up to ``last`` is given out again."""
        with self.write() as tx:
            tx.burn(last)


def _set_log_aside(path: str) -> None:
    """Rename what is left of the log of a database that is gone; SQLite would apply it to a new one of that name.

    To be called by who has the turn: only with it does a database get that name.
    """
    if os.path.lexists(path):
        return
    for suffix in ("-journal", "-wal", "-shm"):
        if os.path.lexists(path + suffix):
            failpoint("metadata.create.aside")
            os.replace(path + suffix, f"{path}.lost{suffix}")


def _delete_database(path: str) -> None:
    """Delete a database that is in use nowhere, with the side files that a failure may leave."""
    for name in (path, path + "-journal", path + "-wal", path + "-shm"):
        if os.path.lexists(name):
            os.unlink(name)


def _uri(path: str) -> str:
    """How SQLite is to open ``path``.

    On a read-only volume it cannot make the side files that it wants even for
    reading. There nobody else writes either, so it may do without, provided
    that the last writer left nothing in the write-ahead log.
    """
    if path == ":memory:":
        return path
    from urllib.parse import quote

    options = ""
    log = path + "-wal"
    if not os.access(os.path.dirname(path), os.W_OK) and not (os.path.exists(log) and os.path.getsize(log)):
        options = "&immutable=1"
    # Never to be made here, not even where a link leads. An empty authority, for "//a" is a path to POSIX.
    return f"file:{'//' if path.startswith('/') else ''}{quote(path.replace(os.sep, '/'))}?mode=rw{options}"


def is_retired(path: str) -> bool:
    """Whether a metadata file has come to its end (``Transaction.retire``). Raises as ``Metastore`` does."""
    with _Translated(path):
        connection = sqlite3.connect(_uri(path) + ("&" if "?" in _uri(path) else "?") + "mode=ro", uri=True)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        finally:
            connection.close()
    return bool(application == APPLICATION_ID and version == _RETIRED)


class _Translated:
    """Turns SQLite's errors into ours."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, _SQLITE_ERRORS):
            raise _translate(error, self._path) from error


def _kept_locked(path: str) -> Unavailable:
    return Unavailable(
        f"{path}: other processes have kept the metadata locked for {BUSY_TIMEOUT:g} s; run the task again", path=path
    )


def _is_full(directory: str) -> bool:
    """Whether the volume has no room for SQLite's side files, which it reports in other words than a full volume."""
    if hasattr(os, "statvfs"):
        status = os.statvfs(directory)
        return status.f_bavail * status.f_frsize < _SIDE_FILES or (status.f_files > 0 and status.f_favail < 2)
    import shutil

    return shutil.disk_usage(directory).free < _SIDE_FILES


# A new index of the write-ahead log has 32 KiB.
_SIDE_FILES = 64 * 1024

#: In its message SQLite quotes the schema, which a damaged file makes anything but UTF-8.
_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)


def _translate(error: Exception, path: str) -> SnapshotterError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return _kept_locked(path)
    if "full" in text or (("disk I/O error" in text or "unable to open" in text) and _is_full(os.path.dirname(path))):
        return Unavailable(
            f"{path}: the volume is full, nothing was changed; free some space and run the task again", path=path
        )
    if "readonly" in text or "read-only" in text:
        return FailedPrecondition(f"{path} cannot be written: it is read-only for this user", path=path)
    if "unable to open" in text:
        return FailedPrecondition(
            f"{path} cannot be opened: its directory is missing, unreadable or read-only for this user", path=path
        )
    if "no such table" in text:
        return Unavailable(f"{path}: the store has been removed meanwhile; run the task again", path=path)
    if "malformed" in text or "not a database" in text:
        return FailedPrecondition(
            f"{path} is damaged ({text}); restore it from a backup, nothing was changed", path=path
        )
    if isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)):
        return Internal(f"{path}: {text}", path=path)
    return FailedPrecondition(
        f"{path} is damaged or cannot be used ({text}); check its volume, then restore it from a backup; "
        "nothing was changed",
        path=path,
    )


class _Scope:
    """BEGIN on entry; COMMIT, or ROLLBACK on an exception, at the end."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        begin: str,
        timeout: float = BUSY_TIMEOUT,
        turn: Optional[FileLock] = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._begin = begin
        self._timeout = timeout
        self._turn = turn

    def __enter__(self) -> Transaction:
        with self._wait_for_turn(), _Translated(self._path):
            if self._timeout == BUSY_TIMEOUT:
                self._connection.execute(self._begin)
            else:
                self._connection.execute(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}")
                try:
                    self._connection.execute(self._begin)
                finally:
                    self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        return Transaction(self._connection)

    def _wait_for_turn(self) -> FileLock:
        """Become the one process that asks SQLite for its write lock, if this is about writing.

        SQLite lets those who wait ask ever more seldom, so that a process that
        writes again and again would keep all others out for good.
        """
        if self._turn is None:
            return FileLock(os.devnull)
        try:
            if not self._turn.acquire(self._timeout):
                raise _kept_locked(self._path)
        except OSError:
            # No file can be made here, so nothing can be written either: SQLite says why.
            pass
        return self._turn

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is None:
            with _Translated(self._path):
                try:
                    failpoint("metadata.commit.before")
                    self._connection.execute("COMMIT")
                    failpoint("metadata.commit.after")
                    return
                except sqlite3.Error:
                    self._rollback()
                    raise
        self._rollback()
        if isinstance(error, _SQLITE_ERRORS):
            raise _translate(error, self._path) from error

    def _rollback(self) -> None:
        # SQLite has rolled back by itself after some errors (disk full, I/O).
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class Transaction:
    """The functions of core/snapshots/storage, inside a transaction of ``Metastore``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    # -- reading -------------------------------------------------------------

    def get_info(self, key: str) -> Record:
        """Everything about one snapshot of any kind. Raises NotFound."""
        row = self._db.execute(f"SELECT {_INFO}, size, inodes FROM snapshots WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise NotFound("snapshot does not exist: not found", key=key)
        return Record(_infos([row[:7]])[0], Usage(row[7], row[8]))

    def get_snapshot(self, key: str) -> Snapshot:
        """Ids of an active snapshot or view and of its parents.

        Raises NotFound, and FailedPrecondition for a committed snapshot.
        """
        row = self._db.execute("SELECT kind, id, parent FROM snapshots WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise NotFound("snapshot does not exist: not found", key=key)
        if row[0] == COMMITTED:
            raise FailedPrecondition(f"requested snapshot {key} not active or view: failed precondition", key=key)
        return Snapshot(row[0], _checked_id(row[1]), self.parent_ids(row[2]))

    def parent_ids(self, parent: Optional[str]) -> Tuple[int, ...]:
        """The ids of ``parent`` and of all above it, nearest first."""
        chain = []
        while parent:
            row = self._db.execute("SELECT id, parent FROM snapshots WHERE name = ?", (parent,)).fetchone()
            if row is None or row[0] in chain:
                problem = "has no record" if row is None else "is its own ancestor"
                raise damaged(f"the parent {parent!r} {problem}", parent=str(parent))
            chain.append(_checked_id(row[0]))
            parent = row[1]
        return tuple(chain)

    def find_name(self, number: int) -> Optional[str]:
        """The key or name of the snapshot with an id, None if there is none."""
        row: Optional[Tuple[str]] = self._db.execute("SELECT name FROM snapshots WHERE id = ?", (number,)).fetchone()
        return row[0] if row else None

    def children(self, name: str) -> List[str]:
        """The names of the direct children, in byte order."""
        return [
            row[0] for row in self._db.execute("SELECT name FROM snapshots WHERE parent = ? ORDER BY name", (name,))
        ]

    def id_map(self) -> Dict[int, str]:
        """Id -> key or name, of all kinds."""
        return dict(self._db.execute("SELECT id, name FROM snapshots"))

    def walk(self, wanted: filters.Filters) -> List[Info]:
        """The infos of all matching snapshots, in byte order of their names."""
        where, parameters, exact = _as_sql(wanted)
        # Nothing made here is garbage; the collector would only visit all of it again and again.
        collecting = gc.isenabled()
        gc.disable()
        try:
            infos = _infos(
                self._db.execute(f"SELECT {_INFO} FROM snapshots WHERE {where} ORDER BY name", parameters).fetchall()
            )
        finally:
            if collecting:
                gc.enable()
        if exact:
            return infos
        from . import filters as language

        return [info for info in infos if wanted.matches(language.snapshot_adaptor(info))]

    def next_id(self) -> int:
        """The id that the next snapshot gets."""
        rows = self._db.execute("SELECT last FROM sequence").fetchall()
        last = rows[0][0] if len(rows) == 1 else None
        # A rowid of SQLite, which an id is, has 63 bits.
        if not isinstance(last, int) or not 0 <= last < (1 << 63) - 1:
            raise damaged("it does not say which id was given out last")
        return last + 1

    # -- changing ------------------------------------------------------------

    def create_snapshot(
        self,
        kind: str,
        key: str,
        parent: str = "",
        labels: Optional[Mapping[str, str]] = None,
    ) -> Snapshot:
        """Add an active snapshot or a view, with the next id.

        Raises InvalidArgument (kind, or a parent that is not committed),
        NotFound (parent), AlreadyExists (key).
        """
        if kind not in (ACTIVE, VIEW):
            raise InvalidArgument(
                f"snapshot type {kind} invalid; only snapshots of type Active or View can be created: invalid argument"
            )
        if parent:
            row = self._db.execute("SELECT kind FROM snapshots WHERE name = ?", (parent,)).fetchone()
            if row is None:
                raise NotFound(f"missing parent {_quote(parent)} bucket: not found", parent=parent)
            if row[0] != COMMITTED:
                raise InvalidArgument(
                    f"parent {_quote(parent)} is not committed snapshot: invalid argument", parent=parent
                )
        if self._exists(key):
            raise AlreadyExists(f"snapshot {key}: already exists", key=key)
        number = self.next_id()
        self._db.execute("UPDATE sequence SET last = ?", (number,))
        time = model.now()
        self._db.execute(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, '{}', 0, 0, NULL)",
            (key, number, kind, parent or None, time, time),
        )
        self._write_labels(key, number, labels or {})
        return Snapshot(kind, number, self.parent_ids(parent))

    def check_commit(self, key: str, name: str, parent: str = "") -> Tuple[Info, str]:
        """The checks of ``commit_active`` without the change: the active's info and its parent to be.

        Raises AlreadyExists (name, also when it equals the key), NotFound
        (key, late parent), FailedPrecondition (not active; late parent not
        committed), InvalidArgument (a parent other than the one it has).
        """
        if self._exists(name):
            raise AlreadyExists(f"committed snapshot {name}: already exists", name=name)
        try:
            info = self.get_info(key).info
        except NotFound:
            raise NotFound(f"failed to get active snapshot {_quote(key)}: not found", key=key) from None
        if info.kind != ACTIVE:
            raise FailedPrecondition(f"snapshot {_quote(key)} is not active: failed precondition", key=key)
        if parent and info.parent and parent != info.parent:
            raise InvalidArgument(
                f"cannot change parent of active snapshot {_quote(key)} on commit: invalid argument",
                key=key,
                parent=info.parent,
            )
        parent = info.parent or parent
        if parent:
            row = self._db.execute("SELECT kind FROM snapshots WHERE name = ?", (parent,)).fetchone()
            if row is None:
                raise NotFound(f"missing parent {_quote(parent)} of snapshot {_quote(key)}: not found", parent=parent)
            if row[0] != COMMITTED:
                raise FailedPrecondition(
                    f"parent {_quote(parent)} is not committed: failed precondition", parent=parent
                )
        return info, parent

    def commit_active(
        self, key: str, name: str, usage: Usage, labels: Optional[Mapping[str, str]] = None, parent: str = ""
    ) -> int:
        """Make the active ``key`` the committed ``name``; same id, labels replaced, both times reset.

        A parentless active may get its parent here ("rebase"). Raises as
        ``check_commit``.
        """
        info, parent = self.check_commit(key, name, parent)
        time = model.now()
        self._db.execute(
            "UPDATE snapshots SET name = ?, kind = ?, parent = ?, created = ?, updated = ?, size = ?, inodes = ?, "
            "holder = NULL WHERE id = ?",
            (name, COMMITTED, parent or None, time, time, usage.size, usage.inodes, info.id),
        )
        self._write_labels(name, info.id, labels or {})
        return info.id

    def remove(self, key: str) -> Tuple[int, str]:
        """Delete a snapshot without children; its id and kind. Raises NotFound, FailedPrecondition."""
        row = self._db.execute("SELECT id, kind FROM snapshots WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise NotFound(f"snapshot {key}: not found", key=key)
        children = self.children(key)
        if children:
            raise FailedPrecondition(
                "cannot remove snapshot with child: failed precondition", key=key, children=children
            )
        self._db.execute("DELETE FROM snapshots WHERE name = ?", (key,))
        return _checked_id(row[0]), row[1]

    def update_info(self, name: str, labels: Mapping[str, str], fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels: all of them, or those that ``fieldpaths`` names.

        ``labels`` in the paths replaces all, ``labels.<key>`` (all after the
        first dot is the key) sets one, an empty or absent value removes it.
        Raises NotFound, and InvalidArgument for any other path.
        """
        info = self.get_info(name).info
        wanted: Dict[str, str] = dict(info.labels) if fieldpaths else dict(labels)
        for path in fieldpaths:
            if path.startswith("labels."):
                key = path[len("labels.") :]
                wanted[key] = labels.get(key, "")
            elif path == "labels":
                wanted = dict(labels)
            else:
                raise InvalidArgument(
                    f"cannot update {_quote(path)} field on snapshot {_quote(name)}: invalid argument",
                    name=name,
                    path=path,
                )
        # A clock that was set back must not make a change older than what it changed.
        updated = max(model.now(), info.updated)
        self._db.execute("UPDATE snapshots SET updated = ? WHERE name = ?", (updated, name))
        return info._replace(labels=self._write_labels(name, info.id, wanted), updated=updated)

    def find_holder(self, key: str) -> Optional[str]:
        """Who converts ``key`` according to its mark; None also where there is no such snapshot."""
        row = self._db.execute("SELECT holder FROM snapshots WHERE name = ?", (key,)).fetchone()
        return row[0] if row else None

    def set_holder(self, key: str, holder: Optional[str]) -> None:
        """Mark who converts ``key`` now, or nobody."""
        self._db.execute("UPDATE snapshots SET holder = ? WHERE name = ?", (holder, key))

    def burn(self, last: int) -> None:
        """As ``Metastore.burn``, inside a transaction."""
        self._db.execute("UPDATE sequence SET last = ? WHERE last < ?", (last, last))

    # -- care ----------------------------------------------------------------

    def census(self) -> List[Entry]:
        """All that is recorded, in byte order of names."""
        rows = self._db.execute(f"SELECT {_INFO}, size, inodes, holder FROM snapshots ORDER BY name").fetchall()
        infos = _infos([row[:7] for row in rows])
        return [Entry(info, Usage(row[7], row[8]), row[9]) for info, row in zip(infos, rows)]

    def damage(self) -> Damage:
        """What SQLite and the rules of the schema find wrong in the file."""
        found = [row[0] for row in self._db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        indexes = [problem for problem in found if " index " in problem]
        beyond_repair = [problem for problem in found if problem not in indexes]
        if not beyond_repair:
            try:
                recorded = {
                    (number, key, value)
                    for number, text in self._db.execute("SELECT id, labels FROM snapshots")
                    for key, value in json.loads(text).items()
                }
            except (ValueError, AttributeError) as error:
                return Damage([f"labels that cannot be read: {error}"], indexes)
            searched = set(self._db.execute("SELECT id, key, value FROM labels"))
            if recorded != searched:
                indexes.append(f"{len(recorded ^ searched)} labels are not found as they are recorded")
        return Damage(beyond_repair, indexes)

    def rebuild_indexes(self) -> None:
        """Make everything that exists for searching only from the records."""
        self._db.execute("DELETE FROM labels")
        for number, text in self._db.execute("SELECT id, labels FROM snapshots").fetchall():
            self._db.executemany(
                "INSERT INTO labels VALUES (?, ?, ?)", [(key, value, number) for key, value in json.loads(text).items()]
            )
        self._db.execute("REINDEX")

    def set_usage(self, name: str, usage: Usage) -> None:
        """Replace the recorded usage of a snapshot."""
        self._db.execute("UPDATE snapshots SET size = ?, inodes = ? WHERE name = ?", (*usage, name))

    def settings(self) -> Dict[str, str]:
        """What tasks inherit from the store."""
        return dict(self._db.execute("SELECT name, value FROM settings ORDER BY name"))

    def set_settings(self, wanted: Mapping[str, str]) -> None:
        """Replace all settings."""
        self._db.execute("DELETE FROM settings")
        self._db.executemany("INSERT INTO settings VALUES (?, ?)", sorted(wanted.items()))

    def retire(self) -> None:
        """End this file for good: whoever has it open, or opens it, finds no store in it any more."""
        for table in ("labels", "snapshots", "sequence", "settings"):
            self._db.execute(f"DROP TABLE {table}")
        self._db.execute(f"PRAGMA user_version = {_RETIRED}")

    def _exists(self, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM snapshots WHERE name = ?", (name,)).fetchone() is not None

    def _write_labels(self, name: str, number: int, labels: Mapping[str, str]) -> Dict[str, str]:
        """Replace all labels; an empty value is not stored (boltutil.WriteLabels)."""
        kept = {key: labels[key] for key in sorted(labels) if labels[key] != ""}
        self._db.execute("DELETE FROM labels WHERE id = ?", (number,))
        if kept:
            self._db.executemany(
                "INSERT INTO labels VALUES (?, ?, ?)", [(key, value, number) for key, value in kept.items()]
            )
        self._db.execute("UPDATE snapshots SET labels = ? WHERE name = ?", (json.dumps(kept, ensure_ascii=False), name))
        return kept


def damaged(what: str, **details: Any) -> FailedPrecondition:
    """The error for records that cannot be right."""
    return FailedPrecondition(
        f"the metadata is damaged: {what}; the module store_check says what else is wrong", **details
    )


def _checked_id(number: Any) -> int:
    """An id as it was read. It becomes the name of a directory, so it must not be able to hold a path."""
    if not isinstance(number, int):
        raise damaged(f"{number!r} is no id")
    return number


def _infos(rows: List[Any]) -> List[Info]:
    """Infos from rows of ``_INFO``.

    A walk makes thousands: all label texts are parsed as one JSON array, and
    the tuples are made column by column, without a call of Python code for each.
    """
    if not rows:
        return []
    kinds, names, parents, texts, created, updated, numbers = zip(*rows)
    if {*map(type, numbers)} != {int} or any(
        {*map(type, column)} != {str} for column in (kinds, names, parents, texts, created, updated)
    ):
        raise damaged("a record has a value of another type than it was written with")
    try:
        labels = json.loads("[" + ",".join(texts) + "]")
    except ValueError as error:
        raise damaged(f"labels cannot be read: {error}") from None
    if len(labels) != len(rows) or {*map(type, labels)} != {dict}:
        raise damaged("labels cannot be read")
    columns = zip(kinds, names, parents, labels, created, updated, numbers)
    return [tuple.__new__(Info, values) for values in columns]


def _as_sql(wanted: filters.Filters) -> Tuple[str, List[str], bool]:
    """A WHERE clause that lets all matches through, its parameters, and whether it lets nothing else through."""
    if not wanted.filters:
        return "1", [], True
    clauses = []
    parameters: List[str] = []
    exact = True
    for one in wanted.filters:
        terms = []
        for selector in one.selectors:
            term = _selector_as_sql(selector)
            if term is None:
                exact = False
            else:
                terms.append(term[0])
                parameters.extend(term[1])
        clauses.append(" AND ".join(terms) or "1")
    return " OR ".join(f"({clause})" for clause in clauses), parameters, exact


def _selector_as_sql(selector: filters.Selector) -> Optional[Tuple[str, List[str]]]:
    """One selector as SQL, or None where only Python can tell (facts of the adaptor: bolt.go, adaptSnapshot)."""
    field, *rest = selector.fieldpath
    operator, value = selector.operator, selector.value
    if operator == "~=":
        return None
    try:
        value.encode()
        for part in rest:
            part.encode()
    except UnicodeEncodeError:
        # Bytes that are no text: equal to nothing that the store can hold, but only Python can say so.
        return None
    if field in ("kind", "name", "parent"):
        column = "coalesce(parent, '')" if field == "parent" and value == "" else field
        if operator == "":
            return "1", []
        if operator == "==":
            return f"{column} = ?", [value]
        if column == "parent":
            return "(parent IS NULL OR parent <> ?)", [value]
        return f"{column} <> ?", [value]
    if field == "labels":
        key = ".".join(rest)
        some = "id IN (SELECT id FROM labels WHERE key = ?{})"
        if operator == "":
            return some.format(""), [key]
        if operator == "==":
            return some.format(" AND value = ?"), [key, value]
        if value == "":
            return some.format(""), [key]
        return "NOT " + some.format(" AND value = ?"), [key, value]
    # Unknown fields are absent, and absent counts as "" for !=.
    return ("1" if operator == "!=" and value != "" else "0"), []
