# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The background process of a lab: listeners for all nodes in one event loop.

Its parent, ``up``, hands it the configuration as JSON on standard input (the
password is on no command line), and reads one line of JSON from its standard
output: that it listens, or why it does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from .access_log import AccessLog
from .authentication import Credentials
from .certificate import server_context
from .faults import Faults
from .host import USER, HostFiles
from .http import Endpoint
from .node import IDLE_TIMEOUT, Node
from .state import ACCESS_LOG, AUTHORITY, AlreadyRunning, NodeState, State, lock, publish


class Configuration(NamedTuple):
    """What ``up`` was asked for. ``connections`` has an entry for each node; times in seconds."""

    directory: str
    connections: tuple[str, ...]
    auth: tuple[str, ...]
    tls: bool
    latency: float
    spawn: float
    with_python: bool
    password: str
    interpreter: str = sys.executable
    idle_timeout: float = IDLE_TIMEOUT


class Server:
    """The nodes of one lab. ``start``, then ``close``, in a running event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._log = AccessLog(Path(configuration.directory) / ACCESS_LOG)
        self._nodes: list[Node] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._endpoints: list[Endpoint] = []

    async def start(self) -> State:
        """Make the nodes' files, listen on a free port for each, and say where."""
        configuration = self._configuration
        directory = Path(configuration.directory)
        context = server_context(directory / AUTHORITY) if configuration.tls else None
        credentials = Credentials(USER, configuration.password, configuration.auth)
        states = []
        for number, connection in enumerate(configuration.connections, start=1):
            files = HostFiles(f"node{number}", directory / f"node{number}")
            files.create(configuration.with_python, configuration.interpreter)
            node = Node(files, self._log, configuration.latency, configuration.spawn, configuration.idle_timeout)
            endpoint = Endpoint(node, credentials, context, Faults(files.directory))
            port = await endpoint.listen()
            self._nodes.append(node)
            self._endpoints.append(endpoint)
            self._tasks.append(asyncio.ensure_future(node.reap()))
            states.append(NodeState(files.name, connection, port))
        return State(os.getpid(), configuration.tls, configuration.auth, tuple(states))

    async def close(self) -> None:
        """Stop listening, drop connections, and end everything that runs on the nodes."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self._nodes:
            await node.close()
        self._log.close()


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    fields = json.load(sys.stdin)
    configuration = Configuration(**{**fields, **{key: tuple(fields[key]) for key in ("connections", "auth")}})
    return asyncio.run(_serve(configuration))


async def _serve(configuration: Configuration) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        with lock(Path(configuration.directory)) as file:
            server = Server(configuration)
            try:
                state = await server.start()
                publish(file, state)
                _report({"pid": state.pid})
                await ended.wait()
            finally:
                await server.close()
    except (OSError, AlreadyRunning) as error:
        _report({"error": str(error)})
        return 1
    return 0


def _report(message: dict[str, object]) -> None:
    """Tell the parent, and let go of the pipe to it."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
