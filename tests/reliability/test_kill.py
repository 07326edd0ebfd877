# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill every operation between any two changes that it makes on disk.

A first run of the operation records the failpoints that it passes. For each failpoint, the test restores the store,
runs the operation in its own process and kills it there. Then another process opens the store. The store must be
sound, and must show the state before or the state after and nothing else. A rerun of the task must lead to the state
after.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels as label_rules
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Usage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import layer_tar

from lab import sample

from . import kit

pytestmark = pytest.mark.posix

GIB = 1024**3
SIZE = {label_rules.ROOTFS_SIZE_BYTES: str(30 * GIB), "owner": "me"}
UVM = {label_rules.UVM_SCRATCH: "true"}
TOO_LARGE = {label_rules.ROOTFS_SIZE_BYTES: str(65 * 1024 * GIB)}

BASE_TAR = layer_tar(
    ("Files", "directory"),
    ("Files/a.txt", b"a in the base"),
    ("Files/dir", "directory"),
    ("Files/dir/b.txt", b"b"),
    ("UtilityVM", "directory"),
    ("UtilityVM/Files", "directory"),
    ("UtilityVM/Files/kernel.exe", b"kernel"),
)
LAYER_TAR = layer_tar(
    ("Files", "directory"), ("Files/a.txt", "whiteout"), ("Files/new.txt", b"new"), ("Files/dir", "directory")
)

PIECES = [bytes([number]) * 700 for number in range(4)]
STAGED = "sha256:" + hashlib.sha256(BASE_TAR).hexdigest()
PIECED = "sha256:" + hashlib.sha256(b"".join(PIECES)).hexdigest()


def lines(*pieces: bytes) -> bytes:
    return b"".join(base64.b64encode(piece) + b"\n" for piece in pieces)


class Case(NamedTuple):
    """An operation, the task that runs again after the kill (the same, unless ``again``), and the state before it.

    ``steps``: the operation has several steps, each of which is atomic. ``fails``: it fails and must leave nothing.
    """

    operation: tuple[str, dict[str, Any]]
    again: tuple[str, dict[str, Any]] | None = None
    given: tuple[Any, ...] = ()
    attachment: bytes = b""
    new_store: bool = False
    steps: bool = False
    fails: bool = False


