# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the store as a whole: its creation, adoption, configuration and removal, and obstacles to them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sqlite3
import threading
from typing import Any, Callable, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import store as store_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.store import ensure_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.staging import stage, unstage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import METADATA_FILE
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed, open_store

GIB = 1024**3


@pytest.fixture
def at(root: str) -> Iterator[Callable[..., Snapshotter]]:
    """Open the store as a new process does. The previous process has ended, unless it stays ``beside`` the new one."""
    opened: List[Snapshotter] = []

    def make(dry_run: bool = False, beside: bool = False) -> Snapshotter:
        if opened and not beside:
            opened.pop().close()
        opened.append(open_store(root, dry_run))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def is_private(path: str) -> bool:
    return os.name == "nt" or os.stat(path).st_mode & 0o777 == 0o700


def fill(store: Snapshotter) -> None:
    add_committed(store, "base")
    store.prepare("work", "base")
    store.view("look", "base")


def run_twice(at: Callable[..., Snapshotter], **options: Any) -> Any:
    """Run a dry run, a real run and a second run: the plan equals the outcome, and the second run changes nothing."""
    existed = os.path.lexists(at().root)
    planned = ensure_store(at(dry_run=True), **options)
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
    with pytest.raises(FailedPrecondition, match="is not a store, and not empty: it has report.doc; name another root"):
        ensure_store(at())
    assert os.listdir(at().root) == ["report.doc"]


PLUGIN = "io.containerd.snapshotter.v1.windows"


@pytest.mark.parametrize(
    ("root", "entry"),
    [
        (PLUGIN, "metadata.db"),
        (PLUGIN, "snapshots/1/Files/a"),
        (f"{PLUGIN}/snapshots", "1/Files/a"),
        ("snapshotter", "Metadata.DB"),
        ("containerd/root", f"{PLUGIN}/metadata.db"),
        ("containerd/root", "io.containerd.content.v1.content/blobs/a"),
        ("containerd", f"root/{PLUGIN}/metadata.db"),
    ],
)
@pytest.mark.parametrize("own_metadata", [False, True])
def test_a_root_of_containerd_is_never_changed(tmp_path: Any, root: str, entry: str, own_metadata: bool) -> None:
    """Every task refuses it, with or without force, also if an older release created a store in it."""
    top = tmp_path / "top"
    path = top / root
    (path / entry).parent.mkdir(parents=True)
    (path / entry).write_text("content")
    if own_metadata:
        other = Snapshotter(str(tmp_path / "other"), EmulatedLayers())
        other.prepare("a")
        other.close()
        shutil.copy(tmp_path / "other" / METADATA_FILE, path)
    os.chmod(path, 0o755)

    def tree() -> List[Any]:
        return sorted((str(found), found.stat().st_mode, found.stat().st_mtime_ns) for found in top.rglob("*"))

    before = tree()
    tasks: List[Callable[[Snapshotter], Any]] = [
        ensure_store,
        lambda store: ensure_store(store, force=True),
        lambda store: ensure_store(store, state="absent"),
        lambda store: ensure_store(store, state="absent", force=True),
        lambda store: ensure_snapshot(store, "active", key="a"),
        lambda store: ensure_snapshot(store, "absent", key="a"),
        lambda store: store.walk(),
        lambda store: stage(store, "sha256:" + 64 * "0", 1, 0, io.BytesIO(b"YQ==")),
        lambda store: unstage(store, "sha256:" + 64 * "0"),
    ]
    for task in tasks:
        for dry_run in (False, True):
            layers = DryRun(EmulatedLayers()) if dry_run else EmulatedLayers()
            store = Snapshotter(str(path), layers, dry_run=dry_run)
            with pytest.raises(FailedPrecondition, match="belongs to containerd: .* exists.*store: containerd"):
                task(store)
            store.close()
    assert tree() == before


