# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of a store: where layers are, and how they are renamed and locked.

::

    <root>/snapshots/<id>        one layer
    <root>/snapshots/rm-<id>     a layer that waits for its destruction, or, if it has a record, for its return
    <root>/snapshots/new-<id>    an empty marker file while layer <id> is unfinished
    <root>/locks/<id>            the lock file of one snapshot
    <root>/incoming/             files that arrive from the controller
    <root>/transport/<id>-import a layer while Windows imports it, or (-export) exports it

The marker file exists from before a layer is made until its record is
committed. It proves that a layer without a record was never finished. A layer
with neither a record nor a marker was in use once, and its record was lost.

Layers are renamed only inside write transactions of the metadata. Work on the
files of a layer is done under its ``FileLock``.
"""

from __future__ import annotations

import os
import re
from typing import List, Optional, Sequence

from .errors import FailedPrecondition, SnapshotterError
from .failpoint import failpoint
from .files import os_error, sync_directory
from .formats.ntfsnames import path_key
from .layers import protection
from .layers.base import TRANSPORT, LayerStore
from .lock import FileLock
from .model import VIEW

# winerror.h; Windows refuses with it to rename a directory in which a file is open.
_ERROR_ACCESS_DENIED = 5

_IS_OPEN = "is a file below it open in another program?"

# How long a task waits while another one writes a piece of a file, or verifies the whole.
_UPLOAD_SECONDS = 30.0

#: An id in a file name.
ID = "[1-9][0-9]{0,18}"


class Directories:
    """The directories of one store below its native ``root``. With ``dry_run`` nothing is repaired or locked."""

    def __init__(self, root: str, layers: LayerStore, dry_run: bool = False) -> None:
        self._layers = layers
        self._dry_run = dry_run
        self.snapshots = os.path.join(root, "snapshots")
        self.locks = os.path.join(root, "locks")
        self.incoming = os.path.join(root, "incoming")
        self.transport = os.path.join(root, TRANSPORT)

    # -- names -----------------------------------------------------------------

    def all(self) -> List[str]:
        """Return all directories in the root, in the order of their deletion."""
        return [self.locks, self.incoming, self.transport, self.snapshots]

    def directory(self, layer_id: int) -> str:
        """Return the directory of a layer."""
        return os.path.join(self.snapshots, str(layer_id))

    def removal_directory(self, layer_id: int) -> str:
        """Return the directory in which a layer waits for its destruction or its return."""
        return os.path.join(self.snapshots, f"rm-{layer_id}")

    def marker(self, layer_id: int) -> str:
        """Return the marker file of an unfinished layer."""
        return os.path.join(self.snapshots, f"new-{layer_id}")

    def directories(self, ids: Sequence[int]) -> List[str]:
        """Return the directories of several layers, in their order."""
        return [self.directory(layer_id) for layer_id in ids]

    # -- what is on disk ---------------------------------------------------------

    def refuse_link(self, path: str) -> None:
        """Raise FailedPrecondition if an entry of the store is a link: what is done there could hit any directory."""
        fault = protection.link_fault(path, self._layers.display_path)
        if fault:
            raise FailedPrecondition(
                f"{self._layers.display_path(path)} {fault}, but a store keeps its layers and files in its root and "
                "follows no link: use the root that the link leads to, or put the directory or file back in place of "
                "the link",
                path=self._layers.display_path(path),
            )

    def layer_ids(self) -> List[int]:
        """Return the ids of all layers that are in their place, with or without a record, in ascending order."""
        try:
            names = os.listdir(self.snapshots)
        except OSError:
            return []
        return sorted(int(name) for name in names if re.fullmatch(ID, name))

    def is_unfinished(self, layer_id: int) -> bool:
        """Return True if a layer has a marker: without a record, it was never finished."""
        return os.path.lexists(self.marker(layer_id))

    def is_marker(self, name: str) -> bool:
        """Return True if an entry of ``snapshots`` is a marker file."""
        return re.fullmatch(f"new-{ID}", name) is not None and not os.path.isdir(os.path.join(self.snapshots, name))

    def is_occupied(self, layer_id: int) -> bool:
        """Return True if a layer with this id exists, in its place or waiting for removal."""
        return os.path.lexists(self.directory(layer_id)) or os.path.lexists(self.removal_directory(layer_id))

    # -- making a layer ----------------------------------------------------------

    def require_layer(self, layer_id: int, kind: str) -> None:
        """``recover`` a layer that work needs. Raises FailedPrecondition if its directory is a link."""
        self.recover(layer_id, kind)
        self.refuse_link(self.directory(layer_id))

    def begin_layer(self, layer_id: int) -> None:
        """Make the directory of a new layer, with a marker until ``finish_layer``. Raises OSError.

        The caller makes both durable at once by a flush of their parent directory.
        """
        failpoint("create.mark")
        os.close(os.open(self.marker(layer_id), os.O_CREAT | os.O_WRONLY, 0o600))
        failpoint("create.directory")
        os.mkdir(self.directory(layer_id), 0o777 if os.name == "nt" else 0o700)

    def finish_layer(self, layer_id: int) -> None:
        """Delete the marker of a layer. Without one, nothing happens."""
        if not self.is_unfinished(layer_id):
            return
        try:
            failpoint("create.finish")
            os.unlink(self.marker(layer_id))
        except OSError:
            # A marker beside a record has no meaning, so it can stay.
            pass

    # -- removing a layer, and taking that back ----------------------------------

    def begin_removal(self, layer_id: int, *, flush: bool = True) -> None:
        """Rename a layer to ``rm-<id>``, after detaching it if that is necessary. A missing layer is not an error.

        Without ``flush`` the caller makes that durable, by ``flush_snapshots``.
        Raises FailedPrecondition if a file below it is open, and as ``os_error``.
        """
        directory, removal = self.directory(layer_id), self.removal_directory(layer_id)
        try:
            try:
                failpoint("remove.rename")
                os.rename(directory, removal)
            except PermissionError as error:
                if getattr(error, "winerror", None) != _ERROR_ACCESS_DENIED:
                    raise
                self._detach(layer_id, error)
                self._rename_again(layer_id, error)
        except FileNotFoundError:
            return
        except OSError as error:
            raise os_error(error, f"failed to remove: rename {self._layers.display_path(directory)}") from error
        failpoint("remove.renamed")
        if flush:
            self.flush_snapshots()

    def flush_snapshots(self) -> None:
        """Make all renames of layers durable."""
        if os.path.isdir(self.snapshots):
            sync_directory(self.snapshots)

    def _detach(self, layer_id: int, denied: OSError) -> None:
        """Detach a layer that an ended process left attached; ``denied`` is the failure of its renaming."""
        try:
            self._layers.release(self.directory(layer_id))
        except SnapshotterError as error:
            raise FailedPrecondition(
                f"{error.message}: {self._renaming(layer_id, denied)}; {_IS_OPEN}", **error.details
            ) from error

    def _rename_again(self, layer_id: int, denied: OSError) -> None:
        """Rename a layer to ``rm-<id>`` after it was detached. The sentence of the error is that of containerd."""
        try:
            os.rename(self.directory(layer_id), self.removal_directory(layer_id))
        except FileNotFoundError:
            raise
        except OSError as error:
            both = f"{self._renaming(layer_id, error)}: {self._renaming(layer_id, denied)}"
            raise FailedPrecondition(
                f"second rename attempt following detach failed: {both}; {_IS_OPEN}",
                path=self._layers.display_path(self.directory(layer_id)),
            ) from error

    def _renaming(self, layer_id: int, error: OSError) -> str:
        paths = self.directory(layer_id), self.removal_directory(layer_id)
        return f"rename {' '.join(map(self._layers.display_path, paths))}: {error.strerror}"

    def undo_removal(self, layer_id: int) -> None:
        """Rename ``rm-<id>`` back to the layer. Without it, nothing happens."""
        directory, removal = self.directory(layer_id), self.removal_directory(layer_id)
        if not os.path.lexists(directory) and os.path.lexists(removal):
            try:
                os.rename(removal, directory)
            except FileNotFoundError:
                # Another reader that needed the layer was faster.
                return
            failpoint("put_back.renamed")
            sync_directory(os.path.dirname(directory))

    def recover(self, layer_id: int, kind: str) -> None:
        """Repair what an ended process left of a snapshot that still has its record.

        ``rm-<id>`` is the layer of a removal that did not reach its COMMIT: it
        gets its name back. For a view it can also be half of a scratch, which
        is destroyed, because a view has no content of its own. Call this in a
        write transaction: running processes rename layers only inside one.
        """
        if self._dry_run or not os.path.lexists(self.removal_directory(layer_id)):
            return
        failpoint("recover.before")
        if kind == VIEW:
            self._layers.destroy(self.removal_directory(layer_id))
        else:
            self.undo_removal(layer_id)
        failpoint("recover.after")

    # -- locks -------------------------------------------------------------------

    def lock_path(self, layer_id: int) -> str:
        """Return the lock file of a layer."""
        return os.path.join(self.locks, str(layer_id))

    def lock(self, layer_id: int) -> Optional[FileLock]:
        """Lock a layer and return the lock, or None if another process has it."""
        lock = FileLock(self.lock_path(layer_id))
        try:
            failpoint("lock.acquire")
            self._prepare_lock(self.lock_path(layer_id))
            return lock if lock.acquire() else None
        except OSError as error:
            path = self._layers.display_path(self.lock_path(layer_id))
            raise os_error(error, f"cannot lock snapshot {layer_id} by {path}") from error

    def lock_export(self, path: str) -> Optional[FileLock]:
        """Lock the file ``path`` on the node for an export, and return the lock, or None if another process has it."""
        import hashlib

        name = "export-" + hashlib.sha256(path_key(os.path.realpath(path)).encode()).hexdigest()[:16]
        lock_path = os.path.join(self.locks, name)
        self._prepare_lock(lock_path)
        lock = FileLock(lock_path)
        return lock if lock.acquire() else None

    def lock_upload(self, digits: str) -> Optional[FileLock]:
        """Lock the incoming files whose digests begin as ``digits``; return the lock, or None if it stays busy.

        Uploads share 256 lock files, because a lock file cannot be deleted
        safely while other processes want it.
        """
        path = os.path.join(self.locks, f"upload-{digits[:2]}")
        self._prepare_lock(path)
        lock = FileLock(path)
        try:
            return lock if lock.acquire(_UPLOAD_SECONDS) else None
        except OSError as error:
            raise os_error(error, f"cannot lock an upload by {self._layers.display_path(path)}") from error

    def _prepare_lock(self, path: str) -> None:
        # A process that can open a lock file can hold it. Python 3.12.4 and newer turn the mode into an ACL on Windows.
        try:
            os.mkdir(self.locks, 0o700)
        except FileExistsError:
            self.refuse_link(self.locks)
            self.refuse_link(path)

    def delete_lock(self, layer_id: int) -> None:
        """Delete the lock file of a removed snapshot. Ids are never reused, so no other process needs it."""
        try:
            from .layers import filetree

            failpoint("lock.forget")
            filetree.unlink(self.lock_path(layer_id))
            failpoint("lock.forgotten")
        except OSError:
            # Another process has it open at this moment. The empty file does no harm.
            pass
