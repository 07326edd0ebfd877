# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test findings about disks."""

from __future__ import annotations

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations


def test_an_inventory_with_a_disk_that_cannot_be_read(store: Snapshotter) -> None:
    situations.two_headers(store)
    inventory = check_store(store, inventory=True).result["inventory"]
    assert {snapshot["name"]: bool(snapshot["scratch"]) for snapshot in inventory} == {
        "app": False,
        "base": False,
        "look": False,
        "work": False,
    }
    assert all(snapshot["usage"] for snapshot in inventory)
    assert "usage" not in check_store(store, inventory=True, quick=True).result["inventory"][0]
