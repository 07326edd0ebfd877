# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the files of the service: what is written, what is refused, and what a changed file does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import protection
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import versions


def test_a_version_is_written_protected_and_recognised(home, make_version):
    version = make_version()
    assert not versions.is_intact(os.path.join(home, version.name), version.files)
    directory = versions.write(home, version)
    assert directory == os.path.join(home, version.name)
    assert sorted(os.listdir(directory)) == ["core.zip", "start.py"]
    assert versions.is_intact(directory, version.files)
    assert protection.is_protected(home)
    assert protection.is_protected(directory)
    versions.refuse_unsafe(directory)
    # Again, over the same files.
    versions.write(home, version)
    assert versions.list_versions(home) == [version.name]
    assert versions.version_of(version.name) == "1.0.0"


def test_a_version_is_named_by_its_contents(make_version):
    names = {
        make_version().name,
        make_version("1.0.1").name,
        make_version(module="core.serve.windows_service").name,
        versions.make_version("1.0.0", b"other boot", b"boot", "core.serve.emulated_service").name,
    }
    assert len(names) == 4
    assert make_version().name == make_version().name
    assert all(versions.is_version(name) for name in names)
    for name in ("logs", "1.0.0", "..-0123456789ab", "a/b-0123456789ab", "1.0.0-0123456789abc"):
        assert not versions.is_version(name)


@pytest.mark.parametrize("damage", ["content", "missing", pytest.param("link", marks=pytest.mark.posix)])
def test_a_changed_version_is_not_intact_and_is_repaired(home, make_version, damage, tmp_path):
    version = make_version()
    directory = versions.write(home, version)
    path = os.path.join(directory, "core.zip")
    if damage == "content":
        with open(path, "ab") as file:
            file.write(b"x")
    else:
        os.unlink(path)
        if damage == "link":
            (tmp_path / "elsewhere").write_bytes(version.files["core.zip"])
            os.symlink(tmp_path / "elsewhere", path)
    assert not versions.is_intact(directory, version.files)
    versions.write(home, version)
    assert versions.is_intact(directory, version.files)


@pytest.mark.posix
def test_a_version_that_others_can_change_is_refused(home, make_version):
    version = make_version()
    directory = versions.write(home, version)
    os.chmod(directory, 0o755)
    assert not versions.is_intact(directory, version.files)
    with pytest.raises(FailedPrecondition, match="other accounts can access"):
        versions.refuse_unsafe(directory)


@pytest.mark.posix
def test_a_python_that_others_can_change_is_refused(tmp_path):
    program = tmp_path / "python" / "python.exe"
    program.parent.mkdir()
    program.write_text("")
    program.chmod(0o777)
    with pytest.raises(FailedPrecondition, match="can be changed by other users, and a service of SYSTEM would run it"):
        versions.refuse_interpreter(str(program))
    program.chmod(0o755)
    versions.refuse_interpreter(str(program))
    program.parent.chmod(0o777)
    with pytest.raises(FailedPrecondition, match="can be changed by other users"):
        versions.refuse_interpreter(str(program))


def test_launchers_are_refused_on_windows(monkeypatch, tmp_path):
    """A virtual environment and the Store start a second process, which the service manager does not know."""
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(protection, "fault", lambda *_: "")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    versions.refuse_interpreter(r"C:\Python\python.exe")
    with pytest.raises(FailedPrecondition, match="is the launcher of another Python"):
        versions.refuse_interpreter(r"C:\Users\a\AppData\Local\Microsoft\WindowsApps\python.exe")
    monkeypatch.setattr(sys, "prefix", r"C:\venv")
    with pytest.raises(FailedPrecondition, match=r"set wcow_python to it"):
        versions.refuse_interpreter(r"C:\venv\Scripts\python.exe")


def test_a_directory_with_other_files_is_refused(home, make_version):
    os.makedirs(os.path.join(home, "logs"))
    versions.refuse_foreign(home)
    with open(os.path.join(home, "notes.txt"), "w", encoding="ascii"):
        pass
    with pytest.raises(FailedPrecondition, match=r"has notes.txt, which are not of the proxy snapshotter"):
        versions.write(home, make_version())
    assert versions.remove_home(home) == ["notes.txt"]


@pytest.mark.posix
def test_a_link_is_not_followed(home, make_version, tmp_path):
    (tmp_path / "target").mkdir()
    os.symlink(tmp_path / "target", home)
    with pytest.raises(FailedPrecondition, match="is a link to"):
        versions.write(home, make_version())
    assert versions.remove_home(home) == []
    assert os.listdir(tmp_path / "target") == []
    os.unlink(home)
    version = make_version()
    os.mkdir(home, 0o700)
    os.symlink(tmp_path / "target", os.path.join(home, version.name))
    assert not versions.remove(home, version.name)
    with pytest.raises(FailedPrecondition, match="is a link to"):
        versions.write(home, version)


def test_everything_is_removed(home, make_version):
    versions.write(home, make_version())
    versions.write(home, make_version("2.0.0"))
    os.mkdir(os.path.join(home, "logs"))
    assert versions.remove(home, make_version().name)
    assert versions.list_versions(home) == [make_version("2.0.0").name]
    assert versions.remove_home(home) == []
    assert not os.path.exists(home)
    assert versions.remove_home(home) == []


def test_a_core_without_a_payload_cannot_be_installed():
    with pytest.raises(FailedPrecondition, match="does not run from the payload"):
        versions.own_version("1.0.0", "core.serve.emulated_service")
    with pytest.raises(InvalidArgument, match="has other characters"):
        versions.own_version("../x", "core.serve.emulated_service")


def test_a_changed_payload_is_not_executed(home, make_version):
    directory = versions.write(home, make_version())
    with open(os.path.join(directory, "core.zip"), "r+b") as file:
        file.write(b"print('executed')")
    done = subprocess.run(
        [sys.executable, "-I", os.path.join(directory, "start.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "core.zip beside this program was changed: it was not executed" in done.stderr


def test_the_last_problem_in_a_log(tmp_path):
    log = tmp_path / "service.log"
    assert versions.last_problem(str(log)) == ""
    log.write_text("2026-01-01 00:00:00,000 INFO fine\n")
    assert versions.last_problem(str(log)) == ""
    log.write_text("x ERROR first\ny ERROR cannot start: no right\nz INFO stopped\n" + "more\n" * 10)
    assert versions.last_problem(str(log)) == "cannot start: no right"
    assert versions.last_problem(str(log), size=20) == ""
