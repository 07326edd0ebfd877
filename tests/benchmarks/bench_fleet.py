# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure audit and resize of many lab nodes for different numbers of forks. Prints figures only.

Real ansible-playbook runs against lab nodes on the same machine. Each answer
has a delay of 20 ms and each shell one of 300 ms, as over a network to Windows.
Nodes and controller share the processors. For a separate controller, the
relevant figure is its processor time: a task cannot take less than that with
any number of forks.

``WCOW_BENCH_SMOKE=1`` measures few nodes. ``WCOW_BENCH_PROFILE=1`` shows where
the controller's processes spend their time, including waits. It uses py-spy,
which must be on PATH and slows the play down.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Counter, Dict, NamedTuple

SMOKE = os.environ.get("WCOW_BENCH_SMOKE") == "1"
PROFILE = os.environ.get("WCOW_BENCH_PROFILE") == "1"
NODES = 4 if SMOKE else 50
FORKS = (4,) if SMOKE else (5, 10, 25, 50)
SNAPSHOTS = 2 if SMOKE else 10
GIB = 1024**3

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

AGENTS = [{"state": "active", "key": f"agent-{number:02}", "parent": "base"} for number in range(SNAPSHOTS)]
SETUP = [
    {"wcow.snapshotter.store": {}},
    {"wcow.snapshotter.snapshot": {"key": "base-key"}},
    {"wcow.snapshotter.snapshot": {"key": "base-key", "name": "base", "state": "committed"}},
    {"wcow.snapshotter.snapshot_set": {"snapshots": AGENTS}},
]


class Cost(NamedTuple):
    """One play: seconds, task results, processor seconds of the controller, and requests and bytes of all nodes."""

    seconds: float
    tasks: int
    cpu: float
    requests: int
    size: int


class Fleet:
    """Lab nodes below ``directory`` that all use ``connection``."""

    def __init__(self, directory: pathlib.Path, connection: str) -> None:
        self._lab = directory / connection
        self.profile = directory / f"{connection}.profile"
        options = ("--nodes", str(NODES), "--connection", connection, "--latency", "0.02", "--spawn", "0.3")
        self.lab("up", *options)

    def lab(self, command: str, *options: str) -> None:
        arguments = [sys.executable, "-m", "lab", command, *options, "--directory", str(self._lab)]
        subprocess.run(arguments, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)

    def setup(self) -> Cost:
        playbook = self._lab / "setup.yml"
        playbook.write_text(json.dumps([{"hosts": "windows", "gather_facts": False, "tasks": SETUP}]))
        return self.play(str(playbook), FORKS[-1])

    def play(self, playbook: str, forks: int, profile: bool = False, **variables: object) -> Cost:
        """Run a play that succeeds on all nodes, and return its cost."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache" / "dev"),
            "ANSIBLE_CALLBACKS_ENABLED": "wcow.snapshotter.progress",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        variables = {"wcow_report": str(self._lab / "report"), "wcow_minimum_free": "1B", **variables}
        command = ["ansible-playbook", "-i", str(self._lab / "inventory.yml"), "-f", str(forks), playbook]
        command += ["-e", json.dumps(variables)]
        if profile:
            recorder = ["py-spy", "record", "--subprocesses", "--format", "raw", "--rate", "50", "--idle"]
            command = [*recorder, "--output", str(self.profile), "--", *command]
        log = self._lab / "access.jsonl"
        log.write_text("")
        used, begin = processor_seconds(), time.perf_counter()
        done = subprocess.run(command, env=environment, cwd=self._lab, capture_output=True, text=True, check=False)
        seconds, cpu = time.perf_counter() - begin, processor_seconds() - used
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        tasks = re.findall(r"^progress: (\d+) tasks in", done.stderr, re.MULTILINE)
        lines = [line for line in map(json.loads, log.read_text().splitlines()) if "received" in line]
        size = sum(line["received"] + line["sent"] for line in lines)
        return Cost(seconds, int(tasks[0]), cpu, len(lines), size)


def processor_seconds() -> float:
    """Return the processor seconds of all ended child processes and their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(what: str, cost: Cost) -> None:
    print(
        f"{what:<32} {cost.seconds:>7.1f} s {cost.tasks / cost.seconds:>7.1f} tasks/s "
        f"{cost.cpu / cost.tasks * 1000:>6.0f} ms controller/task "
        f"{cost.requests / NODES:>6.1f} requests/node {cost.size / NODES:>9,.0f} B/node"
    )


#: Kinds of work in a task's process, and in the main thread of the main process. The first match in a stack counts.
IN_WORKERS = (
    ("building the payload", r"_payload\.py"),
    ("opening a shell on the node", r"RunspacePool\.open |open_shell "),
    ("closing it", r"RunspacePool\.close |close_shell |cleanup_command "),
    ("sending, and waiting for the node's reply", r"/pypsrp/|/winrm/|connection/psrp\.py|connection/winrm\.py"),
    ("loading plugins", r"plugins/loader\.py"),
)
IN_MAIN = (
    ("building the payload", r"_payload\.py"),
    ("starting workers", r"_launch \(multiprocessing"),
    ("waiting for workers and taking in results", r"_wait_on_pending_results|_process_pending_results"),
    ("loading plugins, importing", r"plugins/loader\.py|importlib"),
    ("variables and inventory", r"/vars/|/inventory/"),
)


def show_profile(path: pathlib.Path) -> None:
    """Print the share of samples for each kind of work."""
    counts: Dict[str, Counter[str]] = {"tasks": collections.Counter(), "main": collections.Counter()}
    for line in path.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        if "results_thread_main" in stack:  # This thread waits for what the workers send.
            continue
        where, parts = ("tasks", IN_WORKERS) if "executor/process/worker.py" in stack else ("main", IN_MAIN)
        part = next((name for name, pattern in parts if re.search(pattern, stack)), "the rest of Ansible")
        counts[where][part] += int(samples)
    for where, counter in counts.items():
        total = sum(counter.values())
        for part, count in counter.most_common():
            print(f"  {where:<6} {part:<50} {count / total:>6.1%}")


def bench(directory: pathlib.Path, connection: str) -> None:
    fleet = Fleet(directory, connection)
    try:
        show(f"{connection}, first contact, forks {FORKS[-1]}", fleet.setup())
        size = 40
        for forks in FORKS:
            show(f"{connection}, audit, forks {forks}", fleet.play("wcow.snapshotter.audit", forks))
            size += 10
            cost = fleet.play("wcow.snapshotter.resize", forks, rootfs_size_minimum=f"{size}GB")
            show(f"{connection}, resize, forks {forks}", cost)
        if PROFILE:
            fleet.play("wcow.snapshotter.audit", FORKS[-1], profile=True)
            print(f"where the time of an audit goes, {connection}, forks {FORKS[-1]}:")
            show_profile(fleet.profile)
    finally:
        fleet.lab("down", "--purge")


def main() -> None:
    if PROFILE and not shutil.which("py-spy"):
        raise SystemExit("WCOW_BENCH_PROFILE=1 needs py-spy on PATH: pip install py-spy")
    print(f"{NODES} nodes with {SNAPSHOTS} snapshots, {os.cpu_count()} processors for the controller and all nodes")
    with tempfile.TemporaryDirectory(prefix="wcow-bench-") as name:
        for connection in ("psrp",) if SMOKE else ("psrp", "winrm"):
            bench(pathlib.Path(name), connection)


if __name__ == "__main__":
    main()
