# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test lists of containerd's store: entries, what needs them, and where the store is."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.tests.builders import containerd_databases as build

BASE = "sha256:ba5e"
MANIFEST, CONFIG = "sha256:3a", "sha256:c0"


def fill(root: str) -> None:
    """Write a store: an image with one layer, a container and its snapshot, and one that nothing needs."""
    kubernetes, other = build.Objects(), build.Objects()
    kubernetes.snapshot(BASE)
    kubernetes.snapshot("pod 1/Größe", BASE, {"team": "blue"})
    kubernetes.snapshot("unused", BASE)
    kubernetes.image("example.com/base:1", MANIFEST)
    kubernetes.blob(MANIFEST, {"containerd.io/gc.ref.content.config": CONFIG})
    kubernetes.blob(CONFIG, {"containerd.io/gc.ref.snapshot.windows": BASE})
    kubernetes.container("c1", "pod 1/Größe")
    other.snapshot(BASE, labels={"containerd.io/gc.root": "x"}, name=f"other/9/{BASE}")
    records = build.Records()
    records.add(f"{build.NAMESPACE}/1/{BASE}")
    records.add(f"{build.NAMESPACE}/2/pod 1/Größe", 2, f"{build.NAMESPACE}/1/{BASE}")
    records.add(f"{build.NAMESPACE}/3/unused", 1, f"{build.NAMESPACE}/1/{BASE}")
    records.add(f"other/9/{BASE}")
    build.write_root(root, build.metadata(k8s=kubernetes, other=other), build.store(records), ["1", "2", "3", "4"])
    with open(os.path.join(root, "io.containerd.snapshotter.v1.windows", "snapshots", "2", "file"), "wb") as file:
        file.write(b"x" * 5000)


def ask(root: str, operation: str = "list", arguments: Any = None, **keys: Any) -> Dict[str, Any]:
    """Return the entry of the reply. The root and the address are set, so the host is not asked for them."""
    request = {
        "protocol": 1,
        "store": "containerd",
        "root": root,
        "address": "/run/none.sock",
        "layers": "emulated",
        "operations": [{"operation": operation, "arguments": arguments or {}}],
        **keys,
    }
    reply = door.handle(json.dumps(request).encode())
    assert "error" not in reply, reply
    (entry,) = reply["results"]
    return dict(entry)


def listed(root: str, arguments: Any = None, **keys: Any) -> List[Dict[str, Any]]:
    entry = ask(root, "list", arguments, **keys)
    assert entry["ok"], entry
    snapshots: List[Dict[str, Any]] = entry["result"]["snapshots"]
    return snapshots


@pytest.fixture
def root(tmp_path: Any) -> str:
    fill(str(tmp_path / "root"))
    return str(tmp_path / "root")


def test_entries(root: str) -> None:
    entry = ask(root)
    assert (entry["changed"], entry["result"]["exists"], entry["result"]["mistakes"]) == (False, True, [])
    pod, base, unused, other = entry["result"]["snapshots"]
    assert (base["namespace"], base["name"], base["kind"], base["parent"]) == (build.NAMESPACE, BASE, "committed", "")
    assert base["created"] == build.TIME_TEXT
    assert base["directory"] == os.path.join(root, "io.containerd.snapshotter.v1.windows", "snapshots", "1")
    assert base["used_by"] == {
        "images": ["example.com/base:1"],
        "containers": ["c1"],
        "sandboxes": [],
        "leases": [],
        "roots": [],
        "content": [],
        "ingests": [],
        "children": ["pod 1/Größe", "unused"],
    }
    assert (pod["id"], pod["labels"], pod["parent"]) == (2, {"team": "blue"}, BASE)
    assert (pod["used_by"]["containers"], pod["used_by"]["images"]) == (["c1"], [])
    assert [each["collectable"] for each in (pod, base, unused, other)] == [False, False, True, False]
    assert (other["namespace"], other["name"], other["used_by"]["roots"]) == ("other", BASE, [BASE])


