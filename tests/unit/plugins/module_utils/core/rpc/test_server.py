# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the server's end of a connection with clients that keep the rules of gRPC, and with some that do not."""

from __future__ import annotations

import struct
from typing import Dict, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, http2, server
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.hpack import Header
from hypothesis import given
from hypothesis import strategies as st

HEADERS = grpc.request_headers("/x/Y", 5.0)


class Client:
    """A client of our own HTTP/2, which is connected to a session."""

    def __init__(self) -> None:
        self.http2 = http2.Connection(is_client=True)
        self.session = server.Session(0.0)
        self.headers: Dict[int, List[Header]] = {}
        self.bodies: Dict[int, bytes] = {}
        self.resets: List[int] = []
        self.answer()

    def open(self, *data: bytes, end: bool = True, headers: List[Header] = HEADERS) -> int:
        stream = self.http2.open_stream(headers)
        for number, piece in enumerate(data):
            self.http2.send_data(stream, piece, end and number == len(data) - 1)
        return stream

    def send(self, now: float = 0.0) -> List[server.Request]:
        """Pass on what the client sends until nothing waits. Return the requests that arrive."""
        requests: List[server.Request] = []
        while True:
            data = self.http2.bytes_to_send()
            requests += self.session.receive(data, now)
            self.answer()
            if not data:
                return requests

    def answer(self) -> None:
        for event in self.http2.receive(self.session.bytes_to_send()):
            if isinstance(event, http2.HeadersReceived):
                self.headers.setdefault(event.stream, []).extend(event.headers)
            elif isinstance(event, http2.DataReceived):
                self.bodies[event.stream] = self.bodies.get(event.stream, b"") + event.data
                self.http2.acknowledge(event.stream, len(event.data))
            elif isinstance(event, http2.StreamReset):
                self.resets.append(event.code)

    def status(self, stream: int) -> grpc.Status:
        return grpc.read_status(self.headers[stream])


def test_a_call() -> None:
    client = Client()
    stream = client.open(grpc.frame(b"question"))
    assert client.send(now=1.0) == [server.Request(stream, "/x/Y", b"question", 6.0)]
    client.session.start(stream)
    client.session.send(stream, b"one")
    client.session.send(stream, b"")
    client.session.finish(stream, grpc.Status(5, "100 % not found: é"))
    client.answer()
    assert client.bodies == {stream: grpc.frame(b"one") + grpc.frame(b"")}
    assert client.headers[stream][:2] == [(":status", "200"), ("content-type", "application/grpc")]
    assert client.status(stream) == grpc.Status(5, "100 % not found: é")
    assert not client.session.is_waiting_for(stream)


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20))
def test_a_request_in_any_pieces(message: bytes, sizes: List[int]) -> None:
    client = Client()
    client.open(grpc.frame(message))
    data = client.http2.bytes_to_send()
    found: List[server.Request] = []
    for size in [*sizes, len(data)]:
        found += client.session.receive(data[:size], 0.0)
        data = data[size:]
    assert [request.message for request in found] == [message]


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        ([b""], 13, "ends before its message is complete"),
        ([grpc.frame(b"abc")[:-1]], 13, "ends before its message is complete"),
        ([grpc.frame(b"a"), grpc.frame(b"b")], 13, "more than one message"),
        ([b"\1" + bytes(4)], 8, "a message is compressed"),
        ([struct.pack(">BI", 0, server.MAX_REQUEST + 1)], 8, "at most 4194304 bytes are allowed"),
    ],
)
def test_what_is_not_one_message(data: List[bytes], code: int, message: str) -> None:
    client = Client()
    stream = client.open(*data)
    assert client.send() == []
    assert client.status(stream).code == code
    assert message in client.status(stream).message
    # The connection goes on.
    client.open(grpc.frame(b"next"))
    assert [request.message for request in client.send()] == [b"next"]


def with_header(name: str, value: str) -> List[Header]:
    return [*(header for header in HEADERS if header[0] != name), (name, value)]


@pytest.mark.parametrize(
    ("headers", "code", "message"),
    [
        (with_header("grpc-timeout", "5x"), 13, "the timeout '5x' of a request is malformed"),
        (with_header("grpc-timeout", "123456789S"), 13, "is malformed"),
        (with_header("grpc-encoding", "gzip"), 12, "compressed with 'gzip'"),
    ],
)
def test_headers_that_are_refused(headers: List[Header], code: int, message: str) -> None:
    client = Client()
    stream = client.open(grpc.frame(b"x"), headers=headers)
    assert client.send() == []
    assert client.status(stream).code == code
    assert message in client.status(stream).message


@pytest.mark.parametrize(("name", "value", "status"), [(":method", "GET", "405"), ("content-type", "text/html", "415")])
def test_what_is_not_grpc(name: str, value: str, status: str) -> None:
    client = Client()
    stream = client.open(grpc.frame(b"x"), headers=with_header(name, value))
    assert client.send() == []
    assert client.headers[stream] == [(":status", status)]


