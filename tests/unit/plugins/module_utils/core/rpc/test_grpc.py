# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the frames, headers and status of gRPC."""

from __future__ import annotations

import struct
from typing import List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc
from hypothesis import given
from hypothesis import strategies as st

ANSWER = [(":status", "200"), ("content-type", "application/grpc")]


@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(1, 40))
def test_messages_arrive_in_any_pieces(messages: List[bytes], piece: int) -> None:
    data = b"".join(grpc.frame(message) for message in messages)
    deframer = grpc.Deframer()
    found = []
    for at in range(0, len(data), piece):
        found += deframer.receive(data[at : at + piece])
    assert found == messages
    deframer.finish()


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_any_bytes_are_messages_or_an_error(pieces: List[bytes]) -> None:
    deframer = grpc.Deframer()
    found = []
    try:
        for piece in pieces:
            found += deframer.receive(piece)
    except grpc.GrpcError:
        return
    data = b"".join(pieces)
    assert data.startswith(b"".join(grpc.frame(message) for message in found))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\1\0\0\0\0", "a message is compressed, which was not agreed"),
        (
            struct.pack(">BI", 0, grpc.MAX_MESSAGE + 1),
            "a message has 16777217 bytes; at most 16777216 bytes are allowed",
        ),
        (struct.pack(">BI", 0, 1 << 31), "a message has 2147483648 bytes"),
    ],
)
def test_messages_that_are_not_allowed(data: bytes, message: str) -> None:
    with pytest.raises(grpc.GrpcError, match=message):
        grpc.Deframer().receive(data)


def test_an_answer_that_is_cut_off() -> None:
    deframer = grpc.Deframer()
    deframer.receive(grpc.frame(b"abc")[:-1])
    with pytest.raises(grpc.GrpcError, match="the answer ends in the middle of a message"):
        deframer.finish()


def test_a_request_that_is_too_large() -> None:
    assert len(grpc.frame(bytes(grpc.MAX_MESSAGE))) == grpc.MAX_MESSAGE + 5
    with pytest.raises(errors.InvalidArgument, match="16777217 bytes; .* split the request"):
        grpc.frame(bytes(grpc.MAX_MESSAGE + 1))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1u"),
        (-5.0, "1u"),
        (0.25, "250000u"),
        (30.0, "30000000u"),
        (100.0, "100000m"),
        (1e6, "1000000S"),
        (1e12, "99999999S"),
    ],
)
def test_timeouts(seconds: float, text: str) -> None:
    assert grpc.format_timeout(seconds) == text


@given(st.text(max_size=80))
def test_status_messages_are_escaped(text: str) -> None:
    encoded = grpc.encode_message(text)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert grpc.decode_message(encoded) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [("50%25 of %zz %", "50% of %zz %"), ("%C3%A4 %ff", "ä \ufffd"), ("ä", "ä"), ("%E4%B8%ADx", "中x")],
)
def test_status_messages_of_other_servers(value: str, text: str) -> None:
    assert grpc.decode_message(value) == text


def test_the_headers_of_a_request() -> None:
    headers = grpc.request_headers("/a.B/C", 2.0, [("containerd-namespace", "k8s.io")])
    assert dict(headers)[":path"] == "/a.B/C"
    assert headers[-2:] == [("grpc-timeout", "2000000u"), ("containerd-namespace", "k8s.io")]
    for key, value in (("containerd-namespace", "a\nb"), ("x", "ä"), ("Upper", "x"), (":path", "/"), ("", "")):
        with pytest.raises(errors.InvalidArgument, match="use ASCII only"):
            grpc.request_headers("/a.B/C", 2.0, [(key, value)])


def test_answers() -> None:
    assert grpc.check_answer(ANSWER) is None
    assert grpc.check_answer([(":status", "200"), ("content-type", "application/grpc+proto")]) is None
    assert grpc.check_answer([(":status", "503"), *ANSWER[1:], ("grpc-status", "14")]) == (14, "")
    other = grpc.check_answer([(":status", "404"), ("content-type", "text/html")])
    assert other == (2, "the server answers with HTTP status 404 and content type 'text/html': this is not gRPC")
    assert grpc.check_answer([(":status", "200")]) is not None
    for headers in ([], [(":status", "ok")], [(":status", "99999")]):
        with pytest.raises(grpc.GrpcError, match="no HTTP status"):
            grpc.check_answer(headers)


def test_status() -> None:
    assert grpc.read_status([("grpc-status", "5"), ("grpc-message", "not%20found")]) == (5, "not found")
    for trailers in ([], [("grpc-status", "x")], [("grpc-status", "-1")], [("grpc-status", "9" * 50)]):
        with pytest.raises(grpc.GrpcError, match="ends without a status"):
            grpc.read_status(trailers)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2, errors.Internal),
        (3, errors.InvalidArgument),
        (4, errors.Unavailable),
        (5, errors.NotFound),
        (6, errors.AlreadyExists),
        (9, errors.FailedPrecondition),
        (12, errors.NotImplementedHere),
        (13, errors.Internal),
        (14, errors.Unavailable),
        (15, errors.Damaged),
        (999999999, errors.Internal),
    ],
)
def test_the_class_of_a_status(code: int, kind: type) -> None:
    error = grpc.error_of(grpc.Status(code, 'snapshot "x": reason'))
    assert type(error) is kind
    assert (error.message, error.details) == ('snapshot "x": reason', {"grpc_status": code})
    assert "gives no reason" in grpc.error_of(grpc.Status(code, "")).message
