# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the service Snapshots of a simulated containerd, and its snapshotter."""

from __future__ import annotations

import json

import pytest

ROOT = {"containerd.io/gc.root": "1"}
SIZE = "containerd.io/snapshot/windows/rootfs.sizebytes"


def directories(host):
    return sorted(path.name for path in host.simulation.store.snapshotter.directories.iterdir())


def test_a_life(host, client):
    mounts = client.prepare("a key", labels=ROOT).mounts
    assert [(mount.type, list(mount.options)) for mount in mounts] == [("windows-layer", ["rw"])]
    prefix = r"C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows\snapshots"
    assert mounts[0].source == rf"{prefix}\1"
    client.commit("base", "a key", labels=ROOT)
    info = client("Snapshots", "Stat", snapshotter="windows", key="base").info
    assert (info.name, info.parent, info.kind, dict(info.labels)) == ("base", "", 3, ROOT)
    child = client.prepare("child", "base", labels=ROOT).mounts[0]
    assert child.source == rf"{prefix}\2"
    assert child.options[1] == "parentLayerPaths=" + json.dumps([rf"{prefix}\1"])
    assert client("Snapshots", "Mounts", snapshotter="windows", key="child").mounts[0] == child
    view = client("Snapshots", "View", snapshotter="windows", key="view", parent="base", labels=ROOT)
    assert view.mounts[0].options[0] == "ro"
    client.commit("second", "child", labels=ROOT)
    assert client.names() == ["base", "second", "view"]
    assert client("Snapshots", "Usage", snapshotter="windows", key="second").size > 0
    assert directories(host) == ["1", "2", "3"]
    for key in ("view", "second", "base"):
        client.remove(key)
    client.collect()
    assert client.names() == []
    assert directories(host) == []


def test_both_databases(host, client):
    client.prepare("key", labels={**ROOT, SIZE: "30000000000"})
    client.commit("base", "key", labels={**ROOT, SIZE: "1"})
    record = host.simulation.store.snapshotter.records()[0]
    assert (record.key, record.id, record.labels) == ("k8s.io/2/base", 1, {SIZE: "1"})
    client("Snapshots", "Update", snapshotter="windows", info={"name": "base", "labels": {SIZE: "2", "x": "y"}})
    assert host.simulation.store.snapshotter.records()[0].labels == {SIZE: "2"}
    mask = {"paths": ["labels.x"]}
    info = {"name": "base", "labels": {"x": ""}}
    answer = client("Snapshots", "Update", snapshotter="windows", info=info, update_mask=mask)
    assert dict(answer.info.labels) == {SIZE: "2"}


def test_the_same_key_in_two_namespaces(host, client):
    client.prepare("key", labels=ROOT)
    other = host.client(namespace="other")
    other.prepare("key", labels=ROOT)
    assert [record.key for record in host.simulation.store.snapshotter.records()] == ["k8s.io/1/key", "other/1/key"]
    client.remove("key")
    client.collect()
    assert other.names() == ["key"]


def test_refusals(client, refusal):
    client.prepare("key", labels=ROOT)
    prefix = "Snapshots", "Mounts"
    assert refusal(client.prepare, "key") == ("ALREADY_EXISTS", 'snapshot "key": already exists')
    assert refusal(client.prepare, "b", "none") == ("NOT_FOUND", "parent snapshot none does not exist: not found")
    assert refusal(client.prepare, "b", "key") == (
        "INVALID_ARGUMENT",
        'failed to create snapshot: parent "k8s.io/1/key" is not committed snapshot: invalid argument',
    )
    assert refusal(client, *prefix, snapshotter="windows", key="none") == (
        "NOT_FOUND",
        "snapshot none does not exist: not found",
    )
    assert refusal(client, *prefix, key="key") == (
        "INVALID_ARGUMENT",
        "snapshotter argument missing: invalid argument",
    )
    assert refusal(client, *prefix, snapshotter="cimfs", key="key") == (
        "INVALID_ARGUMENT",
        "snapshotter not loaded: cimfs: invalid argument",
    )
    assert refusal(client, "Snapshots", "Cleanup", snapshotter="windows")[0] == "UNIMPLEMENTED"
    client.commit("base", "key", labels=ROOT)
    assert refusal(client, *prefix, snapshotter="windows", key="base")[0] == "FAILED_PRECONDITION"
    client.prepare("child", "base", labels=ROOT)
    assert refusal(client.remove, "base") == (
        "FAILED_PRECONDITION",
        "cannot remove snapshot with child: failed precondition",
    )
    assert refusal(client.commit, "base", "child") == ("ALREADY_EXISTS", 'snapshot "base": already exists')
    mask = {"paths": ["parent"]}
    assert refusal(client, "Snapshots", "Update", snapshotter="windows", info={"name": "base"}, update_mask=mask) == (
        "INVALID_ARGUMENT",
        'cannot update "parent" field on snapshot "base": invalid argument',
    )
    assert client.names() == ["base", "child"]


