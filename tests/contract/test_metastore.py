# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's metastore suite (core/snapshots/storage/metastore_test.go), with its test names.

Where our store answers differently on purpose, the name of the test says so
and docs/behaviour.md gives the reason.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import language
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.transaction import Transaction
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED, VIEW, Usage

#: Kind and parent by name.
POPULATION = {
    "committed-1": (COMMITTED, ""),
    "committed-2": (COMMITTED, "committed-1"),
    "active-1": (ACTIVE, ""),
    "active-2": (ACTIVE, "committed-1"),
    "active-3": (ACTIVE, "committed-2"),
    "view-1": (VIEW, ""),
    "view-2": (VIEW, "committed-2"),
}


@pytest.fixture
def empty(tmp_path: Any) -> Iterator[Metastore]:
    store = Metastore(str(tmp_path / "metadata.sqlite3"), create=True)
    yield store
    store.close()


@pytest.fixture
def store(empty: Metastore) -> Metastore:
    with empty.write() as tx:
        for size, (name, parent) in enumerate((("committed-1", ""), ("committed-2", "committed-1")), 1):
            tx.create_snapshot(ACTIVE, "temporary", parent)
            tx.commit_active("temporary", name, Usage(size, 0))
        for name, (kind, parent) in POPULATION.items():
            if kind != COMMITTED:
                tx.create_snapshot(kind, name, parent)
    return empty


def everything(tx: Transaction) -> Dict[str, Any]:
    return {info.name: info for info in tx.walk(language.parse_all([]))}


def unchanged(store: Metastore, error: Any, operation: Callable[[Transaction], Any]) -> SnapshotterError:
    """Assert that ``operation`` raises ``error`` and leaves the store as it was. Return the error."""
    with store.read() as tx:
        before = everything(tx), tx.id_map()
    with pytest.raises(error) as caught, store.write() as tx:
        operation(tx)
    with store.read() as tx:
        assert (everything(tx), tx.id_map()) == before
    found: SnapshotterError = caught.value
    return found


def test_get_info(store: Metastore) -> None:
    with store.read() as tx:
        for name, (kind, parent) in POPULATION.items():
            info = tx.get_info(name).info
            assert (info.kind, info.name, info.parent, info.labels) == (kind, name, parent, {})
            assert info.created == info.updated
        assert tx.get_info("committed-1").usage == Usage(1, 0)
        assert tx.get_info("committed-2").usage == Usage(2, 0)


def test_get_info_not_exist(store: Metastore) -> None:
    error = unchanged(store, NotFound, lambda tx: tx.get_info("nothing"))
    assert error.message == "snapshot does not exist: not found"


def test_get_info_empty_db(empty: Metastore) -> None:
    unchanged(empty, NotFound, lambda tx: tx.get_info("nothing"))


def test_walk(store: Metastore) -> None:
    with store.read() as tx:
        infos = tx.walk(language.parse_all([]))
        assert [info.name for info in infos] == sorted(POPULATION)
        assert all(info == tx.get_info(info.name).info for info in infos)


def test_walk_of_an_empty_store_is_empty(empty: Metastore) -> None:
    with empty.read() as tx:
        assert tx.walk(language.parse_all([])) == []
        assert tx.id_map() == {}


def test_get_snapshot(store: Metastore) -> None:
    with store.write() as tx:
        made = {
            key: tx.create_snapshot(kind, key, parent)
            for key, kind, parent in (
                ("a", ACTIVE, ""),
                ("b", ACTIVE, "committed-2"),
                ("c", VIEW, ""),
                ("d", VIEW, "committed-2"),
            )
        }
        assert {key: tx.get_snapshot(key) for key in made} == made


def test_get_snapshot_not_exist(store: Metastore) -> None:
    unchanged(store, NotFound, lambda tx: tx.get_snapshot("nothing"))


def test_get_snapshot_empty_db(empty: Metastore) -> None:
    unchanged(empty, NotFound, lambda tx: tx.get_snapshot("nothing"))


def test_get_snapshot_committed(store: Metastore) -> None:
    error = unchanged(store, FailedPrecondition, lambda tx: tx.get_snapshot("committed-1"))
    assert error.message == "requested snapshot committed-1 not active or view: failed precondition"


def test_create_active(empty: Metastore) -> None:
    with empty.write() as tx:
        first = tx.create_snapshot(ACTIVE, "active-1")
        second = tx.create_snapshot(ACTIVE, "active-2")
        view = tx.create_snapshot(VIEW, "view-1")
        assert (first.kind, second.kind, view.kind) == (ACTIVE, ACTIVE, VIEW)
        assert len({first.id, second.id, view.id}) == 3
        assert first.parent_ids == second.parent_ids == view.parent_ids == ()
        assert tx.commit_active("active-1", "committed-1", Usage(0, 0)).id == first.id
        child = tx.create_snapshot(ACTIVE, "active-3", "committed-1")
        assert child.parent_ids == (first.id,)


