# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab node: answers WS-Management requests with the help of its shells."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import logging
import time
import uuid
import xml.etree.ElementTree as ET
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from . import psrp_shell, winrs_shell, wsman
from .access_log import AccessLog
from .host import ADDRESS, HostFiles
from .output import OutputQueue
from .shell import Shell

_TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
_STATE = f"{wsman.SHELL_URI}/CommandState"
#: Bytes of an envelope that are not output in base64.
_ENVELOPE_OVERHEAD = 2048
_MIN_OUTPUT = 4096

_logger = logging.getLogger(__name__)

#: The default IdleTimeOut of a shell (winrm/config/winrs), in seconds.
IDLE_TIMEOUT = 7200.0


class Answer(NamedTuple):
    """An answer: HTTP status, envelope, and fields for the access log."""

    status: int
    envelope: bytes
    log: dict[str, Any]


class _OpenShell:
    """A shell, and when it was last used. ``requests`` counts the requests in progress.

    ``received`` has the last Receive of each command, with its message id. A
    client without an answer may send the same message again, and gets the same
    output (pypsrp relies on this behaviour of WinRM, src/pypsrp/wsman.py).
    """

    def __init__(self, shell: Shell, idle_timeout: float) -> None:
        self.shell = shell
        self.idle_timeout = idle_timeout
        self.used = time.monotonic()
        self.requests = 0
        self.received: dict[str, tuple[str, asyncio.Task[str]]] = {}

    def idle(self) -> bool:
        return not self.requests and time.monotonic() - self.used > self.idle_timeout


