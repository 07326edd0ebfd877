# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations of the Windows snapshotter (containerd plugins/snapshots/windows).

An active snapshot or view is known by its *key*, a committed one by its
*name*; both share one space. Parents are committed snapshots. Operations are
strict: they raise where the state does not allow them. What makes them
idempotent is in ``ensure``.

Metadata and directory change together, under one write transaction:

* *create*: record, directory, scratch, COMMIT. A process that dies before
  COMMIT leaves a directory without a record, whose id nobody gets again.
* *remove*: record deleted, directory renamed to ``rm-<id>``, COMMIT, destroy.
  A process that dies before COMMIT leaves a record whose directory is
  ``rm-<id>``; whoever needs the directory next renames it back.
* *commit*: the snapshot is marked with its holder, COMMIT; conversion without
  any transaction; then kind, name and usage in a second one.

Work on the files of one snapshot is done under that snapshot's ``FileLock``.
A mark in the metadata whose lock is free belongs to a process that died.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Callable, List, Mapping, Optional, Sequence, Tuple

from . import labels as label_rules
from . import model
from .durable import sync_directory
from .errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SnapshotterError, Unavailable
from .layers.base import ImportResult, LayerStore, ScratchInfo
from .lock import FileLock
from .metastore import Metastore, Transaction, check_key
from .model import ACTIVE, COMMITTED, VIEW, Info, Mount, Snapshot, Usage

METADATA_FILE = "metadata.sqlite3"

# winerror.h; so Windows refuses to rename a directory in which a file is open.
_ERROR_ACCESS_DENIED = 5


def is_unpack_key(key: str) -> bool:
    """Whether ``key`` names a snapshot that an image layer is unpacked into.

    Such a snapshot gets no scratch, and Commit does not convert it. containerd
    writes ``extract-<unique> <chain id>``, behind ``<namespace>/<sequence>/``
    for a backend (pkg/rootfs/apply.go). Its snapshotter asks whether the key
    *contains* "extract", so that a container of that name never gets a disk;
    here the last part of the key must begin with it.
    """
    return key.rsplit("/", 1)[-1].startswith("extract-")


