# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cycle of prepare, commit and remove flushes, in which order, and how often.

docs/reliability.md says which promise each flush keeps. ``test_power_loss`` shows that nothing less is enough.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.messages import METHODS
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import file as metastore_file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import protobuf
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.benchmarks import bench_go

pytestmark = pytest.mark.posix

#: The most flushes of one cycle: those of our code and those of SQLite.
LIMIT = 8

#: What SQLite flushes in a durable transaction: its log, once.
LOG = "log"

#: Seconds that a busy machine may need.
PATIENCE = 60.0

#: The key and the parent of a cycle, and what each operation flushes. ``*`` is the layer directory.
CYCLES: dict[str, tuple[str, str, list[list[str]]]] = {
    "a container": ("key", "base", [["*/sandbox.vhdx", "*", "", LOG], ["*", LOG], ["", LOG]]),
    "an image layer": ("extract-1 key", "base", [["", LOG], [LOG], ["", LOG]]),
    "a base layer": ("key", "", [["*", "", LOG], ["*/blank.vhdx.new", "*", LOG], ["", LOG]]),
}


class Flushes:
    """The paths below ``snapshots`` that are flushed, and the durable changes of the metadata, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
        self.found: list[str] = []
        self._snapshots = os.path.join(root, "snapshots")
        flush = os.fsync
        scope: Any = metastore_file._WriteScope
        enter, leave = scope.__enter__, scope.__exit__

        def fsync(descriptor: int) -> None:
            flush(descriptor)
            self._note(os.readlink(f"/proc/self/fd/{descriptor}"))

        def enter_scope(transaction: Any) -> Any:
            transaction.changes_before = transaction._connection.total_changes
            return enter(transaction)

        def leave_scope(transaction: Any, *error: Any) -> None:
            leave(transaction, *error)
            # A transaction without changes writes nothing, and so flushes nothing.
            if transaction._durable and transaction._connection.total_changes != transaction.changes_before:
                self.found.append(LOG)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(scope, "__enter__", enter_scope)
        monkeypatch.setattr(scope, "__exit__", leave_scope)

    def _note(self, path: str) -> None:
        first, _slash, rest = os.path.relpath(path, self._snapshots).partition("/")
        self.found.append("" if first == "." else "/".join(["*", rest] if rest else ["*"]))


@contextlib.contextmanager
def direct(root: str) -> Iterator[Callable[..., Any]]:
    store = Snapshotter(root, EmulatedLayers())

    def call(operation: str, **arguments: str) -> None:
        getattr(store, operation.lower())(**arguments)

    yield call
    store.close()


@contextlib.contextmanager
def served(root: str) -> Iterator[Callable[..., Any]]:
    service = Service(lambda later: open_store(root, "emulated", later))

    def call(operation: str, **arguments: str) -> None:
        method = METHODS[f"Snapshots/{operation}"]
        assert list(service.call(method.path, protobuf.encode(method.request, arguments)))

    yield call
    service.stop(time.monotonic() + PATIENCE)


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("way", [direct, served])
def test_each_flush_of_a_cycle(way, cycle, tmp_path, monkeypatch):
    key, parent, expected = CYCLES[cycle]
    found = []
    with way(str(tmp_path / "root")) as call:
        call("Prepare", key="base-key", parent="")
        call("Commit", name="base", key="base-key")
        flushes = Flushes(monkeypatch, str(tmp_path / "root"))
        for operation, arguments in (
            ("Prepare", {"key": key, "parent": parent}),
            ("Commit", {"name": "name", "key": key}),
            ("Remove", {"key": "name"}),
        ):
            flushes.found.clear()
            call(operation, **arguments)
            found.append(list(flushes.found))
    assert found == expected
    assert sum(map(len, found)) <= LIMIT


@pytest.mark.requires_tool("strace", "strace")
@pytest.mark.parametrize(
    ("name", "cycle"),
    [("our snapshotter, a container", "a container"), ("our snapshotter, an image layer", "an image layer")],
)
def test_the_system_counts_the_same_flushes(name, cycle, tmp_path, monkeypatch):
    """The test above sees all flushes: SQLite does not flush its log for a change that is not durable."""
    monkeypatch.setattr(bench_go, "COUNTED", 5)
    counted = bench_go.count_flushes(str(tmp_path), name)
    assert counted == sum(map(len, CYCLES[cycle][2])) <= LIMIT
