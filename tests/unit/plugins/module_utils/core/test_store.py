# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store as a whole: made, adopted, configured, removed, and what stands in the way."""

from __future__ import annotations

import os
import shutil
from typing import Any, Callable, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.ensure import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.rehearsal import Rehearsal
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import ensure_store

GIB = 1024**3


@pytest.fixture
def at(tmp_path: Any) -> Iterator[Callable[..., Snapshotter]]:
    """A new process, as it were, on the same root; the last one has ended, unless it is to stay ``beside`` it."""
    opened: List[Snapshotter] = []

    def make(rehearse: bool = False, beside: bool = False) -> Snapshotter:
        if opened and not beside:
            opened.pop().close()
        layers = EmulatedLayers()
        opened.append(Snapshotter(str(tmp_path / "root"), Rehearsal(layers) if rehearse else layers, rehearse=rehearse))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def is_private(path: str) -> bool:
    return os.name == "nt" or os.stat(path).st_mode & 0o777 == 0o700


def fill(store: Snapshotter) -> None:
    store.prepare("b", "")
    store.commit("base", "b")
    store.prepare("work", "base")
    store.view("look", "base")


def run_twice(at: Callable[..., Snapshotter], **options: Any) -> Any:
    """Rehearse, do, and do again: the plan is what is done, and then nothing is left to do."""
    existed = os.path.lexists(at().root)
    planned = ensure_store(at(rehearse=True), **options)
    assert os.path.lexists(at().root) == existed
    done = ensure_store(at(), **options)
    assert planned == done
    again = ensure_store(at(), **options)
    assert (again.changed, again.result["actions"]) == (False, [])
    assert again.result["store"] == done.result["store"]
    return done


def test_it_is_made(at: Any) -> None:
    done = run_twice(at, rootfs_size="40GB")
    assert done.changed
    assert done.result["store"] == {
        "root": at().root,
        "layers": "emulated",
        "snapshots": 0,
        "rootfs_size": 40 * GIB,
        "protected": True,
    }
    assert done.result["actions"] == ["create", "configure"]
    assert done.result["diff"]["before"] is None
    assert is_private(at().root)


@pytest.mark.posix
def test_an_empty_directory_is_adopted_and_protected(at: Any) -> None:
    os.mkdir(at().root, 0o755)
    assert run_twice(at).result["actions"] == ["create", "protect"]
    assert is_private(at().root)


@pytest.mark.posix
def test_a_store_is_adopted_and_protected(at: Any) -> None:
    fill(at())
    os.chmod(at().root, 0o777)
    done = run_twice(at)
    assert done.result["actions"] == ["protect"]
    assert done.result["store"]["snapshots"] == 3
    assert done.result["diff"]["before"]["protected"] is False


def test_what_is_no_store_is_refused(at: Any) -> None:
    os.mkdir(at().root)
    with open(os.path.join(at().root, "report.doc"), "w"):
        pass
    with pytest.raises(FailedPrecondition, match="is no store, and not empty: it has report.doc; name another root"):
        ensure_store(at())
    with open(os.path.join(at().root, "metadata.db"), "w"):
        pass
    with pytest.raises(FailedPrecondition, match="is the root of a snapshotter of containerd"):
        ensure_store(at(), force=True)
    assert sorted(os.listdir(at().root)) == ["metadata.db", "report.doc"]


def test_layers_without_metadata(at: Any) -> None:
    fill(at())
    for name in os.listdir(at().root):
        if name.startswith("metadata"):
            os.unlink(os.path.join(at().root, name))
    with pytest.raises(FailedPrecondition, match="has 2 layers but no metadata.sqlite3; restore that file"):
        ensure_store(at())
    with pytest.raises(FailedPrecondition, match="has 2 layers but no metadata.sqlite3: restore that file"):
        at().prepare("new", "")
    for look in (
        at().walk,
        lambda: at().stat("base"),
        lambda: at().prepare("new", "base"),
        lambda: at().remove("base"),
    ):
        with pytest.raises(FailedPrecondition, match="has 2 layers but no metadata.sqlite3: restore that file"):
            look()
    with pytest.raises(FailedPrecondition, match="has 2 layers but no metadata.sqlite3: restore that file"):
        at(rehearse=True).walk()
    planned = ensure_store(at(rehearse=True), rootfs_size="40GB", force=True)
    assert planned.result["actions"] == ["create", "configure"]
    assert "metadata.sqlite3" not in os.listdir(at().root)
    ensure_store(at(), force=True)
    at().prepare("new", "")
    assert at().stat("new").id == 3
    assert sorted(os.listdir(at().directories.snapshots)) == ["1", "2", "3"]


