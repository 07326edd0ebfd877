# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the proxy snapshotter with containerd's native snapshotter: ``make bench``.

Both answer containerd's API to the same client of ours, on the same volume: our service, and a real containerd. The
client asks both in turn, many times, and a row has the median of the ratios. Work of other processes affects both
sides of a ratio in the same way. A ratio above its limit is called a fault only if the machine was quiet meanwhile.

* Calls: stat, list, and the cycle of a snapshot (prepare, commit, remove) for an image layer that containerd unpacks,
  and for a container, whose scratch disk is copied from a template. Removals have no limit: containerd only deletes
  a record, and its collector removes the snapshot later. Our service answers containerd's collector.
* Adoption: containerd runs with our service as a proxy plugin. The steps of its unpacker for an image of seven layers
  (core/unpack/unpacker.go) are done twice: with the layers in the store, which are adopted, and without.

``WCOW_BENCH_SMOKE=1`` measures with small numbers, to test the benchmark. Without containerd, nothing is measured.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import io
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client, Descriptor
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.tests.peers.containerd import PROXY, SNAPSHOTTER, Containerd

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
CYCLES = 10 if SMOKE else 100
SNAPSHOTS = 50 if SMOKE else 1_000
STATS = 20
LISTS = 3 if SMOKE else 30
IMAGES = 1 if SMOKE else 3
LAYERS = 7
FILES = 20 if SMOKE else 50

#: The limits for our time as a multiple of containerd's.
READING_LIMIT = 2.0
WRITING_LIMIT = 1.5

#: How many times faster than unpacking the adoption is at least.
ADOPTION_LIMIT = 10.0

#: Seconds for the first answer of the service.
START_TIMEOUT = 60.0

#: A machine is busy if a computation waits for longer than this share of its own time.
BUSY = 0.2

NAMESPACE = "bench"

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORE_PARENT = os.path.join(CHECKOUT, "plugins", "module_utils")


# -- how busy the machine is -------------------------------------------------------------------------------------------


class Quiet:
    """Samples how long a computation waits for the processor."""

    def __init__(self) -> None:
        self._samples: List[float] = []

    def sample(self) -> None:
        wall, computed = time.perf_counter(), time.thread_time()
        sum(range(100_000))
        computed = time.thread_time() - computed
        self._samples.append((time.perf_counter() - wall - computed) / computed)

    @property
    def is_busy(self) -> bool:
        return statistics.mean(self._samples) > BUSY

    def __str__(self) -> str:
        return f"a computation waited for {statistics.mean(self._samples):.0%} of its time"


class Bench:
    """Rows of a table, and the limits that they miss."""

    def __init__(self) -> None:
        self._missed: List[str] = []
        self.quiet = Quiet()

    def row(self, what: str, ours: List[float], theirs: List[float], limit: Optional[float]) -> None:
        """Print the medians in milliseconds, and the median of the ratios of pairs."""
        ratio = statistics.median(own / other for own, other in zip(ours, theirs))
        milliseconds = (1000 * statistics.median(times) for times in (ours, theirs))
        promise = "" if limit is None else f"  (limit {limit:g})"
        print("{:42} {:9,.2f} ms {:9,.2f} ms".format(what, *milliseconds) + f" {ratio:7.2f} x{promise}")
        if limit is not None and ratio > limit:
            self._missed.append(f"{what}: {ratio:.2f} times containerd's time instead of {limit:g}")

    def faster(self, what: str, ratio: float, limit: float) -> None:
        if ratio < limit:
            self._missed.append(f"{what}: {ratio:.1f} times faster instead of {limit:g}")

    def end(self) -> int:
        """Say what was missed. Return the exit code."""
        if not self._missed:
            return 0
        print("\n".join(self._missed), file=sys.stderr)
        if SMOKE or self.quiet.is_busy:
            reason = "a short run has too few samples" if SMOKE else f"the machine was busy ({self.quiet})"
            print(f"This does not prove a fault: {reason}. Run the benchmark again.", file=sys.stderr)
            return 0
        print(f"The machine is quiet ({self.quiet}), so this is a fault.", file=sys.stderr)
        return 1


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# -- the two sides -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(directory: str, layers: str) -> Iterator[str]:
    """Run our service, and yield its address."""
    address = os.path.join(directory, "proxy.sock")
    command = [sys.executable, "-m", "core.serve.main", "--address", address, "--layers", layers]
    log_path = os.path.join(directory, "log-of-proxy")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [*command, "--root", os.path.join(directory, "store")],
            env={**os.environ, "PYTHONPATH": CORE_PARENT},
            stderr=log,
        )
    try:
        end = time.monotonic() + START_TIMEOUT
        while not os.path.exists(address):
            if process.poll() is not None or time.monotonic() > end:
                with open(log_path, encoding="utf-8") as log:
                    raise RuntimeError(f"the service does not start: {log.read()[-4000:]}")
            time.sleep(0.02)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_TIMEOUT)


