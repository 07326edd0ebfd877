# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a lab: what ``ansible-playbook -i`` needs to reach its nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from .host import ADDRESS, USER
from .state import AUTHORITY, INVENTORY, State

_HEADER = "# Written by `python -m lab up`, void after `python -m lab down`. Holds the lab's password.\n"


def write(directory: Path, state: State, password: str) -> Path:
    """Write the inventory for its owner's eyes only, and say where it is."""
    path = directory / INVENTORY
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(_HEADER)
        yaml.safe_dump(content(directory, state, password), file, sort_keys=False)
    return path


def content(directory: Path, state: State, password: str) -> dict[str, Any]:
    """The inventory as a value: the group ``windows`` with one host a node."""
    authority = str(directory / AUTHORITY) if state.tls else None
    # Basic is the cheaper one; NTLM is used where it is the only one.
    auth = "basic" if "basic" in state.auth else "ntlm"
    hosts = {}
    for node in state.nodes:
        options = _psrp(auth, authority) if node.connection == "psrp" else _winrm(auth, authority)
        hosts[node.name] = {"ansible_connection": node.connection, "ansible_port": node.port, **options}
    common = {"ansible_host": ADDRESS, "ansible_user": USER, "ansible_password": password}
    return {"windows": {"hosts": hosts, "vars": common}}


def _psrp(auth: str, authority: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ansible_psrp_protocol": "https" if authority else "http",
        "ansible_psrp_auth": auth,
        # A proxy of the controller's environment has no business on loopback.
        "ansible_psrp_ignore_proxy": True,
    }
    if authority:
        options["ansible_psrp_ca_cert"] = authority
    elif auth == "basic":
        # Basic cannot encrypt, and pypsrp wants to be told that this is known.
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
