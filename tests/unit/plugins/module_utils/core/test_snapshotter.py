# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what the strict operations promise beyond containerd's suite: the rules of the store and the error messages."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import multiprocessing
import os
import re
import shutil
import stat
import subprocess
import threading
import time
from typing import Any, Callable, Iterator, List, cast

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels as label_rules
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import reader
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.keys import IMPORT_KEY, is_unpack_key
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import METADATA_FILE
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store

GIB = 1024**3


def layers_on_disk(store: Snapshotter) -> List[str]:
    return sorted(os.listdir(os.path.join(store.root, "snapshots")))


def directory(store: Snapshotter, key: str) -> str:
    return os.path.join(store.root, "snapshots", str(store.stat(key).id))


# -- mounts and directories --------------------------------------------------


def test_mounts(store: Snapshotter) -> None:
    def source(number: int) -> str:
        return os.path.join(store.root, "snapshots", str(number))

    store.prepare("a", "base")
    store.commit("second", "a")
    assert store.prepare("c", "second") == [
        (
            "windows-layer",
            source(3),
            ["rw", "parentLayerPaths=" + json.dumps([source(2), source(1)], separators=(",", ":"))],
        )
    ]
    assert store.view("v", "second") == [
        ("windows-layer", source(2), ["ro", "parentLayerPaths=" + json.dumps([source(1)])])
    ]
    assert store.view("v1", "base") == [("windows-layer", source(1), ["ro", "parentLayerPaths=null"])]
    assert store.view("v0", "") == [("windows-layer", source(6), ["ro", "parentLayerPaths=null"])]
    assert store.prepare("p0", "") == [("windows-layer", source(7), ["rw", "parentLayerPaths=null"])]
    for key in ("c", "v", "v1", "v0", "p0"):
        assert store.mounts(key)
    # A view does not have a directory.
    assert layers_on_disk(store) == ["1", "2", "3", "7"]


def test_a_view_gets_its_scratch_when_it_is_mounted(store: Snapshotter, tmp_path: Any) -> None:
    store.view("v", "base")
    assert store.usage("v") == (0, 0)
    assert store.scratch("v") is None
    store.mount("v", str(tmp_path / "m"))
    assert os.listdir(directory(store, "v"))
    with pytest.raises(FailedPrecondition, match=r'cannot remove snapshot "v": it is mounted at .*m; unmount it first'):
        store.remove("v")
    store.unmount(str(tmp_path / "m"))
    assert store.usage("v").size > 0
    store.remove("v")
    assert layers_on_disk(store) == ["1"]


def test_scratch_sizes(store: Snapshotter) -> None:
    def size(key: str, **labels: str) -> int:
        store.prepare(key, "base", labels)
        found = store.scratch(key)
        assert found is not None
        return found.virtual_size

    assert size("template") == 20 * GIB
    assert size("bytes", **{label_rules.ROOTFS_SIZE_BYTES: str(40 * GIB)}) == 40 * GIB
    assert size("smaller", **{label_rules.ROOTFS_SIZE_BYTES: "1"}) == 20 * GIB
    assert size("gb", **{label_rules.ROOTFS_SIZE_GB: "30"}) == 30 * GIB
    assert store.warnings == [
        f'"{label_rules.ROOTFS_SIZE_GB}" label is deprecated, please use "{label_rules.ROOTFS_SIZE_BYTES}" instead.'
    ]
    assert reader.read_info(os.path.join(directory(store, "gb"), "sandbox.vhdx")).virtual_size == 30 * GIB
    assert store.grow_scratch("gb", 60 * GIB).virtual_size == 60 * GIB
    assert store.grow_scratch("gb", 50 * GIB).virtual_size == 60 * GIB


def test_unpack_keys(store: Snapshotter) -> None:
    assert is_unpack_key("extract-1 sha256:x")
    assert is_unpack_key("k8s.io/12/extract-1 sha256:x")
    assert is_unpack_key("extract-1 images/base")
    assert not is_unpack_key("my-extract-tool")
    assert not is_unpack_key("extract")
    store.prepare("extract-1 x", "base", {label_rules.ROOTFS_SIZE_BYTES: "not parsed here"})
    assert os.listdir(directory(store, "extract-1 x")) == []
    store.prepare("data-extract-job", "base")
    assert os.listdir(directory(store, "data-extract-job")) == ["sandbox.vhdx"]


