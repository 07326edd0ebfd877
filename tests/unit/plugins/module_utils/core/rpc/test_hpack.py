# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test header compression. tests/peers/test_rpc.py compares it with the hpack library."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.rpc import hpack

URL = "https://www.example.com"


def test_the_responses_of_the_standard() -> None:
    """RFC 7541, C.6: Huffman codes, and a dynamic table of 256 bytes from which entries are evicted."""
    third_block = (
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f"
        "3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
    )
    blocks = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        third_block,
    ]
    first = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", URL),
    ]
    third = [
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", URL),
        ("content-encoding", "gzip"),
        ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ]
    decoder = hpack.Decoder()
    assert decoder.decode(bytes.fromhex("3fe101" + blocks[0])) == first
    assert decoder.decode(bytes.fromhex(blocks[1])) == [(":status", "307"), *first[1:]]
    assert decoder.decode(bytes.fromhex(blocks[2])) == third


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("80", "no header has the index 0"),
        ("be", "no header has the index 62"),
        ("ffffffffffff01", "a number in the header block is too large"),
        ("3fe13f", "the table has at most 4096 bytes, not 8192"),
        ("8820", "the size of the table changes after the first header"),
        ("00", "the header block is cut off"),
        ("000561", "the header block is cut off"),
        ("008400000000", "a text ends in the middle of a symbol"),
        ("0084ffffffff00", "a text contains the symbol that ends it"),
        ("0081ff00", "a text ends in the middle of a symbol"),
        ("00810000", "a text ends in the middle of a symbol"),
    ],
)
def test_damaged_blocks_are_refused(block: str, message: str) -> None:
    with pytest.raises(hpack.HpackError, match=message):
        hpack.Decoder().decode(bytes.fromhex(block))


def test_a_small_block_cannot_become_a_large_list() -> None:
    """An index of one byte stands for a header of 4 KB."""
    block = bytes.fromhex("4001617fa11e") + bytes(4000)
    with pytest.raises(hpack.HpackError, match="the header list has more than 65536 bytes"):
        hpack.Decoder().decode(block + b"\xbe" * 20)


def test_the_table_has_a_limit() -> None:
    decoder = hpack.Decoder()
    for _ in range(100):
        decoder.decode(bytes.fromhex("4001617fa11e") + bytes(4000))
    assert decoder._size <= hpack.TABLE_SIZE
