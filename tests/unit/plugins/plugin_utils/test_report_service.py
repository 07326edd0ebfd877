# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what the report shows of the proxy snapshotter of a node, and of the size of new disks."""

from __future__ import annotations

import re

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _page, _report

AUDITED = "2026-11-24T08:36:01Z"

CHECK = {
    "exists": True,
    "healthy": True,
    "summary": "no snapshots, no problems",
    "counts": {"error": 0, "warning": 0, "notice": 0},
    "reclaimable": 0,
    "free": 10,
    "total": 40,
    "findings": [],
    "inventory": [],
}
HEALTH = {
    "version": "1.2.3",
    "uptime": 2 * 86400 * 1000,
    "calls": 4711,
    "errors": 1,
    "last_error": "<b>the disk is full</b>",
    "slowest_method": "Commit",
    "slowest_time": 2100,
    "running": 0,
    "pending_removals": 3,
    "process": 1234,
    "root": r"C:\ProgramData\wcow",
}
SERVED = {"address": r"\\.\pipe\wcow-snapshotter", "snapshotter": "", "health": HEALTH, "problem": ""}


def shown(**more):
    """Return the entry of a node in report.json, and the text of the page as a reader sees it."""
    entry = _report.node_of("node1", AUDITED, {**CHECK, **more})
    page = "".join(_page.page(_report.report_of(AUDITED, [entry])))
    assert "<b>the disk" not in page
    return entry, " ".join(re.sub("<[^>]*>", "", re.sub("<d[dt]>", " ", page)).split())


def test_a_service_that_answers():
    entry, text = shown(proxy_snapshotter=SERVED, rootfs_size=40 * 1024**3)
    assert (entry["proxy_snapshotter"], entry["rootfs_size"]) == (SERVED, 40 * 1024**3)
    assert (
        r"Proxy snapshotter Address \\.\pipe\wcow-snapshotter Version 1.2.3 Calls 4,711 in 2 days, 1 error Slowest "
        "call Commit, 2,100 ms Waits for removal 3 layers Last error &lt;b&gt;the disk is full&lt;/b&gt;"
    ) in text
    assert "New scratch disks 40.0 GiB" in text


def test_a_service_that_does_not_answer():
    entry, text = shown(proxy_snapshotter={**SERVED, "snapshotter": "wcow", "health": None, "problem": "it hangs"})
    assert entry["proxy_snapshotter"]["health"] is None
    assert r"Proxy snapshotter Name wcow Address \\.\pipe\wcow-snapshotter State ✗ does not answer it hangs" in text


@pytest.mark.parametrize("more", [{}, {"proxy_snapshotter": None, "rootfs_size": None}])
def test_nodes_without_a_service(more):
    """A report of before these values is merged, too."""
    entry, text = shown(**more)
    assert {name: entry[name] for name in ("proxy_snapshotter", "rootfs_size") if name in entry} == more
    assert "Proxy snapshotter" not in text
    assert "New scratch disks" not in text


def test_an_answer_of_another_form():
    entry, _text = shown(proxy_snapshotter={**SERVED, "health": {**HEALTH, "calls": "many"}})
    assert entry["state"] == "failed"
    assert "calls has an unexpected value" in entry["message"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 seconds"), (1999, "1 second"), (60_000, "1 minute"), (7_200_000, "2 hours"), (86_400_000, "1 day")],
)
def test_times(milliseconds, text):
    assert _page._duration(milliseconds) == text
