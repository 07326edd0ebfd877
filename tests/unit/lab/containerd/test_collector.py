# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the garbage collector of a simulated containerd."""

from __future__ import annotations

import time

from lab.containerd import sample

ROOT = {"containerd.io/gc.root": "1"}


def blobs(client):
    return {info.digest for answer in client("Content", "List") for info in answer.info}


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_sample_stays(filled):
    names, content = filled.names(), blobs(filled)
    filled.collect()
    assert filled.names() == names
    assert len(names) == 3
    assert blobs(filled) == content
    assert len(content) == 3


def test_a_snapshot_without_root_goes(filled, base):
    filled.prepare("mine", base)
    filled.collect()
    assert "mine" not in filled.names()


def test_a_collection_follows_a_deletion(automatic):
    """No client asks for it."""
    sample.fill(automatic.simulation)
    client = automatic.client()
    client("Leases", "Delete", id="build-cache")
    wait_until(lambda: "build-1" not in client.names())
    wait_until(lambda: len(automatic.simulation.store.snapshotter.records()) == 2)


def test_a_lease_holds_what_it_names(filled, base):
    filled("Leases", "Create", id="l", labels={"a": "b"})
    leased = filled.other(lease="l")
    leased.prepare("mine", base)
    filled.prepare("second", base)
    resource = {"id": "second", "type": "snapshots/windows"}
    filled("Leases", "AddResource", id="l", resource=resource)
    filled.collect()
    assert {"mine", "second"} <= set(filled.names())
    held = filled("Leases", "ListResources", id="l").resources
    assert [(each.type, each.id) for each in held] == [("snapshots/windows", "mine"), ("snapshots/windows", "second")]
    filled("Leases", "DeleteResource", id="l", resource=resource)
    filled("Leases", "Delete", id="l", sync=True)
    assert not {"mine", "second"} & set(filled.names())
    leased.close()


def test_an_expired_lease_goes(filled, base):
    labels = {"containerd.io/gc.expire": "2020-01-01T00:00:00Z"}
    filled("Leases", "Create", id="old", labels=labels)
    leased = filled.other(lease="old")
    leased.prepare("mine", base)
    filled.collect()
    assert "mine" not in filled.names()
    assert [lease.id for lease in filled("Leases", "List").leases] == ["build-cache"]
    leased.close()


def test_an_image_holds_content_and_snapshots(filled):
    filled("Leases", "Delete", id="build-cache")
    filled("Containers", "Delete", id="web")
    filled.collect()
    assert len(filled.names()) == 1
    for image in filled("Images", "List").images:
        filled("Images", "Delete", name=image.name)
    filled.collect()
    assert filled.names() == []
    assert blobs(filled) == set()


def test_a_container_holds_its_snapshot_and_its_parents(filled, base):
    for image in filled("Images", "List").images:
        filled("Images", "Delete", name=image.name, sync=True)
    assert set(filled.names()) == {base, "build-1", "web"}
    assert blobs(filled) == set()


def test_blobs_that_another_namespace_has_stay(host, filled):
    content = host.simulation.store.content
    digest = min(blobs(filled))
    other = host.client(namespace="other")
    labels = {"containerd.io/gc.root": "1"}
    request = {"action": 2, "ref": "r", "expected": digest, "labels": labels}
    # The data is not sent: the other namespace has it.
    offset = (content / "blobs" / "sha256" / digest[7:]).stat().st_size
    other("Content", "Write", [{**request, "offset": offset}])
    for image in filled("Images", "List").images:
        filled("Images", "Delete", name=image.name)
    filled.collect()
    assert blobs(other) == {digest}
    assert [path.name for path in content.glob("blobs/sha256/*")] == [digest[7:]]


def test_a_flat_lease_holds_the_object_alone(filled):
    content = blobs(filled)
    config = next(
        info.digest
        for answer in filled("Content", "List")
        for info in answer.info
        if any(label.startswith("containerd.io/gc.ref.snapshot.") for label in info.labels)
    )
    filled("Leases", "Create", id="flat", labels={"containerd.io/gc.flat": "1"})
    filled("Leases", "AddResource", id="flat", resource={"id": config, "type": "content"})
    filled("Leases", "Delete", id="build-cache")
    filled("Containers", "Delete", id="web")
    for image in filled("Images", "List").images:
        filled("Images", "Delete", name=image.name)
    filled.collect()
    assert blobs(filled) == {config} < content
    assert filled.names() == []


def test_the_link_to_a_collected_child_stays(filled, base, refusal):
    """A fault of containerd that its users know: such a parent cannot be removed."""
    filled.prepare("p", base, labels=ROOT)
    filled.commit("parent", "p", labels=ROOT)
    filled.prepare("child", "parent")
    filled.collect()
    assert "child" not in filled.names()
    assert refusal(filled.remove, "parent") == (
        "FAILED_PRECONDITION",
        "cannot remove snapshot with child: failed precondition",
    )
    # It goes when nothing needs it any more.
    filled("Snapshots", "Update", snapshotter="windows", info={"name": "parent"})
    filled.collect()
    assert "parent" not in filled.names()


def test_a_record_without_entry_needs_a_mark(host, filled, base):
    """The note is lost when containerd ends, so the record stays until a snapshot is removed."""
    snapshotter = host.simulation.store.snapshotter
    parent = next(record.key for record in snapshotter.records() if not record.parent)
    assert parent.endswith(base)
    snapshotter.create(2, "k8s.io/99/orphan", parent, {})
    client = host.restart()
    client.collect()
    assert "k8s.io/99/orphan" in [record.key for record in host.simulation.store.snapshotter.records()]
    client.prepare("any", base, labels=ROOT)
    client.remove("any")
    client.collect()
    assert len(host.simulation.store.snapshotter.records()) == 3