def test_create_active_not_exist(store: Metastore) -> None:
    error = unchanged(store, NotFound, lambda tx: tx.create_snapshot(ACTIVE, "x", "nothing"))
    assert error.message == 'missing parent "nothing" bucket: not found'


@pytest.mark.parametrize("key", ["active-1", "view-1", "committed-1"])
def test_create_active_exist(store: Metastore, key: str) -> None:
    error = unchanged(store, AlreadyExists, lambda tx: tx.create_snapshot(ACTIVE, key, "committed-1"))
    assert error.message == f"snapshot {key}: already exists"


def test_create_active_from_active(store: Metastore) -> None:
    error = unchanged(store, InvalidArgument, lambda tx: tx.create_snapshot(ACTIVE, "x", "active-1"))
    assert error.message == 'parent "active-1" is not committed snapshot: invalid argument'


def test_create_of_another_kind(store: Metastore) -> None:
    unchanged(store, InvalidArgument, lambda tx: tx.create_snapshot(COMMITTED, "x"))


def test_create_checks_parent_before_key(store: Metastore) -> None:
    unchanged(store, NotFound, lambda tx: tx.create_snapshot(ACTIVE, "active-1", "nothing"))


def test_commit(store: Metastore) -> None:
    with store.write() as tx:
        number = tx.get_info("active-2").info.id
        committed = tx.commit_active("active-2", "committed-3", Usage(5, 6), {"l": "1", "empty": ""})
        assert committed.id == number
        with pytest.raises(NotFound):
            tx.get_snapshot("active-2")
        with pytest.raises(FailedPrecondition):
            tx.get_snapshot("committed-3")
        record = tx.get_info("committed-3")
        assert record.info == committed
        assert (record.info.kind, record.info.parent, record.info.labels) == (COMMITTED, "committed-1", {"l": "1"})
        assert record.usage == Usage(5, 6)


def test_commit_inherits_no_labels_and_resets_both_times(empty: Metastore) -> None:
    with empty.write() as tx:
        tx.create_snapshot(ACTIVE, "a", "", {"l": "1"})
        before = tx.get_info("a").info
        tx.commit_active("a", "c", Usage(0, 0))
        after = tx.get_info("c").info
    assert after.labels == {}
    assert after.created == after.updated > before.created


def test_commit_not_exist(store: Metastore) -> None:
    error = unchanged(store, NotFound, lambda tx: tx.commit_active("nothing", "x", Usage(0, 0)))
    assert error.message == 'failed to get active snapshot "nothing": not found'


@pytest.mark.parametrize("name", ["committed-1", "active-1", "active-2", "view-1"])
def test_commit_exist(store: Metastore, name: str) -> None:
    error = unchanged(store, AlreadyExists, lambda tx: tx.commit_active("active-1", name, Usage(0, 0)))
    assert error.message == f"committed snapshot {name}: already exists"


def test_commit_committed(store: Metastore) -> None:
    error = unchanged(store, FailedPrecondition, lambda tx: tx.commit_active("committed-1", "x", Usage(0, 0)))
    assert error.message == 'snapshot "committed-1" is not active: failed precondition'


def test_commit_view_fails(store: Metastore) -> None:
    unchanged(store, FailedPrecondition, lambda tx: tx.commit_active("view-1", "x", Usage(0, 0)))


def test_remove(store: Metastore) -> None:
    with store.write() as tx:
        ids = {name: tx.get_info(name).info.id for name in POPULATION}
        for name in ("active-1", "active-2", "active-3", "view-1", "view-2", "committed-2", "committed-1"):
            assert tx.remove(name) == (ids[name], POPULATION[name][0])
            with pytest.raises(NotFound):
                tx.get_info(name)
        assert everything(tx) == {}


def test_remove_not_exist(store: Metastore) -> None:
    error = unchanged(store, NotFound, lambda tx: tx.remove("nothing"))
    assert error.message == "snapshot nothing: not found"


@pytest.mark.parametrize("attempt", [1, 2])
def test_remove_with_children(store: Metastore, attempt: int) -> None:
    error = unchanged(store, FailedPrecondition, lambda tx: tx.remove("committed-1"))
    assert error.message == "cannot remove snapshot with child: failed precondition"
    assert error.details["children"] == ["active-2", "committed-2"]


