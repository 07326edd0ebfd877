# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the repair of a simulated containerd: each kind of damage, what needs it, and what happens at the same time."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.containerd import on_disk, through_api
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.containerd import store_check as check_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.discovery import Options
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.node import ContainerdNode
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import Internal
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers

from lab.containerd import sample
from lab.containerd.damage import damage
from lab.containerd.node import ADDRESS, DAMAGES
from lab.containerd.simulation import Simulation

ROOT_DIRECTORY = r"C:\ProgramData\containerd\root"
ROOT = {"containerd.io/gc.root": "1"}
STOPPED = (
    "not repaired: containerd does not run, and only containerd changes its records; start it, then run this again"
)

TARGET = {"digest": f"sha256:{0:064}", "size": 1, "media_type": "application/vnd.oci.image.manifest.v1+json"}

#: What a repair does with each kind of damage.
REPAIRED = {
    "next-directory": ("next_directory", "removed with a throw-away snapshot"),
    "dangling-child": ("dangling_child", "removed from the children of the snapshot"),
    "lost-backend": ("missing_record", "removed from meta.db"),
    "leftover": ("leftover_removal", "destroyed"),
    "orphan": ("uncollected_record", "removed by containerd's garbage collection"),
}


@pytest.fixture
def break_store(host, filled, monkeypatch):
    """Return a function that damages the containerd while it does not run, and returns a client of the next process."""
    monkeypatch.setattr(check_module, "PAUSE", 0.0)

    def do(*kinds):
        host.server.stop()
        simulation = Simulation(host.node.root)
        for kind in kinds:
            damage(simulation, kind)
        simulation.store.close()
        host.start()
        return host.client()

    return do


@pytest.fixture
def check(host):
    """Return a function that checks the store, and returns whether it changed something and its findings."""

    def check(check_mode=False, **options):
        layers = DryRun(EmulatedLayers()) if check_mode else EmulatedLayers()
        node = ContainerdNode(Options(ADDRESS, ROOT_DIRECTORY, "windows"), "", layers, dry_run=check_mode)
        changed, result = check_module.check_store(node, **options)
        return changed, result["findings"]

    return check


def actions(found):
    return [(finding["code"], finding["action"]) for finding in found[1]]


@pytest.mark.parametrize("kind", DAMAGES)
def test_each_kind_of_damage(break_store, check, host, kind):
    client = break_store(kind)
    code, done = REPAIRED[kind]
    _changed, (finding,) = check()
    assert (finding["code"], finding["repairable"], finding["action"]) == (code, True, "")
    planned = check(check_mode=True, repair=True)
    assert (planned[0], actions(planned)) == (True, [(code, f"would be {done}")])
    assert check() == (False, [finding])
    repaired = check(repair=True)
    assert (repaired[0], actions(repaired)) == (True, [(code, done)])
    assert check(repair=True) == (False, [])
    assert {"web", "build-1"} <= set(client.names())
    assert [lease.id for lease in client("Leases", "List").leases] == [sample.LEASE]
    assert sorted(path.name for path in host.simulation.store.snapshotter.directories.iterdir())[:3] == ["1", "2", "3"]


def test_all_damage_at_once(break_store, check):
    break_store(*DAMAGES, *DAMAGES)
    assert all(finding["repaired"] for finding in check(repair=True)[1])
    assert check() == (False, [])


def test_only_what_the_task_names_is_repaired(break_store, check):
    break_store("dangling-child", "lost-backend", "leftover")
    assert actions(check(repair=True, only=["missing_record"])) == [("missing_record", "removed from meta.db")]
    assert {finding["code"] for finding in check()[1]} == {"dangling_child", "leftover_removal"}


# -- containerd is stopped ---------------------------------------------------------


def test_a_stopped_containerd(break_store, check, host):
    break_store(*DAMAGES)
    host.server.stop()
    found = dict(actions(check(repair=True)))
    assert found == {
        **dict.fromkeys(("dangling_child", "missing_record", "uncollected_record"), STOPPED),
        "next_directory": "destroyed",
        "leftover_removal": "destroyed",
    }
    host.start()
    assert all(finding["repaired"] for finding in check(repair=True)[1])
    assert check() == (False, [])


def test_containerd_starts_before_the_repair(break_store, check, host, monkeypatch):
    break_store("next-directory", "orphan")
    host.server.stop()
    measure = check_module._finding

    def start_first(*arguments, **options):
        if not host.node.answers():
            host.start()
        return measure(*arguments, **options)

    monkeypatch.setattr(check_module, "_finding", start_first)
    monkeypatch.setattr(on_disk, "LOCK_PATIENCE", 0.2)
    found = dict(actions(check(repair=True)))
    assert found["next_directory"].startswith("not repaired: containerd started meanwhile")
    assert found["uncollected_record"] == STOPPED


def test_containerd_stops_before_the_repair(break_store, check, host, monkeypatch):
    break_store("leftover", "orphan")
    measure = check_module._finding

    def stop_first(*arguments, **options):
        if host.node.answers():
            host.server.stop()
        return measure(*arguments, **options)

    monkeypatch.setattr(check_module, "_finding", stop_first)
    found = dict(actions(check(repair=True)))
    host.start()
    assert found["leftover_removal"].startswith("not repaired: containerd stopped meanwhile")
    assert "does not answer at" in found["uncollected_record"]


