# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connections of the proxy snapshotter: a Unix socket, and for each client two threads and its calls.

A client has its own threads for reading, writing and calls, and its own limits. So one that is slow, sends nonsense or
stops reading waits for itself. If there are too many connections, one ends for the next client: one that has made no
calls, or that does not take its answers, or that has been idle for longest. If all are in use, the next client is
refused; clients of gRPC connect again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import List, Optional, Protocol, Tuple

from ..errors import FailedPrecondition, InvalidArgument, SnapshotterError
from ..files import os_error
from ..lock import FileLock
from ..rpc import grpc
from ..rpc.grpc import Status
from ..rpc.http2 import MAX_STREAMS, ProtocolError
from ..rpc.server import MAX_UNFINISHED, Request, Session
from ..rpc.transport import PIECE, ConnectionLost, DeadlineReached
from .service import Service

#: Connections at once. containerd needs one, and a check of the health one for a moment. Hostile clients can use the
#: limits of one connection as many times.
MAX_CONNECTIONS = 16

#: Calls of one connection that run at once. The others wait.
MAX_RUNNING = 8

#: Bytes that wait for a client before its calls, and the reading of its requests, wait too.
MAX_UNSENT = 1 << 18

#: Bytes of answers that wait until a client opens its windows, before its calls wait, too.
MAX_BACKLOG = 1 << 20

#: Seconds that a client may take no bytes that wait for it.
SEND_TIME = 30.0

#: Seconds that running calls and removals have when the service stops.
DRAIN_TIME = 30.0

# Seconds between two looks at requests that take too long.
_TICK = 1.0

# Seconds after which a stop is noticed.
_STOP_TICK = 0.2

# Seconds that requests which have begun to arrive have when the service stops.
_ARRIVAL_TIME = 1.0

# Seconds that the last bytes to a client may take.
_LAST_SEND_TIME = 1.0

# Seconds for which a connection with calls has been idle, or its client has not taken all its bytes, before it may end
# for another client. containerd makes its calls in turn, and takes the longest list in less time.
_IDLE_TIME = 1.0
_BEHIND_TIME = 5.0

# Seconds in which the threads of such a connection have to end.
_EVICTION_TIME = 1.0

_BACKLOG = 64

# Bytes of an answer that are sent before its end. Less than that goes together with what follows.
_TOGETHER = 1 << 13

_log = logging.getLogger(__name__)