def test_a_large_request_arrives_through_the_windows() -> None:
    client = Client()
    client.open(grpc.frame(bytes(server.MAX_REQUEST)))
    assert [len(request.message) for request in client.send()] == [server.MAX_REQUEST]


def test_unfinished_requests_have_a_limit_together() -> None:
    """Each is allowed by itself. The connection keeps at most two large ones."""
    client = Client()
    part = grpc.frame(bytes(server.MAX_REQUEST))[:-100]
    streams = [client.open(part, end=False) for _number in range(3)]
    assert client.send() == []
    refused = [stream for stream in streams if stream in client.headers]
    assert [client.status(stream).code for stream in refused] == [8]
    assert "too many unfinished requests" in client.status(refused[0]).message


def test_a_request_that_takes_too_long() -> None:
    client = Client()
    slow = client.open(grpc.frame(b"abc")[:-1], end=False)
    client.send(now=1.0)
    assert not client.session.expire(server.REQUEST_TIME)
    client.answer()
    assert slow not in client.headers
    assert not client.session.expire(server.REQUEST_TIME + 1.1)
    client.answer()
    # The client is told to stop sending.
    assert (client.status(slow).code, client.resets) == (4, [http2.NO_ERROR])


def test_a_client_without_settings() -> None:
    session = server.Session(0.0)
    session.receive(http2.PREFACE, 0.0)
    assert not session.expire(server.REQUEST_TIME)
    assert session.expire(server.REQUEST_TIME + 0.1)


def test_a_client_that_gives_up() -> None:
    client = Client()
    stream = client.open(grpc.frame(b"x"))
    client.send()
    client.http2.reset_stream(stream)
    client.send()
    assert not client.session.is_waiting_for(stream)
    client.session.start(stream)
    client.session.send(stream, b"late")
    client.session.finish(stream, grpc.Status(0, ""))
    assert client.session.bytes_to_send() == b""


def test_a_client_that_takes_nothing() -> None:
    client = Client()
    stream = client.open(grpc.frame(b"x"))
    client.send()
    client.session.start(stream)
    client.session.send(stream, bytes(3 << 20))
    # The client has opened windows of 1 MiB.
    assert client.session.unsent < 1 << 21
    assert client.session.backlog(stream) >= 2 << 20
    assert client.session.total_backlog == client.session.backlog(stream)
    client.session.abandon(stream)
    assert client.session.total_backlog == 0


def test_no_requests_after_going_away() -> None:
    client = Client()
    client.open(grpc.frame(b"x"))
    client.send()
    client.session.go_away()
    client.open(grpc.frame(b"y"))
    assert client.send() == []
    assert client.resets == [http2.REFUSED_STREAM]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound("x"), 5),
        (errors.AlreadyExists("x"), 6),
        (errors.InvalidArgument("x"), 3),
        (errors.Damaged("x"), 9),
        (errors.Unavailable("x"), 14),
        (errors.NotImplementedHere("x"), 12),
        (errors.Internal("x"), 2),
    ],
)
def test_statuses_of_errors(error: errors.SnapshotterError, code: int) -> None:
    assert grpc.status_of(error) == grpc.Status(code, "x")
    back = grpc.error_of(grpc.status_of(error))
    assert isinstance(error, type(back))


@given(st.text(max_size=3000))
def test_long_messages_are_cut_at_a_character(text: str) -> None:
    sent = dict(grpc.trailers(grpc.Status(2, text))).get("grpc-message", "")
    assert len(sent) <= 6003
    shown = grpc.decode_message(sent)
    assert shown == text or text.startswith(shown.rstrip(".").rstrip("\ufffd"))


@pytest.mark.parametrize(
    ("value", "seconds"), [("2H", 7200.0), ("3M", 180.0), ("5m", 0.005), ("7u", 7e-6), ("9n", 9e-9)]
)
def test_timeouts(value: str, seconds: float) -> None:
    assert grpc.parse_timeout(value) == pytest.approx(seconds)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), st.integers(0, 400))
def test_damaged_bytes_end_the_connection_or_are_read(changes: List[Tuple[int, int]], cut: int) -> None:
    client = Client()
    client.open(grpc.frame(b"one"))
    client.open(grpc.frame(b"two"), end=False)
    data = bytearray(client.http2.bytes_to_send())
    for position, value in changes:
        data[position % len(data)] = value
    session = server.Session(0.0)
    session.bytes_to_send()
    codes = []
    try:
        for piece in (data[:cut], data[cut:]):
            session.receive(bytes(piece), 0.0)
            session.expire(100.0)
    except http2.ProtocolError as error:
        codes.append(error.code)
    assert all(0 < code <= 13 for code in codes)
    assert len(session.bytes_to_send()) < 4000