def test_the_log_of_lost_metadata_is_not_applied_to_new_ones(at: Any) -> None:
    store = at()
    fill(store)
    log = os.path.join(store.root, "metadata.sqlite3-wal")
    with open(log, "rb") as file:
        newer = file.read()
    store.close()
    os.unlink(os.path.join(store.root, "metadata.sqlite3"))
    with open(log, "wb") as file:
        file.write(newer)

    ensure_store(at(), force=True)
    assert at().walk() == []
    with open(os.path.join(store.root, "metadata.sqlite3.lost-wal"), "rb") as file:
        assert file.read() == newer
    assert ensure_store(at(), "absent", force=True).result["store"] is None
    assert not os.path.exists(store.root)


def test_snapshots_that_are_their_own_ancestors(at: Any) -> None:
    """As no task makes them, only damage: nothing goes round in it for ever, and the store can be removed."""
    names = [f"sha256:{letter * 64}" for letter in "ab"]
    for name, parent in zip(names, ["", *names]):
        at().prepare("key", parent)
        at().commit(name, "key")
    at().prepare("work", names[0])
    with at().metadata().write() as tx:
        tx._db.execute("UPDATE snapshots SET parent = ? WHERE name = ?", tuple(reversed(names)))
    for task in (
        lambda: ensure_snapshot(at(), "absent", name=names[0], recursive=True),
        lambda: ensure_image(at(), "absent", chain_id=names[1]),
        lambda: at().prepare("more", names[1]),
    ):
        with pytest.raises(FailedPrecondition, match="metadata is damaged: the parent 'sha256:.* is its own ancestor"):
            task()
    assert len(at().walk()) == 3
    planned = ensure_store(at(rehearse=True), "absent", force=True)
    assert len(at().walk()) == 3
    removed = ensure_store(at(), "absent", force=True)
    assert removed.result["actions"] == planned.result["actions"] == ["remove work", "remove"]
    assert not os.path.exists(at().root)


def test_the_size_that_tasks_inherit(at: Any) -> None:
    fill(at())
    run_twice(at, rootfs_size="40GB")
    assert ensure_snapshot(at(), "active", key="one", parent="base").result["snapshot"]["rootfs_size"] == 40 * GIB
    assert not ensure_snapshot(at(), "active", key="one", parent="base").changed
    own = ensure_snapshot(at(), "active", key="two", parent="base", rootfs_size="50GB")
    assert own.result["snapshot"]["rootfs_size"] == 50 * GIB
    label = {"containerd.io/snapshot/windows/rootfs.sizebytes": str(30 * GIB)}
    labelled = ensure_snapshot(at(), "active", key="three", parent="base", labels=label)
    assert labelled.result["snapshot"]["rootfs_size"] == 30 * GIB
    for options in ({"key": "four"}, {"key": "extract-1 x", "parent": "base"}):
        assert ensure_snapshot(at(), "active", **options).result["snapshot"]["rootfs_size"] is None
    # What exists is not touched, and what is smaller than the template is as large as that.
    assert not ensure_snapshot(at(), "active", key="work", parent="base").changed
    run_twice(at, rootfs_size="1GB")
    assert ensure_snapshot(at(), "active", key="five", parent="base").result["snapshot"]["rootfs_size"] == 20 * GIB
    assert run_twice(at, rootfs_size="0").result["store"]["rootfs_size"] is None
    six = ensure_snapshot(at(), "active", key="six", parent="base").result["snapshot"]
    assert (six["rootfs_size"], six["labels"]) == (20 * GIB, {})


def test_bad_options(at: Any) -> None:
    with pytest.raises(InvalidArgument, match="state 'gone' is none of present, absent"):
        ensure_store(at(), state="gone")
    with pytest.raises(InvalidArgument, match="rootfs_size goes with state=present"):
        ensure_store(at(), state="absent", rootfs_size="40GB")
    with pytest.raises(InvalidArgument, match="rootfs_size: 'big' is not a size"):
        ensure_store(at(), rootfs_size="big")
    assert not os.path.lexists(at().root)


# -- absent -----------------------------------------------------------------------


def test_an_empty_store_is_removed(at: Any) -> None:
    store = at()
    fill(store)
    for name in ("look", "work", "base"):
        store.remove(name)
    os.mkdir(os.path.join(store.root, "incoming"))
    done = run_twice(at, state="absent")
    assert done.result["actions"] == ["remove"]
    assert not os.path.lexists(store.root)


