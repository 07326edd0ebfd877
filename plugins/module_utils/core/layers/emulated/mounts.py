# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount a layer by copying: the merged tree to the target, and the differences back.

A mount of the layer directory ``D`` at ``/a/b`` is recorded in two files:

* ``D/sandbox.mounts.json`` lists the targets of ``D``;
* ``/a/.b.wcow-mount.json`` has the layer, its parents, the kind of the mount
  and its state. It decides: a target without it is not mounted.

The second file lies outside the store, where other users may write. It counts
only if the first one lists its target, and the parents are layers of the same
store.

``D/sandbox.mounts.lock`` is locked while a mount of ``D`` is made or undone.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ...errors import FailedPrecondition, Unavailable
from ...failpoint import failpoint
from ...files import sync_directory
from ...lock import FileLock
from .. import filetree, mount_rules, protection
from . import contents, small_files
from .drives import display_path

MOUNTS = "sandbox.mounts.json"
LOCK = "sandbox.mounts.lock"

#: A record: ``directory``, ``parents``, ``target``, ``read_only`` and ``state``.
Record = Dict[str, Any]

# The states of a record. It is written before the target is touched, and says
# SAVED once the scratch has everything that was written at the target.
_FILLING = "filling"
_MOUNTED = "mounted"
_SAVED = "saved"


