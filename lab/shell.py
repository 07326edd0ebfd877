# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of PSRP and WinRS shells (MS-WSMV 3.1.4.5)."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from typing import Any

from .output import OutputQueue
from .process import ScriptRun

#: Writes one line of the access log, with the name of the node.
Note = Callable[..., Any]


class RunningScript:
    """A running script: its run, its output and its task."""

    def __init__(self, run: ScriptRun, output: OutputQueue, task: asyncio.Task[None]) -> None:
        self.run = run
        self.output = output
        self.task = task

    async def stop(self) -> None:
        """End the script and its processes. Returns when all of them have ended."""
        self.run.kill()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.output.finish(None)


class Shell(abc.ABC):
    """One remote shell. Command ids are GUIDs in upper case; "" means the shell itself.

    All methods raise ``wsman.Fault`` for an invalid request.
    """

    #: The name in the access log.
    kind: str
    #: The streams of the shell, for the answer to Create.
    input_streams: str
    output_streams: str

    def __init__(self, shell_id: str) -> None:
        self.id = shell_id

    @abc.abstractmethod
    def command(self, command_id: str, command: str, arguments: str) -> str:
        """Start a command, and return its id: ``command_id``, or a new one for ""."""

    @abc.abstractmethod
    def send(self, command_id: str, data: bytes, end: bool) -> None:
        """Pass input to a command or the shell."""

    @abc.abstractmethod
    def output(self, command_id: str) -> OutputQueue:
        """Return the output of a command or the shell, for Receive."""

    @abc.abstractmethod
    async def signal(self, command_id: str) -> None:
        """End a command and forget it. All signals of clients have this meaning."""

    @abc.abstractmethod
    async def close(self) -> None:
        """End all commands of the shell."""
