# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Windows layer store in Windows Python, with the stand-in DLLs: run by test_layers.py."""

from __future__ import annotations

import collections
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from core.errors import FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from core.formats.tar import layertar
from core.formats.vhdx import creation
from core.layers.windows import attachment, mounts, record
from core.layers.windows.store import WindowsLayers
from core.snapshotter import Snapshotter
from core.win32 import bindflt, kernel32, ntdll, trace, vmcompute

GIB = 1024**3
MTIME = 1_600_000_000_123_456_700
SIZE = {"containerd.io/snapshot/windows/rootfs.sizebytes": str(40 * GIB)}
CONFIG = "Files/Windows/System32/config"
BOOT = "UtilityVM/Files/EFI/Microsoft/Boot"
BASE = [
    ("Files", None),
    ("Files/a.txt", b"a in the base"),
    ("Files/gone.txt", b"to be deleted"),
    ("Files/hard.txt", "Files/a.txt"),
    ("Files/notes.txt", b"main"),
    ("Files/notes.txt:more", b"in a stream"),
    ("Files/empty", b""),
]
UTILITY_VM = [
    *(("/".join(BOOT.split("/")[: count + 1]), None) for count in range(len(BOOT.split("/")))),
    (BOOT + "/BCD", b"regf BCD"),
    ("UtilityVM/Files/kernel.exe", b"kernel"),
]
LAYER = [
    ("Files", None),
    ("Files/.wh.gone.txt", b""),
    ("Files/new", None),
    ("Files/new/b.txt", b"b"),
    ("Files/new/again.txt", "Files/new/b.txt"),
    ("Files/from-base.txt", "Files/a.txt"),
    ("Hives", None),
    ("Hives/System_Delta", b"regf"),
]


def tar(*entries):
    data = b""
    for name, what in entries:
        content = what if isinstance(what, bytes) else b""
        kind = layertar.DIRECTORY if what is None else layertar.HARD_LINK if what != content else layertar.FILE
        if "/.wh." in name:
            kind = layertar.WHITEOUT
        pax = {layertar.FILE_ATTRIBUTES: "16" if what is None else "32"} if ":" not in name else {}
        link = what if kind == layertar.HARD_LINK else ""
        data += layertar.header(name.replace(".wh.", ""), kind, size=len(content), mtime_ns=MTIME, link=link, pax=pax)
        data += content + layertar.padding(len(content))
    return data + layertar.END_MARK


@pytest.fixture(autouse=True)
def standins(tmp_path, monkeypatch):
    """A log for each test, real templates, and a volume that can be opened."""
    blank = tmp_path / "blank.vhdx"
    creation.create(blank, 20 * GIB)
    for name in ("WCSTUB_BLANK", "WCSTUB_UVM"):
        monkeypatch.setenv(name, str(blank))
    monkeypatch.setenv("WCSTUB_LOG", str(tmp_path / "stub.log"))
    monkeypatch.setenv("WCSTUB_VOLUME", "\\\\?\\C:\\")
    monkeypatch.setenv("WCSTUB_RULES", "")
    return tmp_path


class Store:
    def __init__(self, top):
        self.top = str(top)
        self.root = os.path.join(self.top, "root")
        self.layers = WindowsLayers()
        self.snapshotter = Snapshotter(self.root, self.layers)

    def base(self, *more):
        self.unpack("base", "", *BASE, *more)
        return self

    def unpack(self, name, parent, *entries):
        return self.snapshotter.import_layer(name, parent, {}, lambda unpack: unpack(io.BytesIO(tar(*entries))))

    def path(self, *parts):
        return os.path.join(self.root, "snapshots", *parts)

    def write(self, number, text="changed", name="a.txt"):
        """Write as a container does: the stand-in keeps the contents of a scratch disk in a directory next to it."""
        directory = self.path(str(number), "sandbox.contents", "Files")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, name), "w") as file:
            file.write(text)

    def tree(self):
        return sorted(
            os.path.relpath(os.path.join(directory, name), self.root)
            for directory, directories, files in os.walk(self.path())
            for name in [*directories, *files]
        )

    def transport(self):
        """The transport folders that exist."""
        top = os.path.join(self.root, "transport")
        return os.listdir(top) if os.path.isdir(top) else []

    def state(self):
        snapshots = [info._replace(updated="") for info in self.snapshotter.walk()]
        return [snapshot._replace(created="") for snapshot in snapshots], self.tree(), self.transport()


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path)
    yield opened
    opened.snapshotter.close()


def calls(start=0):
    """The names of the calls after byte ``start`` of the log, and the end of the log."""
    try:
        with open(os.environ["WCSTUB_LOG"], encoding="utf-8") as log:
            log.seek(start)
            text = log.read()
            return re.findall(r"^\d+ (?:p\w+ )?(?:t\w+ )?(\w+)", text, re.MULTILINE), log.tell()
    except FileNotFoundError:
        return [], 0


