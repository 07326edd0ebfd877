# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known on disk of a lab: ``<directory>/lab.json``.

The process that serves a lab holds a lock (flock) on the file as long as it
lives, and the kernel drops the lock with the process. So a process id in the
file is believed only while the lock is held, and an id that has been given to
somebody else is never signalled.
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

#: Seconds that a server gets to end its children before it is killed.
_PATIENCE = 10.0


class AlreadyRunning(Exception):
    """Another process serves a lab in this directory."""


class NodeState(NamedTuple):
    """A node and how Ansible reaches it; ``connection`` is psrp or winrm."""

    name: str
    connection: str
    port: int


class State(NamedTuple):
    """A lab that runs, or the last one that ran in a directory."""

    pid: int
    tls: bool
    auth: tuple[str, ...]
    nodes: tuple[NodeState, ...]


def lock(directory: Path) -> TextIO:
    """Make this process the one that serves a lab in ``directory``, until the returned file is closed.

    Raises AlreadyRunning.
    """
    file = (directory / STATE).open("a+", encoding="utf-8")
    for attempt in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            # Somebody who only looks (see read) has it for a moment.
            if attempt == 19:
                file.close()
                raise AlreadyRunning(f"a lab is already running in {directory}") from None
            time.sleep(0.02)
    file.truncate(0)
    return file


def publish(file: TextIO, state: State) -> None:
    """Write the state to the locked file: the lab listens."""
    json.dump({**state._asdict(), "nodes": [node._asdict() for node in state.nodes]}, file)
    file.write("\n")
    file.flush()


def read(directory: Path) -> tuple[State | None, bool]:
    """The state of the last lab in the directory and whether a lab runs there now.

    The state is None where there was none, and while a lab is just starting.
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
    """End the lab that runs in the directory; whether there was one.

    The inventory goes too, since its ports and its password are void. Raises
    TimeoutError if the process does not end, which even SIGKILL cannot help.
    """
    state, running = read(directory)
    was_running = running
    signals = [signal.SIGTERM, signal.SIGKILL]
    next_signal = time.monotonic()
    give_up = next_signal + 3 * _PATIENCE
    while running:
        if time.monotonic() > give_up:
            raise TimeoutError(f"the process that serves the lab in {directory} does not end")
        if state is not None and signals and time.monotonic() >= next_signal:
            os.kill(state.pid, signals.pop(0))
            next_signal = time.monotonic() + _PATIENCE
        time.sleep(0.02)
        state, running = read(directory)
    (directory / INVENTORY).unlink(missing_ok=True)
    return was_running


def purge(directory: Path) -> None:
    """Delete what labs have written to the directory, and the directory if nothing else is in it.

    A directory without STATE is not one of a lab, and nothing happens.
    """
    if not (directory / STATE).exists():
        return
    for node in directory.glob("node*"):
        if re.fullmatch("node[0-9]{1,3}", node.name):
            shutil.rmtree(node)
    for name in (INVENTORY, ACCESS_LOG, SERVER_LOG, AUTHORITY, STATE):
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _parse(text: str) -> State | None:
    """None for a file that its writer has not finished."""
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
