# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how many transactions and VHDX parses a task costs in its single pass through the layers."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.mount import ensure_mount
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.scratch import ensure_scratch
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.store import ensure_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import copies, growth, reader, replay
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import IMAGE
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import file as metastore_file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Usage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.outcome import Outcome
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed, open_store


class Costs:
    """Counts the work of a task. Each task runs on a newly opened store, as each request does."""

    def __init__(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._counts: Dict[str, int] = {"transactions": 0, "parses": 0}
        for scope in (metastore_file._Scope, metastore_file._WriteScope):
            self._count(monkeypatch, "transactions", scope, "__enter__")
        for module in (copies, growth, reader, replay):
            self._count(monkeypatch, "parses", module, "load_stable")

    def _count(self, monkeypatch: pytest.MonkeyPatch, what: str, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            self._counts[what] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    def of(self, function: Callable[..., Outcome], *arguments: Any, **options: Any) -> Dict[str, Any]:
        store = open_store(self.root)
        self._counts = {"transactions": 0, "parses": 0}
        try:
            outcome = function(store, *arguments, **options)
        finally:
            store.close()
        return {"changed": outcome.changed, **self._counts}


@pytest.fixture
def costs(root: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Costs:
    store = open_store(root)
    ensure_store(store, rootfs_size="30GB")
    add_committed(store, "base", labels={"l": "1", f"{IMAGE}docker.io/library/app:1": "windows/amd64"})
    store.prepare("key", "base", {"l": "1"})
    store.mount("key", str(tmp_path / "mnt"))
    store.prepare("other", "base")
    store.close()
    return Costs(root, monkeypatch)


def test_tasks_with_nothing_to_do(costs: Costs, tmp_path: Any) -> None:
    for function, options in (
        (ensure_snapshot, {"state": "active", "key": "key", "parent": "base", "labels": {"l": "1"}}),
        (ensure_snapshot, {"state": "active", "key": "key", "parent": "base", "rootfs_size": "20GB"}),
        (ensure_snapshot, {"state": "active", "key": "key", "parent": "base", "creates": "result"}),
        (ensure_snapshot, {"state": "active", "key": "gone", "parent": "base", "creates": "base"}),
        (ensure_snapshot, {"state": "committed", "name": "base", "key": "b", "labels": {"l": "1"}}),
        (ensure_snapshot, {"state": "active", "key": "key", "parent_image": "app:1", "labels": {"l": "1"}}),
        (ensure_snapshot, {"state": "absent", "key": "gone"}),
        (ensure_scratch, {"key": "key", "size": "20GB"}),
        (ensure_mount, {"state": "mounted", "key": "key", "target": str(tmp_path / "mnt")}),
        (ensure_mount, {"state": "unmounted", "key": "other"}),
        (ensure_store, {"rootfs_size": "30GB"}),
    ):
        cost = costs.of(function, **options)
        assert not cost["changed"]
        assert cost["transactions"] <= 2, (function.__name__, options, cost)
        assert cost["parses"] <= 1, (function.__name__, options, cost)


def test_growing_a_disk_and_updating_its_labels(costs: Costs) -> None:
    wanted = {"state": "active", "key": "other", "parent": "base", "labels": {"l": "2"}}
    cost = costs.of(ensure_snapshot, rootfs_size="40GB", **wanted)
    assert cost["changed"]
    assert cost["transactions"] <= 4
    assert cost["parses"] <= 2
    cost = costs.of(ensure_scratch, "other", "50GB")
    assert cost["changed"]
    assert cost["transactions"] <= 4
    assert cost["parses"] <= 2


def test_removing_a_chain(costs: Costs) -> None:
    """The flushes of its transactions take most of the time of a removal, so snapshots share them."""
    store = open_store(costs.root)
    with store.store.write() as tx:
        for number in range(120):
            snapshot = tx.create_snapshot("active", "k", f"n{number - 1}" if number else "base")
            os.mkdir(store.directories.directory(snapshot.id))
            tx.commit_active("k", f"n{number}", Usage(0, 0))
    store.close()
    cost = costs.of(ensure_snapshot, "absent", name="n0", recursive=True)
    assert cost["changed"]
    assert cost["transactions"] <= 4 + 120 // 50 + 1
    store = open_store(costs.root)
    assert [info.name for info in store.walk()] == ["base", "key", "other"]
    store.close()