# -- each call failing in turn ---------------------------------------------------------------------------------------


def prepared(store):
    store.base().snapshotter.prepare("key", "base")
    store.write(2)


def mounted(store):
    prepared(store)
    store.snapshotter.mount("key", store.top + "\\mnt")


def unfinished_base(store):
    store.snapshotter.prepare("key")
    with open(store.path("1", "Files", "a.txt"), "w") as file:
        file.write("a")


def with_utility_vm(store):
    unfinished_base(store)
    os.makedirs(store.path("1", *BOOT.split("/")))
    with open(store.path("1", *BOOT.split("/"), "BCD"), "w") as file:
        file.write("regf")


def viewed(store):
    store.base().snapshotter.view("key", "base")


def export(store):
    out = io.BytesIO()
    store.layers.export_layer(store.path("2"), [store.path("1")], out)


OPERATIONS = {
    "import of a base": (id, lambda store: store.base(*UTILITY_VM)),
    "import of a layer": (lambda store: store.base(), lambda store: store.unpack("layer", "base", *LAYER)),
    "import into a utility VM": (
        lambda store: store.base(*UTILITY_VM),
        lambda store: store.unpack("layer", "base", *LAYER, *UTILITY_VM[:2], ("UtilityVM/Files/new.exe", b"new")),
    ),
    "prepare with a size": (lambda store: store.base(), lambda store: store.snapshotter.prepare("key", "base", SIZE)),
    "grow": (prepared, lambda store: store.snapshotter.grow_scratch("key", 40 * GIB)),
    "commit": (prepared, lambda store: store.snapshotter.commit("name", "key")),
    "commit of a base": (unfinished_base, lambda store: store.snapshotter.commit("name", "key")),
    "commit of a base with a utility VM": (with_utility_vm, lambda store: store.snapshotter.commit("name", "key")),
    "export": (prepared, export),
    "mount": (prepared, lambda store: store.snapshotter.mount("key", store.top + "\\mnt")),
    "mount of a view": (viewed, lambda store: store.snapshotter.mount("key", store.top + "\\mnt")),
    "unmount": (mounted, lambda store: store.snapshotter.unmount(store.top + "\\mnt")),
    "remove": (prepared, lambda store: store.snapshotter.remove("key")),
}

# These calls end or undo an operation. If they fail, the operation succeeds, and the next one repeats them.
FORGIVEN = {("commit", "DeactivateLayer"), ("export", "DeactivateLayer")}

# What these have done stays, and the next attempt continues from it: hives, a view's disk, an ended mapping.
CONTINUED = {"commit of a base", "commit of a base with a utility VM", "mount of a view", "unmount"}

codes = itertools.count(25000)
# The stand-ins count per text of a rule without its action, so each use adds a zero before the number.
zeros = collections.Counter()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("when", ["", "after:"], ids=["instead", "afterwards"])
def test_each_call_failing_in_turn(operation, when, tmp_path, monkeypatch):
    prepare, run = OPERATIONS[operation]
    whole = Store(tmp_path / "whole")
    prepare(whole)
    _, start = calls()
    run(whole)
    made, _ = calls(start)
    expected = whole.state()
    whole.snapshotter.close()
    assert made
    for number, call in enumerate(made):
        if call in {"ORCloseHive", "NameToGuid", "OpenVirtualDisk", "BfSetupFilter"} and when:
            # Their result is not used after a failure.
            continue
        store = Store(tmp_path / str(number))
        prepare(store)
        before = store.state()
        code = next(codes)
        raised = f"0x{0x80070000 | code:x}" if call[:2] != "OR" and "VirtualDisk" not in call else str(code)
        zeros[call] += 1
        count = made[: number + 1].count(call)
        monkeypatch.setenv("WCSTUB_RULES", f"{call}:{'0' * zeros[call]}{count}={when}{raised}")
        if (operation, call) in FORGIVEN:
            run(store)
        elif call == "DestroyLayer":
            run(store)
            (warning,) = store.snapshotter.warnings
            assert re.search(rf"hcsshim::DestroyLayer failed in Win32: .*\(0x{code:x}\)", warning)
            monkeypatch.setenv("WCSTUB_RULES", "")
            store.layers.destroy(store.path("rm-2"))
        else:
            with pytest.raises(SnapshotterError) as caught:
                run(store)
            assert f"(0x{code:x})" in caught.value.message
            assert caught.value.details["call"] == call
            monkeypatch.setenv("WCSTUB_RULES", "")
            snapshots, tree, temporary = store.state()
            assert snapshots == before[0]
            assert temporary == []
            if not when:
                assert tree == before[1] or (operation in CONTINUED and set(before[1]) <= set(tree))
            run(store)
        monkeypatch.setenv("WCSTUB_RULES", "")
        snapshots, tree, temporary = store.state()
        assert [name for name in tree if not name.endswith("attachment.json")] == [
            name for name in expected[1] if not name.endswith("attachment.json")
        ] or operation.startswith(("import", "prepare"))
        assert [snapshot.name for snapshot in snapshots] == [snapshot.name for snapshot in expected[0]]
        assert temporary == []
        for snapshot in snapshots:
            assert_detached(store, str(snapshot.id))
        store.snapshotter.close()


