# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Use containerd's own store as users do, against lab nodes with a simulated containerd over psrp and winrm."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CONTAINERD_LAYERS

NODES = ("node1", "node2")
GIB = 1024**3
IMAGE = "registry.example.com/library/windows-base:1.0"

#: Each kind of damage, and the code of its finding.
DAMAGES = {
    "leftover": "leftover_removal",
    "orphan": "uncollected_record",
    "next-directory": "next_directory",
    "dangling-child": "dangling_child",
    "lost-backend": "missing_record",
}


@pytest.fixture
def lab(lab_with_containerd):
    return lab_with_containerd


def info(**options):
    return {"wcow.snapshotter.snapshot_info": {"store": "containerd", **options}}


def check(**options):
    return {"wcow.snapshotter.store_check": {"store": "containerd", **options}}


def test_what_needs_each_snapshot(lab):
    lab.play(info())
    before = {node: len(requests) for node, requests in lab.requests().items()}
    tasks = (
        info(usage=True, scratch=True, mounts=True),
        info(filters=["kind==active"], namespace="k8s.io"),
        info(namespace="default"),
        info(snapshotter="overlayfs"),
        info(address=r"\\.\pipe\other"),
    )
    found = lab.play(*tasks)
    after = {node: len(requests) for node, requests in lab.requests().items()}
    # Each task is one round trip: 6 requests with psrp, 7 with winrm.
    assert {node: after[node] - before[node] for node in NODES} == {"node1": 5 * 6, "node2": 5 * 7}
    for whole, active, nowhere, other, elsewhere in found.values():
        assert not whole.get("failed"), whole
        lease, base, container = whole["snapshots"]
        assert [one["name"] for one in (lease, container)] == ["build-1", "web"]
        assert {one["namespace"] for one in whole["snapshots"]} == {"k8s.io"}
        assert not any(one["collectable"] for one in whole["snapshots"])
        assert container["used_by"]["containers"] == ["web"]
        assert lease["used_by"]["leases"] == ["build-cache"]
        image, digest = base["used_by"]["images"]
        assert (image, digest[:7]) == (IMAGE, "sha256:")
        assert base["used_by"]["children"] == ["build-1", "web"]
        assert base["usage"]["size"] > 0
        assert (base["scratch"], container["scratch"]["virtual_size"]) == (None, 20 * GIB)
        assert base["directory"] == container["mounts"][0]["source"][:-1] + "1" == rf"{CONTAINERD_LAYERS}\snapshots\1"
        store = whole["containerd"]
        assert (store["program"], store["running"], store["namespaces"]) == ("service containerd", True, ["k8s.io"])
        assert store["sources"]["root"] == "containerd's default"

        assert [one["name"] for one in active["snapshots"]] == ["build-1", "web"]
        assert nowhere["error"]["code"] == "not_found"
        assert "no namespace 'default'; it has k8s.io" in nowhere["msg"]
        assert "overlayfs" in other["msg"]
        assert r"\\.\pipe\other" in elsewhere["msg"]


def test_a_stopped_containerd(lab):
    for node in NODES:
        lab.damage_containerd(node, "stopped")
    listed = lab.play(info(), check())
    for found, checked in listed.values():
        assert (found["containerd"]["running"], len(found["snapshots"])) == (False, 3)
        assert (checked["healthy"], checked["containerd"]["running"]) == (True, False)
    for node in NODES:
        lab.damage_containerd(node, "started")
    for (found,) in lab.play(info()).values():
        assert (found["containerd"]["running"], len(found["snapshots"])) == (True, 3)


def test_each_damage(lab):
    """Damage nodes, audit them, repair them while containerd runs, and audit them again."""
    for node in NODES:
        for kind in DAMAGES:
            lab.damage_containerd(node, kind)
    tasks = (check(inventory=True), {**check(repair=True), "check_mode": True}, check(repair=True), check())
    for broken, planned, repaired, after in lab.play(*tasks).values():
        findings = {finding["code"]: finding for finding in broken["findings"]}
        assert set(findings) == set(DAMAGES.values())
        assert (broken["healthy"], broken["changed"]) == (False, False)
        assert broken["reclaimable"] == sum(finding["reclaimable"] for finding in broken["findings"]) > 0
        assert all(finding["remedy"] and finding["repairable"] for finding in broken["findings"])
        names = [one["name"] for one in broken["inventory"]]
        assert findings["dangling_child"]["snapshot"] in names
        assert findings["missing_record"]["snapshot"] not in names

        actions = {finding["code"]: finding["action"] for finding in planned["findings"]}
        assert (planned["changed"], actions["leftover_removal"]) == (True, "would be destroyed")
        assert all(action.startswith("would be ") for action in actions.values())
        assert (repaired["changed"], repaired["healthy"]) == (True, True), repaired["findings"]
        assert repaired["reclaimed"] == broken["reclaimable"]
        assert (after["healthy"], after["findings"]) == (True, [])


