# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a real containerd as an ordinary process, and use its snapshots through ``ctr``.

All files and sockets are in one directory, containerd listens only there, and
it needs no root. Only the plugins that snapshots need are enabled. Without the
garbage collector, snapshots do not disappear during a test. A test of leases
needs it, and says so.

``ctr`` uses containerd's metadata layer (core/metadata/snapshot.go). That layer
keeps names by namespace in its own database, in front of the native snapshotter
with its metastore. Each new namespace is an empty store.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Tuple

SNAPSHOTTER = "native"

#: Limits in seconds for containerd's first answer, and for one call of ctr.
START_TIMEOUT = 20.0
CALL_TIMEOUT = 30.0

#: ctr sets these labels by itself on everything that it creates.
OWN_LABELS = frozenset({"containerd.io/gc.root"})

#: Our codes for the status texts with which gRPC errors end (errdefs).
CODES = {
    "already exists": "already_exists",
    "failed precondition": "failed_precondition",
    "invalid argument": "invalid_argument",
    "not found": "not_found",
    "unknown": "internal",
}

_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [{disabled}]

[grpc]
  address = "{directory}/containerd.sock"
  uid = {uid}
  gid = {gid}

[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
  uid = {uid}
  gid = {gid}
"""

_DISABLED = (
    "gc.v1.scheduler",
    "grpc.v1.cri",
    "grpc.v1.leases",
    "grpc.v1.tasks",
    "internal.v1.restart",
    "monitor.v1.cgroups",
    "runtime.v1.linux",
    "runtime.v2.task",
    "service.v1.leases-service",
    "service.v1.tasks-service",
    "snapshotter.v1.aufs",
    "snapshotter.v1.btrfs",
    "snapshotter.v1.devmapper",
    "snapshotter.v1.overlayfs",
    "snapshotter.v1.zfs",
)


# What leases and the collection of garbage need.
_COLLECTOR = ("gc.v1.scheduler", "grpc.v1.leases", "service.v1.leases-service")


#: The name of the proxy plugin, and its part of the configuration.
PROXY = "wcow"
_PROXY_CONFIG = """
[proxy_plugins.{name}]
  type = "snapshot"
  address = "{address}"
"""

# What CRI needs besides the collector, and its part of the configuration: its default snapshotter is the proxy plugin.
# It listens nowhere but on loopback, and looks for plugins of the network in directories without any.
_CRI = (
    *_COLLECTOR,
    *("grpc.v1.cri", "grpc.v1.tasks", "monitor.v1.cgroups"),
    *("runtime.v1.linux", "runtime.v2.task", "service.v1.tasks-service"),
)
_CRI_CONFIG = """
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{name}"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{directory}/cni"
  conf_dir = "{directory}/cni"
"""


class Answer(NamedTuple):
    """The result of a ctr call: ``ok`` or an error code, its output, and its message."""

    outcome: str
    output: str
    message: str


class Containerd:
    """One running daemon. A context manager that stops it at the end.

    ``proxy`` is the socket of a snapshotter, which ``call`` uses then instead of the native one. With ``cri``, the
    interface for kubelet is served, too, and uses that snapshotter.
    """

    def __init__(self, directory: str, *, collects: bool = False, proxy: str = "", cri: bool = False) -> None:
        self.snapshotter = PROXY if proxy else SNAPSHOTTER
        self.root = os.path.join(directory, "root")
        self._socket = os.path.join(directory, "containerd.sock")
        self._log_path = os.path.join(directory, "log")
        self._config = os.path.join(directory, "config.toml")
        needed = _CRI if cri else _COLLECTOR if collects else ()
        plugins = [plugin for plugin in _DISABLED if plugin not in needed]
        disabled = ", ".join(f'"io.containerd.{plugin}"' for plugin in plugins)
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(_CONFIG.format(directory=directory, disabled=disabled, uid=os.getuid(), gid=os.getgid()))
            if proxy:
                file.write(_PROXY_CONFIG.format(name=PROXY, address=proxy))
            if cri:
                file.write(_CRI_CONFIG.format(name=PROXY, directory=directory))
        self.start()

    @property
    def address(self) -> str:
        """The socket on which containerd listens."""
        return self._socket

    def start(self) -> None:
        """Start the daemon, for example after ``stop``."""
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(["containerd", "--config", self._config], stdout=log, stderr=log)
        try:
            self._wait_until_serving()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Containerd:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the daemon. Kill it if it does not stop."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the daemon as a power failure does."""
        self._process.kill()
        self._process.wait()
        # On Windows, a named pipe disappears with its server.
        os.unlink(self._socket)

    def _wait_until_serving(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < end:
            if os.path.exists(self._socket) and self.call("probe", "list").outcome == "ok":
                return
            time.sleep(0.05)
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            raise RuntimeError(f"containerd does not serve {self._socket}:\n{log.read()[-4000:]}")

    def call(self, namespace: str, *arguments: str) -> Answer:
        """Run one ``ctr snapshots`` command, for example ``call("ns", "commit", name, key)``."""
        command = ["ctr", "-a", self._socket, "-n", namespace, "snapshots", "--snapshotter", self.snapshotter]
        command += arguments
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=CALL_TIMEOUT, check=False
        )
        if done.returncode == 0:
            return Answer("ok", done.stdout, "")
        message = done.stderr.strip()
        code = CODES.get(message.rpartition(": ")[2])
        if code is None:
            raise RuntimeError(f"{' '.join(command)}: {message or done.returncode}")
        return Answer(code, done.stdout, message)

    def walk(self, namespace: str) -> List[Tuple[str, str, str]]:
        """Return name, parent (``""`` for none) and kind of every snapshot, in containerd's order.

        ctr prints a table of columns, so names must not contain blanks.
        """
        answer = self.call(namespace, "list")
        assert answer.outcome == "ok", answer.message
        rows = [line.split() for line in answer.output.splitlines()[1:]]
        return [(row[0], row[1] if len(row) == 3 else "", row[-1].lower()) for row in rows]

    def info(self, namespace: str, name: str) -> Dict[str, Any]:
        """Return the info of one snapshot as in containerd's JSON, without ctr's own labels."""
        answer = self.call(namespace, "info", name)
        assert answer.outcome == "ok", answer.message
        info: Dict[str, Any] = json.loads(answer.output)
        info["Labels"] = {key: value for key, value in info.get("Labels", {}).items() if key not in OWN_LABELS}
        return info