class Snapshotter:
    """One store: root directory, metadata, layers.

    ``root`` is the path as the user wrote it. With ``rehearse`` the metadata
    is a copy in memory and ``layers`` has to be a store that writes nothing.
    ``warnings`` collects sentences for the user: what went wrong without
    making an operation fail.
    """

    def __init__(self, root: str, layers: LayerStore, *, rehearse: bool = False) -> None:
        self.root = layers.native(root)
        self.layers = layers
        self.warnings: List[str] = []
        self.rehearsing = rehearse
        self._metadata: Optional[Metastore] = None
        # While there is no store, an empty one in memory answers.
        self._stand_in = False
        self._closed = False
        if os.path.lexists(self.root) and not os.path.isdir(self.root):
            raise FailedPrecondition(
                f"root {root} is a file, not a directory; name the directory of the store", root=root
            )
        filesystem = layers.filesystem_type(self.root)
        missing = layers.missing()
        if missing:
            if filesystem.lower() != "ntfs":
                missing.append(f"an NTFS volume for {root}: it has {filesystem}")
            raise FailedPrecondition(
                f"this host or account cannot work with layers: {layers.name}; missing: {'; '.join(missing)}",
                missing=missing,
            )
        if filesystem.lower() != "ntfs":
            raise InvalidArgument(
                f"{root} is not on an NTFS volume - only NTFS volumes are supported: invalid argument "
                f"(the volume has {filesystem}; choose a root on another volume)",
                root=root,
                filesystem=filesystem,
            )

    # -- opening and closing -------------------------------------------------

    def close(self) -> None:
        """Close the metadata. A second call does nothing; any operation after it fails."""
        self._closed = True
        if self._metadata is not None:
            self._metadata.close()

    def _open(self, create: bool = False) -> Metastore:
        """The metadata; the store's directories too where ``create`` asks for them."""
        if self._closed:
            raise FailedPrecondition("database not open")
        path = os.path.join(self.root, METADATA_FILE)
        if self.rehearsing:
            if self._metadata is None:
                with_store = Metastore(path)
                try:
                    self._metadata = with_store.copy_to_memory()
                finally:
                    with_store.close()
            return self._metadata
        there = os.path.exists(path)
        if self._metadata is None or (self._stand_in and (create or there)):
            if create:
                self._make_directories()
            if self._metadata is not None:
                self._metadata.close()
            self._metadata = Metastore(path, create=create)
            self._stand_in = not (create or there)
        return self._metadata

    def _make_directories(self) -> None:
        # Mode 0700 concerns POSIX. On Windows, Python 3.12.4 and newer would turn it into an ACL of its own.
        mode = 0o777 if os.name == "nt" else 0o700
        snapshots = os.path.join(self.root, "snapshots")
        try:
            os.makedirs(self.root, mode=mode, exist_ok=True)
            if not os.path.isdir(snapshots):
                os.makedirs(snapshots, mode=mode, exist_ok=True)
                sync_directory(self.root)
        except OSError as error:
            raise _os_error(error, f"cannot create the store in {self.layers.presented(self.root)}") from error

    # -- reading -------------------------------------------------------------

    def stat(self, key: str) -> Info:
        """The info of a snapshot of any kind. Raises NotFound."""
        with self._open().read() as tx:
            return tx.get_info(key).info

    def walk(self, *filters: str) -> List[Info]:
        """The infos of the snapshots that match any of ``filters``, all without filters, in byte order of names.

        An empty store gives an empty list. Raises InvalidArgument for a filter
        that does not parse.
        """
        from . import filters as language

        wanted = language.parse_all(filters)
        with self._open().read() as tx:
            infos = tx.walk(wanted)
        self.warnings.extend(wanted.warnings())
        return infos

    def usage(self, key: str) -> Usage:
        """Disk use of one snapshot without its parents: measured while active, as recorded once committed.

        A view has no files until it is mounted and then counts its scratch.
        """
        with self._open().read() as tx:
            record = tx.get_info(key)
        directory = self._located(record.info)
        if record.info.kind == COMMITTED or not os.path.isdir(directory):
            return record.usage
        return self.layers.disk_usage(directory)

    def mounts(self, key: str) -> List[Mount]:
        """How to mount an active snapshot or view. Pure computation.

        Raises NotFound, and FailedPrecondition for a committed snapshot.
        """
        with self._open().read() as tx:
            return self._mounts(self._get_snapshot(tx, key))

    def scratch(self, key: str) -> Optional[ScratchInfo]:
        """The scratch disk of a snapshot, None where it has none. Raises NotFound."""
        with self._open().read() as tx:
            info = tx.get_info(key).info
        found = self.layers.scratch_info(self._located(info))
        return found and self._presented_scratch(found)

    def children(self, name: str) -> List[str]:
        """Names of the direct children of a committed snapshot, in byte order."""
        with self._open().read() as tx:
            return tx.children(name)

    # -- making --------------------------------------------------------------

    def prepare(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        """Make an active snapshot, with a scratch over ``parent``, and say how to mount it.

        Without a parent it is the beginning of a base layer: an empty
        ``Files``. Labels choose the size and a UVM scratch. Raises NotFound or
        InvalidArgument (parent), AlreadyExists (key), InvalidArgument (labels).
        """
        return self._create(ACTIVE, key, parent, labels or {})

    def view(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        """Make a read-only view of ``parent``. It costs nothing on disk until it is mounted."""
        return self._create(VIEW, key, parent, labels or {})

    def _create(self, kind: str, key: str, parent: str, labels: Mapping[str, str]) -> List[Mount]:
        check_key(key, "key")
        label_rules.validate(labels)
        # A store that is not there has no parents: it is made only for what can succeed.
        metadata = self._open(create=not parent)
        snapshot: Optional[Snapshot] = None
        try:
            with metadata.write() as tx:
                try:
                    snapshot = tx.create_snapshot(kind, key, parent, labels, self._is_occupied)
                except SnapshotterError as error:
                    raise error.prefixed("failed to create snapshot") from None
                for number in snapshot.parent_ids:
                    self._recover(number, COMMITTED)
                if kind == ACTIVE:
                    self._make_layer(snapshot, key, labels)
        except BaseException:
            if snapshot is not None:
                self._undo_create(metadata, snapshot.id)
            raise
        return self._mounts(snapshot)

    def _make_layer(self, snapshot: Snapshot, key: str, labels: Mapping[str, str]) -> None:
        """The directory of a new active snapshot and what belongs into it."""
        directory = self._directory(snapshot.id)
        parents = self._directories(snapshot.parent_ids)
        options = None
        if parents and not is_unpack_key(key):
            options = label_rules.scratch_options(labels)
            self.warnings.extend(options.warnings)
        if self.rehearsing:
            if options is not None:
                self.layers.create_scratch(directory, parents, options.size)
            return
        try:
            os.mkdir(directory, 0o777 if os.name == "nt" else 0o700)
        except OSError as error:
            raise _os_error(error, f"failed to create snapshot dir {self.layers.presented(directory)}") from error
        if options is not None:
            if options.uvm:
                # First, so that it never meets the container's own sandbox.vhdx.
                try:
                    self.layers.create_uvm_scratch(directory, parents)
                except SnapshotterError as error:
                    raise error.prefixed("failed to make UVM's scratch layer") from error
            try:
                self.layers.create_scratch(directory, parents, options.size)
            except SnapshotterError as error:
                raise error.prefixed("failed to create scratch layer") from error
        elif not is_unpack_key(key):
            self.layers.create_base(directory)
        sync_directory(os.path.dirname(directory))

    def _undo_create(self, metadata: Metastore, number: int) -> None:
        """After a failed create: nothing on disk, and the id is not given out again."""
        if self.rehearsing:
            return
        directory = self._directory(number)
        try:
            if os.path.lexists(directory):
                os.rename(directory, self._aside(number))
                self.layers.discard(self._aside(number))
            metadata.burn(number)
        except (OSError, SnapshotterError) as error:
            # The directory itself keeps the id from being used again.
            self.warnings.append(f"could not clean up after the failure: {error}")

    def _is_occupied(self, number: int) -> bool:
        return os.path.lexists(self._directory(number)) or os.path.lexists(self._aside(number))

    # -- committing ----------------------------------------------------------

    def commit(self, name: str, key: str, labels: Optional[Mapping[str, str]] = None, parent: str = "") -> Info:
        """Make the active snapshot ``key`` the committed snapshot ``name``.

        Its scratch becomes a read-only layer first. Labels are those given
        here; nothing is inherited. ``parent`` gives a parentless snapshot its
        parent. Name, kind and parent are checked before the conversion and
        again after it. Raises NotFound (key, parent), AlreadyExists (name),
        FailedPrecondition (a view or committed snapshot; mounted),
        InvalidArgument (another parent), Unavailable (being committed).
        """
        labels = labels or {}
        check_key(name, "name")
        label_rules.validate(labels)
        metadata = self._open()
        with metadata.write() as tx:
            try:
                tx.get_info(key)
            except NotFound as error:
                raise error.prefixed(f"failed to get storage info for {key}") from None
            tx.get_snapshot(key)
            info, parent = self._check_commit(tx, key, name, parent)
            lock = self._lock(tx, key, info.id)
            try:
                parents = self._directories(tx.parent_ids(parent))
                self._recover(info.id, info.kind)
                tx.set_holder(key, f"process {os.getpid()} since {model.now()}")
            except BaseException:
                lock.release()
                raise
        with lock:
            try:
                usage = self._convert(key, info, parents)
                with metadata.write() as tx:
                    self._check_commit(tx, key, name, parent)
                    tx.commit_active(key, name, usage, labels, parent)
                    return tx.get_info(name).info
            except BaseException:
                self._release_mark(metadata, key)
                raise

    @staticmethod
    def _check_commit(tx: Transaction, key: str, name: str, parent: str) -> Tuple[Info, str]:
        try:
            return tx.check_commit(key, name, parent)
        except SnapshotterError as error:
            raise error.prefixed("failed to commit snapshot") from None

    def _convert(self, key: str, info: Info, parents: List[str]) -> Usage:
        directory = self._directory(info.id)
        self._refuse_if_mounted(key, directory, "commit")
        if self.rehearsing:
            return Usage(0, 0)
        if not is_unpack_key(key):
            self.layers.convert(directory, parents)
        try:
            return self.layers.disk_usage(directory)
        except SnapshotterError as error:
            raise error.prefixed(
                f"failed to collect disk usage of snapshot storage: {self.layers.presented(directory)}"
            ) from error

    def _release_mark(self, metadata: Metastore, key: str) -> None:
        try:
            with metadata.write() as tx:
                tx.set_holder(key, None)
        except SnapshotterError as error:
            # Our lock is about to be free, which makes the mark void for everybody.
            self.warnings.append(f"could not take back the mark of the failed commit: {error}")

    # -- changing and removing -----------------------------------------------

    def update(self, name: str, labels: Optional[Mapping[str, str]] = None, fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels of a snapshot of any kind; nothing else is mutable.

        See ``Transaction.update_info`` for ``fieldpaths``. A later change of
        the size label does not resize anything. Raises NotFound,
        InvalidArgument, Unavailable (being committed).
        """
        labels = labels or {}
        label_rules.validate(labels)
        with self._open().write() as tx:
            self._refuse_if_held(tx, name)
            return tx.update_info(name, labels, fieldpaths)

    def grow_scratch(self, key: str, size: int) -> ScratchInfo:
        """Make the scratch disk of an active snapshot at least ``size`` bytes; what it is then.

        Raises NotFound, FailedPrecondition (not active, or no scratch),
        InvalidArgument (size), Unavailable (another process works on it).
        """
        metadata = self._open()
        with metadata.write() as tx:
            info = tx.get_info(key).info
            if info.kind != ACTIVE:
                raise FailedPrecondition(
                    f'snapshot "{key}" is {_a(info.kind)}; only the scratch disk of an active snapshot can grow',
                    key=key,
                )
            lock = self._lock(tx, key, info.id)
            self._recover(info.id, info.kind)
        with lock:
            directory = self._directory(info.id)
            if self.layers.scratch_info(directory) is None:
                raise FailedPrecondition(
                    f'snapshot "{key}" has no scratch disk: it was prepared without a parent or to unpack a layer',
                    key=key,
                )
            return self._presented_scratch(self.layers.grow_scratch(directory, size))

    def remove(self, key: str) -> None:
        """Remove a snapshot that has no children and is not mounted.

        The layer is destroyed at the end; if that fails, a warning says so and
        ``rm-<id>`` stays for a later cleanup. Raises NotFound,
        FailedPrecondition (children, mounted), Unavailable (in use).
        """
        metadata = self._open()
        number = 0
        lock: Optional[FileLock] = None
        try:
            with metadata.write() as tx:
                holder = tx.find_holder(key)
                try:
                    number, kind = tx.remove(key)
                except SnapshotterError as error:
                    raise error.prefixed("failed to remove") from None
                if not self.rehearsing:
                    lock = self._lock_number(number)
                    if lock is None:
                        raise self._busy(key, holder)
                    self._recover(number, kind)
                self._refuse_if_mounted(key, self._directory(number), "remove")
                if not self.rehearsing:
                    self._set_aside(number)
        except BaseException:
            if lock is not None:
                self._put_back(number)
                lock.release()
            raise
        if lock is not None:
            with lock:
                self._destroy(number)
            self._forget_lock(number)

    def _set_aside(self, number: int) -> None:
        directory, aside = self._directory(number), self._aside(number)
        try:
            try:
                os.rename(directory, aside)
            except PermissionError as error:
                if getattr(error, "winerror", None) != _ERROR_ACCESS_DENIED:
                    raise
                self._release(number, error)
                os.rename(directory, aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _os_error(error, f"failed to remove: rename {self.layers.presented(directory)}") from error
        sync_directory(os.path.dirname(directory))

    def _release(self, number: int, denied: OSError) -> None:
        """Detach a layer that a dead process left attached; ``denied`` is how the renaming of it failed."""
        directory, aside = self._directory(number), self._aside(number)
        try:
            self.layers.release(directory)
        except SnapshotterError as error:
            paths = f"{self.layers.presented(directory)} {self.layers.presented(aside)}"
            raise FailedPrecondition(
                f"{error.message}: rename {paths}: {denied.strerror}; is a file below it open in another program?",
                **error.details,
            ) from error

    def _destroy(self, number: int) -> None:
        path = self._aside(number)
        try:
            self.layers.destroy(path)
        except SnapshotterError as error:
            self.warnings.append(
                f"the snapshot is removed, but its layer {self.layers.presented(path)} "
                f"could not be destroyed yet: {error}"
            )

    # -- importing -----------------------------------------------------------

    def import_layer(
        self,
        name: str,
        parent: str,
        labels: Mapping[str, str],
        unpack: Callable[[str, List[str]], ImportResult],
    ) -> ImportResult:
        """Make the committed snapshot ``name`` from a layer that ``unpack(directory, parents)`` writes.

        The way of containerd's unpacker (core/unpack/unpacker.go): an active
        snapshot under an ``extract-`` key, filled, committed. Whatever fails,
        that snapshot is removed again. Raises AlreadyExists (name) before
        anything is written, NotFound or InvalidArgument (parent), and what
        ``unpack`` raises.
        """
        with self._open().read() as tx:
            try:
                tx.get_info(name)
            except NotFound:
                pass
            else:
                raise AlreadyExists(f"committed snapshot {name}: already exists", name=name)
        key = f"extract-{os.getpid()}-{model.now()} {name}"
        self.prepare(key, parent)
        try:
            with self._open().read() as tx:
                snapshot = tx.get_snapshot(key)
            result = unpack(self._directory(snapshot.id), self._directories(snapshot.parent_ids))
            self.commit(name, key, labels)
        except BaseException:
            self._abandon(key)
            raise
        return result

    def _abandon(self, key: str) -> None:
        try:
            self.remove(key)
        except SnapshotterError as error:
            self.warnings.append(f'could not remove "{key}" after the failure: {error}')

    # -- mounting ------------------------------------------------------------

    def mount(self, key: str, target: str) -> None:
        """Make an active snapshot (writable) or a view (read-only) a directory tree at ``target``.

        A view gets its scratch now. Raises NotFound, FailedPrecondition
        (committed; target in use), Unavailable.
        """
        native = self.layers.native(target)
        metadata = self._open()
        with metadata.write() as tx:
            snapshot = self._get_snapshot(tx, key)
            lock = self._lock(tx, key, snapshot.id)
            self._recover(snapshot.id, snapshot.kind)
            for number in snapshot.parent_ids:
                self._recover(number, COMMITTED)
        with lock:
            if self.rehearsing:
                return
            directory = self._directory(snapshot.id)
            parents = self._directories(snapshot.parent_ids)
            if snapshot.kind == VIEW and not os.path.isdir(directory):
                self._make_view_layer(snapshot.id, parents)
            self.layers.mount(directory, parents, native, snapshot.kind == VIEW)

    def _make_view_layer(self, number: int, parents: List[str]) -> None:
        """A view's scratch, made beside its place and renamed into it: whole or not there."""
        directory = self._directory(number)
        draft = self._aside(number)
        try:
            os.mkdir(draft, 0o777 if os.name == "nt" else 0o700)
            if parents:
                self.layers.create_scratch(draft, parents, 0)
            else:
                self.layers.create_base(draft)
            os.rename(draft, directory)
        except BaseException:
            self.layers.discard(draft)
            raise
        sync_directory(os.path.dirname(directory))

    def unmount(self, target: str) -> None:
        """Undo ``mount``; what was written to an active snapshot is in its scratch then.

        A target that is not mounted is no error.
        """
        if not self.rehearsing:
            self.layers.unmount(self.layers.native(target))

    def mounted_at(self, key: str) -> List[str]:
        """Where a snapshot is mounted, as users write paths. Raises NotFound."""
        return [self.layers.presented(target) for target in self.layers.mounted_at(self._located(self.stat(key)))]

    def is_mounted(self, key: str, target: str) -> bool:
        """Whether ``key`` is mounted at ``target``. Raises NotFound, InvalidArgument (``target`` is not absolute)."""
        wanted = os.path.normcase(self.layers.native(target))
        directory = self._located(self.stat(key))
        return any(os.path.normcase(place) == wanted for place in self.layers.mounted_at(directory))

    # -- exporting -----------------------------------------------------------

    def export_layer(self, name: str, stream: BinaryIO) -> None:
        """Write the layer of a committed snapshot as an OCI layer tar.

        Raises NotFound, FailedPrecondition (not committed), Unavailable
        (another process works on it).
        """
        with self._open().write() as tx:
            info = tx.get_info(name).info
            if info.kind != COMMITTED:
                raise FailedPrecondition(
                    f'snapshot "{name}" is {_a(info.kind)}; only a committed one is a layer', name=name
                )
            numbers = tx.parent_ids(info.parent)
            lock = self._lock(tx, name, info.id)
            for number in (info.id, *numbers):
                self._recover(number, COMMITTED)
        with lock:
            self.layers.export_layer(self._directory(info.id), self._directories(numbers), stream)

    # -- directories and locks -----------------------------------------------

    def _directory(self, number: int) -> str:
        return os.path.join(self.root, "snapshots", str(number))

    def _aside(self, number: int) -> str:
        return os.path.join(self.root, "snapshots", f"rm-{number}")

    def _directories(self, numbers: Sequence[int]) -> List[str]:
        return [self._directory(number) for number in numbers]

    def _recover(self, number: int, kind: str) -> None:
        """Mend what a dead process left of a snapshot that still has its record.

        ``rm-<id>`` is the layer of a removal that did not get as far as its
        COMMIT: it gets its name back. Of a view it may also be half a scratch;
        a view holds nothing of its own, so it is destroyed. To be called in a
        write transaction: living processes rename only inside one.
        """
        if self.rehearsing or not os.path.lexists(self._aside(number)):
            return
        if kind == VIEW:
            self.layers.destroy(self._aside(number))
        else:
            self._put_back(number)

    def _located(self, info: Info) -> str:
        """The layer directory for a reader, mended first where that is needed."""
        directory = self._directory(info.id)
        if not os.path.lexists(directory) and os.path.lexists(self._aside(info.id)):
            with self._open().write():
                self._recover(info.id, info.kind)
        return directory

    def _put_back(self, number: int) -> None:
        directory, aside = self._directory(number), self._aside(number)
        if not os.path.lexists(directory) and os.path.lexists(aside):
            os.rename(aside, directory)
            sync_directory(os.path.dirname(directory))

    def _mounts(self, snapshot: Snapshot) -> List[Mount]:
        """The seed's shape: a view's source is its nearest parent, read-only."""
        layers = [self.layers.presented(path) for path in self._directories(snapshot.parent_ids)]
        source = self.layers.presented(self._directory(snapshot.id))
        if snapshot.kind == VIEW and layers:
            source, layers = layers[0], layers[1:]
        return [model.layer_mount(source, layers, snapshot.kind == VIEW)]

    def _presented_scratch(self, found: ScratchInfo) -> ScratchInfo:
        return found._replace(path=self.layers.presented(found.path))

    @staticmethod
    def _get_snapshot(tx: Transaction, key: str) -> Snapshot:
        try:
            return tx.get_snapshot(key)
        except SnapshotterError as error:
            raise error.prefixed("failed to get snapshot mount") from None

    def _lock_path(self, number: int) -> str:
        return os.path.join(self.root, "locks", str(number))

    def _lock_number(self, number: int) -> Optional[FileLock]:
        lock = FileLock(self._lock_path(number))
        try:
            return lock if lock.acquire() else None
        except OSError as error:
            raise _os_error(error, f"cannot lock snapshot {number}") from error

    def _lock(self, tx: Transaction, key: str, number: int) -> FileLock:
        """The lock of one snapshot's files; with it, the mark of a holder that died is void."""
        if self.rehearsing:
            return FileLock(os.devnull)
        lock = self._lock_number(number)
        holder = tx.find_holder(key)
        if lock is None:
            raise self._busy(key, holder)
        if holder is not None:
            tx.set_holder(key, None)
        return lock

    def _forget_lock(self, number: int) -> None:
        """Delete the lock file of a removed snapshot; nobody else can want it, its id is gone for good."""
        try:
            os.unlink(self._lock_path(number))
        except OSError:
            # A process that came too late looks at it this moment; the empty file harms nobody.
            pass

    def _refuse_if_held(self, tx: Transaction, key: str) -> None:
        """Raise Unavailable while a living process converts ``key``."""
        if tx.find_holder(key) is not None:
            self._lock(tx, key, tx.get_info(key).info.id).release()

    @staticmethod
    def _busy(key: str, holder: Optional[str]) -> Unavailable:
        what = f"is being committed by {holder}" if holder else "is in use by another process of the collection"
        return Unavailable(f'snapshot "{key}" {what}; run the task again when that has ended', key=key, holder=holder)

    def _refuse_if_mounted(self, key: str, directory: str, operation: str) -> None:
        targets = [self.layers.presented(target) for target in self.layers.mounted_at(directory)]
        if targets:
            raise FailedPrecondition(
                f'cannot {operation} snapshot "{key}": it is mounted at {", ".join(targets)}; unmount it first',
                key=key,
                targets=targets,
            )


def _a(kind: str) -> str:
    return f"an {kind} snapshot" if kind == ACTIVE else f"a {kind}" + (" snapshot" if kind == COMMITTED else "")


def _os_error(error: OSError, what: str) -> SnapshotterError:
    """An operating system error in the classes of the core."""
    import errno

    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return Unavailable(f"{what}: no space left on the volume; free some and run the task again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return FailedPrecondition(
            f"{what}: {error.strerror}; is the volume read-only, or the task run without administrator rights?"
        )
    return FailedPrecondition(f"{what}: {error.strerror}")
