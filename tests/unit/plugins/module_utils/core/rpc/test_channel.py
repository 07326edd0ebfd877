# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test calls with a server of our own HTTP/2, and with servers that do not speak gRPC or break its rules."""

from __future__ import annotations

import struct
import time
import types
from typing import Any, Callable, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import channel as channels
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, hpack, http2
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.channel import Channel
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import NotListening
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.rpc.memory import (
    Bytes,
    Peers,
    Request,
    Server,
)
from hypothesis import given, settings
from hypothesis import strategies as st

METHOD = "/test.v1.Service/Method"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


SETTINGS = frame(4, 0, 0)
HEADERS = frame(1, 4, 1, hpack.encode([(":status", "200"), ("content-type", "application/grpc")]))
GOOD_END = frame(1, 5, 1, hpack.encode([("grpc-status", "0")]))


def channel(*transports: Bytes) -> Channel:
    return Channel(Peers(*transports), "the server", [("containerd-namespace", "ns")])


def echo(server: Server, stream: int, request: Request) -> None:
    """Answer each message at once with itself."""
    if len(request.messages) and not request.is_ended and not request.is_answered:
        request.is_answered = True
        server.start(stream)
    while request.messages:
        server.message(stream, request.messages.pop(0))
    if request.is_ended:
        server.finish(stream)


def join(server: Server, stream: int, request: Request) -> None:
    """Answer all messages with one."""
    if request.is_ended:
        server.answer(stream, b"+".join(request.messages))


# -- calls --------------------------------------------------------------------


def test_one_message_each_way() -> None:
    server = Server(join)
    opened = channel(server)
    assert opened.unary(METHOD, b"one", metadata=[("containerd-lease", "l")]) == b"one"
    assert opened.unary(METHOD, b"") == b""
    headers = server.requests[1].headers
    assert (headers["containerd-namespace"], headers["containerd-lease"], headers[":path"]) == ("ns", "l", METHOD)
    assert "containerd-lease" not in server.requests[3].headers
    assert server.http2.open_streams == 0


def test_streams() -> None:
    opened = channel(
        Server(lambda server, stream, request: request.is_ended and server.answer(stream, *[b"a", b"", b"c" * 9]))
    )
    assert list(opened.server_stream(METHOD, b"x")) == [b"a", b"", b"c" * 9]
    opened = channel(Server(join))
    assert opened.client_stream(METHOD, [b"a", b"b", b"c"]) == b"a+b+c"
    assert opened.client_stream(METHOD, []) == b""


def test_messages_in_both_directions() -> None:
    opened = channel(Server(echo))
    with opened.stream(METHOD) as first, opened.stream(METHOD) as second:
        for number in range(5):
            first.send(b"first %d" % number)
            second.send(b"second %d" % number)
            assert (second.receive(), first.receive()) == (b"second %d" % number, b"first %d" % number)
        first.end()
        assert first.receive() is None
        second.send(b"last", end=True)
        assert (second.receive(), second.receive(), second.receive()) == (b"last", None, None)


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 250))
def test_large_messages_need_many_windows(messages: List[bytes], repeat: int) -> None:
    sent = [message * repeat * repeat for message in messages] or [b""]
    opened = channel(Server(join))
    assert opened.client_stream(METHOD, sent) == b"+".join(sent)


def test_a_message_of_the_largest_size() -> None:
    """It is larger than all windows, in both directions."""
    message = bytes(grpc.MAX_MESSAGE)
    opened = channel(Server(join))
    assert opened.unary(METHOD, message) == message
    with pytest.raises(errors.InvalidArgument, match="split the request"):
        opened.unary(METHOD, message + b"x")
    assert opened.unary(METHOD, b"next") == b"next"


def test_what_is_not_read_stays_at_the_server() -> None:
    """A call that is not read holds one window of data, while other calls go on."""

    def handle(server: Server, stream: int, request: Request) -> None:
        if request.headers[":path"] == "/s/Large":
            if request.is_ended:
                server.answer(stream, *[bytes(100_000)] * 100)
        else:
            join(server, stream, request)

    opened = channel(Server(handle))
    large = opened.stream("/s/Large")
    large.send(b"", end=True)
    for _ in range(100):
        assert opened.unary(METHOD, b"x") == b"x"
    link = opened.link(time.monotonic() + 1)
    assert len(link.answer(1).data) <= http2.WINDOW
    received = 0
    while large.receive() is not None:
        received += 1
    assert received == 100


