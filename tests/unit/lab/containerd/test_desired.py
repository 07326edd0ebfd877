# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests about containerd's store, answered with the simulated containerd of a lab node."""

from __future__ import annotations

import tarfile

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers

from lab.containerd import introspection, sample

GIB = 1 << 30
ROOT_LABEL = "containerd.io/gc.root"
SIZE_LABEL = "containerd.io/snapshot/windows/rootfs.sizebytes"


def test_a_snapshot_through_its_life(done, filled, base):
    wanted = {"state": "active", "key": "build", "parent": base, "rootfs_size": "30GB", "labels": {"team": "red"}}
    changed, result = done("ensure_snapshot", **wanted)
    snapshot = result["snapshot"]
    assert changed
    assert result["actions"] == ["prepare build"]
    assert (snapshot["rootfs_size"], snapshot["id"]) == (30 * GIB, 4)
    assert snapshot["mounts"][0]["source"].endswith(r"\snapshots\4")
    assert set(snapshot["labels"]) == {"team", ROOT_LABEL, SIZE_LABEL}
    assert result["containerd"]["namespace"] == sample.NAMESPACE
    # Purging keeps the label that keeps the snapshot.
    assert done("ensure_snapshot", **wanted, purge_labels=True)[0] is False

    assert done("ensure_snapshot", **{**wanted, "rootfs_size": "40GB"})[1]["actions"] == ["grow build"]
    changed, result = done("ensure_scratch", key="build", size="50GB")
    assert changed
    assert (result["previous_size"], result["scratch"]["virtual_size"]) == (40 * GIB, 50 * GIB)
    assert done("ensure_scratch", key="build", size="50GB")[0] is False

    changed, result = done("ensure_snapshot", state="committed", name="tools", key="build")
    assert changed
    assert (result["snapshot"]["kind"], result["snapshot"]["id"]) == ("committed", 4)
    assert done("ensure_snapshot", state="committed", name="tools", key="build")[0] is False
    assert done("ensure_snapshot", state="view", key="inspect", parent="tools")[1]["actions"] == ["view inspect"]

    # No lease of a task is left, and garbage collection keeps what the tasks made.
    filled.collect()
    assert {"tools", "inspect"} <= set(filled.names())
    assert [lease.id for lease in filled("Leases", "List").leases] == [sample.LEASE]

    assert done("ensure_snapshot", state="absent", name="tools", recursive=True)[1]["actions"] == [
        "remove inspect",
        "remove tools",
    ]
    assert done("ensure_snapshot", state="absent", name="tools")[0] is False


def test_a_removal_waits_for_the_layer(done, host, base):
    done("ensure_snapshot", state="active", key="build", parent=base)
    directory = host.simulation.store.snapshotter.directory(4)
    assert directory.is_dir()
    done("ensure_snapshot", state="absent", key="build")
    assert not directory.exists()


def test_what_containerd_needs_stays(refused, done, filled, base):
    code, message = refused("ensure_snapshot", state="absent", key="web")
    assert code == "failed_precondition"
    assert message.startswith('cannot remove "web": it is needed by container "web". Remove what needs it')
    assert 'lease "build-cache"' in refused("ensure_snapshot", state="absent", key="build-1")[1]
    code, message = refused("ensure_snapshot", state="absent", name=base, recursive=True)
    assert code == "failed_precondition"
    assert "needed by" in message
    assert {"web", "build-1", base} <= set(filled.names())


@pytest.mark.parametrize("check_mode", [True, False])
def test_pruning(done, filled, base, check_mode):
    done("ensure_set", snapshots=[{"state": "active", "key": key, "parent": base} for key in ("a", "b")])
    keep = [{"state": "active", "key": "a", "parent": base}]
    _changed, result = done("ensure_set", snapshots=keep, prune=True, prune_filters=[""], check_mode=check_mode)
    assert result["actions"] == ["remove b"]
    kept = {entry["name"]: entry["needed_by"] for entry in result["kept"]}
    assert kept["web"] == ['container "web"']
    assert kept["build-1"] == ['lease "build-cache"']
    assert {"a", "web", f'image "{sample.IMAGE}"'} <= set(kept[base])
    assert ("b" in filled.names()) is check_mode


