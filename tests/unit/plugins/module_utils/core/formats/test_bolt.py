# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the reader of bbolt databases. tests/peers/test_bbolt.py compares it with bbolt itself."""

from __future__ import annotations

import struct
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import pytest
from ansible_collections.wcow.snapshotter.lab.bolt import Bucket, database
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt
from hypothesis import example, given
from hypothesis import strategies as st

KEYS = st.binary(min_size=1, max_size=40)
TREES = st.recursive(
    st.builds(Bucket, st.dictionaries(KEYS, st.binary(max_size=3000), max_size=12), st.integers(0, 2**64 - 1)),
    lambda inner: st.builds(
        Bucket, st.dictionaries(KEYS, st.one_of(inner, st.binary(max_size=40)), max_size=60), st.integers(0, 9)
    ),
    max_leaves=30,
)
PAGE_SIZES = st.sampled_from([1024, 4096, 65536])

SMALL = Bucket({b"v1": Bucket({b"a": b"1", b"b": Bucket({b"c": b"2"}, 7)}, 3)})
LARGE = Bucket({b"v1": Bucket({b"%05d" % number: bytes(60) for number in range(1000)})})


def reader(data: bytes) -> bolt.Read:
    return lambda offset, length: data[offset : offset + length]


def contents(bucket: bolt.Bucket) -> Dict[bytes, Any]:
    """Return a bucket as nested dictionaries, without recursion: key to value, or to (sequence, dictionary)."""
    result: Dict[bytes, Any] = {}
    waiting: List[Tuple[bolt.Bucket, Dict[bytes, Any]]] = [(bucket, result)]
    while waiting:
        source, target = waiting.pop()
        for key, value in source.items():
            target[key] = value
            if isinstance(value, bolt.Bucket):
                inner: Dict[bytes, Any] = {}
                target[key] = (value.sequence, inner)
                waiting.append((value, inner))
    return result


def expected(bucket: Bucket) -> Dict[bytes, Any]:
    def value_of(value: Union[bytes, Bucket]) -> Any:
        return (value.sequence, expected(value)) if isinstance(value, Bucket) else value

    return {key: value_of(value) for key, value in sorted(bucket.items.items())}


@given(TREES, PAGE_SIZES)
@example(SMALL, 1024)
@example(LARGE, 1024)
@example(LARGE, 32 * 1024 * 1024)
@example(Bucket({b"large": Bucket({b"value": bytes(10**6)})}), 4096)
def test_all_items_are_read(tree: Bucket, page_size: int) -> None:
    state = bolt.read_state(reader(database(tree, page_size)))
    found = contents(state.root)
    assert found == expected(tree)
    assert list(found) == sorted(found)
    assert contents(state.root) == found


@pytest.mark.parametrize("torn", [0, 1])
@pytest.mark.parametrize("page_size", [1024, 4096, 16384])
def test_one_valid_meta_page_is_enough(torn: int, page_size: int) -> None:
    data = bytearray(database(SMALL, page_size, transaction=8))
    data[torn * page_size + 40] ^= 1
    state = bolt.read_state(reader(bytes(data)))
    assert state.meta.transaction == (7 if torn == 0 else 8)
    assert contents(state.root) == expected(SMALL)


@pytest.mark.parametrize("transaction", [4, 5])
def test_the_newer_meta_page_counts(transaction: int) -> None:
    data = database(SMALL, transaction=transaction)
    assert bolt.newest_meta(reader(data)).transaction == transaction


class Writer:
    """A file that changes: after each read of pages, the next of these versions is there."""

    def __init__(self, *versions: bytes) -> None:
        self.versions = list(versions)
        self.reads = 0

    def read(self, offset: int, length: int) -> bytes:
        data = self.versions[0][offset : offset + length]
        if length > 100:
            self.reads += 1
            if len(self.versions) > 1:
                del self.versions[0]
        return data


def test_a_state_that_changed_is_read_again() -> None:
    trees = [Bucket({b"v1": Bucket({b"n": b"%d" % number})}) for number in range(3)]
    writer = Writer(*(database(tree, transaction=number + 5) for number, tree in enumerate(trees)))
    state = bolt.read_state(writer.read)
    assert writer.reads == 3
    assert contents(state.root) == expected(trees[2])


def test_a_writer_without_pauses_is_reported() -> None:
    writer = Writer(*(database(SMALL, transaction=number) for number in range(5, 500)))
    with pytest.raises(Unavailable, match=r"changed during each attempt to read it, for 0\.001 seconds"):
        bolt.read_state(writer.read, seconds=0.001)


