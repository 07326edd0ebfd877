# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test a check as a whole: its reply, its options, running processes and the catalogue of codes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.findings import CODES
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.store_check import check_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations, test_containerd


def parameters(table: Dict[str, List[situations.Maker]]) -> List[Any]:
    return [pytest.param(code, make, id=f"{code}-{make.__name__}") for code, makes in table.items() for make in makes]


@pytest.mark.parametrize(("code", "make"), parameters(situations.REPAIRABLE))
def test_repair(store: Snapshotter, code: str, make: situations.Maker) -> None:
    situations.assert_repaired(store, code, make)


@pytest.mark.parametrize(("code", "make"), parameters(situations.LEFT_ALONE))
def test_no_repair(store: Snapshotter, code: str, make: situations.Maker) -> None:
    situations.assert_left_alone(store, code, make)


def test_healthy_store(store: Snapshotter) -> None:
    before = situations.read_all(store)
    report = check_store(store)
    assert report.result["findings"] == []
    assert report.result["healthy"] is True
    assert report.result["summary"] == "4 snapshots, no problems"
    assert report.result["free"] > 0
    assert report.changed is False
    assert situations.read_all(store) == before
    assert check_store(store, repair=True).changed is False
    assert situations.read_all(store) == before


def test_missing_store(tmp_path: Any) -> None:
    store = Snapshotter(str(tmp_path / "root"), EmulatedLayers())
    report = check_store(store, repair=True)
    assert (report.changed, report.result["exists"], report.result["findings"]) == (False, False, [])
    assert os.listdir(tmp_path) == []


def test_reclaimable_bytes(store: Snapshotter) -> None:
    situations.removed_layer(store)
    situations.abandoned_upload(store)
    assert check_store(store).result["reclaimable"] == 12345 + 100
    repaired = check_store(store, repair=True).result
    assert (repaired["reclaimed"], repaired["reclaimable"]) == (12345 + 100, 0)
    assert sorted(os.listdir(situations.path(store, "incoming"))) == ["1" * 64 + ".part"]


def test_only_named_codes(store: Snapshotter) -> None:
    situations.removed_layer(store)
    situations.unprotected_root(store)
    assert situations.codes(store, repair=True, only=["leftover_removal"]) == ["leftover_removal"]
    assert situations.codes(store) == ["unprotected_root"]
    with pytest.raises(InvalidArgument, match="unknown finding code 'orphans'; known are abandoned_draft, "):
        check(store, only=["orphans"])


@pytest.mark.parametrize(
    "make",
    [
        situations.removed_layer,
        situations.unfinished_layer,
        situations.stale_mark,
        situations.abandoned_import,
        situations.interrupted_removal,
    ],
)
def test_what_a_running_process_works_on_is_left_alone(store: Snapshotter, make: situations.Maker) -> None:
    make(store)
    number = 3 if make in (situations.stale_mark, situations.interrupted_removal) else 5
    lock = store.directories.lock(number)
    assert lock is not None
    with lock:
        assert situations.codes(store, repair=True) == []
    assert situations.codes(store, repair=True) == [
        code for code, makes in situations.REPAIRABLE.items() if make in makes
    ]
    assert situations.codes(store) == []


def test_all_codes_are_tested() -> None:
    of_containerd = {code for code, _make, _message in test_containerd.DIFFERENCES}
    elsewhere = ("low_free_space", "links_near_limit", "proxy_not_answering")
    tested = {*elsewhere, *situations.REPAIRABLE, *situations.LEFT_ALONE, *of_containerd}
    assert tested == set(CODES)


def test_the_manual_lists_all_codes() -> None:
    manual = (Path(__file__).parents[6] / "docs" / "recovery.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in manual.partition("## Codes")[2].splitlines() if line.startswith("| `")]
    listed = {code.strip("`| "): severity for codes, severity, *_rest in rows for code in codes.split(",")}
    assert listed == {code: severity for code, (severity, _remedy) in CODES.items()}
