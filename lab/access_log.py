# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The access log: a line of JSON a request, a script or a refusal, so that cost can be measured."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


class AccessLog:
    """Appends to the file ``path``, which only its owner may read: scripts are logged in full."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("a", encoding="ascii", buffering=1)

    def write(self, **fields: Any) -> None:
        """One line with the present time (seconds since the epoch) and ``fields``."""
        self._file.write(json.dumps({"time": round(time.time(), 6), **fields}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
