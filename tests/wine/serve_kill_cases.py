# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Kill the proxy snapshotter on a named pipe with the Windows layer store, in Windows Python: run by test_kill.py.

    python serve_kill_cases.py FOLDER CALL

makes a call of ``tests/reliability/served.py`` once, and then kills the server at each failpoint that it passed. It
prints how many failpoints and kills there were; a failure is an exception. The servers are::

    python serve_kill_cases.py

They take a line of JSON from standard input: the address, the root, and what to do at failpoints. They stop at the next
line, print the exit code, and can start again. So a process can start, which takes a second here, while another one is
still under test, and one that was not killed takes the next turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

from core import failpoint

#: The exit code of a process that ended itself at a failpoint.
KILLED = 1

GIB = 1024**3


class Server:
    """A process that has imported the server, and waits for ``start``."""

    def __init__(self):
        # Its messages go to those of this process.
        command = [sys.executable, "-X", "utf8", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, address, root, **settings):
        self._send(json.dumps({"address": address, "root": root, **settings}))

    def is_alive(self):
        return self._process.poll() is None

    def stop(self):
        """Stop the server. Return its exit code. Without one, the process has ended; otherwise it can start again."""
        # A process that was killed takes no more lines.
        with contextlib.suppress(OSError):
            self._send("stop")
        code = self._process.stdout.readline()
        return int(code) if code else None

    def end(self):
        """End the process. Return its exit code."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        return self._process.wait(120)

    def _send(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


class Servers:
    """Servers, one of which is always ready. A context manager."""

    def __init__(self, address):
        self._address = address
        self._ready = [Server()]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for server in self._ready:
            server.end()

    def start(self, root, **settings):
        server = self._ready.pop()
        if not self._ready:
            self._ready.append(Server())
        server.start(self._address, root, **settings)
        return server

    def client(self, server):
        return served.wait_for(self._address, server.is_alive)

    def stop(self, server):
        """Stop a server. Return 0, or the exit code of its process if that has ended."""
        code = server.stop()
        if code is None:
            return server.end()
        assert code == 0, "a server could not start; its message is above"
        self._ready.append(server)
        return code


def serve():
    """Be a server, of one store after another."""
    from core.serve import main as program

    def stop_at_next_line():
        sys.stdin.readline()
        signal.raise_signal(signal.SIGTERM)

    while line := sys.stdin.readline():
        job = json.loads(line)
        failpoint._FATAL, failpoint._LOG = job.get("die", ""), job.get("log", "")
        failpoint._ARMED = bool(failpoint._FATAL or failpoint._LOG)
        failpoint._passed.clear()
        stopping = threading.Thread(target=stop_at_next_line)
        stopping.start()
        code = program.main(["--address", job["address"], "--root", job["root"], "--layers", "windows"])
        stopping.join()
        print(code, flush=True)


class Direct:
    """What ``served.fill`` and ``served.state`` need of a client, on a store of this process. A context manager."""

    def __init__(self, root):
        self._store = open_store(root, "windows", lambda _layer_id: None)
        self.connection = self
        self.usage = lambda _plugin, key: self._store.usage(key)
        self.mounts = lambda _plugin, key: self._store.mounts(key)
        self.snapshots = lambda _plugin, *filters: self._store.walk(*filters)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._store.close()

    def prepare(self, _plugin, key, parent="", labels=None):
        self._store.prepare(key, parent, labels)

    def view(self, _plugin, key, parent=""):
        self._store.view(key, parent)

    def call(self, _method, request):
        self._store.commit(request["name"], request["key"], request["labels"], request["parent"])


def fill(top, name=""):
    """Make a store, for a call if one is named. Return its root."""
    root = os.path.join(top, "root")
    with Direct(root) as direct:
        served.fill(direct, root)
    if name and served.CALLS[name].given is not None:
        served.CALLS[name].given(root)
    return root


def look(root):
    """Return what a client would see, while no server runs."""
    with Direct(root) as direct:
        return served.state(direct)


def check_store(root, what):
    """No server runs: records and layers agree, no layer is attached, and the check finds nothing that stays."""
    store = open_store(root, "windows", lambda _layer_id: None)
    try:
        infos = store.walk()
        ids = {str(info.id) for info in infos}
        assert set(os.listdir(os.path.join(root, "snapshots"))) == ids, what
        for layer_id in ids:
            # A layer that can be renamed is not attached.
            path = served.path(root, layer_id)
            os.rename(path, path + "-moved")
            os.rename(path + "-moved", path)
        findings = check(store).findings
        assert {finding.code for finding in findings} <= {"stale_locks", "stale_mark"}, (what, findings)
        if findings:
            check(store, repair=True)
            assert not check(store).findings, what
    finally:
        store.close()
    transport = os.path.join(root, "transport")
    assert not os.path.isdir(transport) or os.listdir(transport) == [], what


def try_call(servers, top, name):
    """Make a call. Return the names of the failpoints that the server passes, and the state after it."""
    root, log = fill(top, name), os.path.join(top, "points")
    server = servers.start(root, log=log)
    with servers.client(server) as client:
        problem = served.call(client, name)
        assert problem == "", (name, problem)
    # Layers are destroyed after the answer.
    assert servers.stop(server) == 0, name
    after = look(root)
    check_store(root, name)
    passed = []
    if os.path.exists(log):
        with open(log, encoding="utf-8") as file:
            passed = list(dict.fromkeys(file.read().split()))
    shutil.rmtree(top)
    return passed, after


def kill(servers, top, name, point, before, after):
    """Kill a server at a failpoint. Return whether it died there."""
    root = fill(top, name)
    server = servers.start(root, die=point)
    problem = "killed"
    try:
        with servers.client(server) as client:
            problem = served.call(client, name)
    except (served.NotStarted, SnapshotterError):
        # It can die at its start, because it destroys then what waits for that.
        pass
    code = servers.stop(server)
    assert code in (KILLED, 0), (name, point, code)
    server = servers.start(root)
    with servers.client(server) as client:
        found = served.state(client)
        assert found in ([after] if problem == "" else [before, after]), (name, point, problem, found)
        if found != after:
            served.call(client, name)
            assert served.state(client) == after, (name, point)
    assert servers.stop(server) == 0, (name, point)
    check_store(root, (name, point))
    shutil.rmtree(top)
    return code == KILLED


def main(top, name):
    template = os.path.join(top, "template.vhdx")
    creation.create(template, 20 * GIB)
    for variable in ("WCSTUB_BLANK", "WCSTUB_UVM"):
        os.environ[variable] = template
    with Servers(rf"\\.\pipe\wcow-kill-{os.getpid()}") as servers:
        # All stores have the same path, which the states contain.
        store = os.path.join(top, "store")
        before = look(fill(store))
        shutil.rmtree(store)
        points, after = try_call(servers, store, name)
        kills = sum(kill(servers, store, name, point, before, after) for point in points)
    print(len(points), kills)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        serve()
    else:
        # A server does not need these, and starts faster without them.
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import creation
        from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
        from ansible_collections.wcow.snapshotter.tests.reliability import served

        os.makedirs(sys.argv[1], exist_ok=True)
        main(sys.argv[1], sys.argv[2])
