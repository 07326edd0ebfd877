# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulate what a power cut leaves of disk files and of the metadata.

The model of a file: everything written before its last flush is there. Of later writes and changes of the length, any
part may be there or missing, in sectors of 512 bytes and in any order. A missing part has the bytes from before, and
zeros beyond the old end. A cut comes after each single write and flush.

* Growing disks: the test records writes and flushes, and applies the model to them.
* Metadata: the test cannot see SQLite's own writes. It compares the log before and after each COMMIT. Any part of the
  difference may be missing until COMMIT has returned. The same applies to the main file while the log is copied into
  it.
* The rest is a matter of order. When the metadata records something, and when an operation reports success, everything
  that was made for it below the store has been flushed: files, and the directories that contain their names.

Not modelled: sectors that read as garbage, and disks that report a flush that they did not do.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import random
import sqlite3
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import (
    creation,
    growth,
    reader,
    replay,
    structures,
    view,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx.bat import bat_entries
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import file as metastore_file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.transaction import Transaction
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, Usage

from . import kit, test_kill

pytestmark = pytest.mark.posix

GIB = 1024**3
MIB = 1024**2
SECTOR = 512

#: Up to this number of parts, the test tries all combinations. For more parts, it tries this number of random ones.
FEW = 6
MANY = 12


# -- growing disks -----------------------------------------------------------------------------------------------------


class Recorder:
    """The writes to one file in order: (offset, data), a new length, or None for a flush."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.events: list[Any] = []
        self._path = path
        self._fsync = os.fsync
        monkeypatch.setattr(view, "open", self._open, raising=False)
        monkeypatch.setattr(os, "fsync", self._flush)

    def _open(self, path: str, mode: str, **options: Any) -> Any:
        file = builtins.open(path, mode, **options)
        return Recorded(file, self.events) if path == self._path and mode != "rb" else file

    def _flush(self, descriptor: int) -> None:
        self._fsync(descriptor)
        if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
            self.events.append(None)


class Recorded:
    """A file that reports its writes to a recorder."""

    def __init__(self, file: Any, events: list[Any]) -> None:
        self._file = file
        self._events = events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        self._events.append((self._file.tell(), bytes(data)))
        return self._file.write(data)

    def truncate(self, length: int) -> int:
        self._events.append(length)
        return self._file.truncate(length)


def parts(event: Any) -> list[Any]:
    """Return the parts of an event that can be missing separately: the sectors of a write, or a length."""
    if isinstance(event, int):
        return [event]
    offset, data = event
    return [(offset + start, data[start : start + SECTOR]) for start in range(0, len(data), SECTOR)]


def apply(image: bytearray, changes: list[Any]) -> bytearray:
    image = bytearray(image)
    for change in changes:
        if isinstance(change, int):
            del image[change:]
            image.extend(bytes(change - len(image)))
        else:
            offset, data = change
            image.extend(bytes(max(0, offset - len(image))))
            image[offset : offset + len(data)] = data
    return image


def survivors(events: list[list[Any]], chance: random.Random) -> Iterator[list[Any]]:
    """Yield what may be left of events that are given by their parts: all combinations if there are few, else some."""
    everything = [part for event in events for part in event]
    if len(everything) <= FEW:
        for chosen in range(1 << len(everything)):
            yield [part for number, part in enumerate(everything) if chosen >> number & 1]
        return
    yield from ([], everything)
    for event in events:
        yield event
        yield [part for other in events if other is not event for part in other]
    for _ in range(MANY):
        likely = chance.random()
        yield [part for part in everything if chance.random() < likely]


def cuts(image: bytes, events: list[Any], chance: random.Random) -> Iterator[tuple[bool, bytearray]]:
    """Yield each image that a power cut may leave, and whether a flush has made exactly this image durable."""
    durable = bytearray(image)
    pending: list[Any] = []
    for event in events:
        if event is None:
            for written in pending:
                durable = apply(durable, parts(written))
            pending = []
            yield True, durable
        else:
            pending.append(event)
            # The latest write may be torn, and every earlier one may be lost.
            for kept in survivors([parts(written) for written in pending], chance):
                yield False, apply(durable, kept)
    assert not pending, "the last write was never flushed"


BLOCKS = {0: b"first", 3: b"fourth", 20_000: b"beyond"}


def disk_with_blocks(path: str, *, bat_last: bool) -> None:
    """Make a disk of 20 GiB with data in some blocks. With ``bat_last``, nothing but empty space follows its table."""
    creation.create(path, 20 * GIB)
    if bat_last:
        return
    with open(path, "r+b") as file:
        bat = reader.load_stable(file, path).bat
        for number, text in BLOCKS.items():
            end = file.seek(0, os.SEEK_END)
            file.write(text.ljust(MIB, b"."))
            # After 4096 payload entries comes one sector bitmap entry: 2^23 sectors of 512 bytes in blocks of 1 MiB.
            file.seek(bat.offset + 8 * (number + number // 4096))
            file.write(struct.pack("<Q", end | 6))


def blocks(file: Any, info: structures.DiskInfo) -> dict[int, bytes]:
    """Return the contents of the blocks, as seen by a reader that replays a pending log."""
    disk = reader.load_stable(file, "image")
    replayed = view.View(file, "image")
    replayed.updates, replayed.size = disk.updates, disk.size_after_replay
    found = {}
    table = replayed.read(disk.bat.offset, bat_entries(info) * 8, "the table")
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", table)):
        if entry:
            assert entry & 7 == 6
            found[index - index // 4097] = replayed.read(entry >> 20 << 20, MIB, "a block").rstrip(b".")
    return found


def interrupted(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a growth to 30 GiB that exists only in the log."""
    with monkeypatch.context() as patch:
        patch.setattr(
            growth, "finish_log", lambda *_arguments: (_ for _ in ()).throw(RuntimeError("the power is gone"))
        )
        with pytest.raises(RuntimeError):
            growth.grow(path, 30 * GIB)
    assert reader.read_info(path).log_pending


@pytest.mark.parametrize(
    ("size", "bat_last", "pending"),
    [(40, False, False), (200, True, False), (200, False, False), (200, False, True)],
    ids=["in place", "the table grows", "the table moves", "after an interrupted growth"],
)
def test_growing_a_disk(size, bat_last, pending, tmp_path, monkeypatch, figures):
    path = str(tmp_path / "disk.vhdx")
    disk_with_blocks(path, bat_last=bat_last)
    expected = {} if bat_last else BLOCKS
    if pending:
        interrupted(path, monkeypatch)
    with open(path, "rb") as file:
        image = file.read()
    old = reader.read_info(path).virtual_size
    recorder = Recorder(monkeypatch, path)
    growth.grow(path, size * GIB)
    monkeypatch.undo()
    chance = random.Random(1)
    tried = 0
    possible = {old, size * GIB}
    for durable, cut in cuts(image, recorder.events, chance):
        found = reader.read_info(io.BytesIO(cut))
        assert found.virtual_size in possible
        if durable and found.virtual_size != old:
            possible = {size * GIB}
        assert blocks(io.BytesIO(cut), found) == expected
        if tried % 10 == 0:
            with open(path, "wb") as file:
                file.write(cut)
            assert replay.replay_log(path).virtual_size == found.virtual_size
            assert growth.grow(path, size * GIB).virtual_size == size * GIB
            with open(path, "rb") as file:
                assert blocks(file, reader.read_info(path)) == expected
        tried += 1
    assert possible == {size * GIB}
    assert tried > 100
    figures(generated_cases=tried, losses=0)


# -- metadata ----------------------------------------------------------------------------------------------------------


def change_prepare(tx: Transaction) -> None:
    tx.create_snapshot(ACTIVE, "new", "layer-0", {f"label-{number}": "x" * 300 for number in range(20)})


def change_commit(tx: Transaction) -> None:
    tx.commit_active("active", "new", Usage(1, 2), {"l": "1"})


def change_remove(tx: Transaction) -> None:
    tx.remove("active")


def change_update(tx: Transaction) -> None:
    for number in range(30):
        tx.update_info(f"layer-{number}", {"l": "2" * 500})


CHANGES = [change_prepare, change_commit, change_remove, change_update]


def records(path: str) -> Any:
    """Return all records of a file, after a check that the file is intact."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
            for table in ("snapshots", "labels")
        ] + connection.execute("SELECT last FROM sequence").fetchall()


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def difference(before: bytes, after: bytes) -> list[Any]:
    """Return the sectors that differ, as changes."""
    return [
        (start, after[start : start + SECTOR])
        for start in range(0, len(after), SECTOR)
        if before[start : start + SECTOR] != after[start : start + SECTOR]
    ]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.removeprefix("change_"))
@pytest.mark.parametrize("reused", [False, True], ids=["a new log", "a log that is used again"])
def test_metadata(change, reused, tmp_path, figures):
    path, copy = str(tmp_path / "metadata.sqlite3"), str(tmp_path / "copy.sqlite3")
    chance = random.Random(2)
    tried = 0

    def look(main: bytes, log: bytes) -> Any:
        nonlocal tried
        tried += 1
        for name, data in ((copy, main), (copy + "-wal", log)):
            with open(name, "wb") as file:
                file.write(data)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy + "-shm")
        return records(copy)

    store = Metastore(path, create=True)
    with store.write() as tx:
        for number in range(30):
            tx.create_snapshot(ACTIVE, f"a-{number}", f"layer-{number - 1}" if number else "", {"l": str(number)})
            tx.commit_active(f"a-{number}", f"layer-{number}", Usage(0, 0), {"l": str(number)})
        tx.create_snapshot(ACTIVE, "active", "layer-29")
    # A second connection is open, because the last one to close would delete the log.
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM sequence").fetchall()
        if reused:
            assert other.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0
        before = (read(path), read(path + "-wal"))
        old = look(*before)
        with store.write() as tx:
            change(tx)
        after = (read(path), read(path + "-wal"))
        new = look(*after)
        assert old != new
        assert after[0] == before[0]
        for kept in survivors([[sector] for sector in difference(before[1], after[1])], chance):
            assert look(before[0], bytes(apply(bytearray(before[1]), kept))) in (old, new)
        for length in range(len(before[1]), len(after[1]), SECTOR):
            assert look(before[0], after[1][:length]) in (old, new)
        # The log is copied into the main file. Whatever part of it arrives, the log is complete.
        assert other.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0
        copied = read(path)
        for kept in survivors([[sector] for sector in difference(after[0], copied)], chance):
            assert look(bytes(apply(bytearray(after[0]), kept)), after[1]) == new
        assert look(copied, b"") == new
    store.close()
    figures(generated_cases=tried, losses=0)


def test_a_change_that_is_not_durable(tmp_path, figures):
    """It may be lost, but only as a whole, and not once a durable change is on disk that follows it."""
    path, copy = str(tmp_path / "metadata.sqlite3"), str(tmp_path / "copy.sqlite3")
    chance = random.Random(3)
    tried = 0

    def look(log: bytes) -> Any:
        nonlocal tried
        tried += 1
        for name, data in ((copy, main), (copy + "-wal", log)):
            with open(name, "wb") as file:
                file.write(data)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(copy + "-shm")
        return records(copy)

    store = Metastore(path, create=True)
    with store.write() as tx:
        tx.create_snapshot(ACTIVE, "active")
    main, before = read(path), read(path + "-wal")
    with store.write(durable=False) as tx:
        tx.set_owner("active", "process 1")
    between = read(path + "-wal")
    with store.write() as tx:
        change_commit(tx)
    after = read(path + "-wal")
    assert read(path) == main
    old, owned, new = look(before), look(between), look(after)
    assert old != owned != new
    for kept in survivors([[sector] for sector in difference(before, between)], chance):
        assert look(bytes(apply(bytearray(before), kept))) in (old, owned)
    # Nothing of the first change is flushed when the second one is written.
    parts_of_both = [[sector] for sector in difference(before, after)]
    for kept in survivors(parts_of_both, chance):
        assert look(bytes(apply(bytearray(before), kept))) in (old, owned, new)
    for length in range(len(before), len(after), SECTOR):
        assert look(after[:length]) in (old, owned, new)
    store.close()
    figures(generated_cases=tried, losses=0)


# -- order -------------------------------------------------------------------------------------------------------------


class Journal:
    """Everything below a directory that was made and not flushed: paths of files, and directories with their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, top: str) -> None:
        self._top = os.path.join(top, "")
        self.unflushed: set[str] = set()
        for owner, name in (
            (builtins, "open"),
            (os, "open"),
            (os, "mkdir"),
            (os, "rename"),
            (os, "replace"),
            (os, "link"),
            (os, "symlink"),
            (os, "fsync"),
            (os, "unlink"),
            (os, "rmdir"),
        ):
            note = self._open_descriptor if (owner, name) == (os, "open") else getattr(self, f"_{name}")
            monkeypatch.setattr(owner, name, self._noting(getattr(owner, name), note))

    def _noting(self, function: Any, note: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            there = os.path.lexists(arguments[0]) if isinstance(arguments[0], str) else True
            result = function(*arguments, **options)
            # An operation with a descriptor of a directory is part of a removal, which does not need a flush.
            if "dir_fd" not in options and "src_dir_fd" not in options:
                note(there, *arguments)
            return result

        return call

    def _add(self, *paths: str) -> None:
        self.unflushed.update(path for path in map(os.path.abspath, paths) if path.startswith(self._top))

    def _open(self, there: bool, path: Any, mode: str = "r", *_rest: Any) -> None:
        if isinstance(path, str) and mode[0] in "wxa":
            self._add(path)
            if not there:
                self._add(os.path.dirname(path))
        elif isinstance(path, str) and "+" in mode:
            self._add(path)

    def _open_descriptor(self, there: bool, path: str, flags: int, *_rest: Any) -> None:
        # Code that writes uses ``open``. Any other file is empty, and has nothing but its name.
        if flags & os.O_CREAT and not there:
            self._add(os.path.dirname(path))

    def _mkdir(self, _there: bool, path: str, *_rest: Any) -> None:
        self._add(os.path.dirname(path))

    def _rename(self, _there: bool, source: str, target: str) -> None:
        moved = {path for path in self.unflushed if path == source or path.startswith(source + os.sep)}
        self.unflushed -= moved
        self.unflushed |= {target + path[len(source) :] for path in moved}
        self._add(os.path.dirname(source), os.path.dirname(target))

    _replace = _rename

    def _link(self, _there: bool, _source: str, target: str) -> None:
        self._add(os.path.dirname(target))

    _symlink = _link

    def _unlink(self, _there: bool, path: str) -> None:
        self.unflushed.discard(os.path.abspath(path))

    def _rmdir(self, _there: bool, path: str) -> None:
        self.unflushed.discard(os.path.abspath(path))

    def _fsync(self, _there: bool, descriptor: int) -> None:
        self.unflushed.discard(os.readlink(f"/proc/self/fd/{descriptor}"))

    def left(self) -> list[str]:
        """Return the paths without a required flush. Locks have no content, and SQLite flushes its own files."""
        return sorted(
            path
            for path in self.unflushed
            if os.path.lexists(path)
            and "/rm-" not in path
            and not path.endswith((".lock", "-turn"))
            and "/locks" not in path
            and "/metadata.sqlite3" not in path
        )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    workspace = kit.Workspace(str(tmp_path_factory.mktemp("store") / "workspace"))
    workspace.keep("empty")
    with kit.Requests() as requests:
        test_kill.fill(requests, workspace)
        workspace.keep("filled")
        yield workspace


@pytest.mark.parametrize("name", [name for name, case in test_kill.CASES.items() if not case.fails])
def test_what_is_recorded_is_flushed(name, workspace, monkeypatch):
    case = test_kill.CASES[name]
    workspace.back("empty" if case.new_store else "filled")
    with kit.Requests() as requests:
        test_kill.give(requests, workspace, case)
    missing = []
    journal = Journal(monkeypatch, os.path.dirname(workspace.directory))

    def note(point: str) -> None:
        if point == "metadata.commit.before":
            missing.extend(path for path in journal.left() if path.startswith(workspace.root))

    monkeypatch.setattr(metastore_file, "failpoint", note)
    operation, arguments = case.operation
    request = json.dumps(workspace.request(operation, **arguments)).encode()
    reply = door.handle(request, io.BytesIO(case.attachment))
    missing += journal.left()
    monkeypatch.undo()
    assert reply["results"][0]["ok"], reply
    assert missing == []
