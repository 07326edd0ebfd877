# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot operations on the store of the collection (``snapshots`` has the interface).

Metadata and directory change together, under one write transaction:

* *create*: record, marker, directory, scratch, COMMIT, marker deleted. A
  process that ends before COMMIT leaves a layer with a marker and without a
  record, under the next id. The next transaction of any process renames it to
  ``rm-<id>`` and skips its id (``store``).
* *remove*: directory renamed to ``rm-<id>``, record deleted, COMMIT, destroy.
  A process that ends before COMMIT leaves a record whose directory is
  ``rm-<id>``; the next operation that needs the directory renames it back.
* *commit*: the record names its lock owner, COMMIT (not durable); conversion without any
  transaction; then kind, name and usage in a second transaction.

Work on the files of one snapshot is done under its ``FileLock``. A lock owner
in the metadata whose lock is free has ended.
"""

from __future__ import annotations

import contextlib
import os
from typing import (
    TYPE_CHECKING,
    BinaryIO,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

from . import labels as label_rules
from . import model
from .errors import AlreadyExists, FailedPrecondition, NotFound, SnapshotterError, Unavailable
from .failpoint import failpoint
from .files import os_error, sync_directory
from .formats.imagenames import say_unknown
from .formats.ntfsnames import path_key
from .keys import check_key, is_unpack_key
from .layers.base import LayerStore
from .lock import FileLock
from .metastore.transaction import Record, Transaction
from .model import (
    ACTIVE,
    COMMITTED,
    VIEW,
    Description,
    ImportResult,
    Info,
    Mount,
    ScratchInfo,
    Snapshot,
    TopLayer,
    Usage,
)
from .store import OwnStore, rootfs_size

if TYPE_CHECKING:
    from .snapshots import Unpack

_Found = TypeVar("_Found")

# Snapshots that one transaction removes. Most of the time of a removal is that of the flushes of its transaction; but
# other tasks wait for it, and each snapshot keeps a file handle.
_REMOVED_AT_ONCE = 50


class Snapshotter:
    """One store: root directory, metadata, layers. It implements ``snapshots.SnapshotStore``.

    ``root`` is the path as the user wrote it. With ``dry_run`` the metadata is
    a copy in memory, and ``layers`` must be a store that writes nothing.
    ``destroy_later``: a removal ends with a call of it for the id of the layer,
    which the caller destroys (``OwnStore.destroy_removed``). ``views_have_layers``:
    a view gets its scratch at once and is mounted from it, as in containerd 2.0.
    ``label_sizes``: a scratch disk without a size label gets one with the
    default size of the store. Raises as ``OwnStore``.
    """

    def __init__(
        self,
        root: str,
        layers: LayerStore,
        *,
        dry_run: bool = False,
        destroy_later: Optional[Callable[[int], None]] = None,
        views_have_layers: bool = False,
        label_sizes: bool = False,
    ) -> None:
        self.store = OwnStore(root, layers, dry_run=dry_run)
        self.managed_labels: Sequence[str] = ()
        self.root = self.store.root
        self.layers = layers
        self.dry_run = dry_run
        self.directories = self.store.directories
        self._destroy_later = destroy_later
        self._views_have_layers = views_have_layers
        self._label_sizes = label_sizes
        # Ids of the snapshots that a dry run has created: they have no layer on disk.
        self._planned: Set[int] = set()

    @property
    def warnings(self) -> List[str]:
        """Sentences for the user about what went wrong without failing an operation."""
        return self.store.warnings

    @warnings.setter
    def warnings(self, warnings: List[str]) -> None:
        self.store.warnings = warnings

    def exists(self) -> bool:
        return self.store.has_metadata()

    def resume(self) -> bool:
        """See ``OwnStore.resume``."""
        return self.store.resume()

    def close(self) -> None:
        self.store.close()

    # -- reading -------------------------------------------------------------

    def stat(self, key: str) -> Info:
        with self.store.read() as tx:
            return tx.get_info(key).info

    def walk(self, *filters: str) -> List[Info]:
        from .filters import language

        wanted = language.parse_all(filters)
        with self.store.read() as tx:
            infos = tx.walk(wanted)
        self.warnings.extend(wanted.warnings())
        return infos

    def usage(self, key: str) -> Usage:
        """See the interface. A view has no files until it is mounted; then its scratch counts."""

        def measure(record: Record, directory: str) -> Usage:
            if record.info.kind == COMMITTED or not os.path.isdir(directory):
                return record.usage
            return self.layers.disk_usage(directory)

        return self._look(key, measure)

    def mounts(self, key: str) -> List[Mount]:
        with self.store.read() as tx:
            snapshot = self._get_snapshot(tx, key)
        self._complete_view(key, snapshot)
        if snapshot.kind == ACTIVE and os.path.lexists(self.directories.removal_directory(snapshot.id)):
            # An interrupted removal left the layer there, and the caller wants to mount it.
            with self.store.write() as tx:
                self.directories.recover(self._get_snapshot(tx, key).id, ACTIVE)
        return self._mounts(snapshot)

    def describe(self, *names: str, scratch: bool = True) -> Dict[str, Description]:
        found: Dict[str, Description] = {}
        records: List[Record] = []
        below: Set[int] = set()
        with self.store.read() as tx:
            for name in names:
                try:
                    record = tx.get_info(name)
                except NotFound:
                    continue
                mounts = [] if record.info.kind == COMMITTED else self._mounts(tx.get_snapshot(name))
                found[name] = Description(record.info, mounts, None)
                records.append(record)
                if scratch:
                    below.update(tx.parent_ids(record.info.parent))
        if not scratch:
            return found
        self._require_layers(below)
        for record in records:
            name = record.info.name
            try:
                if record.info.kind == COMMITTED:
                    self._look(name, lambda *_: None, record)
                else:
                    found[name] = found[name]._replace(scratch=self._look(name, self._read_scratch, record))
            except NotFound:
                # Another process removed it after the transaction.
                del found[name]
        return found

    def _require_layers(self, ids: Set[int]) -> None:
        """Raise FailedPrecondition if a layer of committed snapshots does not exist, unless its record is gone, too."""
        absent = [layer_id for layer_id in sorted(ids) if not os.path.lexists(self.directories.directory(layer_id))]
        if set(absent) - self._planned:
            with self.store.write() as tx:
                self._recover(tx, *(layer_id for layer_id in absent if tx.find_name(layer_id) is not None))

    def scratch(self, key: str) -> Optional[ScratchInfo]:
        return self._look(key, self._read_scratch)

    def _read_scratch(self, _record: Record, directory: str) -> Optional[ScratchInfo]:
        found = self.layers.scratch_info(directory)
        return found and self._with_display_path(found)

    def children(self, name: str) -> List[str]:
        with self.store.read() as tx:
            return tx.children(name)

    def users(self, names: Sequence[str]) -> Dict[str, List[str]]:
        """See the interface. Nothing outside this store refers to its snapshots."""
        return {}

    def top_layers(self, image: str) -> List[TopLayer]:
        label = label_rules.IMAGE + image
        found = self.walk(f'labels."{label}"')
        if not found:
            start = len(label_rules.IMAGE)
            known = {key[start:] for info in self.walk() for key in info.labels if key.startswith(label_rules.IMAGE)}
            raise NotFound(
                f"{say_unknown(image, known)}. Import it with the module image, which records its names", image=image
            )
        return [TopLayer(info.name, info.labels[label].partition("(")[2].partition(")")[0]) for info in found]

    def default_rootfs_size(self) -> int:
        return self.store.read_rootfs_size()

    # -- creating ------------------------------------------------------------

    def prepare(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        return self._mounts(self._create(ACTIVE, key, parent, labels or {})[0])

    def view(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        snapshot, _lock = self._create(VIEW, key, parent, labels or {})
        try:
            self._complete_view(key, snapshot)
        except BaseException:
            self._abandon(key)
            raise
        return self._mounts(snapshot)

    def _create(
        self, kind: str, key: str, parent: str, labels: Mapping[str, str], *, hold: bool = False
    ) -> Tuple[Snapshot, FileLock]:
        """Create a snapshot. With ``hold``, lock it before other processes can see it; the caller releases the lock."""
        check_key(key, "key")
        label_rules.validate(labels)
        snapshot: Optional[Snapshot] = None
        lock = FileLock(os.devnull)
        try:
            # A store that does not exist has no parents, so it is created only for what can succeed.
            with self.store.write(create=not parent) as tx:
                self.store.skip_occupied_ids(tx)
                if self._label_sizes and kind == ACTIVE and parent and not is_unpack_key(key):
                    labels = self._with_size(tx, labels)
                try:
                    snapshot = tx.create_snapshot(kind, key, parent, labels)
                except SnapshotterError as error:
                    raise error.with_context("failed to create snapshot") from None
                if self.dry_run:
                    self._planned.add(snapshot.id)
                self._recover(tx, *snapshot.parent_ids)
                if hold:
                    lock = self._lock(tx, key, snapshot.id)
                if kind == ACTIVE:
                    self._make_layer(snapshot, key, labels)
        except BaseException:
            lock.release()
            if snapshot is not None:
                self._undo_create(snapshot.id)
            raise
        if kind == ACTIVE and not self.dry_run:
            self.directories.finish_layer(snapshot.id)
        return snapshot, lock

    @staticmethod
    def _with_size(tx: Transaction, labels: Mapping[str, str]) -> Mapping[str, str]:
        """Return labels with the default size of scratch disks, if the store has one and they name no size."""
        if label_rules.ROOTFS_SIZE_BYTES in labels or label_rules.ROOTFS_SIZE_GB in labels:
            return labels
        size = rootfs_size(tx)
        return {**labels, label_rules.ROOTFS_SIZE_BYTES: str(size)} if size else labels

    def _make_layer(self, snapshot: Snapshot, key: str, labels: Mapping[str, str]) -> None:
        """Make the directory of a new active snapshot and its content."""
        directory = self.directories.directory(snapshot.id)
        parents = self.directories.directories(snapshot.parent_ids)
        options = None
        if parents and not self._is_unpack(key):
            options = label_rules.scratch_options(labels)
            self.warnings.extend(options.warnings)
        if self.dry_run:
            if options is not None:
                self.layers.create_scratch(directory, parents, options.size)
            return
        try:
            self.directories.begin_layer(snapshot.id)
        except OSError as error:
            raise os_error(error, f"failed to create snapshot dir {self.layers.display_path(directory)}") from error
        failpoint("create.layer")
        if options is not None:
            if options.uvm:
                # Before the scratch of the container, because both disks are named sandbox.vhdx.
                try:
                    self.layers.create_uvm_scratch(directory, parents)
                except SnapshotterError as error:
                    raise error.with_context("failed to make UVM's scratch layer") from error
            try:
                self.layers.create_scratch(directory, parents, options.size)
            except SnapshotterError as error:
                raise error.with_context("failed to create scratch layer") from error
        elif not self._is_unpack(key):
            self.layers.create_base(directory)
        failpoint("create.sync")
        sync_directory(os.path.dirname(directory))
        failpoint("create.done")

    def _undo_create(self, layer_id: int) -> None:
        """Leave nothing on disk after a failed create, and do not use its id again."""
        if self.dry_run:
            return
        directory = self.directories.directory(layer_id)
        removal = self.directories.removal_directory(layer_id)
        try:
            failpoint("undo.rename")
            if os.path.lexists(directory):
                os.rename(directory, removal)
                failpoint("undo.discard")
                self.layers.discard(removal)
            failpoint("undo.skip_ids")
            self.store.skip_ids(layer_id)
        except (OSError, SnapshotterError) as error:
            # The directory itself keeps the id from being used again.
            self.warnings.append(f"could not clean up after the failure: {error}")
        if not os.path.lexists(directory):
            self.directories.finish_layer(layer_id)

    # -- committing ----------------------------------------------------------

    def commit(self, name: str, key: str, labels: Optional[Mapping[str, str]] = None, parent: str = "") -> Info:
        """See the interface. Name, kind and parent are checked before the conversion and again after it."""
        labels = labels or {}
        check_key(name, "name")
        label_rules.validate(labels)
        # Not durable: after a power cut all locks are free, so a lock owner that is lost has ended anyway.
        with self.store.write(durable=False) as tx:
            try:
                snapshot = tx.get_snapshot(key)
            except NotFound as error:
                raise error.with_context(f"failed to get storage info for {key}") from None
            with self._commit_context():
                info, parent = tx.check_commit(key, name, parent)
            lock = self._lock(tx, key, info.id)
            try:
                parent_ids = snapshot.parent_ids or tx.parent_ids(parent)
                parents = self.directories.directories(parent_ids)
                self._recover(tx, info.id, *parent_ids)
                tx.set_owner(key, f"process {os.getpid()} since {model.now()}")
            except BaseException:
                lock.release()
                raise
        with lock:
            try:
                return self._finish_commit(name, key, labels, parent, info, parents)
            except BaseException:
                self._release_ownership(key)
                raise

    def _finish_commit(
        self, name: str, key: str, labels: Mapping[str, str], parent: str, info: Info, parents: List[str]
    ) -> Info:
        """Convert the layer and record the result; the caller holds the lock of ``key``."""
        usage = self._convert(key, info, parents)
        failpoint("commit.record")
        with self.store.write() as tx, self._commit_context():
            return tx.commit_active(key, name, usage, labels, parent)

    @staticmethod
    @contextlib.contextmanager
    def _commit_context() -> Iterator[None]:
        try:
            yield
        except SnapshotterError as error:
            raise error.with_context("failed to commit snapshot") from None

    def _convert(self, key: str, info: Info, parents: List[str]) -> Usage:
        directory = self.directories.directory(info.id)
        self._refuse_if_mounted(key, directory, "commit")
        if self.dry_run:
            return Usage(0, 0)
        failpoint("commit.convert")
        if not self._is_unpack(key):
            try:
                self.layers.convert(directory, parents)
            except SnapshotterError as error:
                if parents:
                    raise error.with_context("failed to reimport snapshot") from error
                # containerd converts a snapshot without a parent by another function, whose errors have no prefix.
                raise
        try:
            return self.layers.disk_usage(directory)
        except SnapshotterError as error:
            path = self.layers.display_path(directory)
            raise error.with_context(f"failed to collect disk usage of snapshot storage: {path}") from error

    def _release_ownership(self, key: str) -> None:
        failpoint("commit.release_mark")
        try:
            with self.store.write(durable=False) as tx:
                tx.set_owner(key, None)
        except SnapshotterError as error:
            # The lock is about to be free, so other processes ignore the recorded owner.
            self.warnings.append(f"could not delete the lock owner of the failed commit: {error}")

    # -- changing and removing -----------------------------------------------

    def update(self, name: str, labels: Optional[Mapping[str, str]] = None, fieldpaths: Sequence[str] = ()) -> Info:
        labels = labels or {}
        label_rules.validate(labels)
        with self.store.write() as tx:
            self._refuse_if_owned(tx, name)
            return tx.update_info(name, labels, fieldpaths)

    def grow_scratch(self, key: str, size: int) -> ScratchInfo:
        with contextlib.ExitStack() as held:
            with self.store.write() as tx:
                info = tx.get_info(key).info
                if info.kind != ACTIVE:
                    raise FailedPrecondition(
                        f'snapshot "{key}" is {model.with_article(info.kind)}; only the scratch disk of an active '
                        "snapshot can grow",
                        key=key,
                    )
                held.enter_context(self._lock(tx, key, info.id))
                self._recover(tx, info.id)
            try:
                grown = self.layers.grow_scratch(self.directories.directory(info.id), size)
            except NotFound:
                raise FailedPrecondition(
                    f'snapshot "{key}" has no scratch disk: it was prepared without a parent or to unpack a layer',
                    key=key,
                ) from None
            return self._with_display_path(grown)

    def remove(self, key: str) -> None:
        self._remove([key])

    def remove_all(self, keys: Sequence[str]) -> List[str]:
        removed: List[str] = []
        for start in range(0, len(keys), _REMOVED_AT_ONCE):
            removed += self._remove(keys[start : start + _REMOVED_AT_ONCE], skip_missing=True)
        return removed

    def _remove(self, keys: Sequence[str], *, skip_missing: bool = False) -> List[str]:
        """Remove snapshots in one transaction, up to the first one that fails; return those that were removed."""
        begun: List[Tuple[str, int, Optional[FileLock]]] = []
        failure: Optional[SnapshotterError] = None
        try:
            with self.store.write() as tx:
                for key in keys:
                    try:
                        begun.append((key, *self._begin_removal(tx, key)))
                    except SnapshotterError as error:
                        if skip_missing and isinstance(error, NotFound):
                            continue
                        if not begun:
                            raise
                        failure = error
                        break
                if begun and not self.dry_run:
                    self.directories.flush_snapshots()
        except BaseException:
            for _key, layer_id, lock in begun:
                if lock is not None:
                    self.directories.undo_removal(layer_id)
                    lock.release()
            raise
        for _key, layer_id, lock in begun:
            if lock is None:
                continue
            with lock:
                if self._destroy_later is None:
                    self._destroy(layer_id)
            if self._destroy_later is None:
                self.directories.delete_lock(layer_id)
            else:
                self._destroy_later(layer_id)
        if failure is not None:
            raise failure
        return [key for key, *_layer in begun]

    def _begin_removal(self, tx: Transaction, key: str) -> Tuple[int, Optional[FileLock]]:
        """Rename the layer of a snapshot and delete its record; return its id and, except in a dry run, its lock."""
        owner = tx.find_owner(key)
        try:
            layer_id, kind = tx.check_remove(key)
        except SnapshotterError as error:
            raise error.with_context("failed to remove") from None
        if self.dry_run:
            self._check_removal(key, layer_id, kind)
            tx.remove(key)
            return layer_id, None
        lock = self.directories.lock(layer_id)
        if lock is None:
            raise self._busy(key, owner)
        try:
            self.directories.recover(layer_id, kind)
            self._check_removal(key, layer_id, kind)
            self.directories.begin_removal(layer_id, flush=False)
            tx.remove(key)
        except BaseException:
            self.directories.undo_removal(layer_id)
            lock.release()
            raise
        return layer_id, lock

    def _check_removal(self, key: str, layer_id: int, kind: str) -> None:
        """Warn if the layer is missing. Raise FailedPrecondition if it is mounted."""
        if kind != VIEW and self._is_lost(layer_id):
            self.warnings.append(f'the layer of "{key}" was missing before its removal')
        self._refuse_if_mounted(key, self.directories.directory(layer_id), "remove")

    def _destroy(self, layer_id: int) -> None:
        path = self.directories.removal_directory(layer_id)
        failpoint("remove.destroy")
        try:
            self.layers.destroy(path)
            failpoint("remove.destroyed")
        except SnapshotterError as error:
            self.warnings.append(
                f"the snapshot is removed, but its layer {self.layers.display_path(path)} "
                f"could not be destroyed yet: {error}"
            )

    # -- layer tars ------------------------------------------------------------

    def import_layer(
        self, name: str, parent: str, labels: Mapping[str, str], fill: Callable[[Unpack], ImportResult]
    ) -> ImportResult:
        """See the interface.

        The steps are those of containerd's unpacker (core/unpack/unpacker.go):
        an active snapshot under an ``extract-`` key, filled, committed. Its
        lock is held from the first to the last step, so one whose lock is free
        is a leftover.
        """
        with self.store.read() as tx:
            try:
                tx.get_info(name)
            except NotFound:
                pass
            else:
                raise AlreadyExists(f"committed snapshot {name}: already exists", name=name)
        check_key(name, "name")
        label_rules.validate(labels)
        # Process ids are reused, and so are times on a clock that is set back.
        key = f"extract-{os.getpid()}-{model.now()}-{os.urandom(4).hex()} {name}"
        snapshot, lock = self._create(ACTIVE, key, parent, {}, hold=True)
        try:
            with lock:
                failpoint("import.unpack")
                directory = self.directories.directory(snapshot.id)
                parents = self.directories.directories(snapshot.parent_ids)
                result = ImportResult(0, "", 0)
                if not self.dry_run:
                    result = fill(lambda tar, digest="": self.layers.import_layer(directory, parents, tar, digest))
                self.warnings.extend(f'layer "{name}": {warning}' for warning in result.warnings)
                self._finish_commit(name, key, {**result.labels, **labels}, parent, self.stat(key), parents)
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

    def export_layer(self, name: str, stream: BinaryIO) -> None:
        with contextlib.ExitStack() as held:
            with self.store.write() as tx:
                info = tx.get_info(name).info
                if info.kind != COMMITTED:
                    raise FailedPrecondition(
                        f'snapshot "{name}" is {model.with_article(info.kind)}; only a committed snapshot is a layer',
                        name=name,
                    )
                parent_ids = tx.parent_ids(info.parent)
                held.enter_context(self._lock(tx, name, info.id))
                self._recover(tx, info.id, *parent_ids)
            directory = self.directories.directory(info.id)
            self.layers.export_layer(directory, self.directories.directories(parent_ids), stream)

    def lock_export(self, path: str) -> Optional[FileLock]:
        return self.directories.lock_export(path)

    # -- mounting ------------------------------------------------------------

    def mount(self, key: str, target: str) -> None:
        """See the interface. A view gets its scratch disk at its first mount."""
        native = self.layers.native(target)
        with contextlib.ExitStack() as held:
            with self.store.write() as tx:
                snapshot = self._get_snapshot(tx, key)
                held.enter_context(self._lock(tx, key, snapshot.id))
                if snapshot.kind == VIEW:
                    self.directories.require_layer(snapshot.id, VIEW)
                else:
                    self._recover(tx, snapshot.id)
                self._recover(tx, *snapshot.parent_ids)
            if self.dry_run:
                return
            directory = self.directories.directory(snapshot.id)
            parents = self.directories.directories(snapshot.parent_ids)
            if snapshot.kind == VIEW and not os.path.isdir(directory):
                self._make_view_layer(snapshot.id, parents)
            failpoint("mount.layer")
            self.layers.mount(directory, parents, native, snapshot.kind == VIEW)

    def _complete_view(self, key: str, snapshot: Snapshot) -> None:
        """Give a view the scratch that it is mounted from, unless it is there or views need none."""
        if not self._views_have_layers or snapshot.kind != VIEW or self.dry_run:
            return
        if os.path.isdir(self.directories.directory(snapshot.id)):
            return
        with contextlib.ExitStack() as held:
            with self.store.write() as tx:
                snapshot = self._get_snapshot(tx, key)
                held.enter_context(self._lock(tx, key, snapshot.id))
                self.directories.require_layer(snapshot.id, VIEW)
                self._recover(tx, *snapshot.parent_ids)
            if not os.path.isdir(self.directories.directory(snapshot.id)):
                self._make_view_layer(snapshot.id, self.directories.directories(snapshot.parent_ids))

    def _make_view_layer(self, layer_id: int, parents: List[str]) -> None:
        """Make the scratch of a view in ``rm-<id>`` and rename it, so that it is complete or absent."""
        directory = self.directories.directory(layer_id)
        unfinished = self.directories.removal_directory(layer_id)
        failpoint("view.directory")
        try:
            os.mkdir(unfinished, 0o777 if os.name == "nt" else 0o700)
            failpoint("view.layer")
            if parents:
                self.layers.create_scratch(unfinished, parents, 0)
            else:
                self.layers.create_base(unfinished)
            failpoint("view.rename")
            os.rename(unfinished, directory)
        except BaseException:
            self.layers.discard(unfinished)
            raise
        failpoint("view.renamed")
        sync_directory(os.path.dirname(directory))

    def unmount(self, target: str) -> None:
        native = self.layers.native(target)
        if self.dry_run:
            self.layers.unmount(native)
            return
        with contextlib.ExitStack() as held:
            with self.store.write() as tx:
                layer_id = self._id_of(self.layers.mounted_layer(native))
                key = tx.find_name(layer_id)
                # A layer of another store can be unmounted here too.
                if key is not None:
                    held.enter_context(self._lock(tx, key, layer_id))
            self.layers.unmount(native)

    def _id_of(self, directory: Optional[str]) -> int:
        """Return the id of the snapshot with a layer directory, 0 for a directory outside this store."""
        above, name = os.path.split(directory or "")
        snapshots = self.directories.snapshots
        same = path_key(os.path.realpath(above)) == path_key(os.path.realpath(snapshots))
        return int(name) if same and name.isdecimal() else 0

    def mounted_at(self, key: str) -> List[str]:
        targets = self._look(key, lambda _record, directory: self.layers.mounted_at(directory), is_optional=True)
        return [self.layers.display_path(target) for target in targets]

    def is_mounted(self, key: str, target: str) -> bool:
        native = self.layers.native(target)
        return self._look(key, lambda _record, directory: self.layers.is_mounted(directory, native), is_optional=True)

    # -- directories and locks -----------------------------------------------

    def _look(
        self,
        key: str,
        look: Callable[[Record, str], _Found],
        record: Optional[Record] = None,
        *,
        is_optional: bool = False,
    ) -> _Found:
        """Return what ``look`` finds of a snapshot, given its record and its layer directory. Raises NotFound.

        Errors of ``look`` get the name of the snapshot. Unless the layer
        ``is_optional``, a missing one raises FailedPrecondition.

        No lock is held, so the snapshot can be removed at the same time. A
        result or an error counts if the directory existed before and after,
        because an id is used only once; for a view also if it was absent both
        times, as it is before the first mount. Otherwise a write transaction,
        in which no process renames layers, decides whether the snapshot was
        removed or an ended process left its layer under ``rm-<id>``.
        """
        if record is None:
            with self.store.read() as tx:
                record = tx.get_info(key)
        directory = self.directories.directory(record.info.id)
        existed = os.path.lexists(directory)
        if existed or record.info.kind == VIEW:
            try:
                found = look(record, directory)
            except SnapshotterError as error:
                if os.path.lexists(directory) == existed:
                    raise self._with_name(error, key) from error
            else:
                if os.path.lexists(directory) == existed:
                    return found
        with self.store.write() as tx:
            record = tx.get_info(key)
            if record.info.kind != VIEW:
                # For a view, rm-<id> can also be what a running process makes.
                if is_optional:
                    self.directories.recover(record.info.id, record.info.kind)
                else:
                    self._recover(tx, record.info.id)
            try:
                return look(record, self.directories.directory(record.info.id))
            except SnapshotterError as error:
                raise self._with_name(error, key) from error

    @staticmethod
    def _with_name(error: SnapshotterError, key: str) -> SnapshotterError:
        return error.with_context(f'snapshot "{key}"')

    def _recover(self, tx: Transaction, *ids: int) -> None:
        """Put layers back that an interrupted removal left under ``rm-<id>``; they are not layers of views.

        Raises FailedPrecondition if one does not exist, or is a link.
        """
        for layer_id in ids:
            self.directories.require_layer(layer_id, ACTIVE)
            if self._is_lost(layer_id):
                name, path = tx.find_name(layer_id), self.layers.display_path(self.directories.directory(layer_id))
                raise FailedPrecondition(
                    f'the layer of snapshot "{name}" is missing: {path} does not exist; restore it from a backup, or '
                    "remove the snapshot and create it again",
                    key=name,
                    path=path,
                )

    def _is_lost(self, layer_id: int) -> bool:
        """Return True if a snapshot that is not a view has no layer on disk."""
        return layer_id not in self._planned and not self.directories.is_occupied(layer_id)

    def _mounts(self, snapshot: Snapshot) -> List[Mount]:
        """Return the mount that containerd returns.

        Up to version 1.7 a view without a scratch of its own is mounted from its nearest parent.
        """
        layers = self.directories.directories(snapshot.parent_ids)
        source = self.directories.directory(snapshot.id)
        if snapshot.kind == VIEW and layers and not self._views_have_layers:
            source, layers = layers[0], layers[1:]
        return [self.layers.runtime_mount(source, layers, snapshot.kind == VIEW)]

    def _is_unpack(self, key: str) -> bool:
        """Return True if an image layer is unpacked into the directory of this snapshot, without a scratch."""
        return is_unpack_key(key) and not self.layers.unpacks_through_mount

    def _with_display_path(self, found: ScratchInfo) -> ScratchInfo:
        return found._replace(path=self.layers.display_path(found.path))

    @staticmethod
    def _get_snapshot(tx: Transaction, key: str) -> Snapshot:
        try:
            return tx.get_snapshot(key)
        except SnapshotterError as error:
            raise error.with_context("failed to get snapshot mount") from None

    def _lock(self, tx: Transaction, key: str, layer_id: int) -> FileLock:
        """Lock the files of one snapshot, and delete a recorded lock owner that has ended."""
        if self.dry_run:
            return FileLock(os.devnull)
        owner = tx.find_owner(key)
        lock = self.directories.lock(layer_id)
        failpoint("lock.acquired")
        if lock is None:
            raise self._busy(key, owner)
        if owner is not None:
            try:
                tx.set_owner(key, None)
            except BaseException:
                lock.release()
                raise
        return lock

    def _refuse_if_owned(self, tx: Transaction, key: str) -> None:
        """Raise Unavailable while a running process commits ``key``."""
        if tx.find_owner(key) is not None:
            self._lock(tx, key, tx.get_info(key).info.id).release()

    @staticmethod
    def _busy(key: str, owner: Optional[str]) -> Unavailable:
        what = f"is being committed by {owner}" if owner else "is in use by another process of the collection"
        return Unavailable(f'snapshot "{key}" {what}; run the task again when that has ended', key=key, holder=owner)

    def _refuse_if_mounted(self, key: str, directory: str, operation: str) -> None:
        targets = [self.layers.display_path(target) for target in self.layers.mounted_at(directory)]
        if targets:
            raise FailedPrecondition(
                f'cannot {operation} snapshot "{key}": it is mounted at {", ".join(targets)}; unmount it first',
                key=key,
                targets=targets,
            )
