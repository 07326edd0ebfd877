# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines that start PowerShell with an encoded script, as clients of WinRS and ssh send them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Callable
from xml.sax.saxutils import escape

from . import wsman
from .host import HostFiles
from .output import OutputQueue
from .powershell import Unsupported
from .process import CommandError, ScriptRun
from .scripts import read
from .shell import Note, RunningScript

#: The longest line of cmd.exe ("Command prompt line string limitation").
MAX_COMMAND_LINE = 8191

_ENCODED = re.compile(
    r"powershell(?:\.exe)?(?:\s+-(?:NoProfile|NonInteractive|ExecutionPolicy\s+\w+))*\s+-EncodedCommand\s+(\S+)\s*",
    re.IGNORECASE,
)

_logger = logging.getLogger(__name__)


def decoded(line: str) -> str:
    """Return the script of an encoded PowerShell command. Raises Unsupported."""
    match = _ENCODED.fullmatch(line)
    if match is None:
        raise Unsupported(
            f"lab node: {line[:80]!r} is not PowerShell [-NoProfile] [-NonInteractive] [-ExecutionPolicy NAME] "
            "-EncodedCommand BASE64, the only command line that is supported."
        )
    try:
        return base64.b64decode(match.group(1), validate=True).decode("utf-16-le")
    except (binascii.Error, UnicodeDecodeError):
        raise Unsupported("lab node: the value of -EncodedCommand is not base64 of UTF-16.") from None


class EncodedCommand:
    """One command line. It starts at once, in a running event loop."""

    def __init__(
        self,
        files: HostFiles,
        note: Note,
        kind: str,
        line: str,
        *,
        codec: str,
        byte_order_mark: bool = False,
        to_script: Callable[[str], str] = decoded,
    ) -> None:
        """``kind`` names the client's shell in the access log. ``codec`` is that of the console.

        ``byte_order_mark`` is as in ScriptRun. ``to_script`` returns the script of the line, or raises Unsupported.
        """
        self._note = note
        self._kind = kind
        self._codec = codec
        self._to_script = to_script
        self._line = line.strip()
        self._input = b""
        self._failed = False
        self.output = OutputQueue(splittable=True)
        self._run = ScriptRun(files, self._stdout, self._stderr, byte_order_mark)
        self.running = RunningScript(self._run, self.output, asyncio.ensure_future(self._drive()))

    def feed(self, data: bytes, end: bool) -> None:
        """Pass on standard input of powershell.exe: each line becomes a string."""
        if self.output.finished:
            if self._failed:
                # On Windows the input arrives before powershell.exe has started and fails.
                return
            raise wsman.broken_pipe()
        *lines, self._input = (self._input + data).split(b"\n")
        if end and self._input:
            lines.append(self._input)
        for line in lines:
            self._run.feed(line.removesuffix(b"\r").decode(self._codec, "replace"))
        if end:
            self._run.end_input()

    async def _drive(self) -> None:
        exit_code = 1
        try:
            exit_code = await self._execute()
        except Unsupported as reason:
            self._note(action="refused", shell=self._kind, text=self._line[:MAX_COMMAND_LINE], reason=str(reason))
            self._error_record(str(reason), "ParseException")
        except CommandError as error:
            self._error_record(str(error), error.name)
        except Exception:
            _logger.exception("a command failed")
            self._error_record("lab node: internal error, see lab.log.", "LabNode")
        finally:
            self.output.finish(exit_code)

    async def _execute(self) -> int:
        if len(self._line) > MAX_COMMAND_LINE:
            await self._stderr(b"The command line is too long.")
            return 1
        script = self._to_script(self._line)
        # The log shows the decoded script.
        self._line = script
        statements = read(script)
        self._note(action="script", shell=self._kind, text=script)
        exit_code = await self._run.run(statements)
        # Without exit, powershell.exe returns 0 or 1 for the success of the last command.
        return exit_code if exit_code is not None else int(self._run.last_exit_code != 0)

    async def _stdout(self, line: bytes) -> None:
        await self._write("stdout", line)

    async def _stderr(self, line: bytes) -> None:
        await self._write("stderr", line)

    async def _write(self, stream: str, line: bytes) -> None:
        text = line.decode(self._codec, "replace")
        self.output.put(stream, f"{text}\r\n".encode(self._codec, "replace"))
        await self.output.room()

    def _error_record(self, message: str, name: str) -> None:
        """Write an error of PowerShell itself, as CLIXML because stderr is redirected."""
        self._failed = True
        text = f"{message}\r\n    + FullyQualifiedErrorId : {name}\r\n"
        text = re.sub(r"_(?=x[0-9A-Fa-f]{4}_)", "_x005F_", text)
        text = re.sub(r"[\x00-\x1f]", lambda control: f"_x{ord(control.group()):04X}_", text)
        clixml = (
            '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
            f'<S S="Error">{escape(text)}</S></Objs>'
        )
        self.output.put("stderr", clixml.encode(self._codec, "replace"))
