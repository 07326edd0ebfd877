# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Receive blobs from the controller, in pieces, into containerd's content store.

A blob that is not complete is an ingest of containerd, which a later run continues. A lease of its own holds the blob
until the image has a record, or for a day.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any, BinaryIO, Dict, Optional

from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from ..failpoint import failpoint
from ..formats.digest import hex_digits, is_digest
from ..formats.imagepackage import Part
from ..outcome import Outcome
from ..staging import decode_piece
from .client import CONTENT_PIECE, LEASE_SECONDS, Client, Resource
from .images import forget_ingest, has_blob, hold, open_writer, ref_of
from .node import ContainerdNode


def lease_of(digest: str) -> str:
    """Return the id of the lease that holds a blob from the controller."""
    return f"wcow-upload-{hex_digits(digest)}"


def stage(
    node: ContainerdNode, digest: str, size: int, offset: Optional[int] = None, data: Optional[BinaryIO] = None
) -> Outcome:
    """Receive a piece of a blob, as ``staging.stage`` does for our own store; ``offset`` None only asks.

    Raises InvalidArgument for a piece that does not follow, and for a blob with another digest, which is deleted.
    """
    if not is_digest(digest):
        raise InvalidArgument(f"digest {digest!r} is not sha256: and 64 lower-case hexadecimal digits")
    if node.dry_run:
        offset = None
    namespace = node.namespace or node.one_namespace(node.read(may_be_unused=True))
    with node.connect(namespace) as client:
        if offset is None:
            return Outcome(False, _received(client, digest, size))
        # Neither a lock nor the lease is held during the wait for input.
        piece = decode_piece(data or io.BytesIO(), size - offset, digest)
        _take_lease(client, digest)
        result = _receive(client, Part("", digest, size, digest), offset, piece)
        node.warnings.extend(client.warnings)
    return Outcome(True, result)


def _received(client: Client, digest: str, size: int) -> Dict[str, Any]:
    """Return how much of a blob is here."""
    if has_blob(client, digest):
        return _state(size, complete=True)
    try:
        have = client.ingest(ref_of(digest)).offset
    except NotFound:
        have = 0
    # All of it can be here, and the task was killed before it made it a blob: the last byte comes once more.
    return _state(min(have, max(0, size - 1)), complete=False)


def _take_lease(client: Client, digest: str) -> None:
    lease = lease_of(digest)
    with contextlib.suppress(AlreadyExists):
        client.create_lease(lease, seconds=LEASE_SECONDS)
    client.connection.lease = lease


def _receive(client: Client, part: Part, offset: int, piece: bytes) -> Dict[str, Any]:
    try:
        writer = open_writer(client, part)
    except AlreadyExists:
        hold(client, client.connection.lease, Resource(part.digest, "content"))
        return _state(part.size, complete=True)
    try:
        with writer:
            have = writer.offset
            if offset > have:
                raise InvalidArgument(
                    f"piece at byte {offset} of {part.digest} does not follow: {have} bytes are here", offset=have
                )
            # Another task can have sent the same bytes since this one asked.
            rest = memoryview(piece)[have - offset :]
            failpoint("stage.write")
            while rest:
                writer.write(bytes(rest[:CONTENT_PIECE]))
                rest = rest[CONTENT_PIECE:]
            if writer.offset < part.size:
                return _state(writer.offset, complete=False)
            failpoint("stage.commit")
            writer.commit()
    except AlreadyExists:
        hold(client, client.connection.lease, Resource(part.digest, "content"))
    except FailedPrecondition:
        forget_ingest(client, part.digest)
        raise InvalidArgument(
            f"the file that arrived is not {part.digest}: it changed on the controller, or another task sent it too; "
            "run the task again",
            digest=part.digest,
        ) from None
    return _state(part.size, complete=True)


def _state(offset: int, complete: bool) -> Dict[str, Any]:
    return {"offset": offset, "complete": complete}
