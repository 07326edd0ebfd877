# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write configuration files, all or none.

Paths are those of the node, as in ``imports``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import List, NamedTuple, Optional, Tuple

from ..errors import FailedPrecondition, NotFound, SnapshotterError, Unavailable
from ..failpoint import failpoint
from ..files import make_directories, sync_directory, translating_os_errors
from ..layers import protection
from ..layers.emulated import drives
from . import imports

#: What starts containerd, and writes its configuration.
CONTAINERD, RKE2, K0S = "containerd", "rke2", "k0s"

_TEMPORARY = ".wcow.new"


class FileChange(NamedTuple):
    """A file, its bytes before and after; None where it does not exist.

    A new file gets the owner and the access rights of the file ``like``, if that is not empty.
    """

    path: str
    before: Optional[bytes]
    after: Optional[bytes]
    like: str = ""


class Change(NamedTuple):
    """What changes of containerd's configuration; no ``files`` if nothing does.

    The files are in the order in which they are written. ``needs_restart``: containerd does not know these settings
    before it starts again. ``manager`` is what starts containerd: ``containerd`` (a service of this name, or an unknown
    program), ``rke2``, or ``k0s``, which restarts containerd itself after a change of its drop-in directory. ``notes``
    are sentences for the user.
    """

    files: Tuple[FileChange, ...]
    needs_restart: bool
    manager: str
    notes: Tuple[str, ...]


def apply(change: Change) -> None:
    """Write the files of a change. A file is replaced atomically, and keeps its owner and its access rights.

    Raises Unavailable, and changes nothing, if a file is not as it was before the change. If a file cannot be written,
    those before it are restored, and the error is that of ``os_error``.
    """
    for file in change.files:
        if read(file.path) != file.before:
            raise Unavailable(
                f"{file.path} has changed since it was read; run the task again", path=drives.to_native(file.path)
            )
    done: List[FileChange] = []
    try:
        for file in change.files:
            done.append(file)
            failpoint("configuration.file")
            _write(file)
    except BaseException:
        _restore(done)
        raise


def revert(change: Change) -> None:
    """Write the files as they were before a change that was applied. Raises as ``apply``."""
    undone = [FileChange(file.path, file.after, file.before, file.like) for file in reversed(change.files)]
    apply(change._replace(files=tuple(undone)))


def read(path: str) -> Optional[bytes]:
    """Return the bytes of a file of this node; None if it does not exist. Raises as ``imports.read_file``."""
    try:
        return imports.read_file(path)
    except NotFound:
        return None


def refuse_read_only(path: str) -> None:
    """Raise FailedPrecondition for a file that has the read-only attribute, on POSIX for one without its write bit."""
    with contextlib.suppress(FileNotFoundError):
        if not os.stat(drives.to_native(path)).st_mode & stat.S_IWRITE:
            raise FailedPrecondition(f"{path} is read-only; make it writable, or change it by hand", path=path)


def _restore(files: List[FileChange]) -> None:
    for file in reversed(files):
        # The first error counts, and later files are restored whatever happens to this one.
        with contextlib.suppress(SnapshotterError):
            if read(file.path) != file.before:
                _write(FileChange(file.path, None, file.before, file.like))


def _write(file: FileChange) -> None:
    # A link stays a link.
    native = os.path.realpath(drives.to_native(file.path))
    with translating_os_errors("cannot write", native, display=drives.display_path):
        if file.after is None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(native)
            sync_directory(os.path.dirname(native))
            return
        refuse_read_only(file.path)
        make_directories(os.path.dirname(native), 0o755)
        model = native if os.path.lexists(native) else file.like and drives.to_native(file.like)
        temporary = native + _TEMPORARY
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            with open(temporary, "xb", opener=_open_private) as target:
                target.write(file.after)
                target.flush()
                os.fsync(target.fileno())
            if model and os.path.lexists(model):
                protection.copy_access(model, temporary)
            os.replace(temporary, native)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(os.path.dirname(native))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
