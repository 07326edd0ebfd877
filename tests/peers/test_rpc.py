# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare our HTTP/2, HPACK, calls of gRPC and protobuf with the libraries h2, hpack and protobuf."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack as hpack_library
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, hpack, http2, protobuf, transport
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.channel import Channel
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.protobuf import (
    BOOLEAN,
    BYTES,
    INTEGER,
    TEXT,
    TEXT_MAP,
    Field,
)
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

# -- HPACK ---------------------------------------------------------------------

NAMES = st.one_of(
    st.sampled_from([":path", ":status", "content-type", "grpc-status", "grpc-message", "containerd-namespace", "te"]),
    st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20),
)
VALUES = st.one_of(
    st.sampled_from(["200", "/", "trailers", ""]), st.text(max_size=60), st.text("\x00~\\\x7f", max_size=9)
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@given(st.lists(st.tuples(HEADERS, st.booleans(), st.sampled_from([0, 64, 200, 4096])), max_size=6))
def test_blocks_of_a_peer_are_decoded(blocks: List[Tuple[List[hpack.Header], bool, int]]) -> None:
    """The peer uses Huffman codes, and a dynamic table whose size changes."""
    encoder = hpack_library.Encoder()
    decoder = hpack.Decoder()
    for headers, huffman, size in blocks:
        encoder.header_table_size = size
        assert decoder.decode(encoder.encode(headers, huffman=huffman)) == headers


@given(HEADERS)
def test_a_peer_decodes_our_blocks(headers: List[hpack.Header]) -> None:
    assert hpack_library.Decoder().decode(hpack.encode(headers)) == headers


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_damaged_blocks_are_refused_as_by_the_library(first: bytes, second: bytes) -> None:
    """Where the library decodes a block, we decode it to the same list."""
    library, ours = hpack_library.Decoder(), hpack.Decoder()
    for block in (first, second):
        try:
            expected = library.decode(block, raw=True)
        except (hpack_library.HPACKError, IndexError):
            with pytest.raises(hpack.HpackError):
                ours.decode(block)
            return
        try:
            found = ours.decode(block)
        except hpack.HpackError as error:
            refusal = str(error)
        else:
            refusal = ""
        if refusal:
            # The library has no limit for numbers.
            assert "too large" in refusal
            return
        assert found == [(name.decode(errors="replace"), value.decode(errors="replace")) for name, value in expected]


# -- HTTP/2 --------------------------------------------------------------------

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/service/Method"), (":authority", "localhost")]
CALLS = st.lists(st.tuples(st.binary(max_size=90), st.integers(0, 30)), min_size=1, max_size=5)
WINDOWS = st.sampled_from([100, 1000, 65535, 1 << 20])


class Library:
    """An end of a connection by h2, which answers each request with its own body and a trailer."""

    def __init__(self, is_client: bool, window: int) -> None:
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=is_client, header_encoding="utf-8")
        )
        self.connection.local_settings = h2.settings.Settings(
            client=is_client, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.connection.initiate_connection()
        self.waiting: Dict[int, bytearray] = {}
        self.bodies: Dict[int, bytes] = {}
        self.headers: Dict[int, List[Any]] = {}
        self.ended: List[int] = []
        self.is_client = is_client

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, (h2.events.RequestReceived, h2.events.ResponseReceived)):
                self.bodies[event.stream_id] = b""
                self.headers[event.stream_id] = list(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                self.headers[event.stream_id] += event.headers
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.append(event.stream_id)
                if not self.is_client:
                    self.connection.send_headers(event.stream_id, [(":status", "200")])
                    self.waiting[event.stream_id] = bytearray(self.bodies[event.stream_id])
        self.flush()

    def flush(self) -> None:
        for stream, body in list(self.waiting.items()):
            while body:
                size = min(len(body), self.connection.local_flow_control_window(stream), 16384)
                if size <= 0:
                    break
                self.connection.send_data(stream, bytes(body[:size]))
                del body[:size]
            if not body:
                del self.waiting[stream]
                if self.is_client:
                    self.connection.end_stream(stream)
                else:
                    self.connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def bytes_to_send(self) -> bytes:
        return bytes(self.connection.data_to_send())


def deliver(data: bytes, size: int) -> List[bytes]:
    """Cut bytes into pieces, as a socket does."""
    return [data[at : at + size] for at in range(0, len(data), size)]


@settings(max_examples=40)
@given(CALLS, WINDOWS, st.sampled_from([9, 1000, 1 << 20]))
def test_our_client_talks_to_a_server(calls: List[Tuple[bytes, int]], window: int, piece: int) -> None:
    client, server = http2.Connection(is_client=True), Library(False, window)
    client.receive(server.bytes_to_send())
    sent = {}
    for body, repeat in calls:
        stream = client.open_stream([*REQUEST, ("te", "trailers")])
        sent[stream] = body * repeat * repeat
        client.send_data(stream, sent[stream], end=True)
    received: Dict[int, bytes] = dict.fromkeys(sent, b"")
    trailers: Dict[int, List[hpack.Header]] = {}
    for _round in range(20000):
        outgoing, incoming = client.bytes_to_send(), server.bytes_to_send()
        if not outgoing and not incoming:
            break
        for part in deliver(outgoing, piece):
            server.receive(part)
        for part in deliver(incoming, piece):
            for event in client.receive(part):
                if isinstance(event, http2.DataReceived):
                    received[event.stream] += event.data
                elif isinstance(event, http2.HeadersReceived):
                    trailers.setdefault(event.stream, []).extend(event.headers)
                    assert event.ended == (event.headers == [("grpc-status", "0")])
    assert server.bodies == sent
    assert received == sent
    assert trailers == {stream: [(":status", "200"), ("grpc-status", "0")] for stream in sent}
    assert client.open_streams == 0


@settings(max_examples=40)
@given(CALLS, WINDOWS, st.sampled_from([9, 1000, 1 << 20]))
def test_our_server_talks_to_a_client(calls: List[Tuple[bytes, int]], window: int, piece: int) -> None:
    server, client = http2.Connection(is_client=False), Library(True, window)
    client.receive(server.bytes_to_send())
    sent = {}
    for number, (body, repeat) in enumerate(calls):
        stream = 2 * number + 1
        sent[stream] = body * repeat * repeat
        client.connection.send_headers(stream, REQUEST)
        client.waiting[stream] = bytearray(sent[stream])
    client.flush()
    received: Dict[int, bytes] = {}
    for _round in range(20000):
        outgoing, incoming = server.bytes_to_send(), client.bytes_to_send()
        if not outgoing and not incoming:
            break
        for part in deliver(incoming, piece):
            for event in server.receive(part):
                if isinstance(event, http2.HeadersReceived):
                    assert event.headers == REQUEST
                    received[event.stream] = b""
                elif isinstance(event, http2.DataReceived):
                    received[event.stream] += event.data
                    if event.ended:
                        server.send_headers(event.stream, [(":status", "200")])
                        server.send_data(event.stream, received[event.stream])
                        server.send_trailers(event.stream, [("grpc-status", "0")])
        for part in deliver(outgoing, piece):
            client.receive(part)
    assert received == sent
    assert client.bodies == sent
    assert sorted(client.ended) == sorted(sent)
    assert server.open_streams == 0


# -- calls of gRPC -------------------------------------------------------------


class LibraryServer(Library):
    """A server by h2. After the last message, it answers with all messages and the status that the headers ask for."""

    def __init__(self, window: int, piece: int) -> None:
        super().__init__(False, window)
        self.piece = piece
        self.output = bytearray(self.bytes_to_send())

    def flush(self) -> None:
        for stream, body in list(self.waiting.items()):
            while body:
                size = min(len(body), self.connection.local_flow_control_window(stream), 16384)
                if size <= 0:
                    break
                self.connection.send_data(stream, bytes(body[:size]))
                del body[:size]
            if not body:
                del self.waiting[stream]
                headers = dict(self.headers[stream])
                trailers = [("grpc-status", headers["status"]), ("grpc-message", headers["message"])]
                self.connection.send_headers(stream, trailers, end_stream=True)

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.bodies[event.stream_id] = b""
                self.headers[event.stream_id] = list(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                answer = [(":status", "200"), ("content-type", "application/grpc")]
                self.connection.send_headers(event.stream_id, answer)
                self.waiting[event.stream_id] = bytearray(self.bodies[event.stream_id])
        self.flush()


class Pipe:
    """The transport to a ``LibraryServer``."""

    def __init__(self, server: LibraryServer) -> None:
        self.server = server

    def send(self, data: bytes, deadline: float) -> None:
        for part in deliver(data, self.server.piece):
            self.server.receive(part)
        self.server.output += self.server.bytes_to_send()

    def receive(self, deadline: float) -> bytes:
        if not self.server.output:
            raise transport.DeadlineReached
        piece = bytes(self.server.output[: self.server.piece])
        del self.server.output[: self.server.piece]
        return piece

    def close(self) -> None:
        self.server.output.clear()


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.binary(max_size=90), st.integers(0, 30)), max_size=4), st.text(max_size=20)),
        min_size=1,
        max_size=4,
    ),
    WINDOWS,
    st.sampled_from([9, 1000, 1 << 20]),
    st.sampled_from([0, 5, 14]),
)
def test_calls_to_a_server_of_the_library(
    calls: List[Tuple[List[Tuple[bytes, int]], str]], window: int, piece: int, status: int
) -> None:
    server = LibraryServer(window, piece)
    channel = Channel(lambda _deadline: Pipe(server), "the library")
    for messages, text in calls:
        sent = [body * repeat * repeat for body, repeat in messages]
        metadata = [("status", str(status)), ("message", grpc.encode_message(text))]
        received = []
        failure = None
        with channel.stream("/service/Method", metadata=metadata) as call:
            call.send_all(sent)
            try:
                while True:
                    message = call.receive()
                    if message is None:
                        break
                    received.append(message)
            except errors.SnapshotterError as error:
                failure = error
        assert received == sent
        assert type(failure) is {0: type(None), 5: errors.NotFound, 14: errors.Unavailable}[status]
        if failure is not None and text:
            assert failure.message == text


