# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of many snapshots of one store: a plan that is checked as a whole, then one snapshot at a time.

Each snapshot keeps its own transaction, since none may be open for longer than
the copy of a template takes: what was done before an interruption stays done,
and the next run finds it.
"""

from __future__ import annotations

import graphlib
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from . import labels as label_rules
from .ensure import ABSENT, Outcome, check_options, ensure_snapshot
from .errors import InvalidArgument, SnapshotterError, translate
from .metastore import check_key
from .model import ACTIVE, COMMITTED, VIEW
from .snapshotter import Snapshotter

STOP = "stop"
CONTINUE = "continue"

#: The place of a snapshot that is removed because it is not in the list.
PRUNED = "prune"


class _Item(NamedTuple):
    """One entry of the list, or a snapshot to prune.

    ``name`` is the key or name that it is about, ``source`` the key of the
    active snapshot that it commits, ``after`` names whose items come first.
    """

    place: str
    name: str
    state: str
    parent: str
    source: str
    creates: str
    options: Mapping[str, Any]
    after: Tuple[str, ...]

    @property
    def needs(self) -> List[str]:
        """The names that this item must find, or makes; none for a removal."""
        return [] if self.state == ABSENT else [self.name, self.parent, self.source, self.creates]


def ensure_set(
    snapshotter: Snapshotter,
    snapshots: Sequence[Mapping[str, Any]],
    on_error: str = STOP,
    prune: bool = False,
    prune_filters: Optional[Sequence[str]] = None,
) -> Outcome:
    """Each of ``snapshots``, the arguments of one ``ensure_snapshot`` each, is as it says.

    Parents are made before children and commits after what they commit; then
    removals follow, leaves first. ``prune`` removes what matches one of
    ``prune_filters``, is not listed, and is no parent, near or far, of a
    snapshot that is listed or stays. After a failure ``stop`` runs nothing
    more, ``continue`` all that does not depend on what failed.

    The result has ``outcomes`` in the order of the list, ``pruned`` in that of
    removal, ``kept`` (what matches and is needed: ``name``, and ``needed_by``,
    the names of its children that stay and of the items that name it),
    ``actions``, ``diff`` and ``failure`` (code, message and details; None if
    all went well). An outcome has ``name``, ``changed``, ``actions`` and ``snapshot`` (without
    its mounts, which grow with the chain of parents), or ``error``, or
    ``skipped`` (the reason); and ``warnings`` if there are any.

    Raises InvalidArgument, before anything is touched, for an item that is
    wrong in itself, items that contradict or wait for each other, and filters
    that do not parse.
    """
    if on_error not in (STOP, CONTINUE):
        raise InvalidArgument(f"on_error {on_error!r} is none of {STOP}, {CONTINUE}")
    if prune and not prune_filters:
        raise InvalidArgument(
            "prune needs prune_filters, which say what may be removed; the filter "
            '"" stands for every snapshot of the store that is not listed'
        )
    items = [_item(f"snapshots[{number}]", options) for number, options in enumerate(snapshots)]
    listed = _refuse_contradictions(items)
    parents = {info.name: info.parent for info in snapshotter.walk()}
    _refuse_removal_of_needed(items, listed, parents)
    doomed: List[str] = []
    kept: List[Dict[str, Any]] = []
    if prune:
        matching = [info.name for info in snapshotter.walk(*(prune_filters or ()))]
        doomed, kept = _select(matching, items, parents)
    removals = [item for item in items if item.state == ABSENT]
    removals += [_item(PRUNED, {"state": ABSENT, "key": name}) for name in doomed]
    plan = _in_order([item for item in items if item.state != ABSENT])
    plan += _in_order(_leaves_first(removals, parents))

    run = _Run(snapshotter, on_error == CONTINUE)
    for item in plan:
        run.apply(item)
    return run.outcome(items, [item for item in plan if item.place == PRUNED], kept)


# -- the plan ----------------------------------------------------------------


def _item(place: str, options: Mapping[str, Any]) -> _Item:
    """An entry of the list, if nothing is wrong with it whatever the store holds. Raises InvalidArgument."""
    state, key, name = options["state"], options.get("key", ""), options.get("name", "")
    parent, labels = options.get("parent") or "", options.get("labels") or {}
    shape = {option: value for option, value in options.items() if option not in ("parent", "labels", "purge_labels")}
    about = name if state == COMMITTED else key or name
    try:
        check_options(**shape)
        check_key(about, "name" if state == COMMITTED else "key")
        label_rules.validate(labels)
    except InvalidArgument as error:
        raise error.prefixed(place) from None
    source = key if state == COMMITTED and key != name else ""
    creates = options.get("creates", "")
    after = () if state == ABSENT else (parent, source)
    return _Item(place, about, state, parent, source, creates, options, after)


def _refuse_contradictions(items: Sequence[_Item]) -> Dict[str, _Item]:
    """The items by name. Raises InvalidArgument where two of them cannot both be meant."""
    listed: Dict[str, _Item] = {}
    for item in items:
        other = listed.setdefault(item.name, item)
        if other is not item:
            raise InvalidArgument(
                f'{other.place} and {item.place} are both about "{item.name}"; a list says once of each key or name '
                "what it shall be",
                name=item.name,
            )
    committers: Dict[str, _Item] = {}
    for item in items:
        maker = listed.get(item.parent) if item.state != ABSENT else None
        if maker is not None and maker.state in (ACTIVE, VIEW):
            raise InvalidArgument(
                f'{item.place}: its parent "{item.parent}" is {maker.state} according to {maker.place}; only a '
                "committed snapshot can be a parent",
                name=item.name,
            )
        if not item.source:
            continue
        other = committers.setdefault(item.source, item)
        if other is not item:
            raise InvalidArgument(
                f'{other.place} and {item.place} both commit "{item.source}"; it can become one of the two',
                name=item.source,
            )
        maker = listed.get(item.source)
        if maker is not None and not (maker.state == ACTIVE and maker.creates == item.name):
            raise InvalidArgument(
                f'{maker.place} and {item.place} are both about "{item.source}"; what a list commits as "{item.name}" '
                f"it may only prepare, with state={ACTIVE} and creates={item.name}",
                name=item.source,
            )
    return listed


def _lineage(name: str, parents: Mapping[str, str]) -> Iterator[str]:
    """``name`` and what the store has above it, nearest first."""
    seen: Set[str] = set()
    while name and name not in seen:
        yield name
        seen.add(name)
        name = parents.get(name, "")


def _refuse_removal_of_needed(items: Sequence[_Item], listed: Mapping[str, _Item], parents: Mapping[str, str]) -> None:
    stays: Set[str] = set()
    for item in items:
        for need in item.needs:
            for name in _lineage(need, parents):
                if name in stays:
                    break
                stays.add(name)
                remover = listed.get(name)
                if remover is not None and remover.state == ABSENT:
                    raise InvalidArgument(
                        f'{item.place} needs "{name}", which {remover.place} removes', name=name, needed_by=item.name
                    )


def _select(
    matching: Sequence[str], items: Sequence[_Item], parents: Mapping[str, str]
) -> Tuple[List[str], List[Dict[str, Any]]]:
    """Of the names that match the filters, those to prune, and those that are not listed but needed, with by whom."""
    candidates = set(matching).difference(item.name for item in items)
    going = candidates | {item.name for item in items if item.state == ABSENT}
    trees = {item.name for item in items if item.options.get("recursive")}
    if trees:
        going.update(name for name in parents if not trees.isdisjoint(_lineage(name, parents)))
    needs = [(name, parent) for name, parent in parents.items() if name not in going]
    needs += [(item.name, name) for item in items for name in item.needs]
    needed_by: Dict[str, Set[str]] = {}
    for first, need in needs:
        user = first
        for name in _lineage(need, parents):
            known = name in needed_by
            needed_by.setdefault(name, set()).add(user)
            if known:
                break
            user = name
    return (
        [name for name in matching if name in candidates and name not in needed_by],
        [
            {"name": name, "needed_by": sorted(needed_by[name])}
            for name in matching
            if name in candidates and name in needed_by
        ],
    )


def _leaves_first(removals: Sequence[_Item], parents: Mapping[str, str]) -> List[_Item]:
    """Each removal after those of all that the store has below it."""
    below: Dict[str, List[str]] = {item.name: [] for item in removals}
    for item in removals:
        above = next((name for name in _lineage(parents.get(item.name, ""), parents) if name in below), None)
        if above is not None:
            below[above].append(item.name)
    return [item._replace(after=tuple(below[item.name])) for item in removals]


def _in_order(items: Iterable[_Item]) -> List[_Item]:
    """Each item behind all that come before it. Raises InvalidArgument for a circle."""
    by_name = {item.name: item for item in items}
    waits = {item.name: [name for name in item.after if name in by_name] for item in by_name.values()}
    try:
        return [by_name[name] for name in graphlib.TopologicalSorter(waits).static_order()]
    except graphlib.CycleError as error:
        circle = [f'"{name}" ({by_name[name].place})' for name in error.args[1]]
        if len(circle) > 10:
            circle[9:-1] = ["..."]
        raise InvalidArgument(f"snapshots wait for each other in a circle: {' before '.join(circle)}") from None


# -- carrying it out ---------------------------------------------------------


class _Run:
    """What was done so far, and what came of it."""

    def __init__(self, snapshotter: Snapshotter, go_on: bool) -> None:
        self._snapshotter = snapshotter
        self._go_on = go_on
        self._entries: Dict[str, Dict[str, Any]] = {}
        self._actions: List[str] = []
        self._before: Dict[str, Any] = {}
        self._after: Dict[str, Any] = {}
        self._touched: Set[str] = set()
        self._failures: List[Tuple[_Item, SnapshotterError]] = []
        # Name of an item that failed or was not run -> name of the one that failed.
        self._causes: Dict[str, str] = {}

    def apply(self, item: _Item) -> None:
        """Run one item, unless a failure before it forbids that."""
        entry: Dict[str, Any] = {"name": item.name, "changed": False, "actions": []}
        self._entries[item.name] = entry
        cause = next((self._causes[name] for name in item.after if name in self._causes), None)
        if cause is None and self._failures and not self._go_on:
            cause = self._failures[0][0].name
        if cause is not None:
            self._causes[item.name] = cause
            entry["skipped"] = f'not run, because "{cause}" failed'
            return
        warned = len(self._snapshotter.warnings)
        try:
            changed, result = ensure_snapshot(self._snapshotter, **item.options)
        except Exception as error:  # noqa: BLE001 - not even a mistake of ours may hide what came of the others
            self._fail(item, translate(error, item.name, self._snapshotter.root))
        else:
            if result["snapshot"] is not None:
                del result["snapshot"]["mounts"]
            self._add_diff(result["diff"])
            self._actions += result["actions"]
            entry.update(changed=changed, actions=result["actions"], snapshot=result["snapshot"])
        if len(self._snapshotter.warnings) > warned:
            entry["warnings"] = self._snapshotter.warnings[warned:]

    def _fail(self, item: _Item, error: SnapshotterError) -> None:
        self._failures.append((item, error))
        self._causes[item.name] = item.name
        self._entries[item.name]["error"] = {"code": error.code, "message": error.message, "details": error.details}

    def _add_diff(self, diff: Mapping[str, Mapping[str, Any]]) -> None:
        """A commit takes away what an item before it made: the whole shows only the first and the last of each name."""
        before, after = diff["before"], diff["after"]
        if before == after:
            return
        for name in {**before, **after}:
            if name in before and name not in self._touched:
                self._before[name] = before[name]
            self._after.pop(name, None)
            self._touched.add(name)
        self._after.update(after)

    def outcome(self, items: Sequence[_Item], pruned: Sequence[_Item], kept: List[Dict[str, Any]]) -> Outcome:
        # Many items may have one thing to say; each has it in its own outcome.
        self._snapshotter.warnings = list(dict.fromkeys(self._snapshotter.warnings))
        return Outcome(
            bool(self._actions),
            {
                "outcomes": [self._entries[item.name] for item in items],
                "pruned": [self._entries[item.name] for item in pruned],
                "kept": kept,
                "actions": self._actions,
                "diff": {"before": self._before, "after": self._after},
                "failure": self._failure(),
            },
        )

    def _failure(self) -> Optional[Dict[str, Any]]:
        """The first failure, and how many there were."""
        if not self._failures:
            return None
        item, error = self._failures[0]
        failed, skipped = len(self._failures), len(self._causes) - len(self._failures)
        not_run = f" ({skipped} not run because of that)" if skipped else ""
        advice = f". {error.details['advice']}" if "advice" in error.details else ""
        return {
            "code": error.code,
            "message": f"{failed} of {len(self._entries)} snapshots failed{not_run}; the first: "
            f'{item.place}, "{item.name}": {error.message}{advice}',
            "details": {"name": item.name, "place": item.place, "failed": failed, "skipped": skipped},
        }
