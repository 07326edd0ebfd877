# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the clone of a parent's utility VM."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import reparse, utilityvm
from ansible_collections.wcow.snapshotter.tests.builders.simulated_root import (
    ARCHIVE,
    DIRECTORY,
    REPARSE,
    MemoryRoot,
    Node,
)

BOOT = "UtilityVM/Files/EFI/Microsoft/Boot"


@pytest.fixture
def parent():
    root = MemoryRoot("C:\\parent")
    for name in ["UtilityVM", "UtilityVM/Files", "UtilityVM/Files/EFI", "UtilityVM/Files/EFI/Microsoft", BOOT]:
        root.add(name, Node(DIRECTORY)).security = b"security of " + name.encode()
    for name in ["bcd", "BCD.LOG", "BCD.LOG1", "BCD.LOG2", "bootmgfw.efi"]:
        root.add(f"{BOOT}/{name}", Node(ARCHIVE)).content = name.encode()
    root.add("UtilityVM/SystemTemplate.vhdx", Node(ARCHIVE))
    link = root.add("UtilityVM/Files/link", Node(DIRECTORY | REPARSE))
    link.reparse = reparse.encode(reparse.Link("C:\\EFI", True))
    return root


def test_what_windows_changes_is_copied_and_the_rest_shared(parent):
    layer = MemoryRoot()
    utilityvm.clone(parent, layer)
    assert layer.tree() == [name for name in parent.tree() if not name.endswith(".vhdx")]
    shared = [name for name in layer.tree() if layer.node(name) is parent.node(name)]
    assert shared == [f"{BOOT}/bootmgfw.efi"]
    for name in layer.tree()[1:]:
        mine, theirs = layer.node(name), parent.node(name)
        assert (mine.content, mine.security, mine.reparse) == (theirs.content, theirs.security, theirs.reparse)
        assert (mine.times, mine.attributes) == (theirs.times, theirs.attributes)
    assert (layer.open, parent.open) == (0, 0)


def test_a_parent_without_a_utility_vm():
    layer = MemoryRoot()
    utilityvm.clone(MemoryRoot(), layer)
    assert layer.tree() == ["UtilityVM", "UtilityVM/Files"]


def test_a_parent_whose_utility_vm_is_a_junction(parent):
    parent.node("UtilityVM/Files").attributes |= REPARSE
    with pytest.raises(FailedPrecondition, match="is not a plain directory"):
        utilityvm.clone(parent, MemoryRoot())


def test_the_check_before_it_is_processed(parent):
    utilityvm.check(parent)
    parent.node("UtilityVM").attributes |= REPARSE
    with pytest.raises(FailedPrecondition, match="is not a plain directory"):
        utilityvm.check(parent)
    with pytest.raises(FailedPrecondition, match="is not a plain directory"):
        utilityvm.check(MemoryRoot())


def test_nothing_stays_open_when_the_volume_is_full(parent):
    layer = MemoryRoot()
    layer.space = 40
    with pytest.raises(FailedPrecondition, match="no space"):
        utilityvm.clone(parent, layer)
    assert (layer.open, parent.open) == (0, 0)