class Side:
    """One of the two servers, with the names that a backend of containerd sees, or those of containerd's clients."""

    def __init__(self, client: Client, snapshotter: str, prefix: str) -> None:
        self.client = client
        self.snapshotter = snapshotter
        self._prefix = prefix

    def name(self, text: str) -> str:
        return self._prefix + text if text else ""

    def prepare(self, key: str, parent: str = "") -> None:
        self.client.prepare(self.snapshotter, self.name(key), self.name(parent))

    def commit(self, name: str, key: str) -> None:
        self.client.commit(self.snapshotter, self.name(name), self.name(key))

    def remove(self, key: str) -> None:
        self.client.remove_snapshot(self.snapshotter, self.name(key))

    def stat(self) -> None:
        for _time in range(STATS):
            self.client.stat(self.snapshotter, self.name("base"))

    def list(self) -> None:
        found = len(self.client.snapshots(self.snapshotter))
        assert found >= SNAPSHOTS, found


class Pair(NamedTuple):
    """Our service and containerd."""

    ours: Side
    theirs: Side

    def in_turn(self, number: int) -> List[Side]:
        """Return both, each of them as often the first one."""
        return [self.ours, self.theirs] if number % 2 else [self.theirs, self.ours]


def measure_calls(bench: Bench, pair: Pair) -> None:
    for side in pair:
        side.prepare("base-key")
        side.commit("base", "base-key")
        for number in range(SNAPSHOTS - 1):
            side.prepare(f"extract-{number} layer", "base")
    print(f"{'':42} {'ours':>12} {'containerd':>12}")
    for what, count in (("stat", max(LISTS, 10)), ("list", LISTS)):
        times: Dict[Side, List[float]] = {side: [] for side in pair}
        for number in range(count):
            bench.quiet.sample()
            for side in pair.in_turn(number):
                times[side].append(seconds(getattr(side, what)))
        if what == "stat":
            times = {side: [each / STATS for each in found] for side, found in times.items()}
        bench.row(
            what if what == "stat" else f"list of {SNAPSHOTS:,}", times[pair.ours], times[pair.theirs], READING_LIMIT
        )
    for what, prefix in (("an image layer", "extract-1-x "), ("a container", "")):
        measure_cycles(bench, pair, what, prefix)


def measure_cycles(bench: Bench, pair: Pair, what: str, prefix: str) -> None:
    steps = ("prepare", "commit", "remove")
    times: Dict[Side, Dict[str, List[float]]] = {side: {step: [] for step in steps} for side in pair}
    for number in range(CYCLES):
        bench.quiet.sample()
        key, name = f"{prefix}key-{number}", f"name-{prefix}{number}"
        arguments = {"prepare": (key, "base"), "commit": (name, key), "remove": (name,)}
        for step in steps:
            for side in pair.in_turn(number):
                call = getattr(side, step)
                times[side][step].append(seconds(functools.partial(call, *arguments[step])))
    for step in steps:
        limit = None if step == "remove" else WRITING_LIMIT
        bench.row(f"{step}, {what}", times[pair.ours][step], times[pair.theirs][step], limit)
    cycles = {side: [sum(each) for each in zip(*times[side].values())] for side in pair}
    bench.row(f"the cycle, {what}", cycles[pair.ours], cycles[pair.theirs], None)
    print(
        f"{'  operations per second':42} {3 / statistics.median(cycles[pair.ours]):12,.0f}"
        f" {3 / statistics.median(cycles[pair.theirs]):12,.0f}"
    )


# -- adoption ----------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer of an image: its blob, and the chain id that names its snapshot."""

    blob: bytes
    digest: str
    chain: str


def make_layers() -> List[Layer]:
    """Make the layers of an image."""
    layers: List[Layer] = []
    for number in range(LAYERS):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for file in range(FILES):
                entry = tarfile.TarInfo(f"layer-{number}/file-{file}")
                entry.size = 4096
                tar.addfile(entry, io.BytesIO(bytes([number, file % 256]) * 2048))
        diff = "sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest()
        blob = gzip.compress(buffer.getvalue(), 1, mtime=0)
        above = layers[-1].chain if layers else ""
        chain = "sha256:" + hashlib.sha256(f"{above} {diff}".encode()).hexdigest() if above else diff
        layers.append(Layer(blob, "sha256:" + hashlib.sha256(blob).hexdigest(), chain))
    return layers


