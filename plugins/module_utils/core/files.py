# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and directories: exact reads and writes, durable changes, the one translator of operating system errors.

Use ``file_error`` for a file that the caller named: a missing one is
``NotFound``. Use ``os_error`` for everything else: a file that is missing
inside a layer is not a missing snapshot. ``translating_os_errors`` applies
either of them to a block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, BinaryIO, Callable, Iterator, Union

from .errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    SnapshotterError,
    Unavailable,
)
from .failpoint import failpoint

StrPath = Union[str, "os.PathLike[str]"]

#: The environment variable that names the directory of the drives on a lab node (``layers.emulated.drives``).
EMULATED_DRIVES = "WCOW_EMULATED_DRIVES"


# -- files and other things ------------------------------------------------------

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_kind(mode: int) -> str:
    """Return what a path with this ``st_mode`` is, in words; empty for a file."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "" if stat.S_ISREG(mode) else "a special file")


def file_problem(path: str) -> str:
    """Return why nothing can be read from a path, to continue a sentence: what it is, or that it is empty.

    The result is empty for a file with content. Raises OSError.
    """
    status = os.stat(path)
    kind = special_kind(status.st_mode)
    if kind:
        return f"is {kind}, not a file"
    return "" if status.st_size else "is empty (0 bytes)"


def refuse_special(path: str) -> None:
    """Raise OSError if there is something else than a file, which a rename would replace. Links are followed."""
    with contextlib.suppress(FileNotFoundError):
        _require_file(os.stat(path).st_mode, path)


def only_files(path: str, flags: int) -> int:
    """Open a file that a user named: an ``opener`` for ``open``.

    A named pipe would wait for its other end, and opening a device can have
    effects. Raises OSError for everything that is not a file, without waiting.
    """
    refuse_special(path)
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    try:
        # It can have been replaced since the first look.
        _require_file(os.fstat(descriptor).st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_file(mode: int, path: str) -> None:
    kind = special_kind(mode)
    if kind:
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"it is {kind}, not a file", path)


# -- reading and writing ---------------------------------------------------------


def read_at(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read ``length`` bytes from ``offset``; fewer only at the end of the file."""
    file.seek(offset)
    data = b""
    while len(data) < length:
        more = file.read(length - len(data))
        if not more:
            break
        data += more
    return data


def write_at(file: BinaryIO, offset: int, data: bytes) -> None:
    """Write all of ``data`` at ``offset``."""
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextlib.contextmanager
def new_disk_file(path: str, what: str, needed: int, *, flush_name: bool = True) -> Iterator[BinaryIO]:
    """Create a disk file that is complete or absent: exclusively, and durable after the block.

    Only its owner may read it. An error in the block removes the file again.
    Without ``flush_name`` the caller makes its name durable, by ``sync_directory``.
    An operating system error becomes ``file_error(error, what, path, needed)``.
    """
    created = False
    try:
        failpoint("disk.create")
        with open(path, "x+b", buffering=0, opener=_open_private) as file:
            created = True
            failpoint("disk.write")
            yield file
            failpoint("disk.flush")
            os.fsync(file.fileno())
        failpoint("disk.flushed")
        if flush_name:
            sync_directory(os.path.dirname(os.path.abspath(path)))
        failpoint("disk.made")
    except BaseException as error:
        if created:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if isinstance(error, OSError):
            raise file_error(error, what, path, needed) from error
        raise


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


# -- directories -----------------------------------------------------------------


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable: names created, renamed or removed in it.

    POSIX needs an fsync of the directory itself. Windows has no such call and
    needs none: NTFS journals its directories.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directories(path: str, mode: int = 0o700) -> None:
    """Create a directory durably, with ``mode``; missing directories above it get the default mode.

    An existing directory is not changed. The mode applies to POSIX only: on
    Windows, Python 3.12.4 and newer would turn 0700 into an access list.
    Raises OSError.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    if not os.path.lexists(above) and above != path:
        make_directories(above, 0o777)
    try:
        os.mkdir(path, 0o777 if os.name == "nt" else mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    sync_directory(above)


# -- errors ----------------------------------------------------------------------

#: winerror.h: ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION.
_WINDOWS_IN_USE = (32, 33)

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_FREE_SPACE = "; free some space on its volume and run the task again"


def os_error(error: OSError, what: str, **details: Any) -> SnapshotterError:
    """Translate an operating system error: ``<what>: <reason>; <remedy>``.

    ``what`` names the action and its object: ``cannot write <path>``.
    ``details`` go into the error as they are.
    """
    reason = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return Unavailable(f"{reason}{_FREE_SPACE}", **details)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Unavailable(f"{reason}; raise the limit, or run the task again when fewer files are open", **details)
    if error.errno == errno.EBUSY or getattr(error, "winerror", None) in _WINDOWS_IN_USE:
        return Unavailable(f"{reason}; another program uses it: run the task again when that has ended", **details)
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return FailedPrecondition(
            f"{reason}; is the volume read-only, or the task run without administrator rights?", **details
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return InvalidArgument(f"{reason}; choose another path", **details)
    if error.errno == errno.EIO:
        return Internal(f"{reason}; check the disk that it lies on", **details)
    return FailedPrecondition(reason, **details)


def file_error(error: OSError, what: str, path: str, needed: int = 0) -> SnapshotterError:
    """Translate an error on the file ``path`` that the caller named; like ``os_error`` but for three cases.

    A missing file is NotFound and an existing one AlreadyExists. If the
    volume is full, the error tells how many bytes are free on it, and how
    many the work needs; 0 if that is not known.
    """
    reason = f"{what}: {error.strerror or error}"
    if isinstance(error, FileNotFoundError):
        return NotFound(reason, path=path)
    if isinstance(error, FileExistsError):
        return AlreadyExists(reason, path=path)
    if error.errno in _FULL:
        import shutil

        volume = os.path.dirname(os.path.abspath(path))
        drives = os.environ.get(EMULATED_DRIVES)
        while not os.path.ismount(volume) and not (drives and os.path.dirname(volume) == os.path.abspath(drives)):
            volume = os.path.dirname(volume)
        free = shutil.disk_usage(volume).free
        space = f"needs {needed} bytes, {free} free on {volume}" if needed else f"{free} bytes free on {volume}"
        return Unavailable(f"{reason}: {space}{_FREE_SPACE}", path=path, needed=needed, free=free, volume=volume)
    return os_error(error, what, path=path)


@contextlib.contextmanager
def translating_os_errors(
    action: str,
    path: str,
    *,
    translate: Callable[..., SnapshotterError] = os_error,
    display: Callable[[str], str] = str,
) -> Iterator[None]:
    """Raise an operating system error of the block as an error of the core.

    The message begins ``<action> <path>``, followed by the file that the
    error names if that is another one: ``cannot delete layer <path>: <file>:
    <reason>``. ``path`` also goes into the details. ``translate`` is
    ``os_error`` or ``file_error``. ``display`` spells paths for the user;
    ``file_error`` needs native paths, so use it with ``str`` only.
    """
    try:
        yield
    except OSError as error:
        named = error.filename
        at = f": {display(named)}" if isinstance(named, str) and named not in ("", path) else ""
        raise translate(error, f"{action} {display(path)}{at}", path=display(path)) from error