def test_uvm_scratch_needs_a_utility_vm(store: Snapshotter) -> None:
    with pytest.raises(
        FailedPrecondition, match="failed to make UVM's scratch layer: failed to find UtilityVM directory in base layer"
    ):
        store.prepare("u", "base", {label_rules.UVM_SCRATCH: ""})
    assert layers_on_disk(store) == ["1"]


def test_usage_of_a_committed_snapshot_is_what_commit_measured(store: Snapshotter) -> None:
    measured = store.usage("base")
    assert measured.size > 0
    assert measured.inodes > 0
    with open(os.path.join(directory(store, "base"), "Files", "later"), "wb") as file:
        file.write(b"x" * 1000)
    assert store.usage("base") == measured


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("a", lambda store: store.usage("a")),
        ("a", lambda store: store.scratch("a")),
        ("a", lambda store: store.describe("a", "base")),
        ("a", lambda store: store.grow_scratch("a", 40 * GIB)),
        ("a", lambda store: store.commit("c", "a")),
        ("a", lambda store: store.mount("a", store.root + "-target")),
        ("base", lambda store: store.usage("base")),
        ("base", lambda store: store.describe("base")),
        ("base", lambda store: store.prepare("b", "base")),
        ("base", lambda store: store.commit("c", "a")),
        ("base", lambda store: store.mount("a", store.root + "-target")),
        ("base", lambda store: store.mount("v", store.root + "-target")),
        ("base", lambda store: store.export_layer("base", io.BytesIO())),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_missing_layer_is_named(
    store: Snapshotter, root: str, name: str, operation: Callable[[Snapshotter], Any], dry_run: bool
) -> None:
    store.prepare("a", "base")
    store.view("v", "base")
    path = directory(store, name)
    shutil.rmtree(path)
    store.close()
    opened = open_store(root, dry_run=dry_run)
    with pytest.raises(FailedPrecondition) as caught:
        operation(opened)
    assert caught.value.message.startswith(f'the layer of snapshot "{name}" is missing: {path} does not exist; ')
    assert caught.value.details == {"key": name, "path": path}
    # Records can be read, the other snapshots too, and nothing is mounted.
    assert opened.stat(name).name == name
    assert len(opened.walk()) == 3
    assert opened.mounted_at(name) == []
    opened.remove("v")
    assert opened.warnings == []
    opened.remove("a")
    opened.remove("base")
    assert opened.warnings == [f'the layer of "{name}" was missing before its removal']
    assert opened.walk() == []
    opened.close()


# -- sentences ---------------------------------------------------------------


def test_sentences_of_the_real_snapshotter(store: Snapshotter) -> None:
    """The messages are recorded from containerd's own code. Only the error classes are ours."""
    store.prepare("c1", "base")
    store.view("v1", "base")
    for operation, error, message in (
        (lambda: store.prepare("c1", "base"), AlreadyExists, "failed to create snapshot: snapshot c1: already exists"),
        (lambda: store.view("c1", "base"), AlreadyExists, "failed to create snapshot: snapshot c1: already exists"),
        (
            lambda: store.prepare("c2", "nope"),
            NotFound,
            'failed to create snapshot: missing parent "nope" bucket: not found',
        ),
        (
            lambda: store.prepare("c2", "c1"),
            InvalidArgument,
            'failed to create snapshot: parent "c1" is not committed snapshot: invalid argument',
        ),
        (
            lambda: store.mounts("base"),
            FailedPrecondition,
            "failed to get snapshot mount: requested snapshot base not active or view: failed precondition",
        ),
        (lambda: store.stat("nope"), NotFound, "snapshot does not exist: not found"),
        (lambda: store.usage("nope"), NotFound, "snapshot does not exist: not found"),
        (lambda: store.update("nope", {}), NotFound, "snapshot does not exist: not found"),
        (
            lambda: store.update("c1", {}, ["kind"]),
            InvalidArgument,
            'cannot update "kind" field on snapshot "c1": invalid argument',
        ),
        (
            lambda: store.commit("base", "c1"),
            AlreadyExists,
            "failed to commit snapshot: committed snapshot base: already exists",
        ),
        (
            lambda: store.commit("x", "nope"),
            NotFound,
            "failed to get storage info for nope: snapshot does not exist: not found",
        ),
        (
            lambda: store.commit("x", "base"),
            FailedPrecondition,
            "requested snapshot base not active or view: failed precondition",
        ),
        (
            lambda: store.commit("x", "v1"),
            FailedPrecondition,
            'failed to commit snapshot: snapshot "v1" is not active: failed precondition',
        ),
        (
            lambda: store.remove("base"),
            FailedPrecondition,
            "failed to remove: cannot remove snapshot with child: failed precondition",
        ),
        (lambda: store.remove("nope"), NotFound, "failed to remove: snapshot nope: not found"),
    ):
        before = store.walk(), layers_on_disk(store)
        with pytest.raises(SnapshotterError) as caught:
            operation()
        assert (type(caught.value), caught.value.message) == (error, message)
        assert (store.walk(), layers_on_disk(store)) == before


