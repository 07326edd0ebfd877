# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images in containerd's store: requests about them, answered with the simulated containerd of a lab node."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.images import MANAGED_LABEL, PINNED_LABEL
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import imagepackage, ociimage
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import (
    LAYERS,
    Archive,
    blob_name,
    config_of,
    digest_of,
    layer,
    packed,
)

from lab.containerd import sample

NAME = "docker.io/team/app:1.0"
OCI_NAME = {"annotations": {"io.containerd.image.name": NAME}}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def chain_ids(layers=LAYERS):
    return ociimage.chain_ids([digest_of(plain) for plain in layers])


@pytest.fixture
def put(directory):
    """Return a function that puts an archive on the node, and returns its path there."""

    def put(archive, name="image.tar"):
        (directory / "C").mkdir(exist_ok=True)
        archive.write(directory / "C" / name)
        return f"C:\\{name}"

    return put


@pytest.fixture
def records(filled):
    """Return a function that returns the records of images by name."""
    return lambda: {image.name: image for image in filled("Images", "List").images}


@pytest.fixture
def blobs(filled):
    """Return a function that returns the labels of the blobs by digest."""
    return lambda: {info.digest: dict(info.labels) for answer in filled("Content", "List") for info in answer.info}


def oci(layers=LAYERS, name=NAME):
    """Return an archive with one image, as registries have it."""
    archive = Archive()
    config = archive.json(config_of(layers), mediaType=CONFIG)
    blobs = [archive.blob(packed(plain), mediaType=LAYER) for plain in layers]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": blobs}
    manifest = archive.json(document, mediaType=MANIFEST)
    archive.index({**manifest, "annotations": {"io.containerd.image.name": name}} if name else manifest)
    return archive


def saved(layers=LAYERS, *names):
    """Return an archive as older versions of docker save write it."""
    archive = Archive()
    archive.files["manifest.json"] = json.dumps([archive.save(layers, *names)]).encode()
    return archive


def test_an_image_through_its_life(done, filled, put, records, blobs):
    archive = oci()
    src = put(archive)
    before = set(blobs())
    arguments = {"src": src, "pinned": True, "labels": {"team": "blue"}}
    changed, planned = done("ensure_image", check_mode=True, **arguments)
    assert changed
    assert NAME not in records()

    changed, result = done("ensure_image", **arguments)
    assert changed
    assert result["actions"] == planned["actions"]
    assert result["diff"] == planned["diff"]
    assert [action.split()[0] for action in result["actions"]] == ["send"] * 5 + ["unpack"] * 3 + ["tag"]
    chain = chain_ids()
    assert result["chain_id"] == chain[-1]
    assert [link["name"] for link in result["chain"] if link["imported"]] == chain
    assert set(chain) < set(filled.names())
    labels = {"team": "blue", PINNED_LABEL: "pinned"}
    manifest = result["manifest"]
    assert result["images"] == [{"name": NAME, "target": manifest, "labels": labels, "pinned": True}]
    assert (records()[NAME].target.digest, records()[NAME].target.media_type) == (manifest, MANIFEST)
    found = blobs()
    document = json.loads(archive.files[blob_name(manifest)])
    layers = [described["digest"] for described in document["layers"]]
    assert found[manifest] == {
        "containerd.io/gc.ref.content.config": result["config"],
        **{f"containerd.io/gc.ref.content.l.{number}": digest for number, digest in enumerate(layers)},
    }
    assert found[result["config"]] == {"containerd.io/gc.ref.snapshot.windows": chain[-1]}
    assert [found[digest]["containerd.io/uncompressed"] for digest in layers] == [digest_of(plain) for plain in LAYERS]

    # What was made stays, and the second run has nothing to do.
    filled.collect()
    assert done("ensure_image", **arguments)[0] is False
    changed, result = done("ensure_image", src=src, pinned=False, labels={"team": ""})
    assert changed
    assert result["actions"] == [f"tag {NAME}"]
    assert dict(records()[NAME].labels) == {}
    assert done("ensure_image", src=src)[0] is False

    changed, planned = done("ensure_image", state="absent", names=["team/app:1.0"], check_mode=True)
    assert changed
    assert NAME in records()
    changed, result = done("ensure_image", state="absent", names=["team/app:1.0"])
    assert changed
    assert result["actions"] == [f"untag {NAME}"]
    assert result["freed"]["snapshots"] == sorted(chain)
    assert result["freed"] == planned["freed"]
    assert result["freed"]["bytes"] > sum(len(archive.files[blob_name(digest)]) for digest in layers)
    assert set(blobs()) == before
    assert not set(chain) & set(filled.names())
    assert done("ensure_image", state="absent", names=["team/app:1.0"])[0] is False


