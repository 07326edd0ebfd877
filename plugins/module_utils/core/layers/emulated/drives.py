# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Drive letters on a host that has none.

If the environment variable ``WCOW_EMULATED_DRIVES`` names a directory, the
Windows path ``C:\a\b`` is the native path ``<directory>/C/a/b``, and the network
path ``\\server\share\a`` is ``<directory>/UNC/server/share/a``. Components that
exist are found whatever their case, as on Windows; an exact match wins.

The named pipe ``\\.\pipe\name`` is the Unix socket ``<directory>/pipe/name``.

The directories are the drives; ``C:`` always exists. As on a Windows host,
there are no other paths: none is accepted, and none is shown.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Optional, Sequence

from ...errors import InvalidArgument, NotFound
from ...files import EMULATED_DRIVES
from ...formats.ntfsnames import drive_components, fold, share_components

VARIABLE = EMULATED_DRIVES

_SYSTEM_DRIVE = "C"
_SHARES = "UNC"

# A native path in a sentence. It ends before a character that NTFS does not allow or that sentences have behind a path,
# and before the next path.
_PATH = r"(?<![\w/.-]){0}[\\/](?:(UNC)(?=[\\/])|([A-Za-z])(?![\w.-]))((?:(?!{0})[^\"'*:;,<>?|\x00-\x1f])*)"


def to_native(path: str, shares: bool = False) -> str:
    r"""The native path of an absolute Windows path; see the module's text.

    ``.`` and ``..`` are resolved from the text alone, and ``..`` stops at the
    root of the drive, as on Windows. A leading ``\\?\`` is dropped. With
    ``shares``, network paths are accepted as well. On a host without emulated
    drives, an absolute POSIX path is already native. Raises InvalidArgument
    for every other form, NotFound for a drive that the host does not have.
    """
    drives = os.environ.get(VARIABLE)
    if os.name == "posix" and not drives and os.path.isabs(path) and "\0" not in path:
        return path
    share = share_components(path) if shares else []
    drive, *components = [""] if share else drive_components(path)
    if not drives:
        if os.name == "posix":
            raise InvalidArgument(
                f"path {path!r} is a Windows path, and this host has no drive letters: give a path of this host, "
                f"or set {VARIABLE} to the directory that holds the drives"
            )
        return "\\\\" + "\\".join(share) if share else "\\".join([drive + "\\" * (not components), *components])
    letter = drive[:1].upper()
    if drive and letter != _SYSTEM_DRIVE and not os.path.isdir(os.path.join(drives, letter)):
        raise NotFound(f"path {path!r} is on the drive {letter}:, which this host does not have")
    return find(os.path.abspath(drives), [_SHARES, *share] if share else [letter, *components])


def pipe_to_native(name: str) -> Optional[str]:
    r"""The Unix socket that stands for the named pipe ``\\.\pipe\<name>``, None on a host without emulated drives."""
    drives = os.environ.get(VARIABLE)
    return os.path.join(os.path.abspath(drives), "pipe", name) if drives else None


def display_path(path: str) -> str:
    """The Windows path that ``to_native`` turns into this native path; any other path unchanged."""
    drives = os.environ.get(VARIABLE)
    if not drives:
        return path
    for top in _tops(drives):
        if path.startswith(os.path.join(top, "")):
            drive, *components = path[len(top) + 1 :].split(os.sep)
            if drive == _SHARES and len(components) > 1:
                return "\\\\" + "\\".join(components)
            if re.fullmatch("[A-Za-z]", drive):
                return drive.upper() + ":\\" + "\\".join(components)
    return path


def display(value: Any) -> Any:
    """A JSON value in which ``display_path`` spells each native path, also one inside a sentence."""
    if isinstance(value, dict):
        return {display(key): display(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [display(item) for item in value]
    drives = os.environ.get(VARIABLE)
    if not drives or not isinstance(value, str):
        return value
    for top in _tops(drives):
        if top in value:
            value = re.sub(_PATH.format(re.escape(top)), _display_match, value)
            # No drive: a path beside the drives.
            value = re.sub(rf"(?<![\w/.-]){re.escape(top)}(?![\w.-])", VARIABLE, value)
    return value


def _display_match(found: re.Match[str]) -> str:
    _share, drive, rest = found.groups()
    return (f"{drive.upper()}:" if drive else "\\") + (rest.replace("/", "\\") or "\\")


def _tops(drives: str) -> Sequence[str]:
    """The spellings of the directory of the drives in native paths: as it was given, and without links."""
    return sorted({os.path.abspath(drives), os.path.realpath(drives)}, key=len, reverse=True)


def find(directory: str, components: Sequence[str]) -> str:
    """Join names to a directory, each in the case in which it exists there; an exact match wins."""
    path = directory
    for component in components:
        name = component
        if not os.path.lexists(os.path.join(path, component)):
            with contextlib.suppress(OSError):
                name = min((each for each in os.listdir(path) if fold(each) == fold(component)), default=component)
        path = os.path.join(path, name)
    return path
