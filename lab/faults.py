# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: makes one request of a node fail.

``arm`` writes the fault to the node's directory, where the node finds it at
its next request. A running lab needs no restart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

#: The kinds of faults, and what each does to the request. docs/lab.md has the details.
KINDS = {
    "drop-before": "the connection breaks, and the request is not executed",
    "drop-after": "the request is executed, and the connection breaks before the answer",
    "cut": "the connection breaks in the middle of the answer",
    "delay": "the request is executed some seconds later",
    "late": "the request is executed, and answered some seconds later",
    "down": "connections break, and new ones are refused for some seconds; what runs on the node goes on",
    "die": "as down, and the node also loses its shells and what runs in them",
}

_FILE = "fault.json"


class Fault(NamedTuple):
    """A fault of one of KINDS. ``at`` counts requests after ``arm``, from 1. ``seconds`` is its length, if any."""

    kind: str
    at: int = 1
    seconds: float = 1.0


def arm(node: Path, fault: Fault | None) -> None:
    """Set the fault of the node with this directory, for one request. None removes a fault that waits."""
    unfinished = node / f"{_FILE}.new"
    unfinished.write_text(json.dumps(fault), encoding="ascii")
    unfinished.replace(node / _FILE)


class Faults:
    """The fault that waits on one node."""

    def __init__(self, node: Path) -> None:
        self._path = node / _FILE
        self._fault: Fault | None = None
        self._requests = 0
        # A fault of an earlier lab does not apply to this one.
        self._path.unlink(missing_ok=True)

    def next(self) -> Fault | None:
        """Count one request, and return its fault, if any."""
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