def test_check_mode(done, filled, base):
    before = filled.names()
    plan = [
        {"state": "active", "key": "build", "parent": base, "rootfs_size": "30GB", "creates": "tools"},
        {"state": "committed", "name": "tools", "key": "build"},
        {"state": "view", "key": "inspect", "parent": "tools"},
    ]
    changed, result = done("ensure_set", snapshots=plan, check_mode=True)
    assert changed
    assert result["actions"] == ["prepare build", "commit tools", "view inspect"]
    assert result["outcomes"][0]["snapshot"]["rootfs_size"] == 30 * GIB
    assert done("ensure_snapshot", check_mode=True, **plan[0])[1]["snapshot"]["mounts"] == []
    assert done("ensure_scratch", key="web", size="30GB", check_mode=True)[1]["actions"] == ["grow web"]
    assert filled.names() == before
    assert [lease.id for lease in filled("Leases", "List").leases] == [sample.LEASE]
    changed, result = done("ensure_scratch", key="web", size="30GB")
    assert changed
    assert result["previous_size"] == 20 * GIB


def test_a_mount(done, refused, base):
    done("ensure_snapshot", state="active", key="build", parent=base)
    target = r"C:\mnt\build"
    assert done("ensure_mount", state="mounted", key="build", target=target)[0] is True
    assert done("ensure_mount", state="mounted", key="build", target=target)[0] is False
    code, message = refused("ensure_scratch", key="build", size="40GB")
    assert code == "failed_precondition"
    assert "unmount it first" in message
    assert done("ensure_mount", state="unmounted", key="build")[1]["actions"] == [rf"unmount {target}"]
    assert done("ensure_mount", state="unmounted", key="build")[0] is False
    done("ensure_snapshot", state="view", key="inspect", parent=base)
    assert done("ensure_mount", state="mounted", key="inspect", target=target)[1]["mount"]["read_only"] is True


def test_the_disk_of_a_container_that_runs(refused, monkeypatch):
    """On Windows, the disk of a container that runs is attached. Lab nodes run none."""
    scratch_info = EmulatedLayers.scratch_info

    def attached(layers, directory):
        return scratch_info(layers, directory)._replace(attached=True)

    monkeypatch.setattr(EmulatedLayers, "scratch_info", attached)
    monkeypatch.setattr(EmulatedLayers, "holders", lambda _layers, _directory: ["process 7 (vmwp.exe)"])
    code, message = refused("ensure_scratch", key="web", size="40GB")
    assert code == "failed_precondition"
    assert 'the scratch disk of "web" cannot grow while it is attached, by container "web"' in message
    assert "needs a new pod" in message


def test_an_export(done, refused, base, directory):
    changed, result = done("ensure_export", name=base, dest=r"C:\base.tar")
    assert changed
    assert result["layer"]["size"] > 0
    with tarfile.open(directory / "C" / "base.tar") as tar:
        assert "Files" in {name.partition("/")[0] for name in tar.getnames()}
    assert done("ensure_export", name=base, dest=r"C:\base.tar")[0] is False
    assert "only a committed snapshot is a layer" in refused("ensure_export", name="web", dest=r"C:\web.tar")[1]


def test_a_layer_that_is_missing(refused, host, base):
    directory = host.simulation.store.snapshotter.directory(2)
    directory.rename(directory.with_name("elsewhere"))
    code, message = refused("ensure_scratch", key="web", size="40GB")
    assert code == "failed_precondition"
    assert r"\snapshots\2 does not exist" in message


