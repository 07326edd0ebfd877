# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build self-relative security descriptors."""

from __future__ import annotations

import struct

ADMINISTRATORS = struct.pack("<BB6B2I", 1, 2, 0, 0, 0, 0, 0, 5, 32, 544)
SYSTEM = struct.pack("<BB6BI", 1, 1, 0, 0, 0, 0, 0, 5, 18)
ACE = struct.pack("<BBHI", 0, 3, 8 + len(SYSTEM), 0x1F01FF) + SYSTEM
ACL = struct.pack("<BBHHH", 2, 0, 8 + 2 * len(ACE), 2, 0) + 2 * ACE


def security_descriptor(
    owner: bytes = ADMINISTRATORS,
    group: bytes = SYSTEM,
    dacl: bytes = ACL,
    control: int = 0x8004,
    revision: int = 1,
) -> bytes:
    """Return a security descriptor. It omits empty parts."""
    offset = 20
    offsets = []
    for part in (owner, group, b"", dacl):
        offsets.append(offset if part else 0)
        offset += len(part)
    return struct.pack("<BBHIIII", revision, 0, control, *offsets) + owner + group + dacl
