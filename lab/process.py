# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the statements of a script. Programs are local processes, with the pipes of Windows PowerShell 5.1."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

from .host import HostFiles
from .powershell import Call, Exit, Statement, command_line, split_command_line
from .scripts import Script
from .windows import ScriptError, Stopped, Windows

#: Writes one line of output, given without its line end.
Emit = Callable[[bytes], Awaitable[None]]


class CommandError(Exception):
    """PowerShell cannot start a program. ``name`` and ``category`` belong to its error record."""

    def __init__(self, message: str, name: str, category: str, program: str) -> None:
        super().__init__(message)
        self.name = name
        self.category = category
        self.program = program


def _not_found(program: str) -> CommandError:
    message = (
        f"The term '{program}' is not recognized as the name of a cmdlet, function, script file, or operable program. "
        "Check the spelling of the name, or if a path was included, verify that the path is correct and try again."
    )
    return CommandError(message, "CommandNotFoundException", "ObjectNotFound", program)


def _failed_to_run(program: str, error: str) -> CommandError:
    return CommandError(
        f"Program '{program}' failed to run: {error}", "NativeCommandFailed", "ResourceUnavailable", program
    )


class ScriptRun:
    """One run of one script on a node.

    ``feed`` appends a line to ``$input``, ``end_input`` ends it.
    """

    def __init__(self, files: HostFiles, output: Emit, error: Emit, byte_order_mark: bool = False) -> None:
        """``byte_order_mark`` puts a UTF-8 BOM at the start of a program's standard input.

        .NET does so when the console has code page 65001 (ansible/ansible issue 15770).
        """
        self._files = files
        self._output = output
        self._error = error
        self._byte_order_mark = byte_order_mark
        self._input: asyncio.Queue[str | None] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self.killed = False
        self.last_exit_code = 0

    def feed(self, line: str) -> None:
        """Append one object to ``$input``."""
        self._input.put_nowait(line)

    def end_input(self) -> None:
        """End ``$input``."""
        self._input.put_nowait(None)

    def kill(self) -> None:
        """Kill the running process with its process group, and run no further statement."""
        self.killed = True
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # The process has just ended by itself.

    async def run(self, statements: Sequence[Statement | Script]) -> int | None:
        """Run the statements in order, and return the exit code; None if the script ends without ``exit``.

        Raises CommandError for the first program that does not start, and runs nothing after it.
        """
        for statement in statements:
            if self.killed:
                break
            if isinstance(statement, Exit):
                return self.last_exit_code if statement.code is None else statement.code
            if isinstance(statement, Script):
                await self._run_script(statement)
            else:
                self.last_exit_code = await self._call(statement, self._output)
        return None

    async def _run_script(self, script: Script) -> None:
        """Run a script of the collection, which reads all of ``$input`` before it does anything."""
        lines = []
        while (line := await self._input.get()) is not None:
            lines.append(line)
        self.end_input()
        loop = asyncio.get_running_loop()

        def run_program(words: Sequence[str]) -> list[str]:
            try:
                return asyncio.run_coroutine_threadsafe(self._capture(words), loop).result()
            except CommandError as error:
                raise ScriptError(str(error)) from error

        windows = Windows(self._files, run_program, lambda: self.killed)
        thread = asyncio.ensure_future(asyncio.to_thread(script.run, windows, lines))
        try:
            reply = await asyncio.shield(thread)
        except asyncio.CancelledError:
            # The script does nothing more after this method returns.
            await asyncio.gather(thread, return_exceptions=True)
            raise
        except Stopped:
            return
        await self._output(reply.encode("ascii"))

    async def _capture(self, words: Sequence[str]) -> list[str]:
        """Return the output lines of a program that a script runs without input. Raises CommandError."""
        lines: list[str] = []

        async def keep(line: bytes) -> None:
            lines.append(line.decode("utf-8", "replace"))

        self.last_exit_code = await self._call(Call(tuple(words), piped=False), keep)
        return lines

    async def _call(self, call: Call, output: Emit) -> int:
        program = self._files.program(call.words[0])
        if program is None:
            raise _not_found(call.words[0])
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *split_command_line(command_line(call.words[1:])),
                stdin=asyncio.subprocess.PIPE if call.piped else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._files.environment(),
                cwd=self._files.home,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # Not a program, too many arguments, or a NUL in an argument.
            raise _failed_to_run(call.words[0], self._files.display(str(error))) from error
        self._process = process
        identity = self._files.identity(program)
        self._files.running.append(identity)
        if self.killed:
            self.kill()
        feeder = None
        if process.stdin:
            feeder = asyncio.ensure_future(self._feed(process.stdin))
        try:
            await asyncio.gather(
                _each_line(process.stdout, output), _each_line(process.stderr, self._error), process.wait()
            )
        finally:
            if process.returncode is None:
                self.kill()
            self._process = None
            self._files.running.remove(identity)
            if process.stdin and feeder:
                feeder.cancel()
                await _close(process.stdin)
        # Windows has no signals: TerminateProcess usually sets exit code 1.
        return process.returncode if process.returncode is not None and process.returncode >= 0 else 1

    async def _feed(self, stdin: asyncio.StreamWriter) -> None:
        """Write ``$input`` as PowerShell does: one line for each object, in ``$OutputEncoding``, which is ASCII."""
        try:
            if self._byte_order_mark:
                stdin.write(codecs.BOM_UTF8)
            while (line := await self._input.get()) is not None:
                stdin.write(f"{line}\r\n".encode("ascii", "replace"))
                await stdin.drain()
            self.end_input()  # The next statement finds $input at its end.
            stdin.close()
        except (BrokenPipeError, ConnectionResetError):
            pass  # A program may leave its input unread.


async def _close(stdin: asyncio.StreamWriter) -> None:
    """Close the input of a program that has ended, and take the error if it left some unread.

    Python 3.11.2 logs an error that no task takes. Any Python logs another one if its loop ends before the pipe.
    """
    stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()


async def _each_line(reader: asyncio.StreamReader | None, emit: Emit) -> None:
    """Pass on each line of native output as one object. Lines end with LF or CRLF."""
    if reader is None:
        return
    begun: list[bytes] = []
    while chunk := await reader.read(1 << 16):
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            await emit(b"".join([*begun, piece]).removesuffix(b"\r"))
            begun = []
        if rest:
            begun.append(rest)
    if begun:
        await emit(b"".join(begun).removesuffix(b"\r"))
