# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the service of containerd's snapshots: its rules that protect layers, adoption, errors, and health."""

from __future__ import annotations

import json
import os
import threading
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import store as own_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import messages
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import file as metastore_file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy.messages import CHECK, GET_HEALTH
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import grpc, protobuf
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.service import (
    LIST_PAGE,
    Service,
    is_created_by_containerd,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.serve.store import open_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

from .conftest import Calls

BASE = "k8s.io/1/sha256:base"
GIB = 1 << 30


def reference(value: str) -> Dict[str, str]:
    return {SNAPSHOT_REF: value}


# -- the methods ---------------------------------------------------------------------


def test_the_life_of_a_snapshot(calls: Calls, root: str) -> None:
    (mount,) = calls("Prepare", key="k8s.io/1/a", labels={"l": "1"})["mounts"]
    assert (mount["type"], mount["source"]) == ("windows-layer", os.path.join(root, "snapshots", "1"))
    assert calls("Commit", name=BASE, key="k8s.io/1/a", labels={"l": "2"}) == {}
    info = calls("Stat", key=BASE)["info"]
    assert (info["kind"], info["parent"], info["labels"]) == (messages.COMMITTED, "", {"l": "2"})
    assert info["created"] == info["updated"]
    assert info["created"]["seconds"] > 1_700_000_000
    calls("Prepare", key="k8s.io/2/c", parent=BASE)
    (mount,) = calls("Mounts", key="k8s.io/2/c")["mounts"]
    layers = [os.path.join(root, "snapshots", number) for number in "21"]
    assert (mount["source"], mount["options"]) == (layers[0], ["rw", f"parentLayerPaths=[{json.dumps(layers[1])}]"])
    assert calls("Usage", key=BASE)["inodes"] > 1
    calls("Remove", key="k8s.io/2/c")
    with pytest.raises(errors.NotFound, match="snapshot does not exist: not found"):
        calls("Stat", key="k8s.io/2/c")
    assert calls("Cleanup") == {}


def test_a_parent_that_comes_with_the_commit(calls: Calls) -> None:
    calls.layer(BASE)
    calls("Prepare", key="k8s.io/2/a")
    calls("Commit", name="k8s.io/3/b", key="k8s.io/2/a", parent=BASE)
    assert calls("Stat", key="k8s.io/3/b")["info"]["parent"] == BASE


@pytest.mark.parametrize(
    ("mask", "labels"),
    [
        (None, {"a": "new", "c": "3"}),
        ({"paths": []}, {"a": "new", "c": "3"}),
        ({"paths": ["labels"]}, {"a": "new", "c": "3"}),
        ({"paths": ["labels.a", "labels.b"]}, {"a": "new"}),
        ({"paths": ["labels.c"]}, {"a": "1", "b": "2", "c": "3"}),
    ],
)
def test_update_with_a_mask(calls: Calls, mask: Any, labels: Dict[str, str]) -> None:
    calls("Prepare", key="k8s.io/1/a", labels={"a": "1", "b": "2"})
    wanted = {"name": "k8s.io/1/a", "labels": {"a": "new", "c": "3"}}
    assert calls("Update", info=wanted, **({"mask": mask} if mask is not None else {}))["info"]["labels"] == labels
    assert calls("Stat", key="k8s.io/1/a")["info"]["labels"] == labels


def test_updates_that_are_refused(calls: Calls) -> None:
    calls("Prepare", key="k8s.io/1/a")
    with pytest.raises(errors.InvalidArgument, match="cannot update"):
        calls("Update", info={"name": "k8s.io/1/a"}, mask={"paths": ["parent"]})
    with pytest.raises(errors.InvalidArgument, match="has no info"):
        calls("Update")


def test_a_long_list_comes_in_pages(calls: Calls, store: Snapshotter) -> None:
    for number in range(LIST_PAGE + 5):
        store.prepare(f"k8s.io/{number}/a")
    answers = calls.stream("List")
    assert [len(answer["infos"]) for answer in answers] == [LIST_PAGE, 5]
    assert calls.names("name==k8s.io/7/a", "name==k8s.io/3/a") == ["k8s.io/3/a", "k8s.io/7/a"]
    with pytest.raises(errors.InvalidArgument, match="filters: parse error"):
        calls.stream("List", filters=["name=="])


def test_a_message_of_a_list_is_not_too_long_for_a_client(service: Service, store: Snapshotter) -> None:
    for number in range(12):
        store.prepare(f"k8s.io/{number}/a", labels={str(label): "x" * 4000 for label in range(400)})
    store.prepare("k8s.io/99/a", labels={str(label): "x" * 4000 for label in range(2000)})
    encoded = list(service.call("/containerd.services.snapshots.v1.Snapshots/List", b""))
    pages = [[info["name"] for info in protobuf.decode(messages.SNAPSHOTS, page)["infos"]] for page in encoded]
    assert [name for page in pages for name in page] == [info.name for info in store.walk()]
    assert [len(page) for page in pages] == [2, 2, 2, 2, 2, 2, 1]
    assert max(map(len, encoded)) < grpc.MAX_MESSAGE


def test_requests_that_cannot_be_read(service: Service) -> None:
    with pytest.raises(errors.NotImplementedHere, match="unknown method /x/Y"):
        list(service.call("/x/Y", b""))
    with pytest.raises(errors.InvalidArgument, match="the request of .*Stat cannot be decoded"):
        list(service.call("/containerd.services.snapshots.v1.Snapshots/Stat", b"\xff"))


# -- rules that protect layers ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_of_containerd"),
    [
        ("k8s.io/12/sha256:ab", True),
        ("default/1/extract-123-xy sha256:ab", True),
        ("a-b_c.d/0/", True),
        ("sha256:ab", False),
        ("k8s.io/x/key", False),
        ("a/b/1/key", False),
        ("/1/key", False),
        ("my layers/1/key", False),
        ("extract-1-2026-01-01T00:00:00.000000000Z-01234567 k8s.io/1/x", False),
    ],
)
def test_names_of_containerd(name: str, is_of_containerd: bool) -> None:
    assert is_created_by_containerd(name) is is_of_containerd


