# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what the report says about the bytes of a containerd store."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _page, _report, _report_usage

AUDITED = "2026-11-24T08:36:01Z"
MIB = 1 << 20
ROOT = r"C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows"
CONTAINERD = {
    "root": r"C:\ProgramData\containerd\root",
    "address": r"\\.\pipe\containerd-containerd",
    "snapshotter": "windows",
    "namespaces": ["default", "k8s.io"],
    "sources": dict.fromkeys(("root", "address", "snapshotter"), "containerd's default"),
    "running": True,
    "program": "service containerd",
}
APP = ("registry.example.com/app:1", "sha256:" + "a" * 64)


def snapshot(number, name, parent="", mib=1, namespace="k8s.io", attached=False, **needed):
    used_by = {kind: list(needed.get(kind, ())) for kind in (*_report_usage.KINDS, "children")}
    disk = {"path": "", "virtual_size": 20 << 30, "file_size": MIB, "attached": attached, "volume_size": None}
    return {
        "name": name,
        "kind": "active" if attached else "committed",
        "parent": parent,
        "id": number,
        "labels": {},
        "created": AUDITED,
        "updated": AUDITED,
        "usage": {"size": mib * MIB, "inodes": 3},
        "scratch": disk if attached else None,
        "namespace": namespace,
        "directory": rf"{ROOT}\snapshots\{number}",
        "used_by": used_by,
        "collectable": not any(names for kind, names in used_by.items() if kind != "children"),
    }


#: An image and a container on it, an older image on the same base, a pinned snapshot, and two that nothing needs.
SNAPSHOTS = [
    snapshot(1, "base", mib=100, images=[*APP, "old:1"], containers=["web"], children=["app", "old"]),
    snapshot(2, "app", "base", mib=30, images=APP, containers=["web"], children=["web"]),
    snapshot(3, "old", "base", mib=20, images=["old:1"]),
    snapshot(4, "web", "app", mib=5, attached=True, containers=["web"]),
    snapshot(5, "base", mib=7, namespace="default", roots=["base"]),
    snapshot(6, "unused", mib=3),
    snapshot(7, "dead", mib=2, attached=True),
]


def finding(path, size=4 * MIB, **fields):
    return {
        "code": "leftover_removal",
        "severity": "warning",
        "snapshot": "",
        "id": 9,
        "path": path,
        "message": f"{path} waits to be destroyed",
        "remedy": "Run store_check with repair=true: it destroys the directory",
        "reclaimable": size,
        "repairable": True,
        "repaired": False,
        "action": "",
        **fields,
    }


FINDINGS = [
    finding("rm-8"),
    finding("rm-9", action="not repaired: Access is denied.; in use: vmwp.exe (4711)"),
    finding("10", repairable=False),
    finding("rm-11", repaired=True, action="destroyed"),
    finding("", 0),
]


def node(**fields):
    check = {
        "exists": True,
        "healthy": False,
        "summary": "7 snapshots, 3 problems",
        "counts": {"error": 0, "warning": 3, "notice": 0},
        "reclaimable": 12 * MIB,
        "free": 1 << 33,
        "total": 1 << 35,
        "findings": FINDINGS,
        "inventory": SNAPSHOTS,
        "containerd": CONTAINERD,
        **fields,
    }
    return _report.node_of("node1", AUDITED, check)


