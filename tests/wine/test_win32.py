# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""core/win32 and what deletes by it on Windows Python: Win32 as Wine has it, and the stand-ins for what it has not."""

from __future__ import annotations

import pathlib
import re

import pytest

from . import kit

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize("cases", ["win32_cases.py", "cleanup_cases.py"])
def test_cases(winpython, folder, cases):
    # The root keeps pytest from looking at what lies beside the checkout.
    root = f"--rootdir={kit.windows_path(kit.CHECKOUT)}"
    options = ("--noconftest", "-p", "no:cacheprovider", "-c", "NUL", root, "--basetemp", folder.windows + r"\t", "-q")
    # Where the patched Wine notes what would grow a volume, and how large it says the partition is.
    environment = {"WINEKIT_IOCTL_LOG": str(folder.path / "ioctl.log"), "WINEKIT_DISK_LENGTH": str(1 << 40)}
    path = kit.windows_path(HERE / cases)
    done = winpython("-m", "pytest", *options, path, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # No skips: nothing that the cases need can be missing there.
    assert re.search(r"^\d+ passed in ", done.stdout, re.MULTILINE), done.stdout
