# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that image archives of all forms are read correctly, and that errors about bad archives help the user."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotImplementedHere,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import ociimage
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import (
    LAYERS,
    Archive,
    blob_name,
    config_of,
    digest_of,
    packed,
)
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar

AMD64 = "windows/amd64"
DIFF_IDS = [digest_of(plain) for plain in LAYERS]


@pytest.fixture
def archive() -> Archive:
    return Archive()


def contents(image: ociimage.Image) -> List[bytes]:
    found = []
    for layer in image.layers:
        with ociimage.BlobReader(ociimage.blob_of(layer, "it")) as blob:
            found.append(blob.read())
            blob.finish(layer, "it")
    return found


def windows(version: str) -> Dict[str, Any]:
    return {"platform": {"os": "windows", "architecture": "amd64", "os.version": version}}


# -- names ---------------------------------------------------------------------


def test_chain_ids() -> None:
    """The expected ids are those that ``printf '%s %s' A B | sha256sum`` prints."""
    a, b = "sha256:" + 64 * "a", "sha256:" + 64 * "b"
    first, second = ociimage.chain_ids([a, b])
    assert first == a
    assert second == digest_of(f"{a} {b}".encode())
    assert ociimage.chain_ids([a, b, a])[2] == digest_of(f"{second} {a}".encode())
    assert ociimage.chain_ids([]) == []


# -- the forms -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["tar", "directory"])
def test_an_image_layout(archive: Archive, tmp_path: Any, form: str) -> None:
    archive.index(archive.image())
    path = archive.write(tmp_path / "a.tar") if form == "tar" else archive.write_directory(tmp_path / "a")
    (image,) = ociimage.read_images(path, AMD64)
    assert image.os_version == "10.0.20348.1"
    assert blob_name(image.config) in archive.files
    assert [layer.diff_id for layer in image.layers] == DIFF_IDS
    assert contents(image) == [packed(plain) for plain in LAYERS]


def test_a_tar_of_a_directory(archive: Archive, tmp_path: Any) -> None:
    archive.index(archive.image())
    archive.files = {f"./{name}": data for name, data in archive.files.items()}
    assert len(ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)) == 1


@pytest.mark.parametrize("form", ["tar", "directory"])
def test_docker_save(archive: Archive, tmp_path: Any, form: str) -> None:
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "app:1", "app:2")]).encode()
    path = archive.write(tmp_path / "a.tar") if form == "tar" else archive.write_directory(tmp_path / "a")
    for reference in ("", "app:1", "app:2"):
        (image,) = ociimage.read_images(path, AMD64, reference)
        assert contents(image) == LAYERS


def test_docker_save_with_links_and_paths_of_windows(archive: Archive, tmp_path: Any) -> None:
    twice = [LAYERS[0], LAYERS[1], LAYERS[1]]
    entry = archive.save(twice)
    entry["Layers"] = [entry["Layers"][0].replace("/", "\\"), "one/layer.tar", "two/layer.tar"]
    archive.files["manifest.json"] = json.dumps([entry]).encode()
    path = archive.write(tmp_path / "a.tar")
    with tarfile.open(path, "a") as appended:
        for name, kind, target in (
            ("one/layer.tar", tarfile.SYMTYPE, f"../{digest_of(LAYERS[1])[7:19]}/layer.tar"),
            ("two/layer.tar", tarfile.LNKTYPE, f"{digest_of(LAYERS[1])[7:19]}/layer.tar"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            appended.addfile(link)
    (image,) = ociimage.read_images(path, AMD64)
    assert contents(image) == twice


def test_an_index_of_many_platforms(archive: Archive, tmp_path: Any) -> None:
    """Some platforms are not in the archive, as when only one platform was saved."""
    absent = {"digest": digest_of(b"absent"), "size": 6}
    linux = archive.image(config={**config_of(LAYERS), "os": "linux"})
    nested = archive.json(
        {
            "manifests": [
                {**absent, "platform": {"os": "linux", "architecture": "amd64"}},
                {**absent, "digest": digest_of(b"x"), **windows("10.0.26100.1")},
                {**archive.image(version="10.0.17763.5"), **windows("10.0.17763.5")},
                archive.image(version="10.0.20348.9"),
                linux,
                {**archive.json({"layers": []}), "platform": {"os": "unknown", "architecture": "unknown"}},
            ]
        }
    )
    archive.index(nested)
    path = archive.write(tmp_path / "a.tar")
    assert [image.os_version for image in ociimage.read_images(path, AMD64)] == ["10.0.17763.5", "10.0.20348.9"]
    with pytest.raises(InvalidArgument) as refused:
        ociimage.read_images(path, "windows/arm64")
    assert "no image for windows/arm64; what it lists: linux/amd64, windows/amd64, unknown/unknown" in str(
        refused.value
    )
    archive.index({**absent, **windows("10.0.26100.1")})
    with pytest.raises(InvalidArgument, match="windows/amd64 10.0.26100.1 .*, not in the archive"):
        ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)


def test_several_images(archive: Archive, tmp_path: Any) -> None:
    one, two = archive.image(LAYERS[:1]), archive.image(LAYERS[:2])

    def named(descriptor: Any, name: str) -> Any:
        return {
            **descriptor,
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"},
        }

    archive.index(named(one, "r.example/one:1"), named(two, "r.example/two:1"))
    path = archive.write(tmp_path / "a.tar")
    with pytest.raises(InvalidArgument, match="several images: .* reference; .*: r.example/one:1, r.example/two:1"):
        ociimage.read_images(path, AMD64)
    with pytest.raises(InvalidArgument, match="no image named 'three'; what it names: r.example/one:1, r.example/two"):
        ociimage.read_images(path, AMD64, "three")
    assert len(ociimage.read_images(path, AMD64, "r.example/two:1")[0].layers) == 2
    archive.index(named(one, "r.example/one:1"), named(one, "r.example/same:1"))
    assert len(ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)[0].layers) == 1


