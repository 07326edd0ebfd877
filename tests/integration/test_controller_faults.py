# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller meets: nodes that are down, go away, lack Python or were tampered with, and what a task costs.

Real ansible-playbook, pypsrp and pywinrm against lab nodes.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action

#: The directory that holds ansible_collections. Not resolved: in a checkout the collection is a link.
COLLECTIONS = pathlib.Path(_action.__file__).parents[5]
CHECKOUT = pathlib.Path(__file__).parents[2]

LIST = {"wcow.snapshotter.snapshot_info": {}}
RERUN = "Rerunning the task is safe"


class Lab:
    """Two nodes, node1 by psrp and node2 by winrm, and the playbooks that use them."""

    def __init__(self, directory, *options):
        self.directory = directory
        self.lab("up", "--nodes", "2", "--connection", "psrp,winrm", *options)
        self.inventory = yaml.safe_load((directory / "inventory.yml").read_text())

    def lab(self, *arguments):
        command = [sys.executable, "-m", "lab", *arguments, "--directory", str(self.directory)]
        subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def file(self, node, path):
        """A file of a node's drive C:."""
        return self.directory / node / "C" / path

    def program(self, node, text):
        """Put a program for /bin/sh on a node; its Windows path."""
        path = self.file(node, "stand-in/python.exe")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return r"C:\stand-in\python.exe"

    def payload(self, node):
        """The payload that a node received last."""
        return max(self.file(node, "Program Files/wcow/payload").iterdir(), key=lambda path: path.stat().st_mtime_ns)

    def requests(self):
        """The access log so far: a list of requests for each node."""
        found = {"node1": [], "node2": []}
        for line in (self.directory / "access.jsonl").read_text().splitlines():
            entry = json.loads(line)
            if "received" in entry:
                found[entry["node"]].append(entry)
        return found

    def start(self, *tasks, variables=None, name="play"):
        """Start a playbook. Failing tasks do not stop it."""
        named = []
        for number, task in enumerate(tasks):
            named.append({"register": f"result_{number}", "ignore_errors": True, "ignore_unreachable": True, **task})
        results = "[" + ", ".join(f"result_{number}" for number in range(len(tasks))) + "]"
        shown = f"RESULTS {{{{ inventory_hostname }}}} {{{{ {results} | to_json | b64encode }}}}"
        play = {"hosts": "windows", "gather_facts": False, "vars": variables or {}}
        play["tasks"] = [*named, {"ansible.builtin.debug": {"msg": shown}}]
        home = self.directory / "controller"
        home.mkdir(exist_ok=True)
        (home / f"{name}.yml").write_text(json.dumps([play]))
        (home / "inventory.yml").write_text(yaml.safe_dump(self.inventory))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment.update(
            HOME=str(home),
            LC_ALL="C.UTF-8",
            ANSIBLE_HOME=str(home),
            ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
            ANSIBLE_NOCOLOR="1",
        )
        return subprocess.Popen(
            [sys.executable, "-m", "ansible.cli.playbook", "-i", "inventory.yml", f"{name}.yml"],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def results(self, process):
        """Wait for a playbook; the results of each node's tasks."""
        output = process.communicate(timeout=120)[0]
        found = re.findall(r"RESULTS (\w+) ([A-Za-z0-9+/=]+)", output)
        assert len(found) == 2, output
        return {node: json.loads(base64.b64decode(text)) for node, text in found}

    def play(self, *tasks, **keywords):
        return self.results(self.start(*tasks, **keywords))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    started = Lab(tmp_path_factory.mktemp("lab"))
    yield started
    started.lab("down")


@pytest.fixture
def own_lab(tmp_path):
    """A lab that the test may break."""
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


def snapshot(**options):
    return {"wcow.snapshotter.snapshot": options}


def test_what_a_task_costs(own_lab):
    # The lab asks its nodes itself whether they are up.
    before = own_lab.requests()
    first = own_lab.play(LIST)
    contact = own_lab.requests()
    own_lab.play(snapshot(key="small", labels={"team": "blue"}))
    after = own_lab.requests()
    for node in ("node1", "node2"):
        assert first[node][0]["snapshots"] == []
        assert len(contact[node]) - len(before[node]) <= 12
        task = after[node][len(contact[node]) :]
        assert len(task) <= 7
        assert sum(entry["received"] for entry in task) <= 18_500


@pytest.mark.parametrize("options", [("--auth", "ntlm"), ("--auth", "basic", "--tls")])
def test_other_ways_in(tmp_path, options):
    lab = Lab(tmp_path / "lab", *options)
    try:
        for results in lab.play(snapshot(key="ключ \u2028 \x01"), LIST).values():
            assert results[0]["changed"] is True
            assert [found["name"] for found in results[1]["snapshots"]] == ["ключ \u2028 \x01"]
    finally:
        lab.lab("down")


def test_keywords_of_a_task(lab):
    drives = str(lab.directory / "elsewhere")
    os.makedirs(f"{drives}/C")
    tasks = (
        {**snapshot(key="planned"), "check_mode": True, "diff": True},
        {**snapshot(key="placed"), "environment": {"WCOW_EMULATED_DRIVES": drives}},
        {**snapshot(key="refused"), "become": True, "become_method": "runas", "become_user": "SYSTEM"},
        {**snapshot(key="refused"), "async": 10, "poll": 1},
        {"wcow.snapshotter.snapshot_info": {"names": ["planned", "placed", "refused"]}},
    )
    for results in lab.play(*tasks).values():
        assert "planned" in results[0]["diff"]["after"]
        assert results[1]["snapshot"]["name"] == "placed"
        assert "does not support become" in results[2]["msg"]
        assert "does not support async" in results[3]["msg"]
        assert results[4]["snapshots"] == []
    assert os.path.exists(f"{drives}/C/ProgramData/wcow/metadata.sqlite3")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "replaced"])
