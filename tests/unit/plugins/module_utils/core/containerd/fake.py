# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that answers methods of containerd with given messages, and remembers what it was asked."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Union

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import Connection
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.messages import METHODS
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import protobuf
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.channel import Channel
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.rpc import memory


class Failure(NamedTuple):
    """A status of gRPC that is not OK."""

    code: int
    message: str


Answer = Union[Dict[str, Any], List[Dict[str, Any]], Failure, bytes]


class Asked(NamedTuple):
    """A call that arrived: the method, its message, and the lease in its headers."""

    method: str
    message: Dict[str, Any]
    lease: Optional[str]


class Fake:
    """``answers`` has for each method a message, several ones, a failure, raw bytes, or a function of the request."""

    def __init__(self, answers: Dict[str, Union[Answer, Callable[[Dict[str, Any]], Answer]]]) -> None:
        self.answers = answers
        self.asked: List[Asked] = []
        self._answered: Set[int] = set()
        self._names = {method.path: name for name, method in METHODS.items()}

    def client(self, namespace: str = "k8s.io") -> Client:
        return Client(Connection(Channel(lambda _deadline: memory.Server(self._handle), "containerd at x"), namespace))

    def methods(self) -> List[str]:
        return [asked.method for asked in self.asked]

    def _handle(self, server: memory.Server, stream: int, request: memory.Request) -> None:
        name = self._names[request.headers[":path"]]
        # The answer to a stream comes after its first message.
        if not request.messages or stream in self._answered or not (request.is_ended or name == "Content/Write"):
            return
        self._answered.add(stream)
        assert request.headers["containerd-namespace"] == "k8s.io"
        message = protobuf.decode(METHODS[name].request, request.messages[0])
        self.asked.append(Asked(name, message, request.headers.get("containerd-lease")))
        answer = self.answers.get(name, {})
        if callable(answer):
            answer = answer(message)
        if isinstance(answer, Failure):
            server.answer(stream, code=answer.code, text=answer.message)
        elif isinstance(answer, bytes):
            server.answer(stream, answer)
        else:
            parts = answer if isinstance(answer, list) else [answer]
            server.answer(stream, *[protobuf.encode(METHODS[name].answer, part) for part in parts])