@pytest.mark.parametrize(
    "key", ["k\u00e9y \u725b", "tab\tand\nnewline", "nul\0inside", "'quote\"", " ", "\u202eright to left", "k" * 4096]
)
def test_keys_are_kept_exactly(store: Snapshotter, key: str) -> None:
    store.prepare(key, "base", {key[:100]: key[:3000]})
    assert store.stat(key).name == key
    assert store.stat(key).labels == {key[:100]: key[:3000]}
    assert [info.name for info in store.walk("parent==base")] == [key]
    store.commit(key + "!" if len(key) < 4096 else "other", key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "key must not be empty"),
        ("k" * 4097, "key is 4097 bytes long; at most 4096"),
        ("\u725b" * 1366, "key is 4098 bytes long"),
        ("\udc80", "is not valid Unicode"),
    ],
)
def test_impossible_keys(store: Snapshotter, key: str, message: str) -> None:
    for operation in (store.prepare, store.view):
        with pytest.raises(InvalidArgument, match=message):
            operation(key, "base")
    store.prepare("a", "base")
    with pytest.raises(InvalidArgument, match=message.replace("key", "name", 1)):
        store.commit(key, "a")


def test_overlong_labels(store: Snapshotter) -> None:
    store.prepare("a", "base")
    for operation in (
        lambda: store.prepare("x", "base", {"k": "v" * 4096}),
        lambda: store.update("a", {"k": "v" * 4096}),
        lambda: store.commit("x", "a", {"k": "v" * 4096}),
    ):
        with pytest.raises(
            InvalidArgument, match=r"label key and value length \(4097 bytes\) greater than maximum size"
        ):
            operation()
    assert [info.name for info in store.walk()] == ["a", "base"]


# -- the root ----------------------------------------------------------------


def test_reading_creates_nothing(root: str) -> None:
    store = Snapshotter(root, EmulatedLayers())
    assert store.walk() == []
    for operation in (store.stat, store.usage, store.mounts, store.remove):
        with pytest.raises(NotFound):
            operation("nothing")
    with pytest.raises(NotFound):
        store.commit("x", "nothing")
    with pytest.raises(NotFound):
        store.prepare("x", "nothing")
    assert not os.path.exists(root)


def test_root_is_a_file(root: str) -> None:
    with open(root, "w"):
        pass
    with pytest.raises(FailedPrecondition, match=re.escape(f"root {root} is a file, not a directory")):
        Snapshotter(root, EmulatedLayers())


