# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of the core once more, by Windows Python."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wcow.snapshotter.tests.wine import kit


@pytest.mark.parametrize("suite", ["tests/contract", "tests/unit/plugins/module_utils"])
def test_suite(windows, suite):
    # They give the same account of themselves, and may skip as little.
    told = {name: value for name, value in os.environ.items() if name.startswith("WCOW_")}
    told["WCSTUB_CONTENTS"] = "1"
    options = ("-p", "no:cacheprovider", "-q")
    done = windows.python(
        "-m", "pytest", *options, suite, cwd=kit.CHECKOUT, env=told, timeout=1800, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
