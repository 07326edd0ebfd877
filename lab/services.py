# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start and end the services that tasks have installed on a lab node: ``python -m lab.services DIRECTORY start|end``.

A node keeps its services (``proxy.emulated`` of the core) beside its drives, in the directory ``services``. They run as
long as the lab, and run again when it is up again, as after a restart of a host.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
#: Where Python finds the collection under its own name.
_COLLECTION = _CHECKOUT / ".cache" / "dev"
#: The directory of the records.
_RECORDS = "services"


async def switch(node: Path, what: str) -> None:
    """``start`` or ``end`` the services of the node in this directory. A service that fails does not stop the lab."""
    if not any((node / _RECORDS).glob("*.json")):
        return
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lab.services",
        str(node),
        what,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(_COLLECTION), "WCOW_EMULATED_DRIVES": str(node)},
        cwd=_CHECKOUT,
    )
    await process.wait()


def main(directory: str, what: str) -> int:
    """Do it, in a process that has the core and the environment of the node. Return the exit code."""
    from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError
    from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import emulated

    code = 0
    for name in emulated.recorded(os.path.join(directory, _RECORDS)):
        manager = emulated.EmulatedManager(name, "")
        try:
            if what == "start":
                manager.start()
            else:
                manager.stop()
        except SnapshotterError as error:
            print(f"cannot {what} the service {name} of {directory}: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