def test_root_below_a_file(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    store = Snapshotter(str(tmp_path / "file" / "root"), EmulatedLayers())
    reason = "Not a directory" if os.name == "posix" else "The system cannot find the path specified"
    with pytest.raises(FailedPrecondition, match=f"cannot create the store in .*: {reason}"):
        store.prepare("a", "")


def test_root_is_relative() -> None:
    with pytest.raises(InvalidArgument, match="is not absolute"):
        Snapshotter("here/store", EmulatedLayers())


def test_root_on_another_file_system(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WCOW_EMULATED_FILESYSTEM", "ReFS")
    with pytest.raises(
        InvalidArgument,
        match=re.escape(f"{root} is not on an NTFS volume - only NTFS volumes are supported: invalid argument"),
    ):
        Snapshotter(root, EmulatedLayers())
    assert not os.path.exists(root)


@pytest.fixture
def small_volume(tmp_path: Any) -> Iterator[str]:
    """The mount point of a small file system that fills up quickly."""
    volume = tmp_path / "volume"
    volume.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(volume)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system needs the right to mount one: {mounted.stderr.strip()}")
    yield str(volume)
    subprocess.run(["umount", str(volume)], check=True)


def test_what_the_host_lacks_is_said_at_once(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Poor(EmulatedLayers):
        def missing(self) -> List[str]:
            return ["a DLL", "a right"]

    with pytest.raises(FailedPrecondition, match="cannot work with layers: emulated; missing: a DLL; a right$"):
        Snapshotter(root, Poor())
    monkeypatch.setenv("WCOW_EMULATED_FILESYSTEM", "ReFS")
    with pytest.raises(FailedPrecondition, match=f"a DLL; a right; an NTFS volume for {re.escape(root)}: it has ReFS$"):
        Snapshotter(root, Poor())
    assert not os.path.exists(root)


@pytest.mark.posix
def test_root_is_read_only(small_volume: str) -> None:
    store = Snapshotter(os.path.join(small_volume, "root"), EmulatedLayers())
    store.prepare("b", "")
    store.commit("base", "b")
    store.prepare("a", "base")
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_volume], check=True)
    store = Snapshotter(store.root, EmulatedLayers())
    assert [info.name for info in store.walk()] == ["a", "base"]
    assert store.usage("a").size > 0
    for operation in (
        lambda: store.prepare("c", "base"),
        lambda: store.view("v", "base"),
        lambda: store.commit("c", "a"),
        lambda: store.update("a", {"l": "1"}),
        lambda: store.grow_scratch("a", 40 * GIB),
        lambda: store.remove("a"),
    ):
        with pytest.raises(FailedPrecondition, match="(?i)read-only"):
            operation()
    store.close()


@pytest.mark.posix
def test_modes(store: Snapshotter) -> None:
    for path in (store.root, os.path.join(store.root, "snapshots"), directory(store, "base")):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(store.root, METADATA_FILE)).st_mode) == 0o600


def test_metadata_of_another_program(root: str) -> None:
    import sqlite3

    os.mkdir(root)
    connection = sqlite3.connect(os.path.join(root, METADATA_FILE))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(FailedPrecondition, match="is not the metadata of a snapshot store"):
        Snapshotter(root, EmulatedLayers()).walk()


def test_damaged_metadata(root: str) -> None:
    os.mkdir(root)
    with open(os.path.join(root, METADATA_FILE), "wb") as file:
        file.write(b"this is not SQLite" * 1000)
    with pytest.raises(FailedPrecondition, match="is damaged .*; restore it from a backup"):
        Snapshotter(root, EmulatedLayers()).walk()


def test_metadata_of_a_newer_version(store: Snapshotter) -> None:
    import sqlite3

    store.close()
    connection = sqlite3.connect(os.path.join(store.root, METADATA_FILE))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(FailedPrecondition, match="written by a newer version of the collection .schema 99"):
        Snapshotter(store.root, EmulatedLayers()).walk()


# -- failures and leftovers --------------------------------------------------


@pytest.mark.posix
def test_no_space_while_copying_the_template(small_volume: str) -> None:
    root = os.path.join(small_volume, "root")
    store = Snapshotter(root, EmulatedLayers())
    store.prepare("b", "")
    store.commit("base", "b")
    # A real template has data.
    with open(os.path.join(directory(store, "base"), "blank.vhdx"), "ab") as template:
        template.write(b"x" * 1024**2)
    filler = os.path.join(small_volume, "filler")
    with open(filler, "wb") as file:
        space = os.statvfs(small_volume)
        file.write(b"x" * (space.f_bavail * space.f_frsize - 512 * 1024))
    with pytest.raises(
        Unavailable, match=r"failed to create scratch layer: .*sandbox\.vhdx.*: needs \d+ bytes, \d+ free"
    ):
        store.prepare("a", "base")
    assert layers_on_disk(store) == ["1"]
    assert [info.name for info in store.walk()] == ["base"]
    os.unlink(filler)
    store.prepare("a", "base")
    # The failed attempt took id 2, which stays unused.
    assert store.stat("a").id == 3
    store.close()


def test_template_is_missing(store: Snapshotter) -> None:
    os.unlink(os.path.join(directory(store, "base"), "blank.vhdx"))
    with pytest.raises(FailedPrecondition, match="failed to create scratch layer: failed to open .*blank.vhdx"):
        store.prepare("a", "base")
    assert layers_on_disk(store) == ["1"]


