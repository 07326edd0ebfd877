# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transports in memory: to a server of gRPC made of our own HTTP/2, and to peers that send given bytes."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, http2
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.hpack import Header
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import ConnectionLost, DeadlineReached

PIECE = 7000


class Bytes:
    """A peer that sends ``data``, whatever it gets, and then closes the connection, or stays silent."""

    def __init__(self, data: bytes, *, is_silent: bool = False, takes: int = -1) -> None:
        self.data = bytearray(data)
        self.is_silent = is_silent
        self.takes = takes
        self.sent = bytearray()
        self.is_closed = False

    def send(self, data: bytes, deadline: float) -> None:
        assert not self.is_closed
        if 0 <= self.takes < len(self.sent) + len(data):
            raise ConnectionLost("broken pipe", accepted=len(self.sent) < self.takes)
        self.sent += data

    def receive(self, deadline: float) -> bytes:
        assert not self.is_closed
        piece = bytes(self.data[:PIECE])
        del self.data[:PIECE]
        if not piece and self.is_silent:
            raise DeadlineReached
        return piece

    def close(self) -> None:
        self.is_closed = True


class Request:
    """A call that a server gets: its headers, its messages so far, and whether they are all.

    ``is_answered`` is for the handler.
    """

    def __init__(self, headers: List[Header]) -> None:
        self.headers = dict(headers)
        self.messages: List[bytes] = []
        self.is_ended = False
        self.is_answered = False
        self.deframer = grpc.Deframer()


class Server(Bytes):
    """A server: ``handle(server, stream, request)`` is called when something of a request has arrived."""

    def __init__(self, handle: Callable[[Server, int, Request], None]) -> None:
        super().__init__(b"", is_silent=True)
        self.http2 = http2.Connection(is_client=False)
        self.requests: Dict[int, Request] = {}
        self.has_ended = False
        self._handle = handle
        self.data += self.http2.bytes_to_send()

    def send(self, data: bytes, deadline: float) -> None:
        if self.has_ended:
            raise ConnectionLost("broken pipe", accepted=False)
        for event in self.http2.receive(data):
            if isinstance(event, http2.HeadersReceived):
                self.requests[event.stream] = Request(event.headers)
            elif isinstance(event, http2.DataReceived):
                request = self.requests[event.stream]
                request.messages += request.deframer.receive(event.data)
                self.http2.acknowledge(event.stream, len(event.data))
            if isinstance(event, (http2.HeadersReceived, http2.DataReceived)):
                self.requests[event.stream].is_ended = event.ended
                self._handle(self, event.stream, self.requests[event.stream])
        self.data += self.http2.bytes_to_send()

    def receive(self, deadline: float) -> bytes:
        if not self.data and self.has_ended:
            return b""
        return super().receive(deadline)

    # -- what a handler does ---------------------------------------------------

    def start(self, stream: int) -> None:
        self.http2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])

    def message(self, stream: int, message: bytes) -> None:
        self.http2.send_data(stream, grpc.frame(message))

    def finish(self, stream: int, code: int = 0, text: str = "") -> None:
        trailers = [("grpc-status", str(code))]
        if text:
            trailers.append(("grpc-message", grpc.encode_message(text)))
        self.http2.send_trailers(stream, trailers)

    def answer(self, stream: int, *messages: bytes, code: int = 0, text: str = "") -> None:
        self.start(stream)
        for message in messages:
            self.message(stream, message)
        self.finish(stream, code, text)


class Peers:
    """Gives a channel one transport after the other, and counts them."""

    def __init__(self, *transports: Bytes) -> None:
        self.transports = list(transports)
        self.opened: List[Bytes] = []
        self.error: Optional[Exception] = None

    def __call__(self, deadline: float) -> Bytes:
        if self.error is not None:
            raise self.error
        self.opened.append(self.transports.pop(0))
        return self.opened[-1]
