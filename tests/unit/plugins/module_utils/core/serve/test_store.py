# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store objects that stay open between the calls of the proxy snapshotter."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import store as own_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, NotFound
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import MAX_IDLE, Stores, open_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter


@pytest.fixture(autouse=True)
def nothing_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the metadata file before each call."""
    monkeypatch.setattr(own_store, "_TRUSTED_TIME", 0.0)


@pytest.fixture
def opened() -> list[Snapshotter]:
    """The store objects that were opened."""
    return []


@pytest.fixture
def stores(root: str, opened: list[Snapshotter]) -> Iterator[Stores]:
    def open_one() -> Snapshotter:
        opened.append(open_store(root, "emulated", lambda _layer_id: None))
        return opened[-1]

    made = Stores(open_one)
    yield made
    made.close_idle(0.0)


def use(stores: Stores, key: str) -> Snapshotter:
    """Prepare a snapshot in a thread of its own, as a call does."""
    used: list[Snapshotter] = []

    def call() -> None:
        taken = stores.take()
        taken.prepare(key)
        stores.give_back(taken)
        used.append(taken)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return used[0]


def is_closed(store: Snapshotter) -> bool:
    try:
        store.walk()
    except FailedPrecondition as error:
        return "not open" in error.message
    return False


def test_a_store_stays_open_for_the_next_thread(stores: Stores, opened: list[Snapshotter]) -> None:
    assert use(stores, "a") is use(stores, "b")
    assert len(opened) == 1


def test_two_calls_at_once_have_two_stores(stores: Stores) -> None:
    use(stores, "a")
    one, other = stores.take(), stores.take()
    assert one is not other
    stores.give_back(one)
    stores.give_back(other)


def test_a_store_that_is_not_used_is_closed(stores: Stores) -> None:
    first = use(stores, "a")
    stores.close_idle(60.0)
    assert not is_closed(first)
    stores.close_idle(0.0)
    assert is_closed(first)
    assert use(stores, "b") is not first


def test_few_stores_wait_for_calls(stores: Stores) -> None:
    use(stores, "a")
    taken = [stores.take() for _number in range(MAX_IDLE + 1)]
    for store in taken:
        store.walk()
        stores.give_back(store)
    assert [is_closed(store) for store in taken] == [False] * MAX_IDLE + [True]


def test_warnings_are_those_of_one_call(stores: Stores) -> None:
    taken = stores.take()
    taken.prepare("a")
    taken.warnings.append("something")
    stores.give_back(taken)
    assert stores.take().warnings == []


@pytest.mark.posix
def test_metadata_that_was_replaced_is_opened_again(stores: Stores, root: str) -> None:
    first = use(stores, "a")
    path = os.path.join(root, "metadata.sqlite3")
    shutil.copyfile(path, path + ".copy")
    os.replace(path + ".copy", path)
    assert stores.take() is not first
    assert is_closed(first)


def test_a_store_that_was_removed_and_made_again(stores: Stores, root: str) -> None:
    """A task removes the store while the service has it open, and another one creates a new one."""
    use(stores, "a")
    other = open_store(root, "emulated", lambda _layer_id: None)
    other.remove("a")
    other.store.retire()
    other.close()
    with pytest.raises(FailedPrecondition, match="is being removed"):
        stores.take().walk()
    shutil.rmtree(root)
    assert use(stores, "b").walk()[0].id == 1


def test_what_an_ended_process_left_is_found_between_calls(stores: Stores, root: str) -> None:
    use(stores, "a")
    snapshots = os.path.join(root, "snapshots")
    open(os.path.join(snapshots, "new-2"), "w").close()
    os.mkdir(os.path.join(snapshots, "2"))
    taken = stores.take()
    taken.walk()
    stores.give_back(taken)
    assert sorted(os.listdir(snapshots)) == ["1", "rm-2"]


def test_a_call_that_fails_by_a_fault_closes_its_store(service: Service, calls: Any, monkeypatch: Any) -> None:
    calls("Prepare", key="a", parent="")
    kept = service._stores._idle[-1].store
    with pytest.raises(NotFound):
        calls("Stat", key="missing")
    assert service._stores._idle[-1].store is kept
    monkeypatch.setattr(Snapshotter, "stat", lambda *_arguments: 1 // 0)
    with pytest.raises(Exception, match="division"):
        calls("Stat", key="a")
    assert service._stores._idle == []
    assert is_closed(kept)
