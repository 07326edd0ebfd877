# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk sizes as users write them."""

from __future__ import annotations

import re
from typing import Union

from .errors import InvalidArgument

#: The largest virtual disk of the format: 64 TB ([MS-VHDX] 2.6.2.2 Virtual Disk Size).
MAXIMUM_DISK_SIZE = 64 * 1024**4

_SIZE = re.compile(r"([0-9]{1,20}) ?([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(value: Union[int, str], name: str) -> int:
    """A disk size in bytes, from bytes or text such as ``40GB``, ``40 GiB``, ``1t``.

    ``GB`` and ``GiB`` are both 1024**3 bytes, as in Windows, in containerd's
    size-gb label and in Ansible's ``human_to_bytes``. The number is whole.
    ``name`` is the option, for the message. Raises InvalidArgument for anything
    else, for 0, for more than 64 TB, and for less than 1 GiB without a unit:
    ``40`` is meant as GiB, but would be bytes.
    """
    shown = repr(value)[:64]
    size = value if isinstance(value, int) and not isinstance(value, bool) else -1
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match:
            size = int(match[1]) * 1024 ** _POWERS[match[2].upper()]
    if size < 0:
        raise InvalidArgument(
            f"{name}: {shown} is not a size; give whole bytes or a whole number with a unit, "
            "such as 42949672960, 40GB or 40GiB (both are 40 x 1024^3 bytes)"
        )
    if size == 0:
        raise InvalidArgument(
            f"{name}: a disk of 0 bytes cannot be made; leave {name} out to keep the size of the template"
        )
    if size < 1024**3 and str(value).strip().isdecimal():
        raise InvalidArgument(
            f"{name}: {shown} without a unit is a number of bytes, less than 1 GiB; add a unit, e.g. {size}GiB "
            f"(or {size}B if you mean bytes)"
        )
    if size > MAXIMUM_DISK_SIZE:
        raise InvalidArgument(
            f"{name}: {shown} is larger than a VHDX can be (64 TB, {MAXIMUM_DISK_SIZE} bytes)",
            maximum=MAXIMUM_DISK_SIZE,
        )
    return size