def assert_detached(store, number):
    """A layer that can be renamed is not attached."""
    if store.layers.mounted_at(store.path(number)):
        store.snapshotter.unmount(store.top + "\\mnt")
    if os.path.isdir(store.path(number)):
        mounts.finish_interrupted_work(store.path(number))
        attachment.release(store.path(number))
        os.rename(store.path(number), store.path("moved"))
        os.rename(store.path("moved"), store.path(number))


# -- scratch disks ---------------------------------------------------------------------------------------------------


def test_scratch_disks(store):
    store.base().snapshotter.prepare("key", "base", SIZE)
    found = store.snapshotter.scratch("key")
    # The stand-in does not grow disks.
    assert found == (store.path("2", "sandbox.vhdx"), 20 * GIB, os.path.getsize(found.path), False, None)
    store.snapshotter.mount("key", store.top + "\\mnt")
    attached = store.snapshotter.scratch("key")
    assert attached.attached
    assert attached.virtual_size == 20 * GIB
    assert attached.volume_size == kernel32.volume_size("C:\\")
    with pytest.raises(FailedPrecondition, match="mounted at .*mnt: unmount it first"):
        store.snapshotter.grow_scratch("key", 50 * GIB)
    store.snapshotter.unmount(store.top + "\\mnt")
    assert store.snapshotter.grow_scratch("key", 50 * GIB).attached is False
    with pytest.raises(InvalidArgument, match="64 TiB"):
        store.snapshotter.grow_scratch("key", 1 << 50)
    assert store.layers.template_info([store.path("1")]).virtual_size == 20 * GIB
    with pytest.raises(FailedPrecondition, match="no parent layers present"):
        store.layers.template_info([])


def test_a_disk_in_use_is_attached(store):
    store.base().snapshotter.prepare("key", "base")
    vmcompute.activate_layer(store.path("2"))
    assert store.snapshotter.scratch("key").attached
    vmcompute.deactivate_layer(store.path("2"))
    assert not store.snapshotter.scratch("key").attached


def test_a_read_only_template_is_copied(store):
    """It is only read; containerd opens it for writing. The scratch is not read-only."""
    store.base()
    os.chmod(store.path("1", "blank.vhdx"), 0o444)
    store.snapshotter.prepare("key", "base")
    with open(store.path("2", "sandbox.vhdx"), "r+b"):
        pass
    os.chmod(store.path("1", "blank.vhdx"), 0o666)


def test_a_template_that_only_windows_reads_is_copied(store, monkeypatch):
    monkeypatch.delenv("WCSTUB_BLANK")
    store.base().snapshotter.prepare("key", "base")
    assert os.path.getsize(store.path("2", "sandbox.vhdx")) == 19
    with pytest.raises(FailedPrecondition):
        store.snapshotter.scratch("key")


# -- mounts ----------------------------------------------------------------------------------------------------------


def test_mounting_again_changes_nothing(store):
    prepared(store)
    target = store.top + "\\deep\\mnt"
    store.snapshotter.mount("key", target)
    _, start = calls()
    store.snapshotter.mount("key", target.upper().replace("C:", "c:"))
    assert calls(start)[0] == []
    assert store.layers.mounted_at(store.path("2")) == [target]
    assert store.layers.mounted_layer(target) == store.path("2")
    with open(target + ":containerd.io-source") as stream:
        assert stream.read() == store.path("2")
    for refused in ("remove", "commit"):
        with pytest.raises(FailedPrecondition, match="it is mounted at .*mnt; unmount it first"):
            getattr(store.snapshotter, refused)(*(["name", "key"] if refused == "commit" else ["key"]))
    with pytest.raises(FailedPrecondition, match="is mounted at .* already"):
        store.snapshotter.mount("key", store.top + "\\other")
    store.snapshotter.view("view", "base")
    with pytest.raises(FailedPrecondition, match=r"is a mount of .*2 already: unmount it first"):
        store.snapshotter.mount("view", target)
    with pytest.raises(InvalidArgument, match="lies in the mount at"):
        store.snapshotter.mount("view", target + "\\below")
    store.snapshotter.unmount(target)
    store.snapshotter.unmount(target)
    assert store.layers.mounted_at(store.path("2")) == []
    assert store.layers.mounted_layer(target) is None
    assert os.listdir(target) == []
    store.snapshotter.mount("view", target)
    flags = bindflt.READ_ONLY_MAPPING | bindflt.NO_MULTIPLE_TARGETS
    with open(os.environ["WCSTUB_LOG"], encoding="utf-8") as log:
        assert f" flags={flags:#x} " in [line for line in log if "BfSetupFilter" in line][-1]
    store.snapshotter.unmount(target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("C:\\", "root of a volume"),
        ("{root}\\snapshots\\2\\in", "lie in one another"),
        ("{root}", "lie in one another"),
    ],
)
def test_targets_that_are_refused(store, target, message):
    prepared(store)
    with pytest.raises(InvalidArgument, match=message):
        store.snapshotter.mount("key", target.format(root=store.root))


