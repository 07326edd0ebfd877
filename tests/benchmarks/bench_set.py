# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare 500 snapshots in one task with a loop of tasks. Prints figures only.

On the node: time from the start of the program to its reply, for sets that
create everything, change nothing, and remove everything. On the wire: real
ansible-playbook runs a set against lab nodes, and a loop over a part of it. The
figures of the loop are extrapolated.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Tuple

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
COUNT = 50 if SMOKE else 500
LOOPED = 5 if SMOKE else 20
FILTERS = ['labels."example.com/team"==blue']
BASE = [
    {"operation": "prepare", "arguments": {"key": "k"}},
    {"operation": "commit", "arguments": {"key": "k", "name": "servercore"}},
]


def items(count: int) -> List[Dict[str, Any]]:
    return [
        {
            "state": "active",
            "key": f"build-agent-{number:04}",
            "parent": "servercore",
            "rootfs_size": "40GB",
            "labels": {"example.com/team": "blue", "example.com/number": str(number)},
        }
        for number in range(count)
    ]


def ask(root: pathlib.Path, *operations: Dict[str, Any]) -> Tuple[float, str]:
    """Return the seconds from the start of the program to its end, and the reply."""
    request = {"protocol": 1, "root": str(root), "layers": "emulated", "operations": operations}
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "plugins" / "module_utils")}
    begin = time.perf_counter()
    reply = subprocess.run(
        [sys.executable, "-m", "core.door"],
        env=environment,
        input=json.dumps(request),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    return time.perf_counter() - begin, reply


def bench_node(directory: pathlib.Path) -> None:
    root = directory / "store"
    ask(root, *BASE)
    pruning = {"prune": True, "prune_filters": FILTERS}
    for what, arguments in (
        ("make", {"snapshots": items(COUNT)}),
        ("nothing to do", {"snapshots": items(COUNT), **pruning}),
        ("prune", {"snapshots": [], **pruning}),
    ):
        seconds, reply = ask(root, {"operation": "ensure_set", "arguments": arguments})
        assert json.loads(reply)["results"][0]["result"]["failure"] is None
        print(f"{f'set of {COUNT} on the node, {what}':<50} {seconds:>8.2f} s {len(reply):>12,} B reply")


def bench_wire(directory: pathlib.Path) -> None:
    lab = directory / "lab"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache" / "dev")}
    base = [{"wcow.snapshotter.snapshot": {"key": "k"}}]
    base += [{"wcow.snapshotter.snapshot": {"key": "k", "name": "servercore", "state": "committed"}}]
    options = {option: f"{{{{ item.{option} }}}}" for option in items(1)[0]}
    loop = {"wcow.snapshotter.snapshot": options, "loop": items(LOOPED)}
    clear = {"wcow.snapshotter.snapshot_set": {"snapshots": [], "prune": True, "prune_filters": FILTERS}}
    whole = {"wcow.snapshotter.snapshot_set": {"snapshots": items(COUNT)}}

    def play(*tasks: Dict[str, Any]) -> Tuple[float, Dict[str, List[int]]]:
        """Run tasks. Return the seconds, and for each kind of shell its requests and its bytes in both directions."""
        playbook = lab / "play.yml"
        playbook.write_text(json.dumps([{"hosts": "windows", "gather_facts": False, "tasks": tasks}]))
        (lab / "access.jsonl").write_text("")
        begin = time.perf_counter()
        command = ["ansible-playbook", "-i", str(lab / "inventory.yml"), str(playbook)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        costs: Dict[str, List[int]] = collections.defaultdict(lambda: [0, 0])
        for line in map(json.loads, (lab / "access.jsonl").read_text().splitlines()):
            if line.get("shell") and "received" in line:
                costs[line["shell"]][0] += 1
                costs[line["shell"]][1] += line["received"] + line["sent"]
        return seconds, costs

    def run(*command: str) -> None:
        subprocess.run([sys.executable, "-m", "lab", *command], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)

    run("up", "--nodes", "2", "--connection", "psrp,winrm", "--directory", str(lab))
    try:
        play(*base)
        start, _costs = play({"wcow.snapshotter.snapshot_info": {"names": []}})
        loop_seconds, loop_costs = play(loop)
        play(clear)
        set_seconds, set_costs = play(whole)
    finally:
        run("down", "--purge", "--directory", str(lab))
    # Both start ansible-playbook and two connections once.
    looped = start + (loop_seconds - start) * COUNT / LOOPED
    print(f"{f'playbook, set of {COUNT}, 2 nodes':<50} {set_seconds:>8.2f} s")
    times = looped / set_seconds
    print(f"{f'playbook, loop over {COUNT} (from {LOOPED})':<50} {looped:>8.2f} s {times:>10.1f} times the set")
    for shell, cost in sorted(set_costs.items()):
        print(f"{f'  set, {shell}':<50} {cost[0]:>8} requests {cost[1]:>12,} B")
        requests, size = (number * COUNT // LOOPED for number in loop_costs[shell])
        print(f"{f'  loop, {shell}':<50} {requests:>8} requests {size:>12,} B {size / cost[1]:>10.1f} times the set")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wcow-bench-") as name:
        bench_node(pathlib.Path(name))
        bench_wire(pathlib.Path(name))


if __name__ == "__main__":
    main()