def test_template_is_damaged(store: Snapshotter) -> None:
    with open(os.path.join(directory(store, "base"), "blank.vhdx"), "r+b") as file:
        file.write(b"garbage!")
    with pytest.raises(FailedPrecondition, match="failed to create scratch layer: .*blank.vhdx"):
        store.prepare("a", "base")
    assert layers_on_disk(store) == ["1"]


def other(store: Snapshotter) -> Snapshotter:
    """Open the same store as another process does."""
    return Snapshotter(store.root, EmulatedLayers())


def die_in_create(store: Snapshotter, number: int) -> None:
    """Leave the files of a process that dies during a creation, before its COMMIT."""
    store.directories.begin_layer(number)
    os.mkdir(os.path.join(store.directories.directory(number), "Files"))


def test_opening_a_store_removes_a_creation_that_died_before_its_commit(store: Snapshotter) -> None:
    die_in_create(store, 2)
    with contextlib.closing(other(store)) as opened:
        assert [info.name for info in opened.walk()] == ["base"]
        assert layers_on_disk(store) == ["1", "rm-2"]
        opened.prepare("a", "base")
        assert opened.stat("a").id == 3


def test_the_next_creation_removes_one_that_died(store: Snapshotter) -> None:
    die_in_create(store, 2)
    store.prepare("a", "base")
    assert store.stat("a").id == 3
    assert layers_on_disk(store) == ["1", "3", "rm-2"]


@pytest.mark.parametrize("committed", [False, True])
def test_opening_a_store_deletes_a_leftover_marker_file(store: Snapshotter, committed: bool) -> None:
    if committed:
        store.prepare("a", "base")
    with open(store.directories.marker(2), "wb"):
        pass
    with contextlib.closing(other(store)) as opened:
        assert len(opened.walk()) == 1 + committed
    assert layers_on_disk(store) == ["1", "2"][: 1 + committed]


def test_a_creation_under_way_is_left_alone(store: Snapshotter) -> None:
    with contextlib.closing(Metastore(os.path.join(store.root, METADATA_FILE))) as metadata:
        with metadata.write() as tx:
            assert tx.create_snapshot("active", "a", "base").id == 2
            store.directories.begin_layer(2)
            began = time.monotonic()
            with contextlib.closing(other(store)) as opened:
                assert [info.name for info in opened.walk()] == ["base"]
            assert time.monotonic() - began < 5
            assert layers_on_disk(store) == ["1", "2", "new-2"]
        with contextlib.closing(other(store)) as opened:
            assert [info.name for info in opened.walk()] == ["a", "base"]
        assert layers_on_disk(store) == ["1", "2"]


@pytest.mark.parametrize("number", [1, 2])
def test_directories_that_are_newer_than_the_metadata_stay(store: Snapshotter, number: int) -> None:
    """A restored backup of the metadata gives this state."""
    for newer in range(number):
        os.makedirs(os.path.join(store.root, "snapshots", str(2 + newer), "Files"))
    with contextlib.closing(other(store)) as opened:
        opened.prepare("a", "base")
        assert opened.stat("a").id == 2 + number
    assert layers_on_disk(store) == ["1", "2", "3", "4"][: 2 + number]


def test_an_unfinished_layer_that_cannot_be_renamed_is_skipped(
    store: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.directories.begin_layer(2)

    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "Access is denied.")

    with monkeypatch.context() as patch, contextlib.closing(other(store)) as opened:
        patch.setattr(os, "rename", refuse)
        assert [info.name for info in opened.walk()] == ["base"]
        opened.prepare("a", "base")
        assert opened.stat("a").id == 3
        opened.prepare("b", "base")
    # The marker file stays as long as the unfinished layer exists.
    assert layers_on_disk(store) == ["1", "2", "3", "4", "new-2"]


def test_a_store_whose_creation_died_in_a_thread_of_the_same_id(root: str) -> None:
    os.mkdir(root)
    unfinished = os.path.join(root, f"{METADATA_FILE}.{threading.get_native_id()}.new")
    for name in (unfinished, unfinished + "-wal", unfinished + "-shm"):
        with open(name, "w") as file:
            file.write("what it had written")
    with contextlib.closing(Snapshotter(root, EmulatedLayers())) as store:
        store.prepare("a")
        assert [info.name for info in store.walk()] == ["a"]
    assert not [name for name in os.listdir(root) if ".new" in name]


