# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""core/win32, and deletion with it, in Windows Python: Wine's Win32, and stand-ins for what Wine does not have."""

from __future__ import annotations

import pathlib
import re

import pytest

from . import kit

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
    "cases",
    ["win32_cases.py", "cleanup_cases.py", "programs_cases.py", "pipe_cases.py", "serve_cases.py", "service_cases.py"],
)
def test_cases(winpython, folder, cases):
    # Without a root, pytest would look at files outside the checkout.
    root = f"--rootdir={kit.windows_path(kit.CHECKOUT)}"
    options = ("--noconftest", "-p", "no:cacheprovider", "-c", "NUL", root, "--basetemp", folder.windows + r"\t", "-q")
    # The file in which the patched Wine logs calls that would grow a volume, and the size of the partition.
    environment = {"WINEKIT_IOCTL_LOG": str(folder.path / "ioctl.log"), "WINEKIT_DISK_LENGTH": str(1 << 40)}
    path = kit.windows_path(HERE / cases)
    done = winpython("-m", "pytest", *options, path, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # No skips: Windows has everything that the cases need.
    assert re.search(r"^\d+ passed in ", done.stdout, re.MULTILINE), done.stdout
