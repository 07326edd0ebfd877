# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the proxy snapshotter: containerd keeps its snapshots in a store of the collection.

containerd loads it as a proxy plugin (docs of containerd, PLUGINS.md). ``service`` answers the calls, ``removals``
destroys layers after the answer, and ``listener`` has the connections.

In the directory that has the package ``core``::

    python3 -m core.serve.main --address /run/wcow.sock --root /var/lib/wcow --layers emulated

It serves until SIGTERM, SIGINT or SIGBREAK, and logs to standard error. The exit code is 0, or 1 if it could not start.
``windows_service`` and ``emulated_service`` run the same as a service, with a log file.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from typing import List, Optional

from ..containerd.connection import pipe_path
from ..errors import SnapshotterError
from ..files import make_directories, os_error
from ..layers import protection
from ..layers.emulated import drives
from . import logs
from .listener import Listener, Server, UnixListener
from .service import Service
from .store import LAYERS, open_store

# Objects made between two runs of the collector; a list makes tens of thousands, none of which is garbage.
_COLLECTOR_THRESHOLD = 100_000

# Seconds that a thread may compute while others wait. With the 5 ms of Python, a client whose calls keep the threads
# busy makes another one wait several times as long.
_SWITCH_INTERVAL = 0.001

_log = logging.getLogger(__name__)


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve until a signal. Return the exit code."""
    options = parse(arguments)
    logs.start(options.log, options.log_level)
    try:
        server = open_server(options)
    except SnapshotterError as error:
        _log.error("cannot start: %s", error)
        return 1
    stop_at_signals(server)
    if not server.serve():
        # The interpreter would wait for the threads of calls that hang.
        logging.shutdown()
        os._exit(0)
    return 0


def parse(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    """Return the options of the program, those of this process by default. Ends the process if they are wrong."""
    parser = argparse.ArgumentParser(prog="core.serve.main", description="Serve a store to containerd.")
    parser.add_argument("--address", required=True, help="the named pipe, or the absolute path of the socket")
    parser.add_argument("--root", required=True, help="the root of the store")
    parser.add_argument("--layers", default="auto", choices=LAYERS)
    parser.add_argument("--version", default="", help="the version that the health call reports")
    parser.add_argument("--log", default="", help="the log file; standard error without it")
    parser.add_argument("--log-level", default="info", choices=sorted(logs.LEVELS))
    parser.add_argument("--service", default="", help="the name of the service that runs this")
    return parser.parse_args(arguments)


def open_server(options: argparse.Namespace) -> Server:
    """Return a server that listens. Raises SnapshotterError if the store or the address cannot be used."""
    gc.set_threshold(_COLLECTOR_THRESHOLD)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    # What is created for other users gets its mode explicitly.
    os.umask(0o077)
    _use_volume_of(options)
    service = Service(lambda later: open_store(options.root, options.layers, later), options.version)
    server = Server(_listen(options.address), service)
    _log.info("serve the store %s on %s, version %s", options.root, options.address, options.version or "unknown")
    return server


def stop_at_signals(server: Server) -> None:
    """Stop a server when the process gets a signal to end."""
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: server.stop())


def _use_volume_of(options: argparse.Namespace) -> None:
    """Put temporary files on the volume of the store: Windows extracts layers there, and would copy them across.

    vmcompute.dll reads TEMP and TMP of the process that calls it.
    """
    opened = open_store(options.root, options.layers, lambda _layer_id: None)
    path = opened.store.directories.transport
    has_store = opened.exists()
    opened.close()
    if not has_store:
        # The first call creates it. The module proxy_snapshotter has done so before.
        return
    try:
        if not protection.link_fault(path):
            make_directories(path)
            protection.protect(path)
            os.environ["TEMP"] = os.environ["TMP"] = path
    except OSError as error:
        raise os_error(error, f"cannot make {path}") from error


def _listen(address: str) -> Listener:
    path = pipe_path(address)
    socket = drives.pipe_to_native(path.rpartition("\\")[2]) if path else None
    if socket is not None:
        os.makedirs(os.path.dirname(socket), 0o700, exist_ok=True)
        return UnixListener(socket)
    if path:
        from ..win32.pipeserver import PipeListener

        return PipeListener(path)
    return UnixListener(address)


if __name__ == "__main__":
    raise SystemExit(main())
