# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every call of the proxy snapshotter, for tests that kill the process that serves it.

``CALLS`` has the calls, ``fill`` makes the store that they work on, and ``state`` is what a client sees. The tests of
this directory use them on a Unix socket, those of ``tests/wine`` on a named pipe.

As a program, this module starts servers by ``fork``: a new process would spend most of its time on imports. Each line
of its input is a job, see ``Servers``.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import failpoint
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import ROOTFS_SIZE_BYTES, SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import diskcopy
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import store as emulated
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import NotListening
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve import listener
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve import main as program

# A server would otherwise import these on first use, and each forked process would do so again.
PRELOADED = (diskcopy, emulated)

GIB = 1024**3
SIZE = {ROOTFS_SIZE_BYTES: str(30 * GIB), "owner": "me"}

#: Names as containerd's metadata gives them to a backend. The comments give the ids.
BASE = "default/2/base"  # 1
LAYER = "default/4/layer"  # 2
ACTIVE = "default/5/active"  # 3
VIEW = "default/6/view"  # 4
MAKING = "default/7/making"  # 5, a base that is not committed
UNPACKED = "default/8/extract-1-x sha256:1"  # 6, a layer that was unpacked without its parent
ADOPTABLE = "sha256:adoptable"  # 7, of a playbook
NEXT_ID = 8

NEW = "default/20/new"
REFERENCE = {SNAPSHOT_REF: ADOPTABLE}

#: The name of the proxy plugin. The service serves one store, whatever containerd calls it.
PLUGIN = "wcow"

#: Seconds that a busy machine may need.
PATIENCE = 60.0

State = dict[str, Any]


class Call(NamedTuple):
    """A call. ``given`` changes the root before it. ``refused``: it fails with this sentence, and changes nothing."""

    run: Callable[[Client], Any]
    given: Callable[[str], None] | None = None
    refused: str = ""


def commit(client: Client, name: str, key: str, parent: str = "", **labels: str) -> None:
    """Commit, over a parent that Prepare did not name, as containerd 2.2 and newer can."""
    request = {"snapshotter": PLUGIN, "name": name, "key": key, "parent": parent, "labels": labels}
    client.connection.call("Snapshots/Commit", request)


def path(root: str, *parts: str) -> str:
    return os.path.join(root, "snapshots", *parts)


def write(root: str, layer_id: int, text: str) -> None:
    """Write a file into the directory of a layer that is being made."""
    os.makedirs(path(root, str(layer_id), "Files"), exist_ok=True)
    with open(path(root, str(layer_id), "Files", "a.txt"), "w") as file:
        file.write(text)


def leftovers(root: str) -> None:
    """Make the leftovers of processes that died in Prepare and in Remove."""
    os.makedirs(path(root, str(NEXT_ID), "Files"))
    with open(path(root, f"new-{NEXT_ID}"), "wb"):
        pass
    os.rename(path(root, "2"), path(root, "rm-2"))


def half_removed(root: str) -> None:
    os.rename(path(root, "3"), path(root, "rm-3"))


CALLS = {
    "prepare": Call(lambda client: client.prepare(PLUGIN, NEW, LAYER, SIZE)),
    "prepare after a death": Call(lambda client: client.prepare(PLUGIN, NEW, LAYER, SIZE), leftovers),
    "prepare a base": Call(lambda client: client.prepare(PLUGIN, NEW)),
    "prepare to unpack": Call(lambda client: client.prepare(PLUGIN, "default/20/extract-2-x sha256:2", BASE)),
    "prepare of a layer to adopt": Call(
        lambda client: client.prepare(PLUGIN, "default/20/extract-3-x sha256:3", BASE, REFERENCE),
        refused="already exists",
    ),
    "view": Call(lambda client: client.view(PLUGIN, NEW, LAYER)),
    "mounts": Call(lambda client: client.mounts(PLUGIN, ACTIVE)),
    "mounts of half a view": Call(
        lambda client: client.mounts(PLUGIN, VIEW), lambda root: os.rename(path(root, "4"), path(root, "rm-4"))
    ),
    "commit": Call(lambda client: commit(client, NEW, ACTIVE, label="1")),
    "commit of a base": Call(lambda client: commit(client, NEW, MAKING)),
    "commit over a late parent": Call(lambda client: commit(client, NEW, UNPACKED, LAYER)),
    "remove": Call(lambda client: client.remove_snapshot(PLUGIN, ACTIVE)),
    "remove a view": Call(lambda client: client.remove_snapshot(PLUGIN, VIEW)),
    "remove after a death": Call(lambda client: client.remove_snapshot(PLUGIN, ACTIVE), half_removed),
    "remove of a parent": Call(
        lambda client: client.remove_snapshot(PLUGIN, BASE), refused="cannot remove snapshot with child"
    ),
    "update": Call(lambda client: client.update_snapshot(PLUGIN, LAYER, {"l": "1"}, ["labels.l"])),
    "stat": Call(lambda client: client.stat(PLUGIN, ACTIVE), leftovers),
    "list": Call(lambda client: client.snapshots(PLUGIN)),
    "usage": Call(lambda client: client.usage(PLUGIN, LAYER)),
    "cleanup": Call(lambda client: client.clean_up(PLUGIN), leftovers),
}


