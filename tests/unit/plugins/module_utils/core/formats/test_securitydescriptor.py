# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Security descriptors: what is one."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.securitydescriptor import fault
from hypothesis import given, settings
from hypothesis import strategies as st

ADMINISTRATORS = struct.pack("<BB6B2I", 1, 2, 0, 0, 0, 0, 0, 5, 32, 544)
SYSTEM = struct.pack("<BB6BI", 1, 1, 0, 0, 0, 0, 0, 5, 18)
ACE = struct.pack("<BBHI", 0, 3, 8 + len(SYSTEM), 0x1F01FF) + SYSTEM
ACL = struct.pack("<BBHHH", 2, 0, 8 + 2 * len(ACE), 2, 0) + 2 * ACE


def descriptor(owner=ADMINISTRATORS, group=SYSTEM, dacl=ACL, control=0x8004, revision=1):
    offset = 20
    offsets = []
    for part in (owner, group, b"", dacl):
        offsets.append(offset if part else 0)
        offset += len(part)
    return struct.pack("<BBHIIII", revision, 0, control, *offsets) + owner + group + dacl


def test_descriptors():
    assert not fault(descriptor())
    assert not fault(descriptor(b"", b"", b""))
    assert not fault(descriptor(dacl=struct.pack("<BBHHH", 2, 0, 8, 0, 0)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        descriptor()[:19],
        descriptor()[:-1],
        descriptor(control=4),
        descriptor(revision=2),
        descriptor(owner=b"\x01\xff" + ADMINISTRATORS[2:]),
        descriptor(b"", b"", struct.pack("<BBHHH", 2, 0, 8, 1, 0)),
        descriptor(b"", b"", struct.pack("<BBHHH", 2, 0, 4, 0, 0)),
        descriptor(b"", b"", struct.pack("<BBHHHBBH", 2, 0, 12, 1, 0, 0, 0, 0)),
        struct.pack("<BBHIIII", 1, 0, 0x8000, 0xFFFFFFF0, 0, 0, 0),
    ],
)
def test_what_is_none(data):
    assert fault(data)


@settings(max_examples=1500)
@given(st.integers(0, len(descriptor()) * 8 - 1), st.integers(0, len(descriptor())))
def test_damage_is_told(bit, cut):
    data = bytearray(descriptor())
    data[bit // 8] ^= 1 << bit % 8
    assert isinstance(fault(bytes(data[:cut])), str)
    assert cut == len(data) or fault(descriptor()[:cut])