def test_nothing_is_written_and_no_lease_is_left_by_check_mode(done, filled, put, blobs):
    before = blobs(), filled.names()
    assert done("ensure_image", src=put(oci()), check_mode=True)[0] is True
    assert (blobs(), filled.names()) == before
    assert [lease.id for lease in filled("Leases", "List").leases] == [sample.LEASE]


def test_no_lease_is_left(done, filled, put):
    done("ensure_image", src=put(oci()))
    assert [lease.id for lease in filled("Leases", "List").leases] == [sample.LEASE]


def test_docker_save(done, filled, put, records):
    """The manifest that is made has the bytes that ctr writes, and plain layers have their diff ids as digests."""
    src = put(saved(LAYERS, "app:2", "registry.example.com/app:2"))
    changed, result = done("ensure_image", src=src)
    assert changed
    names = ["docker.io/library/app:2", "registry.example.com/app:2"]
    assert [image["name"] for image in result["images"]] == names
    target = records()[names[0]].target
    assert target.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    (answer,) = filled("Content", "Read", digest=target.digest)
    assert answer.data.startswith(
        b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"'
    )
    assert [part["digest"] for part in json.loads(answer.data)["layers"]] == [digest_of(plain) for plain in LAYERS]
    assert done("ensure_image", src=src)[0] is False


def test_layers_of_docker_save_that_are_compressed(done, put, blobs):
    archive = saved(LAYERS, "app:2")
    for name in [name for name in archive.files if name.endswith("layer.tar")]:
        archive.files[name] = packed(archive.files[name])
    src = put(archive)
    assert done("ensure_image", src=src)[0] is True
    assert digest_of(packed(LAYERS[0])) in blobs()
    assert done("ensure_image", src=src)[0] is False


def test_names(done, refused, put, records):
    src = put(oci(name=""))
    assert refused("ensure_image", src=src) == (
        "invalid_argument",
        "the archive does not name the image: set names to what kubelet asks for",
    )
    changed, result = done("ensure_image", src=src, names=["app", "registry.example.com/app:1.4", "app:latest"])
    assert changed
    assert [image["name"] for image in result["images"]] == [
        "docker.io/library/app:latest",
        "registry.example.com/app:1.4",
    ]
    # A name more needs no content.
    changed, result = done("ensure_image", src=src, names=["app", "other:1"])
    assert result["actions"] == ["tag docker.io/library/other:1"]
    code, message = refused("ensure_image", src=src, names=["App:1"])
    assert (code, "lower case" in message) == ("invalid_argument", True)


def test_a_record_that_kubelet_made_stays(done, filled, put, records):
    """The same image can come from a registry, with another manifest."""
    done("ensure_image", src=put(oci(), "pulled.tar"))
    target = records()[NAME].target.digest
    config = json.dumps(config_of(LAYERS)).encode()
    archive = saved(LAYERS, "team/app:1.0")
    assert digest_of(config) in {digest_of(data) for data in archive.files.values()}
    changed, result = done("ensure_image", src=put(archive), pinned=True)
    assert changed
    assert result["actions"] == [f"tag {NAME}"]
    assert (result["manifest"], records()[NAME].target.digest) == (target, target)
    assert done("ensure_image", src=put(archive), pinned=True)[0] is False