def test_an_import_holds_the_lock_of_what_it_fills(store: Snapshotter) -> None:
    def fill(_unpack: Any) -> Any:
        (key,) = (info.name for info in store.walk() if info.kind == "active")
        match = re.fullmatch(IMPORT_KEY, key)
        assert match is not None
        assert match.group("name") == "layer"
        for refused in (store.remove, lambda key: store.commit("c", key)):
            with pytest.raises(Unavailable, match="is in use by another process"):
                refused(key)
        raise InvalidArgument("the archive is damaged")

    with pytest.raises(InvalidArgument, match="damaged"):
        store.import_layer("layer", "base", {}, fill)
    assert [info.name for info in store.walk()] == ["base"]
    assert layers_on_disk(store) == ["1"]


def test_a_directory_left_behind_is_never_used_again(store: Snapshotter) -> None:
    left = os.path.join(store.root, "snapshots", "2")
    os.mkdir(left)
    os.mkdir(os.path.join(store.root, "snapshots", "rm-3"))
    store.prepare("a", "base")
    assert store.stat("a").id == 4
    assert os.listdir(left) == []


def test_a_removal_that_died_before_its_commit(store: Snapshotter) -> None:
    """A process that dies between the rename and COMMIT leaves a record whose directory is rm-<id>."""
    store.prepare("a", "base")
    store.view("v", "base")

    def die(name: str) -> None:
        number = store.stat(name).id
        os.rename(
            os.path.join(store.root, "snapshots", str(number)), os.path.join(store.root, "snapshots", f"rm-{number}")
        )

    die("a")
    assert store.usage("a").size > 0
    die("a")
    assert store.grow_scratch("a", 30 * GIB).virtual_size == 30 * GIB
    die("base")
    store.prepare("b", "base")
    die("a")
    store.commit("c", "a")
    die("b")
    (mount,) = store.mounts("b")
    assert os.path.isdir(mount.source)
    die("b")
    store.remove("b")
    assert layers_on_disk(store) == ["1", "2"]


