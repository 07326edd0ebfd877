# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shapes of replies: read JSON of a node, and check each value on arrival.

A node can be damaged or hostile. What it says must not become an error of
Python, or the failure of another node. Each reply, each result of the core and
each file of an earlier report passes through ``read_json`` and ``fit``. A new
key of a result needs an entry here: ``fit`` drops what it does not know.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any, Dict

from ._text import one_line

#: Levels of nested lists and objects at most. The deepest reply, the difference of a snapshot's labels, has nine.
DEEPEST = 32

#: A number is smaller. SQLite, Windows and Go have no larger ones, and floating-point numbers can express it.
LIMIT = 1 << 63

# A shape is one of these:
#   str, bool    a value of this type; text stays as it is, because it is data
#   int          a whole number from 0 to LIMIT
#   LINE         text for readers: becomes one line that is safe to show
#   TIME         RFC 3339 in UTC, as the core writes it
#   LABELS       a mapping of text to text
#   OBJECT       a mapping with any content
#   [shape]      a list of such values
#   (shape,)     such a value, or None
#   {name: ...}  a mapping with these keys; a name that ends with ? can be absent
LINE = "line"
TIME = "time"
LABELS = "labels"
OBJECT = "object"

_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]{1,9})?Z", re.ASCII)


class Malformed(Exception):
    """A value has the wrong shape. The message has the place and the value."""


def read_json(text: str) -> Any:
    """Return the value of a JSON text. Half of a surrogate pair, which is not text, is written out as an escape.

    Raises ValueError, with the reason, for text that is not JSON, for numbers
    that are not whole or not below ``LIMIT``, and for values that are nested
    too deeply.
    """
    try:
        value = json.loads(text, parse_int=_whole_number, parse_float=_refuse_number, parse_constant=_refuse_number)
        return _bounded(value, DEEPEST)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole_number(digits: str) -> int:
    # Python itself refuses to convert more than 4300 digits.
    number = int(digits) if len(digits) <= 20 else LIMIT
    if abs(number) >= LIMIT:
        raise ValueError(f"a number has {len(digits)} digits")
    return number


def _refuse_number(text: str) -> None:
    raise ValueError(f"{text[:20]} is not a whole number")