def test_a_repair_makes_a_store_healthy(lab):
    for node in NODES:
        lab.damage_containerd(node, "leftover")
    tasks = (check(), check(repair=True), check(repair=True))
    for broken, repaired, again in lab.play(*tasks).values():
        assert "waits to be destroyed; containerd does not try again" in broken["summary"]
        assert (repaired["changed"], repaired["healthy"]) == (True, True)
        assert [finding["action"] for finding in repaired["findings"]] == ["destroyed"]
        assert (again["changed"], again["summary"]) == (False, "3 snapshots, no problems")


def store(**options):
    return {"wcow.snapshotter.store": {"store": "containerd", **options}}


def test_the_preflight(lab):
    lab.damage_containerd("node2", "stopped")
    found = lab.play(store(), store(state="absent"), store(snapshotter="native"))
    for _present, absent, other in found.values():
        assert (absent["failed"], absent["error"]["code"]) == (True, "not_implemented")
        assert "To free its space, remove images and containers" in absent["msg"]
        assert "the snapshotter native" in other["msg"]
    ready, stopped = (found[node][0] for node in NODES)
    assert (ready["changed"], ready["store"]["snapshots"]) == (False, 3)
    assert ready["preflight"]["snapshotters"] == ["windows"]
    assert stopped["error"]["code"] == "failed_precondition"
    assert r"does not answer at \\.\pipe\containerd-containerd" in stopped["msg"]
    assert "Start containerd" in stopped["msg"]
    preflight = stopped["error"]["details"]["preflight"]
    assert (preflight["running"], preflight["schema"]) == (False, ready["preflight"]["schema"])


def play(lab, playbook, *options, **variables):
    """Run a playbook of the collection on containerd's store. Return the exit code and the output."""
    given = {"wcow_store": "containerd", "wcow_minimum_free": "1B", **variables}
    process = lab.ansible_playbook(f"wcow.snapshotter.{playbook}", "-e", json.dumps(given), *options)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output.replace("\\\\", "\\")


def audited(lab):
    return json.loads((lab.controller() / "wcow-report/report.json").read_text())["nodes"]


def test_the_audit(lab):
    """Nothing changes on nodes. The report says what uses the disk, what needs it, and what can be freed."""
    lab.damage_containerd("node1", "leftover")
    code, output = play(lab, "audit")
    assert code == 2, output
    assert "healthy: 3 snapshots, no problems" in output
    assert "changed=1" not in output
    broken, healthy = audited(lab)
    assert (broken["node"], broken["state"], healthy["state"]) == ("node1", "unhealthy", "healthy")
    assert [one["how"] for one in broken["freeable"]] == ["repair"]
    assert broken["freeable"][0]["size"] == broken["reclaimable"] > 0
    assert healthy["freeable"] == []
    for node in (broken, healthy):
        assert node["containerd"]["program"] == "service containerd"
        users = {(user["kind"], user["name"]): user for user in node["users"]}
        assert set(users) == {("image", IMAGE), ("container", "web"), ("lease", "build-cache")}
        sizes = {one["name"]: one["usage"]["size"] for one in node["snapshots"]}
        assert users["container", "web"]["alone"] == sizes["web"]
        assert users["container", "web"]["size"] == sizes["web"] + users["image", IMAGE]["size"]
    assert "What uses the disk" in (lab.controller() / "wcow-report/report.html").read_text()


def verdicts(output):
    """Return the verdict and its text for each node."""
    return {node: (verdict, text) for verdict, node, text in re.findall(r'"msg": "([A-Z ]+) (node\d): (.*)"', output)}


def changes(output):
    found = re.findall(r"^(node\d) +: .*changed=(\d+)", output, re.MULTILINE)
    return {node: int(count) for node, count in found}


