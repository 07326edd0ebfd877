# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of the service: a file that is rotated, or standard error."""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
import sys
import threading
import time
from typing import Any, Optional

from ..files import make_directories
from ..layers import protection

#: Bytes of a log file, and how many older ones are kept.
MAX_BYTES = 10 << 20
BACKUPS = 5

#: Levels by their names in the option ``log_level``.
LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}

_FORMAT = "%(asctime)s %(levelname)s %(message)s"

# Seconds between two attempts to rotate a file that another program has open.
_PAUSE = 60.0


class RotatedFile(logging.handlers.RotatingFileHandler):
    """A log file that goes on to grow while another program has it open.

    Windows refuses to rename such a file, for example one that a collector of logs reads.
    """

    def __init__(self, path: str) -> None:
        self._next_attempt = 0.0
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - logging calls it by this name
        return time.monotonic() >= self._next_attempt and bool(super().shouldRollover(record))

    def doRollover(self) -> None:  # noqa: N802 - logging calls it by this name
        try:
            super().doRollover()
        except OSError:
            self._next_attempt = time.monotonic() + _PAUSE
            if self.stream is None:
                self.stream = self._open()


def start(path: str = "", level: str = "info") -> None:
    """Log to a file in a protected directory, which is created; without a path, to standard error. Raises OSError.

    What ends a thread or the process goes into the log, and what ends Python itself into ``crash.log`` beside it.
    """
    handler: logging.Handler
    if path:
        directory = os.path.dirname(path)
        make_directories(directory)
        protection.protect(directory)
        handler = RotatedFile(path)
        # It stays open as long as the process lives.
        faulthandler.enable(open(os.path.join(directory, "crash.log"), "a", encoding="utf-8"))
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
    threading.excepthook = _log_thread


def _log_thread(failure: Any) -> None:
    thread: Optional[threading.Thread] = failure.thread
    logging.getLogger(__name__).error(
        "the thread %s ended by a defect of the service",
        thread.name if thread else "of an ended object",
        exc_info=(failure.exc_type, failure.exc_value, failure.exc_traceback),
    )