def snapshot(state: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return "ensure_snapshot", {"state": state, **options}


def mounted(state: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return "ensure_mount", {"state": state, **options}


def written(workspace: kit.Workspace) -> None:
    """Simulate a container that ran at the mount."""
    with open(workspace.path("mnt", "written.txt"), "w") as file:
        file.write("written")
    os.unlink(workspace.path("mnt", "dir", "b.txt"))


def leftover(workspace: kit.Workspace) -> None:
    """Make the leftovers of a process that died while it created a layer."""
    os.makedirs(workspace.path("root", "snapshots", "8", "Files"))
    with open(workspace.path("root", "snapshots", "new-8"), "wb"):
        pass


def half_removed(*numbers: int) -> Any:
    """Make the leftovers of a process that died while it removed layers."""

    def rename(workspace: kit.Workspace) -> None:
        for number in numbers:
            snapshots = workspace.path("root", "snapshots")
            os.rename(os.path.join(snapshots, str(number)), os.path.join(snapshots, f"rm-{number}"))

    return rename


def without_template(workspace: kit.Workspace) -> None:
    os.unlink(workspace.path("root", "snapshots", "1", "blank.vhdx"))


MOUNT = mounted("mounted", key="active", target="{}/mnt")
MOUNT_VIEW = mounted("mounted", key="view", target="{}/mnt")
IMPORT = ("ensure_layer", {"name": "new", "src": "{}/base.tar"})

IMPORT_IMAGE = ("ensure_image", {"src": "{}/image.tar"})

CASES = {
    "prepare with a size": Case(
        ("prepare", {"key": "new", "parent": "layer", "labels": SIZE}),
        snapshot("active", key="new", parent="layer", rootfs_size=30 * GIB, labels={"owner": "me"}),
    ),
    "prepare with a disk for a utility VM": Case(
        ("prepare", {"key": "new", "parent": "layer", "labels": UVM}),
        snapshot("active", key="new", parent="layer", uvm_scratch=True),
    ),
    "prepare a base": Case(("prepare", {"key": "new"}), snapshot("active", key="new")),
    "prepare to unpack": Case(
        ("prepare", {"key": "extract-x new", "parent": "layer"}),
        snapshot("active", key="extract-x new", parent="layer"),
    ),
    "prepare in a new store": Case(("prepare", {"key": "new"}), snapshot("active", key="new"), new_store=True),
    "prepare that fails": Case(
        ("prepare", {"key": "new", "parent": "layer", "labels": SIZE}), given=(without_template,), fails=True
    ),
    "prepare that fails late": Case(("prepare", {"key": "new", "parent": "layer", "labels": TOO_LARGE}), fails=True),
    "prepare after a death": Case(
        ("prepare", {"key": "new", "parent": "layer"}),
        snapshot("active", key="new", parent="layer"),
        (leftover, half_removed(1, 3)),
    ),
    "view": Case(("view", {"key": "new", "parent": "layer"}), snapshot("view", key="new", parent="layer")),
    "commit": Case(("commit", {"name": "new", "key": "active"}), snapshot("committed", name="new", key="active")),
    "commit over a late parent": Case(
        ("commit", {"name": "new", "key": "making", "parent": "layer"}),
        snapshot("committed", name="new", key="making", parent="layer"),
    ),
    "commit of a base": Case(
        ("commit", {"name": "new", "key": "making", "labels": {"l": "1"}}),
        snapshot("committed", name="new", key="making", labels={"l": "1"}),
    ),
    "remove": Case(("remove", {"key": "active"}), snapshot("absent", key="active")),
    "remove a view with a disk": Case(("remove", {"key": "viewed"}), snapshot("absent", key="viewed")),
    "remove after a death": Case(
        ("remove", {"key": "active"}), snapshot("absent", key="active"), (half_removed(4, 6),)
    ),
    "remove all": Case(snapshot("absent", name="base", recursive=True), steps=True),
    "a set": Case(
        (
            "ensure_set",
            {
                "snapshots": [
                    {"state": "active", "key": "new", "parent": "made", "rootfs_size": 30 * GIB},
                    {"state": "committed", "name": "made", "key": "active"},
                ],
                "prune": True,
                "prune_filters": ["kind==view"],
            },
        ),
        steps=True,
    ),
    "update": Case(
        ("update", {"name": "layer", "labels": {"l": "1", "m": ""}}),
        snapshot("committed", name="layer", labels={"l": "1"}, purge_labels=True),
    ),
    "grow": Case(("ensure_scratch", {"key": "active", "size": "40GiB"}), steps=True),
    "grow with a new block table": Case(("ensure_scratch", {"key": "active", "size": "200GiB"}), steps=True),
    "import of a base": Case(IMPORT),
    "import of a layer": Case(("ensure_layer", {"name": "new", "src": "{}/layer.tar", "parent": "layer"})),
    "import of what was staged": Case(
        ("ensure_layer", {"name": "new", "src": {"staged": STAGED}}),
        given=((("stage", {"digest": STAGED, "size": len(BASE_TAR), "offset": 0}), lines(BASE_TAR)),),
        steps=True,
    ),
    "import that fails": Case(("ensure_layer", {"name": "new", "src": "{}/layer.tar", "digest": STAGED}), fails=True),
    "import of an image": Case(IMPORT_IMAGE, steps=True),
    "remove the layers of an image": Case(
        ("ensure_image", {"state": "absent", "src": "{}/image.tar"}), given=((IMPORT_IMAGE, b""),), steps=True
    ),
    "export": Case(("ensure_export", {"name": "layer", "dest": "{}/out.tar.gz"})),
    "mount": Case(MOUNT),
    "mount a view": Case(MOUNT_VIEW),
    "unmount": Case(mounted("unmounted", target="{}/mnt"), given=((MOUNT, b""), written), steps=True),
    "unmount by key": Case(
        mounted("unmounted", key="making"),
        given=((MOUNT_VIEW, b""), (mounted("mounted", key="making", target="{}/mnt2"), b"")),
        steps=True,
    ),
    "unmount a view": Case(mounted("unmounted", target="{}/mnt"), given=((MOUNT_VIEW, b""),), steps=True),
    "stage": Case(("stage", {"digest": PIECED, "size": 2800, "offset": 0}), attachment=lines(*PIECES)),
    "unstage": Case(
        ("unstage", {"digest": STAGED}),
        given=((("stage", {"digest": STAGED, "size": len(BASE_TAR), "offset": 0}), lines(BASE_TAR)),),
    ),
}


@pytest.fixture(scope="module")
def requests():
    with kit.Requests() as running:
        yield running


def succeed(
    requests: kit.Requests, workspace: kit.Workspace, operation: tuple[str, Any], attachment: bytes = b""
) -> None:
    name, arguments = operation
    reply = requests.run(workspace.request(name, **arguments), attachment).reply
    assert reply["results"][0]["ok"], (name, arguments, reply)


def fill(requests: kit.Requests, workspace: kit.Workspace) -> None:
    """Make a store with one snapshot of each kind. The comments give their ids."""
    for name, data in (("base.tar", BASE_TAR), ("layer.tar", LAYER_TAR)):
        with open(workspace.path(name), "wb") as file:
            file.write(data)
    sample.write_image(pathlib.Path(workspace.path("image.tar")), "10.0.20348.1")
    for operation in (
        ("ensure_layer", {"name": "base", "src": "{}/base.tar"}),  # 1
        ("prepare", {"key": "k", "parent": "base"}),  # 2
        ("commit", {"key": "k", "name": "below"}),
        ("ensure_layer", {"name": "layer", "src": "{}/layer.tar", "parent": "below", "labels": {"m": "1"}}),  # 3
        ("prepare", {"key": "active", "parent": "layer", "labels": {"l": "1"}}),  # 4
        ("view", {"key": "view", "parent": "layer"}),  # 5
        ("view", {"key": "viewed", "parent": "below"}),  # 6
        ("prepare", {"key": "making"}),  # 7
    ):
        succeed(requests, workspace, operation)
    for key in ("active", "viewed", "making"):
        succeed(requests, workspace, ("mount", {"key": key, "target": "{}/mnt"}))
        if key != "viewed":
            os.makedirs(workspace.path("mnt", "dir"), exist_ok=True)
            with open(workspace.path("mnt", "dir", f"{key}.txt"), "w") as file:
                file.write(key)
        succeed(requests, workspace, ("unmount", {"target": "{}/mnt"}))
    os.rmdir(workspace.path("mnt"))


def give(requests: kit.Requests, workspace: kit.Workspace, case: Case) -> None:
    """Make the state before an operation."""
    for step in case.given:
        if callable(step):
            step(workspace)
        else:
            succeed(requests, workspace, *step)


@pytest.fixture(scope="module")
def workspace(requests):
    # Use memory if possible. What a killed process wrote stays, whether it was flushed or not.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as directory:
        workspace = kit.Workspace(os.path.join(directory, "workspace"))
        workspace.keep("empty")
        fill(requests, workspace)
        workspace.keep("filled")
        yield workspace


def staged(requests: kit.Requests, workspace: kit.Workspace, case: Case) -> dict[str, Any]:
    """Return the rest of a file, from the offset that the node reports. The controller does the same."""
    operation, arguments = case.operation
    have = requests.run(workspace.request(operation, **{**arguments, "offset": None})).reply["results"][0]["result"]
    rest = b"".join(PIECES)[have["offset"] :]
    return requests.run(workspace.request(operation, **{**arguments, "offset": have["offset"]}), lines(rest)).reply


@pytest.mark.parametrize("name", CASES)
def test_killed_anywhere(name, requests, workspace, figures):
    case = CASES[name]
    workspace.back("empty" if case.new_store else "filled")
    give(requests, workspace, case)
    workspace.keep()
    request, again = (
        workspace.request(name, **arguments) for name, arguments in (case.operation, case.again or case.operation)
    )

    log = workspace.directory + ".log"
    if os.path.exists(log):
        os.unlink(log)
    done = requests.run(request, case.attachment, WCOW_FAILPOINTS_LOG=log)
    assert done.reply["results"][0]["ok"] is not case.fails, done.reply
    with open(log, encoding="utf-8") as file:
        passed = file.read().splitlines()
    after = kit.observed(workspace)
    kit.ids(workspace)
    workspace.back()
    before = kit.observed(workspace)
    assert (before == after) is case.fails
    points = kit.chosen(passed)
    for point in points:
        workspace.back()
        assert requests.run(request, case.attachment, WCOW_FAILPOINT=point).killed, point
        found = kit.without_imports(workspace, kit.observed(workspace))
        if case.steps:
            for key in {*before, *after, *found}:
                assert found.get(key) in (before.get(key), after.get(key), kit.HALF), (point, key)
        else:
            assert kit.same(found, before, after), point
        used, leftovers = kit.ids(workspace)
        resumes = case.operation[0] == "stage"
        reply = staged(requests, workspace, case) if resumes else requests.run(again).reply
        assert reply["results"][0]["ok"] is not case.fails, (point, reply)
        assert kit.without_imports(workspace, kit.observed(workspace)) == after, point
        assert (kit.ids(workspace)[0] - used).isdisjoint(leftovers), f"{point}: an id was given out twice"
    figures(failpoints=len(set(passed)), operations_killed=1, kills=len(points), losses=0)


# -- the store as a whole ----------------------------------------------------------------------------------------------


def neglected(workspace: kit.Workspace) -> None:
    """Add one of each problem whose repair takes several steps."""
    snapshots = workspace.path("root", "snapshots")
    for name in ("rm-8", "9"):
        os.makedirs(os.path.join(snapshots, name, "Files", "deep"))
    with open(os.path.join(snapshots, "new-9"), "wb"):
        pass
    half_removed(3)(workspace)
    with open(os.path.join(snapshots, "4", "sandbox.vhdx"), "r+b") as disk:
        for offset in (64 * 1024 + 100, 256 * 1024 + 4):
            disk.seek(offset)
            disk.write(b"damage")
    os.makedirs(workspace.path("root", "incoming"), exist_ok=True)
    upload = workspace.path("root", "incoming", "0" * 64)
    with open(upload, "wb"):
        pass
    os.utime(upload, (0, 0))
    os.chmod(workspace.root, 0o755)
    snapshotter = Snapshotter(workspace.root, EmulatedLayers())
    with snapshotter.store.write() as tx:
        tx.set_owner("active", "process 1")
        tx.set_usage("base", Usage(1, 1))
        tx.skip_ids(9)
    label = label_rules.ROOTFS_SIZE_BYTES
    snapshotter.update("active", {label: str(30 * GIB)}, [f"labels.{label}"])
    snapshotter.prepare("extract-1-2026-11-24T00:00:00.000000000Z-00c0ffee new", "layer")
    snapshotter.close()


def killed_at_each(requests: kit.Requests, workspace: kit.Workspace, request: dict[str, Any]) -> Iterator[str]:
    """Kill a request at each failpoint that it passes. Each time, start from the present state."""
    workspace.keep()
    log = workspace.directory + ".log"
    if os.path.exists(log):
        os.unlink(log)
    assert requests.run(request, WCOW_FAILPOINTS_LOG=log).reply["results"][0]["ok"]
    with open(log, encoding="utf-8") as file:
        points = kit.chosen(file.read().splitlines())
    for point in points:
        workspace.back()
        assert requests.run(request, WCOW_FAILPOINT=point).killed, point
        yield point


def test_a_repair_that_is_killed_is_finished(requests, workspace, figures):
    workspace.back("filled")
    before = kit.observed(workspace)
    neglected(workspace)
    request = workspace.request("check", repair=True)
    kills = 0
    for point in killed_at_each(requests, workspace, request):
        kills += 1
        result = requests.run(request).reply["results"][0]["result"]
        assert result["healthy"], (point, [f for f in result["findings"] if not f["repaired"]])
        assert requests.run(request).reply["results"][0]["result"]["findings"] == [], point
        after = kit.observed(workspace)
        assert after.pop(("active", "labels")) == {"l": "1", label_rules.ROOTFS_SIZE_BYTES: str(30 * GIB)}
        assert after.pop(("active", "disk")) == 30 * GIB
        assert after == {
            key: value for key, value in before.items() if key not in {("active", "labels"), ("active", "disk")}
        }
        kit.ids(workspace)
    figures(operations_killed=1, kills=kills, losses=0)


@pytest.mark.parametrize("lost", [False, True])
def test_a_store_that_is_killed_while_it_is_made(lost, requests, workspace, figures):
    """The root is empty, or has layers and a log without the metadata."""
    workspace.back("filled" if lost else "empty")
    metadata = os.path.join(workspace.root, "metadata.sqlite3")
    if lost:
        for suffix in ("-wal", "-shm"):
            shutil.copyfile(metadata, metadata + suffix)
        os.unlink(metadata)
    request = workspace.request("ensure_store", rootfs_size="40GB", force=lost)
    kills = 0
    for point in killed_at_each(requests, workspace, request):
        kills += 1
        if not lost:
            kit.ids(workspace)
        store = requests.run(request).reply["results"][0]["result"]["store"]
        assert (store["protected"], store["rootfs_size"], store["snapshots"]) == (True, 40 * GIB, 0), point
        assert lost is os.path.exists(metadata + ".lost-wal"), point
    figures(operations_killed=1, kills=kills, losses=0)


@pytest.mark.parametrize("next_state", ["absent", "present"])
def test_a_store_that_is_killed_while_it_is_removed(next_state, requests, workspace, figures):
    workspace.back("filled")
    for operation in ((MOUNT, b""), (mounted("mounted", key="making", target="{}/mnt2"), b"")):
        succeed(requests, workspace, *operation)
    remove = workspace.request("ensure_store", state="absent", force=True)
    kills = 0
    for point in killed_at_each(requests, workspace, remove):
        kills += 1
        request = remove if next_state == "absent" else workspace.request("ensure_store", rootfs_size="40GB")
        reply = requests.run(request).reply["results"][0]
        assert reply["ok"], (point, reply)
        if next_state == "absent":
            assert not os.path.lexists(workspace.root), point
        else:
            kit.observed(workspace)
            kit.ids(workspace)
            succeed(requests, workspace, ("prepare", {"key": "after"}))
            assert requests.run(remove).reply["results"][0]["ok"], point
            assert not os.path.lexists(workspace.root), point
    figures(operations_killed=1, kills=kills, losses=0)
