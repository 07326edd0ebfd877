# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the audit as users do: real ansible-playbook, lab nodes in every state, and the contents of the report."""

from __future__ import annotations

import csv
import json
import re
import socket

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import report
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, Lab
from prometheus_client.openmetrics.parser import text_string_to_metric_families

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
    """node1 and node2 are healthy, node3 is not. node4 has no Python, node5 is unreachable, node6 has no store."""
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
    """Run an audit with a space threshold that every test machine meets. Return the exit code and the output."""
    process = lab.ansible_playbook(AUDIT, "-e", "wcow_minimum_free=1B", *options)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def written(lab, directory="wcow-report"):
    return json.loads((lab.controller() / directory / "report.json").read_text())


def rows(lab, name):
    with (lab.controller() / "wcow-report" / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def visible_files(lab):
    """Return the text of all files of the report by name."""
    directory = lab.controller() / "wcow-report"
    return {path.name: path.read_text(encoding="utf-8") for path in directory.iterdir()}


def test_every_state(lab):
    # The module's other plays must not have this setting.
    settings = lab.controller() / "ansible.cfg"
    settings.write_text("[defaults]\nshow_custom_stats = true\n")
    stores = [lab.file(node, "ProgramData/wcow/metadata.sqlite3") for node in lab.nodes[:4]]
    before = [path.read_bytes() for path in stores]
    code, output = audit(lab)
    settings.unlink()
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
    # The output has a line with the verdict for each node. All formats of the report agree.
    # Some releases of ansible-core show a message only as JSON, in which a backslash is doubled.
    shown = output.replace("\\\\", "\\")
    for node, text in nodes.items():
        assert text["message"].split("\n")[0][:40] in shown, node
    assert [row["node"] for row in rows(lab, "nodes.csv")] == [node["node"] for node in found["nodes"]]
    assert {row["name"] for row in rows(lab, "snapshots.csv")} == {"base", "'=work"}
    assert [row["code"] for row in rows(lab, "findings.csv")] == ["leftover_removal"]
    page = (lab.controller() / "wcow-report" / "report.html").read_text()
    assert "&lt;b&gt;blue&lt;/b&gt;" in page
    assert "<b>blue" not in page

    # Paths are those of the nodes, not of the host that the lab nodes are on.
    assert r"C:\ProgramData\wcow\snapshots\rm-1" in page.replace("<wbr>", "")
    for name, text in visible_files(lab).items():
        assert str(lab.directory) not in text, name

    metrics = (lab.controller() / "wcow-report" / "metrics.prom").read_text()
    (states,) = (one for one in text_string_to_metric_families(metrics) if one.name == "wcow_node_state")
    assert {sample.labels["node"]: sample.labels["state"] for sample in states.samples if sample.value} == {
        node["node"]: node["state"] for node in found["nodes"]
    }
    (shown,) = re.findall(r"RUN: (\{.*\})", output)
    result = json.loads(shown)["wcow_audit_result"]
    assert result["bad"] == ["node5", "node4", "node3", "node6"]
    assert result["states"] == {"unreachable": 1, "failed": 1, "unhealthy": 1, "no_store": 1, "healthy": 2}
    assert result["nodes"] == 6
    assert result["files"][-1] == str(lab.controller() / "wcow-report" / "report.html")


def test_a_healthy_fleet_in_slices(lab):
    """The next slice and the manual's play combine slices of the inventory. Healthy nodes succeed."""
    code, output = audit(lab, "--limit", "node1", "-e", "wcow_report=slice1", "-e", "wcow_quick=true")
    assert code == 0, output
    more = {"wcow_report": "slice2", "wcow_merge": ["slice1/report.json"], "wcow_metrics": "slice2.prom"}
    code, output = audit(lab, "--limit", "node2", "--check", "-e", json.dumps(more))
    assert code == 0, output
    nodes = {node["node"]: node for node in written(lab, "slice2")["nodes"]}
    assert {name: node["state"] for name, node in nodes.items()} == {
        "node1": "healthy",
        "node2": "healthy",
    }
    assert 'wcow_node_state{node="node1",state="healthy"} 1' in (lab.controller() / "slice2.prom").read_text()
    assert all(snapshot["usage"] is None for snapshot in nodes["node1"]["snapshots"])
    assert all(snapshot["usage"] for snapshot in nodes["node2"]["snapshots"])

    manual = (CHECKOUT / "docs" / "report.md").read_text(encoding="utf-8")
    (play,) = re.findall(r"^```yaml\n(- name: .*?)^```", manual, re.DOTALL | re.MULTILINE)
    playbook = lab.controller() / "slices.yml"
    playbook.write_text(play)
    process = lab.ansible_playbook(playbook)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert written(lab)["nodes"] == written(lab, "slice2")["nodes"]


def test_a_run_that_audits_nothing_fails(lab):
    """A root without a store, a root of containerd and a group without hosts are not success."""
    code, output = audit(lab, "--limit", "node6")
    assert code == 2, output
    assert r"no_store: there is no store in C:\\ProgramData\\wcow" in output
    lab.file("node1", "containerd/io.containerd.snapshotter.v1.windows").mkdir(parents=True)
    code, output = audit(lab, "--limit", "node1", "-e", json.dumps({"wcow_root": "C:\\containerd"}))
    assert code == 2, output
    assert "failed: C:\\\\containerd belongs to containerd" in output
    for options in (("-e", "wcow_hosts=absent"), ("-e", "wcow_hosts=node2", "--limit", "node1")):
        code, output = audit(lab, *options)
        assert code == 2, output
        assert output.count("fatal: ") == 1, output
        assert "No node is selected: the pattern" in output


def test_the_examples(lab):
    # The tasks run unchanged, so that registered variables keep their names.
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
    assert "other.json is not a report.json of this collection" in refused(dest="x", merge=["other.json"])["msg"]
    other.write_text("{")
    assert "other.json is not JSON" in refused(dest="x", merge=["other.json"])["msg"]
    said = refused(dest="x", merge=["nowhere.json"])["msg"]
    assert re.search(r"merge: cannot read .*nowhere\.json: No such file or directory\. Name the report\.json", said)
    said = refused(dest="x", metrics="nowhere/wcow.prom")["msg"]
    assert re.search(r"No such file or directory: .*/nowhere\. Make sure that the directory exists", said)
    assert "Not a directory" in refused(dest="other.json/x")["msg"]
    assert "missing required arguments: dest" in refused()["msg"]
    assert "hosts: 'nobody' is not in the inventory" in refused(dest="x", hosts=["nobody"])["msg"]
    planned = refused(dest="planned", check_mode=True)
    assert planned["nodes"]["node1"] == {
        "state": "failed",
        "bad": True,
        "message": "The node returned nothing",
    }
    assert planned["files"] == []
    assert not any((lab.controller() / name).exists() for name in ("x", "planned"))


def test_stores_that_are_damaged(tmp_path):
    """An audit must find an unreadable disk and missing metadata, and must still report the rest."""
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
