# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values and buckets of containerd's databases (metadata/boltutil, snapshots/storage/bolt.go).

Times are nanoseconds since the epoch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from ..bolt import Bucket

# Go's binary form of a time: version, seconds since the year 1, nanoseconds, minutes of the offset (-1 is UTC).
_TIME = struct.Struct(">bqih")
_YEAR_1 = 62135596800
_SECOND = 1_000_000_000


def encode_time(time: int) -> bytes:
    """Return a time in Go's binary form."""
    seconds, nanoseconds = divmod(time, _SECOND)
    return _TIME.pack(1, seconds + _YEAR_1, nanoseconds, -1)


def decode_time(data: bytes) -> int:
    """Return the time that Go's binary form has; the year 1 for no data."""
    if not data:
        return -_YEAR_1 * _SECOND
    _version, seconds, nanoseconds, _offset = _TIME.unpack(data)
    return (int(seconds) - _YEAR_1) * _SECOND + int(nanoseconds)


def encode_uvarint(value: int) -> bytes:
    """Return a number from 0 to 2^64 - 1 in groups of seven bits, the lowest group first."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def decode_uvarint(data: bytes) -> int:
    """Return the first number of the data; 0 for no data."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            break
    return value


def encode_varint(value: int) -> bytes:
    """Return a signed number, whose sign is the lowest bit."""
    return encode_uvarint(value << 1 if value >= 0 else ~(value << 1))


def decode_varint(data: bytes) -> int:
    """Return the signed number; 0 for no data."""
    value = decode_uvarint(data)
    return ~(value >> 1) if value & 1 else value >> 1


def find(bucket: Bucket, *path: str) -> Bucket | None:
    """Return the bucket at a path; None if there is none."""
    found: Bucket | None = bucket
    for name in path:
        inner = found.items.get(name.encode()) if found else None
        found = inner if isinstance(inner, Bucket) else None
    return found


def make(bucket: Bucket, *path: str) -> Bucket:
    """Return the bucket at a path. It and those above it are created if they do not exist."""
    for name in path:
        inner = bucket.items.setdefault(name.encode(), Bucket())
        if not isinstance(inner, Bucket):
            raise TypeError(f"{name} is a value, not a bucket")
        bucket = inner
    return bucket


def buckets(bucket: Bucket | None) -> Iterator[tuple[str, Bucket]]:
    """Iterate over the buckets inside a bucket, in the order of their names. The bucket can change meanwhile."""
    for name, inner in sorted(bucket.items.items()) if bucket else ():
        if isinstance(inner, Bucket):
            yield name.decode(), inner


def keys(bucket: Bucket | None) -> list[str]:
    """Return the keys of the values in a bucket, in order."""
    return sorted(key.decode() for key, value in bucket.items.items() if isinstance(value, bytes)) if bucket else []


def value(bucket: Bucket, key: str) -> bytes:
    """Return the value of a key; no bytes if there is none."""
    found = bucket.items.get(key.encode(), b"")
    return found if isinstance(found, bytes) else b""


def text(bucket: Bucket, key: str) -> str:
    """Return the value of a key as text; "" if there is none."""
    return value(bucket, key).decode()


def read_map(bucket: Bucket, name: str) -> dict[str, str]:
    """Return the texts in the bucket ``name``, such as ``labels``."""
    inner = find(bucket, name)
    return {key: text(inner, key) for key in keys(inner)} if inner else {}


def write_map(bucket: Bucket, name: str, texts: Mapping[str, str]) -> None:
    """Replace the texts in the bucket ``name``. An empty text deletes its key."""
    bucket.items.pop(name.encode(), None)
    if texts:
        make(bucket, name).items.update({key.encode(): text.encode() for key, text in texts.items() if text})


def next_sequence(bucket: Bucket) -> int:
    """Increment and return the counter of a bucket."""
    bucket.sequence += 1
    return bucket.sequence


def write_times(bucket: Bucket, created: int, updated: int) -> None:
    """Write both times of a record."""
    bucket.items[b"createdat"] = encode_time(created)
    bucket.items[b"updatedat"] = encode_time(updated)


def read_times(bucket: Bucket) -> tuple[int, int]:
    """Return when a record was created and updated."""
    return decode_time(value(bucket, "createdat")), decode_time(value(bucket, "updatedat"))
