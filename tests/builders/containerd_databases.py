# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build containerd's databases as bytes, and a root directory around them.

The writer of bbolt files is as simple as the format allows: each bucket has one leaf page, with overflow pages where
it is large. bbolt reads that as well.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

PAGE = 4096
NAMESPACE = "k8s.io"
SNAPSHOTTER = "windows"

#: 2026-11-28T15:51:24.425625000Z in Go's binary form, and as text.
TIME = bytes.fromhex("010000000ee29cef7c195e85a8ffff")
TIME_TEXT = "2026-11-28T15:51:24.425625000Z"
TIMES: Dict[bytes, Union[bytes, Bucket]] = {b"createdat": TIME, b"updatedat": TIME}


class Bucket(Dict[bytes, Any]):
    """The items of a bucket: values, or buckets. ``sequence`` is its counter."""

    sequence = 0


def bucket(items: Optional[Dict[bytes, Any]] = None, sequence: int = 0) -> Bucket:
    made = Bucket(items or {})
    made.sequence = sequence
    return made


# -- bbolt -----------------------------------------------------------------------


def database(root: Bucket, transaction: int = 2) -> bytes:
    """Return a database with these top-level buckets, and with this newest transaction."""
    pages: List[bytes] = []
    top = _add(root, pages)
    metas = [_meta(number, top, 2 + len(pages), transaction - (transaction + number) % 2) for number in (0, 1)]
    return b"".join([*metas, *pages])


def _meta(number: int, root: int, pages: int, transaction: int) -> bytes:
    data = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 2**64 - 1, pages, transaction)
    checksum = 0xCBF29CE484222325
    for byte in data:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    return (struct.pack("<QHHI", number, 4, 0, 0) + data + struct.pack("<Q", checksum)).ljust(PAGE, b"\0")


def _add(items: Bucket, pages: List[bytes]) -> int:
    """Add the page of a bucket. Return its number."""
    leaf = _leaf(items, pages)
    number = 2 + len(pages)
    overflow = (15 + len(leaf)) // PAGE
    data = (struct.pack("<QHHI", number, 2, len(items), overflow) + leaf).ljust((overflow + 1) * PAGE, b"\0")
    pages.extend(data[at : at + PAGE] for at in range(0, len(data), PAGE))
    return number


def _leaf(items: Bucket, pages: List[bytes]) -> bytes:
    elements, data = b"", b""
    for index, (key, value) in enumerate(sorted(items.items())):
        content = _value(value, pages) if isinstance(value, Bucket) else value
        distance = (len(items) - index) * 16 + len(data)
        elements += struct.pack("<IIII", isinstance(value, Bucket), distance, len(key), len(content))
        data += key + content
    return elements + data


def _value(items: Bucket, pages: List[bytes]) -> bytes:
    """Return the value of an inner bucket. A small one without buckets in it is inline."""
    if not any(isinstance(value, Bucket) for value in items.values()):
        page = struct.pack("<QHHI", 0, 2, len(items), 0) + _leaf(items, pages)
        if len(page) <= PAGE // 4:
            return struct.pack("<QQ", 0, items.sequence) + page
    return struct.pack("<QQ", _add(items, pages), items.sequence)


# -- values ----------------------------------------------------------------------


def uvarint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def varint(value: int) -> bytes:
    return uvarint(value << 1 if value >= 0 else ~value << 1 | 1)


def texts(values: Dict[str, str]) -> Bucket:
    return bucket({_bytes(key): _bytes(value) for key, value in values.items()})


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _without_empty(items: Dict[bytes, Any]) -> Bucket:
    return bucket({key: value for key, value in items.items() if value or key in (b"children", b"name")})


# -- containerd ------------------------------------------------------------------


