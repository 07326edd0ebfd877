# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the emulated layer store: layers, mounts, conversions, and the leftovers of a process that dies."""

from __future__ import annotations

import builtins
import codecs
import contextlib
import errno
import io
import itertools
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import reader
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import filetree
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.base_layer import TEMPLATE_SIZE
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import (
    FILESYSTEM_VARIABLE,
    EmulatedLayers,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import (
    MTIME,
    layer_tar,
    with_checksums,
    with_directories,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GIB = 1024**3
#: Modes of changed files. On Windows, a mode only tells whether the file is writable.
MODES = (0o644, 0o750, 0o440) if os.name == "posix" else (0o644, 0o444)

BASE = [
    ("Files", "directory"),
    ("Files/Windows", "directory"),
    ("Files/Windows/a.txt", b"a in the base"),
    ("Files/Windows/b.txt", b"b in the base"),
    ("Files/gone.txt", b"will be deleted"),
    ("Files/hard.txt", "hard link", "Files/Windows/b.txt"),
    ("Files/link", "symlink", "Windows\\a.txt"),
    ("Files/empty", b""),
]
UTILITY_VM = [("UtilityVM", "directory"), ("UtilityVM/Files", "directory"), ("UtilityVM/Files/k.exe", b"kernel")]


def tree(path):
    """Return everything below a path as a dictionary that tests can compare."""
    found = {}
    for directory, names, files in os.walk(path):
        for name in names + files:
            entry = os.path.join(directory, name)
            status = os.lstat(entry)
            key = os.path.relpath(entry, path).replace(os.sep, "/")
            mode = stat.S_IMODE(status.st_mode)
            if os.name == "nt":  # Windows has only the read-only attribute.
                mode &= 0o755
            if stat.S_ISLNK(status.st_mode):
                found[key] = ("link", os.readlink(entry))
            elif stat.S_ISDIR(status.st_mode):
                found[key] = ("directory", mode, status.st_mtime_ns)
            else:
                with open(entry, "rb") as file:
                    found[key] = (file.read(), mode, status.st_mtime_ns)
    return found


def writable(found):
    """Return the tree with all write bits set."""
    return {name: what if what[0] == "link" else (what[0], what[1] | 0o200, what[2]) for name, what in found.items()}


class Chain:
    """A store directory. The layer store makes all its layers."""

    def __init__(self, top):
        self.top = str(top)
        self.target = os.path.join(self.top, "mnt")
        self.layers = EmulatedLayers()

    def new(self, number):
        path = os.path.join(self.top, "snapshots", str(number))
        os.makedirs(path)
        return path

    def imported(self, number, parents, *entries):
        path = self.new(number)
        self.layers.import_layer(path, parents, io.BytesIO(layer_tar(*with_directories(entries))))
        return path

    def scratch(self, number, parents, size=0):
        path = self.new(number)
        self.layers.create_scratch(path, parents, size)
        return path

    def seen(self, directory, parents):
        """Return the tree that a read-only mount shows, but with write bits."""
        target = self.target + "-seen"
        self.layers.mount(directory, parents, target, True)
        result = writable(tree(target))
        self.layers.unmount(target)
        return result

    def write(self, name, data):
        with open(os.path.join(self.target, name), "w", encoding="utf-8") as file:
            file.write(data)


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path)


@pytest.fixture
def base(chain):
    return chain.imported(1, [], *BASE)


# -- import ----------------------------------------------------------------------


def test_a_base_layer(chain, base):
    files = tree(os.path.join(base, "Files"))
    assert files["Windows/a.txt"] == (b"a in the base", 0o644, MTIME)
    assert files["Windows"] == ("directory", 0o755, MTIME)
    assert files["link"] == ("link", "Windows\\a.txt")
    assert os.path.samefile(os.path.join(base, "Files/hard.txt"), os.path.join(base, "Files/Windows/b.txt"))
    assert sorted(os.listdir(base)) == ["Files", "Hives", "Layout", "blank-base.vhdx", "blank.vhdx"]
    assert os.listdir(os.path.join(base, "Hives")) == []
    assert os.path.samefile(os.path.join(base, "blank-base.vhdx"), os.path.join(base, "blank.vhdx"))
    info = chain.layers.template_info([base])
    assert (info.virtual_size, info.attached, info.volume_size) == (TEMPLATE_SIZE, False, None)
    assert info.file_size == os.path.getsize(os.path.join(base, "blank.vhdx"))


def test_the_result_describes_the_tar(chain):
    data = layer_tar(*BASE)
    result = chain.layers.import_layer(chain.new(1), [], io.BytesIO(data))
    assert (result.size, result.entries) == (len(data), len(BASE))
    assert result.digest.startswith("sha256:")


def test_attributes(chain):
    read_only = {"MSWINDOWS.fileattr": "33"}
    base = chain.imported(
        1, [], ("Files/r", b"", "", read_only), ("Files/d", "directory", "", {"MSWINDOWS.fileattr": "17"})
    )
    files = tree(os.path.join(base, "Files"))
    assert files["r"][1] == 0o444
    assert files["d"][1] == 0o755
    with pytest.raises(InvalidArgument, match="entry 'Files/x' is refused: it has file attributes"):
        chain.imported(2, [], ("Files/x", b"", "", {"MSWINDOWS.fileattr": "4294967296"}))


def test_a_second_layer(chain, base):
    layer = chain.imported(
        2,
        [base],
        ("Files/windows/A.txt", b"newer"),
        ("Files/gone.txt", "whiteout"),
        ("Files/parents", "hard link", "Files/WINDOWS/b.txt"),
        ("Hives/System_Delta", b"hive"),
    )
    assert sorted(os.listdir(layer)) == ["Files", "Hives", "tombstones.txt"]
    with open(os.path.join(layer, "tombstones.txt"), "rb") as file:
        assert file.read() == b"\xef\xbb\xbfVersion 1.0\n\\gone.txt\n"
    assert os.path.samefile(os.path.join(layer, "Files/parents"), os.path.join(base, "Files/Windows/b.txt"))
    scratch = chain.scratch(3, [layer, base])
    seen = chain.seen(scratch, [layer, base])
    assert sorted(seen) == ["empty", "hard.txt", "link", "parents", "windows", "windows/A.txt", "windows/b.txt"]
    assert seen["windows/A.txt"][0] == b"newer"


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ([("Files/a", b"x"), ("../evil", b"x")], InvalidArgument, "'../evil'"),
        ([("/evil", b"x")], InvalidArgument, "'/evil'"),
        ([("Files/l", "symlink", "../../evil")], NotImplementedHere, "a limit of emulated layers"),
        ([("Files/l", "symlink", "d"), ("Files/l/x", b"x")], InvalidArgument, "'Files/l/x'"),
        ([("Files/l", "hard link", "Files/nowhere")], InvalidArgument, "failed to find link target 'Files/nowhere'"),
        ([("Files/x", "whiteout")], InvalidArgument, "base layer cannot have tombstones"),
        ([("Files/d/e/a", b"x")], InvalidArgument, "'Files/d/e/a' comes before the directory that it is in"),
        ([("Files/d/l", "hard link", "Files/Windows/b.txt")], InvalidArgument, "'Files/d/l' comes before"),
        ([("UtilityVM/Files/x", b"x")], InvalidArgument, "'UtilityVM/Files/x' comes before the directory"),
        ([("Files/WINDOWS", "directory")], InvalidArgument, "'Files/Windows' is in the layer twice"),
        ([("Files/a", b"x", "", {"MSWINDOWS.fileattr": "48"})], InvalidArgument, "has the attribute of a directory"),
        ([("Files/a", b"", "", {"MSWINDOWS.rawsd": "?"})], InvalidArgument, "it has a damaged security descriptor"),
        ([("Files/a", b"", "", {"MSWINDOWS.xattr.n": "?"})], InvalidArgument, "it has a damaged extended attribute"),
        # Windows counts characters, not bytes.
        pytest.param(
            [("Files/" + "\u4e00" * 255, b"x")], InvalidArgument, "File name too long", marks=pytest.mark.posix
        ),
    ],
)
def test_a_refused_layer_leaves_nothing(chain, entries, error, text):
    path = chain.new(1)
    with pytest.raises(error) as caught:
        chain.layers.import_layer(path, [], io.BytesIO(layer_tar(*BASE[:3], *entries)))
    assert text in caught.value.message
    assert os.listdir(path) == []
    assert os.listdir(chain.top) == ["snapshots"]