# -- what needs an entry -------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "fields", "user"),
    [
        (
            "Containers",
            {"container": {"id": "c1", "snapshotter": "windows", "runtime": {"name": "r"}, "spec": {"type_url": "s"}}},
            'the container "c1"',
        ),
        ("Images", {"image": {"name": "i1", "target": TARGET}}, 'the image "i1"'),
    ],
)
def test_an_entry_that_is_needed_stays(break_store, check, service, fields, user):
    client = break_store("lost-backend")
    lost = check()[1][0]["snapshot"]
    (record,) = fields.values()
    if service == "Containers":
        record["snapshot_key"] = lost
    else:
        record["labels"] = {"containerd.io/gc.ref.snapshot.windows": lost}
    client(service, "Create", **fields)
    _changed, (finding,) = check(repair=True)
    assert not finding["repairable"]
    assert finding["action"].startswith(f"not repaired: {user} needs it; remove that first")
    assert check(check_mode=True, repair=True)[1][0]["action"] == finding["action"]
    client(service, "Delete", **({"id": "c1"} if service == "Containers" else {"name": "i1"}))
    assert check(repair=True)[1][0]["repaired"]


def test_whether_garbage_collection_removes_an_entry(break_store, check):
    client = break_store("lost-backend", "dangling-child")
    kept = {finding["code"]: finding["message"] for finding in check()[1]}
    assert all(message.endswith(", and its garbage collection keeps it") for message in kept.values())
    dangling = next(finding["snapshot"] for finding in check()[1] if finding["code"] == "dangling_child")
    client("Snapshots", "Update", snapshotter="windows", info={"name": dangling})
    freed = {finding["code"]: finding["message"] for finding in check()[1]}
    assert freed["dangling_child"].endswith("; nothing needs it, so its next garbage collection removes it")


# -- at the same time ------------------------------------------------------------------


def test_another_client_gets_the_directory_first(break_store, check, monkeypatch):
    client = break_store("next-directory")
    prepare = Client.prepare

    def prepare_second(self, *arguments, **options):
        if "pod" not in client.names():
            client.prepare("pod", labels=ROOT)
        return prepare(self, *arguments, **options)

    monkeypatch.setattr(Client, "prepare", prepare_second)
    _changed, (finding,) = check(repair=True)
    assert finding["action"].startswith('not repaired: "k8s.io/')
    assert 'pod" was created meanwhile and has these files, which an interrupted Prepare left' in finding["action"]
    assert check()[1] == []


def test_another_repair_is_at_work(break_store, check, monkeypatch):
    client = break_store("next-directory")
    prepare = Client.prepare

    def prepare_second(self, *arguments, **options):
        if "other" not in client.names():
            client.prepare("other", labels={**ROOT, "wcow.snapshotter/repair": "gone"})
        return prepare(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Client, "prepare", prepare_second)
        found = actions(check(repair=True))
    assert found == [("next_directory", "not repaired: another task repairs it at the same time")]
    # That repair was killed.
    assert actions(check(repair=True)) == [("abandoned_repair", "removed")]
    assert check()[1] == []


def test_the_child_exists_again(break_store, check, monkeypatch):
    client = break_store("dangling-child")
    view = Client.view

    def view_second(self, snapshotter, key, parent, labels):
        client.prepare(key, parent, labels=ROOT)
        return view(self, snapshotter, key, parent, labels)

    monkeypatch.setattr(Client, "view", view_second)
    assert check(repair=True)[1][0]["repaired"]
    assert check()[1] == []
    assert any(name.startswith("child-of-") for name in client.names())


def test_an_import_of_the_child_is_under_way(break_store, check):
    client = break_store("dangling-child")
    finding = check()[1][0]
    child = finding["message"].partition('has the child "')[2].partition('"')[0]
    client.prepare(f"extract-1-a {child}", finding["snapshot"], labels=ROOT)
    (refused,) = check(repair=True)[1]
    assert refused["action"].startswith("not repaired: an import of this child is under way")
    client.remove(f"extract-1-a {child}")
    assert check(repair=True)[1][0]["repaired"]


# -- a Prepare that is refused: snapshotters of Linux ------------------------------------


@pytest.fixture
def refuse(monkeypatch, host):
    """Let containerd refuse each Prepare while the directory exists. Return the numbers of refusals and attempts."""
    counts = {"refused": 0, "all": 0}
    prepare = Client.prepare

    def prepare_if_free(self, *arguments, **options):
        snapshotter = host.simulation.store.snapshotter
        counts["all"] += 1
        if snapshotter.directory(snapshotter.last_id() + 1).exists():
            counts["refused"] += 1
            raise Internal("failed to rename: rename new-1 4: file exists: unknown", grpc_status=2)
        return prepare(self, *arguments, **options)

    monkeypatch.setattr(Client, "prepare", prepare_if_free)
    return counts


def test_a_directory_that_makes_prepare_fail(break_store, check, refuse, host):
    break_store("next-directory", "orphan")
    assert all(finding["repaired"] for finding in check(repair=True)[1])
    assert refuse == {"refused": 1, "all": 2}
    assert check() == (False, [])
    assert not [name for name in os.listdir(host.simulation.store.snapshotter.directories) if name.startswith("rm-")]


def test_a_directory_that_another_process_replaces(break_store, check, refuse, host, monkeypatch):
    """What got the name meanwhile belongs to a snapshot, and gets the name back."""
    client = break_store("next-directory")
    directory = host.simulation.store.snapshotter.directory(4)
    rename = os.rename

    def replace_first(source, target):
        if os.path.basename(source) == "4":
            rename(directory, directory.with_name("rm-99"))
            client.prepare("pod", labels=ROOT)
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(through_api.on_disk.os, "rename", replace_first)
        _changed, (finding,) = check(repair=True)
    assert finding["action"] == "not repaired: another process replaced it; run the check again"
    assert directory.is_dir()
    client("Snapshots", "Mounts", snapshotter="windows", key="pod")
