# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening the store that the proxy snapshotter serves, and keeping it open between calls."""

from __future__ import annotations

import threading
import time
from typing import Callable, List, NamedTuple, Optional

from ..layers.base import LayerStore
from ..snapshotter import Snapshotter
from ..stores import open_layers

#: The layer stores. ``bind`` is for tests with a containerd that is not one of Windows.
LAYERS = ("auto", "windows", "emulated", "bind")

#: Seconds for which a store stays open without a call. Windows refuses to replace a file that is open.
IDLE_TIME = 2.0

#: Store objects that wait for calls.
MAX_IDLE = 8


def open_store(root: str, layers: str, destroy_later: Callable[[int], None]) -> Snapshotter:
    """Return the store at ``root`` for calls of containerd.

    Views have layers, because containerd mounts them. Scratch disks get the default size of the store by a label,
    because neither containerd nor kubelet has a setting for the size of C:, and neither sends a label with it.
    ``destroy_later`` as in Snapshotter. Raises as ``OwnStore``.
    """
    opened: LayerStore
    if layers == "bind":
        from ..layers.emulated.bind import BindLayers

        opened = BindLayers()
    else:
        opened = open_layers(layers, False)
    return Snapshotter(root, opened, destroy_later=destroy_later, views_have_layers=True, label_sizes=True)


class _Idle(NamedTuple):
    store: Snapshotter
    since: float


class Stores:
    """Store objects, each of which one call at a time uses. ``open_store`` returns a new one.

    To open one costs more than most calls: SQLite reads the schema, and the last connection that closes copies the log
    into the file and flushes both.
    """

    def __init__(self, open_store: Callable[[], Snapshotter]) -> None:
        self._open_store = open_store
        # The one that was used last is at the end, and is used next.
        self._idle: List[_Idle] = []
        self._lock = threading.Lock()

    def take(self) -> Snapshotter:
        """Return a store object for one call, as it would be if it was opened now. Raises as ``open_store``."""
        while True:
            idle = self._pop()
            if idle is None:
                return self._open_store()
            if idle.store.resume():
                return idle.store
            idle.store.close()

    def give_back(self, store: Snapshotter) -> None:
        """Keep a store object for the next call."""
        store.warnings = []
        with self._lock:
            is_kept = len(self._idle) < MAX_IDLE
            if is_kept:
                self._idle.append(_Idle(store, time.monotonic()))
        if not is_kept:
            store.close()

    def close_idle(self, seconds: float = IDLE_TIME) -> None:
        """Close what no call has used for some seconds."""
        limit = time.monotonic() - seconds
        with self._lock:
            old = [idle for idle in self._idle if idle.since <= limit]
            self._idle = [idle for idle in self._idle if idle.since > limit]
        for idle in old:
            idle.store.close()

    def _pop(self) -> Optional[_Idle]:
        with self._lock:
            return self._idle.pop() if self._idle else None
