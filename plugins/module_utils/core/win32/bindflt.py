# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""bindfltapi.dll: the bind filter, which shows a directory or volume at another path.

Prototypes, flags and the layout of the answer are those of go-winio
(pkg/bindfilter). Bindings are global (no job object), live in the memory of
the filter driver, need an elevated administrator, and are gone after a
restart of the host. Every function raises Win32Error.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, List, NamedTuple

from ..errors import Internal
from . import trace
from .errors import Win32Error, call_error, win32_code
from .kernel32 import FILE_FLAG_BACKUP_SEMANTICS, create_file, final_path
from .library import DWORD, HANDLE, HRESULT, LPCWSTR, PVOID, Library

DLL = Library(
    "bindfltapi.dll",
    "Windows Server 2019 (build 17763) or newer",
    {
        "BfSetupFilter": (HRESULT, HANDLE, DWORD, LPCWSTR, LPCWSTR, PVOID, DWORD),
        "BfRemoveMapping": (HRESULT, HANDLE, LPCWSTR),
        "BfGetMappings": (HRESULT, DWORD, HANDLE, LPCWSTR, PVOID, ctypes.POINTER(DWORD), PVOID),
    },
)

READ_ONLY_MAPPING = 0x1
#: Refuse a second target for one path, which would make an overlay of both. Needs a build above 17763.
NO_MULTIPLE_TARGETS = 0x40

_GET_MAPPINGS_VOLUME = 0x1
# What go-winio asks with: room for about a thousand bindings.
_ANSWER_SIZE = 256 * 1024
_HEADER = struct.Struct("<3I")
_ENTRY = struct.Struct("<5I")
_TARGET = struct.Struct("<2I")


class Mapping(NamedTuple):
    """One binding: where it is seen, what is seen there, and the flags of ``setup_filter``."""

    root: str
    targets: List[str]
    flags: int


def setup_filter(root: str, target: str, flags: int) -> None:
    r"""Show ``target`` at ``root``.

    ``target`` is a directory, or a volume with its last backslash
    (``\\?\Volume{<GUID>}\``). The parent of ``root`` must exist.
    """
    _call("BfSetupFilter", root, None, flags, root, target, None, 0, target=target, flags=flags)


def remove_mapping(root: str) -> None:
    """End the binding of ``root``. Without one the code is 87 or 1168, by the build of Windows."""
    _call("BfRemoveMapping", root, None, root)


def get_mappings(volume: str) -> List[Mapping]:
    """The bindings whose root is on the volume of this path. Needs a build above 17763."""
    buffer = ctypes.create_string_buffer(_ANSWER_SIZE)
    size = DWORD(_ANSWER_SIZE)
    _call("BfGetMappings", volume, _GET_MAPPINGS_VOLUME, None, volume, None, ctypes.byref(size), buffer)
    return [
        Mapping(_dos_path(root), [_dos_path(target) for target in targets], flags)
        for root, targets, flags in parse_mappings(buffer.raw[: size.value])
    ]


def parse_mappings(answer: bytes) -> List[Mapping]:
    r"""Read the answer of BfGetMappings, whose offsets count bytes from its start.

    Paths in it are those of the NT kernel: ``\Device\HarddiskVolume2\mnt``.
    Raises Internal if it contradicts itself.
    """
    try:
        _size, _status, count = _HEADER.unpack_from(answer)
        return [_mapping(answer, _HEADER.size + index * _ENTRY.size) for index in range(count)]
    except (struct.error, UnicodeDecodeError) as error:
        raise Internal(f"cannot read the {len(answer)} bytes of bindings that the bind filter gave: {error}") from None


def _mapping(answer: bytes, offset: int) -> Mapping:
    length, start, flags, count, targets = _ENTRY.unpack_from(answer, offset)
    return Mapping(
        _text(answer, start, length),
        [
            _text(answer, start, length)
            for length, start in (_TARGET.unpack_from(answer, targets + index * _TARGET.size) for index in range(count))
        ],
        flags,
    )


def _text(answer: bytes, start: int, length: int) -> str:
    if start + length > len(answer):
        raise struct.error(f"a name of {length} bytes at {start} lies outside")
    return answer[start : start + length].decode("utf-16-le", "surrogatepass").rstrip("\0")


def _dos_path(path: str) -> str:
    """The path that programs use, or the given one if its volume is gone."""
    if not path.startswith("\\Device\\"):
        return path
    try:
        with create_file("\\\\.\\GLOBALROOT" + path, 0, flags=FILE_FLAG_BACKUP_SEMANTICS) as file:
            return final_path(file)
    except Win32Error:
        return path


def _call(export: str, path: str, *native: Any, **described: Any) -> None:
    with trace.Call(f"bindfltapi.{export}", {"path": path, **described}) as call:
        hresult = DLL.call(export, *native)
        if hresult < 0:
            call.failed = win32_code(hresult)
    if hresult < 0:
        raise call_error(export, win32_code(hresult), path)