def test_who_uses_how_many_bytes():
    found = {(user["kind"], user["name"]): user for user in node()["users"]}
    assert {who: (user["snapshots"], user["size"] // MIB, user["alone"] // MIB) for who, user in found.items()} == {
        # The other image frees its own layer, and not the shared one.
        ("image", "old:1"): (2, 120, 20),
        ("root label", "base"): (1, 7, 7),
        ("container", "web"): (3, 135, 5),
        # The container needs the layers of its image, too.
        ("image", APP[0]): (2, 130, 0),
    }
    assert found["image", APP[0]]["other_names"] == [APP[1]]
    assert [user["name"] for user in node()["users"]] == ["old:1", "base", "web", APP[0]]


def test_a_quick_audit_has_no_sizes():
    inventory = [{**one, "usage": None} for one in SNAPSHOTS]
    assert {(user["size"], user["alone"]) for user in node(inventory=inventory)["users"]} == {(None, None), (None, 0)}


def test_what_can_be_freed_and_how():
    assert [(one["what"], one["how"], one["size"] // MIB) for one in node()["freeable"]] == [
        ("10", "manual", 4),
        ("rm-8", "repair", 4),
        ("rm-9", "restart", 4),
        ("unused", "collection", 3),
        ("dead", "restart", 2),
    ]
    assert {one["namespace"] for one in node()["freeable"]} == {"", "k8s.io"}


def test_the_report_keeps_it(tmp_path):
    report = _report.report_of(AUDITED, [node()])
    _report.write(str(tmp_path), report)
    assert _report.read(str(tmp_path / "report.json")) == [node()]
    with (tmp_path / "users.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["old:1", "base", "web", APP[0]]
    assert json.loads(rows[3]["other_names"]) == [APP[1]]
    snapshots = list(csv.DictReader(io.StringIO(_report.snapshots_csv(report), newline="")))
    assert snapshots[3]["directory"] == rf"{ROOT}\snapshots\4"
    assert json.loads(snapshots[3]["used_by"])["containers"] == ["web"]


def test_the_same_key_in_two_namespaces():
    shown = [(one["namespace"], one["id"], depth, parent) for one, depth, parent in _page.tree(SNAPSHOTS)]
    assert shown[:2] == [("default", 5, 0, ""), ("k8s.io", 1, 0, "")]
    assert ("k8s.io", 4, 2, "2") in shown


def shown(entry):
    """Return the text of a page with this node, without its style sheet and script."""
    page = "".join(_page.page(_report.report_of(AUDITED, [entry])))
    body = page.partition("</style>")[2].partition("<script>")[0]
    return " ".join(re.sub("<[^>]*>", "", re.sub("<d[dt]>", " ", body)).split())


def test_the_page():
    page = shown(node())
    for text in (
        "containerd service containerd, running Snapshotter windows Root",
        "3.0 MiB by containerd&#39;s next garbage collection",
        "4.0 MiB by store_check with repair: true",
        "6.0 MiB by a restart of the node, because files are in use",
        "nothing: garbage collection removes it",
        "container web",
        "image registry.example.com/app:1 and 3 more",
    ):
        assert text in page, text
    clean = node(findings=[], inventory=SNAPSHOTS[:5], containerd={**CONTAINERD, "running": False, "program": ""})
    page = shown(clean)
    assert "Can be freed nothing: something needs each snapshot" in page
    assert "containerd no service or process found, stopped" in page


def test_a_node_of_our_own_store_has_none_of_it():
    own = ("namespace", "directory", "used_by", "collectable")
    inventory = [{name: value for name, value in one.items() if name not in own} for one in SNAPSHOTS[1:5]]
    check = {name: value for name, value in node().items() if name in ("counts", "free", "total", "reclaimable")}
    check.update(exists=True, healthy=True, summary="", findings=[], inventory=inventory)
    plain = _report.node_of("node1", AUDITED, check)
    assert not {"containerd", "users", "freeable"} & set(plain)
    page = shown(plain)
    assert "Needed by" not in page
    assert "containerd" not in page


def entry(snapshots=SNAPSHOTS, reclaimable=8, total=1000, free=600):
    return {
        "snapshots": snapshots,
        "reclaimable": reclaimable * MIB,
        "total": total and total * MIB,
        "free": free and free * MIB,
    }


def mib(found):
    return {use: size // MIB for use, size in found.items()}


def test_each_byte_of_the_disk_counts_once():
    leased = snapshot(8, "leased", mib=11, leases=["build"])
    found = _report_usage.disk(entry([*SNAPSHOTS, leased]))
    assert sum(found.values()) == 1000 * MIB
    assert mib(found) == {
        "images": 150,
        "containers": 5,
        "leases": 11,
        "held": 7,
        # Two snapshots that nothing needs, and what findings take.
        "reclaimable": 3 + 2 + 8,
        "rest": 400 - 150 - 5 - 11 - 7 - 13,
        "free": 600,
    }


def test_the_disk_of_our_own_store():
    snapshots = [
        {"kind": kind, "usage": usage and {"size": usage * MIB}}
        for kind, usage in (("committed", 100), ("active", 20), ("view", 3), ("active", None))
    ]
    assert mib(_report_usage.disk(entry(snapshots))) == {
        "images": 100,
        "containers": 23,
        "leases": 0,
        "held": 0,
        "reclaimable": 8,
        "rest": 269,
        "free": 600,
    }


@pytest.mark.parametrize("free", [0, 900, 1000, 2000])
def test_sizes_that_do_not_fit_the_disk(free):
    found = _report_usage.disk(entry(free=free))
    assert min(found.values()) >= 0
    assert sum(found.values()) == 1000 * MIB
    assert found["free"] == min(free, 1000) * MIB


@pytest.mark.parametrize("total", [None, 0])
def test_a_disk_that_is_not_known(total):
    assert _report_usage.disk(entry([], total=total, free=total)) == {}
