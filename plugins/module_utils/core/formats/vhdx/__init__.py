# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VHDX disk files: create, read, check, repair, grow, replay the log.

The format is [MS-VHDX], revision 8.0. Section numbers in this package are the
specification's, and so are the names of structures and fields.

``structures``, ``checksum`` and ``log`` work on bytes. The other modules read
and write files, and translate operating system errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...files import file_error
    from .copies import check, repair
    from .creation import DEFAULT_BLOCK_SIZE, create
    from .growth import grow, grow_new
    from .reader import read_info
    from .replay import replay_log
    from .structures import (
        DIFFERENCING,
        DYNAMIC,
        FIXED,
        KIB,
        MAX_VIRTUAL_SIZE,
        MIB,
        SECTOR_SIZES,
        TIB,
        DiskInfo,
    )

__all__ = [
    "DEFAULT_BLOCK_SIZE",
    "DIFFERENCING",
    "DYNAMIC",
    "FIXED",
    "KIB",
    "MAX_VIRTUAL_SIZE",
    "MIB",
    "SECTOR_SIZES",
    "TIB",
    "DiskInfo",
    "check",
    "create",
    "file_error",
    "grow",
    "grow_new",
    "read_info",
    "repair",
    "replay_log",
]

_MODULES = {
    "check": "copies",
    "repair": "copies",
    "DEFAULT_BLOCK_SIZE": "creation",
    "create": "creation",
    "grow": "growth",
    "grow_new": "growth",
    "read_info": "reader",
    "replay_log": "replay",
}


def __getattr__(name: str) -> Any:
    """Import the module of a name at its first use: the node compiles each module in each task."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "...files" if name == "file_error" else f".{_MODULES.get(name, 'structures')}"
    value = globals()[name] = getattr(import_module(module, __name__), name)
    return value
