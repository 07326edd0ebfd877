# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small sample layers and images for playbooks: the directory tree of a Windows image, without Windows."""

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


#: The files of the second layer of an image.
_APPLICATION = {"Files/app/app.ini": b"; a stand-in\r\n"}

_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


def write_layer(path: Path) -> tuple[str, str]:
    """Write the base layer to ``path`` as a gzipped tar; the bytes are reproducible.

    Returns the SHA-256 of the file and of the plain tar, in hexadecimal
    digits. Raises OSError.
    """
    tar = base_layer()
    data = gzip.compress(tar, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return hashlib.sha256(data).hexdigest(), hashlib.sha256(tar).hexdigest()


def write_image(path: Path, *versions: str) -> None:
    """Write an OCI archive to ``path`` with an image of two layers for each of these versions of Windows.

    The images share the base layer. The bytes are reproducible. Raises OSError.
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
        layers = [base_layer(), make_tar(("Files", "Files/app"), application)]
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
    path.write_bytes(make_tar((), blobs))


def base_layer() -> bytes:
    """Return the plain tar of the base layer."""
    return make_tar(_DIRECTORIES, _FILES)


def make_tar(directories: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """Return a tar with these directories, then these files."""
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
