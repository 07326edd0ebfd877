# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that need not be on disk at once, and files that are replaced while they are open."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sqlite3
from collections.abc import Iterator

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE

# PRAGMA synchronous
FULL = 2


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "metadata.sqlite3")


@pytest.fixture
def store(path: str) -> Iterator[Metastore]:
    opened = Metastore(path, create=True)
    with opened.write() as tx:
        tx.create_snapshot(ACTIVE, "key")
    yield opened
    opened.close()


def synchronous(store: Metastore) -> int:
    level: int = store._live().execute("PRAGMA synchronous").fetchone()[0]
    return level


def test_other_processes_see_a_change_that_is_not_durable(store: Metastore, path: str) -> None:
    with store.write(durable=False) as tx:
        tx.set_owner("key", "this test")
    other = Metastore(path)
    with other.read() as tx:
        assert tx.find_owner("key") == "this test"
    other.close()


def test_the_next_change_is_durable_again(store: Metastore, path: str) -> None:
    with store.write(durable=False) as tx:
        tx.set_owner("key", "this test")
    assert synchronous(store) == FULL
    with pytest.raises(ZeroDivisionError), store.write(durable=False) as tx:
        tx.set_owner("key", "another")
        raise ZeroDivisionError
    assert synchronous(store) == FULL
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable), store.write(wait=False, durable=False):
            pass
    assert synchronous(store) == FULL
    with store.read() as tx:
        assert tx.find_owner("key") == "this test"


def test_the_file_that_is_open_is_current(store: Metastore) -> None:
    assert store.is_current()
    with store.write() as tx:
        tx.set_owner("key", "this test")
    assert store.is_current()
    assert not Metastore(None).is_current()


@pytest.mark.posix
def test_a_file_that_was_replaced_is_not_current(store: Metastore, path: str) -> None:
    shutil.copyfile(path, path + ".copy")
    os.replace(path + ".copy", path)
    assert not store.is_current()
    os.unlink(path)
    assert not store.is_current()


def test_a_file_with_another_schema_is_not_current(store: Metastore, path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (a)")
    assert not store.is_current()


def test_a_closed_file_is_not_current(store: Metastore) -> None:
    store.close()
    assert not store.is_current()