class Peer(Protocol):
    """A client's connection. One thread may send while another one receives; ``rpc.transport`` has the errors."""

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``. Raises DeadlineReached, ConnectionLost."""

    def send_now(self, data: bytes) -> int:
        """Send what the client takes without waiting. Return how many bytes that are. Raises ConnectionLost."""

    def receive(self, deadline: float) -> bytes:
        """Return the bytes that arrive first, ``b""`` at the end. Raises DeadlineReached, ConnectionLost."""

    def end(self) -> None:
        """End the connection. Threads that wait in ``send`` or ``receive`` return. A second call does nothing."""

    def close(self) -> None:
        """Release what the object holds. No thread may use it any more."""


class Listener(Protocol):
    """Where clients connect."""

    def accept(self, wait: float) -> Optional[Peer]:
        """Return the next connection, None if there is none within ``wait`` seconds.

        Raises OSError, SnapshotterError. A later call can succeed.
        """

    def close(self) -> None:
        """Accept no more connections. A second call does nothing."""


class SocketPeer:
    """A connection of a Unix socket."""

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._socket.setblocking(False)

    def send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                raise ConnectionLost(error.strerror or str(error)) from None

    def send_now(self, data: bytes) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(error.strerror or str(error)) from None

    def receive(self, deadline: float) -> bytes:
        while True:
            try:
                return self._socket.recv(PIECE)
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
            except OSError as error:
                raise ConnectionLost(error.strerror or str(error)) from None

    def end(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The client has ended it.
            pass

    def close(self) -> None:
        self._socket.close()

    def _wait(self, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise DeadlineReached


class UnixListener:
    """A Unix socket that only its owner can open (mode 0600), and that one process at a time serves.

    Raises FailedPrecondition (another process serves it; the path is something else; no permission),
    InvalidArgument (not an absolute path; too long).
    """

    def __init__(self, path: str) -> None:
        if not os.path.isabs(path):
            raise InvalidArgument(f"{path!r} is not an absolute path; name the socket by one", address=path)
        self._path = path
        self._lock = FileLock(path + ".lock")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._identity = (0, 0)
        try:
            self._bind()
        except OSError as error:
            self._socket.close()
            self._lock.release()
            if error.errno is None:
                raise InvalidArgument(f"cannot listen on {path}: {error}; use a shorter path", address=path) from None
            raise os_error(error, f"cannot listen on {path}") from error
        except BaseException:
            self._socket.close()
            self._lock.release()
            raise

    def _bind(self) -> None:
        if not self._lock.acquire():
            raise self._is_served()
        if os.path.lexists(self._path):
            self._remove_old()
        self._socket.bind(self._path)
        # Nothing can connect before the call of listen.
        os.chmod(self._path, 0o600)
        status = os.lstat(self._path)
        self._identity = (status.st_dev, status.st_ino)
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)

    def _remove_old(self) -> None:
        """Remove the socket of an ended process. Raises FailedPrecondition if it is anything else."""
        # To connect to a file is refused as well.
        if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
            raise FailedPrecondition(
                f"{self._path} exists and is not a socket; name another address, or remove it", address=self._path
            )
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(self._path)
        except ConnectionRefusedError:
            os.unlink(self._path)
        else:
            raise self._is_served()
        finally:
            probe.close()

    def _is_served(self) -> FailedPrecondition:
        return FailedPrecondition(
            f"another process serves {self._path}; stop it first, or name another address", address=self._path
        )

    def accept(self, wait: float) -> Optional[Peer]:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(wait * 1000):
            return None
        try:
            return SocketPeer(self._socket.accept()[0])
        except (BlockingIOError, ConnectionError):
            # The client has gone.
            return None

    def close(self) -> None:
        if self._socket.fileno() == -1:
            return
        self._socket.close()
        try:
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self._path)
        except OSError as error:
            _log.warning("cannot remove %s: %s", self._path, error.strerror)
        self._lock.release()


class _Connection:
    """One client: a thread that reads, one that writes, and a pool for its calls.

    The thread that has something for the client sends it at once, as far as the client takes it. The writing thread
    sends the rest: to wake it up costs more than a small call.
    """

    def __init__(self, peer: Peer, service: Service) -> None:
        self._peer = peer
        self._service = service
        self._session = Session(time.monotonic())
        # Guards the session and the fields below, and tells of changes that calls and the reading thread wait for.
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        # Tells the writing thread that there is something to do.
        self._work = threading.Condition(lock)
        # What the session has given out and the client has not got, and whether a thread is sending.
        self._rest = b""
        self._is_sending = False
        self._calls = 0
        # Bytes of the requests of these calls.
        self._kept = 0
        self._has_called = False
        self._is_ending = False
        self._idle_since = time.monotonic()
        # Since when there has always been something that the client has not taken, None if there is nothing.
        self._behind_since: Optional[float] = None
        self._pool = ThreadPoolExecutor(MAX_RUNNING, "call")
        # Held by a call with a long answer. Each keeps all that it has read until the client takes it.
        self._long = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)

    def start(self) -> None:
        """Send our settings at once, because containerd gives up a server that is silent for a second, and serve.

        Raises RuntimeError if no thread can start; the connection is closed then.
        """
        try:
            self._peer.send(self._session.bytes_to_send(), time.monotonic() + _LAST_SEND_TIME)
        except (ConnectionLost, DeadlineReached):
            self._is_ending = True
        try:
            self._reader.start()
            self._writer.start()
        except RuntimeError:
            # The process has as many threads as it may have.
            self.end()
            self._peer.end()
            if self._reader.ident is not None:
                self._reader.join()
            self._peer.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether a thread uses the connection, also one of a call whose client has gone."""
        return self._calls > 0 or self._reader.is_alive() or self._writer.is_alive()

    def dispensability(self) -> Optional[Tuple[int, float]]:
        """Return how well the service can do without the connection, None if it cannot.

        A connection whose client makes no calls comes before one whose client does not take its answers, and that one
        before an idle one. Of the same kind, the one comes first that has been like this for longest.
        """
        with self._changed:
            now = time.monotonic()
            idle = now - self._idle_since
            behind = 0.0 if self._behind_since is None else now - self._behind_since
            if self._is_ending:
                return None
            if not self._calls and not self._has_called:
                return 2, idle
            if behind >= _BEHIND_TIME:
                return 1, behind
            return (0, idle) if not self._calls and idle >= _IDLE_TIME else None

    def go_away(self) -> None:
        """Accept no more calls on this connection."""
        with self._changed:
            self._session.go_away()
            self._work.notify()

    def drain(self, arrival: float, deadline: float) -> bool:
        """Wait until all calls have ended and the client has their answers. Return False if some run too long.

        The client knows which calls the service has accepted, and does not repeat them. So their requests have time to
        arrive completely, until ``arrival``.
        """

        def is_done() -> bool:
            is_arriving = self._session.has_unfinished and time.monotonic() < arrival
            return not self._calls and (self._is_ending or not (self._waits_for_client() or is_arriving))

        with self._changed:
            self._changed.wait_for(is_done, max(0.0, deadline - time.monotonic()))
            return not self._calls

    def evict(self) -> bool:
        """End the connection without waiting for its client. Return False if its threads do not end in time."""
        with self._changed:
            self._session.go_away()
        self._push()
        with self._changed:
            # As long as this is not set, the writing thread does not close the peer.
            if not self._is_ending:
                self._peer.end()
        self.end()
        self.join(_EVICTION_TIME)
        return not self.is_alive

    def end(self) -> None:
        """Send what is left, and end the connection. Calls that run go on to their end."""
        with self._changed:
            self._is_ending = True
            self._changed.notify_all()
            self._work.notify()

    def join(self, wait: float) -> None:
        """Wait for the threads of the connection."""
        deadline = time.monotonic() + wait
        for thread in (self._writer, self._reader):
            thread.join(max(0.0, deadline - time.monotonic()))

    # -- the reading thread -------------------------------------------------------

    def _read(self) -> None:
        try:
            while self._read_once():
                pass
        except (ConnectionLost, ProtocolError) as error:
            _log.info("a connection ended: %s", error)
        except Exception:  # noqa: BLE001 - other connections have to go on
            _log.exception("a connection ended by a defect of the service")
        finally:
            self.end()
            self._pool.shutdown(wait=False)

    def _read_once(self) -> bool:
        """Wait for bytes of the client, and start the calls in them. Return False at the end."""
        with self._changed:
            # Calls that wait keep their requests. Further ones wait at the client.
            self._changed.wait_for(lambda: self._is_ending or self._kept < MAX_UNFINISHED)
            # A client that does not read can make us answer PING and SETTINGS without end.
            has_room = self._changed.wait_for(
                lambda: self._is_ending or self._session.unsent < MAX_UNSENT, timeout=2 * SEND_TIME
            )
            if self._is_ending or not has_room:
                return False
        try:
            data = self._peer.receive(time.monotonic() + _TICK)
        except DeadlineReached:
            with self._changed:
                is_silent = self._session.expire(time.monotonic())
            self._push()
            return not is_silent
        if not data:
            return False
        try:
            with self._changed:
                requests = self._session.receive(data, time.monotonic())
                is_silent = self._session.expire(time.monotonic())
                if self._calls:
                    # The client may have made room for a call, or given it up.
                    self._changed.notify_all()
        finally:
            self._push()
        return not is_silent and all(self._begin(request) for request in requests)

    def _begin(self, request: Request) -> bool:
        """Start a call. Return False if the client has more calls than streams: it resets what it has asked for."""
        with self._changed:
            if self._calls >= MAX_STREAMS:
                return False
            self._calls += 1
            self._kept += len(request.message)
            self._has_called = True
        if self._service.is_quick(request.method):
            self._run(request)
        else:
            self._pool.submit(self._run, request)
        return True

    # -- calls --------------------------------------------------------------------

    def _run(self, request: Request) -> None:
        status = Status(grpc.OK, "")
        try:
            with self._long if self._service.is_long(request.method) else contextlib.nullcontext():
                if self._is_wanted(request.stream):
                    status = self._answer(request)
        except Exception as error:  # noqa: BLE001 - a defect of the service, too, must become an answer
            _log.exception("a call ended by a defect of the service")
            status = Status(grpc.UNKNOWN, f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                self._session.finish(request.stream, status)
                self._calls -= 1
                self._kept -= len(request.message)
                self._idle_since = time.monotonic()
            self._push()

    def _answer(self, request: Request) -> Status:
        with self._changed:
            self._session.start(request.stream)
        if request.deadline is not None and time.monotonic() >= request.deadline:
            return Status(grpc.DEADLINE_EXCEEDED, "context deadline exceeded")
        try:
            for message in self._service.call(request.method, request.message):
                if not self._send(request.stream, message):
                    break
        except SnapshotterError as error:
            return grpc.status_of(error)
        return Status(grpc.OK, "")

    def _is_wanted(self, stream: int) -> bool:
        with self._changed:
            return not self._is_ending and self._session.is_waiting_for(stream)

    def _send(self, stream: int, message: bytes) -> bool:
        """Send a message when the client has taken the ones before. Return False if the client does not want it."""

        def has_room() -> bool:
            session = self._session
            # One answer that the client does not take leaves room for the others.
            is_full = session.backlog(stream) >= MAX_UNSENT or session.total_backlog >= MAX_BACKLOG
            return not is_full and session.unsent < MAX_UNSENT

        def is_over() -> bool:
            return self._is_ending or not self._session.is_waiting_for(stream)

        with self._changed:
            self._changed.wait_for(lambda: is_over() or has_room(), timeout=SEND_TIME)
            if is_over():
                return False
            if not has_room():
                self._session.abandon(stream)
                self._work.notify()
                return False
            self._session.send(stream, message)
            is_large = self._session.unsent >= _TOGETHER
        if is_large:
            self._push()
        return True

    def _push(self) -> None:
        """Send what there is, as far as the client takes it at once. The writing thread sends the rest."""
        data = b""
        with self._changed:
            if self._is_sending or self._rest or self._is_ending:
                self._work.notify()
            else:
                data = self._session.bytes_to_send()
                self._is_sending = bool(data)
        sent = 0
        try:
            sent = self._peer.send_now(data) if data else 0
        except ConnectionLost:
            # The writing thread finds out, too, and ends the connection.
            pass
        finally:
            with self._changed:
                if data:
                    self._is_sending = False
                    self._rest = data[sent:]
                    if self._rest or self._session.unsent or self._is_ending:
                        self._work.notify()
                self._note_what_waits()
                self._changed.notify_all()

    def _note_what_waits(self) -> None:
        """Remember since when the client has not taken everything. The caller has the lock."""
        if not self._waits_for_client():
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = time.monotonic()

    def _waits_for_client(self) -> bool:
        return bool(self._rest or self._is_sending or self._session.unsent or self._session.total_backlog)

    # -- the writing thread ---------------------------------------------------------

    def _write(self) -> None:
        try:
            while True:
                with self._changed:
                    self._work.wait_for(self._has_work)
                    data = self._rest + self._session.bytes_to_send()
                    self._rest = b""
                    self._is_sending = True
                    seconds = _LAST_SEND_TIME if self._is_ending else SEND_TIME
                    self._changed.notify_all()
                if not data:
                    break
                for start in range(0, len(data), PIECE):
                    self._peer.send(data[start : start + PIECE], time.monotonic() + seconds)
                with self._changed:
                    self._is_sending = False
                    self._note_what_waits()
                    self._changed.notify_all()
        except (ConnectionLost, DeadlineReached):
            _log.info("a connection ended: the client takes no bytes")
        except Exception:  # noqa: BLE001 - other connections have to go on
            _log.exception("a connection ended by a defect of the service")
        finally:
            self.end()
            self._peer.end()
            self._reader.join()
            self._peer.close()

    def _has_work(self) -> bool:
        """Return True if the writing thread has something to send, or to end. Only one thread sends at a time."""
        return not self._is_sending and (self._is_ending or bool(self._rest) or self._session.unsent > 0)


class Server:
    """Serves a service to the clients of a listener until it is told to stop."""

    def __init__(self, listener: Listener, service: Service) -> None:
        self._listener = listener
        self._service = service
        self._connections: List[_Connection] = []
        self._is_stopping = threading.Event()

    def stop(self) -> None:
        """Make ``serve`` return soon. A signal handler may call this."""
        self._is_stopping.set()

    def serve(self) -> bool:
        """Accept connections until ``stop``. Then wait for running calls and removals, for at most ``DRAIN_TIME``.

        Return False if calls still run: then the process has to end without waiting for its threads.
        """
        try:
            while not self._is_stopping.is_set():
                try:
                    peer = self._listener.accept(_STOP_TICK)
                    if peer is not None:
                        self._add(peer)
                except (OSError, RuntimeError, SnapshotterError) as error:
                    # For example too many open files or threads. Connections end, and it works again.
                    _log.error("cannot accept a connection: %s", error)
                    self._is_stopping.wait(_TICK)
                self._service.close_idle()
        finally:
            is_done = self._drain()
        return is_done

    def _add(self, peer: Peer) -> None:
        if not self._make_room():
            _log.warning(
                "refused a connection: all %d are in use; containerd needs one: end the process that opens the others",
                MAX_CONNECTIONS,
            )
            peer.end()
            peer.close()
            return
        connection = _Connection(peer, self._service)
        self._connections.append(connection)
        connection.start()

    def _make_room(self) -> bool:
        """End a connection if there are as many as there may be. Return False if all are in use.

        A connection that is ending has threads and memory, so it counts until they are gone.
        """
        self._connections = [each for each in self._connections if each.is_alive]
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        ranks = [(each.dispensability(), each) for each in self._connections]
        ranked = [(rank, each) for rank, each in ranks if rank is not None]
        return bool(ranked) and max(ranked, key=lambda pair: pair[0])[1].evict()

    def _drain(self) -> bool:
        now = time.monotonic()
        arrival, deadline = now + _ARRIVAL_TIME, now + DRAIN_TIME
        self._service.begin_stop()
        self._listener.close()
        for connection in self._connections:
            connection.go_away()
        running = [connection for connection in self._connections if not connection.drain(arrival, deadline)]
        if running:
            _log.warning("a call still runs at the end of the service; the next start finishes or undoes its work")
        for connection in self._connections:
            connection.end()
        for connection in self._connections:
            connection.join(2 * _LAST_SEND_TIME)
        self._service.stop(deadline)
        return not running
