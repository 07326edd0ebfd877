# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up fleets: results as the modules return them, in the proportions of real nodes."""

from __future__ import annotations

import hashlib
import random

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check import CODES
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _report

GIB = 1024**3
AUDITED = "2026-11-24T08:36:01Z"
TEAMS = ("payments", "search", "platform", "web")
#: What nobody should be able to do to a report by giving something a name.
HOSTILE = (
    "<script>document.title = 'taken over'</script>",
    "</noscript></script><img src=x onerror=\"document.title = 'taken over'\">",
    "\"'><b onmouseover=alert(1)>",
    "&lt;already&amp;escaped&gt;",
    "abc\u202egpj.exe\u2066\u200b",
    "tab\tnew\nline\x00nul\ud800",
    '=HYPERLINK("http://127.0.0.1/")',
    "long-" * 819 + "n",
    "שלום-שכבה",
)


def finding(code, snapshot="", number=None, message="", reclaimable=0):
    severity, remedy = CODES[code]
    return {
        "code": code,
        "severity": severity,
        "snapshot": snapshot,
        "id": number,
        "path": "",
        "message": message,
        "remedy": remedy,
        "reclaimable": reclaimable,
        "repairable": "repair=true" in remedy,
        "repaired": False,
        "action": "",
    }


def snapshot(number, name, kind="committed", parent="", labels=None, size=200 << 20, disk=None):
    return {
        "name": name,
        "kind": kind,
        "parent": parent,
        "id": number,
        "labels": labels or {},
        "created": f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}T08:36:01.123456789Z",
        "updated": AUDITED,
        "usage": {"size": size, "inodes": size >> 15},
        "scratch": disk
        and {
            "path": rf"C:\ProgramData\wcow\snapshots\{number}\sandbox.vhdx",
            "virtual_size": disk,
            "file_size": size,
            "attached": False,
            "volume_size": None,
        },
    }


def snapshots(chance, count):
    """Image chains that share base layers, each with the containers that use it."""
    made = []

    def add(name, **keywords):
        made.append(snapshot(len(made) + 1, name, **keywords))
        return name

    def chain_id(text):
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    base = add(chain_id("base"), size=5 * GIB)
    patch = add(chain_id("patch"), parent=base, size=2 * GIB)
    tops = [base, patch]
    while len(made) < count:
        if chance.random() < 0.45:
            parent = chance.choice(tops[-6:])
            tops.append(add(chain_id(f"{len(made)}"), parent=parent, size=chance.randrange(1 << 20, 900 << 20)))
        else:
            labels = {
                "example.com/team": chance.choice(TEAMS),
                "containerd.io/gc.root": "2026-11-24T08:36:01Z",
            }
            disk = chance.choice((20, 40, 40, 120)) * GIB
            add(
                f"{chance.choice(TEAMS)}-{len(made)}",
                kind="active",
                parent=chance.choice(tops),
                labels=labels,
                size=int(disk * chance.random() ** 3),
                disk=disk,
            )
    return made[:count]


def check(found=(), inventory=(), free=80 * GIB, total=256 * GIB, summary=None):
    counts = {level: sum(one["severity"] == level for one in found) for level in ("error", "warning", "notice")}
    problems = counts["error"] + counts["warning"]
    return {
        "exists": True,
        "healthy": not problems,
        "summary": summary or f"{len(inventory)} snapshots, {problems or 'no'} problem{'' if problems == 1 else 's'}",
        "counts": counts,
        "reclaimable": sum(one["reclaimable"] for one in found),
        "free": free,
        "total": total,
        "findings": list(found),
        "inventory": list(inventory),
    }


def node(chance, number, count):
    """One node; of a hundred one is unreachable, one fails, and one has no store."""
    name = f"winbuild{number:03}"
    if number % 100 == 7:
        message = "wcow.snapshotter.store_check: the connection failed during 'check' on this host. Run it again."
        return _report.node_of(name, AUDITED, {"unreachable": True, "msg": message})
    if number % 100 == 11:
        message = 'There is no Python at "C:\\Program Files\\wcow\\python\\python.exe" on the node'
        return _report.node_of(name, AUDITED, {"failed": True, "msg": message})
    if number % 100 == 13:
        empty = {**check(summary="There is no store here"), "exists": False}
        return _report.node_of(name, AUDITED, empty)
    inventory = snapshots(chance, count)
    found = []
    if chance.random() < 0.06:
        left = chance.randrange(1, 60)
        path = rf"C:\ProgramData\wcow\snapshots\rm-{left}"
        found.append(
            finding("leftover_removal", "", left, f"{path} waits to be destroyed", chance.randrange(GIB, 9 * GIB))
        )
    if chance.random() < 0.03:
        lost = chance.choice(inventory)
        found.append(
            finding("damaged_scratch", lost["name"], lost["id"], f'The scratch disk of "{lost["name"]}" is damaged')
        )
    if chance.random() < 0.02:
        found.append(finding("stale_locks", message="3 lock files belong to snapshots that are gone"))
    free = chance.randrange(2, 180) * GIB
    if free < 10 * GIB:
        found.append(
            finding("low_free_space", message=f"{free} of {256 * GIB} bytes are free on the volume of the store")
        )
    return _report.node_of(name, AUDITED, check(found, inventory, free))


def fleet(nodes, count):
    """The report about so many nodes with so many snapshots each. The same numbers make the same fleet."""
    chance = random.Random(4711)
    return _report.report_of(AUDITED, [node(chance, number, count) for number in range(1, nodes + 1)])


def hostile():
    """The report about one node on which everything has a hostile name."""
    inventory = [snapshot(1, "base")]
    for number, name in enumerate(HOSTILE, 2):
        inventory.append(snapshot(number, name, "active", "base", {name: name}, disk=40 * GIB))
    found = [finding("damaged_scratch", name, 2, f'The scratch disk of "{name}" is damaged') for name in HOSTILE]
    result = check(found, inventory, summary=HOSTILE[0])
    nodes = [_report.node_of("plain", AUDITED, check(inventory=[snapshot(1, "base")]))]
    nodes += [_report.node_of(name, AUDITED, result) for name in HOSTILE]
    return _report.report_of(AUDITED, nodes)
