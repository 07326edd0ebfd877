# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test walks through a directory, and conversions of times."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument, NotFound
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.layerfile import (
    UNIX_EPOCH,
    from_nanoseconds,
    to_nanoseconds,
    walk,
)
from ansible_collections.wcow.snapshotter.tests.builders.simulated_root import (
    DIRECTORY,
    REPARSE,
    MemoryRoot,
    Node,
)


def test_a_walk_is_sorted_and_enters_no_link():
    root = MemoryRoot()
    for name, attributes in [
        ("Files", DIRECTORY),
        ("Files/b", DIRECTORY),
        ("Files/b/x", 0),
        ("Files/B-", 0),
        ("Files/a", 0),
        ("Files/\u00e4", 0),
        ("Files/skipped", DIRECTORY),
        ("Files/skipped/x", 0),
        ("Files/junction", DIRECTORY),
        ("Files/junction/x", 0),
    ]:
        root.add(name, Node(attributes))
    root.node("Files/junction").attributes |= REPARSE
    found = [name for name, _ in walk(root, "Files", lambda name: name.endswith("skipped"))]
    assert found == ["Files", "Files/B-", "Files/a", "Files/b", "Files/b/x", "Files/junction", "Files/\u00e4"]


def test_a_walk_of_nothing():
    with pytest.raises(NotFound):
        list(walk(MemoryRoot(), "Files", lambda _: False))


@pytest.mark.parametrize("ticks", [0, 1, UNIX_EPOCH, UNIX_EPOCH - 1, (1 << 63) - 1])
def test_times_there_and_back(ticks):
    assert from_nanoseconds(to_nanoseconds(ticks)) == ticks


@pytest.mark.parametrize("ticks", [-1, 1 << 63])
def test_times_that_windows_cannot_hold(ticks):
    with pytest.raises(InvalidArgument):
        from_nanoseconds(to_nanoseconds(ticks))
