# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The services Version and Introspection: what this containerd is, and which plugins it has."""

from __future__ import annotations

import os
import uuid
from typing import Any

from . import calls, messages
from .calls import Call
from .snapshotter import NAME
from .store import VERSION, Store

_VersionResponse = messages.message("containerd.services.version.v1.VersionResponse")
_Plugin = messages.message("containerd.services.introspection.v1.Plugin")
_PluginsResponse = messages.message("containerd.services.introspection.v1.PluginsResponse")
_ServerResponse = messages.message("containerd.services.introspection.v1.ServerResponse")

_PLUGINS = {
    "io.containerd.content.v1": ("content",),
    "io.containerd.differ.v1": (NAME,),
    "io.containerd.gc.v1": ("scheduler",),
    "io.containerd.grpc.v1": (
        *("containers", "content", "diff", "images", "introspection"),
        *("leases", "namespaces", "snapshots", "version"),
    ),
    "io.containerd.metadata.v1": ("bolt",),
    "io.containerd.snapshotter.v1": (NAME,),
}


class Version:
    """The call of the service. A request is one of ``messages``."""

    def version(self, request: Any, call: Call) -> Any:
        """Return the version that this containerd models. Its revision says that it is a simulation."""
        return _VersionResponse(version=VERSION, revision="lab")


class Introspection:
    """The calls of the service. A request is one of ``messages``."""

    def __init__(self, store: Store) -> None:
        self._identity = store.root / "io.containerd.grpc.v1.introspection" / "uuid"

    def plugins(self, request: Any, call: Call) -> Any:
        """Return the plugins that the filters match."""
        plugins = [_plugin(kind, name) for kind, names in _PLUGINS.items() for name in names]
        matching = calls.matching(plugins, request.filters, lambda plugin: {"type": plugin.type, "id": plugin.id})
        return _PluginsResponse(plugins=matching)

    def server(self, request: Any, call: Call) -> Any:
        """Return the identity of this containerd, which stays the same, and its process id."""
        if not self._identity.exists():
            self._identity.parent.mkdir(exist_ok=True)
            self._identity.write_text(str(uuid.uuid4()), encoding="ascii")
        return _ServerResponse(uuid=self._identity.read_text(encoding="ascii"), pid=os.getpid())


def _plugin(kind: str, name: str) -> Any:
    plugin = _Plugin(type=kind, id=name)
    if name == NAME:
        plugin.platforms.add(os="windows", architecture="amd64")
    if name == "bolt":
        plugin.exports["policy"] = "shared"
    return plugin
