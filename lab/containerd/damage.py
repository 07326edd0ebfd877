# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage the store of a simulated containerd, in the ways in which a real one gets damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..bolt import Bucket
from . import messages, records
from .calls import Call
from .sample import NAMESPACE
from .simulation import Simulation
from .snapshotter import ACTIVE, COMMITTED, NAME, Record, WindowsSnapshotter

_PACKAGE = "containerd.services.snapshots.v1"
_PrepareRequest = messages.message(f"{_PACKAGE}.PrepareSnapshotRequest")
_CommitRequest = messages.message(f"{_PACKAGE}.CommitSnapshotRequest")

#: This label keeps the collector from deleting a snapshot.
_ROOT = {"containerd.io/gc.root": "damage"}


class NothingToDamage(Exception):
    """The store has no committed snapshot."""


def damage(simulation: Simulation, kind: str) -> str:
    """Damage a store that is not served. ``kind`` is one of ``node.DAMAGES``. Returns a sentence about what was done.

    Each call adds damage. Raises NothingToDamage.
    """
    snapshotter = simulation.store.snapshotter
    bases = [record for record in snapshotter.records() if record.kind == COMMITTED and not record.parent]
    if not bases:
        raise NothingToDamage("it has no base layer on which a snapshot could be based")
    if kind == "next-directory":
        return _leave_next_directory(simulation, bases[0])
    with _keeping_next_directory(snapshotter):
        return {
            "dangling-child": _leave_dangling_child,
            "lost-backend": _lose_backend,
            "leftover": _leave_removal_directory,
            "orphan": _leave_orphan,
        }[kind](simulation, bases[0])


def _leave_next_directory(simulation: Simulation, base: Record) -> str:
    layer_id = simulation.store.snapshotter.last_id() + 1
    _make_layer(simulation, base, str(layer_id))
    return rf"The layer directory snapshots\{layer_id} exists, and the next snapshot gets the id {layer_id}."


def _leave_removal_directory(simulation: Simulation, base: Record) -> str:
    layer_id = simulation.store.snapshotter.skip_id()
    _make_layer(simulation, base, f"rm-{layer_id}")
    return rf"The removal directory snapshots\rm-{layer_id} exists."


def _leave_orphan(simulation: Simulation, base: Record) -> str:
    with simulation.store.meta.update() as root:
        number = records.next_sequence(records.make(root, "v1", NAMESPACE, "snapshots", NAME))
    key = f"{NAMESPACE}/{number}/orphan-{number}"
    simulation.store.snapshotter.create(ACTIVE, key, base.key, {})
    return f"The snapshot {key} has a record in metadata.db, but no entry in meta.db."


def _leave_dangling_child(simulation: Simulation, base: Record) -> str:
    """Do what containerd's collector does when it deletes a child and not its parent."""
    name, entry = _commit(simulation, base, "dangling-child")
    child = f"child-of-{name}"
    with simulation.store.meta.update():
        records.make(entry, "children").items[child.encode()] = b""
    return f"The snapshot {name} has a link to the child {child}, which does not exist."


def _lose_backend(simulation: Simulation, base: Record) -> str:
    name, entry = _commit(simulation, base, "lost-backend")
    snapshotter = simulation.store.snapshotter
    layer_id = snapshotter.forget(records.text(entry, "name"))
    snapshotter.layers.destroy(str(snapshotter.directory(layer_id)))
    return f"The snapshot {name} has an entry in meta.db, but no record in metadata.db and no layer."


@contextlib.contextmanager
def _keeping_next_directory(snapshotter: WindowsSnapshotter) -> Iterator[None]:
    """Let a directory with the next id still have the next id afterwards: another kind of damage does not use it."""
    found = snapshotter.directory(snapshotter.last_id() + 1)
    kept = found.with_name("next")
    if found.exists():
        found.rename(kept)
    try:
        yield
    finally:
        if kept.exists():
            kept.rename(snapshotter.directory(snapshotter.last_id() + 1))


def _make_layer(simulation: Simulation, base: Record, name: str) -> None:
    """Create a layer directory with a scratch on the base layer."""
    snapshotter = simulation.store.snapshotter
    directory = snapshotter.directories / name
    if not directory.exists():
        directory.mkdir()
        snapshotter.layers.create_scratch(str(directory), [str(snapshotter.directory(base.id))], 0)


def _commit(simulation: Simulation, base: Record, kind: str) -> tuple[str, Bucket]:
    """Create a committed snapshot on the base layer, which only its label keeps. Return its name and its entry."""
    name = f"{kind}-{simulation.store.snapshotter.last_id() + 1}"
    key = f"{name}-active"
    parent = base.key.split("/", 2)[2]
    call = Call(NAMESPACE)
    simulation.snapshots.prepare(_PrepareRequest(snapshotter=NAME, key=key, parent=parent, labels=_ROOT), call)
    simulation.snapshots.commit(_CommitRequest(snapshotter=NAME, name=name, key=key, labels=_ROOT), call)
    return name, records.make(simulation.store.meta.root, "v1", NAMESPACE, "snapshots", NAME, name)
