# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions on the metadata: the functions of containerd core/snapshots/storage.

The functions, the order of their checks, their error classes and sentences
are those of core/snapshots/storage/bolt.go. The differences are deliberate:

* an id is given out once: a caller that knows of an id that was drawn without
  a COMMIT, or that is in use without a record, calls ``skip_ids``;
* an empty store answers: a walk is empty and a lookup says that the *snapshot*
  does not exist, where bolt has no bucket to look in yet;
* the walk uses an index where a filter names kind, name, parent or a label.
"""

from __future__ import annotations

import json
import sqlite3
from itertools import chain
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import labels as label_rules
from .. import model
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ..keys import MAXIMUM_KEY_LENGTH
from ..lineage import ancestors, damaged
from ..model import ACTIVE, COMMITTED, KINDS, VIEW, Info, Snapshot, Usage
from . import schema, search

if TYPE_CHECKING:
    from ..filters import language

#: The setting for scratch disks whose task names no size: bytes.
ROOTFS_SIZE = "rootfs_size"

#: The longest text in a record, which is that of all labels of one snapshot, bytes.
MAXIMUM_VALUE = 8 * 1024**2

# An id is stored as an integer of SQLite, which has 63 bits without its sign.
_MAXIMUM_ID = (1 << 63) - 1

# What to do about sentences of containerd, for the detail ``advice`` of an error.
_ADVICE_PARENT = (
    "Create or import the parent first, or correct its name; snapshot_info lists the snapshots. To name an image, set "
    "parent_image"
)
_ADVICE_COMMIT = "Commit the parent first, or name a committed snapshot"
_ADVICE_KEY = "Correct the key or name, or the root of the store; snapshot_info lists the snapshots"

_INFO = "kind, name, coalesce(parent, ''), labels, created, updated, id"


class Record(NamedTuple):
    """An info with the usage that was stored at commit."""

    info: Info
    usage: Usage


class Entry(NamedTuple):
    """Everything in one record; ``holder`` names the process that commits the snapshot, the lock owner."""

    info: Info
    usage: Usage
    holder: Optional[str]


class Damage(NamedTuple):
    """What is wrong inside the file, as sentences.

    Only a backup repairs what is ``beyond_repair``. ``rebuild_indexes`` repairs
    the ``indexes`` from the records.
    """

    beyond_repair: List[str]
    indexes: List[str]


class Transaction:
    """One transaction of ``Metastore``, on its connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        # The id that the next snapshot gets, once it was read.
        self._next_id = 0

    # -- reading -------------------------------------------------------------

    def get_info(self, key: str) -> Record:
        """Everything about one snapshot of any kind. Raises NotFound."""
        row = self._db.execute(f"SELECT {_INFO}, size, inodes FROM snapshots WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise NotFound("snapshot does not exist: not found", key=key, advice=_ADVICE_KEY)
        return Record(_infos([row[:7]])[0], _usage(row[7:]))

    def get_snapshot(self, key: str) -> Snapshot:
        """The ids of an active snapshot or view and of its parents.

        Raises NotFound, and FailedPrecondition for a committed snapshot.
        """
        row = self._db.execute("SELECT kind, id, parent FROM snapshots WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise NotFound("snapshot does not exist: not found", key=key, advice=_ADVICE_KEY)
        if row[0] not in KINDS:
            raise damaged(f"{row[0]!r} is not a kind of snapshots")
        if row[0] == COMMITTED:
            raise FailedPrecondition(
                f"requested snapshot {key} not active or view: failed precondition",
                key=key,
                advice="A committed snapshot has no mounts. Prepare a view or an active snapshot of it, and use that",
            )
        return Snapshot(row[0], _check_id(row[1]), self.parent_ids(row[2]))

    def parent_ids(self, parent: Optional[str]) -> Tuple[int, ...]:
        """The ids of ``parent`` and of its ancestors, nearest first."""
        ids: List[int] = []

        def find_parent(name: str) -> Optional[str]:
            row = self._db.execute("SELECT id, parent FROM snapshots WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            ids.append(_check_id(row[0]))
            return row[1] or ""

        for _name in ancestors(parent or "", find_parent):
            pass
        return tuple(ids)

    def find_name(self, number: int) -> Optional[str]:
        """The key or name of the snapshot with the id ``number``, None if there is none."""
        if number > _MAXIMUM_ID:
            return None
        row = self._db.execute("SELECT name FROM snapshots WHERE id = ?", (number,)).fetchone()
        return _check_text(row[0]) if row else None

    def children(self, name: str) -> List[str]:
        """The names of the direct children, in byte order."""
        rows = self._db.execute("SELECT name FROM snapshots WHERE parent = ? ORDER BY name", (name,))
        return [_check_text(row[0]) for row in rows]

    def id_map(self) -> Dict[int, str]:
        """Id -> key or name of all snapshots."""
        return {
            _check_id(number): _check_text(name) for number, name in self._db.execute("SELECT id, name FROM snapshots")
        }

    def walk(self, wanted: Optional[language.Filters]) -> List[Info]:
        """The infos of all matching snapshots, in byte order of their names. None matches all."""
        where, parameters, is_exact = search.condition(wanted)
        rows = self._db.execute(f"SELECT {_INFO} FROM snapshots WHERE {where} ORDER BY name", parameters).fetchall()
        infos = _infos(rows)
        if is_exact or wanted is None:
            return infos
        from ..filters import language

        return [info for info in infos if wanted.matches(language.snapshot_adaptor(info))]

    def next_id(self) -> int:
        """The id that the next snapshot gets."""
        if not self._next_id:
            rows = self._db.execute("SELECT last FROM sequence LIMIT 2").fetchall()
            last = rows[0][0] if len(rows) == 1 else None
            if not isinstance(last, int) or last < 0:
                raise damaged("the id that was given out last is not recorded")
            self._next_id = last + 1
        return self._next_id

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
                raise NotFound(
                    f"missing parent {_quote(parent)} bucket: not found", parent=parent, advice=_ADVICE_PARENT
                )
            if row[0] != COMMITTED:
                raise InvalidArgument(
                    f"parent {_quote(parent)} is not committed snapshot: invalid argument",
                    parent=parent,
                    advice=_ADVICE_COMMIT,
                )
        if self._exists(key):
            raise AlreadyExists(f"snapshot {key}: already exists", key=key)
        number = self.next_id()
        if number > _MAXIMUM_ID:
            raise damaged(f"the id that was given out last is {_MAXIMUM_ID}, so there is none for a new snapshot")
        self._db.execute("UPDATE sequence SET last = ?", (number,))
        self._next_id = number + 1
        time = model.now()
        self._db.execute(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, '{}', 0, 0, NULL)",
            (key, number, kind, parent or None, time, time),
        )
        if labels:
            self._write_labels(key, number, labels)
        return Snapshot(kind, number, self.parent_ids(parent))

    def check_commit(self, key: str, name: str, parent: str = "") -> Tuple[Info, str]:
        """Make the checks of ``commit_active`` only; the info of ``key`` and the parent that it would get.

        Raises AlreadyExists (name, even if it equals the key), NotFound (key,
        new parent), FailedPrecondition (not active; new parent not committed),
        InvalidArgument (``key`` has another parent).
        """
        if self._exists(name):
            raise AlreadyExists(f"committed snapshot {name}: already exists", name=name)
        try:
            info = self.get_info(key).info
        except NotFound:
            raise NotFound(
                f"failed to get active snapshot {_quote(key)}: not found", key=key, advice=_ADVICE_KEY
            ) from None
        if info.kind != ACTIVE:
            raise FailedPrecondition(
                f"snapshot {_quote(key)} is not active: failed precondition",
                key=key,
                advice="Only an active snapshot can be committed. Prepare one, or correct the key",
            )
        if parent and info.parent and parent != info.parent:
            raise InvalidArgument(
                f"cannot change parent of active snapshot {_quote(key)} on commit: invalid argument",
                key=key,
                parent=info.parent,
                advice=f"Leave the parent out, or set it to {_quote(info.parent)}",
            )
        parent = info.parent or parent
        if parent:
            row = self._db.execute("SELECT kind FROM snapshots WHERE name = ?", (parent,)).fetchone()
            if row is None:
                raise NotFound(
                    f"missing parent {_quote(parent)} of snapshot {_quote(key)}: not found",
                    parent=parent,
                    advice=_ADVICE_PARENT,
                )
            if row[0] != COMMITTED:
                raise FailedPrecondition(
                    f"parent {_quote(parent)} is not committed: failed precondition",
                    parent=parent,
                    advice=_ADVICE_COMMIT,
                )
        return info, parent

    def commit_active(
        self, key: str, name: str, usage: Usage, labels: Optional[Mapping[str, str]] = None, parent: str = ""
    ) -> Info:
        """Turn the active ``key`` into the committed ``name``: same id, new labels, both times reset. Returns its info.

        An active snapshot without a parent may get one here ("rebase"). Raises
        as ``check_commit`` does.
        """
        info, parent = self.check_commit(key, name, parent)
        time = model.now()
        self._db.execute(
            "UPDATE snapshots SET name = ?, kind = ?, parent = ?, created = ?, updated = ?, size = ?, inodes = ?, "
            "holder = NULL WHERE id = ?",
            (name, COMMITTED, parent or None, time, time, usage.size, usage.inodes, info.id),
        )
        kept = self._write_labels(name, info.id, labels or {})
        return info._replace(name=name, kind=COMMITTED, parent=parent, created=time, updated=time, labels=kept)

    def check_remove(self, key: str) -> Tuple[int, str]:
        """Make the checks of ``remove`` only; the id and the kind of the snapshot. Raises as ``remove``."""
        row = self._db.execute("SELECT id, kind FROM snapshots WHERE name = ?", (key,)).fetchone()
        if row is None:
            raise NotFound(f"snapshot {key}: not found", key=key)
        children = self.children(key)
        if children:
            raise FailedPrecondition(
                "cannot remove snapshot with child: failed precondition", key=key, children=children
            )
        return _check_id(row[0]), row[1]

    def remove(self, key: str) -> Tuple[int, str]:
        """Delete a snapshot that has no children; its id and kind. Raises NotFound, FailedPrecondition."""
        removed = self.check_remove(key)
        self._db.execute("DELETE FROM snapshots WHERE name = ?", (key,))
        return removed

    def update_info(self, name: str, labels: Mapping[str, str], fieldpaths: Sequence[str] = ()) -> Info:
        """Change the labels: all of them, or those that ``fieldpaths`` names.

        The path ``labels`` replaces all of them. ``labels.<key>`` sets one (the
        key is everything after the first dot); an empty or absent value
        removes it.
        Raises NotFound, and InvalidArgument for any other path.
        """
        info = self.get_info(name).info
        wanted = label_rules.select(name, info.labels, labels, fieldpaths)
        # Even if the clock was set back, a snapshot is not updated before it was created.
        updated = max(model.now(), info.updated)
        self._db.execute("UPDATE snapshots SET updated = ? WHERE name = ?", (updated, name))
        return info._replace(labels=self._write_labels(name, info.id, wanted), updated=updated)

    def find_owner(self, key: str) -> Optional[str]:
        """The lock owner of ``key``; None if there is none, or no such snapshot."""
        row = self._db.execute("SELECT holder FROM snapshots WHERE name = ?", (key,)).fetchone()
        return None if row is None or row[0] is None else _check_text(row[0])

    def set_owner(self, key: str, owner: Optional[str]) -> None:
        """Record the lock owner of ``key``, None for none."""
        self._db.execute("UPDATE snapshots SET holder = ? WHERE name = ?", (owner, key))

    def skip_ids(self, last: int) -> None:
        """Make sure that no id up to ``last`` is given out again."""
        if last > _MAXIMUM_ID:
            raise damaged(f"the layer directory {last} has a larger id than any snapshot can have")
        self._db.execute("UPDATE sequence SET last = ? WHERE last < ?", (last, last))
        self._next_id = 0

    # -- maintenance ---------------------------------------------------------

    def records(self) -> List[Entry]:
        """All records, in byte order of their names."""
        rows = self._db.execute(f"SELECT {_INFO}, size, inodes, holder FROM snapshots ORDER BY name").fetchall()
        infos = _infos([row[:7] for row in rows])
        return [
            Entry(info, _usage(row[7:9]), None if row[9] is None else _check_text(row[9]))
            for info, row in zip(infos, rows)
        ]

    def damage(self) -> Damage:
        """Compare the file with the rules of SQLite and of the schema."""
        found = [row[0] for row in self._db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        indexes = [problem for problem in found if " index " in problem]
        beyond_repair = [problem for problem in found if problem not in indexes]
        if not beyond_repair:
            infos = self.walk(None)
            recorded = {(info.id, key, value) for info in infos for key, value in info.labels.items()}
            searched = set(self._db.execute("SELECT id, key, value FROM labels"))
            if recorded != searched:
                indexes.append(f"{len(recorded ^ searched)} labels are not found as they are recorded")
        return Damage(beyond_repair, indexes)

    def rebuild_indexes(self) -> None:
        """Build all that exists only for searching from the records."""
        self._db.execute("DELETE FROM labels")
        for info in self.walk(None):
            self._db.executemany(
                "INSERT INTO labels VALUES (?, ?, ?)", [(key, value, info.id) for key, value in info.labels.items()]
            )
        self._db.execute("REINDEX")

    def set_usage(self, name: str, usage: Usage) -> None:
        """Replace the recorded usage of a snapshot."""
        self._db.execute("UPDATE snapshots SET size = ?, inodes = ? WHERE name = ?", (*usage, name))

    def settings(self) -> Dict[str, str]:
        """The settings of the store, which apply to tasks that do not name their own."""
        rows = self._db.execute("SELECT name, value FROM settings ORDER BY name LIMIT 100").fetchall()
        return {_check_text(name): _check_text(value) for name, value in rows}

    def set_settings(self, wanted: Mapping[str, str]) -> None:
        """Replace all settings."""
        self._db.execute("DELETE FROM settings")
        self._db.executemany("INSERT INTO settings VALUES (?, ?)", sorted(wanted.items()))

    def retire(self) -> None:
        """End this file for good: no process that has it open, or opens it later, finds a store in it."""
        for table in ("labels", "snapshots", "sequence", "settings"):
            self._db.execute(f"DROP TABLE {table}")
        self._db.execute(f"PRAGMA user_version = {schema.RETIRED}")

    def _exists(self, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM snapshots WHERE name = ?", (name,)).fetchone() is not None

    def _write_labels(self, name: str, number: int, labels: Mapping[str, str]) -> Dict[str, str]:
        """Replace all labels, and return those that were stored: the ones with a value (boltutil.WriteLabels)."""
        kept = {key: labels[key] for key in sorted(labels) if labels[key] != ""}
        self._db.execute("DELETE FROM labels WHERE id = ?", (number,))
        if kept:
            self._db.executemany(
                "INSERT INTO labels VALUES (?, ?, ?)", [(key, value, number) for key, value in kept.items()]
            )
        text = json.dumps(kept, ensure_ascii=False)
        if len(text.encode()) > MAXIMUM_VALUE:
            raise InvalidArgument(
                f"snapshot {_quote(name)}: its labels together take more than {MAXIMUM_VALUE >> 20} MiB; use fewer",
                name=name,
            )
        self._db.execute("UPDATE snapshots SET labels = ? WHERE name = ?", (text, name))
        return kept


def _check_id(number: Any) -> int:
    """An id as it was read. It becomes the name of a directory, so it must not be a path."""
    if not isinstance(number, int) or number < 1:
        raise damaged(f"{str(number)[:64]!r} is not an id")
    return number


def _check_text(value: Any) -> str:
    """A name, setting or lock owner as it was read."""
    if not isinstance(value, str) or len(value) > MAXIMUM_KEY_LENGTH:
        raise damaged(f"{str(value)[:64]!r} is not a name or a setting")
    return value


def _usage(values: Any) -> Usage:
    """The usage of a record as it was read."""
    if not all(isinstance(value, int) and value >= 0 for value in values):
        raise damaged("a record has a usage that is not a number")
    return Usage(*values)


def _infos(rows: List[Any]) -> List[Info]:
    """Infos from rows of ``_INFO``.

    A walk makes thousands of them: all labels are parsed as one JSON array, and
    the tuples are built column by column, without a Python call for each.
    """
    if not rows:
        return []
    kinds, names, parents, texts, created, updated, numbers = zip(*rows)
    if {*map(type, numbers)} != {int} or any(
        {*map(type, column)} != {str} for column in (kinds, names, parents, texts, created, updated)
    ):
        raise damaged("a record has a value of the wrong type")
    if min(numbers) < 1 or not {*kinds} <= {*KINDS}:
        raise damaged("a record has an id or a kind that does not exist")
    if max(map(len, chain(names, parents, created, updated))) > MAXIMUM_KEY_LENGTH:
        raise damaged("a record has a name that is too long")
    if max(map(len, texts)) > MAXIMUM_VALUE:
        raise damaged("labels cannot be read: they are too long")
    try:
        # JSON has no line feed inside a string. So no string goes on in the next text, and only an object in an
        # object could, which is not the value of a label.
        labels = json.loads("[" + ",\n".join(texts) + "]")
    except ValueError as error:
        raise damaged(f"labels cannot be read: {error}") from None
    except RecursionError:
        raise damaged("labels cannot be read: they are nested") from None
    if {text[:1] for text in texts} != {"{"} or len(labels) != len(rows) or {*map(type, labels)} != {dict}:
        raise damaged("labels cannot be read")
    if not {*map(type, chain.from_iterable(map(dict.values, labels)))} <= {str}:
        raise damaged("labels cannot be read: a value is not a text")
    columns = zip(kinds, names, parents, labels, created, updated, numbers)
    return [tuple.__new__(Info, values) for values in columns]


def _quote(text: str) -> str:
    """Go's %q, as far as the quoted texts need it."""
    return json.dumps(text, ensure_ascii=False)
