# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""bindfltapi.dll: the bind filter, which shows a directory or volume at another path.

Prototypes and flags are those of go-winio (pkg/bindfilter). A binding is global
(without a job object) and needs an elevated administrator. The filter driver
keeps it in memory, so a restart of the host ends it. Every function raises
Win32Error.
"""

from __future__ import annotations

from typing import Any

from . import trace
from .errors import call_error, win32_code
from .library import DWORD, HANDLE, HRESULT, LPCWSTR, PVOID, Library

DLL = Library(
    "bindfltapi.dll",
    "Windows Server 2019 (build 17763) or newer",
    {
        "BfSetupFilter": (HRESULT, HANDLE, DWORD, LPCWSTR, LPCWSTR, PVOID, DWORD),
        "BfRemoveMapping": (HRESULT, HANDLE, LPCWSTR),
    },
)

READ_ONLY_MAPPING = 0x1
#: Reject a second target for a path, which would become an overlay of both. Needs a build above 17763.
NO_MULTIPLE_TARGETS = 0x40


def setup_filter(root: str, target: str, flags: int) -> None:
    r"""Show ``target`` at ``root``.

    ``target`` is a directory, or a volume with its last backslash
    (``\\?\Volume{<GUID>}\``). The parent of ``root`` must exist.
    """
    _call("BfSetupFilter", root, None, flags, root, target, None, 0, target=target, flags=flags)


def remove_mapping(root: str) -> None:
    """End the binding of ``root``. If there is none, the code is 87 or 1168, depending on the build of Windows."""
    _call("BfRemoveMapping", root, None, root)


def _call(export: str, path: str, *native: Any, **described: Any) -> None:
    with trace.Call(f"bindfltapi.{export}", {"path": path, **described}) as call:
        hresult = DLL.call(export, *native)
        if hresult < 0:
            call.failed = win32_code(hresult)
    if hresult < 0:
        raise call_error(export, win32_code(hresult), path)
