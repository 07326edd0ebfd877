# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test findings about the entries of ``snapshots``."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.store import ensure_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations


def restored(store: Snapshotter, number: int) -> Snapshotter:
    """Restore metadata from a backup that is older than the last ``number`` snapshots; return the opened store."""
    copy = situations.path(store, "copy")
    with contextlib.closing(sqlite3.connect(copy)) as target, situations.metadata(store) as tables:
        tables.backup(target)
    for fresh in range(number):
        store.prepare(f"fresh{fresh}", "app")
    situations.missing_metadata(store)
    os.rename(copy, situations.path(store, "metadata.sqlite3"))
    return Snapshotter(store.root, EmulatedLayers())


@pytest.mark.parametrize("number", [1, 2, 5])
def test_layers_that_are_newer_than_restored_metadata_stay(store: Snapshotter, number: int) -> None:
    wanted = [str(5 + fresh) for fresh in range(number)]
    opened = restored(store, number)
    assert situations.codes(opened, repair=True) == ["unknown_directory"] * number
    # They also stay when work continues. New snapshots skip their ids.
    opened.prepare("later", "app")
    assert opened.stat("later").id == 5 + number
    assert situations.codes(opened, repair=True) == ["unknown_directory"] * number
    assert set(wanted) < set(os.listdir(situations.path(store, "snapshots")))
    opened.close()


def test_layers_that_are_older_than_new_metadata_stay(store: Snapshotter) -> None:
    situations.missing_metadata(store)
    opened = Snapshotter(store.root, EmulatedLayers())
    ensure_store(opened, force=True)
    opened.prepare("new")
    assert opened.stat("new").id == 4
    assert situations.codes(opened, repair=True) == ["unknown_directory"] * 3
    assert sorted(os.listdir(situations.path(store, "snapshots"))) == ["1", "2", "3", "4"]

    # A repair that names the code destroys them.
    planned = check(opened, repair=False, only=["unknown_directory"]).findings
    assert all(finding.reclaimable > 0 and "with only=[unknown_directory]" in finding.remedy for finding in planned)
    assert situations.codes(opened, repair=True, only=["unknown_directory"]) == ["unknown_directory"] * 3
    assert os.listdir(situations.path(store, "snapshots")) == ["4"]
    assert situations.codes(opened) == []
    opened.close()


def test_a_directory_whose_record_is_about_to_be_committed(store: Snapshotter) -> None:
    other = Snapshotter(store.root, EmulatedLayers())
    with other.store.write() as tx:
        tx.create_snapshot("active", "fresh", "app", {})
        other.directories.begin_layer(5)
        assert situations.codes(store) == []
        shutil.copyfile(
            situations.path(store, "snapshots", "1", "blank.vhdx"),
            situations.path(store, "snapshots", "5", "sandbox.vhdx"),
        )
    assert situations.codes(store) == []
    other.close()


@pytest.mark.posix
def test_a_failed_repair_says_why(store: Snapshotter, monkeypatch: pytest.MonkeyPatch) -> None:
    situations.removed_layer(store)

    def refuse(_layers: EmulatedLayers, directory: str) -> None:
        raise FailedPrecondition(f"{directory} is in use")

    monkeypatch.setattr(EmulatedLayers, "destroy_with_retries", refuse)
    with open(situations.path(store, "snapshots", "rm-5", "sandbox.vhdx"), "rb") as file:
        holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[file.fileno()])
    try:
        (finding,) = check(store, repair=True, at_restart=True).findings
    finally:
        holder.communicate()
    assert finding.repaired is False
    assert finding.action.startswith("not repaired: ")
    assert f"rm-5 is in use; in use: process {holder.pid} " in finding.action
    assert "and not scheduled: only Windows can" in finding.action
    monkeypatch.undo()
    assert situations.codes(store, repair=True) == ["leftover_removal"]
    assert situations.codes(store) == []
