# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which process gets a signal and which files are deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lab import state

NODES = (state.NodeState("node1", "psrp", 1234),)


@pytest.fixture
def bystander():
    """A process that does not belong to a lab."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait(10)


def test_read_returns_what_publish_wrote(tmp_path):
    published = state.State(os.getpid(), True, ("basic", "ntlm"), NODES)
    with state.lock(tmp_path) as file:
        assert state.read(tmp_path) == (None, True)
        state.publish(file, published)
        assert state.read(tmp_path) == (published, True)
    assert state.read(tmp_path) == (published, False)


def test_a_second_lab_in_the_same_directory_is_refused(tmp_path):
    with state.lock(tmp_path), pytest.raises(state.AlreadyRunning):
        state.lock(tmp_path)


def test_a_process_id_that_has_been_reused_is_not_signalled(tmp_path, bystander):
    with state.lock(tmp_path) as file:
        state.publish(file, state.State(bystander.pid, False, ("basic",), NODES))
    assert state.stop(tmp_path) is False
    assert bystander.poll() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid": "x"}', '{"pid": 1, "tls": 0, "auth": [], "nodes": [7]}']
)
def test_a_damaged_file_names_no_process(tmp_path, text):
    (tmp_path / state.STATE).write_text(text)
    assert state.read(tmp_path) == (None, False)
    assert state.stop(tmp_path) is False


def test_stop_deletes_the_inventory(tmp_path):
    (tmp_path / state.INVENTORY).touch()
    assert state.stop(tmp_path) is False
    assert not (tmp_path / state.INVENTORY).exists()


def test_purge_deletes_what_labs_write_and_nothing_else(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    directory = tmp_path / "lab"
    (directory / "node1" / "C").mkdir(parents=True)
    (directory / "node1" / "C" / "link").symlink_to(outside)
    (directory / "node12").mkdir()
    (directory / "nodes.txt").touch()
    (directory / state.STATE).write_text(json.dumps({}))
    state.purge(directory)
    assert [entry.name for entry in directory.iterdir()] == ["nodes.txt"]
    assert (outside / "kept").exists()


def test_purge_leaves_a_directory_of_another_kind(tmp_path):
    (tmp_path / "node1").mkdir()
    state.purge(tmp_path)
    assert (tmp_path / "node1").exists()
