# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Find the proxy snapshotter of a store, or of containerd's configuration, and ask it how it does.

The service itself says where it serves: its command line, which only administrators can change, has the address and
the root of its store. A proxy snapshotter that runs in the foreground is not found that way. In containerd's
configuration, a proxy plugin is ours if it answers our health call, or if it has the address of our service.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from ..errors import NotImplementedHere, SnapshotterError, Unavailable
from .installed import find_options
from .manager import NAME

#: The pipe on which it serves, unless a task chose another one.
PIPE = r"\\.\pipe\wcow-snapshotter"

#: Seconds in which an answer is expected. The call waits for no other call.
TIMEOUT = 1.0

# Seconds between two questions to a service that is just being restarted.
_PAUSE = 0.1

_SNAPSHOT_PLUGINS = ("snapshot", "io.containerd.snapshotter.v1")


class Served(NamedTuple):
    """A proxy snapshotter that should run.

    ``snapshotter`` is its name in containerd's configuration, empty if it was found by its service. ``health`` is what
    it answers (``messages.HEALTH``), None if it does not answer. Then ``problem`` says why.
    """

    address: str
    snapshotter: str
    health: Optional[Dict[str, Any]]
    problem: str

    def sentence(self) -> str:
        """Return what is wrong, as a sentence without a period; empty if it answers."""
        name = f" {self.snapshotter}" if self.snapshotter else ""
        return self.problem and f"the proxy snapshotter{name} does not answer at {self.address}: {self.problem}"


class NeedsPayload(NotImplementedHere):
    """The payload of this task cannot ask a service. The controller sends the one in the details, and asks again."""


def find_of_store(root: str, native: Callable[[str], str], warnings: List[str]) -> Optional[Served]:
    """Return the proxy snapshotter whose service has its store at the native path ``root``; None if there is none.

    ``native`` is that of the layer store. ``warnings`` gets a sentence if it cannot be found out. Takes ``TIMEOUT`` at
    most. Raises NeedsPayload.
    """
    try:
        options = find_options()
        if not options or not _is_same_path(native(options.get("--root", "")), root):
            return None
    except SnapshotterError as error:
        warnings.append(f"it is not known whether a service serves the store: {error.message}")
        return None
    return _ask(options.get("--address", ""), "", TIMEOUT)


def find_of_plugins(plugins: Mapping[str, Any], snapshotter: str, warnings: List[str]) -> Optional[Served]:
    """Return ours of the proxy plugins of a configuration (``containerd.configuration.ProxyPlugin`` by name).

    ``snapshotter`` is looked at first. None if none is ours. ``warnings`` and the time are as in ``find_of_store``.
    """
    named = sorted((name for name in plugins if is_snapshotter(plugins[name])), key=lambda name: name != snapshotter)
    if not named:
        return None
    address = PIPE
    try:
        address = find_options().get("--address", PIPE)
    except SnapshotterError as error:
        warnings.append(f"it is not known whether a proxy plugin is one of this collection: {error.message}")
    for name in named:
        is_ours = is_same_address(plugins[name].address, address)
        found = _ask(plugins[name].address, name, TIMEOUT / len(named))
        if found.health is not None or is_ours:
            return found
    return None


def is_snapshotter(plugin: Any) -> bool:
    """Return True if a proxy plugin is a snapshotter."""
    return plugin.type in _SNAPSHOT_PLUGINS


def is_same_address(first: str, second: str) -> bool:
    """Return True if two addresses are the same pipe or socket."""
    from ..containerd.connection import pipe_path

    one, other = (pipe_path(address).lower() or address.removeprefix("unix://") for address in (first, second))
    return one == other


def _ask(address: str, snapshotter: str, timeout: float) -> Served:
    try:
        from ..rpc.transport import NotListening
        from . import health
    except ImportError:
        raise NeedsPayload(
            f"the service {NAME} serves this store; the task needs more code to ask it", payload="service"
        ) from None
    deadline = time.monotonic() + timeout
    while True:
        try:
            return Served(address, snapshotter, health.ask(address, max(_PAUSE, deadline - time.monotonic())), "")
        except SnapshotterError as error:
            problem = error.message
            if isinstance(error, NotListening):
                problem = f"no process serves there; see whether the service {NAME} runs"
            # A restart takes a part of a second.
            if not isinstance(error, Unavailable) or time.monotonic() + 2 * _PAUSE > deadline:
                return Served(address, snapshotter, None, problem)
        time.sleep(_PAUSE)


def _is_same_path(first: str, second: str) -> bool:
    return os.path.normcase(os.path.realpath(first)) == os.path.normcase(os.path.realpath(second))