def fill(client: Client, root: str) -> None:
    """Make a store with one snapshot of each kind."""
    client.prepare(PLUGIN, "default/1/k")
    write(root, 1, "a in the base")
    commit(client, BASE, "default/1/k")
    client.prepare(PLUGIN, "default/3/extract-0-x k", BASE)
    write(root, 2, "a in the layer")
    commit(client, LAYER, "default/3/extract-0-x k", m="1")
    client.prepare(PLUGIN, ACTIVE, LAYER, {"l": "1"})
    client.view(PLUGIN, VIEW, LAYER)
    client.prepare(PLUGIN, MAKING)
    write(root, 5, "making")
    client.prepare(PLUGIN, UNPACKED)
    write(root, 6, "unpacked")
    client.prepare(PLUGIN, "default/9/extract-0-x r", BASE)
    write(root, 7, "to adopt")
    commit(client, ADOPTABLE, "default/9/extract-0-x r", **REFERENCE)


def state(client: Client) -> State:
    """Return what a client sees: all records without their times, their mounts, and the size of what is committed.

    The directory of a mount has the id, which depends on the ids that are skipped. So only its existence counts.
    """
    found: State = {}
    for info in client.snapshots(PLUGIN, "name"):
        if info.kind == "committed":
            more: Any = client.usage(PLUGIN, info.name)
        else:
            more = [(list(mount.options), os.path.isdir(mount.source)) for mount in client.mounts(PLUGIN, info.name)]
        found[info.name] = (info.kind, info.parent, info.labels, more)
    return found


def call(client: Client, name: str) -> str:
    """Run a call. Return its error; empty if it succeeds, or is refused as it should be."""
    try:
        CALLS[name].run(client)
    except SnapshotterError as error:
        refused = CALLS[name].refused
        return "" if refused and refused in error.message else error.message
    return "it was not refused" if CALLS[name].refused else ""


class NotStarted(Exception):
    """A server has ended before it could answer."""


def wait_for(address: str, is_alive: Callable[[], bool] = lambda: True) -> Client:
    """Return a client of a server that starts, once it answers. Raises NotStarted, SnapshotterError."""
    end = time.monotonic() + PATIENCE
    while True:
        client = Client(connect(address, "default"))
        try:
            client.snapshots(PLUGIN, "name==none")
            return client
        except NotListening:
            client.close()
            if not is_alive():
                raise NotStarted from None
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.005)
        except BaseException:
            client.close()
            raise


# -- servers ---------------------------------------------------------------------------------------------------------


class Server(NamedTuple):
    """A server that runs in a process of its own."""

    servers: Servers
    process: int

    def is_alive(self) -> bool:
        return self.servers.ask(look=self.process) is None

    def client(self, address: str) -> Client:
        """Return a client, see ``wait_for``."""
        return wait_for(address, self.is_alive)

    def stop(self) -> int:
        """Stop it. Return its exit code, as ``wait`` does."""
        if self.is_alive():
            os.kill(self.process, signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended. Return its exit code, negative for a signal."""
        return int(self.servers.ask(wait=self.process))


class Servers:
    """A process that forks for each server. A context manager."""

    def __enter__(self) -> Servers:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # glibc gives threads memory of their own, and keeps it. Tests measure what the server keeps.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MALLOC_ARENA_MAX": "1"},
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)
        self._process.stdout.close()

    def ask(self, **job: Any) -> Any:
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, address: str, root: str, log: str, **environment: str) -> Server:
        """Start a server on the emulated layer store. The environment is set before it loads the failpoints."""
        arguments = ["--address", address, "--root", root, "--layers", "emulated"]
        return Server(self, self.ask(arguments=arguments, log=log, environment=environment))


def fork_servers() -> None:
    """Answer jobs from standard input until it ends. One server runs at a time."""
    running = 0
    ended: dict[int, int] = {}

    def end_running() -> None:
        if running and running not in ended:
            os.kill(running, signal.SIGKILL)
            os.waitpid(running, 0)

    for line in sys.stdin.buffer:
        job = json.loads(line)
        wanted = job.get("wait") or job.get("look")
        if wanted:
            if wanted not in ended:
                process, status = os.waitpid(wanted, os.WNOHANG if "look" in job else 0)
                if process:
                    ended[process] = os.waitstatus_to_exitcode(status)
            answer = ended.get(wanted)
        else:
            # A test that fails leaves it, and the next one would talk to it.
            end_running()
            answer = running = os.fork()
            if not running:
                status = 1
                try:
                    os.dup2(os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                    os.environ.update(job["environment"])
                    importlib.reload(failpoint)
                    # A test stops hundreds of servers.
                    listener._STOP_TICK = 0.01
                    status = program.main(job["arguments"])
                finally:
                    os._exit(status)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    end_running()


if __name__ == "__main__":
    fork_servers()