def test_a_payload_that_was_tampered_with(lab, damage):
    lab.play(LIST)
    whole = {node: lab.payload(node).read_bytes() for node in ("node1", "node2")}
    for node, data in whole.items():
        changed = bytes([data[0] ^ 1]) + data[1:] if damage == "flipped" else data[: len(data) // 2]
        lab.payload(node).write_bytes(b"import os" if damage == "replaced" else changed)
    for results in lab.play(LIST, LIST).values():
        assert "snapshots" in results[0]
        assert "was damaged or tampered with: it was not executed, and is replaced" in results[0]["warnings"][0]
        assert "warnings" not in results[1]
    assert {node: lab.payload(node).read_bytes() for node in whole} == whole


def test_no_python(tmp_path):
    lab = Lab(tmp_path / "lab", "--without-python")
    try:
        for (result,) in lab.play(LIST).values():
            assert result["failed"] is True
            assert result["error"]["code"] == "failed_precondition"
            assert r'"C:\Program Files\wcow\python\python.exe"' in result["msg"]
            assert "wcow_python" in result["msg"]
            assert "wcow.snapshotter.python_runtime" in result["msg"]
    finally:
        lab.lab("down")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("cat >/dev/null; echo hello", "hello"),
        ("cat >/dev/null; echo broken >&2; exit 3", "did not answer as Python 3.9 or newer does (exit code 3)"),
        ("cat >/dev/null; kill -9 $$", "no reply"),
        ('cat >/dev/null; printf \'{"protocol": 1, "results\'', "is not JSON: it breaks off"),
        ("cat >/dev/null; echo '{\"protocol\": 1}'", "neither a result nor an error"),
        ("cat >/dev/null; echo '{\"protocol\": 9}'", "protocol 9"),
    ],
)
def test_programs_that_are_no_python(lab, program, said):
    for node in ("node1", "node2"):
        python = lab.program(node, program)
    for (result,) in lab.play(LIST, variables={"wcow_python": python}).values():
        assert result["failed"] is True
        assert said in result["msg"]


def test_noise_around_the_reply_is_no_harm(lab):
    for node in ("node1", "node2"):
        python = lab.program(node, f'echo Welcome; echo careful >&2; exec {sys.executable} "$@"')
    for (result,) in lab.play(LIST, variables={"wcow_python": python}).values():
        assert "snapshots" in result


def test_a_wrong_password(lab):
    for (result,) in lab.play(LIST, variables={"ansible_password": "wrong"}).values():
        assert result["unreachable"] is True
        assert "wcow.snapshotter.snapshot_info: the connection failed during 'list'" in result["msg"]


def test_nodes_that_are_down(own_lab):
    own_lab.lab("down")
    for (result,) in own_lab.play(LIST).values():
        assert result["unreachable"] is True
        assert RERUN in result["msg"]


def test_nodes_that_go_away_in_the_middle(own_lab):
    for node in ("node1", "node2"):
        python = own_lab.program(node, "exec sleep 60")
    process = own_lab.start(snapshot(key="one"), variables={"wcow_python": python})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # The node runs the program once its controller waits for output.
        if all("Send" in [entry["action"] for entry in entries] for entries in own_lab.requests().values()):
            break
        time.sleep(0.1)
    os.kill(json.loads((own_lab.directory / "lab.json").read_text())["pid"], signal.SIGKILL)
    for (result,) in own_lab.results(process).values():
        assert result["unreachable"] is True
        assert "the connection failed during 'ensure_snapshot'" in result["msg"]
        assert RERUN in result["msg"]


def test_two_controllers_want_the_same(lab):
    task = snapshot(key="contended", labels={"team": "blue"})
    processes = [lab.start(task, name=name) for name in ("first", "second")]
    first, second = (lab.results(process) for process in processes)
    for node in ("node1", "node2"):
        assert sorted([first[node][0]["changed"], second[node][0]["changed"]]) == [False, True]
        assert first[node][0]["snapshot"]["created"] == second[node][0]["snapshot"]["created"]
