# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome of one operation, or the error that ended it."""

from __future__ import annotations

from typing import Any, Dict, NamedTuple

from .errors import Internal, InvalidArgument, SnapshotterError
from .files import os_error


class Outcome(NamedTuple):
    """Whether anything changed, and the operation's result."""

    changed: bool
    result: Dict[str, Any]


def translate(error: Exception, what: str, root: str) -> SnapshotterError:
    """Return an error of any class as an error of the core; ``what`` begins the message of an OSError.

    An unexpected error is a defect of the core: its traceback goes to standard
    error, and the reply has its text.
    """
    if isinstance(error, SnapshotterError):
        return error
    if isinstance(error, OSError):
        return os_error(error, f"{what}: {error.filename if isinstance(error.filename, str) else root}")
    if isinstance(error, RecursionError):
        return InvalidArgument("a path has more directories than the core can follow: use a shorter path")
    if isinstance(error, MemoryError):
        return Internal("the host ran out of memory")
    import sys
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    return Internal(f"{type(error).__name__}: {error}")
