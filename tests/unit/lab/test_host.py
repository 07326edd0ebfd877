# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test Windows paths and the files of a lab node."""

from __future__ import annotations

import os
import sys

import pytest

from lab.host import PYTHON, HostFiles


@pytest.fixture
def files(tmp_path):
    files = HostFiles("node1", tmp_path)
    files.create(with_python=True)
    return files


@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("C:\\Temp\\x.txt", "C/Temp/x.txt"),
        ("c:/Temp/x.txt", "C/Temp/x.txt"),
        ("D:\\", "D"),
        ("C:\\PROGRAM files\\New\\x", "C/Program Files/New/x"),
        ("C:\\a\\.\\b\\..\\c", "C/a/c"),
        ("C:\\..\\..\\..\\etc\\passwd", "C/etc/passwd"),
        ("C:\\a\\\\b\\", "C/a/b"),
    ],
)
def test_the_local_path_of_a_windows_path(files, path, native):
    assert files.native(path) == files.directory / native


@pytest.mark.parametrize(
    "path", ["", "x.exe", "C:", "C:x", "\\x", "/etc/passwd", "\\\\server\\share", "C:\\a\0b", "C:\\a:b"]
)
def test_a_path_that_is_not_absolute_has_no_local_path(files, path):
    assert files.native(path) is None


def test_an_exact_name_wins_over_another_case(files):
    for name in ("readme", "README"):
        (files.directory / "C" / name).touch()
    assert files.native("C:\\README").name == "README"
    assert files.native("C:\\readme").name == "readme"


def test_the_python_of_a_node_is_the_real_interpreter(files):
    program = files.program(PYTHON.upper())
    assert program is not None
    assert os.path.realpath(program) == os.path.realpath(sys.executable)


def test_another_python(tmp_path):
    files = HostFiles("node1", tmp_path)
    files.create(with_python=True, interpreter="/bin/sh")
    assert os.path.realpath(files.native(PYTHON)) == os.path.realpath("/bin/sh")


def test_a_node_without_python(files):
    files.create(with_python=False)
    assert files.program(PYTHON) is None


def test_only_executable_files_are_programs(files):
    plain = files.directory / "C" / "plain.exe"
    plain.touch(mode=0o644)
    assert files.program("C:\\plain.exe") is None
    assert files.program("C:\\Windows") is None
    plain.chmod(0o755)
    assert files.program("C:\\PLAIN.exe") == plain


def test_the_environment_contains_only_variables_of_the_node(files):
    environment = files.environment()
    assert environment["COMPUTERNAME"] == "node1"
    assert environment["WCOW_EMULATED_DRIVES"] == str(files.directory)
    assert environment["ProgramData"] == str(files.native("C:\\ProgramData"))
    assert set(environment) == {
        "PATH", "HOME", "TEMP", "TMP", "TMPDIR", "ProgramFiles", "ProgramData", "COMPUTERNAME", "WCOW_EMULATED_DRIVES",
    }  # fmt: skip


def test_a_python_that_a_play_has_installed_stays(tmp_path):
    files = HostFiles("node1", tmp_path)
    files.create(with_python=False)
    installed = files.native(PYTHON)
    installed.parent.mkdir(parents=True)
    installed.write_text("#!/bin/sh\n")
    for with_python in (True, False):
        files.create(with_python)
        assert installed.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize("umask", [0, 0o002, 0o022])
def test_other_users_cannot_write_to_a_node(tmp_path, umask):
    before = os.umask(umask)
    try:
        files = HostFiles("node1", tmp_path / "node1")
        files.create(with_python=True)
        (files.directory / "D").chmod(0o777)
        files.create(with_python=True)
    finally:
        os.umask(before)
    assert sorted(path.name for path in files.directory.iterdir()) == ["C", "D"]
    directories = [path for path in [files.directory, *files.directory.rglob("*")] if path.is_dir()]
    assert [path for path in directories if path.stat().st_mode & 0o777 != 0o755] == []


def test_texts_show_windows_paths(files):
    top = files.directory
    assert files.display(f"[Errno 2] No such file: '{top}/C/a b/c'") == "[Errno 2] No such file: 'C:\\a b\\c'"
    assert files.display(f"{top}/C: full") == "C:\\: full"
