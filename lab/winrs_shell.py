# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WinRS shells: command lines of cmd.exe. A lab node understands only an encoded PowerShell command."""

from __future__ import annotations

import codecs
import uuid

from . import wsman
from .encoded_command import EncodedCommand
from .host import HostFiles
from .output import OutputQueue
from .shell import Note, Shell

RESOURCE_URI = f"{wsman.SHELL_URI}/cmd"

_UTF8_CODE_PAGE = "65001"


class WinrsShell(Shell):
    """A shell of Windows Remote Shell, with the code page that the client sets."""

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
        self._commands: dict[str, EncodedCommand] = {}

    def command(self, command_id: str, command: str, arguments: str) -> str:
        command_id = command_id or str(uuid.uuid4()).upper()
        self._commands[command_id] = EncodedCommand(
            self._files,
            self._note,
            self.kind,
            f"{command} {arguments}",
            codec=self._codec,
            byte_order_mark=self._utf8,
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

    def _command(self, command_id: str) -> EncodedCommand:
        try:
            return self._commands[command_id]
        except KeyError:
            raise wsman.command_not_found(command_id) from None
