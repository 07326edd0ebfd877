# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of gRPC over a connection that is made when it is needed.

Each call has a deadline for all of its work. A request is sent a second time over a new connection only if the server
has not handled it: it refused the stream, it was going away, or the connection was closed before the request was sent.
"""

from __future__ import annotations

import collections
import time
from typing import Any, Callable, Deque, Iterable, Iterator, List, Optional, Sequence, Tuple

from ..errors import FailedPrecondition, Internal, SnapshotterError, Unavailable
from . import grpc
from .grpc import Status
from .hpack import Header
from .link import Link, NotHttp2
from .transport import ConnectionLost, DeadlineReached, Transport

#: Seconds that a call may take, unless it says otherwise.
TIMEOUT = 30.0

#: Seconds after which a server that has not sent its settings is given up. A server of gRPC sends them at once.
SETTINGS_TIMEOUT = 3.0

# How often a connection is tried.
_ATTEMPTS = 2

# Bytes of requests that a call keeps, in case they have to be sent again.
_MAX_REPEATED = 1 << 20

#: Opens a transport before a deadline of ``time.monotonic()``.
Connect = Callable[[float], Transport]


class Channel:
    """Calls to one server. ``server`` names it in messages, for example ``containerd at /run/x.sock``.

    ``metadata`` are headers of each call. A channel belongs to one thread. Several of its calls can be open at once.

    Every call raises, in addition to the errors that the server reports:
    Unavailable (no connection; the connection ended; the deadline),
    FailedPrecondition (the server does not speak gRPC), Internal (the server
    breaks the rules of gRPC), and what ``connect`` raises.
    """

    def __init__(self, connect: Connect, server: str, metadata: Sequence[Header] = ()) -> None:
        self.server = server
        self._connect = connect
        self._metadata = tuple(metadata)
        self._link: Optional[Link] = None
        self._is_closed = False

    def unary(self, method: str, request: bytes, *, timeout: float = TIMEOUT, metadata: Sequence[Header] = ()) -> bytes:
        """Send one message, and return the one message that answers it."""
        return self.client_stream(method, (request,), timeout=timeout, metadata=metadata)

    def client_stream(
        self, method: str, requests: Iterable[bytes], *, timeout: float = TIMEOUT, metadata: Sequence[Header] = ()
    ) -> bytes:
        """Send several messages, and return the one message that answers them."""
        with self.stream(method, timeout=timeout, metadata=metadata) as call:
            call.send_all(requests)
            answer = call.receive()
            if answer is None or call.receive() is not None:
                raise Internal(f"{self.server} answers {method} with {'no' if answer is None else 'several'} messages")
        return answer

    def server_stream(
        self, method: str, request: bytes, *, timeout: float = TIMEOUT, metadata: Sequence[Header] = ()
    ) -> Iterator[bytes]:
        """Send one message, and return the messages that answer it, as they arrive."""
        with self.stream(method, timeout=timeout, metadata=metadata) as call:
            call.send_all((request,))
            while True:
                answer = call.receive()
                if answer is None:
                    return
                yield answer

    def stream(self, method: str, *, timeout: float = TIMEOUT, metadata: Sequence[Header] = ()) -> Call:
        """Start a call with any number of messages in both directions. Use it in a ``with`` block."""
        return Call(self, method, timeout, (*self._metadata, *metadata))

    def close(self) -> None:
        """Close the connection. A second call does nothing; all other operations fail from now on."""
        self._is_closed = True
        if self._link is not None:
            self._link.close()

    def link(self, deadline: float) -> Link:
        """Return a connection on which a call can start. Raises as the class says, and DeadlineReached."""
        if self._is_closed:
            raise FailedPrecondition(f"the connection to {self.server} is not open: it was closed")
        if self._link is not None:
            self._link.poll()
            if self._link.is_usable:
                return self._link
        self._link = self._new_link(deadline)
        return self._link

    def _new_link(self, deadline: float) -> Link:
        for _attempt in range(_ATTEMPTS):
            limit = min(deadline, time.monotonic() + SETTINGS_TIMEOUT)
            try:
                return Link(self._connect(limit), limit)
            except NotHttp2 as error:
                raise FailedPrecondition(
                    f"{self.server} does not speak gRPC ({error}): its first bytes are {error.first[:32]!r}; correct "
                    "the address",
                    server=self.server,
                ) from None
            except DeadlineReached:
                if limit == deadline:
                    raise
                problem = f"accepts connections and does not answer: {SETTINGS_TIMEOUT:g} s without settings of HTTP/2"
            except ConnectionLost as error:
                problem = f"ends each connection without an answer ({error})"
        raise Unavailable(
            f"{self.server} {problem}, {_ATTEMPTS} times; see whether it runs properly, or correct the address",
            server=self.server,
        )


class Call:
    """One call: messages to the server, and messages from it. It ends with the ``with`` block.

    Errors are those of ``Channel``, and the status that the server reports.
    """

    def __init__(self, channel: Channel, method: str, timeout: float, metadata: Sequence[Header]) -> None:
        self._channel = channel
        self._method = method
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._metadata = metadata
        self._deframer = grpc.Deframer()
        self._messages: Deque[bytes] = collections.deque()
        self._link: Optional[Link] = None
        self._stream = 0
        # What was sent, until it cannot be sent again.
        self._sent: Optional[List[Tuple[bytes, bool]]] = []
        self._has_headers = False
        self._status: Optional[Status] = None
        self._is_over = False

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_error: object) -> None:
        self.cancel()

    def send(self, message: bytes, end: bool = False) -> None:
        """Send a message. ``end``: it is the last one. Return when the connection has it, not when the server read it.

        If the server has ended the call, nothing is sent, and ``receive`` says why.
        """
        self._send(grpc.frame(message), end)

    def end(self) -> None:
        """Tell the server that no more messages follow."""
        self._send(b"", True)

    def send_all(self, messages: Iterable[bytes]) -> None:
        """Send messages, and end after the last one."""
        last: Optional[bytes] = None
        for message in messages:
            if last is not None:
                self.send(last)
            last = message
        if last is None:
            self.end()
        else:
            self.send(last, end=True)

    def receive(self) -> Optional[bytes]:
        """Return the next message of the server, None if it has ended the call with success."""
        while not self._messages:
            if self._status is not None:
                if self._status.code != grpc.OK:
                    raise grpc.error_of(self._status)
                return None
            self._before_deadline(self._advance)
        return self._messages.popleft()

    def cancel(self) -> None:
        """End the call. If the server has not ended it, tell the server to stop. A second call does nothing."""
        self._is_over = True
        self._leave()

    # -- the parts of the above --------------------------------------------------

    def _send(self, data: bytes, end: bool) -> None:
        if self._status is not None:
            return
        if self._link is None:
            self._before_deadline(lambda: self._start([(data, end)]))
        else:
            self._before_deadline(lambda: self._pass_on(data, end))
        if self._sent is not None:
            self._sent.append((data, end))
            if sum(len(sent) for sent, _end in self._sent) > _MAX_REPEATED:
                self._sent = None

    def _leave(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.forget(self._stream)

    def _before_deadline(self, work: Callable[[], Any]) -> None:
        """Do a part of the call. An error ends it."""
        if self._is_over:
            raise FailedPrecondition(f"the call {self._name()} to {self._channel.server} has ended")
        try:
            if time.monotonic() >= self._deadline:
                raise DeadlineReached
            work()
        except DeadlineReached:
            self.cancel()
            raise Unavailable(
                f"{self._channel.server} did not finish {self._name()} within {self._timeout:g} s; see whether it is "
                "busy or hangs, and run the task again",
                server=self._channel.server,
                method=self._method,
            ) from None
        except grpc.GrpcError as error:
            self.cancel()
            raise self._broken(str(error)) from None
        except BaseException:
            self.cancel()
            raise

    def _start(self, pieces: Sequence[Tuple[bytes, bool]]) -> None:
        """Open a stream, and send these pieces. The first one takes the headers along."""
        self._link = self._channel.link(self._deadline)
        timeout = max(0.0, self._deadline - time.monotonic())
        self._stream = self._link.open(grpc.request_headers(self._method, timeout, self._metadata))
        for data, end in pieces:
            self._pass_on(data, end)

    def _pass_on(self, data: bytes, end: bool) -> None:
        if self._link is not None:
            self._link.send(self._stream, data, end, self._deadline)

    def _advance(self) -> None:
        """Use what has arrived on the stream, or wait for more."""
        if self._link is None:
            self._start(())
            return
        answer = self._link.answer(self._stream)
        if answer.headers is not None and not self._has_headers:
            self._has_headers = True
            self._sent = None
            self._status = grpc.check_answer(answer.headers)
        elif answer.data:
            data = bytes(answer.data)
            answer.data.clear()
            self._messages.extend(self._deframer.receive(data))
            self._link.acknowledge(self._stream, len(data))
        elif answer.trailers is not None:
            status = grpc.read_status(answer.trailers)
            if status.code == grpc.OK:
                self._deframer.finish()
            self._status = status
        elif answer.failure:
            self._repeat_or_fail(answer.failure, answer.is_refused)
        else:
            self._link.pump(self._deadline)

    def _repeat_or_fail(self, failure: str, is_refused: bool) -> None:
        self._leave()
        if not is_refused:
            raise Unavailable(
                f"the call {self._name()} to {self._channel.server} failed: {failure}; it is not known whether the "
                "server did the work: run the task again, which looks at the state first",
                server=self._channel.server,
                method=self._method,
            )
        if self._sent is None:
            raise Unavailable(
                f"the call {self._name()} to {self._channel.server} failed: {failure}; run the task again",
                server=self._channel.server,
                method=self._method,
            )
        sent, self._sent = self._sent, None
        self._start(sent)

    def _broken(self, problem: str) -> SnapshotterError:
        return Internal(
            f"the answer of {self._channel.server} to {self._name()} is not valid: {problem}; see whether the address "
            "is that of containerd",
            server=self._channel.server,
            method=self._method,
        )

    def _name(self) -> str:
        """Return the method as users know it: ``Snapshots/Prepare``."""
        return self._method.rpartition(".")[2]
