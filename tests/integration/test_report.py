# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit as users run it: real ansible-playbook, lab nodes in every state, and what the report says of them."""

from __future__ import annotations

import csv
import json
import re
import socket

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import report
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, Lab

AUDIT = "wcow.snapshotter.audit"
GIB = 1024**3

SNAPSHOTS = (
    {"wcow.snapshotter.snapshot": {"key": "gone"}},
    {"wcow.snapshotter.snapshot": {"key": "gone", "state": "absent"}},
    {"wcow.snapshotter.snapshot": {"key": "base-key"}},
    {"wcow.snapshotter.snapshot": {"key": "base-key", "name": "base", "state": "committed"}},
    {"wcow.snapshotter.snapshot": {"key": "=work", "parent": "base", "labels": {"team": "<b>blue</b>"}}},
    {"wcow.snapshotter.store": {}},
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Healthy node1 and node2, unhealthy node3, node4 without Python, node5 unreachable, node6 without a store."""
    started = Lab(tmp_path_factory.mktemp("lab") / "lab", nodes=6)
    started.play(*SNAPSHOTS, nodes=started.nodes[:5])
    left = started.file("node3", "ProgramData/wcow/snapshots/rm-1")
    (left / "Files").mkdir(parents=True)
    (left / "Files" / "large").write_bytes(bytes(5000))
    started.hosts["node4"]["wcow_python"] = r"C:\nowhere\python.exe"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        started.hosts["node5"]["ansible_port"] = closed.getsockname()[1]
    yield started
    started.lab("down")


def audit(lab, *options):
    """The exit code and the output of an audit whose threshold no test machine misses."""
    process = lab.ansible_playbook(AUDIT, "-e", "wcow_minimum_free=1", *options)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def written(lab, directory="wcow-report"):
    return json.loads((lab.controller() / directory / "report.json").read_text())


def rows(lab, name):
    with (lab.controller() / "wcow-report" / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_every_state(lab):
    stores = [lab.file(node, "ProgramData/wcow/metadata.sqlite3") for node in lab.nodes[:4]]
    before = [path.read_bytes() for path in stores]
    code, output = audit(lab)
    assert code == 2, output
    assert [path.read_bytes() for path in stores] == before
    assert "changed=0" in output
    assert "changed=1" not in output

    found = written(lab)
    assert [(node["node"], node["state"]) for node in found["nodes"]] == [
        ("node5", "unreachable"),
        ("node4", "failed"),
        ("node3", "unhealthy"),
        ("node6", "no_store"),
        ("node1", "healthy"),
        ("node2", "healthy"),
    ]
    nodes = {node["node"]: node for node in found["nodes"]}
    assert r"C:\nowhere\python.exe" in nodes["node4"]["message"]
    assert "node5" in nodes["node5"]["message"]
    assert [finding["code"] for finding in nodes["node3"]["findings"]] == ["leftover_removal"]
    assert nodes["node3"]["reclaimable"] == 5000
    work = next(one for one in nodes["node1"]["snapshots"] if one["name"] == "=work")
    assert (work["kind"], work["parent"], work["labels"]["team"]) == ("active", "base", "<b>blue</b>")
    assert work["scratch"]["virtual_size"] == 20 * GIB
    assert nodes["node1"]["size"] == sum(one["usage"]["size"] for one in nodes["node1"]["snapshots"]) > 0

    assert str(lab.controller() / "wcow-report" / "report.html") in output
    # The verdict, a line a host; and the same in all forms.
    for node, text in nodes.items():
        assert text["message"].split("\n")[0][:40] in output, node
    assert [row["node"] for row in rows(lab, "nodes.csv")] == [node["node"] for node in found["nodes"]]
    assert {row["name"] for row in rows(lab, "snapshots.csv")} == {"base", "'=work"}
    assert [row["code"] for row in rows(lab, "findings.csv")] == ["leftover_removal"]
    page = (lab.controller() / "wcow-report" / "report.html").read_text()
    assert "&lt;b&gt;blue&lt;/b&gt;" in page
    assert "<b>blue" not in page


def test_a_healthy_fleet_in_slices(lab):
    """Slices of the inventory are put together, by the next slice and by the manual's play; healthy nodes succeed."""
    code, output = audit(lab, "--limit", "node1,node6", "-e", "wcow_report=slice1", "-e", "wcow_quick=true")
    assert code == 0, output
    more = {"wcow_report": "slice2", "wcow_merge": ["slice1/report.json"]}
    code, output = audit(lab, "--limit", "node2", "--check", "-e", json.dumps(more))
    assert code == 0, output
    nodes = {node["node"]: node for node in written(lab, "slice2")["nodes"]}
    assert {name: node["state"] for name, node in nodes.items()} == {
        "node1": "healthy",
        "node2": "healthy",
        "node6": "no_store",
    }
    assert all(snapshot["usage"] is None for snapshot in nodes["node1"]["snapshots"])
    assert all(snapshot["usage"] for snapshot in nodes["node2"]["snapshots"])

    manual = (CHECKOUT / "docs" / "report.md").read_text(encoding="utf-8")
    (play,) = re.findall(r"^```yaml\n(.*?)^```", manual, re.DOTALL | re.MULTILINE)
    playbook = lab.controller() / "slices.yml"
    playbook.write_text(play)
    process = lab.ansible_playbook(playbook)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert written(lab)["nodes"] == written(lab, "slice2")["nodes"]


def test_the_examples(lab):
    # What is registered must keep its name: the tasks are played as they stand there.
    play = {"hosts": lab.nodes[:3], "gather_facts": False, "tasks": yaml.safe_load(report.EXAMPLES)}
    playbook = lab.controller() / "examples.yml"
    playbook.write_text(json.dumps([play]))
    process = lab.ansible_playbook(playbook)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert written(lab, "wcow-report-all")["nodes"] == written(lab, "wcow-report")["nodes"]
    assert len(written(lab)["nodes"]) == 3


def test_refusals(lab):
    def refused(node="node1", check_mode=False, **options):
        task = {"wcow.snapshotter.report": options, "delegate_to": "localhost", "check_mode": check_mode}
        (result,) = lab.play(task, nodes=[node])[node]
        return result

    other = lab.controller() / "other.json"
    other.write_text('{"format": "something else"}')
    assert "other.json is no report.json of this collection" in refused(dest="x", merge=["other.json"])["msg"]
    other.write_text("{")
    assert "other.json is not JSON" in refused(dest="x", merge=["other.json"])["msg"]
    assert "No such file or directory" in refused(dest="x", merge=["nowhere.json"])["msg"]
    assert "Not a directory" in refused(dest="other.json/x")["msg"]
    assert "missing required arguments: dest" in refused()["msg"]
    assert "hosts: 'nobody' is not in the inventory" in refused(dest="x", hosts=["nobody"])["msg"]
    planned = refused(dest="planned", check_mode=True)
    assert planned["nodes"]["node1"] == {
        "state": "failed",
        "bad": True,
        "message": "The node has returned nothing",
    }
    assert planned["files"] == []
    assert not any((lab.controller() / name).exists() for name in ("x", "planned"))


def test_stores_that_are_damaged(tmp_path):
    """A disk that cannot be read, metadata that are gone: that is what an audit is for, and it tells the rest, too."""
    lab = Lab(tmp_path / "lab", nodes=2)
    try:
        lab.play(*SNAPSHOTS)
        (disk,) = lab.file("node1", "ProgramData/wcow/snapshots").glob("*/sandbox.vhdx")
        with disk.open("r+b") as file:
            file.write(bytes(1 << 20))
        for path in lab.file("node2", "ProgramData/wcow").glob("metadata.sqlite3*"):
            path.unlink()
        code, output = audit(lab)
        assert code == 2, output
        nodes = {node["node"]: node for node in written(lab)["nodes"]}
        assert {name: node["state"] for name, node in nodes.items()} == {"node1": "unhealthy", "node2": "unhealthy"}
        assert [finding["code"] for finding in nodes["node1"]["findings"]] == ["damaged_scratch"]
        assert {one["name"]: one["scratch"] for one in nodes["node1"]["snapshots"]} == {"base": None, "=work": None}
        assert [finding["code"] for finding in nodes["node2"]["findings"]] == ["metadata_missing"]
        assert nodes["node2"]["snapshots"] == []
        assert all(node["free"] > 0 for node in nodes.values())

        for (refused,) in lab.play({"wcow.snapshotter.snapshot_info": {}}, nodes=["node2"]).values():
            assert "has 2 layers but no metadata.sqlite3: restore that file from a backup" in refused["msg"]
    finally:
        lab.lab("down")