def test_a_target_that_is_not_empty_is_refused(store):
    prepared(store)
    os.makedirs(store.top + "\\mnt\\something")
    with pytest.raises(FailedPrecondition, match="is not an empty directory"):
        store.snapshotter.mount("key", store.top + "\\mnt")
    assert calls()[0] == ["ProcessBaseImage"]


def restart(store):
    """Do what a restart of the host does: mappings and attachments are gone, and so is what the mapping showed."""
    target = store.top + "\\mnt"
    bindflt.remove_mapping(target)
    vmcompute.unprepare_layer(store.path("2"))
    vmcompute.deactivate_layer(store.path("2"))
    os.unlink(target + ":containerd.io-source")


@pytest.mark.parametrize("operation", ["mount", "unmount", "commit", "remove", "mount elsewhere", "grow"])
def test_after_a_restart_of_the_host(store, operation):
    mounted(store)
    restart(store)
    assert store.layers.mounted_at(store.path("2")) == []
    assert store.layers.mounted_layer(store.top + "\\mnt") == store.path("2")
    if operation == "mount":
        store.snapshotter.mount("key", store.top + "\\mnt")
        assert store.layers.mounted_at(store.path("2")) == [store.top + "\\mnt"]
    elif operation == "mount elsewhere":
        store.snapshotter.mount("key", store.top + "\\other")
        store.snapshotter.unmount(store.top + "\\mnt")
        assert store.layers.mounted_at(store.path("2")) == [store.top + "\\other"]
    elif operation == "unmount":
        store.snapshotter.unmount(store.top + "\\mnt")
        assert not os.path.exists(store.path("2", "attachment.json"))
    elif operation == "commit":
        store.snapshotter.commit("name", "key")
    elif operation == "grow":
        store.snapshotter.grow_scratch("key", 40 * GIB)
    else:
        store.snapshotter.remove("key")
        assert not os.path.exists(store.path("2"))


@pytest.mark.parametrize("depth", ["active", "prepared"])
def test_remove_detaches_what_an_ended_process_left(store, depth):
    prepared(store)
    record.write(store.path("2"), record.Attachment("", read_only=False))
    vmcompute.activate_layer(store.path("2"))
    if depth == "prepared":
        vmcompute.prepare_layer(store.path("2"), [store.path("1")])
    store.snapshotter.remove("key")
    assert store.snapshotter.warnings == []
    assert not os.path.exists(store.path("2"))
    assert not os.path.exists(store.path("rm-2"))


def test_remove_deactivates_what_another_program_left_active(store):
    """As containerd does."""
    prepared(store)
    vmcompute.activate_layer(store.path("2"))
    store.snapshotter.remove("key")
    assert not os.path.exists(store.path("2"))


@pytest.mark.parametrize("operation", ["commit", "mount", "export", "remove"])
def test_a_layer_that_another_program_has_prepared_is_left_to_it(store, monkeypatch, operation):
    """A container runs in it: without the filter it would lose its files."""
    prepared(store)
    vmcompute.activate_layer(store.path("2"))
    vmcompute.prepare_layer(store.path("2"), [store.path("1")])
    before, (_, start) = store.state(), calls()
    code = "0xaa" if operation == "remove" else "0xb7"
    with pytest.raises(SnapshotterError, match=rf"\({code}\)") as caught:
        OPERATIONS[operation][1](store)
    assert "a container runs in it" in caught.value.details["advice"]
    assert store.state() == before
    made = calls(start)[0]
    assert "UnprepareLayer" not in made
    assert operation == "remove" or "DeactivateLayer" not in made
    # Still prepared: this succeeds once.
    vmcompute.unprepare_layer(store.path("2"))


@pytest.mark.parametrize("operation", ["commit", "mount", "export", "remove"])
def test_after_a_restart_a_container_has_the_layer(store, monkeypatch, operation):
    """The record of our mount is from before the restart, so what is attached is not ours."""
    mounted(store)
    restart(store)
    started = ntdll.get_boot_time()
    monkeypatch.setattr(ntdll, "get_boot_time", lambda: started + 3600 * 10**7)
    vmcompute.activate_layer(store.path("2"))
    vmcompute.prepare_layer(store.path("2"), [store.path("1")])
    _, start = calls()
    with pytest.raises(SnapshotterError, match=r"\(0x(aa|b7)\)"):
        OPERATIONS[operation][1](store)
    assert "UnprepareLayer" not in calls(start)[0]
    vmcompute.unprepare_layer(store.path("2"))


