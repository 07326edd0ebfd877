# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the report about a fleet from the answers of all nodes, and write its files.

docs/report.md describes report.json, which holds the whole report. The shape
of each answer is checked: a malformed answer affects the entry of its node alone.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import csv
import datetime as dt
import errno
import io
import json
import os
import re
import unicodedata
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple

from ..module_utils.core.files import only_files, refuse_special
from . import _page, _report_metrics, _report_usage
from ._shapes import CHECK, CONTAINERD, COUNTS, FINDING, INVENTORY, SERVED, TIME, Malformed, fit, read_json
from ._text import several_lines

FORMAT = "wcow.snapshotter.report"
VERSION = 1

#: The states that make an audit fail.
BAD_STATES = ("unreachable", "failed", "unhealthy", "no_store")

#: The result of ``store_check`` with ``inventory``.
AUDIT: Dict[str, Any] = {
    **CHECK,
    "inventory": [{**INVENTORY, "usage": INVENTORY["usage?"]}],
    "containerd?": CONTAINERD,
}
#: The entry of a node in report.json. The last keys are those of a containerd store.
NODE: Dict[str, Any] = {
    "node": str,
    "state": str,
    "message": str,
    "audited": TIME,
    "counts": COUNTS,
    "size": (int,),
    "free": (int,),
    "total": (int,),
    "reclaimable": (int,),
    "findings": [FINDING],
    "snapshots": AUDIT["inventory"],
    "rootfs_size?": (int,),
    "proxy_snapshotter?": (SERVED,),
    "containerd?": CONTAINERD,
    "users?": _report_usage.USERS,
    "freeable?": _report_usage.FREEABLE,
}


def now(later: dt.timedelta = dt.timedelta()) -> str:
    """Return the current time, or a later one, to the second, RFC 3339 in UTC."""
    return (dt.datetime.now(dt.timezone.utc) + later).strftime("%Y-%m-%dT%H:%M:%SZ")


def node_of(name: str, audited: str, check: Any) -> Dict[str, Any]:
    """Return the entry of one node.

    ``check`` is the result of ``store_check`` with ``inventory``, or None if
    the task did not run. ``audited`` is the time of the check.
    """
    if not isinstance(check, Mapping):
        return _without_answer(name, audited, "failed", "The node returned nothing")
    if check.get("unreachable") or check.get("failed"):
        state = "unreachable" if check.get("unreachable") else "failed"
        reason = several_lines(str(check.get("msg") or "The task gave no reason"))
        return _without_answer(name, audited, state, reason)
    if "inventory" not in check:
        return _without_answer(name, audited, "failed", "The node was checked without inventory: true")
    try:
        found = fit(check, AUDIT, "the check")
    except Malformed as error:
        return _without_answer(name, audited, "failed", f"The node's answer cannot be used: {error}")
    snapshots = found["inventory"]
    state = "unhealthy" if not found["healthy"] else "healthy" if found["exists"] else "no_store"
    of_containerd = {}
    if "containerd" in found:
        of_containerd = {
            "containerd": found["containerd"],
            "users": _report_usage.users(snapshots),
            "freeable": _report_usage.freeable(snapshots, found["findings"]),
        }
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
        "findings": sorted(found["findings"], key=_page.severity_rank),
        "snapshots": snapshots,
        **{key: found[key] for key in ("rootfs_size", "proxy_snapshotter") if key in found},
        **of_containerd,
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
    """Return the nodes of an earlier report.json. Raises OSError, and Malformed if the file is not such a report."""
    with open(path, encoding="utf-8", opener=only_files) as file:
        try:
            report = read_json(file.read())
        except ValueError as error:
            raise Malformed(f"{path} is not JSON: {error}") from None
    if not isinstance(report, dict) or (report.get("format"), report.get("version")) != (FORMAT, VERSION):
        raise Malformed(f"{path} is not a report.json of this collection ({FORMAT}, version {VERSION})")
    nodes: List[Dict[str, Any]] = fit(report.get("nodes"), [NODE], path)
    for node in nodes:
        if node["state"] not in _page.STATES:
            raise Malformed(f"{path}: the node {node['node']!r} has the unknown state {node['state']!r}")
        # Such a node would hide its later audits. Clocks of controllers differ by less than a day.
        if node["audited"] > now(dt.timedelta(days=1)):
            raise Malformed(f"{path}: the node {node['node']!r} was audited in the future, at {node['audited']}")
    return nodes


def report_of(generated: str, nodes: Iterable[Dict[str, Any]]) -> Dict[str, Any]:
    """Return the report: the latest audit of each node, sorted by state (the worst first), findings and name."""
    latest: Dict[str, Dict[str, Any]] = {}
    for node in nodes:
        other = latest.get(node["node"])
        if other is None or other["audited"] <= node["audited"]:
            latest[node["node"]] = node
    ordered = sorted(latest.values(), key=_rank)
    return {"format": FORMAT, "version": VERSION, "generated": generated, "nodes": ordered}


