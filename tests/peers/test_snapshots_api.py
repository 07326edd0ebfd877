# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of snapshots over containerd's API, on a real containerd with its collection of garbage.

The first part is the contract suite. Each test has a namespace of its own, which
is an empty store. containerd's native snapshotter keeps each snapshot as a plain
directory, so nothing has to be mounted. Not here: what concerns our own layer
stores (modes of directories, tars), and views, which only a mount protects.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client, Resource
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.snapshots import (
    ROOT_LABEL,
    ContainerdSnapshots,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED, VIEW, Usage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import NotListening
from ansible_collections.wcow.snapshotter.tests.contract import test_snapshotter as contract
from ansible_collections.wcow.snapshotter.tests.peers.containerd import SNAPSHOTTER, Containerd

pytestmark = [pytest.mark.requires_tool("containerd", "containerd"), pytest.mark.requires_tool("ctr", "containerd")]


class Work(contract.Work):
    """Snapshots of the native snapshotter, whose mounts are directories."""

    added_labels = frozenset({ROOT_LABEL})

    def mounted(self, key: str, change: Callable[[str], Any]) -> Any:
        (mount,) = self.snapshotter.mounts(key)
        return change(mount.source)


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with Containerd(str(tmp_path_factory.mktemp("containerd")), collects=True) as daemon:
        yield daemon


@pytest.fixture
def namespace(tmp_path: Any) -> str:
    return "api-" + os.path.basename(str(tmp_path)).replace("_", "-").strip("-").replace("--", "-")


@pytest.fixture
def snapshotter(containerd: Containerd, namespace: str) -> Iterator[ContainerdSnapshots]:
    opened = ContainerdSnapshots(Client(connect(containerd.address, namespace)), SNAPSHOTTER)
    yield opened
    opened.close()


@pytest.fixture
def other(containerd: Containerd, namespace: str) -> Iterator[Client]:
    """Another client of the same namespace."""
    with Client(connect(containerd.address, namespace)) as opened:
        yield opened


@pytest.fixture
def work(snapshotter: ContainerdSnapshots, tmp_path: Any) -> Work:
    directory = tmp_path / "work"
    directory.mkdir()
    return Work(snapshotter, str(directory))


# -- the contract ----------------------------------------------------------------

test_basic = contract.test_basic
test_stat_active = contract.test_stat_active
test_stat_comitted = contract.test_stat_comitted
test_transitivity_test = contract.test_transitivity_test
test_preare_view_failingtest = contract.test_preare_view_failingtest
test_update = contract.test_update
test_remove = contract.test_remove
test_walk = contract.test_walk
test_layer_fileupdate = contract.test_layer_fileupdate
test_remove_directory_in_lower_layer = contract.test_remove_directory_in_lower_layer
test_remove_intermediate_snapshot = contract.test_remove_intermediate_snapshot
test_deleted_files_in_child_snapshot = contract.test_deleted_files_in_child_snapshot
test_move_file_from_lower_layer = contract.test_move_file_from_lower_layer
test_stat_in_walk = contract.test_stat_in_walk
test_close_twice = contract.test_close_twice
test_rename = contract.test_rename


# -- what only containerd has ------------------------------------------------------


def test_errors_have_the_sentence_of_containerd_and_advice(snapshotter: ContainerdSnapshots) -> None:
    store = snapshotter
    store.prepare("active")
    store.prepare("temporary")
    store.commit("base", "temporary")
    store.prepare("child", "base")
    for call, kind, message, advice in (
        (lambda: store.stat("x"), errors.NotFound, "snapshot x does not exist: not found", "Correct the key or name"),
        (
            lambda: store.remove("base"),
            errors.FailedPrecondition,
            "cannot remove snapshot with child",
            "Remove its chi",
        ),
        (lambda: store.prepare("a", "x"), errors.NotFound, "parent snapshot x does not exist: not found", "the parent"),
        (lambda: store.prepare("active"), errors.AlreadyExists, 'snapshot "active": already exists', "Choose another"),
        (lambda: store.prepare("a", "active"), errors.InvalidArgument, "parent", "Commit the parent first"),
    ):
        with pytest.raises(kind, match=message) as caught:
            call()
        assert advice in caught.value.details["advice"]
    with pytest.raises(errors.FailedPrecondition):
        store.mounts("base")
    with pytest.raises(errors.FailedPrecondition):
        store.commit("again", "base")


def test_an_unknown_snapshotter(containerd: Containerd, namespace: str) -> None:
    store = ContainerdSnapshots(Client(connect(containerd.address, namespace)), "windows")
    with pytest.raises(errors.InvalidArgument, match="snapshotter not loaded: windows") as caught:
        store.walk()
    assert (
        caught.value.details["advice"] == f"Correct the name of the snapshotter; containerd has loaded: {SNAPSHOTTER}"
    )
    store.close()


def test_keys_and_values(snapshotter: ContainerdSnapshots) -> None:
    """Keys may have any characters."""
    store = snapshotter
    keys = ["a b", "a/b/../c", "é 中", 'quote"\\', "x" * 1000, "z\n"]
    for key in keys:
        store.prepare(key, labels={"l": f"of {key}"[:200]})
        assert store.stat(key).labels["l"] == f"of {key}"[:200]
    assert [info.name for info in store.walk()] == sorted(keys, key=str.encode)
    assert [info.name for info in store.walk('labels.l=="of a b"', "name~=/^é/")] == ["a b", "é 中"]
    assert store.usage("a b") == Usage(store.usage("é 中").size, 1)
    assert store.remove_all(["z\n", "no such", "a b"]) == ["z\n", "a b"]
    for bad in ("", "\ud800", "x" * 5000):
        with pytest.raises(errors.InvalidArgument):
            store.prepare(bad)
    with pytest.raises(errors.InvalidArgument, match="greater than maximum size"):
        store.prepare("k", labels={"l": "v" * 4096})
    with pytest.raises(errors.InvalidArgument, match="not valid Unicode"):
        store.stat("\ud800")


def test_filters(snapshotter: ContainerdSnapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the filters that it reads as we do, and selects the same snapshots as the language here."""
    store = snapshotter
    for number in range(8):
        store.prepare(f"k{number}", labels={"n": str(number % 3), "a.b": "x y"})
    everything = store.walk()
    sent = []
    original = store.client.snapshots
    monkeypatch.setattr(
        store.client, "snapshots", lambda name, *filters: sent.append(filters) or original(name, *filters)
    )
    for filters, count, passed in (
        (["labels.n==1"], 3, True),
        (["labels.n!=1", "name==k1"], 6, True),
        (['labels."a.b"=="x y",kind==active,parent==""'], 8, True),
        (["labels.m", "unknown"], 0, True),
        (["labels.n~=/^[01]$/"], 6, False),
        (["labels.n~=/^[01]$/", "name==k2"], 7, False),
        ([""], 8, True),
    ):
        found = store.walk(*filters)
        assert (len(found), sent.pop()) == (count, tuple(filters) if passed else ())
        assert [info for info in everything if info in found] == found
    with pytest.raises(errors.InvalidArgument, match="filters: parse error"):
        store.walk("name==")


def test_commit_and_its_parent(snapshotter: ContainerdSnapshots) -> None:
    store = snapshotter
    store.prepare("a")
    info = store.commit("base", "a", {"l": "1"}, parent="")
    assert (info.kind, info.name, info.labels["l"], info.created) == (COMMITTED, "base", "1", info.updated)
    store.prepare("b", "base", {"l": "2"})
    with pytest.raises(errors.InvalidArgument, match='has the parent "base"'):
        store.commit("c", "b", parent="x")
    info = store.commit("c", "b", parent="base")
    assert (info.parent, "l" in info.labels) == ("base", False)
    store.prepare("d")
    with pytest.raises(errors.NotImplementedHere, match="prepare it with the parent"):
        store.commit("e", "d", parent="base")
    assert (store.stat("d").kind, store.view("v", "c")[0].options) == (ACTIVE, ["rbind", "ro"])
    assert store.stat("v").kind == VIEW


def test_the_lease_of_a_task(snapshotter: ContainerdSnapshots, other: Client) -> None:
    """It holds what the task creates, and goes with the task. The root label holds the snapshots afterwards."""
    store = snapshotter
    assert store.walk() == []
    assert other.leases() == []
    store.prepare("kept")
    (lease,) = other.leases()
    assert other.lease_resources(lease.id) == [Resource("kept", f"snapshots/{SNAPSHOTTER}")]
    assert "containerd.io/gc.expire" in lease.labels
    store.update("kept", {"l": "x"})
    assert set(store.stat("kept").labels) == {"l", ROOT_LABEL}
    store.close()
    assert other.leases() == []
    other.collect_garbage()
    assert [info.name for info in other.snapshots(SNAPSHOTTER)] == ["kept"]
    # Without its root label, it goes.
    other.update_snapshot(SNAPSHOTTER, "kept", {}, ["labels." + ROOT_LABEL])
    other.collect_garbage()
    assert other.snapshots(SNAPSHOTTER) == []


def test_a_removal_waits_for_the_collection(containerd: Containerd, namespace: str) -> None:
    with Client(connect(containerd.address, namespace)) as client:
        store = ContainerdSnapshots(client, SNAPSHOTTER, is_patient=True)
        (first,) = store.prepare("a")
        (second,) = store.prepare("b")
        store.remove("a")
        assert (os.path.exists(first.source), os.path.exists(second.source)) == (False, True)
        store.remove_all(["b"])
        assert not os.path.exists(second.source)
        store.close()


def test_namespaces_are_apart(snapshotter: ContainerdSnapshots, containerd: Containerd) -> None:
    assert not snapshotter.exists()
    snapshotter.prepare("same key")
    assert snapshotter.exists()
    second = ContainerdSnapshots(Client(connect(containerd.address, "another")), SNAPSHOTTER)
    second.prepare("same key", labels={"l": "another"})
    assert "l" not in snapshotter.stat("same key").labels
    second.remove("same key")
    second.close()
    assert [info.name for info in snapshotter.walk()] == ["same key"]


def test_a_restart_of_containerd_in_the_middle_of_a_task(tmp_path: Any) -> None:
    with Containerd(str(tmp_path), collects=True) as daemon:
        store = ContainerdSnapshots(Client(connect(daemon.address, "restart")), SNAPSHOTTER)
        store.prepare("a")
        daemon.stop()
        with pytest.raises(NotListening, match=f"containerd does not run.* {daemon.address}"):
            store.stat("a")
        daemon.start()
        # The connection is a new one. The lease survives in the database.
        assert store.stat("a").kind == ACTIVE
        store.prepare("b")
        store.close()
        assert store.warnings == []


def test_a_list_of_many_snapshots(snapshotter: ContainerdSnapshots) -> None:
    """It comes in several messages, and is larger than the first windows of HTTP/2."""
    count = 500
    for number in range(count):
        snapshotter.client.prepare(SNAPSHOTTER, f"{number:06}", labels={"l": "x" * 2000, ROOT_LABEL: "x"})
    infos = snapshotter.walk()
    assert [info.name for info in infos] == [f"{number:06}" for number in range(count)]
    assert all(len(info.labels["l"]) == 2000 for info in infos)
