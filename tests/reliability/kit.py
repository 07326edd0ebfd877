# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests in processes of their own that may be killed at a failpoint, and what has to be true of a store afterwards.

A process for each request would take most of its time to start, so one that has the core in memory, ``Requests``, forks
for each. It is this module, run as a program.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import dispatch, ensure, failpoint, staging
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import layertar, vhdx
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import diskcopy, emulated, emulated_tar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED, VIEW
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import (
    IMPORT_KEY,
    METADATA_FILE,
    Snapshotter,
)

# What a request would otherwise import when it needs it, each time anew.
PRELOADED = (base64, diskcopy, emulated_tar, ensure, layertar, staging, vhdx)

#: Of a point that is passed many times, so many times are tried: the first ones, the last ones.
OFTEN = 2

#: What lies at the target of a mount that is neither whole nor gone.
HALF = "half a mount"

#: A field of a snapshot, by name and field, or of a file, by path.
State = dict[tuple[str, str], Any]


# -- requests ----------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a request ended: killed, or with this reply."""

    killed: bool
    reply: dict[str, Any]


class Requests:
    """A process that forks for each request. A context manager."""

    def __enter__(self) -> Requests:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(self, request: dict[str, Any], attachment: bytes = b"", **environment: str) -> Ended:
        """Answer one request in a process of its own, with this in its environment when it loads the failpoints."""
        job = {"request": request, "attachment": attachment.decode("ascii"), "environment": environment}
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


