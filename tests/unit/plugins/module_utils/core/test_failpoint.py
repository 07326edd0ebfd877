# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that failpoints do what the environment of the process sets, and otherwise nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import failpoint

PROGRAM = """
import sys
sys.path[:] = %r
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.failpoint import failpoint
for name in ("one", "two", "one", "three"):
    print(name, flush=True)
    try:
        failpoint(name)
    except OSError as error:
        print(error.errno, flush=True)
"""


def run(**environment: str) -> Any:
    given = {name: value for name, value in os.environ.items() if not name.startswith("WCOW_FAILPOINT")}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM % (sys.path,)],
        env={**given, **environment},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def test_nothing_happens_unless_it_is_asked_for() -> None:
    assert run().stdout.split() == ["one", "two", "one", "three"]
    assert not failpoint._ARMED


@pytest.mark.parametrize(
    ("point", "said"),
    [("one", ["one"]), ("one#2", ["one", "two", "one"]), ("three", ["one", "two", "one", "three"])],
)
def test_the_process_ends(point: str, said: Any) -> None:
    done = run(WCOW_FAILPOINT=point)
    assert done.stdout.split() == said
    assert done.returncode == (1 if os.name == "nt" else -signal.SIGKILL)


def test_a_point_that_is_not_passed_so_often() -> None:
    assert run(WCOW_FAILPOINT="two#2").returncode == 0


def test_an_error() -> None:
    assert run(WCOW_FAILPOINT_ERROR="one#2").stdout.split() == ["one", "two", "one", "5", "three"]


def test_a_log(tmp_path: Any) -> None:
    log = tmp_path / "log"
    run(WCOW_FAILPOINTS_LOG=str(log), WCOW_FAILPOINT="three")
    assert log.read_text().split() == ["one", "two", "one", "three"]
