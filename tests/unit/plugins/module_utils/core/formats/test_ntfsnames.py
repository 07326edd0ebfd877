# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names NTFS takes, which it takes for one, and which a network path has."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ntfsnames import (
    fault,
    fold,
    share_components,
)


@pytest.mark.parametrize(
    ("one", "other"), [("a", "A"), ("Windows", "WINDOWS"), ("\u00e9", "\u00c9"), ("\u03c3", "\u03a3")]
)
def test_names_that_are_one(one, other):
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("\u00df", "ss"), ("a", "b"), ("\ufb01", "FI"), ("e\u0301", "\u00e9")])
def test_names_that_are_two(one, other):
    assert fold(one) != fold(other)


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