def test_the_collector_sees_only_what_containerd_created(calls: Calls, store: Snapshotter) -> None:
    """A list without filters is what containerd removes, except what its metadata names."""
    for name, parent in (("base", ""), ("middle", "base")):
        store.prepare("temporary", parent)
        store.commit(name, "temporary")
    calls.layer("k8s.io/5/top", "middle")
    calls("Prepare", key="k8s.io/6/container", parent="k8s.io/5/top")
    found = {info["name"]: info["parent"] for info in calls("List")["infos"]}
    # The collector visits snapshots from those without a parent.
    assert found == {"k8s.io/5/top": "", "k8s.io/6/container": "k8s.io/5/top"}
    assert calls("Stat", key="k8s.io/5/top")["info"]["parent"] == "middle"
    assert calls.names("kind==committed") == ["base", "k8s.io/5/top", "middle"]


def test_a_removal_is_answered_before_the_layer_is_destroyed(
    calls: Calls, root: str, monkeypatch: pytest.MonkeyPatch, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    may_go_on = threading.Event()
    destroy = EmulatedLayers.destroy

    def wait_and_destroy(layers: EmulatedLayers, directory: str) -> None:
        assert may_go_on.wait(60)
        destroy(layers, directory)

    monkeypatch.setattr(EmulatedLayers, "destroy", wait_and_destroy)
    for number in (1, 2):
        calls("Prepare", key=f"k8s.io/{number}/a")
        calls("Remove", key=f"k8s.io/{number}/a")
    assert sorted(os.listdir(os.path.join(root, "snapshots"))) == ["rm-1", "rm-2"]
    assert calls.service.health()["pending_removals"] == 2
    # Meanwhile other calls work, with the same key, too.
    calls("Prepare", key="k8s.io/1/a")
    may_go_on.set()
    eventually(lambda: calls.service.health()["pending_removals"] == 0)
    assert os.listdir(os.path.join(root, "snapshots")) == ["3"]
    # The lock of the active snapshot is not there before the first work on its files.
    eventually(lambda: os.listdir(os.path.join(root, "locks")) == [])


def test_removals_that_a_killed_service_left(
    calls: Calls, root: str, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    calls("Prepare", key="k8s.io/1/a")
    kept: List[int] = []
    opened = open_store(root, "emulated", kept.append)
    opened.remove("k8s.io/1/a")
    opened.close()
    assert (kept, calls.service.health()["pending_removals"]) == ([1], 1)
    second = Service(lambda later: open_store(root, "emulated", later))
    eventually(lambda: not second.health()["pending_removals"])
    second.stop(0)


def test_cleanup_destroys_what_waits(calls: Calls, root: str) -> None:
    calls("Prepare", key="k8s.io/1/a")
    opened = open_store(root, "emulated", lambda _layer_id: None)
    opened.remove("k8s.io/1/a")
    opened.close()
    calls("Cleanup")
    assert os.listdir(os.path.join(root, "snapshots")) == []


def test_a_removal_that_fails_does_not_end_the_collection(calls: Calls, store: Snapshotter) -> None:
    """The collection goes on only after ``failed precondition``."""
    calls("Prepare", key="k8s.io/1/a")
    lock = store.directories.lock(1)
    assert lock is not None
    with lock, pytest.raises(errors.FailedPrecondition, match="is in use by another process"):
        calls("Remove", key="k8s.io/1/a")
    calls("Remove", key="k8s.io/1/a")
    with pytest.raises(errors.NotFound):
        calls("Remove", key="k8s.io/1/a")


def test_a_view_has_its_scratch_before_it_is_mounted(calls: Calls, root: str) -> None:
    calls.layer(BASE)
    (mount,) = calls("View", key="k8s.io/2/v", parent=BASE)["mounts"]
    base, view = (os.path.join(root, "snapshots", number) for number in "12")
    assert (mount["source"], mount["options"]) == (view, ["ro", f"parentLayerPaths=[{json.dumps(base)}]"])
    assert os.path.exists(os.path.join(view, "sandbox.vhdx"))
    # A process that ended between record and scratch, or a view of a task.
    os.rename(view, view + ".away")
    assert calls("Mounts", key="k8s.io/2/v")["mounts"] == [mount]
    assert os.path.exists(os.path.join(view, "sandbox.vhdx"))
    calls("Remove", key="k8s.io/2/v")


def test_a_view_whose_scratch_cannot_be_made(calls: Calls, root: str) -> None:
    calls.layer(BASE)
    os.unlink(os.path.join(root, "snapshots", "1", "blank.vhdx"))
    with pytest.raises(errors.FailedPrecondition, match="the base layer has no template disk"):
        calls("View", key="k8s.io/2/v", parent=BASE)
    assert calls.names() == [BASE]


def test_an_unpack_gets_a_directory_only(calls: Calls, root: str) -> None:
    """Its key is the one that containerd's metadata sends."""
    calls("Prepare", key="k8s.io/7/extract-123456-AbCd sha256:00")
    assert os.listdir(os.path.join(root, "snapshots", "1")) == []
    calls("Commit", name="k8s.io/8/sha256:00", key="k8s.io/7/extract-123456-AbCd sha256:00")


# -- adoption -----------------------------------------------------------------------


def test_a_layer_that_is_in_the_store_is_adopted(calls: Calls, store: Snapshotter) -> None:
    """First containerd asks with the label, then for the snapshot with the label and its parent."""
    for name, parent in (("base", ""), ("top", "base")):
        store.prepare("temporary", parent)
        store.commit(name, "temporary", reference(f"sha256:{name}"))
    key = "k8s.io/1/extract-1 sha256:top"
    with pytest.raises(errors.AlreadyExists, match='snapshot "base": already exists'):
        calls("Prepare", key="k8s.io/1/extract-1 sha256:base", labels=reference("sha256:base"))
    with pytest.raises(errors.AlreadyExists, match='snapshot "top": already exists'):
        calls("Prepare", key=key, parent="base", labels=reference("sha256:top"))
    # The filter of containerd 1.6 to 2.3, with and without quotes.
    for value in ("sha256:top", '"sha256:top"'):
        assert calls.names(f'labels."containerd.io/snapshot.ref"=={value},parent=="base"') == ["top"]
    assert calls.names(f'labels."{SNAPSHOT_REF}"==sha256:base,parent==""') == ["base"]
    # Another parent is another layer, and without the label nothing is adopted.
    calls("Prepare", key=key, labels=reference("sha256:top"))
    calls("Prepare", key="k8s.io/2/x", parent="base")
    calls("Prepare", key="k8s.io/3/x", labels=reference('quote " \\ \n and é'))


def test_only_committed_snapshots_are_adopted(calls: Calls) -> None:
    calls("Prepare", key="k8s.io/1/a", labels=reference("sha256:a"))
    calls("Prepare", key="k8s.io/2/a", labels=reference("sha256:a"))


# -- health ---------------------------------------------------------------------------


def test_the_store_has_a_default_size_of_disks(calls: Calls, store: Snapshotter) -> None:
    calls.layer(BASE)
    size_label = "containerd.io/snapshot/windows/rootfs.sizebytes"
    sizes = []
    for number, (default, labels) in enumerate(
        ((0, {}), (30 * GIB, {}), (40 * GIB, {}), (30 * GIB, {size_label: str(50 * GIB)}))
    ):
        store.store.set_rootfs_size(default)
        key = f"k8s.io/{number + 2}/c{number}"
        calls("Prepare", key=key, parent=BASE, labels=labels)
        disk = store.scratch(key)
        assert disk is not None
        sizes.append((disk.virtual_size, calls("Stat", key=key)["info"]["labels"].get(size_label)))
    assert sizes == [
        (20 * GIB, None),
        (30 * GIB, str(30 * GIB)),
        (40 * GIB, str(40 * GIB)),
        (50 * GIB, str(50 * GIB)),
    ]
    # A view is not written to. Neither an unpack nor a base layer has a disk.
    calls("View", key="k8s.io/8/v", parent=BASE)
    assert calls("Stat", key="k8s.io/8/v")["info"]["labels"] == {}
    calls("Prepare", key="k8s.io/9/extract-1 sha256:ab", parent=BASE)
    calls("Prepare", key="k8s.io/10/bottom")
    assert store.scratch("k8s.io/9/extract-1 sha256:ab") is None
    assert store.scratch("k8s.io/10/bottom") is None


def noting(found: List[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that also notes the class of its object."""

    def call(instance: object) -> Any:
        found.append(type(instance).__name__)
        return function(instance)

    return call


def test_a_snapshot_is_prepared_in_one_transaction(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of its disk is read in it, too."""
    calls.layer(BASE)
    monkeypatch.setattr(own_store, "_TRUSTED_TIME", 60.0)
    calls("Stat", key=BASE)
    opened: List[str] = []
    for scope in (metastore_file._Scope, metastore_file._WriteScope):
        monkeypatch.setattr(scope, "__enter__", noting(opened, scope.__enter__))
    calls("Prepare", key="k8s.io/2/a", parent=BASE)
    assert opened == ["_WriteScope"]


def test_health(calls: Calls, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls("Prepare", key="k8s.io/1/a")
    with pytest.raises(errors.NotFound):
        calls("Stat", key="x")
    monkeypatch.setattr(Snapshotter, "stat", lambda *_: 1 // 0)
    with pytest.raises(errors.SnapshotterError):
        calls("Stat", key="x")
    (answer,) = calls.service.call(GET_HEALTH.path, b"")
    found = protobuf.decode(GET_HEALTH.answer, answer)
    assert (found["version"], found["calls"], found["errors"]) == ("1.2.3", 3, 1)
    assert found["last_error"].startswith("ZeroDivisionError")
    assert found["slowest_method"] in ("Prepare", "Stat")
    assert (found["running"], found["pending_removals"], found["process"]) == (0, 0, os.getpid())
    assert found["root"] == root
    assert found["uptime"] >= found["slowest_time"]


def test_the_standard_health_check(service: Service) -> None:
    def ask(name: str) -> Any:
        (answer,) = service.call(CHECK.path, protobuf.encode(CHECK.request, {"service": name}))
        return protobuf.decode(CHECK.answer, answer)["status"]

    assert (ask(""), ask("containerd.services.snapshots.v1.Snapshots")) == (1, 1)
    service.begin_stop()
    assert ask("") == 2
    with pytest.raises(errors.NotFound, match="unknown service"):
        ask("x")
    with pytest.raises(errors.InvalidArgument):
        list(service.call(CHECK.path, b"\xff"))


def test_a_root_that_cannot_be_served(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FailedPrecondition, match="is a file, not a directory"):
        Service(lambda later: open_store(str(tmp_path / "file"), "emulated", later))