def _bounded(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, (list, dict)) and not levels:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list):
        return [_bounded(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {_bounded(name, 0): _bounded(item, levels - 1) for name, item in value.items()}
    return value


def fit(value: Any, shape: Any, where: str) -> Any:
    """Return a copy of ``value`` that has ``shape``, without what the shape does not name.

    ``where`` names the place in messages. Raises Malformed if a value does not fit.
    """
    if isinstance(shape, dict):
        if isinstance(value, dict):
            fields = ((name.rstrip("?"), name, inner) for name, inner in shape.items())
            return {
                key: fit(value.get(key), inner, f"{where}.{key}")
                for key, name, inner in fields
                if key == name or key in value
            }
    elif isinstance(shape, list):
        if isinstance(value, list):
            return [fit(item, shape[0], where) for item in value]
    elif isinstance(shape, tuple):
        return None if value is None else fit(value, shape[0], where)
    elif shape == LABELS:
        if isinstance(value, dict):
            return {fit(name, str, where): fit(text, str, where) for name, text in value.items()}
    elif shape == OBJECT:
        if isinstance(value, dict):
            return value
    elif shape is int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LIMIT:
            return int(value)
    elif shape == LINE:
        if isinstance(value, str):
            return one_line(value)
    elif shape == TIME:
        if isinstance(value, str) and _is_time(value):
            return str(value)
    elif isinstance(value, shape):
        return shape(value)
    raise Malformed(f"{where} has an unexpected value: {_excerpt(value)}")


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    try:
        return found is not None and bool(dt.datetime.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S"))  # noqa: DTZ007 - a form
    except ValueError:
        return False


def _excerpt(value: Any) -> str:
    try:
        return repr(str(value)[:100])
    except (ValueError, RecursionError):
        return "one that cannot be shown"


# -- the reply -----------------------------------------------------------------

ERROR: Dict[str, Any] = {"code": LINE, "message": LINE, "details?": OBJECT}
ADVICE: Dict[str, Any] = {"advice?": LINE}
#: How the core answers.
REPLY: Dict[str, Any] = {
    "protocol": int,
    "warnings?": [LINE],
    "error?": (ERROR,),
    "results?": [{"ok?": bool, "changed?": bool, "result?": OBJECT, "error?": (ERROR,), "warnings?": [LINE]}],
    "trace?": [OBJECT],
}
#: How the loader answers without the core.
NEEDS_PAYLOAD: Dict[str, Any] = {"protocol": int, "need_payload": int, "python": int}
#: A note of the loader, in a line of its own ahead of the reply.
NOTE: Dict[str, Any] = {"loader": {"warnings": [LINE]}}

# -- results, as the modules document them -------------------------------------

_INFO: Dict[str, Any] = {
    "kind": str,
    "name": str,
    "parent": str,
    "labels": LABELS,
    "created": TIME,
    "updated": TIME,
    "id": int,
}
_MOUNTS = [{"type": str, "source": str, "options": [str]}]
_SCRATCH: Dict[str, Any] = {
    "path": str,
    "virtual_size": int,
    "file_size": int,
    "attached": bool,
    "volume_size": (int,),
}
_USAGE: Dict[str, Any] = {"size": int, "inodes": int}
#: What a snapshot of containerd's store has besides, and where that store is.
_OF_CONTAINERD: Dict[str, Any] = {
    "namespace?": str,
    "directory?": str,
    "used_by?": {
        name: [str]
        for name in ("images", "containers", "sandboxes", "leases", "roots", "content", "ingests", "children")
    },
    "collectable?": bool,
}
CONTAINERD: Dict[str, Any] = {
    "root": str,
    "address": str,
    "snapshotter": str,
    "namespaces": [str],
    "sources": {"root": LINE, "address": LINE, "snapshotter": LINE},
    "running": bool,
    "program": LINE,
}
_SNAPSHOT: Dict[str, Any] = {**_INFO, "rootfs_size": (int,), "mounts?": _MOUNTS, "parent_image?": str}
_OUTCOME: Dict[str, Any] = {
    "name": str,
    "changed": bool,
    "actions": [LINE],
    "snapshot?": (_SNAPSHOT,),
    "error?": ERROR,
    "skipped?": LINE,
    "warnings?": [LINE],
}
#: What each task that can change something returns.
_TASK: Dict[str, Any] = {
    "actions": [LINE],
    "diff": {"before": (OBJECT,), "after": (OBJECT,)},
    "containerd?": {**CONTAINERD, "namespace": str},
}

#: How the proxy snapshotter does. Times are in milliseconds.
HEALTH: Dict[str, Any] = {
    "version": LINE,
    "uptime": int,
    "calls": int,
    "errors": int,
    "last_error": LINE,
    "slowest_method": LINE,
    "slowest_time": int,
    "running": int,
    "pending_removals": int,
    "process": int,
    "root": str,
}
#: The proxy snapshotter of a store, or of containerd's configuration.
SERVED: Dict[str, Any] = {"address": str, "snapshotter": str, "health": (HEALTH,), "problem": LINE}

COUNTS: Dict[str, Any] = {"error": int, "warning": int, "notice": int}
FINDING: Dict[str, Any] = {
    "code": str,
    "severity": str,
    "snapshot": str,
    "id": (int,),
    "path": str,
    "message": LINE,
    "remedy": LINE,
    "reclaimable": int,
    "repairable": bool,
    "repaired": bool,
    "action": LINE,
}
INVENTORY: Dict[str, Any] = {**_INFO, **_OF_CONTAINERD, "usage?": (_USAGE,), "scratch": (_SCRATCH,)}
CHECK: Dict[str, Any] = {
    "exists": bool,
    "healthy": bool,
    "summary": LINE,
    "counts": COUNTS,
    "reclaimable": int,
    "free": int,
    "total": int,
    "findings": [FINDING],
    "rootfs_size?": (int,),
    "proxy_snapshotter?": (SERVED,),
}

SERVICE: Dict[str, Any] = {
    "name": str,
    "running": bool,
    "version": LINE,
    "directory": str,
    "pipe": str,
    "root": str,
    "log": str,
    "log_level": str,
}

#: Operation of the core -> the shape of its result.
RESULTS: Dict[str, Dict[str, Any]] = {
    "ensure_snapshot": {**_TASK, "snapshot": (_SNAPSHOT,)},
    "ensure_set": {
        **_TASK,
        "outcomes": [_OUTCOME],
        "pruned": [_OUTCOME],
        "kept": [{"name": str, "needed_by": [str]}],
        "failure": (ERROR,),
    },
    "ensure_scratch": {**_TASK, "scratch": (_SCRATCH,), "previous_size": int},
    "list": {
        "snapshots": [
            {
                **_INFO,
                **_OF_CONTAINERD,
                "usage?": (_USAGE,),
                "mounts?": _MOUNTS,
                "scratch?": (_SCRATCH,),
                "error?": ERROR,
            }
        ],
        "exists": bool,
        "mistakes": [LINE],
        "containerd?": CONTAINERD,
    },
    "ensure_layer": {
        **_TASK,
        "snapshot": (_SNAPSHOT,),
        "layer": ({"size": int, "digest": str, "entries": int},),
    },
    "ensure_export": {**_TASK, "layer": ({"size": int, "digest": str},), "dest": str},
    "ensure_mount": {**_TASK, "mount": ({"key": str, "target": str, "read_only": bool},)},
    "ensure_image": {
        **_TASK,
        "chain_id?": str,
        "chain?": [{"name": str, "parent": str, "diff_id": str, "imported": bool}],
        "config?": str,
        "os_version?": str,
        "names?": [str],
        "kept?": [str],
        "manifest?": str,
        "images?": [{"name": str, "target": str, "labels": LABELS, "pinned": bool}],
        "missing?": [str],
        "freed?": {"bytes": int, "snapshots": [str], "content": [str]},
    },
    "ensure_store": {
        **_TASK,
        "store": ({"root": str, "layers": str, "snapshots": (int,), "rootfs_size": (int,), "protected": bool},),
        "proxy_snapshotter?": (SERVED,),
        "preflight?": {
            "version": LINE,
            "revision": LINE,
            "schema": int,
            "schema_known": bool,
            "snapshotters": [LINE],
            "running": bool,
            "free": int,
            "total": int,
        },
    },
    "ensure_proxy_snapshotter": {
        **_TASK,
        "service": (SERVICE,),
        "health": (HEALTH,),
        "previous_version": (LINE,),
        "downtime": (int,),
        "configuration": (
            {"files": [{"path": str, "action": LINE}], "manager": LINE, "notes": [LINE], "verified": bool},
        ),
        "restart_needed": bool,
    },
    "check": {
        **CHECK,
        "snapshots": int,
        "reclaimed": int,
        "inventory?": [INVENTORY],
        "containerd?": CONTAINERD,
        "diff": _TASK["diff"],
    },
    "describe_node": {
        "system": {"name": LINE, "version": LINE, "edition": LINE, "architecture": LINE},
        "python": {"version": LINE, "executable": str, "bits": int, "sqlite": LINE},
        "service": ({"version": LINE, "root": str, "log": str, "log_level": LINE, **SERVED},),
        "logs": [{"path": str, "lines": [LINE]}],
        "problems": [LINE],
    },
    "stage": {"offset": int, "complete": bool},
}

# -- the scripts of _powershell.py ---------------------------------------------

STEP_FAILED: Dict[str, Any] = {"step": str, "error": LINE, "left?": LINE}
LOOKED: Dict[str, Any] = {
    "exists": bool,
    "empty": bool,
    "protected": bool,
    "left": [str],
    "marker?": (str,),
    "version?": (str,),
}
INSTALLED: Dict[str, Any] = {"installed": bool}
CLEANED: Dict[str, Any] = {"left": [LINE]}
