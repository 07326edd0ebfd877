# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maintain a store as users do, with its modules and the manual, against lab nodes over psrp and winrm."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import store, store_check
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, Lab

NODES = ("node1", "node2")
GIB = 1024**3


@pytest.fixture
def lab(tmp_path):
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


def damage(lab, node):
    """Leave in a store what crashes and manual changes can leave. The store already has a snapshot."""
    root = lab.file(node, "ProgramData/wcow")
    left = root / "snapshots" / "rm-1"
    (left / "Files").mkdir(parents=True)
    (left / "Files" / "large").write_bytes(bytes(5000))
    (root / "snapshots" / "notes.txt").write_text("somebody's")
    root.chmod(0o755)
    return left


SNAPSHOTS = (
    {"wcow.snapshotter.snapshot": {"key": "gone"}},
    {"wcow.snapshotter.snapshot": {"key": "gone", "state": "absent"}},
    {"wcow.snapshotter.snapshot": {"key": "base-key"}},
    {"wcow.snapshotter.snapshot": {"key": "base-key", "name": "base", "state": "committed"}},
    {"wcow.snapshotter.snapshot": {"key": "work", "parent": "base"}},
)


def test_the_examples(lab_with_containerd):
    lab = lab_with_containerd
    tasks = [*yaml.safe_load(store.EXAMPLES), *SNAPSHOTS]
    for node, results in lab.play(*tasks).items():
        made, empty, full, containerd, *others = results
        assert [result.get("failed", False) for result in results] == [False] * len(results), (node, results)
        assert made["store"] == {
            "root": r"C:\ProgramData\wcow",
            "layers": "emulated",
            "snapshots": 0,
            "rootfs_size": 40 * GIB,
            "protected": True,
        }
        assert (made["changed"], empty["changed"], full["changed"]) == (True, False, False)
        assert (containerd["changed"], containerd["preflight"]["running"]) == (False, True)
        assert others[-1]["snapshot"]["rootfs_size"] == 40 * GIB

    left = [damage(lab, node) for node in NODES]
    checks = [task for task in yaml.safe_load(store_check.EXAMPLES) if "wcow.snapshotter.store_check" in task]
    names = [task.pop("register", None) for task in checks]
    assert names == ["check", None, "repaired", "wcow_check", None]
    assert checks[0].pop("failed_when") == "not check.healthy"
    lefts = {node: lab.damage_containerd(node, "leftover") for node in NODES}
    for node, (look, freed, repaired, whole, containerd) in lab.play(*checks).items():
        assert (look["changed"], look["healthy"]) == (False, False)
        codes = [finding["code"] for finding in look["findings"]]
        assert codes == ["foreign_entry", "leftover_removal", "unprotected_root"]
        assert look["reclaimable"] == 5000
        assert (freed["changed"], freed["reclaimed"]) == (True, 5000)
        assert (repaired["changed"], repaired["healthy"]) == (True, True)
        assert [finding["code"] for finding in repaired["findings"]] == ["foreign_entry", "unprotected_root"]
        assert repaired["summary"] == "2 snapshots, no problems, 1 repaired"
        assert "inventory" not in repaired
        assert len(whole["inventory"]) == 2
        assert all(snapshot["usage"]["inodes"] for snapshot in whole["inventory"])
        assert [finding["path"] for finding in containerd["findings"]] == [lefts[node]]
        assert (containerd["changed"], containerd["healthy"]) == (True, True)
    assert not any(path.exists() for path in left)


def test_check_mode_and_diff(lab):
    lab.play(*SNAPSHOTS)
    left = [damage(lab, node) for node in NODES]
    task = {"wcow.snapshotter.store_check": {"repair": True, "quick": True}, "check_mode": True, "diff": True}
    for (planned,) in lab.play(task).values():
        assert planned["changed"]
        assert not planned["healthy"]
        actions = {finding["code"]: finding["action"] for finding in planned["findings"]}
        assert actions == {
            "foreign_entry": "",
            "leftover_removal": "would be destroyed",
            "unprotected_root": "would be protected",
        }
        assert len(planned["diff"]["before"]["findings"]) == 3
        assert len(planned["diff"]["after"]["findings"]) == 1
    assert all(path.exists() for path in left)
    remove = {"wcow.snapshotter.store": {"state": "absent", "force": True}}
    for planned, refused, done, again in lab.play(
        {**remove, "check_mode": True}, {"wcow.snapshotter.store": {"state": "absent"}}, remove, remove
    ).values():
        assert planned["actions"] == done["actions"] == ["remove work", "remove base", "remove"]
        assert "has 2 snapshots (base, work); remove them first" in refused["msg"]
        assert (done["changed"], again["changed"]) == (True, False)
    for node in NODES:
        # notes.txt was in the directory of layers. A forced removal deletes everything there.
        assert not lab.file(node, "ProgramData/wcow").exists()


def test_the_tasks_of_the_manual(lab):
    """Run all tasks of docs/recovery.md unchanged."""
    manual = (CHECKOUT / "docs" / "recovery.md").read_text(encoding="utf-8")
    texts = re.findall(r"^( *)```yaml\n(.*?)^ *```", manual, re.DOTALL | re.MULTILINE)
    tasks = [task for _indent, text in texts for task in yaml.safe_load(text)]
    assert len(tasks) == 6
    lab.play(*SNAPSHOTS)
    for node in NODES:
        damage(lab, node)
    playbook = lab.controller() / "recovery.yml"
    playbook.write_text(json.dumps([{"hosts": "windows", "gather_facts": False, "tasks": tasks}]))
    process = lab.ansible_playbook(playbook)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert output.count("5000 bytes freed, 0 more are held by something") == 2, output

    # Run the last two tasks again, in the situation that they are for.
    for node in NODES:
        for path in lab.file(node, "ProgramData/wcow").glob("metadata.sqlite3*"):
            path.unlink()
    *_, begin, destroy = tasks
    repair = {"wcow.snapshotter.store_check": {"repair": True, "quick": True}}
    for _begun, kept, destroyed in lab.play(begin, repair, destroy).values():
        assert [finding["code"] for finding in kept["findings"]] == ["foreign_entry", *["unknown_directory"] * 2]
        assert (kept["changed"], kept["healthy"], kept["reclaimable"]) == (False, False, 0)
        assert (destroyed["changed"], destroyed["healthy"]) == (True, True)
        assert destroyed["reclaimed"] > 0
    for node in NODES:
        assert [path.name for path in lab.file(node, "ProgramData/wcow/snapshots").iterdir()] == ["notes.txt"]
