# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put an image into containerd through its API: blobs, snapshots, records.

The order is that of containerd's own import (core/transfer/local/import.go): blobs first, what names others after
them, then the snapshots, and the record of the image last. What is there at any moment before is held by a lease.
A record of an image is therefore never without its content.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Dict, Mapping, NamedTuple, Sequence, Tuple

from ..errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
)
from ..failpoint import failpoint
from ..files import os_error
from ..formats.imagepackage import Package, Part
from ..labels import SNAPSHOT_REF
from ..model import COMMITTED
from .client import CONTENT_PIECE, Client, ContentWriter, Descriptor, Image, Resource
from .snapshots import SNAPSHOTTER_PLUGIN

#: CRI sets this label on the records that it knows. A record without it is new to CRI, which then adds the record
#: ``sha256:<image id>`` and the label (internal/cri/server/images/image_pull.go, UpdateImage).
MANAGED_LABEL = "io.cri-containerd.image"

#: kubelet's garbage collection skips an image if one of its records has this label with this value.
PINNED_LABEL = "io.cri-containerd.pinned"
PINNED = "pinned"

#: The collector goes from a manifest to its parts, and from a configuration to the topmost snapshot, along these.
CONTENT_REFERENCE = "containerd.io/gc.ref.content."
_SNAPSHOT_REFERENCE = "containerd.io/gc.ref.snapshot."
#: The diff id of a layer, so that containerd need not decompress it to know that.
_UNCOMPRESSED = "containerd.io/uncompressed"

#: Seconds for one blob: a share can be slow, and a base layer has gigabytes.
WRITE_TIMEOUT = 4 * 3600.0

#: Seconds to wait while another task writes the same blob.
_LOCK_SECONDS = 60.0
_LOCK_POLL = 0.5

#: Attempts to find a key that no other snapshot has.
_ATTEMPTS = 3


class Link(NamedTuple):
    """One snapshot of an image: its name, which is a chain id, its parent, and the diff id of its layer."""

    name: str
    parent: str
    diff_id: str


def manifest_labels(package: Package) -> Dict[str, str]:
    """Return the labels of a manifest: what it needs (core/images/mediatypes.go, ChildGCLabels)."""
    layers = {f"{CONTENT_REFERENCE}l.{number}": part.digest for number, part in enumerate(package.layers)}
    return {f"{CONTENT_REFERENCE}config": package.config.digest, **layers}


def config_labels(snapshotter: str, chain_id: str) -> Dict[str, str]:
    """Return the label of a configuration: the topmost snapshot of the image (core/unpack/unpacker.go)."""
    return {_SNAPSHOT_REFERENCE + snapshotter: chain_id}


def descriptor_of(part: Part) -> Descriptor:
    """Return the descriptor of a blob."""
    return Descriptor(part.media_type, part.digest, part.size)


def require_snapshotter(client: Client, snapshotter: str) -> None:
    """Raise FailedPrecondition unless containerd has loaded the snapshotter."""
    problems = {plugin.id: plugin.problem for plugin in client.plugins(f"type=={SNAPSHOTTER_PLUGIN}")}
    if problems.get(snapshotter) == "":
        return
    loaded = ", ".join(sorted(name for name, problem in problems.items() if not problem)) or "none"
    cause = f"it could not start ({problems[snapshotter]})" if snapshotter in problems else "there is no such plugin"
    raise FailedPrecondition(
        f"containerd has not loaded the snapshotter {snapshotter}: {cause}. It has loaded: {loaded}. Set the option "
        "snapshotter to one of them, or see the log of containerd",
        snapshotter=snapshotter,
    )


# -- content ---------------------------------------------------------------------


def ref_of(digest: str) -> str:
    """Return the name under which a blob is written: the same in each run, so that the next one resumes it."""
    return f"wcow-{digest}"


