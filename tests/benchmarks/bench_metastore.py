# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the core: ``make bench``. Prints figures only.

* Durable lifecycle: prepare, commit and remove on the metastore in one process.
  Each operation has its own transaction, which is on the disk at its end. The
  same operations run through the snapshotter, and on containerd through ctr, in
  turn on the same volume. A ctr call mostly starts a program, so the second
  figure for containerd does not include the cost of a call that changes nothing
  (``info``). That is a small difference of two large numbers: only its order of
  magnitude is reliable. If an fsync costs nothing, as on tmpfs, the figures only
  measure computing.
* Walks over many snapshots.
* Time from start to reply of the door in its own process.

``WCOW_BENCH_SMOKE=1`` measures with small numbers, to test the benchmark.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, List

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import language
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, VIEW, Usage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.peers.containerd import Containerd

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
LIFECYCLES = 20 if SMOKE else 300
SNAPSHOTS = 1_000 if SMOKE else 20_000
SELECTED = SNAPSHOTS // 20
STARTS = 3 if SMOKE else 20
REPEATS = 3 if SMOKE else 7

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def median_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    return statistics.median(seconds(work) for _repeat in range(repeats)) * 1000


def report(what: str, figure: str) -> None:
    print(f"{what:<58} {figure:>24}")


def metastore_lifecycle(store: Metastore, number: int) -> None:
    with store.write() as tx:
        tx.create_snapshot(ACTIVE, f"key-{number}")
    with store.write() as tx:
        tx.commit_active(f"key-{number}", f"name-{number}", Usage(0, 0))
    with store.write() as tx:
        tx.remove(f"name-{number}")


def snapshotter_lifecycle(store: Snapshotter, number: int) -> None:
    store.prepare(f"key-{number}")
    store.commit(f"name-{number}", f"key-{number}")
    store.remove(f"name-{number}")


def containerd_lifecycle(containerd: Containerd, number: int) -> None:
    for arguments in (
        ("prepare", f"key-{number}"),
        ("commit", f"name-{number}", f"key-{number}"),
        ("rm", f"name-{number}"),
    ):
        answer = containerd.call("bench", *arguments)
        assert answer.outcome == "ok", answer.message


def bench_lifecycle(directory: str) -> None:
    """Measure prepare, commit and remove. The contenders alternate, so a busy disk affects all of them equally."""
    metastore = Metastore(os.path.join(directory, "metastore.sqlite3"), create=True)
    snapshotter = Snapshotter(os.path.join(directory, "store"), EmulatedLayers())
    ours: List[float] = []
    whole: List[float] = []
    theirs: List[float] = []
    idle: List[float] = []
    have_containerd = shutil.which("containerd") is not None and shutil.which("ctr") is not None
    if have_containerd:
        os.mkdir(os.path.join(directory, "containerd"))
        containerd = Containerd(os.path.join(directory, "containerd"))
    try:
        for number in range(LIFECYCLES):
            ours.append(seconds(metastore_lifecycle, metastore, number))
            whole.append(seconds(snapshotter_lifecycle, snapshotter, number))
            if have_containerd and number % 5 == 0:
                theirs.append(seconds(containerd_lifecycle, containerd, number))
                idle.append(3 * seconds(containerd.call, "bench", "info", "missing"))
    finally:
        if have_containerd:
            containerd.stop()
        snapshotter.close()
        metastore.close()

    own = 3 / statistics.median(ours)
    report("prepare, commit, remove: metastore", f"{own:,.0f} ops/s")
    report("prepare, commit, remove: snapshotter, emulated layers", f"{3 / statistics.median(whole):,.0f} ops/s")
    if not have_containerd:
        report("prepare, commit, remove: containerd", "not installed")
        return
    gross = 3 / statistics.median(theirs)
    report("prepare, commit, remove: containerd native, ctr", f"{gross:,.0f} ops/s")
    net = 3 / max(statistics.median(their - empty for their, empty in zip(theirs, idle)), 1e-9)
    report("prepare, commit, remove: containerd native, less ctr's start", f"{net:,.0f} ops/s")
    report("metastore to containerd less ctr's start", f"{own / net:,.1f} times")


def count(store: Metastore, wanted: language.Filters) -> int:
    with store.read() as tx:
        return len(tx.walk(wanted))


def bench_walk(directory: str) -> None:
    path = os.path.join(directory, "walk.sqlite3")
    store = Metastore(path, create=True)
    with store.write() as tx:
        tx.create_snapshot(ACTIVE, "base-key")
        tx.commit_active("base-key", "base", Usage(0, 0))
        for number in range(SNAPSHOTS - 1):
            selected = number < SELECTED
            labels = {"containerd.io/gc.root": "2026-01-01T00:00:00Z", "tier": "selected" if selected else "other"}
            tx.create_snapshot(
                VIEW if selected else ACTIVE, f"sha256:{number:064x}", "base" if selected else "", labels
            )
    for what, texts, expected in (
        ("all", [], SNAPSHOTS),
        ("kind==view", ["kind==view"], SELECTED),
        ("parent==base", ["parent==base"], SELECTED),
        ("labels.tier==selected", ["labels.tier==selected"], SELECTED),
        ("name~=(a regular expression)", ["name~=0+[0-9a-f]0$"], None),
    ):
        walk = functools.partial(count, store, language.parse_all(texts))
        found = walk()
        assert expected in (None, found), f"{what}: {found} snapshots, not {expected}"
        report(f"walk of {SNAPSHOTS:,}, {what}: {found:,} found", f"{median_ms(walk):,.1f} ms")
    store.close()


def bench_door(directory: str) -> None:
    """Start one new process per request, as on a node. The files are in the page cache and the bytecode is cached."""
    root = os.path.join(directory, "door")
    environment = {**os.environ, "PYTHONPATH": os.path.join(CHECKOUT, "plugins", "module_utils")}

    def ask(operation: str, **arguments: str) -> None:
        request = {
            "protocol": 1,
            "root": root,
            "layers": "emulated",
            "operations": [{"operation": operation, "arguments": arguments}],
        }
        done = subprocess.run(
            [sys.executable, "-m", "core.door"],
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            env=environment,
            check=True,
        )
        assert json.loads(done.stdout)["results"][0]["ok"], done.stdout

    ask("prepare", key="key")
    report("start to reply: Python that does nothing", f"{median_ms(python_start, STARTS):,.1f} ms")
    report("start to reply: stat", f"{median_ms(lambda: ask('stat', key='key'), STARTS):,.1f} ms")
    report("start to reply: walk", f"{median_ms(lambda: ask('walk'), STARTS):,.1f} ms")
    numbers = iter(range(STARTS))
    report(
        "start to reply: prepare", f"{median_ms(lambda: ask('prepare', key=f'key-{next(numbers)}'), STARTS):,.1f} ms"
    )


def python_start() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def main() -> None:
    # Use a directory below the checkout. /tmp is often in memory, and the benchmark needs a real disk.
    parent = os.path.join(CHECKOUT, ".cache")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory:
        print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} cores, {directory}")
        bench_lifecycle(directory)
        bench_walk(directory)
        bench_door(directory)


if __name__ == "__main__":
    main()
