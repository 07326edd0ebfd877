# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test lists of snapshots."""

from __future__ import annotations

import os
import re
import shutil
from typing import Any, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.listing import list_snapshots
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.outcome import Outcome
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store

GIB = 1024**3


def names(outcome: Outcome) -> List[str]:
    return [entry["name"] for entry in outcome.result["snapshots"]]


def test_list(store: Snapshotter) -> None:
    store.prepare("a", "base")
    store.view("v", "base")
    assert names(list_snapshots(store)) == ["a", "base", "v"]
    assert names(list_snapshots(store, names=["v", "a", "gone"])) == ["a", "v"]
    assert names(list_snapshots(store, filters=["kind==view", "kind==committed"])) == ["base", "v"]
    assert names(list_snapshots(store, names=["v"], filters=["kind==view", "kind==active"])) == ["v"]
    assert names(list_snapshots(store, names=[])) == []
    full = {
        entry["name"]: entry
        for entry in list_snapshots(store, usage=True, mounts=True, scratch=True).result["snapshots"]
    }
    assert full["a"]["scratch"]["virtual_size"] == 20 * GIB
    assert full["a"]["usage"]["size"] > 0
    assert full["v"]["scratch"] is full["base"]["scratch"] is None
    assert full["base"]["mounts"] == []
    assert full["v"]["mounts"][0]["options"][0] == "ro"
    with pytest.raises(InvalidArgument, match="filters: parse error"):
        list_snapshots(store, filters=["kind="])


def test_a_list_of_what_is_still_there(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list does not block tasks, so it omits snapshots that are removed meanwhile."""
    for key in ("a", "b"):
        store.prepare(key, "base")
    usage = store.usage

    def late(name: str) -> Any:
        if name == "a":
            store.remove("a")
        return usage(name)

    monkeypatch.setattr(store, "usage", late)
    assert names(list_snapshots(store, usage=True)) == ["b", "base"]


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_what_cannot_be_read_is_an_error_of_its_entry(store: Snapshotter, fault: str) -> None:
    for key in ("a", "b", "c"):
        store.prepare(key, "base")
    directory = store.directories.directory(store.stat("b").id)
    if fault == "damaged":
        os.truncate(os.path.join(directory, "sandbox.vhdx"), 1000)
        message = r'^snapshot "b": .*sandbox.vhdx is not a usable VHDX file'
    else:
        shutil.rmtree(directory)
        message = r'^the layer of snapshot "b" is missing: .*[0-9] does not exist; '
    listed = list_snapshots(store, scratch=True).result["snapshots"]
    assert [entry["name"] for entry in listed] == ["a", "b", "base", "c"]
    assert [entry["name"] for entry in listed if "error" in entry] == ["b"]
    assert [entry["name"] for entry in listed if entry["scratch"]] == ["a", "c"]
    error = listed[1]["error"]
    assert error["code"] == "failed_precondition"
    assert re.search(message, error["message"])
    assert store.warnings == [error["message"]]
    store.warnings = []
    quiet = list_snapshots(store, names=["b"], usage=True, scratch=True, quiet=True).result["snapshots"][0]
    assert quiet["scratch"] is None
    assert "error" not in quiet
    assert store.warnings == []


def test_a_list_says_whether_there_is_a_store_and_what_is_wrong_with_filters(store: Snapshotter, tmp_path: Any) -> None:
    found = list_snapshots(store, filters=["kind==committed"]).result
    assert (found["exists"], found["mistakes"], store.warnings) == (True, [], [])
    found = list_snapshots(store, filters=["label.team==blue", "kind==committed"]).result
    assert [entry["name"] for entry in found["snapshots"]] == ["base"]
    assert found["mistakes"] == store.warnings
    assert 'snapshots have no field "label.team"' in store.warnings[0]
    nowhere = open_store(str(tmp_path / "nowhere"))
    assert list_snapshots(nowhere).result == {"snapshots": [], "exists": False, "mistakes": []}
