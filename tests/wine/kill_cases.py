# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Kill operations of the Windows layer store at failpoints, in Windows Python: run by test_kill.py.

    python kill_cases.py FOLDER NUMBER COUNT

tries the failpoints NUMBER, NUMBER + COUNT, ... of all failpoints that these operations pass, each once. It prints
how many there are and how many it tried; a failure is an exception. The processes that die are::

    python kill_cases.py FOLDER run OPERATION

The stand-ins keep attached layers and bound targets when a process ends, as Windows does.
"""

from __future__ import annotations

import io
import os
import sqlite3
import subprocess
import sys

from core.desired.layer import ensure_layer
from core.desired.layer_export import ensure_export
from core.desired.mount import ensure_mount
from core.desired.scratch import ensure_scratch
from core.desired.snapshot import ensure_snapshot
from core.formats.tar import layertar
from core.formats.vhdx import creation
from core.layers.windows import mounts
from core.layers.windows.store import WindowsLayers
from core.model import COMMITTED, VIEW
from core.snapshotter import Snapshotter
from core.store import METADATA_FILE

GIB = 1024**3
MTIME = 1_600_000_000_123_456_700
BASE = [("Files", None), ("Files/a.txt", b"a in the base"), ("Files/gone.txt", b"to be deleted")]
LAYER = [("Files", None), ("Files/.wh.gone.txt", b""), ("Files/new.txt", b"new"), ("Hives", None)]

#: The exit code of a process that ended itself at a failpoint.
KILLED = 1


def tar(entries):
    data = b""
    for name, content in entries:
        kind = layertar.DIRECTORY if content is None else layertar.WHITEOUT if "/.wh." in name else layertar.FILE
        pax = {layertar.FILE_ATTRIBUTES: "16" if content is None else "32"}
        data += layertar.header(name.replace(".wh.", ""), kind, size=len(content or b""), mtime_ns=MTIME, pax=pax)
        data += (content or b"") + layertar.padding(len(content or b""))
    return data + layertar.END_MARK


class Store:
    """A store with one snapshot of each kind: 1 base, 2 layer, 3 active, 4 view, 5 unfinished base."""

    def __init__(self, top):
        self.top = top
        self.root = os.path.join(top, "root")
        self.snapshotter = Snapshotter(self.root, WindowsLayers())

    def fill(self):
        for name, parent, entries in (("base", "", BASE), ("layer", "base", LAYER)):
            self.unpack(name, parent, entries)
        self.snapshotter.prepare("active", "layer", {"l": "1"})
        self.snapshotter.view("view", "layer")
        self.snapshotter.prepare("making")
        with open(self.path("5", "Files", "a.txt"), "w") as file:
            file.write("a")
        return self

    def unpack(self, name, parent, entries):
        self.snapshotter.import_layer(name, parent, {}, lambda unpack: unpack(io.BytesIO(tar(entries))))

    def import_file(self, parent):
        path = os.path.join(self.top, "layer.tar")
        with open(path, "wb") as file:
            file.write(tar(LAYER if parent else BASE))
        ensure_layer(self.snapshotter, "new", path, parent)

    def path(self, *parts):
        return os.path.join(self.root, "snapshots", *parts)

    def mount(self, key="active"):
        ensure_mount(self.snapshotter, "mounted", key, os.path.join(self.top, "mnt"))

    def unmount(self):
        ensure_mount(self.snapshotter, "unmounted", target=os.path.join(self.top, "mnt"))

    def ensure(self, state, **options):
        ensure_snapshot(self.snapshotter, state, **options)

    def state(self):
        """All records without times and ids, and without the imports that were killed."""
        return {
            (info.name, info.kind, info.parent, tuple(sorted(info.labels.items())))
            for info in self.snapshotter.walk()
            if not info.name.startswith("extract-")
        }

    def check(self):
        """The metadata is complete, each record has a directory, and only ``rm-*`` directories lack a record."""
        connection = sqlite3.connect(os.path.join(self.root, METADATA_FILE))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()
        infos = self.snapshotter.walk()
        for info in infos:
            self.snapshotter.usage(info.name)
            assert info.kind == VIEW or os.path.isdir(self.path(str(info.id))), info
            if info.kind == COMMITTED:
                assert os.path.isdir(self.path(str(info.id), "Files")), info
            elif info.parent and info.kind != VIEW and not info.name.startswith("extract-"):
                assert self.snapshotter.scratch(info.name).virtual_size >= 20 * GIB, info
        entries = set(os.listdir(self.path()))
        assert {entry for entry in entries if not entry.startswith("rm-")} <= {str(info.id) for info in infos}, entries


# By name: the operation that dies, and the task that runs again afterwards.
SIZE = {"containerd.io/snapshot/windows/rootfs.sizebytes": str(40 * GIB)}
OPERATIONS = {
    "prepare": (
        lambda store: store.snapshotter.prepare("new", "layer", SIZE),
        lambda store: store.ensure("active", key="new", parent="layer", rootfs_size=40 * GIB),
    ),
    "commit": (
        lambda store: store.snapshotter.commit("new", "active"),
        lambda store: store.ensure("committed", name="new", key="active"),
    ),
    "commit of a base": (
        lambda store: store.snapshotter.commit("new", "making"),
        lambda store: store.ensure("committed", name="new", key="making"),
    ),
    "mount": (lambda store: store.mount(), lambda store: store.mount()),
    "mount of a view": (lambda store: store.mount("view"), lambda store: store.mount("view")),
    "unmount": (lambda store: (store.mount(), store.unmount()), lambda store: store.unmount()),
    "grow": (
        lambda store: store.snapshotter.grow_scratch("active", 40 * GIB),
        lambda store: ensure_scratch(store.snapshotter, "active", 20 * GIB),
    ),
    "import of a base": (lambda store: store.import_file(""), lambda store: store.import_file("")),
    "import of a layer": (lambda store: store.import_file("base"), lambda store: store.import_file("base")),
    "export": (
        lambda store: ensure_export(store.snapshotter, "layer", os.path.join(store.top, "out.tar")),
        lambda store: ensure_export(store.snapshotter, "layer", os.path.join(store.top, "out.tar")),
    ),
    "remove": (
        lambda store: store.snapshotter.remove("active"),
        lambda store: store.ensure("absent", key="active"),
    ),
}


def run(top, operation, **environment):
    """Run an operation in a process of its own; return the exit code."""
    done = subprocess.run(
        [sys.executable, "-X", "utf8", __file__, top, "run", operation],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == KILLED or not done.returncode, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def passed_by(top, operation):
    """The names of the failpoints that an operation passes, each once, and the states before and after."""
    store = Store(top).fill()
    before = store.state()
    store.snapshotter.close()
    log = top + ".points"
    assert run(top, operation, WCOW_FAILPOINTS_LOG=log) == 0
    store = Store(top)
    after = store.state()
    store.check()
    store.snapshotter.close()
    with open(log, encoding="utf-8") as file:
        return list(dict.fromkeys(file.read().split())), before, after


def kill(top, operation, point, before, after):
    store = Store(top).fill()
    store.snapshotter.close()
    assert run(top, operation, WCOW_FAILPOINT=point) == KILLED, (operation, point)
    store = Store(top)
    assert store.state() in (before, after), (operation, point, store.state())
    store.check()
    OPERATIONS[operation][1](store)
    assert store.state() == after, (operation, point, store.state())
    store.check()
    if os.path.isdir(store.path("3")):
        # A layer that can be renamed is not attached.
        store.unmount()
        mounts.finish_interrupted_work(store.path("3"))
        os.rename(store.path("3"), store.path("moved"))
        os.rename(store.path("moved"), store.path("3"))
    left = [name for _place, names, _files in os.walk(os.path.join(store.root, "transport")) for name in names]
    assert left == [] or not operation.startswith(("commit", "export")), (operation, point, left)
    store.snapshotter.close()


def main(top, number, count):
    template = os.path.join(top, "template.vhdx")
    if not os.path.exists(template):
        creation.create(template, 20 * GIB)
    for name in ("WCSTUB_BLANK", "WCSTUB_UVM"):
        os.environ[name] = template
    chosen = {}
    for operation in OPERATIONS:
        points, before, after = passed_by(os.path.join(top, operation.replace(" ", "-")), operation)
        for point in points:
            chosen.setdefault(point, (operation, point, before, after))
    mine = list(chosen.values())[number::count]
    for index, (operation, point, before, after) in enumerate(mine):
        kill(os.path.join(top, f"kill-{index}"), operation, point, before, after)
    print(len(chosen), len(mine))


if __name__ == "__main__":
    if sys.argv[2] == "run":
        OPERATIONS[sys.argv[3]][0](Store(sys.argv[1]))
    else:
        os.makedirs(sys.argv[1], exist_ok=True)
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
