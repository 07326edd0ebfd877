# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the services for namespaces, leases, images and containers of a simulated containerd, and its introspection."""

from __future__ import annotations

import os

import grpc
import pytest

from lab.containerd import sample

DIGEST = "sha256:" + 64 * "a"
TARGET = {"digest": DIGEST, "media_type": "x/y", "size": 5, "annotations": {"n": "1"}}
SPEC = {"type_url": "spec", "value": b"{}"}
CONTAINER = {"id": "c", "image": "i", "runtime": {"name": "r"}, "spec": SPEC, "snapshotter": "windows"}


def test_what_a_new_one_has(filled):
    assert [each.name for each in filled("Namespaces", "List").namespaces] == ["k8s.io"]
    images = filled("Images", "List").images
    assert images[0].name == sample.IMAGE
    assert images[1].name.startswith("sha256:")
    assert images[0].target == images[1].target
    container = filled("Containers", "Get", id=sample.CONTAINER).container
    assert (container.image, container.snapshot_key, container.snapshotter) == (sample.IMAGE, "web", "windows")
    assert [each.id for each in filled("Leases", "List").leases] == [sample.LEASE]


def test_everything_is_there_after_a_restart(host, filled):
    def picture(client):
        return [
            client("Images", "List"),
            client("Containers", "List"),
            client("Leases", "List"),
            client("Content", "List"),
            client("Snapshots", "List", snapshotter="windows"),
            client("Introspection", "Server").uuid,
        ]

    before = picture(filled)
    assert picture(host.restart()) == before


def test_namespaces(client, refusal):
    client("Namespaces", "Create", namespace={"name": "a", "labels": {"x": "1"}})
    assert refusal(client, "Namespaces", "Create", namespace={"name": "a"}) == (
        "ALREADY_EXISTS",
        'namespace "a": already exists',
    )
    assert refusal(client, "Namespaces", "Create", namespace={"name": "a b"})[0] == "INVALID_ARGUMENT"
    labels = {"namespace": {"name": "a", "labels": {"y": "2"}}, "update_mask": {"paths": ["labels.y"]}}
    client("Namespaces", "Update", **labels)
    assert dict(client("Namespaces", "Get", name="a").namespace.labels) == {"x": "1", "y": "2"}
    client("Namespaces", "Delete", name="a")
    assert refusal(client, "Namespaces", "Get", name="a") == ("NOT_FOUND", 'namespace "a": not found')


def test_a_namespace_that_is_not_empty(filled, refusal):
    assert refusal(filled, "Namespaces", "Delete", name="k8s.io") == (
        "FAILED_PRECONDITION",
        (
            'namespace "k8s.io" must be empty, but it still has images, blobs, containers, '
            'snapshots on "windows" snapshotter: failed precondition'
        ),
    )


def test_leases(client, refusal):
    created = client("Leases", "Create", labels={"a": "b"}).lease
    assert created.id
    assert created.created_at.seconds > 0
    assert dict(created.labels) == {"a": "b"}
    client("Leases", "Create", id="l")
    assert refusal(client, "Leases", "Create", id="l") == ("ALREADY_EXISTS", 'lease "l": already exists')
    assert [each.id for each in client("Leases", "List", filters=["id==l"]).leases] == ["l"]
    assert refusal(client, "Leases", "Delete", id="x") == ("NOT_FOUND", 'lease "x": not found')
    assert refusal(client.other(lease="x").prepare, "key") == ("NOT_FOUND", "lease does not exist: not found")
    assert client.names() == []


@pytest.mark.parametrize(
    ("kind", "key", "code", "sentence"),
    [
        ("content", "x", "INVALID_ARGUMENT", "invalid content resource id x: invalid argument"),
        ("content/x", DIGEST, "INVALID_ARGUMENT", "invalid resource type content/x: invalid argument"),
        ("snapshots", "x", "INVALID_ARGUMENT", "invalid snapshot resource type snapshots: invalid argument"),
        ("pods", "x", "UNIMPLEMENTED", "resource type pods not supported yet: not implemented"),
    ],
)
def test_resources_that_are_refused(client, refusal, kind, key, code, sentence):
    client("Leases", "Create", id="l")
    found = refusal(client, "Leases", "AddResource", id="l", resource={"id": key, "type": kind})
    assert found == (code, sentence)


def test_images(client, refusal):
    created = client("Images", "Create", image={"name": "i", "target": TARGET, "labels": {"a": "1"}}).image
    assert created.created_at.seconds > 0
    assert client("Images", "Get", name="i").image == created
    assert refusal(client, "Images", "Create", image={"name": "i", "target": TARGET}) == (
        "ALREADY_EXISTS",
        'image "i": already exists',
    )
    image = {"name": "i", "labels": {"b": "2"}, "target": {"annotations": {"m": "3"}}}
    client("Images", "Update", image=image, update_mask={"paths": ["labels.b", "annotations.m"]})
    found = client("Images", "Get", name="i").image
    assert dict(found.labels) == {"a": "1", "b": "2"}
    assert dict(found.target.annotations) == {"n": "1", "m": "3"}
    assert found.target.digest == DIGEST
    target = {**TARGET, "size": 6, "annotations": {}}
    client("Images", "Update", image={"name": "i", "target": target})
    found = client("Images", "Get", name="i").image
    assert (dict(found.labels), found.target.size, dict(found.target.annotations)) == ({}, 6, {})
    assert [each.name for each in client("Images", "List", filters=[f"target.digest=={DIGEST}"]).images] == ["i"]
    client("Images", "Delete", name="i", sync=True)
    assert refusal(client, "Images", "Get", name="i") == ("NOT_FOUND", 'image "i": not found')


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ({"target": TARGET}, "image name must not be empty: invalid argument"),
        ({"name": "i", "target": {**TARGET, "size": 0}}, "Target.Size must be greater than zero: invalid argument"),
        ({"name": "i", "target": {**TARGET, "media_type": ""}}, "Target.MediaType must be set: invalid argument"),
        (
            {"name": "i", "target": {**TARGET, "digest": "x"}},
            'Target.Digest "x" invalid: invalid checksum digest format: invalid argument',
        ),
        (
            {"name": "i", "target": TARGET, "labels": {"k": "x" * 4096}},
            (
                "image.Labels: label key and value length (4097 bytes) greater than maximum size (4096 bytes), key: k: "
                "invalid argument"
            ),
        ),
    ],
)
def test_images_that_are_refused(client, refusal, image, sentence):
    assert refusal(client, "Images", "Create", image=image) == ("INVALID_ARGUMENT", sentence)