def _rank(node: Dict[str, Any]) -> Tuple[Any, ...]:
    # Numbers in names count as numbers, of any length: node9 comes before node10.
    parts = [
        (len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", node["node"])
    ]
    return list(_page.STATES).index(node["state"]), -node["counts"]["error"], -node["counts"]["warning"], parts


# -- CSV -----------------------------------------------------------------------

#: Letters and symbols that have no ink: the fillers of Hangul and the blank of Braille.
_FILLERS = "\u115f\u1160\u3164\uffa0\u2800"
_MINUS = "\u2212"


def escape_formula(value: Any) -> Any:
    """Return ``value`` as a cell that spreadsheets do not read as a formula.

    A formula is text that begins with ``=``, ``+``, ``-`` or ``@`` in any
    width, or with a control character (OWASP, "CSV Injection"). Spreadsheets
    skip spaces and invisible characters ahead of it. Such text gets a leading
    apostrophe. Numbers stay.
    """
    if isinstance(value, str) and value:
        first = next((char for char in value if not _is_blank(char)), "")
        if unicodedata.category(value[0]) == "Cc" or unicodedata.normalize("NFKC", first)[:1] in (*"=+-@", _MINUS):
            return "'" + value
    return value


def _is_blank(char: str) -> bool:
    """Return True for spaces, and for what a reader cannot see: controls, formats, marks, fillers, unassigned."""
    return unicodedata.category(char)[0] in "ZCM" or char in _FILLERS


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if cell is None else escape_formula(cell) for cell in row])
    return text.getvalue()


def nodes_csv(report: Dict[str, Any]) -> str:
    """Return a table with one row per node."""
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
    """Return a table with one row per snapshot."""
    plain = ("name", "kind", "id", "parent", "created", "updated")
    of_containerd = ("namespace", "directory", "collectable")
    disk = ("virtual_size", "file_size", "volume_size", "attached")
    return _table(
        ["node", *plain, "size", "inodes", *(f"scratch_{name}" for name in disk), "labels", *of_containerd, "used_by"],
        (
            [
                node["node"],
                *(snapshot[name] for name in plain),
                *((snapshot["usage"] or {}).get(name) for name in ("size", "inodes")),
                *((snapshot["scratch"] or {}).get(name) for name in disk),
                json.dumps(snapshot["labels"], sort_keys=True),
                *(snapshot.get(name) for name in of_containerd),
                json.dumps(snapshot["used_by"], sort_keys=True) if "used_by" in snapshot else None,
            ]
            for node in report["nodes"]
            for snapshot in node["snapshots"]
        ),
    )


def users_csv(report: Dict[str, Any]) -> str:
    """Return a table with one row per image, container, lease and so on of containerd stores."""
    plain = ("kind", "namespace", "snapshots", "size", "alone")
    return _table(
        ["node", "name", *plain, "other_names"],
        (
            [
                node["node"],
                user["name"],
                *(user[name] for name in plain),
                json.dumps(user["other_names"]),
            ]
            for node in report["nodes"]
            for user in node.get("users", ())
        ),
    )


def findings_csv(report: Dict[str, Any]) -> str:
    """Return a table with one row per finding."""
    return _table(
        ["node", *FINDING],
        (
            [node["node"], *(finding[name] for name in FINDING)]
            for node in report["nodes"]
            for finding in node["findings"]
        ),
    )


# -- files ---------------------------------------------------------------------


def write(directory: str, report: Dict[str, Any], metrics: str = "") -> List[str]:
    """Write all files of the report and return their paths. Raises OSError.

    ``metrics`` is the path of the metrics; by default, they are in
    ``directory``. Each file is replaced as a whole. The page comes last, so
    the other files exist when it appears.
    """
    # Before anything is made, so that the files of a report always belong together.
    if metrics and not os.path.isdir(os.path.dirname(metrics)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.dirname(metrics))
    os.makedirs(directory, exist_ok=True)
    forms: Tuple[Tuple[str, str, Iterator[str]], ...] = (
        ("report.json", "utf-8", iter([json.dumps(report, separators=(",", ":")), "\n"])),
        # Spreadsheets read a file as UTF-8 only if it begins with a byte order mark.
        ("nodes.csv", "utf-8-sig", iter([nodes_csv(report)])),
        ("snapshots.csv", "utf-8-sig", iter([snapshots_csv(report)])),
        ("findings.csv", "utf-8-sig", iter([findings_csv(report)])),
        ("users.csv", "utf-8-sig", iter([users_csv(report)])),
        (metrics or "metrics.prom", "utf-8", _report_metrics.metrics(report)),
        ("report.html", "utf-8", _page.page(report)),
    )
    files = [(os.path.join(directory, name), encoding, parts) for name, encoding, parts in forms]
    for path, _encoding, _parts in files:
        refuse_special(path)
    return [_write(path, encoding, parts) for path, encoding, parts in files]


def _write(path: str, encoding: str, parts: Iterator[str]) -> str:
    temporary = f"{path}.{os.getpid()}.new"
    try:
        # Names can contain lone surrogates, which UTF-8 cannot encode.
        with open(temporary, "w", encoding=encoding, errors="backslashreplace", newline="", opener=only_files) as file:
            file.writelines(parts)
        os.replace(temporary, path)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            # The user knows the file, not what it was called while it was written.
            raise OSError(error.errno, error.strerror, path) from error
        raise
    return path
