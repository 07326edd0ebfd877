# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test reparse points: the bytes of links, and damaged data."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import reparse
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_symbolic_link_by_hand():
    """The bytes of a relative link to "ab", written by hand from the figure in MS-FSCC 2.1.2.4."""
    data = bytes.fromhex("0c0000a0 1800 0000 0000 0400 0600 0400 01000000 61006200 0000 61006200 0000")
    assert reparse.encode(reparse.Link("ab", False)) == data
    assert reparse.decode(data) == ("ab", False)


def test_a_junction_by_hand():
    r"""The bytes of a junction to C:\a, written by hand from the figure in MS-FSCC 2.1.2.5."""
    names = "\\??\\C:\\a\0C:\\a\0".encode("utf-16-le")
    data = bytes.fromhex("030000a0 2400 0000 0000 1000 1200 0800") + names
    assert reparse.encode(reparse.Link("C:\\a", True)) == data
    assert reparse.decode(data) == ("C:\\a", True)


@pytest.mark.parametrize(
    ("target", "substitute", "relative"),
    [
        ("a\\b", "a\\b", 1),
        ("a/b", "a\\b", 1),
        ("\\Windows", "\\Windows", 1),
        ("C:\\x", "\\??\\C:\\x", 0),
        ("\\\\?\\C:\\x", "\\??\\C:\\x", 0),
        ("\\??\\C:\\x", "\\??\\C:\\x", 0),
        ("\\\\server\\share", "\\??\\UNC\\server\\share", 0),
    ],
)
def test_forms_of_a_target(target, substitute, relative):
    data = reparse.encode(reparse.Link(target, False))
    length, flags = struct.unpack_from("<H4xI", data, 10)
    assert data[20 : 20 + length].decode("utf-16-le") == substitute
    assert flags == relative
    assert reparse.decode(data) == (target.replace("/", "\\"), False)


@pytest.mark.parametrize(
    ("substitute", "target"),
    [
        ("\\??\\C:\\x", "C:\\x"),
        ("\\??\\UNC\\server\\share", "\\\\server\\share"),
        ("\\??\\Volume{1}\\", "\\\\?\\Volume{1}\\"),
        ("x", "x"),
    ],
)
def test_a_link_without_a_name_for_people(substitute, target):
    name = substitute.encode("utf-16-le")
    data = struct.pack("<IHHHHHHI", 0xA000000C, 12 + len(name), 0, 0, len(name), len(name), 0, 0) + name
    assert reparse.decode(data) == (target, False)


@pytest.mark.parametrize("value", [0x80000018, 0x8000001B, 0x80000023, 0x9000001A])
def test_other_tags(value):
    data = struct.pack("<IHH", value, 4, 0) + b"data"
    assert reparse.tag(data) == value
    with pytest.raises(InvalidArgument, match=f"unsupported reparse point {value:x}"):
        reparse.decode(data)


def test_another_vendors_tag():
    data = struct.pack("<IHH", 0x00000042, 4, 0) + bytes(16) + b"data"
    assert reparse.tag(data) == 0x42


@pytest.mark.parametrize("link", [("a", True), ("", False), ("", True), ("/usr/bin/x", True), ("D:\\x", True)])
def test_any_target_is_kept_as_go_winio_keeps_it(link):
    target, junction = link
    data = reparse.encode(reparse.Link(target, junction))
    assert reparse.tag(data) == (reparse.MOUNT_POINT if junction else reparse.SYMLINK)
    assert reparse.decode(data) == (target.replace("/", "\\"), junction)


def test_a_target_that_ntfs_cannot_keep():
    with pytest.raises(InvalidArgument, match="a path of 9000 characters: NTFS keeps less"):
        reparse.encode(reparse.Link("a" * 9000, False))


@settings(max_examples=500)
@given(st.text(st.characters(blacklist_characters="/"), min_size=1, max_size=300))
def test_any_target_comes_back(target):
    data = reparse.encode(reparse.Link(target, False))
    assert reparse.decode(data) == (target, False)
    assert reparse.encode(reparse.decode(data)) == data
