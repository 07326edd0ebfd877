# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a check: look at each subject, look again, repair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator, Sequence

from ..errors import SnapshotterError
from .directories import check_directories
from .findings import WOULD_BE, Case, Finding, NotRepaired, Report, refuse_unknown
from .leftovers import check_locks, check_transport, check_unfinished_files
from .metadata import check_metadata
from .protection import PROTECTION, check_contents, check_links, check_protection
from .service import check_service
from .snapshots import check_snapshot
from .state import StoreState
from .volume import check_volume, measure_space

if TYPE_CHECKING:
    from ..store import OwnSnapshots


def check(
    snapshots: OwnSnapshots,
    *,
    repair: bool = False,
    quick: bool = False,
    minimum_free: int = 0,
    at_restart: bool = False,
    only: Sequence[str] = (),
) -> Report:
    """Look for every problem in ``CODES``; with ``repair``, repair what can be repaired safely.

    ``quick`` leaves out what has to visit all files of all layers (usage and
    link counts). ``minimum_free``: bytes that should be free on the volume.
    ``at_restart``: what cannot be destroyed now is scheduled for the next
    start of the node. ``only``: the codes to report and repair, all if empty;
    ``unknown_directory`` is repaired, that is destroyed, only if it is named
    here. In check mode ``repair`` only says what it would do. Waits no longer
    than writers do, then raises Unavailable. Raises InvalidArgument for an
    unknown code.
    """
    refuse_unknown(only)
    with StoreState(
        snapshots,
        quick=quick,
        minimum_free=minimum_free,
        at_restart=at_restart,
        destroy_unknown="unknown_directory" in only,
    ) as state:
        suspected = list(_check_subjects(state))
        cases = [case for case in suspected if _is_current(state, case.finding)]
        cases = [case for case in cases if not only or case.finding.code in only]
        findings = [case.finding for case in cases]
        if repair:
            # Protection first, because no other repair works in a store that is not safe.
            for at in sorted(range(len(cases)), key=lambda at: cases[at].finding.code not in PROTECTION):
                findings[at] = _repair(state, cases[at])
        free, total = measure_space(snapshots.root)
        return Report(state.exists, len(state.records.infos), findings, free, total, state.served)


def _check_subjects(state: StoreState) -> Iterator[Case]:
    """All cases: of links, metadata, directories, snapshots by name, leftovers, protection, the volume, the service."""
    links = yield from check_links(state)
    if state.directories.snapshots not in links and state.metadata_path not in links:
        yield from check_metadata(state)
        if state.records.are_loaded:
            yield from check_contents(state, state.directories.snapshots)
            yield from check_directories(state)
            for info in state.records.infos.values():
                yield from check_snapshot(state, info)
            if state.directories.locks not in links:
                yield from check_contents(state, state.directories.locks)
                yield from check_locks(state)
                if state.directories.transport not in links:
                    yield from check_transport(state)
    if state.directories.incoming not in links:
        yield from check_contents(state, state.directories.incoming)
    yield from check_unfinished_files(state, links)
    yield from check_protection(state)
    yield from check_volume(state)
    yield from check_service(state)


def _is_current(state: StoreState, finding: Finding) -> bool:
    """Whether no running process has changed the snapshot of a finding since it was found."""
    return finding.id is None or state.records.is_current(finding.id, finding.snapshot)


def _repair(state: StoreState, case: Case) -> Finding:
    """The finding after its repair."""
    finding = case.finding
    if case.repair is None:
        return finding
    if state.snapshots.dry_run:
        return finding._replace(action=WOULD_BE + case.plan)
    try:
        state.snapshots.store.refuse_containerd()
        if finding.code not in PROTECTION:
            state.snapshots.store.refuse_unsafe()
        return finding._replace(repaired=True, action=case.repair())
    except NotRepaired as reason:
        return finding._replace(action=f"not repaired: {reason}")
    except SnapshotterError as error:
        return finding._replace(action=f"not repaired: {error.message}")
    except OSError as error:
        return finding._replace(action=f"not repaired: {error.strerror or error}")
