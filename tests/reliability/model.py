# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sequential model of the snapshotter: the answer of each operation in each state, and the change that it makes.

A state is a set of ``Entry``. ``step`` is a ``Step`` of linearizability.py.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from ansible_collections.wcow.snapshotter.tests.reliability.linearizability import Call

#: The size of a scratch disk that was not grown (the template of the emulated store).
TEMPLATE_SIZE = 20 * 1024**3


class Entry(NamedTuple):
    """One snapshot. ``mark`` is its only label. ``size`` is that of its disk, or 0. ``id`` is 0 for a view."""

    name: str
    kind: str
    parent: str
    mark: str
    size: int
    id: int
    mounted: bool


State = FrozenSet[Entry]
EMPTY: State = frozenset()

#: These operations lock the snapshots that they name while they work on the files.
LOCKING = ("commit", "remove", "grow", "mount", "unmount")

#: These operations never change the state.
READS = ("stat", "walk", "usage", "scratch", "mounts")


def names_in(call: Call) -> Tuple[str, ...]:
    """Return the snapshots that a call works on. For a commit, these are the key and the name."""
    return call.arguments[:2] if call.operation == "commit" else call.arguments[:1]


def unexcused(history: List[Call]) -> List[Call]:
    """Return the calls that failed with ``unavailable`` although no other call could have locked the snapshot."""
    holders = [call for call in history if call.operation in LOCKING]
    return [
        call
        for call in history
        if call.code == "unavailable"
        and not any(
            holder is not call
            and holder.called < call.returned
            and call.called < holder.returned
            and set(names_in(call)) & set(names_in(holder))
            for holder in holders
        )
    ]


def step(state: State, call: Call) -> Optional[State]:
    entries = {entry.name: entry for entry in state}
    if call.code == "unavailable":
        # ``unexcused`` checks the other calls. Here it only matters that the snapshot exists and can be locked.
        busy = call.operation in (*LOCKING, "update") and names_in(call)[-1] in entries
        return state if busy else None
    expected, change = _OPERATIONS[call.operation](entries, call)
    if call.code != expected:
        return None
    if change is None:
        return state
    return change(state) if expected == "ok" else state


#: The right code in this state, and the change of the state if that code is "ok". None means that nothing changes.
Answer = Tuple[str, Optional[Callable[[State], Optional[State]]]]
Entries = Dict[str, Entry]


def _replace(old: Optional[Entry], new: Optional[Entry]) -> Callable[[State], State]:
    gone = frozenset([old] if old else [])
    come = frozenset([new] if new else [])
    return lambda state: state - gone | come


def _says(right: bool) -> Answer:
    """Answer a read that succeeded. If its value was wrong, the read did not happen in this state."""
    return ("ok", None) if right else ("another value", None)


def _chain(entries: Entries, parent: str) -> List[int]:
    ids = []
    while parent:
        ids.append(entries[parent].id)
        parent = entries[parent].parent
    return ids


def _sources(entries: Entries, entry: Entry) -> List[int]:
    """Return the layer ids in the mounts of a snapshot: the id of the source, then the ids of the parents."""
    chain = _chain(entries, entry.parent)
    return chain if entry.kind == "view" and chain else [entry.id, *chain]


def _create(kind: str) -> Callable[[Entries, Call], Answer]:
    def create(entries: Entries, call: Call) -> Answer:
        key, parent, mark = call.arguments
        if parent and parent not in entries:
            return "not_found", None
        if parent and entries[parent].kind != "committed":
            return "invalid_argument", None
        if key in entries:
            return "already_exists", None
        if call.code != "ok":
            return "ok", None
        size = TEMPLATE_SIZE if kind == "active" and parent else 0
        number = call.value[0] if kind == "active" else 0
        made = Entry(key, kind, parent, mark, size, number, False)
        if kind == "active" and number in [entry.id for entry in entries.values()]:
            return "an id of its own", None
        if call.value != _sources(entries, made) and (kind == "active" or parent):
            return "another value", None
        return "ok", _replace(None, made)

    return create


def _commit(entries: Entries, call: Call) -> Answer:
    name, key, parent, mark = call.arguments
    entry = entries.get(key)
    if entry is None:
        return "not_found", None
    if entry.kind == "committed":
        return "failed_precondition", None
    if name in entries:
        return "already_exists", None
    if entry.kind != "active":
        return "failed_precondition", None
    if parent and entry.parent and parent != entry.parent:
        return "invalid_argument", None
    parent = entry.parent or parent
    if parent and parent not in entries:
        return "not_found", None
    if (parent and entries[parent].kind != "committed") or entry.mounted:
        return "failed_precondition", None
    made = Entry(name, "committed", parent, mark, 0, entry.id, False)
    if call.code == "ok" and call.value != (*made[:4], made.id):
        return "another value", None
    return "ok", _replace(entry, made)


def _remove(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    if entry is None:
        return "not_found", None
    if entry.mounted or any(other.parent == entry.name for other in entries.values()):
        return "failed_precondition", None
    return "ok", _replace(entry, None)


def _update(entries: Entries, call: Call) -> Answer:
    name, mark = call.arguments
    entry = entries.get(name)
    if entry is None:
        return "not_found", None
    return "ok", _replace(entry, entry._replace(mark=mark))


def _matches(entry: Entry, seen: Any) -> bool:
    return seen[:4] == entry[:4] and entry.id in (0, seen[4])


def _stat(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    if entry is None:
        return "not_found", None
    return _says(call.code == "ok" and _matches(entry, call.value))


def _walk(entries: Entries, call: Call) -> Answer:
    (kind,) = call.arguments
    wanted = [entries[name] for name in sorted(entries) if kind in ("", entries[name].kind)]
    return _says(len(wanted) == len(call.value) and all(map(_matches, wanted, call.value)))


def _usage(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    if entry is None:
        return "not_found", None
    # A snapshot with a disk has a usage above 0. The model does not know the exact value.
    return _says(call.code == "ok" and (call.value > 0 or not entry.size))


def _scratch(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    if entry is None:
        return "not_found", None
    return _says(call.code == "ok" and (entry.kind != "active" or call.value == entry.size))


def _mounts(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    if entry is None:
        return "not_found", None
    if entry.kind == "committed":
        return "failed_precondition", None
    right = call.code == "ok" and (call.value == _sources(entries, entry) or not (entry.id or entry.parent))
    return _says(right)


def _grow(entries: Entries, call: Call) -> Answer:
    key, size = call.arguments
    entry = entries.get(key)
    if entry is None:
        return "not_found", None
    if not (entry.kind == "active" and entry.size) or entry.mounted:
        return "failed_precondition", None
    grown = entry._replace(size=max(size, entry.size))
    if call.code == "ok" and call.value != grown.size:
        return "another value", None
    return "ok", _replace(entry, grown)


def _mount(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    if entry is None:
        return "not_found", None
    if entry.kind == "committed":
        return "failed_precondition", None
    return "ok", _replace(entry, entry._replace(mounted=True))


def _unmount(entries: Entries, call: Call) -> Answer:
    entry = entries.get(call.arguments[0])
    return "ok", entry and _replace(entry, entry._replace(mounted=False))


_OPERATIONS: Dict[str, Callable[[Entries, Call], Answer]] = {
    "prepare": _create("active"),
    "view": _create("view"),
    "commit": _commit,
    "remove": _remove,
    "update": _update,
    "stat": _stat,
    "walk": _walk,
    "usage": _usage,
    "scratch": _scratch,
    "mounts": _mounts,
    "grow": _grow,
    "mount": _mount,
    "unmount": _unmount,
}
