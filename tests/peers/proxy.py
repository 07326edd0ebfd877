# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the proxy snapshotter as a process, for tests with a real containerd."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Callable, List

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.bind import BindLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

CORE_PARENT = pathlib.Path(__file__).parents[2] / "plugins" / "module_utils"

#: Seconds that a busy machine may need.
PATIENCE = 60.0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class Service:
    """The proxy snapshotter in a process of its own. ``root`` is that of its store; by default, it makes one."""

    def __init__(self, directory: str, root: str = "") -> None:
        self.address = os.path.join(directory, "proxy.sock")
        self.root = root or os.path.join(directory, "store")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "core.serve.main", "--address", self.address, "--root", self.root]
        self.process = subprocess.Popen(
            [*command, "--layers", "bind"],
            env={**os.environ, "PYTHONPATH": str(CORE_PARENT), "PYTHONDONTWRITEBYTECODE": "1"},
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        assert b"serve the store" in self.process.stderr.readline()
        # pytest shows the log of a test that fails.
        threading.Thread(
            target=sys.stderr.writelines, args=(map(bytes.decode, self.process.stderr),), daemon=True
        ).start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def open(self) -> Snapshotter:
        """Open the store with the layers that containerd on Linux can mount."""
        return Snapshotter(self.root, BindLayers())

    def open_for_import(self) -> Snapshotter:
        """Open the store as a task does on a lab node: layer tars are those of Windows."""
        return Snapshotter(self.root, EmulatedLayers())

    def names(self) -> List[str]:
        store = self.open()
        try:
            return [info.name for info in store.walk()]
        finally:
            store.close()

    def layers(self) -> List[str]:
        return sorted(os.listdir(os.path.join(self.root, "snapshots")))
