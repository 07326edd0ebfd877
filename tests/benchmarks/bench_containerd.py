# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure how containerd's databases are read: ``make bench``. Prints figures only.

* A picture of a store with many snapshots, and of one with few: both databases, the directories below ``snapshots``,
  and what uses each snapshot. Time is from the first read to the last answer. It is the median of several
  processes, and so is the peak of memory, which is of the whole process.
* The parts of that time.
* The module ``snapshot_info`` on a lab node with few snapshots, over psrp: requests and bytes, and the time from the
  start of the task on the node to its reply.

The store is like that of a node with many images: chains of layers with labels, one image for each chain, containers.
``WCOW_BENCH_SMOKE=1`` measures with small numbers, to test the benchmark.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Dict, List, Union

from ansible_collections.wcow.snapshotter.lab.bolt import Bucket, database
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _call, _loader, _payload

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
MANY = 1_000 if SMOKE else 20_000
FEW = 50 if SMOKE else 500
PROCESSES = 2 if SMOKE else 5
LAYERS = 9

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
NAMESPACE = "k8s.io"
SNAPSHOTTER = "windows"
#: 2026-11-28T15:51:24.425625 in Go's binary form.
TIME = bytes.fromhex("010000000ee29cef7c195e85a8ffff")
TIMES: Dict[bytes, Union[bytes, Bucket]] = {b"createdat": TIME, b"updatedat": TIME}

#: Runs in a process of its own, and prints seconds and bytes.
MEASURE = """
import json, sys, time
sys.path.insert(0, sys.argv[3])
from core.containerd.references import References
from core.containerd.picture import Picture, read_picture
before = time.perf_counter()
picture = read_picture(sys.argv[1], sys.argv[2])
read = time.perf_counter()
found = 0
for name, namespace in picture.metadata.namespaces.items():
    references = References(namespace, time.time_ns(), picture.metadata.version)
    for key in namespace.snapshots[sys.argv[2]]:
        found += references.used_by(sys.argv[2], key).is_kept
end = time.perf_counter()
with open("/proc/self/status") as status:
    memory = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(json.dumps({
    "snapshots": len(picture.snapshots),
    "kept": found,
    "picture": read - before,
    "references": end - read,
    "whole": end - before,
    "memory": memory,
}))
"""


def labels(**values: str) -> Bucket:
    names = {"ref": "containerd.io/snapshot.ref", "layer": "containerd.io/snapshot/cri.layer-digest"}
    return Bucket({names.get(key, key).encode(): value.encode() for key, value in values.items()})


def varint(value: int) -> bytes:
    return uvarint(value << 1)


def uvarint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def build(root: pathlib.Path, count: int) -> int:
    """Write the databases and directories of a store with this many snapshots. Return their size in bytes."""
    entries: Dict[bytes, Union[bytes, Bucket]] = {}
    records: Dict[bytes, Union[bytes, Bucket]] = {}
    parents: Dict[bytes, Union[bytes, Bucket]] = {}
    images: Dict[bytes, Union[bytes, Bucket]] = {}
    blobs: Dict[bytes, Union[bytes, Bucket]] = {}
    containers: Dict[bytes, Union[bytes, Bucket]] = {}
    parent, name, key = 0, b"", b""
    for number in range(1, count + 1):
        position = number % (LAYERS + 1)
        above, above_name = key, name
        if position == 1:
            above, above_name, parent = b"", b"", 0
        is_active = position == 0
        key = b"%064x" % number if is_active else b"sha256:%064x" % number
        name = b"%s/%d/%s" % (NAMESPACE.encode(), 2 * number, key)
        own = labels(ref=key.decode(), layer=f"sha256:{number * 7:064x}")
        entries[key] = Bucket({**TIMES, b"name": name, b"labels": own})
        records[name] = Bucket(
            {
                **TIMES,
                b"id": uvarint(number),
                b"kind": b"\2" if is_active else b"\3",
                b"labels": own,
                **({} if is_active else {b"size": varint(number * 1000), b"inodes": varint(0)}),
            }
        )
        if above:
            entries[key].items[b"parent"] = above
            entries[above].items[b"children"] = Bucket({key: b""})
            records[name].items[b"parent"] = above_name
            parents[uvarint(parent) + b"\0" + uvarint(number)] = name
        parent = number
        if position == LAYERS:
            config, manifest = b"sha256:%064x" % (number * 3 + (1 << 200)), b"sha256:%064x" % (number * 3 + (2 << 200))
            blobs[config] = Bucket(
                {**TIMES, b"size": varint(3000), b"labels": Bucket({b"containerd.io/gc.ref.snapshot.windows": key})}
            )
            blobs[manifest] = Bucket(
                {**TIMES, b"size": varint(900), b"labels": Bucket({b"containerd.io/gc.ref.content.config": config})}
            )
            target = Bucket(
                {b"digest": manifest, b"mediatype": b"application/vnd.oci.image.manifest.v1+json", b"size": varint(900)}
            )
            images[b"mcr.microsoft.com/image:%d" % number] = Bucket({**TIMES, b"target": target})
        elif is_active:
            containers[key] = Bucket(
                {**TIMES, b"image": b"x", b"snapshotter": SNAPSHOTTER.encode(), b"snapshotKey": key}
            )
    namespace = Bucket(
        {
            b"snapshots": Bucket({SNAPSHOTTER.encode(): Bucket(entries, 2 * count)}),
            b"images": Bucket(images),
            b"containers": Bucket(containers),
            b"content": Bucket({b"blob": Bucket(blobs)}),
        }
    )
    meta = database(Bucket({b"v1": Bucket({b"version": varint(4), NAMESPACE.encode(): namespace})}))
    store = database(Bucket({b"v1": Bucket({b"snapshots": Bucket(records, count), b"parents": Bucket(parents)})}))
    home = root / f"io.containerd.snapshotter.v1.{SNAPSHOTTER}"
    (root / "io.containerd.metadata.v1.bolt").mkdir(parents=True)
    (root / "io.containerd.metadata.v1.bolt" / "meta.db").write_bytes(meta)
    home.mkdir()
    (home / "metadata.db").write_bytes(store)
    for number in range(1, count + 1):
        os.makedirs(home / "snapshots" / str(number))
    return len(meta) + len(store)


