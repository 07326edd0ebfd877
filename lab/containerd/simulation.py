# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One simulated containerd: its store, its services and its collector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .collector import Collector
from .containers import Containers
from .content import Content
from .diff import Diff
from .images import Images
from .introspection import Introspection, Version
from .leases import Leases
from .namespaces import Namespaces
from .snapshots import Snapshots
from .store import Store


class Simulation:
    """A containerd that keeps its files in ``root``. It answers calls from other threads only with ``store.lock``."""

    def __init__(self, root: Path) -> None:
        """Open or create the root directory. Wait while another process has the lock of a database."""
        self.store = Store(root)
        self.collector = Collector(self.store)
        self.content = Content(self.store)
        self.snapshots = Snapshots(self.store)
        self.leases = Leases(self.store, self.collector)
        self.images = Images(self.store, self.collector)
        self.containers = Containers(self.store)
        self.namespaces = Namespaces(self.store)
        self.diff = Diff(self.store, self.content)

    def services(self) -> dict[str, Any]:
        """Return the services by their full names."""
        package = "containerd.services"
        return {
            f"{package}.containers.v1.Containers": self.containers,
            f"{package}.content.v1.Content": self.content,
            f"{package}.diff.v1.Diff": self.diff,
            f"{package}.images.v1.Images": self.images,
            f"{package}.introspection.v1.Introspection": Introspection(self.store),
            f"{package}.leases.v1.Leases": self.leases,
            f"{package}.namespaces.v1.Namespaces": self.namespaces,
            f"{package}.snapshots.v1.Snapshots": self.snapshots,
            f"{package}.version.v1.Version": Version(),
        }
