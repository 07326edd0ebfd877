# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parent graph: ancestors, descendants, removal order, cycles.

Records are a forest: each snapshot has at most one parent. No operation
creates a cycle, but damaged records can hold one, so every walk ends.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from .errors import Damaged


def damaged(what: str, **details: Any) -> Damaged:
    """Return the error for records that contradict each other."""
    return Damaged(f"the metadata is damaged: {what}; run the module store_check, which lists all problems", **details)


def ancestors(name: str, find_parent: Callable[[str], Optional[str]]) -> Iterator[str]:
    """Yield ``name`` and its ancestors, nearest first.

    ``find_parent`` returns the name of the parent of a snapshot, ``""`` if it
    has none, or None if there is no record of that snapshot. An empty ``name``
    yields nothing. Raises Damaged for a missing record or a cycle.
    """
    seen: Set[str] = set()
    while name:
        if name in seen:
            raise damaged(f"the parent {name!r} is its own ancestor", parent=str(name))
        parent = find_parent(name)
        if parent is None:
            raise damaged(f"the parent {name!r} has no record", parent=str(name))
        seen.add(name)
        yield name
        name = parent


class Lineage:
    """The parent graph of one moment, from a mapping of each name to its parent (``""`` for none).

    A parent without a record of its own is allowed, and a cycle ends a walk
    instead of an error: callers that must not work on damaged records use
    ``refuse_cycle`` or ``is_cyclic``.
    """

    def __init__(self, parents: Mapping[str, str]) -> None:
        self.parents = parents
        self._children: Optional[Dict[str, List[str]]] = None

    def with_ancestors(self, name: str) -> Iterator[str]:
        """Yield ``name``, then its ancestors, nearest first."""
        seen: Set[str] = set()
        while name and name not in seen:
            yield name
            seen.add(name)
            name = self.parents.get(name, "")

    def children(self, name: str) -> List[str]:
        """Return the names that have ``name`` as their parent, in the order of the mapping."""
        if self._children is None:
            self._children = {}
            for child, parent in self.parents.items():
                self._children.setdefault(parent, []).append(child)
        return self._children.get(name, [])

    def with_descendants(self, name: str) -> List[str]:
        """Return ``name`` and everything based on it; each parent comes before its children.

        Raises Damaged if ``name`` is its own ancestor.
        """
        found = [name]
        for parent in found:
            children = self.children(parent)
            if name in children:
                raise damaged(f"the parent {name!r} is its own ancestor", parent=str(name))
            found.extend(children)
        return found

    def forest(self) -> Iterator[Tuple[str, int]]:
        """Yield each name below its parent, with its depth; siblings are in the order of the mapping.

        A name without a parent, or whose parent has no record, is at depth 0.
        So is one member of each cycle.
        """
        done: Set[str] = set()
        roots = [name for name, parent in self.parents.items() if parent not in self.parents]
        for root in (*roots, *self.parents):
            rest = [(root, 0)]
            while rest:
                name, depth = rest.pop()
                if name not in done:
                    done.add(name)
                    yield name, depth
                    rest.extend((child, depth + 1) for child in reversed(self.children(name)))

    def is_cyclic(self) -> bool:
        """Return True if a snapshot is its own ancestor."""
        done: Set[str] = set()
        for name in self.parents:
            path: Set[str] = set()
            current = name
            while current and current not in done:
                if current in path:
                    return True
                path.add(current)
                current = self.parents.get(current, "")
            done |= path
        return False

    def leaves_first(self) -> List[str]:
        """Return all names so that each comes before its parent; siblings are in byte order of their names."""
        depth: Dict[str, int] = {}
        for name in self.parents:
            chain: List[str] = []
            for member in self.with_ancestors(name):
                if member in depth:
                    break
                chain.append(member)
            above = self.parents.get(chain[-1], "") if chain else ""
            level = depth.get(above, 0)
            for member in reversed(chain):
                level += 1
                depth[member] = level
        return sorted(self.parents, key=lambda name: (-depth[name], name))
