# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of Windows that runs the proxy snapshotter."""

from __future__ import annotations

import time
from typing import List, Optional

from ..errors import Unavailable
from ..files import os_error
from ..formats import commandline
from ..win32 import eventlog, services
from ..win32.errors import message
from .manager import DESCRIPTION, NAME, START_TIME, STOP_TIME, TITLE, State

#: Windows restarts the service one, five and thirty seconds after a failure. A day without one ends the count.
RECOVERY = services.Recovery((1000, 5000, 30000), 86400, True)

_PAUSE = 0.05
_SERVICE_NEVER_STARTED = 1077


class WindowsManager:
    """The service ``wcow-snapshotter`` of the Service Control Manager.

    It starts with Windows, and not later than other services: kubelet starts containers as soon as it runs. containerd
    does not depend on it, because Windows would then refuse to stop it, for example for an upgrade.
    """

    module = "core.serve.windows_service"

    def find(self) -> Optional[State]:
        found = services.find_service(NAME)
        if found is None:
            return None
        settings: List[str] = []
        if found.start_type != services.SERVICE_AUTO_START:
            settings.append("it does not start with Windows")
        if services.get_recovery(NAME) != RECOVERY:
            settings.append("Windows does not restart it after a failure as it should")
        try:
            if not eventlog.is_registered(NAME):
                settings.append("the event log does not know it")
        except OSError as error:
            raise os_error(error, "cannot read the registry of the event log") from error
        return State(commandline.split(found.command_line), found.is_running, found.process, settings)

    def install(self, arguments: List[str]) -> None:
        command_line = commandline.join(arguments)
        if services.find_service(NAME) is None:
            services.create_service(NAME, TITLE, command_line)
        else:
            services.change_service(NAME, TITLE, command_line)
        services.set_description(NAME, DESCRIPTION)
        services.set_recovery(NAME, RECOVERY)
        try:
            eventlog.register(NAME)
        except OSError as error:
            raise os_error(error, "cannot register the service in the event log") from error

    def start(self) -> int:
        services.start_service(NAME)
        found = self._wait_for(services.SERVICE_RUNNING, START_TIME)
        if found is not None and found.is_running:
            return found.process
        if found is not None and found.state == services.SERVICE_STOPPED:
            reason = message(found.exit_code)
            raise Unavailable(f"the service {NAME} ended while it started: {reason} ({found.exit_code})")
        raise Unavailable(f"the service {NAME} does not run after {START_TIME:.0f} seconds; see its log")

    def stop(self) -> None:
        deadline = time.monotonic() + STOP_TIME
        while not services.stop_service(NAME) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        found = self._wait_for(services.SERVICE_STOPPED, deadline - time.monotonic())
        if found is not None and found.state != services.SERVICE_STOPPED:
            raise Unavailable(
                f"the service {NAME} (process {found.process}) does not stop within {STOP_TIME:.0f} seconds; see its "
                "log, and run the task again"
            )

    def remove(self) -> None:
        self.stop()
        services.delete_service(NAME)
        deadline = time.monotonic() + STOP_TIME
        while services.find_service(NAME) is not None:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the service {NAME} is deleted when no program has it open any more: close services.msc, and run "
                    "the task again"
                )
            time.sleep(_PAUSE)
        try:
            eventlog.unregister(NAME)
        except OSError as error:
            raise os_error(error, "cannot remove the service from the event log") from error

    @staticmethod
    def _wait_for(state: int, seconds: float) -> Optional[services.Service]:
        """Return the service when it has this state, has stopped, or after these seconds; None if there is none."""
        deadline = time.monotonic() + seconds
        while True:
            found = services.find_service(NAME)
            if found is None or found.state == state or time.monotonic() > deadline:
                return found
            if found.state == services.SERVICE_STOPPED and found.exit_code != _SERVICE_NEVER_STARTED:
                return found
            time.sleep(_PAUSE)
