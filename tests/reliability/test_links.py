# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deletions do not follow links: the targets of links planted in a store stay unchanged in every bit.

tests/wine/cleanup_cases.py plants junctions and Windows' own symbolic links.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import threading

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.store import ensure_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, SnapshotterError
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import filetree
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.staging import Staging
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import layer_tar
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store

pytestmark = pytest.mark.posix

DIGEST = "sha256:" + "ab" * 32


def picture(top):
    """Return everything below a directory, including the times and modes of the directory itself."""
    found = {}
    for directory, directories, files in os.walk(top):
        for name in ("", *directories, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            found[path] = (status.st_mode, status.st_mtime_ns, status.st_ino, status.st_nlink, content)
    return found


@pytest.fixture
def outside(tmp_path):
    """Return a directory next to the store. It must be the same after the test."""
    top = tmp_path / "outside"
    (top / "sub").mkdir(parents=True)
    (top / "kept").write_bytes(b"\0precious" * 1000)
    (top / "sub" / "read-only").write_text("precious")
    (top / "sub" / "read-only").chmod(0o400)
    before = picture(top)
    yield str(top)
    assert picture(top) == before


@pytest.fixture
def store(tmp_path):
    opened = open_store(str(tmp_path / "root"))
    yield opened
    opened.close()


def plant(directory, outside):
    """Plant links of every kind: to the outside, to a parent directory, dangling, and two that point to each other."""
    os.makedirs(os.path.join(directory, "deep", "er"), exist_ok=True)
    for above in (directory, os.path.join(directory, "deep", "er")):
        targets = {
            "directory": outside,
            "directory-slash": outside + "/",
            "file": os.path.join(outside, "kept"),
            "relative": os.path.relpath(outside, above),
            "up": "..",
            "itself": ".",
            "root": "/",
            "dangling": os.path.join(outside, "nothing"),
            "one": "two",
            "two": "one",
        }
        for name, target in targets.items():
            os.symlink(target, os.path.join(above, "link-" + name))

    assert os.path.samefile(os.path.join(directory, "link-file"), os.path.join(outside, "kept"))


BASE = [("Files", "directory"), ("Files/a", b"a")]


def import_base(store, stream=None):
    stream = stream or io.BytesIO(layer_tar(*BASE))
    return store.import_layer("base", "", {}, lambda unpack: unpack(stream))


def layer(store, number):
    return os.path.join(store.root, "snapshots", str(number))


# -- layers --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["destroy", "discard"])
def test_a_layer_full_of_links(tmp_path, outside, method):
    directory = str(tmp_path / "root" / "snapshots" / "1")
    plant(directory, outside)
    getattr(EmulatedLayers(), method)(directory)
    assert not os.path.lexists(directory)


@pytest.mark.parametrize("method", ["destroy", "discard"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_layer_that_is_a_link(tmp_path, outside, method, slash):
    directory = str(tmp_path / "1")
    os.symlink(outside + slash, directory)
    getattr(EmulatedLayers(), method)(directory)
    assert not os.path.lexists(directory)


def test_a_snapshot_with_links_is_removed(store, outside):
    import_base(store)
    store.prepare("key", "base")
    plant(layer(store, 2), outside)
    store.remove("key")
    assert store.warnings == []
    assert os.listdir(os.path.dirname(layer(store, 2))) == ["1"]


def test_a_snapshot_whose_directory_became_a_link_is_removed(store, outside):
    import_base(store)
    store.prepare("key", "base")
    shutil.rmtree(layer(store, 2))
    os.symlink(outside, layer(store, 2))
    store.remove("key")
    assert store.warnings == []
    assert os.listdir(os.path.dirname(layer(store, 2))) == ["1"]


def test_directories_that_turn_into_links_meanwhile(tmp_path, outside, monkeypatch):
    """A thread swaps a directory for a link to the outside, and back, as fast as possible."""
    monkeypatch.setattr(filetree, "_REMOVAL_PAUSE", 0)
    layers = EmulatedLayers()
    directory = str(tmp_path / "1")
    inside, link, other = (str(tmp_path / name) for name in ("1/victim", "1.link", "1.other"))
    done = threading.Event()

    def swap():
        while not done.is_set():
            for source, target in ((inside, other), (link, inside), (inside, link), (other, inside)):
                try:
                    os.rename(source, target)
                except OSError:
                    pass

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _round in range(40):
            # The state at this moment is random. A directory that changes all the time cannot always be deleted.
            with contextlib.suppress(OSError):
                os.makedirs(inside, exist_ok=True)
            for number in range(20):
                os.makedirs(os.path.join(directory, f"d{number}", "e"), exist_ok=True)
            with contextlib.suppress(OSError):
                os.symlink(outside, link)
            with contextlib.suppress(SnapshotterError):
                layers.destroy(directory)
    finally:
        done.set()
        swapper.join(10)
    assert not swapper.is_alive()


# -- imports and conversions ---------------------------------------------------


def test_an_import_that_fails_with_links_in_its_directory(store, outside):
    entries = layer_tar(*BASE, ("Files/s", "symlink", "C:\\Windows"))[: -len(layertar.END_MARK)]
    planted = []

    class Planting(io.BytesIO):
        """The layer tar. Links appear in its directory when its first entries have been unpacked."""

        def read(self, size=-1):
            if not planted and os.path.isdir(os.path.join(layer(store, 1), "Files")):
                plant(os.path.join(layer(store, 1), "Files"), outside)
                planted.append(True)
            return super().read(size)

    with pytest.raises(SnapshotterError, match="cut off"):
        import_base(store, Planting(entries))
    assert planted
    assert os.listdir(os.path.dirname(layer(store, 1))) == []


@pytest.mark.parametrize("name", ["Files.new", "Files.old"])
@pytest.mark.parametrize("as_link", [False, True])
def test_what_a_dead_conversion_left(store, outside, name, as_link):
    import_base(store)
    store.prepare("key", "base")
    left = os.path.join(layer(store, 2), name)
    os.mkdir(os.path.join(layer(store, 2), "Files"))
    if as_link:
        os.symlink(outside, left)
    else:
        plant(left, outside)
    store.commit("name", "key")
    assert not os.path.lexists(left)


def test_what_a_dead_making_of_a_template_left(store, outside):
    store.prepare("key")
    os.symlink(os.path.join(outside, "kept"), os.path.join(layer(store, 1), "blank.vhdx.new"))
    store.commit("base", "key")
    assert not os.path.islink(os.path.join(layer(store, 1), "blank.vhdx"))


# -- mounts --------------------------------------------------------------------


def test_a_read_only_mount_with_links_is_unmounted(store, outside, tmp_path):
    target = str(tmp_path / "mnt")
    import_base(store)
    store.view("view", "base")
    store.mount("view", target)
    os.chmod(target, 0o700)
    plant(target, outside)
    store.unmount(target)
    assert os.listdir(target) == []


def test_a_writable_mount_with_links_to_the_outside_is_not_taken_over(store, outside, tmp_path):
    target = str(tmp_path / "mnt")
    import_base(store)
    store.prepare("key", "base")
    store.mount("key", target)
    os.symlink(outside, os.path.join(target, "link"))
    os.symlink("a", os.path.join(target, "inner"))
    with pytest.raises(FailedPrecondition, match="leads out of the layer|absolute path of another system"):
        store.unmount(target)
    os.unlink(os.path.join(target, "link"))
    store.unmount(target)
    assert os.listdir(target) == []
    assert os.readlink(os.path.join(layer(store, 2), "sandbox.contents", "Files", "inner")) == "a"


def test_a_mount_that_fails_empties_its_target_without_following(store, outside, tmp_path, monkeypatch):
    target = str(tmp_path / "mnt")
    import_base(store)
    store.prepare("key", "base")

    def fill(_tree, target, **_options):
        plant(target, outside)
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr(filetree, "write_children", fill)
    with pytest.raises(SnapshotterError, match="No space left"):
        store.mount("key", target)
    assert not os.path.lexists(target)


def test_a_target_that_became_a_link_is_not_emptied(store, outside, tmp_path):
    target = str(tmp_path / "mnt")
    import_base(store)
    store.view("view", "base")
    store.mount("view", target)
    os.rename(target, target + ".moved")
    os.symlink(outside, target)
    with pytest.raises(SnapshotterError):
        store.unmount(target)
    os.unlink(target)
    os.rename(target + ".moved", target)
    store.unmount(target)


# -- the whole store -----------------------------------------------------------


def test_a_store_full_of_links_is_removed(store, outside):
    import_base(store)
    store.prepare("key", "base")
    for directory in (layer(store, 2), layer(store, "rm-9"), layer(store, "17")):
        plant(directory, outside)
    plant(os.path.join(store.root, "incoming"), outside)
    os.symlink(outside, layer(store, "rm-8"))
    os.symlink(os.path.join(outside, "kept"), os.path.join(store.root, "locks", "99"))
    ensure_store(store, "absent", force=True)
    assert not os.path.lexists(store.root)


@pytest.mark.parametrize("name", ["incoming", "locks"])
def test_a_directory_of_the_store_that_is_a_link(store, outside, name):
    store.prepare("key")
    store.remove("key")
    path = os.path.join(store.root, name)
    shutil.rmtree(path, ignore_errors=True)
    os.symlink(outside, path)
    ensure_store(store, "absent", force=True)
    assert not os.path.lexists(store.root)


def test_layers_that_are_somewhere_else_are_left_alone(store, outside):
    store.prepare("key")
    shutil.rmtree(os.path.dirname(layer(store, 1)))
    os.symlink(outside, os.path.dirname(layer(store, 1)))
    with pytest.raises(FailedPrecondition, match="is a link"):
        ensure_store(store, "absent", force=True)


# -- files on their way --------------------------------------------------------


@pytest.mark.parametrize("to", ["", "kept"])
def test_incoming_files_that_are_links_are_discarded(store, outside, to):
    incoming = os.path.join(store.root, "incoming")
    os.makedirs(incoming)
    name = os.path.join(incoming, DIGEST[len("sha256:") :])
    for path in (name, name + ".part"):
        os.symlink(os.path.join(outside, to), path)
    assert Staging(store.root, store.layers).discard(DIGEST)
    assert os.listdir(incoming) == []
