# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``grow_disk.py CORE DISK SIZE``: what ExpandSandboxSize does to a disk, for its stand-in; ``CORE`` holds the core."""

from __future__ import annotations

import os
import sys

# Who dies at a failpoint is the process that has called.
for name in ("WCOW_FAILPOINT", "WCOW_FAILPOINT_ERROR", "WCOW_FAILPOINTS_LOG"):
    os.environ.pop(name, None)
sys.path.insert(0, sys.argv[1])

from core.formats import vhdx  # noqa: E402 - core reads the environment

path, size = sys.argv[2], int(sys.argv[3])
if vhdx.read_info(path).virtual_size < size:
    vhdx.grow(path, size)
