# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PSRP and WinRS shells have in common (MS-WSMV 3.1.4.5)."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from typing import Any

from .output import OutputQueue
from .process import ScriptRun

#: Writes one line of the access log; the node's name is in it already.
Note = Callable[..., Any]


class RunningScript:
    """A script in progress: its run, its output and the task that drives it."""

    def __init__(self, run: ScriptRun, output: OutputQueue, task: asyncio.Task[None]) -> None:
        self.run = run
        self.output = output
        self.task = task

    async def stop(self) -> None:
        """End it and its processes; returns when nothing of it is left."""
        self.run.kill()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.output.finish(None)


class Shell(abc.ABC):
    """One remote shell. Command ids are GUIDs in upper case, "" for the shell itself.

    All methods raise ``wsman.Fault`` for what the client does wrong.
    """

    #: As the access log calls it.
    kind: str
    #: Streams of the shell, for the answer to Create.
    input_streams: str
    output_streams: str

    def __init__(self, shell_id: str) -> None:
        self.id = shell_id

    @abc.abstractmethod
    def command(self, command_id: str, command: str, arguments: str) -> str:
        """Start a command, and say its id (the given one if there is one)."""

    @abc.abstractmethod
    def send(self, command_id: str, data: bytes, end: bool) -> None:
        """Input for a command, or for the shell."""

    @abc.abstractmethod
    def output(self, command_id: str) -> OutputQueue:
        """Where Receive finds what the command, or the shell, has said."""

    @abc.abstractmethod
    async def signal(self, command_id: str) -> None:
        """End a command and forget it: the meaning of each signal that clients send."""

    @abc.abstractmethod
    async def close(self) -> None:
        """End everything that runs in the shell."""
