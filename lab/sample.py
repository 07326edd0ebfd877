# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A base layer small enough to try playbooks with: the tree of a Windows image, without Windows."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

_DIRECTORIES = (
    "Files",
    "Files/ProgramData",
    "Files/Users",
    "Files/Windows",
    "Files/Windows/System32",
    "Files/Windows/System32/config",
    "Hives",
    "UtilityVM",
    "UtilityVM/Files",
)

_FILES = {
    "Files/Windows/win.ini": b"; a stand-in\r\n[fonts]\r\n",
    "Files/Windows/System32/cmd.exe": b"a stand-in for cmd.exe\r\n",
    "Files/Windows/System32/config/SOFTWARE": b"a stand-in for a registry hive\r\n",
    "UtilityVM/Files/bootmgr": b"a stand-in for a boot loader\r\n",
}


def write_layer(path: Path) -> None:
    """Write the layer to ``path`` as a gzipped tar, the same bytes each time. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    with gzip.GzipFile(draft, "wb", mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in _DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, content in _FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    draft.replace(path)
