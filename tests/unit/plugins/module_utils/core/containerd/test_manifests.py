# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifests of images in containerd's content store, also those that are damaged or hostile."""

from __future__ import annotations

import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.manifests import Manifests, StoredImage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import TopLayer
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import digest_of

LAYER = "sha256:" + "1" * 64


@pytest.fixture
def store(tmp_path):
    """Return a function that writes a blob, and returns its digest."""
    directory = tmp_path / "io.containerd.content.v1.content" / "blobs" / "sha256"
    directory.mkdir(parents=True)

    def store(document, digest=None):
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest or digest_of(data)
        (directory / digest[7:]).write_bytes(data)
        return digest

    return store


@pytest.fixture
def manifests(tmp_path, store):
    """The manifests of a namespace that has all blobs."""

    class All:
        def __contains__(self, _digest):
            return True

    return Manifests(str(tmp_path), All())


@pytest.fixture
def images(manifests):
    """Return a function that returns the images of a digest."""
    return manifests.images


def manifest(store, **config):
    config = store({"rootfs": {"diff_ids": [LAYER]}, **config})
    return store({"config": {"digest": config}, "layers": [{"digest": LAYER}]}), config


def test_an_index_of_several_platforms(store, images):
    """Containerd has the manifests of some of them."""
    one, config = manifest(store)
    two, other = manifest(store, **{"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"})
    index = store({"manifests": [{"digest": one}, {"digest": "sha256:" + "0" * 64}, {"digest": two}]})
    assert images(index) == [
        StoredImage(one, config, (LAYER,), (LAYER,), "unknown/unknown", ""),
        StoredImage(two, other, (LAYER,), (LAYER,), "windows/amd64", "10.0.20348.1"),
    ]


def test_a_blob_of_another_namespace_is_not_read(store, tmp_path):
    digest, _config = manifest(store)
    assert Manifests(str(tmp_path), {}).images(digest) == []
    assert Manifests(str(tmp_path), {digest}).images(digest)[0].diff_ids == ()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[1]",
        b"{",
        b"[" * 100_000,
        b'"' + b"x" * 5_000_000 + b'"',
        {"config": 1, "manifests": 2, "layers": 3},
        {"config": {"digest": "sha256:x"}, "manifests": [1, {"digest": None}]},
        {"manifests": [{"digest": "../../../etc/passwd"}]},
    ],
)
def test_what_is_not_a_manifest_is_left_out(store, images, document):
    assert images(store(document)) == []


def test_other_bytes_than_those_of_the_digest_are_left_out(store, images):
    assert images(store({"config": {"digest": LAYER}}, digest="sha256:" + "2" * 64)) == []
    assert images("no digest") == []


def test_indexes_in_indexes(store, images):
    digest, config = manifest(store)
    for _level in range(3):
        digest = store({"manifests": [{"digest": digest}]})
    assert [found.config for found in images(digest)] == [config]
    assert images(store({"manifests": [{"digest": digest}]})) == []


def test_the_top_layers_of_an_image(store, manifests):
    windows, linux = {"os": "windows", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}
    parts = [
        manifest(store, **windows, **{"os.version": "10.0.20348.1"})[0],
        manifest(store, **windows, **{"os.version": "10.0.26100.1"})[0],
        manifest(store, **linux)[0],
    ]
    index = store({"manifests": [{"digest": part} for part in parts]})
    # The chain id of a single layer is its diff id.
    assert manifests.top_layers("app:1", index) == [TopLayer(LAYER, "10.0.20348.1"), TopLayer(LAYER, "10.0.26100.1")]
    with pytest.raises(FailedPrecondition, match='the image "app:1" is for linux/arm64, not for Windows: pull or'):
        manifests.top_layers("app:1", parts[2])


@pytest.mark.parametrize("document", [b"{", {"config": {"digest": "sha256:" + "0" * 64}}])
def test_an_image_that_cannot_be_read_has_no_top_layer(store, manifests, document):
    with pytest.raises(FailedPrecondition, match='manifest of the image "app:1" or its configuration is missing'):
        manifests.top_layers("app:1", store(document))
