# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which bytes are a valid security descriptor."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.securitydescriptor import fault
from ansible_collections.wcow.snapshotter.tests.builders.security_descriptors import (
    ADMINISTRATORS,
    security_descriptor,
)


def test_descriptors():
    assert not fault(security_descriptor())
    assert not fault(security_descriptor(b"", b"", b""))
    assert not fault(security_descriptor(dacl=struct.pack("<BBHHH", 2, 0, 8, 0, 0)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        security_descriptor()[:19],
        security_descriptor()[:-1],
        security_descriptor(control=4),
        security_descriptor(revision=2),
        security_descriptor(owner=b"\x01\xff" + ADMINISTRATORS[2:]),
        security_descriptor(b"", b"", struct.pack("<BBHHH", 2, 0, 8, 1, 0)),
        security_descriptor(b"", b"", struct.pack("<BBHHH", 2, 0, 4, 0, 0)),
        security_descriptor(b"", b"", struct.pack("<BBHHHBBH", 2, 0, 12, 1, 0, 0, 0, 0)),
        struct.pack("<BBHIIII", 1, 0, 0x8000, 0xFFFFFFF0, 0, 0, 0),
    ],
)
def test_what_is_none(data):
    assert fault(data)


@pytest.mark.parametrize("cut", range(len(security_descriptor())))
def test_a_descriptor_that_is_cut_off(cut):
    assert fault(security_descriptor()[:cut])