@pytest.mark.parametrize("operation", ["commit", "mount", "export", "remove"])
def test_a_conversion_that_died_is_undone_by_what_comes_next(store, operation):
    prepared(store)
    record.write(store.path("2"), record.Attachment("", read_only=False))
    vmcompute.activate_layer(store.path("2"))
    vmcompute.prepare_layer(store.path("2"), [store.path("1")])
    OPERATIONS[operation][1](store)


def test_a_mount_that_cannot_be_undone_is_undone_by_the_next_one(store, monkeypatch):
    prepared(store)
    target = store.top + "\\mnt"
    monkeypatch.setenv("WCSTUB_RULES", "BfSetupFilter@cannot:1=0x80070005;UnprepareLayer@cannot:1=0x80070006")
    with pytest.raises(SnapshotterError, match=r"failed to bind target .* \(0x5\)"):
        store.snapshotter.mount("key", target)
    assert not os.path.exists(target)
    monkeypatch.setenv("WCSTUB_RULES", "")
    store.snapshotter.mount("key", target)
    assert store.layers.mounted_at(store.path("2")) == [target]
    store.snapshotter.unmount(target)


def test_transient_errors_of_server_2019_are_tried_again(store, monkeypatch):
    prepared(store)
    _, start = calls()
    monkeypatch.setenv("WCSTUB_RULES", "PrepareLayer:1=0x80070015;PrepareLayer:2=0x8007048f")
    store.snapshotter.mount("key", store.top + "\\mnt")
    made = [call for call in calls(start)[0] if call in {"ActivateLayer", "PrepareLayer", "DeactivateLayer"}]
    assert made == ["ActivateLayer", "PrepareLayer", "DeactivateLayer"] * 2 + ["ActivateLayer", "PrepareLayer"]
    store.snapshotter.unmount(store.top + "\\mnt")
    monkeypatch.setenv("WCSTUB_RULES", "ActivateLayer:*=0x80070015")
    with pytest.raises(SnapshotterError, match="layer retry loop failed: failed to activate layer"):
        store.snapshotter.mount("key", store.top + "\\mnt")


# -- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", ["", "base"])
@pytest.mark.parametrize("fault", ["cut", "whiteout", "attribute"])
def test_a_layer_that_was_not_read_to_its_end_is_never_finished(store, parent, fault):
    store.base()
    whole = tar(*LAYER)
    bad = layertar.header("Files/z", layertar.FILE, pax={layertar.FILE_ATTRIBUTES: "x"}) + layertar.END_MARK
    data = {
        "cut": whole[:-1500],
        "whiteout": whole if not parent else whole[: -len(layertar.END_MARK)] + bad,
        "attribute": whole[: -len(layertar.END_MARK)] + bad,
    }[fault]
    _, start = calls()

    def fill(unpack):
        snapshots = os.path.join(store.snapshotter.root, "snapshots")
        newest = max((name for name in os.listdir(snapshots) if name.isdigit()), key=int)
        try:
            return unpack(io.BytesIO(data))
        finally:
            assert os.listdir(os.path.join(snapshots, newest)) == []

    with pytest.raises(SnapshotterError):
        store.snapshotter.import_layer("bad", parent, {}, fill)
    assert calls(start)[0] == ["DestroyLayer"]
    assert store.transport() == []
    assert store.tree() == store.tree()


def test_entries_do_not_pass_through_a_junction_of_the_layer(store, tmp_path):
    (tmp_path / "outside").mkdir()
    link = layertar.header("Files/link", layertar.SYMLINK, link="C:\\Windows", pax={layertar.FILE_ATTRIBUTES: "1040"})
    data = tar(("Files", None))[: -len(layertar.END_MARK)] + link + tar(("Files/link/x", b"x"))
    with pytest.raises(InvalidArgument, match="lies below 'Files/link'"):
        store.snapshotter.import_layer("bad", "", {}, lambda unpack: unpack(io.BytesIO(data)))


