# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which layers are detached, and which are left to the program that attached them, on a model of the service."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.windows import attachment, mounts, record
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.windows.store import WindowsLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import bindflt, ntdll, vmcompute

pytestmark = pytest.mark.posix

HRESULTS = {0xB7: -2147024713, 0x490: -2147023728, 0xAA: -2147024726, 0x5B4: -2147023436}
OWN = record.Attachment("", read_only=False)


class Service:
    """The counts of one layer, as the stand-ins of tests/wine keep them."""

    def __init__(self):
        self.active = self.prepared = 0
        self.calls = []

    def call(self, export, *arguments):
        self.calls.append(export)
        code = getattr(self, export.removesuffix("Layer").lower(), lambda: 0)()
        return HRESULTS[code] if code else 0

    def activate(self):
        self.active += 1

    def prepare(self):
        if self.prepared:
            return 0xB7
        self.prepared = 1
        return 0

    def unprepare(self):
        if not self.prepared:
            return 0x490
        self.prepared = 0
        return 0

    def deactivate(self):
        if not self.active:
            return 0x490
        if self.active == 1 and self.prepared:
            return 0xAA
        self.active -= 1
        return 0


@pytest.fixture
def service(monkeypatch, tmp_path):
    model = Service()
    monkeypatch.setattr(vmcompute.DLL, "call", model.call)
    monkeypatch.setattr(ntdll, "get_boot_time", lambda: 10**17)
    monkeypatch.setenv("PROGRAMW6432", str(tmp_path / "programs"))
    return model


@pytest.fixture
def layer(tmp_path):
    (tmp_path / "2").mkdir()
    return str(tmp_path / "2")


@pytest.fixture
def foreign(service):
    """The layer is prepared by another program, as for a running container."""
    service.active = service.prepared = 1
    return service


def restart(monkeypatch):
    monkeypatch.setattr(ntdll, "get_boot_time", lambda: 10**17 + 3600 * 10**7)


def test_a_layer_that_another_process_has_prepared_is_left_to_it(foreign, layer):
    record.write(layer, OWN)
    with pytest.raises(Unavailable, match=r"failed to prepare layer .*hcsshim::PrepareLayer .*\(0xb7\)") as caught:
        attachment.attach(layer, [])
    assert foreign.calls == ["ActivateLayer", "PrepareLayer"]
    assert foreign.prepared == 1
    assert "a container runs in it" in caught.value.details["advice"]


@pytest.mark.parametrize("work", ["mount", "export"])
def test_after_a_refusal_nothing_later_detaches_it_either(foreign, layer, tmp_path, work):
    with pytest.raises(Unavailable):
        if work == "mount":
            mounts.mount(layer, [], str(tmp_path / "target"), read_only=False)
        else:
            with attachment.activate_for_export(layer, []):
                pass
    mounts.finish_interrupted_work(layer)
    assert not record.exists(layer)
    assert foreign.calls == ["ActivateLayer", "PrepareLayer"]


@pytest.mark.parametrize("fault", ["time-out", "parents", "lock"])
def test_any_other_failure_leaves_the_layer_detached(service, layer, monkeypatch, fault):
    record.write(layer, OWN)
    parents = []
    if fault == "time-out":
        # Windows times out and prepares the layer all the same.
        monkeypatch.setattr(service, "prepare", lambda: setattr(service, "prepared", 1) or 0x5B4)
    elif fault == "parents":
        parents = ["C:\\a\\1", "C:\\b\\1"]
    else:
        monkeypatch.setattr(attachment.FileLock, "acquire", lambda *_: False)
    with pytest.raises((Unavailable, InvalidArgument)):
        attachment.attach(layer, parents)
    assert (service.active, service.prepared) == (0, 0)


def test_removal_does_not_unprepare_what_the_collection_did_not_attach(foreign, layer):
    with pytest.raises(
        SnapshotterError, match=r"hcsshim::DeactivateLayer- failed failed in Win32: .*\(0xaa\)"
    ) as caught:
        object.__new__(WindowsLayers).release(layer)
    assert (foreign.active, foreign.prepared) == (1, 1)
    assert "UnprepareLayer" not in foreign.calls
    assert "a container runs in it" in caught.value.details["advice"]


def test_removal_detaches_what_a_crash_of_another_program_left_active(service, layer):
    service.active = 1
    object.__new__(WindowsLayers).release(layer)
    assert service.active == 0


@pytest.mark.parametrize("undo", ["release", "finish"])
def test_what_the_collection_left_prepared_is_detached(foreign, layer, undo):
    record.write(layer, OWN)
    if undo == "release":
        object.__new__(WindowsLayers).release(layer)
    else:
        mounts.finish_interrupted_work(layer)
    assert (foreign.active, foreign.prepared) == (0, 0)


