# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the client of containerd's API: ``make bench``. Prints figures only.

A real containerd answers, with its native snapshotter. Each figure is next to that of ``ctr`` in the same run. A call
of ctr starts a program and connects again, so our figure for one call with a new connection is there, too.

``WCOW_BENCH_SMOKE=1`` measures with small numbers, to test the benchmark. Without containerd, nothing is measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.snapshots import ContainerdSnapshots
from ansible_collections.wcow.snapshotter.tests.peers.containerd import SNAPSHOTTER, Containerd

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
CALLS = 20 if SMOKE else 500
CTR_CALLS = 3 if SMOKE else 20
SNAPSHOTS = 50 if SMOKE else 2_000

#: The promise for one stat, in milliseconds.
LIMIT = 3.0

NAMESPACE = "bench"

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def median_ms(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _repeat in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def report(what: str, ours: float, theirs: float) -> None:
    print(f"{what:52} {ours:8,.2f} ms   ctr {theirs:8,.2f} ms")


def measure(daemon: Containerd) -> None:
    def new_store() -> ContainerdSnapshots:
        return ContainerdSnapshots(Client(connect(daemon.address, NAMESPACE)), SNAPSHOTTER)

    def connect_and_stat() -> None:
        opened = new_store()
        opened.stat("a")
        opened.close()

    def ctr(*arguments: str) -> None:
        command = ["ctr", "-a", daemon.address, "-n", NAMESPACE, "snapshots", "--snapshotter", SNAPSHOTTER, *arguments]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    store = new_store()
    store.prepare("a")
    theirs = median_ms(lambda: ctr("info", "a"), CTR_CALLS)
    stat = median_ms(lambda: store.stat("a"), CALLS)
    report(f"stat (limit {LIMIT:g} ms)", stat, theirs)
    report("stat, each with a connection of its own", median_ms(connect_and_stat, CALLS), theirs)
    ours, theirs = iter(range(SNAPSHOTS)), iter(range(CTR_CALLS))
    prepare = median_ms(lambda: store.prepare(f"key-{next(ours)}"), SNAPSHOTS)
    report("prepare", prepare, median_ms(lambda: ctr("prepare", f"ctr-{next(theirs)}"), CTR_CALLS))
    few = min(3, CTR_CALLS)
    walk = median_ms(store.walk, few)
    report(f"walk of {len(store.walk()):,} snapshots", walk, median_ms(lambda: ctr("list"), few))
    store.close()
    if stat > LIMIT:
        print(f"one stat takes {stat:.2f} ms, more than the promised {LIMIT:g} ms", file=sys.stderr)


def main() -> None:
    for program in ("containerd", "ctr"):
        if shutil.which(program) is None:
            print(
                f"The client of containerd's API is not measured: {program} is not on PATH (Debian package containerd)"
            )
            return
    # Not /tmp, which is often in memory. A longer path would be too long for the socket.
    parent = os.path.join(CHECKOUT, ".cache")
    with (
        tempfile.TemporaryDirectory(prefix="b-", dir=parent) as directory,
        Containerd(directory, collects=True) as daemon,
    ):
        measure(daemon)


if __name__ == "__main__":
    main()
