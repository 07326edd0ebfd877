# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small files that are written durably and as a whole.

The functions that write raise OSError and leave the old file on an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any

from ...errors import FailedPrecondition
from ...failpoint import failpoint
from ...files import sync_directory
from .. import filetree
from .drives import display_path

# More than the paths of a mount take.
_MAX_SIZE = 4 << 20


def write(path: str, data: bytes) -> None:
    """Create or replace a file. A reader finds the old file or the new one.

    The caller keeps others from writing the same path meanwhile.
    """
    new = path + ".new"
    failpoint("file.write")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            failpoint("file.flush")
            os.fsync(file.fileno())
        failpoint("file.rename")
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
    failpoint("file.renamed")
    sync_directory(os.path.dirname(path))


def read_json(path: str) -> Any:
    """The value in a JSON file; None if there is no file. Raises FailedPrecondition if it is damaged, or not a file."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise damaged(path)
        with open(path, encoding="ascii", opener=_open_once) as file:
            return json.loads(file.read(_MAX_SIZE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError):
        raise damaged(path) from None


def damaged(path: str) -> FailedPrecondition:
    """The error about a file with other contents than it should have."""
    return FailedPrecondition(
        f"{display_path(path)} is damaged: look into it, and delete it if nothing is mounted there"
    )


def _open_once(path: str, flags: int) -> int:
    """Open what was just seen to be a file. A link or a FIFO that replaced it is an error, or empty."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def write_json(path: str, value: object) -> None:
    """``write`` a value as JSON."""
    write(path, json.dumps(value).encode("ascii"))


def create_json(path: str, value: object) -> None:
    """Create a JSON file. Raises FileExistsError if the path exists.

    Of several threads or processes that create the same path at the same
    time, one succeeds, if the file system has hard links.
    """
    new = f"{path}.{os.urandom(8).hex()}"
    write_json(new, value)
    failpoint("claim.link")
    try:
        filetree.link(new, path)
        failpoint("claim.linked")
    finally:
        os.unlink(new)
