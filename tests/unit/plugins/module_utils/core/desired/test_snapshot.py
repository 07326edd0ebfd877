# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test each state of the module snapshot: as a dry run, for real, and again."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Sequence

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels as label_rules
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed, open_store
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task

GIB = 1024**3
SIZE = label_rules.ROOTFS_SIZE_BYTES


# -- active and view ---------------------------------------------------------


def test_active(task: Task) -> None:
    done = task(ensure_snapshot, "active", key="a", parent="base", labels={"l": "1"}, rootfs_size="40GB")
    assert done.result["actions"] == ["prepare a"]
    assert done.result["diff"] == {
        "before": {},
        "after": {
            "a": {
                "kind": "active",
                "parent": "base",
                "labels": {"l": "1", SIZE: str(40 * GIB)},
                "rootfs_size": 40 * GIB,
            }
        },
    }
    snapshot = done.result["snapshot"]
    assert (snapshot["kind"], snapshot["name"], snapshot["rootfs_size"]) == ("active", "a", 40 * GIB)
    assert snapshot["mounts"][0]["type"] == "windows-layer"


def test_view(task: Task) -> None:
    done = task(ensure_snapshot, "view", key="v", parent="base")
    assert done.result["actions"] == ["view v"]
    assert done.result["snapshot"]["rootfs_size"] is None


def test_base_in_the_making(task: Task) -> None:
    assert task(ensure_snapshot, "active", key="new-base").result["snapshot"]["parent"] == ""
    task.fails(
        InvalidArgument,
        'rootfs_size: "x" has no parent and so no scratch disk',
        ensure_snapshot,
        "active",
        key="x",
        rootfs_size="1GB",
    )


def test_labels_are_merged_or_purged(task: Task) -> None:
    task(ensure_snapshot, "active", key="a", parent="base", labels={"l": "1", "m": "2"}, rootfs_size="40GB")
    assert not ensure_snapshot(task.store, "active", key="a", parent="base", labels={"l": "1"}).changed
    done = task(ensure_snapshot, "active", key="a", parent="base", labels={"l": "3"})
    assert done.result["actions"] == ["update a"]
    assert done.result["snapshot"]["labels"] == {"l": "3", "m": "2", SIZE: str(40 * GIB)}
    # A purge keeps a label that an option of the task manages. An empty value removes a label.
    done = task(
        ensure_snapshot, "active", key="a", parent="base", labels={"l": "3"}, purge_labels=True, rootfs_size="40GB"
    )
    assert done.result["snapshot"]["labels"] == {"l": "3", SIZE: str(40 * GIB)}
    done = task(ensure_snapshot, "active", key="a", parent="base", labels={"l": ""})
    assert done.result["snapshot"]["labels"] == {SIZE: str(40 * GIB)}
    assert task(ensure_snapshot, "active", key="a", parent="base", purge_labels=True).result["snapshot"]["labels"] == {}


def test_rootfs_size_grows_and_never_shrinks(task: Task) -> None:
    task(ensure_snapshot, "active", key="a", parent="base")
    done = task(ensure_snapshot, "active", key="a", parent="base", rootfs_size="60GiB", labels={"l": "1"})
    assert done.result["actions"] == ["grow a", "update a"]
    assert done.result["snapshot"]["rootfs_size"] == 60 * GIB
    assert done.result["snapshot"]["labels"] == {"l": "1", SIZE: str(60 * GIB)}
    smaller = ensure_snapshot(task.store, "active", key="a", parent="base", rootfs_size="40GB")
    assert not smaller.changed
    assert smaller.result["snapshot"]["rootfs_size"] == 60 * GIB


@pytest.mark.parametrize("size", ["0", "-1", "1e9", "40G B", "65TB", True])
def test_bad_sizes(task: Task, size: Any) -> None:
    task.fails(InvalidArgument, "rootfs_size: ", ensure_snapshot, "active", key="a", parent="base", rootfs_size=size)