# -- which image is meant ------------------------------------------------------


def name_it(descriptor: Any, name: str) -> Any:
    """Return a descriptor with the annotations that docker and containerd write."""
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    return {**descriptor, "annotations": names}


def candidates(path: str, reference: str = "") -> List[str]:
    """Return what the error about several images lists. Each of them must select an image."""
    with pytest.raises(InvalidArgument, match="select one with reference; the candidates: ") as refused:
        ociimage.read_images(path, AMD64, reference)
    found: List[str] = refused.value.details["candidates"]
    assert all(name in refused.value.message for name in found)
    assert len({ociimage.read_images(path, AMD64, name)[0].config for name in found}) == len(found) > 1
    return found


@pytest.mark.parametrize("revision", ["10.0.20348.1", "10.0.20348.2", "10.0.26100.1"])
def test_a_tag_that_two_images_share(archive: Archive, tmp_path: Any, revision: str) -> None:
    app, web = archive.image(LAYERS[:2]), archive.image(LAYERS[:1], revision)
    archive.index(name_it(app, "docker.io/library/app:1.4"), name_it(web, "r.example/web:1.4"))
    path = archive.write(tmp_path / "a.tar")
    assert candidates(path, "1.4") == ["docker.io/library/app:1.4", "r.example/web:1.4"]
    assert len(ociimage.read_images(path, AMD64, "app:1.4")[0].layers) == 2


@pytest.mark.parametrize("name", ["", "r.example/app:1"])
@pytest.mark.parametrize("revision", ["10.0.20348.1", "10.0.20348.2"])
def test_two_images_of_one_name_or_without_a_name(archive: Archive, tmp_path: Any, name: str, revision: str) -> None:
    images = [archive.image(LAYERS[:2]), archive.image(LAYERS[:1], revision)]
    archive.index(*(name_it(image, name) if name else image for image in images))
    path = archive.write(tmp_path / "a.tar")
    assert candidates(path, name) == sorted(image["digest"] for image in images)
    with pytest.raises(InvalidArgument, match=f"sha256:[0-9a-f]+ .for Windows {revision}"):
        ociimage.read_images(path, AMD64)


def test_a_list_that_is_the_index_of_one_image(archive: Archive, tmp_path: Any) -> None:
    """Each entry is for another build, or the list states another version for each."""
    builds = [archive.image(LAYERS[:1], version) for version in ("10.0.17763.1", "10.0.20348.1")]
    archive.index(*builds, archive.image(config={**config_of(LAYERS), "os": "linux"}))
    assert len(ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)) == 2
    versions = ("10.0.20348.1", "10.0.20348.2")
    stated = [{**archive.image(LAYERS[:1], version), **windows(version)} for version in versions]
    archive.index(*stated)
    assert len(ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)) == 2
    same = {**archive.image(LAYERS[:2], versions[0]), **windows(versions[0])}
    archive.index(*stated, same)
    assert len(candidates(archive.write(tmp_path / "c.tar"))) == 3


