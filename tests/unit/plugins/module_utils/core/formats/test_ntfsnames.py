# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names NTFS takes, and which it takes for one."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ntfsnames import fault, fold


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
