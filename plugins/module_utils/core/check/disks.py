# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about disks: scratch disks, UVM scratch disks, templates, and their sizes."""

from __future__ import annotations

import os
from typing import Generator, Iterator

from .. import labels as label_rules
from ..errors import FailedPrecondition, NotImplementedHere, SnapshotterError, Unavailable
from ..layers.base import SCRATCH
from ..model import ACTIVE, Info, ScratchInfo
from .findings import Case
from .state import StoreState


def check_disks(state: StoreState, info: Info, directory: str) -> Iterator[Case]:
    """Report what is wrong with the disks of an active snapshot, or of a view that was mounted once."""
    options = _scratch_options(info)
    scratch = os.path.join(directory, SCRATCH)
    uvm = os.path.join(directory, "vm", SCRATCH)
    if options.uvm and info.kind == ACTIVE:
        if os.path.lexists(uvm):
            yield from check_disk(state, info, uvm)
        else:
            message = f'"{info.name}" has no UVM scratch disk'
            yield state.report("missing_uvm_scratch", message, info=info, path=uvm)
    if not os.path.lexists(scratch):
        yield state.report("missing_scratch", f'"{info.name}" has no scratch disk', info=info, path=scratch)
        return
    is_usable = yield from check_disk(state, info, scratch)
    if is_usable and info.kind == ACTIVE and options.size:
        yield from _check_size(state, info, directory, options.size)


def check_disk(state: StoreState, info: Info, path: str) -> Generator[Case, None, bool]:
    """Report what is wrong with one disk of a snapshot. Returns whether it can be read."""
    from ..formats.vhdx import copies

    try:
        damage = copies.check(path)
    except Unavailable:
        # Windows has an attached disk open exclusively, and repairs its log when it attaches it.
        return False
    except (FailedPrecondition, NotImplementedHere) as error:
        code = "damaged_scratch" if "is not a usable VHDX file" in error.message else "unreadable_scratch"
        yield state.report(code, f'A disk of "{info.name}": {error.message}', info=info, path=path)
        return False
    if damage:
        yield state.report(
            "damaged_scratch_copy",
            f'A disk of "{info.name}" can be used, but one of two copies is damaged: {", ".join(damage)}',
            lambda: _repair_disk(state, info, path),
            "rewritten from the good copy",
            info=info,
            path=path,
        )
    return True


def _check_size(state: StoreState, info: Info, directory: str, labelled: int) -> Iterator[Case]:
    """Report a scratch disk that is smaller than its label, or larger than both label and template."""
    scratch = state.layers.scratch_info(directory)
    if scratch is None or scratch.virtual_size == labelled:
        return
    try:
        template = state.layers.template_info(state.parent_directories(info))
    except SnapshotterError:
        return
    if scratch.virtual_size < labelled:
        yield state.report(
            "scratch_size",
            f'The scratch disk of "{info.name}" has {scratch.virtual_size} bytes, but its label says {labelled}',
            lambda: _grow(state, info, labelled),
            f"grown to {labelled} bytes",
            info=info,
            path=scratch.path,
        )
    elif scratch.virtual_size > max(labelled, template.virtual_size):
        yield state.report(
            "scratch_size",
            f'The scratch disk of "{info.name}" has {scratch.virtual_size} bytes, but its label says only {labelled}',
            lambda: _set_size_label(state, info, scratch),
            f"labelled with {scratch.virtual_size} bytes",
            info=info,
            path=scratch.path,
        )


def _scratch_options(info: Info) -> label_rules.ScratchOptions:
    """What the labels say now. An update may have made them invalid, which changes nothing on disk."""
    try:
        return label_rules.scratch_options(info.labels)
    except SnapshotterError:
        return label_rules.ScratchOptions(0, label_rules.UVM_SCRATCH in info.labels, [])


def _repair_disk(state: StoreState, info: Info, path: str) -> str:
    from ..formats.vhdx import copies

    with state.lock(info.id):
        copies.repair(path)
    return "rewritten from the good copy"


def _grow(state: StoreState, info: Info, size: int) -> str:
    grown = state.snapshots.grow_scratch(info.name, size)
    return f"grown to {grown.virtual_size} bytes"


def _set_size_label(state: StoreState, info: Info, scratch: ScratchInfo) -> str:
    label = label_rules.ROOTFS_SIZE_BYTES
    state.snapshots.update(info.name, {label: str(scratch.virtual_size)}, [f"labels.{label}"])
    return f"labelled with {scratch.virtual_size} bytes"