def test_a_parent_layer_that_is_missing(refused, done, host, base):
    done("ensure_snapshot", state="active", key="build", parent=base)
    directory = host.simulation.store.snapshotter.directory(1)
    directory.rename(directory.with_name("elsewhere"))
    for operation, arguments in (
        ("ensure_snapshot", {"state": "active", "key": "build", "parent": base}),
        ("ensure_scratch", {"key": "build", "size": "40GB"}),
        ("ensure_snapshot", {"state": "committed", "name": base}),
    ):
        code, message = refused(operation, **arguments)
        assert code == "failed_precondition"
        assert r"\snapshots\1 does not exist; store_check names the snapshot" in message
    # A snapshot that cannot be used can be removed.
    assert done("ensure_snapshot", state="absent", key="build")[0] is True


def test_containerd_does_not_run(refused, host):
    host.server.stop()
    code, message = refused("ensure_scratch", key="web", size="40GB")
    host.start()
    assert code == "failed_precondition"
    assert "Start containerd" in message
    assert r"\\.\pipe\containerd-containerd" in message


def test_the_running_release_decides_what_the_configuration_means(ask, host, directory):
    config = directory / "C" / "Program Files" / "containerd" / "config.toml"
    config.parent.mkdir(parents=True)
    # containerd 2 drops this setting, because the section has no table "runtimes".
    config.write_text('version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "cimfs"\n')
    entry = ask("list")
    assert entry["ok"], entry
    assert entry["result"]["containerd"]["snapshotter"] == "windows"
    assert entry["warnings"] == []
    # Without an answer, the oldest release that knows the file counts.
    host.server.stop()
    entry = ask("list")
    host.start()
    assert "the snapshotter cimfs" in entry["error"]["message"]


def test_namespaces(refused, done, filled, base):
    code, message = refused("ensure_snapshot", state="absent", key="web", namespace="k8s")
    assert (code, "it has k8s.io" in message) == ("not_found", True)
    filled("Namespaces", "Create", namespace={"name": "other"})
    # A key means the snapshot of one namespace.
    changed, result = done("ensure_snapshot", state="active", key="web", namespace="other")
    assert changed
    assert result["containerd"]["namespace"] == "other"
    assert done("ensure_snapshot", state="absent", key="web", namespace="other")[0] is True
    assert "web" in filled.names()


@pytest.mark.parametrize("key", ["a b/c", "k\u00fche", "a" * 200])
def test_any_key(done, filled, base, key):
    assert done("ensure_snapshot", state="active", key=key, parent=base)[0] is True
    assert done("ensure_scratch", key=key, size="30GB")[0] is True
    assert done("ensure_snapshot", state="absent", key=key)[0] is True


def test_the_preflight_of_the_store(done, refused, ask, host, monkeypatch):
    changed, result = done("ensure_store")
    preflight = result["preflight"]
    assert (changed, result["actions"], result["store"]["snapshots"]) == (False, [], 3)
    assert (preflight["revision"], preflight["snapshotters"]) == ("lab", ["windows"])
    assert (preflight["schema_known"], preflight["running"]) == (True, True)
    assert 0 < preflight["free"] <= preflight["total"]
    assert result["containerd"]["namespace"] == sample.NAMESPACE

    code, message = refused("ensure_store", state="absent")
    assert code == "not_implemented"
    assert "cannot be removed by a task: containers run from it" in message
    assert refused("ensure_store", state="gone")[0] == "invalid_argument"
    assert "containerd has no setting rootfs_size" in refused("ensure_store", rootfs_size="40GB")[1]
    assert "remove the option force" in refused("ensure_store", force=True)[1]

    monkeypatch.setattr(introspection, "_PLUGINS", {"io.containerd.snapshotter.v1": ("native",)})
    entry = ask("ensure_store")
    assert not entry["ok"]
    assert entry["error"]["message"].startswith(
        "the snapshotter windows is not loaded: containerd has no such plugin. Loaded are native"
    )
    assert entry["error"]["details"]["preflight"]["snapshotters"] == ["native"]
    assert len(entry["error"]["details"]["problems"]) == 1