@pytest.mark.parametrize("target", ["", "/usr/bin/x", "Files/../../../x", "../x", "d/../x", "x\0y"])
def test_a_link_that_this_host_would_follow_or_cannot_store_is_a_limit_of_emulated_layers(chain, target):
    path = chain.new(1)
    layer = layer_tar(*BASE[:3], ("Files/l", "symlink", target, {"linkpath": target}))
    with pytest.raises(NotImplementedHere, match="'Files/l' links to .*: this is a limit of emulated layers"):
        chain.layers.import_layer(path, [], io.BytesIO(layer))
    assert os.listdir(path) == []


@pytest.mark.posix
def test_links_that_mean_nothing_to_this_host_live_as_in_any_layer(chain, base):
    targets = ["D:\\data", "Files/C:\\bin\\busybox.exe", "\\\\server\\share", "\\\\?\\Volume{1}\\", "..\\..\\x", "C:"]
    links = [(f"Files/{number}", "symlink", target) for number, target in enumerate(targets)]
    path = chain.new(2)
    result = chain.layers.import_layer(path, [base], io.BytesIO(layer_tar(("Files", "directory"), *links)))
    assert len(result.warnings) == 1
    seen = chain.seen(path, [base])
    assert [seen[str(number)] for number in range(len(targets))] == [("link", target) for target in targets]
    exported = io.BytesIO()
    chain.layers.export_layer(path, [base], exported)
    exported.seek(0)
    assert [entry.link for entry in layertar.LayerReader(exported) if entry.kind == "symlink"] == targets


def test_whiteouts_of_what_is_missing_and_of_full_directories(chain):
    base = chain.imported(1, [], ("Files", "directory"), ("Files/d/a", b"a"), ("Files/d/e/b", b"b"), ("Files/x", b"x"))
    whiteouts = [(name, "whiteout") for name in ("Files/never", "Files/never/was", "Files/x/below", "Files/d")]
    layer = chain.imported(2, [base], ("Files", "directory"), *whiteouts)
    assert sorted(chain.seen(layer, [base])) == ["x"]
    second = chain.imported(3, [layer, base], ("Files/d/new", b"n"))
    assert sorted(chain.seen(second, [layer, base])) == ["d", "d/new", "x"]


def test_alternate_streams_are_accepted_and_not_kept(chain):
    names = ("Files/a", "Files/d", "Files/l")
    owners = [(names[0], b"x"), (names[1], "directory"), (names[2], "symlink", "a")]
    streams = [[owner, (f"{owner[0]}:Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")] for owner in owners]
    layer = chain.imported(1, [], ("Files", "directory"), *itertools.chain(*streams))
    assert sorted(tree(os.path.join(layer, "Files"))) == ["a", "d", "l"]
    with pytest.raises(InvalidArgument, match="'Files/b:Zone.Identifier' is refused"):
        chain.imported(2, [], ("Files/b:Zone.Identifier", b"x"), ("Files/b", b"x"))


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([("Files", "directory"), ("Files/d/e", b"x")], "'Files/d/e' comes before the directory that it is in"),
        ([("Files", "directory"), ("Files/d/l", "hard link", "Files/hard.txt")], "'Files/d/l' comes before"),
        ([("Files", "directory"), ("Files/x.$WciDirs$", b"")], "would describe a directory"),
        ([("UtilityVM/Files/new/x", b"x")], "'UtilityVM/Files/new/x' comes before the directory that it is in"),
        (
            [("Files", "directory"), ("Files/l", "hard link", "UtilityVM/Files/k.exe")],
            "invalid hard link in layer: 'Files/l' links to 'UtilityVM/Files/k.exe'",
        ),
    ],
)
def test_what_windows_refuses_in_a_layer_with_parents(chain, entries, text):
    base = chain.imported(1, [], *BASE, *UTILITY_VM)
    path = chain.new(2)
    with pytest.raises(InvalidArgument) as caught:
        chain.layers.import_layer(path, [base], io.BytesIO(layer_tar(*entries)))
    assert text in caught.value.message
    assert os.listdir(path) == []


def test_a_truncated_layer_leaves_nothing(chain):
    path = chain.new(1)
    with pytest.raises(InvalidArgument, match="cut off, after entry 'Files/Windows/b.txt'"):
        chain.layers.import_layer(path, [], io.BytesIO(layer_tar(*BASE[:4])[:-1024]))
    assert os.listdir(path) == []


