# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 as WinRM speaks it: POST /wsman with a Content-Length, keep-alive, 401 exchanges."""

from __future__ import annotations

import asyncio
import http
import time
from typing import Any, NamedTuple

from . import wsman
from .authentication import Credentials, EncryptionError, Rejected, Session
from .node import Node

MAX_HEAD_SIZE = 64 << 10
#: An encrypted envelope is a little longer than the envelope.
MAX_BODY_SIZE = wsman.MAX_ENVELOPE_SIZE + 4096
#: How much of a body that is too large is read away, so that the client hears the answer.
_MAX_DISCARDED = 64 << 20
#: Seconds that a connection may be silent (http.sys, connection time-out).
_IDLE_CONNECTION = 120.0

_SOAP = "application/soap+xml;charset=UTF-8"


class _Refused(Exception):
    """An answer without an envelope. With ``close``, the rest of the stream cannot be understood."""

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
    """The listener of one node."""

    def __init__(self, node: Node, credentials: Credentials, tls: bool) -> None:
        self._node = node
        self._credentials = credentials
        self._tls = tls
        self._connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first to its last request."""
        self._connections += 1
        number = self._connections
        session = Session(self._credentials, self._tls)
        try:
            keep_alive = True
            while keep_alive:
                keep_alive = await self._exchange(reader, writer, session, number)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass  # The client has gone, or says nothing more.
        finally:
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: Session, number: int
    ) -> bool:
        """One request and its answer; whether there may be another."""
        received = 0
        close = False
        begun = 0.0
        try:
            head = await _read_head(reader)
            begun = time.monotonic()
            received = head.size
            body, discarded = await _read_body(reader, head)
            received += len(body) + discarded
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
        # Before the answer goes out: what a client has seen is in the log.
        self._node.note(
            connection=number,
            **reply.log,
            received=received,
            sent=len(head_out) + len(reply.body),
            status=reply.status,
            seconds=round(time.monotonic() - begun, 6),
        )
        writer.write(head_out + reply.body)
        await writer.drain()
        return not close

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
            # Clients that encrypt authenticate with an empty request first.
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
    """The body, or how many bytes of a too large one have been read away."""
    if head.content_length <= MAX_BODY_SIZE:
        return await asyncio.wait_for(reader.readexactly(head.content_length), _IDLE_CONNECTION), 0
    if head.content_length > _MAX_DISCARDED:
        raise _Refused(413, f"a body of {head.content_length} bytes")
    left = head.content_length
    while left:
        chunk = await asyncio.wait_for(reader.read(min(left, 1 << 16)), _IDLE_CONNECTION)
        if not chunk:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(chunk)
    return b"", head.content_length