@pytest.mark.parametrize("undo", ["release", "finish", "unmount"])
def test_a_restart_of_the_host_has_undone_our_attachment(foreign, layer, tmp_path, monkeypatch, undo):
    """What is attached after it belongs to another program."""
    target = tmp_path / "target"
    target.mkdir()
    monkeypatch.setattr(bindflt.DLL, "call", lambda *_: HRESULTS[0x490])
    record.write(layer, record.Attachment(str(target), read_only=False))
    (tmp_path / "target:wcow.snapshotter-layer").write_text(layer)
    restart(monkeypatch)
    if undo == "release":
        with pytest.raises(SnapshotterError):
            object.__new__(WindowsLayers).release(layer)
    elif undo == "finish":
        mounts.finish_interrupted_work(layer)
    else:
        mounts.unmount(str(target))
    assert foreign.prepared == 1
    assert foreign.calls == (["DeactivateLayer"] if undo == "release" else [])
    assert record.exists(layer) == (undo == "release")


def test_an_unmount_goes_on_where_it_failed(service, layer, tmp_path, monkeypatch):
    """Unprepare fails at first, so the layer stays attached; the next unmount deactivates it also if it fails again."""
    target = tmp_path / "target"
    target.mkdir()
    results = [0, HRESULTS[0x490]]
    monkeypatch.setattr(bindflt.DLL, "call", lambda *_: results.pop(0))
    record.write(layer, record.Attachment(str(target), read_only=False))
    for stream in ("wcow.snapshotter-layer", "containerd.io-source"):
        (tmp_path / f"target:{stream}").write_text(layer)
    service.active = 1
    with pytest.raises(SnapshotterError, match="failed to unprepare layer"):
        mounts.unmount(str(target))
    assert service.active == 1
    assert record.exists(layer)
    mounts.unmount(str(target))
    assert service.active == 0
    assert not record.exists(layer)


def test_what_runs_in_a_mounted_layer_cannot_have_another_layer_detached(service, layer, tmp_path, monkeypatch):
    """It can write the stream at the root of its volume, which names a layer."""
    target, other = tmp_path / "target", str(tmp_path / "3")
    target.mkdir()
    detached = []
    monkeypatch.setattr(bindflt.DLL, "call", lambda *_: 0)
    monkeypatch.setattr(attachment, "detach", detached.append)
    record.write(layer, record.Attachment(str(target), read_only=False))
    (tmp_path / "target:wcow.snapshotter-layer").write_text(layer)
    (tmp_path / "target:containerd.io-source").write_text(other)
    mounts.unmount(str(target))
    assert detached == [layer]
    assert not record.exists(layer)


def test_a_mount_of_containerd_is_unmounted(service, layer, tmp_path, monkeypatch):
    """Our own stream at the target is left over from a mount before the restart."""
    target, other = tmp_path / "target", str(tmp_path / "3")
    target.mkdir()
    os.mkdir(other)
    detached = []
    monkeypatch.setattr(bindflt.DLL, "call", lambda *_: 0)
    monkeypatch.setattr(attachment, "detach", detached.append)
    record.write(layer, record.Attachment(str(target), read_only=False))
    (tmp_path / "target:wcow.snapshotter-layer").write_text(layer)
    (tmp_path / "target:containerd.io-source").write_text(other)
    restart(monkeypatch)
    mounts.unmount(str(target))
    assert detached == [other]
    assert not record.exists(layer)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"target": "", "read_only": false, "boot": "x"}'])
def test_a_damaged_record_is_named(layer, content):
    with open(os.path.join(layer, "attachment.json"), "w", encoding="utf-8") as file:
        file.write(content)
    for read in (record.read, record.may_be_attached):
        with pytest.raises(FailedPrecondition, match=r"attachment\.json is damaged"):
            read(layer)


def test_a_record_of_an_older_release_is_read(service, layer):
    with open(os.path.join(layer, "attachment.json"), "w", encoding="utf-8") as file:
        file.write('{"target": "C:\\\\mnt", "read_only": true}')
    assert record.read(layer) == record.Attachment("C:\\mnt", read_only=True)
    assert not record.may_be_attached(layer)


def test_the_record_says_when_the_host_was_started(service, layer):
    record.write(layer, OWN)
    with open(os.path.join(layer, "attachment.json"), encoding="utf-8") as file:
        assert json.load(file) == {"target": "", "read_only": False, "boot": 10**17}
    assert record.read(layer) == OWN
