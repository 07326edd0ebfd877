# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error classes of the core.

The classes are containerd's (errdefs package); ``code`` is what the reply
carries. A message is a whole sentence for a person. Where containerd has a
sentence for the case, ours is the same to the letter, class name at the end
included, because that is what people search for.
"""

from __future__ import annotations

from typing import Any


class SnapshotterError(Exception):
    """Base of all errors that the core raises on purpose.

    ``details`` holds values for machines: names, paths, sizes in bytes.
    """

    code = "internal"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def prefixed(self, prefix: str) -> SnapshotterError:
        """The same error with ``prefix: `` before its message (Go's %w)."""
        return type(self)(f"{prefix}: {self.message}", **self.details)


class NotFound(SnapshotterError):
    """The named snapshot, parent or file does not exist."""

    code = "not_found"


class AlreadyExists(SnapshotterError):
    """The key or name is taken."""

    code = "already_exists"


class FailedPrecondition(SnapshotterError):
    """The system is not in the state that the operation needs."""

    code = "failed_precondition"


class InvalidArgument(SnapshotterError):
    """The caller's input is wrong whatever the state of the system."""

    code = "invalid_argument"


class Unavailable(SnapshotterError):
    """Somebody else holds what is needed; trying again later is right."""

    code = "unavailable"


class NotImplementedHere(SnapshotterError):
    """This layer store cannot do what was asked."""

    code = "not_implemented"


class Internal(SnapshotterError):
    """A failure that none of the other classes describes."""


#: winerror.h: ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION.
_WINDOWS_IN_USE = (32, 33)


def os_error(error: OSError, what: str, **details: Any) -> SnapshotterError:
    """An operating system's error in the classes of the core; ``what`` begins the sentence: ``cannot write <path>``."""
    import errno

    reason = f"{what}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return Unavailable(f"{reason}; free some space on its volume and run the task again", **details)
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


def translate(error: Exception, what: str, root: str) -> SnapshotterError:
    """Whatever made an operation fail, as an error of the core; ``what`` begins the sentence of one that is none yet.

    An error that nobody foresaw is a mistake of ours: its traceback goes to
    standard error, for whoever debugs; the reply has the sentence.
    """
    if isinstance(error, SnapshotterError):
        return error
    if isinstance(error, OSError):
        return os_error(error, f"{what}: {error.filename if isinstance(error.filename, str) else root}")
    if isinstance(error, RecursionError):
        return InvalidArgument("a path has more directories than can be made or followed here")
    if isinstance(error, MemoryError):
        return Internal("the host ran out of memory")
    import sys
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    return Internal(f"{type(error).__name__}: {error}")
