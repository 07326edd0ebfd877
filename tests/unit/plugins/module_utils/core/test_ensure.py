# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired states: every row of the table in docs/modules.md, run, rerun, and rehearsed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import ensure
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels as label_rules
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.ensure import (
    ensure_export,
    ensure_layer,
    ensure_mount,
    ensure_scratch,
    ensure_snapshot,
    list_snapshots,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.rehearsal import Rehearsal
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

GIB = 1024**3
SIZE = label_rules.ROOTFS_SIZE_BYTES


@pytest.fixture
def store(tmp_path: Any) -> Iterator[Snapshotter]:
    opened = Snapshotter(str(tmp_path / "root"), EmulatedLayers())
    opened.prepare("b", "")
    opened.commit("base", "b", {"os": "ltsc2022"})
    yield opened
    opened.close()


def on_disk(store: Snapshotter) -> Dict[str, Tuple[int, int]]:
    """Every file of the layers and of staged files with its size and modification time."""
    found = {}
    for parent, directories, files in os.walk(store.root):
        if "locks" in directories:
            directories.remove("locks")
        for name in files:
            # SQLite moves pages between its files when somebody closes them; the walks compare the contents.
            if not name.startswith("metadata.sqlite3"):
                status = os.stat(os.path.join(parent, name))
                found[os.path.join(parent, name)] = (status.st_size, status.st_mtime_ns)
    return found


class Task:
    """Runs a desired state three times: rehearsed, for real, again; checks what must hold of all three."""

    def __init__(self, store: Snapshotter) -> None:
        self.store = store

    def __call__(self, function: Callable[..., ensure.Outcome], *arguments: Any, **options: Any) -> ensure.Outcome:
        before = on_disk(self.store), self.store.walk()
        trial = Snapshotter(self.store.root, Rehearsal(EmulatedLayers()), rehearse=True)
        planned = function(trial, *arguments, **options)
        trial.close()
        assert (on_disk(self.store), self.store.walk()) == before
        done = function(self.store, *arguments, **options)
        assert (planned.changed, planned.result["actions"]) == (done.changed, done.result["actions"])
        assert planned.result["diff"] == done.result["diff"]
        assert done.changed == bool(done.result["actions"])
        assert (done.result["diff"]["before"] == done.result["diff"]["after"]) == (not done.changed)
        again = function(self.store, *arguments, **options)
        assert not again.changed
        assert again.result["actions"] == []
        if "snapshot" in done.result:
            assert again.result["snapshot"] == done.result["snapshot"]
        return done

    def fails(
        self, error: Any, message: str, function: Callable[..., ensure.Outcome], *arguments: Any, **options: Any
    ) -> None:
        """The same error rehearsed and for real, and nothing changed."""
        before = on_disk(self.store), self.store.walk()
        for store in (Snapshotter(self.store.root, Rehearsal(EmulatedLayers()), rehearse=True), self.store):
            with pytest.raises(error, match=message):
                function(store, *arguments, **options)
        assert (on_disk(self.store), self.store.walk()) == before


@pytest.fixture
def task(store: Snapshotter) -> Task:
    return Task(store)


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
        rootfs_size=1,
    )


def test_labels_are_merged_or_purged(task: Task) -> None:
    task(ensure_snapshot, "active", key="a", parent="base", labels={"l": "1", "m": "2"}, rootfs_size="40GB")
    assert not ensure_snapshot(task.store, "active", key="a", parent="base", labels={"l": "1"}).changed
    done = task(ensure_snapshot, "active", key="a", parent="base", labels={"l": "3"})
    assert done.result["actions"] == ["update a"]
    assert done.result["snapshot"]["labels"] == {"l": "3", "m": "2", SIZE: str(40 * GIB)}
    # A label that an option of the task manages is not purged; an empty value removes one.
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
    task(ensure_snapshot, "active", key="a", parent="base")
    task.fails(InvalidArgument, "size: ", ensure_scratch, "a", size)


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
        '"base" is committed already, and "a" is active still; remove "a"',
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
    """A task that loses every race: another one does the same just before it changes anything."""

    def __init__(self, root: str) -> None:
        super().__init__(root, EmulatedLayers())
        self.rival = Snapshotter(root, EmulatedLayers())

    def prepare(self, key: str, parent: str = "", labels: Any = None) -> Any:
        self.rival.prepare(key, parent, labels)
        return super().prepare(key, parent, labels)

    def commit(self, name: str, key: str, labels: Any = None, parent: str = "") -> Any:
        self.rival.commit(name, key, labels, parent)
        return super().commit(name, key, labels, parent)

    def remove(self, key: str) -> None:
        self.rival.remove(key)
        super().remove(key)


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
        ({"state": "there", "key": "a"}, "state 'there' is none of active, view, committed, absent"),
        ({"state": "active"}, "state=active needs key and no name"),
        ({"state": "view", "key": "a", "name": "b"}, "state=view needs key and no name"),
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


# -- scratch and list --------------------------------------------------------


