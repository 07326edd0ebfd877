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

    def with_context(self, prefix: str) -> SnapshotterError:
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


class Damaged(FailedPrecondition):
    """What is stored contradicts itself. It stays as it is, and only a backup or a repair helps."""


class InvalidArgument(SnapshotterError):
    """The caller's input is wrong whatever the state of the system."""

    code = "invalid_argument"


class Unavailable(SnapshotterError):
    """Another process holds what is needed, or space is missing; the same task can succeed later."""

    code = "unavailable"


class NotImplementedHere(SnapshotterError):
    """This layer store cannot do what was asked."""

    code = "not_implemented"


class Internal(SnapshotterError):
    """A failure that none of the other classes describes."""
