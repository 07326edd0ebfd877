# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as OpenMetrics text, for the textfile collector of Prometheus' node_exporter.

The text is valid in OpenMetrics 1.0 and in the older text format, which the
textfile collector reads. Therefore all metrics are gauges, without timestamps
and units, and no help text needs an escape.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import calendar
import time
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from . import _page, _report_usage
from ._text import is_visible, written_out

#: A sample: the labels and the value. A value of None is unknown, and its sample is left out.
_Sample = Tuple[Dict[str, str], Optional[int]]


def metrics(report: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of the text. Each metric of a node has the label ``node``."""
    nodes = report["nodes"]
    yield from _family(
        "wcow_report_timestamp_seconds", "When the report was written.", [({}, _seconds(report["generated"]))]
    )
    for name, text, samples in _FAMILIES:
        yield from _family(
            name,
            text,
            (({"node": node["node"], **labels}, value) for node in nodes for labels, value in samples(node)),
        )
    yield "# EOF\n"


def _family(name: str, text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} gauge\n"
    for labels, value in samples:
        if value is not None:
            inside = ",".join(f'{label}="{_escape(content)}"' for label, content in labels.items())
            yield f"{name}{{{inside}}} {value}\n" if inside else f"{name} {value}\n"


def _escape(text: str) -> str:
    """Return ``text`` for a label's value. Invisible characters, such as line ends, are written out first."""
    visible = "".join(char if is_visible(char) else written_out(char) for char in text)
    return visible.replace("\\", "\\\\").replace('"', '\\"')


def _seconds(stamp: str) -> int:
    """Return the seconds since 1970 of a time in RFC 3339 in UTC."""
    return calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))


def _single(name: str) -> Any:
    return lambda node: [({}, node[name])]


def _states(node: Mapping[str, Any]) -> List[_Sample]:
    return [({"state": state}, int(node["state"] == state)) for state in _page.STATES]


def _severities(node: Mapping[str, Any]) -> List[_Sample]:
    if node["free"] is None:
        return []
    return [({"severity": severity}, count) for severity, count in node["counts"].items()]


def _codes(node: Mapping[str, Any]) -> List[_Sample]:
    counts: Dict[Tuple[str, str], int] = {}
    for finding in node["findings"]:
        if not finding["repaired"]:
            key = (finding["code"], finding["severity"])
            counts[key] = counts.get(key, 0) + 1
    return [({"code": code, "severity": severity}, count) for (code, severity), count in counts.items()]


def _kinds(node: Mapping[str, Any]) -> List[_Sample]:
    if node["free"] is None:
        return []
    counts = {"active": 0, "view": 0, "committed": 0}
    for snapshot in node["snapshots"]:
        counts[snapshot["kind"]] = counts.get(snapshot["kind"], 0) + 1
    return [({"kind": kind}, count) for kind, count in counts.items()]


def _uses(node: Mapping[str, Any]) -> List[_Sample]:
    return [({"use": use}, size) for use, size in _report_usage.disk(node).items()]


def _health(key: str) -> Any:
    def samples(node: Mapping[str, Any]) -> List[_Sample]:
        served = node.get("proxy_snapshotter")
        return [({}, served["health"][key])] if served and served["health"] else []

    return samples


def _answers(node: Mapping[str, Any]) -> List[_Sample]:
    served = node.get("proxy_snapshotter")
    return [({}, int(served["health"] is not None))] if served else []


#: Name, help, and what returns the samples of a node. The help texts have neither backslashes nor quotes.
_FAMILIES: Tuple[Tuple[str, str, Any], ...] = (
    (
        "wcow_node_state",
        "1 for the state of the node, 0 for the other states.",
        _states,
    ),
    (
        "wcow_audit_timestamp_seconds",
        "When the node was audited.",
        lambda node: [({}, _seconds(node["audited"]))],
    ),
    ("wcow_findings", "Findings of a severity that are left.", _severities),
    ("wcow_findings_by_code", "Findings of a code that are left. Codes without findings have no sample.", _codes),
    ("wcow_snapshots", "Snapshots of a kind.", _kinds),
    ("wcow_layers_bytes", "Size of all layers together.", _single("size")),
    ("wcow_volume_free_bytes", "Free bytes of the volume of the store.", _single("free")),
    ("wcow_volume_total_bytes", "Size of the volume of the store.", _single("total")),
    ("wcow_reclaimable_bytes", "Bytes that a repair frees.", _single("reclaimable")),
    ("wcow_disk_use_bytes", "What uses the volume of the store. The sum of all uses is its size.", _uses),
    (
        "wcow_rootfs_size_bytes",
        "Default size of new scratch disks, if the store sets one.",
        lambda node: [({}, node.get("rootfs_size"))],
    ),
    ("wcow_proxy_snapshotter_up", "1 if the proxy snapshotter of the store answers, 0 if it does not.", _answers),
    ("wcow_proxy_snapshotter_uptime_milliseconds", "How long the proxy snapshotter runs.", _health("uptime")),
    ("wcow_proxy_snapshotter_calls", "Calls since the start of the proxy snapshotter.", _health("calls")),
    ("wcow_proxy_snapshotter_errors", "Calls that failed since its start.", _health("errors")),
    ("wcow_proxy_snapshotter_slowest_call_milliseconds", "Time of its slowest call.", _health("slowest_time")),
    (
        "wcow_proxy_snapshotter_pending_removals",
        "Removed layers that still exist.",
        _health("pending_removals"),
    ),
)
