# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe a node for the report of a problem: its system, its Python, and the service with its last log lines.

This opens no store, so that it also works where a store is damaged or cannot exist.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Optional

from ..errors import SnapshotterError
from ..outcome import Outcome
from . import served
from .installed import find_options

#: Bytes at the end of a log that are read.
_TAIL = 256 * 1024

_VERSION_KEY = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"


def describe_node(_store: None, lines: int = 0) -> Outcome:
    """Return the system, the Python, the service (None if there is none) and the last ``lines`` of each of its logs.

    ``problems`` has a sentence for each thing that cannot be read.
    """
    problems: List[str] = []
    options: Dict[str, str] = {}
    try:
        options = find_options()
    except SnapshotterError as error:
        problems.append(error.message)
    log = options.get("--log", "")
    logs = [log, os.path.join(os.path.dirname(log), "crash.log")] if log else []
    result = {
        "system": _system(problems),
        "python": _python(problems),
        "service": _service(options, problems),
        "logs": [{"path": path, "lines": _last_lines(path, lines, problems)} for path in logs if os.path.exists(path)],
        "problems": problems,
    }
    return Outcome(False, result)


def _system(problems: List[str]) -> Dict[str, str]:
    """Return the name, version and edition of the operating system. Windows has its revision in the registry only."""
    if sys.platform != "win32":
        system = os.uname()
        return {"name": system.sysname, "version": system.release, "edition": "", "architecture": system.machine}
    import winreg

    found = sys.getwindowsversion()
    said = {"ProductName": "Windows", "InstallationType": "", "UBR": ""}
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _VERSION_KEY) as key:
            for name in said:
                said[name] = str(winreg.QueryValueEx(key, name)[0])
    except OSError as error:
        problems.append(f"cannot read the revision of Windows: {error}")
    version = f"{found.major}.{found.minor}.{found.build}.{said['UBR']}".rstrip(".")
    return {
        "name": said["ProductName"],
        "version": version,
        "edition": said["InstallationType"],
        "architecture": os.environ.get("PROCESSOR_ARCHITECTURE", ""),
    }


def _python(problems: List[str]) -> Dict[str, Any]:
    sqlite = ""
    try:
        import sqlite3

        sqlite = sqlite3.sqlite_version
    except ImportError as error:
        problems.append(f"this Python has no SQLite: {error}")
    return {
        "version": sys.version.split()[0],
        "executable": sys.executable,
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "sqlite": sqlite,
    }


def _service(options: Dict[str, str], problems: List[str]) -> Optional[Dict[str, Any]]:
    """Return how the service is installed and what it answers, None if there is none."""
    root = options.get("--root", "")
    # The service is that of this root, so the path needs no translation.
    found = served.find_of_store(root, str, problems) if root else None
    if found is None:
        return None
    named = {name: options.get(f"--{name.replace('_', '-')}", "") for name in ("version", "log", "log_level")}
    return {**named, "root": root, **found._asdict()}


def _last_lines(path: str, lines: int, problems: List[str]) -> List[str]:
    try:
        with open(path, "rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - _TAIL)
            file.seek(start)
            found = file.read(_TAIL).decode("utf-8", "replace").splitlines()
    except OSError as error:
        problems.append(f"cannot read {path}: {error.strerror}")
        return []
    # The first line can be the end of a longer one.
    found = found[1:] if start else found
    return found[-lines:] if lines else []
