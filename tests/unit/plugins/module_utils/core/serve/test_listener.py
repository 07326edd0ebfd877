# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the connections of the proxy snapshotter: with our client, with slow and hostile ones, and at the end."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
import time
from typing import Any, Callable, Iterator, List, Optional

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.messages import CHECK, GET_HEALTH
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, http2
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.channel import Channel
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import UnixSocket
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve import listener as under_test
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.listener import (
    Listener,
    Peer,
    Server,
    UnixListener,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.posix

#: Seconds that a busy machine may need for an answer that takes milliseconds.
PATIENCE = 60.0

STAT = "/containerd.services.snapshots.v1.Snapshots/Stat"


class Running:
    """A server in a thread of this process."""

    def __init__(self, address: str, service: Service) -> None:
        self.address = address
        self.service = service
        self.server = Server(UnixListener(address), service)
        self.result: List[bool] = []
        self.thread = threading.Thread(target=lambda: self.result.append(self.server.serve()))
        self.thread.start()

    def stop(self) -> bool:
        """Stop it. Return whether all calls had ended."""
        self.server.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.result[0]

    def client(self) -> Client:
        return Client(connect(self.address, "default"))

    def channel(self) -> Channel:
        return Channel(lambda deadline: UnixSocket(self.address, deadline), "the server")

    @contextlib.contextmanager
    def raw(self, *data: bytes) -> Iterator[socket.socket]:
        """A client that sends bytes, and then what a test wants."""
        with socket.socket(socket.AF_UNIX) as opened:
            opened.settimeout(PATIENCE)
            opened.connect(self.address)
            for piece in data:
                opened.sendall(piece)
            yield opened

    def is_healthy(self) -> bool:
        channel = self.channel()
        started = time.monotonic()
        with contextlib.closing(channel):
            channel.unary(GET_HEALTH.path, b"")
            return time.monotonic() - started < PATIENCE


@pytest.fixture
def running(tmp_path: Any, service: Service) -> Iterator[Running]:
    opened = Running(str(tmp_path / "s"), service)
    yield opened
    if opened.thread.is_alive():
        opened.stop()


def requests(*methods: str, preface: bool = True) -> bytes:
    """Return what a client sends that makes calls."""
    client = http2.Connection(is_client=True)
    if not preface:
        client.bytes_to_send()
    for method in methods:
        client.send_data(client.open_stream(grpc.request_headers(method, 30.0)), grpc.frame(b""), end=True)
    return client.bytes_to_send()


def read_to_end(client: socket.socket) -> bytes:
    found = b""
    while True:
        try:
            piece = client.recv(65536)
        except ConnectionResetError:
            return found
        if not piece:
            return found
        found += piece


# -- sockets ------------------------------------------------------------------------


def test_only_the_owner_can_open_the_socket(running: Running) -> None:
    assert stat.S_IMODE(os.stat(running.address).st_mode) == 0o600
    with running.client() as client:
        client.prepare("wcow", "default/1/a")
        assert client.stat("wcow", "default/1/a").name == "default/1/a"
    assert running.stop()
    assert not os.path.exists(running.address)


def test_one_process_serves_a_socket(running: Running) -> None:
    with pytest.raises(errors.FailedPrecondition, match=f"another process serves {running.address}"):
        UnixListener(running.address)
    running.stop()
    UnixListener(running.address).close()


def test_the_socket_of_a_killed_process_is_replaced(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(path)
    opened = UnixListener(path)
    opened.close()
    opened.close()
    assert not os.path.exists(path)


def test_a_socket_of_another_server_is_not_replaced(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(errors.FailedPrecondition, match="another process serves"):
            UnixListener(path)
        assert os.path.exists(path)


def test_paths_that_cannot_be_sockets(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(errors.FailedPrecondition, match="exists and is not a socket"):
        UnixListener(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(errors.InvalidArgument, match="not an absolute path"):
        UnixListener("s")
    with pytest.raises(errors.InvalidArgument, match="use a shorter path"):
        UnixListener(str(tmp_path / ("x" * 120)))
    with pytest.raises(errors.SnapshotterError, match="cannot listen on"):
        UnixListener(str(tmp_path / "no such directory" / "s"))


# -- calls ----------------------------------------------------------------------------


def test_the_server_speaks_first(running: Running) -> None:
    """A client of containerd gives up a connection that is silent for a second."""
    with running.raw() as client:
        assert client.recv(9)[3] == 4


def test_errors_have_the_status_and_the_sentence(running: Running) -> None:
    with running.client() as client:
        with pytest.raises(errors.NotFound, match="^snapshot does not exist: not found") as caught:
            client.stat("wcow", "x")
        assert caught.value.details["grpc_status"] == 5
        with pytest.raises(errors.InvalidArgument, match="parse error"):
            client.snapshots("wcow", "é==")
    channel = running.channel()
    with pytest.raises(errors.NotImplementedHere, match="unknown method /x/Y"):
        channel.unary("/x/Y", b"")
    channel.close()


def test_many_clients_at_once(running: Running) -> None:
    names = [f"default/{number}/a" for number in range(40)]

    def work(part: List[str]) -> None:
        with running.client() as client:
            for name in part:
                client.prepare("wcow", name)
                client.update_snapshot("wcow", name, {"l": name})

    threads = [threading.Thread(target=work, args=(names[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with running.client() as client:
        assert {info.name: info.labels["l"] for info in client.snapshots("wcow")} == {name: name for name in names}


def test_a_call_whose_client_has_given_up_is_not_run(
    running: Running, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Eight calls run, and the ninth waits. Its client resets it."""
    may_go_on, ran = threading.Event(), []

    def call(_service: Service, path: str, _request: bytes) -> Iterator[bytes]:
        ran.append(path)
        assert may_go_on.wait(PATIENCE)
        yield b""

    monkeypatch.setattr(Service, "call", call)
    monkeypatch.setattr(Service, "is_quick", lambda *_: False)
    sent = requests(*[f"/x/{number}" for number in range(under_test.MAX_RUNNING + 1)])
    last = 2 * under_test.MAX_RUNNING + 1
    with running.raw(sent) as client:
        eventually(lambda: len(ran) == under_test.MAX_RUNNING)
        client.sendall(struct.pack(">IBI", 4 << 8 | 3, 0, last) + struct.pack(">I", 8))
        client.sendall(struct.pack(">IBI", 8 << 8 | 6, 0, 0) + bytes(8))
        # The answer to PING shows that the reset has arrived.
        while b"\x06\x01\x00\x00\x00\x00" not in client.recv(65536):
            pass
        may_go_on.set()
        eventually(lambda: not running.server._connections[0]._calls)
    assert f"/x/{under_test.MAX_RUNNING}" not in ran


def test_a_deadline_that_has_passed(running: Running) -> None:
    client = http2.Connection(is_client=True)
    stream = client.open_stream([*grpc.request_headers(STAT, 1.0)[:-1], ("grpc-timeout", "0n")])
    client.send_data(stream, grpc.frame(b""), end=True)
    with running.raw(client.bytes_to_send()) as opened:
        found: List[Any] = []
        while not any(isinstance(event, http2.HeadersReceived) and event.ended for event in found):
            found += client.receive(opened.recv(65536))
    assert grpc.read_status(found[-1].headers).code == grpc.DEADLINE_EXCEEDED


# -- slow and hostile clients -------------------------------------------------------------


def test_a_client_that_reads_nothing_stops_only_itself(
    running: Running, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    monkeypatch.setattr(under_test, "SEND_TIME", 0.5)
    monkeypatch.setattr(under_test, "MAX_UNSENT", 10_000)
    with running.client() as client:
        for number in range(120):
            client.prepare("wcow", f"default/{number}/a", labels={"l": "x" * 3000})
    window = struct.pack(">IBI", 4 << 8 | 8, 0, 0) + struct.pack(">I", 1 << 30)
    lists = requests(*["/containerd.services.snapshots.v1.Snapshots/List"] * 40)
    with running.raw(lists, window) as opened:
        assert opened.recv(9)
        slow = running.server._connections[-1]
        assert running.is_healthy()
        with running.client() as client:
            assert len(client.snapshots("wcow")) == 120
        # The connection ends, and keeps nothing.
        eventually(lambda: not slow.is_alive)
        assert read_to_end(opened)
    assert running.is_healthy()


def test_a_flood_of_pings_waits_for_its_client(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server reads no more while its answers wait."""
    monkeypatch.setattr(under_test, "MAX_UNSENT", 10_000)
    ping = struct.pack(">IBI", 8 << 8 | 6, 0, 0) + bytes(8)
    with running.raw(requests()) as client:
        client.settimeout(1.0)
        with pytest.raises(socket.timeout):
            for _number in range(2000):
                client.sendall(ping * 1000)
        assert running.is_healthy()


def test_a_client_that_resets_its_calls_at_once(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls that still run count, not only the streams."""
    may_go_on = threading.Event()

    def call(_service: Service, path: str, _request: bytes) -> Iterator[bytes]:
        assert may_go_on.wait(PATIENCE)
        yield b""

    with monkeypatch.context() as patch:
        patch.setattr(Service, "call", call)
        client = http2.Connection(is_client=True)
        sent = client.bytes_to_send()
        for _number in range(3 * http2.MAX_STREAMS):
            stream = client.open_stream(grpc.request_headers("/x/Y", 30.0))
            client.send_data(stream, grpc.frame(b""), end=True)
            client.reset_stream(stream)
            sent += client.bytes_to_send()
        with running.raw(sent) as opened:
            threading.Timer(1.0, may_go_on.set).start()
            assert read_to_end(opened)
    assert running.is_healthy()


def test_a_client_that_sends_no_settings_is_closed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.server.REQUEST_TIME", 0.1)
    with running.raw(http2.PREFACE[:5]) as client:
        read_to_end(client)
    with running.raw() as client:
        read_to_end(client)


def test_too_many_connections_end_the_one_that_is_idle_for_longest(running: Running) -> None:
    with contextlib.ExitStack() as opened:
        clients = []
        for _number in range(under_test.MAX_CONNECTIONS + 1):
            client = opened.enter_context(running.raw(requests()))
            client.recv(9)
            clients.append(client)
        read_to_end(clients[0])
        assert running.is_healthy()
        clients[-1].sendall(requests(CHECK.path, preface=False))
        assert clients[-1].recv(65536)


def test_clients_without_calls_do_not_end_the_connection_of_one_with_calls(running: Running) -> None:
    """A flood of connections does not make containerd connect again and again."""
    with contextlib.ExitStack() as opened:
        first = opened.enter_context(running.raw(requests(CHECK.path)))
        while b"grpc-status" not in first.recv(65536):
            pass
        for _number in range(2 * under_test.MAX_CONNECTIONS):
            opened.enter_context(running.raw(requests())).recv(9)
        ping = struct.pack(">IBI", 8 << 8 | 6, 0, 0) + bytes(8)
        first.sendall(ping)
        assert first.recv(65536)[3] == 6


def test_a_connection_in_use_does_not_end_for_another_client(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of connections with calls, the one ends that has been idle for longest. If none is idle, a client is refused."""
    monkeypatch.setattr(under_test, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(under_test, "_IDLE_TIME", PATIENCE)
    with running.client() as first, running.client() as second:
        for client in (first, second):
            client.prepare("wcow", "default/1/a")
            client.remove_snapshot("wcow", "default/1/a")
        with running.raw() as refused:
            assert read_to_end(refused) == b""
        assert "refused a connection: all 2 are in use" in caplog.text
        monkeypatch.setattr(under_test, "_IDLE_TIME", 0.0)
        connections = list(running.server._connections)
        assert running.is_healthy()
        assert [each.is_alive for each in connections] == [False, True]


def test_a_client_that_takes_no_answers_ends_for_another_client(
    running: Running, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    monkeypatch.setattr(under_test, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(under_test, "MAX_UNSENT", 1000)
    with running.client() as client:
        client.prepare("wcow", "default/1/a", labels={"l": "x" * 1000})
    closed = struct.pack(">IBIHI", 6 << 8 | 4, 0, 0, 4, 0)
    lists = requests(*["/containerd.services.snapshots.v1.Snapshots/List"] * 2, preface=False)
    eventually(lambda: not any(each.is_alive for each in running.server._connections))
    with running.raw(requests(), closed, lists) as opened:
        assert opened.recv(9)
        (connection,) = running.server._connections
        eventually(lambda: connection._behind_since is not None)
        with running.raw() as refused:
            assert read_to_end(refused) == b""
        monkeypatch.setattr(under_test, "_BEHIND_TIME", 0.0)
        assert running.is_healthy()
        assert not connection.is_alive
        read_to_end(opened)


def test_lists_of_one_client_are_read_one_after_the_other(
    running: Running, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """A client that takes no answers must not make us keep a list for each of its calls."""
    monkeypatch.setattr(under_test, "MAX_BACKLOG", 1000)
    with running.client() as client:
        client.prepare("wcow", "default/1/a", labels={"l": "x" * 1000})
    walks: List[int] = []
    walk = Snapshotter.walk

    def count(*arguments: Any) -> Any:
        walks.append(1)
        return walk(*arguments)

    monkeypatch.setattr(Snapshotter, "walk", count)
    closed = struct.pack(">IBIHI", 6 << 8 | 4, 0, 0, 4, 0)
    lists = requests(*["/containerd.services.snapshots.v1.Snapshots/List"] * 4, preface=False)
    with running.raw(requests(), closed, lists) as opened:
        assert opened.recv(9)
        connection = running.server._connections[-1]
        # The first one has left its answer to the connection. The second one waits for the client, the others for it.
        eventually(lambda: len(walks) == 2 and connection._calls == 3)
        assert running.is_healthy()
        opened.close()
        eventually(lambda: not connection.is_alive)
    assert len(walks) == 2


def test_a_client_that_takes_no_answers_keeps_few_of_them(
    running: Running, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Its windows stay closed. All answers together have a limit, not only each of them."""
    monkeypatch.setattr(under_test, "SEND_TIME", 0.2)
    monkeypatch.setattr(under_test, "MAX_BACKLOG", 20_000)
    monkeypatch.setattr(under_test, "MAX_UNSENT", 15_000)
    with running.client() as client:
        for number in range(20):
            client.prepare("wcow", f"default/{number}/a", labels={"l": "x" * 500})
    closed = struct.pack(">IBIHI", 6 << 8 | 4, 0, 0, 4, 0)
    lists = requests(*["/containerd.services.snapshots.v1.Snapshots/List"] * 30, preface=False)
    with running.raw(requests(), closed, lists) as opened:
        # Its settings say that the connection is accepted, so it is the last one.
        assert opened.recv(9)
        connection = running.server._connections[-1]
        eventually(lambda: connection._has_called and not connection._calls)
        assert 10_000 < connection._session.total_backlog < 20_000 + under_test.MAX_RUNNING * 15_000
        assert running.is_healthy()
        opened.sendall(closed)


def test_requests_that_wait_have_a_limit(
    running: Running, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Eight large ones run, and the client sends no more than a few others before they have ended."""
    may_go_on = threading.Event()

    def call(_service: Service, path: str, _request: bytes) -> Iterator[bytes]:
        assert path == CHECK.path or may_go_on.wait(PATIENCE)
        yield b""

    monkeypatch.setattr(Service, "call", call)
    monkeypatch.setattr(Service, "is_quick", lambda _service, path: path == CHECK.path)
    client = http2.Connection(is_client=True)
    client.receive(struct.pack(">IBI", 4, 0, 0))
    with running.raw(client.bytes_to_send()) as opened:
        opened.settimeout(0.5)
        sent = 0
        with contextlib.suppress(socket.timeout):
            for number in range(1, 199, 2):
                start = client.open_stream(grpc.request_headers("/x/Y", 60.0))
                assert start == number
                opened.sendall(client.bytes_to_send())
                body = grpc.frame(bytes(1_000_000))
                for at in range(0, len(body), 16384):
                    piece = body[at : at + 16384]
                    ends = at + 16384 >= len(body)
                    opened.sendall(struct.pack(">IBI", len(piece) << 8, int(ends), number) + piece)
                sent += 1
        connection = running.server._connections[-1]
        assert sent < 99
        assert connection._kept <= under_test.MAX_UNFINISHED + 2 * 1_000_000
        channel = running.channel()
        channel.unary(CHECK.path, b"")
        channel.close()
        may_go_on.set()
        eventually(lambda: not connection._kept)


def test_a_preface_that_arrives_byte_by_byte_is_given_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.server.REQUEST_TIME", 0.2)
    with running.raw() as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for byte in http2.PREFACE + bytes(1000):
            client.sendall(bytes([byte]))
            time.sleep(0.05)
    assert running.is_healthy()


class Failing:
    """A listener that cannot accept its first clients, for example because a named pipe has no more instances."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._failures: List[Exception] = [errors.Internal("CreateNamedPipe: too many"), OSError(24, "too many files")]

    def accept(self, wait: float) -> Optional[Peer]:
        if self._failures:
            raise self._failures.pop()
        return self._listener.accept(wait)

    def close(self) -> None:
        self._listener.close()


def test_a_listener_that_fails_for_some_time(
    tmp_path: Any,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    monkeypatch.setattr(under_test, "_TICK", 0.01)
    opened = Running(str(tmp_path / "s"), service)
    failing = Failing(opened.server._listener)
    opened.server._listener = failing
    eventually(lambda: not failing._failures)
    assert opened.is_healthy()
    assert opened.stop()
    assert "cannot accept a connection: CreateNamedPipe: too many" in caplog.text


def test_no_more_threads(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is closed, and the next one is served."""
    start, failures = threading.Thread.start, ["writer", "reader"]

    def fail(thread: threading.Thread) -> None:
        if failures and thread.name == failures[-1]:
            failures.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(under_test, "_TICK", 0.01)
    monkeypatch.setattr(threading.Thread, "start", fail)
    for _number in range(2):
        with running.raw() as client:
            read_to_end(client)
    assert not failures
    assert running.is_healthy()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        http2.PREFACE + b"\xff" * 100,
        http2.PREFACE + struct.pack(">IBI", 1, 0, 1) + b"\x00" * 20,
        requests(STAT) + struct.pack(">IBI", 60000 << 8 | 1, 4, 3) + bytes(60000),
    ],
)
def test_nonsense_ends_its_own_connection(running: Running, data: bytes) -> None:
    with running.raw(data) as client:
        read_to_end(client)
    assert running.is_healthy()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=8), half=st.booleans())
def test_damaged_requests(running: Running, changes: List[Any], half: bool) -> None:
    data = bytearray(requests(STAT, "/containerd.services.snapshots.v1.Snapshots/List", CHECK.path, "/x/Y"))
    for position, value in changes:
        data[position % len(data)] = value
    with running.raw(bytes(data)) as client:
        if half:
            client.shutdown(socket.SHUT_WR)
            read_to_end(client)
    channel = running.channel()
    channel.unary(CHECK.path, b"")
    channel.close()


# -- the end ------------------------------------------------------------------------------


@pytest.fixture
def may_go_on(monkeypatch: pytest.MonkeyPatch, ran: List[str]) -> threading.Event:
    """Calls wait for this event, and are then answered with ``done``."""
    event = threading.Event()

    def call(_service: Service, path: str, _request: bytes) -> Iterator[bytes]:
        ran.append(path)
        assert event.wait(PATIENCE)
        yield b"done"

    monkeypatch.setattr(Service, "call", call)
    return event


@pytest.fixture
def ran() -> List[str]:
    """The methods of the calls that have begun."""
    return []


def test_a_stop_waits_for_calls_that_run(
    running: Running, may_go_on: threading.Event, ran: List[str], eventually: Callable[[Callable[[], bool]], None]
) -> None:
    answers: List[bytes] = []
    channel = running.channel()
    caller = threading.Thread(target=lambda: answers.append(channel.unary("/x/Y", b"")))
    caller.start()
    eventually(lambda: bool(ran))
    running.server.stop()
    eventually(lambda: not os.path.exists(running.address))
    assert running.thread.is_alive()
    may_go_on.set()
    caller.join()
    assert answers == [b"done"]
    assert running.stop()
    channel.close()


def test_a_stop_does_not_wait_for_a_call_that_hangs(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    may_go_on: threading.Event,
    ran: List[str],
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    monkeypatch.setattr(under_test, "DRAIN_TIME", 0.2)
    with running.raw(requests("/x/Y")):
        eventually(lambda: bool(ran))
        assert not running.stop()
    may_go_on.set()


def test_a_call_whose_client_has_gone_counts(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    may_go_on: threading.Event,
    ran: List[str],
    eventually: Callable[[Callable[[], bool]], None],
) -> None:
    """The stop waits for it, and it is a connection: so a client cannot start calls without end by leaving them."""
    monkeypatch.setattr(under_test, "DRAIN_TIME", 0.2)
    with running.raw(requests("/x/Y")):
        eventually(lambda: bool(ran))
    connection = running.server._connections[-1]
    eventually(lambda: not connection._writer.is_alive())
    with running.raw() as client:
        assert client.recv(9)
    assert connection in running.server._connections
    assert not running.stop()
    may_go_on.set()


def test_a_stop_lets_a_request_arrive_that_has_begun(
    running: Running, may_go_on: threading.Event, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    may_go_on.set()
    sent = requests("/x/Y")
    with running.raw(sent[:-3]) as client:
        eventually(lambda: any(each._session.has_unfinished for each in running.server._connections))
        running.server.stop()
        eventually(lambda: not os.path.exists(running.address))
        client.sendall(sent[-3:])
        answer = read_to_end(client)
    # It is told to use another connection for its next calls.
    assert b"done" in answer.partition(struct.pack(">BBI", 7, 0, 0))[2]
    assert running.stop()


def test_a_stop_does_not_wait_long_for_a_request_that_does_not_arrive(running: Running) -> None:
    with running.raw(requests("/x/Y")[:-3]) as client:
        client.recv(9)
        started = time.monotonic()
        assert running.stop()
        assert time.monotonic() - started < under_test.DRAIN_TIME


def test_a_store_that_is_removed_while_it_is_served(running: Running, root: str) -> None:
    with running.client() as client:
        assert client.snapshots("wcow", "name") == []
        client.prepare("wcow", "default/1/a")
        opened = open_store(root, "emulated", lambda _layer_id: None)
        opened.remove("default/1/a")
        opened.store.retire()
        opened.close()
        with pytest.raises(errors.SnapshotterError):
            client.prepare("wcow", "default/2/a")
    assert running.is_healthy()
