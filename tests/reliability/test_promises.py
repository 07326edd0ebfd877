# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/reliability.md names a test for each promise, and those tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def test_each_promise_has_its_tests() -> None:
    rows = [line for line in (CHECKOUT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    for row in rows[1:]:
        named = re.findall(r"`(tests/[^`]+)::(\w+)`", row)
        assert named, row
        for path, test in named:
            tree = ast.parse((CHECKOUT / path).read_text())
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (path, test)
