# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test HTTP/2 with damaged and hostile peers. tests/peers/test_rpc.py compares it with the h2 library."""

from __future__ import annotations

import struct
from typing import List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import hpack, http2
from hypothesis import given
from hypothesis import strategies as st

REQUEST = [(":method", "POST"), (":path", "/x")]
HEADERS = hpack.encode(REQUEST)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


SETTINGS = frame(4, 0, 0)
OPENED = frame(1, 4, 1, HEADERS)


def server(*frames: bytes) -> Tuple[http2.Connection, List[http2.Event]]:
    connection = http2.Connection(is_client=False)
    return connection, connection.receive(http2.PREFACE + b"".join(frames))


def test_a_server_speaks_first() -> None:
    """The client of containerd gives up a connection that is silent for a second."""
    assert http2.Connection(is_client=False).bytes_to_send()[3] == 4


@pytest.mark.parametrize(
    ("frames", "code", "message"),
    [
        ([frame(6, 0, 0, bytes(8))], 1, "the first frame has no settings: this is not HTTP/2"),
        ([SETTINGS, b"\x00\x40\x01" + bytes(6)], 6, "a frame has 16385 bytes"),
        ([SETTINGS, frame(4, 0, 0, bytes(5))], 6, "a SETTINGS frame has a wrong size"),
        ([frame(4, 0, 0, struct.pack(">HI", 4, 1 << 31))], 3, "the initial window has 2147483648 bytes"),
        ([frame(4, 0, 0, struct.pack(">HI", 5, 100))], 1, "frames have at most 100 bytes"),
        ([SETTINGS, frame(0, 0, 1, b"x")], 1, "a frame arrived on stream 1, which was not opened"),
        ([SETTINGS, frame(0, 0, 0, b"x")], 1, "a frame arrived on stream 0, which was not opened"),
        ([SETTINGS, frame(1, 4, 2, HEADERS)], 1, "headers arrived on stream 2"),
        ([SETTINGS, frame(1, 12, 1, b"\x09ab")], 1, "a frame has more padding than bytes"),
        ([SETTINGS, frame(1, 0x24, 1, b"ab")], 6, "too short for its priority"),
        ([SETTINGS, frame(1, 4, 1, b"\xff\xff")], 9, "the header block is cut off"),
        ([SETTINGS, frame(1, 0, 1, HEADERS), frame(0, 0, 1)], 1, "a header block is interrupted"),
        ([SETTINGS, frame(9, 4, 1, HEADERS)], 1, "a header block continues that did not start"),
        ([SETTINGS, frame(1, 0, 1), frame(9, 0, 1)], 11, "a header block has empty frames"),
        ([SETTINGS, frame(1, 0, 1, HEADERS), frame(9, 0, 1)], 11, "a header block has empty frames"),
        ([SETTINGS, frame(1, 0, 1, bytes(16000)), *[frame(9, 0, 1, bytes(16000))] * 5], 11, "more than 65536 bytes"),
        ([SETTINGS, frame(1, 5, 1, HEADERS), frame(0, 1, 3, b"x")], 1, "stream 3, which was not opened"),
        ([SETTINGS, frame(1, 5, 1, HEADERS), frame(0, 0, 1, b"x")], 5, "data arrived on stream 1, which is not open"),
        ([SETTINGS, OPENED, frame(1, 4, 1, HEADERS)], 1, "the trailers of stream 1 do not end it"),
        ([SETTINGS, OPENED, frame(8, 0, 1, bytes(4))], 3, "the window of stream 1 grows by 0"),
        (
            [SETTINGS, OPENED, frame(8, 0, 1, b"\x7f\xff\x00\x00"), frame(4, 0, 0, struct.pack(">HI", 4, 1 << 20))],
            3,
            "the window of stream 1 grows by 983041",
        ),
        ([SETTINGS, frame(8, 0, 0, b"\x7f\xff\xff\xff")], 3, "the connection's window grows by 2147483647"),
        ([SETTINGS, OPENED, frame(3, 0, 1, b"x")], 6, "a RST_STREAM frame has 1 bytes"),
        ([SETTINGS, frame(6, 0, 0, b"x")], 6, "a PING frame has 1 bytes"),
        ([SETTINGS, frame(7, 0, 0, b"x")], 6, "a GOAWAY frame has 1 bytes"),
        ([SETTINGS, frame(5, 4, 1, bytes(8))], 1, "the peer pushes an answer"),
    ],
)
def test_a_peer_that_breaks_the_protocol(frames: List[bytes], code: int, message: str) -> None:
    connection = http2.Connection(is_client=False)
    connection.bytes_to_send()
    with pytest.raises(http2.ProtocolError, match=message) as caught:
        connection.receive(http2.PREFACE + b"".join(frames))
    assert caught.value.code == code
    # The last frame tells the peer why.
    assert connection.bytes_to_send().endswith(struct.pack(">I", code) + str(caught.value).encode())


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"PRI * HTTP/2.0\r\n\r\nXM"])
def test_a_client_of_another_protocol(text: bytes) -> None:
    connection = http2.Connection(is_client=False)
    with pytest.raises(http2.ProtocolError, match="the client does not speak HTTP/2"):
        connection.receive(text)


