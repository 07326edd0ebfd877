# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store of the collection on disk: open, create, refuse, heal, and delete it.

A store is one directory, the *root*: the metadata file, the layers, lock files
and incoming files (``directories``). This module decides whether a root holds
a store, makes one, and repairs at the first transaction what an ended process
left unfinished. What snapshots mean is the job of ``snapshotter``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from typing import TYPE_CHECKING, Iterator, List, Optional, Tuple

from .directories import ID, Directories
from .errors import FailedPrecondition, InvalidArgument, SnapshotterError, Unavailable
from .failpoint import failpoint
from .files import make_directories, os_error, sync_directory
from .layers import protection
from .layers.base import LayerStore
from .lineage import damaged
from .lock import FileLock
from .metastore.file import Metastore, is_retired
from .metastore.transaction import ROOTFS_SIZE as _ROOTFS_SIZE
from .metastore.transaction import Transaction
from .records import Records

if TYPE_CHECKING:
    from typing import Protocol

    from .snapshots import SnapshotStore

    class OwnSnapshots(SnapshotStore, Protocol):
        """The snapshots of the collection's own store, with the store itself."""

        store: OwnStore


METADATA_FILE = "metadata.sqlite3"

# What containerd keeps in its directories: the metadata of a snapshotter (core/snapshots/storage), and one directory
# for each plugin, below a directory "root" by default (docs/ops.md).
_CONTAINERD_METADATA = "metadata.db"
_CONTAINERD_PLUGIN = "io.containerd."
_CONTAINERD_ROOT = "root"

# How long the end of a store waits for a process that creates or ends it.
_ENDING_SECONDS = 30.0

# Seconds for which what ``resume`` has seen counts. A task that takes as long as this works with an older state, too.
_TRUSTED_TIME = 0.1

# Names that a message lists.
_NAMED = 5


