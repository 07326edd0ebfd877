# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of Windows that the collection's scripts make, on the files of a lab node.

The mode of a directory stands for its access rights: 0700 means
"Administrators and SYSTEM only", any other mode means inherited rights.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fnmatch
import hashlib
import http.client
import ntpath
import os
import shutil
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .host import HostFiles

#: Seconds without an answer after which a download fails.
_DOWNLOAD_TIMEOUT = 100.0

#: What Python raises where .NET and the cmdlets throw.
_FAILURES = (OSError, ValueError, zipfile.BadZipFile, http.client.HTTPException)


class ScriptError(Exception):
    """An exception that ``catch`` of the script catches."""


class Stopped(Exception):
    """The script was stopped from outside. ``catch`` does not see this."""


class Windows:
    """The calls of one run of a script.

    Paths are Windows paths. Every method raises ``Stopped`` if the script was
    stopped before the call, and ``ScriptError`` with the words of PowerShell
    if the call fails. The cause inside these words is Python's.
    """

    def __init__(
        self, files: HostFiles, run_program: Callable[[Sequence[str]], Sequence[str]], is_stopped: Callable[[], bool]
    ) -> None:
        """``run_program`` returns the lines that a program writes, and raises ScriptError if it does not start."""
        self._files = files
        self._run_program = run_program
        self._is_stopped = is_stopped

    def directory_exists(self, path: str) -> bool:
        """``[IO.Directory]::Exists``."""
        with self._call("Exists", 1):
            return self._native(path).is_dir()

    def is_empty(self, path: str) -> bool:
        """Return True if ``[IO.Directory]::GetFileSystemEntries`` finds nothing."""
        with self._call("GetFileSystemEntries", 1):
            return not os.listdir(self._native(path))

    def directories(self, parent: str, pattern: str) -> list[str]:
        """``[IO.Directory]::GetDirectories``: the full paths, sorted."""
        with self._call("GetDirectories", 2):
            names = sorted(entry.name for entry in os.scandir(self._native(parent)) if entry.is_dir())
            matching = [name for name in names if fnmatch.fnmatch(name.casefold(), pattern.casefold())]
            return [ntpath.join(parent, name) for name in matching]

    def create_protected_directory(self, path: str) -> None:
        """``[IO.Directory]::CreateDirectory`` with access rights, which missing parents get too."""
        with self._call("CreateDirectory", 2):
            native = self._native(path)
            if not self._native(ntpath.splitdrive(path)[0] + "\\").is_dir():
                raise FileNotFoundError(f"Could not find a part of the path '{path}'.")
            for directory in reversed([native, *native.parents]):
                if not directory.exists():
                    directory.mkdir(mode=0o700)

    def is_protected(self, path: str) -> bool:
        """Return True if ``Get-Acl`` shows full control for Administrators and SYSTEM, and nothing else."""
        with self._call():
            return not self._native(path).stat().st_mode & 0o077

    def move_directory(self, source: str, target: str) -> None:
        """``[IO.Directory]::Move``."""
        with self._call("Move", 2):
            if os.path.lexists(self._native(target)):
                raise FileExistsError("Cannot create a file when that file already exists.")
            self._native(source).rename(self._native(target))

    def delete_directory(self, path: str) -> None:
        """``[IO.Directory]::Delete`` with all that is inside. Links are deleted, and their targets stay.

        The script can be stopped before each entry.
        """
        with self._call("Delete", 2):
            native = self._native(path)
            if native.is_symlink():
                native.unlink()
                return
            for directory, _names, files in os.walk(native):
                for name in files:
                    if self._is_running(Path(directory) / name):
                        raise PermissionError(f"Access to the path '{name}' is denied.")
            for directory, names, files in os.walk(native, topdown=False):
                for entry in (Path(directory) / name for name in [*files, *names]):
                    self._raise_if_stopped()
                    if entry.is_dir() and not entry.is_symlink():
                        entry.rmdir()
                    else:
                        entry.unlink()
            native.rmdir()

    def file_exists(self, path: str) -> bool:
        """``[IO.File]::Exists``."""
        with self._call("Exists", 1):
            return self._native(path).is_file()

    def read_text(self, path: str) -> str:
        """``[IO.File]::ReadAllText``."""
        with self._call("ReadAllText", 1):
            return self._native(path).read_text(encoding="utf-8")

    def write_text(self, path: str, text: str) -> None:
        """``[IO.File]::WriteAllText``."""
        with self._call("WriteAllText", 2):
            self._native(path).write_text(text, encoding="utf-8")

    def write_base64(self, path: str, lines: Iterable[str]) -> None:
        """``[IO.File]::Create``, and ``Write`` of each line. The script can be stopped before each line."""
        with self._call("Create", 1):
            file = self._native(path).open("wb")
        with file:
            for line in lines:
                with self._call("FromBase64String", 1):
                    file.write(base64.b64decode(line, validate=True))

    def delete_file(self, path: str) -> None:
        """``[IO.File]::Delete``. A missing file is not an error."""
        with self._call("Delete", 1):
            native = self._native(path)
            if self._is_running(native):
                raise PermissionError(f"Access to the path '{path}' is denied.")
            native.unlink(missing_ok=True)

    def open_for_writing(self, path: str) -> None:
        """``[IO.File]::Open`` and ``Close``: fails while the program runs."""
        with self._call("Open", 4):
            native = self._native(path)
            if self._is_running(native):
                message = f"The process cannot access the file '{path}' because it is being used by another process."
                raise BlockingIOError(errno.EBUSY, message)
            native.open("r+b").close()

    def sha256(self, path: str) -> str:
        """``Get-FileHash``: upper-case hexadecimal digits."""
        with self._call():
            return hashlib.sha256(self._native(path).read_bytes()).hexdigest().upper()

    def download(self, url: str, path: str) -> None:
        """``WebClient.DownloadFile``. The proxy settings of the controller do not apply to a node."""
        with self._call("DownloadFile", 2):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=_DOWNLOAD_TIMEOUT) as answer, self._native(path).open("wb") as file:
                shutil.copyfileobj(answer, file)

    def extract(self, package: str, directory: str) -> None:
        """``[IO.Compression.ZipFile]::ExtractToDirectory``.

        Every ``*.exe`` becomes executable: Windows has no permission bit for that.
        """
        with self._call("ExtractToDirectory", 2):
            native = self._native(directory)
            with zipfile.ZipFile(self._native(package)) as file:
                for name in file.namelist():
                    extracted = file.extract(name, native)
                    if name.lower().endswith(".exe"):
                        os.chmod(extracted, 0o700)

    def python_version(self, program: str) -> str:
        """Return what a ``python.exe`` says about its version; "" if it says nothing."""
        self._raise_if_stopped()
        lines = self._run_program([program, "-I", "-c", "import sys;print(sys.version.split()[0])"])
        return " ".join(lines)

    @contextlib.contextmanager
    def _call(self, method: str = "", arguments: int = 0) -> Iterator[None]:
        """Translate errors. PowerShell names the method of .NET that fails; a cmdlet's error has no such words."""
        self._raise_if_stopped()
        try:
            yield
        except _FAILURES as error:
            cause = self._files.display(str(error))
            if not method:
                raise ScriptError(cause) from error
            raise ScriptError(f'Exception calling "{method}" with "{arguments}" argument(s): "{cause}"') from error

    def _raise_if_stopped(self) -> None:
        if self._is_stopped():
            raise Stopped

    def _native(self, path: str) -> Path:
        native = self._files.native(path)
        if native is None:
            raise ValueError(f"The path '{path}' is not absolute.")
        return native

    def _is_running(self, path: Path) -> bool:
        return os.path.lexists(path) and self._files.identity(path) in self._files.running