def test_containers(client, refusal):
    extension = {"type_url": "t", "value": b"v"}
    container = {
        **CONTAINER,
        "snapshot_key": "k",
        "labels": {"a": "1"},
        "extensions": {"e": extension},
        "runtime": {"name": "r", "options": extension},
        "sandbox": "pod",
    }
    created = client("Containers", "Create", container=container).container
    assert created.updated_at == created.created_at
    assert (created.spec.value, created.extensions["e"].value, created.runtime.options.value) == (b"{}", b"v", b"v")
    assert created.sandbox == "pod"
    assert client("Containers", "Get", id="c").container == created
    assert [answer.container for answer in client("Containers", "ListStream")] == [created]
    update = {"id": "c", "labels": {"b": "2"}, "extensions": {"f": extension}, "snapshot_key": "new"}
    paths = ["labels.b", "extensions.f", "snapshotkey"]
    client("Containers", "Update", container=update, update_mask={"paths": paths})
    found = client("Containers", "Get", id="c").container
    assert dict(found.labels) == {"a": "1", "b": "2"}
    assert (sorted(found.extensions), found.snapshot_key, found.image) == (["e", "f"], "new", "i")
    client("Containers", "Update", container={**CONTAINER, "image": "j"})
    found = client("Containers", "Get", id="c").container
    assert (dict(found.labels), dict(found.extensions), found.image, found.snapshot_key) == ({}, {}, "j", "")
    assert [each.id for each in client("Containers", "List", filters=["image==j"]).containers] == ["c"]
    client("Containers", "Delete", id="c")
    assert refusal(client, "Containers", "Get", id="c") == (
        "NOT_FOUND",
        'container "c" in namespace "k8s.io": not found',
    )
    assert refusal(client, "Containers", "Delete", id="c") == ("NOT_FOUND", "container c: not found")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"runtime": {}}, "container.Runtime.Name must be set: invalid argument"),
        ({"spec": None}, "container.Spec must be set: invalid argument"),
        (
            {"snapshotter": "", "snapshot_key": "k"},
            "container.Snapshotter must be set if container.SnapshotKey is set: invalid argument",
        ),
        ({"id": ""}, "container.ID: identifier must not be empty: invalid argument"),
    ],
)
def test_containers_that_are_refused(client, refusal, change, sentence):
    found = refusal(client, "Containers", "Create", container={**CONTAINER, **change})
    assert found == ("INVALID_ARGUMENT", f"create container failed validation: {sentence}")


def test_fields_of_containers_that_do_not_change(client, refusal):
    client("Containers", "Create", container=CONTAINER)
    assert refusal(client, "Containers", "Update", container={**CONTAINER, "snapshotter": "x"}) == (
        "INVALID_ARGUMENT",
        "container.Snapshotter field is immutable: invalid argument",
    )
    mask = {"paths": ["runtime"]}
    assert refusal(client, "Containers", "Update", container=CONTAINER, update_mask=mask) == (
        "INVALID_ARGUMENT",
        'cannot update "runtime" field on "c": invalid argument',
    )


def test_a_filter_that_is_refused(client, refusal):
    code, sentence = refusal(client, "Images", "List", filters=["name="])
    assert code == "INVALID_ARGUMENT"
    assert sentence.startswith("filters: parse error")


def test_introspection(client):
    version = client("Version", "Version")
    assert (version.version, version.revision) == ("v2.3.4", "lab")
    server = client("Introspection", "Server")
    assert server.pid == os.getpid()
    assert client("Introspection", "Server").uuid == server.uuid
    filters = ["type==io.containerd.snapshotter.v1,id==windows"]
    plugins = client("Introspection", "Plugins", filters=filters).plugins
    assert [(each.id, each.platforms[0].os, dict(each.exports)) for each in plugins] == [("windows", "windows", {})]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("containerd.services.tasks.v1.Tasks/List", "unknown service containerd.services.tasks.v1.Tasks"),
        ("containerd.services.diff.v1.Diff/Diff", "unknown method Diff for service containerd.services.diff.v1.Diff"),
    ],
)
def test_what_the_simulation_does_not_have(host, refusal, path, sentence):
    with grpc.insecure_channel(f"unix:{host.node.socket}") as channel:
        assert refusal(channel.unary_unary(f"/{path}"), b"") == ("UNIMPLEMENTED", sentence)
