# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test findings about single snapshots."""

from __future__ import annotations

import os

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations


def test_quick_does_not_visit_layers(store: Snapshotter) -> None:
    situations.usage_drift(store)
    assert situations.codes(store, quick=True) == []
    assert situations.codes(store) == ["usage_drift"]


def test_links(store: Snapshotter) -> None:
    file = situations.path(store, "snapshots", "2", "Files", "many")
    with open(file, "wb"):
        pass
    for number in range(1, 1001):
        os.link(file, f"{file}{number}")
    store.remove("look")
    found = {finding.code: finding for finding in check(store).findings}
    assert found["links_near_limit"].message.endswith('of "app" has 1001 names; NTFS allows 1023')
