# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Invented fleets: results in the form that the modules return, with the proportions of real nodes."""

from __future__ import annotations

import hashlib
import random

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.findings import CODES
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _report

GIB = 1024**3
AUDITED = "2026-11-24T08:36:01Z"
CONTAINERD = r"C:\ProgramData\containerd\root"
REGISTRY = "registry.example.com"
_USED_BY = ("images", "containers", "sandboxes", "leases", "roots", "content", "ingests", "children")
TEAMS = ("payments", "search", "platform", "web")
#: What the proxy snapshotter of a store says about itself.
HEALTH = {
    "version": "0.1.0",
    "uptime": 9 * 86_400_000,
    "calls": 48_213,
    "errors": 2,
    "last_error": "prepare: the parent snapshot does not exist: not found",
    "slowest_method": "Commit",
    "slowest_time": 2140,
    "running": 0,
    "pending_removals": 1,
    "process": 4711,
    "root": r"C:\ProgramData\wcow",
}
SERVED = {"address": r"\\.\pipe\wcow-snapshotter", "snapshotter": "wcow", "health": HEALTH, "problem": ""}
#: Names that attack the report.
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
    """Return image chains that share base layers, each with the containers that use it."""
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
    """Return one node. Of a hundred nodes, one is unreachable, one fails, and one has no store."""
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
    """Return the report of this number of nodes and snapshots per node. It is the same for the same numbers."""
    chance = random.Random(4711)
    return _report.report_of(AUDITED, [node(chance, number, count) for number in range(1, nodes + 1)])


def of_containerd(name="winnode001", odd=()):
    """Return the report of a node with a containerd store. ``odd`` are names for its containers."""
    inventory = snapshots(random.Random(4711), 12)
    parents = {one["name"]: one["parent"] for one in inventory}
    needed = {one["name"]: dict.fromkeys(_USED_BY, ()) for one in inventory}
    for one in inventory:
        if one["kind"] == "committed":
            needed[one["name"]]["images"] = [f"{REGISTRY}/base:1"]
    active = [one["name"] for one in inventory if one["kind"] == "active"]
    unused = active.pop()
    for number, key in enumerate(active):
        container = odd[number] if number < len(odd) else f"web-{number}"
        above = key
        while above:
            needed[above] = {**needed[above], "containers": [*needed[above]["containers"], container]}
            above = parents[above]
    for one in inventory:
        used_by = dict.fromkeys(_USED_BY, ()) if one["name"] == unused else needed[one["name"]]
        one.update(
            namespace="k8s.io",
            directory=rf"{CONTAINERD}\io.containerd.snapshotter.v1.windows\snapshots\{one['id']}",
            used_by={kind: list(names) for kind, names in used_by.items()},
            collectable=one["name"] == unused,
        )
    path = rf"{CONTAINERD}\io.containerd.snapshotter.v1.windows\snapshots\rm-7"
    found = [{**finding("leftover_removal", "", 7, f"{path} waits to be destroyed", 3 * GIB), "path": path}]
    where = {
        "root": CONTAINERD,
        "address": r"\\.\pipe\containerd-containerd",
        "snapshotter": "windows",
        "namespaces": ["k8s.io"],
        "sources": dict.fromkeys(("root", "address", "snapshotter"), "containerd's default"),
        "running": True,
        "program": "service containerd",
    }
    result = {**check(found, inventory), "containerd": where}
    return _report.report_of(AUDITED, [_report.node_of(name, AUDITED, result)])


_APPS = ("shop/checkout:2.14.1", "shop/catalog:1.9.0", "search/indexer:7.3", "platform/log-shipper:0.28.4")
_BASES = ("windows/nanoserver:ltsc2022", "windows/servercore:ltsc2022")


