# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store that all tests of the check start with."""

from __future__ import annotations

import os
from typing import Callable

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check.situations import path


@pytest.fixture
def store(open_store: Callable[..., Snapshotter]) -> Snapshotter:
    """The chain ``base`` (id 1), ``app`` (2), ``work`` (3, with a 40 GiB disk), and ``look`` (4), a view of ``app``."""
    opened = open_store()
    opened.prepare("b", "")
    os.makedirs(path(opened, "snapshots", "1", "UtilityVM", "Files"))
    opened.commit("base", "b")
    add_committed(opened, "app", "base")
    ensure_snapshot(opened, "active", key="work", parent="app", rootfs_size="40GB", uvm_scratch=True)
    opened.view("look", "app")
    return opened
