# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Drive letters on a host that has none.

If the environment variable ``WCOW_EMULATED_DRIVES`` names a directory, the
Windows path ``C:\a\b`` is the native path ``<directory>/C/a/b``, and the network
path ``\\server\share\a`` is ``<directory>/UNC/server/share/a``. Components that
exist are found whatever their case, as on Windows; an exact match wins.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Sequence

from ..errors import InvalidArgument
from ..formats.ntfsnames import components_of, fold, share_components

VARIABLE = "WCOW_EMULATED_DRIVES"

_DRIVE = re.compile(r"[A-Za-z]:")
_SHARES = "UNC"


def to_native(path: str, shares: bool = False) -> str:
    r"""The native path of an absolute Windows or native path; see the module's text.

    An absolute POSIX path is native as it is. ``.`` and ``..`` are resolved by
    the text alone, and ``..`` stops at the root of the drive, as on Windows; a
    leading ``\\?\`` is dropped. With ``shares`` a network path will do, too.
    Raises InvalidArgument for every other form.
    """
    if not path:
        raise InvalidArgument("the path is empty: give an absolute path")
    if "\0" in path:
        raise InvalidArgument(f"path {path!r} contains a NUL character: remove it")
    if os.name == "posix" and os.path.isabs(path):
        return path
    share = share_components(path) if shares else []
    if share:
        return _below_drives(path, [_SHARES, *share]) or "\\\\" + "\\".join(share)
    verbatim = path.startswith("\\\\?\\")
    windows = path[4:] if verbatim else path
    if windows.startswith(("\\\\", "//")) or (verbatim and windows[:4].upper() == "UNC\\"):
        raise InvalidArgument(f"path {path!r} is a network path: give one on a local drive, such as C:\\data")
    if not _DRIVE.match(windows) or windows[2:3] not in ("\\", "/"):
        raise InvalidArgument(f"path {path!r} is not absolute: give one that starts with a drive, such as C:\\data")
    components = components_of(path, windows[3:])
    native = "\\".join([windows[:2] + "\\" * (not components), *components])
    return _below_drives(path, [windows[0].upper(), *components]) or native


def _below_drives(path: str, components: Sequence[str]) -> str:
    """Where a Windows path is below the directory of the drives; ``""`` on a Windows without one."""
    drives = os.environ.get(VARIABLE)
    if drives:
        return find(os.path.abspath(drives), components)
    if os.name == "posix":
        raise InvalidArgument(
            f"path {path!r} is a Windows path, and this host has no drive letters: give a path of this host, "
            f"or set {VARIABLE} to the directory that holds the drives"
        )
    return ""


def to_presented(path: str) -> str:
    """The Windows path that ``to_native`` turns into this native path; other paths as they are."""
    drives = os.environ.get(VARIABLE)
    if not drives:
        return path
    top = os.path.join(os.path.abspath(drives), "")
    if not path.startswith(top):
        return path
    drive, *components = path[len(top) :].split(os.sep)
    if drive == _SHARES and len(components) > 1:
        return "\\\\" + "\\".join(components)
    if not _DRIVE.fullmatch(drive + ":"):
        return path
    return drive.upper() + ":\\" + "\\".join(components)


def find(directory: str, components: Sequence[str]) -> str:
    """The path of names below a directory, each in the case in which it exists; an exact match wins."""
    path = directory
    for component in components:
        name = component
        if not os.path.lexists(os.path.join(path, component)):
            with contextlib.suppress(OSError):
                name = min((each for each in os.listdir(path) if fold(each) == fold(component)), default=component)
        path = os.path.join(path, name)
    return path
