# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real containerd as an ordinary process, and its snapshots through ``ctr``.

Everything lies in one directory, the sockets too; nothing listens elsewhere,
and no root is needed. Only what snapshots need is on: without the garbage
collector nothing disappears behind a test's back.

``ctr`` talks to containerd's metadata layer (core/metadata/snapshot.go),
which keeps names by namespace in a database of its own, in front of the
native snapshotter with its metastore. Each namespace is an empty store.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Tuple

SNAPSHOTTER = "native"

#: Seconds that containerd gets to answer for the first time, and one ctr call gets to end.
START_TIMEOUT = 20.0
CALL_TIMEOUT = 30.0

#: Labels that ctr sets by itself on whatever it makes.
OWN_LABELS = frozenset({"containerd.io/gc.root"})

#: How gRPC's status texts at the end of a message (errdefs) map to our codes.
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


class Answer(NamedTuple):
    """What a ctr call came to: ``ok`` or an error code, its output, its message."""

    outcome: str
    output: str
    message: str


class Containerd:
    """One running daemon. A context manager: it is stopped at the end."""

    def __init__(self, directory: str) -> None:
        self._socket = os.path.join(directory, "containerd.sock")
        self._log_path = os.path.join(directory, "log")
        config = os.path.join(directory, "config.toml")
        disabled = ", ".join(f'"io.containerd.{plugin}"' for plugin in _DISABLED)
        with open(config, "w", encoding="utf-8") as file:
            file.write(_CONFIG.format(directory=directory, disabled=disabled, uid=os.getuid(), gid=os.getgid()))
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(["containerd", "--config", config], stdout=log, stderr=log)
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
        """End the daemon, by force if it does not go."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_serving(self) -> None:
        end = time.monotonic() + START_TIMEOUT
        while self._process.poll() is None and time.monotonic() < end:
            if os.path.exists(self._socket) and self.call("probe", "list").outcome == "ok":
                return
            time.sleep(0.05)
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            raise RuntimeError(f"containerd does not serve {self._socket}:\n{log.read()[-4000:]}")

    def call(self, namespace: str, *arguments: str) -> Answer:
        """One ``ctr snapshots`` command, for example ``call("ns", "commit", name, key)``."""
        command = ["ctr", "-a", self._socket, "-n", namespace, "snapshots", "--snapshotter", SNAPSHOTTER, *arguments]
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
        """Name, parent (``""`` for none) and kind of every snapshot, in containerd's order.

        ctr prints a table of columns; names must not contain blanks.
        """
        answer = self.call(namespace, "list")
        assert answer.outcome == "ok", answer.message
        rows = [line.split() for line in answer.output.splitlines()[1:]]
        return [(row[0], row[1] if len(row) == 3 else "", row[-1].lower()) for row in rows]

    def info(self, namespace: str, name: str) -> Dict[str, Any]:
        """The info of one snapshot as containerd's JSON has it, without ctr's own labels."""
        answer = self.call(namespace, "info", name)
        assert answer.outcome == "ok", answer.message
        info: Dict[str, Any] = json.loads(answer.output)
        info["Labels"] = {key: value for key, value in info.get("Labels", {}).items() if key not in OWN_LABELS}
        return info