def test_status_of_the_server() -> None:
    text = 'snapshot "ä%" does not exist: not found'
    opened = channel(
        Server(lambda server, stream, request: request.is_ended and server.answer(stream, code=5, text=text))
    )
    with pytest.raises(errors.NotFound) as caught:
        opened.unary(METHOD, b"")
    assert caught.value.message == text
    with pytest.raises(errors.NotFound):
        list(opened.server_stream(METHOD, b""))


def test_a_status_with_the_headers() -> None:
    """A server that has no data sends only one list of headers."""

    def handle(server: Server, stream: int, request: Request) -> None:
        headers = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "12"),
            ("grpc-message", "no"),
        ]
        server.http2.send_trailers(stream, headers)

    with pytest.raises(errors.NotImplementedHere, match="no"):
        channel(Server(handle)).unary(METHOD, b"")


def test_a_status_before_the_request_has_ended() -> None:
    """The server refuses a large request early. The client does not wait until it may send all of it."""

    def handle(server: Server, stream: int, request: Request) -> None:
        if stream not in refused:
            refused.append(stream)
            server.answer(stream, code=8, text="too much")

    refused: List[int] = []
    opened = channel(Server(handle))
    for _ in range(3):
        with pytest.raises(errors.Unavailable, match="too much"):
            opened.unary(METHOD, bytes(1 << 20))


@pytest.mark.parametrize("count", [0, 2])
def test_one_answer_is_needed(count: int) -> None:
    opened = channel(
        Server(lambda server, stream, request: request.is_ended and server.answer(stream, *[b"x"] * count))
    )
    with pytest.raises(errors.Internal, match="the server answers .* with (no|several) messages"):
        opened.unary(METHOD, b"")


def test_a_call_that_is_cancelled() -> None:
    def handle(server: Server, stream: int, request: Request) -> None:
        if request.is_ended:
            server.start(stream)
            server.message(stream, b"1")

    server = Server(handle)
    opened = channel(server)
    answers = opened.server_stream(METHOD, b"")
    assert next(answers) == b"1"
    assert server.http2.open_streams == 1
    assert isinstance(answers, types.GeneratorType)
    answers.close()
    assert server.http2.open_streams == 0


def test_a_channel_that_is_closed() -> None:
    server = Server(join)
    opened = channel(server)
    opened.unary(METHOD, b"")
    opened.close()
    opened.close()
    assert server.is_closed
    with pytest.raises(errors.FailedPrecondition, match="the server is not open"):
        opened.unary(METHOD, b"")


# -- one more time, and no more ---------------------------------------------------


def refuse(server: Server, stream: int, request: Request) -> None:
    server.http2.reset_stream(stream, http2.REFUSED_STREAM)


def go_away(server: Server, stream: int, request: Request) -> None:
    """Say that the server does not handle this stream."""
    server.http2._send(7, 0, 0, struct.pack(">II", stream - 2 if stream > 1 else 0, 0))
    server.has_ended = True


def go_away_later(server: Server, stream: int, request: Request) -> None:
    """Answer, and close the connection after it, as a server does that restarts."""
    join(server, stream, request)
    if request.is_ended:
        server.http2.go_away()
        server.has_ended = True


def end_later(server: Server, stream: int, request: Request) -> None:
    join(server, stream, request)
    server.has_ended = request.is_ended


@pytest.mark.parametrize("handle", [go_away, go_away_later, end_later])
def test_a_request_that_was_not_handled_is_sent_again(handle: Callable[..., None]) -> None:
    second = Server(join)
    peers = Peers(Server(handle), second)
    opened = Channel(peers, "the server")
    assert [opened.unary(METHOD, b"1"), opened.unary(METHOD, b"2")] == [b"1", b"2"]
    assert len(peers.opened) == 2
    assert peers.opened[0].is_closed


def test_a_stream_that_is_refused_once() -> None:
    def handle(server: Server, stream: int, request: Request) -> None:
        (refuse if stream == 1 else join)(server, stream, request)

    assert channel(Server(handle)).client_stream(METHOD, [b"1", b"2"]) == b"1+2"