def test_parent_ids(store: Metastore) -> None:
    with store.read() as tx:
        one, two = tx.get_info("committed-1").info.id, tx.get_info("committed-2").info.id
        expected: Dict[str, Tuple[int, ...]] = {
            "active-1": (),
            "active-2": (one,),
            "active-3": (two, one),
            "view-1": (),
            "view-2": (two, one),
        }
        assert {name: tx.get_snapshot(name).parent_ids for name in expected} == expected


def test_rebase(store: Metastore) -> None:
    with store.write() as tx:
        tx.create_snapshot(ACTIVE, "late")
        tx.commit_active("late", "rebased", Usage(0, 0), None, "committed-1")
        tx.commit_active("active-2", "same", Usage(0, 0), None, "committed-1")
        tx.create_snapshot(ACTIVE, "kept", "committed-1")
        tx.commit_active("kept", "kept-committed", Usage(0, 0))
        assert len(tx.create_snapshot(VIEW, "look", "rebased").parent_ids) == 2
        assert tx.get_info("kept-committed").info.parent == "committed-1"
        assert {"rebased", "same", "kept-committed"} <= set(tx.children("committed-1"))
    unchanged(store, FailedPrecondition, lambda tx: tx.remove("committed-1"))


@pytest.mark.parametrize(
    ("key", "parent", "error", "message"),
    [
        ("active-1", "nothing", NotFound, 'missing parent "nothing" of snapshot "active-1": not found'),
        ("active-1", "active-2", FailedPrecondition, 'parent "active-2" is not committed: failed precondition'),
        (
            "active-2",
            "committed-2",
            InvalidArgument,
            'cannot change parent of active snapshot "active-2" on commit: invalid argument',
        ),
    ],
)
def test_rebase_errors(store: Metastore, key: str, parent: str, error: Any, message: str) -> None:
    assert unchanged(store, error, lambda tx: tx.commit_active(key, "x", Usage(0, 0), None, parent)).message == message


def test_update(empty: Metastore) -> None:
    with empty.write() as tx:
        tx.create_snapshot(ACTIVE, "a", "", {"l1": "1", "l2": "2", "deep.er/key-x": "3"})
        assert tx.update_info("a", {"l1": "x", "l2": "", "other": "ignored"}, ["labels.l1", "labels.l2"]).labels == {
            "l1": "x",
            "deep.er/key-x": "3",
        }
        assert tx.update_info("a", {"deep.er/key-x": "y"}, ["labels.deep.er/key-x"]).labels["deep.er/key-x"] == "y"
        assert tx.update_info("a", {"n": "1"}, ["labels"]).labels == {"n": "1"}
        before = tx.get_info("a").info
        after = tx.update_info("a", {"m": "2", "empty": ""})
        assert after.labels == {"m": "2"}
        assert after == tx.get_info("a").info
        assert (after.created, after.kind, after.parent, after.id) == (
            before.created,
            before.kind,
            before.parent,
            before.id,
        )
        assert after.updated > before.updated
        assert tx.update_info("a", {}).labels == {}


@pytest.mark.parametrize("path", ["parent", "kind", "created", "name", "label", ""])
def test_update_of_another_field(store: Metastore, path: str) -> None:
    error = unchanged(store, InvalidArgument, lambda tx: tx.update_info("active-1", {"l": "1"}, ["labels.l", path]))
    assert error.message == f'cannot update "{path}" field on snapshot "active-1": invalid argument'


def test_update_not_exist(store: Metastore) -> None:
    unchanged(store, NotFound, lambda tx: tx.update_info("nothing", {}))


def test_ids_are_never_given_out_twice(empty: Metastore) -> None:
    with empty.write() as tx:
        assert tx.create_snapshot(ACTIVE, "a").id == 1
        tx.remove("a")
        assert tx.create_snapshot(ACTIVE, "b").id == 2
    with pytest.raises(RuntimeError), empty.write() as tx:
        assert tx.create_snapshot(ACTIVE, "c").id == 3
        raise RuntimeError("as if the scratch could not be made")
    empty.skip_ids(3)
    with empty.write() as tx:
        assert tx.create_snapshot(ACTIVE, "c").id == 4