def test_another_kind_or_parent(task: Task) -> None:
    store = task.store
    store.prepare("a", "base")
    store.view("v", "base")
    task.fails(
        AlreadyExists,
        '"base" is a committed snapshot without a parent, not an active',
        ensure_snapshot,
        "active",
        key="base",
    )
    task.fails(
        AlreadyExists,
        '"v" is a view with parent "base", not an active',
        ensure_snapshot,
        "active",
        key="v",
        parent="base",
    )
    task.fails(
        AlreadyExists,
        '"a" is an active snapshot with parent "base", not a view',
        ensure_snapshot,
        "view",
        key="a",
        parent="base",
    )
    task.fails(
        AlreadyExists,
        'not an active snapshot with parent ""; remove it first, or use another key',
        ensure_snapshot,
        "active",
        key="a",
    )
    task.fails(AlreadyExists, "cannot get one now", ensure_snapshot, "active", key="a", parent="base", uvm_scratch=True)


def test_creates(task: Task) -> None:
    store = task.store
    arguments: Dict[str, Any] = {"key": "work", "parent": "base", "creates": "result"}
    assert task(ensure_snapshot, "active", **arguments).changed
    assert task(ensure_snapshot, "committed", name="result", key="work").changed
    again = ensure_snapshot(store, "active", **arguments)
    assert not again.changed
    assert again.result["snapshot"]["name"] == "result"
    assert [info.name for info in store.walk()] == ["base", "result"]


# -- committed ---------------------------------------------------------------


def test_committed(task: Task) -> None:
    task.store.prepare("a", "base", {"active": "label"})
    done = task(ensure_snapshot, "committed", name="c", key="a", labels={"l": "1"})
    assert done.result["actions"] == ["commit c"]
    assert list(done.result["diff"]["before"]) == ["a"]
    assert list(done.result["diff"]["after"]) == ["c"]
    assert done.result["snapshot"]["labels"] == {"l": "1"}
    assert not task(ensure_snapshot, "committed", name="c").changed
    assert not task(ensure_snapshot, "committed", name="c", parent="base").changed
    assert task(ensure_snapshot, "committed", name="c", labels={"m": "2"}).result["snapshot"]["labels"] == {
        "l": "1",
        "m": "2",
    }
    task.fails(
        AlreadyExists,
        '"c" is a committed snapshot with parent "base", not .* with parent "other"',
        ensure_snapshot,
        "committed",
        name="c",
        parent="other",
    )


def test_committed_without_a_source(task: Task) -> None:
    task.fails(
        NotFound,
        '"c" does not exist, and no key says which active snapshot to commit',
        ensure_snapshot,
        "committed",
        name="c",
    )
    task.fails(NotFound, "failed to get storage info for gone", ensure_snapshot, "committed", name="c", key="gone")


def test_committed_while_the_active_is_there(task: Task) -> None:
    task.store.prepare("a", "base")
    task.fails(
        AlreadyExists,
        '"base" is already committed, and "a" is still active; remove "a"',
        ensure_snapshot,
        "committed",
        name="base",
        key="a",
    )


def test_committed_where_something_else_has_the_name(task: Task) -> None:
    task.store.prepare("a", "base")
    task.fails(
        AlreadyExists,
        '"a" is an active snapshot with parent "base", not a committed',
        ensure_snapshot,
        "committed",
        name="a",
    )


def test_committed_with_a_late_parent(task: Task) -> None:
    task.store.prepare("a", "")
    assert task(ensure_snapshot, "committed", name="c", key="a", parent="base").result["snapshot"]["parent"] == "base"


# -- absent ------------------------------------------------------------------


def test_absent(task: Task) -> None:
    assert not task(ensure_snapshot, "absent", key="nothing").changed
    task.store.prepare("a", "base")
    done = task(ensure_snapshot, "absent", key="a")
    assert done.result["actions"] == ["remove a"]
    assert done.result["snapshot"] is None
    assert done.result["diff"]["after"] == {}


