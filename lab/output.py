# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of a pool, pipeline or command that a client has not received yet."""

from __future__ import annotations

import asyncio
import collections

#: Bytes that may wait. A program that writes more has to wait, as with a full pipe.
HIGH_WATER = 8 << 20


class OutputQueue:
    """Pieces of output in order, and the end of the output."""

    def __init__(self, splittable: bool, hold: float = 0.0) -> None:
        """``splittable``: ``take`` may split a piece (bytes of WinRS). PSRP fragments stay whole.

        ``hold``: seconds that ``take`` waits for more when it has something.
        """
        self._splittable = splittable
        self._hold = hold
        self._pieces: collections.deque[tuple[str, bytes]] = collections.deque()
        self._size = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.finished = False
        self.exit_code: int | None = None

    def put(self, stream: str, data: bytes) -> None:
        """Append to the output. Then await ``room``."""
        last = self._pieces[-1] if self._pieces else None
        if self._splittable and last and last[0] == stream and len(last[1]) < 4096:
            self._pieces[-1] = (stream, last[1] + data)
        else:
            self._pieces.append((stream, data))
        self._size += len(data)
        self._readable.set()
        if self._size > HIGH_WATER:
            self._writable.clear()

    async def room(self) -> None:
        """Wait until at most HIGH_WATER bytes are left."""
        await self._writable.wait()

    def finish(self, exit_code: int | None) -> None:
        """End the output. A second call has no effect."""
        if not self.finished:
            self.finished, self.exit_code = True, exit_code
        self._readable.set()
        self._writable.set()

    @property
    def exhausted(self) -> bool:
        """True if the output has ended and has been taken."""
        return self.finished and not self._pieces

    async def _wait_for_more(self, limit: int) -> None:
        """Return at the end of the output, at ``limit`` bytes, or after ``hold`` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._hold
        while not self.finished and self._size < limit and (left := until - loop.time()) > 0:
            self._readable.clear()
            try:
                await asyncio.wait_for(self._readable.wait(), left)
            except asyncio.TimeoutError:
                return

    async def take(self, limit: int, timeout: float) -> list[tuple[str, bytes]] | None:
        """Wait for output, and return up to ``limit`` bytes, but at least one piece; [] at the end.

        Return None if there is no output within ``timeout`` seconds.
        """
        if not self._pieces and not self.finished:
            self._readable.clear()
            try:
                await asyncio.wait_for(self._readable.wait(), timeout)
            except asyncio.TimeoutError:
                return None
        # Let the producer finish: what it puts now goes into the same response.
        await asyncio.sleep(0)
        await self._wait_for_more(limit)
        taken: list[tuple[str, bytes]] = []
        room = limit
        while self._pieces and (not taken or len(self._pieces[0][1]) <= room):
            stream, data = self._pieces.popleft()
            if self._splittable and len(data) > room:
                self._pieces.appendleft((stream, data[room:]))
                data = data[:room]
            room -= len(data)
            self._size -= len(data)
            taken.append((stream, data))
        if self._size <= HIGH_WATER:
            self._writable.set()
        return taken