class Objects:
    """A namespace of meta.db that is being filled."""

    def __init__(self) -> None:
        self.snapshots: Dict[str, Bucket] = {}
        self.leases = bucket()
        self.images = bucket()
        self.containers = bucket()
        self.blobs = bucket()
        self.ingests = bucket()
        self.sandboxes = bucket()
        self.labels: Dict[str, str] = {}
        self.others = bucket()

    def snapshot(
        self,
        key: str,
        parent: str = "",
        labels: Optional[Dict[str, str]] = None,
        name: Optional[str] = None,
        snapshotter: str = SNAPSHOTTER,
    ) -> None:
        entries = self.snapshots.setdefault(snapshotter, bucket())
        entries.sequence += 1
        backend = f"{NAMESPACE}/{entries.sequence}/{key}" if name is None else name
        entries[_bytes(key)] = _without_empty(
            {**TIMES, b"name": _bytes(backend), b"parent": _bytes(parent), b"labels": texts(labels or {})}
        )
        if parent and _bytes(parent) in entries:
            entries[_bytes(parent)].setdefault(b"children", bucket())[_bytes(key)] = b""

    def lease(
        self,
        name: str,
        labels: Optional[Dict[str, str]] = None,
        snapshots: Sequence[Tuple[str, str]] = (),
        content: Sequence[str] = (),
        images: Sequence[str] = (),
        ingests: Sequence[str] = (),
    ) -> None:
        inner = bucket()
        for snapshotter, key in snapshots:
            inner.setdefault(_bytes(snapshotter), bucket())[_bytes(key)] = b""
        self.leases[_bytes(name)] = _without_empty(
            {
                b"createdat": TIME,
                b"labels": texts(labels or {}),
                b"snapshots": inner,
                b"content": texts(dict.fromkeys(content, "")),
                b"images": texts(dict.fromkeys(images, "")),
                b"ingests": texts(dict.fromkeys(ingests, "")),
            }
        )

    def image(self, name: str, digest: str, labels: Optional[Dict[str, str]] = None) -> None:
        target = bucket({b"digest": _bytes(digest), b"mediatype": b"application/json", b"size": varint(700)})
        self.images[_bytes(name)] = _without_empty({**TIMES, b"target": target, b"labels": texts(labels or {})})

    def container(self, name: str, key: str, snapshotter: str = SNAPSHOTTER, **labels: str) -> None:
        self.containers[_bytes(name)] = _without_empty(
            {
                **TIMES,
                b"image": b"image",
                b"snapshotter": _bytes(snapshotter),
                b"snapshotKey": _bytes(key),
                b"labels": texts(labels),
            }
        )

    def blob(self, digest: str, labels: Optional[Dict[str, str]] = None) -> None:
        self.blobs[_bytes(digest)] = _without_empty({**TIMES, b"size": varint(900), b"labels": texts(labels or {})})

    def ingest(self, reference: str, expected: str, expires: bytes = b"") -> None:
        self.ingests[_bytes(reference)] = _without_empty(
            {b"ref": b"1", b"expected": _bytes(expected), b"expireat": expires}
        )

    def sandbox(self, name: str, labels: Dict[str, str]) -> None:
        self.sandboxes[_bytes(name)] = _without_empty({**TIMES, b"labels": texts(labels)})

    def bucket(self) -> Bucket:
        return _without_empty(
            {
                b"labels": texts(self.labels),
                b"snapshots": bucket({_bytes(name): entries for name, entries in self.snapshots.items()}),
                b"leases": self.leases,
                b"images": self.images,
                b"containers": self.containers,
                b"content": _without_empty({b"blob": self.blobs, b"ingests": self.ingests}),
                b"sandboxes": self.sandboxes,
                **self.others,
            }
        )


class Records:
    """The records of metadata.db that are being filled."""

    def __init__(self) -> None:
        self.snapshots = bucket()
        self.parents = bucket()
        self._ids: Dict[str, int] = {}

    def add(
        self,
        name: str,
        kind: int = 3,
        parent: str = "",
        labels: Optional[Dict[str, str]] = None,
        number: Optional[int] = None,
    ) -> None:
        if number is None:
            self.snapshots.sequence += 1
            number = self.snapshots.sequence
        self._ids[name] = number
        fields = {**TIMES, b"id": uvarint(number), b"kind": bytes([kind]), b"parent": _bytes(parent)}
        if kind == 3:
            fields.update({b"size": varint(1000 * number), b"inodes": varint(0)})
        self.snapshots[_bytes(name)] = _without_empty({**fields, b"labels": texts(labels or {})})
        if parent in self._ids:
            self.parents[uvarint(self._ids[parent]) + b"\0" + uvarint(number)] = _bytes(name)


def metadata(version: int = 4, transaction: int = 2, **namespaces: Objects) -> bytes:
    """Return meta.db. The name ``k8s`` stands for ``NAMESPACE``."""
    names = {_bytes({"k8s": NAMESPACE}.get(name, name)): objects.bucket() for name, objects in namespaces.items()}
    return database(bucket({b"v1": bucket({b"version": varint(version), **names})}), transaction)


def store(records: Records, transaction: int = 2) -> bytes:
    """Return metadata.db."""
    v1 = bucket({b"snapshots": records.snapshots, b"parents": records.parents})
    return database(bucket({b"v1": v1}), transaction)


def write_root(root: str, meta: Optional[bytes], records: Optional[bytes], directories: Sequence[str] = ()) -> None:
    """Write a root directory of containerd."""
    for path, data in (
        (os.path.join(root, "io.containerd.metadata.v1.bolt", "meta.db"), meta),
        (os.path.join(root, f"io.containerd.snapshotter.v1.{SNAPSHOTTER}", "metadata.db"), records),
    ):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if data is not None:
            with open(path, "wb") as file:
                file.write(data)
    for name in directories:
        os.makedirs(os.path.join(root, f"io.containerd.snapshotter.v1.{SNAPSHOTTER}", "snapshots", name))
