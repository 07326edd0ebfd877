# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test errors of connections and replies that a lab node cannot cause. tests/integration has the other errors."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import RERUN


class Task:
    check_mode = False
    diff = True


class Connection:
    """A connection that fails to connect, or while a command runs, or answers ``output``."""

    transport = "winrm"

    def __init__(self, output=None, connecting=None, running=None):
        self.connected = False
        self.output, self.connecting, self.running = output, connecting, running

    def _connect(self):
        if self.connecting:
            raise self.connecting
        self.connected = True


class Action(_action.SnapshotterAction):
    module = "wcow.snapshotter.store_check"
    operation = "check"

    def __init__(self, connection=None):
        self._host = "node1"
        self._connection = connection
        self._task = Task()
        self._node = {"store": "own", "root": "/root", "layers": "auto", "python": "python3", "cache_dir": "/cache"}
        self._warnings = []

    def _windows(self):
        return True

    def _environment(self):
        return {}

    def _low_level_execute_command(self, _line, sudoable, in_data):
        if self._connection.running:
            raise self._connection.running
        return {"rc": 0, "stdout": self._connection.output, "stderr": ""}


def reach(failure):
    def talk():
        raise failure

    Action()._reach("check", talk)


def test_a_connection_that_the_system_gives_up():
    """The node counts as unreachable, as after any connection failure, although winrm reports another kind of error."""
    with pytest.raises(AnsibleConnectionFailure) as caught:
        reach(AnsibleError("the connection attempt timed out"))
    assert str(caught.value) == (
        "wcow.snapshotter.store_check: the connection failed during 'check' on node1: "
        f"the connection attempt timed out. {_action.UNTOUCHED}"
    )


def test_other_errors_of_ansible_stay_as_they_are():
    failure = AnsibleError("pypsrp or dependencies are not installed")
    with pytest.raises(AnsibleError) as caught:
        reach(failure)
    assert caught.value is failure


@pytest.mark.parametrize(
    ("failures", "cause", "advice"),
    [
        (
            {"connecting": AnsibleConnectionFailure("ntlm: the specified credentials were rejected by the server")},
            "ntlm: the specified credentials were rejected by the server",
            _action.UNTOUCHED,
        ),
        (
            {"connecting": OSError("certificate verify failed: self-signed certificate.")},
            "certificate verify failed: self-signed certificate",
            _action.UNTOUCHED,
        ),
        (
            {
                "running": AnsibleConnectionFailure(
                    "Failed to connect to the host via ssh: Permission denied (publickey)."
                )
            },
            "Failed to connect to the host via ssh: Permission denied (publickey)",
            _action.UNTOUCHED,
        ),
        ({"running": AnsibleConnectionFailure("the stream ended")}, "the stream ended", RERUN),
        (
            {"running": ValueError("a\nfatal: [node2]: FAILED!\x1b[2J")},
            r"a fatal: [node2]: FAILED!\x1b[2J",
            RERUN,
        ),
    ],
)
def test_a_lost_connection_names_the_cause_first(failures, cause, advice):
    with pytest.raises(AnsibleConnectionFailure) as caught:
        Action(Connection(**failures)).ask("check", {})
    assert str(caught.value) == (
        f"wcow.snapshotter.store_check: the connection failed during 'check' on node1: {cause}. {advice}"
    )


def test_a_connection_that_is_lost_after_the_first_request_may_have_changed_the_node():
    action = Action(Connection(running=AnsibleConnectionFailure("ssh: connect to host node1 port 22: timed out")))
    action._requests = 1
    with pytest.raises(AnsibleConnectionFailure, match="Rerunning the task is safe"):
        action.ask("check", {})


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (r"C:\Program Files\wcow\python\python.exe", None),
        (r"\\files\tools\python.exe", None),
        ("python.exe", "The system cannot find the path specified.\r\n"),
        ("python.exe", "'/bin/sh' is not recognized as an internal or external command,\r\n"),
        ("python.exe", "+ FullyQualifiedErrorId : CommandNotFoundException"),
    ],
)
def test_a_windows_host_that_ansible_takes_for_a_posix_host(monkeypatch, python, said):
    action = Action(Connection())
    sent = []

    def execute(line, sudoable, in_data):
        sent.append(line)
        return {"rc": 1, "stdout": "", "stderr": said}

    monkeypatch.setattr(action, "_windows", lambda: False)
    monkeypatch.setattr(action, "_low_level_execute_command", execute)
    action._node["python"] = python
    with pytest.raises(_action.TaskFailure, match="Set the variable ansible_shell_type of node1 to cmd") as caught:
        action.ask("check", {})
    assert caught.value.code == "invalid_argument"
    assert len(sent) == (0 if said is None else 1)


def test_a_posix_host_without_python():
    action = Action(Connection())
    action._windows = lambda: False
    action._low_level_execute_command = lambda *_, **__: {"rc": 127, "stdout": "", "stderr": "sh: python3: not found"}
    with pytest.raises(_action.TaskFailure, match="No Python can be started"):
        action.ask("check", {})


CHECKED = {
    "exists": True,
    "healthy": True,
    "summary": "1 snapshot, no problems",
    "counts": {"error": 0, "warning": 0, "notice": 0},
    "reclaimable": 0,
    "reclaimed": 0,
    "free": 1,
    "total": 2,
    "findings": [],
    "snapshots": 1,
    "inventory": [
        {
            "kind": "active",
            "name": "a",
            "parent": "",
            "labels": {},
            "created": "2026-11-24T08:36:01.123456789Z",
            "updated": "2026-11-24T08:36:01Z",
            "id": 1,
            "scratch": None,
        }
    ],
    "diff": {"before": {}, "after": {}},
}