@pytest.mark.parametrize(
    "entry",
    [
        layertar.header("Files/new.txt", layertar.HARD_LINK, link="Files/way/secret.txt"),
        layertar.header("Files/way/secret.txt", layertar.WHITEOUT),
    ],
    ids=["hard link", "whiteout"],
)
def test_nothing_is_reached_through_a_junction_of_a_parent(store, tmp_path, monkeypatch, entry):
    monkeypatch.setenv("WCSTUB_CONTENTS", "1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    junction = {layertar.FILE_ATTRIBUTES: "1040", layertar.MOUNT_POINT: "1"}
    top = tar(("Files", None)).removesuffix(layertar.END_MARK)
    way = layertar.header("Files/way", layertar.SYMLINK, link=str(outside), pax=junction)

    def unpack(name, parent, data):
        stream = io.BytesIO(data + layertar.END_MARK)
        store.snapshotter.import_layer(name, parent, {}, lambda unpack: unpack(stream))

    unpack("base", "", top + way)
    with pytest.raises(InvalidArgument, match="way"):
        unpack("layer", "base", top + entry)
    assert [info.name for info in store.snapshotter.walk()] == ["base"]
    assert os.listdir(store.path()) == ["1"]
    assert store.transport() == []
    assert (outside / "secret.txt").read_text() == "secret"


def test_a_base_layer_deletes_nothing(store):
    with pytest.raises(InvalidArgument, match=r"base layer cannot have tombstones.*Files/gone\.txt"):
        store.unpack("base", "", *BASE, ("Files/.wh.gone.txt", b""))
    assert store.snapshotter.walk() == []
    assert os.listdir(store.path()) == []
    assert "ProcessBaseImage" not in calls()[0]


def test_parents_of_one_name_are_refused(store):
    """Windows identifies layers by the names of their directories, which may be equal in two stores."""
    store.base().snapshotter.prepare("key", "base")
    other = Store(store.top + "\\other").base()
    other.snapshotter.close()
    parents = [store.path("1"), other.path("1")]
    tree = store.tree()
    for operation in (
        lambda: store.layers.convert(store.path("2"), parents),
        lambda: store.layers.export_layer(store.path("2"), parents, io.BytesIO()),
        lambda: store.layers.mount(store.path("2"), parents, store.top + "\\mnt", read_only=False),
    ):
        with pytest.raises(InvalidArgument, match=r"root\\snapshots\\1 and .*other\\root\\snapshots\\1 have the same"):
            operation()
        assert store.tree() == tree
        assert_detached(store, "2")
    assert "PrepareLayer" not in calls()[0]
    os.makedirs(store.path("3"))
    with pytest.raises(InvalidArgument, match="have the same directory name"):
        store.layers.import_layer(store.path("3"), parents, io.BytesIO(tar(*LAYER)))
    assert os.listdir(store.path("3")) == []
    assert "ImportLayer" not in calls()[0]


def test_a_conversion_that_was_not_committed_leaves_nothing_to_the_next(store, monkeypatch):
    monkeypatch.setenv("WCSTUB_CONTENTS", "1")
    target = store.top + "\\mnt"
    store.base().snapshotter.prepare("key", "base")
    store.snapshotter.mount("key", target)
    for name in ("new.txt", "kept.txt"):
        with open(f"{target}\\{name}", "w") as file:
            file.write(name)
    store.snapshotter.unmount(target)
    monkeypatch.setenv("WCSTUB_RULES", "ImportLayer@snapshots:1=after:0x80070005")
    with pytest.raises(SnapshotterError, match="ImportLayer"):
        store.snapshotter.commit("name", "key")
    monkeypatch.setenv("WCSTUB_RULES", "")
    store.snapshotter.mount("key", target)
    os.unlink(target + "\\new.txt")
    store.snapshotter.unmount(target)
    store.snapshotter.commit("name", "key")
    store.snapshotter.view("look", "name")
    store.snapshotter.mount("look", target)
    assert {"new.txt", "kept.txt"} & set(os.listdir(target)) == {"kept.txt"}
    store.snapshotter.unmount(target)


def contents(data):
    """The entries of a tar with their bytes, without the time of change, which Wine does not set."""
    reader = layertar.LayerReader(io.BytesIO(data))
    return [
        (entry._replace(pax={key: value for key, value in entry.pax.items() if key != "ctime"}), reader.read(1 << 20))
        for entry in reader
    ]


def test_round_trips(store):
    store.base(*UTILITY_VM)
    out = io.BytesIO()
    store.layers.export_layer(store.path("1"), [], out)
    again = io.BytesIO()
    store.snapshotter.import_layer("again", "", {}, lambda unpack: unpack(io.BytesIO(out.getvalue())))
    store.layers.export_layer(store.path("2"), [], again)
    first, second = (contents(data.getvalue()) for data in (out, again))
    assert second == first
    names = [entry.name for entry, _ in first]
    assert "Files/notes.txt" in names
    assert BOOT + "/BCD" in names
    assert not [name for name in names if "vhdx" in name]


def test_streams_of_directories_are_kept_but_not_that_of_a_mount(store):
    prepared(store)
    files = store.path("2", "sandbox.contents", "Files")
    os.makedirs(files + "\\sub")
    for path in (files + ":containerd.io-source", files + "\\sub:mine"):
        with open(path, "w") as stream:
            stream.write("x")
    with open(files + "\\a.txt", "w") as file:
        file.write("changed")
    # What a tar cannot hold is left out, as in hcsshim.
    out = io.BytesIO()
    store.layers.export_layer(store.path("2"), [store.path("1")], out)
    assert [entry.name for entry, _ in contents(out.getvalue())][:3] == ["Files", "Files/a.txt", "Files/sub"]
    store.snapshotter.commit("name", "key")
    with open(store.path("2", "Files", "sub:mine")) as stream:
        assert stream.read() == "x"
    assert not os.path.exists(store.path("2", "Files:containerd.io-source"))


def test_a_layer_over_a_utility_vm_shares_its_files_but_not_its_boot_configuration(store):
    store.base(*UTILITY_VM)
    store.unpack("layer", "base", ("Files", None), *UTILITY_VM[:2], ("UtilityVM/Files/new.exe", b"new"))
    kernel, boot = (
        os.stat(store.path("2", *name.split("/"))) for name in ("UtilityVM/Files/kernel.exe", BOOT + "/BCD")
    )
    assert (kernel.st_nlink, boot.st_nlink) == (2, 1)
    assert os.path.exists(store.path("2", "UtilityVM", "SystemTemplate.vhdx"))


def test_a_base_unfinished_base_becomes_a_base_or_a_layer(store):
    unfinished_base(store)
    store.snapshotter.commit("base", "key")
    for hive in ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM"):
        assert os.path.isfile(store.path("1", *CONFIG.split("/"), hive))
    store.snapshotter.prepare("other")
    with open(store.path("2", "Files", "b.txt"), "w") as file:
        file.write("b")
    _, start = calls()
    store.snapshotter.commit("rebased", "other", parent="base")
    assert calls(start)[0] == ["NameToGuid", "ImportLayer"]
    with open(store.path("2", "Files", "b.txt")) as file:
        assert file.read() == "b"
    assert store.snapshotter.stat("rebased").parent == "base"
    assert not os.path.exists(store.path("2", "blank.vhdx"))


def test_a_utility_vm_needs_its_boot_configuration(store):
    unfinished_base(store)
    os.makedirs(store.path("1", "UtilityVM", "Files"))
    with pytest.raises(FailedPrecondition, match=r"UtilityVM must contain .*: failed to find .*Boot\\BCD"):
        store.snapshotter.commit("base", "key")
    assert "ProcessBaseImage" not in calls()[0]
    os.makedirs(store.path("1", *BOOT.split("/")))
    with open(store.path("1", *BOOT.split("/"), "BCD"), "w") as file:
        file.write("regf")
    store.snapshotter.commit("base", "key")
    assert calls()[0][-2:] == ["ProcessBaseImage", "ProcessUtilityImage"]


def test_usage_counts_hard_links_once(store):
    store.base()
    usage = store.snapshotter.usage("base")
    lengths = {}
    count = 1
    for directory, directories, files in os.walk(store.path("1")):
        count += len(directories)
        for name in files:
            status = os.stat(os.path.join(directory, name))
            lengths[status.st_ino] = status.st_size
    assert usage == (sum(lengths.values()), count + len(lengths))


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_crash_of_destroy_layer_kills_only_its_helper(store, monkeypatch):
    prepared(store)
    monkeypatch.setenv("WCSTUB_RULES", "DestroyLayer:1=crash")
    store.snapshotter.remove("key")
    (warning,) = store.snapshotter.warnings
    assert "(0xc0000420)" in warning
    assert os.path.isdir(store.path("rm-2"))
    with pytest.raises(NotFound):
        store.snapshotter.stat("key")


def test_a_helper_that_fails_before_its_call_destroyed_nothing(store, monkeypatch):
    prepared(store)
    monkeypatch.setattr(sys, "executable", os.path.join(os.environ["SYSTEMROOT"], "system32", "hostname.exe"))
    store.snapshotter.remove("key")
    (warning,) = store.snapshotter.warnings
    assert "cannot destroy layer" in warning
    assert os.path.isdir(store.path("rm-2"))


def test_destroy_refuses_what_is_mounted_and_takes_what_is_missing(store):
    mounted(store)
    with pytest.raises(FailedPrecondition, match="is mounted at"):
        store.layers.destroy(store.path("2"))
    store.layers.destroy(store.path("9"))
    assert "DestroyLayer" not in calls()[0]


# -- paths and the host ----------------------------------------------------------------------------------------------


def test_paths(store):
    native = store.layers.native
    assert native("c:/data/./x/../store/") == "c:\\data\\store"
    assert native("\\\\?\\C:\\data") == "C:\\data"
    assert native("C:\\") == "C:\\"
    for path in (
        "",
        "data",
        "C:data",
        "\\data",
        "\\\\host\\share",
        "/data",
        "C:\\a:b",
        "C:\\a?b",
        "C:\\a\0b",
        "\\\\?\\UNC\\a",
    ):
        with pytest.raises(InvalidArgument):
            native(path)
    assert store.layers.filesystem_type(store.top + "\\not\\there") == "NTFS"


def test_what_is_missing_is_listed_at_once(monkeypatch):
    from core.win32 import advapi32, ntdll

    monkeypatch.setattr(advapi32, "is_administrator", lambda: False)
    monkeypatch.setattr(ntdll, "get_version", lambda: ntdll.Version(10, 0, 14393))
    monkeypatch.setattr(bindflt.DLL, "missing", lambda: ["bindfltapi.dll"])
    monkeypatch.setattr(WindowsLayers, "filesystem_type", lambda *_: "ReFS")
    with pytest.raises(FailedPrecondition) as caught:
        Snapshotter("C:\\t", WindowsLayers())
    assert len(caught.value.details["missing"]) == 4
    assert re.search(r"17763.*14393.*bindfltapi\.dll.*administrator.*NTFS.*ReFS", caught.value.message)


def test_long_paths(store):
    store.base()
    deep = "/".join(["d" * 100] * 10)
    parents = ["/".join(["Files", *deep.split("/")[:count]]) for count in range(11)]
    store.unpack("deep", "base", *((name, None) for name in parents), (f"Files/{deep}/file", b"deep"))
    assert store.snapshotter.usage("deep").size
    store.snapshotter.remove("deep")
    assert store.snapshotter.warnings == []


@pytest.fixture
def ask(tmp_path):
    """Run each request in a process of its own, as on a node: the stand-ins forget their state in between."""
    root = str(tmp_path / "root")

    def make(*operations, rules="", dies=False, contents="0"):
        request = {
            "protocol": 1,
            "root": root,
            "layers": "auto",
            "operations": [{"operation": name, "arguments": arguments} for name, arguments in operations],
        }
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-m", "core.door"],
            input=json.dumps(request),
            env={**os.environ, "WCSTUB_RULES": rules, "WCSTUB_CONTENTS": contents},
            capture_output=True,
            text=True,
            check=False,
        )
        if dies:
            assert done.returncode == 0xC0000420
            return []
        reply = json.loads(done.stdout)
        assert all(result["ok"] for result in reply["results"]), reply
        return [result["result"] for result in reply["results"]]

    return make