def test_a_name_that_moves_to_another_image(done, filled, put, records):
    """CRI has to read the record again, so its label goes. The label for pinned images stays."""
    _changed, first = done("ensure_image", src=put(oci(), "one.tar"), pinned=True)
    image = {"name": NAME, "labels": {MANAGED_LABEL: "managed"}}
    filled("Images", "Update", image=image, update_mask={"paths": [f"labels.{MANAGED_LABEL}"]})
    other = [*LAYERS[:2], layer("patched")]
    changed, result = done("ensure_image", src=put(oci(other), "two.tar"))
    assert changed
    assert [link["imported"] for link in result["chain"]] == [False, False, True]
    assert result["manifest"] != first["manifest"]
    assert dict(records()[NAME].labels) == {PINNED_LABEL: "pinned"}
    filled.collect()
    assert chain_ids()[-1] not in filled.names()
    assert chain_ids(other)[-1] in filled.names()


def test_what_is_missing_is_repaired(done, filled, put, blobs):
    src = put(oci())
    done("ensure_image", src=src)
    chain = chain_ids()
    filled.remove(chain[2])
    filled.remove(chain[1])
    changed, result = done("ensure_image", src=src)
    assert changed
    assert result["actions"] == [f"unpack {chain[1]}", f"unpack {chain[2]}"]
    (digest,) = [digest for digest in blobs() if digest == digest_of(packed(LAYERS[1]))]
    filled("Content", "Delete", digest=digest)
    changed, result = done("ensure_image", src=src)
    assert result["actions"] == [f"send {digest}"]
    assert done("ensure_image", src=src)[0] is False


def test_a_layer_without_its_directory(ask, done, host, put):
    src = put(oci())
    done("ensure_image", src=src)
    top = max(host.simulation.store.snapshotter.records(), key=lambda record: record.id)
    host.simulation.store.snapshotter.directory(top.id).rename(host.node.directory / "lost")
    entry = ask("ensure_image", src=src)
    assert (entry["ok"], entry["changed"]) == (True, False)
    assert [chain_ids()[2] in warning and "store_check" in warning for warning in entry["warnings"]] == [True]


def test_a_node_that_discards_layers(done, filled, put, records, blobs):
    """Without labels for its layers, a manifest needs them only until they are unpacked."""
    src = put(oci())
    _changed, result = done("ensure_image", src=src)
    labels = {"containerd.io/gc.ref.content.config": result["config"]}
    info = {"digest": result["manifest"], "labels": labels}
    filled("Content", "Update", info=info, update_mask={"paths": ["labels"]})
    filled.collect()
    assert digest_of(packed(LAYERS[0])) not in blobs()
    assert done("ensure_image", src=src)[0] is False
    filled.remove(chain_ids()[2])
    changed, result = done("ensure_image", src=src)
    assert changed
    assert result["actions"] == [f"send {digest_of(packed(LAYERS[2]))}", f"unpack {chain_ids()[2]}"]


def test_without_unpacking(done, filled, put, blobs):
    src = put(oci())
    changed, result = done("ensure_image", src=src, unpack=False)
    assert changed
    assert not set(chain_ids()) & set(filled.names())
    assert done("ensure_image", src=src, unpack=False)[0] is False
    changed, result = done("ensure_image", src=src)
    actions = [f"unpack {name}" for name in chain_ids()]
    assert result["actions"] == [*actions, f"label {result['config']}"]
    filled.collect()
    assert done("ensure_image", src=src)[0] is False


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda data: data[:-30], "bytes"),
        (lambda data: bytes(len(data)), "the archive is damaged, get it again"),
    ],
)
def test_a_damaged_layer(refused, done, filled, put, records, damage, part):
    """Nothing of the image is visible, and the next run with a good archive works."""
    archive = oci()
    name = blob_name(digest_of(packed(LAYERS[1])))
    archive.files[name] = damage(archive.files[name])
    code, message = refused("ensure_image", src=put(archive))
    assert (code, part in message, "layer 2 of 3" in message) == ("invalid_argument", True, True)
    assert NAME not in records()
    assert not set(chain_ids()) & set(filled.names())
    assert not filled("Content", "ListStatuses").statuses
    filled.collect()
    assert done("ensure_image", src=put(oci()))[0] is True


