# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Run the simulated containerd of a lab node, as a service manager does.

In the directory of the node::

    pipe/containerd-containerd          the unix socket that stands for \\.\pipe\containerd-containerd
    C/ProgramData/containerd/root       containerd's root directory
    containerd.stopped                  exists while containerd must not run
    containerd.log                      what the process writes
    services.json                       describes the service ``containerd`` (WCOW_EMULATED_SERVICES)

The process ends when its standard input does, so it never survives the lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import socket as sockets
import subprocess
import sys
import time
from pathlib import Path

from ..host import SERVICES

#: The address that clients on the node use, and containerd's default on Windows.
ADDRESS = r"\\.\pipe\containerd-containerd"

#: How ``damage`` damages a store, and what each kind leaves.
DAMAGES = {
    "next-directory": "a layer directory with the id that the next snapshot gets, as after a kill during Prepare",
    "dangling-child": "a snapshot that cannot be removed, because it has a link to a child that does not exist",
    "lost-backend": "a snapshot whose record and layer are gone, while containerd still names it",
    "leftover": "a removal directory rm-<id>, whose layer was not destroyed",
    "orphan": "a record and a layer that containerd does not name, as after a kill during Prepare",
}

#: The command line of the service, as ``containerd --register-service`` makes it.
_COMMAND_LINE = r'"C:\Program Files\containerd\containerd.exe" --run-service'

_HOME = Path(__file__).resolve().parents[2]
#: Where Python finds the collection under its own name: where it is installed, or in a checkout.
_COLLECTION = _HOME.parents[2] if _HOME.parent.parent.name == "ansible_collections" else _HOME / ".cache" / "dev"

#: The most bytes that the path of a unix socket can have on Linux.
_MAX_SOCKET_PATH = 107

#: Seconds in which containerd has to start, or to end before it is killed.
_PATIENCE = 30.0
#: Seconds between two looks at the process and at the file ``containerd.stopped``.
_POLL = 0.05
#: Seconds before the next attempt to start a containerd that did not start.
_RETRY = 1.0

_logger = logging.getLogger(__name__)


class Failure(Exception):
    """containerd cannot run. The message is for the user."""


class NodeContainerd:
    """The containerd of the node with this directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "pipe" / "containerd-containerd"
        self.root = directory / "C" / "ProgramData" / "containerd" / "root"
        self._stopped = directory / "containerd.stopped"

    def exists(self) -> bool:
        """Return True if the node has ever had a containerd."""
        return self.root.is_dir()

    def is_stopped(self) -> bool:
        """Return True while containerd must not run."""
        return self._stopped.exists()

    def answers(self) -> bool:
        """Return True if a process listens on the socket."""
        with sockets.socket(sockets.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(str(self.socket))
            return True
        return False

    # -- in the process of the lab ------------------------------------------------

    async def start(self) -> asyncio.Task[None]:
        """Start containerd. Return a task that keeps it running, and ends it when it is cancelled. Raises Failure."""
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_PATH:
            raise Failure(
                f"the path of the socket {self.socket} is longer than {_MAX_SOCKET_PATH} bytes; "
                "choose a shorter --directory for the lab"
            )
        self._stopped.unlink(missing_ok=True)
        return asyncio.ensure_future(self._supervise(await self._start()))

    async def _supervise(self, process: asyncio.subprocess.Process | None) -> None:
        """Start the process again each time it ends. While ``containerd.stopped`` exists, there is none."""
        try:
            while True:
                if self.is_stopped() and process is not None:
                    await self._end(process)
                    process = None
                elif not self.is_stopped() and (process is None or process.returncode is not None):
                    try:
                        process = await self._start()
                    except Failure as failure:
                        _logger.error("%s", failure)
                        await asyncio.sleep(_RETRY)
                await asyncio.sleep(_POLL)
        finally:
            if process is not None:
                await self._end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        # On Windows, a named pipe disappears with its server.
        self.socket.unlink(missing_ok=True)
        with (self.directory / "containerd.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command("serve"),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=_HOME,
            )
        deadline = time.monotonic() + _PATIENCE
        while not self.answers():
            if process.returncode is not None or time.monotonic() > deadline:
                await self._end(process)
                raise Failure(f"containerd of {self.directory.name} did not start; see {log.name}")
            await asyncio.sleep(_POLL)
        self._describe(is_running=True)
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End the process by closing its standard input; kill it if that does not help."""
        self._describe(is_running=False)
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()

    def _describe(self, is_running: bool) -> None:
        """Tell the programs of the node about the service."""
        service = {"command_line": _COMMAND_LINE, "is_running": is_running}
        unfinished = self.directory / f"{SERVICES}.new"
        unfinished.write_text(json.dumps({"services": {"containerd": service}}), encoding="utf-8")
        unfinished.replace(self.directory / SERVICES)

    # -- in other processes --------------------------------------------------------

    def switch_off(self) -> None:
        """Stop containerd and let it stay stopped. Return when its databases are not locked. Raises Failure."""
        self._stopped.touch()
        deadline = time.monotonic() + _PATIENCE
        while self._is_locked():
            if time.monotonic() > deadline:
                raise Failure(f"containerd of {self.directory.name} does not end")
            time.sleep(_POLL)

    def switch_on(self, wait: bool) -> None:
        """Let containerd run. With ``wait``, return when it answers. Raises Failure."""
        self._stopped.unlink(missing_ok=True)
        deadline = time.monotonic() + _PATIENCE
        while wait and not self.answers():
            if time.monotonic() > deadline:
                raise Failure(f"containerd of {self.directory.name} does not answer; is the lab running?")
            time.sleep(_POLL)

    def damage(self, kind: str) -> str:
        """Damage the store of a containerd that is stopped. Return what was done. Raises Failure."""
        try:
            done = subprocess.run(
                self._command(kind),
                env=self._environment(),
                cwd=_HOME,
                timeout=_PATIENCE,
                capture_output=True,
                check=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise Failure(f"another process has the databases of containerd of {self.directory.name} open") from None
        except subprocess.CalledProcessError as error:
            raise Failure(f"cannot damage containerd of {self.directory.name}: {error.stderr.strip()}") from None
        return done.stdout.strip()

    def _command(self, what: str) -> list[str]:
        return [sys.executable, "-m", "lab.containerd", str(self.directory), what]

    def _environment(self) -> dict[str, str]:
        if not _COLLECTION.is_dir():
            raise Failure(f"{_COLLECTION} does not exist, in which the collection has its own name; run: make venv")
        return {
            **os.environ,
            "PYTHONPATH": str(_COLLECTION),
            # The emulated layers of containerd are those of the node.
            "WCOW_EMULATED_DRIVES": str(self.directory),
        }

    def _is_locked(self) -> bool:
        for path in self.root.glob("*/meta*.db"):
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        return False
