# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe an image in a file as registries and containerd keep it: a manifest, a configuration and layers.

Each part is a blob with a digest. The output of older versions of ``docker save`` has no manifest. It gets the one
that ``ctr images import`` writes for it (containerd core/images/archive/importer.go), so both have the same digest.
"""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, cast

from ..errors import InvalidArgument
from ..files import only_files, read_at
from .digest import digest_of, is_digest
from .ociimage import Blob, BlobReader, Extent, Image, Layer, blob_of
from .tar.decompress import is_zstd

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

_GZIP = b"\x1f\x8b"


class Part(NamedTuple):
    """One blob of an image: its descriptor, and where its bytes are.

    ``name`` begins messages. The bytes are ``data``, or in a file at ``extent``. Without both they are not here.
    ``urls`` say where a layer is that the file does not have.
    """

    media_type: str
    digest: str
    size: int
    name: str
    extent: Optional[Extent] = None
    data: bytes = b""
    urls: Tuple[str, ...] = ()

    def require(self) -> None:
        """Raise as ``ociimage.blob_of`` unless the bytes are here."""
        if not self.data:
            blob_of(Layer("", self.digest, self.size, self.extent, self.urls), self.name, zstd=True)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the bytes for reading, from their start. Raises as ``require``, and OSError."""
        self.require()
        if self.extent is None:
            yield io.BytesIO(self.data)
            return
        with BlobReader(self.extent) as reader:
            yield cast(BinaryIO, reader)


class Package(NamedTuple):
    """The parts of an image for one platform; layers base first."""

    manifest: Part
    config: Part
    layers: Tuple[Part, ...]

    def parts(self) -> List[Part]:
        """Return each blob once, in the order in which it should be written: what names others comes last."""
        return list({part.digest: part for part in (*self.layers, self.config, self.manifest)}.values())


def layer_name(number: int, count: int, diff_id: str) -> str:
    """Return the name of layer ``number``, from 1, of ``count`` layers, for messages."""
    return f"layer {number} of {count} ({diff_id})"


def package_of(image: Image, source: str = "") -> Package:
    """Return the parts of an image. ``source`` begins the names of layers.

    Raises FailedPrecondition if a layer without a digest is not in the file, and OSError.
    """
    names = [
        source + layer_name(number, len(image.layers), layer.diff_id) for number, layer in enumerate(image.layers, 1)
    ]
    if image.document is None:
        raise InvalidArgument("the image does not say where its configuration is")
    config = _document(image.document, f"{source}the configuration")
    if image.manifest is not None:
        layers = [_listed_layer(layer, name) for layer, name in zip(image.layers, names)]
        return Package(_document(image.manifest, f"{source}the manifest"), config, tuple(layers))
    layers = [_saved_layer(layer, name) for layer, name in zip(image.layers, names)]
    return Package(_made_manifest(config, layers, f"{source}the manifest"), config, tuple(layers))


def as_object(package: Package) -> Dict[str, Any]:
    """Return the descriptors of a package for a request. ``from_object`` is the inverse."""
    return {
        "manifest": _descriptor(package.manifest),
        "document": _descriptor(package.config),
        "layers": [_descriptor(part) for part in package.layers],
    }


def from_object(found: Mapping[str, Any], diff_ids: Tuple[str, ...]) -> Package:
    """Return the package in a request, whose bytes are not here. Raises InvalidArgument for any other object."""
    layers = found.get("layers")
    if not isinstance(layers, list) or len(layers) != len(diff_ids):
        raise InvalidArgument("an image in src must have a descriptor in layers for each of its diff_ids")
    names = [layer_name(number, len(diff_ids), diff_id) for number, diff_id in enumerate(diff_ids, 1)]
    return Package(
        _part(found.get("manifest"), "the manifest"),
        _part(found.get("document"), "the configuration"),
        tuple(_part(layer, name) for layer, name in zip(layers, names)),
    )


def _document(blob: Blob, name: str) -> Part:
    return Part(blob.media_type, blob.digest, blob.size, name, blob.extent)


def _listed_layer(layer: Layer, name: str) -> Part:
    """Return a layer of a manifest. If that states no media type, the bytes do."""
    media_type = layer.media_type or _OCI_LAYER + (_suffix(layer.extent) if layer.extent else "+gzip")
    return Part(media_type, layer.digest, layer.size, name, layer.extent, urls=layer.urls)


def _saved_layer(layer: Layer, name: str) -> Part:
    """Return a layer in the output of ``docker save``. A plain tar has its diff id as its digest."""
    extent = blob_of(layer, name, zstd=True)
    if not _suffix(extent):
        return Part(_DOCKER_LAYER, layer.diff_id, extent.size, name, extent)
    with BlobReader(extent) as reader:
        # containerd finds out by itself whether it is gzip or zstd.
        return Part(f"{_DOCKER_LAYER}.gzip", reader.finish(layer, name), extent.size, name, extent)


def _suffix(extent: Extent) -> str:
    """Return how the media type of an OCI layer ends: by its compression."""
    with open(extent.path, "rb", opener=only_files) as file:
        head = read_at(file, extent.offset, min(4, extent.size))
    if is_zstd(head):
        return "+zstd"
    return "+gzip" if head.startswith(_GZIP) else ""


def _made_manifest(config: Part, layers: List[Part], name: str) -> Part:
    """Return a manifest of the bytes that Go's encoding/json writes for containerd."""
    document = {
        "schemaVersion": 2,
        "mediaType": _DOCKER_MANIFEST,
        "config": _as_manifest(config),
        "layers": [_as_manifest(layer) for layer in layers],
    }
    data = json.dumps(document, separators=(",", ":")).encode("ascii")
    return Part(_DOCKER_MANIFEST, digest_of(data), len(data), name, data=data)


def _as_manifest(part: Part) -> Dict[str, Any]:
    return {"mediaType": part.media_type, "digest": part.digest, "size": part.size}


def _descriptor(part: Part) -> Dict[str, Any]:
    return {"media_type": part.media_type, "digest": part.digest, "size": part.size}


def _part(found: Any, name: str) -> Part:
    values = found if isinstance(found, dict) else {}
    media_type, digest, size = (values.get(key) for key in ("media_type", "digest", "size"))
    if (
        isinstance(media_type, str)
        and isinstance(digest, str)
        and is_digest(digest)
        and isinstance(size, int)
        and not isinstance(size, bool)
        and 0 < size < 1 << 63
    ):
        return Part(media_type, digest, size, name)
    raise InvalidArgument(f"{name} of an image in src must have media_type (a string), digest, and size (in bytes)")
