# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the database file that a simulated containerd writes."""

from __future__ import annotations

import fcntl
import os
import random
import threading

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt as reader

from lab.bolt import Bucket
from lab.containerd.database import Database


def contents(bucket):
    return {
        key: value if isinstance(value, bytes) else (value.sequence, contents(value)) for key, value in bucket.items()
    }


def written(bucket):
    return {
        key: value if isinstance(value, bytes) else (value.sequence, written(value))
        for key, value in bucket.items.items()
    }


def read(path):
    with path.open("rb") as file:
        return reader.read_state(lambda offset, length: os.pread(file.fileno(), length, offset), seconds=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "meta.db"


def test_a_new_database_is_empty(path):
    database = Database(path)
    assert contents(read(path).root) == {}
    database.close()


def test_each_commit_is_what_a_reader_finds(path):
    choose = random.Random(1)
    database = Database(path)
    transactions = []
    for step in range(60):
        with database.update() as root:
            bucket = root.items.setdefault(b"%d" % choose.randrange(9), Bucket())
            bucket.sequence += 1
            bucket.items[b"%d" % step] = b"x" * choose.randrange(9000)
            if step % 7 == 6:
                root.items.pop(next(iter(root.items)))
        state = read(path)
        transactions.append(state.meta.transaction)
        assert contents(state.root) == written(database.root)
    assert transactions == list(range(transactions[0], transactions[0] + 60))
    database.close()


def test_the_file_stays_small(path):
    database = Database(path)
    for number in range(200):
        with database.update() as root:
            root.items[b"key"] = b"%d" % number * 20000
    assert path.stat().st_size < 6 * 20000 * 3
    database.close()


def test_a_database_is_opened_again(path):
    for number in range(5):
        database = Database(path)
        with database.update() as root:
            root.items[b"%d" % number] = Bucket({b"a": b"x" * 5000}, number)
        database.close()
    assert sorted(contents(read(path).root)) == [b"0", b"1", b"2", b"3", b"4"]


def test_an_exception_undoes_the_changes(path):
    database = Database(path)
    with database.update() as root:
        root.items[b"a"] = Bucket({b"b": b"1"})
    before = read(path).meta
    with pytest.raises(ZeroDivisionError), database.update() as root:
        root.items[b"a"].items[b"b"] = b"2"
        raise ZeroDivisionError
    assert database.root.items[b"a"].items == {b"b": b"1"}
    assert read(path).meta == before
    database.close()


def test_a_database_has_one_owner(path):
    """As bbolt, a second process waits until the first one closes the database."""
    database = Database(path)
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    opened = []
    waiting = threading.Thread(target=lambda: opened.append(Database(path)))
    waiting.start()
    waiting.join(0.2)
    assert not opened
    database.close()
    waiting.join(30)
    opened[0].close()


def test_a_commit_without_its_meta_page_did_not_happen(path):
    """The process ends between the pages and the meta page."""
    database = Database(path)
    with database.update() as root:
        root.items[b"a"] = b"1"
    expected = contents(read(path).root)
    meta = path.read_bytes()[:8192]
    with database.update() as root:
        root.items[b"a"] = b"2" * 30000
    database.close()
    with path.open("r+b") as file:
        file.write(meta)
    database = Database(path)
    assert written(database.root) == expected
    database.close()


def test_each_reading_next_to_a_writer_is_one_state(path):
    """Every commit increments all counters."""
    database = Database(path)
    ended = threading.Event()

    def write():
        number = 0
        while not ended.is_set():
            number += 1
            with database.update() as root:
                for name in range(20):
                    size = (number * 37 + name) % 3000
                    root.items[b"%d" % name] = Bucket({b"counter": b"%d" % number, b"ballast": b"x" * size})

    thread = threading.Thread(target=write)
    thread.start()
    states = 0
    try:
        for _ in range(200):
            try:
                found = contents(read(path).root)
            except Unavailable:
                continue
            counters = {bucket[b"counter"] for _, bucket in found.values()}
            assert len(counters) <= 1
            states += bool(counters)
    finally:
        ended.set()
        thread.join()
        database.close()
    assert states > 10