def test_two_indexes_are_two_images(archive: Archive, tmp_path: Any) -> None:
    archive.index(
        archive.json({"manifests": [archive.image(LAYERS[:1], "10.0.17763.1"), archive.image(LAYERS[:1])]}),
        archive.json({"manifests": [archive.image(LAYERS[:2], "10.0.26100.1"), archive.image(LAYERS[:2])]}),
    )
    with pytest.raises(InvalidArgument, match=r"for Windows 10.0.17763.1, 10.0.20348.1\)"):
        ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)


def test_two_manifests_of_the_same_image(archive: Archive, tmp_path: Any) -> None:
    image = archive.image()
    manifest = json.loads(archive.files[blob_name(image["digest"])])
    archive.index(name_it(image, "r.example/a:1"), name_it(archive.json({**manifest, "more": 1}), "r.example/b:1"))
    assert len(ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)) == 1


def test_two_images_in_manifest_json(archive: Archive, tmp_path: Any) -> None:
    """Every version of docker save lists each image once, so a second entry is never a variant."""
    other = {**config_of(LAYERS[:1], "10.0.17763.1")}
    for tags in ([], ["app:1"]):
        saves = [archive.save(LAYERS, *tags), archive.save(LAYERS[:1], *tags, config=other)]
        archive.files["manifest.json"] = json.dumps(saves).encode()
        path = archive.write(tmp_path / "a.tar")
        assert candidates(path, *tags) == sorted("sha256:" + save["Config"][:64] for save in saves)
    saves = [archive.save(LAYERS, "app:1.4"), archive.save(LAYERS[:1], "web:1.4", "web:1", config=other)]
    archive.files["manifest.json"] = json.dumps(saves).encode()
    path = archive.write(tmp_path / "a.tar")
    assert candidates(path) == ["app:1.4", "web:1"]
    assert candidates(path, "1.4") == ["app:1.4", "web:1.4"]
    assert len(ociimage.read_images(path, AMD64, "docker.io/library/web:1.4")[0].layers) == 1


# -- index.json and manifest.json ----------------------------------------------


@pytest.mark.parametrize(
    "index", [b"", b"null", b"{}", b'{"manifests": null}', b'{"manifests": []}', b'{"manifests": [null, {}]}']
)
def test_an_empty_index_beside_a_complete_manifest_json(archive: Archive, tmp_path: Any, index: bytes) -> None:
    """Images that were saved by digest are in manifest.json only (moby #47210)."""
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "app:1")]).encode()
    archive.files["index.json"] = index
    path = archive.write(tmp_path / "a.tar")
    for reference in ("", "app:1", "docker.io/library/app:1"):
        (image,) = ociimage.read_images(path, AMD64, reference)
        assert contents(image) == LAYERS
    del archive.files["manifest.json"]
    with pytest.raises(InvalidArgument, match="no image for windows/amd64; what it lists: "):
        ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)


@pytest.mark.parametrize("change", [None, {}, {"layers": None}, {"layers": []}, {"config": None}, {"config": {}}])
def test_an_empty_manifest_beside_a_complete_manifest_json(archive: Archive, tmp_path: Any, change: Any) -> None:
    """The manifest has no layers (moby #47065)."""
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "app:1")]).encode()
    manifest = json.loads(archive.files[blob_name(archive.image()["digest"])])
    archive.index(name_it(archive.json({**manifest, **change} if change else change), "docker.io/library/app:1"))
    path = archive.write(tmp_path / "a.tar")
    for reference in ("", "app:1", "docker.io/library/app:1"):
        (image,) = ociimage.read_images(path, AMD64, reference)
        assert contents(image) == LAYERS
    del archive.files["manifest.json"]
    with pytest.raises(InvalidArgument, match="no image for windows/amd64; what it lists: blobs/sha256/"):
        ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)


