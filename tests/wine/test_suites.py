# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the tests of the core with Windows Python."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wcow.snapshotter.tests.wine import kit


@pytest.mark.parametrize(
    "suite", ["tests/contract", "tests/unit/plugins/module_utils", "tests/reliability/test_hostile_bytes.py"]
)
def test_suite(windows, suite):
    # Reports and skips follow the same settings as here.
    settings = {name: value for name, value in os.environ.items() if name.startswith("WCOW_")}
    settings["WCSTUB_CONTENTS"] = "1"
    options = ("-p", "no:cacheprovider", "-q")
    done = windows.python(
        "-m",
        "pytest",
        *options,
        suite,
        cwd=kit.CHECKOUT,
        env=settings,
        timeout=1800,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
