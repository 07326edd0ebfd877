# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by test_win32.py in Windows: the proxy snapshotter on a named pipe, with our client and with hostile ones."""

from __future__ import annotations

import _winapi
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import creation
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.http2 import PREFACE
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import NotListening
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.listener import Server
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import Service
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import pipeserver
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32.pipeserver import PipeListener

NUMBERS = itertools.count()
ACCESS = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
CONNECTIONS = 4


@pytest.fixture
def path():
    return rf"\\.\pipe\wcow-serve-{os.getpid()}-{next(NUMBERS)}"


@pytest.fixture(params=["emulated"])
def served(tmp_path, path, request):
    """Serve an empty store on ``path``. The fixture is a function that stops the server and returns its result.

    Its parameter is the layer store.
    """
    root, results = str(tmp_path / "root"), []
    server = Server(PipeListener(path), Service(lambda later: open_store(root, request.param, later)))
    thread = threading.Thread(target=lambda: results.append(server.serve()))
    thread.start()

    def stop():
        server.stop()
        thread.join(60)
        return results

    yield stop
    stop()


def test_calls(served, path):
    with Client(connect(path, "default")) as client:
        client.prepare("wcow", "default/1/a", labels={"l": "x" * 3000})
        client.commit("wcow", "default/2/base", "default/1/a")
        (mount,) = client.view("wcow", "default/3/v", "default/2/base")
        assert mount.options[0] == "ro"
        with pytest.raises(errors.FailedPrecondition, match="cannot remove snapshot with child"):
            client.remove_snapshot("wcow", "default/2/base")
        for number in range(300):
            client.prepare("wcow", f"default/{number}/many", labels={"l": "x" * 2000})
        assert len(client.snapshots("wcow")) == 302
    assert served() == [True]
    with pytest.raises(NotListening), Client(connect(path, "default")) as client:
        client.snapshots("wcow")


@pytest.fixture
def standins(tmp_path, monkeypatch):
    """Templates and a log for the DLLs of the Windows layer store."""
    creation.create(tmp_path / "blank.vhdx", 20 << 30)
    for name in ("WCSTUB_BLANK", "WCSTUB_UVM"):
        monkeypatch.setenv(name, str(tmp_path / "blank.vhdx"))
    monkeypatch.setenv("WCSTUB_LOG", str(tmp_path / "stub.log"))
    monkeypatch.setenv("WCSTUB_RULES", "")


@pytest.mark.parametrize("served", ["windows"], indirect=True)
def test_windows_layers_by_several_connections_at_once(standins, served, path, tmp_path):
    """As containerd with several pulls and containers: tests/reliability/served.py has each call by itself."""
    with Client(connect(path, "default")) as client:
        client.prepare("wcow", "default/1/key")
        client.commit("wcow", "default/2/base", "default/1/key", labels={SNAPSHOT_REF: "sha256:base"})

    def work(number):
        with Client(connect(path, "default")) as client:
            parent = "default/2/base"
            with pytest.raises(errors.AlreadyExists):
                client.prepare("wcow", f"default/{number}/extract-x", labels={SNAPSHOT_REF: "sha256:base"})
            for step in range(2):
                key, name = f"default/{number}{step}/key", f"default/{number}{step}/name"
                (mount,) = client.prepare("wcow", key, parent)
                assert mount.type == "windows-layer"
                client.commit("wcow", name, key)
                (mount,) = client.view("wcow", f"{key}-view", name)
                assert os.path.exists(mount.source + r"\sandbox.vhdx")
                assert client.usage("wcow", name).inodes
                assert client.update_snapshot("wcow", name, {"l": "1"}).labels == {"l": "1"}
                client.remove_snapshot("wcow", f"{key}-view")
                parent = name
            client.clean_up("wcow")

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(work, number) for number in range(10, 10 + CONNECTIONS)]:
            done.result(300)
    assert served() == [True]
    assert len(os.listdir(tmp_path / "root" / "snapshots")) == 1 + 2 * CONNECTIONS


def test_several_connections_at_once(served, path):
    def work(number):
        with Client(connect(path, "default")) as client:
            for step in range(10):
                key = f"default/{number}{step}/a"
                client.prepare("wcow", key)
                assert client.stat("wcow", key).name == key
                client.remove_snapshot("wcow", key)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for done in [pool.submit(work, number) for number in range(CONNECTIONS)]:
            done.result(120)


def test_clients_that_leave_or_send_nonsense(served, path):
    """Also one that is gone before the server has seen it, as after os.stat on the pipe."""
    for data in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        PREFACE + b"\xff" * 9,
    ):
        for _number in range(5):
            handle = open_pipe(path)
            if data:
                _winapi.WriteFile(handle, data, overlapped=False)
            _winapi.CloseHandle(handle)
    with Client(connect(path, "default")) as client:
        assert client.snapshots("wcow") == []


def open_pipe(path):
    """Open the pipe as clients do: they try again while no instance waits."""
    end = time.monotonic() + 60
    while True:
        try:
            return _winapi.CreateFile(path, ACCESS, 0, 0, 3, 0, 0)
        except OSError as error:
            if error.winerror != 231 or time.monotonic() > end:
                raise
        time.sleep(0.01)


def test_a_silent_client_does_not_delay_the_end(served, path):
    handle = open_pipe(path)
    assert served() == [True]
    _winapi.CloseHandle(handle)


def test_the_end_of_a_listener(served, path):
    assert served() == [True]
    listener = PipeListener(path)
    assert listener.accept(0.0) is None
    listener.close()
    listener.close()


def test_how_the_pipe_is_made(path, monkeypatch):
    """The first instance proves that the name is free, which Wine does not check. No instance is for other hosts."""
    made, call = [], pipeserver.DLL.call

    def record(export, *arguments):
        if export == "CreateNamedPipeW":
            made.append(arguments[1:4])
        return call(export, *arguments)

    monkeypatch.setattr(pipeserver.DLL, "call", record)
    PipeListener(path).close()
    assert made == [(0x40080003, 8, 255)] + [(0x40000003, 8, 255)] * 2


def test_no_more_instances(path, monkeypatch):
    """The clients that have come are served. Then an error says why there are no more, and a later attempt succeeds."""
    listener = PipeListener(path)
    handles = [open_pipe(path) for _number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(pipeserver, "last_error", lambda: 8)
        call = pipeserver.DLL.call
        patch.setattr(pipeserver.DLL, "call", lambda name, *rest: None if "CreateNamed" in name else call(name, *rest))
        for _number in range(3):
            listener.accept(60.0).close()
        with pytest.raises(errors.SnapshotterError, match="CreateNamedPipe"):
            listener.accept(60.0)
    assert listener.accept(0.0) is None
    handles.append(open_pipe(path))
    listener.accept(60.0).close()
    listener.close()
    for handle in handles:
        _winapi.CloseHandle(handle)


def test_a_name_that_is_taken(path, monkeypatch):
    monkeypatch.setattr(pipeserver, "_NAME_TIME", 0.3)
    monkeypatch.setattr(pipeserver, "last_error", lambda: 5)
    monkeypatch.setattr(pipeserver.DLL, "call", lambda *_: None)
    with pytest.raises(errors.FailedPrecondition, match="another program has a pipe of this name"):
        PipeListener(path)
