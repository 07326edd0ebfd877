# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the embeddable package of python.org that a lab node can unpack and run."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shlex
import sys
import zipfile
from pathlib import Path

#: The oldest time of the zip format. A fixed time makes the bytes reproducible.
_TIME = (1980, 1, 1, 0, 0, 0)

#: Prints the given version when asked for it, and passes everything else on to the interpreter.
_PROGRAM = """#!/bin/sh
case "$*" in *'print(sys.version.split()[0])') echo {version}; exit;; esac
exec {interpreter} "$@"
"""


def content(version: str = platform.python_version()) -> bytes:
    """Return the package; the bytes are reproducible.

    Its python.exe is a script for /bin/sh that runs the interpreter of the
    lab, whatever ``version`` it reports.
    """
    interpreter = shlex.quote(os.path.realpath(sys.executable))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        program = _PROGRAM.format(version=shlex.quote(version), interpreter=interpreter)
        file.writestr(zipfile.ZipInfo("python.exe", _TIME), program)
        file.writestr(zipfile.ZipInfo("LICENSE.txt", _TIME), "A stand-in of the lab, see docs/lab.md.\n")
    return stream.getvalue()


def write_package(path: Path, version: str) -> str:
    """Write the package to ``path``, and return its SHA-256 in hexadecimal digits. Raises OSError."""
    data = content(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
