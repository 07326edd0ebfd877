# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DestroyLayer in a process of its own.

vmcompute.dll ends the process that calls it with exception 0xC0000420 when a
layer is destroyed while one over it is mounted (hcsshim#961). ``destroy``
sends the text of this module to another Python, which runs ``main``, so that
only that one dies. The text must therefore work alone: in the payload, the
core is no package on disk that the other process could import.
"""

import sys
from typing import Any

# Longer than any deletion of a layer takes; a base has some 200,000 files.
_SECONDS = 1800


def destroy(directory: str) -> int:
    """Call DestroyLayer for a layer directory; returns its HRESULT, or the exception that ended the process.

    Raises OSError if the other process cannot be started or fails before the
    call, TimeoutError if it does not come to an end.
    """
    import subprocess

    loader: Any = __spec__.loader  # type: ignore[name-defined, unused-ignore]
    source = loader.get_source(__name__)
    try:
        # Isolated, and with this directory as the only argument; the text goes through standard input.
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-X", "utf8", "-", directory],
            input=source,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"DestroyLayer has not ended within {_SECONDS} seconds") from None
    if done.returncode == 0:
        return int(done.stdout)
    # Exceptions are NTSTATUS codes, which as errors have their top bit set.
    if done.returncode & 0x80000000:
        return done.returncode
    raise ChildProcessError(f"the process for it ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def main() -> None:
    """Destroy the layer that the command line names, and print the HRESULT."""
    import ctypes

    class DriverInfo(ctypes.Structure):
        # hcsshim internal/wclayer/layerutils.go: flavour 1 is the filter driver, the home is empty.
        _fields_ = [("flavour", ctypes.c_int32), ("home", ctypes.c_wchar_p)]

    # Files of a base layer belong to TrustedInstaller: SeBackupPrivilege, SeRestorePrivilege (ntseapi.h).
    ntdll = ctypes.WinDLL("ntdll.dll", winmode=0x800)  # type: ignore[attr-defined, unused-ignore]
    for privilege in (17, 18):
        ntdll.RtlAdjustPrivilege(privilege, True, False, ctypes.byref(ctypes.c_ubyte()))
    function = ctypes.WinDLL("vmcompute.dll", winmode=0x800).DestroyLayer  # type: ignore[attr-defined, unused-ignore]
    function.argtypes = [ctypes.POINTER(DriverInfo), ctypes.c_wchar_p]
    function.restype = ctypes.c_int32
    sys.stdout.write(str(function(DriverInfo(1, ""), sys.argv[1])))


if __name__ == "__main__":
    main()