@pytest.mark.parametrize("tags", [[], ["app:1", "web:1"]])
def test_an_index_that_lists_fewer_images_than_manifest_json(archive: Archive, tmp_path: Any, tags: List[str]) -> None:
    """Of two images that were saved by digest, the index has one (moby #51389)."""
    other = config_of(LAYERS[:1])
    saves = [archive.save(LAYERS, *tags[:1]), archive.save(LAYERS[:1], *tags[1:], config=other)]
    archive.files["manifest.json"] = json.dumps(saves).encode()
    image = archive.image()
    archive.index(name_it(image, "docker.io/library/app:1") if tags else image)
    path = archive.write(tmp_path / "a.tar")
    assert candidates(path) == (tags or sorted("sha256:" + save["Config"][:64] for save in saves))
    with pytest.raises(InvalidArgument, match="manifest.json lists images that index.json does not: select one"):
        ociimage.read_images(path, AMD64)


def test_lists_that_agree(archive: Archive, tmp_path: Any) -> None:
    """The manifest.json of containerd has one variant of an index; other tools use this file name freely."""
    variants = [archive.image(LAYERS, "10.0.17763.1"), archive.image()]
    archive.index(name_it(archive.json({"manifests": variants}), "docker.io/library/app:1"))
    for text in (json.dumps([archive.save(LAYERS, "app:1")]), "{}", "[1]", "{", '[{"Config": "nothing.json"}]'):
        archive.files["manifest.json"] = text.encode()
        assert len(ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)) == 2


# -- what lies beside an image -------------------------------------------------


def _artifact(archive: Archive, **manifest: Any) -> Dict[str, Any]:
    return archive.json({"schemaVersion": 2, "layers": [archive.blob(b"signature")], **manifest})


SHA512 = "sha512:" + 128 * "0"

