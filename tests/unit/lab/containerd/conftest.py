# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Serve simulated containerds, and call them with a gRPC client."""

from __future__ import annotations

import json

import grpc
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door

from lab.containerd import messages, sample
from lab.containerd.node import NodeContainerd
from lab.containerd.server import Server
from lab.containerd.simulation import Simulation


class Client:
    """A client of containerd with a namespace and perhaps a lease: ``client("Leases", "List")`` returns the answer.

    For a stream of answers it returns a list. A request that is a stream is an iterable of requests.
    """

    def __init__(self, socket, namespace=sample.NAMESPACE, lease=""):
        self._socket = socket
        self._headers = [("containerd-namespace", namespace)] if namespace else []
        self._headers += [("containerd-lease", lease)] if lease else []
        # Channels to one address would share connections, and wait after one that failed, also if containerd is back.
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._methods = {
            (service.rpartition(".")[2], method.name): (f"/{service}/{method.name}", method)
            for service, methods in messages.services().items()
            for method in methods
        }

    def __call__(self, service, name, requests=None, /, **fields):
        path, method = self._methods[service, name]
        kind = f"{'stream' if method.request_stream else 'unary'}_{'stream' if method.response_stream else 'unary'}"
        call = getattr(self._channel, kind)(
            path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        request = (method.request(**each) for each in requests) if method.request_stream else method.request(**fields)
        answer = call(request, metadata=self._headers, timeout=30)
        return list(answer) if method.response_stream else answer

    def other(self, **options):
        """Return a client with another namespace or lease."""
        return Client(self._socket, **options)

    def names(self):
        """Return the names of the snapshots."""
        answers = self("Snapshots", "List", snapshotter="windows")
        return [info.name for answer in answers for info in answer.info]

    def prepare(self, key, parent="", **fields):
        return self("Snapshots", "Prepare", snapshotter="windows", key=key, parent=parent, **fields)

    def commit(self, name, key, **fields):
        return self("Snapshots", "Commit", snapshotter="windows", name=name, key=key, **fields)

    def remove(self, key):
        return self("Snapshots", "Remove", snapshotter="windows", key=key)

    def collect(self):
        """Return after a garbage collection."""
        self("Leases", "Create", id="collect")
        self("Leases", "Delete", id="collect", sync=True)

    def close(self):
        self._channel.close()


class Host:
    """A containerd in this process. ``restart`` ends it and starts another one with the same files.

    Unless it is ``automatic``, the collector runs only when a client asks for it.
    """

    def __init__(self, directory, automatic=False):
        self._automatic = automatic
        self.node = NodeContainerd(directory)
        self.clients = []
        self.start()

    def start(self):
        self.simulation = Simulation(self.node.root)
        self.server = Server(self.simulation, self.node.socket)
        if not self._automatic:
            self.simulation.collector.stop()

    def restart(self):
        self.server.stop()
        self.start()
        return self.client()

    def client(self, **options):
        self.clients.append(Client(self.node.socket, **options))
        return self.clients[-1]

    def close(self):
        for client in self.clients:
            client.close()
        self.server.stop()


@pytest.fixture
def directory(tmp_path_factory, monkeypatch):
    """The directory of a node. Its path is short, because it contains a socket."""
    path = tmp_path_factory.mktemp("node")
    monkeypatch.setenv("WCOW_EMULATED_DRIVES", str(path))
    return path


@pytest.fixture
def host(directory):
    host = Host(directory)
    yield host
    host.close()


@pytest.fixture
def automatic(directory):
    """A containerd whose collector runs by itself."""
    host = Host(directory, automatic=True)
    yield host
    host.close()


@pytest.fixture
def connect():
    """Return a function that connects to the containerd at a socket."""
    clients = []

    def connect(socket):
        clients.append(Client(socket))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(host):
    """A client of an empty containerd."""
    return host.client()


@pytest.fixture
def filled(host):
    """A client of a containerd with the sample."""
    sample.fill(host.simulation)
    return host.client()


@pytest.fixture
def base(filled):
    """The name of the base layer."""
    return next(name for name in filled.names() if name.startswith("sha256:"))


@pytest.fixture
def refusal():
    """Return a function that returns the code and the sentence with which a call is refused."""

    def refused(call, /, *arguments, **fields):
        with pytest.raises(grpc.RpcError) as caught:
            call(*arguments, **fields)
        return caught.value.code().name, caught.value.details()

    return refused


@pytest.fixture
def ask_with(filled, monkeypatch, tmp_path):
    """Return a function that performs one operation with an attachment, and returns its entry of the reply."""
    services = tmp_path / "services.json"
    service = {"command_line": r"C:\containerd.exe --run-service", "is_running": True}
    services.write_text(json.dumps({"services": {"containerd": service}}))
    monkeypatch.setenv("WCOW_EMULATED_SERVICES", str(services))
    monkeypatch.setenv("PROGRAMDATA", r"C:\ProgramData")
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def ask_with(attachment, operation, /, check_mode=False, namespace="", **arguments):
        request = {
            "protocol": 1,
            "store": "containerd",
            "namespace": namespace,
            "check_mode": check_mode,
            "operations": [{"operation": operation, "arguments": arguments}],
        }
        reply = door.handle(json.dumps(request).encode(), attachment)
        assert "error" not in reply
        return reply["results"][0]

    return ask_with


@pytest.fixture
def ask(ask_with):
    """Return a function that performs one operation, and returns its entry of the reply."""
    return lambda operation, **arguments: ask_with(None, operation, **arguments)


@pytest.fixture
def done(ask):
    """Return a function that performs one operation, and returns whether it changed something and its result."""

    def done(operation, **arguments):
        entry = ask(operation, **arguments)
        assert entry["ok"], entry["error"]
        return entry["changed"], entry["result"]

    return done


@pytest.fixture
def refused(ask):
    """Return a function that performs one operation that fails, and returns its code and message."""

    def refused(operation, **arguments):
        entry = ask(operation, **arguments)
        assert not entry["ok"], entry
        return entry["error"]["code"], entry["error"]["message"]

    return refused
