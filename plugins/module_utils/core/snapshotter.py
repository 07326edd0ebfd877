# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operations of the Windows snapshotter (containerd plugins/snapshots/windows).

An active snapshot or view is known by its *key*, a committed one by its
*name*; both share one space. Parents are committed snapshots. Operations are
strict: they raise where the state does not allow them. What makes them
idempotent is in ``ensure``.

Metadata and directory change together, under one write transaction:

* *create*: record, mark, directory, scratch, COMMIT, mark taken away. A process
  that dies before COMMIT leaves a marked directory without a record, under the
  next id. Whoever opens the store then renames it to ``rm-<id>``, and nobody
  gets that id again. A directory that has neither record nor mark is none of
  these, but a layer whose record was lost: it is never touched.
* *remove*: record deleted, directory renamed to ``rm-<id>``, COMMIT, destroy.
  A process that dies before COMMIT leaves a record whose directory is
  ``rm-<id>``; whoever needs the directory next renames it back.
* *commit*: the snapshot is marked with its holder, COMMIT; conversion without
  any transaction; then kind, name and usage in a second one.

Work on the files of one snapshot is done under that snapshot's ``FileLock``.
A mark in the metadata whose lock is free belongs to a process that died.
"""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, Callable, List, Mapping, Optional, Sequence, Tuple, TypeVar

from . import labels as label_rules
from . import model
from .directories import Directories
from .durable import make_directories, sync_directory
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
from .layers.base import ImportResult, LayerStore, ScratchInfo
from .lock import FileLock
from .metastore import Metastore, Record, Transaction, check_key
from .model import ACTIVE, COMMITTED, VIEW, Info, Mount, Snapshot, Usage

METADATA_FILE = "metadata.sqlite3"

# What containerd keeps beside its snapshots (plugins/snapshots/windows, core/snapshots/storage).
_CONTAINERD_METADATA = "metadata.db"

#: What ``import_layer`` unpacks into: number of the process, time, a random number, the name that the snapshot gets.
IMPORT_KEY = r"extract-[0-9]+-[-0-9T:.]+Z-[0-9a-f]{8} (?P<name>.+)"


def is_unpack_key(key: str) -> bool:
    """Whether ``key`` names a snapshot that an image layer is unpacked into.

    Such a snapshot gets no scratch, and Commit does not convert it. containerd
    writes ``extract-<unique> <chain id>``, behind ``<namespace>/<sequence>/``
    for a backend (pkg/rootfs/apply.go). Its snapshotter asks whether the key
    *contains* "extract", so that a container of that name never gets a disk;
    here the last part of the key must begin with it, what follows the first
    space aside, for that may be any name.
    """
    return key.split(" ", 1)[0].rsplit("/", 1)[-1].startswith("extract-")


_Found = TypeVar("_Found")


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
        self.directories = Directories(self.root, layers, rehearse)
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

    def metadata(self) -> Metastore:
        """The metadata, an empty one in memory where there is no store; a copy in memory in a rehearsal."""
        return self._open()

    def create(self, *, adopt: bool = False) -> Metastore:
        """Make the store if there is none; its metadata.

        Raises FailedPrecondition where layers lie without metadata, unless
        ``adopt`` takes them as they are; and what making directories raises.
        """
        return self._open(create=True, adopt=adopt)

    def forget_metadata(self) -> None:
        """Close the metadata, so that its files can be deleted; the next operation opens what is there then."""
        if self._metadata is not None:
            self._metadata.close()
        self._metadata = None

    def _open(self, create: bool = False, adopt: bool = False) -> Metastore:
        """The metadata; the store's directories too where ``create`` asks for them."""
        if self._closed:
            raise FailedPrecondition("database not open")
        path = os.path.join(self.root, METADATA_FILE)
        there = os.path.exists(path)
        if not there and not adopt and (self._metadata is None or (create and self._stand_in)):
            self._refuse_layers()
        if self.rehearsing:
            if self._metadata is None:
                with_store = Metastore(path)
                try:
                    self._metadata = with_store.copy_to_memory()
                finally:
                    with_store.close()
            return self._metadata
        if self._metadata is None or (self._stand_in and (create or there)):
            if create:
                self._make_directories()
            if self._metadata is not None:
                self._metadata.close()
            self._metadata = Metastore(path, create=create)
            self._stand_in = not (create or there)
            if not self._stand_in:
                self.directories.refuse_link()
                self._mend(self._metadata)
        return self._metadata

    def _mend(self, metadata: Metastore) -> None:
        """Set aside what a dead ``_create`` left, without waiting for anybody and without a word if that fails."""
        with metadata.read() as tx:
            number = tx.next_id()
        if not self.directories.is_draft(number) and not self.directories.is_draft(number - 1):
            return
        try:
            with metadata.write(wait=False) as tx:
                self._set_stray_aside(tx)
        except (OSError, SnapshotterError):
            # Who writes now may be the one that makes this directory. On a read-only volume it does no harm.
            pass

    def is_containerds(self) -> bool:
        """Whether the root belongs to a snapshotter of containerd."""
        return os.path.lexists(os.path.join(self.root, _CONTAINERD_METADATA))

    def count_lost_layers(self) -> int:
        """How many layers there are without any metadata, which must have been lost: these come before layers."""
        layers = self.directories.layers()
        return len(layers) if not os.path.lexists(os.path.join(self.root, METADATA_FILE)) else 0

    def _refuse_layers(self) -> None:
        """Raise where there are layers, though there are no metadata: an empty list would hide that."""
        shown, lost = self.layers.presented(self.root), self.count_lost_layers()
        if lost and self.is_containerds():
            raise FailedPrecondition(
                f"{shown} is the root of a snapshotter of containerd; name another root for this store", root=self.root
            )
        if lost:
            raise FailedPrecondition(
                f"{shown} has {lost} layers but no {METADATA_FILE}: restore that file from a backup; or begin anew "
                "beside them with the module store, state=present and force=true",
                root=self.root,
            )

    def _make_directories(self) -> None:
        there = os.path.lexists(self.root)
        try:
            failpoint("store.create.root")
            make_directories(self.root)
            failpoint("store.create.protect")
            if os.name == "nt" and not there:
                # What is above, such as ProgramData, lets every user write.
                self._protect_root()
            failpoint("store.create.snapshots")
            make_directories(self.directories.snapshots)
            failpoint("store.create.made")
        except OSError as error:
            raise os_error(error, f"cannot create the store in {self.layers.presented(self.root)}") from error

    def _protect_root(self) -> None:
        from .layers import protection

        try:
            protection.protect(self.root)
        except SnapshotterError as error:
            self.warnings.append(f"{self.root} is not protected, other users may get at it: {error}")

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

        def look(record: Record, directory: str) -> Usage:
            if record.info.kind == COMMITTED or not os.path.isdir(directory):
                return record.usage
            return self.layers.disk_usage(directory)

        return self._look(key, look)

    def mounts(self, key: str) -> List[Mount]:
        """How to mount an active snapshot or view. Pure computation.

        Raises NotFound, and FailedPrecondition for a committed snapshot.
        """
        with self._open().read() as tx:
            return self._mounts(self._get_snapshot(tx, key))

    def scratch(self, key: str) -> Optional[ScratchInfo]:
        """The scratch disk of a snapshot, None where it has none. Raises NotFound."""
        found = self._look(key, lambda _record, directory: self.layers.scratch_info(directory))
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
        return self._mounts(self._create(ACTIVE, key, parent, labels or {})[0])

    def view(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        """Make a read-only view of ``parent``. It costs nothing on disk until it is mounted."""
        return self._mounts(self._create(VIEW, key, parent, labels or {})[0])

    def _create(
        self, kind: str, key: str, parent: str, labels: Mapping[str, str], *, hold: bool = False
    ) -> Tuple[Snapshot, FileLock]:
        """Make a snapshot. With ``hold`` its lock is taken before anybody can see it, and the caller releases it."""
        check_key(key, "key")
        label_rules.validate(labels)
        # A store that is not there has no parents: it is made only for what can succeed.
        metadata = self._open(create=not parent)
        snapshot: Optional[Snapshot] = None
        lock = FileLock(os.devnull)
        try:
            with metadata.write() as tx:
                self._pass_over_strays(tx)
                try:
                    snapshot = tx.create_snapshot(kind, key, parent, labels)
                except SnapshotterError as error:
                    raise error.prefixed("failed to create snapshot") from None
                for number in snapshot.parent_ids:
                    self.directories.recover(number, COMMITTED)
                if hold:
                    lock = self._lock(tx, key, snapshot.id)
                if kind == ACTIVE:
                    self._make_layer(snapshot, key, labels)
        except BaseException:
            lock.release()
            if snapshot is not None:
                self._undo_create(metadata, snapshot.id)
            raise
        if kind == ACTIVE and not self.rehearsing:
            self.directories.finish(snapshot.id)
        return snapshot, lock

    def _make_layer(self, snapshot: Snapshot, key: str, labels: Mapping[str, str]) -> None:
        """The directory of a new active snapshot and what belongs into it."""
        directory = self.directories.directory(snapshot.id)
        parents = self.directories.of(snapshot.parent_ids)
        options = None
        if parents and not is_unpack_key(key):
            options = label_rules.scratch_options(labels)
            self.warnings.extend(options.warnings)
        if self.rehearsing:
            if options is not None:
                self.layers.create_scratch(directory, parents, options.size)
            return
        try:
            self.directories.begin(snapshot.id)
        except OSError as error:
            raise os_error(error, f"failed to create snapshot dir {self.layers.presented(directory)}") from error
        failpoint("create.layer")
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
        failpoint("create.sync")
        sync_directory(os.path.dirname(directory))
        failpoint("create.done")

    def _undo_create(self, metadata: Metastore, number: int) -> None:
        """After a failed create: nothing on disk, and the id is not given out again."""
        if self.rehearsing:
            return
        directory = self.directories.directory(number)
        try:
            failpoint("undo.rename")
            if os.path.lexists(directory):
                os.rename(directory, self.directories.aside(number))
                failpoint("undo.discard")
                self.layers.discard(self.directories.aside(number))
            failpoint("undo.burn")
            metadata.burn(number)
        except (OSError, SnapshotterError) as error:
            # The directory itself keeps the id from being used again.
            self.warnings.append(f"could not clean up after the failure: {error}")
        if not os.path.lexists(directory):
            self.directories.finish(number)

    def _pass_over_strays(self, tx: Transaction) -> None:
        """See to it that the next id is one of which nothing is on disk."""
        if not self.rehearsing:
            try:
                self._set_stray_aside(tx)
            except OSError:
                # Another program holds it. It stays where it is, and is never used.
                pass
        while self.directories.is_occupied(tx.next_id()):
            tx.burn(tx.next_id())

    def _set_stray_aside(self, tx: Transaction) -> None:
        """Rename what a process that died in ``_create`` left to ``rm-<id>``, and give its id to nobody.

        Only a COMMIT counts ids on, so it can only be the next one. Without
        its mark a directory there is no such thing: the metadata are older
        than the layers, a backup perhaps, and it may hold what somebody wants
        back. So it stays.
        """
        number = tx.next_id()
        for done in (number - 1, number):
            if self.directories.is_draft(done) and (
                tx.find_name(done) is not None or not os.path.lexists(self.directories.directory(done))
            ):
                self.directories.finish(done)
        if not self.directories.is_draft(number):
            return
        directory = self.directories.directory(number)
        failpoint("stray.rename")
        os.rename(directory, self.directories.aside(number))
        failpoint("stray.burn")
        sync_directory(os.path.dirname(directory))
        self.directories.finish(number)
        tx.burn(number)

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
                parents = self.directories.of(tx.parent_ids(parent))
                self.directories.recover(info.id, info.kind)
                tx.set_holder(key, f"process {os.getpid()} since {model.now()}")
            except BaseException:
                lock.release()
                raise
        with lock:
            try:
                return self._finish_commit(name, key, labels, parent, info, parents)
            except BaseException:
                self._release_mark(metadata, key)
                raise

    def _finish_commit(
        self, name: str, key: str, labels: Mapping[str, str], parent: str, info: Info, parents: List[str]
    ) -> Info:
        """Convert and record; the caller holds the lock of ``key``."""
        usage = self._convert(key, info, parents)
        failpoint("commit.record")
        with self._open().write() as tx:
            self._check_commit(tx, key, name, parent)
            tx.commit_active(key, name, usage, labels, parent)
            return tx.get_info(name).info

    @staticmethod
    def _check_commit(tx: Transaction, key: str, name: str, parent: str) -> Tuple[Info, str]:
        try:
            return tx.check_commit(key, name, parent)
        except SnapshotterError as error:
            raise error.prefixed("failed to commit snapshot") from None

    def _convert(self, key: str, info: Info, parents: List[str]) -> Usage:
        directory = self.directories.directory(info.id)
        self._refuse_if_mounted(key, directory, "commit")
        if self.rehearsing:
            return Usage(0, 0)
        failpoint("commit.convert")
        if not is_unpack_key(key):
            self.layers.convert(directory, parents)
        try:
            return self.layers.disk_usage(directory)
        except SnapshotterError as error:
            raise error.prefixed(
                f"failed to collect disk usage of snapshot storage: {self.layers.presented(directory)}"
            ) from error

    def _release_mark(self, metadata: Metastore, key: str) -> None:
        failpoint("commit.release_mark")
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
        with contextlib.ExitStack() as held:
            with self._open().write() as tx:
                info = tx.get_info(key).info
                if info.kind != ACTIVE:
                    raise FailedPrecondition(
                        f'snapshot "{key}" is {_a(info.kind)}; only the scratch disk of an active snapshot can grow',
                        key=key,
                    )
                held.enter_context(self._lock(tx, key, info.id))
                self.directories.recover(info.id, info.kind)
            directory = self.directories.directory(info.id)
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
                    lock = self.directories.lock(number)
                    if lock is None:
                        raise self._busy(key, holder)
                    self.directories.recover(number, kind)
                self._refuse_if_mounted(key, self.directories.directory(number), "remove")
                if not self.rehearsing:
                    self.directories.set_aside(number)
        except BaseException:
            if lock is not None:
                self.directories.put_back(number)
                lock.release()
            raise
        if lock is not None:
            with lock:
                self._destroy(number)
            self.directories.forget_lock(number)

    def _destroy(self, number: int) -> None:
        path = self.directories.aside(number)
        failpoint("remove.destroy")
        try:
            self.layers.destroy(path)
            failpoint("remove.destroyed")
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
        snapshot under an ``extract-`` key, filled, committed, its lock held all
        the time. Whatever fails, that snapshot is removed again; one whose lock
        is free is what a dead process left. Raises AlreadyExists (name) before
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
        check_key(name, "name")
        label_rules.validate(labels)
        # Process numbers come again, and so do times on a clock that is set back.
        key = f"extract-{os.getpid()}-{model.now()}-{os.urandom(4).hex()} {name}"
        snapshot, lock = self._create(ACTIVE, key, parent, {}, hold=True)
        try:
            with lock:
                failpoint("import.unpack")
                parents = self.directories.of(snapshot.parent_ids)
                result = unpack(self.directories.directory(snapshot.id), parents)
                self._finish_commit(name, key, labels, parent, self.stat(key), parents)
        except BaseException:
            failpoint("import.abandon")
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
        with contextlib.ExitStack() as held:
            with self._open().write() as tx:
                snapshot = self._get_snapshot(tx, key)
                held.enter_context(self._lock(tx, key, snapshot.id))
                self.directories.recover(snapshot.id, snapshot.kind)
                for number in snapshot.parent_ids:
                    self.directories.recover(number, COMMITTED)
            if self.rehearsing:
                return
            directory = self.directories.directory(snapshot.id)
            parents = self.directories.of(snapshot.parent_ids)
            if snapshot.kind == VIEW and not os.path.isdir(directory):
                self._make_view_layer(snapshot.id, parents)
            failpoint("mount.layer")
            self.layers.mount(directory, parents, native, snapshot.kind == VIEW)

    def _make_view_layer(self, number: int, parents: List[str]) -> None:
        """A view's scratch, made beside its place and renamed into it: whole or not there."""
        directory = self.directories.directory(number)
        draft = self.directories.aside(number)
        failpoint("view.directory")
        try:
            os.mkdir(draft, 0o777 if os.name == "nt" else 0o700)
            failpoint("view.layer")
            if parents:
                self.layers.create_scratch(draft, parents, 0)
            else:
                self.layers.create_base(draft)
            failpoint("view.rename")
            os.rename(draft, directory)
        except BaseException:
            self.layers.discard(draft)
            raise
        failpoint("view.renamed")
        sync_directory(os.path.dirname(directory))

    def unmount(self, target: str) -> None:
        """Undo ``mount``; what was written to an active snapshot is in its scratch then.

        A target that is not mounted is no error. Raises Unavailable (another
        process works on the snapshot).
        """
        native = self.layers.native(target)
        if self.rehearsing:
            self.layers.unmount(native)
            return
        with contextlib.ExitStack() as held:
            with self._open().write() as tx:
                number = self._number_of(self.layers.mounted_layer(native))
                key = tx.find_name(number)
                # Also what is none of this store's can be unmounted here.
                if key is not None:
                    held.enter_context(self._lock(tx, key, number))
            self.layers.unmount(native)

    def _number_of(self, directory: Optional[str]) -> int:
        """The id of the snapshot with a layer directory, 0 for one that is not in this store."""
        above, name = os.path.split(directory or "")
        snapshots = self.directories.snapshots
        same = os.path.normcase(os.path.realpath(above)) == os.path.normcase(os.path.realpath(snapshots))
        return int(name) if same and name.isdecimal() else 0

    def mounted_at(self, key: str) -> List[str]:
        """Where a snapshot is mounted, as users write paths. Raises NotFound."""
        targets = self._look(key, lambda _record, directory: self.layers.mounted_at(directory))
        return [self.layers.presented(target) for target in targets]

    def is_mounted(self, key: str, target: str) -> bool:
        """Whether ``key`` is mounted at ``target``. Raises NotFound, InvalidArgument (``target`` is not absolute)."""
        native = self.layers.native(target)
        return self._look(key, lambda _record, directory: self.layers.is_mounted(directory, native))

    # -- exporting -----------------------------------------------------------

    def export_layer(self, name: str, stream: BinaryIO) -> None:
        """Write the layer of a committed snapshot as an OCI layer tar.

        Raises NotFound, FailedPrecondition (not committed), Unavailable
        (another process works on it).
        """
        with contextlib.ExitStack() as held:
            with self._open().write() as tx:
                info = tx.get_info(name).info
                if info.kind != COMMITTED:
                    raise FailedPrecondition(
                        f'snapshot "{name}" is {_a(info.kind)}; only a committed one is a layer', name=name
                    )
                numbers = tx.parent_ids(info.parent)
                held.enter_context(self._lock(tx, name, info.id))
                for number in (info.id, *numbers):
                    self.directories.recover(number, COMMITTED)
            self.layers.export_layer(self.directories.directory(info.id), self.directories.of(numbers), stream)

    # -- directories and locks -----------------------------------------------

    def _look(self, key: str, look: Callable[[Record, str], _Found]) -> _Found:
        """What ``look`` finds of a snapshot, given its record and its layer directory. Raises NotFound.

        No lock is held, so the snapshot may be removed meanwhile. What was
        found, or went wrong, counts if the directory was there before and
        after, for an id is given out once; of a view, if it was absent both
        times, as it is before the first mount. Anything else is told apart
        when nobody writes: removed, or left aside by a process that died.
        """
        with self._open().read() as tx:
            record = tx.get_info(key)
        directory = self.directories.directory(record.info.id)
        there = os.path.lexists(directory)
        if there or record.info.kind == VIEW:
            try:
                found = look(record, directory)
            except SnapshotterError:
                if os.path.lexists(directory) == there:
                    raise
            else:
                if os.path.lexists(directory) == there:
                    return found
        with self._open().write() as tx:
            record = tx.get_info(key)
            if record.info.kind != VIEW:  # of a view, that may be what a living process makes
                self.directories.recover(record.info.id, record.info.kind)
            return look(record, self.directories.directory(record.info.id))

    def _mounts(self, snapshot: Snapshot) -> List[Mount]:
        """The seed's shape: a view's source is its nearest parent, read-only."""
        layers = [self.layers.presented(path) for path in self.directories.of(snapshot.parent_ids)]
        source = self.layers.presented(self.directories.directory(snapshot.id))
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

    def _lock(self, tx: Transaction, key: str, number: int) -> FileLock:
        """The lock of one snapshot's files; with it, the mark of a holder that died is void."""
        if self.rehearsing:
            return FileLock(os.devnull)
        holder = tx.find_holder(key)
        lock = self.directories.lock(number)
        failpoint("lock.acquired")
        if lock is None:
            raise self._busy(key, holder)
        if holder is not None:
            try:
                tx.set_holder(key, None)
            except BaseException:
                lock.release()
                raise
        return lock

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
