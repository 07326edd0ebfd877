# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""A manager of one service for hosts that are not Windows: lab nodes, and tests.

It runs the program as a detached process, and keeps what was installed in a file. On a lab node, its files are in
``<drives>/services``, elsewhere in the directory of the service's files; only their owner can read them::

    <name>.json    the program and its arguments
    <name>.lock    locked while the service runs; it has the id of the process, and "running" when it serves

It does not model what only Windows has: accounts, the start with the host, restarts after a failure, dependencies
between services, the time limits of the Service Control Manager, and the event log. A lab starts and ends the services
of its nodes itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from typing import Callable, Iterator, List, Optional, Tuple

from ..errors import FailedPrecondition, Unavailable
from ..files import EMULATED_DRIVES, make_directories, os_error, sync_directory
from ..layers import protection
from ..lock import FileLock
from .manager import START_TIME, STOP_TIME, State

#: The directory of the records on a lab node, beside its drives.
DIRECTORY = "services"

_VARIABLE = "WCOW_EMULATED_SERVICE_DIRECTORY"
_RUNNING = "running"
_PAUSE = 0.02


class EmulatedManager:
    """The service with a name. ``home`` is the directory of its files."""

    module = "core.serve.emulated_service"

    def __init__(self, name: str, home: str) -> None:
        drives = os.environ.get(EMULATED_DRIVES)
        self._name = name
        self._directory = os.path.join(os.path.abspath(drives), DIRECTORY) if drives else home + ".service"
        self._record = os.path.join(self._directory, f"{name}.json")
        self._lock = _lock_path(self._directory, name)
        self._child: Optional[subprocess.Popen[bytes]] = None

    def find(self) -> Optional[State]:
        try:
            with open(self._record, encoding="utf-8") as file:
                arguments: List[str] = json.load(file)["arguments"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError) as error:
            raise FailedPrecondition(f"cannot read {self._record}: {error}; remove the file") from error
        process, is_running = self._process()
        return State(arguments, is_running, process, [])

    def install(self, arguments: List[str]) -> None:
        try:
            make_directories(self._directory)
            protection.protect(self._directory)
            unfinished = self._record + ".new"
            with open(unfinished, "w", encoding="utf-8") as file:
                json.dump({"arguments": arguments}, file)
            os.replace(unfinished, self._record)
            sync_directory(self._directory)
        except OSError as error:
            raise os_error(error, f"cannot write {self._record}") from error

    def start(self) -> int:
        process, is_running = self._process()
        if is_running:
            return process
        found = self.find()
        if found is None:
            raise FailedPrecondition(f"there is no service {self._name}")
        # As on Windows, a service does not see the environment of the task that starts it.
        kept = {EMULATED_DRIVES: os.environ[EMULATED_DRIVES]} if EMULATED_DRIVES in os.environ else {}
        try:
            # The core has no AnsibleModule, whose run_command this rule wants.
            self._child = subprocess.Popen(  # pylint: disable=ansible-bad-function
                found.arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**kept, "PATH": os.defpath, _VARIABLE: self._directory},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise os_error(error, f"cannot start {found.arguments[0]}") from error
        deadline = time.monotonic() + START_TIME
        while True:
            process, is_running = self._process()
            if is_running:
                return process
            code = self._child.poll()
            if code is not None:
                raise Unavailable(f"the service {self._name} ended while it started, with the exit code {code}")
            if time.monotonic() > deadline:
                raise Unavailable(f"the service {self._name} does not run after {START_TIME:.0f} seconds")
            time.sleep(_PAUSE)

    def stop(self) -> None:
        deadline = time.monotonic() + STOP_TIME
        is_told = False
        while True:
            process, _is_running = self._process()
            if not process:
                break
            is_told = is_told or self._tell_to_stop(process)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the service {self._name} (process {process}) does not stop within {STOP_TIME:.0f} seconds"
                )
            time.sleep(_PAUSE)
        if self._child is not None:
            self._child.wait()
            self._child = None

    def remove(self) -> None:
        self.stop()
        for path in (self._record, self._lock):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(self._directory)

    def _process(self) -> Tuple[int, bool]:
        """Return the process of the service, 0 if there is none, and whether it runs.

        Only the service itself locks the file and writes into it, so while it is locked, this is its process.
        """
        if not os.path.exists(self._lock):
            return 0, False
        lock = FileLock(self._lock)
        if lock.acquire():
            lock.release()
            return 0, False
        with open(self._lock, encoding="ascii") as file:
            number, _space, state = file.read().partition(" ")
        # A process that has just locked the file has not written yet.
        return (int(number), state == _RUNNING) if number.isdigit() else (0, False)

    def _tell_to_stop(self, process: int) -> bool:
        """Send SIGTERM to the process of the service, and to no other. Return False if it has ended."""
        try:
            # From here on, the number cannot become that of another process without notice.
            handle = os.pidfd_open(process) if hasattr(os, "pidfd_open") else -1
        except ProcessLookupError:
            return False
        try:
            if self._process()[0] != process:
                return False
            if handle >= 0 and hasattr(signal, "pidfd_send_signal"):
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            else:
                os.kill(process, signal.SIGTERM)
        except ProcessLookupError:
            return False
        finally:
            if handle >= 0:
                os.close(handle)
        return True


def recorded(directory: str) -> List[str]:
    """Return the names of the services whose records are in a directory."""
    return sorted(name.removesuffix(".json") for name in os.listdir(directory) if name.endswith(".json"))


@contextlib.contextmanager
def serving(name: str) -> Iterator[Callable[[], None]]:
    """Be the process of the service ``name`` in a ``with`` block, which gets a function that says that it serves.

    Raises FailedPrecondition if another process is it, or if no manager started this one.
    """
    directory = os.environ.get(_VARIABLE)
    if not directory:
        raise FailedPrecondition("this program is started by the module proxy_snapshotter, not by hand")
    path = _lock_path(directory, name)
    lock = FileLock(path)
    if not lock.acquire():
        raise FailedPrecondition(f"another process is the service {name}; stop it first")

    def write(state: str) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()} {state}")

    try:
        write("starting")
        yield lambda: write(_RUNNING)
    finally:
        lock.release()


def is_known() -> bool:
    """Return True if the directory of the manager that started this process exists."""
    return os.path.isdir(os.environ.get(_VARIABLE, ""))


def _lock_path(directory: str, name: str) -> str:
    return os.path.join(directory, f"{name}.lock")
