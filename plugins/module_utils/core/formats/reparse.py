# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reparse points: the REPARSE_DATA_BUFFER of symbolic links and junctions (MS-FSCC 2.1.2)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import InvalidArgument

#: Reparse tags, MS-FSCC 2.1.2.1.
MOUNT_POINT = 0xA0000003
SYMLINK = 0xA000000C

#: The longest buffer that NTFS keeps (MAXIMUM_REPARSE_DATA_BUFFER_SIZE).
MAX_SIZE = 16384

# Tag, length of what follows the header, reserved.
_HEADER = struct.Struct("<IHH")
# Offset and length in bytes of the substitute name and of the print name, in the area behind.
_NAMES = struct.Struct("<HHHH")
_FLAGS = struct.Struct("<I")
_RELATIVE = 1
# Other vendors' tags lack this bit, and their buffers have a GUID that the length leaves out.
_MICROSOFT = 0x80000000
_GUID_SIZE = 16


class Link(NamedTuple):
    r"""The target of a symbolic link or, with ``junction``, of a mount point: as it is displayed, with backslashes."""

    target: str
    junction: bool


def tag(data: bytes) -> int:
    """Return the reparse tag of a buffer. Raises InvalidArgument if the bytes are not such a buffer."""
    if not _HEADER.size <= len(data) <= MAX_SIZE:
        raise InvalidArgument(f"a reparse point has {len(data)} bytes: at least {_HEADER.size}, at most {MAX_SIZE}")
    value, length, _reserved = _HEADER.unpack_from(data)
    if length + _HEADER.size + (0 if value & _MICROSOFT else _GUID_SIZE) != len(data):
        raise InvalidArgument(f"a reparse point has {len(data)} bytes, but says otherwise")
    return int(value)


def decode(data: bytes) -> Link:
    """Return the link in a buffer. Raises InvalidArgument for a damaged buffer, and for tags of other kinds."""
    value = tag(data)
    if value not in (MOUNT_POINT, SYMLINK):
        raise InvalidArgument(f"unsupported reparse point {value:x}")
    area = _HEADER.size + _NAMES.size + (_FLAGS.size if value == SYMLINK else 0)
    if len(data) < area:
        raise InvalidArgument("a reparse point is cut off")
    substitute_offset, substitute_length, print_offset, print_length = _NAMES.unpack_from(data, _HEADER.size)
    target = _name(data, area + print_offset, print_length)
    if not target:
        # Not every program fills in the print name.
        target = _name(data, area + substitute_offset, substitute_length)
        if target.startswith("\\??\\UNC\\"):
            target = "\\\\" + target[8:]
        elif target.startswith("\\??\\"):
            target = target[4:] if target[5:6] == ":" else "\\\\?\\" + target[4:]
    return Link(target, value == MOUNT_POINT)


def encode(link: Link) -> bytes:
    """Return the buffer of a link, whose target may be any text, as in go-winio reparse.go.

    Raises InvalidArgument only for a target that is too long for NTFS.
    """
    target = link.target.replace("/", "\\")
    relative = False
    if target[:4] in ("\\\\?\\", "\\??\\"):
        substitute = "\\??\\" + target[4:]
    elif target.startswith("\\\\"):
        substitute = "\\??\\UNC\\" + target[2:]
    elif target[1:2] == ":":
        substitute = "\\??\\" + target
    else:
        substitute, relative = target, True
    names = [name.encode("utf-16-le", "surrogatepass") for name in (substitute, target)]
    area = b"".join(name + b"\0\0" for name in names)
    size = _NAMES.size + (0 if link.junction else _FLAGS.size) + len(area)
    if size + _HEADER.size > MAX_SIZE:
        raise InvalidArgument(f"a link leads to {target[:100]!r}, a path of {len(target)} characters: NTFS keeps less")
    return b"".join(
        [
            _HEADER.pack(MOUNT_POINT if link.junction else SYMLINK, size, 0),
            _NAMES.pack(0, len(names[0]), len(names[0]) + 2, len(names[1])),
            b"" if link.junction else _FLAGS.pack(_RELATIVE if relative else 0),
            area,
        ]
    )


def _name(data: bytes, offset: int, length: int) -> str:
    if offset % 2 or length % 2 or offset + length > len(data):
        raise InvalidArgument("a reparse point has a name that is not inside it")
    return data[offset : offset + length].decode("utf-16-le", "surrogatepass")
