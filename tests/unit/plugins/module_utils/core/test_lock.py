# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
import time
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock

# This program locks the file in its first argument and holds the lock until it is killed.
HOLDER = """
import sys, time
sys.path[:] = sys.argv[2:]
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock
lock = FileLock(sys.argv[1])
assert lock.acquire() is True
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Any) -> str:
    return str(tmp_path / "1")


def test_one_has_it_until_it_is_released(path: str) -> None:
    first, second = FileLock(path), FileLock(path)

    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    assert not first.acquire()
    second.release()


def test_the_end_of_a_with_block_releases_it_whatever_happens(path: str) -> None:
    def fail() -> None:
        with FileLock(path) as lock:
            assert lock.acquire()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with FileLock(path) as lock:
        assert lock.acquire()


def test_releasing_what_is_not_held_does_nothing(path: str) -> None:
    lock = FileLock(path)
    lock.release()
    assert lock.acquire()
    lock.release()
    lock.release()


def test_an_unreferenced_lock_is_released(path: str) -> None:
    FileLock(path).acquire()
    gc.collect()
    with FileLock(path) as lock:
        assert lock.acquire()


def test_locks_on_two_files_have_nothing_to_do_with_each_other(path: str) -> None:
    with FileLock(path) as one, FileLock(path + "0") as other:
        assert one.acquire()
        assert other.acquire()


def test_the_death_of_its_holder_releases_it(path: str) -> None:
    command = [sys.executable, "-c", HOLDER, path, *sys.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        with FileLock(path) as lock:
            assert not lock.acquire()
            holder.kill()
            assert lock.acquire(20)


def test_a_wait_ends_when_its_time_is_over(path: str) -> None:
    with FileLock(path) as lock:
        assert lock.acquire()
        begin = time.monotonic()
        assert not FileLock(path).acquire(0.2)
        assert 0.2 <= time.monotonic() - begin < 5


def test_a_failed_attempt_leaves_no_file_open(path: str) -> None:
    with FileLock(path) as lock:
        assert lock.acquire()
        first = os.open(path, os.O_RDONLY)
        os.close(first)
        for _attempt in range(5):
            assert not FileLock(path).acquire()
        second = os.open(path, os.O_RDONLY)
        os.close(second)
        assert second == first


@pytest.mark.posix
def test_only_the_owner_can_open_it(path: str) -> None:
    with FileLock(path) as lock:
        assert lock.acquire()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_file_that_cannot_be_made_is_an_error_and_not_a_lock_that_another_has(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(str(tmp_path / "missing" / "1")).acquire()
    assert os.listdir(tmp_path) == []
