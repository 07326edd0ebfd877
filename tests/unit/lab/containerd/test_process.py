# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the process of a simulated containerd: it is killed under load, and the next one continues."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt

from lab.containerd.node import NodeContainerd

CHECKOUT = Path(__file__).resolve().parents[4]
ROUNDS = 6
ROOT = {"containerd.io/gc.root": "1"}


def start(node):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "lab.containerd", str(node.directory), "serve"]
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not node.answers():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def work(client, round_number, ended):
    """Prepare, commit and remove snapshots until the connection breaks."""
    try:
        for number in range(10000):
            key = f"{round_number}-{number}"
            client.prepare(key, labels=ROOT)
            client.commit(f"{key}-committed", key, labels=ROOT)
            client.remove(f"{key}-committed")
    except grpc.RpcError as error:
        ended.append(error.code())


def read(path):
    with path.open("rb") as file:
        state = bolt.read_state(lambda offset, length: os.pread(file.fileno(), length, offset))
    walk = [state.root]
    while walk:
        walk += [value for _, value in walk.pop().items() if isinstance(value, bolt.Bucket)]
    return state.meta.transaction


def test_kills_under_load(directory, connect, figures):
    node = NodeContainerd(directory)
    choose = random.Random(1)
    transactions = [0, 0]
    for round_number in range(ROUNDS):
        process = start(node)
        client = connect(node.socket)
        ended = []
        thread = threading.Thread(target=work, args=(client, round_number, ended))
        try:
            assert "web" in client.names()
            thread.start()
            time.sleep(choose.uniform(0.05, 0.4))
        finally:
            process.kill()
            process.communicate()
        thread.join()
        assert ended == [grpc.StatusCode.UNAVAILABLE]
        now = [read(path) for path in sorted(node.root.glob("*/meta*.db"))]
        assert all(after > before for before, after in zip(transactions, now))
        transactions = now
    # The end of its standard input ends the process.
    process = start(node)
    process.communicate()
    assert process.returncode == 0
    assert not node.socket.exists()
    figures(kills_of_a_simulated_containerd=ROUNDS)
