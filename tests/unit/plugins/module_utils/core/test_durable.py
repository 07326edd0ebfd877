# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that survive a power cut; that they are flushed is shown in tests/reliability/test_power_loss.py."""

from __future__ import annotations

import os
import pathlib
import stat

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.durable import make_directories


def test_all_that_is_missing_is_made(tmp_path: pathlib.Path) -> None:
    make_directories(str(tmp_path / "a" / "b"))
    make_directories(str(tmp_path / "a" / "b"))
    assert os.listdir(tmp_path / "a") == ["b"]


@pytest.mark.posix
def test_only_the_owner_may_enter(tmp_path: pathlib.Path) -> None:
    umask = os.umask(0o022)
    try:
        make_directories(str(tmp_path / "a" / "b"))
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")]
    assert modes == [0o755, 0o700]


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    make_directories(str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) & 0o755 == 0o755


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_the_way(tmp_path: pathlib.Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_directories(str(tmp_path / "file" / below))
    assert os.listdir(tmp_path) == ["file"]