def _used(chance, name, left, free):
    """Return the check of a node with containerd: images on shared bases, their containers, a lease, leftovers."""
    made = []

    def add(key, parent="", kind="committed", size=GIB, **used_by):
        disk = 20 * GIB if kind == "active" else None
        one = snapshot(len(made) + 1, key, kind, parent, size=size, disk=disk)
        needs = {kind: list(used_by.get(kind, ())) for kind in _USED_BY}
        one.update(
            namespace="k8s.io",
            directory=rf"{CONTAINERD}\io.containerd.snapshotter.v1.windows\snapshots\{one['id']}",
            used_by=needs,
            collectable=not any(needs.values()),
        )
        made.append(one)
        return key

    def digest(text):
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    for base in _BASES:
        apps = [f"{REGISTRY}/{app}" for app in chance.sample(_APPS, 2)]
        images = [f"mcr.example.com/{base}", *apps]
        images += [digest("config of " + app) for app in apps]
        parent = add(digest(base), size=chance.randrange(3, 6) * GIB, images=images)
        for app in apps:
            names = [app, digest("config of " + app)]
            top = add(digest(app + base), parent, size=chance.randrange(200 << 20, 3 * GIB), images=names)
            for number in range(chance.randrange(1, 5)):
                pod = f"{app.rpartition('/')[2].partition(':')[0]}-{digest(app)[7:15]}-{number}"
                add(pod, top, "active", chance.randrange(100 << 20, 6 * GIB), containers=[pod])
    add("build-cache-17", digest(_BASES[0]), "active", chance.randrange(GIB, 9 * GIB), leases=["buildkit-17"])
    add("extract-412209-aQ1f " + digest("unpacked"), digest(_BASES[1]), "active", chance.randrange(GIB, 4 * GIB))
    found = [] if free >= 20 * GIB else [finding("low_free_space", message=f"{free} of {256 * GIB} bytes are free")]
    for number in range(left):
        path = rf"{CONTAINERD}\io.containerd.snapshotter.v1.windows\snapshots\rm-{40 + number}"
        message = f"{path} waits to be destroyed; containerd does not try again"
        found.append(
            {**finding("leftover_removal", "", 40 + number, message, chance.randrange(1, 14) * GIB), "path": path}
        )
    if left > 2:
        found.append(finding("damaged_scratch", made[3]["name"], 4, f'A disk of "{made[3]["name"]}" cannot be read'))
    where = {
        "root": CONTAINERD,
        "address": r"\\.\pipe\containerd-containerd",
        "snapshotter": "windows",
        "namespaces": ["k8s.io"],
        "sources": dict.fromkeys(("root", "address", "snapshotter"), "containerd's default"),
        "running": True,
        "program": "service containerd",
    }
    return _report.node_of(name, AUDITED, {**check(found, made, free), "containerd": where})


def mixed():
    """Return the report of twenty nodes as a company has them: build hosts with our store, a cluster of containerd."""
    chance = random.Random(12)
    nodes = [node(chance, number, 24) for number in (3, 4, 5, 6, 8, 9, 11)]
    for number, one in enumerate(nodes[:5]):
        one.update(rootfs_size=40 * GIB, proxy_snapshotter={**SERVED, "health": HEALTH if number else None})
    names = [f"aks-win-{pool}-{number:02}.west.corp.example.com" for pool in ("shop", "search") for number in range(6)]
    for number, name in enumerate(names):
        left = (0, 0, 3, 0, 1, 0)[number % 6]
        nodes.append(_used(chance, name, left, chance.choice((4, 18, 44, 61, 90, 123, 150)) * GIB))
    message = "wcow.snapshotter.store_check: the connection failed during 'check' on this host. Run it again."
    nodes.append(
        _report.node_of("aks-win-edge-00.west.corp.example.com", AUDITED, {"unreachable": True, "msg": message})
    )
    return _report.report_of(AUDITED, nodes)


def hostile():
    """Return the report of nodes on which everything has a hostile name."""
    inventory = [snapshot(1, "base")]
    for number, name in enumerate(HOSTILE, 2):
        inventory.append(snapshot(number, name, "active", "base", {name: name}, disk=40 * GIB))
    found = [finding("damaged_scratch", name, 2, f'The scratch disk of "{name}" is damaged') for name in HOSTILE]
    result = check(found, inventory, summary=HOSTILE[0])
    nodes = [_report.node_of("plain", AUDITED, check(inventory=[snapshot(1, "base")]))]
    nodes += [_report.node_of(name, AUDITED, result) for name in HOSTILE]
    return _report.report_of(AUDITED, nodes)
