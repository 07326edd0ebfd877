# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import structures
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.sizes import MAXIMUM_DISK_SIZE, parse_size

GIB = 1024**3


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (GIB, GIB),
        ("1B", 1),
        (42949672960, 40 * GIB),
        ("42949672960", 40 * GIB),
        ("40GB", 40 * GIB),
        ("40GiB", 40 * GIB),
        ("40 GiB", 40 * GIB),
        (" 40G ", 40 * GIB),
        ("40gb", 40 * GIB),
        ("512B", 512),
        ("3k", 3 * 1024),
        ("5MiB", 5 * 1024**2),
        ("64TB", MAXIMUM_DISK_SIZE),
    ],
)
def test_sizes(value: Any, size: int) -> None:
    assert parse_size(value, "size") == size


@pytest.mark.parametrize(
    "value", ["", "-1", -1, "1e9", "40G B", "40  GB", "1.5TB", "0x10", "1_0", "GB", "\u0664GB", "4PB", True, 1.5, None]
)
def test_not_a_size(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="rootfs_size: .* is not a size; give whole bytes"):
        parse_size(value, "rootfs_size")


@pytest.mark.parametrize("value", [0, "0", "0GB", "000"])
def test_zero(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="size: a disk of 0 bytes cannot be made"):
        parse_size(value, "size")


@pytest.mark.parametrize("value", [1, 40, "40", " 120 ", GIB - 1, str(GIB - 1)])
def test_a_number_below_1_gib_needs_a_unit(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="size: .* without a unit is a number of bytes, .* add a unit, e.g. "):
        parse_size(value, "size")


@pytest.mark.parametrize("value", [MAXIMUM_DISK_SIZE + 1, "65TB", "99999999999999999999TB"])
def test_larger_than_a_vhdx(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="larger than a VHDX can be"):
        parse_size(value, "size")


def test_the_limit_is_that_of_the_format() -> None:
    assert MAXIMUM_DISK_SIZE == structures.MAX_VIRTUAL_SIZE
