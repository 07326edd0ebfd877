# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attack the proxy snapshotter with hostile clients, and serve another client meanwhile.

The server runs in a process of its own, so that its memory and threads can be read. During each attack, a good client
calls again and again, and must get its answers in time. containerd gives up a connection that is silent for a second. A
busy machine is slower, so the limit also counts from what the same client needs without an attack.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import select
import socket
import struct
import tempfile
import time

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.messages import METHODS
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, hpack, http2, protobuf
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.listener import MAX_CONNECTIONS, MAX_RUNNING

from . import served

pytestmark = pytest.mark.posix

#: Seconds of each attack, and how many clients attack at once.
ATTACK_TIME = 0.8
ATTACKERS = 2

#: What the server may need more than before an attack: memory in KiB, and threads besides those of its connections.
MEMORY = 96 << 10
THREADS = 10

#: How much longer than without an attack the slowest call may take, and seconds that it may take in any case: an idle
#: machine needs a tenth of that.
SLOWER = 20.0
ALWAYS = 3.0

STAT = "/containerd.services.snapshots.v1.Snapshots/Stat"
LIST = "/containerd.services.snapshots.v1.Snapshots/List"
UNKNOWN = "/x/Y"


# -- what attackers send -----------------------------------------------------------------------------------------------


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


START = http2.Connection(is_client=True).bytes_to_send()
BLOCK = hpack.encode(grpc.request_headers(UNKNOWN, 30.0))
STATS = hpack.encode(grpc.request_headers(STAT, 30.0))
LISTS = hpack.encode(grpc.request_headers(LIST, 30.0))
CLOSED = frame(4, 0, 0, struct.pack(">HI", 4, 0))


def streams():
    """The numbers of the streams of a connection, in order. The last one is far from the end of the numbers."""
    return itertools.count(1, 2)


def each_stream(make, count=200):
    """Many streams, in pieces of ``count``."""
    numbers = streams()
    while True:
        yield b"".join(make(next(numbers)) for _number in range(count))


def forever(data):
    return itertools.repeat(data)


def huffman(size):
    """A header whose value has ``size`` bytes of Huffman codes: each symbol takes five bits."""
    return b"\x00\x01x" + hpack._number(size, 7, 0x80) + bytes([0b00000000]) * (size - 1) + bytes([0b00000111])


def header_bomb(stream):
    """An entry of the table with 4000 bytes, and as many references to it as fit."""
    block = b"\x40\x01x" + hpack._number(4000, 7, 0) + bytes(4000) + b"\xbe" * 12000
    return frame(1, 5, stream, block)


def large_block(stream):
    block = huffman(60_000)
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    last = len(parts) - 1
    return b"".join(
        frame(9 if number else 1, (1 if not number else 0) | (4 if number == last else 0), stream, part)
        for number, part in enumerate(parts)
    )


def call(block, message=b""):
    return lambda stream: frame(1, 4, stream, block) + frame(0, 1, stream, grpc.frame(message))


def reset(stream):
    return frame(3, 0, stream, struct.pack(">I", 8))


def large_message(stream):
    """A request of 3 MiB that cannot be decoded; the windows allow 1 MiB before the server has read it."""
    parts = [frame(0, 0, stream, bytes(16384)) for _number in range(192)]
    return frame(1, 4, stream, BLOCK) + frame(0, 0, stream, struct.pack(">BI", 0, 3 << 20)) + b"".join(parts)


def compressed(stream):
    block = hpack.encode([*grpc.request_headers(UNKNOWN, 30.0), ("grpc-encoding", "gzip")])
    return frame(1, 4, stream, block) + frame(0, 1, stream, b"\x01" + struct.pack(">I", 1 << 30))


LABELS = protobuf.encode(
    METHODS["Snapshots/Prepare"].request, {"key": "k", "labels": {f"l{number}": "x" * 90 for number in range(30_000)}}
)
SETTINGS = frame(4, 0, 0, b"".join(struct.pack(">HI", 4, size) for size in (0, 1 << 20) * 1360))

