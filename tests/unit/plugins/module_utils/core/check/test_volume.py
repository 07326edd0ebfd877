# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test findings about the volume."""

from __future__ import annotations

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations


def test_free_space(store: Snapshotter) -> None:
    assert situations.codes(store, minimum_free=1) == []
    report = check_store(store, minimum_free="64TB")
    assert [finding["code"] for finding in report.result["findings"]] == ["low_free_space"]
