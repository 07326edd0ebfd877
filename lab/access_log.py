# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The access log: one line of JSON for each request, script or refusal. It shows what a task costs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class AccessLog:
    """Appends to the file ``path``. Only its owner can read it, because it holds the text of scripts."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("a", encoding="ascii", buffering=1)

    def write(self, **fields: Any) -> None:
        """Append one line with the current time (seconds since the epoch) and ``fields``."""
        self._file.write(json.dumps({"time": round(time.time(), 6), **fields}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