def serve() -> None:
    """Answer jobs from standard input until it ends."""
    for line in sys.stdin.buffer:
        job = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.environ.update(job["environment"])
                importlib.reload(failpoint)
                reply = dispatch.handle(
                    json.dumps(job["request"]).encode(), io.BytesIO(job["attachment"].encode("ascii"))
                )
                os.write(writing, json.dumps(reply).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with open(reading, "rb") as pipe:
            reply = pipe.read()
        _child, status = os.waitpid(child, 0)
        if not reply and not os.WIFSIGNALED(status):
            raise RuntimeError(f"a request ended with status {status} and without a reply")
        sys.stdout.write(json.dumps([not reply, json.loads(reply or "{}")]) + "\n")
        sys.stdout.flush()


def chosen(passed: list[str]) -> list[str]:
    """The values of ``WCOW_FAILPOINT`` to try, of the names in the order in which a request passed them."""
    points = []
    for number, name in enumerate(passed):
        count = passed[: number + 1].count(name)
        if count <= OFTEN or count > passed.count(name) - OFTEN:
            points.append(f"{name}#{count}")
    return points


# -- stores ------------------------------------------------------------------------------------------------------------


class Place:
    """A directory with a store in ``root``, and beside it what requests read and write.

    Its state can be kept and brought back, at the same path, since records of mounts have paths in them.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")
        os.mkdir(directory)

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def keep(self, name: str = "kept") -> None:
        """Make the present state one to go back to."""
        _delete(f"{self.directory}.{name}")
        _copy(self.directory, f"{self.directory}.{name}")

    def back(self, to: str = "kept") -> None:
        """Go back to the state that was kept."""
        _delete(self.directory)
        _copy(f"{self.directory}.{to}", self.directory)

    def request(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """A request for one operation; ``{}`` in texts stands for this directory."""
        filled = json.loads(json.dumps(arguments).replace("{}", self.directory))
        return {
            "protocol": 1,
            "root": self.root,
            "layers": "emulated",
            "operations": [{"operation": operation, "arguments": filled}],
        }


def _copy(source: str, target: str) -> None:
    # Disks are holes, nearly all of them.
    subprocess.run(["cp", "--archive", "--sparse=always", source, target], check=True)


def _delete(directory: str) -> None:
    if os.path.lexists(directory):
        for top, _directories, _files in os.walk(directory):
            os.chmod(top, 0o700)
        shutil.rmtree(directory)


def observed(place: Place) -> State:
    """What a user can see of the store and beside it: snapshots, their disks and contents, mounts, files.

    Reading brings everything to rest that a dead process left in motion, as any task does that needs it. What lies at
    a target while a mount is half made or half undone is ``HALF``; that must be known, so that an unmount cleans it.
    """
    state: State = {}
    snapshotter = Snapshotter(place.root, emulated.EmulatedLayers())
    for info in snapshotter.walk():
        directory = os.path.join(place.root, "snapshots", str(info.id))
        targets = snapshotter.mounted_at(info.name)
        fields = {
            "kind": info.kind,
            "parent": info.parent,
            "labels": info.labels,
            "mounted": [target for target in targets if snapshotter.is_mounted(info.name, target)],
        }
        if info.kind == COMMITTED:
            fields["contents"] = contents(directory, "Files", "tombstones.txt", "UtilityVM/Files", "Hives")
        elif info.kind == ACTIVE:
            disk = snapshotter.scratch(info.name)
            fields["disk"] = disk and disk.virtual_size
            fields["contents"] = contents(snapshotter.layers._own(directory), "Files", "tombstones.txt")
            fields["disk of the utility VM"] = contents(directory, "vm/sandbox.vhdx")
        state.update({(info.name, field): value for field, value in fields.items()})
    for name in ("mnt", "mnt2", "out.tar.gz"):
        path = place.path(name)
        layer = snapshotter.layers.mounted_layer(path)
        whole = layer is not None and snapshotter.layers.is_mounted(layer, path)
        state[name, "files"] = HALF if layer and not whole else contents(path, "")
    incoming = os.path.join(place.root, "incoming")
    for name in os.listdir(incoming) if os.path.isdir(incoming) else ():
        if not name.endswith(".part"):
            state[name, "files"] = contents(incoming, name)
    snapshotter.close()
    return state


def same(found: State, *wanted: State) -> bool:
    """Whether a state is one of those that are wanted, but for targets of mounts that are half made."""
    halves = {key for key, value in found.items() if value == HALF}
    return any(
        {key: value for key, value in state.items() if key not in halves}
        == {key: value for key, value in found.items() if key not in halves}
        for state in wanted
    )


def contents(top: str, *names: str) -> str:
    """A digest of files and directories below ``top``: names, permissions, times of files, bytes."""
    digest = hashlib.sha256()
    for path in (os.path.join(top, name) if name else top for name in names):
        for entry in _files(path):
            if entry == top and os.path.isdir(top) and not os.listdir(top):
                continue  # Whoever mounts may make the directory, and leave it.
            status = os.lstat(entry)
            digest.update(f"{os.path.relpath(entry, top)}\0{stat.S_IMODE(status.st_mode):o}\0".encode())
            if stat.S_ISREG(status.st_mode):
                with open(entry, "rb") as file:
                    digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:16]


def _files(path: str) -> Iterator[str]:
    if os.path.isdir(path):
        for top, directories, files in os.walk(path):
            directories.sort()
            yield top
            yield from sorted(os.path.join(top, name) for name in files)
    elif os.path.lexists(path):
        yield path


def without_imports(place: Place, state: State) -> State:
    """The state without the snapshots of imports that were killed, whose locks have to be free."""
    abandoned = {name for name, _field in state if re.fullmatch(IMPORT_KEY, name)}
    if abandoned:
        snapshotter = Snapshotter(place.root, emulated.EmulatedLayers())
        for name in abandoned:
            lock = FileLock(os.path.join(place.root, "locks", str(snapshotter.stat(name).id)))
            assert lock.acquire(), f"{name} looks like one under way"
            lock.release()
        snapshotter.close()
    return {key: value for key, value in state.items() if key[0] not in abandoned}


def ids(place: Place) -> tuple[set[int], set[int]]:
    """The ids of all records, and those of all directories without one, whatever they are named.

    Asserts that the metadata is whole, that each record has its directory, and that none but ``rm-*`` is without one.
    """
    metadata = os.path.join(place.root, METADATA_FILE)
    kinds: dict[int, str] = {}
    last = 0
    if os.path.exists(metadata):
        connection = sqlite3.connect(metadata)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        kinds = dict(connection.execute("SELECT id, kind FROM snapshots"))
        (last,) = connection.execute("SELECT last FROM sequence").fetchone()
        connection.close()
    snapshots = os.path.join(place.root, "snapshots")
    entries = set(os.listdir(snapshots)) if os.path.isdir(snapshots) else set()
    assert max(kinds, default=0) <= last
    for number, kind in kinds.items():
        assert kind == VIEW or str(number) in entries, f"{number} has lost its directory"
    # What is left over of a mark says nothing, and goes when the store is opened next.
    entries -= {f"new-{last}", f"new-{last + 1}"}
    strays = {int(entry.removeprefix("rm-")) for entry in entries} - kinds.keys()
    assert {str(number) for number in strays}.isdisjoint(entries), f"a directory without a record: {sorted(entries)}"
    return set(kinds), strays


if __name__ == "__main__":
    serve()
