# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the parts of the Windows layer store that work without Windows. tests/wine tests the rest."""

from __future__ import annotations

import ast
import ctypes
import inspect
import ntpath
import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import creation
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.base import disk_info
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.windows import destroy_process
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.windows.store import WindowsLayers

GIB = 1024**3


@pytest.fixture
def layers():
    """A layer store whose constructor does not run, because the constructor checks the host."""
    return object.__new__(WindowsLayers)


@pytest.fixture
def base(tmp_path):
    """A base layer directory with the files that scratch disks need."""
    directory = tmp_path / "1"
    (directory / "UtilityVM").mkdir(parents=True)
    creation.create(directory / "blank.vhdx", 20 * GIB)
    return str(directory)


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "2").mkdir()
    return str(tmp_path / "2")


@pytest.mark.posix
def test_other_hosts_are_refused():
    with pytest.raises(NotImplementedHere, match="layers: emulated works on every host"):
        WindowsLayers()


@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("C:\\data", "C:\\data"),
        ("c:/data/./x/../store/", "c:\\data\\store"),
        ("C:\\..\\data", "C:\\data"),
        ("C:\\", "C:\\"),
        ("\\\\?\\C:\\data", "C:\\data"),
    ],
)
def test_native(layers, path, native):
    assert layers.native(path) == native
    assert layers.display_path(native) == native


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data",
        "C:data",
        "C:",
        "\\data",
        "/data",
        "\\\\host\\share",
        "\\\\?\\UNC\\host\\share",
        "\\\\?\\Volume{1}\\x",
    ],
)
def test_paths_without_a_drive_are_refused(layers, path):
    with pytest.raises(InvalidArgument, match=r"such as C:\\data$|^the path is empty"):
        layers.native(path)


@pytest.mark.parametrize("path", ["C:\\a:b", "C:\\a?b", "C:\\" + "a" * 256, "C:\\\ud800"])
def test_names_that_ntfs_refuses(layers, path):
    with pytest.raises(InvalidArgument, match="choose another name"):
        layers.native(path)


def test_a_path_in_which_yaml_saw_an_escape(layers):
    with pytest.raises(InvalidArgument, match=r"the control character that YAML makes of \\t in double quotes"):
        layers.native("C:\\a\tb")


def test_a_nul_is_refused(layers):
    with pytest.raises(InvalidArgument):
        layers.native("C:\\a\0b")


@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("c:/images/x.tar", "c:\\images\\x.tar"),
        ("\\\\files\\images\\x.tar", "\\\\files\\images\\x.tar"),
        ("//files/images/./x.tar", "\\\\files\\images\\x.tar"),
        ("\\\\?\\UNC\\files\\images\\a\\..\\..\\x.tar", "\\\\files\\images\\x.tar"),
        ("\\\\files\\images", "\\\\files\\images"),
    ],
)
def test_what_a_task_reads_may_be_on_a_share(layers, path, native):
    assert layers.native_source(path) == native
    # Some versions of Python do not treat a share as absolute unless a separator follows it.
    assert ntpath.isabs(native + "\\")


@pytest.mark.parametrize("path", ["\\\\.\\PhysicalDrive0", "\\\\?\\Volume{1}\\x", "\\\\files", "images\\x.tar"])
def test_what_a_task_cannot_read(layers, path):
    with pytest.raises(InvalidArgument):
        layers.native_source(path)


def test_scratch_is_a_copy_of_the_template(layers, base, directory):
    layers.create_scratch(directory, ["other", base], 0)
    scratch = os.path.join(directory, "sandbox.vhdx")
    assert disk_info(scratch, attached=False) == (scratch, 20 * GIB, os.path.getsize(scratch), False, None)
    with open(scratch, "rb") as copy, open(layers.template_info([base]).path, "rb") as template:
        assert copy.read() == template.read()


def test_a_read_only_template_is_copied(layers, base, directory):
    os.chmod(os.path.join(base, "blank.vhdx"), 0o444)
    layers.create_scratch(directory, [base], 0)
    assert os.stat(os.path.join(directory, "sandbox.vhdx")).st_mode & 0o200


def test_a_template_that_only_windows_reads_is_copied(layers, base, directory):
    with open(os.path.join(base, "blank.vhdx"), "wb") as file:
        file.write(b"a disk from the future")
    layers.create_scratch(directory, [base], 0)
    assert os.path.getsize(os.path.join(directory, "sandbox.vhdx")) == 22
    with pytest.raises(FailedPrecondition):
        layers.template_info([base])


def test_a_size_above_the_limit_leaves_no_file(layers, base, directory):
    with pytest.raises(InvalidArgument, match="64 TiB"):
        layers.create_scratch(directory, [base], 1 << 50)
    assert os.listdir(directory) == []


def test_what_a_scratch_needs(layers, base, directory):
    with pytest.raises(FailedPrecondition, match="no parent layers present"):
        layers.create_scratch(directory, [], 0)
    with pytest.raises(FailedPrecondition, match="no parent layers present"):
        layers.create_uvm_scratch(directory, [])
    os.unlink(os.path.join(base, "blank.vhdx"))
    with pytest.raises(FailedPrecondition, match=r"failed to open .*blank\.vhdx"):
        layers.create_scratch(directory, [base], 0)
    assert os.listdir(directory) == []
    assert layers.scratch_info(directory) is None
    with pytest.raises(NotFound, match="has no scratch disk"):
        layers.grow_scratch(directory, GIB)


def test_utility_vm_scratch(layers, base, directory):
    with pytest.raises(FailedPrecondition, match="does not exist in Utility VM image"):
        layers.create_uvm_scratch(directory, [base])
    with open(os.path.join(base, "UtilityVM", "SystemTemplate.vhdx"), "wb") as file:
        file.write(b"template")
    layers.create_uvm_scratch(directory, [base])
    with open(os.path.join(directory, "vm", "sandbox.vhdx"), "rb") as file:
        assert file.read() == b"template"
    with pytest.raises(FailedPrecondition, match="failed to find UtilityVM directory in base layer"):
        layers.create_uvm_scratch(directory, [directory])


def test_layers_that_were_never_attached_cost_no_dll(layers, directory, monkeypatch):
    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(ctypes, "WinDLL", refuse, raising=False)
    assert layers.mounted_at(directory) == []
    layers.destroy(os.path.join(directory, "missing"))
    layers.discard(directory)
    assert not os.path.exists(directory)


def test_the_helper_that_destroys_is_a_program_of_its_own():
    """Another Python runs the source of the helper, so the helper must not import other modules of the core."""
    source = inspect.getsource(destroy_process)
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or ""))
    assert imported == {"ctypes", "subprocess", "sys", "typing"}