#: By name: pieces that an attacker sends one after the other, and whether it reads the answers.
ATTACKS = {
    "ping flood": (lambda: forever(frame(6, 0, 0, bytes(8)) * 4000), True),
    "ping flood without reading": (lambda: forever(frame(6, 0, 0, bytes(8)) * 4000), False),
    "settings flood": (lambda: forever(frame(4, 0, 0) * 4000), True),
    "settings flood without reading": (lambda: forever(SETTINGS), False),
    "settings with open streams": (
        lambda: itertools.chain([b"".join(call(LISTS)(number) for number in range(1, 199, 2))], forever(SETTINGS)),
        True,
    ),
    "window update flood": (lambda: forever(frame(8, 0, 0, struct.pack(">I", 1)) * 4000), True),
    "window update overflow": (lambda: forever(frame(8, 0, 0, struct.pack(">I", (1 << 31) - 1))), True),
    "unknown frames": (lambda: forever(frame(0x77, 0xFF, 5, bytes(100)) * 400), True),
    "empty data frames": (
        lambda: itertools.chain([frame(1, 4, 1, BLOCK)], forever(frame(0, 0, 1) * 4000)),
        True,
    ),
    "padding": (
        lambda: itertools.chain([frame(1, 4, 1, BLOCK)], forever(frame(0, 8, 1, b"\xff" + bytes(255)) * 200)),
        True,
    ),
    "header bomb": (lambda: each_stream(header_bomb, 5), True),
    "huffman codes": (lambda: each_stream(large_block, 2), True),
    "sizes of the table": (lambda: each_stream(lambda stream: frame(1, 5, stream, b"\x20" * 16000), 5), True),
    "continuation flood": (
        lambda: itertools.chain([frame(1, 0, 1, BLOCK)], forever(frame(9, 0, 1, b"\x00") * 1000)),
        True,
    ),
    "empty continuation flood": (
        lambda: itertools.chain([frame(1, 0, 1, BLOCK)], forever(frame(9, 0, 1) * 1000)),
        True,
    ),
    "rapid reset": (lambda: each_stream(lambda stream: call(STATS)(stream) + reset(stream)), True),
    "rapid reset without a request": (
        lambda: each_stream(lambda stream: frame(1, 4, stream, STATS) + reset(stream)),
        True,
    ),
    "more streams than allowed": (lambda: each_stream(lambda stream: frame(1, 4, stream, STATS)), True),
    "calls without end": (lambda: each_stream(call(STATS), 50), True),
    "calls without reading": (lambda: itertools.chain([CLOSED], each_stream(call(LISTS), 50)), False),
    "invalid protobuf": (lambda: each_stream(call(STATS, b"\xff" * 50), 50), True),
    "huge labels": (
        lambda: (
            frame(
                1,
                4,
                stream,
                hpack.encode(grpc.request_headers("/containerd.services.snapshots.v1.Snapshots/Prepare", 9.0)),
            )
            + b"".join(
                frame(0, int(at + 16384 > len(LABELS) + 5), stream, grpc.frame(LABELS)[at : at + 16384])
                for at in range(0, len(LABELS) + 5, 16384)
            )
            for stream in range(1, 201, 2)
        ),
        True,
    ),
    "large messages": (lambda: each_stream(large_message, 1), True),
    "compressed messages": (lambda: each_stream(compressed, 50), True),
    "wrong time-outs": (
        lambda: each_stream(lambda stream: frame(1, 4, stream, hpack.encode([(":path", "/"), ("grpc-timeout", "x")]))),
        True,
    ),
    "byte by byte": (lambda: ((time.sleep(0.001), bytes([byte]))[1] for byte in START + call(STATS)(1) * 1000), True),
    "not HTTP/2": (lambda: forever(b"GET / HTTP/1.1\r\n\r\n" * 100), True),
}


class Attacker(multiprocessing.get_context("fork").Process):
    """A client that attacks until a time, and connects again when the server has ended its connection.

    It is a process of its own: the good client is measured, and threads of one process would wait for each other.
    """

    def __init__(self, address, pieces, reads, until):
        super().__init__(daemon=True)
        self._address, self._pieces, self._reads, self._until = address, pieces, reads, until
        self._sent = 0

    def run(self):
        while time.monotonic() < self._until:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as opened:
                opened.connect(self._address)
                opened.setblocking(False)
                self._attack(opened)
        if not self._sent:
            raise AssertionError("the server has taken no bytes")

    def _attack(self, opened):
        for piece in itertools.chain([START], self._pieces()):
            view = memoryview(piece)
            while view:
                if time.monotonic() > self._until:
                    return
                readable, writable, _failed = select.select([opened] if self._reads else [], [opened], [], 0.2)
                if readable and not opened.recv(1 << 16):
                    return
                if writable:
                    count = opened.send(view)
                    view = view[count:]
                    self._sent += count


# -- the server and its good client ------------------------------------------------------------------------------------


