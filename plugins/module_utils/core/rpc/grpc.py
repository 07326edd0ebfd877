# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames, headers and status of gRPC (grpc.io, "gRPC over HTTP2").

A message has a prefix of five bytes: whether it is compressed, and its size. The headers of a request name the method,
and the trailers of an answer have the status: a code, and a message for a person.
"""

from __future__ import annotations

import re
import struct
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

from ..errors import (
    AlreadyExists,
    Damaged,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    SnapshotterError,
    Unavailable,
)
from .hpack import Header

#: Size of the largest message in bytes, in both directions: the limit of containerd (defaults.DefaultMaxRecvMsgSize).
MAX_MESSAGE = 16 << 20

CONTENT_TYPE = "application/grpc"

_PREFIX = struct.Struct(">BI")

# The codes that are named here (google.golang.org/grpc/codes).
OK = 0
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14

_CLASSES: Dict[int, Type[SnapshotterError]] = {
    1: Unavailable,  # canceled
    3: InvalidArgument,
    4: Unavailable,  # deadline exceeded
    5: NotFound,
    6: AlreadyExists,
    7: FailedPrecondition,  # permission denied
    8: Unavailable,  # resource exhausted
    9: FailedPrecondition,
    10: Unavailable,  # aborted
    11: InvalidArgument,  # out of range
    UNIMPLEMENTED: NotImplementedHere,
    UNAVAILABLE: Unavailable,
    15: Damaged,  # data loss
    16: FailedPrecondition,  # unauthenticated
}

# The status of each class of errors, as containerd has it (errdefs.ToGRPC): what has no class of its own is unknown.
_CODES: Tuple[Tuple[Type[SnapshotterError], int], ...] = (
    (InvalidArgument, 3),
    (NotFound, 5),
    (AlreadyExists, 6),
    (FailedPrecondition, 9),
    (NotImplementedHere, UNIMPLEMENTED),
    (Unavailable, UNAVAILABLE),
)

# A timeout has at most eight digits, and one of these units.
_TIMEOUT_UNITS = ((1_000_000, "u"), (1_000, "m"), (1, "S"))
_LONGEST_TIMEOUT = 99_999_999
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}

# Clients of gRPC take header lists of 8 KiB or more. A message that is longer in its escaped form is cut.
_LONGEST_MESSAGE = 6000

_METADATA_KEY = re.compile(r"[0-9a-z_.-]+\Z")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*\Z")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")


class GrpcError(Exception):
    """The peer broke the rules of gRPC on a stream."""


class Status(NamedTuple):
    """How a call ended: a code of gRPC, 0 for success, and the sentence of the server."""

    code: int
    message: str


def frame(message: bytes) -> bytes:
    """Return a message with its prefix. Raises InvalidArgument if the message is too large for the server."""
    if len(message) > MAX_MESSAGE:
        raise InvalidArgument(
            f"a message to the server has {len(message)} bytes; at most {MAX_MESSAGE} bytes are allowed: "
            "split the request",
            size=len(message),
        )
    return _PREFIX.pack(0, len(message)) + message


class Deframer:
    """Cuts the data of a stream into messages. It keeps at most one message that is not complete.

    ``limit`` is the size of the largest message in bytes.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._data = bytearray()
        self._limit = limit

    @property
    def kept(self) -> int:
        """The number of bytes of the message that is not complete."""
        return len(self._data)

    def receive(self, data: bytes) -> List[bytes]:
        """Take data. Return the messages that are complete. Raises GrpcError for a message that is not allowed."""
        self._data += data
        messages: List[bytes] = []
        at = 0
        while len(self._data) - at >= _PREFIX.size:
            compressed, size = _PREFIX.unpack_from(self._data, at)
            if compressed:
                raise GrpcError("a message is compressed, which was not agreed")
            if size > self._limit:
                raise GrpcError(f"a message has {size} bytes; at most {self._limit} bytes are allowed")
            end = at + _PREFIX.size + size
            if end > len(self._data):
                break
            messages.append(bytes(self._data[at + _PREFIX.size : end]))
            at = end
        del self._data[:at]
        return messages

    def finish(self) -> None:
        """Raise GrpcError if the data ends in the middle of a message."""
        if self._data:
            raise GrpcError("the answer ends in the middle of a message")


