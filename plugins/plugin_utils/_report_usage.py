# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what uses the bytes of a containerd store, and which of them can be freed.

Snapshots and findings have the shapes that ``store_check`` returns with
``store: containerd``.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

#: The lists of ``used_by`` -> what each of them names. Children are not here: they need nothing by themselves.
KINDS: Dict[str, str] = {
    "images": "image",
    "containers": "container",
    "sandboxes": "sandbox",
    "leases": "lease",
    "roots": "root label",
    "content": "content",
    "ingests": "ingest",
}

#: The shapes of ``users`` and ``freeable`` in report.json.
USERS: List[Dict[str, Any]] = [
    {
        "kind": str,
        "namespace": str,
        "name": str,
        "other_names": [str],
        "snapshots": int,
        "size": (int,),
        "alone": (int,),
    }
]
FREEABLE: List[Dict[str, Any]] = [{"how": str, "what": str, "namespace": str, "size": (int,)}]

#: What the core says about files that only a restart of the node closes (check/destruction.py).
_IN_USE = ("; in use: ", "scheduled for the next start of the node")

_Snapshots = Sequence[Mapping[str, Any]]


def users(snapshots: _Snapshots) -> List[Dict[str, Any]]:
    """Return what uses the snapshots: images, containers, leases and so on, those with the most bytes first.

    ``size`` has the bytes of all snapshots that it needs, parents included.
    ``alone`` has the bytes of those that nothing else needs: its removal frees
    them. Both are None if a usage was not measured. Names of images that need
    the same snapshots are one entry, because CRI gives each image several.
    """
    needed = _needed_by(snapshots)
    counts: Dict[int, int] = {}
    for numbers in needed:
        for number in numbers[-1]:
            counts[number] = counts.get(number, 0) + 1
    found = [
        {
            "kind": kind,
            "namespace": namespace,
            "name": names[0],
            "other_names": names[1:],
            "snapshots": len(numbers),
            "size": _sum(snapshots, list(numbers)),
            "alone": _sum(snapshots, [number for number in numbers if counts[number] == 1]),
        }
        for kind, namespace, names, numbers in needed
    ]
    return sorted(found, key=lambda user: (-(user["alone"] or 0), -(user["size"] or 0), user["kind"], user["name"]))


def _needed_by(snapshots: _Snapshots) -> List[Tuple[str, str, List[str], FrozenSet[int]]]:
    """Return kind, namespace, names, and the positions of the snapshots that are needed, for each user."""
    numbers: Dict[Tuple[str, str, str], List[int]] = {}
    for number, snapshot in enumerate(snapshots):
        for plural, kind in KINDS.items():
            for name in snapshot.get("used_by", {}).get(plural, ()):
                numbers.setdefault((kind, snapshot.get("namespace", ""), name), []).append(number)
    names: Dict[Tuple[str, str, str, FrozenSet[int]], List[str]] = {}
    for (kind, namespace, name), needed in numbers.items():
        same = "" if kind == "image" else name
        names.setdefault((kind, namespace, same, frozenset(needed)), []).append(name)
    # The name that people use comes first, not the digest.
    return [
        (kind, namespace, sorted(group, key=lambda name: (name.startswith("sha256:"), name)), needed)
        for (kind, namespace, _same, needed), group in names.items()
    ]


def freeable(snapshots: _Snapshots, findings: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Return what can be freed, the most bytes first.

    ``how`` is one of these:

    * ``collection``: containerd's next garbage collection frees it
    * ``repair``: ``store_check`` with ``repair: true`` frees it
    * ``restart``: its files are in use, so it takes a restart of the node
    * ``manual``: the remedy of the finding says how
    """
    found: List[Dict[str, Any]] = []
    for snapshot in snapshots:
        if snapshot.get("collectable"):
            is_attached = bool(snapshot["scratch"] and snapshot["scratch"]["attached"])
            usage = snapshot["usage"]
            found.append(
                {
                    "how": "restart" if is_attached else "collection",
                    "what": snapshot["name"],
                    "namespace": snapshot.get("namespace", ""),
                    "size": usage["size"] if usage else None,
                }
            )
    for finding in findings:
        if finding["reclaimable"] and not finding["repaired"]:
            is_used = any(text in finding["action"] for text in _IN_USE)
            how = "restart" if is_used else "repair" if finding["repairable"] else "manual"
            what = finding["path"] or finding["snapshot"]
            found.append({"how": how, "what": what, "namespace": "", "size": finding["reclaimable"]})
    return sorted(found, key=lambda one: (-(one["size"] or 0), one["what"]))


def _sum(snapshots: _Snapshots, numbers: Sequence[int]) -> Optional[int]:
    usages = [snapshots[number]["usage"] for number in numbers]
    return None if any(usage is None for usage in usages) else sum(usage["size"] for usage in usages)


#: What can use the volume of a store -> the words of the page.
USES: Dict[str, str] = {
    "images": "images",
    "containers": "containers",
    "leases": "held by leases",
    "held": "other snapshots",
    "reclaimable": "reclaimable",
    "rest": "other files",
    "free": "free",
}


def disk(node: Mapping[str, Any]) -> Dict[str, int]:
    """Return how many bytes of the volume each of ``USES`` takes, for a node of the report. Empty if that is unknown.

    Each byte counts once. A snapshot of containerd's store counts for the
    first of these that needs it: an image, a container or sandbox, a lease,
    something else. In our own store, committed snapshots count as images, and
    active snapshots and views as containers. ``rest`` is what is not of the
    store. It also has the layers that were not measured.
    """
    if not node["total"]:
        return {}
    found = dict.fromkeys(USES, 0)
    for snapshot in node["snapshots"]:
        if snapshot["usage"]:
            found[_use(snapshot)] += snapshot["usage"]["size"]
    found["reclaimable"] += node["reclaimable"] or 0
    found["free"] = min(node["free"], node["total"])
    used = node["total"] - found["free"]
    # Hard links and sparse files take less than their size. No bar may be longer than the disk.
    counted = sum(size for use, size in found.items() if use != "free")
    if counted > used:
        found = {use: size if use == "free" else size * used // counted for use, size in found.items()}
    found["rest"] = node["total"] - sum(found.values())
    return found


def _use(snapshot: Mapping[str, Any]) -> str:
    if "used_by" not in snapshot:
        return "images" if snapshot["kind"] == "committed" else "containers"
    if snapshot.get("collectable"):
        return "reclaimable"
    needed = snapshot["used_by"]
    if needed["images"]:
        return "images"
    if needed["containers"] or needed["sandboxes"]:
        return "containers"
    return "leases" if needed["leases"] else "held"
