# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes over ssh: the ssh client of Ansible's own connection, against OpenSSH with either default shell."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import RERUN
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

from lab import faults, package, sample

pytestmark = pytest.mark.requires_tool("ssh", "openssh-client")

STORE = {"wcow.snapshotter.store": {}}
CHECK = {"wcow.snapshotter.store_check": {}}
RUNTIME = {"wcow.snapshotter.python_runtime": {}}


@pytest.fixture
def start(tmp_path_factory):
    """Start a lab whose nodes have cmd.exe (node1, node3, ...) or PowerShell (node2, ...) as their default shell."""
    labs = []

    def start(*options, **keywords):
        # The path of ssh's control socket must be short.
        directory = tmp_path_factory.mktemp("s") / "l"
        labs.append(Lab(directory, "--connection", "ssh-cmd,ssh-powershell", *options, **keywords))
        return labs[-1]

    yield start
    for lab in labs:
        lab.lab("down")


def log(lab, node):
    lines = map(json.loads, (lab.directory / "access.jsonl").read_text().splitlines())
    return [line for line in lines if line["node"] == node]


def test_snapshots(start):
    """The life of a snapshot. Both clients keep one connection, and the first contact sends the whole payload."""
    lab = start()
    for node in lab.nodes:
        sample.write_layer(lab.file(node, "images/base.tar.gz"))
    snapshot = {"key": "work", "parent": "base", "rootfs_size": "30GB"}
    results = lab.play(
        STORE,
        {"wcow.snapshotter.layer": {"name": "base", "src": r"C:\images\base.tar.gz", "remote_src": True}},
        {"wcow.snapshotter.snapshot": snapshot},
        {"wcow.snapshotter.snapshot": snapshot},
        CHECK,
        {"wcow.snapshotter.snapshot": {"key": "work", "state": "absent"}},
    )
    for node, (*changing, checked, _removed) in results.items():
        assert [result["changed"] for result in changing] == [True, True, True, False], lab.output
        assert (checked["healthy"], checked["snapshots"]) == (True, 2)
        assert all("refused" not in line["action"] for line in log(lab, node))
        requests = lab.requests()[node]
        # A task is one command. The first task needs a second command, which has the payload.
        assert [request["action"] for request in requests] == ["Command"] * 7
        assert requests[1]["received"] > 150_000
        assert len({request["connection"] for request in requests}) == 1
        assert {request["status"] for request in requests} == {0}
    key = lab.directory / "id_ed25519"
    assert key.stat().st_mode & 0o777 == 0o600
    lab.lab("down")
    assert not key.exists()
    assert (lab.directory / "lab.log").read_text() == ""


def test_the_runtime(start):
    """python_runtime sends its scripts, and a package as input, over ssh too."""
    lab = start("--without-python")
    digest = package.write_package(lab.controller() / "python.zip", "3.12.10")
    install = {"wcow.snapshotter.python_runtime": {"src": "python.zip", "checksum": digest, "version": "3.12.10"}}
    for missing, installed, store, again in lab.play(STORE, install, STORE, install).values():
        assert "No Python can be started on the node" in missing["msg"]
        assert installed["actions"] == ["install 3.12.10"]
        assert store["changed"] is True
        assert again["changed"] is False


def test_hosts_without_a_shell_type(start):
    """Ansible takes such a host for a POSIX host. The error says which variable is missing, and where."""
    lab = start(nodes=4)
    for node, host in lab.hosts.items():
        del host["ansible_shell_type"]
        if node in ("node3", "node4"):
            host["wcow_python"] = "python.exe"
    for node, (checked, runtime) in lab.play(CHECK, RUNTIME).items():
        assert checked["msg"].startswith(f"{node} has no Windows shell type, so Ansible takes it for a POSIX host")
        assert f"Set the variable ansible_shell_type of {node} to cmd, or to powershell" in checked["msg"]
        assert checked["error"]["code"] == "invalid_argument"
        assert (
            f"connect to {node} with psrp or winrm, or with ssh and the variable ansible_shell_type" in runtime["msg"]
        )
        # The default path is one of Windows. It takes no command to see that.
        assert len(lab.requests()[node]) == (0 if "wcow_python" not in lab.hosts[node] else 1)


def test_hosts_that_do_not_let_in(start):
    lab = start(nodes=4)
    key = lab.controller() / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    for node in ("node1", "node2"):
        lab.hosts[node]["ansible_ssh_private_key_file"] = str(key)
    for node in ("node3", "node4"):
        lab.hosts[node]["ansible_ssh_common_args"] = "-F none -o UserKnownHostsFile=/dev/null"
    for node, (result,) in lab.play(CHECK).items():
        assert result["unreachable"] is True
        said = "Permission denied (publickey)" if node in ("node1", "node2") else "Host key verification failed"
        assert said in result["msg"]
        assert result["msg"].endswith(_action.UNTOUCHED)
    assert "rejected" in {line["action"] for line in log(lab, "node1")}


def test_connections_that_break(start):
    """Each fault hits the command with the payload. A rerun finds what is done."""
    kinds = ("drop-before", "drop-after", "cut", "down", "die", "delay", "late")
    lab = start(nodes=2 * len(kinds))
    armed = {node: kinds[number // 2] for number, node in enumerate(lab.nodes)}
    for node, kind in armed.items():
        faults.arm(lab.directory / node, faults.Fault(kind, at=2, seconds=0.5))
    for node, (result,) in lab.play(STORE).items():
        if armed[node] in ("delay", "late"):
            assert result["changed"] is True
        else:
            assert result["unreachable"] is True, (armed[node], result)
            assert result["msg"].endswith(RERUN)
        assert armed[node] in [line.get("injected") for line in log(lab, node)]
    time.sleep(1)
    for node, (again, checked) in lab.play(STORE, CHECK).items():
        assert again["changed"] is (armed[node] in ("drop-before", "down", "die")), armed[node]
        assert checked["healthy"] is True


def test_other_command_lines(start):
    """PowerShell as the default shell takes a line as a script. Everything else is refused with a reason."""
    lab = start()
    python = r"& 'C:\Program Files\wcow\python\python.exe' -c 'raise SystemExit(3)'"
    results = lab.play({"ansible.builtin.raw": python}, {"ansible.builtin.raw": "dir"})
    (cmd, refused), (powershell, unknown) = results["node1"], results["node2"]
    assert (powershell["rc"], powershell["stderr"]) == (1, "")
    for result in (cmd, refused):
        assert result["rc"] == 1
        assert "the only command line that is supported" in result["stderr"]
    assert "lab node: the statement 'dir' is not supported" in unknown["stderr"]
