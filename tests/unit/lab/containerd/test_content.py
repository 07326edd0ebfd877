# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the services Content and Diff of a simulated containerd."""

from __future__ import annotations

import hashlib
import threading

import pytest

from lab import sample as layers
from lab.containerd import messages

DATA = bytes(range(256)) * 10000
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
ROOT = {"containerd.io/gc.root": "1"}
STAT, WRITE, COMMIT = 0, 1, 2
MIB = 1 << 20


def pieces(data, ref="r", **more):
    """Return the requests with which a client sends a blob."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    requests = [{"action": STAT, "ref": ref, "total": len(data), "expected": digest}]
    requests += [
        {"action": WRITE, "ref": ref, "offset": at, "data": data[at : at + MIB]} for at in range(0, len(data), MIB)
    ]
    return [
        *requests,
        {"action": COMMIT, "ref": ref, "offset": len(data), "total": len(data), "expected": digest, **more},
    ]


@pytest.fixture
def write(client):
    def write(*requests):
        return client("Content", "Write", requests)

    return write


def test_a_blob(client, write):
    answers = write(*pieces(DATA, labels=ROOT))
    assert [answer.offset for answer in answers] == [0, MIB, 2 * MIB, len(DATA), len(DATA)]
    assert [answer.action for answer in answers] == [STAT, WRITE, WRITE, WRITE, COMMIT]
    assert answers[-1].digest == DIGEST
    info = client("Content", "Info", digest=DIGEST).info
    assert (info.size, dict(info.labels)) == (len(DATA), ROOT)
    read = client("Content", "Read", digest=DIGEST)
    assert b"".join(answer.data for answer in read) == DATA
    assert [answer.offset for answer in read] == [0, MIB, 2 * MIB]
    part = client("Content", "Read", digest=DIGEST, offset=5, size=7)
    assert [answer.data for answer in part] == [DATA[5:12]]
    assert client("Content", "ListStatuses").statuses == []


def test_one_request_is_enough(write):
    assert [answer.digest for answer in write({"action": COMMIT, "ref": "r", "data": DATA})] == [DIGEST]


def test_an_ingest_continues(client, write):
    write(*pieces(DATA)[:2])
    status = client("Content", "Status", ref="r").status
    assert (status.ref, status.offset, status.total) == ("r", MIB, len(DATA))
    first = write(pieces(DATA)[0])
    assert first[0].offset == MIB
    write(pieces(DATA)[0], *pieces(DATA)[2:])
    assert client("Content", "Info", digest=DIGEST).info.size == len(DATA)


def test_offset_0_starts_again(client, write):
    write({"action": WRITE, "ref": "r", "data": b"old"})
    write({"action": WRITE, "ref": "r", "data": DATA[:MIB]}, *pieces(DATA)[2:])
    assert client("Content", "Info", digest=DIGEST).info.size == len(DATA)


def test_an_ingest_is_aborted(host, client, write):
    write(*pieces(DATA)[:2])
    client("Content", "Abort", ref="r")
    assert client("Content", "ListStatuses").statuses == []
    assert list(host.simulation.store.content.glob("ingest/*")) == []


def test_an_old_ingest_is_collected(host, client, write):
    write(*pieces(DATA)[:2])
    client.collect()
    assert len(client("Content", "ListStatuses").statuses) == 1
    with host.simulation.store.meta.update() as root:
        ingest = root.items[b"v1"].items[b"k8s.io"].items[b"content"].items[b"ingests"].items[b"r"]
        del ingest.items[b"expireat"]
    client.collect()
    assert client("Content", "ListStatuses").statuses == []
    assert list(host.simulation.store.content.glob("ingest/*")) == []


def test_refusals(client, write, refusal):
    assert refusal(write, {"action": STAT}) == ("INVALID_ARGUMENT", "first message must have a reference")
    assert refusal(write, {"action": WRITE, "ref": "a", "offset": 5, "data": b"x"}) == (
        "OUT_OF_RANGE",
        "write @5 must occur at current offset 0",
    )
    assert refusal(write, {"action": COMMIT, "ref": "b", "data": b"x", "total": 2}) == (
        "FAILED_PRECONDITION",
        '"b" failed size validation: 1 != 2: failed precondition',
    )
    code, sentence = refusal(write, {"action": COMMIT, "ref": "c", "data": b"x", "expected": DIGEST})
    assert code == "FAILED_PRECONDITION"
    assert sentence.startswith("unexpected commit digest sha256:")
    assert sentence.endswith(f", expected {DIGEST}: failed precondition")
    # The data stays under its reference.
    assert [status.ref for status in client("Content", "ListStatuses", filters=["ref~=b|c"]).statuses] == ["b", "c"]
    write(*pieces(DATA, labels=ROOT))
    assert refusal(write, pieces(DATA)[0]) == ("ALREADY_EXISTS", f"content {DIGEST}: already exists")
    assert refusal(client, "Content", "Read", digest=DIGEST, offset=len(DATA) + 1) == (
        "OUT_OF_RANGE",
        f"read past object length {len(DATA)} bytes",
    )
    unknown = DIGEST[:-4] + "0000"
    for name in ("Info", "Read", "Delete"):
        assert refusal(client, "Content", name, digest=unknown) == (
            "NOT_FOUND",
            f"content digest {unknown}: not found",
        )
    assert refusal(client, "Content", "Status", ref="x") == ("NOT_FOUND", "reference x: not found")
    assert refusal(client, "Content", "Info", digest="x")[0] == "INVALID_ARGUMENT"


def test_a_reference_has_one_writer(host, client, refusal):
    continues = threading.Event()

    def slowly():
        yield pieces(DATA)[0]
        continues.wait(30)
        yield from pieces(DATA)[1:]

    thread = threading.Thread(target=client, args=("Content", "Write", slowly()))
    thread.start()
    other = host.client()
    while not other("Content", "ListStatuses").statuses:
        pass
    code, sentence = refusal(other, "Content", "Write", pieces(DATA))
    assert code == "UNAVAILABLE"
    assert sentence.startswith("ref k8s.io/1/r locked for ")
    continues.set()
    thread.join()
    assert other("Content", "Info", digest=DIGEST).info.size == len(DATA)


def test_namespaces_share_blobs(host, client, write):
    write(*pieces(DATA, labels=ROOT))
    other = host.client(namespace="other")
    stat, commit = pieces(DATA)[0], pieces(DATA)[-1]
    answers = other("Content", "Write", [stat, commit])
    assert answers[0].offset == len(DATA)
    assert other("Content", "Info", digest=DIGEST).info.size == len(DATA)


def test_a_lease_holds_what_it_wrote(host, client):
    client("Leases", "Create", id="l")
    leased = host.client(lease="l")
    leased("Content", "Write", pieces(DATA))
    client.collect()
    assert client("Content", "Info", digest=DIGEST).info.size == len(DATA)
    held = client("Leases", "ListResources", id="l").resources
    assert [(each.type, each.id) for each in held] == [("content", DIGEST)]
    client("Leases", "Delete", id="l", sync=True)
    assert client("Content", "List") == []
    assert list(host.simulation.store.content.glob("blobs/sha256/*")) == []


def test_labels_of_a_blob(client, write):
    write(*pieces(DATA, labels={**ROOT, "a": "b"}))
    info = {"digest": DIGEST, "labels": {"a": "", "c": "d"}}
    client("Content", "Update", info=info, update_mask={"paths": ["labels.a", "labels.c"]})
    assert dict(client("Content", "Info", digest=DIGEST).info.labels) == {**ROOT, "c": "d"}
    found = [each.digest for answer in client("Content", "List", filters=["labels.c==d"]) for each in answer.info]
    assert found == [DIGEST]


def test_a_layer_is_unpacked(host, client, write):
    tar = layers.base_layer()
    digest = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    write(*pieces(tar))
    mounts = client.prepare("extract x", labels=ROOT).mounts
    descriptor = {"digest": digest, "media_type": "application/vnd.oci.image.layer.v1.tar", "size": len(tar)}
    applied = client("Diff", "Apply", diff=descriptor, mounts=mounts).applied
    assert (applied.digest, applied.size) == (digest, len(tar))
    client.commit(digest, "extract x", labels=ROOT)
    layer = host.simulation.store.snapshotter.directory(1)
    assert (layer / "Files" / "Windows" / "win.ini").exists()
    assert (layer / "blank.vhdx").exists()
    # Unpacking made what a container's scratch needs.
    client.prepare("container", digest, labels=ROOT)
    assert (host.simulation.store.snapshotter.directory(2) / "sandbox.vhdx").exists()


def test_layers_that_are_refused(client, write, refusal):
    write(*pieces(DATA))
    descriptor = {"digest": DIGEST}
    mount = messages.message("containerd.types.Mount")(type="bind", source=r"C:\x")
    assert refusal(client, "Diff", "Apply", diff=descriptor, mounts=[mount]) == (
        "UNIMPLEMENTED",
        "windowsDiff does not support layer type bind: not implemented",
    )
    assert refusal(client, "Diff", "Apply", diff=descriptor, mounts=[])[0] == "INVALID_ARGUMENT"
    mounts = client.prepare("extract x", labels=ROOT).mounts
    assert refusal(client, "Diff", "Apply", diff=descriptor, mounts=mounts)[0] == "INVALID_ARGUMENT"