def answer(result, **entry):
    """Return the result of a check whose reply has ``result``, as ``ask`` returns it."""
    reply = {"protocol": 1, "results": [{"ok": True, "changed": False, "result": result, "warnings": [], **entry}]}
    return Action(Connection(json.dumps(reply))).ask("check", {})


def test_a_result_of_the_right_shape_arrives():
    assert answer(CHECKED)["result"] == CHECKED
    assert answer({**CHECKED, "other": 1})["result"] == CHECKED


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"free": "<b>"}, "check.free has an unexpected value: '<b>'"),
        ({"free": -1}, "check.free"),
        ({"healthy": 1}, "check.healthy"),
        ({"summary": None}, "check.summary"),
        ({"findings": {"a": 1}}, "check.findings"),
        ({"findings": [5]}, "check.findings"),
        ({"counts": []}, "check.counts"),
        ({"inventory": [{**CHECKED["inventory"][0], "created": "yesterday"}]}, "check.inventory.created"),
        ({"inventory": [{**CHECKED["inventory"][0], "created": "9999-99-99T99:99:99Z"}]}, "check.inventory.created"),
        ({"inventory": [{**CHECKED["inventory"][0], "updated": "10000-01-01T00:00:00Z"}]}, "check.inventory.updated"),
        (
            {"inventory": [{**CHECKED["inventory"][0], "updated": "9999-12-31T23:59:59-23:59"}]},
            "check.inventory.updated",
        ),
        ({"inventory": [{**CHECKED["inventory"][0], "labels": {"a": ["b"]}}]}, "check.inventory.labels"),
        ({"diff": {"before": [], "after": {}}}, "check.diff.before"),
    ],
)
def test_a_result_of_another_shape_is_a_failure_of_the_node(change, said):
    with pytest.raises(_action.TaskFailure) as caught:
        answer({**CHECKED, **change})
    assert f"The node's reply cannot be used: {said}" in str(caught.value)
    assert caught.value.code == "internal"


def test_advice_that_is_not_text_is_a_failure_of_the_node():
    error = {"code": "internal", "message": "x", "details": {"advice": ["y"]}}
    with pytest.raises(_action.TaskFailure, match="The node's reply cannot be used: details.advice"):
        answer({}, error=error)


@pytest.mark.parametrize("results", [[], [{}], [{"ok": True}], [{"ok": True, "result": None}], None])
def test_a_reply_without_a_result_is_a_failure_of_the_node(results):
    reply = {"protocol": 1, **({} if results is None else {"results": results})}
    with pytest.raises(_action.TaskFailure, match="The node's reply"):
        Action(Connection(json.dumps(reply))).ask("check", {})


def test_differences_show_letters_and_escape_what_cannot_be_seen():
    action = Action()
    action.returned = ()
    state = {"\u00fcber": {"labels": {"team": "\u4e2d\u6587 \U0001f600 \u202e\x9b\u200b"}}}
    shown = action._result({"result": {"diff": {"before": {}, "after": state}}})["diff"]
    assert shown["before"] == "{}\n"
    assert '"\u00fcber": {' in shown["after"]
    assert '"team": "\u4e2d\u6587 \U0001f600 \\u202e\\u009b\\u200b"' in shown["after"]
    assert shown["after"].endswith("}\n")
    assert json.loads(shown["after"]) == state
    plain = {"before": None, "after": {"a": {"rootfs_size": 1}}}
    assert action._result({"result": {"diff": plain}})["diff"] == plain


@pytest.mark.parametrize(
    ("variables", "message", "shown"),
    [
        (
            {"root": "wcow_root"},
            r"C:\root is not a store, and not empty: it has notes.txt; name another root, or empty it",
            r"C:\root is not a store, and not empty: it has notes.txt; name another wcow_root, or empty it",
        ),
        (
            {"root": "wcow_root"},
            r"root C:\x y is a file, not a directory; name the directory of the store",
            r"wcow_root C:\x y is a file, not a directory; name the directory of the store",
        ),
        (
            {"rootfs_size": "store_rootfs_size", "force": "store_adopt"},
            "rootfs_size: 'large' is not a size; set force=true",
            "store_rootfs_size: 'large' is not a size; set store_adopt=true",
        ),
        (
            {"checksum": "python_runtime_checksum", "src": "python_runtime_src"},
            "Compare the option checksum with the digest; name it in the option src",
            "Compare the variable python_runtime_checksum with the digest; name it in the variable python_runtime_src",
        ),
        (
            {"filters": "rootfs_size_filters"},
            'filters: parse error: [kind >|=|< active]: unsupported operator "="',
            'rootfs_size_filters: filters: parse error: [kind >|=|< active]: unsupported operator "="',
        ),
        ({"version": "python_runtime_version"}, "Windows version 10 is unknown", "Windows version 10 is unknown"),
        ({}, "rootfs_size: '1' is not a size", "rootfs_size: '1' is not a size"),
    ],
)
def test_messages_name_the_variables_that_set_options(variables, message, shown):
    assert _action.name_variables(message, variables) == shown
