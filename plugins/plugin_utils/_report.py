# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report about a fleet: from what each node answered to one value, and from that to JSON and CSV.

The same value is what report.json holds; docs/report.md describes it. Nothing
that a node says is believed to have the right form, since one odd node must not
cost the report of all others.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import re
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple

from . import _page

FORMAT = "wcow.snapshotter.report"
VERSION = 1

#: The states that make an audit fail.
BAD_STATES = ("unreachable", "failed", "unhealthy")

# What values must look like: a type, [items], {record}, (or None,). A mapping of text to text is LABELS.
LABELS = "labels"
FINDING: Dict[str, Any] = {
    "code": str,
    "severity": str,
    "snapshot": str,
    "id": (int,),
    "path": str,
    "message": str,
    "remedy": str,
    "reclaimable": int,
    "repairable": bool,
    "repaired": bool,
    "action": str,
}
SNAPSHOT: Dict[str, Any] = {
    "name": str,
    "kind": str,
    "parent": str,
    "id": int,
    "labels": LABELS,
    "created": str,
    "updated": str,
    "usage": ({"size": int, "inodes": int},),
    "scratch": ({"path": str, "virtual_size": int, "file_size": int, "attached": bool, "volume_size": (int,)},),
}
CHECK: Dict[str, Any] = {
    "exists": bool,
    "healthy": bool,
    "summary": str,
    "counts": {"error": int, "warning": int, "notice": int},
    "reclaimable": int,
    "free": int,
    "total": int,
    "findings": [FINDING],
    "inventory": [SNAPSHOT],
}
NODE: Dict[str, Any] = {
    "node": str,
    "state": str,
    "message": str,
    "audited": str,
    "counts": CHECK["counts"],
    "size": (int,),
    "free": (int,),
    "total": (int,),
    "reclaimable": (int,),
    "findings": [FINDING],
    "snapshots": [SNAPSHOT],
}


class Malformed(Exception):
    """A value has another form than it must have; the message says which one and where."""


def taken(value: Any, shape: Any, where: str) -> Any:
    """A copy of ``value`` with nothing in it but what ``shape`` names. Raises Malformed."""
    if isinstance(shape, dict):
        if isinstance(value, dict):
            return {name: taken(value.get(name), field, f"{where}.{name}") for name, field in shape.items()}
    elif isinstance(shape, list):
        if isinstance(value, list):
            return [taken(item, shape[0], where) for item in value]
    elif isinstance(shape, tuple):
        return None if value is None else taken(value, shape[0], where)
    elif shape is LABELS:
        if isinstance(value, dict):
            return {taken(name, str, where): taken(text, str, where) for name, text in value.items()}
    elif isinstance(value, shape) and not (shape is int and isinstance(value, bool)):
        return shape(value)
    raise Malformed(f"{where} is not what it must be: {str(value)[:100]!r}")


def now() -> str:
    """This second, RFC 3339 in UTC."""
    return dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_of(name: str, audited: str, check: Any) -> Dict[str, Any]:
    """What the report says of one node.

    ``check`` is the result of ``store_check`` with ``inventory``, None if the
    task did not run.
    """
    if not isinstance(check, Mapping):
        return _without_answer(name, audited, "failed", "The node has returned nothing")
    if check.get("unreachable") or check.get("failed"):
        state = "unreachable" if check.get("unreachable") else "failed"
        return _without_answer(name, audited, state, str(check.get("msg") or "The task says no reason"))
    if "inventory" not in check:
        return _without_answer(name, audited, "failed", "The node was checked without inventory: true")
    try:
        found = taken(check, CHECK, "the check")
    except Malformed as error:
        return _without_answer(name, audited, "failed", f"The node's answer cannot be used: {error}")
    snapshots = found["inventory"]
    state = "unhealthy" if not found["healthy"] else "healthy" if found["exists"] else "no_store"
    return {
        "node": name,
        "state": state,
        "message": found["summary"],
        "audited": audited,
        "counts": found["counts"],
        "size": sum(snapshot["usage"]["size"] for snapshot in snapshots if snapshot["usage"]),
        "free": found["free"],
        "total": found["total"],
        "reclaimable": found["reclaimable"],
        "findings": found["findings"],
        "snapshots": snapshots,
    }


def _without_answer(name: str, audited: str, state: str, message: str) -> Dict[str, Any]:
    return {
        "node": name,
        "state": state,
        "message": message,
        "audited": audited,
        "counts": {"error": 0, "warning": 0, "notice": 0},
        "size": None,
        "free": None,
        "total": None,
        "reclaimable": None,
        "findings": [],
        "snapshots": [],
    }


