# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of images in archives, and their descriptors in requests."""

from __future__ import annotations

import gzip
import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import imagepackage, ociimage
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import LAYERS, Archive, digest_of, packed

PLAIN = "application/vnd.docker.image.rootfs.diff.tar"
OCI = "application/vnd.oci.image.layer.v1.tar"


def package(path):
    (image,) = ociimage.read_images(str(path), "windows/amd64")
    return imagepackage.package_of(image, "x.tar: ")


def saved(tmp_path, *damage):
    archive = Archive()
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "app:1")]).encode()
    for change in damage:
        change(archive.files)
    return archive.write(tmp_path / "image.tar")


def read(part):
    with part.open() as file:
        return file.read()


@pytest.mark.parametrize("kind", ["tar", "directory"])
def test_an_oci_layout(tmp_path, kind):
    archive = Archive()
    archive.index(archive.image())
    path = archive.write(tmp_path / "a.tar") if kind == "tar" else archive.write_directory(tmp_path / "a")
    found = package(path)
    assert [digest_of(read(part)) for part in found.parts()] == [part.digest for part in found.parts()]
    assert [part.size for part in found.parts()] == [len(read(part)) for part in found.parts()]
    assert [part.digest for part in found.layers] == [digest_of(packed(plain)) for plain in LAYERS]
    # This manifest states no media types.
    assert {part.media_type for part in found.layers} == {f"{OCI}+gzip"}
    assert found.manifest.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert found.config.media_type == "application/vnd.oci.image.config.v1+json"
    assert found.layers[1].name == f"x.tar: layer 2 of 3 ({digest_of(LAYERS[1])})"


def test_docker_save(tmp_path):
    found = package(saved(tmp_path))
    document = json.loads(found.manifest.data)
    assert found.manifest.digest == digest_of(found.manifest.data)
    assert list(document) == ["schemaVersion", "mediaType", "config", "layers"]
    assert b" " not in found.manifest.data
    assert [layer["digest"] for layer in document["layers"]] == [digest_of(plain) for plain in LAYERS]
    assert {layer["mediaType"] for layer in document["layers"]} == {PLAIN}
    assert read(found.manifest) == found.manifest.data
    assert digest_of(read(found.layers[2])) == digest_of(LAYERS[2])
    assert package(saved(tmp_path)) == found


def test_docker_save_with_compressed_layers(tmp_path):
    def compress(files):
        for name in [name for name in files if name.endswith("layer.tar")]:
            files[name] = gzip.compress(files[name], mtime=0)

    found = package(saved(tmp_path, compress))
    assert [part.digest for part in found.layers] == [digest_of(packed(plain)) for plain in LAYERS]
    assert {part.media_type for part in found.layers} == {f"{PLAIN}.gzip"}


def test_docker_save_without_a_layer(tmp_path):
    def lose(files):
        del files[next(name for name in files if name.endswith("layer.tar"))]

    with pytest.raises(FailedPrecondition, match=r"x\.tar: layer 1 of 3 \(sha256:.* is not in the archive"):
        package(saved(tmp_path, lose))


def test_a_layer_that_occurs_twice_is_one_part(tmp_path):
    archive = Archive()
    archive.index(archive.image([LAYERS[0], LAYERS[1], LAYERS[1]]))
    found = package(archive.write(tmp_path / "a.tar"))
    assert len(found.layers) == 3
    assert len(found.parts()) == 4


def test_a_layer_without_bytes(tmp_path):
    archive = Archive()
    archive.index(archive.image())
    del archive.files["blobs/" + digest_of(packed(LAYERS[0])).replace(":", "/")]
    found = package(archive.write(tmp_path / "a.tar"))
    with pytest.raises(FailedPrecondition, match="layer 1 of 3 .* is not in the archive"):
        found.layers[0].require()
    with pytest.raises(FailedPrecondition), found.layers[0].open():
        pass


def test_descriptors_in_a_request(tmp_path):
    found = package(saved(tmp_path))
    diff_ids = tuple(digest_of(plain) for plain in LAYERS)
    again = imagepackage.from_object(json.loads(json.dumps(imagepackage.as_object(found))), diff_ids)
    described = [(part.media_type, part.digest, part.size) for part in again.parts()]
    assert described == [(part.media_type, part.digest, part.size) for part in found.parts()]
    with pytest.raises(FailedPrecondition, match="is not in the archive"):
        again.layers[0].require()


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": []},
        {"manifest": None},
        {"manifest": "sha256:x"},
        {"document": {"media_type": "x", "digest": "sha256:x", "size": 1}},
        {"document": {"media_type": "x", "digest": "sha256:" + "0" * 64, "size": True}},
        {"document": {"media_type": "x", "digest": "sha256:" + "0" * 64, "size": 0}},
        {"document": {"media_type": 1, "digest": "sha256:" + "0" * 64, "size": 1}},
    ],
)
def test_other_objects_are_refused(tmp_path, change):
    described = {**imagepackage.as_object(package(saved(tmp_path))), **change}
    with pytest.raises(InvalidArgument, match="image in src must have|of an image in src must have"):
        imagepackage.from_object(described, tuple(digest_of(plain) for plain in LAYERS))


def test_the_names_in_archives(tmp_path):
    archive = Archive()
    described = archive.image()
    names = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
    archive.index({**described, "annotations": dict(zip(names, ("docker.io/team/app:1", "1")))}, described)
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "team/app:1")]).encode()
    (image,) = ociimage.read_images(archive.write(tmp_path / "a.tar"), "windows/amd64")
    assert image.names == ("docker.io/team/app:1", "team/app:1")