def pull(client: Client, layers: List[Layer], snapshotter: str, labels: Dict[str, str]) -> int:
    """Do the steps of containerd's unpacker for content that is there. Return how many layers were unpacked."""
    unpacked, parent = 0, ""
    for layer in layers:
        key = f"extract-1-x {layer.chain}"
        try:
            mounts = client.prepare(snapshotter, key, parent, {SNAPSHOT_REF: layer.chain, **labels})
        except errors.AlreadyExists:
            # The layer was adopted.
            client.stat(snapshotter, layer.chain)
        else:
            media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
            client.apply(Descriptor(media_type, layer.digest, len(layer.blob), {}), mounts)
            client.commit(snapshotter, layer.chain, key, {SNAPSHOT_REF: layer.chain, **labels})
            unpacked += 1
        parent = layer.chain
    return unpacked


def forget(client: Client, layers: List[Layer], snapshotter: str) -> None:
    for layer in reversed(layers):
        client.remove_snapshot(snapshotter, layer.chain)
    client.collect_garbage()


def measure_adoption(bench: Bench, daemon: Containerd) -> None:
    layers = make_layers()
    root = {"containerd.io/gc.root": "bench"}
    times: Dict[str, List[float]] = {"unpack": [], "native": [], "adopt": []}
    with Client(connect(daemon.address, NAMESPACE)) as client, Client(connect(daemon.address, "other")) as other:
        for layer in layers:
            for each in (client, other):
                with each.write_blob("bench-" + layer.digest, len(layer.blob), layer.digest) as writer:
                    # containerd has the blob if another namespace has it.
                    if writer.offset < len(layer.blob):
                        writer.write(layer.blob)
                    writer.commit(root)
        for _image in range(IMAGES):
            bench.quiet.sample()
            times["native"].append(seconds(lambda: pull(client, layers, SNAPSHOTTER, root)))
            times["unpack"].append(seconds(lambda: pull(client, layers, PROXY, root)))
            # The layers are in the store now. Another namespace of containerd does not know them, and adopts them.
            start = time.perf_counter()
            unpacked = pull(other, layers, PROXY, root)
            times["adopt"].append(time.perf_counter() - start)
            assert unpacked == 0, f"{unpacked} layers were unpacked instead of adopted"
            for each in (other, client):
                forget(each, layers, PROXY)
            forget(client, layers, SNAPSHOTTER)
    print(f"an image of {LAYERS} layers with {FILES} files each: adopted in", end=" ")
    print(f"{1000 * statistics.median(times['adopt']):,.1f} ms")
    for what, key in (("our store", "unpack"), ("containerd's native snapshotter", "native")):
        ratio = statistics.median(slow / fast for slow, fast in zip(times[key], times["adopt"]))
        milliseconds = 1000 * statistics.median(times[key])
        print(f"  unpacked into {what}: {milliseconds:,.1f} ms, {ratio:.0f} times (limit {ADOPTION_LIMIT:g})")
        bench.faster(f"adoption against unpacking into {what}", ratio, ADOPTION_LIMIT)


def main() -> int:
    for program in ("containerd", "ctr"):
        if shutil.which(program) is None:
            print(f"The served store is not measured: {program} is not on PATH (Debian package containerd)")
            return 0
    bench = Bench()
    # Not /tmp, which is often in memory. A longer path would be too long for the socket.
    parent = os.path.join(CHECKOUT, ".cache")
    with (
        tempfile.TemporaryDirectory(prefix="b-", dir=parent) as directory,
        serving(directory, "emulated") as address,
        Containerd(directory) as daemon,
        Client(connect(address, NAMESPACE)) as ours,
        Client(connect(daemon.address, NAMESPACE)) as theirs,
    ):
        measure_calls(bench, Pair(Side(ours, PROXY, f"{NAMESPACE}/1/"), Side(theirs, SNAPSHOTTER, "")))
    if os.geteuid():
        print("adoption: not measured, because containerd mounts what it unpacks, which needs root")
        return bench.end()
    with (
        tempfile.TemporaryDirectory(prefix="b-", dir=parent) as directory,
        serving(directory, "bind") as address,
        Containerd(directory, collects=True, proxy=address) as daemon,
    ):
        measure_adoption(bench, daemon)
    return bench.end()


if __name__ == "__main__":
    raise SystemExit(main())
