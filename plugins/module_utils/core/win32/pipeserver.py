# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The server's side of named pipes: ``serve.listener.Listener`` and ``Peer`` for ``\\.\pipe\<name>``.

Administrators and SYSTEM can open the pipe, and no other account. Windows refuses clients of other hosts. The first
instance proves that the name was free: no other program can have made the pipe, and with its security descriptor no
other account can add instances. Some instances always wait, because a pipe without a waiting instance is busy for
clients, and one without any instance gives its name away.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import time
from typing import List, Optional

from ..errors import FailedPrecondition, SnapshotterError
from ..rpc.transport import PIECE, ConnectionLost, DeadlineReached
from . import advapi32
from .errors import ERROR_ACCESS_DENIED, ERROR_NO_DATA, ERROR_PIPE_CONNECTED, call_error, message
from .kernel32 import Handle
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error
from .namedpipe import CLOSED, FILE_FLAG_OVERLAPPED, WAIT_TIMEOUT, Operation

#: SYSTEM and the administrators have all rights. containerd has the same for its own directories.
SECURITY = "D:P(A;;GA;;;SY)(A;;GA;;;BA)"

# winbase.h
_PIPE_ACCESS_DUPLEX = 3
_FILE_FLAG_FIRST_PIPE_INSTANCE = 0x00080000
_PIPE_REJECT_REMOTE_CLIENTS = 8
_UNLIMITED_INSTANCES = 255
_INVALID_HANDLE = ctypes.c_void_p(-1).value

# Instances that wait for clients. containerd needs one, and one more while it connects again.
_WAITING = 3

# Seconds until the name has to be free: a killed server's pipe lives until its clients notice.
_NAME_TIME = 5.0
_NAME_PAUSE = 0.1