def test_absent_in_a_store_that_is_not_there(tmp_path: Any) -> None:
    root = tmp_path / "nowhere"
    assert not ensure_snapshot(Snapshotter(str(root), EmulatedLayers()), "absent", name="x").changed
    assert not root.exists()


def test_absent_with_children(task: Task) -> None:
    store = task.store
    store.prepare("a", "base")
    store.prepare("m", "base")
    store.commit("middle", "m")
    store.prepare("top", "middle")
    task.fails(
        FailedPrecondition,
        r'cannot remove "base": it is the parent of 2 snapshots \("a", "middle"\)',
        ensure_snapshot,
        "absent",
        name="base",
    )
    task.fails(FailedPrecondition, r'the parent of 1 snapshot \("top"\)', ensure_snapshot, "absent", name="middle")
    done = task(ensure_snapshot, "absent", name="base", recursive=True)
    assert done.result["actions"] == ["remove top", "remove middle", "remove a", "remove base"]
    assert sorted(done.result["diff"]["before"]) == ["a", "base", "middle", "top"]
    assert store.walk() == []


# -- races -------------------------------------------------------------------


class Late(Snapshotter):
    """Loses every race: another task makes the same change just before this one."""

    def __init__(self, root: str) -> None:
        super().__init__(root, EmulatedLayers())
        self.rival = Snapshotter(root, EmulatedLayers())

    def prepare(self, key: str, parent: str = "", labels: Any = None) -> Any:
        self.rival.prepare(key, parent, labels)
        return super().prepare(key, parent, labels)

    def commit(self, name: str, key: str, labels: Any = None, parent: str = "") -> Any:
        self.rival.commit(name, key, labels, parent)
        return super().commit(name, key, labels, parent)

    def remove_all(self, keys: Sequence[str]) -> List[str]:
        self.rival.remove_all(keys)
        return super().remove_all(keys)


def test_a_task_that_loses_a_race_finds_its_wish_fulfilled(store: Snapshotter) -> None:
    late = Late(store.root)
    prepared = ensure_snapshot(late, "active", key="a", parent="base", labels={"l": "1"}, rootfs_size="40GB")
    assert (prepared.changed, prepared.result["snapshot"]["rootfs_size"]) == (False, 40 * GIB)
    committed = ensure_snapshot(late, "committed", name="c", key="a")
    assert (committed.changed, committed.result["snapshot"]["kind"]) == (False, "committed")
    removed = ensure_snapshot(late, "absent", name="c")
    assert (removed.changed, removed.result["snapshot"]) == (False, None)


def test_a_task_that_loses_a_race_to_another_wish(store: Snapshotter) -> None:
    class Rude(Late):
        def prepare(self, key: str, parent: str = "", labels: Any = None) -> Any:
            self.rival.view(key, parent)
            return Snapshotter.prepare(self, key, parent, labels)

    with pytest.raises(AlreadyExists, match='"a" is a view with parent "base", not an active snapshot'):
        ensure_snapshot(Rude(store.root), "active", key="a", parent="base")


# -- options -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": "there", "key": "a"}, "state 'there' is not one of active, view, committed, absent"),
        ({"state": "active"}, "state=active needs key and not name"),
        ({"state": "view", "key": "a", "name": "b"}, "state=view needs key and not name"),
        ({"state": "committed", "key": "a"}, "state=committed needs name"),
        ({"state": "absent"}, "state=absent needs exactly one of key and name"),
        ({"state": "absent", "key": "a", "name": "b"}, "state=absent needs exactly one of key and name"),
        ({"state": "view", "key": "a", "rootfs_size": 1}, "rootfs_size goes with state=active"),
        ({"state": "committed", "name": "a", "uvm_scratch": True}, "uvm_scratch goes with state=active"),
        ({"state": "view", "key": "a", "creates": "b"}, "creates goes with state=active"),
        ({"state": "active", "key": "a", "recursive": True}, "recursive goes with state=absent"),
    ],
)
def test_options_that_do_not_go_together(task: Task, options: Dict[str, Any], message: str) -> None:
    task.fails(InvalidArgument, message, ensure_snapshot, **options)


