# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare our store with containerd's own packages, without a server between: ``make bench``. Prints figures only.

The cycle is prepare, commit and remove of a snapshot over a base snapshot, each in a transaction of its own. A Go
program of ours runs it in ``snapshots/storage`` (records alone, in bbolt) and ``snapshots/native`` (records and
directories); this process runs it in our metastore and our snapshotter. All of them take turns on one volume, and a
ratio is the median of those of the pairs.

``strace`` counts the flushes (fsync, fdatasync, msync) of each of them in a run of its own. The native snapshotter
flushes only its records: after a power cut it can have records of directories that are gone.

In the first 80 cycles or so, the log of SQLite still grows. A flush of a file that grows takes several times as long,
so a short run shows our records slower than a long one. On a busy machine, the figures show computing more than
flushes.

``WCOW_BENCH_SMOKE=1`` measures with small numbers, to test the benchmark. Without Go, containerd's packages are left
out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, Dict, Iterator, List, Optional

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, Usage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.peers import golang

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
CYCLES = 20 if SMOKE else 300
COUNTED = 5 if SMOKE else 100

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONTAINERD_SOURCES = golang.DEBIAN_PACKAGES / "src/github.com/containerd/containerd/snapshots/native"

#: Each of ours, with that of containerd that does the same.
PAIRS = {
    "our metastore": "snapshots/storage",
    "our snapshotter, an image layer": "snapshots/native",
    "our snapshotter, a container": "snapshots/native",
}
_COMMANDS = {"snapshots/storage": b"storage\n", "snapshots/native": b"native\n"}

#: Runs one cycle, and returns its seconds.
Cycle = Callable[[int], float]


# -- the contenders ----------------------------------------------------------------------------------------------------


def cycle_metastore(store: Metastore, number: int) -> None:
    with store.write() as tx:
        tx.create_snapshot(ACTIVE, f"key-{number}", "base")
    with store.write() as tx:
        tx.commit_active(f"key-{number}", f"name-{number}", Usage(0, 0))
    with store.write() as tx:
        tx.remove(f"name-{number}")


def cycle_snapshotter(store: Snapshotter, prefix: str, number: int) -> None:
    store.prepare(f"{prefix}key-{number}", "base")
    store.commit(f"name-{number}", f"{prefix}key-{number}")
    store.remove(f"name-{number}")


@contextlib.contextmanager
def ours(directory: str) -> Iterator[Dict[str, Cycle]]:
    metastore = Metastore(os.path.join(directory, "metastore.sqlite3"), create=True)
    snapshotter = Snapshotter(os.path.join(directory, "store"), EmulatedLayers())
    with metastore.write() as tx:
        tx.create_snapshot(ACTIVE, "base-key")
        tx.commit_active("base-key", "base", Usage(0, 0))
    snapshotter.prepare("base-key")
    snapshotter.commit("base", "base-key")

    def timed(work: Callable[[int], None]) -> Cycle:
        def cycle(number: int) -> float:
            start = time.perf_counter()
            work(number)
            return time.perf_counter() - start

        return cycle

    yield {
        "our metastore": timed(lambda number: cycle_metastore(metastore, number)),
        # The key of an unpacked image layer: it has no scratch disk.
        "our snapshotter, an image layer": timed(lambda number: cycle_snapshotter(snapshotter, "extract-1 ", number)),
        "our snapshotter, a container": timed(lambda number: cycle_snapshotter(snapshotter, "", number)),
    }
    snapshotter.close()
    metastore.close()


@contextlib.contextmanager
def theirs(directory: str, *prefix: str) -> Iterator[Dict[str, Cycle]]:
    """Run the Go program, with the command ``prefix`` before it."""
    program = [*prefix, str(golang.build("snapshotbench")), directory]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(line: bytes) -> float:
            stdin.write(line)
            stdin.flush()
            return int(stdout.readline()) / 1e9

        yield {
            "snapshots/storage": lambda _number: ask(_COMMANDS["snapshots/storage"]),
            "snapshots/native": lambda _number: ask(_COMMANDS["snapshots/native"]),
        }
        stdin.close()
    assert process.returncode == 0, process.returncode


# -- flushes -----------------------------------------------------------------------------------------------------------


def count_flushes(parent: str, name: str) -> float:
    """Return the flushes of one cycle: the difference between runs of many cycles and of none."""
    return (flushes_of_run(parent, name, COUNTED) - flushes_of_run(parent, name, 0)) / COUNTED


def flushes_of_run(parent: str, name: str, cycles: int) -> int:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory:
        log = os.path.join(directory, "flushes")
        tracer = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,msync", "-o", log]
        if name in _COMMANDS:
            with theirs(directory, *tracer) as found:
                for number in range(cycles):
                    found[name](number)
        else:
            program = [sys.executable, __file__, "--cycles", name, str(cycles), directory]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run([*tracer, *program], env=environment, check=True)
        with open(log, encoding="utf-8") as file:
            # Of a call that another thread interrupts, strace writes two lines.
            return sum("sync(" in line for line in file)


def run_cycles(name: str, cycles: int, directory: str) -> None:
    """Run cycles of one of ours, in a process that strace watches."""
    with ours(directory) as found:
        for number in range(cycles):
            found[name](number)


# -- the table ---------------------------------------------------------------------------------------------------------


def measure(directory: str, names: List[str]) -> Dict[str, List[float]]:
    """Run the cycles of all contenders in turn. Return their times."""
    times: Dict[str, List[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as running:
        cycles = running.enter_context(ours(directory))
        if any(name in _COMMANDS for name in names):
            cycles.update(running.enter_context(theirs(directory)))
        for number in range(CYCLES):
            for name in names if number % 2 else reversed(names):
                times[name].append(cycles[name](number))
    return times


def reason_to_skip() -> Optional[str]:
    """Return why containerd's packages cannot be measured."""
    if shutil.which("go") is None:
        return "go is not on PATH (Debian package golang-go)"
    if not CONTAINERD_SOURCES.exists():
        return "containerd's sources are not installed (Debian package golang-github-containerd-containerd-dev)"
    return None


def main() -> None:
    # Not /tmp, which is often in memory.
    parent = os.path.join(CHECKOUT, ".cache")
    skipped = reason_to_skip()
    names = [*PAIRS, *([] if skipped else _COMMANDS)]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as directory:
        times = measure(directory, names)
    print(f"{'prepare, commit, remove over a base snapshot':46} {'operations/s':>12} {'flushes per cycle':>18}")
    for name in names:
        flushes = f"{count_flushes(parent, name):.2f}" if shutil.which("strace") else "-"
        print(f"{name:46} {3 / statistics.median(times[name]):12,.0f} {flushes:>18}")
    if shutil.which("strace") is None:
        print("Flushes are not counted: strace is not on PATH (Debian package strace)")
    if skipped:
        print(f"containerd's packages are not measured: {skipped}")
        return
    for our, their in PAIRS.items():
        ratio = statistics.median(slow / fast for slow, fast in zip(times[their], times[our]))
        print(f"{our}: {ratio:.2f} times the speed of {their}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cycles"]:
        run_cycles(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main()