BESIDE: List[Callable[[Archive], Any]] = [
    lambda _archive: {"digest": SHA512, "size": 7},
    lambda _archive: {"digest": "blake3:" + 64 * "0", "size": 7, "artifactType": "application/x"},
    lambda _archive: {"digest": "unknown", "size": 7},
    lambda _archive: None,
    lambda _archive: {},
    lambda archive: {**archive.blob(b"no JSON"), "mediaType": "text/plain"},
    lambda archive: {**archive.blob(b"{}"), "mediaType": "application/vnd.oci.empty.v1+json"},
    lambda _archive: {"mediaType": "application/x", "digest": "sha256:short"},
    lambda archive: {**archive.image(LAYERS[:1]), "platform": {"os": "unknown", "architecture": "unknown"}},
    lambda archive: archive.image(
        LAYERS[:1], config={**config_of(LAYERS[:1]), "os": "unknown", "architecture": "unknown"}
    ),
    _artifact,
    lambda archive: _artifact(archive, config=archive.blob(b"{}")),
    lambda archive: _artifact(archive, config={"digest": SHA512, "size": 2}),
    lambda archive: _artifact(
        archive, config={"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    ),
    lambda archive: archive.json({"manifests": []}),
    lambda archive: archive.json({"manifests": [{"digest": SHA512}, None]}),
]


@pytest.mark.parametrize("number", range(len(BESIDE)))
def test_an_artifact_beside_an_image(archive: Archive, tmp_path: Any, number: int) -> None:
    beside, image = BESIDE[number](archive), archive.image()
    for name in ("", "r.example/app:1"):
        archive.index(beside, name_it(image, name) if name else image)
        (found,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)
        assert contents(found) == [packed(plain) for plain in LAYERS]
    archive.index(archive.json({"manifests": [beside, image]}))
    assert len(ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)) == 1
    archive.index(beside)
    with pytest.raises(InvalidArgument, match="no image for windows/amd64; what it lists: "):
        ociimage.read_images(archive.write(tmp_path / "c.tar"), AMD64)


def test_a_variant_with_digests_of_another_algorithm(archive: Archive, tmp_path: Any) -> None:
    manifest = json.loads(archive.files[blob_name(archive.image()["digest"])])
    manifest["layers"][1]["digest"] = SHA512
    other = archive.json(manifest)
    archive.index(archive.json({"manifests": [other, archive.image(version="10.0.26100.1")]}))
    (image,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)
    assert image.os_version == "10.0.26100.1"
    archive.index(other)
    with pytest.raises(InvalidArgument, match="what it lists: layer 2 in .* has the digest 'sha512:"):
        ociimage.read_images(archive.write(tmp_path / "b.tar"), AMD64)


# -- refused archives ----------------------------------------------------------

_LONG = {"x": "y" * ociimage.MAXIMUM_DOCUMENT}


def _with_manifest(change: Callable[[Archive, Dict[str, Any]], Any]) -> Callable[[Archive], None]:
    """Return a function that adds one image, whose manifest it changes before the digest is computed."""

    def build(archive: Archive) -> None:
        manifest = json.loads(archive.files.pop(blob_name(archive.image()["digest"])))
        archive.index(archive.json(change(archive, manifest) or manifest))

    return build


def _with_layer(**change: Any) -> Callable[[Archive], None]:
    return _with_manifest(lambda _archive, manifest: manifest["layers"][1].update(change))


def _cycle(archive: Archive) -> None:
    """Add an index that lists its own digest. A valid index cannot contain its own digest, so it is damaged."""
    digest = digest_of(b"cycle")
    archive.files[blob_name(digest)] = json.dumps({"manifests": [{"digest": digest}]}).encode()
    archive.index({"digest": digest, "size": 1})


def _deep(archive: Archive) -> None:
    descriptor = archive.image()
    for _ in range(6):
        descriptor = archive.json({"manifests": [descriptor]})
    archive.index(descriptor)


def _flipped(archive: Archive) -> None:
    descriptor = archive.image()
    archive.files[blob_name(descriptor["digest"])] += b" "
    archive.index(descriptor)


def _saved(**change: Any) -> Callable[[Archive], None]:
    def build(archive: Archive) -> None:
        archive.files["manifest.json"] = json.dumps([{**archive.save(), **change}]).encode()

    return build


def _listed(name: str, value: Any) -> Callable[[Archive], None]:
    def build(archive: Archive) -> None:
        archive.files[name] = json.dumps(value).encode()

    return build


BAD = [
    (lambda _archive: None, "neither index.json"),
    (lambda archive: archive.index(), "no image for windows/amd64; what it lists: nothing"),
    (lambda archive: archive.files.update({"index.json": b"{"}), "index.json is not JSON"),
    (lambda archive: archive.files.update({"index.json": b"\xff\xfe{"}), "index.json is not JSON"),
    (lambda archive: archive.files.update({"index.json": b"[" * 200_000}), "index.json is not JSON"),
    (_listed("index.json", _LONG), "index.json has 41943"),
    (_listed("index.json", []), "no image"),
    (_listed("index.json", {"manifests": {}}), "index.json is damaged: 'manifests'"),
    (_listed("index.json", {"manifests": [1]}), "lists something that is not an object"),
    (_listed("index.json", {"manifests": [{"digest": "sha512:00"}]}), "has the digest 'sha512:00'"),
    (_listed("index.json", {"manifests": [{"digest": "sha256:../../../../etc/passwd"}]}), "is not sha256: and 64"),
    (_listed("index.json", {"manifests": [{"annotations": {"io.containerd.image.name": 1}}]}), "is damaged"),
    (_cycle, "has the digest sha256:.*: the archive is damaged"),
    (_flipped, "has the digest sha256:.*: the archive is damaged"),
    (_deep, "indexes in indexes more than 4 deep"),
    (lambda archive: archive.index(*({"digest": f"sha256:{n:064}"} for n in range(300))), "more than 256 images"),
    (lambda archive: archive.index(archive.json(_LONG)), "bytes: at most 4194304"),
    (
        lambda archive: archive.index(archive.json([])),
        "what it lists: blobs/sha256/.* .without a configuration, 0 layers",
    ),
    (_with_manifest(lambda archive, manifest: {**manifest, "config": archive.json(_LONG)}), "bytes: at most 4194304"),
    (_with_manifest(lambda _archive, manifest: {**manifest, "config": {"digest": "sha256:" + 64 * "0"}}), "not in the"),
    (
        _with_manifest(lambda _archive, manifest: {**manifest, "layers": manifest["layers"][:2]}),
        "has 2 layers, and 3 according to",
    ),
    (_with_manifest(lambda archive, manifest: {**manifest, "config": archive.json(config_of([]))}), "and 0 according"),
    (_with_manifest(lambda _archive, manifest: {**manifest, "layers": "none"}), "'layers' is 'none'"),
    (
        _with_manifest(
            lambda archive, manifest: {
                **manifest,
                "config": archive.json({**config_of([]), "rootfs": {"diff_ids": ["x", "y", "z"]}}),
            }
        ),
        "has the digest 'x'",
    ),
    (_with_layer(digest=7), "'digest' is '7'"),
    (_with_layer(size="7"), "layer 2 in blobs/sha256/.* has the size '7'"),
    (_with_layer(size=-7), "has the size '-7'"),
    (_with_layer(urls=[1]), "not a text"),
    (_saved(Config="../../secret"), "leads out of the archive"),
    (_saved(Config="/secret"), "leads out of the archive"),
    (_saved(Config=""), "leads out of the archive"),
    (_saved(Config="other.json"), "other.json is not in the archive"),
    (_saved(Layers=["a", "b", "..\\..\\c"]), "leads out of the archive"),
    (_saved(Layers=["a", 1]), "not a text"),
    (_saved(Layers=[]), "has 0 layers, and 3 according to"),
    (_listed("manifest.json", {}), "manifest.json is damaged: it is not a list"),
    (_listed("manifest.json", []), "no image for windows/amd64; what it lists: nothing"),
    (_listed("manifest.json", [7]), "not an object"),
]


@pytest.mark.parametrize("form", ["tar", "directory"])
@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_documents(archive: Archive, tmp_path: Any, number: int, form: str) -> None:
    build, message = BAD[number]
    build(archive)
    (tmp_path / "a").mkdir()
    path = archive.write(tmp_path / "a.tar") if form == "tar" else archive.write_directory(tmp_path / "a")
    with pytest.raises(InvalidArgument, match=message):
        ociimage.read_images(path, AMD64)


@pytest.mark.parametrize("platform", ["linux/amd64", "windows", "windows/", "windows/amd64/v1", ""])
def test_other_platforms(platform: str) -> None:
    with pytest.raises(InvalidArgument, match="is not windows/ and an architecture"):
        ociimage.read_images("/nowhere", platform)


def test_nothing_there(tmp_path: Any) -> None:
    with pytest.raises(FailedPrecondition, match="no such file or directory"):
        ociimage.read_images(str(tmp_path / "nothing"), AMD64)


def test_layers_that_cannot_be_imported(archive: Archive, tmp_path: Any) -> None:
    """The error comes when a task asks for the layer, not when it reads the image."""
    zstd = archive.blob(b"\x28\xb5\x2f\xfd and more")
    foreign = {"digest": digest_of(b"foreign"), "size": 1, "urls": ["https://example.com/layer"]}
    absent = {"digest": digest_of(b"absent"), "size": 1}
    wrong = {**archive.blob(b"five."), "size": 6}
    empty = archive.blob(b"")
    layers = [zstd, foreign, absent, wrong, empty]
    archive.index(archive.json({"config": archive.json(config_of([b""] * 5)), "layers": layers}))
    (image,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)
    for layer, kind, message in zip(
        image.layers,
        (NotImplementedHere, FailedPrecondition, FailedPrecondition, InvalidArgument),
        (
            "layer is compressed with zstd",
            "only its publisher distributes it. Save .* https://example.com/layer into an image layout as blobs/sha256",
            "layer is not in the archive: save the image again",
            "layer has 5 bytes, and 6 according to the manifest",
        ),
    ):
        with pytest.raises(kind, match=message):
            ociimage.blob_of(layer, "layer")
    assert ociimage.blob_of(image.layers[-1], "layer").size == 0


def test_a_blob_with_another_digest(archive: Archive, tmp_path: Any) -> None:
    archive.index(archive.image())
    (image,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), AMD64)
    extent = ociimage.blob_of(image.layers[0], "layer")
    with open(extent.path, "r+b") as file:
        file.seek(extent.offset + 20)
        file.write(b"!")
    with ociimage.BlobReader(extent) as blob, pytest.raises(InvalidArgument, match="layer has the digest"):
        blob.finish(image.layers[0], "layer")
    os.truncate(extent.path, extent.offset + 20)
    unknown = image.layers[0]._replace(digest="")
    with ociimage.BlobReader(extent) as blob, pytest.raises(InvalidArgument, match="layer has the digest"):
        blob.finish(unknown, "layer")