def open_writer(client: Client, part: Part) -> ContentWriter:
    """Start or resume the writing of a blob, and wait while another task writes it.

    Raises AlreadyExists if the namespace has the blob, Unavailable if the other task takes too long.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return client.write_blob(ref_of(part.digest), part.size, part.digest, WRITE_TIMEOUT)
        except Unavailable as error:
            if "locked" not in error.message:
                raise
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another task has been writing {part.digest} for too long; run the task again", digest=part.digest
                ) from None
        time.sleep(_LOCK_POLL)


def write_part(client: Client, part: Part, labels: Mapping[str, str]) -> bool:
    """Write a blob from its file. Return False if the namespace has it already.

    A blob of which a part was written before is resumed. Raises InvalidArgument if the bytes do not have the digest,
    and as ``Part.require``.
    """
    part.require()
    is_resumed = True
    while is_resumed:
        try:
            writer = open_writer(client, part)
        except AlreadyExists:
            return False
        try:
            with writer:
                is_resumed = writer.offset > 0
                failpoint("image.write")
                _copy(writer, part)
                failpoint("image.commit")
                writer.commit(labels)
            return True
        except AlreadyExists:
            return False
        except FailedPrecondition:
            # The bytes are not those of the digest. The first of them can be from an earlier file.
            forget_ingest(client, part.digest)
    raise InvalidArgument(
        f"{part.name} does not have the digest {part.digest}: the archive is damaged, get it again", digest=part.digest
    )


def forget_ingest(client: Client, digest: str) -> None:
    """Delete what was written of a blob. containerd deletes it later if that fails."""
    with contextlib.suppress(SnapshotterError):
        client.abort_ingest(ref_of(digest))


def _copy(writer: ContentWriter, part: Part) -> None:
    try:
        with part.open() as source:
            source.seek(writer.offset)
            while writer.offset < part.size:
                piece = source.read(min(CONTENT_PIECE, part.size - writer.offset))
                if not piece:
                    raise InvalidArgument(f"{part.name} is cut off at byte {writer.offset}: get the archive again")
                writer.write(piece)
                failpoint("image.piece")
    except OSError as error:
        raise os_error(error, f"cannot read {part.name}") from error


def add_labels(client: Client, digest: str, labels: Mapping[str, str]) -> None:
    """Add labels to a blob. Raises Unavailable if it is gone."""
    try:
        client.update_blob(digest, labels, [f"labels.{key}" for key in labels])
    except NotFound:
        raise Unavailable(f"{digest} was removed by another task; run the task again", digest=digest) from None


def has_blob(client: Client, digest: str) -> bool:
    """Return whether the namespace has a blob."""
    try:
        client.blob(digest)
    except NotFound:
        return False
    return True


def hold(client: Client, lease: str, resource: Resource) -> None:
    """Let the lease hold something that exists. It may be gone: then the task creates it again, or fails later."""
    with contextlib.suppress(NotFound):
        client.add_to_lease(lease, resource)


# -- snapshots -------------------------------------------------------------------


def unpack(client: Client, snapshotter: str, link: Link, layer: Part) -> bool:
    """Unpack a layer, whose blob containerd has, into the snapshot of its chain id. Return False if that exists.

    Raises InvalidArgument if the layer does not have its diff id. A failure leaves no snapshot.
    """
    if _exists(client, snapshotter, link):
        return False
    labels = {SNAPSHOT_REF: link.name}
    for attempt in range(1, _ATTEMPTS + 1):
        key = f"extract-{time.time_ns()}-{os.urandom(3).hex()} {link.name}"
        try:
            mounts = client.prepare(snapshotter, key, link.parent, labels)
            break
        except AlreadyExists:
            # The snapshotter has the layer, another client unpacked it, or the key is taken.
            if _exists(client, snapshotter, link):
                return False
            if attempt == _ATTEMPTS:
                raise
    try:
        failpoint("image.apply")
        applied = client.apply(descriptor_of(layer), mounts)
        if applied.digest != link.diff_id:
            raise InvalidArgument(
                f"{layer.name} has the diff id {applied.digest}: the archive is damaged, get it again",
                digest=applied.digest,
            )
        failpoint("image.unpacked")
        client.commit(snapshotter, link.name, key, labels)
    except AlreadyExists:
        _discard(client, snapshotter, key)
        return False
    except SnapshotterError as error:
        _discard(client, snapshotter, key)
        raise error if isinstance(error, InvalidArgument) else error.with_context(layer.name) from None
    if layer.digest != link.diff_id:
        add_labels(client, layer.digest, {_UNCOMPRESSED: link.diff_id})
    return True


def _exists(client: Client, snapshotter: str, link: Link) -> bool:
    """Return whether the snapshot exists. The lease of the client then holds it. Raises as ``check_link``."""
    try:
        info = client.stat(snapshotter, link.name)
    except NotFound:
        return False
    check_link(link, info.kind, info.parent)
    hold(client, client.connection.lease, Resource(link.name, f"snapshots/{snapshotter}"))
    return True


def check_link(link: Link, kind: str, parent: str) -> None:
    """Raise AlreadyExists for a snapshot that has the name of a layer and is something else."""
    if kind != COMMITTED or parent != link.parent:
        raise AlreadyExists(
            f'"{link.name}" is not a layer of this image: it is {kind} with parent "{parent}", not committed with '
            f'parent "{link.parent}"; remove it first',
            name=link.name,
        )


def _discard(client: Client, snapshotter: str, key: str) -> None:
    """Remove the snapshot of a layer that could not be unpacked. If that fails, the collector removes it later."""
    with contextlib.suppress(SnapshotterError):
        client.remove_snapshot(snapshotter, key)


# -- records ---------------------------------------------------------------------


def set_record(client: Client, name: str, target: Descriptor, labels: Mapping[str, str]) -> None:
    """Create or change the record of an image. A label with an empty value is removed.

    A record that gets another target loses the label ``MANAGED_LABEL``: CRI then reads it as a new one.
    """
    failpoint("image.record")
    given = {key: value for key, value in labels.items() if value}
    try:
        found = client.image(name)
    except NotFound:
        try:
            client.create_image(name, target, given)
            return
        except AlreadyExists:
            # Another task was faster, or kubelet pulls the image now.
            found = client.image(name)
    changes = {key: value for key, value in labels.items() if found.labels.get(key, "") != value}
    paths = []
    if found.target.digest != target.digest:
        paths.append("target")
        if MANAGED_LABEL in found.labels:
            changes[MANAGED_LABEL] = ""
    paths += [f"labels.{key}" for key in changes]
    if paths:
        client.update_image(Image(name, changes, target), paths)


def remove_records(client: Client, names: Sequence[str]) -> Tuple[str, ...]:
    """Remove records of images, and wait until containerd has collected garbage. Return those that existed."""
    removed = []
    for name in names:
        failpoint("image.remove")
        try:
            client.delete_image(name)
        except NotFound:
            continue
        removed.append(name)
    if removed:
        client.collect_garbage()
    return tuple(removed)
