# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 as WinRM uses it: POST /wsman, Content-Length, keep-alive, 401 exchanges. Faults happen here."""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
import time
from typing import Any, NamedTuple

from . import wsman
from .authentication import Credentials, EncryptionError, Rejected, Session
from .faults import Fault, Faults
from .host import ADDRESS
from .node import Node

MAX_HEAD_SIZE = 64 << 10
#: Encryption makes an envelope a little longer.
MAX_BODY_SIZE = wsman.MAX_ENVELOPE_SIZE + 4096
#: How many bytes of a too large body are read, so that the client receives the answer.
_MAX_DISCARDED = 64 << 20
#: Seconds after which a silent connection is closed (http.sys, connection time-out).
_IDLE_CONNECTION = 120.0

_SOAP = "application/soap+xml;charset=UTF-8"

_logger = logging.getLogger(__name__)


class _Refused(Exception):
    """An answer without an envelope. ``close``: the rest of the stream is unreadable."""

    def __init__(self, status: int, reason: str, close: bool = True) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.close = close


class _Head(NamedTuple):
    method: str
    path: str
    fields: dict[str, str]
    content_length: int
    size: int


class _Reply(NamedTuple):
    status: int
    fields: list[tuple[str, str]]
    body: bytes
    log: dict[str, Any]


