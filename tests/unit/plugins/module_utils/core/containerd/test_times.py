# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import datetime as dt
import struct
from typing import List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.times import Times, parse_rfc3339
from hypothesis import example, given
from hypothesis import strategies as st

YEAR_1 = dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)

#: The seconds of the years 1 to 9999.
SECONDS = st.integers(0, 3_652_059 * 86400 - 1)


def go_time(seconds: int, nanoseconds: int, offset: int = -1) -> bytes:
    return struct.pack(">bqih", 1, seconds, nanoseconds, offset)


@given(st.lists(SECONDS, min_size=1), st.integers(0, 999_999_999), st.sampled_from([-1, 0, 120, -480]))
@example([0, 3_652_059 * 86400 - 1], 0, -1)
def test_times_in_the_form_of_go(moments: List[int], nanoseconds: int, offset: int) -> None:
    times = Times()
    for seconds in moments:
        expected = (YEAR_1 + dt.timedelta(seconds=seconds)).isoformat()[:19]
        assert times.text(go_time(seconds, nanoseconds, offset)) == f"{expected}.{nanoseconds:09}Z"


def test_a_time_with_seconds_in_its_offset() -> None:
    data = b"\2" + go_time(86400, 6)[1:] + b"\7"
    assert Times().text(data) == "0001-01-02T00:00:00.000000006Z"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"\3" + bytes(14),
        b"\1" + bytes(15),
        b"\1" + b"\x7f" * 14,
        b"\1" + b"\xff" * 14,
        go_time(3_652_059 * 86400, 0),
        go_time(-1, 0),
        go_time(5, 1_000_000_000),
    ],
)
def test_other_bytes_are_not_times(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a time|has 1000000000 nanoseconds"):
        Times().text(data)


@given(st.integers(-(10**16), 10**17), st.sampled_from([0, 120, -570]))
def test_text_is_parsed_as_nanoseconds(microseconds: int, offset: int) -> None:
    moment = EPOCH + dt.timedelta(microseconds=microseconds)
    text = moment.astimezone(dt.timezone(dt.timedelta(minutes=offset))).isoformat()
    assert parse_rfc3339(text) == microseconds * 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.0000000019Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00", None),
        ("1970-01-01 00:00:00Z", None),
        ("1970-02-30T00:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("1970-01-01T24:00:00Z", None),
        ("1970-01-01T00:00:00+24:00", None),
        ("1970-01-01T00:00:00Z\n", None),
        ("", None),
    ],
)
def test_only_rfc3339_is_parsed(text: str, expected: object) -> None:
    assert parse_rfc3339(text) == expected
