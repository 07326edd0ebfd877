# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill Windows Python (TerminateProcess) at each failpoint of the Windows layer store.

A process takes a second to start here, so each failpoint of an operation of tasks is tried once, in the first operation
that passes it; tests/reliability tries all of them in all operations, on the emulated store. The proxy snapshotter is
killed at every failpoint of every call (``make wine-kills``).
"""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.tests.reliability import served

from . import kit

CASES = kit.HERE / "kill_cases.py"
SERVE_CASES = kit.HERE / "serve_kill_cases.py"

#: Parts of the work that may run in parallel.
PARTS = 2


@pytest.fixture
def environment(folder):
    """The settings of the stand-ins."""
    (folder.path / "temp").mkdir()
    return {
        "TEMP": folder.windows + "\\temp",
        "WCSTUB_CONTENTS": "1",
        "WCSTUB_EXPAND": kit.expander(),
        "WCSTUB_LOG": folder.windows + "\\stub.log",
        "WCSTUB_VOLUME": "\\\\?\\C:\\",
        "WINEKIT_IOCTL_LOG": str(folder.path / "ioctl.log"),
        "WINEKIT_DISK_LENGTH": str(1 << 40),
    }


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_anywhere(part, winpython, folder, environment, figures):
    arguments = (kit.windows_path(CASES), folder.windows + "\\t", str(part), str(PARTS))
    points, kills = map(int, winpython(*arguments, env=environment, timeout=600).stdout.split())
    assert points > 50
    figures(failpoints=kills, kills=kills, operations_killed=0 if part else 11, losses=0)


@pytest.mark.long
@pytest.mark.parametrize("call", served.CALLS)
def test_the_proxy_snapshotter_killed_at_every_failpoint(call, winpython, folder, environment, figures):
    arguments = (kit.windows_path(SERVE_CASES), folder.windows + "\\t", call)
    done = winpython(*arguments, env=environment, timeout=900)
    points, kills = map(int, done.stdout.split())
    # Two threads pass some points in another order each time.
    assert kills >= 0.9 * points > 0
    figures(failpoints=points, kills=kills, operations_killed=1, losses=0)