@pytest.mark.parametrize(
    ("namespace", "code", "sentence"),
    [
        ("", "FAILED_PRECONDITION", "namespace is required: failed precondition"),
        ("a/b", "INVALID_ARGUMENT", 'namespace validation: identifier "a/b" must match'),
    ],
)
def test_namespaces_that_are_refused(host, refusal, namespace, code, sentence):
    found = refusal(host.client(namespace=namespace).prepare, "key")
    assert found[0] == code
    assert found[1].startswith(sentence)


def test_a_failed_prepare_leaves_nothing(host, client, refusal):
    client.prepare("key", labels=ROOT)
    client.commit("base", "key", labels=ROOT)
    code, sentence = refusal(client.prepare, "child", "base", labels={SIZE: "1 GB"})
    assert code == "INVALID_ARGUMENT"
    assert sentence.startswith(f'failed to parse label "{SIZE}"="1 GB"')
    assert client.names() == ["base"]
    assert directories(host) == ["1"]
    client.prepare("child", "base", labels=ROOT)
    assert directories(host) == ["1", "2"]


def test_filters(client):
    client.prepare("a", labels=ROOT)
    client.prepare("b", labels={**ROOT, "x": "1"})
    client.commit("c", "b", labels={**ROOT, "x": "1"})

    def listed(*filters):
        answers = client("Snapshots", "List", snapshotter="windows", filters=filters)
        return [info.name for answer in answers for info in answer.info]

    assert listed() == ["a", "c"]
    assert listed("kind==committed") == ["c"]
    assert listed("labels.x==1", "name==a") == ["a", "c"]
    assert listed("parent==x") == []


def test_lists_come_in_portions(client):
    for number in range(101):
        client.prepare(f"extract {number}", labels=ROOT)
    answers = client("Snapshots", "List", snapshotter="windows")
    assert [len(answer.info) for answer in answers] == [100, 1]


def test_a_reference_that_exists_is_not_prepared_again(client, refusal):
    client.prepare("key", labels=ROOT)
    client.commit("chain", "key", labels=ROOT)
    labels = {"containerd.io/snapshot.ref": "chain"}
    assert refusal(client.prepare, "extract x", labels=labels) == (
        "ALREADY_EXISTS",
        'target snapshot "chain": already exists',
    )


def test_prepare_takes_a_directory_that_is_there(host, client):
    found = host.simulation.store.snapshotter.directories / "1"
    found.mkdir()
    (found / "old").write_text("left by a process that was killed")
    client.prepare("key", labels=ROOT)
    assert (found / "old").exists()
    assert directories(host) == ["1"]


def test_a_layer_that_cannot_be_destroyed_leaves_a_removal_directory(host, client, monkeypatch):
    from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import Unavailable

    client.prepare("key", labels=ROOT)

    def fail(directory):
        raise Unavailable("in use")

    monkeypatch.setattr(host.simulation.store.snapshotter.layers, "destroy", fail)
    client.remove("key")
    client.collect()
    assert directories(host) == ["rm-1"]
    assert host.simulation.store.snapshotter.records() == []
