# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare our reader of bbolt databases with bbolt: the same contents, also while bbolt writes."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt

from lab.bolt import Bucket, database

from . import golang

pytestmark = [
    pytest.mark.requires_tool("go", "golang-go"),
    pytest.mark.skipif(
        not (golang.DEBIAN_PACKAGES / "src/go.etcd.io/bbolt").exists(),
        reason="bbolt is not installed (Debian package golang-github-containerd-containerd-dev)",
    ),
]

#: Random databases in all, and in one batch.
DATABASES = 2000
BATCH = 100

#: Seconds of reading next to a writer.
READING = 60.0

#: The buckets of the writer, and the money in all of them (boltpeer).
ACCOUNTS = 64
MONEY = 64 * 1000


@pytest.fixture(scope="module")
def boltpeer() -> pathlib.Path:
    return golang.build("boltpeer")


def reader(descriptor: int) -> Callable[[int, int], bytes]:
    return lambda offset, length: os.pread(descriptor, length, offset)


def dump(path: pathlib.Path) -> str:
    """Return what boltpeer prints for a database."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        state = bolt.read_state(reader(descriptor))
    finally:
        os.close(descriptor)
    lines: List[str] = []
    _dump(state.root, "", lines)
    return "".join(lines)


def _dump(bucket: bolt.Bucket, path: str, lines: List[str]) -> None:
    for key, value in bucket.items():
        inner = f"{path}/{key.hex()}"
        if isinstance(value, bytes):
            lines.append(f"{inner} V {value.hex()}\n")
        else:
            lines.append(f"{inner} B {value.sequence}\n")
            _dump(value, inner, lines)


@pytest.mark.parametrize("first", range(0, DATABASES, BATCH))
def test_random_databases_have_the_same_contents(
    boltpeer: pathlib.Path, tmp_path: pathlib.Path, first: int, figures: Any
) -> None:
    subprocess.run([boltpeer, "random", tmp_path, str(first), str(BATCH)], check=True, timeout=600)
    items = 0
    for seed in range(first, first + BATCH):
        expected = (tmp_path / f"{seed}.dump").read_text()
        assert dump(tmp_path / f"{seed}.db") == expected, f"boltpeer random DIRECTORY {seed} 1"
        items += expected.count("\n")
    assert items > BATCH
    figures(bbolt_databases_compared=BATCH)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("page_size", [1024, 4096, 65536])
def test_bbolt_reads_what_the_lab_writes(boltpeer: pathlib.Path, tmp_path: pathlib.Path, page_size: int) -> None:
    """The check of bbolt finds nothing, and bbolt can change the database."""
    records = {
        b"%05d" % number: Bucket({b"id": b"1", b"labels": Bucket({b"a": b"b"})}, number) for number in range(400)
    }
    values = {b"large": bytes(100000), b"empty": b"", **{b"%d" % number: b"x" * 50 for number in range(999)}}
    path = tmp_path / "lab.db"
    path.write_bytes(
        database(Bucket({b"v1": Bucket({b"records": Bucket(records, 7), b"values": Bucket(values)})}), page_size)
    )
    before = dump(path)
    assert subprocess.run([boltpeer, "dump", path], check=True, stdout=subprocess.PIPE, text=True).stdout == before
    subprocess.run([boltpeer, "put", path, "v1", "new"], check=True)
    assert len(dump(path)) > len(before)


@pytest.fixture
def written(boltpeer: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A database to which another process commits all the time."""
    path = tmp_path / "written.db"
    with subprocess.Popen([boltpeer, "transfer", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin
        assert writer.stdout
        try:
            assert writer.stdout.readline() == b"ready\n"
            yield path
        finally:
            writer.stdin.close()
            commits = int(writer.stdout.readline())
            assert commits > 100


def accounts(state: bolt.State) -> Dict[bytes, Dict[bytes, bytes]]:
    found = {}
    for name, bucket in state.root.items():
        assert isinstance(bucket, bolt.Bucket)
        found[name] = {key: value for key, value in bucket.items() if isinstance(value, bytes)}
    return found


@pytest.mark.long
def test_each_reading_next_to_a_writer_is_one_state(written: pathlib.Path, figures: Any) -> None:
    """Every commit increments all counters and keeps the sum of the money."""
    descriptor = os.open(written, os.O_RDONLY)
    good = busy = 0
    previous: Tuple[int, int] = (0, 0)
    until = time.monotonic() + READING
    try:
        while time.monotonic() < until:
            try:
                state = bolt.read_state(reader(descriptor), seconds=2)
            except Unavailable:
                busy += 1
                continue
            found = accounts(state)
            counters = {int.from_bytes(account[b"counter"], "big") for account in found.values()}
            assert len(found) == ACCOUNTS
            assert len(counters) == 1
            assert sum(int.from_bytes(account[b"money"], "big") for account in found.values()) == MONEY
            current = (state.meta.transaction, counters.pop())
            assert previous <= current
            previous = current
            good += 1
    finally:
        os.close(descriptor)
    figures(bbolt_states_read=good, bbolt_states_busy=busy, wrong_bbolt_states=0)
    assert good > 10