WRITERS: List[Callable[[Snapshotter], Any]] = [
    lambda store: ensure_snapshot(store, "active", key="a"),
    lambda store: store.import_layer("base", "", {}, lambda unpack: unpack(io.BytesIO())),
    lambda store: stage(store, "sha256:" + 64 * "0", 2, 0, io.BytesIO(b"YQ==")),
]


@pytest.mark.parametrize("task", WRITERS)
def test_no_task_makes_a_store_of_a_directory_with_other_files(at: Any, task: Any) -> None:
    os.mkdir(at().root, 0o755)
    with open(os.path.join(at().root, "report.doc"), "w"):
        pass
    with pytest.raises(FailedPrecondition, match="is not a store, and not empty: it has report.doc; name another root"):
        task(at())
    assert os.listdir(at().root) == ["report.doc"]
    assert os.stat(at().root).st_mode & 0o777 == 0o755 or os.name == "nt"


@pytest.mark.parametrize("task", WRITERS)
@pytest.mark.parametrize("exists", [False, True])
def test_the_first_write_creates_a_protected_store(at: Any, task: Any, exists: bool) -> None:
    if exists:
        os.mkdir(at().root, 0o777)
    with contextlib.suppress(InvalidArgument):
        task(at())
    assert is_private(at().root)
    assert ensure_store(at()).changed is False


def test_metadata_of_a_newer_release_is_not_damage(at: Any) -> None:
    fill(at())
    with contextlib.closing(sqlite3.connect(os.path.join(at().root, METADATA_FILE))) as database:
        database.execute("PRAGMA user_version = 99")
    for force in (False, True):
        with pytest.raises(FailedPrecondition, match=r"was written by a newer version of the collection \(schema 99"):
            ensure_store(at(), state="absent", force=force)
    assert at().directories.layer_ids()


def test_mounts_of_a_damaged_store_end_before_its_layers(at: Any, tmp_path: Any) -> None:
    store = at()
    store.prepare("b")
    store.commit("base", "b")
    store.prepare("a", "base")
    store.mount("a", str(tmp_path / "mnt"))
    store.close()
    with open(os.path.join(store.root, METADATA_FILE), "wb") as file:
        file.write(b"damage" * 1000)
    assert store.layers.mounted_layer(str(tmp_path / "mnt"))
    ensure_store(at(), state="absent", force=True)
    assert not store.layers.mounted_layer(str(tmp_path / "mnt"))
    assert not os.path.lexists(store.root)


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
        at(dry_run=True).walk()
    planned = ensure_store(at(dry_run=True), rootfs_size="40GB", force=True)
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
    """Only damage makes such a cycle. No task loops in it endlessly, and the store can be removed."""
    names = [f"sha256:{letter * 64}" for letter in "ab"]
    for name, parent in zip(names, ["", *names]):
        at().prepare("key", parent)
        at().commit(name, "key")
    at().prepare("work", names[0])
    with at().store.write() as tx:
        tx._db.execute("UPDATE snapshots SET parent = ? WHERE name = ?", tuple(reversed(names)))
    for task in (
        lambda: ensure_snapshot(at(), "absent", name=names[0], recursive=True),
        lambda: ensure_image(at(), "absent", chain_id=names[1]),
        lambda: at().prepare("more", names[1]),
    ):
        with pytest.raises(FailedPrecondition, match="metadata is damaged: the parent 'sha256:.* is its own ancestor"):
            task()
    assert len(at().walk()) == 3
    planned = ensure_store(at(dry_run=True), "absent", force=True)
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
    # An existing snapshot does not change. A size below that of the template gives the size of the template.
    assert not ensure_snapshot(at(), "active", key="work", parent="base").changed
    run_twice(at, rootfs_size="1GB")
    assert ensure_snapshot(at(), "active", key="five", parent="base").result["snapshot"]["rootfs_size"] == 20 * GIB
    assert run_twice(at, rootfs_size="0").result["store"]["rootfs_size"] is None
    six = ensure_snapshot(at(), "active", key="six", parent="base").result["snapshot"]
    assert (six["rootfs_size"], six["labels"]) == (20 * GIB, {})


