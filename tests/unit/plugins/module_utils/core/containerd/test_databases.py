# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how records are decoded. tests/peers/test_containerd_store.py compares them with what containerd says."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import databases
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import Damaged, FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Usage
from ansible_collections.wcow.snapshotter.tests.builders.containerd_databases import (
    NAMESPACE,
    TIME,
    TIME_TEXT,
    TIMES,
    Objects,
    Records,
    bucket,
    database,
    metadata,
    store,
    uvarint,
    varint,
)
from hypothesis import example, given
from hypothesis import strategies as st


def state(data: bytes) -> bolt.State:
    return bolt.read_state(lambda offset, length: data[offset : offset + length], seconds=0)


def decode_metadata(data: bytes) -> databases.Metadata:
    return databases.decode_metadata(state(data))


def decode_store(data: bytes) -> databases.Store:
    return databases.decode_store(state(data))


def filled() -> Objects:
    objects = Objects()
    objects.labels = {"team": "a"}
    objects.snapshot("base")
    objects.snapshot("key with blank/ä", "base", {"containerd.io/gc.root": "1", "x": "y" * 4000})
    objects.snapshot("other", snapshotter="native")
    objects.lease("l", {"containerd.io/gc.flat": "1"}, [("windows", "base")], ["sha256:1"], ["img"], ["ref"])
    objects.image("img", "sha256:2", {"io.cri-containerd.image": "managed"})
    objects.container("c", "key with blank/ä", kind="sandbox")
    objects.blob("sha256:2", {"containerd.io/gc.ref.content.config": "sha256:1"})
    objects.ingest("ref", "sha256:3", TIME)
    objects.ingest("old", "")
    objects.sandbox("s", {"a": "b"})
    return objects


def test_all_objects_of_a_namespace_are_read() -> None:
    found = decode_metadata(metadata(k8s=filled(), other=Objects()))
    assert (found.version, found.unknown, list(found.namespaces)) == (4, (), [NAMESPACE, "other"])
    namespace = found.namespaces[NAMESPACE]
    assert namespace.labels == {"team": "a"}
    assert namespace.snapshots == {
        "native": {"other": databases.Entry("k8s.io/1/other", "", {}, (), TIME_TEXT, TIME_TEXT)},
        "windows": {
            "base": databases.Entry("k8s.io/1/base", "", {}, ("key with blank/ä",), TIME_TEXT, TIME_TEXT),
            "key with blank/ä": databases.Entry(
                "k8s.io/2/key with blank/ä",
                "base",
                {"containerd.io/gc.root": "1", "x": "y" * 4000},
                (),
                TIME_TEXT,
                TIME_TEXT,
            ),
        },
    }
    assert namespace.leases == {
        "l": databases.Lease(
            {"containerd.io/gc.flat": "1"}, TIME_TEXT, (("windows", "base"),), ("sha256:1",), ("img",), ("ref",)
        )
    }
    assert namespace.images == {
        "img": databases.Image(
            "sha256:2", "application/json", 700, {"io.cri-containerd.image": "managed"}, TIME_TEXT, TIME_TEXT
        )
    }
    assert namespace.containers == {
        "c": databases.Container("image", "windows", "key with blank/ä", {"kind": "sandbox"}, TIME_TEXT, TIME_TEXT)
    }
    assert namespace.blobs == {
        "sha256:2": databases.Blob(900, {"containerd.io/gc.ref.content.config": "sha256:1"}, TIME_TEXT, TIME_TEXT)
    }
    assert namespace.ingests == {"ref": databases.Ingest("sha256:3", TIME_TEXT), "old": databases.Ingest("", "")}
    assert namespace.sandboxes == {"s": {"a": "b"}}
    assert found.namespaces["other"] == databases.Namespace({}, {}, {}, {}, {}, {}, {}, {})


def test_the_records_of_a_snapshotter_are_read() -> None:
    records = Records()
    records.add("n/1/base", labels={"containerd.io/snapshot.ref": "x"})
    records.add("n/2/active", 2, "n/1/base")
    records.add("n/3/view", 1, "n/1/base", number=300)
    found = decode_store(store(records))
    assert found.records == {
        "n/1/base": databases.Record(
            1, "committed", "", {"containerd.io/snapshot.ref": "x"}, TIME_TEXT, TIME_TEXT, Usage(1000, 0)
        ),
        "n/2/active": databases.Record(2, "active", "n/1/base", {}, TIME_TEXT, TIME_TEXT, None),
        "n/3/view": databases.Record(300, "view", "n/1/base", {}, TIME_TEXT, TIME_TEXT, None),
    }
    assert found.children == {(1, 2): "n/2/active", (1, 300): "n/3/view"}
    assert (found.last_id, found.unknown) == (2, ())


