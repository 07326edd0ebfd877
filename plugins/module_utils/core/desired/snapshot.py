# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one snapshot: active, a view, committed or absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Union

from .. import labels as label_rules
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from ..formats.imagenames import canonical_name
from ..keys import is_unpack_key
from ..lineage import Lineage
from ..model import ACTIVE, COMMITTED, VIEW, Description, with_article
from ..outcome import Outcome
from ..sizes import parse_size
from . import labels as label_changes
from .parent import assume_parent, find_parent
from .result import ABSENT, as_returned, kind_and_parent, outcome, require_committed, without

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore

STATES = (ACTIVE, VIEW, COMMITTED, ABSENT)

# Children that a refusal names.
_NAMED_CHILDREN = 10


def ensure_snapshot(
    store: SnapshotStore,
    state: str,
    key: str = "",
    name: str = "",
    parent: Optional[str] = None,
    labels: Optional[Mapping[str, str]] = None,
    purge_labels: bool = False,
    rootfs_size: Union[int, str, None] = None,
    uvm_scratch: bool = False,
    creates: str = "",
    recursive: bool = False,
    parent_image: str = "",
) -> Outcome:
    """Make this key or name active, a view, committed or absent.

    ``key`` names active snapshots and views, ``name`` committed ones.
    ``parent_image`` names the image whose top layer is the parent. The module
    ``snapshot`` describes the options. Raises InvalidArgument for options that
    exclude each other, AlreadyExists if the name belongs to something else,
    FailedPrecondition if children prevent a removal, and what the operations
    raise.
    """
    size = check_options(state, key, name, rootfs_size, uvm_scratch, creates, recursive, parent, parent_image)
    if state == ABSENT:
        return _absent(store, key or name, recursive)
    if state == COMMITTED:
        done = _committed(store, name, key, parent, labels, purge_labels, parent_image)
    else:
        done = _active_or_view(
            store, state, key, parent or "", dict(labels or {}), purge_labels, size, uvm_scratch, creates, parent_image
        )
    if parent_image and done.result["snapshot"]["name"] != creates:
        done.result["snapshot"]["parent_image"] = canonical_name(parent_image)
    return done


def check_options(
    state: str,
    key: str = "",
    name: str = "",
    rootfs_size: Union[int, str, None] = None,
    uvm_scratch: bool = False,
    creates: str = "",
    recursive: bool = False,
    parent: Optional[str] = None,
    parent_image: str = "",
) -> int:
    """Return ``rootfs_size`` in bytes, or 0, if the options of ``ensure_snapshot`` fit together in any store.

    Raises InvalidArgument.
    """
    if state not in STATES:
        raise InvalidArgument(f"state {state!r} is not one of {', '.join(STATES)}")
    if state in (ACTIVE, VIEW) and (not key or name):
        raise InvalidArgument(
            f"state={state} needs key and not name: active snapshots and views are identified by their key"
        )
    if state == COMMITTED and not name:
        raise InvalidArgument("state=committed needs name, the name that the committed snapshot has or gets")
    if state == ABSENT and bool(key) == bool(name):
        raise InvalidArgument("state=absent needs exactly one of key and name")
    if parent and parent_image:
        raise InvalidArgument("parent and parent_image exclude each other: set one of them")
    for option, given, where in (
        ("rootfs_size", rootfs_size is not None, ACTIVE),
        ("uvm_scratch", uvm_scratch, ACTIVE),
        ("creates", bool(creates), ACTIVE),
        ("recursive", recursive, ABSENT),
    ):
        if given and state != where:
            raise InvalidArgument(f"{option} goes with state={where}, not with state={state}")
    return 0 if rootfs_size is None else parse_size(rootfs_size, "rootfs_size")


# -- active, view --------------------------------------------------------------


def _active_or_view(
    store: SnapshotStore,
    state: str,
    key: str,
    parent: str,
    labels: Dict[str, str],
    purge_labels: bool,
    size: int,
    uvm_scratch: bool,
    creates: str,
    image: str,
) -> Outcome:
    found = store.describe(*dict.fromkeys(name for name in (key, creates) if name))
    result = found.get(creates)
    if result is not None and result.info.kind == COMMITTED:
        return outcome([], {creates: result}, {}, snapshot=as_returned(result))
    current = found.get(key)
    if image:
        parent = find_parent(store, image, current)
    if current is None:
        if state == ACTIVE and parent and not size and not is_unpack_key(key):
            size = _default_size(store, labels)
        if size and not parent:
            raise InvalidArgument(
                f'rootfs_size: "{key}" has no parent and so no scratch disk; name a parent or leave rootfs_size out'
            )
        if size:
            labels[label_rules.ROOTFS_SIZE_BYTES] = str(size)
        if uvm_scratch:
            labels[label_rules.UVM_SCRATCH] = "true"
        assume_parent(store, parent)
        verb, create = ("prepare", store.prepare) if state == ACTIVE else ("view", store.view)
        try:
            create(key, parent, labels)
        except AlreadyExists:
            # Another task was faster. What it created may be what this task wants.
            current = _require(store, key)
        else:
            after = _require(store, key)
            return outcome([f"{verb} {key}"], {}, {key: after}, snapshot=as_returned(after))
    if current.info.kind != state or current.info.parent != parent:
        raise AlreadyExists(
            f'"{key}" is {kind_and_parent(current.info)}, not {with_article(state)} with parent "{parent}"; '
            "remove it first, or use another key",
            **current.info._asdict(),
        )
    if uvm_scratch and label_rules.UVM_SCRATCH not in current.info.labels:
        raise AlreadyExists(
            f'"{key}" was prepared without a UVM scratch and cannot get one now; remove it first, or use another key',
            **current.info._asdict(),
        )
    # Purging keeps the labels that the store or options of this task manage.
    kept = [*store.managed_labels]
    kept += [label_rules.ROOTFS_SIZE_BYTES] if size else []
    kept += [label_rules.UVM_SCRATCH] if uvm_scratch else []
    changed = label_changes.changes(current.info.labels, labels, purge_labels, kept)
    actions: List[str] = []
    after = current
    if size and (current.scratch is None or current.scratch.virtual_size < size):
        after = grow(store, current, size, changed)
        actions.append(f"grow {key}")
    elif changed:
        after = current._replace(info=label_changes.write(store, key, changed))
    if changed:
        actions.append(f"update {key}")
    return outcome(actions, {key: current}, {key: after}, snapshot=as_returned(after))