def test_a_commit_between_two_pieces_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The piece with the commit is the last one of its attempt."""
    monkeypatch.setattr(bolt, "_PIECE", 8192)
    trees = [Bucket({b"v1": Bucket({b"%d" % number: bytes(3000) for number in range(50 + more)})}) for more in (0, 1)]
    versions = [database(tree, transaction=number + 5) for number, tree in enumerate(trees)]
    writer = Writer(versions[0], versions[0], versions[1])
    state = bolt.read_state(writer.read)
    assert contents(state.root) == expected(trees[1])
    assert writer.reads == 2 + -(-len(versions[1]) // 8192)


def test_a_state_takes_little_memory() -> None:
    records = {b"%05d" % number: Bucket({b"id": b"1", b"labels": Bucket({b"a": b"b"})}) for number in range(200)}
    data = database(Bucket({b"v1": Bucket(records)}))
    state = bolt.read_state(reader(data))
    assert contents(state.root) == expected(Bucket({b"v1": Bucket(records)}))
    assert sum(map(len, state.pages)) < len(data) / 10


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0" * 8192, bytes(8192)], ids=["empty", "SQLite", "zeros"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="not a bbolt database of version 2"):
        bolt.read_state(reader(data))


def test_a_truncated_file_is_damaged() -> None:
    with pytest.raises(FailedPrecondition, match="damaged: the file has 8192 bytes, and its pages need"):
        bolt.read_state(reader(database(SMALL)[:8192]))


def test_a_state_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bolt, "MAX_SIZE", 8192)
    with pytest.raises(FailedPrecondition, match="databases of up to 8192 bytes are read"):
        bolt.read_state(reader(database(SMALL)))


def changed(tree: Bucket, find: Callable[[bytes], int], form: str, *values: int) -> bytes:
    data = bytearray(database(tree, 1024))
    struct.pack_into(form, data, find(bytes(data)), *values)
    return bytes(data)


def page_with(flags: int, skip: int = 0) -> Callable[[bytes], int]:
    """Find a page with these flags. Skip the first ``skip`` ones."""

    def find(data: bytes) -> int:
        found = [
            at for at in range(2048, len(data), 1024) if struct.unpack_from("<QH", data, at) == (at // 1024, flags)
        ]
        return found[skip]

    return find


def plus(find: Callable[[bytes], int], distance: int) -> Callable[[bytes], int]:
    return lambda data: find(data) + distance


LEAF, BRANCH = page_with(2), page_with(1)


@pytest.mark.parametrize(
    ("find", "form", "value", "message"),
    [
        (LEAF, "<Q", 77, "page 3 has the id 77"),
        (plus(LEAF, 8), "<H", 16, "page 3 has the flags 0x10"),
        (plus(LEAF, 10), "<H", 60000, "60000 elements do not fit"),
        (plus(LEAF, 12), "<I", 60000, "page 3 has 60000 overflow pages"),
        (plus(LEAF, 16), "<I", 2, "the element at offset 3088 does not fit"),
        (plus(LEAF, 20), "<I", 3, "the element at offset 3088 does not fit"),
        (plus(LEAF, 24), "<I", 0, "the element at offset 3088 does not fit"),
        (plus(LEAF, 24), "<I", 1 << 31, "the element at offset 3088 does not fit"),
        (plus(LEAF, 28), "<I", 0xFFFFFFFF, "the element at offset 3088 does not fit"),
        (plus(BRANCH, 10), "<H", 0, "branch page .* has 0 elements"),
        (plus(BRANCH, 10), "<H", 0xFFFF, "branch page .* has 65535 elements"),
        (plus(BRANCH, 24), "<Q", 0, "page 0 is not one of the pages 2 to"),
        (plus(BRANCH, 24), "<Q", 1 << 60, "page 1152921504606846976 is not one of the pages"),
        (plus(BRANCH, 24), "<Q", 4, "two branches lead to page 4|key .* comes after key"),
    ],
)
def test_structural_damage_is_an_error(find: Callable[[bytes], int], form: str, value: int, message: str) -> None:
    data = changed(LARGE, find, form, value)
    with pytest.raises(FailedPrecondition, match=f"the database is damaged: ({message})"):
        contents(bolt.read_state(reader(data)).root)


def test_a_bucket_that_leads_to_itself_is_an_error() -> None:
    """Without the rule that a page has one bucket, the depth has no limit."""
    data = bytearray(database(Bucket({b"v1": Bucket({b"a": Bucket({b"b": Bucket({b"c": b"1"})})})}), 1024))
    root = bolt.newest_meta(reader(bytes(data))).root
    value = data.index(b"v1", root * 1024) + 2
    struct.pack_into("<Q", data, value, root)
    with pytest.raises(FailedPrecondition, match="belongs to two buckets"):
        contents(bolt.read_state(reader(bytes(data))).root)


@given(
    st.lists(st.tuples(st.integers(0, 20 * 1024 - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(0, 20 * 1024)),
)
def test_damaged_bytes_give_an_error_or_values(changes: List[Tuple[int, int]], end: Optional[int]) -> None:
    """Reading ends, and what it returns is not larger than the file."""
    tree = Bucket({b"v%d" % number: Bucket({b"x": SMALL, b"y": bytes(300), b"z": b"4"}) for number in range(9)})
    data = bytearray(database(tree, 1024))
    for position, value in changes:
        # Without the meta pages: most changes there leave no valid one.
        data[1104 + position % (len(data) - 1104)] = value
    data = data[:end]
    try:
        found = contents(bolt.read_state(reader(bytes(data)), seconds=0).root)
    except (FailedPrecondition, Unavailable):
        return
    assert len(repr(found)) < 8 * len(data)
