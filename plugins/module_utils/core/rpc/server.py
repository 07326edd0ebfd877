# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's end of a connection of gRPC, without sockets: bytes in, requests out; answers in, bytes out.

A request has one message, which is what containerd's snapshotters need; an answer has any number. The session itself
answers what is not a proper request. It limits what a client can make it keep.

The caller sends ``bytes_to_send()`` before it passes more bytes to ``receive``, as ``http2`` says.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence

from . import grpc, http2
from .grpc import Status
from .hpack import Header

#: Size of the largest request in bytes: the default limit of gRPC's servers.
MAX_REQUEST = 4 << 20

#: Bytes of unfinished requests that one connection may have.
MAX_UNFINISHED = 8 << 20

#: Seconds that a client may take to send its settings, and a request from its headers to its end.
REQUEST_TIME = 30.0


class Request(NamedTuple):
    """A call that has arrived completely.

    ``method`` is its path. ``deadline`` is the time of the caller's clock at which the client stops to wait, None
    if it has named none.
    """

    stream: int
    method: str
    message: bytes
    deadline: Optional[float]


class _Unfinished:
    """A request that is arriving."""

    def __init__(self, method: str, started: float, deadline: Optional[float]) -> None:
        self.method = method
        self.started = started
        self.deadline = deadline
        self.deframer = grpc.Deframer(MAX_REQUEST)
        self.messages: List[bytes] = []


class Session:
    """One connection. ``now`` is a time of any clock that does not go back. Not for several threads at once."""

    def __init__(self, now: float) -> None:
        self._http2 = http2.Connection(is_client=False)
        self._started = now
        self._unfinished: Dict[int, _Unfinished] = {}

    # -- receiving ------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> List[Request]:
        """Take received bytes. Return the requests that are complete.

        Raises http2.ProtocolError; ``bytes_to_send`` then tells the client, and the connection has to end.
        """
        requests: List[Request] = []
        for event in self._http2.receive(data):
            if isinstance(event, http2.StreamReset):
                self._unfinished.pop(event.stream, None)
            elif isinstance(event, http2.HeadersReceived):
                self._take_headers(event, now)
            elif isinstance(event, http2.DataReceived):
                self._take_data(event)
            if isinstance(event, (http2.HeadersReceived, http2.DataReceived)) and event.ended:
                request = self._finish(event.stream)
                if request is not None:
                    requests.append(request)
        return requests

    def expire(self, now: float) -> bool:
        """End requests that take too long to arrive. Return True if the client has not even sent its settings."""
        for stream, request in list(self._unfinished.items()):
            if now - request.started > REQUEST_TIME:
                self._refuse(stream, grpc.DEADLINE_EXCEEDED, f"the request did not arrive within {REQUEST_TIME:g} s")
        return not self._http2.has_settings and now - self._started > REQUEST_TIME

    def _take_headers(self, event: http2.HeadersReceived, now: float) -> None:
        if event.stream in self._unfinished:
            # Trailers of a request have no meaning in gRPC.
            return
        headers = dict(event.headers)
        status = grpc.check_request(event.headers)
        if status:
            self._http2.send_headers(event.stream, [(":status", status)])
            self._end_early(event.stream, ())
            return
        deadline = None
        if "grpc-timeout" in headers:
            try:
                deadline = now + grpc.parse_timeout(headers["grpc-timeout"])
            except grpc.GrpcError as error:
                self._refuse(event.stream, grpc.INTERNAL, str(error))
                return
        self._unfinished[event.stream] = _Unfinished(headers.get(":path", ""), now, deadline)
        encoding = headers.get("grpc-encoding", "identity")
        if encoding != "identity":
            self._refuse(event.stream, grpc.UNIMPLEMENTED, f"messages that are compressed with {encoding[:64]!r}")

    def _take_data(self, event: http2.DataReceived) -> None:
        request = self._unfinished.get(event.stream)
        if request is None:
            return
        try:
            request.messages += request.deframer.receive(event.data)
        except grpc.GrpcError as error:
            self._refuse(event.stream, grpc.RESOURCE_EXHAUSTED, str(error))
            return
        if len(request.messages) > 1:
            self._refuse(event.stream, grpc.INTERNAL, "the request has more than one message")
        elif self._kept() > MAX_UNFINISHED:
            self._refuse(event.stream, grpc.RESOURCE_EXHAUSTED, "the connection has too many unfinished requests")
        else:
            self._http2.acknowledge(event.stream, len(event.data))

    def _kept(self) -> int:
        return sum(
            request.deframer.kept + sum(len(message) for message in request.messages)
            for request in self._unfinished.values()
        )

    def _finish(self, stream: int) -> Optional[Request]:
        """Return the request of a stream whose client has sent all, unless it was answered or is not complete."""
        request = self._unfinished.pop(stream, None)
        if request is None:
            return None
        if not request.messages or request.deframer.kept:
            self._refuse(stream, grpc.INTERNAL, "the request ends before its message is complete")
            return None
        return Request(stream, request.method, request.messages[0], request.deadline)

    def _refuse(self, stream: int, code: int, message: str) -> None:
        self._http2.send_headers(stream, grpc.answer_headers())
        self._end_early(stream, grpc.trailers(Status(code, message)))

    def _end_early(self, stream: int, trailers: Sequence[Header]) -> None:
        """End an answer, and tell the client to stop if it is still sending the request."""
        self._unfinished.pop(stream, None)
        self._http2.send_trailers(stream, trailers)
        self._http2.reset_stream(stream, http2.NO_ERROR)

    # -- answering --------------------------------------------------------------

    def start(self, stream: int) -> None:
        """Send the headers of an answer. A stream that the client has reset is ignored, here and below."""
        self._http2.send_headers(stream, grpc.answer_headers())

    def send(self, stream: int, message: bytes) -> None:
        """Send one message of an answer, as soon as the client takes it. Raises as ``grpc.frame``."""
        self._http2.send_data(stream, grpc.frame(message))

    def finish(self, stream: int, status: Status) -> None:
        """End an answer."""
        self._http2.send_trailers(stream, grpc.trailers(status))

    def abandon(self, stream: int) -> None:
        """End an answer that the client does not take."""
        self._http2.reset_stream(stream)

    def is_waiting_for(self, stream: int) -> bool:
        """Return True while the client wants the answer on a stream."""
        return self._http2.is_open(stream)

    def backlog(self, stream: int) -> int:
        """Return how many bytes of an answer the client has not taken."""
        return self._http2.waiting(stream)

    # -- the connection ------------------------------------------------------------

    @property
    def has_unfinished(self) -> bool:
        """Whether a request has not arrived completely."""
        return bool(self._unfinished)

    @property
    def total_backlog(self) -> int:
        """How many bytes of all answers the client has not taken."""
        return self._http2.total_waiting

    @property
    def unsent(self) -> int:
        """How many bytes ``bytes_to_send`` returns now."""
        return self._http2.unsent

    def bytes_to_send(self) -> bytes:
        """Return the bytes to send, once."""
        return self._http2.bytes_to_send()

    def go_away(self) -> None:
        """Accept no more requests. The client sends those that it has not sent yet to another connection."""
        self._http2.go_away()