class Node:
    """A host that answers WS-Management requests.

    ``latency`` is the delay of each answer in seconds. ``spawn`` is the extra
    delay of a new shell: on Windows, its host process has to start.
    """

    def __init__(
        self,
        files: HostFiles,
        log: AccessLog,
        latency: float = 0.0,
        spawn: float = 0.0,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> None:
        self.name = files.name
        self._files = files
        self._note = functools.partial(log.write, node=files.name)
        self._latency = latency
        self._spawn = spawn
        self._idle_timeout = idle_timeout
        self._shells: dict[str, _OpenShell] = {}
        self._actions = {
            f"{_TRANSFER}/Create": self._create,
            f"{_TRANSFER}/Delete": self._delete,
            f"{wsman.SHELL_URI}/Command": self._command,
            f"{wsman.SHELL_URI}/Send": self._send,
            f"{wsman.SHELL_URI}/Receive": self._receive,
            f"{wsman.SHELL_URI}/Signal": self._signal,
        }

    def note(self, **fields: Any) -> None:
        """Write one line of the access log."""
        self._note(**fields)

    async def answer(self, data: bytes, user: str) -> Answer:
        """Answer the envelope ``data`` of the authenticated ``user``. Raises BadRequest."""
        await asyncio.sleep(self._latency)
        request: wsman.Request | None = None
        log: dict[str, Any] = {"action": None, "shell": None}
        try:
            request = wsman.parse(data)
            log["action"] = request.name
            opened = self._shells.get(request.shell_id)
            log["shell"] = opened.shell.kind if opened else None
            handler = self._actions.get(request.action)
            if handler is None:
                raise wsman.unsupported(f"the action {request.action}")
            if opened is None:
                body = await handler(request, user)
            else:
                opened.requests += 1
                try:
                    body = await handler(request, user)
                finally:
                    opened.requests -= 1
                    opened.used = time.monotonic()
        except (wsman.BadRequest, asyncio.CancelledError):
            raise
        except Exception as error:
            fault = error if isinstance(error, wsman.Fault) else wsman.internal_error()
            if fault is not error:
                _logger.exception("a request failed")
            log["fault"] = fault.number
            message_id = request.message_id if request else ""
            return Answer(500, wsman.fault_response(message_id, fault, self.name), log)
        if request.name == "Create":
            log["shell"] = self._kind(request)
        return Answer(200, wsman.response(request, body), log)

    async def reap(self) -> None:
        """Close each shell after its idle time-out. Runs until cancelled."""
        while True:
            await asyncio.sleep(1)
            for shell_id, opened in list(self._shells.items()):
                if opened.idle():
                    del self._shells[shell_id]
                    await opened.shell.close()
                    self._note(action="idle", shell=opened.shell.kind)

    async def close(self) -> None:
        """Close all shells, and end their commands."""
        while self._shells:
            _id, opened = self._shells.popitem()
            await opened.shell.close()

    def _kind(self, request: wsman.Request) -> str:
        return (
            winrs_shell.WinrsShell.kind
            if request.resource_uri == winrs_shell.RESOURCE_URI
            else psrp_shell.PsrpShell.kind
        )

    def _shell(self, request: wsman.Request) -> Shell:
        opened = self._shells.get(request.shell_id)
        if opened is None:
            raise wsman.shell_not_found(request.shell_id)
        return opened.shell

    async def _create(self, request: wsman.Request, user: str) -> str:
        element = request.element("Shell")
        for feature in ("WorkingDirectory", "Environment", "Lifetime"):
            if element.find(wsman.SHELL + feature) is not None:
                raise wsman.unsupported(f"{feature} of a shell")
        shell_id = _guid(element.get("ShellId")) or str(uuid.uuid4()).upper()
        idle_timeout = wsman.duration(element.findtext(f"{wsman.SHELL}IdleTimeOut", ""), self._idle_timeout)
        await asyncio.sleep(self._spawn)
        if shell_id in self._shells:
            raise wsman.invalid_body(f"the shell {shell_id} already exists")
        shell: Shell
        if request.resource_uri == psrp_shell.RESOURCE_URI:
            creation = element.findtext(f"{wsman.POWERSHELL}creationXml", "")
            shell = psrp_shell.PsrpShell(shell_id, self._files, self._note, creation)
        elif request.resource_uri == winrs_shell.RESOURCE_URI:
            code_page = request.options.get("WINRS_CODEPAGE", "437")
            shell = winrs_shell.WinrsShell(shell_id, self._files, self._note, code_page)
        else:
            raise wsman.unsupported(f"the shell {request.resource_uri}")
        self._shells[shell_id] = _OpenShell(shell, idle_timeout)
        resource_uri = escape(request.resource_uri)
        return (
            "<x:ResourceCreated><a:Address>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:Address>"
            f"<a:ReferenceParameters><w:ResourceURI>{resource_uri}</w:ResourceURI>"
            f'<w:SelectorSet><w:Selector Name="ShellId">{shell_id}</w:Selector></w:SelectorSet>'
            f"</a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>{shell_id}</rsp:ShellId>"
            f"<rsp:ResourceUri>{resource_uri}</rsp:ResourceUri><rsp:Owner>{escape(user)}</rsp:Owner>"
            f"<rsp:ClientIP>{ADDRESS}</rsp:ClientIP><rsp:IdleTimeOut>PT{idle_timeout:.3f}S</rsp:IdleTimeOut>"
            f"<rsp:InputStreams>{shell.input_streams}</rsp:InputStreams>"
            f"<rsp:OutputStreams>{shell.output_streams}</rsp:OutputStreams></rsp:Shell>"
        )

    async def _delete(self, request: wsman.Request, user: str) -> str:
        shell = self._shell(request)
        del self._shells[request.shell_id]
        await shell.close()
        return ""

    async def _command(self, request: wsman.Request, user: str) -> str:
        element = request.element("CommandLine")
        arguments = " ".join(argument.text or "" for argument in element.findall(f"{wsman.SHELL}Arguments"))
        command_id = self._shell(request).command(
            _guid(element.get("CommandId")), element.findtext(f"{wsman.SHELL}Command", "") or "", arguments
        )
        return f"<rsp:CommandResponse><rsp:CommandId>{command_id}</rsp:CommandId></rsp:CommandResponse>"

    async def _send(self, request: wsman.Request, user: str) -> str:
        shell = self._shell(request)
        stream = _child(request, "Send", "Stream")
        try:
            data = base64.b64decode(stream.text or "")
        except binascii.Error:
            raise wsman.invalid_body("the stream of a Send request is not base64") from None
        shell.send(_guid(stream.get("CommandId")), data, stream.get("End", "").lower() == "true")
        return "<rsp:SendResponse/>"

    async def _receive(self, request: wsman.Request, user: str) -> str:
        command_id = _guid(_child(request, "Receive", "DesiredStream").get("CommandId"))
        output = self._shell(request).output(command_id)
        received = self._shells[request.shell_id].received
        message_id, task = received.get(command_id, ("", None))
        if task is None or message_id != request.message_id:
            task = asyncio.ensure_future(self._take(request, command_id, output))
            received[command_id] = (request.message_id, task)
        # If the connection breaks now, the task keeps the output for the next attempt.
        return await asyncio.shield(task)

    async def _take(self, request: wsman.Request, command_id: str, output: OutputQueue) -> str:
        limit = max((request.max_envelope_size - _ENVELOPE_OVERHEAD) // 4 * 3, _MIN_OUTPUT)
        pieces = await output.take(limit, request.operation_timeout)
        if pieces is None:
            raise wsman.operation_timeout()
        of_command = f" CommandId={quoteattr(command_id)}" if command_id else ""
        parts = [
            f'<rsp:Stream Name="{stream}"{of_command}>{base64.b64encode(data).decode()}</rsp:Stream>'
            for stream, data in pieces
        ]
        if output.exhausted:
            exit_code = "" if output.exit_code is None else f"<rsp:ExitCode>{output.exit_code}</rsp:ExitCode>"
            parts.append(f'<rsp:CommandState{of_command} State="{_STATE}/Done">{exit_code}</rsp:CommandState>')
        elif command_id:
            parts.append(f'<rsp:CommandState{of_command} State="{_STATE}/Running"/>')
        return f"<rsp:ReceiveResponse>{''.join(parts)}</rsp:ReceiveResponse>"

    async def _signal(self, request: wsman.Request, user: str) -> str:
        command_id = _guid(request.element("Signal").get("CommandId"))
        shell = self._shell(request)
        self._shells[request.shell_id].received.pop(command_id, None)
        await shell.signal(command_id)
        return "<rsp:SignalResponse/>"


def _child(request: wsman.Request, parent: str, tag: str) -> ET.Element:
    found = request.element(parent).find(wsman.SHELL + tag)
    if found is None:
        raise wsman.invalid_body(f"a {request.name} request lacks the element {tag}")
    return found


def _guid(text: str | None) -> str:
    """Return a GUID in upper case; "" for no text. Raises Fault."""
    if not text:
        return ""
    try:
        return str(uuid.UUID(text)).upper()
    except ValueError:
        raise wsman.invalid_body(f"{text[:60]!r} is not a GUID") from None