def test_a_server_of_another_protocol() -> None:
    with pytest.raises(http2.ProtocolError, match="a frame has|this is not HTTP/2"):
        http2.Connection(is_client=True).receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_peer_cannot_send_more_than_the_windows() -> None:
    connection, _ = server(SETTINGS, OPENED)
    connection.reset_stream(1)
    pieces = [frame(0, 0, 1, bytes(16000))] * (http2.WINDOW // 16000 + 1)
    # What arrives on a stream that was reset counts for the connection, and is given back.
    connection.receive(b"".join(pieces))
    assert len(connection.bytes_to_send()) < 1000


def test_streams_have_a_limit() -> None:
    streams = range(1, 2 * http2.MAX_STREAMS + 21, 2)
    connection, events = server(SETTINGS, *(frame(1, 4, stream, HEADERS) for stream in streams))
    assert len(events) == connection.open_streams == http2.MAX_STREAMS
    refused = frame(3, 0, 2 * http2.MAX_STREAMS + 1, struct.pack(">I", http2.REFUSED_STREAM))
    assert refused in connection.bytes_to_send()


def test_no_streams_after_going_away() -> None:
    connection, _ = server(SETTINGS, OPENED)
    connection.go_away()
    assert connection.receive(frame(1, 4, 3, HEADERS)) == []
    assert connection.open_streams == 1


def test_data_waits_for_the_window_of_the_peer() -> None:
    connection, _ = server(frame(4, 0, 0, struct.pack(">HI", 4, 10)), frame(1, 5, 1, HEADERS))
    connection.bytes_to_send()
    connection.send_data(1, b"0123456789abc", end=True)
    assert connection.bytes_to_send() == frame(0, 0, 1, b"0123456789")
    assert connection.waiting(1) == 3
    connection.receive(frame(4, 0, 0, struct.pack(">HI", 4, 12)))
    assert connection.bytes_to_send() == frame(4, 1, 0) + frame(0, 0, 1, b"ab")
    connection.receive(frame(8, 0, 1, struct.pack(">I", 9)))
    assert connection.bytes_to_send() == frame(0, 1, 1, b"c")
    assert connection.open_streams == 0


def test_events_of_a_stream_that_the_peer_ends() -> None:
    connection, events = server(SETTINGS, OPENED, frame(3, 0, 1, struct.pack(">I", 8)))
    assert events == [http2.HeadersReceived(1, REQUEST, False), http2.StreamReset(1, 8)]
    connection.bytes_to_send()
    connection.send_headers(1, [(":status", "200")])
    connection.send_data(1, b"late", end=True)
    assert connection.bytes_to_send() == b""


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=5), st.booleans())
def test_damaged_frames_end_the_connection_or_are_read(changes: List[Tuple[int, int]], is_client: bool) -> None:
    good = SETTINGS + OPENED + frame(0, 0, 1, b"body") + frame(6, 0, 0, bytes(8)) + frame(8, 0, 0, b"\0\0\0\1")
    data = bytearray(good + frame(1, 5, 1, HEADERS) + frame(7, 0, 0, bytes(8)))
    for position, value in changes:
        data[position % len(data)] = value
    connection = http2.Connection(is_client)
    if is_client:
        connection.open_stream(REQUEST)
    codes = []
    try:
        connection.receive((b"" if is_client else http2.PREFACE) + bytes(data))
    except http2.ProtocolError as error:
        codes.append(error.code)
    assert all(0 < code <= 13 for code in codes)
    assert len(connection.bytes_to_send()) < 2000
