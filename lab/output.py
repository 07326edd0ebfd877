# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pool, a pipeline or a command has said and nobody has fetched yet."""

from __future__ import annotations

import asyncio
import collections

#: Bytes that may wait; a program that writes more is held up, as by a full pipe.
HIGH_WATER = 8 << 20


class OutputQueue:
    """Pieces of output in order, and in the end that it is the end."""

    def __init__(self, splittable: bool) -> None:
        """With ``splittable``, ``take`` may cut a piece in two (WinRS bytes); PSRP fragments stay whole."""
        self._splittable = splittable
        self._pieces: collections.deque[tuple[str, bytes]] = collections.deque()
        self._size = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.finished = False
        self.exit_code: int | None = None

    def put(self, stream: str, data: bytes) -> None:
        """Append to the output; ``room`` says when to go on."""
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
        """Wait while more than HIGH_WATER bytes wait."""
        await self._writable.wait()

    def finish(self, exit_code: int | None) -> None:
        """No more will come. A second call changes nothing."""
        if not self.finished:
            self.finished, self.exit_code = True, exit_code
        self._readable.set()
        self._writable.set()

    @property
    def exhausted(self) -> bool:
        """Finished, and everything has been taken."""
        return self.finished and not self._pieces

    async def take(self, limit: int, timeout: float) -> list[tuple[str, bytes]] | None:
        """Up to ``limit`` bytes, but at least one piece, as soon as there is something; [] at the end.

        None if nothing came within ``timeout`` seconds.
        """
        if not self._pieces and not self.finished:
            self._readable.clear()
            try:
                await asyncio.wait_for(self._readable.wait(), timeout)
            except asyncio.TimeoutError:
                return None
        # What the producer puts in the same breath travels in the same response.
        await asyncio.sleep(0)
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