@pytest.mark.posix
def test_a_file_that_cannot_be_written_leaves_nothing(chain):
    import resource

    path = chain.new(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(SnapshotterError, match="cannot import a layer into"):
            chain.layers.import_layer(path, [], io.BytesIO(layer_tar(*BASE, ("Files/big", bytes(2 << 20)))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(path) == []


def test_import_wants_an_empty_directory(chain, base):
    before = tree(base)
    with pytest.raises(FailedPrecondition, match="is not empty"):
        chain.layers.import_layer(base, [], io.BytesIO(layer_tar(*BASE)))
    assert tree(base) == before


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_layers_stay_in_their_directory(chain, data):
    sample = layer_tar(
        ("Files/d", "directory"),
        ("Files/d/a", b"a" * 600, "", {"MSWINDOWS.fileattr": "33"}),
        ("Files/l", "symlink", "d\\a"),
        ("Files/h", "hard link", "Files/d/a"),
        ("Files/d/gone", "whiteout"),
    )
    layer = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(sample.rstrip(b"\0"))))
        layer[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = os.path.join(chain.top, "layer")
    os.makedirs(os.path.join(chain.top, "parent", "Files"), exist_ok=True)
    os.mkdir(path)
    try:
        chain.layers.import_layer(path, [os.path.join(chain.top, "parent")], io.BytesIO(with_checksums(bytes(layer))))
    except SnapshotterError:
        assert os.listdir(path) == []
    assert sorted(os.listdir(chain.top)) == ["layer", "parent"]
    assert os.listdir(os.path.join(chain.top, "parent")) == ["Files"]
    chain.layers.destroy(path)


# -- the utility VM --------------------------------------------------------------


def test_utility_vm_templates_and_scratch(chain):
    base = chain.imported(1, [], *BASE, *UTILITY_VM)
    assert sorted(os.listdir(os.path.join(base, "UtilityVM"))) == [
        "Files",
        "SystemTemplate.vhdx",
        "SystemTemplateBase.vhdx",
    ]
    path = chain.new(2)
    chain.layers.create_uvm_scratch(path, [base])
    chain.layers.create_scratch(path, [base], 0)
    assert sorted(os.listdir(path)) == ["sandbox.vhdx", "vm"]
    assert os.listdir(os.path.join(path, "vm")) == ["sandbox.vhdx"]


def test_utility_vm_that_is_missing(chain, base):
    path = chain.new(2)
    with pytest.raises(FailedPrecondition) as caught:
        chain.layers.create_uvm_scratch(path, [base])
    assert caught.value.message.startswith(f'failed to find UtilityVM directory in base layer "{base}"')
    os.mkdir(os.path.join(base, "UtilityVM"))
    with pytest.raises(FailedPrecondition) as caught:
        chain.layers.create_uvm_scratch(path, [base])
    template = os.path.join(base, "UtilityVM", "SystemTemplate.vhdx")
    assert caught.value.message == f'"{template}" does not exist in Utility VM image'
    with pytest.raises(FailedPrecondition, match="no parent layers present"):
        chain.layers.create_uvm_scratch(path, [])
    assert os.listdir(path) == []


def test_a_layer_that_changes_the_utility_vm(chain):
    more = [("UtilityVM/Files/d/x", b"x"), ("UtilityVM/Files/d/y", b"y")]
    base = chain.imported(1, [], *BASE, *UTILITY_VM, *more)
    before = tree(base)
    layer = chain.imported(2, [base], ("UtilityVM/Files/K.exe", b"newer"), ("UtilityVM/Files/D/x", "whiteout"))
    assert sorted(os.listdir(os.path.join(layer, "UtilityVM/Files"))) == ["K.exe", "d"]
    assert os.listdir(os.path.join(layer, "UtilityVM/Files/d")) == ["y"]
    assert tree(base) == before
    first, second = io.BytesIO(), io.BytesIO()
    chain.layers.export_layer(layer, [base], first)
    copy = chain.new(3)
    first.seek(0)
    chain.layers.import_layer(copy, [base], first)
    chain.layers.export_layer(copy, [base], second)
    assert first.getvalue() == second.getvalue()
    assert tree(os.path.join(copy, "UtilityVM/Files")) == tree(os.path.join(layer, "UtilityVM/Files"))


def test_a_directory_takes_the_place_of_an_inherited_link(chain):
    base = chain.imported(
        1, [], *BASE, *UTILITY_VM, ("UtilityVM/Files/d/x", b"x"), ("UtilityVM/Files/l", "symlink", "d")
    )
    layer = chain.imported(2, [base], ("UtilityVM/Files/l", "directory"), ("UtilityVM/Files/l/y", b"y"))
    assert tree(os.path.join(layer, "UtilityVM/Files")).keys() == {"d", "d/x", "k.exe", "l", "l/y"}


def test_nothing_is_written_through_a_link_of_a_parent(chain):
    base = chain.imported(
        1, [], *BASE, *UTILITY_VM, ("UtilityVM/Files/l", "symlink", "d"), ("Files/s", "symlink", "Windows")
    )
    link = ("Files/h", "hard link", "Files/s/a.txt")
    for number, entries in enumerate(([("UtilityVM/Files/l/x", b"x")], [("Files", "directory"), link]), start=2):
        with pytest.raises(InvalidArgument, match="below a link of a parent"):
            chain.layers.import_layer(chain.new(number), [base], io.BytesIO(layer_tar(*entries)))


# -- scratch disks ---------------------------------------------------------------


def test_scratch_sizes(chain, base):
    path = chain.scratch(2, [base])
    assert chain.layers.scratch_info(path).virtual_size == TEMPLATE_SIZE
    assert chain.layers.grow_scratch(path, 40 * GIB).virtual_size == 40 * GIB
    assert chain.layers.grow_scratch(path, GIB).virtual_size == 40 * GIB
    info = chain.layers.scratch_info(path)
    assert (info.path, info.virtual_size, info.attached) == (os.path.join(path, "sandbox.vhdx"), 40 * GIB, False)
    assert info.file_size == os.path.getsize(info.path)
    other = chain.new(3)
    chain.layers.create_scratch(other, [path, base], GIB)
    assert chain.layers.scratch_info(other).virtual_size == TEMPLATE_SIZE
    with pytest.raises(AlreadyExists):
        chain.layers.create_scratch(other, [base], 0)
    assert chain.layers.scratch_info(other)


def test_scratch_errors_leave_nothing(chain, base):
    path = chain.new(2)
    with pytest.raises(FailedPrecondition, match="^no parent layers present$"):
        chain.layers.create_scratch(path, [], 0)
    with pytest.raises(InvalidArgument):
        chain.layers.create_scratch(path, [base], 65 * 1024 * GIB)
    with pytest.raises(NotFound, match="has no scratch disk"):
        chain.layers.grow_scratch(path, GIB)
    template = os.path.join(base, "blank.vhdx")
    with open(template, "r+b") as file:
        file.write(b"damaged!")
    with pytest.raises(FailedPrecondition):
        chain.layers.create_scratch(path, [base], 0)
    os.unlink(template)
    with pytest.raises(FailedPrecondition, match=re.escape(f"failed to open {template}")):
        chain.layers.create_scratch(path, [base], 0)
    assert os.listdir(path) == []
    assert chain.layers.scratch_info(path) is None


# -- mounts ----------------------------------------------------------------------


def test_what_is_written_is_there_after_unmount_convert_and_in_children(chain, base):
    scratch = chain.scratch(2, [base])
    before = tree(base)
    chain.layers.mount(scratch, [base], chain.target, False)
    assert chain.layers.mounted_at(scratch) == [chain.target]
    assert chain.layers.scratch_info(scratch).attached
    assert tree(chain.target).keys() == {
        "Windows",
        "Windows/a.txt",
        "Windows/b.txt",
        "gone.txt",
        "hard.txt",
        "link",
        "empty",
    }
    chain.write("Windows/a.txt", "changed")
    chain.write("new.txt", "new")
    os.chmod(os.path.join(chain.target, "new.txt"), MODES[-1])
    os.unlink(os.path.join(chain.target, "gone.txt"))
    os.unlink(os.path.join(chain.target, "empty"))
    os.mkdir(os.path.join(chain.target, "empty"))
    os.symlink("new.txt", os.path.join(chain.target, "to-new"))
    expected = tree(chain.target)
    chain.layers.unmount(chain.target)
    assert os.listdir(chain.target) == []
    assert chain.layers.mounted_at(scratch) == []
    assert sorted(os.listdir(chain.top)) == ["mnt", "snapshots"]
    assert tree(base) == before
    chain.layers.mount(scratch, [base], chain.target, False)
    assert tree(chain.target) == expected
    chain.layers.unmount(chain.target)
    chain.layers.convert(scratch, [base])
    chain.layers.convert(scratch, [base])
    with open(os.path.join(scratch, "tombstones.txt"), encoding="utf-8-sig") as file:
        assert file.read() == "Version 1.0\n\\gone.txt\n"
    child = chain.scratch(3, [scratch, base])
    chain.layers.mount(child, [scratch, base], chain.target, False)
    assert tree(chain.target) == expected
    chain.layers.unmount(chain.target)
    assert os.path.exists(os.path.join(scratch, "sandbox.vhdx"))
    # containerd's mount of a view describes a committed layer like this: the layer over its parents.
    chain.layers.mount(scratch, [base], chain.target, True)
    assert tree(chain.target).keys() == expected.keys()


def test_unmounting_takes_the_smallest_difference(chain, base):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.layers.unmount(chain.target)
    assert tree(os.path.join(scratch, "sandbox.contents")).keys() == {"Files", "tombstones.txt"}
    chain.layers.mount(scratch, [base], chain.target, False)
    path = os.path.join(chain.target, "Windows/a.txt")
    with open(path, "r+b") as file:
        file.write(b"A")
    os.utime(path, ns=(MTIME, MTIME))
    os.utime(os.path.join(chain.target, "Windows"), ns=(MTIME, MTIME))
    chain.layers.unmount(chain.target)
    assert tree(os.path.join(scratch, "sandbox.contents/Files")).keys() == {"Windows", "Windows/a.txt"}


def test_a_directory_and_a_file_take_each_others_place(chain, base):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    shutil.rmtree(os.path.join(chain.target, "Windows"))
    chain.write("Windows", "a file now")
    os.unlink(os.path.join(chain.target, "gone.txt"))
    os.mkdir(os.path.join(chain.target, "gone.txt"))
    chain.write("gone.txt/inside", "x")
    os.rename(os.path.join(chain.target, "empty"), os.path.join(chain.target, "EMPTY"))
    expected = tree(chain.target)
    chain.layers.unmount(chain.target)
    chain.layers.mount(scratch, [base], chain.target, False)
    assert tree(chain.target) == expected


def test_a_read_only_mount_forgets_what_is_written(chain, base):
    scratch = chain.scratch(2, [base])
    before = chain.seen(scratch, [base])
    chain.layers.mount(scratch, [base], chain.target, True)
    assert all(what[0] == "link" or not what[1] & 0o222 for what in tree(chain.target).values())
    os.chmod(os.path.join(chain.target, "gone.txt"), 0o600)
    chain.write("gone.txt", "changed")
    chain.layers.unmount(chain.target)
    assert os.listdir(chain.target) == []
    assert chain.seen(scratch, [base]) == before
    assert not os.path.exists(os.path.join(scratch, "sandbox.contents"))


def test_mounting_again_changes_nothing(chain, base):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.write("new.txt", "new")
    before = tree(chain.target)
    chain.layers.mount(scratch, [base], chain.target, False)
    assert tree(chain.target) == before
    mounted = re.escape(f"{scratch} is mounted at {chain.target} already (for writing): unmount it first")
    with pytest.raises(FailedPrecondition, match=mounted):
        chain.layers.mount(scratch, [base], chain.target, True)
    other = chain.scratch(3, [base])
    with pytest.raises(FailedPrecondition, match="is a mount of"):
        chain.layers.mount(other, [base], chain.target, False)
    for read_only in (False, True):
        with pytest.raises(FailedPrecondition, match=mounted):
            chain.layers.mount(scratch, [base], chain.target + "2", read_only)
    with pytest.raises(FailedPrecondition, match=re.escape(f"is mounted for writing at {chain.target}")):
        chain.layers.convert(scratch, [base])
    assert chain.layers.mounted_at(scratch) == [chain.target]
    assert tree(chain.target) == before
    assert not os.path.exists(chain.target + "2")


def test_a_mounted_disk_does_not_grow(chain, base):
    scratch = chain.scratch(2, [base])
    for read_only in (False, True):
        chain.layers.mount(scratch, [base], chain.target, read_only)
        message = f"scratch disk of {scratch} cannot grow while it is mounted at {chain.target}: unmount it first"
        for layers in (chain.layers, DryRun(chain.layers)):
            with pytest.raises(FailedPrecondition, match=re.escape(message)):
                layers.grow_scratch(scratch, 40 * GIB)
        chain.layers.unmount(chain.target)
    assert chain.layers.grow_scratch(scratch, 40 * GIB)[1:4:2] == (40 * GIB, False)


def test_targets_that_will_not_do(chain, base):
    scratch = chain.scratch(2, [base])
    os.mkdir(chain.target)
    chain.write("there", "x")
    with pytest.raises(FailedPrecondition, match="is not an empty directory"):
        chain.layers.mount(scratch, [base], chain.target, False)
    with pytest.raises(FailedPrecondition, match="is not an empty directory"):
        chain.layers.mount(scratch, [base], os.path.join(chain.target, "there"), False)
    os.symlink(chain.new("elsewhere"), os.path.join(chain.top, "link"))
    with pytest.raises(FailedPrecondition, match="is not an empty directory"):
        chain.layers.mount(scratch, [base], os.path.join(chain.top, "link"), False)
    for target in (os.path.join(scratch, "mnt"), scratch, os.path.dirname(scratch), os.path.join(base, "Files", "mnt")):
        with pytest.raises(InvalidArgument, match="lie in one another"):
            chain.layers.mount(scratch, [base], target, False)
    with pytest.raises(InvalidArgument, match="root of a volume"):
        chain.layers.mount(scratch, [base], "/", False)
    assert chain.layers.mounted_at(scratch) == []
    assert tree(chain.target).keys() == {"there"}


def test_unmounting_what_is_not_mounted(chain, base):
    chain.layers.unmount(os.path.join(chain.top, "missing", "deep"))
    os.mkdir(chain.target)
    chain.write("kept", "x")
    chain.layers.unmount(chain.target)
    assert os.listdir(chain.target) == ["kept"]
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target + "2", False)
    shutil.rmtree(chain.target + "2")
    chain.layers.unmount(chain.target + "2")
    assert chain.layers.mounted_at(scratch) == []
    assert "gone.txt" in chain.seen(scratch, [base])


def test_a_read_only_layer_is_not_mounted_for_writing(chain, base):
    layer = chain.imported(2, [base])
    with pytest.raises(FailedPrecondition, match="is a read-only layer"):
        chain.layers.mount(layer, [base], chain.target, False)
    assert "gone.txt" in chain.seen(layer, [base])
    assert not os.path.exists(chain.target)


def test_a_base_in_the_making_can_be_written_after_a_conversion_that_was_for_nothing(chain):
    base = chain.new(1)
    chain.layers.create_base(base)
    chain.layers.convert(base, [])
    chain.layers.mount(base, [], chain.target, False)
    chain.write("late", "x")
    chain.layers.unmount(chain.target)
    chain.layers.convert(base, [])
    assert chain.seen(base, []).keys() == {"late"}


@pytest.mark.posix
@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: os.mkfifo(os.path.join(path, "fifo")), "neither a file nor a directory"),
        (lambda path: os.symlink("/etc/passwd", os.path.join(path, "out")), "absolute path of another system"),
        (lambda path: os.symlink("../out", os.path.join(path, "out")), "leads out of the layer"),
        (lambda path: os.mkdir(os.path.join(path, "WINDOWS")), "the same file to Windows"),
        (lambda path: os.mkdir(os.path.join(path, "a\\b")), "rename it"),
        (lambda path: os.mkdir(os.path.join(os.fsencode(path), b"\xff")), "not Unicode"),
    ],
)
def test_what_windows_cannot_hold_stops_the_unmount_and_loses_nothing(chain, base, spoil, text):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.write("new.txt", "new")
    spoil(chain.target)
    before = set(os.listdir(chain.target))
    with pytest.raises(FailedPrecondition, match=text):
        chain.layers.unmount(chain.target)
    assert set(os.listdir(chain.target)) == before
    (extra,) = before - {"Windows", "gone.txt", "hard.txt", "link", "empty", "new.txt"}
    filetree.remove(os.path.join(chain.target, extra))
    chain.layers.unmount(chain.target)
    assert chain.seen(scratch, [base])["new.txt"][0] == b"new"


