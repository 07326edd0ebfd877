# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WinRS shells: a command line for cmd.exe, of which only an encoded PowerShell command is understood."""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import logging
import re
import uuid
from xml.sax.saxutils import escape

from . import wsman
from .host import HostFiles
from .language import read
from .output import OutputQueue
from .powershell import Unsupported
from .process import CommandError, ScriptRun
from .shell import Note, RunningScript, Shell

RESOURCE_URI = f"{wsman.SHELL_URI}/cmd"

#: cmd.exe takes no longer line ("Command prompt line string limitation").
MAX_COMMAND_LINE = 8191

_ENCODED = re.compile(
    r"powershell(?:\.exe)?(?:\s+-(?:NoProfile|NonInteractive|ExecutionPolicy\s+\w+))*\s+-EncodedCommand\s+(\S+)\s*",
    re.IGNORECASE,
)
_UTF8_CODE_PAGE = "65001"

_logger = logging.getLogger(__name__)


class WinrsShell(Shell):
    """A shell of Windows Remote Shell with the code page that the client asked for."""

    kind = "winrs"
    input_streams = "stdin"
    output_streams = "stdout stderr"

    def __init__(self, shell_id: str, files: HostFiles, note: Note, code_page: str) -> None:
        super().__init__(shell_id)
        self._files = files
        self._note = note
        self._utf8 = code_page == _UTF8_CODE_PAGE
        self._codec = "utf-8" if self._utf8 else f"cp{code_page}"
        try:
            codecs.lookup(self._codec)
        except LookupError:
            raise wsman.code_page_not_supported(code_page) from None
        self._commands: dict[str, _Command] = {}

    def command(self, command_id: str, command: str, arguments: str) -> str:
        command_id = command_id or str(uuid.uuid4()).upper()
        self._commands[command_id] = _Command(
            self._files, self._note, self._codec, self._utf8, f"{command} {arguments}"
        )
        return command_id

    def send(self, command_id: str, data: bytes, end: bool) -> None:
        self._command(command_id).feed(data, end)

    def output(self, command_id: str) -> OutputQueue:
        return self._command(command_id).output

    async def signal(self, command_id: str) -> None:
        command = self._commands.pop(command_id, None)
        if command is not None:
            await command.running.stop()

    async def close(self) -> None:
        for command_id in list(self._commands):
            await self.signal(command_id)

    def _command(self, command_id: str) -> _Command:
        try:
            return self._commands[command_id]
        except KeyError:
            raise wsman.command_not_found(command_id) from None


class _Command:
    """One command of a shell, from its start on."""

    def __init__(self, files: HostFiles, note: Note, codec: str, byte_order_mark: bool, line: str) -> None:
        self._note = note
        self._codec = codec
        self._line = line.strip()
        self._input = b""
        self._failed = False
        self.output = OutputQueue(splittable=True)
        self._run = ScriptRun(files, self._stdout, self._stderr, byte_order_mark)
        self.running = RunningScript(self._run, self.output, asyncio.ensure_future(self._drive()))

    def feed(self, data: bytes, end: bool) -> None:
        """Standard input of powershell.exe, which makes strings of its lines."""
        if self.output.finished:
            if self._failed:
                # On Windows the input is there before powershell.exe is, and the error comes after it.
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
            self._note(action="refused", shell=WinrsShell.kind, text=self._line[:MAX_COMMAND_LINE], reason=str(reason))
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
        script = _decoded(self._line)
        # From here on the log shows the script, not its encoding.
        self._line = script
        statements = read(script)
        self._note(action="script", shell=WinrsShell.kind, text=script)
        exit_code = await self._run.run(statements)
        # powershell.exe without exit says only whether the last command succeeded.
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
        """PowerShell's own errors go to a redirected stderr as CLIXML."""
        self._failed = True
        text = f"{message}\r\n    + FullyQualifiedErrorId : {name}\r\n"
        text = re.sub(r"_(?=x[0-9A-Fa-f]{4}_)", "_x005F_", text)
        text = re.sub(r"[\x00-\x1f]", lambda control: f"_x{ord(control.group()):04X}_", text)
        clixml = (
            '#< CLIXML\r\n<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">'
            f'<S S="Error">{escape(text)}</S></Objs>'
        )
        self.output.put("stderr", clixml.encode(self._codec, "replace"))


def _decoded(line: str) -> str:
    """The script of an encoded PowerShell command. Raises Unsupported."""
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
