# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd's own Go suite for snapshotters (snapshots/testsuite) on our proxy snapshotter."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from . import golang

pytestmark = [
    pytest.mark.requires_tool("go", "golang-go"),
    pytest.mark.skipif(
        not (golang.DEBIAN_PACKAGES / "src/github.com/containerd/containerd/snapshots/testsuite").exists(),
        reason="containerd's sources are not installed (Debian package golang-github-containerd-containerd-dev)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="the suite mounts file systems, which needs root"),
]

#: The tests of the suite. It skips Rename itself.
TESTS = 21
SKIPPED = ["Rename"]

#: The directory that has the package ``core``.
CORE_PARENT = pathlib.Path(__file__).parents[2] / "plugins" / "module_utils"


def test_the_suite_of_containerd(tmp_path_factory: pytest.TempPathFactory, figures: Any) -> None:
    # The path of a socket can have at most 107 bytes.
    directory = tmp_path_factory.mktemp("s")
    program = golang.build("snapshotsuite", is_test=True)
    environment = {
        **os.environ,
        "WCOW_PYTHON": sys.executable,
        "PYTHONPATH": str(CORE_PARENT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(directory),
    }
    done = subprocess.run(
        [program, "-test.v", "-test.parallel=4"],
        env=environment,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=1200,
        check=False,
    )
    found = re.findall(r"^ *--- (PASS|FAIL|SKIP): TestProxySnapshotter/(\w+)", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout[-20000:]
    assert len(found) == TESTS
    assert [name for result, name in found if result != "PASS"] == SKIPPED
    figures(containerd_suite_tests=len(found))