class _SecurityAttributes(ctypes.Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_ = [("nLength", DWORD), ("lpSecurityDescriptor", PVOID), ("bInheritHandle", BOOL)]


DLL = Library(
    "kernel32.dll",
    "Windows Server 2016 or newer",
    {
        "CreateEventW": (HANDLE, PVOID, BOOL, BOOL, LPCWSTR),
        "CreateNamedPipeW": (HANDLE, LPCWSTR, DWORD, DWORD, DWORD, DWORD, DWORD, DWORD, PVOID),
        "SetEvent": (BOOL, HANDLE),
        "WaitForMultipleObjects": (DWORD, DWORD, PVOID, BOOL, DWORD),
    },
)


class PipeListener:
    """The server of a named pipe.

    Raises FailedPrecondition (another program has a pipe of this name, or the account may not make it), Win32Error.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: List[_Instance] = []
        end = time.monotonic() + _NAME_TIME
        while not self._waiting:
            try:
                self._waiting.append(_Instance(path, is_first=True))
            except FailedPrecondition:
                if time.monotonic() >= end:
                    raise
                time.sleep(_NAME_PAUSE)
        self._fill()

    def accept(self, wait: float) -> Optional[PipePeer]:
        """Return the next connection, None if there is none within ``wait`` seconds.

        Raises Win32Error, FailedPrecondition if Windows makes no more instances. A later call can succeed.
        """
        self._fill_if_possible()
        if not any(instance.has_client() for instance in self._waiting):
            _wait([instance.connecting.event_value for instance in self._waiting], wait)
        for instance in self._waiting:
            if instance.has_client():
                self._waiting.remove(instance)
                # Before the client is served, so that the next one finds an instance. If there are no more, this client
                # is served nevertheless, and the next call says what is wrong.
                with contextlib.suppress(SnapshotterError):
                    self._fill_if_possible()
                return instance.take()
        return None

    def close(self) -> None:
        """Accept no more connections. A second call does nothing."""
        while self._waiting:
            self._waiting.pop().close()

    def _fill_if_possible(self) -> None:
        """Make instances. Raises only if none waits: fewer than usual serve their clients, too."""
        try:
            self._fill()
        except SnapshotterError:
            if not self._waiting:
                raise

    def _fill(self) -> None:
        while len(self._waiting) < _WAITING:
            self._waiting.append(_Instance(self._path, is_first=False))


class _Instance:
    """An instance of the pipe that waits for a client."""

    def __init__(self, path: str, *, is_first: bool) -> None:
        descriptor = ctypes.create_string_buffer(advapi32.descriptor_from_sddl(SECURITY))
        attributes = _SecurityAttributes(
            ctypes.sizeof(_SecurityAttributes), ctypes.cast(descriptor, ctypes.c_void_p).value, False
        )
        mode = _PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED | (_FILE_FLAG_FIRST_PIPE_INSTANCE if is_first else 0)
        value = DLL.call(
            "CreateNamedPipeW",
            path,
            mode,
            _PIPE_REJECT_REMOTE_CLIENTS,
            _UNLIMITED_INSTANCES,
            PIECE,
            PIECE,
            0,
            ctypes.addressof(attributes),
        )
        if value in (None, _INVALID_HANDLE):
            code = last_error()
            if code == ERROR_ACCESS_DENIED:
                raise FailedPrecondition(
                    f"cannot make the pipe {path}: another program has a pipe of this name, or the account is not an "
                    "elevated administrator; stop the other program, or name another address",
                    address=path,
                )
            raise call_error("CreateNamedPipe", code, path)
        self._pipe = Handle(value, path)
        self.connecting = Operation(self._pipe)
        self._code = self.connecting.start_connect()

    def has_client(self) -> bool:
        """Whether a client has come. It may have gone again."""
        return self._code in (ERROR_PIPE_CONNECTED, ERROR_NO_DATA) or self.connecting.is_done()

    def take(self) -> Optional[PipePeer]:
        """Return the client, None if it has gone. The instance is used up."""
        code, _count = self.connecting.finish()
        if self._code == ERROR_NO_DATA or code:
            self.close()
            return None
        self.connecting.event.close()
        return PipePeer(self._pipe)

    def close(self) -> None:
        self.connecting.finish()
        self.connecting.event.close()
        self._pipe.close()


class PipePeer:
    """A client's connection. One thread may send while another one receives."""

    def __init__(self, pipe: Handle) -> None:
        self._pipe = pipe
        self._read = Operation(pipe)
        self._write = Operation(pipe)
        self._buffer = ctypes.create_string_buffer(PIECE)
        self._is_reading = False
        self._ended_value = DLL.call("CreateEventW", None, True, False, None)
        if not self._ended_value:
            raise call_error("CreateEvent", last_error(), pipe.path)
        self._ended = Handle(self._ended_value, pipe.path)

    def send(self, data: bytes, deadline: float) -> None:
        if not data:
            # To go-winio, a write without bytes is the end of the connection.
            return
        # Windows reads these bytes until the operation has ended.
        buffer = (ctypes.c_char * len(data)).from_buffer_copy(data)
        code = self._write.start("WriteFile", buffer)
        if code:
            raise ConnectionLost(message(code))
        try:
            self._wait_for(self._write, deadline)
        finally:
            code, count = self._write.finish()
        if code or count != len(data):
            raise ConnectionLost(message(code) if code else f"the client took {count} of {len(data)} bytes")

    def send_now(self, _data: bytes) -> int:
        """See Peer. A write to a pipe is an operation to wait for."""
        return 0

    def receive(self, deadline: float) -> bytes:
        """See Peer. A read stays under way when the deadline comes."""
        if not self._is_reading:
            if self._read.start("ReadFile", self._buffer):
                return b""
            self._is_reading = True
        self._wait_for(self._read, deadline)
        self._is_reading = False
        code, count = self._read.finish()
        if code and code not in CLOSED:
            raise ConnectionLost(message(code))
        return b"" if code else self._buffer.raw[:count]

    def end(self) -> None:
        DLL.call("SetEvent", self._ended)

    def close(self) -> None:
        # Windows must not write into the buffer after it was freed. The client can still read what was sent.
        self._read.finish()
        self._write.finish()
        for handle in (self._read.event, self._write.event, self._ended, self._pipe):
            handle.close()

    def _wait_for(self, operation: Operation, deadline: float) -> None:
        """Wait for an operation. Raises DeadlineReached, and ConnectionLost after ``end``."""
        while not operation.is_done():
            done = _wait([self._ended_value, operation.event_value], deadline - time.monotonic())
            if done is None:
                raise DeadlineReached
            if done == 0:
                raise ConnectionLost("the connection was closed here")


def _wait(events: List[int], seconds: float) -> Optional[int]:
    """Wait for one of these events. Return its position, None if there is none within the time."""
    values = (HANDLE * len(events))(*events)
    milliseconds = math.ceil(max(0.0, seconds) * 1000)
    done = DLL.call("WaitForMultipleObjects", len(events), values, False, milliseconds)
    if done == WAIT_TIMEOUT:
        return None
    if done >= len(events):
        raise call_error("WaitForMultipleObjects", last_error())
    return done