def test_bad_options(at: Any) -> None:
    with pytest.raises(InvalidArgument, match="state 'gone' is not one of present, absent"):
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
    with pytest.raises(FailedPrecondition, match="has 77 in its snapshots; no record knows these entries"):
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
    with store.store.write() as tx:
        tx.retire()
    with pytest.raises(FailedPrecondition, match="is of a store that is being removed, or whose removal"):
        at(beside=True).prepare("x", "")
    with pytest.raises(Unavailable, match="the store has been removed meanwhile; run the task again"):
        store.prepare("x", "")
    store.close()
    assert run_twice(at).result["actions"] == ["create"]
    assert at().walk() == []
    with at().store.write() as tx:
        tx.retire()
    assert run_twice(at, state="absent").result["actions"] == ["remove"]
    assert not os.path.lexists(store.root)


def test_a_link_in_place_of_the_layers_is_not_followed(at: Any, tmp_path: Any) -> None:
    ensure_store(at())
    (tmp_path / "outside" / "1").mkdir(parents=True)
    shutil.rmtree(at().directories.snapshots)
    os.symlink(tmp_path / "outside", at().directories.snapshots)
    with pytest.raises(FailedPrecondition, match="snapshots is a link to .*outside, but a store keeps its layers"):
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


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_root_that_is_a_link_is_refused(at: Any, tmp_path: Any, state: str) -> None:
    (tmp_path / "outside" / "snapshots" / "rm-3" / "precious").mkdir(parents=True)
    os.symlink(tmp_path / "outside", tmp_path / "root")
    for root in (str(tmp_path / "root"), str(tmp_path / "root") + os.sep):
        with pytest.raises(FailedPrecondition, match="is a link to .*outside, and no task works through a link: name"):
            ensure_store(Snapshotter(root, EmulatedLayers()), state, force=True)
    assert os.listdir(tmp_path / "outside" / "snapshots") == ["rm-3"]


@pytest.mark.parametrize("name", ["incoming", "locks", "snapshots", "metadata.sqlite3"])
def test_a_store_is_not_made_or_protected_around_a_link(at: Any, tmp_path: Any, name: str) -> None:
    (tmp_path / "outside").mkdir()
    os.mkdir(at().root, 0o777)
    os.symlink(tmp_path / "outside", os.path.join(at().root, name))
    for task in (*WRITERS, ensure_store):
        for dry_run in (False, True):
            if dry_run and task in WRITERS[1:]:
                # A dry run of an import or an upload writes nothing, so it does not create a store.
                continue
            with pytest.raises(FailedPrecondition, match=f"{name} is a link to .*outside, but a store keeps its"):
                task(at(dry_run=dry_run))
    assert os.listdir(at().root) == [name]
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.posix
@pytest.mark.parametrize("name", ["", "incoming", "locks", "snapshots", "metadata.sqlite3", "metadata.sqlite3-turn"])
def test_what_others_can_change_is_refused_until_the_store_is_protected(at: Any, name: str) -> None:
    fill(at())
    path = os.path.join(at().root, name)
    if name == "incoming":
        os.mkdir(path)
    os.chmod(path, os.stat(path).st_mode & 0o777 | 0o022)
    for task in (WRITERS[0], WRITERS[2], lambda store: ensure_store(store, state="absent", force=True)):
        with pytest.raises(FailedPrecondition, match="can be changed by other users, so .* module store with state="):
            task(at())
    assert len(at().walk()) == 3
    done = run_twice(at, rootfs_size="40GB")
    assert done.result["actions"] == ["protect", "configure"]
    WRITERS[0](at())


