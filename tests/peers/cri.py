# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on loopback, images for it, and a client of CRI that pulls them through a real containerd."""

from __future__ import annotations

import http.client
import os
import pathlib
import re
import subprocess
import threading
from typing import Any, Dict, List, Mapping, Optional, Sequence

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import protobuf
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.channel import Channel
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.protobuf import INTEGER, TEXT, Field, Schema
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.transport import UnixSocket
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import Archive, blob_name, digest_of, packed

from .proxy import PATIENCE

#: What a test needs that pulls an image.
NEEDED = [
    pytest.mark.requires_tool("containerd", "containerd"),
    pytest.mark.requires_tool("ctr", "containerd"),
    pytest.mark.requires_tool("docker-registry", "docker-registry"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd mounts the snapshots of an image, which needs root"),
]

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

# kubernetes/cri-api pkg/apis/runtime/v1/api.proto
_SPEC: Schema = {"image": Field(1, TEXT)}
_IMAGE: Schema = {"id": Field(1, TEXT), "repo_tags": Field(2, TEXT, repeated=True), "size": Field(4, INTEGER)}
_METHODS: Dict[str, Any] = {
    "PullImage": ({"image": Field(1, _SPEC)}, {"image_ref": Field(1, TEXT)}),
    "ListImages": ({}, {"images": Field(1, _IMAGE, repeated=True)}),
    "RemoveImage": ({"image": Field(1, _SPEC)}, {}),
}


class Cri:
    """A client of CRI's image service, as kubelet is one."""

    def __init__(self, address: str) -> None:
        self._channel = Channel(lambda deadline: UnixSocket(address, deadline), "CRI")

    def call(self, name: str, **message: Any) -> Dict[str, Any]:
        request, answer = _METHODS[name]
        sent = protobuf.encode(request, message)
        path = f"/runtime.v1.ImageService/{name}"
        return protobuf.decode(answer, self._channel.unary(path, sent, timeout=PATIENCE))

    def pull(self, image: str) -> str:
        """Pull an image. Return its id."""
        return str(self.call("PullImage", image={"image": image})["image_ref"])

    def remove(self, image: str) -> None:
        self.call("RemoveImage", image={"image": image})

    def images(self) -> List[str]:
        return [tag for image in self.call("ListImages")["images"] for tag in image["repo_tags"]]

    def close(self) -> None:
        self._channel.close()


class Registry:
    """Debian's registry in a process of its own, on loopback."""

    def __init__(self, directory: str) -> None:
        config = pathlib.Path(directory, "registry.yml")
        storage = f"storage: {{filesystem: {{rootdirectory: '{directory}/registry'}}}}"
        config.write_text(f"version: 0.1\n{storage}\nhttp: {{addr: '127.0.0.1:0'}}\n", encoding="utf-8")
        self._process = subprocess.Popen(
            ["docker-registry", "serve", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            encoding="utf-8",
        )
        assert self._process.stdout is not None
        self._log: List[str] = []
        for line in self._process.stdout:
            self._log.append(line)
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)", line)
            if found:
                self.name = f"127.0.0.1:{found[1]}"
                break
        else:
            raise RuntimeError("the registry does not start:\n" + "".join(self._log))
        self._reader = threading.Thread(target=self._log.extend, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def fetched(self) -> List[str]:
        """Return the digests of the blobs that were fetched so far."""
        return re.findall(r'"GET /v2/[^ ]*/blobs/(sha256:[0-9a-f]{64}) ', "".join(self._log))

    def push(self, name: str, archive: Archive, manifest: Mapping[str, Any]) -> str:
        """Push all blobs of an archive, and one of them as a manifest with the tag ``1``. Return the image's name."""
        data = archive.files[blob_name(manifest["digest"])]
        for file, blob in archive.files.items():
            if file.startswith("blobs/") and blob is not data:
                place = self._send("POST", f"/v2/{name}/blobs/uploads/")["Location"]
                path = place.partition(self.name)[2] or place
                self._send("PUT", f"{path}&digest={digest_of(blob)}", blob, "application/octet-stream")
        self._send("PUT", f"/v2/{name}/manifests/1", data, _MANIFEST)
        return f"{self.name}/{name}:1"

    def _send(self, method: str, path: str, body: Optional[bytes] = None, kind: str = "") -> Mapping[str, str]:
        connection = http.client.HTTPConnection(self.name, timeout=PATIENCE)
        try:
            connection.request(method, path, body or b"", {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status in (201, 202), (method, path, answer.status, text)
            return dict(answer.getheaders())
        finally:
            connection.close()


def image_of(layers: Sequence[bytes]) -> tuple[Archive, Dict[str, Any]]:
    """Return an image of Windows with these layers, as registries have it, and the descriptor of its manifest."""
    archive = Archive()
    diff_ids = [digest_of(plain) for plain in layers]
    platform = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
    config = archive.json({**platform, "rootfs": {"type": "layers", "diff_ids": diff_ids}}, mediaType=_CONFIG)
    blobs = [archive.blob(packed(plain), mediaType=_LAYER) for plain in layers]
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": blobs}
    return archive, archive.json(document, mediaType=_MANIFEST)
