# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many snapshots in one task against lab nodes over psrp and winrm: the manual's examples, failures and bytes."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import snapshot, snapshot_set
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

GIB = 1024**3

BASE = (
    {"wcow.snapshotter.snapshot": {"key": "base-key"}},
    {"wcow.snapshotter.snapshot": {"key": "base-key", "name": "servercore", "state": "committed"}},
)


@pytest.fixture
def lab(tmp_path):
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


def stated(*snapshots, **options):
    return {"wcow.snapshotter.snapshot_set": {"snapshots": list(snapshots), **options}}


def test_the_options_of_an_item_are_those_of_the_module_snapshot():
    single = yaml.safe_load(snapshot.DOCUMENTATION)["options"]
    item = yaml.safe_load(snapshot_set.DOCUMENTATION)["options"]["snapshots"]["suboptions"]
    shared = ("type", "choices", "default")
    assert {name: [option.get(key) for key in shared] for name, option in item.items()} == {
        name: [option.get(key) for key in shared] for name, option in single.items()
    }


def test_the_examples(lab):
    old = {"key": "job-0", "parent": "servercore", "labels": {"example.com/job": "0"}}
    workspaces, of_list, layered, removal = yaml.safe_load(snapshot_set.EXAMPLES)
    planned = {**workspaces, "check_mode": True, "diff": True}
    tasks = [*BASE, stated(old), planned, workspaces, workspaces, layered, layered, removal, removal, of_list]
    for node, results in lab.play(*tasks).items():
        assert not any(result.get("failed") for result in results), (node, results)
        planned, made, made_again, built, built_again, removed, removed_again, listed = results[len(BASE) + 1 :]
        for result in (planned, made):
            assert result["actions"] == ["prepare job-1", "prepare job-2", "view look-1", "remove job-0"]
            assert [entry["name"] for entry in result["pruned"]] == ["job-0"]
        assert planned["diff"]["before"].keys() == {"job-0"}
        assert planned["diff"]["after"].keys() == {"job-1", "job-2", "look-1"}
        assert [entry["name"] for entry in made["outcomes"]] == ["job-1", "job-2", "look-1"]
        assert made["outcomes"][0]["snapshot"]["rootfs_size"] == 40 * GIB
        assert built["actions"] == ["prepare app-work", "commit app", "prepare app-test"]
        assert removed["actions"] == ["remove job-1", "remove job-2", "remove app-test", "remove app"]
        assert [result["changed"] for result in (made_again, built_again, removed_again)] == [False] * 3
        assert listed["actions"] == ["prepare build", "prepare test"]
        assert [entry["snapshot"]["rootfs_size"] for entry in listed["outcomes"]] == [40 * GIB, 60 * GIB]


def test_a_failure_and_what_became_of_the_others(lab):
    items = (
        {"key": "work", "parent": "servercore"},
        {"key": "bad", "parent": "missing", "creates": "app"},
        {"name": "app", "key": "bad", "state": "committed"},
        {"key": "more", "parent": "servercore"},
    )
    tasks = [*BASE, stated(*items, on_error="continue"), stated(items[0], items[0])]
    tasks += [stated(items[0], {"key": "b", "labels": {"version": 1.10}}), stated({"state": "committed"})]
    tasks += [stated(items[0], prune=True), stated({"key": "x", "size": "1GB"})]
    for _base, _committed, failed, twice, label, no_name, no_filter, unknown in lab.play(*tasks).values():
        assert failed["failed"]
        assert failed["changed"]
        assert failed["msg"] == (
            "1 of 4 snapshots failed (1 not run because of that); the first: snapshots[1], "
            '"bad": failed to create snapshot: missing parent "missing" bucket: not found. '
            "Create or import the parent first, or correct its name; snapshot_info lists the snapshots. "
            "To name an image, set parent_image"
        )
        assert failed["error"] == {
            "code": "not_found",
            "details": {"name": "bad", "place": "snapshots[1]", "failed": 1, "skipped": 1},
        }
        assert [sorted(set(entry) - {"name", "changed", "actions"}) for entry in failed["outcomes"]] == [
            ["snapshot"],
            ["error"],
            ["skipped"],
            ["snapshot"],
        ]
        assert 'snapshots[0] and snapshots[1] are both about "work"' in twice["msg"]
        assert "snapshots[1]: The label 'version' has the value 1.1, which YAML does not read as text" in label["msg"]
        assert "state is committed but all of the following are missing: name found in snapshots" in no_name["msg"]
        assert "prune is True but all of the following are missing: prune_filters" in no_filter["msg"]
        assert "snapshots.size" in unknown["msg"]


@pytest.mark.long
def test_five_hundred_snapshots_in_one_task(lab):
    """The task takes one command on the node and at most 3 MB in both directions, even with all possible results."""
    count = 500
    items = [
        {
            "key": f"build-agent-{number:04}",
            "parent": "servercore",
            "labels": {"example.com/team": "blue", "example.com/number": str(number)},
        }
        for number in range(count)
    ]
    lab.play(*BASE)
    before = lab.requests()
    task = {**stated(*items, prune=True, prune_filters=['labels."example.com/team"==blue']), "diff": True}
    for (made,) in lab.play(task).values():
        assert not made.get("failed"), made
        assert len(made["actions"]) == len(made["outcomes"]) == len(made["diff"]["after"]) == count
    between = lab.requests()
    for (again,) in lab.play(task).values():
        assert not again["changed"]
    after = lab.requests()
    for node in lab.nodes:
        for start, end in ((before, between), (between, after)):
            requests = end[node][len(start[node]) :]
            assert [entry["action"] for entry in requests].count("Command") == 1
            size = sum(entry["received"] + entry["sent"] for entry in requests)
            assert size < 1_500_000, (node, size)
