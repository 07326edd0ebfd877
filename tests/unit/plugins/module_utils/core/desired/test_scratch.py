# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test growth of scratch disks, and disks that cannot grow."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.scratch import ensure_scratch
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task

GIB = 1024**3


def test_scratch(task: Task) -> None:
    task.store.prepare("a", "base")
    done = task(ensure_scratch, "a", "60GB")
    assert done.result["previous_size"] == 20 * GIB
    assert done.result["scratch"]["virtual_size"] == 60 * GIB
    assert done.result["actions"] == ["grow a"]
    assert not task(ensure_scratch, "a", "30GB").changed
    task.fails(NotFound, '"nothing": snapshot does not exist', ensure_scratch, "nothing", "60GB")
    task.fails(
        FailedPrecondition,
        '"base" is a committed snapshot; only the scratch disk of an active snapshot can grow',
        ensure_scratch,
        "base",
        "60GB",
    )
    task.store.prepare("bare", "")
    task.fails(FailedPrecondition, '"bare" has no scratch disk', ensure_scratch, "bare", "60GB")


@pytest.mark.parametrize("size", ["0", "-1", "1e9", "40", 40, "40G B", "65TB", True])
def test_bad_sizes(task: Task, size: Any) -> None:
    task.store.prepare("a", "base")
    task.fails(InvalidArgument, "rootfs_size: ", ensure_scratch, "a", size)