# -- the tar around it ---------------------------------------------------------


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, size
    return entry.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)

BAD_TARS = [
    (b"", "it is empty .0 bytes.: get it again"),
    (b"x" * 2000, "not a tar that can be read"),
    (b"version https://git-lfs.github.com/spec/v1\n", "not an image, but a pointer of Git LFS"),
    (b"<html>", "not an image, but an HTML page"),
    (b"vhdxfile" + END, "not an image, but a virtual disk"),
    (b"\x52\x2a\x4d\x18" + END, "compressed with zstd as a whole"),
    (_entry("Files/a") + END, "for a single layer tar there is the module layer"),
    (gzip.compress(END), "compressed with gzip as a whole"),
    (b"\x28\xb5\x2f\xfd" + END, "compressed with zstd as a whole"),
    (b"PK\x03\x04" + END, "compressed with zip as a whole"),
    (_entry("../index.json") + END, "'../index.json' leads out of the archive"),
    (_entry("a/../../index.json") + END, "leads out of the archive"),
    (_entry("/index.json") + END, "leads out of the archive"),
    (_entry("a", tarfile.SYMTYPE, "../../etc/passwd") + END, "leads out of the archive"),
    (_entry("a", tarfile.SYMTYPE, "/etc/passwd") + END, "leads out of the archive"),
    (_entry("a", tarfile.LNKTYPE, "../a") + END, "leads out of the archive"),
    (_entry("a", tarfile.FIFOTYPE) + END, "'a' is neither a file nor a directory nor a link"),
    (_entry("a", tarfile.CHRTYPE) + END, "'a' is neither a file nor a directory nor a link"),
    (_entry("index.json") * 2 + END, "two entries 'index.json'"),
    (_entry("a") + _entry("./a", tarfile.SYMTYPE, "b") + END, "two entries 'a'"),
    (_entry("a", size=5000) + END, "damaged|cut off|unexpected end"),
    (_entry("a"), "cut off or damaged"),
    (_entry("a") + b"x" * 512 + END, "cut off or damaged at byte 0"),
    (_entry("a", size=1 << 40) + END, "cut off|unexpected end"),
    (_entry("x", tarfile.XHDTYPE, size=1 << 40) + END, "extended header .* has 1099511627776 bytes: at most"),
    (_entry("x", tarfile.GNUTYPE_LONGNAME, size=1 << 40) + END, "extended header .* has 1099511627776 bytes"),
    (_entry("x", tarfile.XHDTYPE) * 3000 + END, "not a tar that can be read"),
    (_entry("a", size=-1024) + END, "damaged|not a tar|cut off"),
    (_entry("first") + _entry("a", size=-1024) + END, "damaged|not a tar|cut off"),
]


