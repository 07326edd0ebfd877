# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extended attributes: the list of FILE_FULL_EA_INFORMATION that NTFS keeps with a file (MS-FSCC 2.4.16)."""

from __future__ import annotations

import struct
from typing import Iterable, List, NamedTuple

from ..errors import InvalidArgument

#: The longest list that NTFS keeps.
MAX_SIZE = 65536

# Offset of the next entry from this one (0 in the last), flags, length of the name and of the value in bytes.
_HEADER = struct.Struct("<IBBH")
_ALIGNMENT = 4


class ExtendedAttribute(NamedTuple):
    """One attribute. ``flags`` has 0x80 (FILE_NEED_EA) if a reader of the file must understand it."""

    name: bytes
    value: bytes
    flags: int = 0


def decode(data: bytes) -> List[ExtendedAttribute]:
    """Return the attributes of a list. Raises InvalidArgument if it is damaged."""
    attributes: List[ExtendedAttribute] = []
    position = 0
    while data:
        if position + _HEADER.size > len(data):
            raise _damaged()
        step, flags, name_size, value_size = _HEADER.unpack_from(data, position)
        name = position + _HEADER.size
        value = name + name_size + 1
        end = value + value_size
        if not name_size or end > len(data) or data[value - 1] or b"\0" in data[name : value - 1]:
            raise _damaged()
        attributes.append(ExtendedAttribute(data[name : value - 1], data[value:end], flags))
        if not step:
            break
        if position + step < end:
            raise _damaged()
        position += step
    return attributes


def encode(attributes: Iterable[ExtendedAttribute]) -> bytes:
    """Return the list of these attributes. Raises InvalidArgument for attributes that it cannot hold."""
    entries: List[bytes] = []
    for attribute in attributes:
        if not 0 < len(attribute.name) <= 255 or b"\0" in attribute.name or len(attribute.value) > 65535:
            raise InvalidArgument(
                f"the extended attribute {attribute.name!r} of {len(attribute.value)} bytes is not one of NTFS"
            )
        header = _HEADER.pack(0, attribute.flags, len(attribute.name), len(attribute.value))
        entry = header + attribute.name + b"\0" + attribute.value
        entries.append(entry + bytes(-len(entry) % _ALIGNMENT))
    data = b"".join(struct.pack("<I", len(entry)) + entry[4:] for entry in entries[:-1]) + b"".join(entries[-1:])
    if len(data) > MAX_SIZE:
        raise InvalidArgument(f"the extended attributes have {len(data)} bytes: NTFS keeps at most {MAX_SIZE}")
    return data


def _damaged() -> InvalidArgument:
    return InvalidArgument("invalid extended attribute buffer")
