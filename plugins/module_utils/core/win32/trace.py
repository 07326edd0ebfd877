# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of the native calls that matter, off unless a request asks for it.

Recorded are the calls on layers, disks, bindings, hives and volumes, in order
of entry, one dictionary each: ``call`` (DLL and export), ``arguments`` (by
name), ``seconds``, and either ``result`` or ``error``: the code in hex, or why
the call was not made. Calls that come once a file or more often are left out:
a base layer has a hundred thousand files, and the record travels in the reply.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional

from ..failpoint import failpoint

_records: Optional[List[Dict[str, Any]]] = None


def start() -> None:
    """Record from now on, in all threads, and forget what was recorded before."""
    global _records  # noqa: PLW0603 - what is recorded is the business of the process
    _records = []


def stop() -> List[Dict[str, Any]]:
    """End the recording; returns the records since ``start``, and none without it."""
    global _records
    records, _records = _records, None
    return records or []


class Call:
    """One native call in the making: a context manager around it.

    Inside, set ``result`` to what is worth telling, or ``failed`` to the code
    of the error. A call that does not return, because it hangs or its process
    dies, keeps a record without ``seconds``.
    """

    def __init__(self, call: str, arguments: Dict[str, Any]) -> None:
        self._record: Dict[str, Any] = {"call": call, "arguments": arguments}
        self.result: Any = None
        self.failed: Optional[int] = None

    def __enter__(self) -> Call:
        if _records is not None:
            _records.append(self._record)
        failpoint(f"{self._record['call']}.before")
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: object, error: object, *rest: object) -> None:
        self._record["seconds"] = round(time.perf_counter() - self._start, 6)
        failpoint(f"{self._record['call']}.after")
        if self.failed is not None:
            self._record["error"] = f"0x{self.failed:x}"
        elif error is not None:
            self._record["error"] = str(error)
        else:
            self._record["result"] = self.result