def run_twice(lab, playbook, changed, **variables):
    """Run a playbook twice. Both runs succeed, the second changes nothing. Return the verdicts of the first."""
    code, output = play(lab, playbook, **variables)
    assert code == 0, output
    assert changes(output) == dict.fromkeys(NODES, changed), output
    code, again = play(lab, playbook, **variables)
    assert code == 0, again
    assert changes(again) == dict.fromkeys(NODES, 0), again
    return verdicts(output)


@pytest.mark.long
def test_maintenance_and_provision(lab):
    left = [lab.damage_containerd(node, "leftover") for node in NODES]
    code, output = play(lab, "maintenance", maintenance_level="check")
    assert code == 2, output
    assert all("waits to be destroyed; containerd does not try again" in text for _, text in verdicts(output).values())
    code, output = play(lab, "maintenance", "--check", maintenance_level="cleanup")
    assert code == 0, output
    assert verdicts(output)["node1"][0] == "WOULD BE HEALTHY"
    healthy = dict.fromkeys(NODES, ("HEALTHY", "3 snapshots, no problems"))
    assert run_twice(lab, "maintenance", 1, maintenance_level="cleanup", maintenance_minimum_free="1MB") == healthy
    assert not any(lab.file(node, path[3:].replace("\\", "/")).exists() for node, path in zip(NODES, left))

    # Without images, provision only verifies that everything is there.
    assert run_twice(lab, "provision", 0, store_minimum_free="1MB") == healthy
    code, output = play(lab, "provision", store_rootfs_size="40GB", store_minimum_free="60TB")
    assert code == 2, output
    said = verdicts(output)["node1"][1]
    assert "containerd has no setting rootfs_size" in said
    assert "remove the variable store_rootfs_size" in said
    assert "65970697666560 are wanted" in said
    for node in NODES:
        lab.damage_containerd(node, "stopped")
    code, output = play(lab, "provision")
    assert code == 2, output
    assert "Start containerd" in verdicts(output)["node1"][1]


@pytest.mark.long
def test_resize(lab):
    code, output = play(lab, "resize", "--check", rootfs_size_minimum="40GB")
    assert (code, changes(output)) == (0, dict.fromkeys(NODES, 1)), output
    found = verdicts(output)["node1"]
    assert found == ("WOULD BE HEALTHY", "disks that would grow: 2; 3 snapshots, no problems")
    assert "web: would grow from 20.00 GB to 40.00 GB" in output
    found = run_twice(lab, "resize", 1, rootfs_size_minimum="40GB")
    assert found == dict.fromkeys(NODES, ("HEALTHY", "disks grown: 2; 3 snapshots, no problems"))
    for (listed,) in lab.play(info(scratch=True, filters=["kind==active"])).values():
        assert {one["scratch"]["virtual_size"] for one in listed["snapshots"]} == {40 * GIB}
        sizes = {one["labels"]["containerd.io/snapshot/windows/rootfs.sizebytes"] for one in listed["snapshots"]}
        assert sizes == {str(40 * GIB)}

    # Of several namespaces, the tasks work in that of Kubernetes.
    for node in NODES:
        with Client(connect(str(lab.directory / node / "pipe/containerd-containerd"), "default")) as client:
            client.create_namespace("default")
    others = ({"key": "k"}, {"key": "k", "name": "base", "state": "committed"}, {"key": "elsewhere", "parent": "base"})
    place = {"store": "containerd", "namespace": "default"}
    for results in lab.play(*({"wcow.snapshotter.snapshot": {**place, **other}} for other in others)).values():
        assert not any(result.get("failed") for result in results), results
    code, output = play(lab, "resize", rootfs_size_minimum="50GB")
    assert code == 0, output
    found = verdicts(output)
    assert found == dict.fromkeys(NODES, ("HEALTHY", "disks grown: 2; 5 snapshots, no problems"))


def test_decommission_is_refused(lab):
    code, output = play(lab, "decommission", decommission_confirm=True)
    assert code == 2, output
    verdict, said = verdicts(output)["node1"]
    assert verdict == "NOT REMOVED"
    assert "wcow_store is containerd: containerd owns its store, and containers run from it" in said
    for (checked,) in lab.play(check()).values():
        assert checked["summary"] == "3 snapshots, no problems"
