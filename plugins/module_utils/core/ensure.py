# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired states: the only place that knows what idempotent means.

Each function compares what is with what is wanted and calls the strict
operations for the difference. Check mode is not a second code path: the
``Snapshotter`` then works on a copy of the metadata and a layer store that
writes nothing, so that the plan is the same by construction.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from typing import Any, BinaryIO, Callable, Dict, List, Mapping, NamedTuple, Optional, Union, cast

from . import labels as label_rules
from .durable import sync_directory
from .errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
    os_error,
)
from .failpoint import failpoint
from .layers.base import ImportResult
from .metastore import ROOTFS_SIZE, damaged
from .model import ACTIVE, COMMITTED, VIEW, Info
from .sizes import parse_size
from .snapshotter import Snapshotter, is_unpack_key
from .staging import Staging

ABSENT = "absent"
STATES = (ACTIVE, VIEW, COMMITTED, ABSENT)
MOUNTED = "mounted"
UNMOUNTED = "unmounted"

# How a network path begins.
_SHARE = "\\\\"


class Outcome(NamedTuple):
    """Whether anything changed, and the operation's result."""

    changed: bool
    result: Dict[str, Any]


class _Change:
    """What one task did: actions in order, and the snapshots it touched before and after."""

    def __init__(self, snapshotter: Snapshotter, *names: str) -> None:
        self._snapshotter = snapshotter
        self._names = [name for name in dict.fromkeys(names) if name]
        self.actions: List[str] = []
        self._before = self._state()

    def did(self, verb: str, name: str) -> None:
        self.actions.append(f"{verb} {name}")

    def _state(self, described: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
        """The snapshots as a diff shows them; one that was just ``described`` is not read again."""
        state = {}
        for name in self._names:
            found = described
            if found is None or found["name"] != name:
                try:
                    found = _describe(self._snapshotter, name)
                except NotFound:
                    continue
            state[name] = {field: found[field] for field in ("kind", "parent", "labels", "rootfs_size")}
        return state

    def outcome(self, **result: Any) -> Outcome:
        result["actions"] = self.actions
        after = self._state(result.get("snapshot")) if self.actions else self._before
        result["diff"] = {"before": self._before, "after": after}
        return Outcome(bool(self.actions), result)


def find(snapshotter: Snapshotter, name: str) -> Optional[Info]:
    """The info of a snapshot, None if there is none of that name."""
    try:
        return snapshotter.stat(name)
    except NotFound:
        return None


def describe(snapshotter: Snapshotter, name: str) -> Dict[str, Any]:
    """A snapshot as modules return it: its info, the size of its rootfs, its mounts."""
    described = _describe(snapshotter, name)
    committed = described["kind"] == COMMITTED
    described["mounts"] = [] if committed else [mount._asdict() for mount in snapshotter.mounts(name)]
    return described


def _describe(snapshotter: Snapshotter, name: str) -> Dict[str, Any]:
    info = snapshotter.stat(name)
    described: Dict[str, Any] = info._asdict()
    scratch = snapshotter.scratch(name) if info.kind != COMMITTED else None
    described["rootfs_size"] = scratch.virtual_size if scratch else None
    return described


def find_source(snapshotter: Snapshotter, src: str) -> str:
    """The native path of what a task reads on the node or on a share. Raises InvalidArgument, and as ``unreadable``."""
    path = snapshotter.layers.native_source(src)
    presented = snapshotter.layers.presented(path)
    if presented.startswith(_SHARE):
        # Later it would only be said that nothing is there.
        try:
            os.stat(path)
        except OSError as error:
            raise unreadable(presented, error) from error
    return path


def unreadable(path: str, error: OSError) -> SnapshotterError:
    """Why a path, as replies spell it, cannot be read on the node."""
    what = f"cannot read {path} on the node"
    if not path.startswith(_SHARE):
        return os_error(error, what)
    return (NotFound if isinstance(error, FileNotFoundError) else FailedPrecondition)(
        f"{what}: {error.strerror}; the node opens a share as the user of the connection, and WinRM passes no "
        "credentials on unless they are delegated (Kerberos with delegation, or CredSSP): check the name, and whether "
        "that user may read there, or bring the file to the node"
    )


# -- snapshot ----------------------------------------------------------------


def ensure_snapshot(
    snapshotter: Snapshotter,
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
) -> Outcome:
    """This key or name is active, a view, committed or absent.

    ``key`` names active snapshots and views, ``name`` committed ones; see the
    module ``snapshot`` for the options. Raises InvalidArgument for options
    that do not go together, AlreadyExists where something else has the name,
    FailedPrecondition where children are in the way, and what the operations raise.
    """
    size = check_options(state, key, name, rootfs_size, uvm_scratch, creates, recursive)
    if state == ABSENT:
        return _absent(snapshotter, key or name, recursive)
    if state == COMMITTED:
        return _committed(snapshotter, name, key, parent, labels, purge_labels)
    return _active_or_view(
        snapshotter, state, key, parent or "", dict(labels or {}), purge_labels, size, uvm_scratch, creates
    )


def check_options(
    state: str,
    key: str = "",
    name: str = "",
    rootfs_size: Union[int, str, None] = None,
    uvm_scratch: bool = False,
    creates: str = "",
    recursive: bool = False,
) -> int:
    """Whether options of ``ensure_snapshot`` go together, whatever the store holds; ``rootfs_size`` in bytes, or 0.

    Raises InvalidArgument.
    """
    if state not in STATES:
        raise InvalidArgument(f"state {state!r} is none of {', '.join(STATES)}")
    if state in (ACTIVE, VIEW) and (not key or name):
        raise InvalidArgument(f"state={state} needs key and no name: active snapshots and views are known by their key")
    if state == COMMITTED and not name:
        raise InvalidArgument("state=committed needs name, the name that the committed snapshot has or gets")
    if state == ABSENT and bool(key) == bool(name):
        raise InvalidArgument("state=absent needs exactly one of key and name")
    for option, given, where in (
        ("rootfs_size", rootfs_size is not None, ACTIVE),
        ("uvm_scratch", uvm_scratch, ACTIVE),
        ("creates", bool(creates), ACTIVE),
        ("recursive", recursive, ABSENT),
    ):
        if given and state != where:
            raise InvalidArgument(f"{option} goes with state={where}, not with state={state}")
    return 0 if rootfs_size is None else parse_size(rootfs_size, "rootfs_size")


def _active_or_view(
    snapshotter: Snapshotter,
    state: str,
    key: str,
    parent: str,
    labels: Dict[str, str],
    purge_labels: bool,
    size: int,
    uvm_scratch: bool,
    creates: str,
) -> Outcome:
    if creates:
        made = find(snapshotter, creates)
        if made is not None and made.kind == COMMITTED:
            return _Change(snapshotter, creates).outcome(snapshot=describe(snapshotter, creates))
    change = _Change(snapshotter, key)
    found = find(snapshotter, key)
    if found is None:
        if state == ACTIVE and parent and not size and not is_unpack_key(key):
            size = _default_size(snapshotter, labels)
        if size and not parent:
            raise InvalidArgument(
                f'rootfs_size: "{key}" has no parent and so no scratch disk; name a parent or leave rootfs_size out'
            )
        if size:
            labels[label_rules.ROOTFS_SIZE_BYTES] = str(size)
        if uvm_scratch:
            labels[label_rules.UVM_SCRATCH] = "true"
        verb, make = ("prepare", snapshotter.prepare) if state == ACTIVE else ("view", snapshotter.view)
        try:
            make(key, parent, labels)
        except AlreadyExists:
            # Another task was quicker. If what it made is what is wanted here, that is a success.
            found = snapshotter.stat(key)
        else:
            change.did(verb, key)
            return change.outcome(snapshot=describe(snapshotter, key))
    if found.kind != state or found.parent != parent:
        raise AlreadyExists(
            f'"{key}" is {_what(found)}, not {_article(state)} with parent "{parent}"; '
            "remove it first, or use another key",
            **found._asdict(),
        )
    if uvm_scratch and label_rules.UVM_SCRATCH not in found.labels:
        raise AlreadyExists(
            f'"{key}" was prepared without a UVM scratch and cannot get one now; remove it first, or use another key',
            **found._asdict(),
        )
    _grow_if_smaller(snapshotter, change, key, size)
    # What options of this task manage stays when labels are purged.
    kept = [label_rules.ROOTFS_SIZE_BYTES] if size else []
    kept += [label_rules.UVM_SCRATCH] if uvm_scratch else []
    _update_labels(snapshotter, change, key, labels, purge_labels, kept)
    return change.outcome(snapshot=describe(snapshotter, key))


def _default_size(snapshotter: Snapshotter, labels: Mapping[str, str]) -> int:
    """What the store gives a scratch disk for which the task names no size, neither as option nor as label."""
    if label_rules.ROOTFS_SIZE_BYTES in labels or label_rules.ROOTFS_SIZE_GB in labels:
        return 0
    with snapshotter.metadata().read() as tx:
        return int(tx.settings().get(ROOTFS_SIZE, "0"))


def _committed(
    snapshotter: Snapshotter,
    name: str,
    key: str,
    parent: Optional[str],
    labels: Optional[Mapping[str, str]],
    purge_labels: bool,
) -> Outcome:
    change = _Change(snapshotter, name, key)
    found = find(snapshotter, name)
    if found is None:
        if not key:
            raise NotFound(f'"{name}" does not exist, and no key says which active snapshot to commit', name=name)
        try:
            snapshotter.commit(name, key, labels, parent or "")
        except (AlreadyExists, NotFound):
            # Another task was quicker, or the key was never there.
            found = find(snapshotter, name)
            if found is None:
                raise
        else:
            change.did("commit", name)
            return change.outcome(snapshot=describe(snapshotter, name))
    _refuse_other(found, parent)
    source = find(snapshotter, key) if key and key != name else None
    if source is not None and source.kind == ACTIVE:
        raise AlreadyExists(
            f'"{name}" is committed already, and "{key}" is active still; remove "{key}" to keep "{name}" as it is, '
            "commit under another name, or remove both and start anew",
            **found._asdict(),
        )
    if labels is not None or purge_labels:
        _update_labels(snapshotter, change, name, labels or {}, purge_labels, [])
    return change.outcome(snapshot=describe(snapshotter, name))


def _refuse_other(found: Info, parent: Optional[str]) -> None:
    """Raise AlreadyExists unless ``found`` is committed and, where a parent is wanted, has it."""
    if found.kind != COMMITTED or (parent is not None and found.parent != parent):
        wanted = "a committed snapshot" + (f' with parent "{parent}"' if parent is not None else "")
        raise AlreadyExists(
            f'"{found.name}" is {_what(found)}, not {wanted}; remove it first, or use another name', **found._asdict()
        )


def _absent(snapshotter: Snapshotter, name: str, recursive: bool) -> Outcome:
    if find(snapshotter, name) is None:
        return _Change(snapshotter, name).outcome(snapshot=None)
    children = snapshotter.children(name)
    if children and not recursive:
        shown = ", ".join(f'"{child}"' for child in children[:10]) + (", ..." if len(children) > 10 else "")
        raise FailedPrecondition(
            f'cannot remove "{name}": it is the parent of {len(children)} snapshot{"s"[: len(children) > 1]} '
            f"({shown}); "
            "remove those first, or set recursive=true to remove all of them",
            children=children,
        )
    doomed = [name]
    for parent in doomed:
        children = snapshotter.children(parent)
        if name in children:
            raise damaged(f"the parent {name!r} is its own ancestor", parent=name)
        doomed.extend(children)
    change = _Change(snapshotter, *doomed)
    for leaf in reversed(doomed):
        try:
            snapshotter.remove(leaf)
        except NotFound:
            # Another task was quicker.
            continue
        change.did("remove", leaf)
    return change.outcome(snapshot=None)


def _grow_if_smaller(snapshotter: Snapshotter, change: _Change, key: str, size: int) -> None:
    scratch = snapshotter.scratch(key) if size else None
    if not size or (scratch is not None and scratch.virtual_size >= size):
        return
    before = snapshotter.stat(key).labels.get(label_rules.ROOTFS_SIZE_BYTES, "")
    # First, for only a disk that is too small shows the next run of the task that this one was interrupted.
    _label_size(snapshotter, key, str(size))
    try:
        grown = snapshotter.grow_scratch(key, size)
    except SnapshotterError:
        _label_size(snapshotter, key, before)
        raise
    if grown.virtual_size != size:
        _label_size(snapshotter, key, str(grown.virtual_size))
    change.did("grow", key)


def _label_size(snapshotter: Snapshotter, key: str, size: str) -> None:
    """The label keeps saying what the disk is, for whoever reads only labels."""
    snapshotter.update(key, {label_rules.ROOTFS_SIZE_BYTES: size}, [f"labels.{label_rules.ROOTFS_SIZE_BYTES}"])


def _update_labels(
    snapshotter: Snapshotter, change: _Change, name: str, labels: Mapping[str, str], purge: bool, kept: List[str]
) -> None:
    found = snapshotter.stat(name).labels
    wanted = {key: found[key] for key in found if not purge or key in kept}
    wanted.update(labels)
    wanted = {key: value for key, value in wanted.items() if value != ""}
    if wanted != found:
        snapshotter.update(name, wanted, ["labels"])
        change.did("update", name)


def _article(kind: str) -> str:
    return {ACTIVE: "an active snapshot", VIEW: "a view", COMMITTED: "a committed snapshot"}[kind]


def _what(info: Info) -> str:
    return f"{_article(info.kind)} " + (f'with parent "{info.parent}"' if info.parent else "without a parent")


# -- scratch -----------------------------------------------------------------


def ensure_scratch(snapshotter: Snapshotter, key: str, size: Union[int, str]) -> Outcome:
    """The scratch disk of the active snapshot ``key`` is at least ``size``; it never shrinks.

    Raises NotFound, FailedPrecondition (not active, no scratch), InvalidArgument (size).
    """
    wanted = parse_size(size, "size")
    try:
        before = snapshotter.scratch(key)
    except NotFound as error:
        raise error.prefixed(f'"{key}"') from None
    change = _Change(snapshotter, key)
    if snapshotter.stat(key).kind != ACTIVE or before is None:
        # The strict operation says what is wrong.
        snapshotter.grow_scratch(key, wanted)
    _grow_if_smaller(snapshotter, change, key, wanted)
    now = snapshotter.scratch(key)
    return change.outcome(scratch=now._asdict() if now else None, previous_size=before.virtual_size if before else None)


# -- list --------------------------------------------------------------------


def list_snapshots(
    snapshotter: Snapshotter,
    names: Optional[List[str]] = None,
    filters: Optional[List[str]] = None,
    usage: bool = False,
    mounts: bool = False,
    scratch: bool = False,
    tolerant: bool = False,
) -> Outcome:
    """Infos by name, by filters, or of all; with usage, mounts and scratch disks on request.

    Names that do not exist are left out. With both, a snapshot must be named
    and match. What cannot be read of a snapshot fails the whole, unless
    ``tolerant``: then it is None.
    """

    def read(look: Callable[[str], Any], name: str) -> Optional[Dict[str, Any]]:
        try:
            found = look(name)
        except NotFound:
            raise
        except SnapshotterError:
            if not tolerant:
                raise
            return None
        return dict(found._asdict()) if found else None

    if names is not None and not filters:
        infos = [info for info in (find(snapshotter, name) for name in sorted(set(names), key=str.encode)) if info]
    else:
        infos = snapshotter.walk(*(filters or []))
        if names is not None:
            infos = [info for info in infos if info.name in set(names)]
    listed = []
    for info in infos:
        entry: Dict[str, Any] = info._asdict()
        try:
            if usage:
                entry["usage"] = read(snapshotter.usage, info.name)
            if mounts:
                entry["mounts"] = (
                    [] if info.kind == COMMITTED else [mount._asdict() for mount in snapshotter.mounts(info.name)]
                )
            if scratch:
                entry["scratch"] = read(snapshotter.scratch, info.name) if info.kind != COMMITTED else None
        except NotFound:
            if find(snapshotter, info.name) is None:
                # Removed since the walk.
                continue
            raise
        listed.append(entry)
    return Outcome(False, {"snapshots": listed})


# -- layer -------------------------------------------------------------------


def ensure_layer(
    snapshotter: Snapshotter,
    name: str,
    src: Union[str, Mapping[str, str]],
    parent: str = "",
    labels: Optional[Mapping[str, str]] = None,
    digest: str = "",
) -> Outcome:
    """The committed snapshot ``name`` exists; if not, it is imported from an OCI layer tar.

    ``src`` is a path on the node or a share, or ``{"staged": digest}`` for a
    file that ``stage`` received, which is deleted after the import. The tar
    may be gzipped. ``digest`` (``sha256:...`` of the plain tar, the diff id) is
    verified before the commit. Raises AlreadyExists where the name is
    something else, InvalidArgument for a bad archive, NotFound for no file.
    """
    change = _Change(snapshotter, name)
    imported: Optional[ImportResult] = None
    found = find(snapshotter, name)
    staging = Staging(snapshotter.root, snapshotter.layers)
    staged = src["staged"] if isinstance(src, Mapping) else ""
    rehearsing = snapshotter.rehearsing
    if found is not None:
        _refuse_other(found, parent)
        if labels is not None:
            _update_labels(snapshotter, change, name, labels, False, [])
    else:

        def unpack(directory: str, parents: List[str]) -> ImportResult:
            if rehearsing:
                return ImportResult(0, "", 0)
            try:
                with open(path, "rb") as stream:
                    return _unpack(snapshotter, stream, directory, parents, digest)
            except OSError as error:
                raise unreadable(snapshotter.layers.presented(path), error) from error

        try:
            path = ("" if rehearsing else staging.path(staged)) if staged else find_source(snapshotter, str(src))
            if path and not os.path.isfile(path):
                raise NotFound(f"src {src} does not exist on the node, or is not a file", src=src)
            imported = snapshotter.import_layer(name, parent, labels or {}, unpack)
        except (AlreadyExists, FailedPrecondition, NotFound):
            # Another task was quicker, and has deleted the staged file.
            found = find(snapshotter, name)
            if found is None:
                raise
            _refuse_other(found, parent)
        else:
            change.did("import", name)
    if staged and not rehearsing:
        staging.discard(staged)
    layer = None if imported is None or rehearsing else imported._asdict()
    return change.outcome(snapshot=describe(snapshotter, name), layer=layer)


def _unpack(
    snapshotter: Snapshotter, stream: BinaryIO, directory: str, parents: List[str], digest: str
) -> ImportResult:
    from .formats import layertar

    with layertar.open_layer(stream) as plain:
        result = snapshotter.layers.import_layer(directory, parents, plain)
    if digest and result.digest != digest:
        raise InvalidArgument(
            f"the layer's digest is {result.digest}, not {digest}; get the file again, or correct digest "
            "(it is that of the uncompressed tar, the diff id)",
            digest=result.digest,
        )
    return result


def ensure_export(snapshotter: Snapshotter, name: str, dest: str, force: bool = False) -> Outcome:
    """The file ``dest`` on the node exists; if not, the layer of the committed ``name`` is written there.

    An OCI layer tar, gzipped if ``dest`` ends in ``.gz``; the same layer gives
    the same bytes. With ``force`` a file that exists is replaced. Raises
    NotFound, FailedPrecondition (not committed, or no place for the file),
    Unavailable.
    """
    path = snapshotter.layers.native(dest)
    actions: List[str] = []
    layer = None
    there = os.path.lexists(path)
    info = snapshotter.stat(name)
    if info.kind != COMMITTED:
        raise FailedPrecondition(f'"{name}" is {_what(info)}; only a committed snapshot is a layer', name=name)
    if not os.path.isdir(os.path.dirname(path)):
        raise FailedPrecondition(f"the directory of {dest} does not exist on the node; make it first")
    if os.path.isdir(path):
        raise FailedPrecondition(f"{dest} is a directory on the node; name the file to write")
    if force or not there:
        if not snapshotter.rehearsing:
            layer = _export(snapshotter, name, path, dest)
        actions.append(f"export {name}")
    diff = {"before": {dest: "present" if there else "absent"}, "after": {dest: "present"}}
    return Outcome(bool(actions), {"layer": layer, "dest": dest, "actions": actions, "diff": diff})


def _export(snapshotter: Snapshotter, name: str, path: str, dest: str) -> Dict[str, Any]:
    """Write the tar beside its place and rename it into it. What a dead process left there is overwritten."""
    draft = f"{path}.wcow-new"
    try:
        lock = snapshotter.directories.export_lock(path)
        if lock is None:
            raise Unavailable(f"another process writes {dest}; run the task again when that has ended", dest=dest)
        with lock:
            return _write_export(snapshotter, name, path, draft, dest)
    except OSError as error:
        raise os_error(error, f"cannot write {dest} on the node") from error


def _write_export(snapshotter: Snapshotter, name: str, path: str, draft: str, dest: str) -> Dict[str, Any]:
    if os.path.lexists(draft):
        os.unlink(draft)
        failpoint("export.cleared")
    try:
        failpoint("export.open")
        with open(draft, "xb") as file:
            failpoint("export.write")
            plain = _Digesting(file, compress=path.endswith(".gz"))
            try:
                snapshotter.export_layer(name, cast(BinaryIO, plain))
            except SnapshotterError as error:
                raise error.prefixed(f'cannot export "{name}" to {dest}') from error
            plain.finish()
            failpoint("export.flush")
            os.fsync(file.fileno())
        failpoint("export.rename")
        os.replace(draft, path)
        failpoint("export.renamed")
        sync_directory(os.path.dirname(path))
    except BaseException:
        if os.path.lexists(draft):
            os.unlink(draft)
        raise
    return {"digest": plain.digest, "size": plain.size}


class _Digesting(io.RawIOBase):
    """A stream to write a tar to: counts and hashes the plain bytes, gzips them on the way if asked."""

    def __init__(self, file: BinaryIO, compress: bool) -> None:
        super().__init__()
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()
        # A fixed header: the same tar is the same file.
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 31) if compress else None

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        self._hash.update(data)
        try:
            self._file.write(self._gzip.compress(data) if self._gzip else data)
        except OSError as error:
            # Only here it is known to be about this file, and not about one of the layer that is read.
            raise os_error(error, "cannot write the file") from error
        return len(data)

    def finish(self) -> None:
        """Write what the compressor still holds."""
        if self._gzip:
            self._file.write(self._gzip.flush())
        self._file.flush()


