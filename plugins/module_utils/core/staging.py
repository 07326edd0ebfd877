# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on their way from the controller: received in pieces, known by their digest.

WinRM limits what one command may receive (50 MB by default), so a large file
takes several calls. What has arrived stays in ``<root>/incoming`` and a later
run continues there.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, BinaryIO, Dict, Optional

from .durable import make_directories, sync_directory
from .errors import InvalidArgument, NotFound, os_error
from .failpoint import failpoint
from .layers.base import LayerStore

#: Bytes read at a time.
CHUNK = 1 << 20

#: The longest piece, bytes. A piece is in memory until all of it has arrived.
MAXIMUM_PIECE = 64 << 20


class Staging:
    """The incoming files of one store. ``root`` is native."""

    def __init__(self, root: str, layers: LayerStore) -> None:
        self._directory = os.path.join(root, "incoming")
        self._layers = layers

    def path(self, digest: str) -> str:
        """Where the complete file is. Raises NotFound if it is not all here."""
        path = self._path(digest)
        if not os.path.isfile(path):
            raise NotFound(f"the file {digest} has not been received; run the task again", digest=digest)
        return path

    def receive(self, digest: str, size: int, offset: Optional[int], data: BinaryIO) -> Dict[str, Any]:
        """Append a piece at ``offset``, or (None) only say how much is here.

        ``data`` are lines of base64. Returns the path that the file has in the
        end, the bytes that are here now, and whether it is complete, which it
        is once its SHA-256 is ``digest``.
        Raises InvalidArgument for a piece that does not fit or a file that has
        another digest (and is then thrown away), Unavailable on a full volume.
        """
        path = self._path(digest)
        if os.path.isfile(path):
            return self._state(path, size, complete=True)
        part = path + ".part"
        have = os.path.getsize(part) if os.path.isfile(part) else 0
        if offset is None:
            return self._state(path, have, complete=False)
        if offset != have:
            raise InvalidArgument(
                f"piece at byte {offset} of {digest} does not follow: {have} bytes are here", offset=have
            )
        # Nothing is open while input is awaited: a controller that is gone may never send the rest.
        piece = _decoded(data, size - have, digest)
        try:
            failpoint("stage.directory")
            make_directories(self._directory)
            failpoint("stage.open")
            _append(part, have, piece)
            have += len(piece)
            failpoint("stage.appended")
            if have < size:
                return self._state(path, have, complete=False)
            if _sha256(part) != digest:
                failpoint("stage.refuse")
                os.unlink(part)
                failpoint("stage.refused")
                raise InvalidArgument(
                    f"the file that arrived is not {digest}: it changed on the controller, or another task sent it "
                    "too; run the task again"
                )
            failpoint("stage.rename")
            os.replace(part, path)
            failpoint("stage.renamed")
            sync_directory(self._directory)
        except OSError as error:
            what = f"cannot write {self._layers.presented(part)}, {size - have} bytes are still to come"
            raise os_error(error, what) from error
        return self._state(path, have, complete=True)

    def discard(self, digest: str) -> bool:
        """Delete a file and its pieces; whether there was anything."""
        found = False
        for path in (self._path(digest), self._path(digest) + ".part"):
            try:
                failpoint("unstage.delete")
                os.unlink(path)
                failpoint("unstage.deleted")
                found = True
            except FileNotFoundError:
                # Never there, or another task was quicker.
                continue
            except PermissionError:
                # On Windows: another task still reads it, and deletes it after that.
                if os.name != "nt":
                    raise
        return found

    def _state(self, path: str, offset: int, complete: bool) -> Dict[str, Any]:
        return {"path": self._layers.presented(path), "offset": offset, "complete": complete}

    def _path(self, digest: str) -> str:
        if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
            raise InvalidArgument(f"digest {digest!r} is not sha256: and 64 lower-case hexadecimal digits")
        return os.path.join(self._directory, digest[len("sha256:") :])


def _decoded(data: BinaryIO, room: int, digest: str) -> bytes:
    """The bytes that lines of base64 stand for, at most ``room`` and ``MAXIMUM_PIECE`` of them."""
    import base64

    piece = bytearray()
    for line in data:
        try:
            piece += base64.b64decode(line.strip(), validate=True)
        except ValueError as error:
            raise InvalidArgument(f"a line of the file {digest} is not base64: {error}") from None
        if len(piece) > room:
            raise InvalidArgument(f"more bytes than announced arrived for {digest}")
        if len(piece) > MAXIMUM_PIECE:
            raise InvalidArgument(f"a piece of the file {digest} is longer than {MAXIMUM_PIECE} bytes")
    return bytes(piece)


def _append(part: str, have: int, piece: bytes) -> None:
    """Add a piece to a file that has ``have`` bytes, durably; it counts as a whole or not at all."""
    with open(part, "ab", buffering=0) as file:
        try:
            failpoint("stage.append")
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
            failpoint("stage.flush")
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(have)
            raise


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return "sha256:" + digest.hexdigest()
