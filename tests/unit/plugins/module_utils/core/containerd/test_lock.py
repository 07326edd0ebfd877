# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.lock import (
    DatabaseLock,
    is_locked,
    lock_databases,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError

# This program holds the lock on the database in its first argument until it is killed.
OWNER = """
import sys, time
sys.path[:] = sys.argv[2:]
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.lock import DatabaseLock
lock = DatabaseLock(sys.argv[1])
assert lock.acquire() is True
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    (tmp_path / "meta.db").write_bytes(b"pages")
    return str(tmp_path / "meta.db")


def test_one_has_the_lock_until_it_is_released(path: str) -> None:
    first, second = DatabaseLock(path), DatabaseLock(path)
    assert not is_locked(path)
    assert first.acquire()
    assert is_locked(path)
    assert not second.acquire()
    assert not second.acquire(exclusive=False)
    first.release()
    first.release()
    assert not is_locked(path)
    assert second.acquire()
    second.release()


def test_shared_locks_do_not_exclude_each_other(path: str) -> None:
    with DatabaseLock(path) as first, DatabaseLock(path) as second:
        assert first.acquire(exclusive=False)
        assert second.acquire(exclusive=False)
        assert not is_locked(path)
        assert not DatabaseLock(path).acquire()


def test_the_file_can_be_read_and_written_meanwhile(path: str) -> None:
    with DatabaseLock(path) as lock:
        assert lock.acquire()
        with open(path, "r+b") as file:
            assert file.read() == b"pages"
            file.write(b" and more")


def test_the_end_of_the_process_releases_the_lock(path: str) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, path, *sys.path], stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert owner.stdout.readline().strip() == b"locked"
        assert is_locked(path)
        owner.kill()
    assert not is_locked(path)


def test_several_databases(path: str) -> None:
    """The first one always exists. A lock that is not free leaves no other lock behind."""
    other = path.replace("meta", "metadata")
    with lock_databases(path, other, seconds=0.0) as has_locks:
        assert has_locks
        assert is_locked(path)
    pathlib.Path(other).write_bytes(b"pages")
    with lock_databases(path, other, seconds=0.0) as has_locks:
        assert (has_locks, is_locked(path), is_locked(other)) == (True, True, True)
        with lock_databases(other, seconds=0.1) as has_second_lock:
            assert not has_second_lock
    assert not is_locked(other)
    with DatabaseLock(other) as lock:
        assert lock.acquire()
        with lock_databases(path, other, seconds=0.1) as has_locks:
            assert (has_locks, is_locked(path)) == (False, False)
    with pytest.raises(SnapshotterError, match=r"no\.db"), lock_databases(path.replace("meta", "no"), seconds=0.0):
        pass


def test_a_missing_file_is_an_error(path: str) -> None:
    with pytest.raises(SnapshotterError, match=r"other\.db"):
        is_locked(path.replace("meta", "other"))


@pytest.mark.posix
def test_a_directory_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(SnapshotterError, match="it is a directory, not a file|Is a directory"):
        is_locked(str(tmp_path))