def test_a_stream_that_is_refused_twice() -> None:
    server = Server(refuse)
    with pytest.raises(errors.Unavailable, match="Service/Method to the server failed: .*; run the task again"):
        channel(server).unary(METHOD, b"x")
    assert len(server.requests) == 2


def test_a_connection_that_ends_before_the_request() -> None:
    """The transport has taken nothing of the request."""
    first = Bytes(SETTINGS, is_silent=True)
    second = Server(join)
    opened = channel(first, second)
    with opened.stream(METHOD) as call:
        opened.link(time.monotonic() + 1)
        first.takes = len(first.sent)
        call.send(b"x", end=True)
        assert call.receive() == b"x"
    assert len(second.requests) == 1


def test_a_connection_that_ends_after_the_request() -> None:
    """It is not known whether the server did the work, so the request is not sent again."""

    def handle(server: Server, stream: int, request: Request) -> None:
        server.has_ended = True

    peers = Peers(Server(handle), Server(join))
    opened = Channel(peers, "the server")
    with pytest.raises(errors.Unavailable, match="it is not known whether the server did the work"):
        opened.unary(METHOD, b"x")
    assert len(peers.opened) == 1
    # The next call works.
    assert opened.unary(METHOD, b"y") == b"y"


def test_no_repetition_after_an_answer_has_begun() -> None:
    def handle(server: Server, stream: int, request: Request) -> None:
        if request.is_ended:
            server.start(stream)
            server.message(stream, b"1")
            server.http2._send(3, 0, stream, struct.pack(">I", http2.REFUSED_STREAM))

    server = Server(handle)
    with pytest.raises(errors.Unavailable):
        list(channel(server).server_stream(METHOD, b""))
    assert len(server.requests) == 1


# -- servers that are not of gRPC -----------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak gRPC .* its first bytes are b'HTTP/1.1 400 Bad Request"),
        (b"\0" * 100, "does not speak gRPC .*settings"),
        (b"x" * (1 << 20), "does not speak gRPC"),
        (frame(7, 0, 0, bytes(8)), "does not speak gRPC"),
    ],
)
@pytest.mark.parametrize("takes", [-1, 0], ids=["reads", "closes"])
def test_other_protocols(data: bytes, message: str, takes: int) -> None:
    """The server can also close the connection before it gets our first bytes."""
    peer = Bytes(data, takes=takes)
    peers = Peers(peer, peer)
    with pytest.raises(errors.FailedPrecondition, match=f"^the server {message}.*; correct the address"):
        Channel(peers, "the server").unary(METHOD, b"")
    assert len(peers.opened) == 1
    assert peer.is_closed
    # At most one piece was read.
    assert len(peer.data) >= len(data) - 7000


def test_a_server_that_closes_at_once() -> None:
    peers = Peers(Bytes(b""), Bytes(b""))
    with pytest.raises(errors.Unavailable, match="ends each connection without an answer .*, 2 times; .* address"):
        Channel(peers, "the server").unary(METHOD, b"")
    assert all(peer.is_closed for peer in peers.opened)


def test_a_server_that_is_silent() -> None:
    peers = Peers(Bytes(b"", is_silent=True), Bytes(b"", is_silent=True))
    with pytest.raises(errors.Unavailable, match="does not answer: 3 s without settings of HTTP/2, 2 times"):
        Channel(peers, "the server").unary(METHOD, b"")
    assert all(peer.is_closed for peer in peers.opened)


def test_a_first_connection_that_is_never_served() -> None:
    """This happens in Wine after each start of containerd."""
    assert channel(Bytes(b"", is_silent=True), Server(join)).unary(METHOD, b"x") == b"x"


def test_the_deadline_of_a_call() -> None:
    opened = channel(Server(lambda *_: None), Server(join))
    with pytest.raises(
        errors.Unavailable, match="the server did not finish Service/Method within 0.5 s; .* task again"
    ):
        opened.unary(METHOD, b"", timeout=0.5)
    with pytest.raises(errors.Unavailable, match="within 0 s"):
        opened.unary(METHOD, b"", timeout=0)
    short = channel(Bytes(b"", is_silent=True))
    with pytest.raises(errors.Unavailable, match="within 0.1 s"):
        short.unary(METHOD, b"", timeout=0.1)


