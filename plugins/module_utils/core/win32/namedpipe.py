# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Named pipes: a connection to the server of ``\\.\pipe\<name>``, as an ``rpc.transport.Transport``.

The pipes of go-winio, and so those of containerd, have no buffers: a write ends when the peer has read it. A peer of
HTTP/2 writes before it reads, and so do we. Therefore a read is always pending here, also during a write.

A server can take on the identity of a client (ImpersonateNamedPipeClient), unless the client forbids it. Any user can
make a pipe whose name is free. So these connections are anonymous to the server, as those of go-winio's own clients.
"""

from __future__ import annotations

import ctypes
import math
import time
from typing import Any, Tuple

from ..errors import FailedPrecondition, InvalidArgument, SnapshotterError, Unavailable
from ..rpc.transport import MAX_ARRIVED, PIECE, ConnectionLost, DeadlineReached, NotListening
from . import kernel32
from .errors import (
    ERROR_ACCESS_DENIED,
    ERROR_BROKEN_PIPE,
    ERROR_FILE_NOT_FOUND,
    ERROR_IO_INCOMPLETE,
    ERROR_IO_PENDING,
    ERROR_NO_DATA,
    ERROR_PIPE_BUSY,
    ERROR_PIPE_CONNECTED,
    ERROR_PIPE_NOT_CONNECTED,
    Win32Error,
    call_error,
    message,
)
from .kernel32 import Handle, Overlapped
from .library import BOOL, DWORD, HANDLE, LPCWSTR, PVOID, Library, last_error

FILE_FLAG_OVERLAPPED = 0x40000000
SECURITY_SQOS_PRESENT = 0x00100000
SECURITY_ANONYMOUS = 0
WAIT_TIMEOUT = 258

# The longest wait in milliseconds that is not endless.
_LONGEST_WAIT = 0xFFFFFFFE

# Seconds between two tries while the server has no free instance: that is how go-winio waits.
_BUSY_PAUSE = 0.01

#: Codes that say that the peer has closed the pipe.
CLOSED = (ERROR_BROKEN_PIPE, ERROR_NO_DATA, ERROR_PIPE_NOT_CONNECTED)


DLL = Library(
    "kernel32.dll",
    "Windows Server 2016 or newer",
    {
        "CancelIoEx": (BOOL, HANDLE, PVOID),
        "ConnectNamedPipe": (BOOL, HANDLE, PVOID),
        "CreateEventW": (HANDLE, PVOID, BOOL, BOOL, LPCWSTR),
        "GetOverlappedResult": (BOOL, HANDLE, PVOID, ctypes.POINTER(DWORD), BOOL),
        "ReadFile": (BOOL, HANDLE, PVOID, DWORD, PVOID, PVOID),
        "WaitForMultipleObjects": (DWORD, DWORD, PVOID, BOOL, DWORD),
        "WriteFile": (BOOL, HANDLE, PVOID, DWORD, PVOID, PVOID),
    },
)


class NamedPipe:
    """A connection to a pipe. While the server has no free instance, this waits until the deadline.

    Raises NotListening (no pipe has this name), FailedPrecondition (no
    permission), Unavailable (no free instance), InvalidArgument (not the name
    of a pipe), Win32Error.
    """

    def __init__(self, path: str, deadline: float) -> None:
        self._pipe = _open(path, deadline)
        self._arrived = bytearray()
        self._is_ended = False
        self._read = Operation(self._pipe)
        self._write = Operation(self._pipe)
        self._buffer = ctypes.create_string_buffer(PIECE)
        self._start_read()

    def send(self, data: bytes, deadline: float) -> None:
        if not data:
            # To go-winio, a write without bytes is the end of the connection.
            return
        # Windows reads these bytes until the operation has ended.
        buffer = (ctypes.c_char * len(data)).from_buffer_copy(data)
        code = self._write.start("WriteFile", buffer)
        if code in CLOSED:
            raise ConnectionLost(message(code), accepted=False)
        try:
            while not self._write.is_done():
                self._wait(deadline, self._write, *([] if self._is_ended else [self._read]))
                if not self._is_ended and self._read.is_done():
                    self._take()
                if len(self._arrived) > MAX_ARRIVED:
                    raise ConnectionLost(f"the peer sends more than {MAX_ARRIVED} bytes and reads nothing")
        finally:
            code, count = self._write.finish()
        if code or count != len(data):
            raise ConnectionLost(message(code) if code else f"the peer took {count} of {len(data)} bytes")

    def receive(self, deadline: float) -> bytes:
        while not self._arrived:
            if self._is_ended:
                return b""
            self._wait(deadline, self._read)
            self._take()
        piece = bytes(self._arrived[:PIECE])
        del self._arrived[:PIECE]
        return piece

    def close(self) -> None:
        # Windows must not write into the buffer after it was freed.
        self._read.finish()
        self._write.finish()
        for handle in (self._read.event, self._write.event, self._pipe):
            handle.close()
        self._is_ended = True

    def __del__(self) -> None:
        if hasattr(self, "_buffer"):
            self.close()

    def _start_read(self) -> None:
        code = self._read.start("ReadFile", self._buffer)
        self._is_ended = code in CLOSED

    def _take(self) -> None:
        """Take what the pending read has got, and start the next one."""
        code, count = self._read.finish()
        if code:
            if code not in CLOSED:
                raise ConnectionLost(message(code))
            self._is_ended = True
            return
        self._arrived += self._buffer.raw[:count]
        self._start_read()

    @staticmethod
    def _wait(deadline: float, *operations: Operation) -> None:
        """Wait until one of these operations has ended. Raises DeadlineReached."""
        events = (HANDLE * len(operations))(*(operation.event_value for operation in operations))
        milliseconds = min(math.ceil(max(0.0, deadline - time.monotonic()) * 1000), _LONGEST_WAIT)
        done = DLL.call("WaitForMultipleObjects", len(operations), events, False, milliseconds)
        if done == WAIT_TIMEOUT:
            raise DeadlineReached
        if done >= len(operations):
            raise call_error("WaitForMultipleObjects", last_error())


class Operation:
    """A read, a write or a wait for a client that Windows does in the background. One at a time.

    ``event`` is signalled when it is done; ``event_value`` is its number.
    """

    def __init__(self, pipe: Handle) -> None:
        self._pipe = pipe
        self._overlapped = Overlapped()
        self._is_pending = False
        self._result = (0, 0)
        # A manual event, which each start resets.
        self.event_value = DLL.call("CreateEventW", None, True, False, None)
        if not self.event_value:
            raise call_error("CreateEvent", last_error(), pipe.path)
        self.event = Handle(self.event_value, pipe.path)
        self._overlapped.hEvent = self.event_value

    def start(self, call: str, buffer: Any) -> int:
        """Start a ReadFile or WriteFile with all of a buffer. Return 0, or a code that says that the pipe is closed."""
        arguments = (self._pipe, buffer, len(buffer), None, ctypes.byref(self._overlapped))
        code = 0 if DLL.call(call, *arguments) else last_error()
        return self._started(call, code)

    def start_connect(self) -> int:
        """Start to wait for a client (ConnectNamedPipe). Return 0, or a code that says that a client came or has gone.

        ``is_done`` is True then at once, without the event.
        """
        code = 0 if DLL.call("ConnectNamedPipe", self._pipe, ctypes.byref(self._overlapped)) else last_error()
        if code == ERROR_PIPE_CONNECTED:
            self._is_pending = False
            return code
        return self._started("ConnectNamedPipe", code)

    def _started(self, call: str, code: int) -> int:
        self._is_pending = code in {0, ERROR_IO_PENDING}
        if not self._is_pending and code not in CLOSED:
            raise call_error(call, code, self._pipe.path)
        return 0 if self._is_pending else code

    def is_done(self) -> bool:
        """Whether Windows has finished the operation."""
        return not self._is_pending or self._fetch_result(wait=False)

    def finish(self) -> Tuple[int, int]:
        """Cancel the operation unless it is done. Return its code (0 for success) and the number of bytes."""
        if not self.is_done():
            DLL.call("CancelIoEx", self._pipe, ctypes.byref(self._overlapped))
            self._fetch_result(wait=True)
        return self._result

    def _fetch_result(self, wait: bool) -> bool:
        count = DWORD()
        arguments = (self._pipe, ctypes.byref(self._overlapped), ctypes.byref(count), wait)
        code = 0 if DLL.call("GetOverlappedResult", *arguments) else last_error()
        if code == ERROR_IO_INCOMPLETE:
            return False
        self._is_pending = False
        self._result = (code, count.value)
        return True


def _open(path: str, deadline: float) -> Handle:
    access = kernel32.GENERIC_READ | kernel32.GENERIC_WRITE
    flags = FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_ANONYMOUS
    if not path.startswith("\\\\.\\pipe\\"):
        raise InvalidArgument(
            f"{path!r} is not the name of a pipe, for example \\\\.\\pipe\\containerd-containerd", path=path
        )
    while True:
        try:
            return kernel32.create_file(path, access, share=0, flags=flags)
        except Win32Error as error:
            if error.winerror == ERROR_PIPE_BUSY and time.monotonic() < deadline:
                time.sleep(_BUSY_PAUSE)
                continue
            raise _open_error(error, path) from None


def _open_error(error: Win32Error, path: str) -> SnapshotterError:
    code = error.winerror
    if code == ERROR_FILE_NOT_FOUND:
        return NotListening(
            f"containerd does not run, or it has another address: there is no pipe {path}; start the service of "
            "containerd, or correct the address",
            address=path,
        )
    if code == ERROR_ACCESS_DENIED:
        return FailedPrecondition(
            f"no permission to connect to {path}; run the task as an elevated administrator. If it does, another "
            "program than containerd has made this pipe: stop that program, and start containerd again",
            address=path,
        )
    if code == ERROR_PIPE_BUSY:
        return Unavailable(
            f"{path} is busy: its server does not accept connections; see whether containerd hangs, and run the task "
            "again",
            address=path,
        )
    return error
