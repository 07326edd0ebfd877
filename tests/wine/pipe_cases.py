# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by test_win32.py in Windows: calls of gRPC over a named pipe without buffers, as those of go-winio.

The server here writes its settings before it reads, and waits until each write has ended: until the client has read it.
"""

from __future__ import annotations

import _winapi
import ctypes
import itertools
import os
import threading
import time

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.channel import Channel
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import (
    ConnectionLost,
    DeadlineReached,
    NotListening,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import kernel32, namedpipe
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32.errors import ERROR_NO_DATA
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.rpc import memory

METHOD = "/test.v1.Service/Method"
NUMBERS = itertools.count()

# winbase.h
PIPE_REJECT_REMOTE_CLIENTS = 8
UNLIMITED = 255
DUPLEX = _winapi.PIPE_ACCESS_DUPLEX | _winapi.FILE_FLAG_OVERLAPPED


def name():
    return rf"\\.\pipe\wcow-{os.getpid()}-{next(NUMBERS)}"


def soon(seconds=60.0):
    return time.monotonic() + seconds


class Instance:
    """One instance of a pipe, on the side of the server. A read or a write returns when it has ended."""

    def __init__(self, path, instances=UNLIMITED):
        self.handle = _winapi.CreateNamedPipe(path, DUPLEX, PIPE_REJECT_REMOTE_CLIENTS, instances, 0, 0, 0, 0)

    def accept(self):
        """Wait for a client. On a busy machine it can have come and gone before: ``read`` then returns ``b""``."""
        try:
            self._wait(_winapi.ConnectNamedPipe(self.handle, overlapped=True))
        except BrokenPipeError as error:
            if error.winerror != ERROR_NO_DATA:
                raise

    def read(self, size=4096):
        """Return the next bytes, ``b""`` at the end."""
        try:
            reading, _error = _winapi.ReadFile(self.handle, size, overlapped=True)
            self._wait(reading)
        except OSError:
            return b""
        return bytes(reading.getbuffer())

    def write(self, data):
        writing, _error = _winapi.WriteFile(self.handle, data, overlapped=True)
        self._wait(writing)

    def close(self):
        _winapi.CloseHandle(self.handle)

    @staticmethod
    def _wait(operation):
        # Not an endless wait: a test that fails must end. A busy machine needs seconds to start a thread.
        if _winapi.WaitForMultipleObjects([operation.event], False, 60000) == _winapi.WAIT_TIMEOUT:
            operation.cancel()
            raise TimeoutError("the client neither reads nor writes")
        operation.GetOverlappedResult(True)


@pytest.fixture
def serve():
    """Run ``work(instance)`` in a thread, on the first client of a new pipe. Return the path of the pipe."""
    threads, failures = [], []

    def start(work, path=""):
        path = path or name()
        instance = Instance(path)

        def run():
            try:
                instance.accept()
                work(instance)
            except Exception as error:  # noqa: BLE001 - each one fails the test
                failures.append(error)
            finally:
                instance.close()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(90)
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def grpc_server(handle):
    """A server of gRPC that writes before it reads."""

    def work(instance):
        server = memory.Server(handle)
        while True:
            if server.data:
                data = bytes(server.data)
                server.data.clear()
                instance.write(data)
            received = instance.read()
            if not received:
                return
            server.send(received, 0)

    return work


def join(server, stream, request):
    if request.is_ended:
        server.answer(stream, b"+".join(request.messages))


def opened(path):
    return Channel(lambda deadline: namedpipe.NamedPipe(path, deadline), "the server")


def test_a_write_ends_when_the_peer_has_read_it(serve):
    """This shows that the stand-in has no buffers: a client that only writes waits forever."""
    released = threading.Event()

    def work(instance):
        released.wait(60)
        assert instance.read(4) == b"data"

    path = serve(work)
    plain = _winapi.CreateFile(
        path, _winapi.GENERIC_READ | _winapi.GENERIC_WRITE, 0, 0, 3, _winapi.FILE_FLAG_OVERLAPPED, 0
    )
    writing, _error = _winapi.WriteFile(plain, b"data", overlapped=True)
    assert _winapi.WaitForMultipleObjects([writing.event], False, 500) == _winapi.WAIT_TIMEOUT
    released.set()
    assert _winapi.WaitForMultipleObjects([writing.event], False, 60000) == 0
    _winapi.CloseHandle(plain)


def test_calls(serve):
    channel = opened(serve(grpc_server(join)))
    for size in (0, 1, 100, 70000):
        assert channel.unary(METHOD, b"x" * size) == b"x" * size
    channel.close()


def test_both_ends_write_at_the_same_time(serve):
    """The client sends 3 MiB. The server answers each piece, and does not read while its answer waits."""

    def echo(server, stream, request):
        if len(request.messages) == 1 and not hasattr(request, "has_started"):
            request.has_started = True
            server.start(stream)
        while request.messages:
            server.message(stream, request.messages.pop(0))
        if request.is_ended:
            server.finish(stream)

    channel = opened(serve(grpc_server(echo)))
    with channel.stream(METHOD) as call:
        for _ in range(12):
            call.send(b"y" * (1 << 18))
        call.end()
        received = 0
        while True:
            message = call.receive()
            if message is None:
                break
            received += len(message)
    assert received == 12 << 18
    channel.close()


def test_raw_writes_of_both_ends_cross(serve):
    """Without HTTP/2: each end writes 1 MiB before it reads."""

    def work(instance):
        instance.write(b"s" * (1 << 20))
        received = 0
        while received < 1 << 20:
            received += len(instance.read(1 << 16))

    pipe = namedpipe.NamedPipe(serve(work), soon())
    pipe.send(b"c" * (1 << 20), soon())
    received = 0
    while received < 1 << 20:
        received += len(pipe.receive(soon()))
    assert pipe.receive(soon()) == b""
    pipe.close()
    pipe.close()


def test_deadlines(serve):
    released = threading.Event()

    def work(instance):
        released.wait(60)

    pipe = namedpipe.NamedPipe(serve(work), soon())
    for call in (lambda: pipe.receive(soon(0.2)), lambda: pipe.receive(0.0), lambda: pipe.send(b"x", soon(0.2))):
        start = time.monotonic()
        with pytest.raises(DeadlineReached):
            call()
        assert time.monotonic() - start < 30
    released.set()
    pipe.close()


def test_a_server_that_closes(serve):
    def work(instance):
        instance.read()
        instance.write(b"last")

    path = serve(work)
    pipe = namedpipe.NamedPipe(path, soon())
    pipe.send(b"x", soon())
    assert pipe.receive(soon()) == b"last"
    assert pipe.receive(soon()) == b""
    assert pipe.receive(soon()) == b""
    with pytest.raises(ConnectionLost) as caught:
        pipe.send(b"x", soon())
    assert not caught.value.accepted
    pipe.close()


def test_a_server_that_sends_without_end(serve):
    """The client keeps 4 MiB of it while it is writing."""

    def work(instance):
        try:
            for _ in range(200):
                instance.write(b"z" * (1 << 16))
        except OSError:
            return
        raise AssertionError("the client took 13 MB")

    pipe = namedpipe.NamedPipe(serve(work), soon())
    with pytest.raises(ConnectionLost, match="reads nothing"):
        pipe.send(b"x", soon())
    pipe.close()


def test_other_servers(serve):
    def http(instance):
        instance.read()
        instance.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with pytest.raises(errors.FailedPrecondition, match="the server does not speak gRPC .*HTTP/1.1 400"):
        opened(serve(http)).unary(METHOD, b"x")


def test_a_pipe_that_is_busy(serve):
    """The server of containerd has one free instance at a time. A client waits for the next one, until its deadline."""
    path = name()
    only = Instance(path, 1)
    first = namedpipe.NamedPipe(path, soon())
    with pytest.raises(errors.Unavailable, match="is busy: its server does not accept connections"):
        namedpipe.NamedPipe(path, soon(0.3))
    second = []
    waiting = threading.Thread(target=lambda: second.append(namedpipe.NamedPipe(path, soon())))
    waiting.start()
    time.sleep(0.3)
    first.close()
    ctypes.WinDLL("kernel32").DisconnectNamedPipe(ctypes.c_void_p(only.handle))
    only.accept()
    waiting.join(60)
    assert len(second) == 1
    second[0].close()
    only.close()


def test_no_pipe():
    path = name()
    with pytest.raises(NotListening, match="containerd does not run, or it has another address: there is no pipe"):
        namedpipe.NamedPipe(path, soon())
    with pytest.raises(NotListening, match="start the service"):
        connect(path, "k8s.io").call("Version/Version", {})
    with pytest.raises(errors.InvalidArgument, match="is not the name of a pipe"):
        namedpipe.NamedPipe(r"C:\windows", soon())
    with pytest.raises(errors.InvalidArgument, match="on Windows it is a named pipe"):
        connect("/run/containerd/containerd.sock", "k8s.io")


def test_no_permission(monkeypatch):
    def refuse(path, *_arguments, **_options):
        raise namedpipe.call_error("CreateFile", namedpipe.ERROR_ACCESS_DENIED, path)

    monkeypatch.setattr(kernel32, "create_file", refuse)
    with pytest.raises(errors.FailedPrecondition, match="run the task as an elevated administrator"):
        namedpipe.NamedPipe(name(), soon())


def test_the_server_cannot_take_on_the_identity_of_the_client(serve, monkeypatch):
    """Wine does not refuse it, so this looks at the flags of CreateFile."""
    flags = []
    original = kernel32.create_file
    monkeypatch.setattr(
        kernel32,
        "create_file",
        lambda path, access, **rest: flags.append(rest["flags"]) or original(path, access, **rest),
    )
    namedpipe.NamedPipe(serve(lambda _instance: None), soon()).close()
    assert flags == [0x40000000 | 0x00100000]


def test_every_prototype_has_its_export():
    assert namedpipe.DLL.missing() == []


def test_an_object_that_is_dropped_ends_its_read(serve):
    """Windows writes into the buffer of a pending read, so the buffer must not be freed before."""
    gone = threading.Event()

    def work(instance):
        assert instance.read() == b""
        gone.set()

    pipe = namedpipe.NamedPipe(serve(work), soon())
    del pipe
    assert gone.wait(60)
