# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's snapshotter suite (core/snapshots/testsuite) with its 21 test names, on each layer store.

tests/peers runs a part of it on a real containerd, through its API. There, ``Work`` is one of its own.

The original's checks Chown, DirectoryPermissionOnCommit and RootPermission
concern POSIX owners and modes. containerd skips them for its Windows
snapshotter. Here they show how the emulated store handles modes. The last test
is our own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any, Callable, Dict, FrozenSet, List, Optional

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer_export import ensure_export
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED, VIEW, Info
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

GC_ROOT = {"containerd.io/gc.root": "check"}


class Work:
    """A store and a directory in which its snapshots can be mounted."""

    #: Labels that the store adds to those of a test.
    added_labels: FrozenSet[str] = frozenset()

    def __init__(self, snapshotter: Any, directory: str) -> None:
        self.snapshotter = snapshotter
        self.directory = directory
        self._count = 0

    def labels(self, info: Info) -> Dict[str, str]:
        """Return the labels of a snapshot that a test has set."""
        return {key: value for key, value in info.labels.items() if key not in self.added_labels}

    def mounted(self, key: str, change: Callable[[str], Any]) -> Any:
        """Mount ``key``, call ``change`` on the mount, and unmount. Return the result of ``change``."""
        self._count += 1
        target = os.path.join(self.directory, f"mnt{self._count}")
        self.snapshotter.mount(key, target)
        try:
            return change(target)
        finally:
            self.snapshotter.unmount(target)

    def layer(self, parent: str, name: str, *changes: Callable[[str], Any]) -> str:
        """Make ``changes`` on top of ``parent`` and commit them as ``name``."""

        def apply(target: str) -> None:
            for change in changes:
                change(target)

        self.snapshotter.prepare(name + "-key", parent, GC_ROOT)
        self.mounted(name + "-key", apply)
        self.snapshotter.commit(name, name + "-key", GC_ROOT)
        return name

    def tree(self, parent: str) -> Dict[str, Optional[bytes]]:
        """Return what a view of ``parent`` shows: the content of each file by path, and None for each directory."""
        self.snapshotter.view("look", parent)
        try:
            found: Dict[str, Optional[bytes]] = self.mounted("look", read_tree)
        finally:
            self.snapshotter.remove("look")
        return found

    def check_chain(self, *layers: List[Callable[[str], Any]]) -> str:
        """Build a chain layer by layer. After each layer, a view must equal a plain directory with the same changes."""
        flat = os.path.join(self.directory, "flat")
        os.mkdir(flat)
        parent = ""
        for number, changes in enumerate(layers):
            for change in changes:
                change(flat)
            parent = self.layer(parent, f"chain-{number}", *changes)
            assert self.tree(parent) == read_tree(flat)
        return parent


@pytest.fixture
def work(snapshotter: Snapshotter, tmp_path: Any) -> Work:
    directory = tmp_path / "work"
    directory.mkdir()
    return Work(snapshotter, str(directory))


