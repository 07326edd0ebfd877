# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a process again that Wine has not started. Windows Python imports this module before its program.

Rarely, once in hundreds of starts, a process in Wine ends before it begins its program. The process that starts it gets
ERROR_INTERNAL_ERROR. ``kit.Windows.run`` does the same for processes that are started from outside.
"""

from __future__ import annotations

import _winapi
from typing import Any

#: winerror.h
INTERNAL_ERROR = 1359

# mypy knows this module and the attribute winerror on Windows alone, where this file runs and mypy does not.
_start: Any = _winapi.CreateProcess  # type: ignore[attr-defined, unused-ignore]


def start(*arguments: Any) -> Any:
    """Do what ``_winapi.CreateProcess`` does, a second time if Wine failed the first time."""
    try:
        return _start(*arguments)
    except OSError as error:
        if error.winerror != INTERNAL_ERROR:  # type: ignore[attr-defined, unused-ignore]
            raise
        return _start(*arguments)


_winapi.CreateProcess = start  # type: ignore[attr-defined, unused-ignore]