def test_where_the_store_is(root: str) -> None:
    described = ask(root)["result"]["containerd"]
    assert described["root"] == root
    assert described["namespaces"] == [build.NAMESPACE, "other"]
    assert described["sources"]["root"] == "the option root"
    assert (described["snapshotter"], described["running"]) == ("windows", False)


def test_selection(root: str) -> None:
    def names(arguments: Any = None, **keys: Any) -> List[str]:
        return [f"{each['namespace']} {each['name']}" for each in listed(root, arguments, **keys)]

    assert names({"names": [BASE, "absent"]}) == [f"{build.NAMESPACE} {BASE}", f"other {BASE}"]
    assert names(namespace="other") == [f"other {BASE}"]
    assert names({"filters": ["kind==active"]}) == [f"{build.NAMESPACE} pod 1/Größe"]
    assert names({"filters": ["labels.team==blue"], "names": [BASE]}) == []
    assert 'snapshots have no field "x"' in ask(root, "list", {"filters": ["x==1"]})["warnings"][0]


def test_usage_mounts_and_scratch(root: str) -> None:
    arguments = {"usage": True, "mounts": True, "scratch": True}
    pod, base, unused, _other = listed(root, arguments)
    assert base["usage"] == {"size": 1000, "inodes": 0}
    assert pod["usage"]["size"] >= 5000
    assert (base["mounts"], base["scratch"]) == ([], None)
    (mount,) = pod["mounts"]
    assert (mount["type"], mount["source"]) == ("windows-layer", pod["directory"])
    assert mount["options"][0] == "rw"
    assert json.loads(mount["options"][1].partition("=")[2]) == [base["directory"]]
    assert unused["mounts"][0]["options"][0] == "ro"
    assert "error" not in pod


def test_a_layer_that_cannot_be_read(root: str) -> None:
    shutil.rmtree(os.path.join(root, "io.containerd.snapshotter.v1.windows", "snapshots", "2"))
    pod = listed(root, {"usage": True})[0]
    assert pod["usage"] is None
    assert pod["error"]["message"].startswith(f'snapshot "pod 1/Größe" of the namespace {build.NAMESPACE}: ')


def test_unknown_places(root: str, tmp_path: Any) -> None:
    error = ask(root, namespace="nowhere")["error"]
    assert error["code"] == "not_found"
    assert f"has no namespace 'nowhere'; it has {build.NAMESPACE}, other. Set the option namespace" in error["message"]
    error = ask(root, snapshotter="native")["error"]
    assert "the snapshotter native (the option snapshotter) has no snapshots in" in error["message"]
    assert "those with snapshots are windows" in error["message"]
    assert "is not managed" in ask(root, snapshotter="cimfs")["error"]["message"]
    error = ask(str(tmp_path / "elsewhere"))["error"]
    assert error["code"] == "not_found"
    assert "is" in error["message"]
    assert "containerd's root directory" in error["message"]


def test_other_operations_touch_nothing(root: str) -> None:
    error = ask(root, "ensure_layer", {"name": "x", "src": "y"})["error"]
    assert error["code"] == "not_implemented"
    assert "ensure_layer does not work on containerd's store" in error["message"]
    assert "possible there: ensure_snapshot, " in error["message"]


def test_keys_of_requests(root: str) -> None:
    for keys, said in (
        ({"store": "mine"}, "store 'mine' is not one of own, containerd"),
        ({"address": 7}, "address must be a string"),
        ({"store": "own"}, "address is about containerd's store"),
        ({"root": ["x"]}, "root must be the path"),
    ):
        request: Dict[str, Any] = {
            "protocol": 1,
            "store": "containerd",
            "root": root,
            "address": "x",
            "operations": [{"operation": "list", "arguments": {}}],
            **keys,
        }
        assert said in door.handle(json.dumps(request).encode())["error"]["message"]


def test_a_snapshot_without_a_record(root: str, tmp_path: Any) -> None:
    objects = build.Objects()
    objects.snapshot("lost")
    lost = str(tmp_path / "lost")
    build.write_root(lost, build.metadata(k8s=objects), build.store(build.Records()))
    entry = ask(lost)
    assert entry["result"]["snapshots"] == []
    assert "1 of the snapshots cannot be listed" in entry["warnings"][-1]
