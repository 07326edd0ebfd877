# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test protobuf messages. tests/peers/test_rpc.py compares them with the protobuf library."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc.protobuf import (
    INTEGER,
    TEXT,
    TEXT_MAP,
    DecodeError,
    Field,
    decode,
    encode,
)

INNER = {"seconds": Field(1, INTEGER)}
SCHEMA = {"name": Field(1, TEXT), "time": Field(2, INNER), "labels": Field(3, TEXT_MAP)}


def test_the_example_of_the_documentation() -> None:
    """protobuf.dev, Encoding: field 1 with the number 150, field 2 with a text."""
    assert encode({"a": Field(1, INTEGER)}, {"a": 150}) == bytes.fromhex("089601")
    assert encode({"b": Field(2, TEXT)}, {"b": "testing"}) == bytes.fromhex("120774657374696e67")


def test_what_is_not_there_has_its_default() -> None:
    assert decode(SCHEMA, b"") == {"name": "", "time": None, "labels": {}}
    assert encode(SCHEMA, {"name": "", "labels": {}}) == b""
    assert decode(SCHEMA, encode(SCHEMA, {"time": {}})) == {"name": "", "time": {"seconds": 0}, "labels": {}}


def test_a_message_in_its_encoded_form() -> None:
    for inner in ({"seconds": 5}, {}):
        message = {"name": "n", "time": inner, "labels": {}}
        assert encode(SCHEMA, {**message, "time": encode(INNER, inner)}) == encode(SCHEMA, message)


def test_other_fields_are_skipped() -> None:
    others = {"a": Field(9, INTEGER), "b": Field(10, TEXT)}
    data = encode(others, {"a": -1, "b": "x"}) + bytes.fromhex("5d00000000" + "590000000000000000")
    assert decode(SCHEMA, data + encode(SCHEMA, {"name": "n"}))["name"] == "n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("0a", "a number is cut off"),
        ("0a0561", "field 1 is cut off"),
        ("0affffffffffffffffff01", "field 1 is cut off"),
        ("0800", "field name has the wire type 0 instead of 2"),
        ("0b", "field 1 has the wire type 3"),
        ("0a01ff", "field name is not UTF-8"),
        ("02", "a field has the number 0"),
        ("8080808010", "a field has the number 536870912"),
        ("ffffffffffffffffffff01", "has more than 10 bytes"),
        ("12020aff", "field 1 is cut off|a number is cut off"),
        ("1a020800", "field key has the wire type 0 instead of 2"),
    ],
)
def test_damaged_messages_are_refused(data: str, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        decode(SCHEMA, bytes.fromhex(data))
