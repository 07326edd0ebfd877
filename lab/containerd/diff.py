# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Diff: unpack the blob of a layer into the layer directory of a mount (plugins/diff/windows)."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    InvalidArgument,
    NotImplementedHere,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar.decompress import open_layer
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import MOUNT_TYPE, PARENT_LAYER_PATHS

from . import messages
from .calls import Call
from .content import Content
from .store import Store

_ApplyResponse = messages.message("containerd.services.diff.v1.ApplyResponse")

#: The media type of the plain tar that a layer is in the end.
_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Diff:
    """The call of the service. A request is one of ``messages``."""

    def __init__(self, store: Store, content: Content) -> None:
        self._layers = store.snapshotter.layers
        self._content = content

    def apply(self, request: Any, call: Call) -> Any:
        """Unpack a layer tar, which can be compressed. Return the descriptor of the plain tar."""
        blob = self._content.blob(request.diff.digest, call)
        if len(request.mounts) != 1:
            raise InvalidArgument("number of mounts should always be 1 for Windows layers: invalid argument")
        mount = request.mounts[0]
        if mount.type != MOUNT_TYPE:
            raise NotImplementedHere(f"windowsDiff does not support layer type {mount.type}: not implemented")
        parents: list[str] = []
        for option in mount.options:
            if option.startswith(PARENT_LAYER_PATHS):
                parents = json.loads(option[len(PARENT_LAYER_PATHS) :]) or []
        directory = self._layers.native(mount.source)
        with blob.open("rb") as file, open_layer(file) as tar:
            result = self._layers.import_layer(directory, [self._layers.native(path) for path in parents], tar)
        return _ApplyResponse(applied={"media_type": _LAYER, "digest": result.digest, "size": result.size})
