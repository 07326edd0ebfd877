# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about the metadata file itself."""

from __future__ import annotations

from typing import Iterator

from ..errors import Damaged
from ..records import Records
from .findings import Case
from .state import StoreState


def check_metadata(state: StoreState) -> Iterator[Case]:
    """Load the records and report what is wrong with their file. Nothing is loaded from a missing or damaged file."""
    records, path = state.records, state.metadata_path
    if not state.exists:
        lost = state.snapshots.store.count_lost_layers()
        if lost:
            # Layers without metadata: neither an empty store nor a missing one.
            state.exists = True
            message = f"{state.display(path)} is missing, but there are {lost} layers"
            yield state.report("metadata_missing", message, path=path)
        return
    try:
        damage = records.load()
    except Damaged as error:
        yield state.report("metadata_damaged", error.message, path=path)
        return
    for problem in damage.beyond_repair:
        yield state.report("metadata_damaged", f"The metadata is damaged: {problem}", path=path)
    if not records.are_loaded:
        return
    for problem in damage.indexes:
        yield state.report(
            "metadata_index",
            f"An index of the metadata disagrees with the records: {problem}",
            lambda: _rebuild_indexes(records),
            "rebuilt",
            path=path,
        )
    if records.last_id >= records.next_id:
        yield state.report(
            "id_reuse",
            f"The next snapshot would get the id {records.next_id}, but {records.last_id} is in use",
            lambda: _skip_ids(records),
            "skipped",
            path=path,
        )


def _rebuild_indexes(records: Records) -> str:
    records.rebuild_indexes()
    return "rebuilt"


def _skip_ids(records: Records) -> str:
    records.skip_ids(records.last_id)
    return "skipped"
