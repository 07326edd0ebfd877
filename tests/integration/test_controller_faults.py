# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are down, go away, lack Python or were tampered with, as the controller sees them, and the cost of a task.

Real ansible-playbook, pypsrp and pywinrm run against lab nodes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

LIST = {"wcow.snapshotter.snapshot_info": {}}
RERUN = "Rerunning the task is safe"
UNTOUCHED = "The task did not begin on the node, so nothing was changed there."


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    started = Lab(tmp_path_factory.mktemp("lab"))
    yield started
    started.lab("down")


@pytest.fixture
def own_lab(tmp_path):
    """A lab that the test may damage."""
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


def snapshot(**options):
    return {"wcow.snapshotter.snapshot": options}


def test_what_a_task_costs(own_lab):
    # The lab itself sends requests to its nodes to check that they are up.
    before = own_lab.requests()
    first = own_lab.play(LIST)
    contact = own_lab.requests()
    own_lab.play(snapshot(key="small", labels={"team": "blue"}))
    after = own_lab.requests()
    assert all(results[0]["snapshots"] == [] for results in first.values())
    # A busy machine may deliver one answer in two Receives. The minimum assumes that this does not affect both nodes.
    assert min(len(contact[node]) - len(before[node]) for node in first) <= 11
    task = min((after[node][len(contact[node]) :] for node in first), key=len)
    assert len(task) <= 6
    assert sum(entry["received"] for entry in task) <= 16_700


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
        assert result["msg"].endswith(UNTOUCHED)
        assert RERUN not in result["msg"]


def test_nodes_that_are_down(own_lab):
    own_lab.lab("down")
    for (result,) in own_lab.play(LIST).values():
        assert result["unreachable"] is True
        assert result["msg"].endswith(UNTOUCHED)


def test_nodes_that_go_away_in_the_middle(own_lab):
    for node in ("node1", "node2"):
        python = own_lab.program(node, "exec sleep 60")
    process = own_lab.start(snapshot(key="one"), variables={"wcow_python": python})
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        # When the controller waits for output, the node has started the program.
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
