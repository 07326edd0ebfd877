# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what the interface of snapshots asks of containerd. tests/peers/test_snapshots_api.py has the contract."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors, snapshots
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.snapshots import (
    ROOT_LABEL,
    ContainerdSnapshots,
)
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.containerd.fake import Failure, Fake

CHILD = "cannot remove snapshot with child: failed precondition"


def lease(message: Dict[str, Any]) -> Dict[str, Any]:
    return {"lease": message}


def opened(fake: Fake, *, is_patient: bool = False) -> ContainerdSnapshots:
    return ContainerdSnapshots(fake.client(), "windows", is_patient=is_patient)


def test_the_interface_is_implemented() -> None:
    # mypy checks this.
    _store: snapshots.Snapshots = opened(Fake({}))


def test_a_task_that_only_reads_needs_no_lease() -> None:
    fake = Fake({})
    store = opened(fake)
    store.stat("a")
    assert store.walk() == []
    store.mounts("a")
    store.close()
    assert fake.methods() == ["Snapshots/Stat", "Snapshots/List", "Snapshots/Mounts"]


def test_what_is_created_has_a_lease_and_a_root_label() -> None:
    fake = Fake({"Leases/Create": lease})
    store = opened(fake)
    store.prepare("a", "p", {"l": "v"})
    store.view("v", "p", {ROOT_LABEL: "mine"})
    store.commit("c", "a")
    store.close()
    store.close()
    assert fake.methods() == [
        *("Leases/Create", "Snapshots/Prepare", "Snapshots/View", "Snapshots/Commit", "Snapshots/Stat", "Leases/Delete")
    ]
    created, prepare, view, commit, _stat, _delete = fake.asked
    assert prepare.lease == view.lease == commit.lease == created.message["id"]
    assert (prepare.message["key"], prepare.message["parent"], prepare.message["labels"]["l"]) == ("a", "p", "v")
    assert prepare.message["labels"][ROOT_LABEL].startswith("20")
    assert view.message["labels"] == {ROOT_LABEL: "mine"}
    assert set(commit.message["labels"]) == {ROOT_LABEL}
    with pytest.raises(errors.FailedPrecondition, match="is not open"):
        store.walk()


def test_a_root_label_stays_unless_it_is_named() -> None:
    fake = Fake({"Snapshots/Stat": {"info": {"labels": {ROOT_LABEL: "then", "l": "v"}}}})
    store = opened(fake)
    for labels, fieldpaths, sent in (
        ({"m": "w"}, [], {"m": "w", ROOT_LABEL: "then"}),
        ({"m": "w"}, ["labels"], {"m": "w", ROOT_LABEL: "then"}),
        ({ROOT_LABEL: "now"}, [], {ROOT_LABEL: "now"}),
        ({"m": "w"}, ["labels.m"], {"m": "w"}),
        ({}, ["labels." + ROOT_LABEL], {}),
    ):
        store.update("a", labels, fieldpaths)
        message = fake.asked[-1].message
        assert message["info"]["labels"] == sent
        assert message["mask"] == ({"paths": fieldpaths} if fieldpaths else None)


def test_input_is_checked_before_a_lease_is_made() -> None:
    fake = Fake({})
    store = opened(fake)
    for call in (
        lambda: store.prepare(""),
        lambda: store.view("\ud800"),
        lambda: store.prepare("a", labels={"l": "v" * 4096}),
        lambda: store.commit("", "a"),
        lambda: store.update("a", {"l": "\ud800"}),
        lambda: store.walk("name=="),
    ):
        with pytest.raises(errors.InvalidArgument):
            call()
    assert fake.asked == []


@pytest.mark.parametrize(
    ("filters", "passed"),
    [
        (["name==a"], True),
        (["kind==active,labels.l!=x", 'parent==""'], True),
        (["name~=/a/"], False),
        (["name==a", "name~=/a/"], False),
        (['name=="\\xff"'], False),
        (['name=="a\\nb"'], False),
    ],
)
def test_filters(filters: List[str], passed: bool) -> None:
    fake = Fake({"Snapshots/List": [{"infos": [{"name": "b", "kind": 2}, {"name": "a", "kind": 2}]}, {}]})
    store = opened(fake)
    found = [info.name for info in store.walk(*filters)]
    assert fake.asked[0].message["filters"] == (filters if passed else [])
    # The language here decides, too: this server ignores filters.
    assert found == (["a", "b"] if "kind==active" in filters[0] else [] if '"' in filters[0] else ["a"])


def test_a_filter_that_matches_nothing_is_a_warning() -> None:
    store = opened(Fake({}))
    assert store.walk("name~=/(/") == []
    assert "a filter matches nothing" in store.warnings[0]


