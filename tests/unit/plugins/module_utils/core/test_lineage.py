# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the parent graph: order, cycles and missing records."""

from __future__ import annotations

from typing import Dict

import hypothesis
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lineage import Lineage, ancestors
from hypothesis import strategies

#: base <- layer <- (left, right <- top)
PARENTS = {"base": "", "layer": "base", "left": "layer", "right": "layer", "top": "right"}


def test_ancestors() -> None:
    assert list(ancestors("top", PARENTS.get)) == ["top", "right", "layer", "base"]
    assert list(ancestors("base", PARENTS.get)) == ["base"]
    assert list(ancestors("", PARENTS.get)) == []


def test_ancestors_of_damaged_records() -> None:
    with pytest.raises(FailedPrecondition, match=r"the parent 'gone' has no record; run the module store_check"):
        list(ancestors("a", {"a": "gone"}.get))
    for start in ("a", "x"):
        with pytest.raises(FailedPrecondition, match=r"the parent '[ab]' is its own ancestor"):
            list(ancestors(start, {"a": "b", "b": "a", "x": "a"}.get))


def test_lineage() -> None:
    lineage = Lineage(PARENTS)
    assert list(lineage.with_ancestors("top")) == ["top", "right", "layer", "base"]
    assert list(lineage.with_ancestors("unknown")) == ["unknown"]
    assert lineage.children("layer") == ["left", "right"]
    assert lineage.children("top") == []
    assert lineage.with_descendants("layer") == ["layer", "left", "right", "top"]
    assert lineage.leaves_first() == ["top", "left", "right", "layer", "base"]
    assert list(lineage.forest()) == [("base", 0), ("layer", 1), ("left", 2), ("right", 2), ("top", 3)]
    assert list(Lineage({"b": "gone", "c": "b"}).forest()) == [("b", 0), ("c", 1)]
    assert not lineage.is_cyclic()


def test_cycles_end_every_walk() -> None:
    lineage = Lineage({"a": "b", "b": "c", "c": "a", "x": "a", "alone": "alone"})
    assert list(lineage.with_ancestors("x")) == ["x", "a", "b", "c"]
    assert lineage.is_cyclic()
    assert sorted(lineage.leaves_first()) == ["a", "alone", "b", "c", "x"]
    assert list(lineage.forest()) == [("a", 0), ("c", 1), ("b", 2), ("x", 1), ("alone", 0)]
    with pytest.raises(FailedPrecondition, match="is its own ancestor"):
        lineage.with_descendants("a")


NAMES = [chr(ord("a") + number) for number in range(8)]


@hypothesis.settings(max_examples=300)
@hypothesis.given(strategies.dictionaries(strategies.sampled_from(NAMES), strategies.sampled_from(["", *NAMES])))
def test_any_records(parents: Dict[str, str]) -> None:
    """Walks end for any records. Without a cycle, each name comes before its parent."""
    lineage = Lineage(parents)
    order = lineage.leaves_first()
    assert sorted(order) == sorted(parents)
    assert sorted(name for name, _depth in lineage.forest()) == sorted(parents)

    def is_on_cycle(name: str) -> bool:
        above = parents.get(name, "")
        return name in lineage.with_ancestors(above)

    assert lineage.is_cyclic() == any(is_on_cycle(name) for name in parents)
    if not lineage.is_cyclic():
        for name, parent in parents.items():
            assert parent not in parents or order.index(name) < order.index(parent)
            assert name in lineage.with_descendants(list(lineage.with_ancestors(name))[-1])
