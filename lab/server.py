# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The background process of a lab: serves all nodes in one event loop.

The command ``up`` starts it, and writes the configuration to its standard
input as JSON, so that the password is not on a command line. The process
answers with one line of JSON: its id when it listens, or an error.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import services
from .access_log import AccessLog
from .authentication import Credentials
from .certificate import server_context
from .containerd.node import Failure, NodeContainerd
from .faults import Faults
from .host import SERVICES, USER, HostFiles
from .http import Endpoint
from .node import IDLE_TIMEOUT, Node
from .state import ACCESS_LOG, AUTHORITY, SSH_CONNECTIONS, AlreadyRunning, NodeState, State, lock, publish

if TYPE_CHECKING:
    from .ssh import SshEndpoint, SshKeys


class Configuration(NamedTuple):
    """The options of ``up``. ``connections`` has one entry for each node; times are in seconds."""

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
    containerd: bool = False


class Server:
    """The nodes of one lab. Call ``start``, then ``close``, in a running event loop."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._log = AccessLog(Path(configuration.directory) / ACCESS_LOG)
        self._nodes: list[Node] = []
        self._ssh: SshKeys | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._endpoints: list[Endpoint | SshEndpoint] = []

    async def start(self) -> State:
        """Create the files of the nodes, listen on a free port for each, and return the state."""
        configuration = self._configuration
        directory = Path(configuration.directory)
        context = server_context(directory / AUTHORITY) if configuration.tls else None
        credentials = Credentials(USER, configuration.password, configuration.auth)
        states = []
        for number, connection in enumerate(configuration.connections, start=1):
            files = HostFiles(f"node{number}", directory / f"node{number}")
            files.create(configuration.with_python, configuration.interpreter)
            # Those of an earlier lab do not run.
            (files.directory / SERVICES).unlink(missing_ok=True)
            faults = Faults(files.directory)
            endpoint: Endpoint | SshEndpoint
            if connection in SSH_CONNECTIONS:
                endpoint = self._ssh_endpoint(files, SSH_CONNECTIONS[connection], faults)
            else:
                node = Node(files, self._log, configuration.latency, configuration.spawn, configuration.idle_timeout)
                self._nodes.append(node)
                self._tasks.append(asyncio.ensure_future(node.reap()))
                endpoint = Endpoint(node, credentials, context, faults)
            self._endpoints.append(endpoint)
            states.append(NodeState(files.name, connection, await endpoint.listen()))
        if self._ssh is not None:
            self._ssh.write([node.port for node in states if node.connection in SSH_CONNECTIONS])
        if configuration.containerd:
            starting = [NodeContainerd(directory / node.name).start() for node in states]
            results = await asyncio.gather(*starting, return_exceptions=True)
            self._tasks += [result for result in results if isinstance(result, asyncio.Task)]
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        await asyncio.gather(*(services.switch(directory / node.name, "start") for node in states))
        return State(os.getpid(), configuration.tls, configuration.auth, tuple(states))

    def _ssh_endpoint(self, files: HostFiles, shell: str, faults: Faults) -> SshEndpoint:
        # Most labs have no node with ssh, and start sooner without its library.
        from .ssh import SshEndpoint, SshKeys

        if self._ssh is None:
            self._ssh = SshKeys(Path(self._configuration.directory))
        configuration = self._configuration
        return SshEndpoint(files, self._log, self._ssh, shell, faults, configuration.latency, configuration.spawn)

    async def close(self) -> None:
        """Stop listening, drop connections, and end all programs of the nodes."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self._nodes:
            await node.close()
        directory = Path(self._configuration.directory)
        await asyncio.gather(*(services.switch(directory / node.name, "end") for node in self._nodes))
        self._log.close()


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    fields = json.load(sys.stdin)
    configuration = Configuration(**{**fields, **{key: tuple(fields[key]) for key in ("connections", "auth")}})
    # On Windows, other users cannot write to a directory that a program creates.
    os.umask(0o022)
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
    except (OSError, AlreadyRunning, Failure) as error:
        _report({"error": str(error)})
        return 1
    return 0


def _report(message: dict[str, object]) -> None:
    """Write the answer to the parent, and release its pipe."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