@pytest.mark.parametrize("number", range(len(BAD_TARS)))
def test_bad_tars(tmp_path: Any, number: int) -> None:
    data, message = BAD_TARS[number]
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(InvalidArgument, match=message):
        ociimage.read_images(str(tmp_path / "a.tar"), AMD64)


@pytest.mark.parametrize("mark", [0, 512, 1024])
def test_an_archive_may_lack_its_end_mark(tmp_path: Any, mark: int) -> None:
    archive = Archive()
    archive.index(archive.image())
    path = tmp_path / "a.tar"
    path.write_bytes(archive.tar().rstrip(b"\0").ljust(512, b"\0"))
    os.truncate(path, -(-os.path.getsize(path) // 512) * 512 + mark)
    (image,) = ociimage.read_images(str(path), AMD64)
    assert [layer.extent is None for layer in image.layers] == [False] * 3


def test_a_blob_may_occur_twice_with_the_same_content(tmp_path: Any) -> None:
    archive = Archive()
    archive.index(archive.image())
    blobs = [(name, data) for name, data in archive.files.items() if name.startswith("blobs/")]
    path = tmp_path / "a.tar"
    path.write_bytes(tarfile_tar(*blobs, *archive.files.items(), *blobs))
    (image,) = ociimage.read_images(str(path), AMD64)
    for layer in image.layers:
        with ociimage.BlobReader(ociimage.blob_of(layer, "layer")) as blob:
            assert blob.finish(layer, "layer") == layer.digest
    for name, data in blobs:
        for other in (data[:-1] + b"!", data + b"!"):
            path.write_bytes(tarfile_tar(*blobs, (name, other)))
            with pytest.raises(InvalidArgument, match=f"it has two entries {name!r}"):
                ociimage.read_images(str(path), AMD64)


def test_a_blob_is_hashed_once_however_often_it_is_read(tmp_path: Any) -> None:
    (tmp_path / "a").write_bytes(b"before" + b"content" * 1000 + b"after")
    with ociimage.BlobReader(ociimage.Extent(str(tmp_path / "a"), 6, 7000)) as blob:
        assert blob.read(5) == b"conte"
        blob.seek(0)
        assert (blob.tell(), blob.read(3), blob.read(6000)) == (0, b"con", (b"content" * 1000)[3:6003])
        blob.seek(100)
        layer = ociimage.Layer("", digest_of(b"content" * 1000), 7000, None, ())
        assert blob.finish(layer, "layer") == layer.digest


def test_a_sparse_file(tmp_path: Any) -> None:
    header = bytearray(_entry("a", tarfile.GNUTYPE_SPARSE))
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + END)
    with pytest.raises(InvalidArgument, match="sparse file"):
        ociimage.read_images(str(tmp_path / "a.tar"), AMD64)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_numbers_and_a_short_end_mark(archive: Archive, tmp_path: Any, form: int) -> None:
    """An image archive may have these forms. A layer tar may not."""
    archive.index(archive.image())
    parts = [tarfile.TarInfo("blobs/sha256").tobuf(form)]
    long = tarfile.TarInfo("x" * 300)
    long.type, long.linkname, long.uid, long.mtime = tarfile.SYMTYPE, "index.json", 8**10, 1.5
    long.pax_headers = {"SCHILY.xattr.user.x": "\udcff"} if form == tarfile.PAX_FORMAT else {}
    parts.append(long.tobuf(form, errors="surrogateescape"))
    for name, content in archive.files.items():
        parts += [_entry(name, size=len(content)), content, bytes(-len(content) % 512)]
    (tmp_path / "a.tar").write_bytes(b"".join(parts) + bytes(512))
    (image,) = ociimage.read_images(str(tmp_path / "a.tar"), AMD64)
    assert contents(image) == [packed(plain) for plain in LAYERS]


def test_links_that_lead_nowhere_are_not_there(archive: Archive, tmp_path: Any) -> None:
    loop = _entry("index.json", tarfile.SYMTYPE, "a") + _entry("a", tarfile.SYMTYPE, "index.json")
    (tmp_path / "a.tar").write_bytes(loop + END)
    with pytest.raises(InvalidArgument, match="neither index.json"):
        ociimage.read_images(str(tmp_path / "a.tar"), AMD64)


def test_memory_stays_small(archive: Archive, tmp_path: Any) -> None:
    """Memory does not grow with the number of entries or with their size."""
    archive.index(archive.image())
    with open(tmp_path / "a.tar", "wb") as file:
        file.writelines(_entry(f"blobs/sha256/{number:064}") for number in range(5_000))
        file.write(_entry("large", size=1 << 26))
        file.seek(1 << 26, os.SEEK_CUR)
        file.write(archive.tar())
    tracemalloc.start()
    try:
        assert ociimage.read_images(str(tmp_path / "a.tar"), AMD64)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024**2
    finally:
        tracemalloc.stop()


def test_the_reader_is_a_stream(archive: Archive, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with ociimage.BlobReader(ociimage.Extent(str(tmp_path / "file"), 2, 5)) as blob:
        assert io.BufferedReader(blob).read() == b"23456"


@pytest.mark.posix
def test_special_files(archive: Archive, tmp_path: Any) -> None:
    """Opening a named pipe would wait for its other end."""
    os.mkfifo(tmp_path / "pipe")
    for special, kind in ((tmp_path / "pipe", "a named pipe"), ("/dev/null", "a device")):
        with pytest.raises(OSError, match=f"it is {kind}, not a file"):
            ociimage.read_images(str(special), AMD64)
    archive.index(archive.image())
    for name in ("index.json", next(name for name in archive.files if name.startswith("blobs/"))):
        layout = tmp_path / name.replace("/", "-")
        os.unlink(os.path.join(archive.write_directory(layout), name))
        os.mkfifo(layout / name)
        with pytest.raises(InvalidArgument, match=f"{name} is a named pipe, not a file"):
            ociimage.read_images(str(layout), AMD64)
