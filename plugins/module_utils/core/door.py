# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door of the process: one JSON request in, one line of ASCII JSON out.

A process answers one request. What is process-wide therefore belongs here and
nowhere below: the environment of the request, the garbage collector, the trace
of native calls. ``python3 -m core.door < request.json`` runs it by hand.

The package ``core`` is internal to the collection and may change at any
release. Only the request has a version (``protocol``). The package needs
CPython 3.9 or newer and the standard library, and does not know Ansible.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, List, Optional, Union

from .errors import FailedPrecondition, SnapshotterError
from .outcome import Outcome, translate
from .reply import error_entry, failure, plain, success
from .request import CHANGING, MAXIMUM_REQUEST, OPERATIONS, PROTOCOL, Request, parse_request

if TYPE_CHECKING:
    from .containerd.node import ContainerdNode
    from .snapshots import SnapshotStore

# Objects made between two runs of the collector; a walk makes tens of thousands, none of which is garbage.
_COLLECTOR_THRESHOLD = 100_000


class _Session:
    """The store of one request, opened when the first operation needs it. An operation about the node needs none."""

    def __init__(self, request: Request, attachment: Optional[BinaryIO]) -> None:
        self._request = request
        self._attachment = attachment
        self._store: Optional[Union[SnapshotStore, ContainerdNode]] = None

    def run(self, name: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
        """Return the entry of the reply for one operation."""
        try:
            changed, result = self._perform(name, arguments)
            return success(changed, result, self._take_warnings())
        except Exception as error:  # noqa: BLE001 - a defect of the core, too, must become a reply
            return failure(name, translate(error, name, self._request.root), self._take_warnings())

    def _perform(self, name: str, arguments: Dict[str, Any]) -> Outcome:
        operation = OPERATIONS[name]
        if self._store is None and (not operation.module or operation.module != operation.containerd):
            self._store = _open_store(self._request)
        module = operation.containerd if self._request.store == "containerd" else operation.module
        if not module:
            filters = arguments.pop("filters", None) or ()
            value = getattr(self._store, operation.function)(*filters, **arguments)
            return Outcome(name in CHANGING, plain(value))
        function = getattr(importlib.import_module(f".{module}", __package__), operation.function)
        if name == "stage":
            arguments["data"] = self._attachment
        outcome: Outcome = function(self._store, **arguments)
        return outcome

    def _take_warnings(self) -> List[str]:
        if self._store is None:
            return []
        warnings, self._store.warnings = self._store.warnings, []
        return warnings

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


def _open_store(request: Request) -> Union[SnapshotStore, ContainerdNode]:
    from . import stores

    if request.store == "containerd":
        return stores.open_containerd(
            request.root, request.address, request.namespace, request.snapshotter, request.layers, request.check_mode
        )
    return stores.open_store(request.root, request.layers, request.check_mode)


def handle(text: bytes, attachment: Optional[BinaryIO] = None) -> Dict[str, Any]:
    """Return the reply to one request. Raises nothing: every failure is part of the reply."""
    from . import stores

    return stores.display_paths(_answer(text, attachment))


def _answer(text: bytes, attachment: Optional[BinaryIO]) -> Dict[str, Any]:
    try:
        request = parse_request(text)
    except SnapshotterError as error:
        return {"protocol": PROTOCOL, "error": error_entry(error), "results": []}
    os.environ.update(request.environment)
    if any(request.problems):
        refused = FailedPrecondition("not run: another operation of the request is not valid, so nothing was touched")
        return {
            "protocol": PROTOCOL,
            "results": [{"ok": False, "error": error_entry(problem or refused)} for problem in request.problems],
        }
    if not request.trace:
        return {"protocol": PROTOCOL, "results": _run_all(request, attachment)}
    from .win32 import trace

    trace.start()
    results = _run_all(request, attachment)
    return {"protocol": PROTOCOL, "results": results, "trace": trace.stop()}


def _run_all(request: Request, attachment: Optional[BinaryIO]) -> List[Dict[str, Any]]:
    session = _Session(request, attachment)
    results: List[Dict[str, Any]] = []
    failed = ""
    try:
        for number, (name, arguments) in enumerate(request.operations):
            if failed and not request.go_on:
                skipped = FailedPrecondition(f"not run: {failed} failed before it")
                results.append({"ok": False, "error": error_entry(skipped)})
                continue
            result = session.run(name, arguments)
            results.append(result)
            if not result["ok"]:
                failed = f"operation {number} ({name})"
    finally:
        session.close()
    return results


def serve(text: bytes, attachment: Optional[BinaryIO], out: BinaryIO) -> int:
    """Answer one request on ``out``: one line of ASCII JSON. Returns the exit code, 0 whenever there is a reply."""
    gc.set_threshold(_COLLECTOR_THRESHOLD)
    reply = handle(text, attachment)
    out.write(json.dumps(reply, separators=(",", ":")).encode("ascii") + b"\n")
    out.flush()
    return 0


if __name__ == "__main__":
    # One byte more than the limit is enough to see that the request is too long.
    raise SystemExit(serve(sys.stdin.buffer.read(MAXIMUM_REQUEST + 1), None, sys.stdout.buffer))
