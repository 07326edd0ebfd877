# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File names as NTFS knows them: which there can be, which are the same, where links and network paths lead."""

from __future__ import annotations

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

_SEPARATORS = re.compile(r"[\\/]+")
# Not what begins with a question mark or a dot: that is the name of a device.
_NETWORK = re.compile(r"[\\/]{2}(?![?.][\\/])|\\\\\?\\UNC\\", re.IGNORECASE)


def fold(name: str) -> str:
    """The form in which two names are equal exactly if NTFS takes them for one.

    NTFS maps each code unit to upper case by itself, hence a letter whose
    upper case is more than one letter (as in German) stays what it is.
    """
    if name.isascii():
        return name.upper()
    return "".join(char.upper() if len(char.upper()) == 1 else char for char in name)


def fault(name: str) -> str:
    """Why NTFS cannot hold a file of this name, as the end of a sentence; empty if it can."""
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


def components_of(path: str, text: str) -> List[str]:
    """The names in ``text``, a part of ``path``; ``.`` and ``..`` are resolved by the text alone, as Windows does.

    ``..`` stops at the beginning. Raises InvalidArgument for a name that cannot be.
    """
    components: List[str] = []
    for component in _SEPARATORS.split(text):
        if component == "..":
            del components[-1:]
        elif component not in ("", "."):
            problem = fault(component)
            if problem:
                raise InvalidArgument(f"path {path!r}: {component!r} {problem}: choose another name")
            components.append(component)
    return components


def share_components(path: str) -> List[str]:
    r"""Server, share and the names below it of the network path ``\\server\share\a\b``; nothing for any other path.

    ``\\?\UNC\server\share`` means the same. Raises InvalidArgument as
    ``components_of``, and for a path that names no share.
    """
    prefix = _NETWORK.match(path)
    if prefix is None:
        return []
    server, share, rest = [*_SEPARATORS.split(path[prefix.end() :], maxsplit=2), "", ""][:3]
    place = components_of(path, f"{server}/{share}")
    if len(place) < 2:
        raise InvalidArgument(rf"path {path!r} names no share: it must begin as \\server\share does")
    return place + components_of(path, rest)


def link_fault(depth: int, link: str) -> str:
    """Why a symbolic link in a layer may not have this target; empty if it may.

    C: is the layer itself, so an absolute Windows path stays inside. Others
    must not climb above the layer, nor climb at all after the first name,
    since that name may be a link itself. ``depth`` is the number of
    directories between the root of the layer's files and the link.
    """
    if link.startswith("/"):
        return "which is an absolute path of another system"
    target = link.replace("/", "\\")
    verbatim = target[:4] in ("\\\\?\\", "\\??\\")
    if verbatim:
        target = target[4:]
    if target[:3].upper() == "C:\\":
        target, depth = target[3:], 0
    elif verbatim or not target or target.startswith("\\\\"):
        return "which leads out of the layer"
    elif target.startswith("\\"):
        target, depth = target[1:], 0
    components = [component for component in target.split("\\") if component not in ("", ".")]
    climbs = 0
    while components[climbs : climbs + 1] == [".."]:
        climbs += 1
    if climbs > depth or ".." in components[climbs:]:
        return "which leads out of the layer"
    return next((f"where {each!r} {fault(each)}" for each in components[climbs:] if fault(each)), "")