def test_no_server() -> None:
    peers = Peers()
    peers.error = NotListening("there is no socket")
    with pytest.raises(NotListening):
        Channel(peers, "the server").unary(METHOD, b"")


# -- servers that break the rules ------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "kind", "message"),
    [
        ([HEADERS], errors.Unavailable, "the connection ended: the server closed it"),
        ([HEADERS, frame(3, 0, 1, struct.pack(">I", 11))], errors.Unavailable, "reset the stream with the code 11"),
        ([HEADERS, frame(0, 1, 1)], errors.Internal, "is not valid: an answer ends without a status of gRPC"),
        ([HEADERS, HEADERS], errors.Unavailable, "headers arrived in the middle of the answer"),
        ([HEADERS, frame(0, 0, 1, b"\1\0\0\0\1x")], errors.Internal, "compressed"),
        ([HEADERS, frame(0, 0, 1, b"\0\x40\0\0\0x")], errors.Internal, "a message has 1073741824 bytes"),
        ([HEADERS, frame(0, 0, 1, b"\0\0\0\0\2x"), GOOD_END], errors.Internal, "in the middle of a message"),
        ([GOOD_END], errors.Internal, "no HTTP status"),
        ([HEADERS, frame(0, 0, 3, b"x")], errors.Unavailable, "stream 3, which was not opened"),
        ([frame(1, 5, 1, hpack.encode([(":status", "500")]))], errors.Internal, "HTTP status 500 .* not gRPC"),
        (
            [frame(1, 5, 1, hpack.encode([(":status", "200"), ("content-type", "text/html")]))],
            errors.Internal,
            "not gRPC",
        ),
    ],
)
def test_answers_that_are_not_valid(frames: List[bytes], kind: type, message: str) -> None:
    peer = Bytes(b"", is_silent=True)
    opened = channel(peer)
    with opened.stream(METHOD) as call:
        peer.data += SETTINGS
        call.send(b"x", end=True)
        peer.data += b"".join(frames)
        peer.is_silent = False
        with pytest.raises(kind, match=message):
            while call.receive() is not None:
                pass


class Endless(Bytes):
    """It sends data without end after the first request, whatever the windows are."""

    def receive(self, deadline: float) -> bytes:
        if len(self.sent) < 200 or self.data:
            return super().receive(deadline)
        return frame(0, 0, 1, grpc.frame(bytes(1000)) * 10)

    def send(self, data: bytes, deadline: float) -> None:
        if len(self.sent) < 200 <= len(self.sent) + len(data):
            self.data += HEADERS
        super().send(data, deadline)


def test_an_endless_answer_is_given_to_the_caller() -> None:
    opened = channel(Endless(SETTINGS, is_silent=True))
    with opened.stream(METHOD) as call:
        call.send(b"", end=True)
        for _ in range(5000):
            assert call.receive() == bytes(1000)


def test_an_endless_answer_that_is_not_read() -> None:
    opened = channel(Endless(SETTINGS, is_silent=True))
    with opened.stream(METHOD) as call, opened.stream(METHOD) as other:
        call.send(b"", end=True)
        other.send(b"", end=True)
        with pytest.raises(errors.Unavailable, match="the peer sends more than the window of stream 1"):
            other.receive()


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_answers_end_with_an_error(changes: List[Any]) -> None:
    good = SETTINGS + HEADERS + frame(0, 0, 1, grpc.frame(b"body")) + GOOD_END
    data = bytearray(good)
    for position, value in changes:
        data[position % len(data)] = value

    class Late(Bytes):
        """It answers after the request."""

        def receive(self, deadline: float) -> bytes:
            if bytes(self.data[: len(SETTINGS)]) != SETTINGS:
                return super().receive(deadline)
            del self.data[: len(SETTINGS)]
            return SETTINGS

    opened = channel(Late(bytes(data)), Late(bytes(data)))
    try:
        answer = opened.unary(METHOD, b"x")
    except errors.SnapshotterError:
        return
    assert len(answer) == 4


def test_the_channel_names_its_limits() -> None:
    assert channels.SETTINGS_TIMEOUT == 3.0
    assert grpc.MAX_MESSAGE == 16 * 1024 * 1024
