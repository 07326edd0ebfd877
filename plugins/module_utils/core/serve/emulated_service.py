# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy snapshotter as a service of a lab node: what ``proxy.emulated`` starts.

While the process lives, it holds the lock of its service, and its id is in the lock file. It also ends when that file
is deleted, as with the whole directory of a lab that did not end well.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import List, Optional

from ..errors import SnapshotterError
from ..proxy import emulated, versions
from . import logs
from .listener import Server
from .main import open_server, parse, stop_at_signals


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve until SIGTERM. Return the exit code."""
    options = parse(arguments)
    logs.start(options.log, options.log_level)
    log = logging.getLogger(__name__)
    try:
        path = getattr(globals().get("__loader__"), "path", "")
        if path.endswith(versions.CORE):
            versions.refuse_unsafe(os.path.dirname(path))
        with emulated.serving(options.service) as say_running:
            server = open_server(options)
            stop_at_signals(server)
            threading.Thread(target=_watch, args=(server,), name="watch", daemon=True).start()
            say_running()
            server.serve()
            log.info("stopped")
            logging.shutdown()
            # Without waiting for the threads of calls that hang. The lock ends with the process.
            os._exit(0)
    except SnapshotterError as error:
        log.error("cannot start: %s", error)
        return 1


def _watch(server: Server) -> None:
    while emulated.is_known():
        time.sleep(1.0)
    server.stop()