def test_an_empty_database_has_no_records() -> None:
    assert decode_store(database(bucket())) == databases.EMPTY_STORE
    found = decode_metadata(database(bucket()))
    assert (found.version, found.namespaces) == (0, {})
    assert found.unknown


@given(st.dictionaries(st.binary(min_size=1, max_size=9), st.binary(max_size=9), max_size=5))
def test_text_that_is_not_utf_8_stays_different(labels: Dict[bytes, bytes]) -> None:
    fields = {**TIMES, b"name": b"n", b"labels": bucket(labels)}
    snapshots = bucket({b"windows": bucket({b"key": bucket(fields)})})
    data = database(bucket({b"v1": bucket({b"version": varint(4), b"n": bucket({b"snapshots": snapshots})})}))
    found = decode_metadata(data).namespaces["n"].snapshots["windows"]["key"].labels
    assert {
        key.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape") for key, value in found.items()
    } == labels


def test_a_record_without_times_has_the_zero_time() -> None:
    record = bucket({b"id": b"\1", b"kind": b"\2"})
    found = decode_store(database(bucket({b"v1": bucket({b"snapshots": bucket({b"k": record})})})))
    assert found.records["k"][4:6] == (databases.NO_TIME, databases.NO_TIME)


# -- what this collection does not know ---------------------------------------------


@pytest.mark.parametrize("version", [-1, 0, 2, 5, 1 << 40])
def test_other_versions_of_the_schema_are_reported(version: int) -> None:
    found = decode_metadata(metadata(version, k8s=filled()))
    assert found.version == version
    assert found.unknown == (f"the schema has the version {version}, and the known versions are 3 and 4",)
    assert list(found.namespaces) == [NAMESPACE]


def test_other_buckets_and_objects_are_reported() -> None:
    objects = filled()
    objects.others[b"volumes"] = bucket({b"a": b"b"})
    top = {b"v2": bucket(), b"v1": bucket({b"version": varint(4), b"n": objects.bucket(), b"value": b"1"})}
    assert decode_metadata(database(bucket(top))).unknown == (
        "the database has the unknown bucket 'v2'",
        "the namespace 'n' has the unknown objects 'volumes'",
        "the schema has the unknown value 'value'",
    )
    top = {b"v2": bucket(), b"v1": bucket({b"sizes": bucket()})}
    assert decode_store(database(bucket(top))).unknown == (
        "the database has the unknown bucket 'v2'",
        "the database has the unknown objects 'sizes'",
    )


@pytest.mark.parametrize(("version", "expected"), [(3, 0), (4, 1)])
def test_sandboxes_are_beside_the_schema_in_version_3(version: int, expected: int) -> None:
    top = {b"v1": bucket({b"version": varint(version)}), b"k8s.io": bucket({b"sandboxes": bucket({b"s": bucket()})})}
    assert len(decode_metadata(database(bucket(top))).unknown) == expected


def test_other_kinds_of_snapshots_are_reported() -> None:
    records = Records()
    for name, kind in (("a", 4), ("b", 0), ("c", 4), ("d", 2)):
        records.add(name, kind)
    found = decode_store(store(records))
    assert [record.kind for record in found.records.values()] == [
        "unknown kind 4",
        "unknown kind 0",
        "unknown kind 4",
        "active",
    ]
    assert found.unknown == ("2 snapshots have the unknown kind 4", "1 snapshots have the unknown kind 0")


# -- damage -------------------------------------------------------------------------


def with_record(**changes: Optional[Any]) -> bytes:
    fields = {**TIMES, b"id": b"\1", b"kind": b"\3", **{key.encode(): value for key, value in changes.items()}}
    record = bucket({key: value for key, value in fields.items() if value is not None})
    return database(bucket({b"v1": bucket({b"snapshots": bucket({b"key": record})})}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": None}, "the bytes '' are not a number"),
        ({"id": b"\x80"}, "the bytes '80' are not a number"),
        ({"id": b"\xff" * 9 + b"\x02"}, "are not a number"),
        ({"id": b"\x80" * 20 + b"\x01"}, "are not a number"),
        ({"id": b"\1\1"}, "the bytes '0101' are not an id"),
        ({"id": bucket()}, "its id is a bucket"),
        ({"size": b"\1\1"}, "the bytes '0101' are not a number"),
        ({"createdat": b"\1"}, "01 is not a time"),
        ({"parent": bucket()}, "its parent is a bucket"),
        ({"labels": b"text"}, "its labels is a value, not a bucket"),
        ({"labels": bucket({b"a": bucket()})}, "it has a bucket where a text belongs"),
    ],
)
def test_a_damaged_record_is_named(changes: Dict[str, Any], message: str) -> None:
    with pytest.raises(Damaged, match=f"the record of the snapshot 'key' is damaged: .*{message}"):
        decode_store(with_record(**changes))


