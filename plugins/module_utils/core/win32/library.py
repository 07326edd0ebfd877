# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Load a DLL from System32 when it is needed, and bind its exports by a table of prototypes.

``win32`` calls the functions of Windows through ctypes: it has one module for
each DLL, and one small function for each call. A module starts with the table
of the prototypes that it uses. All layouts are those of 64-bit Windows, the
same on x64 and arm64.

Functions take and return plain Python values and raise ``Win32Error``. A
handle is a ``kernel32.Handle``, which its ``with`` block closes. A path is an
absolute Windows path without the prefix ``\\?\`` unless a function says
otherwise. Every function may be called in several threads at the same time.
The package can be imported on every system; a call that needs Windows raises
NotImplementedHere elsewhere.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Dict, List, Tuple

from ..errors import FailedPrecondition, InvalidArgument, NotImplementedHere

HRESULT = ctypes.c_int32
BOOL = ctypes.c_int32
DWORD = ctypes.c_uint32
HANDLE = ctypes.c_void_p
PVOID = ctypes.c_void_p
LPCWSTR = ctypes.c_wchar_p

#: The type that an export returns, then the types of its arguments.
Prototype = Tuple[Any, ...]

# Not from the program's folder or the working directory: this code runs as an administrator.
_LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800


class Guid(ctypes.Structure):
    """A GUID in the layout of Windows (guiddef.h); its ``bytes()`` are the ``bytes_le`` of a uuid.UUID."""

    _fields_ = [
        ("Data1", ctypes.c_uint32),
        ("Data2", ctypes.c_uint16),
        ("Data3", ctypes.c_uint16),
        ("Data4", ctypes.c_ubyte * 8),
    ]


class Library:
    """A DLL of System32 and the prototypes of the exports that are used here.

    ``purpose`` completes "It comes with": what to install, or which Windows to
    use, if the DLL or an export is missing.
    """

    def __init__(self, name: str, purpose: str, prototypes: Dict[str, Prototype]) -> None:
        self.name = name
        self._purpose = purpose
        self._prototypes = prototypes
        self._functions: Dict[str, Any] = {}

    def call(self, export: str, *arguments: Any) -> int:
        """Call an export and return its number, whose meaning depends on the export.

        Raises FailedPrecondition if this Windows lacks the DLL or the export,
        InvalidArgument for a text with a NUL character, where C would end it.
        """
        for argument in arguments:
            if isinstance(argument, str) and "\0" in argument:
                raise InvalidArgument(f"{argument!r} has a NUL character in it, which no name on Windows can have")
        function = self._functions.get(export)
        if function is None:
            # Several threads may bind the same export: each binds an object of its own, so this needs no lock.
            function = self._functions[export] = self._bind(export)
        result: int = function(*arguments)
        return result

    def missing(self) -> List[str]:
        """What this Windows lacks of the table: names of exports, or the name of the DLL if it is missing."""
        try:
            library = _load(self.name)
        except OSError:
            return [self.name]
        return [f"{export} in {self.name}" for export in self._prototypes if not hasattr(library, export)]

    def _bind(self, export: str) -> Any:
        try:
            function = getattr(_load(self.name), export)
        except OSError as error:
            raise FailedPrecondition(
                f"Failed to load {self.name}: {error.strerror or error}. It comes with {self._purpose}", dll=self.name
            ) from None
        except AttributeError:
            raise FailedPrecondition(
                f"Failed to find {export} procedure in {self.name}: The specified procedure could not be found. It "
                f"comes with {self._purpose}",
                dll=self.name,
                export=export,
            ) from None
        function.restype, *function.argtypes = self._prototypes[export]
        return function


def _load(name: str) -> Any:
    if sys.platform != "win32":
        raise NotImplementedHere(f"{name} is a part of Windows, and this host runs {sys.platform}", dll=name)
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise FailedPrecondition("the Python of this host is a 32-bit program; install a 64-bit Python", dll=name)
    return ctypes.WinDLL(name, use_last_error=True, winmode=_LOAD_LIBRARY_SEARCH_SYSTEM32)


def last_error() -> int:
    """The Win32 code that the last call in this thread has set (GetLastError)."""
    if sys.platform != "win32":
        raise NotImplementedHere("only Windows has GetLastError")
    return ctypes.get_last_error()
