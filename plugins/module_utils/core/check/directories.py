# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about the entries of ``snapshots``: removal directories, directories without a record, other entries."""

from __future__ import annotations

import os
import re
from typing import Iterator, List, Tuple

from ..directories import ID
from ..layers.base import is_directory
from ..model import VIEW, Info
from .destruction import destroy
from .findings import Case
from .state import StoreState

_REMOVAL = "rm-"


def check_directories(state: StoreState) -> Iterator[Case]:
    """Report what is not a layer of this store, then removal directories and directories without a record, by id."""
    top = state.directories.snapshots
    layers: List[Tuple[int, str]] = []
    for name in sorted(os.listdir(top)) if os.path.lexists(top) else ():
        path = os.path.join(top, name)
        match = re.fullmatch(f"(?:{_REMOVAL})?({ID})", name)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            # Running processes create, rename and destroy meanwhile.
            continue
        if state.directories.is_marker(name):
            continue
        if match is None or not is_directory(status):
            yield state.report("foreign_entry", f"{state.display(path)} is not a layer of this store", path=path)
        else:
            layers.append((int(match[1]), name))
    for layer_id, name in sorted(layers):
        if layer_id not in state.records.names:
            yield from _check_unrecorded(state, layer_id, os.path.join(top, name))
        elif name.startswith(_REMOVAL) and not state.is_locked(layer_id):
            yield _check_removal(state, state.records.infos[state.records.names[layer_id]], os.path.join(top, name))


def _check_removal(state: StoreState, info: Info, path: str) -> Case:
    """The finding about the removal directory ``path`` of a snapshot that has its record."""
    shown = state.display(path)
    # An interrupted mount of a view leaves a directory of that name too; the repair knows the difference.
    if info.kind != VIEW and os.path.lexists(state.directories.directory(info.id)):
        message = f'{shown} has the id of "{info.name}", whose layer is in place; no task deletes it'
        return state.report("unknown_directory", message, info=info, path=path)
    return state.report(
        "interrupted_removal",
        f'{shown} belongs to "{info.name}": its removal or mount was interrupted',
        lambda: _put_back(state, info),
        "renamed back",
        info=info,
        path=path,
    )


def _check_unrecorded(state: StoreState, layer_id: int, path: str) -> Iterator[Case]:
    """Report a directory whose id has no record, unless a process works on it."""
    records = state.records
    is_beyond = layer_id > records.last_id + 1
    if not is_beyond and (state.is_locked(layer_id) or (layer_id > records.last_id and records.are_being_written())):
        return
    if records.has_lost:
        code, problem = "unknown_directory", "has no record, and records were lost"
    elif is_beyond:
        code, problem = "unknown_directory", "has no record, and this metadata has never given out its id"
    elif os.path.basename(path).startswith(_REMOVAL):
        code, problem = "leftover_removal", "waits to be destroyed"
    elif state.directories.is_unfinished(layer_id):
        code, problem = "orphan_directory", "has no record: its creation was interrupted"
    else:
        code = "unknown_directory"
        problem = "has no record, but was in use: this metadata is older, or was created after it"
    is_repairable = code != "unknown_directory" or state.destroy_unknown
    yield state.report(
        code,
        f"{state.display(path)} {problem}",
        (lambda: _destroy(state, layer_id)) if is_repairable else None,
        "destroyed",
        layer_id=layer_id,
        path=path,
        reclaimable=state.size(path) if is_repairable else 0,
    )


def _put_back(state: StoreState, info: Info) -> str:
    with state.records.change_recorded(info), state.lock(info.id):
        state.directories.recover(info.id, info.kind)
    return "deleted: a view has no files of its own" if info.kind == VIEW else "renamed back"


def _destroy(state: StoreState, layer_id: int) -> str:
    """Destroy the directories of an id that has no record."""
    removal = state.directories.removal_directory(layer_id)
    with state.records.change_unrecorded(layer_id):
        lock = state.lock(layer_id)
        try:
            if not os.path.lexists(removal):
                state.directories.begin_removal(layer_id)
            state.directories.finish_layer(layer_id)
        except BaseException:
            lock.release()
            raise
    with lock:
        destroy(state.layers, removal, state.at_restart)
    state.directories.delete_lock(layer_id)
    return "destroyed"