def read(path: str) -> List[Dict[str, Any]]:
    """The nodes of an earlier report.json. Raises OSError, and Malformed if it is something else."""
    with open(path, encoding="utf-8") as file:
        try:
            report = json.load(file)
        except ValueError as error:
            raise Malformed(f"{path} is not JSON: {error}") from None
    if not isinstance(report, dict) or (report.get("format"), report.get("version")) != (FORMAT, VERSION):
        raise Malformed(f"{path} is no report.json of this collection ({FORMAT}, version {VERSION})")
    nodes: List[Dict[str, Any]] = taken(report.get("nodes"), [NODE], path)
    for node in nodes:
        if node["state"] not in _page.STATES:
            raise Malformed(f"{path}: the node {node['node']!r} has the unknown state {node['state']!r}")
    return nodes


def report_of(generated: str, nodes: Iterable[Dict[str, Any]]) -> Dict[str, Any]:
    """The report: each node once, by its latest audit, the worst first and then by name."""
    latest: Dict[str, Dict[str, Any]] = {}
    for node in nodes:
        other = latest.get(node["node"])
        if other is None or other["audited"] <= node["audited"]:
            latest[node["node"]] = node
    ordered = sorted(latest.values(), key=_rank)
    return {"format": FORMAT, "version": VERSION, "generated": generated, "nodes": ordered}


def _rank(node: Dict[str, Any]) -> Tuple[Any, ...]:
    # Digits by their number: node9 before node10.
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", node["node"])]
    return list(_page.STATES).index(node["state"]), -node["counts"]["error"], -node["counts"]["warning"], parts


# -- CSV -----------------------------------------------------------------------


def guarded(value: Any) -> Any:
    """``value`` as a cell that no spreadsheet takes for a formula.

    Spreadsheets do so with text that begins with one of ``= + - @`` (or their
    full-width forms), a tab or a line end, and some skip leading spaces (OWASP,
    "CSV Injection"). Such text gets an apostrophe before it; numbers stay.
    """
    if isinstance(value, str) and re.match(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", value):
        return "'" + value
    return value


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if cell is None else guarded(cell) for cell in row])
    return text.getvalue()


def nodes_csv(report: Dict[str, Any]) -> str:
    """A row a node."""
    plain = ("node", "state", "message", "audited")
    levels = ("error", "warning", "notice")
    sizes = ("size", "free", "total", "reclaimable")
    return _table(
        [*plain, "errors", "warnings", "notices", "snapshots", *sizes],
        (
            [
                *(node[name] for name in plain),
                *(node["counts"][level] for level in levels),
                len(node["snapshots"]),
                *(node[name] for name in sizes),
            ]
            for node in report["nodes"]
        ),
    )


def snapshots_csv(report: Dict[str, Any]) -> str:
    """A row a snapshot."""
    plain = ("name", "kind", "id", "parent", "created", "updated")
    disk = ("virtual_size", "file_size", "volume_size", "attached")
    return _table(
        ["node", *plain, "size", "inodes", *(f"scratch_{name}" for name in disk), "labels"],
        (
            [
                node["node"],
                *(snapshot[name] for name in plain),
                *((snapshot["usage"] or {}).get(name) for name in ("size", "inodes")),
                *((snapshot["scratch"] or {}).get(name) for name in disk),
                json.dumps(snapshot["labels"], sort_keys=True),
            ]
            for node in report["nodes"]
            for snapshot in node["snapshots"]
        ),
    )


def findings_csv(report: Dict[str, Any]) -> str:
    """A row a finding."""
    return _table(
        ["node", *FINDING],
        (
            [node["node"], *(finding[name] for name in FINDING)]
            for node in report["nodes"]
            for finding in node["findings"]
        ),
    )


# -- files ---------------------------------------------------------------------


def write(directory: str, report: Dict[str, Any]) -> List[str]:
    """Write all forms of the report and return the paths.

    Each file is replaced as a whole, the page last: it appears when everything
    else is there. Raises OSError.
    """
    os.makedirs(directory, exist_ok=True)
    forms: Tuple[Tuple[str, str, Iterator[str]], ...] = (
        ("report.json", "utf-8", iter([json.dumps(report, separators=(",", ":")), "\n"])),
        # Spreadsheets take a file for UTF-8 only if it begins with a byte order mark.
        ("nodes.csv", "utf-8-sig", iter([nodes_csv(report)])),
        ("snapshots.csv", "utf-8-sig", iter([snapshots_csv(report)])),
        ("findings.csv", "utf-8-sig", iter([findings_csv(report)])),
        ("report.html", "utf-8", _page.page(report)),
    )
    return [_write(os.path.join(directory, name), encoding, parts) for name, encoding, parts in forms]


def _write(path: str, encoding: str, parts: Iterator[str]) -> str:
    draft = f"{path}.{os.getpid()}.new"
    try:
        # Lone surrogates can be in names and in no encoding.
        with open(draft, "w", encoding=encoding, errors="backslashreplace", newline="") as file:
            file.writelines(parts)
        os.replace(draft, path)
    except BaseException:
        if os.path.exists(draft):
            os.unlink(draft)
        raise
    return path
