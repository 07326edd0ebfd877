# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the form of self-relative security descriptors (MS-DTYP 2.4.6).

Their contents are not checked: only Windows uses them.
"""

from __future__ import annotations

import struct

# Revision, reserved, control; offsets of owner, group, system ACL and discretionary ACL, 0 where there is none.
_HEADER = struct.Struct("<BBHIIII")
# Revision, reserved, size in bytes, number of entries, reserved (MS-DTYP 2.4.5).
_ACL = struct.Struct("<BBHHH")
# Type, flags, size in bytes (MS-DTYP 2.4.4.1).
_ACE = struct.Struct("<BBH")
# Revision, number of subauthorities, authority (MS-DTYP 2.4.2.2).
_SID_SIZE = 8
_SUBAUTHORITY_SIZE = 4
_MAX_SUBAUTHORITIES = 15

_SELF_RELATIVE = 0x8000


def fault(data: bytes) -> str:
    """Return why the bytes are not a security descriptor, as the end of a sentence; empty if they are one."""
    if len(data) < _HEADER.size:
        return "is cut off"
    revision, _reserved, control, owner, group, sacl, dacl = _HEADER.unpack_from(data)
    if revision != 1 or not control & _SELF_RELATIVE:
        return "is not of the self-relative form"
    if not all(_is_sid(data, offset) for offset in (owner, group) if offset):
        return "has an owner or a group that is not inside it"
    if not all(_is_acl(data, offset) for offset in (sacl, dacl) if offset):
        return "has an access control list that is not inside it"
    return ""


def _is_sid(data: bytes, offset: int) -> bool:
    if offset + _SID_SIZE > len(data):
        return False
    revision, count = data[offset], data[offset + 1]
    end = offset + _SID_SIZE + count * _SUBAUTHORITY_SIZE
    return revision == 1 and count <= _MAX_SUBAUTHORITIES and end <= len(data)


def _is_acl(data: bytes, offset: int) -> bool:
    if offset + _ACL.size > len(data):
        return False
    _revision, _reserved, size, count, _more = _ACL.unpack_from(data, offset)
    end: int = offset + size
    if end > len(data):
        return False
    offset += _ACL.size
    for _entry in range(count):
        if offset + _ACE.size > end:
            return False
        size = _ACE.unpack_from(data, offset)[2]
        if size < _ACE.size:
            return False
        offset += size
    return offset <= end
