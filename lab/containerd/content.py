# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service Content: blobs, and the ingests that become blobs (core/metadata/content.go, plugins/content/local).

A blob is the file ``blobs/sha256/<hex digits>``. An ingest is the directory ``ingest/<SHA-256 of its reference>``.
Namespaces share blobs: what one of them has, another gets without sending the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.digest import (
    format_digest,
    hex_digits,
    is_digest,
)

from ..bolt import Bucket
from . import calls, messages, records
from .calls import Call
from .store import Store

_PACKAGE = "containerd.services.content.v1"
_Info = messages.message(f"{_PACKAGE}.Info")
_InfoResponse = messages.message(f"{_PACKAGE}.InfoResponse")
_ListResponse = messages.message(f"{_PACKAGE}.ListContentResponse")
_ReadResponse = messages.message(f"{_PACKAGE}.ReadContentResponse")
_Status = messages.message(f"{_PACKAGE}.Status")
_StatusResponse = messages.message(f"{_PACKAGE}.StatusResponse")
_ListStatusesResponse = messages.message(f"{_PACKAGE}.ListStatusesResponse")
_WriteResponse = messages.message(f"{_PACKAGE}.WriteContentResponse")

_STAT, _WRITE, _COMMIT = 0, 1, 2

#: Bytes in one message of Read.
_CHUNK = 1 << 20
#: Nanoseconds after which the collector deletes an ingest without a lease.
_INGEST_LIFE = 24 * 3600 * 1_000_000_000


class OutOfRange(SnapshotterError):
    """An offset is not where the data continues, or is behind the end."""

    code = "out_of_range"


