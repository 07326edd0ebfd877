# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that configuration files are written all or none, and keep their owner and access rights."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import config_change
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.config_change import (
    Change,
    FileChange,
    apply,
    read,
    revert,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, Unavailable

pytestmark = pytest.mark.posix


def change(*files: FileChange) -> Change:
    return Change(files, True, config_change.CONTAINERD, ())


def mode_of(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def test_files_are_written_and_reverted(tmp_path: pathlib.Path) -> None:
    old, new, gone = (str(tmp_path / name) for name in ("old", "made/new", "gone"))
    pathlib.Path(old).write_bytes(b"1")
    pathlib.Path(gone).write_bytes(b"2")
    os.chmod(old, 0o640)
    both = change(FileChange(old, b"1", b"11"), FileChange(new, None, b"3", old), FileChange(gone, b"2", None))
    apply(both)
    assert (read(old), read(new), read(gone)) == (b"11", b"3", None)
    assert (mode_of(old), mode_of(new)) == (0o640, 0o640)
    revert(both)
    assert (read(old), read(new), read(gone)) == (b"1", None, b"2")
    assert mode_of(old) == 0o640
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["gone", "made", "old"]


def test_a_link_stays_a_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    apply(change(FileChange(str(tmp_path / "link"), b"1", b"2")))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"2"


@pytest.mark.parametrize("before", [None, b"0"])
def test_a_file_that_changed_meanwhile_is_not_touched(tmp_path: pathlib.Path, before: Any) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    pathlib.Path(second).write_bytes(b"1")
    with pytest.raises(Unavailable, match="b has changed since it was read; run the task again"):
        apply(change(FileChange(first, None, b"x"), FileChange(second, before, b"2")))
    assert (read(first), read(second)) == (None, b"1")


def test_an_error_restores_the_files_before(tmp_path: pathlib.Path) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    (tmp_path / "c.wcow.new").mkdir()
    pathlib.Path(first).write_bytes(b"1")
    pathlib.Path(second).write_bytes(b"2")
    os.chmod(second, 0o440)
    with pytest.raises(FailedPrecondition, match="b is read-only"):
        apply(change(FileChange(first, b"1", b"x"), FileChange(second, b"2", b"y")))
    with pytest.raises(FailedPrecondition, match="cannot write .*/c: "):
        apply(change(FileChange(first, b"1", None), FileChange(str(tmp_path / "c"), None, b"y")))
    assert (read(first), read(second)) == (b"1", b"2")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c.wcow.new"]


def test_a_leftover_of_a_killed_task_is_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.wcow.new").write_bytes(b"half")
    apply(change(FileChange(str(tmp_path / "a"), None, b"1")))
    assert os.listdir(tmp_path) == ["a"]
