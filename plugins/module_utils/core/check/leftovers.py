# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about leftover files: locks, uploads, unfinished metadata files."""

from __future__ import annotations

import functools
import os
import re
import time
from typing import Iterator, List, Sequence

from ..directories import ID
from ..failpoint import failpoint
from ..store import METADATA_FILE
from .findings import Case, NotRepaired
from .state import StoreState

#: The time in seconds after which an upload that no task has continued is abandoned.
ABANDONED_SECONDS = 24 * 3600


def check_locks(state: StoreState) -> Iterator[Case]:
    """Report lock files of ids that are no longer in use. They hold nothing, so one finding covers all of them."""
    directories, records = state.directories, state.records
    try:
        names = os.listdir(directories.locks)
    except FileNotFoundError:
        return
    stale = [
        int(name)
        for name in names
        if re.fullmatch(ID, name)
        and int(name) not in records.names
        and int(name) <= records.last_id
        and not os.path.lexists(directories.removal_directory(int(name)))
        and not os.path.lexists(directories.directory(int(name)))
        and not state.is_locked(int(name))
    ]
    if stale:
        yield state.report(
            "stale_locks",
            f"{len(stale)} lock files belong to snapshots that no longer exist",
            lambda: _delete_locks(state, stale),
            "deleted",
            path=directories.locks,
        )


def check_transport(state: StoreState) -> Iterator[Case]:
    """Report transport folders of layers that no process imports or exports."""
    top = state.directories.transport
    for name in sorted(os.listdir(top)) if os.path.isdir(top) else ():
        match = re.fullmatch(f"({ID})-(?:import|export)", name)
        if match is None or state.is_locked(int(match[1])):
            continue
        path = os.path.join(top, name)
        size = state.size(path)
        yield state.report(
            "leftover_transport",
            f"{state.display(path)} was left over by an interrupted import, commit or export",
            functools.partial(_discard_transport, state, int(match[1]), path),
            "deleted",
            path=path,
            reclaimable=size,
        )


def check_unfinished_files(state: StoreState, links: Sequence[str]) -> Iterator[Case]:
    """Report uploads that no task continues, then metadata files whose creation was interrupted."""
    unfinished_metadata = re.escape(METADATA_FILE) + "[.][0-9]+[.]new(?:-wal|-shm)?"
    if state.directories.incoming not in links:
        yield from _check_files(state, "abandoned_upload", state.directories.incoming, "[0-9a-f]{64}(?:[.]part)?")
    yield from _check_files(state, "abandoned_draft", state.root, unfinished_metadata)


def _check_files(state: StoreState, code: str, directory: str, pattern: str) -> Iterator[Case]:
    """Report the files whose name matches ``pattern`` and that no process has written to for a day."""
    oldest = time.time() - ABANDONED_SECONDS
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(directory, name)
        if not re.fullmatch(pattern, name):
            continue
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            # The process that made it has finished.
            continue
        if status.st_mtime < oldest:
            yield state.report(
                code,
                f"{state.display(path)} was left over; no process has written to it for a day",
                functools.partial(_delete, path, status.st_size),
                "deleted",
                path=path,
                reclaimable=status.st_size,
            )


def _delete_locks(state: StoreState, ids: List[int]) -> str:
    for layer_id in ids:
        # Windows does not delete an open file, so the lock is released first.
        state.lock(layer_id).release()
        state.directories.delete_lock(layer_id)
    return "deleted"


def _discard_transport(state: StoreState, layer_id: int, path: str) -> str:
    with state.lock(layer_id):
        failpoint("check.delete")
        state.layers.discard(path)
        failpoint("check.deleted")
    if layer_id not in state.records.names:
        state.directories.delete_lock(layer_id)
    return "deleted"


def _delete(path: str, size: int) -> str:
    if os.lstat(path).st_size != size:
        raise NotRepaired("a process writes to it again")
    from ..layers import filetree

    failpoint("check.delete")
    filetree.unlink(path)
    failpoint("check.deleted")
    return "deleted"
