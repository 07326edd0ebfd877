# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the server's end of gRPC with clients of the libraries h2 and grpcio."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Tuple

import grpc as grpc_library
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import messages
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.messages import CHECK
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, http2, protobuf, server
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.listener import Server, UnixListener
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
from hypothesis import given
from hypothesis import strategies as st

#: Seconds that a busy machine may need.
PATIENCE = 60.0

#: Requests, how many bytes of padding their frames have, and the sizes of the messages that answer them.
CALLS = st.lists(
    st.tuples(st.binary(max_size=300), st.integers(0, 30), st.lists(st.integers(0, 40_000), max_size=3)),
    min_size=1,
    max_size=5,
)
METADATA = st.lists(
    st.tuples(st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12), st.text("abc/%=:", max_size=30)),
    max_size=5,
)


class Client:
    """A client by h2. Its encoder uses Huffman codes and the dynamic table."""

    def __init__(self, window: int) -> None:
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.connection.initiate_connection()
        self.bodies: Dict[int, bytearray] = {}
        self.trailers: Dict[int, Dict[str, str]] = {}

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id] = dict(event.headers)


@given(CALLS, METADATA, st.sampled_from([100, 5000, 65535, 1 << 20]), st.integers(1, 5000))
def test_calls_of_h2(
    calls: List[Tuple[bytes, int, List[int]]], metadata: List[Tuple[str, str]], window: int, piece: int
) -> None:
    """The bytes arrive in pieces of any size, and the client has small windows."""
    client, session = Client(window), server.Session(0.0)
    client.receive(session.bytes_to_send())
    for number, (message, padding, _sizes) in enumerate(calls):
        stream = 2 * number + 1
        client.connection.send_headers(stream, grpc.request_headers(f"/x/{number}", 9.0, metadata))
        client.connection.send_data(stream, grpc.frame(message), end_stream=True, pad_length=padding)
    arrived: List[server.Request] = []
    for _round in range(10_000):
        data = client.connection.data_to_send()
        for start in range(0, len(data), piece):
            for request in session.receive(data[start : start + piece], 0.0):
                arrived.append(request)
                session.start(request.stream)
                for size in calls[request.stream // 2][2]:
                    session.send(request.stream, bytes(size))
                session.finish(request.stream, grpc.Status(0, ""))
            client.receive(session.bytes_to_send())
        if not data:
            break
    assert [(request.method, request.message) for request in arrived] == [
        (f"/x/{number}", message) for number, (message, _padding, _sizes) in enumerate(calls)
    ]
    for number, (_message, _padding, sizes) in enumerate(calls):
        expected = b"".join(grpc.frame(bytes(size)) for size in sizes)
        assert bytes(client.bodies.get(2 * number + 1, b"")) == expected
        assert client.trailers[2 * number + 1] == {"grpc-status": "0"}
    assert session.total_backlog == 0


@pytest.fixture
def address(tmp_path: Any) -> Iterator[str]:
    path, root = str(tmp_path / "s"), os.path.join(str(tmp_path), "root")
    running = Server(UnixListener(path), Service(lambda later: open_store(root, "emulated", later)))
    thread = threading.Thread(target=running.serve)
    thread.start()
    yield path
    running.stop()
    thread.join(PATIENCE)


@pytest.fixture
def channel(address: str) -> Iterator[grpc_library.Channel]:
    with grpc_library.insecure_channel(f"unix:{address}") as opened:
        grpc_library.channel_ready_future(opened).result(PATIENCE)
        yield opened


def call(channel: grpc_library.Channel, name: str, **message: Any) -> Dict[str, Any]:
    method = messages.METHODS[f"Snapshots/{name}"]
    answer = channel.unary_unary(method.path)(protobuf.encode(method.request, message), timeout=PATIENCE)
    return protobuf.decode(method.answer, answer)


def test_calls_of_grpcio(channel: grpc_library.Channel) -> None:
    """The library of most languages, with many calls at once on one connection."""
    names = [f"default/{number}/é" for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: call(channel, "Prepare", key=name, labels={"l": "x" * 4000}), names))
    method = messages.METHODS["Snapshots/List"]
    answers = channel.unary_stream(method.path)(b"", timeout=PATIENCE)
    infos = [info for answer in answers for info in protobuf.decode(method.answer, answer)["infos"]]
    assert sorted(info["name"] for info in infos) == sorted(names)
    assert all(info["labels"] == {"l": "x" * 4000} for info in infos)


def test_errors_for_grpcio(channel: grpc_library.Channel) -> None:
    with pytest.raises(grpc_library.RpcError) as caught:
        call(channel, "Prepare", key="default/1/a", parent="é" * 3000)
    assert caught.value.code() is grpc_library.StatusCode.NOT_FOUND
    assert "parent" in caught.value.details()
    with pytest.raises(grpc_library.RpcError) as caught:
        channel.unary_unary("/x/Y")(b"", timeout=PATIENCE)
    assert caught.value.code() is grpc_library.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc_library.RpcError) as caught:
        channel.unary_unary(CHECK.path)(bytes(server.MAX_REQUEST + 1), timeout=PATIENCE)
    assert caught.value.code() is grpc_library.StatusCode.RESOURCE_EXHAUSTED
    # The connection goes on.
    assert protobuf.decode(CHECK.answer, channel.unary_unary(CHECK.path)(b"", timeout=PATIENCE)) == {"status": 1}


def test_a_client_that_compresses(address: str) -> None:
    with grpc_library.insecure_channel(f"unix:{address}", compression=grpc_library.Compression.Gzip) as opened:
        with pytest.raises(grpc_library.RpcError) as caught:
            opened.unary_unary(CHECK.path)(bytes(5000), timeout=PATIENCE)
        assert caught.value.code() is grpc_library.StatusCode.UNIMPLEMENTED


def test_the_limit_of_streams(channel: grpc_library.Channel) -> None:
    """A client that makes more calls than a connection has streams waits by itself."""
    futures = [
        channel.unary_unary(CHECK.path).future(b"", timeout=PATIENCE) for _number in range(3 * http2.MAX_STREAMS)
    ]
    assert {future.result() for future in futures} == {protobuf.encode(CHECK.answer, {"status": 1})}
