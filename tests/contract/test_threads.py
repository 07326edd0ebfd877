# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several threads of one process, each with its own store object, as in a long-lived service."""

from __future__ import annotations

import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, List

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    NotFound,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

THREADS = 8
ROUNDS = 4


def test_eight_threads_on_one_store(tmp_path: Any, layers: Any) -> None:
    """Start from an empty root. Only one store is created, each thread uses its own snapshots, and all want one key."""
    root = os.path.join(str(tmp_path), "root")
    environment, directory = dict(os.environ), os.getcwd()

    def work(number: int) -> List[str]:
        store = Snapshotter(root, type(layers)())
        won = []
        try:
            for step in range(ROUNDS):
                key, name = f"key-{number}-{step}", f"name-{number}-{step}"
                parent = f"name-{number}-{step - 1}" if step else ""
                store.prepare(key, parent)
                store.commit(name, key, {"thread": str(number)})
                store.view(f"view-{number}-{step}", name)
                store.remove(f"view-{number}-{step}")
                store.update(name, {"step": str(step)}, ["labels.step"])
                with contextlib.suppress(NotFound, Unavailable, AlreadyExists):
                    store.commit(f"shared-{step}-{number}", prepare_shared(store, step))
                    won.append(f"shared-{step}")
            assert store.warnings == []
        finally:
            store.close()
        return won

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(work, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)

    assert (dict(os.environ), os.getcwd()) == (environment, directory)
    store = Snapshotter(root, layers)
    infos = {info.name: info for info in store.walk()}
    for number in range(THREADS):
        for step in range(ROUNDS):
            info = infos.pop(f"name-{number}-{step}")
            assert info.kind == COMMITTED
            assert info.parent == (f"name-{number}-{step - 1}" if step else "")
            assert info.labels == {"thread": str(number), "step": str(step)}
            assert os.path.isdir(store.directories.directory(info.id))
    assert all(info.name.startswith("shared-") for info in infos.values())
    won = [name for result in results for name in result]
    assert sorted(name.rsplit("-", 1)[0] for name, info in infos.items() if info.kind == COMMITTED) == sorted(won)
    ids = [info.id for info in store.walk()]
    assert len(set(ids)) == len(ids)
    on_disk = store.directories.layer_ids()
    assert on_disk == sorted(ids)
    assert not [
        info
        for info in infos.values()
        if info.kind == ACTIVE and not os.path.isdir(store.directories.directory(info.id))
    ]
    store.close()


def prepare_shared(store: Snapshotter, step: int) -> str:
    """Prepare a key that all threads want. Another thread may do so first."""
    key = f"shared-key-{step}"
    with contextlib.suppress(AlreadyExists, Unavailable):
        store.prepare(key)
    return key
