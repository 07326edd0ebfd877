# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-runner as in Automation Platform and AWX: local and remote runs on inventory slices, and environments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT, COLLECTIONS, Lab

BIN = os.path.dirname(sys.executable)
DOCUMENT = CHECKOUT / "docs" / "fleet.md"
SLICES = ("node1,node3", "node2")

SNAPSHOTS = (
    {"wcow.snapshotter.store": {}},
    {"wcow.snapshotter.snapshot": {"key": "work"}},
)


def blocks(language):
    """Return the code blocks of docs/fleet.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Three healthy nodes."""
    started = Lab(tmp_path_factory.mktemp("lab") / "lab", nodes=3)
    for results in started.play(*SNAPSHOTS).values():
        assert not any(result.get("failed") for result in results), results
    yield started
    started.lab("down")


def run(directory, *command):
    """Run a shell pipeline of programs of this environment. Return the exit code and the output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "RUNNER_"))}
    environment.update(HOME=str(directory), LC_ALL="C.UTF-8", PATH=f"{BIN}:{environment['PATH']}")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", " ".join(command)],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    return done.returncode, done.stdout


def private_data(directory, lab, number, report):
    """Write what a platform gives to a job: inventory, environment, variables, and a project with one line."""
    for part in ("inventory", "env", "project"):
        (directory / part).mkdir(parents=True)
    (directory / "inventory" / "hosts.yml").write_text(yaml.safe_dump(lab.inventory))
    variables = {"wcow_report": report, "wcow_minimum_free": "1B"}
    (directory / "env" / "extravars").write_text(json.dumps(variables))
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CALLBACKS_ENABLED": "wcow.snapshotter.progress",
    }
    environment["WCOW_PROGRESS_PLAIN"] = "1"
    (directory / "env" / "envvars").write_text(json.dumps(environment))
    (directory / "env" / "cmdline").write_text(f"--limit {SLICES[number]}")
    (directory / "project" / "audit.yml").write_text("- import_playbook: wcow.snapshotter.audit\n")


def load(path):
    return json.loads(path.read_text())


def merged(lab, tmp_path, reports):
    """Combine several reports with the play of docs/fleet.md. Return the nodes."""
    (play,) = [text for text in blocks("yaml") if "merge:" in text]
    (tmp_path / "merge.yml").write_text(play)
    process = lab.ansible_playbook(
        tmp_path / "merge.yml", "-e", json.dumps({"wcow_slices": str(reports), "wcow_report": str(tmp_path / "all")})
    )
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert f"3 nodes, see {tmp_path}/all/report.html" in output
    nodes = json.loads((tmp_path / "all" / "report.json").read_text())["nodes"]
    return {node["node"]: (node["state"], [snapshot["name"] for snapshot in node["snapshots"]]) for node in nodes}


WHOLE = {f"node{number}": ("healthy", ["work"]) for number in (1, 2, 3)}


def test_slices_by_run(lab, tmp_path):
    for number in range(2):
        job = tmp_path / f"job{number}"
        private_data(job, lab, number, str(tmp_path / "reports" / str(number)))
        code, output = run(tmp_path, f"ansible-runner run {job} --playbook audit.yml --ident audit")
        assert code == 0, output
        assert re.search(r"progress: [0-9]+ tasks in .* 0 failed \| 0 unreachable", output), output
        found = json.loads((tmp_path / "reports" / str(number) / "report.json").read_text())
        assert {node["node"] for node in found["nodes"]} == set(SLICES[number].split(","))
        # A workflow of AWX gets what the last event of a job has.
        events = (job / "artifacts" / "audit" / "job_events").glob("*.json")
        (ended,) = (event for event in map(load, events) if event["event"] == "playbook_on_stats")
        result = ended["event_data"]["artifact_data"]["wcow_audit_result"]
        assert (result["bad"], result["states"]) == ([], {"healthy": len(SLICES[number].split(","))})
    assert merged(lab, tmp_path, tmp_path / "reports") == WHOLE


@pytest.mark.long
def test_slices_by_transmit_worker_and_process(lab, tmp_path):
    """The worker simulates an execution node: it returns only the contents of the job's artifacts."""
    for number in range(2):
        job = tmp_path / f"job{number}"
        private_data(job, lab, number, "{{ lookup('env', 'AWX_ISOLATED_DATA_DIR') }}/wcow-report")
        code, output = run(
            tmp_path,
            f"ansible-runner transmit {job} --playbook audit.yml --ident audit",
            f"| ansible-runner worker --private-data-dir {tmp_path}/worker{number}",
            f"| ansible-runner process {tmp_path}/back/{number} --ident audit",
        )
        assert code == 0, output
        assert "PLAY RECAP" in output
    reports = tmp_path / "reports"
    for number in range(2):
        (reports / str(number)).parent.mkdir(exist_ok=True)
        (tmp_path / f"back/{number}/artifacts/audit/wcow-report").rename(reports / str(number))
    assert merged(lab, tmp_path, reports) == WHOLE


def test_the_execution_environment_of_the_manual(tmp_path):
    (definition,) = [text for text in blocks("yaml") if "base_image" in text]
    (tmp_path / "execution-environment.yml").write_text(definition)
    code, output = run(tmp_path, "ansible-builder create")
    assert code == 0, output
    requirements = yaml.safe_load((tmp_path / "context" / "_build" / "requirements.yml").read_text())
    assert [collection["name"] for collection in requirements["collections"]] == ["wcow.snapshotter"]


def test_what_the_collection_needs_in_an_execution_environment(tmp_path):
    code, output = run(
        tmp_path, f"ansible-builder introspect {COLLECTIONS} --write-pip pip.txt --write-bindep bindep.txt"
    )
    assert code == 0, output
    packages = [line.split("  #")[0] for line in (tmp_path / "pip.txt").read_text().splitlines() if line]
    needed = [line for line in (CHECKOUT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert packages == [*needed, "pypsrp[kerberos]", "pywinrm[kerberos]", "zstandard>=0.22.0"]
    for platform, package in (("rpm", "krb5-workstation"), ("dpkg", "krb5-user")):
        assert f"{package} [platform:{platform}]" in (tmp_path / "bindep.txt").read_text()