def test_walk_filters(empty: Metastore) -> None:
    """SQL answers some filters. Each must give the same result as the evaluation of the filter language."""
    with empty.write() as tx:
        tx.create_snapshot(ACTIVE, "p'1", "", {"l": "1", "": "empty key", 'quo"te': "x y"})
        tx.commit_active("p'1", "p", Usage(0, 0), {"l": "1"})
        tx.create_snapshot(ACTIVE, "a", "p", {"l": "2", "a.b": "c"})
        tx.create_snapshot(VIEW, "v", "p", {"m": "\u725b"})
        tx.create_snapshot(VIEW, "\U0001f402")
        infos = list(everything(tx).values())
        operands = [
            "",
            "==p",
            '==""',
            "!=p",
            '!=""',
            "==active",
            "==2",
            "!=2",
            "==\u725b",
            "~=^[a-p]$",
            '=="\\xff"',
            '!="\\xff"',
        ]
        fields = [
            "kind",
            "name",
            "parent",
            "parent.more",
            "labels.l",
            "labels.a.b",
            'labels."quo\\"te"',
            "labels",
            "id",
            "nothing.at.all",
        ]
        for field in fields:
            for operand in operands:
                for text in (field + operand, field + operand + ",kind==view", "kind==view," + field + operand):
                    for texts in ([text], [text, "name==p"], [text, ""]):
                        wanted = language.parse_all(texts)
                        expected = [info for info in infos if wanted.matches(language.snapshot_adaptor(info))]
                        assert tx.walk(wanted) == expected, texts


def test_filters_have_no_limit_of_number(store: Metastore) -> None:
    """SQLite refuses more than 1,000 terms, and plans fewer in a time that grows with their square."""
    some = [f"name==absent-{number}" for number in range(40_000)]
    for texts, expected in (
        ([*some, "name==view-1"], ["view-1"]),
        ([*some, "labels.x!=1,kind==view"], ["view-1", "view-2"]),
        ([",".join(["parent==committed-2", *["kind==view"] * 2000])], ["view-2"]),
        ([",".join([f"labels.l{number}!=x" for number in range(40)]) + f",name==n{each}" for each in range(900)], []),
        (["kind==active,name~=^active-1$"] * 5000, ["active-1"]),
    ):
        with store.read() as tx:
            start = time.process_time()
            assert [info.name for info in tx.walk(language.parse_all(texts))] == expected
            assert time.process_time() - start < 5


# -- several threads of one process, each with its own Metastore ---------------

THREADS = 8
ROUNDS = 6


def test_threads_that_create_and_change_one_file_lose_nothing(tmp_path: Any, figures: Any) -> None:
    path = str(tmp_path / "metadata.sqlite3")
    start = threading.Barrier(THREADS)

    def work(thread: int) -> Tuple[Dict[str, int], List[int]]:
        """Return the snapshots of this thread that must exist at the end, and the ids of all that it created."""
        kept: Dict[str, int] = {}
        ids = []
        start.wait(30)
        store = Metastore(path, create=True)
        for number in range(ROUNDS):
            key, name = f"key-{thread}-{number}", f"name-{thread}-{number}"
            with store.write() as tx:
                ids.append(tx.create_snapshot(ACTIVE, key, f"name-{thread}-0" if number else "").id)
            with store.write() as tx:
                kept[name] = tx.commit_active(key, name, Usage(thread, number), {"thread": str(thread)}).id
            if number % 2:
                with store.write() as tx:
                    assert tx.remove(name)[0] == kept.pop(name)
            with store.read() as tx:
                own = tx.walk(language.parse_all([f"labels.thread=={thread}"]))
                assert {info.name: info.id for info in own} == kept
        store.close()
        return kept, ids

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(work, range(THREADS)))

    store = Metastore(path)
    with store.read() as tx:
        assert tx.id_map() == {number: name for kept, _ids in results for name, number in kept.items()}
        assert sorted(number for _kept, ids in results for number in ids) == list(range(1, THREADS * ROUNDS + 1))
        assert tx.damage() == ([], [])
    store.close()
    assert [name for name in os.listdir(tmp_path) if ".new" in name] == []
    figures(concurrent_operations=THREADS * ROUNDS * 5 // 2, losses=0)


@pytest.mark.parametrize("held", ["the write queue", "a transaction"])
def test_a_writer_waits_for_the_writer_of_another_thread(empty: Metastore, tmp_path: Any, held: str) -> None:
    path = str(tmp_path / "metadata.sqlite3")

    def write(wait: bool) -> int:
        store = Metastore(path)
        try:
            with store.write(wait=wait) as tx:
                return tx.create_snapshot(ACTIVE, "other").id
        finally:
            store.close()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with FileLock(path + "-turn") if held == "the write queue" else empty.write() as writer:
            assert not isinstance(writer, FileLock) or writer.acquire()
            with pytest.raises(Unavailable, match="have kept the metadata locked"):
                pool.submit(write, False).result(30)
            waiting = pool.submit(write, True)
            with pytest.raises(concurrent.futures.TimeoutError):
                waiting.result(0.2)
        assert waiting.result(30) == 1
