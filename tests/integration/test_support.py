# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file for a bug report: of nodes that are well, damaged, empty or away, and without secrets."""

from __future__ import annotations

import json
import re
import stat
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _version
from ansible_collections.wcow.snapshotter.tests.integration.test_roles import run

SECTIONS = ("machine", "check", "store", "trace")
#: No program generates these words. Each is planted in one place.
SECRETS = {place: f"planted-{place}" for place in ("inventory", "label", "config", "log", "environment", "option")}


@pytest.fixture
def lab(lab_with_containerd):
    return lab_with_containerd


def collect(lab, *options, code=0, **variables):
    """Run the playbook. Return the file of each node, read."""
    ended, recap, verdicts = run(lab, "support", *options, **variables)
    assert ended == code, lab.output
    assert {counts["changed"] for counts in recap.values()} == {0}, lab.output
    lab.verdicts = verdicts
    return {path.stem: json.loads(path.read_text()) for path in (lab.controller() / "wcow-support").glob("*.json")}


def test_nodes_that_are_well(lab):
    serves = {"wcow.snapshotter.proxy_snapshotter": {}}
    lab.play({"wcow.snapshotter.store": {"rootfs_size": "40GB"}}, serves, nodes=["node1"])
    found = collect(lab)
    assert lab.verdicts["node1"][0] == "COLLECTED"
    directory = lab.controller() / "wcow-support"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert len(list(directory.iterdir())) == 2
    one, two = found["node1"], found["node2"]
    assert [(each["format"], each["version"], each["node"]) for each in (one, two)] == [
        ("wcow.snapshotter.support", 1, "node1"),
        ("wcow.snapshotter.support", 1, "node2"),
    ]
    assert (one["controller"]["connection"], two["controller"]["connection"]) == ("psrp", "winrm")
    assert one["controller"]["collection"] == _version.collection_version()
    assert one["controller"]["libraries"].keys() >= {"pypsrp", "pywinrm"}
    assert [section for section in SECTIONS if "result" not in one[section] or "result" not in two[section]] == []
    assert one["settings"]["root"] == r"C:\ProgramData\wcow"
    machine = one["machine"]["result"]
    assert machine["python"]["version"] == sys.version.split()[0]
    assert machine["python"]["executable"] == r"C:\Program Files\wcow\python\python.exe"
    assert machine["service"]["health"]["errors"] == 0
    (log,) = [entry for entry in machine["logs"] if entry["path"].endswith(r"\service.log")]
    assert any("serve the store" in line for line in log["lines"])
    assert one["check"]["result"]["rootfs_size"] == 40 * 1024**3
    assert (two["check"]["result"]["exists"], two["machine"]["result"]["service"]) == (False, None)

    served = collect(lab, wcow_store="containerd")["node2"]
    assert served["store"]["result"]["preflight"]["version"].startswith("v2.")
    assert served["check"]["result"]["containerd"]["address"] == r"\\.\pipe\containerd-containerd"
    assert "root" not in served["settings"]


def test_damage_and_absence_are_recorded(lab):
    """Metadata that is damaged, a containerd that is stopped or away, no Python, and no connection."""
    lab.play({"wcow.snapshotter.store": {}})
    lab.file("node1", "ProgramData/wcow/metadata.sqlite3").write_bytes(b"damaged" * 1000)
    found = collect(lab, "--limit", "node1")["node1"]
    assert [finding["code"] for finding in found["check"]["result"]["findings"]] == ["metadata_damaged"]
    assert found["store"]["error"]["code"] == "failed_precondition"
    assert found["machine"]["result"]["python"]["version"]
    assert "store: " in lab.verdicts["node1"][1]

    lab.damage_containerd("node1", "stopped")
    found = collect(lab, "--limit", "node1", wcow_store="containerd")["node1"]
    assert found["check"]["result"]["containerd"]["running"] is False
    assert "does not answer" in found["store"]["error"]["message"]

    found = collect(lab, "--limit", "node1", wcow_store="containerd", wcow_root=r"C:\nowhere", wcow_namespace="none")
    assert "none" in found["node1"]["check"]["error"]["message"]

    lab.hosts["node2"]["wcow_python"] = r"C:\nowhere\python.exe"
    found = collect(lab, "--limit", "node2")["node2"]
    assert [found[section]["error"]["message"].split(" on ")[0] for section in SECTIONS] == [
        "No Python can be started"
    ] * 4
    del lab.hosts["node2"]["wcow_python"]
    lab.lab("fault", "node2", "--kind", "down", "--seconds", "60")
    found = collect(lab, "--limit", "node2")["node2"]
    assert [found[section]["error"]["code"] for section in SECTIONS] == ["unreachable", *["unavailable"] * 3]
    assert lab.verdicts["node2"][0] == "COLLECTED"


def test_no_secret_reaches_the_file(lab):
    log = r"C:\Program Files\wcow\snapshotter\logs\service.log"
    for node in lab.nodes:
        lab.hosts[node]["registry_password"] = SECRETS["inventory"]
        config = lab.file(node, "Program Files/containerd/config.toml")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(f'version = 3\n[registry.auth]\ntoken = "{SECRETS["config"]}"\n' + "broken =\n")
    label = {"key": "work", "labels": {"example.com/token": SECRETS["label"]}}
    lab.play({"wcow.snapshotter.snapshot": label}, {"wcow.snapshotter.proxy_snapshotter": {}})
    passwords = [lab.hosts[node]["ansible_password"] for node in lab.nodes]
    for node in lab.nodes:
        path = lab.file(node, log.removeprefix("C:\\").replace("\\", "/"))
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"2026-11-29 19:43:15,123 ERROR Commit failed: registry_token={SECRETS['log']}\n")
    task = {
        "wcow.snapshotter.support": {"dest": "wcow-support", "replace": [{"text": SECRETS["option"], "by": "x"}]},
        "environment": {"REGISTRY_TOKEN": SECRETS["environment"]},
    }
    for variables in ({}, {"wcow_store": "containerd"}):
        results = lab.play(task, variables=variables)
        for node, (result,) in results.items():
            written = (lab.controller() / f"wcow-support/{node}.json").read_text()
            assert "Commit failed: registry_token=<removed>" in written
            assert [secret for secret in (*SECRETS.values(), *passwords) if secret in written] == []
            assert [secret for secret in (*SECRETS.values(), *passwords) if secret in json.dumps(result)] == []


def test_names_can_be_replaced(lab):
    replace = [{"text": "node1", "by": "first"}, {"text": r"c:\programdata", "by": r"C:\Data"}]
    found = collect(lab, "--limit", "node1", support_replace=replace)
    assert list(found) == ["first"]
    assert found["first"]["node"] == "first"
    assert found["first"]["settings"]["root"] == r"C:\Data\wcow"
    assert "first" in lab.verdicts["node1"][1]


def test_files_that_cannot_be_written(lab):
    (lab.controller() / "file").touch()
    assert collect(lab, code=2, support_dest="file") == {}
    assert lab.verdicts["node1"][0] == "NOT COLLECTED"
    assert re.match(r"Cannot write /.*/file/node1\.json: File exists\. Make sure ", lab.verdicts["node1"][1])
    assert collect(lab, code=2, support_lines=-1) == {}
    assert lab.verdicts["node1"][1] == "support_lines=-1: give a number from 0 to 10000"
    assert collect(lab, "--check") == {}
    assert lab.verdicts["node1"][0] == "WOULD BE COLLECTED"
