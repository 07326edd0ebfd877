# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve the API of a simulated containerd on a unix socket, with gRPC."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError

from . import messages
from .calls import Call
from .simulation import Simulation

#: The default of containerd's max_recv_message_size.
_MAX_MESSAGE = 16 << 20

#: Calls that are answered at the same time. A stream of Content.Write is one of them.
_WORKERS = 32

#: Seconds that calls have to end when the server stops.
_GRACE = 1.0

_CODES = {
    "not_found": grpc.StatusCode.NOT_FOUND,
    "already_exists": grpc.StatusCode.ALREADY_EXISTS,
    "failed_precondition": grpc.StatusCode.FAILED_PRECONDITION,
    "invalid_argument": grpc.StatusCode.INVALID_ARGUMENT,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "not_implemented": grpc.StatusCode.UNIMPLEMENTED,
    "out_of_range": grpc.StatusCode.OUT_OF_RANGE,
}


class Server:
    """Serves until ``stop``."""

    def __init__(self, simulation: Simulation, socket: Path) -> None:
        """Listen on ``socket``, which other users cannot open."""
        self._socket = socket
        self._simulation = simulation
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        options = [("grpc.max_receive_message_length", _MAX_MESSAGE), ("grpc.max_send_message_length", _MAX_MESSAGE)]
        self._server = grpc.server(futures.ThreadPoolExecutor(_WORKERS), options=options)
        implementations = simulation.services()
        services = messages.services()
        for name, methods in services.items():
            handlers = {
                method.name: _handler(method, getattr(implementations[name], _snake_case(method.name)), simulation)
                for method in methods
            }
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
        self._server.add_generic_rpc_handlers([_Unknown(set(services))])
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()
        simulation.collector.start()

    def stop(self) -> None:
        """Stop listening, end all calls and the collector, and close the databases."""
        self._socket.unlink(missing_ok=True)
        self._server.stop(_GRACE).wait()
        self._simulation.collector.stop()
        self._simulation.store.close()


class _Unknown(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Refuses what no other handler knows, with the sentences of Go's gRPC."""

    def __init__(self, services: set[str]) -> None:
        self._services = services

    def service(self, handler_call_details: Any) -> Any:
        service, _slash, method = handler_call_details.method.removeprefix("/").rpartition("/")
        sentence = f"unknown method {method} for service {service}"
        if service not in self._services:
            sentence = f"unknown service {service}"

        def refuse(_requests: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, sentence)

        return grpc.stream_unary_rpc_method_handler(refuse)


def _snake_case(name: str) -> str:
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _handler(method: messages.Method, function: Callable[..., Any], simulation: Simulation) -> Any:
    """Return the handler of a call. ``function`` gets the request or an iterator of requests, and the Call."""
    lock = simulation.store.lock

    def unary(request: Any, context: Any) -> Any:
        with lock:
            try:
                return function(request, _call(context))
            except SnapshotterError as error:
                context.abort(*_status(error))

    def stream(request: Any, context: Any) -> Iterator[Any]:
        # Write takes the lock itself, because it waits for the client between two messages.
        held = threading.RLock() if method.request_stream else lock
        answers = function(request, _call(context))
        while True:
            with held:
                try:
                    answer = next(answers, None)
                except SnapshotterError as error:
                    context.abort(*_status(error))
            if answer is None:
                return
            yield answer

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.request_stream, method.response_stream]
    return make(
        stream if method.response_stream else unary,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )


def _call(context: Any) -> Call:
    headers = dict(context.invocation_metadata())
    return Call(headers.get("containerd-namespace", ""), headers.get("containerd-lease", ""))


def _status(error: SnapshotterError) -> tuple[grpc.StatusCode, str]:
    return _CODES.get(error.code, grpc.StatusCode.UNKNOWN), error.message