def measure(root: pathlib.Path) -> List[Dict[str, float]]:
    command = [sys.executable, "-c", MEASURE, str(root), SNAPSHOTTER, str(CHECKOUT / "plugins" / "module_utils")]
    return [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) for _process in range(PROCESSES)
    ]


def report(what: str, figure: str) -> None:
    print(f"{what:<58} {figure:>44}")


def bench(root: pathlib.Path, count: int) -> None:
    size = build(root, count)
    runs = measure(root)
    assert all(run["snapshots"] == run["kept"] == count for run in runs), runs
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    report(f"picture of {count:,} snapshots, databases of", f"{size / 1e6:,.0f} MB")
    report("  databases and directories", f"{middle['picture'] * 1000:,.0f} ms")
    report("  what uses each snapshot", f"{middle['references'] * 1000:,.0f} ms")
    report("  both", f"{middle['whole'] * 1000:,.0f} ms")
    report("  peak memory of the process", f"{middle['memory'] / 1e6:,.0f} MB")


PLAYBOOK = """
- hosts: windows
  gather_facts: false
  tasks:
    - wcow.snapshotter.snapshot_info:
        store: containerd
"""


def bench_info(directory: pathlib.Path) -> None:
    lab, playbook = directory / "lab", directory / "info.yml"
    playbook.write_text(PLAYBOOK)
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache" / "dev")}
    command = [sys.executable, "-m", "lab"]
    subprocess.run(
        [*command, "up", "--nodes", "1", "--connection", "psrp", "--directory", str(lab)],
        cwd=CHECKOUT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        root = lab / "node1" / "C" / "ProgramData" / "containerd" / "root"
        root.mkdir(parents=True)
        build(root, FEW)
        # The first run sends the code.
        for what in ("first contact", "one task"):
            (lab / "access.jsonl").write_text("")
            subprocess.run(
                ["ansible-playbook", "-i", str(lab / "inventory.yml"), str(playbook)],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            costs = [json.loads(line) for line in (lab / "access.jsonl").read_text().splitlines()]
            costs = [cost for cost in costs if cost.get("shell") and "received" in cost]
            received, sent = (sum(cost[way] for cost in costs) for way in ("received", "sent"))
            report(
                f"snapshot_info of {FEW:,} snapshots, psrp, {what}",
                f"{len(costs)} requests, {received:,} B sent, {sent:,} B back",
            )
        bench_node(directory, lab / "node1")
    finally:
        subprocess.run(
            [*command, "down", "--purge", "--directory", str(lab)], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL
        )


def bench_node(directory: pathlib.Path, node: pathlib.Path) -> None:
    """Measure the task on the node: loader, cached payload, core, reply."""
    code = _payload.payload("containerd")
    path = directory / "payload.zip"
    path.write_bytes(code.data)
    line = _call.loader_line(_loader.load, str(path), code.digest, code.boot.start, code.boot.stop)
    request = {"protocol": 1, "store": "containerd", "operations": [{"operation": "list", "arguments": {}}]}
    stdin = f"{line}\n{json.dumps(request)}\n".encode("ascii")
    python = os.path.realpath(sys.executable)
    loader = [python, "-I", "-X", "utf8", "-c", "import sys;exec(sys.stdin.buffer.readline())"]
    environment = {
        **os.environ,
        "WCOW_EMULATED_DRIVES": str(node),
        "PROGRAMDATA": r"C:\ProgramData",
    }
    times = []
    for _start in range(PROCESSES):
        begin = time.perf_counter()
        reply = subprocess.run(loader, input=stdin, check=True, capture_output=True, env=environment).stdout
        times.append(time.perf_counter() - begin)
        (entry,) = json.loads(reply)["results"]
        assert entry["ok"], entry
        assert len(entry["result"]["snapshots"]) == FEW
    report("  on the node, start to reply (promised: 1,000 ms)", f"{statistics.median(times) * 1000:,.0f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wcow-bench-") as directory:
        print(f"CPython {sys.version.split()[0]}, {os.cpu_count()} cores, {directory}")
        for count in (FEW, MANY):
            bench(pathlib.Path(directory) / str(count), count)
        bench_info(pathlib.Path(directory))


if __name__ == "__main__":
    main()
