# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PowerShell shells: MS-PSRP over WS-Management. psrpcore implements the protocol."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import uuid
from collections.abc import Callable
from typing import Any

import psrpcore
from psrpcore.types import (
    ErrorCategory,
    ErrorCategoryInfo,
    HostMethodIdentifier,
    NETException,
    PSInvocationState,
    PSVersion,
)

from . import wsman
from .host import HostFiles
from .output import OutputQueue
from .powershell import Unsupported
from .process import CommandError, ScriptRun
from .scripts import read
from .shell import Note, RunningScript, Shell

RESOURCE_URI = "http://schemas.microsoft.com/powershell/Microsoft.PowerShell"

#: Windows PowerShell 5.1 of Windows Server 2022.
_VERSION_TABLE = {"PSVersion": PSVersion("5.1.20348.2227"), "PSEdition": "Desktop"}
#: The largest PSRP fragment that a server sends.
_FRAGMENT_SIZE = 32768
#: Seconds that WinRM holds output of a pipeline back for a fuller response. PowerShell does not ask it to flush
#: (ServerPowerShellDataStructureHandler.SendDataAsync). How long WinRM waits is not documented.
_HOLD = 0.05
#: wsmprovhost.exe has no console, so .NET decodes native output with the OEM code page.
_OUTPUT_CODEC = "cp437"

_POOL_CHANGES = (psrpcore.SetMaxRunspacesEvent, psrpcore.SetMinRunspacesEvent, psrpcore.ResetRunspaceStateEvent)

_logger = logging.getLogger(__name__)


class PsrpShell(Shell):
    """A runspace pool. A pipeline runs one script; the answer to anything else is an error record."""

    kind = "psrp"
    input_streams = "stdin pr"
    output_streams = "stdout"

    def __init__(self, shell_id: str, files: HostFiles, note: Note, creation: str) -> None:
        """``creation`` is the base64 text of creationXml, with the first messages of the client."""
        super().__init__(shell_id)
        self._files = files
        self._note = note
        self._pool = psrpcore.ServerRunspacePool(application_private_data={"PSVersionTable": dict(_VERSION_TABLE)})
        self._outputs: dict[str, OutputQueue] = {"": OutputQueue(splittable=False)}
        self._running: dict[str, RunningScript] = {}
        self._receive("", _decode(creation))

    def command(self, command_id: str, command: str, arguments: str) -> str:
        command_id = command_id or str(uuid.uuid4()).upper()
        self._outputs[command_id] = OutputQueue(splittable=False, hold=_HOLD)
        # psrpcore needs the pipeline before it reads the message that creates it.
        psrpcore.ServerPipeline(self._pool, uuid.UUID(command_id))
        try:
            self._receive(command_id, _decode(arguments))
        except wsman.Fault:
            running = self._running.pop(command_id, None)
            if running is not None:
                running.run.kill()
                running.task.cancel()
            self._pool.pipeline_table.pop(uuid.UUID(command_id), None)
            del self._outputs[command_id]
            raise
        return command_id

    def send(self, command_id: str, data: bytes, end: bool) -> None:
        self.output(command_id)
        self._receive(command_id, data)

    def output(self, command_id: str) -> OutputQueue:
        try:
            return self._outputs[command_id]
        except KeyError:
            raise wsman.command_not_found(command_id) from None

    async def signal(self, command_id: str) -> None:
        running = self._running.pop(command_id, None)
        if running is not None:
            await running.stop()
        if command_id:
            self._outputs.pop(command_id, None)

    async def close(self) -> None:
        while self._running:
            _id, running = self._running.popitem()
            await running.stop()
        for output in self._outputs.values():
            output.finish(None)

    def _receive(self, command_id: str, data: bytes) -> None:
        """Pass data to psrpcore, handle its events, and queue its answers."""
        pipeline_id = uuid.UUID(command_id) if command_id else None
        try:
            self._pool.receive_data(psrpcore.PSRPPayload(data, psrpcore.StreamType.default, pipeline_id))
            while (event := self._pool.next_event()) is not None:
                self._act(event)
        except wsman.Fault:
            raise
        except Exception as error:  # psrpcore raises struct, XML and value errors for malformed data.
            _logger.debug("PSRP data refused", exc_info=True)
            raise wsman.invalid_body(f"PSRP data that cannot be understood: {type(error).__name__}") from error
        self._flush()

    def _act(self, event: psrpcore.PSRPEvent[Any, Any]) -> None:
        if isinstance(event, psrpcore.CreatePipelineEvent):
            self._start(str(event.pipeline_id).upper(), event)
        elif isinstance(event, psrpcore.PipelineInputEvent):
            # As on Windows, input after the end of the pipeline is dropped.
            running = self._running.get(str(event.pipeline_id).upper())
            if running is not None:
                for line in _lines(event.data):
                    running.run.feed(line)
        elif isinstance(event, psrpcore.EndOfPipelineInputEvent):
            running = self._running.get(str(event.pipeline_id).upper())
            if running is not None:
                running.run.end_input()
        elif isinstance(event, psrpcore.GetAvailableRunspacesEvent):
            self._pool.runspace_availability_response(event.ci, 1)
        elif isinstance(event, _POOL_CHANGES):
            self._pool.runspace_availability_response(event.ci, True)
        elif isinstance(event, psrpcore.GetCommandMetadataEvent):
            raise wsman.unsupported("Get-Command over PSRP")

    def _flush(self) -> None:
        while (payload := self._pool.data_to_send(_FRAGMENT_SIZE)) is not None:
            output = self._outputs.get(str(payload.pipeline_id).upper() if payload.pipeline_id else "")
            if output is not None:
                output.put("stdout", payload.data)

    def _start(self, command_id: str, event: psrpcore.CreatePipelineEvent) -> None:
        pipeline = self._pool.pipeline_table[event.pipeline_id]
        # start() would send the state to the client, which Windows does not.
        pipeline.state = PSInvocationState.Running
        streams = _PipelineStreams(pipeline, self._outputs[command_id], self._flush)
        run = ScriptRun(self._files, streams.output, streams.error)
        if event.pipeline.no_input:
            run.end_input()
        task = asyncio.ensure_future(self._drive(command_id, event.pipeline, pipeline, run, streams))
        self._running[command_id] = RunningScript(run, self._outputs[command_id], task)

    async def _drive(
        self,
        command_id: str,
        powershell: psrpcore.PowerShell,
        pipeline: psrpcore.ServerPipeline,
        run: ScriptRun,
        streams: _PipelineStreams,
    ) -> None:
        script = "\n".join(command.command_text for command in powershell.commands)
        exit_code: int | None = 1
        try:
            if not all(command.is_script and not command.parameters for command in powershell.commands):
                raise Unsupported("lab node: cmdlets and arguments are not supported, only scripts without parameters.")
            statements = read(script)
            self._note(action="script", shell=self.kind, text=script)
            exit_code = await run.run(statements)
        except Unsupported as reason:
            self._note(action="refused", shell=self.kind, text=script, reason=str(reason))
            streams.record(str(reason), "ParseException", ErrorCategory.ParserError, script[:80])
        except CommandError as error:
            streams.record(str(error), error.name, ErrorCategory[error.category], error.program)
        except Exception:
            _logger.exception("a pipeline failed")
            streams.record("lab node: internal error, see lab.log.", "LabNode", ErrorCategory.NotSpecified, "")
        finally:
            if run.killed:
                pipeline.stop()
            else:
                if exit_code is not None:
                    pipeline.host_call(HostMethodIdentifier.SetShouldExit, [exit_code])
                pipeline.complete()
            pipeline.close()
            self._flush()
            streams.queue.finish(None)
            self._running.pop(command_id, None)


