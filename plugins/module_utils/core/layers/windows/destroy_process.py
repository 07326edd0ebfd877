# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DestroyLayer in a process of its own.

vmcompute.dll ends its process with exception 0xC0000420 if a layer is
destroyed while a layer over it is mounted (hcsshim#961). So ``destroy`` sends
the source of this module to another Python process, which runs ``main``, and
only that process dies. The source must work on its own: on a node, the core is
in memory, and the other process cannot import it.
"""

import sys
from typing import Any

# Longer than it takes to delete any layer; a base layer has about 200,000 files.
_SECONDS = 1800


def destroy(directory: str) -> int:
    """Call DestroyLayer for a layer directory; return its HRESULT, or the exception code that ended the process.

    Raises OSError if the other process cannot be started or fails before the
    call, TimeoutError if it does not end.
    """
    import subprocess

    loader: Any = __spec__.loader  # type: ignore[name-defined, unused-ignore]
    source = loader.get_source(__name__)
    try:
        # Isolated, with the layer directory as the only argument; the source goes through standard input. The linter of
        # Ansible wants run_command of AnsibleModule, which the core does not know.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
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
    # Exceptions are NTSTATUS codes; those of errors have the top bit set.
    if done.returncode & 0x80000000:
        return done.returncode
    raise ChildProcessError(
        f"the process that calls DestroyLayer ended with {done.returncode}: {done.stderr.strip()[-500:]}"
    )


def main() -> None:
    """Destroy the layer on the command line and print the HRESULT."""
    import ctypes

    class DriverInfo(ctypes.Structure):
        # hcsshim internal/wclayer/layerutils.go: flavour 1 is the filter driver, and the home directory is empty.
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
