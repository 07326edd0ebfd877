# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test lists of extended attributes."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import eas
from hypothesis import given, settings
from hypothesis import strategies as st

#: Two attributes as Windows returned them, from go-winio's ea_test.go.
VECTOR = bytes.fromhex(
    "1000 0000 00 03 0300 66 6f 6f 00 62 61 72 00 0000 0000 00 04 0400 66 69 7a 7a 00 62 75 7a 7a 00 00 00"
)
ATTRIBUTES = [eas.ExtendedAttribute(b"foo", b"bar"), eas.ExtendedAttribute(b"fizz", b"buzz")]


def test_the_vector():
    assert eas.encode(ATTRIBUTES) == VECTOR
    assert eas.decode(VECTOR) == ATTRIBUTES


def test_the_last_one_need_not_be_padded():
    assert eas.decode(VECTOR[:-3]) == ATTRIBUTES


def test_nothing():
    assert eas.decode(b"") == []
    assert eas.encode([]) == b""


@pytest.mark.parametrize("cut", [1, 7, 8, 11, 20, len(VECTOR) - 4])
def test_a_list_that_is_cut_off(cut):
    with pytest.raises(InvalidArgument, match="invalid extended attribute buffer"):
        eas.decode(VECTOR[:cut])


@pytest.mark.parametrize("attribute", [(b"", b""), (b"a" * 256, b""), (b"a\0b", b""), (b"a", bytes(65536))])
def test_attributes_that_are_too_long_for_ntfs(attribute):
    with pytest.raises(InvalidArgument):
        eas.encode([eas.ExtendedAttribute(*attribute)])


def test_more_than_a_file_may_have():
    with pytest.raises(InvalidArgument, match="at most 65536"):
        eas.encode([eas.ExtendedAttribute(b"a%d" % number, bytes(40000)) for number in range(2)])


attributes = st.builds(
    eas.ExtendedAttribute,
    st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"\0", b"_")),
    st.binary(max_size=300),
    st.integers(0, 255),
)


@settings(max_examples=300)
@given(st.lists(attributes, max_size=8))
def test_what_was_written_is_read(some):
    data = eas.encode(some)
    assert eas.decode(data) == some
    assert eas.encode(eas.decode(data)) == data