class OwnStore:
    """One root and the metadata in it.

    ``root`` is the path as the user wrote it. With ``dry_run`` the metadata is
    a copy in memory, and ``layers`` must be a store that writes nothing.
    ``warnings`` collects sentences for the user: what went wrong without
    failing an operation.

    Raises FailedPrecondition if the root is a file or a link, or if the host or the
    account lacks what the layer store needs, InvalidArgument for a volume
    that is not NTFS.
    """

    def __init__(self, root: str, layers: LayerStore, *, dry_run: bool = False) -> None:
        self.root = layers.native(root)
        self.layers = layers
        self.dry_run = dry_run
        self.warnings: List[str] = []
        # What this process has made safe; in a dry run, what it would have.
        self._made_safe: List[str] = []
        self.directories = Directories(self.root, layers, dry_run)
        self.metadata_path = os.path.join(self.root, METADATA_FILE)
        files = [self.metadata_path + suffix for suffix in ("", "-wal", "-shm", "-journal", "-turn")]
        self._own_paths = [self.root, *self.directories.all(), *files]
        self._metadata: Optional[Metastore] = None
        # Without a store, an empty one in memory answers.
        self._in_memory = False
        self._healed = dry_run
        self._resumed = 0.0
        self._closed = False
        self._refuse_host(root)

    def _refuse_host(self, root: str) -> None:
        is_file = False
        link = protection.link_fault(os.path.normpath(self.root), self.layers.display_path)
        if link:
            raise FailedPrecondition(
                f"root {root} {link}, and no task works through a link: name the directory that it leads to, or a "
                "directory below it, as the root",
                root=root,
            )
        # In one step, because another task can remove the store at the same time.
        with contextlib.suppress(OSError):
            is_file = not stat.S_ISDIR(os.stat(self.root).st_mode)
        if is_file:
            raise FailedPrecondition(
                f"root {root} is a file, not a directory; name the directory of the store", root=root
            )
        filesystem = self.layers.filesystem_type(self.root)
        missing = self.layers.missing()
        if missing:
            if filesystem.lower() != "ntfs":
                missing.append(f"an NTFS volume for {root}: it has {filesystem}")
            raise FailedPrecondition(
                f"this host or account cannot work with layers: {self.layers.name}; missing: {'; '.join(missing)}",
                missing=missing,
            )
        if filesystem.lower() != "ntfs":
            raise InvalidArgument(
                f"{root} is not on an NTFS volume - only NTFS volumes are supported: invalid argument "
                f"(the volume has {filesystem}; choose a root on another volume)",
                root=root,
                filesystem=filesystem,
            )

    # -- state -------------------------------------------------------------------

    @property
    def display_root(self) -> str:
        """The root as users write it."""
        return self.layers.display_path(self.root)

    def has_metadata(self) -> bool:
        """Return True if there is a metadata file, whatever its content."""
        return os.path.lexists(self.metadata_path)

    def is_retired(self) -> bool:
        """Return True if a removal of this store passed the point of no return. Raises as ``Metastore``."""
        self.directories.refuse_link(self.metadata_path)
        return self.has_metadata() and is_retired(self.metadata_path)

    def find_containerd(self) -> str:
        """Return the path that shows that the root belongs to containerd, ``""`` if it does not.

        That is a snapshotter's metadata or a plugin's directory in the root,
        a plugin's directory that contains the root, or containerd's own root
        below it.
        """
        below = os.path.join(self.root, _CONTAINERD_ROOT)
        for directory in (self.root, below):
            for name in self.entries(directory) if os.path.isdir(directory) else ():
                is_metadata = directory == self.root and name.lower() == _CONTAINERD_METADATA
                if is_metadata or name.lower().startswith(_CONTAINERD_PLUGIN):
                    return os.path.join(directory, name)
        path = self.root
        while os.path.dirname(path) != path:
            if os.path.basename(path).lower().startswith(_CONTAINERD_PLUGIN):
                return path
            path = os.path.dirname(path)
        return ""

    def refuse_containerd(self) -> None:
        """Raise FailedPrecondition if the root belongs to containerd: no task reads or changes it as a store."""
        found = self.find_containerd()
        if found:
            shown = self.layers.display_path(found)
            raise FailedPrecondition(
                f"{self.display_root} belongs to containerd: {shown} exists. Nothing was changed. Name another root "
                "for this store; containerd's own store is managed with store: containerd",
                root=self.display_root,
                found=shown,
            )

    def count_lost_layers(self) -> int:
        """Return the number of layers in a root without metadata, 0 in a root with metadata.

        Metadata is made before the first layer, so there such a file was lost.
        """
        layers = self.directories.layer_ids()
        return 0 if self.has_metadata() else len(layers)

    def is_own_entry(self, name: str) -> bool:
        """Return True if the store itself makes an entry of this name in its root."""
        return name.startswith(METADATA_FILE) or os.path.join(self.root, name) in self.directories.all()

    # -- protection ----------------------------------------------------------------

    def own_paths(self) -> List[str]:
        """Return the root and all entries in it that the store makes and works with."""
        return list(self._own_paths)

    def refuse_unsafe(self) -> None:
        """Raise FailedPrecondition if a change here could hit or trust what another account has put in place.

        The root and each entry of the store in it is not a link, belongs to
        the administrators, and no other account can change it.
        """
        paths = [path for path in self.own_paths() if path not in self._made_safe]
        found = [protection.faults(path) for path in paths]
        for path, (link, _fault) in zip(paths, found):
            if link:
                self.directories.refuse_link(path)
        for path, (_link, fault) in zip(paths, found):
            if fault:
                shown = self.layers.display_path(path)
                raise FailedPrecondition(
                    f"{shown} {fault}, so what is there cannot be trusted: examine it; then run the module store with "
                    "state=present, or store_check with repair=true: both give it to the administrators alone",
                    path=shown,
                )

    def find_unprotected(self) -> List[str]:
        """Return the entries of ``own_paths`` that ``protect`` changes; the root also if others can read it.

        Raises FailedPrecondition for a link, which no task changes.
        """
        if not os.path.lexists(self.root):
            return []
        for path in self.own_paths():
            self.directories.refuse_link(path)
        found = [path for path in self.own_paths() if protection.fault(path)]
        return found if self.root in found or protection.is_protected(self.root) else [self.root, *found]

    def protect(self) -> None:
        """Give the root and its entries to the administrators alone. Raises as ``protection.protect``."""
        for path in self.find_unprotected():
            if self.dry_run:
                self._made_safe.append(path)
                continue
            failpoint("store.protect")
            protection.protect(path)
            failpoint("store.protected")

    # -- transactions --------------------------------------------------------------

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a transaction in which all reads see one state; an empty one where there is no store."""
        metadata = self._open()
        with metadata.read() as tx:
            if self._healed or not self._has_unfinished_layer(tx):
                self._healed = True
                yield tx
                return
        self._heal(metadata)
        with metadata.read() as tx:
            yield tx

    @contextlib.contextmanager
    def write(self, *, create: bool = False, durable: bool = True) -> Iterator[Transaction]:
        """Open a transaction for one change: committed at its end, rolled back on an exception.

        With ``create`` the store is created first if it does not exist.
        ``durable`` as in ``Metastore.write``.
        Raises as ``Metastore.write``.
        """
        metadata = self._open(create=create)
        if self.has_metadata():
            self.refuse_unsafe()
        if not self._healed:
            # In a transaction of its own: a process that ended in one that does both would leave a layer under an id
            # after the next one, where no process looks for it.
            with metadata.read() as tx:
                unfinished = self._has_unfinished_layer(tx)
            self._healed = True
            if unfinished:
                self._heal(metadata)
        with metadata.write(durable=durable) as tx:
            yield tx

    def create(self, *, adopt: bool = False) -> None:
        """Create the store if it does not exist.

        With ``adopt``, layers without metadata stay where they are, and their
        ids are never used again; without it they raise FailedPrecondition.
        """
        lost = self.directories.layer_ids() if adopt and not self.has_metadata() else []
        metadata = self._open(create=True, adopt=adopt)
        if self.has_metadata():
            self.refuse_unsafe()
        if lost:
            metadata.skip_ids(max(lost))

    def skip_ids(self, last: int) -> None:
        """Make sure that no id up to ``last`` is used for a new snapshot."""
        self._open().skip_ids(last)

    def records(self) -> Records:
        """Return the records on disk for a check, also in a dry run; the caller closes them."""
        return Records(self.metadata_path)

    def resume(self) -> bool:
        """Get ready for an operation some time after the last one, as a new object is.

        Return False if only a new object can do that: nothing is open, or
        another process has replaced or changed the metadata file.
        """
        if self._closed or self._in_memory or self._metadata is None:
            return False
        now = time.monotonic()
        if now - self._resumed < _TRUSTED_TIME:
            return True
        if not self._metadata.is_current():
            return False
        # Processes can have ended meanwhile.
        self._healed = self.dry_run
        self._resumed = now
        return True

    def close(self) -> None:
        """Close the metadata. A second call does nothing; any operation after it fails."""
        self._closed = True
        self._close_metadata()

    def _close_metadata(self) -> None:
        if self._metadata is not None:
            self._metadata.close()
        self._metadata = None

    # -- opening and creating ------------------------------------------------------

    def _open(self, create: bool = False, adopt: bool = False) -> Metastore:
        """Return the metadata; with ``create``, make the directories and the file first if they are missing."""
        if self._closed:
            raise FailedPrecondition("database not open")
        if self._metadata is None:
            self.refuse_containerd()
            for path in (self.directories.snapshots, self.metadata_path):
                self.directories.refuse_link(path)
        exists = os.path.exists(self.metadata_path)
        if not exists and not adopt and (self._metadata is None or (create and self._in_memory)):
            self._refuse_layers()
            if create:
                self.refuse_foreign()
                if self.dry_run and self.entries():
                    self.refuse_unsafe()
        if self.dry_run:
            if self._metadata is None:
                on_disk = Metastore(self.metadata_path)
                try:
                    self._metadata = on_disk.copy_to_memory()
                    self._in_memory = not exists
                finally:
                    on_disk.close()
            return self._metadata
        if self._metadata is None or (self._in_memory and (create or exists)):
            if create:
                self._make_directories()
            self._close_metadata()
            self._metadata = Metastore(self.metadata_path, create=create)
            self._in_memory = not (create or exists)
            self._healed = self._in_memory
        return self._metadata

    def refuse_foreign(self) -> None:
        """Raise FailedPrecondition if the root holds something that a store does not make: it is not a store then."""
        foreign = [name for name in self.entries() if not self.is_own_entry(name)]
        if foreign:
            raise FailedPrecondition(
                f"{self.display_root} is not a store, and not empty: it has {list_some(foreign)}; name another root, "
                "or empty it",
                root=self.display_root,
                found=foreign,
            )

    def _refuse_layers(self) -> None:
        """Raise where there are layers but no metadata, because an empty list would hide them."""
        shown, lost = self.display_root, self.count_lost_layers()
        if lost:
            raise FailedPrecondition(
                f"{shown} has {lost} layers but no {METADATA_FILE}: restore that file from a backup; or start with an "
                "empty list of snapshots beside them: module store, state=present and force=true",
                root=self.root,
            )

    def _make_directories(self) -> None:
        is_new = not self.entries()
        try:
            failpoint("store.create.root")
            make_directories(self.root)
            failpoint("store.create.protect")
            if is_new:
                # A parent such as ProgramData lets every user write, and create this directory first.
                self._protect_root()
            self.refuse_unsafe()
            failpoint("store.create.snapshots")
            make_directories(self.directories.snapshots)
            failpoint("store.create.made")
        except OSError as error:
            raise os_error(error, f"cannot create the store in {self.display_root}") from error

    def _protect_root(self) -> None:
        try:
            protection.protect(self.root)
        except (OSError, SnapshotterError) as error:
            self.warnings.append(f"{self.display_root} is not protected, other users can access it: {error}")

    # -- healing -------------------------------------------------------------------

    def _has_unfinished_layer(self, tx: Transaction) -> bool:
        """Return True if an ended process left a marker. Only a COMMIT uses up an id, so two ids can have one."""
        next_id = tx.next_id()
        return self.directories.is_unfinished(next_id) or self.directories.is_unfinished(next_id - 1)

    def _heal(self, metadata: Metastore) -> None:
        """Move an unfinished layer out of the way, without waiting and without a message if that fails."""
        self._healed = True
        try:
            with metadata.write(wait=False) as tx:
                self.remove_unfinished_layer(tx)
        except (OSError, SnapshotterError):
            # The process that writes now can be the one that makes this layer. On a read-only volume it does no harm.
            pass

    def remove_unfinished_layer(self, tx: Transaction) -> None:
        """Rename the layer that an ended ``prepare`` left to ``rm-<id>``, and skip its id.

        Only a COMMIT uses up an id, so it can only be the next one. A layer
        there without a marker is something else: the metadata is older than
        the layers, perhaps from a backup, and the layer can hold data that is
        needed. It stays. Raises OSError.
        """
        next_id = tx.next_id()
        for finished in (next_id - 1, next_id):
            if self.directories.is_unfinished(finished) and (
                tx.find_name(finished) is not None or not os.path.lexists(self.directories.directory(finished))
            ):
                self.directories.finish_layer(finished)
        if not self.directories.is_unfinished(next_id):
            return
        directory = self.directories.directory(next_id)
        failpoint("stray.rename")
        os.rename(directory, self.directories.removal_directory(next_id))
        failpoint("stray.skip_ids")
        sync_directory(os.path.dirname(directory))
        self.directories.finish_layer(next_id)
        tx.skip_ids(next_id)

    def skip_occupied_ids(self, tx: Transaction) -> None:
        """Make sure that no layer with the next id exists on disk."""
        if not self.dry_run:
            try:
                self.remove_unfinished_layer(tx)
            except OSError:
                # Another program has the layer open. It stays where it is, and its id is never used.
                pass
        while self.directories.is_occupied(tx.next_id()):
            tx.skip_ids(tx.next_id())

    # -- settings ------------------------------------------------------------------

    def read_summary(self) -> Tuple[int, int]:
        """Return the number of snapshots, and the default size of scratch disks in bytes (0: the template's)."""
        with self.read() as tx:
            return len(tx.id_map()), rootfs_size(tx)

    def read_rootfs_size(self) -> int:
        """Return the default size of scratch disks in bytes (0: the template's)."""
        with self.read() as tx:
            return rootfs_size(tx)

    def set_rootfs_size(self, size: int) -> None:
        """Set the default size of scratch disks in bytes; 0 deletes the setting."""
        with self.write() as tx:
            tx.set_settings({_ROOTFS_SIZE: str(size)} if size else {})

    # -- the end of a store ----------------------------------------------------------

    def destroy_leftovers(self) -> None:
        """Destroy layers without a record whose name or marker proves that an ended process left them.

        A layer that is in use, or that another process works on, stays.
        """
        for name in self.entries(self.directories.snapshots):
            match = re.fullmatch(f"(rm-)?({ID})", name)
            if match and (match[1] or self.directories.is_unfinished(int(match[2]))):
                try:
                    self._destroy_leftover(int(match[2]))
                except (OSError, SnapshotterError):
                    # The caller finds it still there.
                    continue

    def destroy_removed(self, layer_id: int) -> None:
        """Destroy the layer of a snapshot that was removed without its layer.

        Nothing happens while another process destroys it. Raises as ``LayerStore.destroy``.
        """
        lock = self.directories.lock(layer_id)
        if lock is None:
            return
        try:
            failpoint("remove.destroy")
            self.layers.destroy_with_retries(self.directories.removal_directory(layer_id))
            failpoint("remove.destroyed")
        finally:
            lock.release()
        self.directories.delete_lock(layer_id)

    def pending_removals(self) -> List[int]:
        """Return the ids of the layers that wait for their destruction, in ascending order."""
        found = (re.fullmatch(f"rm-({ID})", name) for name in self.entries(self.directories.snapshots))
        return sorted(int(match[1]) for match in found if match)

    def _destroy_leftover(self, layer_id: int) -> None:
        removal = self.directories.removal_directory(layer_id)
        with self.write() as tx:
            if tx.find_name(layer_id) is not None or layer_id > tx.next_id():
                return
            lock = self.directories.lock(layer_id)
            if lock is None:
                return
            try:
                tx.skip_ids(layer_id)
                if not os.path.lexists(removal):
                    self.directories.begin_removal(layer_id)
                self.directories.finish_layer(layer_id)
            except BaseException:
                lock.release()
                raise
        try:
            self.layers.destroy_with_retries(removal)
        finally:
            lock.release()
        self.directories.delete_lock(layer_id)

    def retire(self) -> None:
        """Make sure that no process creates a snapshot from now on.

        Raises Unavailable if another task has just created one.
        """
        with self.write() as tx:
            if tx.id_map():
                raise Unavailable(
                    f"another task has just created a snapshot in {self.display_root}; run the task again",
                    root=self.root,
                )
            tx.retire()

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Keep other processes from ending or creating the store until the end of a ``with`` block.

        Creating waits for the write queue, and so does this. Raises
        Unavailable if another process has it for too long.
        """
        self._close_metadata()
        queue = FileLock(self._write_queue)
        try:
            is_locked = queue.acquire(_ENDING_SECONDS)
        except FileNotFoundError:
            # The root is gone.
            is_locked = True
        except OSError as error:
            raise os_error(error, f"cannot lock {self.layers.display_path(self._write_queue)}") from error
        if not is_locked:
            raise Unavailable(f"another task removes or creates the store in {self.display_root}; run the task again")
        with queue:
            yield

    @property
    def _write_queue(self) -> str:
        return self.metadata_path + "-turn"

    def delete_metadata(self) -> None:
        """Delete the metadata file and its side files, except the one that ``ending`` locks.

        Raises Unavailable if another process has one open.
        """
        self._close_metadata()
        for name in self.entries():
            if name.startswith(METADATA_FILE) and name != os.path.basename(self._write_queue):
                self._delete(os.path.join(self.root, name))

    def _delete(self, path: str) -> None:
        from .layers import filetree

        failpoint("store.delete")
        try:
            filetree.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unavailable(
                f"cannot delete {self.layers.display_path(path)}: {error.strerror}; another process may have it open: "
                "run the task again"
            ) from error

    def discard_links(self) -> None:
        """Delete links in place of the lock files and of the incoming files, which hold nothing of value."""
        for path in (self.directories.locks, self.directories.incoming):
            if protection.link_fault(path) and self.dry_run:
                self._made_safe.append(path)
            elif protection.link_fault(path):
                self.layers.discard(path)

    def delete_directories(self) -> None:
        """Delete the directories of the store and what is left in them."""
        for directory in self.directories.all():
            failpoint("store.discard")
            self.layers.discard(directory)

    def delete_root(self) -> List[str]:
        """Delete the root of a store that was deleted if nothing else is in it; return what else is in it.

        Raises Unavailable if another process has begun to create a store.
        """
        self._delete(self._write_queue)
        left = self.entries()
        if any(self.is_own_entry(name) for name in left):
            raise Unavailable(
                f"the store in {self.display_root} was removed, but another task creates one there; run the task again"
            )
        if not left:
            failpoint("store.rmdir")
            try:
                os.rmdir(self.root)
            except FileNotFoundError:
                # Another task removed the same store.
                pass
            except OSError as error:
                raise Unavailable(
                    f"cannot delete {self.display_root}: {error.strerror}; another task works there: run the task again"
                ) from error
            failpoint("store.gone")
        return left

    def entries(self, directory: str = "") -> List[str]:
        """Return the names in the root, or in another directory, in order; none if it does not exist."""
        try:
            return sorted(os.listdir(directory or self.root))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise FailedPrecondition(f"cannot read {directory or self.root}: {error.strerror}") from error


def rootfs_size(tx: Transaction) -> int:
    """Return the default size of scratch disks in bytes (0: the template's)."""
    size = tx.settings().get(_ROOTFS_SIZE, "0")
    if not (size.isascii() and size.isdigit()):
        raise damaged(f"the setting {_ROOTFS_SIZE} is {size[:64]!r}")
    return int(size)


def list_some(names: List[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
