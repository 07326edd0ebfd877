# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP/2 connection of a client, and the answers that arrive on its streams.

Several streams can be open at once. ``pump`` reads for all of them, and keeps what arrives in the answer of each
stream. The windows of HTTP/2 limit what a stream keeps.
"""

from __future__ import annotations

import time
from typing import Dict, List, Optional, Sequence, Set, Union

from . import http2
from .hpack import Header
from .transport import ConnectionLost, DeadlineReached, Transport

# The failure of an answer to a request that can be sent again.
_NOT_HANDLED = "the server refused the request, or closed the connection before it took it"

# Reads without waiting, each of at most transport.PIECE bytes. A server could send without end.
_READS = 32

# Seconds to tell the server that an answer is not needed any more.
_CANCEL_TIME = 0.2


class NotHttp2(Exception):
    """The server speaks another protocol. ``first`` are the first bytes that it sent."""

    def __init__(self, reason: str, first: bytes) -> None:
        super().__init__(reason)
        self.first = first


class Answer:
    """What has arrived on a stream and was not used yet.

    ``headers`` are None until they arrive; ``trailers`` are None until the answer ends. An answer without data can end
    with its headers, which are its trailers then. ``failure`` says why an answer does not end in order, and
    ``is_refused`` that the server did not handle the request at all, so that it can be sent again.
    """

    def __init__(self) -> None:
        self.headers: Optional[List[Header]] = None
        self.data = bytearray()
        self.trailers: Optional[List[Header]] = None
        self.failure = ""
        self.is_refused = False

    def is_over(self) -> bool:
        """Whether no more will arrive."""
        return self.trailers is not None or bool(self.failure)

    def add_headers(self, headers: List[Header], ended: bool) -> None:
        """Take headers or trailers. Headers with a status of 1xx announce the real ones."""
        if self.headers is None and (ended or not dict(headers).get(":status", "").startswith("1")):
            self.headers = headers
        elif self.headers is not None and not ended:
            self.fail("headers arrived in the middle of the answer")
        if ended:
            self.trailers = headers

    def add_data(self, data: bytes, ended: bool) -> None:
        """Take a piece of the body."""
        self.data += data
        if ended:
            self.trailers = []

    def fail(self, failure: str, is_refused: bool = False) -> None:
        """End the answer, unless it has ended before."""
        if not self.is_over():
            self.failure = failure
            self.is_refused = is_refused


class Link:
    """A connection on which the server has sent its settings.

    Raises DeadlineReached if they do not arrive, ConnectionLost, NotHttp2. The transport is closed then.
    """

    def __init__(self, transport: Transport, deadline: float) -> None:
        self._transport = transport
        self._http2 = http2.Connection(is_client=True)
        self._answers: Dict[int, Answer] = {}
        # Streams of which the transport has got no bytes.
        self._new: Set[int] = set()
        self._is_usable = True
        self._is_open = True
        first = b""
        lost = None
        try:
            try:
                transport.send(self._http2.bytes_to_send(), deadline)
            except ConnectionLost as error:
                # What the server sent before it closed the connection can show that it speaks another protocol.
                lost = error
            while not self._http2.has_settings:
                data = transport.receive(deadline)
                if not data:
                    raise lost or ConnectionLost("the server closed it before it sent its settings")
                first += data
                self._dispatch(self._http2.receive(data))
            if lost is not None:
                raise lost
        except http2.ProtocolError as error:
            transport.close()
            raise NotHttp2(str(error), first[:64]) from None
        except BaseException:
            transport.close()
            raise

    @property
    def is_usable(self) -> bool:
        """Whether a new stream can be opened."""
        return self._is_usable

    def poll(self) -> None:
        """Read what has arrived, without waiting. So a connection is known to be closed before a request is sent."""
        try:
            for _read in range(_READS):
                if self._is_usable:
                    self._read(0.0)
        except DeadlineReached:
            pass
        self._close_if_unused()

    def open(self, headers: Sequence[Header]) -> int:
        """Open a stream. Its headers are sent together with the first data."""
        stream = self._http2.open_stream(headers)
        self._answers[stream] = Answer()
        self._new.add(stream)
        return stream

    def answer(self, stream: int) -> Answer:
        """Return what has arrived on a stream."""
        return self._answers[stream]

    def send(self, stream: int, data: bytes, end: bool, deadline: float) -> None:
        """Send data on a stream, as the server allows it. Return early if the answer is over before.

        Raises DeadlineReached.
        """
        answer = self._answers[stream]
        if answer.is_over():
            return
        self._http2.send_data(stream, data, end)
        self._flush(deadline)
        while self._http2.waiting(stream) and not answer.is_over():
            self.pump(deadline)

    def acknowledge(self, stream: int, size: int) -> None:
        """Allow the server to send ``size`` more bytes on a stream."""
        self._http2.acknowledge(stream, size)

    def pump(self, deadline: float) -> None:
        """Send what waits, and read once. If the connection ends, all answers fail. Raises DeadlineReached."""
        self._flush(deadline)
        if self._is_open:
            self._read(deadline)

    def forget(self, stream: int) -> None:
        """Drop a stream. If its answer is not over, tell the server to stop."""
        answer = self._answers.pop(stream)
        self._new.discard(stream)
        self._http2.reset_stream(stream, http2.NO_ERROR if answer.trailers is not None else http2.CANCEL)
        try:
            self._flush(time.monotonic() + _CANCEL_TIME)
        except DeadlineReached:
            pass
        self._close_if_unused()

    def close(self) -> None:
        """Close the connection. Answers that are not over fail."""
        self._fail("it was closed here")

    def _close_if_unused(self) -> None:
        if not self._is_usable and not self._answers:
            self.close()

    def _flush(self, deadline: float) -> None:
        data = self._http2.bytes_to_send()
        if not data or not self._is_open:
            return
        new, self._new = self._new, set()
        try:
            self._transport.send(data, deadline)
        except ConnectionLost as error:
            if not error.accepted:
                for stream in new:
                    self._answers[stream].fail(_NOT_HANDLED, is_refused=True)
            self._fail(str(error))
        except DeadlineReached:
            # The last frame may be cut off, so nothing can follow it.
            self._fail("the server takes no more data")
            raise

    def _read(self, deadline: float) -> None:
        try:
            data = self._transport.receive(deadline)
            if not data:
                raise ConnectionLost("the server closed it")
            self._dispatch(self._http2.receive(data))
        except (ConnectionLost, http2.ProtocolError) as error:
            self._fail(str(error))

    def _dispatch(self, events: Sequence[http2.Event]) -> None:
        for event in events:
            if isinstance(event, http2.GoingAway):
                self._is_usable = False
                for stream, answer in self._answers.items():
                    if stream > event.last_stream:
                        answer.fail(_NOT_HANDLED, is_refused=True)
            elif event.stream in self._answers:
                self._add(self._answers[event.stream], event)

    @staticmethod
    def _add(answer: Answer, event: Union[http2.HeadersReceived, http2.DataReceived, http2.StreamReset]) -> None:
        if isinstance(event, http2.HeadersReceived):
            answer.add_headers(event.headers, event.ended)
        elif isinstance(event, http2.DataReceived):
            answer.add_data(event.data, event.ended)
        elif event.code == http2.REFUSED_STREAM:
            answer.fail(_NOT_HANDLED, is_refused=True)
        else:
            answer.fail(f"the server reset the stream with the code {event.code} of HTTP/2")

    def _fail(self, reason: str) -> None:
        self._is_usable = self._is_open = False
        for answer in self._answers.values():
            answer.fail(f"the connection ended: {reason}")
        self._transport.close()
