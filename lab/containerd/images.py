# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Images (core/metadata/images.go)."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.digest import is_digest

from ..bolt import Bucket
from . import calls, messages, records
from .calls import Call
from .collector import Collector
from .store import Store

_PACKAGE = "containerd.services.images.v1"
_Image = messages.message(f"{_PACKAGE}.Image")
_Response = messages.message(f"{_PACKAGE}.ImageResponse")
_ListResponse = messages.message(f"{_PACKAGE}.ListImagesResponse")


class Images:
    """The calls of the service. A request is one of ``messages``."""

    def __init__(self, store: Store, collector: Collector) -> None:
        self._store = store
        self._collector = collector

    def get(self, request: Any, call: Call) -> Any:
        """Return an image."""
        return _Response(image=_image(request.name, self._find(call, request.name)))

    def list(self, request: Any, call: Call) -> Any:
        """Return the images that the filters match."""
        found = records.find(self._store.meta.root, *call.path("images"))
        images = [_image(name, bucket) for name, bucket in records.buckets(found)]
        return _ListResponse(images=calls.matching(images, request.filters, _fields))

    def create(self, request: Any, call: Call) -> Any:
        """Create an image. Its content need not exist."""
        image = request.image
        _check(image)
        with self._store.meta.update() as root:
            images = records.make(root, *call.path("images"))
            if records.find(images, image.name):
                raise AlreadyExists(f'image "{image.name}": already exists')
            now = time.time_ns()
            bucket = records.make(images, image.name)
            _write(bucket, image, now, now)
        return _Response(image=_image(image.name, bucket))

    def update(self, request: Any, call: Call) -> Any:
        """Change the labels, annotations or target of an image; all of them without paths."""
        wanted = request.image
        if not wanted.name:
            raise InvalidArgument("image name is required for update: invalid argument")
        paths = request.update_mask.paths or ["labels", "target"]
        calls.check_paths(paths, ("target",), ("labels", "annotations"), f'image "{wanted.name}"')
        with self._store.meta.update():
            bucket = self._find(call, wanted.name)
            image = _image(wanted.name, bucket)
            labels = calls.updated_map(image.labels, wanted.labels, "labels", paths)
            if "target" in paths:
                image.target.CopyFrom(wanted.target)
            annotations = calls.updated_map(image.target.annotations, wanted.target.annotations, "annotations", paths)
            for field, texts in ((image.labels, labels), (image.target.annotations, annotations)):
                field.clear()
                field.update(texts)
            _check(image)
            _write(bucket, image, records.read_times(bucket)[0], time.time_ns())
        return _Response(image=_image(wanted.name, bucket))

    def delete(self, request: Any, call: Call) -> Any:
        """Delete an image. With ``sync``, the collector has finished when this method returns."""
        self._find(call, request.name)
        with self._store.meta.update() as root:
            del records.make(root, *call.path("images")).items[request.name.encode()]
        self._store.deletions += 1
        if request.sync:
            self._collector.collect()
        return calls.Empty()

    def _find(self, call: Call, name: str) -> Bucket:
        bucket = records.find(self._store.meta.root, *call.path("images", name))
        if bucket is None:
            raise NotFound(f'image "{name}": not found')
        return bucket


def _check(image: Any) -> None:
    if not image.name:
        raise InvalidArgument("image name must not be empty: invalid argument")
    calls.check_labels(image.labels, "image.Labels")
    if not is_digest(image.target.digest):
        raise InvalidArgument(
            f'Target.Digest "{image.target.digest}" invalid: invalid checksum digest format: invalid argument'
        )
    if image.target.size <= 0:
        raise InvalidArgument("Target.Size must be greater than zero: invalid argument")
    if not image.target.media_type:
        raise InvalidArgument("Target.MediaType must be set: invalid argument")


def _image(name: str, bucket: Bucket) -> Any:
    target = records.find(bucket, "target") or Bucket()
    image = _Image(name=name, labels=records.read_map(bucket, "labels"))
    image.target.media_type = records.text(target, "mediatype")
    image.target.digest = records.text(target, "digest")
    image.target.size = records.decode_varint(records.value(target, "size"))
    image.target.annotations.update(records.read_map(bucket, "annotations"))
    created, updated = records.read_times(bucket)
    calls.set_time(image.created_at, created)
    calls.set_time(image.updated_at, updated)
    return image


def _write(bucket: Bucket, image: Any, created: int, updated: int) -> None:
    records.write_times(bucket, created, updated)
    records.write_map(bucket, "labels", image.labels)
    records.write_map(bucket, "annotations", image.target.annotations)
    target = records.make(bucket, "target")
    target.items[b"digest"] = image.target.digest.encode()
    target.items[b"mediatype"] = image.target.media_type.encode()
    target.items[b"size"] = records.encode_varint(image.target.size)


def _fields(image: Any) -> dict[str, Any]:
    return {
        "name": image.name,
        "target": {"digest": image.target.digest, "mediatype": image.target.media_type},
        "labels": dict(image.labels),
        "annotations": dict(image.target.annotations),
    }
