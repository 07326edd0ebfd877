# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test injected faults: a fault affects one request and no other."""

from __future__ import annotations

import http.client
import time

import pytest
import requests.exceptions
import winrm.exceptions
from pypsrp.powershell import PowerShell, RunspacePool

from lab import faults

PYTHON = "'C:\\Program Files\\wcow\\python\\python.exe'"
HELLO = f"& {PYTHON} -c 'print(6*7)'\nexit $LASTEXITCODE"


@pytest.fixture
def node(start_lab):
    """A lab that only the tests of faults use."""
    return start_lab(idle_timeout=600.0)


def arm(lab, *fault):
    faults.arm(lab.directory / "node1", faults.Fault(*fault) if fault else None)


def outcome(lab, connection=None):
    """Request an unknown path; return the status or the class of the error."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", lab.port, timeout=10)
    try:
        connection.request("POST", "/nowhere")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return type(error)
    finally:
        connection.close()


def last(lab):
    return lab.log()[-1]


@pytest.mark.parametrize("kind", ["drop-before", "drop-after"])
def test_one_request_and_no_other(node, kind):
    arm(node, kind, 3)
    assert [outcome(node) for _ in range(4)] == [404, 404, http.client.RemoteDisconnected, 404]
    assert [entry.get("injected") for entry in node.log()[-4:]] == [None, None, kind, None]


def test_a_new_fault_replaces_the_one_before(node):
    arm(node, "drop-before", 1)
    arm(node, "drop-before", 2)
    assert outcome(node) == 404
    arm(node)
    assert outcome(node) == 404
    arm(node, "drop-before", 1)
    assert outcome(node) is http.client.RemoteDisconnected


def test_a_request_dropped_before_is_not_executed(node):
    protocol = node.protocol()
    shell = protocol.open_shell()
    arm(node, "drop-before", 1)
    with pytest.raises(requests.exceptions.ConnectionError):
        protocol.close_shell(shell)
    assert (last(node)["injected"], last(node)["sent"], last(node)["status"]) == ("drop-before", 0, None)
    protocol.close_shell(shell)


def test_a_request_dropped_after_is_executed(node):
    protocol = node.protocol()
    shell = protocol.open_shell()
    arm(node, "drop-after", 1)
    with pytest.raises(requests.exceptions.ConnectionError):
        protocol.close_shell(shell)
    assert (last(node)["injected"], last(node)["sent"], last(node)["action"]) == ("drop-after", 0, "Delete")
    with pytest.raises(winrm.exceptions.WSManFaultError, match="was not found"):
        protocol.close_shell(shell)


def test_half_an_answer(node):
    arm(node, "cut", 1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        node.protocol().open_shell()
    assert last(node)["sent"] > 100


@pytest.mark.parametrize(("kind", "executed_late"), [("delay", True), ("late", False)])
def test_slow_answers(node, kind, executed_late):
    arm(node, kind, 1, 1.0)
    begun = time.monotonic()
    assert outcome(node) == 404
    assert time.monotonic() - begun >= 1.0
    assert (last(node)["seconds"] >= 1.0) is executed_late


def test_the_same_receive_gets_the_same_output(node):
    """Request 2 comes right after the command and is always a Receive. The number of later Receives varies."""
    before = len(node.log())
    patience = {"read_timeout": 3, "operation_timeout": 1, "reconnection_backoff": 0}
    with node.wsman(**patience) as connection, RunspacePool(connection) as pool:
        pipeline = PowerShell(pool).add_script(HELLO)
        arm(node, "late", 2, 5.0)
        assert list(pipeline.invoke()) == ["42"]
    assert [entry["action"] for entry in node.log()[before:] if "injected" in entry] == ["Receive"]


@pytest.mark.parametrize(("kind", "survives"), [("down", True), ("die", False)])
def test_a_node_that_is_down_for_a_while(node, kind, survives):
    protocol = node.protocol()
    shell = protocol.open_shell()
    protocol.transport.close_session()
    idle = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    idle.connect()
    arm(node, kind, 1, 2.0)
    assert outcome(node) is http.client.RemoteDisconnected
    assert outcome(node, idle) in (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
    deadline = time.monotonic() + 10
    outcomes = []
    while (found := outcome(node)) != 404 and time.monotonic() < deadline:
        outcomes.append(found)
        time.sleep(0.1)
    assert set(outcomes) == {ConnectionRefusedError}
    if survives:
        protocol.close_shell(shell)
    else:
        with pytest.raises(winrm.exceptions.WSManFaultError, match="was not found"):
            protocol.close_shell(shell)


def test_a_fault_of_an_earlier_lab_is_ignored(tmp_path):
    faults.arm(tmp_path, faults.Fault("cut"))
    assert faults.Faults(tmp_path).next() is None