class Content:
    """The calls of the service. A request is one of ``messages``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blobs = store.content / "blobs" / "sha256"
        self._ingests = store.content / "ingest"
        for directory in (self._blobs, self._ingests):
            directory.mkdir(parents=True, exist_ok=True)
        # The ingests that a stream writes now, and since when.
        self._locked: dict[str, float] = {}

    def blob(self, digest: str, call: Call) -> Path:
        """Return the file of a blob that the namespace has."""
        self._find(call, digest)
        return self._blobs / hex_digits(digest)

    def info(self, request: Any, call: Call) -> Any:
        """Return size and labels of a blob."""
        return _InfoResponse(info=_info(request.digest, self._find(call, request.digest)))

    def update(self, request: Any, call: Call) -> Any:
        """Change the labels of a blob."""
        digest = request.info.digest
        paths = request.update_mask.paths or ["labels"]
        calls.check_paths(paths, (), ("labels",), f'content info "{digest}"')
        with self._store.meta.update():
            blob = self._find(call, digest)
            labels = calls.updated_map(records.read_map(blob, "labels"), request.info.labels, "labels", paths)
            calls.check_labels(labels, "info.Labels")
            records.write_map(blob, "labels", labels)
            blob.items[b"updatedat"] = records.encode_time(time.time_ns())
        return _InfoResponse(info=_info(digest, blob))

    def list(self, request: Any, call: Call) -> Iterator[Any]:
        """Return the blobs that the filters match."""
        found = records.find(self._store.meta.root, *call.path("content", "blob"))
        infos = [_info(digest, blob) for digest, blob in records.buckets(found)]
        for batch in calls.batches(calls.matching(infos, request.filters, _fields)):
            yield _ListResponse(info=batch)

    def delete(self, request: Any, call: Call) -> Any:
        """Delete a blob of the namespace. The collector deletes the file when no namespace has it."""
        self._find(call, request.digest)
        with self._store.meta.update() as root:
            del records.make(root, *call.path("content", "blob")).items[request.digest.encode()]
            if call.lease:
                held = records.find(root, *call.path("leases", call.lease, "content"))
                if held is not None:
                    held.items.pop(request.digest.encode(), None)
        self._store.deletions += 1
        self._store.dirty_content = True
        return calls.Empty()

    def read(self, request: Any, call: Call) -> Iterator[Any]:
        """Return a part of a blob; without a size, all that follows the offset."""
        path = self.blob(request.digest, call)
        length = path.stat().st_size
        offset = max(request.offset, 0)
        if offset > length:
            raise OutOfRange(f"read past object length {length} bytes")
        end = min(offset + request.size, length) if request.size > 0 else length
        with path.open("rb") as file:
            file.seek(offset)
            while offset < end:
                data = file.read(min(_CHUNK, end - offset))
                yield _ReadResponse(offset=offset, data=data)
                offset += len(data)

    def status(self, request: Any, call: Call) -> Any:
        """Return how far an ingest is."""
        return _StatusResponse(status=self._status(request.ref, self._ingest(call, request.ref)))

    def list_statuses(self, request: Any, call: Call) -> Any:
        """Return how far the ingests are that the filters match."""
        found = records.find(self._store.meta.root, *call.path("content", "ingests"))
        statuses = [self._status(reference, ingest) for reference, ingest in records.buckets(found)]
        matching = calls.matching(statuses, request.filters, lambda status: {"ref": status.ref})
        return _ListStatusesResponse(statuses=matching)

    def abort(self, request: Any, call: Call) -> Any:
        """Delete an ingest."""
        reference = records.text(self._ingest(call, request.ref), "ref")
        with self._store.meta.update() as root:
            self._forget(root, call, request.ref)
        shutil.rmtree(self._directory(reference), ignore_errors=True)
        return calls.Empty()

    def write(self, requests: Iterator[Any], call: Call) -> Iterator[Any]:
        """Write an ingest, and commit it as a blob. There is one answer for each request, and the last is the commit.

        The stream has the ingest for itself until it ends.
        """
        first = next(requests, None)
        if first is None or not first.ref:
            raise InvalidArgument("first message must have a reference")
        with contextlib.ExitStack() as stack:
            with self._store.lock:
                writer = _Writer(self._begin(first, call), first)
                stack.callback(self._locked.pop, writer.reference, None)
            request = first
            while True:
                with self._store.lock:
                    answer = self._answer(writer, request, call)
                yield answer
                request = next(requests, None)
                if answer.action == _COMMIT or request is None:
                    return

    def _begin(self, request: Any, call: Call) -> Path:
        """Create or open the ingest of a stream. Return its directory."""
        with self._store.meta.update() as root:
            lease = call.leased(root)
            exists = self._has(root, call, request.expected)
            if exists and lease is not None:
                records.make(lease, "content").items[request.expected.encode()] = b""
            if not exists:
                ingest = records.make(root, *call.path("content", "ingests", request.ref))
                if not records.text(ingest, "ref"):
                    number = records.next_sequence(ingest)
                    ingest.items[b"ref"] = f"{call.namespace}/{number}/{request.ref}".encode()
                if lease is not None:
                    records.make(lease, "ingests").items[request.ref.encode()] = b""
                else:
                    ingest.items[b"expireat"] = records.encode_time(time.time_ns() + _INGEST_LIFE)
                reference = records.text(ingest, "ref")
                since = self._locked.get(reference)
                if since is not None:
                    raise Unavailable(f"ref {reference} locked for {time.time() - since:.9f}s: unavailable")
                self._adopt(ingest, self._directory(reference), request)
        if exists:
            raise AlreadyExists(f"content {request.expected}: already exists")
        self._locked[reference] = time.time()
        return self._directory(reference)

    def _adopt(self, ingest: Bucket, directory: Path, request: Any) -> None:
        """Create the directory of an ingest. It gets the data at once if another namespace has the blob."""
        directory.mkdir(exist_ok=True)
        (directory / "ref").write_bytes(records.value(ingest, "ref"))
        (directory / "total").write_text(str(request.total), encoding="ascii")
        data = directory / "data"
        data.touch()
        if is_digest(request.expected):
            shared = self._blobs / hex_digits(request.expected)
            if shared.exists() and request.total in (0, shared.stat().st_size):
                shutil.copyfile(shared, data)
                ingest.items[b"expected"] = request.expected.encode()

    def _answer(self, writer: _Writer, request: Any, call: Call) -> Any:
        if request.expected:
            writer.expected = request.expected
            if self._has(self._store.meta.root, call, request.expected):
                with self._store.meta.update() as root:
                    self._forget(root, call, writer.name)
                shutil.rmtree(writer.directory)
                raise AlreadyExists(f"blob with expected digest {request.expected} exists")
        writer.total = request.total or writer.total
        answer = _WriteResponse(action=request.action, total=writer.total)
        if request.action in (_WRITE, _COMMIT):
            writer.add(request.offset, request.data)
        if request.action == _COMMIT:
            self._commit(writer, request, call)
        answer.offset = writer.offset
        answer.digest = format_digest(writer.sha256)
        calls.set_time(answer.started_at, writer.started)
        calls.set_time(answer.updated_at, time.time_ns())
        return answer

    def _commit(self, writer: _Writer, request: Any, call: Call) -> None:
        digest = format_digest(writer.sha256)
        calls.check_labels(request.labels, "info.Labels")
        if writer.total and writer.total != writer.offset:
            raise FailedPrecondition(
                f'"{writer.name}" failed size validation: {writer.offset} != {writer.total}: failed precondition'
            )
        if writer.expected and writer.expected != digest:
            raise FailedPrecondition(
                f"unexpected commit digest {digest}, expected {writer.expected}: failed precondition"
            )
        # A blob that no entry names is deleted later. An entry whose blob is missing would stay.
        (writer.directory / "data").replace(self._blobs / hex_digits(digest))
        with self._store.meta.update() as root:
            existed = self._has(root, call, digest)
            if not existed:
                blob = records.make(root, *call.path("content", "blob", digest))
                now = time.time_ns()
                records.write_times(blob, now, now)
                records.write_map(blob, "labels", request.labels)
                blob.items[b"size"] = records.encode_varint(writer.offset)
            self._forget(root, call, writer.name)
            lease = call.leased(root)
            if lease is not None:
                records.make(lease, "content").items[digest.encode()] = b""
        shutil.rmtree(writer.directory)
        if existed:
            raise AlreadyExists(f"content {digest}: already exists")

    def _forget(self, root: Bucket, call: Call, name: str) -> None:
        """Delete an ingest from the metadata, and from the lease of the call."""
        for path in (("content", "ingests"), *([("leases", call.lease, "ingests")] if call.lease else [])):
            bucket = records.find(root, *call.path(*path))
            if bucket is not None:
                bucket.items.pop(name.encode(), None)

    @staticmethod
    def _has(root: Bucket, call: Call, digest: str) -> bool:
        return bool(digest) and records.find(root, *call.path("content", "blob", digest)) is not None

    def _find(self, call: Call, digest: str) -> Bucket:
        if not is_digest(digest):
            raise InvalidArgument(f"{digest}: invalid checksum digest format: invalid argument")
        blob = records.find(self._store.meta.root, *call.path("content", "blob", digest))
        if blob is None:
            raise NotFound(f"content digest {digest}: not found")
        return blob

    def _ingest(self, call: Call, reference: str) -> Bucket:
        ingest = records.find(self._store.meta.root, *call.path("content", "ingests", reference))
        if ingest is None:
            raise NotFound(f"reference {reference}: not found")
        return ingest

    def _directory(self, reference: str) -> Path:
        return self._ingests / hashlib.sha256(reference.encode()).hexdigest()

    def _status(self, name: str, ingest: Bucket) -> Any:
        status = _Status(ref=name, expected=records.text(ingest, "expected"))
        directory = self._directory(records.text(ingest, "ref"))
        if directory.exists():
            status.total = int((directory / "total").read_text(encoding="ascii"))
            found = (directory / "data").stat()
            status.offset = found.st_size
            calls.set_time(status.started_at, found.st_mtime_ns)
            calls.set_time(status.updated_at, found.st_mtime_ns)
        return status


class _Writer:
    """The ingest that a stream writes: what it has so far, and what the client expects in the end."""

    def __init__(self, directory: Path, request: Any) -> None:
        self.name: str = request.ref
        self.directory = directory
        self.reference = (directory / "ref").read_text(encoding="utf-8")
        self.expected: str = request.expected
        self.total: int = request.total
        self.started = time.time_ns()
        data = (directory / "data").read_bytes()
        self.offset = len(data)
        self.sha256 = hashlib.sha256(data)

    def add(self, offset: int, data: bytes) -> None:
        """Append data. Offset 0 starts again. Raises OutOfRange for another offset than the present one."""
        if offset not in (0, self.offset):
            raise OutOfRange(f"write @{offset} must occur at current offset {self.offset}")
        if not offset and self.offset:
            (self.directory / "data").write_bytes(b"")
            self.offset = 0
            self.sha256 = hashlib.sha256()
        with (self.directory / "data").open("ab") as file:
            file.write(data)
        self.offset += len(data)
        self.sha256.update(data)


def _info(digest: str, blob: Bucket) -> Any:
    info = _Info(digest=digest, labels=records.read_map(blob, "labels"))
    info.size = records.decode_varint(records.value(blob, "size"))
    created, updated = records.read_times(blob)
    calls.set_time(info.created_at, created)
    calls.set_time(info.updated_at, updated)
    return info


def _fields(info: Any) -> dict[str, Any]:
    return {"digest": info.digest, "labels": dict(info.labels)}
