# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run requests in processes that can be killed at a failpoint, and check the store afterwards.

A new process for each request would spend most of its time on imports. ``Requests`` therefore keeps one process that
has imported the core and forks for each request. That process runs this module as a program.
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

from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door, failpoint, staging
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired import layer_export, snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import (
    copies,
    creation,
    growth,
    reader,
    replay,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.keys import IMPORT_KEY
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import diskcopy
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import (
    contents as emulated_contents,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import (
    store as emulated,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import (
    tar as emulated_tar,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED, VIEW
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import METADATA_FILE

# A request would otherwise import these on first use, and each forked process would do so again.
PRELOADED = (
    *(base64, diskcopy, emulated_tar, layer_export, layertar, snapshot, staging),
    *(copies, creation, growth, reader, replay),
)

#: If a request passes a failpoint many times, the tests try this many of the first passes and of the last ones.
OFTEN = 2

#: The value for a mount target whose mount is neither complete nor gone.
HALF = "half a mount"

#: Values of fields. The key is a snapshot and a field, or a path and "files".
State = dict[tuple[str, str], Any]


# -- requests ----------------------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a request ended: it was killed, or it returned this reply."""

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
        """Answer one request in its own process. The environment is set before that process loads the failpoints."""
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
                reply = door.handle(json.dumps(job["request"]).encode(), io.BytesIO(job["attachment"].encode("ascii")))
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
    """Return the values of ``WCOW_FAILPOINT`` to try. ``passed`` has the names in the order of the request."""
    points = []
    for number, name in enumerate(passed):
        count = passed[: number + 1].count(name)
        if count <= OFTEN or count > passed.count(name) - OFTEN:
            points.append(f"{name}#{count}")
    return points


# -- stores ------------------------------------------------------------------------------------------------------------


class Workspace:
    """A directory with a store in ``root``, and next to it the files that requests read and write.

    Its state can be saved and restored. The path stays the same, because records of mounts contain paths.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.root = os.path.join(directory, "root")
        os.mkdir(directory)

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def keep(self, name: str = "kept") -> None:
        """Save the present state."""
        _delete(f"{self.directory}.{name}")
        copy_tree(self.directory, f"{self.directory}.{name}")

    def back(self, to: str = "kept") -> None:
        """Restore a saved state."""
        _delete(self.directory)
        copy_tree(f"{self.directory}.{to}", self.directory)

    def request(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Return a request for one operation. ``{}`` in texts stands for this directory."""
        filled = json.loads(json.dumps(arguments).replace("{}", self.directory))
        return {
            "protocol": 1,
            "root": self.root,
            "layers": "emulated",
            "operations": [{"operation": operation, "arguments": filled}],
        }


def copy_tree(source: str, target: str) -> None:
    """Copy a directory to a path that does not exist."""
    # Almost all of a disk file is holes.
    subprocess.run(["cp", "--archive", "--sparse=always", source, target], check=True)


def _delete(directory: str) -> None:
    if os.path.lexists(directory):
        for top, _directories, _files in os.walk(directory):
            os.chmod(top, 0o700)
        shutil.rmtree(directory)


def observed(workspace: Workspace) -> State:
    """Return what a user can see: snapshots, their disks and contents, mounts and files.

    Reading finishes interrupted work, as in any task that needs the store. The target of a mount that is partly made or
    partly undone has the value ``HALF``. The store must know about such a mount, so that an unmount cleans it up.
    """
    state: State = {}
    snapshotter = Snapshotter(workspace.root, emulated.EmulatedLayers())
    for info in snapshotter.walk():
        directory = os.path.join(workspace.root, "snapshots", str(info.id))
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
            fields["contents"] = contents(emulated_contents.find(directory), "Files", "tombstones.txt")
            fields["disk of the utility VM"] = contents(directory, "vm/sandbox.vhdx")
        state.update({(info.name, field): value for field, value in fields.items()})
    for name in ("mnt", "mnt2", "out.tar.gz"):
        path = workspace.path(name)
        layer = snapshotter.layers.mounted_layer(path)
        whole = layer is not None and snapshotter.layers.is_mounted(layer, path)
        state[name, "files"] = HALF if layer and not whole else contents(path, "")
    incoming = os.path.join(workspace.root, "incoming")
    for name in os.listdir(incoming) if os.path.isdir(incoming) else ():
        if not name.endswith(".part"):
            state[name, "files"] = contents(incoming, name)
    snapshotter.close()
    return state


def same(found: State, *wanted: State) -> bool:
    """Return whether a state equals one of the wanted ones. Targets with the value ``HALF`` are not compared."""
    halves = {key for key, value in found.items() if value == HALF}
    return any(
        {key: value for key, value in state.items() if key not in halves}
        == {key: value for key, value in found.items() if key not in halves}
        for state in wanted
    )


def contents(top: str, *names: str) -> str:
    """Return a digest of files and directories below ``top``: names, permissions, times of files, bytes."""
    digest = hashlib.sha256()
    for path in (os.path.join(top, name) if name else top for name in names):
        for entry in _files(path):
            if entry == top and os.path.isdir(top) and not os.listdir(top):
                continue  # A mount may create this directory and leave it.
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


def without_imports(workspace: Workspace, state: State) -> State:
    """Return the state without the snapshots of killed imports. The locks of those must be free."""
    abandoned = {name for name, _field in state if re.fullmatch(IMPORT_KEY, name)}
    if abandoned:
        snapshotter = Snapshotter(workspace.root, emulated.EmulatedLayers())
        for name in abandoned:
            lock = FileLock(os.path.join(workspace.root, "locks", str(snapshotter.stat(name).id)))
            assert lock.acquire(), f"{name} looks like one under way"
            lock.release()
        snapshotter.close()
    return {key: value for key, value in state.items() if key[0] not in abandoned}


def ids(workspace: Workspace) -> tuple[set[int], set[int]]:
    """Return the ids of all records, and the ids of all directories without a record.

    Asserts that the metadata is intact, that each record has its directory, and that only ``rm-*`` directories have no
    record.
    """
    metadata = os.path.join(workspace.root, METADATA_FILE)
    kinds: dict[int, str] = {}
    last = 0
    if os.path.exists(metadata):
        connection = sqlite3.connect(metadata)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        kinds = dict(connection.execute("SELECT id, kind FROM snapshots"))
        (last,) = connection.execute("SELECT last FROM sequence").fetchone()
        connection.close()
    snapshots = os.path.join(workspace.root, "snapshots")
    entries = set(os.listdir(snapshots)) if os.path.isdir(snapshots) else set()
    assert max(kinds, default=0) <= last
    for number, kind in kinds.items():
        assert kind == VIEW or str(number) in entries, f"{number} has lost its directory"
    # A leftover marker file has no meaning. The next process that opens the store deletes it.
    entries -= {f"new-{last}", f"new-{last + 1}"}
    leftovers = {int(entry.removeprefix("rm-")) for entry in entries} - kinds.keys()
    assert {str(number) for number in leftovers}.isdisjoint(entries), f"a directory without a record: {sorted(entries)}"
    return set(kinds), leftovers


if __name__ == "__main__":
    serve()
