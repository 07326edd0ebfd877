# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A trace of native calls, for requests that ask for one.

Calls on layers, disks, bindings, hives and volumes are recorded in the order
in which they begin, as one dictionary each: ``call`` (DLL and export),
``arguments`` (by name), ``microseconds``, and either ``result`` or ``error``. An
error is the code in hex, or the reason why the call was not made. Calls that
are made for every file are left out: a base layer has a hundred thousand
files, and the trace travels in the reply.

A trace belongs to the context (contextvars) that starts it. Threads that serve
different requests do not see each other's calls. A new thread is not traced
unless it runs in a copy of the context.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any, Dict, List, Optional

from ..failpoint import failpoint

_records: ContextVar[Optional[List[Dict[str, Any]]]] = ContextVar("wcow_trace", default=None)


def start() -> None:
    """Start a new trace in this context; an earlier one is dropped."""
    _records.set([])


def stop() -> List[Dict[str, Any]]:
    """End the trace of this context and return its records; empty without ``start``."""
    records = _records.get()
    _records.set(None)
    return records or []


class Call:
    """A context manager around one native call.

    In the block, set ``result`` to the value to record, or ``failed`` to the
    error code. A call that does not return, because it hangs or its process
    ends, leaves a record without ``microseconds``.
    """

    def __init__(self, call: str, arguments: Dict[str, Any]) -> None:
        self._record: Dict[str, Any] = {"call": call, "arguments": arguments}
        self.result: Any = None
        self.failed: Optional[int] = None

    def __enter__(self) -> Call:
        records = _records.get()
        if records is not None:
            records.append(self._record)
        failpoint(f"{self._record['call']}.before")
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: object, *rest: object) -> None:
        self._record["microseconds"] = int((time.perf_counter() - self._start) * 1_000_000)
        failpoint(f"{self._record['call']}.after")
        if self.failed is not None:
            self._record["error"] = f"0x{self.failed:x}"
        elif error is not None:
            self._record["error"] = str(error)
        else:
            self._record["result"] = self.result