def test_scratch(task: Task) -> None:
    task.store.prepare("a", "base")
    done = task(ensure_scratch, "a", "60GB")
    assert done.result["previous_size"] == 20 * GIB
    assert done.result["scratch"]["virtual_size"] == 60 * GIB
    assert done.result["actions"] == ["grow a"]
    assert not task(ensure_scratch, "a", "30GB").changed
    task.fails(NotFound, '"nothing": snapshot does not exist', ensure_scratch, "nothing", "60GB")
    task.fails(
        FailedPrecondition,
        '"base" is a committed snapshot; only the scratch disk of an active snapshot can grow',
        ensure_scratch,
        "base",
        "60GB",
    )
    task.store.prepare("bare", "")
    task.fails(FailedPrecondition, '"bare" has no scratch disk', ensure_scratch, "bare", "60GB")


def names(outcome: ensure.Outcome) -> List[str]:
    return [entry["name"] for entry in outcome.result["snapshots"]]


def test_list(store: Snapshotter) -> None:
    store.prepare("a", "base")
    store.view("v", "base")
    assert names(list_snapshots(store)) == ["a", "base", "v"]
    assert names(list_snapshots(store, names=["v", "a", "gone"])) == ["a", "v"]
    assert names(list_snapshots(store, filters=["kind==view", "kind==committed"])) == ["base", "v"]
    assert names(list_snapshots(store, names=["v"], filters=["kind==view", "kind==active"])) == ["v"]
    assert names(list_snapshots(store, names=[])) == []
    full = {
        entry["name"]: entry
        for entry in list_snapshots(store, usage=True, mounts=True, scratch=True).result["snapshots"]
    }
    assert full["a"]["scratch"]["virtual_size"] == 20 * GIB
    assert full["a"]["usage"]["size"] > 0
    assert full["v"]["scratch"] is full["base"]["scratch"] is None
    assert full["base"]["mounts"] == []
    assert full["v"]["mounts"][0]["options"][0] == "ro"
    with pytest.raises(InvalidArgument, match="filters: parse error"):
        list_snapshots(store, filters=["kind="])


