# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``grow_disk.py CORE DISK SIZE``: what ExpandSandboxSize does to a disk, for its stand-in; ``CORE`` holds the core."""

from __future__ import annotations

import os
import sys


def main(core: str, disk: str, size: int) -> None:
    # The calling process is the one that dies at a failpoint. The core reads these variables when it is imported.
    for name in ("WCOW_FAILPOINT", "WCOW_FAILPOINT_ERROR", "WCOW_FAILPOINTS_LOG"):
        os.environ.pop(name, None)
    sys.path.insert(0, core)
    from core.formats.vhdx import growth, reader

    if reader.read_info(disk).virtual_size < size:
        growth.grow(disk, size)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
