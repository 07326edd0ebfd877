# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NTFS file names: which are valid, which are equal, where links and network paths lead."""

from __future__ import annotations

import functools
import os
import re
from typing import List

from ..errors import InvalidArgument

#: The longest file name and the longest path, in UTF-16 code units (MS-FSCC 2.1.5).
COMPONENT_UNITS = 255
PATH_UNITS = 32767

# Not legal on NTFS in any name space (FSRTL_NTFS_LEGAL in the WDK's ntifs.h);
# the colon separates the name of a stream, the slashes those of directories.
# Trailing dots and device names such as CON are only Win32's taboo: layers may hold them.
_ILLEGAL = re.compile(r'[\x00-\x1f"*/:<>?\\|]')

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# What YAML makes of a backslash and a letter in double quotes, where Python writes it in another way.
_CONTROL = re.compile(r"[\x01-\x1f\x7f]")
_ESCAPES = {"\a": r"\a", "\b": r"\b", "\v": r"\v", "\f": r"\f", "\x1b": r"\e"}

_SEPARATORS = re.compile(r"[\\/]+")
# Not what begins with a question mark or a dot: that is the name of a device.
_NETWORK = re.compile(r"[\\/]{2}(?![?.][\\/])|\\\\\?\\UNC\\", re.IGNORECASE)


# Upper case letters that came to Unicode after version 5.1, which the table follows; the small ones may be older.
_LATER = (
    (0x37F, 0x37F),
    (0x524, 0x52F),
    (0x10C7, 0x10CD),
    (0x13A0, 0x13F5),
    (0x1C89, 0x1CBF),
    (0x2C2F, 0x2C2F),
    (0x2C70, 0x2C70),
    (0x2C7E, 0x2C7F),
    (0x2CEB, 0x2CF2),
    (0xA660, 0xA660),
    (0xA698, 0xA69A),
    (0xA78D, 0xFF20),
)


def fold(name: str) -> str:
    """Return a form in which two names are equal exactly if they are equal to NTFS.

    NTFS compares names by the table in its file $UpCase, which maps each
    UTF-16 code unit to one code unit. The table is that of Windows 7 and
    newer, as mkntfs of ntfs-3g writes it, too.
    """
    if name.isascii():
        return name.upper()
    return "".join(map(_fold_char, name))


@functools.lru_cache(maxsize=1024)
def _fold_char(char: str) -> str:
    """A letter changes only if it is the one small letter of its capital: dotless i, long s and final sigma do not."""
    if char > "\uffff":
        # Two code units, which are not letters to NTFS.
        return char
    upper = char.upper()
    if len(upper) > 1:
        # Greek letters with an iota below: only their title case is one letter.
        upper = char.title()
    if len(upper) > 1 or upper.lower() != char or any(first <= ord(upper) <= last for first, last in _LATER):
        return char
    return upper


def path_key(path: str) -> str:
    """Return a form in which two absolute paths of this host are equal if they name the same file; links count."""
    return fold(path.replace("/", "\\")) if os.name == "nt" else path


def fault(name: str) -> str:
    """Return why NTFS cannot hold a file of this name, as the end of a sentence; empty if it can."""
    if name in ("", ".", ".."):
        return "is not the name of a file"
    found = _ILLEGAL.search(name)
    if found:
        return f"contains {found.group()!r}, which NTFS does not allow"
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        return "is not Unicode text"
    if units > COMPONENT_UNITS:
        return f"is longer than {COMPONENT_UNITS} UTF-16 units"
    return ""


def check_escapes(option: str, path: str) -> None:
    r"""Raise InvalidArgument for a path in which YAML turned ``\n``, ``\t`` and the like into a control character."""
    found = _CONTROL.search(path)
    if found:
        written = _ESCAPES.get(found.group(), ascii(found.group())[1:-1])
        raise InvalidArgument(
            f"{option} {path!r} contains the control character that YAML makes of {written} in double quotes: put the "
            "path in single quotes, or write each backslash twice"
        )


def components_of(path: str, text: str) -> List[str]:
    """Return the names in ``text``, a part of ``path``; resolves ``.`` and ``..`` by text only, as Windows does.

    ``..`` stops at the beginning. Raises InvalidArgument for a name that NTFS does not allow.
    """
    components: List[str] = []
    for component in _SEPARATORS.split(text):
        if component == "..":
            del components[-1:]
        elif component not in ("", "."):
            check_escapes("path", path)
            problem = fault(component)
            if problem:
                raise InvalidArgument(f"path {path!r}: {component!r} {problem}: choose another name")
            components.append(component)
    return components


def drive_components(path: str) -> List[str]:
    r"""Split an absolute path into its drive, such as ``C:``, and the names below. A leading ``\\?\`` is dropped.

    Raises InvalidArgument as ``components_of`` does, and for every other form of path.
    """
    if not path:
        raise InvalidArgument("the path is empty: give an absolute path")
    if "\0" in path:
        raise InvalidArgument(f"path {path!r} contains a NUL character: remove it")
    verbatim = path.startswith("\\\\?\\")
    windows = path[4:] if verbatim else path
    if windows.startswith(("\\\\", "//")) or (verbatim and windows[:4].upper() == "UNC\\"):
        raise InvalidArgument(f"path {path!r} is a network path: give one on a local drive, such as C:\\data")
    if not _DRIVE.match(windows):
        raise InvalidArgument(f"path {path!r} is not absolute: give one that starts with a drive, such as C:\\data")
    return [windows[:2], *components_of(path, windows[3:])]


def share_components(path: str) -> List[str]:
    r"""Split the network path ``\\server\share\a\b`` into server, share and the names below; nothing for other paths.

    ``\\?\UNC\server\share`` means the same. Raises InvalidArgument as
    ``components_of`` does, and for a path without a share.
    """
    prefix = _NETWORK.match(path)
    if prefix is None:
        return []
    server, share, rest = [*_SEPARATORS.split(path[prefix.end() :], maxsplit=2), "", ""][:3]
    place = components_of(path, f"{server}/{share}")
    if len(place) < 2:
        raise InvalidArgument(rf"path {path!r} names no share: it must begin as \\server\share does")
    return place + components_of(path, rest)


def link_doubt(depth: int, link: str, junction: bool) -> str:
    """Return why Windows may not find the target of a symbolic link or junction in a layer; empty if nothing is odd.

    The text continues "it". ``depth`` is the number of directories between the
    root of the layer's files, which a container sees as C:, and the link.
    """
    if not link:
        return "is empty"
    target = link.replace("/", "\\")
    if link.startswith("/") and not target.startswith("\\\\"):
        return "is an absolute path of another system"
    prefix = target[:4] if target[:4] in ("\\\\?\\", "\\??\\") else ""
    target = target[len(prefix) :]
    if target[1:3] == ":\\":
        if target[0] not in "Cc":
            return f"leads to drive {target[:2]}, which a container has only if something is mounted there"
        target = target[2:]
    elif prefix:
        return "leads to the network, a volume or a device"
    elif target.startswith("\\\\"):
        return "leads to the network"
    elif junction:
        return "is not absolute, as the target of a junction must be"
    names = [name for name in target.split("\\") if name not in ("", ".")]
    if target.startswith("\\"):
        depth = 0
    for name in names:
        depth += -1 if name == ".." else 1
        if depth < 0:
            return "goes up above the root of the drive"
        problem = "" if name == ".." else fault(name)
        if problem:
            return f"has the part {name!r}, which {problem}"
    if names[:1] == ["Files"] and not target.startswith("\\"):
        return "begins with Files, which Windows looks for beside the link"
    return ""
