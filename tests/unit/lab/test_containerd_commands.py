# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test labs with containerd: ``up --containerd``, ``break``, and what happens when its process ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import pytest

from lab.containerd import messages
from lab.containerd.node import NodeContainerd
from lab.host import HostFiles

CHECKOUT = Path(__file__).resolve().parents[3]


def lab(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments, "--directory", str(directory)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def directory():
    """A directory with a short path, because it contains sockets."""
    with tempfile.TemporaryDirectory(prefix="lab-") as path:
        yield Path(path) / "lab"
        lab(Path(path) / "lab", "down")


def process_id(node):
    method = next(each for each in messages.services()["containerd.services.introspection.v1.Introspection"][1:])
    with grpc.insecure_channel(f"unix:{node.socket}") as channel:
        call = channel.unary_unary(
            "/containerd.services.introspection.v1.Introspection/Server",
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return call(method.request(), timeout=30, wait_for_ready=True).pid


def service(node):
    """Return the service that the programs of the node see."""
    files = HostFiles(node.directory.name, node.directory)
    described = json.loads(Path(files.environment()["WCOW_EMULATED_SERVICES"]).read_text())["services"]["containerd"]
    assert described["command_line"] == r'"C:\Program Files\containerd\containerd.exe" --run-service'
    return described


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid):
    return Path(f"/proc/{pid}").exists()


def test_a_life(directory):
    up = lab(directory, "up", "--nodes", "2", "--containerd")
    assert (up.returncode, up.stderr) == (0, "")
    assert r"Each node has a containerd: \\.\pipe\containerd-containerd is " in up.stdout
    nodes = [NodeContainerd(directory / name) for name in ("node1", "node2")]
    pids = [process_id(node) for node in nodes]
    assert len(set(pids)) == 2

    stopped = lab(directory, "break", "node1", "stopped")
    assert stopped.stdout == "containerd of node1 is stopped. Start it with: python -m lab break node1 started\n"
    assert not is_running(pids[0])
    assert not nodes[0].answers()
    assert nodes[1].answers()
    assert not service(nodes[0])["is_running"]
    assert service(nodes[1])["is_running"]
    # Damage does not start what is stopped.
    done = lab(directory, "break", "node1", "leftover")
    assert (done.returncode, done.stdout) == (0, "The removal directory snapshots\\rm-4 exists.\n")
    assert not nodes[0].answers()
    assert lab(directory, "break", "node1", "started").stdout == "containerd of node1 runs.\n"
    assert nodes[0].answers()
    wait_until(lambda: service(nodes[0])["is_running"])

    assert lab(directory, "break", "node2", "leftover").returncode == 0
    assert process_id(nodes[1]) != pids[1]
    pids[1] = process_id(nodes[1])

    # The process starts again after it was killed.
    pids[0] = process_id(nodes[0])
    os.kill(pids[0], signal.SIGKILL)
    wait_until(lambda: not is_running(pids[0]))
    wait_until(nodes[0].answers)
    pids[0] = process_id(nodes[0])

    assert lab(directory, "down").returncode == 0
    assert not any(is_running(pid) for pid in pids)
    assert not any(node.socket.exists() for node in nodes)
    assert [(directory / node / "containerd.log").read_text() for node in ("node1", "node2")] == ["", ""]
    assert (directory / "lab.log").read_text() == ""
    # A store can be damaged without a lab, too.
    assert lab(directory, "break", "node2", "orphan").returncode == 0
    assert lab(directory, "down", "--purge").returncode == 0
    assert not directory.exists()


def test_a_lab_that_was_killed_leaves_no_process(directory):
    assert lab(directory, "up", "--nodes", "1", "--containerd").returncode == 0
    pid = process_id(NodeContainerd(directory / "node1"))
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    assert lab(directory, "up", "--nodes", "1", "--containerd").returncode == 0


def test_a_node_without_containerd(directory):
    assert lab(directory, "up", "--nodes", "1").returncode == 0
    assert "WCOW_EMULATED_SERVICES" not in HostFiles("node1", directory / "node1").environment()
    done = lab(directory, "break", "node1", "orphan")
    assert done.returncode == 1
    assert "node1 in " in done.stderr
    assert "up --directory" in done.stderr
    assert "--containerd" in done.stderr
    assert lab(directory, "break", "node1", "flood").returncode == 2


def test_a_path_that_is_too_long_for_a_socket(tmp_path):
    directory = tmp_path / ("x" * 90)
    up = lab(directory, "up", "--nodes", "1", "--containerd")
    assert up.returncode == 1
    assert "is longer than 107 bytes; choose a shorter --directory for the lab" in up.stderr


def test_a_containerd_that_does_not_start(directory, monkeypatch):
    """Its database is not one."""
    node = NodeContainerd(directory / "node1")
    database = node.root / "io.containerd.metadata.v1.bolt" / "meta.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"x" * 8192)
    up = lab(directory, "up", "--nodes", "1", "--containerd")
    assert up.returncode == 1
    (directory / "lab.json").touch()
    up = lab(directory, "up", "--nodes", "1", "--containerd")
    assert up.returncode == 1
    assert "containerd of node1 did not start; see " in up.stderr
    assert "not a bbolt database" in (directory / "node1" / "containerd.log").read_text()


def test_a_supervisor_that_is_cancelled_ends_the_process(directory):
    node = NodeContainerd(directory / "node1")
    node.directory.mkdir(parents=True)

    async def live():
        task = await node.start()
        pid = await asyncio.to_thread(process_id, node)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return pid

    assert not is_running(asyncio.run(live()))
