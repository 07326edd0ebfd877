# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test findings about links in a store, and about entries that other accounts own or can change."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations


@pytest.mark.parametrize(
    "name",
    [
        "incoming",
        "locks",
        "snapshots",
        "snapshots/3",
        # Windows does not rename an open file.
        pytest.param("metadata.sqlite3", marks=pytest.mark.posix),
    ],
)
def test_nothing_is_repaired_through_a_link(store: Snapshotter, tmp_path: Any, name: str) -> None:
    """The link may lead to files that look like leftovers of this store."""
    victim = tmp_path / "victim"
    victim.mkdir()
    for kept in ("7", "rm-8", "0" * 64, "1" * 64 + ".part"):
        (victim / kept).write_text("precious")
        situations.make_old(str(victim / kept))
    situations.removed_layer(store)
    place = os.path.normpath(situations.path(store, name))
    if os.path.lexists(place):
        os.rename(place, tmp_path / "moved")
    os.symlink(victim, place)

    report = check_store(store, repair=True).result
    (finding,) = [finding for finding in report["findings"] if finding["code"] == "linked_directory"]
    assert finding["message"] == f"{place} is a link to {victim}; it is not followed"
    assert (finding["path"], finding["severity"], finding["repaired"]) == (place, "error", False)
    assert sorted(os.listdir(victim)) == sorted(["7", "rm-8", "0" * 64, "1" * 64 + ".part"])
    if name != "snapshots/3":
        with pytest.raises(
            FailedPrecondition, match=re.escape(f"{place} is a link to {victim}, but a store keeps its")
        ):
            store.prepare("next", "app")
    else:
        with pytest.raises(FailedPrecondition, match=re.escape(f"{place} is a link to {victim}")):
            store.commit("next", "work")
        store.remove("work")
    assert sorted(os.listdir(victim)) == sorted(["7", "rm-8", "0" * 64, "1" * 64 + ".part"])


@pytest.mark.posix
def test_a_store_that_is_not_safe_is_repaired_first_or_not_at_all(store: Snapshotter) -> None:
    situations.removed_layer(store)
    situations.shared_locks(store)
    (finding,) = check(store, repair=True, only=["leftover_removal"]).findings
    assert finding.repaired is False
    assert "locks can be changed by other users, so what is there cannot be trusted" in finding.action
    assert situations.codes(store, repair=True) == ["leftover_removal", "unprotected_entry"]
    assert situations.codes(store) == []


def test_a_root_of_containerd_is_not_repaired(store: Snapshotter) -> None:
    situations.removed_layer(store)
    with open(situations.path(store, "metadata.db"), "w"):
        pass
    for finding in check(store, repair=True).findings:
        assert (finding.repaired, finding.action[:14]) == (False, "not repaired: ")
        assert "belongs to containerd" in finding.action
