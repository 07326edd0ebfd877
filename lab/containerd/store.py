# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the services of one containerd share: its databases, its lock, and what the collector has to look at."""

from __future__ import annotations

import threading
from pathlib import Path

from . import records
from .database import Database
from .snapshotter import NAME, WindowsSnapshotter

#: The version of containerd whose databases and answers these are, and that of its schema.
VERSION = "v2.3.4"
_SCHEMA = 4


class Store:
    """The root directory of a containerd.

    ``lock`` is held during each call. ``deletions`` counts what was deleted since the collector last ran. The collector
    looks into ``dirty_snapshotters``, and with ``dirty_content`` into the content store, for what nothing needs any
    more. As in containerd, these three are in memory only, so they are lost when the process ends.
    """

    def __init__(self, root: Path) -> None:
        """Open or create the root directory. Wait while another process has the lock of a database."""
        self.lock = threading.RLock()
        self.root = root
        metadata = root / "io.containerd.metadata.v1.bolt"
        metadata.mkdir(parents=True, exist_ok=True)
        self.meta = Database(metadata / "meta.db")
        try:
            self.snapshotter = WindowsSnapshotter(root / f"io.containerd.snapshotter.v1.{NAME}")
        except BaseException:
            self.meta.close()
            raise
        self.content = root / "io.containerd.content.v1.content"
        self.deletions = 0
        self.dirty_snapshotters: set[str] = set()
        self.dirty_content = False
        if not self.meta.root.items:
            with self.meta.update() as meta:
                records.make(meta, "v1").items[b"version"] = records.encode_varint(_SCHEMA)

    def close(self) -> None:
        """Close both databases, which releases their locks."""
        self.snapshotter.close()
        self.meta.close()
