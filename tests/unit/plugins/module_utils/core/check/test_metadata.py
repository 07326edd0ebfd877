# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test findings about the metadata file."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations


def test_metadata_of_a_newer_release_is_not_damage(store: Snapshotter) -> None:
    store.close()
    with situations.metadata(store) as tables:
        tables.execute("PRAGMA user_version = 99")
    for repair in (False, True):
        with pytest.raises(FailedPrecondition, match="was written by a newer version of the collection"):
            check_store(Snapshotter(store.root, EmulatedLayers()), repair=repair)


def test_the_root_of_another_snapshotter_is_not_a_store(store: Snapshotter) -> None:
    situations.missing_metadata(store)
    with open(situations.path(store, "metadata.db"), "wb"):
        pass
    again = Snapshotter(store.root, EmulatedLayers())
    for use in (lambda: check_store(again, inventory=True), again.walk):
        with pytest.raises(
            FailedPrecondition, match=r"belongs to containerd: .*metadata.db exists\. .* Name another root"
        ):
            use()
