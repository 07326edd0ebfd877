# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the values of containerd's databases."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.bolt import Bucket
from lab.containerd import records


def test_a_time_that_containerd_wrote():
    data = bytes.fromhex("010000000ee29cef7c195e85a8ffff")
    time = records.decode_time(data)
    assert records.encode_time(time) == data
    seconds = dt.datetime(2026, 11, 28, 15, 51, 24, tzinfo=dt.timezone.utc).timestamp()
    assert time == int(seconds) * 10**9 + 425625_000


def test_no_time_is_the_year_1():
    assert records.decode_time(b"") == -62135596800 * 10**9


@given(st.integers(0, 2**64 - 1))
def test_unsigned_numbers(value):
    assert records.decode_uvarint(records.encode_uvarint(value)) == value


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers(value):
    assert records.decode_varint(records.encode_varint(value)) == value


@pytest.mark.parametrize(
    ("value", "data"), [(0, b"\0"), (4, b"\x08"), (-1, b"\x01"), (355, b"\xc6\x05"), (64, b"\x80\x01")]
)
def test_signed_numbers_that_go_wrote(value, data):
    assert records.encode_varint(value) == data


def test_texts_of_labels():
    bucket = Bucket()
    records.write_map(bucket, "labels", {"a": "1", "b": ""})
    assert records.read_map(bucket, "labels") == {"a": "1"}
    records.write_map(bucket, "labels", {})
    assert not bucket.items


def test_a_value_is_not_a_bucket():
    bucket = Bucket({b"a": b"1", b"b": Bucket({b"c": b"2"})})
    assert records.find(bucket, "a") is None
    assert records.find(bucket, "a", "b") is None
    assert records.text(records.find(bucket, "b"), "c") == "2"
    assert records.value(bucket, "b") == b""
    assert records.keys(bucket) == ["a"]
    assert [name for name, _ in records.buckets(bucket)] == ["b"]
    with pytest.raises(TypeError):
        records.make(bucket, "a")
