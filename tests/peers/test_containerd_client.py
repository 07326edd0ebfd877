# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our client of containerd's API, on a real containerd next to ``ctr``, and its messages next to containerd's files."""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import subprocess
from typing import Any, Dict, Iterator, Set, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import messages
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import (
    CONTENT_PIECE,
    Client,
    Descriptor,
    Resource,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Info
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import protobuf
from ansible_collections.wcow.snapshotter.tests.peers.containerd import SNAPSHOTTER, Containerd

pytestmark = [pytest.mark.requires_tool("containerd", "containerd"), pytest.mark.requires_tool("ctr", "containerd")]

#: containerd's API as Debian installs it, with the package of its sources.
API = pathlib.Path("/usr/share/gocode/src/github.com/containerd/containerd/api")


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with Containerd(str(tmp_path_factory.mktemp("containerd")), collects=True) as daemon:
        yield daemon


@pytest.fixture
def client(containerd: Containerd, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Return a client in a namespace of its own."""
    with Client(connect(containerd.address, request.node.name.replace("_", "-"))) as opened:
        yield opened


def ctr(containerd: Containerd, client: Client, *arguments: str) -> str:
    command = ["ctr", "-a", containerd.address, "-n", client.connection.namespace, *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=60).stdout


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write(client: Client, data: bytes, labels: Any = None) -> str:
    with client.write_blob(f"test-{digest_of(data)}", len(data), digest_of(data)) as writer:
        for at in range(writer.offset, len(data), CONTENT_PIECE):
            writer.write(data[at : at + CONTENT_PIECE])
        return writer.commit(labels)


def test_version_and_plugins(containerd: Containerd, client: Client) -> None:
    version = client.version()
    shown = subprocess.run(["containerd", "--version"], capture_output=True, encoding="utf-8", check=True).stdout
    assert version.version in shown
    assert len(client.server_id()) == 36
    loaded = {plugin.id: plugin for plugin in client.plugins("type==io.containerd.snapshotter.v1")}
    assert loaded[SNAPSHOTTER].problem == ""
    assert client.plugins("id==no-such") == []
    (bolt,) = client.plugins("type==io.containerd.metadata.v1")
    assert bolt.exports["policy"] == "shared"
    assert len(client.plugins()) > 10


def test_namespaces(containerd: Containerd, client: Client) -> None:
    client.create_namespace("made-here", {"l": "v"})
    assert ("made-here", {"l": "v"}) in client.namespaces()
    with pytest.raises(errors.AlreadyExists):
        client.create_namespace("made-here")
    assert "made-here" in ctr(containerd, client, "namespaces", "list", "-q").split()
    client.delete_namespace("made-here")
    with pytest.raises(errors.NotFound):
        client.delete_namespace("made-here")


def test_leases(containerd: Containerd, client: Client) -> None:
    with client.lease({"l": "v"}) as lease:
        assert client.connection.lease == lease
        (found,) = client.leases()
        assert (found.id, found.labels["l"], found.created[:2]) == (lease, "v", "20")
        client.prepare(SNAPSHOTTER, "with")
        assert lease in ctr(containerd, client, "leases", "list", "-q")
        with client.lease() as inner:
            client.prepare(SNAPSHOTTER, "inner")
            assert client.lease_resources(inner) == [Resource("inner", f"snapshots/{SNAPSHOTTER}")]
        client.add_to_lease(lease, Resource("other", f"snapshots/{SNAPSHOTTER}"))
        assert {resource.id for resource in client.lease_resources(lease)} == {"with", "other"}
        client.remove_from_lease(lease, Resource("other", f"snapshots/{SNAPSHOTTER}"))
        client.collect_garbage()
        assert [info.name for info in client.snapshots(SNAPSHOTTER)] == ["with"]
        # A lease that another process deleted is not an error at the end.
        client.delete_lease(lease)
    assert (client.connection.lease, client.leases(), client.warnings) == ("", [], [])
    with pytest.raises(errors.NotFound):
        client.lease_resources("no-such")
    client.collect_garbage()
    assert client.snapshots(SNAPSHOTTER) == []


def test_content(containerd: Containerd, client: Client) -> None:
    """A large blob needs many messages in both directions."""
    data = os.urandom(3 * CONTENT_PIECE + 12345)
    with client.lease():
        assert write(client, data, {"l": "v"}) == digest_of(data)
        assert b"".join(client.read_blob(digest_of(data))) == data
        assert b"".join(client.read_blob(digest_of(data), 5, 7)) == data[5:12]
        assert digest_of(data) in ctr(containerd, client, "content", "list", "-q")
        blob = client.blob(digest_of(data))
        assert (blob.size, blob.labels["l"]) == (len(data), "v")
        assert client.update_blob(blob.digest, {"m": "w"}, ["labels.m"]).labels == {**blob.labels, "m": "w"}
        assert [found.digest for found in client.blobs("labels.m==w")] == [blob.digest]
        with pytest.raises(errors.AlreadyExists):
            write(client, data)
        client.delete_blob(blob.digest)
        with pytest.raises(errors.NotFound):
            client.blob(blob.digest)
    with pytest.raises(errors.NotFound):
        list(client.read_blob(digest_of(b"no such blob")))


def test_content_that_is_resumed(client: Client) -> None:
    data = os.urandom(CONTENT_PIECE)
    ref, digest = "resumed", digest_of(data)
    with client.write_blob(ref, len(data), digest) as writer:
        writer.write(data[:1000])
        assert writer.offset == 1000
        with pytest.raises(errors.Unavailable, match="locked"):
            client.write_blob(ref, len(data), digest)
    ingest = client.ingest(ref)
    assert (ingest.offset, ingest.total) == (1000, len(data))
    assert [found.ref for found in client.ingests()] == [ref]
    with client.write_blob(ref, len(data), digest) as writer:
        assert writer.offset == 1000
        writer.restart()
        writer.write(data[:600])
        writer.write(data[600:])
        assert writer.commit() == digest
    with client.write_blob("damaged", 3, digest_of(b"abc")) as writer:
        writer.write(b"abd")
        with pytest.raises(errors.FailedPrecondition, match="digest"):
            writer.commit()
    client.abort_ingest("damaged")
    assert client.ingests() == []
    with pytest.raises(errors.NotFound):
        client.ingest("damaged")


def test_images_and_what_they_hold(containerd: Containerd, client: Client) -> None:
    with client.lease():
        config = write(client, b'{"architecture":"amd64","os":"windows","rootfs":{"type":"layers","diff_ids":[]}}')
        media = "application/vnd.oci.image.manifest.v1+json"
        manifest = (
            b'{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.oci.image.config.v1+json",'
            b'"digest":"%s","size":80},"layers":[]}' % (media.encode(), config.encode())
        )
        target = Descriptor(
            media, write(client, manifest, {"containerd.io/gc.ref.content.config": config}), len(manifest)
        )
        made = client.create_image("docker.io/library/x:1", target, {"l": "v"})
    assert client.image("docker.io/library/x:1") == made
    assert (made.target, made.labels) == (target, {"l": "v"})
    assert "docker.io/library/x:1" in ctr(containerd, client, "images", "list", "-q")
    with pytest.raises(errors.AlreadyExists):
        client.create_image("docker.io/library/x:1", target)
    pinned = made._replace(labels={"io.cri-containerd.pinned": "pinned"})
    changed = client.update_image(pinned, ["labels.io.cri-containerd.pinned"])
    assert changed.labels == {"l": "v", "io.cri-containerd.pinned": "pinned"}
    assert client.images("name==docker.io/library/x:1") == [changed]
    client.collect_garbage()
    assert {blob.digest for blob in client.blobs()} == {config, target.digest}
    client.delete_image("docker.io/library/x:1", sync=True)
    assert (client.images(), client.blobs()) == ([], [])


def test_containers(containerd: Containerd, client: Client) -> None:
    """They are made by ctr, which needs no running container for that."""
    client.prepare(SNAPSHOTTER, "the-snapshot", labels={"containerd.io/gc.root": "x"})
    command = ("containers", "create", "--label", "l=v", "--config")
    spec = os.path.join(containerd.root, "..", "spec.json")
    with open(spec, "w", encoding="utf-8") as file:
        file.write('{"ociVersion":"1.0.2"}')
    ctr(containerd, client, *command, spec, "c1")
    (found,) = client.containers()
    assert (found.id, found.labels["l"], found.runtime, found.sandbox) == ("c1", "v", "io.containerd.runc.v2", "")
    assert client.container("c1") == found
    assert client.containers("id==none") == []
    with pytest.raises(errors.NotFound):
        client.container("none")


def test_an_infos_times_are_those_of_ctr(containerd: Containerd, client: Client) -> None:
    # The collector would remove a snapshot that nothing needs.
    labels = {"containerd.io/gc.root": "x"}
    client.prepare(SNAPSHOTTER, "a", labels=labels)
    found = client.stat(SNAPSHOTTER, "a")
    theirs = containerd.info(client.connection.namespace, "a")
    assert found == Info("active", "a", "", labels, found.created, found.updated, 0)
    # Go leaves zeros at the end of the fraction away.
    assert found.created.rstrip("Z").rstrip("0") == theirs["Created"].rstrip("Z").rstrip("0")


def test_a_service_that_is_disabled(tmp_path: Any) -> None:
    with Containerd(str(tmp_path)) as daemon, Client(connect(daemon.address, "x")) as client:
        with pytest.raises(errors.NotImplementedHere, match="unknown service containerd.services.leases.v1") as caught:
            client.leases()
        assert "disabled_plugins" in caught.value.details["advice"]


def test_a_namespace_that_is_not_allowed(containerd: Containerd) -> None:
    for name in ("", "a b", "é", "a--b", "-a", "x" * 77, "a\n"):
        with pytest.raises(errors.InvalidArgument, match="is not a namespace of containerd"):
            connect(containerd.address, name)


# -- the schemas -----------------------------------------------------------------------

#: Messages whose names differ here, by the file that defines them, and those of other files.
MESSAGES = {
    "types/mount.proto": {"Mount": messages.MOUNT},
    "types/descriptor.proto": {"Descriptor": messages.DESCRIPTOR},
    "services/leases/v1/leases.proto": {"Lease": messages.LEASE, "Resource": messages.RESOURCE},
    "services/namespaces/v1/namespace.proto": {"Namespace": messages.NAMESPACE},
    "services/images/v1/images.proto": {"Image": messages.IMAGE},
    "services/containers/v1/containers.proto": {"Container": messages.CONTAINER},
    "services/content/v1/content.proto": {"Info": messages.BLOB, "Status": messages.INGEST},
    "services/snapshots/v1/snapshots.proto": {"Info": messages.SNAPSHOT},
    "services/introspection/v1/introspection.proto": {"Plugin": messages.PLUGIN},
    "services/diff/v1/diff.proto": {},
    "services/version/v1/version.proto": {},
}

#: Fields that containerd 1.6 does not have.
NEWER = {("CommitSnapshotRequest", 5), ("Container", 11), ("ServerResponse", 2)}

TYPES = {"string": protobuf.TEXT, "bytes": protobuf.BYTES, "bool": protobuf.BOOLEAN, "map": protobuf.TEXT_MAP}
INTEGERS = {"int64", "uint32", "uint64", "int32", "Kind", "WriteAction"}


def parse(text: str) -> Tuple[Dict[str, Dict[int, Tuple[str, bool]]], Dict[str, Tuple[str, str]]]:
    """Return for each message its fields by number (type, whether it is repeated), and for each method its messages."""
    text = re.sub(r"//[^\n]*", "", text)
    found: Dict[str, Dict[int, Tuple[str, bool]]] = {}
    for name, body in re.findall(r"^message (\w+)\s*\{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        fields = re.sub(r"message \w+ \{.*?\}", "", body, flags=re.DOTALL)
        found[name] = {
            int(number): ("map" if kind.startswith("map") else kind.rpartition(".")[2], bool(repeated))
            for repeated, kind, number in re.findall(
                r"(repeated )?(map<[^>]*>|[\w.]+)\s+\w+\s*=\s*(\d+)\s*[;\[]", fields
            )
        }
    calls = re.findall(r"rpc (\w+)\((?:stream )?([\w.]+)\) returns \((?:stream )?([\w.]+)\)", text)
    return found, {name: (request, answer) for name, request, answer in calls}


def check(name: str, schema: protobuf.Schema, found: Dict[int, Tuple[str, bool]]) -> Set[int]:
    for field_name, field in schema.items():
        if (name, field.number) in NEWER:
            continue
        kind, repeated = found[field.number]
        if isinstance(field.type, str):
            expected = protobuf.INTEGER if kind in INTEGERS else TYPES[kind]
            assert field.type == expected, f"{name}.{field_name}"
        else:
            assert kind[0].isupper(), f"{name}.{field_name}"
        assert field.repeated == repeated, f"{name}.{field_name}"
    return {field.number for field in schema.values()}


# A machine of a user may lack the sources. CI installs them, and fails on a skip (WCOW_REQUIRE_ALL).
@pytest.mark.skipif(
    not API.exists(),
    reason="containerd's sources are not installed (Debian package golang-github-containerd-containerd-dev)",
)
def test_our_schemas_are_those_of_containerd() -> None:
    checked = set()
    for path, named in MESSAGES.items():
        found, calls = parse((API / path).read_text(encoding="utf-8"))
        for name, schema in named.items():
            check(name, schema, found[name])
        service = path.split("/")[1].capitalize()
        for call, (request, answer) in calls.items():
            method = messages.METHODS.get(f"{service}/{call}")
            if method is None:
                continue
            checked.add(f"{service}/{call}")
            check(request, method.request, found.get(request, {}))
            check(answer, method.answer, found.get(answer, {}))
    assert checked == set(messages.METHODS)
