# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m lab.containerd NODE serve``: the process of a simulated containerd. ``NODE`` is the directory of a node.

It serves until its standard input ends. Another word than ``serve`` is a kind of damage, which is done at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from . import damage, records, sample
from .node import NodeContainerd
from .server import Server
from .simulation import Simulation


def main(directory: Path, what: str) -> int:
    """Serve or damage the containerd of a node. Returns 0, or 1 on failure."""
    node = NodeContainerd(directory)
    try:
        simulation = Simulation(node.root)
        if what == "serve":
            if records.find(simulation.store.meta.root, "v1", sample.NAMESPACE) is None:
                sample.fill(simulation)
            server = Server(simulation, node.socket)
            sys.stdin.read()
            server.stop()
        else:
            print(damage.damage(simulation, what))
            simulation.store.close()
    except (OSError, damage.NothingToDamage) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
