# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that the controller sends, in pieces.

A file is identified by its digest. WinRM limits what one command may receive
(50 MB by default), so a large file takes several calls. The received pieces
stay in ``<root>/incoming``, and a later run continues there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, Optional

from .directories import Directories
from .errors import InvalidArgument, NotFound, Unavailable
from .failpoint import failpoint
from .files import make_directories, only_files, os_error, sync_directory
from .formats.digest import format_digest, hex_digits, is_digest
from .layers import protection
from .layers.base import LayerStore
from .outcome import Outcome

if TYPE_CHECKING:
    from .store import OwnSnapshots

#: Bytes read at a time.
CHUNK = 1 << 20

#: The longest piece, bytes. A piece is in memory until it is complete.
MAXIMUM_PIECE = 64 << 20


def stage(
    store: OwnSnapshots, digest: str, size: int, offset: Optional[int] = None, data: Optional[BinaryIO] = None
) -> Outcome:
    """Receive a piece of a file from ``data``, or (no offset, or a dry run) only return how much of it is here."""
    if store.dry_run:
        offset = None
    if offset is None:
        store.store.refuse_containerd()
    else:
        # The first write into an absent or empty root creates the store, protected.
        store.store.create()
    received = Staging(store.root, store.layers).receive(digest, size, offset, data or io.BytesIO())
    return Outcome(offset is not None, received)


def unstage(store: OwnSnapshots, digest: str) -> Outcome:
    """Delete a file and its pieces."""
    store.store.refuse_containerd()
    store.store.refuse_unsafe()
    return Outcome(not store.dry_run and Staging(store.root, store.layers).discard(digest), {})


class Staging:
    """The incoming files of one store. ``root`` is a native path."""

    def __init__(self, root: str, layers: LayerStore) -> None:
        self._directories = Directories(root, layers)
        self._directory = self._directories.incoming
        self._layers = layers

    def require(self, digest: str) -> None:
        """Raise NotFound if the file has not been received as a whole."""
        if not _is_file(self._path(digest)):
            raise _not_received(digest)

    @contextlib.contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        """Open the complete file for reading, after its content was verified through the same handle.

        A name is not a proof: another program can have put a file there.
        Raises NotFound if the file has not been received as a whole. A file
        with other content is deleted, so that the next run sends it again.
        """
        self.require(digest)
        path = self._path(digest)
        try:
            file = open(path, "rb", opener=only_files)
        except FileNotFoundError:
            # Another task that needed it has just deleted it.
            raise _not_received(digest) from None
        with file:
            verified = _digest_of(file) == digest
            if verified:
                file.seek(0)
                yield file
        if not verified:
            self._delete(path)
            raise NotFound(
                f"the file that was staged as {digest} has other content and was deleted; run the task again",
                digest=digest,
            )

    def receive(self, digest: str, size: int, offset: Optional[int], data: BinaryIO) -> Dict[str, Any]:
        """Append a piece at ``offset``, or (None) only return how much has been received.

        ``data`` is lines of base64. Returns the final ``path`` of the file, the
        number of bytes received so far as ``offset``, and whether the file is
        ``complete``: all of it has been received and its SHA-256 is ``digest``.
        Raises InvalidArgument for a piece that does not follow, or for a file
        with another digest (which is deleted), Unavailable on a full volume.
        """
        path = self._path(digest)
        part = path + ".part"
        # The pieces first: a task that completes the file renames them to it.
        have = _size(part)
        if _is_file(path):
            return self._state(path, size, complete=True)
        if offset is None:
            return self._state(path, have, complete=False)
        if offset > have:
            raise InvalidArgument(
                f"piece at byte {offset} of {digest} does not follow: {have} bytes are here", offset=have
            )
        # Neither a file nor a lock is held during the wait for input: a controller that is gone never sends the rest.
        piece = decode_piece(data, size - offset, digest)
        try:
            failpoint("stage.directory")
            make_directories(self._directory)
        except OSError as error:
            raise os_error(error, f"cannot create {self._layers.display_path(self._directory)}") from error
        lock = self._directories.lock_upload(hex_digits(digest))
        if lock is None:
            raise Unavailable(f"another task has been writing {digest} for too long; run the task again", digest=digest)
        try:
            return self._store(path, digest, size, offset, piece)
        finally:
            lock.release()

    def _store(self, path: str, digest: str, size: int, offset: int, piece: bytes) -> Dict[str, Any]:
        """Append a piece under the lock of its file; another task can have sent the same bytes since the check."""
        part = path + ".part"
        if _is_file(path):
            return self._state(path, size, complete=True)
        for other in (path, part):
            if os.path.lexists(other) and not _is_file(other):
                # Another account put it there, perhaps a link: nothing is written through it.
                self._delete(other)
        have = _size(part)
        if offset > have or _read(part, offset, len(piece)) != piece[: have - offset]:
            raise Unavailable(
                f"another task sends other bytes as {digest}, or has started again; run the task again", digest=digest
            )
        piece = piece[have - offset :]
        try:
            failpoint("stage.open")
            _append(part, have, piece)
            have += len(piece)
            failpoint("stage.appended")
            if have < size:
                return self._state(path, have, complete=False)
            with open(part, "rb", opener=only_files) as file:
                received = _digest_of(file)
            if received != digest:
                failpoint("stage.refuse")
                self._delete(part)
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
            what = f"cannot write {self._layers.display_path(part)}, {size - have} bytes are still to come"
            raise os_error(error, what) from error
        return self._state(path, have, complete=True)

    def discard(self, digest: str) -> bool:
        """Delete a file and its pieces; whether there were any."""
        found = False
        for path in (self._path(digest), self._path(digest) + ".part"):
            try:
                failpoint("unstage.delete")
                self._delete(path)
                failpoint("unstage.deleted")
                found = True
            except FileNotFoundError:
                # It did not exist, or another task deleted it first.
                continue
            except PermissionError:
                # On Windows: another task is reading it, and deletes it afterwards.
                if os.name != "nt":
                    raise
        return found

    def _state(self, path: str, offset: int, complete: bool) -> Dict[str, Any]:
        return {"path": self._layers.display_path(path), "offset": offset, "complete": complete}

    @staticmethod
    def _delete(path: str) -> None:
        from .layers import filetree

        filetree.unlink(path)

    def _path(self, digest: str) -> str:
        self._directories.refuse_link(self._directory)
        if not is_digest(digest):
            raise InvalidArgument(f"digest {digest!r} is not sha256: and 64 lower-case hexadecimal digits")
        return os.path.join(self._directory, hex_digits(digest))


