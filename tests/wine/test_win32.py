# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""core/win32 on Windows Python: the real Win32 semantics of Wine, and the stand-ins for what Wine has not."""

from __future__ import annotations

import pathlib
import re

from . import kit

CASES = pathlib.Path(__file__).with_name("win32_cases.py")


def test_cases(winpython, folder):
    options = ("--noconftest", "-p", "no:cacheprovider", "-c", "NUL", "--basetemp", folder.windows + r"\t", "-q")
    # Where the patched Wine notes what would grow a volume, and how large it says the partition is.
    environment = {"WINEKIT_IOCTL_LOG": str(folder.path / "ioctl.log"), "WINEKIT_DISK_LENGTH": str(1 << 40)}
    done = winpython("-m", "pytest", *options, kit.windows_path(CASES), env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # No skips: nothing that the cases need can be missing there.
    assert re.search(r"^\d+ passed in ", done.stdout, re.MULTILINE), done.stdout