# -- protobuf ------------------------------------------------------------------

TIMESTAMP = {"seconds": Field(1, INTEGER), "nanos": Field(2, INTEGER)}
INFO = {
    "name": Field(1, TEXT),
    "kind": Field(3, INTEGER),
    "created": Field(4, TIMESTAMP),
    "labels": Field(6, TEXT_MAP),
    "data": Field(7, BYTES),
    "sync": Field(8, BOOLEAN),
    "options": Field(15, TEXT, repeated=True),
    "times": Field(1000, TIMESTAMP, repeated=True),
}
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
TIMES = st.fixed_dictionaries({"seconds": NUMBERS, "nanos": NUMBERS})
TEXTS = st.text(max_size=300)
INFOS = st.fixed_dictionaries(
    {
        "name": TEXTS,
        "kind": NUMBERS,
        "created": st.one_of(st.none(), TIMES),
        "labels": st.dictionaries(TEXTS, TEXTS, max_size=5),
        "data": st.binary(max_size=300),
        "sync": st.booleans(),
        "options": st.lists(TEXTS, max_size=5),
        "times": st.lists(TIMES, max_size=5),
    }
)


def library_class() -> Any:
    """Return the class that protobuf makes for INFO."""
    kinds = descriptor_pb2.FieldDescriptorProto
    types = {TEXT: kinds.TYPE_STRING, BYTES: kinds.TYPE_BYTES, INTEGER: kinds.TYPE_INT64, BOOLEAN: kinds.TYPE_BOOL}
    file = descriptor_pb2.FileDescriptorProto(name="info.proto", package="t", syntax="proto3")

    def describe(name: str, schema: protobuf.Schema) -> Any:
        message = file.message_type.add(name=name)
        for field_name, field in schema.items():
            added = message.field.add(name=field_name, number=field.number, label=kinds.LABEL_OPTIONAL)
            if field.repeated or field.type == TEXT_MAP:
                added.label = kinds.LABEL_REPEATED
            if field.type == TEXT_MAP:
                entry = message.nested_type.add(name="LabelsEntry")
                entry.options.map_entry = True
                for number, part in ((1, "key"), (2, "value")):
                    entry.field.add(name=part, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".t.{name}.LabelsEntry"
            elif isinstance(field.type, str):
                added.type = types[field.type]
            else:
                added.type, added.type_name = kinds.TYPE_MESSAGE, ".t.Timestamp"

    describe("Timestamp", TIMESTAMP)
    describe("Info", INFO)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Info"))


Info = library_class()


def plain(message: Any) -> Dict[str, Any]:
    """Return a message of the library as a dictionary."""

    def time(value: Any) -> Dict[str, int]:
        return {"seconds": value.seconds, "nanos": value.nanos}

    return {
        "name": message.name,
        "kind": message.kind,
        "created": time(message.created) if message.HasField("created") else None,
        "labels": dict(message.labels),
        "data": message.data,
        "sync": message.sync,
        "options": list(message.options),
        "times": [time(value) for value in message.times],
    }


@given(INFOS)
def test_messages_are_those_of_the_library(message: Dict[str, Any]) -> None:
    encoded = protobuf.encode(INFO, message)
    parsed = Info.FromString(encoded)
    assert plain(parsed) == message
    assert protobuf.decode(INFO, parsed.SerializeToString()) == message
    assert protobuf.decode(INFO, encoded) == message


@given(
    st.one_of(
        st.binary(max_size=80), st.builds(lambda info, cut: protobuf.encode(INFO, info)[cut:], INFOS, st.integers(0, 9))
    )
)
def test_damaged_messages_are_refused_or_read_as_by_the_library(data: bytes) -> None:
    try:
        found = protobuf.decode(INFO, data)
    except protobuf.DecodeError:
        return
    assert plain(Info.FromString(data)) == found