if hasattr(os, "geteuid") and os.geteuid() == 0:

    @pytest.mark.parametrize("names", [[], ["snapshots"], ["locks", "incoming", "snapshots"]])
    def test_a_root_that_another_user_made(at: Any, names: List[str]) -> None:
        """An empty one becomes a store of this user. Otherwise only the task that says so takes it over."""
        os.mkdir(at().root)
        for name in names:
            os.mkdir(os.path.join(at().root, name))
        for path in (at().root, *(os.path.join(at().root, name) for name in names)):
            os.chmod(path, 0o777)
            os.chown(path, 65534, 65534)
        if names:
            for dry_run in (True, False):
                with pytest.raises(FailedPrecondition, match="belongs to the user 65534, so what is there cannot be"):
                    at(dry_run=dry_run).prepare("a")
            assert sorted(os.listdir(at().root)) == sorted(names)
            assert run_twice(at).result["actions"] == ["create", "protect"]
        at().prepare("a")
        for path in (at().root, *(os.path.join(at().root, name) for name in names)):
            assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o777) == (0, 0o700)


@pytest.mark.parametrize("target", ["kept", "missing"])
def test_nothing_is_uploaded_through_a_link(at: Any, tmp_path: Any, target: str) -> None:
    (tmp_path / "kept").write_text("precious")
    at().prepare("a")
    os.mkdir(at().directories.incoming, 0o700)
    for name in (64 * "0", 64 * "0" + ".part"):
        os.symlink(tmp_path / target, os.path.join(at().directories.incoming, name))
    assert WRITERS[2](at()).result["offset"] == 1
    assert (tmp_path / "kept").read_text() == "precious"
    assert not (tmp_path / "missing").exists()
    assert os.listdir(at().directories.incoming) == [64 * "0" + ".part"]


@pytest.mark.posix
@pytest.mark.parametrize("look", range(1, 8))
def test_a_store_that_another_task_removes_meanwhile(at: Any, monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    """At one of the looks at the metadata they disappear."""
    ensure_store(at())
    looks = []

    def is_retired(path: str) -> bool:
        looks.append(path)
        if len(looks) == look:
            shutil.rmtree(at(beside=True).root)
        return file.is_retired(path)

    monkeypatch.setattr(store_module, "is_retired", is_retired)
    with contextlib.suppress(Unavailable):
        assert ensure_store(at(), "absent").result["store"] is None
    assert not os.path.exists(at().root)


@pytest.mark.parametrize("force", [False, True])
def test_tasks_that_remove_a_store_at_once_are_done_or_unavailable(at: Any, force: bool) -> None:
    for _round in range(10):
        store = at()
        ensure_store(store)
        if force:
            for number in range(4):
                store.prepare(f"key{number}")
        store.close()
        barrier = threading.Barrier(4)
        results: List[Any] = []

        def remove(start: threading.Barrier = barrier, found: List[Any] = results) -> None:
            start.wait()
            try:
                with contextlib.closing(open_store(at().root)) as opened:
                    found.append(ensure_store(opened, "absent", force=force).result["store"])
            except (OSError, SnapshotterError) as error:
                found.append(error)

        at()
        threads = [threading.Thread(target=remove) for _number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        assert {type(result) for result in results} <= {type(None), Unavailable}, results
        # Windows does not delete a file that another task has open, so there all four can be too early.
        assert None in results or os.name == "nt"
        assert ensure_store(at(), "absent", force=force).result["store"] is None
        assert not os.path.lexists(at().root)


def test_a_store_that_another_task_creates_meanwhile_stays(at: Any) -> None:
    """The task finds a removal that was interrupted. Another one finishes it and creates a new store."""
    store = at()
    ensure_store(store)
    with store.store.write() as tx:
        tx.retire()
    late = at()
    ending = late.store.ending

    @contextlib.contextmanager
    def delayed() -> Iterator[None]:
        ensure_store(at(beside=True), "absent")
        at(beside=True).prepare("new")
        with ending():
            yield

    late.store.ending = delayed
    with pytest.raises(Unavailable, match="another task has just created a store in .*; run the task again"):
        ensure_store(late, "absent", force=True)
    assert at(beside=True).stat("new").kind == "active"
    assert os.path.isdir(at(beside=True).directories.directory(1))
