# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a lab on disk: ``<directory>/lab.json``.

The process that serves a lab holds a lock (flock) on this file, and the kernel
releases the lock when the process ends. The process id in the file is valid
only while the lock is held. So a signal never reaches another process that has
got the same id.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

STATE = "lab.json"
INVENTORY = "inventory.yml"
ACCESS_LOG = "access.jsonl"
SERVER_LOG = "lab.log"
AUTHORITY = "ca.pem"
#: For ssh: the key of the client, and the key of the nodes.
PRIVATE_KEY = "id_ed25519"
KNOWN_HOSTS = "known_hosts"

#: The connections over ssh, and the default shell of a node with each.
SSH_CONNECTIONS = {"ssh-cmd": "cmd", "ssh-powershell": "powershell"}
CONNECTIONS = ("psrp", "winrm", *SSH_CONNECTIONS)

#: Seconds in which a server has to end its children before it is killed.
_PATIENCE = 10.0


class AlreadyRunning(Exception):
    """Another process serves a lab in this directory."""


class NodeState(NamedTuple):
    """A node, and how Ansible reaches it. ``connection`` is psrp, winrm, ssh-cmd or ssh-powershell."""

    name: str
    connection: str
    port: int


class State(NamedTuple):
    """The lab that is running in a directory, or the last one that ran."""

    pid: int
    tls: bool
    auth: tuple[str, ...]
    nodes: tuple[NodeState, ...]


def lock(directory: Path) -> TextIO:
    """Take the lock of the lab in ``directory``; closing the returned file releases it. Raises AlreadyRunning."""
    file = (directory / STATE).open("a+", encoding="utf-8")
    for attempt in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            # A process in read holds the lock for a moment.
            if attempt == 19:
                file.close()
                raise AlreadyRunning(f"a lab is already running in {directory}") from None
            time.sleep(0.02)
    file.truncate(0)
    return file


def publish(file: TextIO, state: State) -> None:
    """Write the state to the locked file. From now on the lab counts as started."""
    json.dump({**state._asdict(), "nodes": [node._asdict() for node in state.nodes]}, file)
    file.write("\n")
    file.flush()


def read(directory: Path) -> tuple[State | None, bool]:
    """Return the state of the last lab in the directory, and whether it is running.

    The state is None if there was no lab, and while the lab is starting.
    """
    try:
        file = (directory / STATE).open(encoding="utf-8")
    except FileNotFoundError:
        return None, False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            running = False
        except OSError:
            running = True
        return _parse(file.read()), running


def stop(directory: Path) -> bool:
    """End the lab in the directory, and return True if one was running.

    Deletes the inventory and the key for ssh too: they are no longer valid.
    Raises TimeoutError if the process does not end even after SIGKILL.
    """
    state, running = read(directory)
    was_running = running
    signals = [signal.SIGTERM, signal.SIGKILL]
    next_signal = time.monotonic()
    give_up = next_signal + 3 * _PATIENCE
    while running:
        if time.monotonic() > give_up:
            raise TimeoutError(
                f"process {state.pid if state else '?'}, which serves the lab in {directory}, does not end"
            )
        if state is not None and signals and time.monotonic() >= next_signal:
            os.kill(state.pid, signals.pop(0))
            next_signal = time.monotonic() + _PATIENCE
        time.sleep(0.02)
        state, running = read(directory)
    for name in (INVENTORY, PRIVATE_KEY):
        (directory / name).unlink(missing_ok=True)
    return was_running


def purge(directory: Path) -> None:
    """Delete the files of labs from the directory, and the directory if it is empty then.

    Does nothing to a directory without STATE, which is not a lab's directory.
    """
    if not (directory / STATE).exists():
        return
    for node in directory.glob("node*"):
        if re.fullmatch("node[0-9]{1,3}", node.name):
            shutil.rmtree(node)
    for name in (INVENTORY, ACCESS_LOG, SERVER_LOG, AUTHORITY, PRIVATE_KEY, KNOWN_HOSTS, STATE):
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _parse(text: str) -> State | None:
    """Return the state; None if the file is incomplete."""
    try:
        fields: dict[str, Any] = json.loads(text)
        nodes: Sequence[dict[str, Any]] = fields["nodes"]
        return State(
            pid=int(fields["pid"]),
            tls=bool(fields["tls"]),
            auth=tuple(fields["auth"]),
            nodes=tuple(NodeState(**node) for node in nodes),
        )
    except (ValueError, KeyError, TypeError):
        return None
