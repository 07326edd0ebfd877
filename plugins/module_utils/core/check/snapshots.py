# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about one snapshot: interrupted commit or import, chain of parents, layer, attachment."""

from __future__ import annotations

import os
import re
from typing import Iterator, Optional

from ..errors import SnapshotterError
from ..keys import IMPORT_KEY, is_unpack_key
from ..layers.base import BLANK, FILES
from ..model import ACTIVE, COMMITTED, VIEW, Info, Usage
from .disks import check_disk, check_disks
from .findings import Case
from .state import StoreState

#: NTFS allows 1,024 names of one file (CreateHardLink documentation); layers add names with every UtilityVM clone.
LINK_LIMIT = 1023
_LINKS_NEAR = 1000


def check_snapshot(state: StoreState, info: Info) -> Iterator[Case]:
    """Report what is wrong with one snapshot, nothing while a process works on it."""
    directory = state.directories.directory(info.id)
    if state.is_locked(info.id):
        # That process leaves the snapshot complete, or recognisable as unfinished.
        return
    owner = state.records.owner(info)
    if owner:
        yield state.report(
            "stale_mark",
            f'"{info.name}" is marked as being committed by {owner}, which has ended',
            lambda: _clear_owner(state, info),
            "cleared",
            info=info,
            path=directory,
        )
    if info.kind == ACTIVE and re.fullmatch(IMPORT_KEY, info.name):
        yield state.report(
            "abandoned_import",
            f'"{info.name}" was left by an interrupted import',
            lambda: _remove(state, info),
            "removed",
            info=info,
            path=directory,
            reclaimable=state.size(directory),
        )
        return
    break_in_chain = _check_chain(state, info)
    if break_in_chain is not None:
        yield break_in_chain
    elif os.path.isdir(directory):
        yield from _check_attachment(state, info, directory)
        if info.kind == COMMITTED:
            yield from _check_layer(state, info, directory)
        elif info.parent and not is_unpack_key(info.name):
            yield from check_disks(state, info, directory)
    elif info.kind != VIEW and not state.has_layer(info.id):
        message = f'The layer of "{info.name}" ({info.kind}) is missing'
        yield state.report("missing_directory", message, info=info, path=directory)


def _check_chain(state: StoreState, info: Info) -> Optional[Case]:
    """The finding about the nearest parent without a record or a layer; None if all parents have both."""
    lineage = state.records.lineage
    parent, problem = info.name, ""
    for parent in lineage.with_ancestors(info.parent):
        above = state.records.infos.get(parent)
        if above is None or parent == info.name:
            problem = "has no record" if above is None else "is its own ancestor"
            break
        if not state.has_layer(above.id):
            return state.report(
                "broken_chain",
                f'"{info.name}" is based on "{above.name}", whose layer is missing',
                info=info,
                path=state.directories.directory(above.id),
            )
    else:
        # A walk that stops below the top has come back to a name that it has visited.
        parent = lineage.parents.get(parent, "")
        problem = "is its own ancestor" if info.parent and parent else ""
    if problem:
        return state.report("broken_chain", f'"{info.name}" is based on "{parent}", which {problem}', info=info)
    return None


def _check_attachment(state: StoreState, info: Info, directory: str) -> Iterator[Case]:
    interrupted = state.layers.interrupted_work(directory)
    if interrupted:
        yield state.report(
            "attached_unused",
            f'"{info.name}": {interrupted}, and no process works on it',
            lambda: _finish_interrupted_work(state, info, directory),
            "detached",
            info=info,
            path=directory,
        )


def _check_layer(state: StoreState, info: Info, directory: str) -> Iterator[Case]:
    """Report what a committed layer lacks and what its files show, the latter not if ``quick``."""
    template = os.path.join(directory, BLANK)
    if not os.path.isdir(os.path.join(directory, FILES)):
        message = f'The layer of "{info.name}" has no {FILES}'
        yield state.report("incomplete_layer", message, info=info, path=directory)
    elif not info.parent and not os.path.lexists(template):
        message = f'The base layer "{info.name}" has no {BLANK}, the template of scratch disks'
        yield state.report("incomplete_layer", message, info=info, path=template)
    elif not info.parent:
        yield from check_disk(state, info, template)
    if not state.quick:
        yield from _check_files(state, info, directory)


def _check_files(state: StoreState, info: Info, directory: str) -> Iterator[Case]:
    """Report what a visit of all files of a committed layer shows."""
    try:
        measurement = state.layers.measure(directory)
    except SnapshotterError as error:
        message = f'"{info.name}" cannot be read: {error.message}'
        yield state.report("incomplete_layer", message, info=info, path=directory)
        return
    recorded, usage = state.records.usage(info), measurement.usage
    if usage != recorded:
        yield state.report(
            "usage_drift",
            f'"{info.name}" is recorded with {recorded.size} bytes in {recorded.inodes} files, '
            f"but has {usage.size} bytes in {usage.inodes}",
            lambda: _set_usage(state, info, usage),
            "set to the measured usage",
            info=info,
            path=directory,
        )
    if measurement.links >= _LINKS_NEAR:
        yield state.report(
            "links_near_limit",
            f'{state.display(measurement.most_linked)} of "{info.name}" has {measurement.links} names; '
            f"NTFS allows {LINK_LIMIT}",
            info=info,
            path=measurement.most_linked,
        )


def _clear_owner(state: StoreState, info: Info) -> str:
    state.records.clear_owner(info, state.lock)
    return "cleared"


def _remove(state: StoreState, info: Info) -> str:
    state.snapshots.remove(info.name)
    return "removed"


def _finish_interrupted_work(state: StoreState, info: Info, directory: str) -> str:
    with state.lock(info.id):
        state.layers.finish_interrupted_work(directory)
    return "detached"


def _set_usage(state: StoreState, info: Info, usage: Usage) -> str:
    state.records.set_usage(info, usage)
    return "set to the measured usage"
