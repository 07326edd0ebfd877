# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows Python ends itself (TerminateProcess) at each failpoint of the windows layer store.

A process takes a second to start here, so each failpoint is tried once, in the first operation that passes it;
tests/reliability tries all of them in all operations, on the emulated store.
"""

from __future__ import annotations

import pytest

from . import kit

CASES = kit.HERE / "kill_cases.py"

#: Parts of the work that may run side by side.
PARTS = 2


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_anywhere(part, winpython, folder, figures):
    environment = {
        "TEMP": folder.windows + "\\temp",
        "WCSTUB_CONTENTS": "1",
        "WCSTUB_EXPAND": kit.expander(),
        "WCSTUB_LOG": folder.windows + "\\stub.log",
        "WCSTUB_VOLUME": "\\\\?\\C:\\",
        "WINEKIT_IOCTL_LOG": str(folder.path / "ioctl.log"),
        "WINEKIT_DISK_LENGTH": str(1 << 40),
    }
    (folder.path / "temp").mkdir()
    arguments = (kit.windows_path(CASES), folder.windows + "\\t", str(part), str(PARTS))
    points, kills = map(int, winpython(*arguments, env=environment, timeout=600).stdout.split())
    assert points > 50
    figures(failpoints=kills, kills=kills, operations_killed=0 if part else 11, losses=0)
