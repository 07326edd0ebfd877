# Copyright (c) 2026 wcow.store maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of many snapshots: a plan that is checked as a whole, then one snapshot at a time.

Each snapshot has transactions of its own, because none may be open for longer
than the copy of a template takes. What was done before an interruption stays
done, and the next run finds it.
"""

from __future__ import annotations

import contextlib
import graphlib
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from .. import labels as label_rules
from ..errors import FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from ..keys import check_key
from ..lineage import Lineage
from ..model import ACTIVE, COMMITTED, VIEW
from ..outcome import Outcome, translate
from .parent import find_parent
from .result import ABSENT
from .snapshot import check_options, ensure_snapshot

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore

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
        """The names that this item needs or creates; none for a removal."""
        return [] if self.state == ABSENT else [self.name, self.parent, self.source, self.creates]


def ensure_set(
    store: SnapshotStore,
    snapshots: Sequence[Mapping[str, Any]],
    on_error: str = STOP,
    prune: bool = False,
    prune_filters: Optional[Sequence[str]] = None,
) -> Outcome:
    """Make each of ``snapshots`` what it states; an item has the arguments of one ``ensure_snapshot``.

    Parents come before children, and commits after the snapshots that they
    commit. Removals follow, leaves first. ``prune`` removes each snapshot that
    matches one of ``prune_filters``, is not listed, and is not an ancestor of
    a snapshot that is listed or stays. After a failure, ``stop`` runs nothing
    more; ``continue`` runs every item that does not depend on a failed one.

    The result has ``outcomes`` in the order of the list, ``pruned`` in the
    order of removal, ``actions``, ``diff``, ``failure`` (code, message and
    details; None without a failure) and ``kept``: snapshots that match and are
    needed, each with ``name`` and ``needed_by``, the names of its children
    that stay and of the items that name it. An outcome has ``name``,
    ``changed``, ``actions`` and ``snapshot`` (without its mounts, which grow
    with the chain of parents); or ``error``; or ``skipped``, the reason; and
    ``warnings`` if there are any.

    Raises InvalidArgument, before anything is touched, for an item that is
    wrong in itself, for items that contradict or wait for each other, and for
    filters that cannot be parsed.
    """
    if on_error not in (STOP, CONTINUE):
        raise InvalidArgument(f"on_error {on_error!r} is not one of {STOP}, {CONTINUE}")
    if prune and not prune_filters:
        raise InvalidArgument(
            "prune needs prune_filters, which say what may be removed; the filter "
            '"" stands for every snapshot of the store that is not listed'
        )
    items = [_item(f"snapshots[{number}]", options, store) for number, options in enumerate(snapshots)]
    listed = _refuse_contradictions(items)
    lineage = Lineage({info.name: info.parent for info in store.walk()})
    _refuse_removal_of_needed(items, listed, lineage)
    doomed: List[str] = []
    kept: List[Dict[str, Any]] = []
    if prune:
        _refuse_mistakes(prune_filters or ())
        matching = [info.name for info in store.walk(*(prune_filters or ()))]
        doomed, kept = _select(matching, items, lineage, store.users(matching))
    removals = [item for item in items if item.state == ABSENT]
    removals += [_item(PRUNED, {"state": ABSENT, "key": name}) for name in doomed]
    plan = _in_order([item for item in items if item.state != ABSENT])
    plan += _in_order(_leaves_first(removals, lineage))

    run = _Run(store, on_error == CONTINUE)
    for item in plan:
        run.apply(item)
    return run.outcome(items, [item for item in plan if item.place == PRUNED], kept)


# -- the plan ----------------------------------------------------------------


def _refuse_mistakes(filters: Sequence[str]) -> None:
    """Raise InvalidArgument for a filter with an unknown field: with ``!=`` it matches everything, else nothing."""
    from ..filters.language import parse_all

    mistakes = parse_all(filters).mistakes()
    if mistakes:
        raise InvalidArgument(f"prune_filters: {mistakes[0]}")


def _item(place: str, options: Mapping[str, Any], store: Optional[SnapshotStore] = None) -> _Item:
    """Return one entry of the list. Raises InvalidArgument for one that is wrong in any store.

    ``store`` knows the top layers of images. An image that it does not know is the failure of its item.
    """
    state, key, name = options["state"], options.get("key", ""), options.get("name", "")
    parent, labels = options.get("parent") or "", options.get("labels") or {}
    shape = {option: value for option, value in options.items() if option not in ("labels", "purge_labels")}
    about = name if state == COMMITTED else key or name
    try:
        check_options(**shape)
        check_key(about, "name" if state == COMMITTED else "key")
        label_rules.validate(labels)
        if store and state != ABSENT and options.get("parent_image"):
            with contextlib.suppress(NotFound, FailedPrecondition):
                parent = find_parent(store, options["parent_image"], None)
    except InvalidArgument as error:
        raise error.with_context(place) from None
    source = key if state == COMMITTED and key != name else ""
    creates = options.get("creates", "")
    after = () if state == ABSENT else (parent, source)
    return _Item(place, about, state, parent, source, creates, options, after)


def _refuse_contradictions(items: Sequence[_Item]) -> Dict[str, _Item]:
    """Return the items by name. Raises InvalidArgument for items that contradict each other."""
    listed: Dict[str, _Item] = {}
    for item in items:
        other = listed.setdefault(item.name, item)
        if other is not item:
            raise InvalidArgument(
                f'{other.place} and {item.place} are both about "{item.name}"; list each key or name once',
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


def _refuse_removal_of_needed(items: Sequence[_Item], listed: Mapping[str, _Item], lineage: Lineage) -> None:
    stays: Set[str] = set()
    for item in items:
        for need in item.needs:
            for name in lineage.with_ancestors(need):
                if name in stays:
                    break
                stays.add(name)
                remover = listed.get(name)
                if remover is not None and remover.state == ABSENT:
                    raise InvalidArgument(
                        f'{item.place} needs "{name}", which {remover.place} removes', name=name, needed_by=item.name
                    )


def _select(
    matching: Sequence[str], items: Sequence[_Item], lineage: Lineage, users: Mapping[str, Sequence[str]]
) -> Tuple[List[str], List[Dict[str, Any]]]:
    """Return the matching names to prune, and those that are needed, each with what needs it."""
    candidates = set(matching).difference(item.name for item in items)
    going = candidates | {item.name for item in items if item.state == ABSENT}
    trees = {item.name for item in items if item.options.get("recursive")}
    if trees:
        going.update(name for name in lineage.parents if not trees.isdisjoint(lineage.with_ancestors(name)))
    needs = [(name, parent) for name, parent in lineage.parents.items() if name not in going]
    needs += [(item.name, name) for item in items for name in item.needs]
    needs += [(user, name) for name in matching for user in users.get(name, ())]
    needed_by: Dict[str, Set[str]] = {}
    for first, need in needs:
        user = first
        for name in lineage.with_ancestors(need):
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


def _leaves_first(removals: Sequence[_Item], lineage: Lineage) -> List[_Item]:
    """Return the removals; each waits for the removals of its descendants."""
    below: Dict[str, List[str]] = {item.name: [] for item in removals}
    for item in removals:
        above = next(
            (name for name in lineage.with_ancestors(lineage.parents.get(item.name, "")) if name in below), None
        )
        if above is not None:
            below[above].append(item.name)
    return [item._replace(after=tuple(below[item.name])) for item in removals]


def _in_order(items: Iterable[_Item]) -> List[_Item]:
    """Return the items in an order that fits their dependencies. Raises InvalidArgument for a cycle."""
    by_name = {item.name: item for item in items}
    waits = {item.name: [name for name in item.after if name in by_name] for item in by_name.values()}
    try:
        return [by_name[name] for name in graphlib.TopologicalSorter(waits).static_order()]
    except graphlib.CycleError as error:
        cycle = [f'"{name}" ({by_name[name].place})' for name in error.args[1]]
        if len(cycle) > 10:
            cycle[9:-1] = ["..."]
        raise InvalidArgument(f"snapshots wait for each other in a cycle: {' before '.join(cycle)}") from None


# -- carrying it out ---------------------------------------------------------


class _Run:
    """The execution of a plan: what was done, and the result of each item."""

    def __init__(self, store: SnapshotStore, go_on: bool) -> None:
        self._store = store
        self._go_on = go_on
        self._entries: Dict[str, Dict[str, Any]] = {}
        self._actions: List[str] = []
        self._before: Dict[str, Any] = {}
        self._after: Dict[str, Any] = {}
        self._touched: Set[str] = set()
        self._failures: List[Tuple[_Item, SnapshotterError]] = []
        # Name of an item that failed or was skipped -> name of the item that failed.
        self._causes: Dict[str, str] = {}
        # Parent that does not exist -> name of the item that failed because of that.
        self._missing: Dict[str, str] = {}

    def apply(self, item: _Item) -> None:
        """Run one item, unless an earlier failure forbids it."""
        entry: Dict[str, Any] = {"name": item.name, "changed": False, "actions": []}
        self._entries[item.name] = entry
        cause = next((self._causes[name] for name in item.after if name in self._causes), None)
        if cause is None and self._failures and not self._go_on:
            cause = self._failures[0][0].name
        if cause is not None:
            self._causes[item.name] = cause
            entry["skipped"] = f'not run, because "{cause}" failed'
            return
        if item.parent in self._missing:
            # One missing parent is one failure, however many items name it.
            self._causes[item.name] = self._missing[item.parent]
            entry["skipped"] = f'not run, because its parent "{item.parent}" does not exist'
            return
        warned = len(self._store.warnings)
        try:
            changed, result = ensure_snapshot(self._store, **item.options)
        except Exception as error:  # noqa: BLE001 - a defect in one item must not hide the results of the others
            self._fail(item, translate(error, item.name, self._store.root))
        else:
            if result["snapshot"] is not None:
                del result["snapshot"]["mounts"]
            self._add_diff(result["diff"])
            self._actions += result["actions"]
            entry.update(changed=changed, actions=result["actions"], snapshot=result["snapshot"])
        if len(self._store.warnings) > warned:
            entry["warnings"] = self._store.warnings[warned:]

    def _fail(self, item: _Item, error: SnapshotterError) -> None:
        self._failures.append((item, error))
        self._causes[item.name] = item.name
        if isinstance(error, NotFound) and item.parent and error.details.get("parent") == item.parent:
            self._missing[item.parent] = item.name
        self._entries[item.name]["error"] = {"code": error.code, "message": error.message, "details": error.details}

    def _add_diff(self, diff: Mapping[str, Mapping[str, Any]]) -> None:
        """Add the difference of one item. Of each name the whole shows only the first and the last state."""
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
        # Several items can have the same warning. Each keeps it in its own outcome.
        self._store.warnings = list(dict.fromkeys(self._store.warnings))
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
        """Return the first failure, and the number of failures; None without one."""
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
