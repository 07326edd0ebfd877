# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the layers of a store lie, and what happens to their directories.

A layer is ``<root>/snapshots/<id>``. Under the name ``rm-<id>`` it waits to be
destroyed, or, if its record is still there, to be put back. Beside it lies an
empty file ``new-<id>`` from before it is made until its record is there: the
proof that a layer without a record was never finished. One without a record
and without that file was in use once, by metadata that were lost. Directories
are renamed in write transactions of the metadata only, and worked on under the
``FileLock`` of their number.
"""

from __future__ import annotations

import os
import re
from typing import List, Optional, Sequence

from .durable import sync_directory
from .errors import FailedPrecondition, SnapshotterError, os_error
from .failpoint import failpoint
from .layers.base import LayerStore, is_directory
from .lock import FileLock
from .model import VIEW

# winerror.h; so Windows refuses to rename a directory in which a file is open.
_ERROR_ACCESS_DENIED = 5


class Directories:
    """The directories of one store below its native ``root``. With ``rehearse`` nothing is mended or locked."""

    def __init__(self, root: str, layers: LayerStore, rehearse: bool = False) -> None:
        self._layers = layers
        self._rehearsing = rehearse
        self.snapshots = os.path.join(root, "snapshots")
        self.locks = os.path.join(root, "locks")
        self.incoming = os.path.join(root, "incoming")

    def refuse_link(self) -> None:
        """Raise FailedPrecondition if ``snapshots`` is a link: what is deleted below it might be anybody's."""
        if self.is_link():
            raise FailedPrecondition(
                f"{self._layers.presented(self.snapshots)} is a link; a store keeps its layers in its root: name the "
                "root that is meant, or put the directory back in place of the link"
            )

    def is_link(self) -> bool:
        """Whether ``snapshots`` is there, but no directory."""
        return os.path.lexists(self.snapshots) and not is_directory(os.lstat(self.snapshots))

    def directory(self, number: int) -> str:
        """Where a layer lies."""
        return os.path.join(self.snapshots, str(number))

    def aside(self, number: int) -> str:
        """Where it waits to be destroyed or put back."""
        return os.path.join(self.snapshots, f"rm-{number}")

    def draft_mark(self, number: int) -> str:
        """The file that is there while a layer is made."""
        return os.path.join(self.snapshots, f"new-{number}")

    def of(self, numbers: Sequence[int]) -> List[str]:
        """Where several layers lie, in their order."""
        return [self.directory(number) for number in numbers]

    def layers(self) -> List[int]:
        """The numbers of all layers that lie in their place, with a record or without; none without ``snapshots``."""
        try:
            names = os.listdir(self.snapshots)
        except OSError:
            return []
        return sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]{0,18}", name))

    def begin(self, number: int) -> None:
        """Make the directory of a new layer, marked as a draft until ``finish``. Raises OSError.

        What makes the directory durable does that for the mark: both are entries of one parent.
        """
        failpoint("create.mark")
        os.close(os.open(self.draft_mark(number), os.O_CREAT | os.O_WRONLY, 0o600))
        failpoint("create.directory")
        os.mkdir(self.directory(number), 0o777 if os.name == "nt" else 0o700)

    def finish(self, number: int) -> None:
        """Take the mark of a draft away, if it is there."""
        if not self.is_draft(number):
            return
        try:
            failpoint("create.finish")
            os.unlink(self.draft_mark(number))
        except OSError:
            # Beside a record it says nothing.
            pass

    def is_draft(self, number: int) -> bool:
        """Whether the making of a layer was begun and, provided that it has no record, never finished."""
        return os.path.lexists(self.draft_mark(number))

    def is_mark(self, name: str) -> bool:
        """Whether an entry of ``snapshots`` is the mark of some draft."""
        marks = re.fullmatch("new-[1-9][0-9]{0,18}", name) is not None
        return marks and not os.path.isdir(os.path.join(self.snapshots, name))

    def recover(self, number: int, kind: str) -> None:
        """Mend what a dead process left of a snapshot that still has its record.

        ``rm-<id>`` is the layer of a removal that did not get as far as its
        COMMIT: it gets its name back. Of a view it may also be half a scratch;
        a view holds nothing of its own, so it is destroyed. To be called in a
        write transaction: living processes rename only inside one.
        """
        if self._rehearsing or not os.path.lexists(self.aside(number)):
            return
        failpoint("recover.before")
        if kind == VIEW:
            self._layers.destroy(self.aside(number))
        else:
            self.put_back(number)
        failpoint("recover.after")

    def is_occupied(self, number: int) -> bool:
        """Whether anything of a number is on disk."""
        return os.path.lexists(self.directory(number)) or os.path.lexists(self.aside(number))

    def put_back(self, number: int) -> None:
        """Give a layer that was set aside its name again; without one, nothing happens."""
        directory, aside = self.directory(number), self.aside(number)
        if not os.path.lexists(directory) and os.path.lexists(aside):
            try:
                os.rename(aside, directory)
            except FileNotFoundError:
                # A reader that needed it was quicker.
                return
            failpoint("put_back.renamed")
            sync_directory(os.path.dirname(directory))

    def set_aside(self, number: int) -> None:
        """Rename a layer to ``rm-<id>``, detached first if it has to be; a missing one is no error.

        Raises FailedPrecondition if a file below it is open, or as ``os_error`` has it.
        """
        directory, aside = self.directory(number), self.aside(number)
        try:
            try:
                failpoint("remove.rename")
                os.rename(directory, aside)
            except PermissionError as error:
                if getattr(error, "winerror", None) != _ERROR_ACCESS_DENIED:
                    raise
                self._release(number, error)
                os.rename(directory, aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise os_error(error, f"failed to remove: rename {self._layers.presented(directory)}") from error
        failpoint("remove.renamed")
        sync_directory(os.path.dirname(directory))

    def _release(self, number: int, denied: OSError) -> None:
        """Detach a layer that a dead process left attached; ``denied`` is how the renaming of it failed."""
        directory, aside = self.directory(number), self.aside(number)
        try:
            self._layers.release(directory)
        except SnapshotterError as error:
            paths = f"{self._layers.presented(directory)} {self._layers.presented(aside)}"
            raise FailedPrecondition(
                f"{error.message}: rename {paths}: {denied.strerror}; is a file below it open in another program?",
                **error.details,
            ) from error

    def lock_path(self, number: int) -> str:
        """The file whose lock is that of a layer."""
        return os.path.join(self.locks, str(number))

    def lock(self, number: int) -> Optional[FileLock]:
        """The lock of a layer, taken; None if another process has it."""
        lock = FileLock(self.lock_path(number))
        try:
            failpoint("lock.acquire")
            self._make_locks()
            return lock if lock.acquire() else None
        except OSError as error:
            raise os_error(
                error, f"cannot lock snapshot {number} by {self._layers.presented(self.lock_path(number))}"
            ) from error

    def export_lock(self, path: str) -> Optional[FileLock]:
        """The lock of whoever writes the file ``path`` on the node, taken; None if another process does."""
        import hashlib

        name = "export-" + hashlib.sha256(os.path.normcase(os.path.realpath(path)).encode()).hexdigest()[:16]
        self._make_locks()
        lock = FileLock(os.path.join(self.locks, name))
        return lock if lock.acquire() else None

    def _make_locks(self) -> None:
        # Whoever can open a lock file can hold it. On Windows, Python 3.12.4 and newer make an access list of the mode.
        try:
            os.mkdir(self.locks, 0o700)
        except FileExistsError:
            pass

    def forget_lock(self, number: int) -> None:
        """Delete the lock file of a removed snapshot; nobody else can want it, its id is gone for good."""
        try:
            failpoint("lock.forget")
            os.unlink(self.lock_path(number))
            failpoint("lock.forgotten")
        except OSError:
            # A process that came too late looks at it this moment; the empty file harms nobody.
            pass