def test_unmounting_a_layer_that_is_gone_loses_nothing(chain, base):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.layers.destroy(scratch)
    with pytest.raises(FailedPrecondition, match="is gone, so there is no place for what was written"):
        chain.layers.unmount(chain.target)
    assert "gone.txt" in os.listdir(chain.target)
    assert not os.path.exists(scratch)


def test_a_damaged_record_is_named(chain, base):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    record = os.path.join(chain.top, ".mnt.wcow-mount.json")
    with open(record, "w", encoding="ascii") as file:
        file.write("{")
    with pytest.raises(FailedPrecondition, match=re.escape(f"{record} is damaged")):
        chain.layers.unmount(chain.target)


@pytest.mark.parametrize("state", ["filling", "mounted", "saved"])
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("names", ["other", "gone", "unmounted", "mounted"])
def test_a_forged_record_moves_nothing(chain, base, names, read_only, state):
    """Another user can write a record beside a directory, and name any layer in it."""
    layers = {"unmounted": chain.scratch(2, [base]), "mounted": chain.scratch(3, [base])}
    chain.layers.mount(layers["mounted"], [base], chain.new("elsewhere") + "/mnt", False)
    other = os.path.join(chain.new("other"), "1")
    os.makedirs(os.path.join(other, "Files"))
    layers.update(other=other, gone=os.path.join(chain.top, "gone"))
    for path in (os.path.join(other, "Files", "config"), os.path.join(chain.new("victim"), "keep")):
        with open(path, "w", encoding="ascii") as file:
            file.write("precious")
    target = os.path.join(chain.top, "victim")
    record = os.path.join(chain.top, ".victim.wcow-mount.json")
    with open(record, "w", encoding="ascii") as file:
        named = {"directory": layers[names], "target": target, "read_only": read_only, "state": state}
        json.dump({**named, "parents": [base]}, file)

    def tree():
        return sorted(os.path.join(place, name) for place, _names, files in os.walk(chain.top) for name in files)

    before = [path for path in tree() if not path.endswith(".lock")]
    with pytest.raises(FailedPrecondition, match=r"is not the record of a mount|is gone, so there is no place"):
        chain.layers.unmount(target)
    assert [path for path in tree() if not path.endswith(".lock")] == before


