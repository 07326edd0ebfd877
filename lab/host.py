# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The files of one lab node: a directory that stands for the drives of a Windows host.

``C:\Temp\x`` on the node is ``<directory>/C/Temp/x`` here. Names that exist
are matched without regard to case, as Windows does.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

#: The only address that a lab listens on, and its only account.
ADDRESS = "127.0.0.1"
USER = "Administrator"

#: Where the collection's modules expect Python unless ``wcow_python`` says otherwise.
PYTHON = r"C:\Program Files\wcow\python\python.exe"

_ABSOLUTE = re.compile(r"([A-Za-z]):[\\/]")


class HostFiles:
    """The drives of the node ``name`` below ``directory``."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        drive = directory / "C"
        self.home = drive / "Users" / USER
        self._temp = drive / "Windows" / "Temp"
        self._program_files = drive / "Program Files"
        self._program_data = drive / "ProgramData"
        #: The programs that run on the node now, by what ``identity`` says of them.
        self.running: list[tuple[int, int]] = []

    def create(self, with_python: bool, interpreter: str = sys.executable) -> None:
        """Make the directories that every Windows host has, with a Python or without it.

        Python is a link to the interpreter (to the real one, not to that of its venv). One that a play has
        installed there is no link, and stays.
        """
        for directory in (self.home, self._temp, self._program_files, self._program_data):
            directory.mkdir(parents=True, exist_ok=True)
        python = self.native(PYTHON)
        if python is None:
            raise AssertionError(PYTHON)
        if python.is_symlink():
            python.unlink()
        if with_python and not python.exists():
            python.parent.mkdir(parents=True, exist_ok=True)
            python.symlink_to(os.path.realpath(interpreter))

    def native(self, path: str) -> Path | None:
        """Where an absolute Windows path lies here, existing or not; None if it is not one.

        ``..`` ends at the drive, so that no path leads out of the node.
        """
        match = _ABSOLUTE.match(path)
        if match is None or "\0" in path:
            return None
        components: list[str] = []
        for component in re.split(r"[\\/]", path[match.end() :]):
            if component == "..":
                del components[-1:]
            elif component not in ("", "."):
                components.append(component)
        native = self.directory / match.group(1).upper()
        for component in components:
            native = native / _existing_name(native, component)
        return native

    def program(self, path: str) -> Path | None:
        """The executable file that a Windows path names, or None if there is none."""
        native = self.native(path)
        if native is None or not native.is_file() or not os.access(native, os.X_OK):
            return None
        return native

    @staticmethod
    def identity(path: Path) -> tuple[int, int]:
        """What a file keeps when its directory is renamed."""
        status = path.lstat()
        return status.st_dev, status.st_ino

    def environment(self) -> dict[str, str]:
        """The whole environment of a process on the node.

        ``WCOW_EMULATED_DRIVES`` tells the collection's emulated layer store
        where this node's drives are.
        """
        return {
            "PATH": os.defpath,
            "HOME": str(self.home),
            "TEMP": str(self._temp),
            "TMP": str(self._temp),
            "TMPDIR": str(self._temp),
            "ProgramFiles": str(self._program_files),
            "ProgramData": str(self._program_data),
            "COMPUTERNAME": self.name,
            "WCOW_EMULATED_DRIVES": str(self.directory),
        }


def _existing_name(directory: Path, name: str) -> str:
    """The entry of ``directory`` that Windows would take for ``name``, or ``name``."""
    if not os.path.lexists(directory / name):
        try:
            entries = os.listdir(directory)
        except OSError:
            return name
        for entry in sorted(entries):
            if entry.casefold() == name.casefold():
                return entry
    return name