def mount(directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
    """See ``LayerStore.mount``. Raises OSError, too."""
    mount_rules.check_target(target, [directory, *parents], _is_recorded, display_path)
    wanted = {
        "directory": os.path.realpath(directory),
        "parents": [os.path.realpath(parent) for parent in parents],
        "target": target,
        "read_only": read_only,
    }
    with _lock(directory):
        for record in _records(directory):
            if record["state"] == _MOUNTED:
                if {**record, **wanted} == record:
                    return
                raise FailedPrecondition(
                    f"{display_path(directory)} is mounted at {display_path(record['target'])} already"
                    f" ({'read-only' if record['read_only'] else 'for writing'}): unmount it first"
                )
            # An ended process left the mount half made or half undone.
            _refuse_forged(record, target)
            _undo(record)
        other = _read_record(target)
        if other:
            raise FailedPrecondition(
                f"{display_path(target)} is a mount of {display_path(other['directory'])} already: unmount it first"
            )
        if not read_only:
            mount_rules.check_writable(directory, parents, display_path)
        tree = contents.merge(parents)
        own = contents.find(directory)
        filetree.overlay(tree, contents.read(own), contents.read_tombstones(own))
        created = mount_rules.make_target(target, display_path)
        try:
            small_files.write_json(os.path.join(directory, MOUNTS), [*targets(directory), target])
            _fill(tree, wanted)
        except BaseException:
            # If another thread or process was faster, the target is its own now.
            if created and not _is_recorded(target):
                with contextlib.suppress(OSError):
                    os.rmdir(target)
            raise


def _fill(tree: filetree.Node, wanted: Record) -> None:
    """Record a mount and write its tree to the empty target; on an error undo both."""
    target = wanted["target"]
    filling = {**wanted, "state": _FILLING}
    failpoint("mount.claim")
    small_files.create_json(record_path(target), filling)
    failpoint("mount.fill")
    try:
        filetree.write_children(tree, target, read_only=wanted["read_only"])
        # After a power cut, an unmount would take files that were not durable as deleted.
        filetree.sync(target)
        failpoint("mount.filled")
        small_files.write_json(record_path(target), {**wanted, "state": _MOUNTED})
    except BaseException:
        _undo(filling)
        raise


def unmount(target: str) -> None:
    """See ``LayerStore.unmount``. Raises OSError, too."""
    record = _read_record(target)
    if not record:
        return
    _refuse_forged(record, target)
    with _lock(record["directory"]):
        # Another process may have unmounted it since.
        record = _read_record(target)
        if record:
            _refuse_forged(record, target)
            _undo({**record, "target": target})


def _refuse_forged(record: Record, target: str) -> None:
    """Raise FailedPrecondition if no layer knows the mount that a record describes: nothing of it may be touched."""
    directory = record["directory"]
    if not os.path.isdir(directory):
        raise FailedPrecondition(
            f"the layer {display_path(directory)} is gone, so there is no place for what was written to "
            f"{display_path(target)}: move it elsewhere and delete {display_path(record_path(target))}"
        )
    listed = [os.path.realpath(each) for each in _listed(directory)]
    layers = [directory, *record["parents"]]
    if (
        os.path.realpath(target) not in listed
        or os.path.realpath(record["target"]) != os.path.realpath(target)
        or any(os.path.dirname(layer) != os.path.dirname(directory) for layer in layers)
        or protection.fault(directory)
    ):
        raise FailedPrecondition(
            f"{display_path(record_path(target))} is not the record of a mount: {display_path(directory)} does not "
            f"list {display_path(target)} as its target. Nothing was changed; delete the file if another user made it"
        )


def _undo(record: Record) -> None:
    """Undo a mount in any state; an interrupted call can be repeated."""
    target, directory = record["target"], record["directory"]
    path = record_path(target)
    if os.path.isdir(target):
        if record["state"] == _MOUNTED:
            if not record["read_only"]:
                contents.save(directory, record["parents"], target)
            failpoint("unmount.saved")
            small_files.write_json(path, {**record, "state": _SAVED})
        failpoint("unmount.empty")
        filetree.empty(target)
    failpoint("unmount.forget")
    os.unlink(path)
    failpoint("unmount.forgotten")
    sync_directory(os.path.dirname(path))
    if os.path.isdir(directory):
        small_files.write_json(os.path.join(directory, MOUNTS), targets(directory))


# -- what is mounted -----------------------------------------------------------


def layer_of(target: str) -> Optional[str]:
    """See ``LayerStore.mounted_layer``."""
    record = _read_record(target)
    return record["directory"] if record else None


def targets(directory: str) -> List[str]:
    """See ``LayerStore.mounted_at``."""
    return [record["target"] for record in _records(directory)]


def is_complete(target: str) -> bool:
    """Whether a target has a mount that is neither half made nor half undone."""
    record = _read_record(target)
    return record is not None and record["state"] == _MOUNTED


def interrupted(directory: str) -> List[str]:
    """The targets of the mounts of a layer that are half made or half undone."""
    return [record["target"] for record in _records(directory) if record["state"] != _MOUNTED]


def refuse_mounted_for_writing(directory: str) -> None:
    """Raise FailedPrecondition if a layer is mounted for writing."""
    for record in _records(directory):
        if not record["read_only"]:
            raise FailedPrecondition(
                f"{display_path(directory)} is mounted for writing at {display_path(record['target'])}:"
                " unmount it first"
            )


def _records(directory: str) -> List[Record]:
    """The records of a layer's mounts: those that the layer lists and that name the layer."""
    listed = _listed(directory)
    if not listed:
        return []
    records = [_read_record(target) for target in listed]
    real = os.path.realpath(directory)
    return [record for record in records if record and record["directory"] == real]


def _listed(directory: str) -> List[str]:
    """The targets that a layer lists."""
    path = os.path.join(directory, MOUNTS)
    listed = small_files.read_json(path) or []
    if not _are_texts(listed):
        raise small_files.damaged(path)
    return list(listed)


def _read_record(target: str) -> Optional[Record]:
    path = record_path(target)
    record = small_files.read_json(path)
    if record is None:
        return None
    is_complete = isinstance(record, dict) and (
        _are_texts([record.get("directory"), record.get("target")])
        and _are_texts(record.get("parents"))
        and isinstance(record.get("read_only"), bool)
        and record.get("state") in (_FILLING, _MOUNTED, _SAVED)
    )
    if not is_complete:
        raise small_files.damaged(path)
    return dict(record)


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def record_path(target: str) -> str:
    """The path of the record of a mount."""
    return os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.wcow-mount.json")


def _is_recorded(target: str) -> bool:
    return os.path.lexists(record_path(target))


@contextlib.contextmanager
def _lock(directory: str) -> Iterator[None]:
    """Keep other threads and processes from mounting or unmounting the same layer. Raises Unavailable."""
    lock = FileLock(os.path.join(directory, LOCK))
    # If the layer is gone, so is its directory, and there is nothing to protect.
    if os.path.isdir(directory) and not lock.acquire():
        raise Unavailable(f"{display_path(directory)} is being mounted or unmounted by another process: try again")
    with lock:
        yield
