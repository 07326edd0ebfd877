# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the command line ``python -m lab``."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]


def lab(directory, *arguments):
    """Run one command in the parent of ``directory``."""
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments, "--directory", directory.name],
        cwd=directory.parent,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def directory(tmp_path):
    yield tmp_path / "lab"
    lab(tmp_path / "lab", "down")


def test_a_life(directory):
    up = lab(directory, "up", "--nodes", "4", "--auth", "basic,ntlm", "--tls")
    assert (up.returncode, up.stderr) == (0, "")
    assert "The lab is up: 4 nodes" in up.stdout
    assert "ansible-playbook -i lab/inventory.yml PLAYBOOK" in up.stdout
    assert "python -m lab down --directory lab" in up.stdout

    inventory = yaml.safe_load((directory / "inventory.yml").read_text())["windows"]
    assert [host["ansible_connection"] for host in inventory["hosts"].values()] == ["psrp", "psrp", "winrm", "psrp"]
    password = inventory["hosts"]["node1"]["ansible_password"]
    holders = [path for path in directory.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert [path.name for path in holders if not path.is_symlink()] == ["inventory.yml"]
    assert (directory / "node4" / "C" / "Program Files" / "wcow" / "python" / "python.exe").is_symlink()

    status = lab(directory, "status")
    assert status.returncode == 0
    assert status.stdout.count("https://127.0.0.1:") == 4

    second = lab(directory, "up")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert "python -m lab down" in second.stderr

    pid = json.loads((directory / "lab.json").read_text())["pid"]
    assert password not in Path(f"/proc/{pid}/cmdline").read_text()
    assert password not in Path(f"/proc/{pid}/environ").read_text()

    assert lab(directory, "down").stdout == "The lab is down.\n"
    assert not (directory / "inventory.yml").exists()
    assert (directory / "node1" / "C" / "Windows").is_dir()
    assert (directory / "lab.log").read_text() == ""
    assert lab(directory, "status").returncode == 3
    assert lab(directory, "down", "--purge").returncode == 0
    assert not directory.exists()


def test_a_lab_whose_process_was_killed(directory):
    assert lab(directory, "up", "--nodes", "1", "--connection", "winrm", "--without-python").returncode == 0
    os.kill(json.loads((directory / "lab.json").read_text())["pid"], signal.SIGKILL)
    assert lab(directory, "status").returncode == 3
    assert lab(directory, "up", "--nodes", "1").returncode == 0
    assert lab(directory, "down").stdout == "The lab is down.\n"


def test_a_directory_of_another_kind(directory):
    directory.mkdir()
    (directory / "node1").mkdir()
    up = lab(directory, "up")
    assert up.returncode == 1
    assert "is not empty and is not the directory of a lab" in up.stderr
    assert lab(directory, "down", "--purge").returncode == 0
    assert (directory / "node1").is_dir()


def test_a_directory_that_cannot_be_written(directory):
    directory.write_text("a file")
    up = lab(directory, "up")
    assert up.returncode == 1
    assert up.stderr.startswith("lab: ")
    directory.unlink()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--nodes", "0"], "'0' is not a number from 1 to 64"),
        (["--nodes", "many"], "'many' is not a number from 1 to 64"),
        (["--auth", "kerberos"], "'kerberos' is not one of basic, ntlm"),
        (["--auth", ""], "'' is not one of basic, ntlm"),
        (["--connection", "psrp,ssh"], "'ssh' is not one of psrp, winrm, ssh-cmd, ssh-powershell"),
        (["--latency", "-1"], "'-1' is not a number of seconds"),
        (["--spawn", "nan"], "'nan' is not a number of seconds"),
        (["--python", "/etc/passwd"], "'/etc/passwd' is not an executable file"),
        (["--bind", "0.0.0.0"], "unrecognized arguments"),
    ],
)
def test_a_wrong_command_line(directory, arguments, text):
    up = lab(directory, "up", *arguments)
    assert up.returncode == 2
    assert text in up.stderr
    assert not directory.exists()


def test_faults(directory):
    assert lab(directory, "up", "--nodes", "1").returncode == 0
    asked = lab(directory, "fault", "node1", "--kind", "drop-before", "--at", "2")
    assert asked.stdout.startswith("With request 2 of node1 from now on: the connection breaks")
    assert lab(directory, "status").returncode == 0
    assert "DOES NOT ANSWER" in lab(directory, "status").stdout
    assert "DOES NOT ANSWER" not in lab(directory, "status").stdout

    asked = lab(directory, "fault", "node1", "--kind", "cut")
    assert lab(directory, "fault", "node1", "--kind", "none").stdout == "node1 has no fault waiting.\n"
    assert "DOES NOT ANSWER" not in lab(directory, "status").stdout

    unknown = lab(directory, "fault", "node7", "--kind", "cut")
    assert (unknown.returncode, unknown.stderr) == (1, "lab: the lab has no node 'node7'; it has node1\n")
    for wrong in (["--kind", "flood"], ["--kind", "cut", "--at", "0"], ["--kind", "late", "--seconds", "-1"], []):
        assert lab(directory, "fault", "node1", *wrong).returncode == 2


def test_a_fault_without_a_lab(directory):
    asked = lab(directory, "fault", "node1", "--kind", "cut")
    assert asked.returncode == 1
    assert asked.stderr.startswith("lab: no lab is running in ")


def test_status_and_down_of_no_lab(directory):
    assert lab(directory, "status").returncode == 3
    assert lab(directory, "down").stdout.startswith("No lab was running")


def test_a_layer_for_playbooks(directory):
    command = [sys.executable, "-m", "lab", "layer", "base.tar.gz"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    made = subprocess.run(command, cwd=directory.parent, env=environment, capture_output=True, text=True, check=True)
    data = (directory.parent / "base.tar.gz").read_bytes()
    assert made.stdout == (
        f"base.tar.gz is a base layer of a few files, gzipped. SHA-256: {hashlib.sha256(data).hexdigest()}\n"
        "For option digest of the module layer (the digest of the plain tar): "
        f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}\n"
    )


def test_a_package_for_nodes_without_python(directory):
    # This command has no --directory, so lab() cannot run it.
    command = [sys.executable, "-m", "lab", "package", "python.zip", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    run = functools.partial(
        subprocess.run, cwd=directory.parent, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    written = run([*command, "3.12.10"])
    digest = hashlib.sha256((directory.parent / "python.zip").read_bytes()).hexdigest()
    assert written.stdout == f"python.zip reports itself as Python 3.12.10. SHA-256: {digest}\n"
    refused = run([*command, "new"])
    assert refused.returncode == 2
    assert "'new' is not a version such as 3.12.10" in refused.stderr
