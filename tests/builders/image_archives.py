# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build image archives for tests piece by piece, so that a test can damage each piece."""

from __future__ import annotations

import gzip
import hashlib
import json
import pathlib
from typing import Any, Dict, List, Optional, Sequence

from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar

Document = Dict[str, Any]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def layer(text: str) -> bytes:
    """Return a plain layer tar with one file."""
    return tarfile_tar(("Files", "directory"), (f"Files/{text}.txt", text.encode()))


#: A base layer and two layers on top of it.
LAYERS = [layer("base"), layer("middle"), layer("top")]


def packed(plain: bytes) -> bytes:
    return gzip.compress(plain, mtime=0)


def config_of(layers: Sequence[bytes], version: str = "10.0.20348.1", **more: Any) -> Document:
    rootfs = {"type": "layers", "diff_ids": [digest_of(plain) for plain in layers]}
    return {"os": "windows", "architecture": "amd64", "os.version": version, "rootfs": rootfs, **more}


class Archive:
    """The files of an archive by name."""

    def __init__(self) -> None:
        self.files: Dict[str, bytes] = {}

    def blob(self, data: bytes, **more: Any) -> Document:
        """Add a blob. Return its descriptor."""
        digest = digest_of(data)
        self.files[blob_name(digest)] = data
        return {"digest": digest, "size": len(data), **more}

    def json(self, document: Any, **more: Any) -> Document:
        return self.blob(json.dumps(document).encode(), **more)

    def image(
        self, layers: Sequence[bytes] = LAYERS, version: str = "10.0.20348.1", config: Optional[Document] = None
    ) -> Document:
        """Add an image with gzipped layers. Return the descriptor of its manifest."""
        described = self.json(config or config_of(layers, version))
        return self.json({"config": described, "layers": [self.blob(packed(plain)) for plain in layers]})

    def index(self, *descriptors: Document) -> None:
        self.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()
        self.files["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'

    def save(self, layers: Sequence[bytes] = LAYERS, *names: str, config: Optional[Document] = None) -> Document:
        """Add an image in the old format of docker save. Return its entry in manifest.json."""
        text = json.dumps(config or config_of(layers)).encode()
        found = digest_of(text)[len("sha256:") :]
        self.files[f"{found}.json"] = text
        paths: List[str] = []
        for plain in layers:
            paths.append(f"{digest_of(plain)[7:19]}/layer.tar")
            self.files[paths[-1]] = plain
        return {"Config": f"{found}.json", "RepoTags": list(names) or None, "Layers": paths}

    def tar(self) -> bytes:
        return tarfile_tar(*self.files.items())

    def write(self, path: pathlib.Path) -> str:
        """Write the archive as a tar. Return its path."""
        path.write_bytes(self.tar())
        return str(path)

    def write_directory(self, path: pathlib.Path) -> str:
        for name, data in self.files.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return str(path)
