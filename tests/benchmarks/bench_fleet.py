# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet side: audit and resize of many lab nodes, by forks. Prints numbers, judges none.

Real ansible-playbook against lab nodes, all on this machine, with 20 ms before
each answer and 300 ms for each shell, as over a network to Windows. Nodes and
controller share the processors, so what counts for a controller of its own is
its processor time: a task cannot take less than that, whatever the forks.

``WCOW_BENCH_SMOKE=1`` measures few nodes. ``WCOW_BENCH_PROFILE=1`` says where
the controller's processor time goes, by py-spy, which must be on PATH.
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
FORKS = (2, 4) if SMOKE else (5, 10, 25, 50)
SNAPSHOTS = 3 if SMOKE else 10
GIB = 1024**3

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

SETUP = [
    {"wcow.snapshotter.store": {}},
    {
        "wcow.snapshotter.snapshot_set": {
            "snapshots": [{"state": "active", "key": f"agent-{number:02}"} for number in range(SNAPSHOTS)]
        }
    },
]


class Cost(NamedTuple):
    """Of one play: seconds, results of tasks, the controller's processor seconds, requests and bytes of all nodes."""

    seconds: float
    tasks: int
    cpu: float
    requests: int
    size: int


class Fleet:
    """Lab nodes below ``directory`` that all speak ``connection``."""

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
        """What a play costs that ends well on all nodes."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache" / "dev"),
            "ANSIBLE_CALLBACKS_ENABLED": "wcow.snapshotter.progress",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        variables = {"wcow_report": str(self._lab / "report"), "wcow_minimum_free": "1", **variables}
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
    """Of the programs that have been started from here and have ended, with those that they started."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(what: str, cost: Cost) -> None:
    print(
        f"{what:<32} {cost.seconds:>7.1f} s {cost.tasks / cost.seconds:>7.1f} tasks/s "
        f"{cost.cpu / cost.tasks * 1000:>6.0f} ms controller/task "
        f"{cost.requests / NODES:>6.1f} requests/node {cost.size / NODES:>9,.0f} B/node"
    )


#: What a sample is about: the first of these that is in its stack, from the innermost frame outwards.
PARTS = (
    ("payload", r"_payload\.py"),
    (
        "talking to the node (pypsrp, pywinrm, HTTP, XML)",
        r"/(pypsrp|winrm|requests|urllib3|spnego|xmltodict)/|http/client",
    ),
    ("looking for plugins, importing", r"plugins/loader\.py|importlib|_collection_finder"),
    ("templates", r"_templating|jinja2|template/"),
    ("variables and inventory", r"vars/|inventory/"),
    ("starting and ending workers", r"multiprocessing|executor/process"),
    ("output and callbacks", r"plugins/callback|utils/display"),
)


def show_profile(path: pathlib.Path) -> None:
    """Samples by part, of the main process and of the workers."""
    parts: Dict[bool, Counter[str]] = {False: collections.Counter(), True: collections.Counter()}
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        part = next(
            (name for frame in reversed(frames) for name, pattern in PARTS if re.search(pattern, frame)),
            "everything else",
        )
        parts["executor/process/worker.py" in stack][part] += int(count)
    total = sum(sum(counter.values()) for counter in parts.values())
    for in_worker, counter in parts.items():
        for part, count in counter.most_common():
            print(f"  {'workers' if in_worker else 'main process':<14} {part:<50} {count / total:>6.1%}")


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
            print(f"processor time of the controller, {connection}, audit:")
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
