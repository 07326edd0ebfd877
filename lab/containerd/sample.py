# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new simulated containerd has: a small base image, a container on it, and a lease that holds a snapshot."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

from .. import sample
from . import messages
from .calls import Call
from .simulation import Simulation
from .snapshotter import NAME

#: The namespace of Kubernetes.
NAMESPACE = "k8s.io"

IMAGE = "registry.example.com/library/windows-base:1.0"
CONTAINER = "web"
LEASE = "build-cache"

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

#: CRI sets this label on each image that it knows.
_MANAGED = {"io.cri-containerd.image": "managed"}


def fill(simulation: Simulation) -> None:
    """Create the image, the container and the lease, through the calls of the services."""
    _request(simulation.namespaces.create, "namespaces", "NamespaceRequest", Call(""), namespace={"name": NAMESPACE})
    call = Call(NAMESPACE)
    _request(simulation.leases.create, "leases", "CreateRequest", call, id="sample")
    manifest, chain_id, image_id = _add_image(simulation, Call(NAMESPACE, "sample"))
    for name in (IMAGE, image_id):
        image = {"name": name, "target": manifest, "labels": _MANAGED}
        _request(simulation.images.create, "images", "ImageRequest", call, image=image)
    _prepare(simulation, call, CONTAINER, chain_id)
    container = {
        "id": CONTAINER,
        "labels": {"io.cri-containerd.kind": "container"},
        "image": IMAGE,
        "runtime": {"name": "io.containerd.runhcs.v1"},
        "spec": {"type_url": "types.containerd.io/opencontainers/runtime-spec/1/Spec", "value": b"{}"},
        "snapshotter": NAME,
        "snapshot_key": CONTAINER,
    }
    _request(simulation.containers.create, "containers", "ContainerRequest", call, container=container)
    _request(simulation.leases.create, "leases", "CreateRequest", call, id=LEASE)
    _prepare(simulation, Call(NAMESPACE, LEASE), "build-1", chain_id)
    _request(simulation.leases.delete, "leases", "DeleteRequest", call, id="sample")


def _add_image(simulation: Simulation, call: Call) -> tuple[dict[str, Any], str, str]:
    """Write the blobs, and unpack the layer. Return the descriptor of the manifest, the chain id, the image id."""
    tar = sample.base_layer()
    diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    platform = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    # The chain id of a single layer is its diff id.
    snapshot = {f"containerd.io/gc.ref.snapshot.{NAME}": diff_id}
    layer = _write(simulation, call, gzip.compress(tar, mtime=0), _LAYER, {"containerd.io/uncompressed": diff_id})
    config = _write(simulation, call, json.dumps({**platform, "rootfs": rootfs}).encode(), _CONFIG, snapshot)
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _listed(config),
        "layers": [_listed(layer)],
    }
    links = {
        "containerd.io/gc.ref.content.config": config["digest"],
        "containerd.io/gc.ref.content.l.0": layer["digest"],
    }
    manifest = _write(simulation, call, json.dumps(document).encode(), _MANIFEST, links)
    key = f"extract-1 {diff_id}"
    mounts = _prepare(simulation, call, key, "").mounts
    _request(simulation.diff.apply, "diff", "ApplyRequest", call, diff=layer, mounts=mounts)
    commit = {"snapshotter": NAME, "name": diff_id, "key": key}
    _request(simulation.snapshots.commit, "snapshots", "CommitSnapshotRequest", call, **commit)
    return manifest, diff_id, config["digest"]


def _listed(descriptor: dict[str, Any]) -> dict[str, Any]:
    """Return a descriptor as a manifest spells it."""
    return {"mediaType": descriptor["media_type"], "digest": descriptor["digest"], "size": descriptor["size"]}


def _write(simulation: Simulation, call: Call, data: bytes, media_type: str, labels: dict[str, str]) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    request = messages.message("containerd.services.content.v1.WriteContentRequest")(
        action=2, ref=digest, total=len(data), expected=digest, data=data, labels=labels
    )
    for _answer in simulation.content.write(iter([request]), call):
        pass
    return {"media_type": media_type, "digest": digest, "size": len(data)}


def _prepare(simulation: Simulation, call: Call, key: str, parent: str) -> Any:
    fields = {"snapshotter": NAME, "key": key, "parent": parent}
    return _request(simulation.snapshots.prepare, "snapshots", "PrepareSnapshotRequest", call, **fields)


def _request(function: Any, service: str, message: str, call: Call, **fields: Any) -> Any:
    return function(messages.message(f"containerd.services.{service}.v1.{message}")(**fields), call)