@pytest.mark.parametrize("record", [[], {}, 7, {"directory": 1}, {"directory": "/", "target": "/", "parents": "x"}])
def test_a_record_of_another_shape_is_damaged(chain, record):
    path = os.path.join(chain.top, ".mnt.wcow-mount.json")
    with open(path, "w", encoding="ascii") as file:
        json.dump(record, file)
    with pytest.raises(FailedPrecondition, match=re.escape(f"{path} is damaged")):
        chain.layers.unmount(chain.target)


@pytest.mark.posix
def test_a_record_that_is_not_a_file_is_damaged(chain):
    path = os.path.join(chain.top, ".mnt.wcow-mount.json")
    for make in (os.mkfifo, os.mkdir, lambda place: os.symlink("/dev/zero", place)):
        make(path)
        with pytest.raises(FailedPrecondition, match=re.escape(f"{path} is damaged")):
            chain.layers.unmount(chain.target)
        filetree.remove(path)


def test_a_mount_in_a_mount(chain, base):
    scratch, other = chain.scratch(2, [base]), chain.scratch(3, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    with pytest.raises(InvalidArgument, match=re.escape(f"lies in the mount at {chain.target}")):
        chain.layers.mount(other, [base], os.path.join(chain.target, "Windows", "deep"), False)


def test_a_damaged_tombstones_file_is_named(chain, base):
    layer = chain.imported(2, [base], ("Files/a", b""))
    scratch = chain.scratch(3, [layer, base])
    for damage in (b"", b"Version 1.0\n", b"\xef\xbb\xbfVersion 1.0\n\\\xff\n"):
        with open(os.path.join(layer, "tombstones.txt"), "wb") as file:
            file.write(damage)
        file = re.escape(os.path.join(layer, "tombstones.txt"))
        with pytest.raises(FailedPrecondition, match=f"invalid tombstones file {file}"):
            chain.layers.mount(scratch, [layer, base], chain.target, False)
    assert not os.path.exists(chain.target)


def test_a_file_system_without_hard_links(chain, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    base = chain.imported(1, [], *BASE)
    disks = [os.path.join(base, name) for name in ("blank-base.vhdx", "blank.vhdx")]
    assert [reader.read_info(disk).virtual_size for disk in disks] == [TEMPLATE_SIZE] * 2
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.write("hard.txt", "changed")
    chain.layers.unmount(chain.target)
    chain.layers.convert(scratch, [base])
    seen = chain.seen(chain.scratch(3, [scratch, base]), [scratch, base])
    assert (seen["hard.txt"][0], seen["Windows/b.txt"][0]) == (b"changed", b"b in the base")


def test_two_processes_do_not_mount_one_layer_at_a_time(chain, base):
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    lock = FileLock(os.path.join(scratch, "sandbox.mounts.lock"))
    assert lock.acquire()
    with lock:
        for action in (
            lambda: chain.layers.mount(scratch, [base], chain.target + "2", True),
            lambda: chain.layers.unmount(chain.target),
        ):
            with pytest.raises(Unavailable, match="another process"):
                action()
    chain.layers.unmount(chain.target)


def test_128_layers(chain, base):
    parents = [base]
    for number in range(2, 129):
        entries = [
            (f"Files/f{number}", b"x"),
            (f"Files/f{number - 1}", "whiteout"),
            ("Files/Windows/a.txt", b"%d" % number),
        ]
        parents.insert(0, chain.imported(number, parents, *entries))
    scratch = chain.scratch(200, parents)
    seen = chain.seen(scratch, parents)
    assert [name for name in seen if name.startswith("f")] == ["f128"]
    assert seen["Windows/a.txt"][0] == b"128"


# -- unfinished bases -------------------------------------------------------------


def test_a_base_layer_through_prepare_and_commit(chain):
    path = chain.new(1)
    chain.layers.create_base(path)
    assert os.listdir(path) == ["Files"]
    for text in ("one", "two"):
        chain.layers.mount(path, [], chain.target, False)
        chain.write("a.txt", text)
        chain.layers.unmount(chain.target)
    chain.layers.convert(path, [])
    chain.layers.convert(path, [])
    assert {"Files", "Hives", "Layout", "blank-base.vhdx", "blank.vhdx"} <= set(os.listdir(path))
    scratch = chain.scratch(2, [path])
    assert chain.seen(scratch, [path])["a.txt"][0] == b"two"


def test_a_base_in_the_making_that_gets_parents(chain, base):
    path = chain.new(2)
    chain.layers.create_base(path)
    chain.layers.mount(path, [], chain.target, False)
    chain.write("a.txt", "mine")
    chain.layers.unmount(chain.target)
    chain.layers.convert(path, [base])
    assert not os.path.exists(os.path.join(path, "blank.vhdx"))
    assert {"a.txt", "gone.txt"} <= chain.seen(path, [base]).keys()


def test_there_must_be_something_to_convert(chain, base):
    with pytest.raises(FailedPrecondition, match="has neither a scratch disk nor Files"):
        chain.layers.convert(chain.new(2), [base])


# -- export ----------------------------------------------------------------------


@pytest.mark.posix
def test_export_is_stable_and_comes_back_the_same(chain, base):
    layer = chain.imported(
        2,
        [base],
        ("Files/Windows/" + "n" * 150, b"long name"),
        ("Files/ro", b"", "", {"MSWINDOWS.fileattr": "33"}),
        ("Files/link", "symlink", "C:\\Windows"),
        ("Files/h1", b"two names"),
        ("Files/h2", "hard link", "Files/h1"),
        ("Files/gone.txt", "whiteout"),
        ("Files/Windows/b.txt", "whiteout"),
        ("Hives/System_Delta", b"hive"),
    )
    for number, directory, parents in ((10, base, []), (11, layer, [base])):
        first, second = io.BytesIO(), io.BytesIO()
        chain.layers.export_layer(directory, parents, first)
        copy = chain.new(number)
        chain.layers.import_layer(copy, parents, io.BytesIO(first.getvalue()))
        for part in ("Files", "Hives"):
            assert tree(os.path.join(copy, part)).keys() == tree(os.path.join(directory, part)).keys()
        assert tree(os.path.join(copy, "Files")) == tree(os.path.join(directory, "Files"))
        chain.layers.export_layer(copy, parents, second)
        assert first.getvalue() == second.getvalue()
    names = [entry.name for entry in layertar.LayerReader(io.BytesIO(first.getvalue())) if entry.kind == "hard link"]
    assert names == ["Files/h2"]
    with (
        open(os.path.join(layer, "tombstones.txt"), "rb") as one,
        open(os.path.join(copy, "tombstones.txt"), "rb") as other,
    ):
        assert one.read() == other.read()


def test_a_scratch_is_exported_with_what_was_written(chain, base):
    scratch = chain.scratch(2, [base])
    stream = io.BytesIO()
    chain.layers.export_layer(scratch, [base], stream)
    assert [entry.name for entry in layertar.LayerReader(io.BytesIO(stream.getvalue()))] == ["Files"]
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.write("new.txt", "new")
    chain.layers.unmount(chain.target)
    stream = io.BytesIO()
    chain.layers.export_layer(scratch, [base], stream)
    assert [entry.name for entry in layertar.LayerReader(io.BytesIO(stream.getvalue()))] == ["Files", "Files/new.txt"]


# -- destruction -----------------------------------------------------------------


def test_destroy_follows_no_link(chain, base):
    outside = chain.new("outside")
    with open(os.path.join(outside, "kept"), "w", encoding="ascii"):
        pass
    os.symlink(outside, os.path.join(base, "Files", "out"))
    os.symlink(outside, os.path.join(chain.top, "link"))
    chain.layers.destroy(base)
    chain.layers.destroy(os.path.join(chain.top, "link"))
    chain.layers.destroy(os.path.join(chain.top, "link"))
    assert not os.path.exists(base)
    assert not os.path.lexists(os.path.join(chain.top, "link"))
    assert os.listdir(outside) == ["kept"]


@pytest.mark.posix
def test_destroy_of_a_tree_deeper_than_any_path(chain):
    path = chain.new(1)
    handle = os.open(path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=handle)
        below = os.open("directory", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    chain.layers.destroy(path)
    assert not os.path.exists(path)


def unprivileged(action):
    """Run ``action`` in a process that is not root; return its exit code: 0 if it succeeded, otherwise 1.

    The checkout and Python's own files may be readable only for root. So the
    caller must have loaded all modules that ``action`` uses.
    """
    # Python loads a codec at its first use.
    codecs.lookup("ascii")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            action()
            code = 0
        except BaseException:  # noqa: BLE001 - the exit code tells the parent
            traceback.print_exc()
        finally:
            # Also if the traceback cannot be printed: this process must not go on as a second pytest.
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.posix
def test_destroy_and_unmount_of_read_only_parts_without_being_root():
    def action(chain, refused):
        base = chain.imported(1, [], *BASE, ("Files/ro/d/x", b"", "", {"MSWINDOWS.fileattr": "33"}))
        scratch = chain.scratch(2, [base])
        chain.layers.mount(scratch, [base], chain.target, True)
        with pytest.raises(PermissionError) if refused else contextlib.nullcontext():
            chain.write("gone.txt", "x")
        chain.layers.unmount(chain.target)
        for directory in ("Files/ro/d", "Files/ro", "Files"):
            os.chmod(os.path.join(base, directory), 0o500)
        chain.layers.destroy(base)
        assert not os.path.exists(base)

    with tempfile.TemporaryDirectory() as top, tempfile.TemporaryDirectory() as own:
        if os.geteuid() == 0:
            # This loads the modules that the layer store imports when it needs them.
            action(Chain(own), refused=False)
            os.chown(top, 65534, 65534)
        assert unprivileged(lambda: action(Chain(top), refused=True)) == 0


@pytest.mark.posix
def test_destroy_says_what_it_cannot_delete(chain, base, monkeypatch):
    # Windows refuses like this while another program keeps the file open.
    def refuse(name, **_):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(filetree, "_REMOVAL_PAUSE", 0)
    monkeypatch.setattr(os, "unlink", refuse)
    # The file system decides which file comes first, such as blank-base.vhdx.
    with pytest.raises(FailedPrecondition, match=rf"cannot delete layer {re.escape(base)}: [\w.-]+: Permission denied"):
        chain.layers.destroy(base)
    monkeypatch.undo()
    chain.layers.destroy(base)
    assert not os.path.exists(base)


@pytest.mark.posix
def test_holders_are_named(chain, base):
    target = chain.target
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], target, True)
    disk = os.path.join(scratch, "sandbox.vhdx")
    programs = {"file = open(sys.argv[1])": disk, "os.chdir(sys.argv[1])": os.path.join(scratch, "vm")}
    os.mkdir(os.path.join(scratch, "vm"))
    processes = []
    for statement, path in programs.items():
        program = f"import os, sys; {statement}; print(os.getpid(), flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == f"{process.pid}\n"
        processes.append(process)
    found = chain.layers.holders(scratch)
    neighbour = chain.layers.holders(base)
    for process in processes:
        process.communicate("", timeout=20)
    assert found[0] == f"mounted at {target}"
    expected = [
        rf"process {process.pid} \(.+\) has {re.escape(path)} open"
        for process, path in zip(processes, programs.values())
    ]
    assert len(found) == 3
    for pattern in expected:
        assert any(re.fullmatch(pattern, phrase) for phrase in found[1:])
    assert neighbour == []
    chain.layers.unmount(target)
    assert chain.layers.holders(scratch) == []
    assert chain.layers.holders(scratch + "-none") == []


def test_only_windows_deletes_at_its_next_start(chain, base):
    for layers in (chain.layers, DryRun(chain.layers)):
        with pytest.raises(NotImplementedHere, match="only Windows can delete .* at its next start"):
            layers.destroy_at_restart(base)
    assert os.path.isdir(base)


def test_disk_usage(chain, base):
    usage = chain.layers.disk_usage(base)
    disk = os.path.getsize(os.path.join(base, "blank.vhdx"))
    content = len("a in the base") + len("b in the base") + len("will be deleted")
    assert usage.size == disk + content
    # In order: Files, Windows, Hives and the layer itself; the link; four files; Layout; the disk with its two names.
    assert usage.inodes == 4 + 1 + 4 + 1 + 1
    with pytest.raises(NotFound, match="does not exist"):
        chain.layers.disk_usage(os.path.join(chain.top, "missing"))


@pytest.mark.posix
def test_file_system_type_and_paths(chain, monkeypatch):
    assert chain.layers.filesystem_type("/anything") == "NTFS"
    monkeypatch.setenv(FILESYSTEM_VARIABLE, "FAT32")
    assert chain.layers.filesystem_type("/anything") == "FAT32"
    monkeypatch.setenv("WCOW_EMULATED_DRIVES", chain.top)
    native = chain.layers.native("C:\\data\\wcow")
    assert native == os.path.join(chain.top, "C/data/wcow")
    assert chain.layers.display_path(native) == "C:\\data\\wcow"
    with pytest.raises(FailedPrecondition, match=r'base layer "C:\\data\\wcow"'):
        chain.layers.create_uvm_scratch(chain.new(1), [native])


# -- random changes --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_random_changes_survive_commits(chain, seed):
    """Each layer gets random changes. Its child shows exactly the tree that the layer had at its unmount."""
    chance = random.Random(seed)
    parents = [chain.imported(1, [], *BASE)]
    for number in range(2, 6):
        scratch = chain.scratch(number, parents)
        for _ in range(2):
            chain.layers.mount(scratch, parents, chain.target, False)
            for _ in range(8):
                change(chance, chain.target)
            expected = tree(chain.target)
            chain.layers.unmount(chain.target)
        chain.layers.convert(scratch, parents)
        parents.insert(0, scratch)
        child = chain.scratch(f"{number}-child", parents)
        chain.layers.mount(child, parents, chain.target, False)
        assert tree(chain.target) == expected
        chain.layers.unmount(chain.target)


def change(chance, top):
    directories = [top, *(os.path.join(where, name) for where, names, _ in os.walk(top) for name in names)]
    path = os.path.join(chance.choice(directories), chance.choice("abcde"))
    if os.path.lexists(path):
        if chance.random() < 0.6:
            filetree.remove(path)
        elif os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.W_OK):
            with open(path, "ab") as file:
                file.write(b"more")
        else:
            return
    if os.path.lexists(path) or chance.random() < 0.3:
        return
    kind = chance.choice(["file", "file", "directory", "link"])
    if kind == "directory":
        os.mkdir(path)
    elif kind == "link":
        os.symlink("target", path)
    else:
        with open(path, "wb") as file:
            file.write(chance.randbytes(chance.choice([0, 10, 1000])))
        os.chmod(path, chance.choice(MODES))


