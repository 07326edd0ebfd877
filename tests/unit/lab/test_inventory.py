# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the variables of the inventory."""

from __future__ import annotations

import shlex

import pytest
import yaml

from lab import inventory
from lab.state import NodeState, State

PASSWORD = "p'w: {}"
NODES = (NodeState("node1", "psrp", 1001), NodeState("node2", "winrm", 1002), NodeState("node3", "ssh-cmd", 1003))


def hosts(tmp_path, tls, auth):
    path = inventory.write(tmp_path, State(1, tls, auth, NODES), PASSWORD)
    assert path.stat().st_mode & 0o777 == 0o600
    group = yaml.safe_load(path.read_text())["windows"]
    assert group["vars"] == {"ansible_host": "127.0.0.1", "ansible_user": "Administrator"}
    psrp, winrm, _ssh = group["hosts"].values()
    assert psrp["ansible_password"] == winrm["ansible_password"] == PASSWORD
    return psrp, winrm


@pytest.mark.parametrize("auth", [("basic",), ("ntlm", "basic")])
def test_basic_over_http(tmp_path, auth):
    psrp, winrm = hosts(tmp_path, False, auth)
    assert psrp == {
        "ansible_connection": "psrp",
        "ansible_port": 1001,
        "ansible_password": PASSWORD,
        "ansible_psrp_protocol": "http",
        "ansible_psrp_auth": "basic",
        "ansible_psrp_ignore_proxy": True,
        "ansible_psrp_message_encryption": "never",
    }
    assert winrm == {
        "ansible_connection": "winrm",
        "ansible_port": 1002,
        "ansible_password": PASSWORD,
        "ansible_winrm_scheme": "http",
        "ansible_winrm_transport": ["basic"],
        "ansible_winrm_proxy": None,
    }


def test_ntlm_over_http_is_encrypted(tmp_path):
    psrp, winrm = hosts(tmp_path, False, ("ntlm",))
    assert psrp["ansible_psrp_auth"] == "ntlm"
    assert "ansible_psrp_message_encryption" not in psrp
    assert winrm["ansible_winrm_transport"] == ["ntlm"]


def test_tls_is_validated(tmp_path):
    psrp, winrm = hosts(tmp_path, True, ("basic",))
    authority = str(tmp_path / "ca.pem")
    assert psrp["ansible_psrp_protocol"] == winrm["ansible_winrm_scheme"] == "https"
    assert psrp["ansible_psrp_ca_cert"] == winrm["ansible_winrm_ca_trust_path"] == authority


def test_no_interpreter_and_no_variable_of_the_collection(tmp_path):
    assert not {
        name for host in hosts(tmp_path, False, ("basic",)) for name in host if "python" in name or "wcow" in name
    }


def test_an_old_inventory_is_replaced_with_its_mode(tmp_path):
    (tmp_path / "inventory.yml").write_text("old")
    (tmp_path / "inventory.yml").chmod(0o644)
    hosts(tmp_path, False, ("basic",))


@pytest.mark.parametrize("shell", ["cmd", "powershell"])
def test_ssh_uses_a_key_and_no_settings_of_the_user(tmp_path, shell):
    directory = tmp_path / "a 100% lab"
    (host,) = inventory.content(
        directory, State(1, False, ("basic",), (NodeState("node1", f"ssh-{shell}", 1003),)), PASSWORD
    )["windows"]["hosts"].values()
    arguments = host.pop("ansible_ssh_common_args")
    assert host == {
        "ansible_connection": "ssh",
        "ansible_port": 1003,
        "ansible_shell_type": shell,
        "ansible_ssh_private_key_file": str(directory / "id_ed25519"),
    }
    # ssh expands percent signs, and its settings need quotes around blanks.
    known_hosts = f'UserKnownHostsFile="{tmp_path}/a 100%% lab/known_hosts"'
    assert shlex.split(arguments) == ["-F", "none", "-o", "IdentitiesOnly=yes", "-o", known_hosts]
