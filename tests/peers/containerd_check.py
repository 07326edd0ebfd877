# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the check of a containerd's store in its own process, which a failpoint can kill.

As a program, this module is that process: it reads the options of the check from its argument, and prints the result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Dict, List, NamedTuple, Union

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.containerd import store_check as check_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.discovery import Options
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.node import ContainerdNode
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.bolt import Changing
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.dry_run import DryRun
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.tests.peers.containerd import SNAPSHOTTER, Containerd

#: Seconds for one check, on a machine that is busy.
TIMEOUT = 120.0


class Checked(NamedTuple):
    """The result of a check. ``was_killed``: the process ended at a failpoint, and there is no result."""

    was_killed: bool
    changed: bool
    result: Dict[str, Any]

    @property
    def findings(self) -> List[Dict[str, Any]]:
        return list(self.result["findings"])

    def actions(self) -> Dict[str, str]:
        """Return the action of each finding by code. A code with several findings has the last one."""
        return {finding["code"]: finding["action"] for finding in self.findings}


class Place(NamedTuple):
    """Where a containerd is: what ``check`` needs to know of a daemon, also of one of another process."""

    address: str
    root: str


def check(daemon: Union[Containerd, Place], *, pause: float = 0.3, check_mode: bool = False, **options: Any) -> Checked:
    """Check the store of a daemon in this process. ``pause`` has the seconds between the two readings."""
    layers = DryRun(EmulatedLayers()) if check_mode else EmulatedLayers()
    node = ContainerdNode(Options(daemon.address, daemon.root, SNAPSHOTTER), "", layers, dry_run=check_mode)
    check_module.PAUSE = pause
    changed, result = check_module.check_store(node, quick=True, **options)
    return Checked(False, changed, result)


class CheckProcess:
    """A check in its own process. ``environment`` can name a failpoint."""

    def __init__(self, daemon: Containerd, environment: Dict[str, str], **options: Any) -> None:
        place = {"address": daemon.address, "root": daemon.root}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps([place, options])],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> Checked:
        """Return the result. Raises RuntimeError if the process failed."""
        output, errors = self._process.communicate(timeout=TIMEOUT)
        if self._process.returncode < 0:
            return Checked(True, False, {})
        if self._process.returncode:
            raise RuntimeError(errors)
        changed, result = json.loads(output)
        return Checked(False, changed, result)


def _main() -> None:
    place, options = json.loads(sys.argv[1])
    end = time.monotonic() + TIMEOUT / 2
    while True:
        try:
            checked = check(Place(**place), **options)
            break
        except Changing:
            # The databases of these tests are in memory, where commits hardly wait. On a busy machine, none of the
            # pauses between them may be long enough.
            if time.monotonic() > end:
                raise
    print(json.dumps([checked.changed, checked.result]))


if __name__ == "__main__":
    _main()
