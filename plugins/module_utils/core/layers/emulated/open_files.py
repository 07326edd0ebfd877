# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the processes that use files below a directory, on systems with /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator, List

from ..base import MAX_HOLDERS

_SECONDS = 2.0


def users(directory: str) -> List[str]:
    """One phrase for each other process that this account can see: ``process 4711 (tar) has /a/b open``."""
    top = os.path.realpath(directory)
    deadline = time.monotonic() + _SECONDS
    found: List[str] = []
    own = str(os.getpid())
    for process in (name for name in _names("/proc") if name.isdigit() and name != own):
        if len(found) >= MAX_HOLDERS or time.monotonic() > deadline:
            break
        path = next((path for path in _open_paths(process) if path == top or path.startswith(top + os.sep)), "")
        if path:
            found.append(f"process {process} ({_program(process)}) has {path} open")
    return found


def _open_paths(process: str) -> Iterator[str]:
    """The paths that a process has open, and its working directory."""
    for link in ("cwd", *(f"fd/{name}" for name in _names(f"/proc/{process}/fd"))):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{process}/{link}")


def _names(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _program(process: str) -> str:
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "unknown"
