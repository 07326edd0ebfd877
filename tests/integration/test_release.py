# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make release`` in a clone: an artefact that Galaxy accepts, a changelog, and the commands that publish both."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.wcow.snapshotter.tests.integration.nodes import CHECKOUT

REPOSITORY = "https://example.invalid/wcow/snapshotter"
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]


@pytest.mark.long
def test_a_release_in_a_clone(tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    # As git would commit it now, so that the test covers changes that are not committed yet.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, check=True
    )
    there = b"\n".join(name for name in listed.stdout.splitlines() if (CHECKOUT / os.fsdecode(name)).exists())
    subprocess.run(f"tar -c -T - | tar -x -C {clone}", shell=True, cwd=CHECKOUT, input=there, check=True)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Begin"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=clone, check=True)

    venv = Path(sys.prefix)
    # The environment of this test is complete, so make must not install it again. `make lint` shows the linter.
    make = ["make", f"VENV={venv}", "-o", f"{venv}/test.stamp", "-o", f"{venv}/bin/python", "release"]
    environment = {**os.environ, "GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "false"}
    # As CONTRIBUTING.md shows it, with the values of this test.
    (command,) = re.findall(r"^\$ make release (.*)$", (CHECKOUT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert [value.partition("=")[0] for value in command.split()] == ["REPOSITORY", "VERSION", "CONTACT"]
    values = [f"REPOSITORY={REPOSITORY}", "VERSION=9.8.7", "CONTACT=security@example.invalid"]
    done = subprocess.run(
        [*make, *values], cwd=clone, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wcow-snapshotter-9.8.7.tar.gz is accepted" in done.stdout
    assert "git tag 9.8.7" in done.stdout
    assert f"git push {REPOSITORY} HEAD 9.8.7" in done.stdout
    (built,) = re.findall(r"ansible-galaxy collection publish (\S+)", done.stdout)

    with tarfile.open(built) as archive:
        info = json.load(archive.extractfile("MANIFEST.json"))["collection_info"]
        assert info["version"] == "9.8.7"
        assert info["repository"] == REPOSITORY
        assert info["issues"] == f"{REPOSITORY}/issues"
        assert info["documentation"] == REPOSITORY
        assert "security@example.invalid" in archive.extractfile("SECURITY.md").read().decode()
        changes = archive.extractfile("CHANGELOG.rst").read().decode()
    assert "v9.8.7" in changes
    assert "Minor Changes" in changes
    assert not list((clone / "changelogs/fragments").glob("*.yml"))

    again = subprocess.run([*make, *values], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert "the changelog already has 9.8.7" in again.stderr
