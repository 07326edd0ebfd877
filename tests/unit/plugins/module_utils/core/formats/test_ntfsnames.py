# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which names NTFS accepts, which names are equal on NTFS, and the components of a network path."""

from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ntfsnames import (
    fault,
    fold,
    path_key,
    share_components,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "A"),
        ("Windows", "WINDOWS"),
        ("\u00e9", "\u00c9"),
        ("\u03c3", "\u03a3"),
        ("\u1fb3", "\u1fbc"),
        ("\u1f80", "\u1f88"),
        ("\u00ff", "\u0178"),
        ("\u01c6", "\u01c4"),
        ("\u0250", "\u2c6f"),
        ("\uff41", "\uff21"),
    ],
)
def test_names_that_are_one(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u00df", "ss"),
        ("\u00df", "\u1e9e"),
        ("a", "b"),
        ("\ufb01", "FI"),
        ("e\u0301", "\u00e9"),
        ("\u0131", "I"),
        ("\u0130", "i"),
        ("\u017f", "S"),
        ("\u212a", "K"),
        ("\u00b5", "\u039c"),
        ("\u03c2", "\u03a3"),
        ("\u01c5", "\u01c4"),
        ("\u1fb3", "\u0391\u0399"),
        # Capitals that are younger than the table, and letters of two code units.
        ("\u10d0", "\u1c90"),
        ("\uab70", "\u13a0"),
        ("\u0265", "\ua78d"),
        ("\U00010428", "\U00010400"),
    ],
)
def test_names_that_are_two(one, other):
    assert fold(one) != fold(other)


def test_the_whole_table():
    """The SHA-256 is that of $UpCase in a volume that mkntfs 2022.10.3 made, for any version of Unicode in Python."""
    table = "".join(map(fold, map(chr, range(0x10000)))).encode("utf-16-le", "surrogatepass")
    assert hashlib.sha256(table).hexdigest() == "41c26bc7a12bdaeb26025c93118697c7e3ef81ee048b00fe5cce2a472e0e0742"
    assert all(fold(chr(code)) == chr(code) for code in range(0x10000, 0x110000))


def test_paths_of_this_host():
    assert path_key("C:/Data/a") == ("C:\\DATA\\A" if os.name == "nt" else "C:/Data/a")


@pytest.mark.parametrize("name", ["a", "CON", "a.", "a ", " ", "...", "\u4e00" * 255, "\U0001f600" * 127, "'$&;%"])
def test_names_that_ntfs_takes(name):
    assert fault(name) == ""


@pytest.mark.parametrize(
    "name", ["", ".", "..", *(f"a{char}" for char in '\0\x1f\n"*/:<>?\\|'), "n" * 256, "\U0001f600" * 128, "\ud800"]
)
def test_names_that_ntfs_does_not_take(name):
    assert fault(name)


@pytest.mark.parametrize(
    ("path", "components"),
    [
        ("\\\\files\\images\\a\\b.tar", ["files", "images", "a", "b.tar"]),
        ("//files.example.com/images$/b.tar", ["files.example.com", "images$", "b.tar"]),
        ("\\\\192.0.2.1\\images\\", ["192.0.2.1", "images"]),
        ("\\\\files\\images", ["files", "images"]),
        ("\\\\files\\images\\.\\a\\..\\..\\..\\b", ["files", "images", "b"]),
        ("\\\\?\\UNC\\files\\images\\b", ["files", "images", "b"]),
        ("\\\\?\\unc\\files\\images\\b", ["files", "images", "b"]),
        ("C:\\images\\b", []),
        ("\\images\\b", []),
        ("\\\\?\\C:\\b", []),
        ("\\\\.\\PhysicalDrive0", []),
        ("//./pipe/b", []),
        ("\\\\?\\GLOBALROOT\\Device\\b", []),
    ],
)
def test_network_paths(path, components):
    assert share_components(path) == components


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("\\\\", "names no share"),
        ("\\\\files", "names no share"),
        ("\\\\files\\..\\b", "names no share"),
        ("\\\\?\\UNC\\files", "names no share"),
        ("\\\\fi*les\\images\\b", "NTFS does not allow"),
        ("\\\\files\\images\\b:stream", "NTFS does not allow"),
        ("\\\\?\\UNC\\files\\images\\b\0", "NTFS does not allow"),
    ],
)
def test_network_paths_that_are_refused(path, said):
    with pytest.raises(InvalidArgument, match=said):
        share_components(path)
