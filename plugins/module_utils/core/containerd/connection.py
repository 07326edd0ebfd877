# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls containerd's methods by name: ``Snapshots/Stat`` with a dictionary, and a dictionary back."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterator, List, Mapping, Sequence

from ..errors import Internal, InvalidArgument, NotImplementedHere, SnapshotterError
from ..failpoint import failpoint
from ..layers.emulated import drives
from ..rpc import protobuf
from ..rpc.channel import TIMEOUT, Call, Channel, Connect
from ..rpc.hpack import Header
from ..rpc.transport import Transport, UnixSocket
from .messages import METHODS, Method

#: Bytes of all messages of a list: a hundred times the records of a large node.
MAX_LIST = 1 << 30

_PIPE = re.compile(r"(?:npipe:(?://)?)?[\\/]{2}\.[\\/]pipe[\\/](?P<name>[^\\/]+)\Z", re.IGNORECASE)

# What namespaces look like (containerd pkg/identifiers), with at most 76 characters.
_NAMESPACE = re.compile(r"(?=.{1,76}\Z)[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*\Z")


class Connection:
    """A connection to containerd for one namespace. It is made by the first call, and again after it was lost.

    ``lease`` is the id of the lease that gets what the calls create. Every call
    raises as ``rpc.channel.Channel``, and the errors that containerd reports,
    with containerd's message.
    """

    def __init__(self, channel: Channel, namespace: str) -> None:
        check_namespace(namespace)
        self.namespace = namespace
        self.lease = ""
        self._channel = channel

    @property
    def server(self) -> str:
        """The server, as messages name it."""
        return self._channel.server

    def call(self, name: str, message: Mapping[str, Any], timeout: float = TIMEOUT) -> Dict[str, Any]:
        """Call a method that has one message in each direction. ``timeout`` is in seconds."""
        method = METHODS[name]
        request = self.encode(name, message)
        try:
            failpoint("api.call")
            answer = self._channel.unary(method.path, request, timeout=timeout, metadata=self._headers())
            failpoint("api.answered")
            return self._decode(method, answer)
        except SnapshotterError as error:
            raise _with_advice(error, method) from None

    def stream(self, name: str, message: Mapping[str, Any], timeout: float = TIMEOUT) -> Iterator[Dict[str, Any]]:
        """Call a method that answers with several messages."""
        method = METHODS[name]
        request = self.encode(name, message)
        try:
            for answer in self._channel.server_stream(method.path, request, timeout=timeout, metadata=self._headers()):
                yield self._decode(method, answer)
        except SnapshotterError as error:
            raise _with_advice(error, method) from None

    def read_all(self, name: str, message: Mapping[str, Any], field: str) -> List[Dict[str, Any]]:
        """Call a method that answers with a list in several messages: the repeated or single ``field`` of each."""
        method = METHODS[name]
        request = self.encode(name, message)
        found: List[Dict[str, Any]] = []
        size = 0
        try:
            for answer in self._channel.server_stream(method.path, request, metadata=self._headers()):
                size += len(answer)
                if size > MAX_LIST:
                    raise Internal(f"{self.server} answers {name} with more than {MAX_LIST} bytes")
                value = self._decode(method, answer)[field]
                if method.answer[field].repeated:
                    found += value
                elif value is not None:
                    found.append(value)
        except SnapshotterError as error:
            raise _with_advice(error, method) from None
        return found

    def open(self, name: str, timeout: float) -> Call:
        """Start a call with messages in both directions. ``encode`` and ``decode`` convert its messages."""
        return self._channel.stream(METHODS[name].path, timeout=timeout, metadata=self._headers())

    @staticmethod
    def encode(name: str, message: Mapping[str, Any]) -> bytes:
        """Encode a request of a method. Raises InvalidArgument for text that is not valid Unicode."""
        try:
            return protobuf.encode(METHODS[name].request, message)
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"{error.object[:64]!r} is not valid Unicode: {error.reason}") from None

    def decode(self, name: str, data: bytes) -> Dict[str, Any]:
        """Decode an answer of a method. Raises Internal."""
        return self._decode(METHODS[name], data)

    def close(self) -> None:
        """Close the connection. A second call does nothing, and all other operations fail from now on."""
        self._channel.close()

    def _headers(self) -> Sequence[Header]:
        headers = [("containerd-namespace", self.namespace)]
        if self.lease:
            headers.append(("containerd-lease", self.lease))
        return headers

    def _decode(self, method: Method, data: bytes) -> Dict[str, Any]:
        try:
            return protobuf.decode(method.answer, data)
        except protobuf.DecodeError as error:
            raise Internal(f"the answer of {self.server} to {method.path} cannot be decoded: {error}") from None


def connect(address: str, namespace: str) -> Connection:
    r"""Return a connection to the containerd at ``address``: ``\\.\pipe\<name>``, or the path of a Unix socket.

    It is made by the first call. Raises InvalidArgument for an address or a namespace that cannot be right.
    """
    return Connection(Channel(opener(address), f"containerd at {address}"), namespace)


def check_namespace(namespace: str) -> None:
    """Raise InvalidArgument for a name that containerd does not allow for a namespace."""
    if not _NAMESPACE.match(namespace):
        raise InvalidArgument(
            f"{namespace[:80]!r} is not a namespace of containerd: a namespace has up to 76 letters and digits, with "
            "single dots, dashes and underscores between them, for example k8s.io",
            namespace=namespace[:80],
        )


def pipe_path(address: str) -> str:
    """Return the path of the named pipe that an address of containerd stands for, empty for another address."""
    pipe = _PIPE.match(address)
    return "\\\\.\\pipe\\" + pipe["name"] if pipe else ""


def opener(address: str) -> Connect:
    """Return what connects to an address, as ``connect`` has it. Raises InvalidArgument."""
    pipe = _PIPE.match(address)
    if pipe:
        path = "\\\\.\\pipe\\" + pipe["name"]
        socket = drives.pipe_to_native(pipe["name"])
        if socket is not None:
            native = socket
            return lambda deadline: UnixSocket(native, deadline)

        def open_pipe(deadline: float) -> Transport:
            from ..win32.namedpipe import NamedPipe

            return NamedPipe(path, deadline)

        return open_pipe
    path = address.removeprefix("unix://")
    if os.name == "nt" or not path.startswith("/"):
        raise InvalidArgument(
            f"{address!r} is not an address of containerd: on Windows it is a named pipe, for example "
            "\\\\.\\pipe\\containerd-containerd, elsewhere the absolute path of a socket",
            address=address,
        )
    return lambda deadline: UnixSocket(path, deadline)


def _with_advice(error: SnapshotterError, method: Method) -> SnapshotterError:
    """Add what to do to an error that says that containerd does not have a method."""
    if not isinstance(error, NotImplementedHere) or "advice" in error.details:
        return error
    service = method.path.rpartition("/")[0][1:]
    advice = (
        f"This containerd does not offer {service}. See whether its configuration disables a plugin "
        "(disabled_plugins), or whether it is too old"
    )
    return type(error)(error.message, **error.details, advice=advice)