# -- mount -------------------------------------------------------------------


def ensure_mount(snapshotter: Snapshotter, state: str, key: str = "", target: str = "") -> Outcome:
    """The active snapshot or view ``key`` is ``mounted`` at ``target``, or ``unmounted``.

    ``unmounted`` takes one of both: the target, or the key, which is then
    unmounted wherever it is. Raises InvalidArgument for options that do not go
    together, NotFound, and what ``Snapshotter.mount`` and ``unmount`` raise.
    """
    if state not in (MOUNTED, UNMOUNTED):
        raise InvalidArgument(f"state {state!r} is none of {MOUNTED}, {UNMOUNTED}")
    if state == MOUNTED and not (key and target):
        raise InvalidArgument("state=mounted needs key and target")
    if state == UNMOUNTED and bool(key) == bool(target):
        raise InvalidArgument("state=unmounted needs exactly one of key and target")
    if state == MOUNTED:
        return _mounted(snapshotter, key, target)
    layers = snapshotter.layers
    if target:
        targets = [target] if layers.mounted_layer(layers.native(target)) else []
    else:
        targets = [] if find(snapshotter, key) is None else snapshotter.mounted_at(key)
    for place in targets:
        snapshotter.unmount(place)
    diff = {"before": dict.fromkeys(targets, "mounted"), "after": dict.fromkeys(targets, "unmounted")}
    actions = [f"unmount {place}" for place in targets]
    return Outcome(bool(targets), {"mount": None, "actions": actions, "diff": diff})


def _mounted(snapshotter: Snapshotter, key: str, target: str) -> Outcome:
    try:
        info = snapshotter.stat(key)
    except NotFound as error:
        raise error.prefixed(f'"{key}"') from None
    if info.kind == COMMITTED:
        raise FailedPrecondition(f'"{key}" is {_what(info)}; mount a view of it instead', key=key)
    before = snapshotter.is_mounted(key, target)
    if not before:
        snapshotter.mount(key, target)
    return Outcome(
        not before,
        {
            "mount": {"key": key, "target": target, "read_only": info.kind == VIEW},
            "actions": [] if before else [f"mount {key}"],
            "diff": {"before": {target: key if before else None}, "after": {target: key}},
        },
    )