def _default_size(store: SnapshotStore, labels: Mapping[str, str]) -> int:
    """Return the size that the store gives to a scratch disk whose task has neither an option nor a label for it."""
    if label_rules.ROOTFS_SIZE_BYTES in labels or label_rules.ROOTFS_SIZE_GB in labels:
        return 0
    return store.default_rootfs_size()


def _require(store: SnapshotStore, name: str) -> Description:
    """Return the description of a snapshot. Raises NotFound if another task removed it."""
    found = store.describe(name).get(name)
    if found is None:
        raise NotFound(f'"{name}" was removed by another task; run the task again', key=name)
    return found


def grow(store: SnapshotStore, current: Description, size: int, changed: Mapping[str, str]) -> Description:
    """Grow a scratch disk to ``size`` bytes, write its size label and the ``changed`` labels; return the result.

    The labels are written first. If this is interrupted, the next run finds a
    disk that is smaller than its label says, and resumes. If the growth fails,
    the labels get their former values back.
    """
    key, label = current.info.name, label_rules.ROOTFS_SIZE_BYTES
    first = {label: str(size), **changed}
    info = label_changes.write(store, key, first)
    try:
        grown = store.grow_scratch(key, size)
    except SnapshotterError:
        label_changes.write(store, key, {name: current.info.labels.get(name, "") for name in first})
        raise
    if label not in changed and grown.virtual_size != size:
        info = label_changes.write(store, key, {label: str(grown.virtual_size)})
    return current._replace(info=info, scratch=grown)


# -- committed -----------------------------------------------------------------


def _committed(
    store: SnapshotStore,
    name: str,
    key: str,
    parent: Optional[str],
    labels: Optional[Mapping[str, str]],
    purge_labels: bool,
    image: str,
) -> Outcome:
    before = store.describe(*dict.fromkeys(given for given in (name, key) if given))
    found = before.get(name)
    if image:
        parent = find_parent(store, image, found)
    if found is None:
        if not key:
            raise NotFound(f'"{name}" does not exist, and no key says which active snapshot to commit', name=name)
        try:
            info = store.commit(name, key, labels, parent or "")
        except (AlreadyExists, NotFound):
            # Another task was faster, or the key never existed.
            before = store.describe(*dict.fromkeys((name, key)))
            found = before.get(name)
            if found is None:
                raise
        else:
            after = Description(info, [], None)
            return outcome(
                [f"commit {name}"], before, {**without(before, key), name: after}, snapshot=as_returned(after)
            )
    require_committed(found.info, parent)
    source = before.get(key) if key != name else None
    if source is not None and source.info.kind == ACTIVE:
        raise AlreadyExists(
            f'"{name}" is already committed, and "{key}" is still active; remove "{key}" to keep "{name}" as it is, '
            "commit under another name, or remove both and start again",
            **found.info._asdict(),
        )
    changed = {}
    if labels is not None or purge_labels:
        changed = label_changes.changes(found.info.labels, labels or {}, purge_labels, store.managed_labels)
    after = found
    if changed:
        after = found._replace(info=label_changes.write(store, name, changed))
    actions = [f"update {name}"] if changed else []
    return outcome(actions, before, {**before, name: after}, snapshot=as_returned(after))


# -- absent --------------------------------------------------------------------


def _describe_removed(store: SnapshotStore, *names: str) -> Dict[str, Description]:
    """Describe snapshots that a task removes: a damaged disk or a missing layer does not prevent that."""
    try:
        return store.describe(*names)
    except SnapshotterError:
        return store.describe(*names, scratch=False)


def _absent(store: SnapshotStore, name: str, recursive: bool) -> Outcome:
    before = _describe_removed(store, name)
    if not before:
        return outcome([], {}, {}, snapshot=None)
    doomed = [name]
    children = store.children(name)
    if children and not recursive:
        shown = ", ".join(f'"{child}"' for child in children[:_NAMED_CHILDREN])
        shown += ", ..." if len(children) > _NAMED_CHILDREN else ""
        raise FailedPrecondition(
            f'cannot remove "{name}": it is the parent of {len(children)} snapshot{"s"[: len(children) > 1]} '
            f"({shown}); remove those first, or set recursive=true to remove all of them",
            children=children,
        )
    if children:
        doomed = Lineage({info.name: info.parent for info in store.walk()}).with_descendants(name)
        before = _describe_removed(store, *doomed)
    removed = store.remove_all(doomed[::-1])
    return outcome([f"remove {leaf}" for leaf in removed], before, {}, snapshot=None)
