# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layers and images small enough to try playbooks with: the tree of a Windows image, without Windows."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping

_DIRECTORIES = (
    "Files",
    "Files/ProgramData",
    "Files/Users",
    "Files/Windows",
    "Files/Windows/System32",
    "Files/Windows/System32/config",
    "Hives",
    "UtilityVM",
    "UtilityVM/Files",
)

_FILES = {
    "Files/Windows/win.ini": b"; a stand-in\r\n[fonts]\r\n",
    "Files/Windows/System32/cmd.exe": b"a stand-in for cmd.exe\r\n",
    "Files/Windows/System32/config/SOFTWARE": b"a stand-in for a registry hive\r\n",
    "UtilityVM/Files/bootmgr": b"a stand-in for a boot loader\r\n",
}


#: What an image has on top of that.
_APPLICATION = {"Files/app/app.ini": b"; a stand-in\r\n"}

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


def write_layer(path: Path) -> None:
    """Write the base layer to ``path`` as a gzipped tar, the same bytes each time. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(gzip.compress(_tar(_DIRECTORIES, _FILES), mtime=0))
    draft.replace(path)


def write_image(path: Path, *versions: str) -> None:
    """Write an image of two layers to ``path`` as an OCI archive, once for each of these versions of Windows.

    They share the base layer. The same bytes each time. Raises OSError.
    """
    blobs: Dict[str, bytes] = {}

    def add(data: bytes, media_type: str, **more: Any) -> Dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def add_json(document: Dict[str, Any], media_type: str, **more: Any) -> Dict[str, Any]:
        return add(json.dumps(document).encode(), media_type, **more)

    manifests = []
    for version in versions:
        application = {**_APPLICATION, "Files/app/version.txt": version.encode()}
        layers = [_tar(_DIRECTORIES, _FILES), _tar(("Files", "Files/app"), application)]
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        platform = {"os": "windows", "architecture": "amd64", "os.version": version}
        config = add_json({**platform, "rootfs": {"type": "layers", "diff_ids": diff_ids}}, _CONFIG)
        packed = [add(gzip.compress(layer, mtime=0), _LAYER) for layer in layers]
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": packed}
        manifests.append(add_json(manifest, _MANIFEST, platform=platform))
    listed = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
    named = add_json(listed, _INDEX, annotations={"org.opencontainers.image.ref.name": "sample"})
    index = {"schemaVersion": 2, "manifests": [named]}
    blobs["oci-layout"] = b'{"imageLayoutVersion": "1.0.0"}'
    blobs["index.json"] = json.dumps(index).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tar((), blobs))


def _tar(directories: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