def test_a_layer_that_cannot_be_destroyed(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    store.prepare("a", "base")

    def refuse(self: Any, path: str) -> None:
        raise FailedPrecondition(f"cannot delete {path}: in use")

    with monkeypatch.context() as patch:
        patch.setattr(EmulatedLayers, "destroy", refuse)
        store.remove("a")
    assert [warning for warning in store.warnings if "could not be destroyed yet" in warning]
    assert layers_on_disk(store) == ["1", "rm-2"]
    store.prepare("a", "base")
    assert store.stat("a").id == 3


def test_a_rename_that_is_refused_undoes_the_removal(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    store.prepare("a", "base")

    def refuse(source: str, target: str) -> None:
        raise PermissionError(errno.EACCES, "Access is denied.")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(FailedPrecondition, match=r"failed to remove: rename .*: Access is denied\."):
            store.remove("a")
    assert store.stat("a").id == 2
    assert layers_on_disk(store) == ["1", "2"]
    store.remove("a")


def access_denied() -> OSError:
    """Return the error of Windows for a directory below which a file is open."""
    error: Any = PermissionError(errno.EACCES, "Access is denied")
    error.winerror = 5
    return cast(OSError, error)


def test_a_second_rename_that_is_refused(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows: the layer was attached and is detached, but a file below it is open as well."""
    store.prepare("a", "base")
    path = directory(store, "a")

    def refuse(source: str, target: str) -> None:
        raise access_denied()

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(FailedPrecondition) as caught:
        store.remove("a")
    rename = f"rename {path} {path[:-1]}rm-2: Access is denied"
    remedy = "is a file below it open in another program?"
    assert caught.value.message == f"second rename attempt following detach failed: {rename}: {rename}; {remedy}"
    monkeypatch.undo()
    assert layers_on_disk(store) == ["1", "2"]
    store.remove("a")


def test_a_layer_that_vanishes_between_two_renames_is_removed(
    store: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.prepare("a", "base")
    errors = [access_denied(), FileNotFoundError(errno.ENOENT, "not found")]

    def refuse(source: str, target: str) -> None:
        raise errors.pop(0)

    monkeypatch.setattr(os, "rename", refuse)
    store.remove("a")
    assert errors == []


def test_several_removals_end_at_the_first_that_fails(store: Snapshotter, tmp_path: Any) -> None:
    for key in "abcd":
        store.prepare(key, "base")
    target = str(tmp_path / "mnt")
    store.mount("c", target)
    with pytest.raises(FailedPrecondition, match='cannot remove snapshot "c": it is mounted at'):
        store.remove_all(["gone", "a", "b", "c", "d"])
    assert [info.name for info in store.walk()] == ["base", "c", "d"]
    assert layers_on_disk(store) == ["1", "4", "5"]
    with pytest.raises(FailedPrecondition, match="cannot remove snapshot with child"):
        store.remove_all(["base", "d"])
    store.unmount(target)
    assert store.remove_all(["d", "c", "base", "gone"]) == ["d", "c", "base"]
    assert layers_on_disk(store) == []
    assert not store.warnings


def test_several_removals_are_undone_if_their_transaction_fails(
    store: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "ab":
        store.prepare(key, "base")

    def fail() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(store.directories, "flush_snapshots", fail)
        with pytest.raises(OSError, match="Input/output error"):
            store.remove_all(["a", "b"])
    assert layers_on_disk(store) == ["1", "2", "3"]
    assert store.remove_all(["a", "b"]) == ["a", "b"]


def test_a_conversion_that_fails(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    store.prepare("a", "base")

    def fail(self: Any, path: str, parents: Any) -> None:
        raise FailedPrecondition("hcsshim::ImportLayer failed in Win32: Access is denied. (0x5)")

    with monkeypatch.context() as patch:
        patch.setattr(EmulatedLayers, "convert", fail)
        with pytest.raises(FailedPrecondition, match=r"^failed to reimport snapshot: hcsshim::ImportLayer failed"):
            store.commit("c", "a")
        store.prepare("b")
        # containerd converts a base layer by another function.
        with pytest.raises(FailedPrecondition, match="^hcsshim::ImportLayer failed"):
            store.commit("d", "b")
        store.remove("b")
    assert store.stat("a").kind == "active"
    store.update("a", {"l": "1"})
    store.commit("c", "a")


def test_committing_a_mounted_snapshot(store: Snapshotter, tmp_path: Any) -> None:
    store.prepare("a", "base")
    store.mount("a", str(tmp_path / "m"))
    with pytest.raises(FailedPrecondition, match=r'cannot commit snapshot "a": it is mounted at .*; unmount it first'):
        store.commit("c", "a")
    store.unmount(str(tmp_path / "m"))
    store.unmount(str(tmp_path / "m"))
    store.commit("c", "a")


# -- several processes -------------------------------------------------------


def _slow_commit(root: str, started: Any) -> None:
    class Slow(EmulatedLayers):
        def convert(self, directory: str, parents: Any) -> None:
            started.set()
            time.sleep(60)

    Snapshotter(root, Slow()).commit("c", "a")


def test_a_commit_under_way_holds_only_its_key(store: Snapshotter) -> None:
    store.prepare("a", "base")
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_slow_commit, args=(store.root, started), daemon=True)
    process.start()
    try:
        assert started.wait(30)
        for operation in (
            lambda: store.commit("d", "a"),
            lambda: store.remove("a"),
            lambda: store.update("a", {}),
            lambda: store.grow_scratch("a", 40 * GIB),
        ):
            with pytest.raises(
                Unavailable,
                match=rf'snapshot "a" is being committed by process {process.pid} since .*; run the task again',
            ):
                operation()
        begin = time.monotonic()
        store.prepare("other", "base")
        store.remove("other")
        assert time.monotonic() - begin < 5
        assert store.stat("a").kind == "active"
    finally:
        process.kill()
        process.join(10)
    # The lock owner has ended, so its lock is void.
    store.commit("c", "a")
    assert store.stat("c").kind == "committed"


def _prepare_all(root: str, count: int, results: Any) -> None:
    store = Snapshotter(root, EmulatedLayers())
    won = 0
    for number in range(count):
        try:
            store.prepare(f"k{number}", "")
            won += 1
        except AlreadyExists:
            pass
    results.put(won)


def test_two_writers_one_winner(root: str) -> None:
    """Four processes prepare the same keys in a store that does not exist yet. Each key is created once."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_prepare_all, args=(root, 20, results), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    won = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(10)
    assert sum(won) == 20
    store = Snapshotter(root, EmulatedLayers())
    assert len(store.walk()) == 20
    assert len(layers_on_disk(store)) == 20