def test_a_list_of_what_is_still_there(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody stops for a list: what is removed while it is made is left out, what cannot be read fails it."""
    for key in ("a", "b"):
        store.prepare(key, "base")
    usage = store.usage

    def late(name: str) -> Any:
        if name == "a":
            store.remove("a")
        return usage(name)

    monkeypatch.setattr(store, "usage", late)
    assert names(list_snapshots(store, usage=True)) == ["b", "base"]
    os.truncate(os.path.join(store.directories.directory(store.stat("b").id), "sandbox.vhdx"), 1000)
    with pytest.raises(FailedPrecondition, match="sandbox.vhdx is not a usable VHDX file"):
        list_snapshots(store, scratch=True)
    assert list_snapshots(store, names=["b"], scratch=True, tolerant=True).result["snapshots"][0]["scratch"] is None


# -- layer -------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Any) -> str:
    path = str(tmp_path / "layer.tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        for name in ("Files", "Files/Windows", "Hives"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        entry = tarfile.TarInfo("Files/Windows/win.ini")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    return path


def test_layer(task: Task, archive: str) -> None:
    import gzip

    with gzip.open(archive) as file:
        digest = "sha256:" + hashlib.sha256(file.read()).hexdigest()
    wrong = "sha256:" + "0" * 64
    with pytest.raises(InvalidArgument, match=f"the layer's digest is {digest}, not {wrong}"):
        ensure_layer(task.store, "os", archive, digest=wrong)
    assert [info.name for info in task.store.walk()] == ["base"]
    done = task(ensure_layer, "os", archive, digest=digest, labels={"l": "1"})
    assert done.result["actions"] == ["import os"]
    imported = ensure_layer(task.store, "os2", archive).result["layer"]
    assert (imported["digest"], imported["entries"]) == (digest, 4)
    directory = os.path.join(task.store.root, "snapshots", str(task.store.stat("os").id))
    assert {"Files", "Hives", "blank.vhdx", "blank-base.vhdx"} <= set(os.listdir(directory))
    task.fails(
        AlreadyExists,
        '"os" is a committed snapshot without a parent, not .* with parent "base"',
        ensure_layer,
        "os",
        archive,
        parent="base",
    )
    nowhere = archive + "-elsewhere"
    task.fails(NotFound, f"src {re.escape(nowhere)} does not exist on the node", ensure_layer, "x", nowhere)
    assert (
        task(ensure_snapshot, "active", key="a", parent="os", rootfs_size="40GB").result["snapshot"]["rootfs_size"]
        == 40 * GIB
    )


def test_a_refused_layer_leaves_nothing(store: Snapshotter, tmp_path: Any) -> None:
    path = str(tmp_path / "evil.tar")
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("Files/good"))
        tar.addfile(tarfile.TarInfo("Files/../../evil"))
    before = sorted(os.listdir(os.path.join(store.root, "snapshots")))
    with pytest.raises(InvalidArgument, match="evil"):
        ensure_layer(store, "x", path)
    assert sorted(os.listdir(os.path.join(store.root, "snapshots"))) == before
    assert [info.name for info in store.walk()] == ["base"]
    assert not os.path.exists(os.path.join(store.root, "evil"))


def test_export(task: Task, archive: str, tmp_path: Any) -> None:
    ensure_layer(task.store, "os", archive)
    dest = str(tmp_path / "out.tar")
    done = task(ensure_export, "os", dest)
    assert done.result["actions"] == ["export os"]
    with open(dest, "rb") as file:
        content = file.read()
    assert done.result["layer"] == {"digest": "sha256:" + hashlib.sha256(content).hexdigest(), "size": len(content)}
    with tarfile.open(dest) as tar:
        assert "Files/Windows/win.ini" in tar.getnames()

    # The same layer, the same bytes: through gzip, and through another store.
    import gzip

    zipped = str(tmp_path / "out.tar.gz")
    assert task(ensure_export, "os", zipped).changed
    with gzip.open(zipped) as file:
        assert file.read() == content
    ensure_layer(task.store, "again", zipped, digest=done.result["layer"]["digest"])
    again = ensure_export(task.store, "again", str(tmp_path / "again.tar"))
    assert again.result["layer"] == done.result["layer"]

    with open(dest, "wb") as file:
        file.write(b"damaged")
    assert not ensure_export(task.store, "os", dest).changed
    assert ensure_export(task.store, "os", dest, force=True).result["layer"] == done.result["layer"]
    assert sorted(os.listdir(tmp_path)) == ["again.tar", "layer.tar.gz", "out.tar", "out.tar.gz", "root"]


def test_exports_that_are_refused(task: Task, tmp_path: Any) -> None:
    task.store.prepare("a", "base")
    dest = str(tmp_path / "x.tar")
    task.fails(NotFound, "snapshot does not exist", ensure_export, "nothing", dest)
    task.fails(FailedPrecondition, '"a" is an active snapshot .*; only a committed', ensure_export, "a", dest)
    nowhere = str(tmp_path / "nowhere" / "x.tar")
    task.fails(FailedPrecondition, "does not exist on the node; make it first", ensure_export, "base", nowhere)
    task.fails(FailedPrecondition, "is a directory on the node", ensure_export, "base", str(tmp_path), force=True)


def test_an_export_of_a_damaged_layer_says_where_it_was_to_go(store: Snapshotter, archive: str, tmp_path: Any) -> None:
    ensure_layer(store, "layer", archive, parent="base")
    directory = store.directories.directory(store.stat("layer").id)
    with open(os.path.join(directory, "tombstones.txt"), "wb") as file:
        file.write(b"damaged")
    dest = str(tmp_path / "x.tar")
    said = f'^cannot export "layer" to {re.escape(dest)}: invalid tombstones file'
    with pytest.raises(FailedPrecondition, match=said):
        ensure_export(store, "layer", dest)
    assert sorted(os.listdir(tmp_path)) == ["layer.tar.gz", "root"]


# -- mount -------------------------------------------------------------------


def test_mount(task: Task, tmp_path: Any) -> None:
    target = str(tmp_path / "m")
    task.store.prepare("a", "base")
    done = task(ensure_mount, "mounted", "a", target)
    assert done.result["mount"] == {"key": "a", "target": target, "read_only": False}
    assert done.result["actions"] == ["mount a"]
    with open(os.path.join(target, "hello"), "w") as file:
        file.write("x")
    task.fails(FailedPrecondition, "is mounted at", ensure_snapshot, "absent", key="a")
    assert task(ensure_mount, "unmounted", target=target).result["actions"] == [f"unmount {target}"]
    assert os.listdir(target) == []
    assert task(ensure_snapshot, "committed", name="c", key="a").changed
    assert task(ensure_snapshot, "view", key="v", parent="c").changed
    assert task(ensure_mount, "mounted", "v", target).result["mount"]["read_only"]
    assert os.listdir(target) == ["hello"]
    assert task(ensure_mount, "unmounted", key="v").changed
    assert not task(ensure_mount, "unmounted", key="nothing").changed


def test_mounts_that_are_refused(task: Task, tmp_path: Any) -> None:
    target = str(tmp_path / "m")
    task.store.prepare("a", "base")
    task.fails(InvalidArgument, "state 'on' is none of", ensure_mount, "on", "a", target)
    task.fails(InvalidArgument, "state=mounted needs key and target", ensure_mount, "mounted", "a")
    task.fails(InvalidArgument, "needs exactly one of key and target", ensure_mount, "unmounted", "a", target)
    task.fails(NotFound, '"gone": snapshot does not exist', ensure_mount, "mounted", "gone", target)
    task.fails(FailedPrecondition, '"base" is a committed .*; mount a view', ensure_mount, "mounted", "base", target)
    task.fails(InvalidArgument, "is not absolute", ensure_mount, "mounted", "a", "here")
