# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a power cut leaves of disk files and of the metadata.

The model of a file: what was written before its last flush is there. Of what was written, and of changes of its length,
since then, any part may be there or not, in sectors of 512 bytes, whatever the order in which it was written; what is
not there is what was there before, and zeros beyond the old end. Cuts come after each single write and flush.

* Growing disks: writes and flushes are recorded on their way to the file, and the model applied to them.
* Metadata: SQLite's own writes are not seen. Its log is compared before and after each COMMIT, and the difference is
  what may be missing while COMMIT has not returned; and so for the main file while the log is copied into it.
* The rest is a matter of order: when the metadata records something, and when an operation says that it is done,
  everything below the store that was made for it has been flushed, files and the directories that name them.

Not modelled: sectors that read as garbage, disks that say they have flushed and have not.
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
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import dispatch, metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import vhdx
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, Usage

from . import kit, test_kill

pytestmark = pytest.mark.posix

GIB = 1024**3
MIB = 1024**2
SECTOR = 512

#: Up to so many parts, all combinations of what is there are tried; so many random ones beyond.
FEW = 6
MANY = 12


# -- growing disks -----------------------------------------------------------------------------------------------------


class Recorder:
    """The writes to one file in order: (offset, data), a length that it was given, or None for a flush."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
        self.events: list[Any] = []
        self._path = path
        self._fsync = os.fsync
        monkeypatch.setattr(vhdx, "open", self._open, raising=False)
        monkeypatch.setattr(os, "fsync", self._flush)

    def _open(self, path: str, mode: str, **options: Any) -> Any:
        file = builtins.open(path, mode, **options)
        return Recorded(file, self.events) if path == self._path and mode != "rb" else file

    def _flush(self, descriptor: int) -> None:
        self._fsync(descriptor)
        if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
            self.events.append(None)


class Recorded:
    """A file that tells of the writes to it."""

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
    """What of an event may be there or not, each for itself: sectors of a write, or a length."""
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
    """What may be left of events, each given by its parts: all combinations if there are few, else a choice of them."""
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
    """Each image that a power cut may leave; whether it is what a flush has made sure of, for good."""
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
    """A disk of 20 GiB with data in some blocks. With ``bat_last`` nothing lies behind its table but an empty space."""
    vhdx.create(path, 20 * GIB)
    if bat_last:
        return
    with open(path, "r+b") as file:
        bat = vhdx._load_stable(file, path).bat
        for number, text in BLOCKS.items():
            place = file.seek(0, os.SEEK_END)
            file.write(text.ljust(MIB, b"."))
            # Every 4096 payload entries one for a sector bitmap: 2^23 sectors of 512 bytes in blocks of 1 MiB.
            file.seek(bat.offset + 8 * (number + number // 4096))
            file.write(struct.pack("<Q", place | 6))


def blocks(file: Any, info: vhdx.DiskInfo) -> dict[int, bytes]:
    """What the blocks hold, as a reader finds them who applies a pending log."""
    disk = vhdx._load_stable(file, "image")
    view = vhdx._View(file, "image")
    view.updates, view.size = disk.updates, disk.size_after_replay
    found = {}
    table = view.read(disk.bat.offset, vhdx._bat_entries(info) * 8, "the table")
    for index, (entry,) in enumerate(struct.iter_unpack("<Q", table)):
        if entry:
            assert entry & 7 == 6
            found[index - index // 4097] = view.read(entry >> 20 << 20, MIB, "a block").rstrip(b".")
    return found


def interrupted(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a growth to 30 GiB behind that is in the log and nowhere else."""
    with monkeypatch.context() as patch:
        patch.setattr(vhdx, "_finish_log", lambda *_arguments: (_ for _ in ()).throw(RuntimeError("the power is gone")))
        with pytest.raises(RuntimeError):
            vhdx.grow(path, 30 * GIB)
    assert vhdx.read_info(path).log_pending


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
    old = vhdx.read_info(path).virtual_size
    recorder = Recorder(monkeypatch, path)
    vhdx.grow(path, size * GIB)
    monkeypatch.undo()
    chance = random.Random(1)
    tried = 0
    possible = {old, size * GIB}
    for durable, cut in cuts(image, recorder.events, chance):
        found = vhdx.read_info(io.BytesIO(cut))
        assert found.virtual_size in possible
        if durable and found.virtual_size != old:
            possible = {size * GIB}
        assert blocks(io.BytesIO(cut), found) == expected
        if tried % 10 == 0:
            with open(path, "wb") as file:
                file.write(cut)
            assert vhdx.replay_log(path).virtual_size == found.virtual_size
            assert vhdx.grow(path, size * GIB).virtual_size == size * GIB
            with open(path, "rb") as file:
                assert blocks(file, vhdx.read_info(path)) == expected
        tried += 1
    assert possible == {size * GIB}
    assert tried > 100
    figures(generated_cases=tried, losses=0)


