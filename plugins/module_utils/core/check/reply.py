# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a check in the form of a reply."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..outcome import Outcome
from .findings import ERROR, NOTICE, WARNING, WOULD_BE, Finding, Report


def make_reply(report: Report, root: str, inventory: Optional[List[Dict[str, Any]]], **more: Any) -> Outcome:
    """Return findings, counts by severity, bytes and a summary in one sentence.

    ``root`` is shown if there is no store. ``more`` has further keys of the result.
    """
    remaining = [finding for finding in report.findings if not finding.repaired]
    planned = [finding for finding in remaining if finding.action.startswith(WOULD_BE)]
    problems = [finding for finding in remaining if finding.severity != NOTICE]
    result = {
        "exists": report.exists,
        "healthy": not problems,
        "snapshots": report.snapshots,
        "findings": [finding._asdict() for finding in report.findings],
        "counts": {
            level: sum(finding.severity == level for finding in remaining) for level in (ERROR, WARNING, NOTICE)
        },
        "reclaimable": sum(finding.reclaimable for finding in remaining),
        "reclaimed": sum(finding.reclaimable for finding in report.findings if finding.repaired),
        "free": report.free,
        "total": report.total,
        "proxy_snapshotter": report.served and report.served._asdict(),
        "summary": _summarize(report, problems, root),
        "diff": {
            "before": {"findings": [finding.message for finding in report.findings]},
            "after": {"findings": [finding.message for finding in remaining if finding not in planned]},
        },
        **more,
    }
    if inventory is not None:
        result["inventory"] = inventory
    return Outcome(len(remaining) < len(report.findings) or bool(planned), result)


def _summarize(report: Report, problems: List[Finding], root: str) -> str:
    if not report.exists:
        return f"there is no store in {root}"
    summary = f"{_count(report.snapshots, 'snapshot')}, {_count(len(problems), 'problem')}"
    repaired = sum(finding.repaired for finding in report.findings)
    if repaired:
        summary += f", {repaired} repaired"
    reclaimable = sum(finding.reclaimable for finding in problems)
    if reclaimable:
        summary += f"; {reclaimable} bytes can be reclaimed"
    errors = [finding for finding in problems if finding.severity == ERROR]
    for finding in (errors or problems)[:1]:
        summary += f"; first: {finding.message}"
    return summary


def _count(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