class Target:
    def __init__(self, directory, servers):
        self.address = os.path.join(directory, "s")
        self.root = os.path.join(directory, "root")
        self.log = os.path.join(directory, "log")
        self.server = servers.start(self.address, self.root, self.log)
        with self.server.client(self.address) as client:
            for number in range(30):
                client.prepare(served.PLUGIN, f"default/{number}/a", labels={"l": "x" * 2000})
        self.usual = max(self.ask() for _number in range(20))

    def ask(self):
        """Connect and call. Return how long that took."""
        started = time.monotonic()
        with Client(connect(self.address, "default")) as client:
            assert client.stat(served.PLUGIN, "default/7/a").name == "default/7/a"
        return time.monotonic() - started

    def status(self, field):
        with open(f"/proc/{self.server.process}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))

    def settle(self):
        """Wait until all connections have ended, but for the last one of ``ask``."""
        end = time.monotonic() + served.PATIENCE
        while (threads := self.status("Threads")) > 2 + 3:
            assert time.monotonic() < end, f"{threads} threads: those of connections that have ended go on"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def target():
    with served.Servers() as servers, tempfile.TemporaryDirectory() as directory:
        running = Target(directory, servers)
        yield running
        assert running.server.stop() == 0
        with open(running.log, encoding="utf-8") as log:
            assert "defect" not in log.read()


def measure(target, attackers, ask, connections):
    """Run attackers, and call ``ask`` all the time. Check how long that takes, and what the server needs."""
    before = target.status("VmRSS")
    for attacker in attackers:
        attacker.start()
    slowest, memory, threads = 0.0, 0, 0
    while any(attacker.is_alive() for attacker in attackers):
        slowest = max(slowest, ask())
        memory, threads = max(memory, target.status("VmRSS")), max(threads, target.status("Threads"))
        time.sleep(0.01)
    assert [attacker.exitcode for attacker in attackers] == [0] * len(attackers)
    assert memory - before < MEMORY, (memory, before)
    assert threads <= THREADS + (2 + MAX_RUNNING) * connections, threads
    assert slowest < max(ALWAYS, SLOWER * target.usual), (slowest, target.usual)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack(name, target, figures):
    """The good client connects for each call."""
    pieces, reads = ATTACKS[name]
    until = time.monotonic() + ATTACK_TIME
    attackers = [Attacker(target.address, pieces, reads, until) for _number in range(ATTACKERS)]
    measure(target, attackers, target.ask, ATTACKERS + 3)
    target.settle()
    figures(attacks=1)


class Crowd(multiprocessing.get_context("fork").Process):
    """Many connections of one process, which are made again when the server ends them.

    Each sends ``data``, and then reads ``size`` bytes from time to time. With ``half``, it says that it sends no more.
    """

    def __init__(self, address, data, size, half, until):
        super().__init__(daemon=True)
        self._address, self._data, self._size, self._half, self._until = address, data, size, half, until

    def run(self):
        opened = [self._connect() for _number in range(MAX_CONNECTIONS)]
        while time.monotonic() < self._until:
            for number, each in enumerate(opened):
                try:
                    if self._size and not each.recv(self._size):
                        raise ConnectionResetError
                except BlockingIOError:
                    pass
                except OSError:
                    each.close()
                    opened[number] = self._connect()
            time.sleep(0.01)

    def _connect(self):
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(self._address)
        with contextlib.suppress(OSError):
            opened.sendall(self._data)
            if self._half:
                opened.shutdown(socket.SHUT_WR)
        opened.setblocking(False)
        return opened


CROWDS = {
    "silent": (b"", 1, False),
    "half an HTTP/2": (http2.PREFACE[:10], 1, False),
    "idle": (START, 1, False),
    "half a request": (START + call(LISTS)(1)[:-3], 1, False),
    "half-open": (START + call(LISTS)(1), 1, True),
    "slow readers": (START + b"".join(call(LISTS)(stream) for stream in range(1, 21, 2)), 100, False),
    "no readers": (START + b"".join(call(LISTS)(stream) for stream in range(1, 21, 2)), 0, False),
}


@pytest.mark.parametrize("name", CROWDS)
def test_a_crowd(name, target, figures):
    """There are more connections than the server allows. The good client has been there before, as containerd."""
    with Client(connect(target.address, "default")) as client:

        def ask():
            started = time.monotonic()
            assert client.stat(served.PLUGIN, "default/7/a").name == "default/7/a"
            return time.monotonic() - started

        ask()
        until = time.monotonic() + ATTACK_TIME
        crowds = [Crowd(target.address, *CROWDS[name], until) for _number in range(ATTACKERS)]
        measure(target, crowds, ask, MAX_CONNECTIONS + 3)
    # Only now: the pool of an open connection gets one more thread when a call comes before the last one has gone idle.
    target.settle()
    assert target.ask() < max(ALWAYS, SLOWER * target.usual)
    figures(attacks=1)
