# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the manifests of images in containerd's content store, from its files.

A document is read only if its bytes have its digest. A record can name an index, of which containerd has the
manifests of some platforms only.
"""

from __future__ import annotations

import json
import os
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

from ..errors import FailedPrecondition
from ..files import only_files
from ..formats.digest import digest_of, hex_digits, is_digest
from ..formats.ociimage import MAXIMUM_DOCUMENT, MAXIMUM_IMAGES, chain_ids
from ..model import TopLayer

_MAX_DEPTH = 4


class StoredImage(NamedTuple):
    """An image for one platform: the digests of its manifest, its configuration and its layers, and its diff ids.

    ``config`` is the image id of CRI. ``diff_ids`` is empty if the configuration cannot be read. ``platform`` is
    ``windows/amd64``, for example. ``os_version`` is ``""`` if the configuration does not state it.
    """

    manifest: str
    config: str
    layers: Tuple[str, ...]
    diff_ids: Tuple[str, ...]
    platform: str
    os_version: str


class Manifests:
    """The manifests below containerd's native ``root``. Only ``blobs``, those of a namespace, are read."""

    def __init__(self, root: str, blobs: Collection[str]) -> None:
        self._directory = os.path.join(root, "io.containerd.content.v1.content", "blobs", "sha256")
        self._blobs = blobs
        self._documents: Dict[str, Any] = {}

    def images(self, digest: str) -> List[StoredImage]:
        """Return the images that a record with this target names. What cannot be read is left out."""
        found: Dict[str, StoredImage] = {}
        self._follow(digest, found, 1)
        return list(found.values())

    def top_layers(self, image: str, digest: str) -> List[TopLayer]:
        """Return the top layers of the images for Windows that the record ``image`` with this target names.

        Raises FailedPrecondition if there are none. Their snapshots need not exist.
        """
        stored = [found for found in self.images(digest) if found.diff_ids]
        if not stored:
            raise FailedPrecondition(
                f'the manifest of the image "{image}" or its configuration is missing in containerd\'s content, or is '
                "damaged: remove the image and pull it again",
                image=image,
            )
        layers = [
            TopLayer(chain_ids(found.diff_ids)[-1], found.os_version)
            for found in stored
            if found.platform.startswith("windows/")
        ]
        if not layers:
            platforms = ", ".join(sorted({found.platform for found in stored}))
            raise FailedPrecondition(
                f'the image "{image}" is for {platforms}, not for Windows: pull or import it for the platform of the '
                "node",
                image=image,
            )
        return layers

    def _follow(self, digest: str, found: Dict[str, StoredImage], depth: int) -> None:
        document = self._read(digest)
        if depth > _MAX_DEPTH or len(found) > MAXIMUM_IMAGES:
            return
        for listed in _digests(document, "manifests"):
            self._follow(listed, found, depth + 1)
        config = _digest(_get(document, "config"))
        if config:
            stated = self._read(config)
            diff_ids = _get(_get(stated, "rootfs"), "diff_ids")
            texts = tuple(diff_ids) if isinstance(diff_ids, list) and all(map(_is_digest, diff_ids)) else ()
            found[digest] = StoredImage(
                digest,
                config,
                tuple(_digests(document, "layers")),
                texts,
                f"{_get(stated, 'os') or 'unknown'}/{_get(stated, 'architecture') or 'unknown'}",
                str(_get(stated, "os.version") or ""),
            )

    def _read(self, digest: str) -> Any:
        """Return a document, None if it is not there or not what it should be."""
        if digest not in self._blobs or not is_digest(digest):
            return None
        if digest not in self._documents:
            self._documents[digest] = self._parse(digest)
        return self._documents[digest]

    def _parse(self, digest: str) -> Any:
        try:
            with open(os.path.join(self._directory, hex_digits(digest)), "rb", opener=only_files) as file:
                data = file.read(MAXIMUM_DOCUMENT + 1)
            return json.loads(data) if len(data) <= MAXIMUM_DOCUMENT and digest_of(data) == digest else None
        except (OSError, ValueError, RecursionError):
            return None


def _get(document: Any, key: str) -> Any:
    return document.get(key) if isinstance(document, dict) else None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and is_digest(value)


def _digest(descriptor: Any) -> Optional[str]:
    digest = _get(descriptor, "digest")
    return digest if _is_digest(digest) else None


def _digests(document: Any, key: str) -> List[str]:
    listed = _get(document, key)
    digests = [_digest(item) for item in listed] if isinstance(listed, list) else []
    return [digest for digest in digests if digest]
