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
