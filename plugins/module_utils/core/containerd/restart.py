# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart the service of containerd, with the services that depend on it, such as kubelet."""

from __future__ import annotations

import os
import time
from typing import List

from ..errors import NotImplementedHere, Unavailable

#: Seconds in which one service has to stop or to start.
TIME = 120.0

_PAUSE = 0.1


def restart(service: str) -> List[str]:
    """Restart a service of Windows. Return the names of the services that were stopped and started, in this order.

    Running containers go on. Raises NotImplementedHere on other systems, Unavailable if a service does not stop or
    start in time, and Win32Error.
    """
    if os.name != "nt":
        raise NotImplementedHere(f"only Windows has the service {service}; restart it in another way")
    from ..win32 import services

    # Windows refuses to stop a service on which others depend that run.
    names = [*services.list_dependents(service), service]
    for name in names:
        deadline = time.monotonic() + TIME
        while not services.stop_service(name) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        _wait(name, services.SERVICE_STOPPED, "stop")
    for name in reversed(names):
        services.start_service(name)
        _wait(name, services.SERVICE_RUNNING, "start")
    return names


def _wait(name: str, state: int, what: str) -> None:
    from ..win32 import services

    deadline = time.monotonic() + TIME
    while True:
        found = services.find_service(name)
        if found is not None and found.state == state:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"the service {name} does not {what} within {TIME:.0f} seconds; {what} it by hand")
        time.sleep(_PAUSE)