def test_a_damaged_record_of_a_namespace_is_named() -> None:
    objects = filled()
    objects.images[b"img"][b"createdat"] = b"\7"
    with pytest.raises(
        Damaged, match="the record of the image 'img' in the namespace 'k8s.io' is damaged: 07 is not a"
    ):
        decode_metadata(metadata(k8s=objects))


@pytest.mark.parametrize(
    ("v1", "message"),
    [
        ({b"snapshots": b"1"}, "the database is damaged: 'snapshots' is a value, not a bucket"),
        ({b"snapshots": bucket({b"k": b"1"})}, "the record of the snapshot 'k' is damaged: it is a value"),
        (
            {b"parents": bucket({b"\1": b"n"})},
            "the index of children, key 01 is damaged: the bytes '01' are not a number",
        ),
        (
            {b"parents": bucket({b"\1\1\1": b"n"})},
            "the index of children, key 010101 is damaged: it is not a pair of ids",
        ),
        ({b"parents": bucket({b"\1\0\1": bucket()})}, "the index of children, key 010001 is damaged"),
    ],
)
def test_a_damaged_store_is_an_error(v1: Dict[bytes, Any], message: str) -> None:
    with pytest.raises(Damaged, match=message):
        decode_store(database(bucket({b"v1": bucket(v1)})))


@pytest.mark.parametrize(
    ("v1", "message"),
    [
        ({b"version": bucket()}, "the schema version is damaged: it has a bucket where a number belongs"),
        ({b"version": b"\x80"}, "the schema version is damaged"),
        ({b"n": bucket({b"labels": b"1"})}, "the namespace 'n' is damaged: its labels is a value"),
        ({b"n": bucket({b"content": b"1"})}, "the namespace 'n' is damaged: 'content' is a value"),
    ],
)
def test_damaged_metadata_is_an_error(v1: Dict[bytes, Any], message: str) -> None:
    with pytest.raises(Damaged, match=message):
        decode_metadata(database(bucket({b"v1": bucket(v1)})))


def many() -> Tuple[bytes, bytes]:
    objects, records = filled(), Records()
    for number in range(30):
        objects.snapshot(f"layer-{number}", f"layer-{number - 1}" if number else "", {"number": str(number)})
        records.add(f"k8s.io/{number + 3}/layer-{number}", parent=f"k8s.io/{number + 2}/layer-{number - 1}")
    return metadata(k8s=objects), store(records)


METADATA, STORE = many()


@given(
    st.sampled_from([(METADATA, decode_metadata), (STORE, decode_store)]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0, 4),
)
def test_damaged_bytes_give_an_error_or_values(database: Any, changes: List[Tuple[float, int]], end: float) -> None:
    """Reading ends, and what it returns is not larger than the file."""
    data, decode = database
    damaged = bytearray(data)
    for position, value in changes:
        damaged[int(position * len(damaged))] = value
    if end < 1:
        del damaged[int(end * len(damaged)) :]
    try:
        found = decode(bytes(damaged))
    except FailedPrecondition:
        return
    assert len(repr(found)) < 8 * len(data)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@example(0, 2**64 - 1)
def test_ids_have_the_form_of_go(parent: int, child: int) -> None:
    record = bucket({b"id": uvarint(child), b"kind": b"\2"})
    parents = bucket({uvarint(parent) + b"\0" + uvarint(child): b"k"})
    found = decode_store(database(bucket({b"v1": bucket({b"snapshots": bucket({b"k": record}), b"parents": parents})})))
    assert (found.records["k"].id, found.children) == (child, {(parent, child): "k"})


@given(st.integers(-(2**63), 2**63 - 1))
@example(-(2**63))
@example(2**63 - 1)
def test_sizes_have_the_form_of_go(size: int) -> None:
    found = decode_store(with_record(size=varint(size), inodes=varint(-size - 1)))
    assert found.records["key"].usage == Usage(size, -size - 1)


def test_the_same_text_is_stored_once() -> None:
    records = Records()
    records.add("a", labels={"l" * 50: "1"})
    records.add("b", parent="a", labels={"l" * 50: "2"})
    found = decode_store(store(records)).records
    assert next(key for key in found if key == "a") is found["b"].parent
    assert next(iter(found["a"].labels)) is next(iter(found["b"].labels))


def test_labels_are_read_from_a_bucket_of_many_pages() -> None:
    records = Records()
    labels = {f"label-{number}": "v" * 90 for number in range(500)}
    records.add("a", labels=labels)
    assert decode_store(store(records)).records["a"].labels == labels
