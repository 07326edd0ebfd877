# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""INTERFACE of what runs the proxy snapshotter as a service."""

from __future__ import annotations

from typing import List, NamedTuple, Optional, Protocol

#: The name of the service, also that of its source in the event log.
NAME = "wcow-snapshotter"

TITLE = "wcow.snapshotter proxy snapshotter"
DESCRIPTION = (
    "Keeps the snapshots of containerd in a store of the Ansible collection wcow.snapshotter. Without this service, "
    "containerd starts no new containers that use it."
)

#: Seconds in which the service has to start. Windows itself allows a service 30 seconds for its first word.
START_TIME = 60.0
#: Seconds in which the service has to stop: running calls have 30 seconds.
STOP_TIME = 60.0


class State(NamedTuple):
    """The service on a node: the program with its arguments, whether it runs, and its process (0 if it has none).

    ``settings`` are sentences about what differs from the settings of the collection: start type, recovery, event log.
    """

    arguments: List[str]
    is_running: bool
    process: int
    settings: List[str]


class ServiceManager(Protocol):
    """Runs one service. Each method raises SnapshotterError."""

    #: The module of the core that is the service.
    module: str

    def find(self) -> Optional[State]:
        """Return the service; None if there is none."""

    def install(self, arguments: List[str]) -> None:
        """Create the service, or change it: program and arguments, and all settings. Valid from its next start."""

    def start(self) -> int:
        """Start the service. Return its process when it runs. Raises Unavailable with the reason if it ends."""

    def stop(self) -> None:
        """Stop the service, and wait for its end. Nothing happens if it does not run. Raises Unavailable."""

    def remove(self) -> None:
        """Stop the service and remove it."""