class Endpoint:
    """The listener of one node, and its connections. Call ``listen``, then ``close``."""

    def __init__(self, node: Node, credentials: Credentials, context: ssl.SSLContext | None, faults: Faults) -> None:
        """``context`` is for HTTPS; None means HTTP."""
        self._node = node
        self._credentials = credentials
        self._context = context
        self._faults = faults
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._connected = 0
        self._outage: asyncio.Task[None] | None = None

    async def listen(self) -> int:
        """Accept connections, and return the port: a free one the first time, the same one later."""
        self._listener = await asyncio.start_server(
            self._accept, ADDRESS, self._port, ssl=self._context, limit=MAX_HEAD_SIZE, backlog=256
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self._port

    async def close(self) -> None:
        """Stop listening and drop all connections."""
        if self._outage is not None:
            self._outage.cancel()
        await self._hang_up()

    async def _hang_up(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connected += 1
        task = asyncio.ensure_future(self._serve(reader, writer, self._connected))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        """Serve one connection."""
        session = Session(self._credentials, self._context is not None)
        try:
            keep_alive = True
            while keep_alive:
                keep_alive = await self._exchange(reader, writer, session, number)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass  # The client has gone, or is silent.
        finally:
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session, number: int
    ) -> bool:
        """Answer one request. Return True if the connection stays open."""
        received = 0
        close = False
        begun = 0.0
        fault: Fault | None = None
        log: dict[str, Any] = {"connection": number}
        try:
            head = await _read_head(reader)
            begun = time.monotonic()
            received = head.size
            body, discarded = await _read_body(reader, head)
            received += len(body) + discarded
            fault = self._faults.next()
            if fault is not None:
                log["injected"] = fault.kind
                if fault.kind in ("drop-before", "down", "die"):
                    self._node.note(**log, action=None, received=received, sent=0, status=None, seconds=0.0)
                    if fault.kind != "drop-before":
                        self._outage = asyncio.ensure_future(self._be_away(fault))
                    return False
                if fault.kind == "delay":
                    await asyncio.sleep(fault.seconds)
            reply = await self._reply(session, head, body, discarded)
            close = head.fields.get("connection", "").lower() == "close"
        except _Refused as refused:
            begun = begun or time.monotonic()
            close = refused.close
            reply = _Reply(refused.status, [], b"", {"action": None, "reason": refused.reason})
        fields = [*reply.fields, ("Server", "Microsoft-HTTPAPI/2.0"), ("Content-Length", str(len(reply.body)))]
        if close:
            fields.append(("Connection", "close"))
        status_line = f"HTTP/1.1 {reply.status} {http.HTTPStatus(reply.status).phrase}\r\n"
        head_out = (status_line + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n").encode("latin-1")
        answer = head_out + reply.body
        if fault is not None and fault.kind in ("drop-after", "cut"):
            answer = answer[: len(answer) // 2] if fault.kind == "cut" else b""
            close = True
        # The line is in the log before the client has its answer.
        self._node.note(
            **log,
            **reply.log,
            received=received,
            sent=len(answer),
            status=reply.status,
            seconds=round(time.monotonic() - begun, 6),
        )
        if fault is not None and fault.kind == "late":
            await asyncio.sleep(fault.seconds)
        writer.write(answer)
        await writer.drain()
        return not close

    async def _be_away(self, fault: Fault) -> None:
        """Refuse all connections for a while. The fault ``die`` also ends what runs on the node."""
        await self._hang_up()
        if fault.kind == "die":
            await self._node.close()
        await asyncio.sleep(fault.seconds)
        try:
            await self.listen()
        except OSError:
            _logger.exception("%s cannot listen again", self._node.name)

    async def _reply(self, session: Session, head: _Head, body: bytes, discarded: int) -> _Reply:
        if head.path.lower().rstrip("/") != "/wsman":
            raise _Refused(404, "the path is not /wsman", close=False)
        if head.method != "POST":
            raise _Refused(405, "the method is not POST", close=False)
        try:
            accepted = session.authenticate(head.fields.get("authorization", ""))
        except Rejected as rejected:
            action = "rejected" if rejected.failed else "authenticate"
            challenges = [("WWW-Authenticate", challenge) for challenge in rejected.challenges]
            return _Reply(401, challenges, b"", {"action": action})
        fields = [("WWW-Authenticate", accepted.challenge)] if accepted.challenge else []
        if discarded:
            fault = wsman.envelope_too_large(discarded)
            envelope = wsman.fault_response("", fault, self._node.name)
            return _Reply(500, [*fields, ("Content-Type", _SOAP)], envelope, {"action": None, "fault": fault.number})
        if not body:
            # A client that encrypts first authenticates with an empty request.
            return _Reply(200, fields, b"", {"action": "authenticate"})
        try:
            envelope, encrypted = session.unwrap(head.fields.get("content-type", ""), body)
            answer = await self._node.answer(envelope, accepted.user)
        except (EncryptionError, wsman.BadRequest) as error:
            return _Reply(400, fields, b"", {"action": None, "reason": str(error)})
        content_type, content = session.wrap(answer.envelope) if encrypted else (_SOAP, answer.envelope)
        return _Reply(answer.status, [*fields, ("Content-Type", content_type)], content, answer.log)


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    try:
        data = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _IDLE_CONNECTION)
    except asyncio.LimitOverrunError:
        raise _Refused(431, "the header is too large") from None
    request_line, *lines = data.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise _Refused(400, "the request line is malformed")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refused(400, "a header field is malformed")
        fields[name.lower()] = value.strip()
    if "transfer-encoding" in fields:
        raise _Refused(501, "transfer encodings are not supported")
    length = fields.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        raise _Refused(400, "Content-Length is malformed")
    return _Head(words[0], words[1], fields, int(length), len(data))


async def _read_body(reader: asyncio.StreamReader, head: _Head) -> tuple[bytes, int]:
    """Return the body and 0; or b"" and how many bytes of a too large body were discarded."""
    if head.content_length <= MAX_BODY_SIZE:
        return await asyncio.wait_for(reader.readexactly(head.content_length), _IDLE_CONNECTION), 0
    if head.content_length > _MAX_DISCARDED:
        raise _Refused(413, f"the body has {head.content_length} bytes")
    left = head.content_length
    while left:
        chunk = await asyncio.wait_for(reader.read(min(left, 1 << 16)), _IDLE_CONNECTION)
        if not chunk:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(chunk)
    return b"", head.content_length