class _PipelineStreams:
    """Turns lines of a native program into the objects of PowerShell."""

    def __init__(self, pipeline: psrpcore.ServerPipeline, queue: OutputQueue, flush: Callable[[], None]) -> None:
        self.queue = queue
        self._pipeline = pipeline
        self._flush = flush
        self._error_lines = 0

    async def output(self, line: bytes) -> None:
        self._pipeline.write_output(line.decode(_OUTPUT_CODEC, "replace"))
        self._flush()
        await self.queue.room()

    async def error(self, line: bytes) -> None:
        text = line.decode(_OUTPUT_CODEC, "replace")
        name = "NativeCommandErrorMessage" if self._error_lines else "NativeCommandError"
        self._error_lines += 1
        self.record(text, name, ErrorCategory.NotSpecified, text, reason="RemoteException")
        await self.queue.room()

    def record(self, message: str, name: str, category: ErrorCategory, target: str, reason: str = "") -> None:
        """Write an error record with the FullyQualifiedErrorId ``name``."""
        self._pipeline.write_error(
            NETException(Message=message),
            ErrorCategoryInfo(
                Category=category, Activity="", Reason=reason or name, TargetName=target, TargetType="String"
            ),
            fully_qualified_error_id=name,
            target_object=target,
        )
        self._flush()


def _lines(data: Any) -> list[str]:
    """Return the lines that a native program gets for an object: for a byte array, one decimal number for each byte."""
    return [str(byte) for byte in data] if isinstance(data, (bytes, bytearray)) else [str(data)]


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except binascii.Error as error:
        raise wsman.invalid_body("PSRP data that is not base64") from error