# Windows requires registry hives in a base layer. The commit of a base layer creates missing ones.
_CONFIG = "Windows/System32/config"
_HIVES = [f"{_CONFIG}/{name}" for name in ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM")]
_IN_EVERY_BASE = {"Windows", "Windows/System32", _CONFIG, *_HIVES}


def read_tree(top: str) -> Dict[str, Optional[bytes]]:
    """Return the content of files below ``top`` and None for directories, without what every base layer has."""
    found: Dict[str, Optional[bytes]] = {}
    for parent, directories, files in os.walk(top):
        relative = os.path.relpath(parent, top).replace(os.sep, "/")
        prefix = "" if relative == "." else relative + "/"
        for name in directories:
            found[prefix + name] = None
        for name in files:
            with open(os.path.join(parent, name), "rb") as file:
                found[prefix + name] = file.read()
    return {name: content for name, content in found.items() if name not in _IN_EVERY_BASE}


def write(path: str, content: str) -> Callable[[str], None]:
    def change(top: str) -> None:
        os.makedirs(os.path.dirname(os.path.join(top, path)), exist_ok=True)
        with open(os.path.join(top, path), "w", encoding="utf-8") as file:
            file.write(content)

    return change


def make_directory(path: str) -> Callable[[str], None]:
    return lambda top: os.makedirs(os.path.join(top, path))


def remove(path: str) -> Callable[[str], None]:
    def change(top: str) -> None:
        full = os.path.join(top, path)
        if os.path.isdir(full):
            shutil.rmtree(full)
        else:
            os.unlink(full)

    return change


def rename(old: str, new: str) -> Callable[[str], None]:
    def change(top: str) -> None:
        os.makedirs(os.path.dirname(os.path.join(top, new)), exist_ok=True)
        os.replace(os.path.join(top, old), os.path.join(top, new))

    return change


def test_basic(work: Work) -> None:
    store = work.snapshotter
    mounts = store.prepare("a", "", GC_ROOT)
    assert len(mounts) == 1
    work.mounted("a", lambda top: [write("foo", "foo")(top), make_directory("a/b/c")(top)])
    store.commit("c1", "a", GC_ROOT)
    info = store.stat("c1")
    assert (info.kind, info.parent) == (COMMITTED, "")
    with pytest.raises(NotFound):
        store.stat("a")
    store.prepare("b", "c1", GC_ROOT)
    assert work.mounted("b", read_tree) == {"foo": b"foo", "a": None, "a/b": None, "a/b/c": None}
    work.mounted("b", lambda top: [write("bar", "bar")(top), write("foo", "changed")(top), remove("a/b")(top)])
    assert (store.stat("b").kind, store.stat("b").parent) == (ACTIVE, "c1")
    store.commit("c2", "b", GC_ROOT)
    assert store.stat("c2").parent == "c1"
    assert store.walk() == [store.stat("c1"), store.stat("c2")]
    assert work.tree("c2") == {"foo": b"changed", "bar": b"bar", "a": None}
    with pytest.raises(FailedPrecondition, match="remove"):
        store.remove("c1")
    store.remove("c2")
    store.remove("c1")
    assert store.walk() == []


def test_stat_active(work: Work) -> None:
    work.snapshotter.prepare("a", "")
    info = work.snapshotter.stat("a")
    assert (info.name, info.kind, info.parent) == ("a", ACTIVE, "")


def test_stat_comitted(work: Work) -> None:
    work.layer("", "c")
    info = work.snapshotter.stat("c")
    assert (info.name, info.kind, info.parent) == ("c", COMMITTED, "")


def test_transitivity_test(work: Work) -> None:
    work.layer("", "a")
    work.layer("a", "b")
    assert (work.snapshotter.stat("a").parent, work.snapshotter.stat("b").parent) == ("", "a")


def test_preare_view_failingtest(work: Work) -> None:
    work.layer("", "c")
    store = work.snapshotter
    for first, second in ((store.prepare, store.view), (store.prepare, store.prepare), (store.view, store.view)):
        first("key", "c")
        with pytest.raises(AlreadyExists):
            second("key", "c")
        store.remove("key")


def test_update(work: Work) -> None:
    store = work.snapshotter
    labels = {"l1": "v1", "l2": "v2"}
    for name, parent in (("c1", ""), ("c2", "c1")):
        store.prepare("temporary", parent)
        store.commit(name, "temporary", labels)
    store.prepare("a1", "c2", labels)
    store.prepare("a2", "", labels)
    store.view("v1", "c2", labels)
    store.view("v2", "", labels)
    kinds = {"c1": COMMITTED, "c2": COMMITTED, "a1": ACTIVE, "a2": ACTIVE, "v1": VIEW, "v2": VIEW}
    parents = {"c1": "", "c2": "c1", "a1": "c2", "a2": "", "v1": "c2", "v2": ""}
    for name, kind in kinds.items():
        info = store.stat(name)
        assert (info.kind, info.parent, info.name, work.labels(info)) == (kind, parents[name], name, labels)
        assert info.created == info.updated
        replaced = store.update(name, {"l1": "updated", "l3": "v3"})
        assert (work.labels(replaced), replaced.created, replaced.parent) == (
            {"l1": "updated", "l3": "v3"},
            info.created,
            parents[name],
        )
        assert replaced.updated > info.updated
        assert store.stat(name) == replaced
        two = store.update(name, {"l1": "again", "l2": "set", "l3": "ignored"}, ["labels.l1", "labels.l2"])
        assert work.labels(two) == {"l1": "again", "l2": "set", "l3": "v3"}
        assert work.labels(store.update(name, {}, ["labels.l2"])) == {"l1": "again", "l3": "v3"}
        assert work.labels(store.update(name, {"only": "this"}, ["labels"])) == {"only": "this"}
        with pytest.raises(InvalidArgument):
            store.update(name, {"only": "that"}, ["labels.only", "parent"])
        assert work.labels(store.stat(name)) == {"only": "this"}


def test_remove(work: Work) -> None:
    store = work.snapshotter
    work.layer("", "c")
    store.prepare("key", "c")
    store.remove("key")
    store.view("key", "c")
    store.remove("key")
    store.prepare("key", "c")
    store.commit("name", "key")
    store.remove("name")
    store.prepare("key", "c")
    store.commit("name", "key")
    with pytest.raises(NotFound):
        store.remove("key")


def test_walk(work: Work) -> None:
    store = work.snapshotter
    root = {"containerd.io/gc.root": "check-walk"}

    def made(name: str, parent: str, extra: Dict[str, str]) -> None:
        store.prepare("temporary", parent)
        store.commit(name, "temporary", {**root, **extra})

    store.prepare("a-np", "", root)
    made("p", "", {})
    store.prepare("a", "p", root)
    store.view("v", "p", root)
    made("p-wl", "", {"l": "1"})
    store.prepare("a-wl", "p-wl", {**root, "l": "2"})
    store.view("v-wl", "p-wl", {**root, "l": "3"})
    store.prepare("a-np-wl", "", {**root, "l": "2"})
    marked = 'labels."containerd.io/gc.root"==check-walk'
    for filters, names in (
        ([marked], "a a-np a-np-wl a-wl p p-wl v v-wl"),
        ([f"kind==active,{marked}"], "a a-np a-np-wl a-wl"),
        ([f"kind==view,{marked}"], "v v-wl"),
        ([f"kind==committed,{marked}"], "p p-wl"),
        (["name==p", "name==a-np-wl"], "a-np-wl p"),
        (["name==a-wl,labels.l"], "a-wl"),
        (["parent==p"], "a v"),
        ([f'parent!="",{marked}'], "a a-wl v v-wl"),
        (["labels.l"], "a-np-wl a-wl p-wl v-wl"),
        (["labels.l==2"], "a-np-wl a-wl"),
    ):
        assert [info.name for info in store.walk(*filters)] == names.split(), filters


def test_layer_fileupdate(work: Work) -> None:
    work.check_chain(
        [write("etc/hosts", "mydomain 10.0.0.1"), make_directory("root")],
        [write("etc/hosts", "mydomain 10.0.0.2"), write("root/.bashrc", "PATH=/usr/sbin:/usr/bin")],
        [write("etc/hosts", "mydomain 10.0.0.120"), write("etc/nsswitch.conf", "hosts: dns"), remove("root/.bashrc")],
        [write("root/f1", "x"), write("root/f2", "y"), write("root/f3", "z")],
        [write("etc/hosts", "mydomain 10.0.0.1"), write("root/f2", "Y")],
    )


def test_remove_directory_in_lower_layer(work: Work) -> None:
    last = work.check_chain(
        [make_directory("dir1"), write("dir1/f1", "1111"), write("dir1/f2", "1111")],
        [remove("dir1"), make_directory("dir1"), write("dir1/f2", "2222")],
        [write("dir1/f3", "3333")],
    )
    assert work.tree(last) == {"dir1": None, "dir1/f2": b"2222", "dir1/f3": b"3333"}


def test_chown(work: Work) -> None:
    """The store preserves owners where the process can set them. Windows layers have security descriptors instead."""
    work.layer("", "c", write("d/f", "x"))
    if os.name == "posix" and not os.geteuid():
        paths = ("d", "d/f")

        def chown(top: str) -> None:
            for path in paths:
                os.chown(os.path.join(top, path), 1, 2)

        def owners(top: str) -> List[Any]:
            found = [os.stat(os.path.join(top, path)) for path in paths]
            return [(status.st_uid, status.st_gid) for status in found]

        work.layer("c", "c2", chown)
        work.snapshotter.prepare("a", "c2")
        assert work.mounted("a", owners) == [(1, 2), (1, 2)]
    assert work.tree("c") == {"d": None, "d/f": b"x"}


@pytest.mark.posix
def test_directory_permission_on_commit(work: Work) -> None:
    work.layer("", "c", make_directory("d"), lambda top: os.chmod(os.path.join(top, "d"), 0o750))
    work.layer("c", "c2", write("d/f", "x"))
    work.snapshotter.prepare("a", "c2")
    assert work.mounted("a", lambda top: os.stat(os.path.join(top, "d")).st_mode & 0o777) == 0o750


def test_remove_intermediate_snapshot(work: Work) -> None:
    store = work.snapshotter
    work.layer("", "base", write("1", "1"))
    work.layer("base", "middle", write("2", "2"))
    store.prepare("top", "middle")
    for name in ("middle", "base"):
        with pytest.raises(FailedPrecondition, match="remove"):
            store.remove(name)
    for name in ("top", "middle", "base"):
        store.remove(name)
    assert store.walk() == []


def test_deleted_files_in_child_snapshot(work: Work) -> None:
    last = work.check_chain([write("foo", "foo"), write("bar", "bar")], [remove("foo")], [])
    assert work.tree(last) == {"bar": b"bar"}


def test_move_file_from_lower_layer(work: Work) -> None:
    work.check_chain(
        [make_directory("dir1"), write("dir1/f1", "x"), make_directory("dir2"), write("dir2/f2", "y")],
        [
            rename("dir1/f1", "dir3/f1"),
            lambda top: shutil.copy2(os.path.join(top, "dir2/f2"), os.path.join(top, "dir3/copy")),
            lambda top: os.link(os.path.join(top, "dir2/f2"), os.path.join(top, "dir3/link")),
        ],
    )


_WRITE = """
import os, sys
if hasattr(os, "setuid") and os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
for name in ("f", "new"):
    try:
        open(os.path.join(sys.argv[1], name), "w").close()
    except OSError:
        continue
    sys.exit(f"could write {name}")
"""


def test_view_readonly(work: Work) -> None:
    """Only root can write into a mounted view, and the store does not keep what root writes."""
    store = work.snapshotter
    work.layer("", "c", write("f", "x"))
    store.view("v", "c")
    # Other users cannot enter the test's own directories by default.
    os.chmod(work.directory, 0o755)

    def attempt(top: str) -> subprocess.CompletedProcess[str]:
        above = os.path.dirname(top)
        while above != "/" and os.stat(above).st_mode & 0o5 != 0o5 and os.stat(above).st_uid == os.getuid():
            os.chmod(above, 0o755)
            above = os.path.dirname(above)
        return subprocess.run([sys.executable, "-I", "-c", _WRITE, top], capture_output=True, text=True, check=False)

    if os.name == "posix":
        done = work.mounted("v", attempt)
        assert (done.returncode, done.stderr) == (0, "")
    assert work.mounted("v", read_tree) == {"f": b"x"}
    # Modes do not restrict root, and the emulated store does not restrict writes on Windows.
    if os.name == "nt" or os.getuid() == 0:
        work.mounted("v", write("root-was-here", "x"))
        assert work.mounted("v", read_tree) == {"f": b"x"}


def test_stat_in_walk(work: Work) -> None:
    work.layer("", "c")
    work.snapshotter.prepare("a", "c")
    seen = 0
    for info in work.snapshotter.walk():
        assert work.snapshotter.stat(info.name) == info
        seen += 1
    assert seen == 2


def test_close_twice(work: Work) -> None:
    work.layer("", "c")
    work.snapshotter.remove("c")
    work.snapshotter.close()
    work.snapshotter.close()
    with pytest.raises(SnapshotterError, match="not open"):
        work.snapshotter.walk()


@pytest.mark.posix
def test_root_permission(work: Work) -> None:
    store = work.snapshotter
    store.prepare("a", "")
    work.mounted("a", lambda top: os.chmod(top, 0o755))
    assert os.stat(store.root).st_mode & 0o777 == 0o700


def test_rename(work: Work) -> None:
    work.check_chain(
        [
            make_directory("dir1"),
            make_directory("somefiles"),
            write("somefiles/f1", "was here first!"),
            write("somefiles/f2", "nothing interesting"),
        ],
        [
            rename("dir1", "dir2"),
            write("somefiles/f1-overwrite", "new content 1"),
            rename("somefiles/f1-overwrite", "somefiles/f1"),
            rename("somefiles/f2", "somefiles/f3"),
        ],
    )


def test_128_layers_mount(work: Work) -> None:
    # Each mount copies all layers below. In Wine, 128 of them take minutes and show no more than a part of them.
    count = 128 if os.name == "posix" else 32
    flat = os.path.join(work.directory, "flat")
    os.mkdir(flat)
    parent = ""
    for number in range(count):
        changes = [
            write(f"{number:03d}", f"{number}"),
            write("bottom", f"changed by {number}"),
            make_directory(f"d{number}"),
        ]
        if number:
            changes.append(remove(f"d{number - 1}"))
        for change in changes:
            change(flat)
        parent = work.layer(parent, f"layer-{number}", *changes)
    assert work.tree(parent) == read_tree(flat)
    assert len(work.tree(f"layer-{count // 2 - 1}")) == count // 2 + 2


def test_a_name_that_means_a_deletion_in_a_tar(work: Work, tmp_path: Any) -> None:
    """A container may use such a name. The layer keeps it. In a tar it would delete another file, so export fails."""
    parent = ""
    for name in ("base", "layer"):
        parent = work.layer(parent, name, write(f"{name}/.wh.x", name))
        assert work.tree(name)[f"{name}/.wh.x"] == name.encode()
        dest = os.path.join(str(tmp_path), "layer.tar")
        with pytest.raises(InvalidArgument, match=r"'\.wh\.x' .* means a deletion; rename or remove it") as caught:
            ensure_export(work.snapshotter, name, dest)
        assert caught.value.message.startswith(f'cannot export "{name}" to {dest}: ')
        assert sorted(os.listdir(tmp_path)) == ["root", "work"]
