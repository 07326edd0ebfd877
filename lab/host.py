# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The files of one lab node: a directory that holds the drives of a Windows host, ``C:`` and ``D:``.

``C:\Temp\x`` on the node is ``<directory>/C/Temp/x`` on this machine. Names
are matched without regard to case, as on Windows.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

#: The only address on which a lab listens, and its only account.
ADDRESS = "127.0.0.1"
USER = "Administrator"

#: The default of the variable ``wcow_python``.
PYTHON = r"C:\Program Files\wcow\python\python.exe"

#: The file in the directory of a node that describes its services, if it has any.
SERVICES = "services.json"

_ABSOLUTE = re.compile(r"([A-Za-z]):[\\/]")
# What no file name of Windows contains. Behind a colon is the name of a stream.
_ILLEGAL = re.compile(r'[\x00-\x1f"*:<>?|]')


class HostFiles:
    """The drives of the node ``name``, below ``directory``."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        drive = directory / "C"
        self._data_drive = directory / "D"
        self.home = drive / "Users" / USER
        self._temp = drive / "Windows" / "Temp"
        self._program_files = drive / "Program Files"
        self._program_data = drive / "ProgramData"
        #: The ``identity`` of each program that is running on the node.
        self.running: list[tuple[int, int]] = []

    def create(self, with_python: bool, interpreter: str = sys.executable) -> None:
        """Create the directories of a Windows host, with or without a Python.

        Python is a link to the interpreter itself, not to the link in its virtual environment. A Python that a play
        has installed is not a link, and stays.
        """
        for directory in (self.home, self._temp, self._program_files, self._program_data, self._data_drive):
            self._make_directory(directory)
        python = self.native(PYTHON)
        if python is None:
            raise AssertionError(PYTHON)
        if python.is_symlink():
            python.unlink()
        if with_python and not python.exists():
            self._make_directory(python.parent)
            python.symlink_to(os.path.realpath(interpreter))

    def _make_directory(self, path: Path) -> None:
        """Create a directory and those above it, and let only their owner write there, whatever the umask is."""
        for directory in reversed([path, *path.parents]):
            if directory.is_relative_to(self.directory):
                directory.mkdir(exist_ok=True)
                directory.chmod(directory.stat().st_mode & ~0o022)

    def native(self, path: str) -> Path | None:
        """Return the local path of an absolute Windows path; None for any other path. The file may be missing.

        ``..`` stops at the drive, so that a path cannot leave the node.
        """
        match = _ABSOLUTE.match(path)
        if match is None or _ILLEGAL.search(path, match.end()):
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

    def display(self, text: str) -> str:
        """Return a text in which the local paths of the node are Windows paths."""
        pattern = rf"{re.escape(str(self.directory))}/([A-Za-z])(?![\w.-])([^\"'*:<>?|\x00-\x1f]*)"
        return re.sub(pattern, lambda found: f"{found[1]}:" + (found[2].replace("/", "\\") or "\\"), text)

    def program(self, path: str) -> Path | None:
        """Return the executable file at a Windows path; None if there is none."""
        native = self.native(path)
        if native is None or not native.is_file() or not os.access(native, os.X_OK):
            return None
        return native

    @staticmethod
    def identity(path: Path) -> tuple[int, int]:
        """Return what identifies a file even after its directory is renamed."""
        status = path.lstat()
        return status.st_dev, status.st_ino

    def environment(self) -> dict[str, str]:
        """Return the whole environment of a process on the node.

        The emulated layer store finds the node's drives by
        ``WCOW_EMULATED_DRIVES``. ``WCOW_EMULATED_SERVICES`` names the file that
        describes the services of the node.
        """
        services = self.directory / SERVICES
        emulated = {"WCOW_EMULATED_SERVICES": str(services)} if services.exists() else {}
        return {
            **emulated,
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
    """Return the entry of ``directory`` that Windows finds for ``name``; ``name`` if there is none."""
    if not os.path.lexists(directory / name):
        try:
            entries = os.listdir(directory)
        except OSError:
            return name
        for entry in sorted(entries):
            if entry.casefold() == name.casefold():
                return entry
    return name
