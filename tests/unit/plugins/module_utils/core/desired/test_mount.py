# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test mounts of snapshots."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.mount import ensure_mount
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task


def test_mount(task: Task, tmp_path: Any) -> None:
    target = str(tmp_path / "m")
    task.store.prepare("a", "base")
    done = task(ensure_mount, "mounted", "a", target)
    assert done.result["mount"] == {"key": "a", "target": target, "read_only": False}
    assert done.result["actions"] == ["mount a"]
    with open(os.path.join(target, "hello"), "w") as file:
        file.write("x")
    task.fails(FailedPrecondition, "is mounted at", ensure_snapshot, "absent", key="a")
    assert task(ensure_mount, "unmounted", target=target).result["actions"] == [f"unmount {target}"]
    assert os.listdir(target) == []
    assert task(ensure_snapshot, "committed", name="c", key="a").changed
    assert task(ensure_snapshot, "view", key="v", parent="c").changed
    assert task(ensure_mount, "mounted", "v", target).result["mount"]["read_only"]
    assert os.listdir(target) == ["hello"]
    assert task(ensure_mount, "unmounted", key="v").changed
    assert not task(ensure_mount, "unmounted", key="nothing").changed


def test_mounts_that_are_refused(task: Task, tmp_path: Any) -> None:
    target = str(tmp_path / "m")
    task.store.prepare("a", "base")
    task.fails(InvalidArgument, "state 'on' is not one of", ensure_mount, "on", "a", target)
    task.fails(InvalidArgument, "state=mounted needs key and target", ensure_mount, "mounted", "a")
    task.fails(InvalidArgument, "needs exactly one of key and target", ensure_mount, "unmounted", "a", target)
    task.fails(NotFound, '"gone": snapshot does not exist', ensure_mount, "mounted", "gone", target)
    task.fails(FailedPrecondition, '"base" is a committed .*; mount a view', ensure_mount, "mounted", "base", target)
    task.fails(InvalidArgument, "is not absolute", ensure_mount, "mounted", "a", "here")
