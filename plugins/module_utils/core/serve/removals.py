# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Destroy the layers of removed snapshots in a thread of its own.

The destruction of a layer can take seconds, and containerd's garbage collector waits for each removal under a lock that
stops all other work on snapshots. A layer that waits is a directory ``rm-<id>`` without a record, so a process that
ends loses nothing: the next one finds it when it starts.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import Callable, Deque, Optional

from ..errors import SnapshotterError
from ..snapshotter import Snapshotter

#: Seconds between two attempts to destroy what could not be destroyed.
RETRY_TIME = 60.0

_log = logging.getLogger(__name__)


class Removals:
    """A queue of layers, and the thread that destroys them. ``open_store`` returns a store for this thread."""

    def __init__(self, open_store: Callable[[], Snapshotter]) -> None:
        self._open_store = open_store
        self._queue: Deque[int] = collections.deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        # When to look for what is on disk: at the start, and again after a failure.
        self._next_look: Optional[float] = 0.0
        self._thread = threading.Thread(target=self._work, name="removals", daemon=True)
        self._thread.start()

    def add(self, layer_id: int) -> None:
        """Destroy the layer with this id soon."""
        with self._changed:
            self._queue.append(layer_id)
            self._changed.notify()

    def stop(self, deadline: float) -> bool:
        """Destroy what is queued, and end. Return False if that is not done at a time of ``time.monotonic()``."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._is_stopping and self._seconds_to_look() != 0.0:
                    self._changed.wait(self._seconds_to_look())
                if not self._queue and self._is_stopping:
                    return
                layer_id = self._queue.popleft() if self._queue else 0
                if not layer_id:
                    self._next_look = None
            try:
                self._destroy(layer_id)
            except Exception as error:  # noqa: BLE001 - the thread has to go on, and what is left stays on disk
                _log.warning("a removed layer could not be destroyed, and will be tried again: %s", error)
                self._next_look = time.monotonic() + RETRY_TIME

    def _seconds_to_look(self) -> Optional[float]:
        return None if self._next_look is None else max(0.0, self._next_look - time.monotonic())

    def _destroy(self, layer_id: int) -> None:
        """Destroy one layer, or with the id 0 all that wait on disk. Raises what the layer store raises."""
        opened = self._open_store()
        try:
            if layer_id:
                opened.store.destroy_removed(layer_id)
            elif opened.exists():
                opened.store.destroy_leftovers()
                left = opened.store.pending_removals()
                if left:
                    raise SnapshotterError(f"{len(left)} removed layers are still in use")
        finally:
            opened.close()