def test_a_wrong_diff_id(refused, filled, put, records):
    archive = Archive()
    config = archive.json(config_of([LAYERS[0], layer("other")]), mediaType=CONFIG)
    layers = [archive.blob(packed(plain), mediaType=LAYER) for plain in LAYERS[:2]]
    archive.index(archive.json({"mediaType": MANIFEST, "config": config, "layers": layers}, **OCI_NAME))
    code, message = refused("ensure_image", src=put(archive))
    assert code == "invalid_argument"
    assert f"has the diff id {digest_of(LAYERS[1])}: the archive is damaged" in message
    assert NAME not in records()
    assert not [name for name in filled.names() if name.startswith("extract-")]


def test_a_cut_archive(refused, put, directory):
    src = put(oci())
    path = directory / "C" / "image.tar"
    path.write_bytes(path.read_bytes()[:2000])
    code, message = refused("ensure_image", src=src)
    assert (code, src in message) == ("invalid_argument", True)


def test_foreign_layers(refused, put):
    archive = oci()
    manifest = json.loads(archive.files["index.json"])["manifests"][0]["digest"]
    document = json.loads(archive.files[blob_name(manifest)])
    del archive.files[blob_name(document["layers"][0]["digest"])]
    document["layers"][0]["urls"] = ["https://example.com/base"]
    archive.index(archive.json(document, mediaType=MANIFEST, **OCI_NAME))
    code, message = refused("ensure_image", src=put(archive))
    assert (code, "only its publisher distributes it" in message) == ("failed_precondition", True)


def test_the_image_of_a_container_stays(refused, done, filled, records):
    _changed, result = done("ensure_image", state="absent", names=["nothing:1"])
    assert result["actions"] == []
    message = (
        f"the image {sample.IMAGE} is used by the container {sample.CONTAINER}: remove the container first, in "
        "Kubernetes by removing its pod, or keep the image"
    )
    expected = ("failed_precondition", message)
    assert refused("ensure_image", state="absent", names=[sample.IMAGE]) == expected
    (image_id,) = [name for name in records() if name.startswith("sha256:")]
    assert refused("ensure_image", state="absent", names=[image_id]) == expected


def test_the_records_of_cri_go_with_the_last_tag(done, filled, put, records):
    _changed, result = done("ensure_image", src=put(oci()), names=["app:1", "app:2"])
    target = records()["docker.io/library/app:1"].target
    for name in (result["config"], f"docker.io/library/app@{target.digest}"):
        filled("Images", "Create", image={"name": name, "target": target})
    _changed, result = done("ensure_image", state="absent", names=["app:2"])
    assert result["actions"] == ["untag docker.io/library/app:2"]
    assert result["freed"] == {"bytes": 0, "snapshots": [], "content": []}
    _changed, result = done("ensure_image", state="absent", names=["app:1"])
    assert len(result["actions"]) == 3
    assert set(records()) == {sample.IMAGE, *(name for name in records() if name.startswith("sha256:"))}
    assert chain_ids()[0] not in filled.names()


def test_absent_by_the_archive(done, put, records):
    src = put(oci())
    done("ensure_image", src=src, names=["app:1", "other:1"])
    changed, result = done("ensure_image", state="absent", src=src)
    assert changed
    assert len(result["actions"]) == 2
    assert result["config"] == digest_of(json.dumps(config_of(LAYERS)).encode())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "state=present needs src"),
        ({"state": "absent"}, "exactly one of src and names"),
        ({"state": "absent", "names": ["a"], "pinned": True}, "no labels, pinned or unpack"),
        ({"state": "absent", "chain_id": "sha256:" + "0" * 64}, "chain_id is about our own store"),
        ({"state": "gone", "src": "C:\\x"}, "is not one of present, absent"),
        ({"src": "C:\\x", "labels": {MANAGED_LABEL: "managed"}}, "CRI sets this label itself"),
        ({"src": "C:\\x", "labels": {PINNED_LABEL: "pinned"}}, "use the option pinned"),
    ],
)
def test_options_that_exclude_each_other(refused, arguments, part):
    code, message = refused("ensure_image", **arguments)
    assert (code, part in message) == ("invalid_argument", True)


