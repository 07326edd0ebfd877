# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Byte streams with deadlines: their interface, and Unix sockets.

A deadline is a time of ``time.monotonic()``. Windows named pipes are in ``win32/namedpipe``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from typing import Protocol

from ..errors import FailedPrecondition, InvalidArgument, SnapshotterError, Unavailable

#: Bytes that one ``receive`` returns at most.
PIECE = 1 << 16

#: Bytes that a transport keeps that arrived while it was sending. HTTP/2 allows less (http2.WINDOW, and a few frames).
MAX_ARRIVED = 4 << 20


class NotListening(Unavailable):
    """No server listens at the address: containerd does not run, or the address is wrong."""


class DeadlineReached(Exception):
    """The deadline came before the bytes. After a ``send``, the transport has to be closed."""


class ConnectionLost(Exception):
    """The connection ended. ``accepted``: whether the peer can have got bytes of the ``send`` that failed."""

    def __init__(self, reason: str, accepted: bool = True) -> None:
        super().__init__(reason)
        self.accepted = accepted


class Transport(Protocol):
    """A connection that carries bytes in both directions. It belongs to one thread."""

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``, and keep for ``receive`` what arrives in the meantime: the peer may be sending, too.

        Raises DeadlineReached, ConnectionLost.
        """

    def receive(self, deadline: float) -> bytes:
        """Return the bytes that arrived, or the first ones that arrive before the deadline; ``b""`` at the end.

        With a deadline in the past, it does not wait. Raises DeadlineReached, ConnectionLost.
        """

    def close(self) -> None:
        """Close the connection. A second call does nothing."""


class UnixSocket:
    """A connection to a Unix socket.

    Raises NotListening, FailedPrecondition (no permission; not a socket), InvalidArgument (a path that is too long),
    Unavailable (the server does not accept before the deadline).
    """

    def __init__(self, path: str, deadline: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._arrived = bytearray()
        self._is_ended = False
        self._socket.setblocking(False)
        try:
            while True:
                try:
                    self._socket.connect(path)
                    return
                except BlockingIOError:
                    # The server has many connections to accept. There is no event for that.
                    if time.monotonic() >= deadline:
                        raise
                time.sleep(0.01)
        except OSError as error:
            self._socket.close()
            raise _connect_error(error, path) from None

    def send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            try:
                sent += self._socket.send(view[sent:])
                continue
            except BlockingIOError:
                pass
            except OSError as error:
                raise ConnectionLost(_reason(error), accepted=sent > 0) from None
            events = self._wait(select.POLLOUT | (0 if self._is_ended else select.POLLIN), deadline)
            if events & select.POLLIN:
                piece = self._read()
                self._is_ended = not piece
                self._arrived += piece
                if len(self._arrived) > MAX_ARRIVED:
                    raise ConnectionLost(f"the peer sends more than {MAX_ARRIVED} bytes and reads nothing")

    def receive(self, deadline: float) -> bytes:
        if self._arrived:
            piece = bytes(self._arrived[:PIECE])
            del self._arrived[:PIECE]
            return piece
        while not self._is_ended:
            try:
                return self._read()
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
        return b""

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> bytes:
        try:
            return self._socket.recv(PIECE)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ConnectionLost(_reason(error)) from None

    def _wait(self, events: int, deadline: float) -> int:
        """Wait for one of these events. Return those that happened."""
        poll = select.poll()
        poll.register(self._socket, events)
        found = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not found:
            raise DeadlineReached
        return found[0][1]


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _can_be_served(path: str) -> bool:
    """Return False for what no server listens on. One look decides: a server that starts replaces an old socket."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _connect_error(error: OSError, path: str) -> SnapshotterError:
    if isinstance(error, FileNotFoundError):
        return NotListening(
            f"containerd does not run, or it has another address: there is no socket {path}; start containerd, or "
            "correct the address",
            address=path,
        )
    if isinstance(error, PermissionError):
        return FailedPrecondition(f"no permission to connect to {path}; run the task as root", address=path)
    if isinstance(error, BlockingIOError):
        return Unavailable(
            f"the process that listens on {path} does not accept connections; see whether containerd hangs, and run "
            "the task again",
            address=path,
        )
    if error.errno is None or error.errno == errno.ENAMETOOLONG:
        return InvalidArgument(f"cannot connect to {path}: {error}; use a shorter path", address=path)
    if _can_be_served(path):
        return NotListening(
            f"containerd does not run: no process listens on {path} ({_reason(error)}); start containerd, or correct "
            "the address",
            address=path,
        )
    return FailedPrecondition(f"{path} is not a socket; correct the address of containerd", address=path)