def _not_received(digest: str) -> NotFound:
    return NotFound(f"the file {digest} has not been received; run the task again", digest=digest)


def decode_piece(data: BinaryIO, maximum: int, digest: str) -> bytes:
    """The bytes that lines of base64 stand for, at most ``maximum`` and at most ``MAXIMUM_PIECE``."""
    import base64

    piece = bytearray()
    for line in data:
        try:
            piece += base64.b64decode(line.strip(), validate=True)
        except ValueError as error:
            raise InvalidArgument(f"a line of the file {digest} is not base64: {error}") from None
        if len(piece) > maximum:
            raise InvalidArgument(f"more bytes than announced arrived for {digest}")
        if len(piece) > MAXIMUM_PIECE:
            raise InvalidArgument(f"a piece of the file {digest} is longer than {MAXIMUM_PIECE} bytes")
    return bytes(piece)


def _append(part: str, have: int, piece: bytes) -> None:
    """Append a piece to a file of ``have`` bytes and flush it; on an error, the file keeps its ``have`` bytes."""
    with open(part, "ab", buffering=0, opener=only_files) as file:
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


def _digest_of(file: BinaryIO) -> str:
    sha256 = hashlib.sha256()
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
    return format_digest(sha256)


def _is_file(path: str) -> bool:
    """Return True for a regular file of the store. A link, another name of a file or a device can lead anywhere."""
    return _file_size(path) is not None


def _size(path: str) -> int:
    return _file_size(path) or 0


def _file_size(path: str) -> Optional[int]:
    """Return the size of a regular file of the store, None for anything else, all from one look.

    Another task can rename or delete the file at any time.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return None
    is_own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and not protection.fault(path)
    return status.st_size if is_own else None


def _read(path: str, offset: int, length: int) -> bytes:
    """Return the bytes that a file has from ``offset`` on, at most ``length``; none if there is no file."""
    if not _is_file(path):
        return b""
    with open(path, "rb", opener=only_files) as file:
        file.seek(offset)
        return file.read(length)