def test_containerd_is_stopped(refused, done, host, put):
    src = put(oci())
    done("ensure_image", src=src)
    host.server.stop()
    assert done("ensure_image", src=src)[0] is False
    code, message = refused("ensure_image", src=src, pinned=True)
    assert (code, "Start containerd" in message) == ("failed_precondition", True)
    host.start()
    assert done("ensure_image", src=src, pinned=True)[0] is True


# -- from the controller -------------------------------------------------------------


@pytest.fixture
def send(ask_with):
    """Return a function that sends the bytes of one part, in pieces."""

    def send(part, piece=1000):
        with part.open() as file:
            data = file.read()
        at = 0
        while at < len(data):
            lines = io.BytesIO(base64.b64encode(data[at : at + piece]) + b"\n")
            entry = ask_with(lines, "stage", digest=part.digest, size=part.size, offset=at)
            assert entry["ok"], entry
            at = entry["result"]["offset"]
        assert entry["result"]["complete"]

    return send


def offered(path):
    """Return the images in an archive, as the controller offers them, and the parts of the only one."""
    (image,) = ociimage.read_images(path, "windows/amd64")
    package = imagepackage.package_of(image)
    diff_ids = [layer.diff_id for layer in image.layers]
    described = {"config": image.config, "os_version": image.os_version, "diff_ids": diff_ids, "names": image.names}
    return {"images": [{**described, **imagepackage.as_object(package)}]}, package


@pytest.mark.parametrize("kind", [oci, lambda: saved(LAYERS, "team/app:1.0")])
def test_an_image_that_is_sent(done, filled, put, send, directory, records, kind):
    put(kind())
    src, package = offered(str(directory / "C" / "image.tar"))
    changed, plan = done("ensure_image", src=src, check_mode=True)
    assert changed
    assert plan["missing"] == [part.digest for part in package.parts()]
    for part in package.parts():
        if part.digest in plan["missing"]:
            send(part)
            # A lease holds the blob until the image has a record.
            filled.collect()
    assert done("ensure_image", src=src)[0] is True
    assert [lease.id for lease in filled("Leases", "List").leases] == [sample.LEASE]
    filled.collect()
    assert records()[NAME].target.digest == package.manifest.digest
    changed, plan = done("ensure_image", src=src)
    assert (changed, plan["missing"]) == (False, [])


def test_a_blob_that_is_missing_in_the_end(refused, put, directory):
    put(oci())
    src, _package = offered(str(directory / "C" / "image.tar"))
    code, message = refused("ensure_image", src=src)
    assert (code, "was removed by another task" in message) == ("unavailable", True)


def test_pieces_that_do_not_fit(ask_with, filled):
    data = b"0123456789"
    digest = "sha256:" + hashlib.sha256(data).hexdigest()

    def piece(offset, text, **more):
        lines = None if text is None else io.BytesIO(base64.b64encode(text) + b"\n")
        return ask_with(lines, "stage", digest=digest, size=len(data), offset=offset, **more)

    assert piece(None, None)["result"] == {"offset": 0, "complete": False}
    entry = piece(4, data[4:])
    assert (entry["error"]["code"], "does not follow" in entry["error"]["message"]) == ("invalid_argument", True)
    assert piece(0, data[:6])["result"] == {"offset": 6, "complete": False}
    assert piece(None, None)["result"] == {"offset": 6, "complete": False}
    # Another task sent the first bytes, too.
    assert piece(4, data[4:8])["result"] == {"offset": 8, "complete": False}
    entry = piece(8, b"xx")
    assert (entry["error"]["code"], "is not" in entry["error"]["message"]) == ("invalid_argument", True)
    assert piece(None, None)["result"] == {"offset": 0, "complete": False}
    assert piece(0, data)["result"] == {"offset": 10, "complete": True}
    assert piece(0, data)["result"] == {"offset": 10, "complete": True}
    assert piece(None, None)["result"] == {"offset": 10, "complete": True}
