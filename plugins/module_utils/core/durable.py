# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes for a change in a directory to survive a power cut."""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """Make the entries of a directory durable: names created, renamed or removed in it.

    POSIX wants an fsync of the directory itself. Windows has no such call and
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
    """Make a directory durably, for its owner alone, and those that are missing above it, as they usually are.

    What is there already is left as it is. The mode concerns POSIX: on
    Windows, Python 3.12.4 and newer would turn 0700 into an ACL of its own.
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