# -- metadata ----------------------------------------------------------------------------------------------------------


def change_prepare(tx: metastore.Transaction) -> None:
    tx.create_snapshot(ACTIVE, "new", "layer-0", {f"label-{number}": "x" * 300 for number in range(20)})


def change_commit(tx: metastore.Transaction) -> None:
    tx.commit_active("active", "new", Usage(1, 2), {"l": "1"})


def change_remove(tx: metastore.Transaction) -> None:
    tx.remove("active")


def change_update(tx: metastore.Transaction) -> None:
    for number in range(30):
        tx.update_info(f"layer-{number}", {"l": "2" * 500})


CHANGES = [change_prepare, change_commit, change_remove, change_update]


def records(path: str) -> Any:
    """All that is recorded, from a file that is checked to be whole."""
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
    """The sectors that differ, as changes."""
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
    # Somebody else has it open, or the one who closes it would clear the log away.
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
        # The log is copied into the main file: whatever of it is there, the log has it all.
        assert other.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0
        copied = read(path)
        for kept in survivors([[sector] for sector in difference(after[0], copied)], chance):
            assert look(bytes(apply(bytearray(after[0]), kept)), after[1]) == new
        assert look(copied, b"") == new
    store.close()
    figures(generated_cases=tried, losses=0)


# -- order -------------------------------------------------------------------------------------------------------------


class Journal:
    """What below a directory has been made and not been flushed: files by path, and the directories that name them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, top: str) -> None:
        self._top = os.path.join(top, "")
        self.unflushed: set[str] = set()
        for owner, name in (
            (builtins, "open"),
            (os, "mkdir"),
            (os, "rename"),
            (os, "replace"),
            (os, "link"),
            (os, "symlink"),
            (os, "fsync"),
            (os, "unlink"),
            (os, "rmdir"),
        ):
            monkeypatch.setattr(owner, name, self._noting(getattr(owner, name), getattr(self, f"_{name}")))

    def _noting(self, function: Any, note: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            there = os.path.lexists(arguments[0]) if isinstance(arguments[0], str) else True
            result = function(*arguments, **options)
            # With a descriptor of a directory, something is being destroyed: no need to flush that.
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
        """What is to be complained of. What holds nothing is not: locks, and SQLite sees to its own files."""
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
def place(tmp_path_factory):
    place = kit.Place(str(tmp_path_factory.mktemp("store") / "place"))
    place.keep("empty")
    with kit.Requests() as requests:
        test_kill.fill(requests, place)
        place.keep("filled")
        yield place


@pytest.mark.parametrize("name", [name for name, case in test_kill.CASES.items() if not case.fails])
def test_what_is_recorded_is_flushed(name, place, monkeypatch):
    case = test_kill.CASES[name]
    place.back("empty" if case.new_store else "filled")
    with kit.Requests() as requests:
        test_kill.give(requests, place, case)
    missing = []
    journal = Journal(monkeypatch, os.path.dirname(place.directory))

    def note(point: str) -> None:
        if point == "metadata.commit.before":
            missing.extend(path for path in journal.left() if path.startswith(place.root))

    monkeypatch.setattr(metastore, "failpoint", note)
    operation, arguments = case.operation
    request = json.dumps(place.request(operation, **arguments)).encode()
    reply = dispatch.handle(request, io.BytesIO(case.attachment))
    missing += journal.left()
    monkeypatch.undo()
    assert reply["results"][0]["ok"], reply
    assert missing == []
