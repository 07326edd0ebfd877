# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decode the records of containerd's databases.

``meta.db`` has what containerd knows in each namespace: snapshots by snapshotter, leases, images, containers, content
(core/metadata/buckets.go). ``metadata.db`` has the records of one snapshotter (core/snapshots/storage/bolt.go). The
``name`` of a snapshot in the first is its key in the second.

Text that is not UTF-8 is decoded with surrogates, so different bytes stay different. Times are RFC 3339 in UTC with
nine decimals. Lists and mappings have the order of the database, which is the order of bytes.

A later version of containerd can store what this module does not know. Both ``unknown`` lists have a sentence for
each such thing. A caller that finds one may show records, but must not repair anything.
"""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar, Union

from ..errors import Damaged
from ..formats import bolt
from ..model import ACTIVE, COMMITTED, VIEW, Usage
from .times import Times

#: The versions of meta.db's schema that this module knows: containerd 1.6 and 1.7, and 2.x (migrations.go).
KNOWN_VERSIONS = (3, 4)

#: The time of a record that has none: the zero value of Go.
NO_TIME = "0001-01-01T00:00:00.000000000Z"

# core/snapshots/snapshotter.go; a byte in metadata.db.
_KINDS = {b"\x01": VIEW, b"\x02": ACTIVE, b"\x03": COMMITTED}

# What a namespace can have in meta.db. Namespaces have had "indexes" reserved since the first version.
_OBJECTS = (b"labels", b"snapshots", b"leases", b"images", b"containers", b"content", b"sandboxes", b"indexes")

_Value = Union[bytes, bolt.Bucket]
_Fields = Dict[bytes, _Value]
_Item = TypeVar("_Item")


class Entry(NamedTuple):
    """A snapshot in meta.db. ``name`` is its key in metadata.db: ``<namespace>/<number>/<key>``.

    ``parent`` is the key of the parent in the same namespace and snapshotter, ``""`` without one. ``children`` are the
    keys in containerd's own list of children, which can name snapshots that do not exist any more.
    """

    name: str
    parent: str
    labels: Dict[str, str]
    children: Tuple[str, ...]
    created: str
    updated: str


class Lease(NamedTuple):
    """A lease and its resources: pairs of snapshotter and key, digests, names of images, references of ingests."""

    labels: Dict[str, str]
    created: str
    snapshots: Tuple[Tuple[str, str], ...]
    content: Tuple[str, ...]
    images: Tuple[str, ...]
    ingests: Tuple[str, ...]


class Image(NamedTuple):
    """An image: the ``digest``, media type and ``size`` in bytes of its target, which is a manifest or an index."""

    digest: str
    media_type: str
    size: int
    labels: Dict[str, str]
    created: str
    updated: str


class Container(NamedTuple):
    """A container. ``snapshotter`` and ``snapshot_key`` are ``""`` if it has no snapshot."""

    image: str
    snapshotter: str
    snapshot_key: str
    labels: Dict[str, str]
    created: str
    updated: str


class Blob(NamedTuple):
    """A blob of the content store, with its ``size`` in bytes."""

    size: int
    labels: Dict[str, str]
    created: str
    updated: str


class Ingest(NamedTuple):
    """A blob that is being written. ``expected`` is its digest, and the garbage collector keeps it until ``expires``.

    Both are ``""`` if containerd does not know them.
    """

    expected: str
    expires: str


class Namespace(NamedTuple):
    """The records of one namespace. ``snapshots`` has the snapshots of each snapshotter by key.

    ``sandboxes`` has only the labels of each sandbox.
    """

    labels: Dict[str, str]
    snapshots: Dict[str, Dict[str, Entry]]
    leases: Dict[str, Lease]
    images: Dict[str, Image]
    containers: Dict[str, Container]
    blobs: Dict[str, Blob]
    ingests: Dict[str, Ingest]
    sandboxes: Dict[str, Dict[str, str]]


class Metadata(NamedTuple):
    """The records of meta.db. ``version`` is that of the schema, 0 without one."""

    version: int
    namespaces: Dict[str, Namespace]
    unknown: Tuple[str, ...]


class Record(NamedTuple):
    """A snapshot in metadata.db. ``parent`` is a key there. ``usage`` is None unless the snapshot is committed.

    ``kind`` is one of ``model.KINDS``, or a text such as ``unknown kind 4``.
    """

    id: int
    kind: str
    parent: str
    labels: Dict[str, str]
    created: str
    updated: str
    usage: Optional[Usage]


class Store(NamedTuple):
    """The records of metadata.db by key.

    ``children`` is the index of children: the key of a child by the ids of its parent and of itself. ``last_id`` is
    the last id that was given to a snapshot.
    """

    records: Dict[str, Record]
    children: Dict[Tuple[int, int], str]
    last_id: int
    unknown: Tuple[str, ...]


#: What a snapshotter has before its first snapshot.
EMPTY_STORE = Store({}, {}, 0, ())


def decode_metadata(state: bolt.State) -> Metadata:
    """Return the records of meta.db. Raises Damaged."""
    unknown = []
    top = dict(state.root.items())
    v1 = _bucket(top, b"v1", "the database")
    fields = dict(v1.items()) if v1 is not None else {}
    with_version = fields.pop(b"version", None)
    version = 0 if with_version is None else _checked("the schema version", _varint, with_version)
    if version not in KNOWN_VERSIONS:
        known = " and ".join(map(str, KNOWN_VERSIONS))
        unknown.append(f"the schema has the version {version}, and the known versions are {known}")
    for key, value in top.items():
        # Version 3 has sandboxes beside v1.
        if key != b"v1" and not (version == 3 and _has_only_sandboxes(value)):
            unknown.append(f"the database has the unknown bucket {_text(key)!r}")
    decoder = _Decoder()
    namespaces = {}
    for key, value in fields.items():
        name = _text(key)
        if isinstance(value, bytes):
            unknown.append(f"the schema has the unknown value {name!r}")
            continue
        objects = dict(value.items())
        strange = [_text(other) for other in objects if other not in _OBJECTS]
        unknown.extend(f"the namespace {name!r} has the unknown objects {other!r}" for other in strange)
        namespaces[name] = decoder.namespace(name, objects)
    return Metadata(version, namespaces, tuple(unknown))


def decode_store(state: bolt.State) -> Store:
    """Return the records of metadata.db. Raises Damaged."""
    top = dict(state.root.items())
    unknown = [f"the database has the unknown bucket {_text(key)!r}" for key in top if key != b"v1"]
    v1 = _bucket(top, b"v1", "the database")
    fields = dict(v1.items()) if v1 is not None else {}
    strange = [_text(key) for key in fields if key not in (b"snapshots", b"parents")]
    unknown.extend(f"the database has the unknown objects {key!r}" for key in strange)
    snapshots = _bucket(fields, b"snapshots", "the database")
    decoder = _Decoder()
    records = decoder.all(snapshots, "snapshot", decoder.record)
    kinds: Dict[str, int] = {}
    for record in records.values():
        if record.kind not in _KINDS.values():
            kinds[record.kind] = kinds.get(record.kind, 0) + 1
    unknown.extend(f"{count} snapshots have the {kind}" for kind, count in kinds.items())
    children = {}
    parents = _bucket(fields, b"parents", "the database")
    for key, value in parents.items() if parents is not None else ():
        where = f"the index of children, key {key.hex()}"
        children[_checked(where, _pair, key)] = _checked(where, _text_value, value)
    return Store(records, children, snapshots.sequence if snapshots is not None else 0, tuple(unknown))


class _Decoder:
    """Decodes the records of one database."""

    def __init__(self) -> None:
        self._times = Times()
        # Keys of labels, and names of snapshots, which their children repeat.
        self._texts: Dict[bytes, str] = {}

    def all(
        self, bucket: Optional[bolt.Bucket], what: str, decode: Callable[[_Fields], _Item], where: str = ""
    ) -> Dict[str, _Item]:
        """Decode each record of a bucket. ``what`` and ``where`` name the record for messages."""
        found = {}
        for key, value in bucket.items() if bucket is not None else ():
            try:
                if isinstance(value, bytes):
                    raise ValueError("it is a value, and a record is a bucket")
                found[self._shared(key)] = decode(dict(value.items()))
            except ValueError as error:
                raise Damaged(f"the record of the {what} {_text(key)!r}{where} is damaged: {error}") from None
        return found

    def namespace(self, name: str, objects: _Fields) -> Namespace:
        where = f" in the namespace {name!r}"
        snapshots = {}
        subject = f"the namespace {name!r}"
        for key, value in _items(_bucket(objects, b"snapshots", subject)):
            if isinstance(value, bolt.Bucket):
                snapshots[_text(key)] = self.all(value, "snapshot", self._entry, where)
        content = _bucket(objects, b"content", subject)
        stored = dict(content.items()) if content is not None else {}
        try:
            labels = self._labels(objects)
        except ValueError as error:
            raise Damaged(f"{subject} is damaged: {error}") from None
        return Namespace(
            labels,
            snapshots,
            self.all(_bucket(objects, b"leases", subject), "lease", self._lease, where),
            self.all(_bucket(objects, b"images", subject), "image", self._image, where),
            self.all(_bucket(objects, b"containers", subject), "container", self._container, where),
            self.all(_bucket(stored, b"blob", subject), "blob", self._blob, where),
            self.all(_bucket(stored, b"ingests", subject), "ingest", self._ingest, where),
            self.all(_bucket(objects, b"sandboxes", subject), "sandbox", self._labels, where),
        )

    def record(self, fields: _Fields) -> Record:
        kind = _bytes(fields, b"kind")
        usage = None
        if b"size" in fields or b"inodes" in fields:
            usage = Usage(_number(fields, b"size"), _number(fields, b"inodes"))
        created, updated = self._created_and_updated(fields)
        number = _bytes(fields, b"id")
        identity, end = _uvarint(number, 0)
        if end != len(number):
            raise ValueError(f"the bytes '{number.hex()}' are not an id")
        return Record(
            identity,
            _KINDS.get(kind) or f"unknown kind {int.from_bytes(kind, 'big')}",
            self._shared(_bytes(fields, b"parent")),
            self._labels(fields),
            created,
            updated,
            usage,
        )

    def _entry(self, fields: _Fields) -> Entry:
        created, updated = self._created_and_updated(fields)
        children: Tuple[str, ...] = ()
        if b"children" in fields:
            children = tuple([self._shared(key) for key, _value in _field_items(fields, b"children")])
        return Entry(
            _text(_bytes(fields, b"name")),
            self._shared(_bytes(fields, b"parent")),
            self._labels(fields),
            children,
            created,
            updated,
        )

    def _lease(self, fields: _Fields) -> Lease:
        snapshots: List[Tuple[str, str]] = []
        for snapshotter, keys in _field_items(fields, b"snapshots"):
            if isinstance(keys, bolt.Bucket):
                snapshots.extend((self._shared(snapshotter), self._shared(key)) for key, _value in keys.items())
        return Lease(
            self._labels(fields),
            self._created_and_updated(fields)[0],
            tuple(snapshots),
            tuple([_text(key) for key, _value in _field_items(fields, b"content")]),
            tuple([_text(key) for key, _value in _field_items(fields, b"images")]),
            tuple([_text(key) for key, _value in _field_items(fields, b"ingests")]),
        )

    def _image(self, fields: _Fields) -> Image:
        target = dict(_field_items(fields, b"target"))
        return Image(
            _text(_bytes(target, b"digest")),
            self._shared(_bytes(target, b"mediatype")),
            _number(target, b"size"),
            self._labels(fields),
            *self._created_and_updated(fields),
        )

    def _container(self, fields: _Fields) -> Container:
        return Container(
            self._shared(_bytes(fields, b"image")),
            self._shared(_bytes(fields, b"snapshotter")),
            _text(_bytes(fields, b"snapshotKey")),
            self._labels(fields),
            *self._created_and_updated(fields),
        )

    def _blob(self, fields: _Fields) -> Blob:
        return Blob(_number(fields, b"size"), self._labels(fields), *self._created_and_updated(fields))

    def _ingest(self, fields: _Fields) -> Ingest:
        expires = _bytes(fields, b"expireat")
        return Ingest(_text(_bytes(fields, b"expected")), self._times.text(expires) if expires else "")

    def _labels(self, fields: _Fields) -> Dict[str, str]:
        if b"labels" not in fields:
            return {}
        labels = {}
        for key, value in _field_items(fields, b"labels"):
            labels[self._shared(key)] = _text_value(value)
        return labels

    def _created_and_updated(self, fields: _Fields) -> Tuple[str, str]:
        created = _bytes(fields, b"createdat")
        updated = _bytes(fields, b"updatedat")
        first = self._times.text(created) if created else NO_TIME
        if updated == created:
            return first, first
        return first, self._times.text(updated) if updated else NO_TIME

    def _shared(self, data: bytes) -> str:
        """Return a text that several records have, always as the same object."""
        text = self._texts.get(data)
        if text is None:
            text = self._texts[data] = _text(data)
        return text


# -- values ------------------------------------------------------------------------
# These functions raise ValueError for a damaged value. The message continues "... is damaged: ".


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _text_value(value: _Value) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    raise ValueError("it has a bucket where a text belongs")


def _bytes(fields: _Fields, key: bytes) -> bytes:
    """Return a value, empty if there is none."""
    value = fields.get(key, b"")
    if isinstance(value, bytes):
        return value
    raise ValueError(f"its {_text(key)} is a bucket")


def _number(fields: _Fields, key: bytes) -> int:
    """Return a signed number, 0 if there is none."""
    data = _bytes(fields, key)
    return _varint(data) if data else 0


def _uvarint(data: bytes, at: int) -> Tuple[int, int]:
    """Return an unsigned number in the form of Go's encoding/binary, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at + shift // 7 >= len(data):
            break
        byte = data[at + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and value < 1 << 64:
            return value, at + shift // 7 + 1
    raise ValueError(f"the bytes '{data.hex()}' are not a number")


def _varint(value: _Value) -> int:
    """Return a signed number: the lowest bit of the unsigned one is the sign."""
    if not isinstance(value, bytes):
        raise ValueError("it has a bucket where a number belongs")
    number, end = _uvarint(value, 0)
    if end != len(value):
        raise ValueError(f"the bytes '{value.hex()}' are not a number")
    return ~(number >> 1) if number & 1 else number >> 1


def _pair(key: bytes) -> Tuple[int, int]:
    """Return the ids of a parent and of a child, which have a zero byte between them."""
    parent, middle = _uvarint(key, 0)
    child, end = _uvarint(key, middle + 1)
    if end != len(key) or key[middle]:
        raise ValueError("it is not a pair of ids")
    return parent, child


def _field_items(fields: _Fields, key: bytes) -> Iterator[Tuple[bytes, _Value]]:
    value = fields.get(key)
    if isinstance(value, bytes):
        raise ValueError(f"its {_text(key)} is a value, not a bucket")
    return _items(value)


def _items(bucket: Optional[bolt.Bucket]) -> Iterator[Tuple[bytes, _Value]]:
    return bucket.items() if bucket is not None else iter(())


def _checked(where: str, decode: Callable[..., _Item], value: _Value) -> _Item:
    try:
        return decode(value)
    except ValueError as error:
        raise Damaged(f"{where} is damaged: {error}") from None


def _bucket(fields: _Fields, key: bytes, where: str) -> Optional[bolt.Bucket]:
    """Return an inner bucket, or None if there is none."""
    value = fields.get(key)
    if isinstance(value, bytes):
        raise Damaged(f"{where} is damaged: {_text(key)!r} is a value, not a bucket")
    return value


def _has_only_sandboxes(value: _Value) -> bool:
    return isinstance(value, bolt.Bucket) and all(key == b"sandboxes" for key, _value in value.items())