def test_through_the_door(ask, tmp_path):
    target = str(tmp_path / "mnt")
    ask(("prepare", {"key": "key"}))
    ask(("commit", {"name": "base", "key": "key"}))
    ask(("prepare", {"key": "c1", "parent": "base"}))
    ask(("mount", {"key": "c1", "target": target}))
    ask(("mount", {"key": "c1", "target": target}))
    ask(("unmount", {"target": target}))
    ask(("unmount", {"target": target}))
    ask(("commit", {"name": "layer", "key": "c1"}))
    assert [info["name"] for info in ask(("walk", {}))[0]] == ["base", "layer"]
    ask(("remove", {"key": "layer"}), ("remove", {"key": "base"}))
    assert os.listdir(tmp_path / "root" / "snapshots") == []


# With contents, layers stay attached after the process that attached them has ended.
@pytest.mark.parametrize("contents", ["0", "1"])
@pytest.mark.parametrize("call", ["ActivateLayer", "PrepareLayer", "ExportLayer", "ImportLayer", "DeactivateLayer"])
def test_a_commit_whose_process_died_is_repeated(ask, tmp_path, call, contents):
    ask(("prepare", {"key": "key"}), ("commit", {"name": "base", "key": "key"}))
    ask(("prepare", {"key": "c1", "parent": "base"}))
    ask(("commit", {"name": "layer", "key": "c1"}), rules=call + ":1=crash", dies=True, contents=contents)
    ask(("commit", {"name": "layer", "key": "c1"}), contents=contents)
    assert os.path.isdir(tmp_path / "root" / "snapshots" / "2" / "Hives")
    assert os.listdir(tmp_path / "root" / "transport") == []
    assert not os.path.exists(tmp_path / "root" / "snapshots" / "2" / "attachment.json")


# -- threads ---------------------------------------------------------------------------------------------------------


def test_threads_with_a_store_each(store):
    """Eight threads on directories of one root; each sees the trace of its own calls only."""
    base = store.base().path("1")
    barrier = threading.Barrier(8, timeout=300)

    def live(number):
        own = WindowsLayers()
        directory, target = store.path(f"1{number}"), f"{store.top}\\targets\\{number}"
        os.mkdir(directory)
        barrier.wait()
        trace.start()
        own.create_scratch(directory, [base], 0)
        own.mount(directory, [base], target, read_only=False)
        mounted = own.mounted_at(directory)
        own.unmount(target)
        own.convert(directory, [base])
        own.destroy(directory)
        return mounted == [target], {record["arguments"].get("path") for record in trace.stop()}

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(live, range(8)))
    for number, (mounted, paths) in enumerate(results):
        assert mounted
        others = [path for path in paths if path and re.search(r"\\(1|targets\\)[0-7]$", path)]
        assert all(path.endswith(str(number)) for path in others), (number, paths)
        assert store.path(f"1{number}") in paths
    assert os.listdir(store.path()) == ["1"]
    assert store.transport() == []
