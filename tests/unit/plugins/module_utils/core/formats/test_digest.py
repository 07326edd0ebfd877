# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the text form of digests."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import digest

# From FIPS 180-2, B.1.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_digest_of_bytes() -> None:
    assert digest.digest_of(b"abc") == digest.format_digest(hashlib.sha256(b"abc")) == f"sha256:{ABC}"
    assert digest.is_digest(digest.digest_of(b"abc"))
    assert digest.hex_digits(f"sha256:{ABC}") == ABC


@pytest.mark.parametrize(
    "text", ["", ABC, f"sha256:{ABC.upper()}", f"sha256:{ABC}0", f"sha256:{ABC}\n", f"sha512:{ABC}", f" sha256:{ABC}"]
)
def test_other_texts(text: str) -> None:
    assert not digest.is_digest(text)


@pytest.mark.parametrize(
    "text", [f"sha256:{ABC}", ABC, ABC.upper(), f"sha256:{ABC.upper()}", f"SHA256:{ABC.upper()}", f" {ABC}\r\n"]
)
def test_how_people_write_digests(text: str) -> None:
    """Get-FileHash prints upper case without a prefix."""
    assert digest.parse_digest(text, "digest") == f"sha256:{ABC}"


@pytest.mark.parametrize(
    "text",
    [f"sha512:{ABC}", f"sha256:{ABC}0", ABC[1:], f"sha256: {ABC}", f"\u017fha256:{ABC}", "x" * 64, "sha256:", ""],
)
def test_what_is_not_a_digest(text: str) -> None:
    with pytest.raises(InvalidArgument, match="chain_id '.*' is not sha256: and 64 hexadecimal digits"):
        digest.parse_digest(text, "chain_id")
