# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: what is to go wrong with one request of a node.

Whoever wants a fault leaves it in the node's directory (``arm``), where the
node finds it with its next request: a lab that runs needs no restart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

#: Kinds of faults, and what each does to the request. docs/lab.md says more.
KINDS = {
    "drop-before": "the connection breaks, and the request is not executed",
    "drop-after": "the request is executed, and the connection breaks before the answer",
    "cut": "the connection breaks in the middle of the answer",
    "delay": "the request is executed some seconds later",
    "late": "the request is executed, and answered some seconds later",
    "down": "connections break, and for some seconds all are refused; what runs on the node goes on",
    "die": "as down, and the node loses its shells and what runs in them",
}

_FILE = "fault.json"


class Fault(NamedTuple):
    """One of KINDS, for the request number ``at`` (from 1) after it was asked for; ``seconds`` where it takes time."""

    kind: str
    at: int = 1
    seconds: float = 1.0


def arm(node: Path, fault: Fault | None) -> None:
    """Ask the node whose directory this is for a fault, once; None takes back what was asked for before."""
    draft = node / f"{_FILE}.new"
    draft.write_text(json.dumps(fault), encoding="ascii")
    draft.replace(node / _FILE)


class Faults:
    """What one node was asked for, from the node's side."""

    def __init__(self, node: Path) -> None:
        self._path = node / _FILE
        self._fault: Fault | None = None
        self._requests = 0
        # What a former lab was asked for is of no concern to this one.
        self._path.unlink(missing_ok=True)

    def next(self) -> Fault | None:
        """Count one request; the fault that is to befall it, if one is."""
        try:
            asked = json.loads(self._path.read_text(encoding="ascii"))
        except FileNotFoundError:
            pass
        else:
            self._path.unlink()
            self._fault = Fault(*asked) if asked else None
            self._requests = 0
        self._requests += 1
        if self._fault is None or self._fault.at != self._requests:
            return None
        fault, self._fault = self._fault, None
        return fault
