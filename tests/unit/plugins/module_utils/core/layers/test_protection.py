# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which entries of a store are safe from other accounts, and their protection."""

from __future__ import annotations

import os
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import protection
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.protection import (
    fault,
    is_protected,
    protect,
)


@pytest.mark.posix
def test_modes(tmp_path: Any) -> None:
    inside = tmp_path / "inside"
    inside.mkdir(0o755)
    tmp_path.chmod(0o755)
    assert not is_protected(str(tmp_path))
    protect(str(tmp_path))
    assert is_protected(str(tmp_path))
    assert os.stat(inside).st_mode & 0o777 == 0o755


@pytest.mark.posix
def test_faults(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = tmp_path / "entry"
    assert fault(str(entry)) == ""
    for mode, expected in ((0o700, ""), (0o755, ""), (0o720, "can be changed by other users"), (0o702, "can be")):
        entry.mkdir(exist_ok=True)
        entry.chmod(mode)
        assert fault(str(entry)).startswith(expected)
        assert bool(fault(str(entry))) is bool(expected)
    for target in (str(tmp_path / "other"), "other", str(tmp_path / "x" / ".." / "other")):
        link = tmp_path / "link"
        link.symlink_to(target)
        assert fault(str(link)) == f"is a link to {tmp_path / 'other'}"
        assert fault(str(link), lambda path: "C:\\" + os.path.basename(path)) == "is a link to C:\\other"
        link.unlink()


def test_an_entry_that_another_task_creates_meanwhile(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not exist when it was examined, although it exists now."""
    entry = tmp_path / "entry"

    class Missing(SnapshotterError):
        winerror = 2

    def examine(_path: str) -> Any:
        entry.mkdir()
        if os.name == "nt":
            raise Missing("CreateFile: The system cannot find the file specified. (0x2)")
        raise FileNotFoundError(2, "No such file or directory")

    if os.name == "nt":
        monkeypatch.setattr(protection, "link_fault", lambda _path, _display: "")
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import advapi32

        monkeypatch.setattr(advapi32, "read_security", examine)
    else:
        monkeypatch.setattr(os, "lstat", examine)
    assert fault(str(entry)) == ""


@pytest.mark.posix
def test_nothing_is_protected_through_a_link_or_under_another_name(tmp_path: Any) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match="link"):
        protect(str(tmp_path / "link"))
    os.link(victim, tmp_path / "name")
    with pytest.raises(FailedPrecondition, match=r"has 2 names \(hard links\): delete the others"):
        protect(str(tmp_path / "name"))
    assert victim.stat().st_mode & 0o777 == 0o644
    (tmp_path / "name").unlink()
    protect(str(victim))
    assert victim.stat().st_mode & 0o777 == 0o600


if hasattr(os, "geteuid") and os.geteuid() == 0:

    def test_entries_of_another_user(tmp_path: Any) -> None:
        os.chown(tmp_path, 65534, 65534)
        assert fault(str(tmp_path)) == "belongs to the user 65534"
        tmp_path.chmod(0o700)
        assert not is_protected(str(tmp_path))
        protect(str(tmp_path))
        assert os.stat(tmp_path).st_uid == 0
        assert is_protected(str(tmp_path))