@pytest.mark.parametrize("is_patient", [False, True])
def test_removals(is_patient: bool) -> None:
    def remove(message: Dict[str, Any]) -> Any:
        return gone.get(message["key"], {})

    gone: Dict[str, Optional[Failure]] = {
        "x": Failure(5, "snapshot x does not exist: not found"),
        "p": Failure(9, CHILD),
    }
    fake = Fake({"Leases/Create": lease, "Snapshots/Remove": remove})
    store = opened(fake, is_patient=is_patient)
    collection = ["Leases/Create", "Leases/Delete"] if is_patient else []
    store.remove("a")
    assert fake.methods() == ["Snapshots/Remove", *collection]
    fake.asked.clear()
    assert store.remove_all(["b", "x", "c"]) == ["b", "c"]
    assert fake.methods() == ["Snapshots/Remove"] * 3 + collection
    fake.asked.clear()
    with pytest.raises(errors.FailedPrecondition, match=CHILD) as caught:
        store.remove_all(["b", "p", "c"])
    assert "store_check with repair=true removes it" in caught.value.details["advice"]
    assert fake.methods() == ["Snapshots/Remove"] * 2 + collection
    fake.asked.clear()
    with pytest.raises(errors.NotFound):
        store.remove("x")
    assert store.remove_all(["x"]) == []
    assert fake.methods() == ["Snapshots/Remove"] * 2
    store.close()


def test_a_parent_at_the_commit() -> None:
    """Versions of containerd that do not know the field would ignore it."""
    fake = Fake({"Leases/Create": lease, "Snapshots/Stat": {"info": {"parent": "p"}}})
    store = opened(fake)
    store.commit("c", "a", parent="p")
    with pytest.raises(errors.InvalidArgument, match='snapshot "a" has the parent "p"'):
        store.commit("c", "a", parent="q")
    fake.answers["Snapshots/Stat"] = {"info": {}}
    with pytest.raises(errors.NotImplementedHere, match="prepare it with the parent"):
        store.commit("c", "a", parent="q")
    assert fake.methods().count("Snapshots/Commit") == 1


@pytest.mark.parametrize(
    ("failure", "kind", "advice"),
    [
        (Failure(5, 'missing parent "a" bucket: not found'), errors.NotFound, "The two databases of containerd differ"),
        (
            Failure(5, "parent snapshot p does not exist: not found"),
            errors.NotFound,
            "Create or import the parent first",
        ),
        (Failure(5, "snapshot a does not exist: not found"), errors.NotFound, "Correct the key or name, the namespace"),
        (Failure(6, 'snapshot "a": already exists'), errors.AlreadyExists, "Choose another key or name"),
        (Failure(3, "parent is not committed: invalid argument"), errors.InvalidArgument, "Commit the parent first"),
        (Failure(2, "rename new-1 2: file exists: unknown"), errors.Internal, "A directory has the id that containerd"),
        (Failure(14, "stopping"), errors.Unavailable, None),
    ],
)
def test_advice(failure: Failure, kind: Any, advice: Optional[str]) -> None:
    store = opened(Fake({"Leases/Create": lease, "Snapshots/Prepare": failure}))
    with pytest.raises(kind) as caught:
        store.prepare("a", "p")
    assert caught.value.message == failure.message
    found = caught.value.details.get("advice")
    assert found is advice or found.startswith(advice)


def test_a_snapshotter_that_is_not_loaded() -> None:
    plugins: List[Dict[str, Any]] = [{"id": "native"}, {"id": "lcow"}, {"id": "zfs", "init_err": {"message": "no zfs"}}]
    fake = Fake({"Introspection/Plugins": {"plugins": plugins}})
    fake.answers["Snapshots/List"] = Failure(3, "snapshotter not loaded: windows: invalid argument")
    store = opened(fake)
    with pytest.raises(errors.InvalidArgument) as caught:
        store.walk()
    assert caught.value.details["advice"] == "Correct the name of the snapshotter; containerd has loaded: lcow, native"
    plugins.append({"id": "windows", "init_err": {"message": "C: is ReFS"}})
    with pytest.raises(errors.InvalidArgument) as caught:
        store.walk()
    assert caught.value.details["advice"].startswith("This snapshotter could not start (C: is ReFS). See the log")
    fake.answers["Introspection/Plugins"] = Failure(12, "unknown service")
    with pytest.raises(errors.InvalidArgument) as caught:
        store.walk()
    assert caught.value.details["advice"] == "Correct the name of the snapshotter"


def test_exists() -> None:
    fake = Fake({"Namespaces/List": {"namespaces": [{"name": "default"}]}})
    store = opened(fake)
    assert not store.exists()
    fake.answers["Namespaces/List"] = {"namespaces": [{"name": "default"}, {"name": "k8s.io"}]}
    assert store.exists()
