# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible inventory of a lab."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import yaml

from .host import ADDRESS, USER
from .state import AUTHORITY, INVENTORY, KNOWN_HOSTS, PRIVATE_KEY, SSH_CONNECTIONS, State

_HEADER = "# Written by `python -m lab up`, valid until `python -m lab down`. Contains the password of the lab.\n"


def write(directory: Path, state: State, password: str) -> Path:
    """Write the inventory, which only its owner can read, and return its path."""
    path = directory / INVENTORY
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(_HEADER)
        yaml.safe_dump(content(directory, state, password), file, sort_keys=False)
    return path


def content(directory: Path, state: State, password: str) -> dict[str, Any]:
    """Return the inventory as a value: the group ``windows`` with one host for each node."""
    authority = str(directory / AUTHORITY) if state.tls else None
    # Basic is cheaper. NTLM is used where it is the only scheme.
    auth = "basic" if "basic" in state.auth else "ntlm"
    hosts = {}
    for node in state.nodes:
        if node.connection in SSH_CONNECTIONS:
            options = _ssh(directory, SSH_CONNECTIONS[node.connection])
        else:
            web_services = _psrp if node.connection == "psrp" else _winrm
            # Ansible's ssh would want the program sshpass if the group had a password.
            options = {"ansible_password": password, **web_services(auth, authority)}
        connection = "ssh" if node.connection in SSH_CONNECTIONS else node.connection
        hosts[node.name] = {"ansible_connection": connection, "ansible_port": node.port, **options}
    return {"windows": {"hosts": hosts, "vars": {"ansible_host": ADDRESS, "ansible_user": USER}}}


def _psrp(auth: str, authority: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ansible_psrp_protocol": "https" if authority else "http",
        "ansible_psrp_auth": auth,
        # The proxy settings of the controller do not apply to loopback.
        "ansible_psrp_ignore_proxy": True,
    }
    if authority:
        options["ansible_psrp_ca_cert"] = authority
    elif auth == "basic":
        # Basic cannot encrypt messages, and pypsrp fails unless it is told not to encrypt.
        options["ansible_psrp_message_encryption"] = "never"
    return options


def _winrm(auth: str, authority: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ansible_winrm_scheme": "https" if authority else "http",
        "ansible_winrm_transport": [auth],
        "ansible_winrm_proxy": None,
    }
    if authority:
        options["ansible_winrm_ca_trust_path"] = authority
    return options


def _ssh(directory: Path, shell: str) -> dict[str, Any]:
    known_hosts = str(directory / KNOWN_HOSTS).replace("%", "%%")
    return {
        "ansible_shell_type": shell,
        "ansible_ssh_private_key_file": str(directory / PRIVATE_KEY),
        # The settings and keys of the controller's user do not apply to the lab.
        "ansible_ssh_common_args": shlex.join(
            ["-F", "none", "-o", "IdentitiesOnly=yes", "-o", f'UserKnownHostsFile="{known_hosts}"']
        ),
    }