def request_headers(method: str, timeout: float, metadata: Sequence[Header] = ()) -> List[Header]:
    """Return the headers of a call.

    ``method`` is the path ``/<service>/<method>``. ``timeout`` is in seconds: the server ends the call after that, too.
    ``metadata`` are further headers, with names in lower case. Raises InvalidArgument for metadata that is not
    printable ASCII.
    """
    for key, value in metadata:
        if not _METADATA_KEY.match(key) or not _METADATA_VALUE.match(value):
            raise InvalidArgument(f"the header {key!r} of a call cannot have the value {value[:64]!r}: use ASCII only")
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", CONTENT_TYPE),
        ("grpc-timeout", format_timeout(timeout)),
        *metadata,
    ]


def format_timeout(seconds: float) -> str:
    """Return the value of the header ``grpc-timeout``, at least a microsecond, with the finest unit that fits."""
    for factor, unit in _TIMEOUT_UNITS:
        count = max(1, int(seconds * factor))
        if count <= _LONGEST_TIMEOUT:
            return f"{count}{unit}"
    return f"{_LONGEST_TIMEOUT}S"


def parse_timeout(value: str) -> float:
    """Return the seconds of a header ``grpc-timeout``. Raises GrpcError."""
    found = _TIMEOUT.match(value)
    if found is None:
        raise GrpcError(f"the timeout {value[:64]!r} of a request is malformed")
    return int(found[1]) * _SECONDS[found[2]]


def check_request(headers: Sequence[Header]) -> str:
    """Return the status of HTTP for a request that is not one of gRPC, empty if it is one."""
    found = dict(headers)
    if found.get(":method") != "POST":
        return "405"
    kind, _parameters, _rest = found.get("content-type", "").partition(";")
    return "" if kind == CONTENT_TYPE or kind.startswith(CONTENT_TYPE + "+") else "415"


def answer_headers() -> List[Header]:
    """Return the first headers of an answer."""
    return [(":status", "200"), ("content-type", CONTENT_TYPE)]


def trailers(status: Status) -> List[Header]:
    """Return the trailers of an answer. A message that is too long for clients is cut."""
    found = [("grpc-status", str(status.code))]
    if status.message:
        text = encode_message(status.message)
        if len(text) > _LONGEST_MESSAGE:
            # Not in the middle of an escape, and with a sign that something is missing.
            text = re.sub("%[0-9A-F]?$", "", text[:_LONGEST_MESSAGE]) + "..."
        found.append(("grpc-message", text))
    return found


def check_answer(headers: Sequence[Header]) -> Optional[Status]:
    """Check the first headers of an answer. Return a status if they say that the call failed without gRPC.

    Raises GrpcError if they are not those of an HTTP answer.
    """
    found = dict(headers)
    status = found.get(":status", "")
    if not re.fullmatch("[1-5][0-9][0-9]", status):
        raise GrpcError("an answer has no HTTP status")
    kind = found.get("content-type", "")
    if status == "200" and kind.startswith(CONTENT_TYPE):
        return None
    if "grpc-status" in found and kind.startswith(CONTENT_TYPE):
        return read_status(headers)
    return Status(UNKNOWN, f"the server answers with HTTP status {status} and content type {kind!r}: this is not gRPC")


def read_status(trailers: Sequence[Header]) -> Status:
    """Return the status in the trailers of an answer. Raises GrpcError if they have none."""
    found = dict(trailers)
    code = found.get("grpc-status", "")
    if not re.fullmatch("[0-9]{1,9}", code):
        raise GrpcError("an answer ends without a status of gRPC")
    return Status(int(code), decode_message(found.get("grpc-message", "")))


def encode_message(text: str) -> str:
    """Return the value of the header ``grpc-message``: all bytes are escaped but printable ASCII without ``%``."""
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in text.encode())


def decode_message(value: str) -> str:
    """The inverse of ``encode_message``. What is not an escape stays, and bytes that are not UTF-8 are replaced."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), value.encode()).decode(errors="replace")


def error_of(status: Status) -> SnapshotterError:
    """Return the error for a status that is not OK. Its message is the sentence of the server."""
    kind = _CLASSES.get(status.code, Internal)
    message = status.message or f"the server gives no reason (status {status.code} of gRPC)"
    return kind(message, grpc_status=status.code)


def status_of(error: SnapshotterError) -> Status:
    """Return the status for an error: the inverse of ``error_of``, as far as containerd tells classes apart."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), UNKNOWN)
    return Status(code, error.message)