def test_what_is_not_there_is_absent(at: Any) -> None:
    assert not run_twice(at, state="absent").changed
    os.mkdir(at().root)
    with open(os.path.join(at().root, "report.doc"), "w"):
        pass
    store = at()
    assert not ensure_store(store, state="absent", force=True).changed
    assert store.warnings == [f"{store.root} is not a store; it is left as it is"]


def test_snapshots_are_in_the_way(at: Any) -> None:
    fill(at())
    with pytest.raises(FailedPrecondition, match=r"has 3 snapshots \(base, look, work\); remove them first, or set"):
        ensure_store(at(), state="absent")
    assert len(at().walk()) == 3


def test_force_removes_everything(at: Any, tmp_path: Any) -> None:
    store = at()
    fill(store)
    store.commit("app", "work")
    store.prepare("leaf", "app")
    store.mount("leaf", str(tmp_path / "there"))
    os.mkdir(os.path.join(store.directories.snapshots, "rm-77"))
    done = run_twice(at, state="absent", force=True)
    assert done.result["actions"] == ["remove leaf", "remove app", "remove look", "remove base", "remove"]
    assert not os.path.lexists(store.root)
    assert os.listdir(tmp_path / "there") == []


def test_strangers_stay(at: Any) -> None:
    store = at()
    fill(store)
    with open(os.path.join(store.root, "report.doc"), "w"):
        pass
    last = at()
    ensure_store(last, state="absent", force=True)
    assert os.listdir(store.root) == ["report.doc"]
    assert last.warnings == [f"{store.root} stays: it has report.doc, which is not the store's"]


def test_directories_that_no_record_knows_need_force(at: Any) -> None:
    ensure_store(at())
    os.mkdir(os.path.join(at().directories.snapshots, "77"))
    with pytest.raises(FailedPrecondition, match="has 77 in its snapshots, which no record knows"):
        ensure_store(at(), state="absent")
    assert ensure_store(at()).changed is False
    ensure_store(at(), state="absent", force=True)
    assert not os.path.lexists(at().root)


def test_damaged_metadata_need_force(at: Any) -> None:
    fill(at())
    for name in os.listdir(at().root):
        if name.startswith("metadata"):
            with open(os.path.join(at().root, name), "wb") as file:
                file.write(b"SQLite format 3\0" + b"garbage" * 1000)
    for options in ({}, {"state": "absent"}):
        with pytest.raises(FailedPrecondition, match="is damaged"):
            ensure_store(at(), **options)
    ensure_store(at(), state="absent", force=True)
    assert not os.path.lexists(at().root)


def test_a_removal_that_was_interrupted_is_finished(at: Any) -> None:
    store = at()
    ensure_store(store)
    with store.metadata().write() as tx:
        tx.retire()
    with pytest.raises(FailedPrecondition, match="is of a store that is being removed, or whose removal"):
        at(beside=True).prepare("x", "")
    with pytest.raises(Unavailable, match="the store has been removed meanwhile; run the task again"):
        store.prepare("x", "")
    store.close()
    assert run_twice(at).result["actions"] == ["create"]
    assert at().walk() == []
    with at().metadata().write() as tx:
        tx.retire()
    assert run_twice(at, state="absent").result["actions"] == ["remove"]
    assert not os.path.lexists(store.root)


def test_a_link_in_place_of_the_layers_is_not_followed(at: Any, tmp_path: Any) -> None:
    ensure_store(at())
    (tmp_path / "outside" / "1").mkdir(parents=True)
    shutil.rmtree(at().directories.snapshots)
    os.symlink(tmp_path / "outside", at().directories.snapshots)
    with pytest.raises(FailedPrecondition, match="snapshots is a link; a store keeps its layers in its root"):
        ensure_store(at(), state="absent", force=True)
    assert os.listdir(tmp_path / "outside") == ["1"]


def test_links_in_place_of_other_directories_are_not_followed(at: Any, tmp_path: Any) -> None:
    ensure_store(at())
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "keep").write_text("me")
    for name in ("incoming", "locks"):
        shutil.rmtree(os.path.join(at().root, name), ignore_errors=True)
        os.symlink(tmp_path / "outside", os.path.join(at().root, name))
    ensure_store(at(), state="absent", force=True)
    assert not os.path.lexists(at().root)
    assert (tmp_path / "outside" / "keep").read_text() == "me"
