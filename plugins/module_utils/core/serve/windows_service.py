# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy snapshotter as a Windows service.

The Service Control Manager starts it, without standard streams. It says that it runs when its pipe exists, and that it
has stopped as its last act. Any failure ends the process without that word: only then does Windows always restart it.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, List, Optional

from ..win32 import dispatcher

if TYPE_CHECKING:
    from .listener import Server

#: Ids of events in the event log.
STARTED, STOPPED, REFUSED, CRASHED, ENDED = 1, 2, 3, 4, 5

#: The exit code of a process that could not start or that failed.
FAILED = 1

# Seconds that a step of a start or stop can take, and between two words about it.
_HINT = 30.0
_TICK = 5.0


def main(arguments: Optional[List[str]] = None) -> int:
    """Run as a service. Return the exit code, only in a process that is not a service."""
    _replace_streams()
    process = _Process(sys.argv[1:] if arguments is None else arguments)
    if not dispatcher.run(process.run):
        sys.stderr.write("This program is a service of Windows: start it with services.msc or sc.exe\n")
        return 2
    # Windows lets the main thread go on before the last call of the other thread has returned.
    process.ended.wait()
    # Without finalising Python, which could wait for a call that hangs.
    os._exit(0)


class _Process:
    """The process of a service, from the first call of the manager to the end."""

    def __init__(self, arguments: List[str]) -> None:
        self.ended = threading.Event()
        self._arguments = arguments
        self._server: Optional[Server] = None
        self._is_stopping = False
        self._name = ""
        self._marker = ""

    def run(self) -> None:
        """Be the main function of the service."""
        try:
            control = dispatcher.Control("", self._stop)
            control.pending(_HINT)
            threading.Thread(target=self._tick, args=(control,), name="checkpoints", daemon=True).start()
            self._serve(control)
            control.stopped()
        except BaseException as error:  # noqa: BLE001 - each failure has to end the process
            self._fail(error)
        self.ended.set()

    def _serve(self, control: dispatcher.Control) -> None:
        import logging

        from . import logs
        from .main import open_server, parse

        options = parse(self._arguments)
        self._name = options.service
        logs.start(options.log, options.log_level)
        self._mark(options.log)
        self._refuse_unsafe()
        server = self._server = open_server(options)
        if self._is_stopping:
            server.stop()
        control.running()
        self._report(STARTED, f"The proxy snapshotter {options.version} serves {options.root} on {options.address}.")
        server.serve()
        logging.getLogger(__name__).info("stopped")
        self._report(STOPPED, "The proxy snapshotter has stopped.")
        os.unlink(self._marker)

    def _stop(self) -> None:
        self._is_stopping = True
        if self._server is not None:
            self._server.stop()

    def _tick(self, control: dispatcher.Control) -> None:
        while not self.ended.wait(_TICK):
            control.pending(_HINT)

    def _mark(self, log: str) -> None:
        """Write down that the service runs. What an earlier process has written says that it did not stop."""
        self._marker = os.path.join(os.path.dirname(log), "running")
        if os.path.lexists(self._marker):
            self._report(ENDED, f"The proxy snapshotter did not stop the last time: it was ended or failed. See {log}.")
        with open(self._marker, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")

    def _refuse_unsafe(self) -> None:
        from ..proxy import versions

        # Set by the importer of the payload; the directory of a checkout is its user's own affair.
        path = getattr(globals().get("__loader__"), "path", "")
        if path.endswith(versions.CORE):
            versions.refuse_unsafe(os.path.dirname(path))

    def _fail(self, error: BaseException) -> None:
        """Log why the service ends, and end the process without the word that it has stopped."""
        try:
            import logging

            from ..errors import SnapshotterError

            if isinstance(error, SnapshotterError):
                logging.getLogger(__name__).error("cannot start: %s", error)
                self._report(REFUSED, f"The proxy snapshotter cannot start: {error}")
            else:
                logging.getLogger(__name__).error("the service failed", exc_info=error)
                self._report(CRASHED, f"The proxy snapshotter failed: {type(error).__name__}: {error}")
            logging.shutdown()
            if self._server is None and self._marker:
                # It never served, so there is nothing that the next start has to know.
                os.unlink(self._marker)
        except BaseException:  # noqa: BLE001 - nothing is left that could report it
            os._exit(FAILED)
        os._exit(FAILED)

    def _report(self, event: int, text: str) -> None:
        import logging

        from ..errors import SnapshotterError
        from ..win32 import eventlog

        kinds = {STARTED: eventlog.INFORMATION, STOPPED: eventlog.INFORMATION, ENDED: eventlog.WARNING}
        try:
            eventlog.report(self._name, kinds.get(event, eventlog.ERROR), event, text)
        except SnapshotterError as error:
            logging.getLogger(__name__).warning("cannot write to the event log: %s", error)


def _replace_streams() -> None:
    """Open the standard streams that a service does not have: printing to None fails."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream: IO[Any] = open(os.devnull, mode, encoding="utf-8")
            setattr(sys, name, stream)
