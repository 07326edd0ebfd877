# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a small task: bytes on the wire, and time from its start on the node to its reply. Prints figures only.

Runs ansible-playbook against lab nodes: a first contact, which sends the
payload, and then another task. The access log gives the bytes: request bodies
with their HTTP headers, as received and sent by the node.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Dict, List

from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _call, _loader, _payload

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
STARTS = 3 if os.environ.get("WCOW_BENCH_SMOKE") == "1" else 20

PLAYBOOK = """
- hosts: windows
  gather_facts: false
  tasks:
    - wcow.snapshotter.snapshot:
        key: build-42
        state: absent
"""


def run(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)


def bench_task(directory: pathlib.Path) -> None:
    lab = directory / "lab"
    playbook = directory / "task.yml"
    playbook.write_text(PLAYBOOK)
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache" / "dev")}
    run("-m", "lab", "up", "--nodes", "2", "--connection", "psrp,winrm", "--directory", str(lab))
    try:
        for what in ("first contact", "one task"):
            log = lab / "access.jsonl"
            log.write_text("")
            subprocess.run(
                ["ansible-playbook", "-i", str(lab / "inventory.yml"), str(playbook)],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            costs: Dict[str, List[int]] = collections.defaultdict(lambda: [0, 0, 0])
            for line in map(json.loads, log.read_text().splitlines()):
                if line.get("shell") and "received" in line:
                    cost = costs[line["shell"]]
                    cost[0] += 1
                    cost[1] += line["received"]
                    cost[2] += line["sent"]
            for shell, (requests, received, sent) in sorted(costs.items()):
                figure = f"{requests} requests, {received:,} B sent, {sent:,} B back"
                print(f"{what + ', ' + shell:<40} {figure:>42}")
    finally:
        run("-m", "lab", "down", "--purge", "--directory", str(lab))


def bench_start(directory: pathlib.Path) -> None:
    """Measure a task on the node (loader, cached payload, core, reply), and the start of Python alone."""
    code = _payload.payload("own")
    path = directory / f"wcow-{code.digest}.zip"
    path.write_bytes(code.data)
    line = _call.loader_line(_loader.load, str(path), code.digest, code.boot.start, code.boot.stop)
    operation = {"operation": "ensure_snapshot", "arguments": {"state": "absent", "key": "build-42"}}
    request = {"protocol": 1, "root": str(directory / "store"), "operations": [operation]}
    stdin = f"{line}\n{json.dumps(request)}\n".encode("ascii")
    python = os.path.realpath(sys.executable)
    loader = [python, "-I", "-X", "utf8", "-c", "import sys;exec(sys.stdin.buffer.readline())"]
    whole, bare = [], []
    for _start in range(STARTS):
        begin = time.perf_counter()
        reply = subprocess.run(loader, input=stdin, check=True, capture_output=True).stdout
        whole.append(time.perf_counter() - begin)
        assert json.loads(reply)["results"][0]["ok"]
        begin = time.perf_counter()
        subprocess.run([python, "-I", "-X", "utf8", "-c", "pass"], check=True)
        bare.append(time.perf_counter() - begin)
    print(f"{'start to reply, payload cached':<58} {statistics.median(whole) * 1000:>20.1f} ms")
    print(f"{'  of that, a Python that does nothing':<58} {statistics.median(bare) * 1000:>20.1f} ms")
    print(f"{'payload':<58} {len(code.data):>21,} B")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wcow-bench-") as name:
        bench_task(pathlib.Path(name))
        bench_start(pathlib.Path(name))


if __name__ == "__main__":
    main()