# -- a process dies --------------------------------------------------------------

STEPS = ("mkdir", "rename", "replace", "unlink", "rmdir", "link", "symlink", "utime", "fsync")


def dies_at(step, action):
    """Run ``action`` in a process that dies before its ``step``-th change on disk; return False if it completed."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(call):
            def wrapper(*arguments, **options):
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(9)
                return call(*arguments, **options)

            return wrapper

        try:
            for name in STEPS:
                setattr(os, name, counted(getattr(os, name)))
            made = os.open
            os.open = lambda path, flags, *rest, **options: (counted(made) if flags & os.O_CREAT else made)(
                path, flags, *rest, **options
            )
            opened = builtins.open
            builtins.open = lambda file, mode="r", *rest, **options: (
                counted(opened) if set(mode) & set("wxa+") else opened
            )(file, mode, *rest, **options)
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the exit code tells the parent
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.fixture
def written(chain, base):
    """The path of a scratch that has contents."""
    scratch = chain.scratch(2, [base])
    chain.layers.mount(scratch, [base], chain.target, False)
    chain.write("first.txt", "first")
    chain.write("other.txt", "other")
    os.unlink(os.path.join(chain.target, "empty"))
    chain.layers.unmount(chain.target)
    return scratch


def each_death(chain, action, prepare=lambda: None):
    """Let ``action`` die at each of its steps, from the same state on disk; yield the step after each death."""
    prepare()
    saved = chain.top + "-saved"
    os.rename(chain.top, saved)
    for step in range(1, 1000):
        filetree.remove(chain.top)
        shutil.copytree(saved, chain.top, symlinks=True)
        if not dies_at(step, action):
            assert step > 10
            return
        yield step
    raise AssertionError("it never came to its end")


@pytest.mark.posix
def test_dying_in_an_unmount(chain, base, written):
    def prepare():
        chain.layers.mount(written, [base], chain.target, False)
        chain.write("second.txt", "second")
        chain.write("first.txt", "first, changed")
        os.unlink(os.path.join(chain.target, "gone.txt"))
        expected.update(tree(chain.target))

    expected = {}
    for _ in each_death(chain, lambda: chain.layers.unmount(chain.target), prepare):
        assert chain.layers.mounted_at(written) in ([], [chain.target])
        chain.layers.unmount(chain.target)
        assert os.listdir(chain.target) == []
        assert chain.layers.mounted_at(written) == []
        assert chain.seen(written, [base]) == writable(expected)
        chain.layers.mount(written, [base], chain.target, False)
        assert tree(chain.target) == expected


@pytest.mark.posix
def test_dying_in_a_mount(chain, base, written):
    expected = chain.seen(written, [base])
    for step in each_death(chain, lambda: chain.layers.mount(written, [base], chain.target, False)):
        if step % 2:
            chain.layers.unmount(chain.target)
            assert chain.layers.mounted_at(written) == []
        chain.layers.mount(written, [base], chain.target, False)
        assert tree(chain.target) == expected
        chain.layers.unmount(chain.target)
        assert chain.seen(written, [base]) == expected


@pytest.mark.posix
def test_dying_in_a_conversion(chain, base, written):
    expected = chain.seen(written, [base])
    for step in each_death(chain, lambda: chain.layers.convert(written, [base])):
        if step % 2:
            assert chain.seen(written, [base]) == expected
        chain.layers.convert(written, [base])
        assert not any(name.endswith((".new", ".old")) for name in os.listdir(written))
        child = chain.scratch(3, [written, base])
        assert chain.seen(child, [written, base]) == expected


@pytest.mark.posix
def test_dying_in_the_conversion_of_a_base_layer(chain):
    path = chain.new(1)
    chain.layers.create_base(path)
    os.makedirs(os.path.join(path, "UtilityVM", "Files"))
    for _ in each_death(chain, lambda: chain.layers.convert(path, [])):
        chain.layers.convert(path, [])
        assert chain.layers.template_info([path]).virtual_size == TEMPLATE_SIZE
        assert sorted(os.listdir(path)) == ["Files", "Hives", "Layout", "UtilityVM", "blank-base.vhdx", "blank.vhdx"]
        uvm = ["Files", "SystemTemplate.vhdx", "SystemTemplateBase.vhdx"]
        assert sorted(os.listdir(os.path.join(path, "UtilityVM"))) == uvm