# -- what was lost -----------------------------------------------------------


@pytest.mark.parametrize("state", ["active", "committed"])
def test_a_snapshot_without_its_layer(task: Task, store: Snapshotter, state: str) -> None:
    """No state is reached without the layer. A removal succeeds, with a warning."""
    name = "a" if state == "active" else "top"
    store.prepare("a", "base")
    if state == "committed":
        store.commit("top", "a")
    shutil.rmtree(store.directories.directory(store.stat(name).id))
    options = {"active": {"key": "a", "parent": "base"}, "committed": {"name": "top"}}[state]
    task.fails(FailedPrecondition, f'the layer of snapshot "{name}" is missing', ensure_snapshot, state, **options)
    done = task(ensure_snapshot, "absent", key=name)
    assert done.result["actions"] == [f"remove {name}"]
    assert done.result["diff"]["before"][name]["rootfs_size"] is None


@pytest.mark.parametrize("lost", ["base", "middle"])
def test_a_snapshot_without_a_layer_below_it(task: Task, store: Snapshotter, lost: str) -> None:
    add_committed(store, "middle", "base")
    add_committed(store, "top", "middle")
    store.prepare("a", "top")
    store.view("v", "top")
    shutil.rmtree(store.directories.directory(store.stat(lost).id))
    for state, options in (
        ("active", {"key": "a", "parent": "top"}),
        ("active", {"key": "new", "parent": "top"}),
        ("view", {"key": "v", "parent": "top"}),
        ("committed", {"name": "top"}),
    ):
        task.fails(FailedPrecondition, f'the layer of snapshot "{lost}" is missing', ensure_snapshot, state, **options)
    assert task(ensure_snapshot, "absent", name="base", recursive=True).changed


def test_a_damaged_disk_does_not_prevent_removal(task: Task, store: Snapshotter) -> None:
    store.prepare("a", "base")
    os.truncate(os.path.join(store.directories.directory(store.stat("a").id), "sandbox.vhdx"), 1000)
    task.fails(
        FailedPrecondition, 'snapshot "a": .* is not a usable VHDX', ensure_snapshot, "active", key="a", parent="base"
    )
    assert task(ensure_snapshot, "absent", key="a").result["actions"] == ["remove a"]
    store.prepare("b", "base")
    os.truncate(os.path.join(store.directories.directory(store.stat("b").id), "sandbox.vhdx"), 1000)
    done = task(ensure_snapshot, "absent", name="base", recursive=True)
    assert done.result["actions"] == ["remove b", "remove base"]


# -- what a dry run cannot know ------------------------------------------------


def test_a_dry_run_assumes_the_parent_of_an_earlier_task(tmp_path: Any) -> None:
    root = tmp_path / "nowhere"
    trial = open_store(str(root), dry_run=True)
    planned = ensure_snapshot(trial, "active", key="build", parent="image", rootfs_size="120GB")
    assert planned.result["actions"] == ["prepare build"]
    assert planned.result["snapshot"]["rootfs_size"] == 120 * GIB
    assert list(planned.result["diff"]["after"]) == ["build"]
    assert planned.result["diff"]["before"] == {}
    (warning,) = trial.warnings
    assert warning.startswith('The parent "image" does not exist. Check mode assumes that an earlier task')
    assert not root.exists()
    # The real run is strict.
    with pytest.raises(NotFound, match='missing parent "image" bucket: not found'):
        ensure_snapshot(open_store(str(root)), "active", key="build", parent="image", rootfs_size="120GB")


def test_a_dry_run_assumes_nothing_about_a_parent_that_exists(store: Snapshotter) -> None:
    store.prepare("work", "base")
    trial = open_store(store.root, dry_run=True)
    assert ensure_snapshot(trial, "view", key="v", parent="base").result["actions"] == ["view v"]
    assert trial.warnings == []
    with pytest.raises(InvalidArgument, match='parent "work" is not committed snapshot'):
        ensure_snapshot(trial, "view", key="w", parent="work")
