# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test exports of layers to tars."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
import tarfile
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer import ensure_layer
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer_export import ensure_export
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task


def test_export(task: Task, archive: str, tmp_path: Any) -> None:
    ensure_layer(task.store, "os", archive)
    dest = str(tmp_path / "out.tar")
    done = task(ensure_export, "os", dest)
    assert done.result["actions"] == ["export os"]
    with open(dest, "rb") as file:
        content = file.read()
    assert done.result["layer"] == {"digest": "sha256:" + hashlib.sha256(content).hexdigest(), "size": len(content)}
    with tarfile.open(dest) as tar:
        assert "Files/Windows/win.ini" in tar.getnames()

    # The same layer gives the same bytes, also through gzip and after an import under another name.
    zipped = str(tmp_path / "out.tar.gz")
    assert task(ensure_export, "os", zipped).changed
    with gzip.open(zipped) as file:
        assert file.read() == content
    ensure_layer(task.store, "again", zipped, digest=done.result["layer"]["digest"])
    again = ensure_export(task.store, "again", str(tmp_path / "again.tar"))
    assert again.result["layer"] == done.result["layer"]

    with open(dest, "wb") as file:
        file.write(b"damaged")
    assert not ensure_export(task.store, "os", dest).changed
    assert ensure_export(task.store, "os", dest, force=True).result["layer"] == done.result["layer"]
    assert sorted(os.listdir(tmp_path)) == ["again.tar", "layer.tar.gz", "out.tar", "out.tar.gz", "root"]


def test_exports_that_are_refused(task: Task, tmp_path: Any) -> None:
    task.store.prepare("a", "base")
    dest = str(tmp_path / "x.tar")
    task.fails(NotFound, "snapshot does not exist", ensure_export, "nothing", dest)
    task.fails(FailedPrecondition, '"a" is an active snapshot .*; only a committed', ensure_export, "a", dest)
    nowhere = str(tmp_path / "nowhere" / "x.tar")
    task.fails(FailedPrecondition, "does not exist on the node; create it first", ensure_export, "base", nowhere)
    task.fails(FailedPrecondition, "is a directory on the node", ensure_export, "base", str(tmp_path), force=True)


def test_an_export_of_a_damaged_layer_says_where_it_was_to_go(store: Snapshotter, archive: str, tmp_path: Any) -> None:
    ensure_layer(store, "layer", archive, parent="base")
    directory = store.directories.directory(store.stat("layer").id)
    with open(os.path.join(directory, "tombstones.txt"), "wb") as file:
        file.write(b"damaged")
    dest = str(tmp_path / "x.tar")
    said = f'^cannot export "layer" to {re.escape(dest)}: invalid tombstones file'
    with pytest.raises(FailedPrecondition, match=said):
        ensure_export(store, "layer", dest)
    assert sorted(os.listdir(tmp_path)) == ["layer.tar.gz", "root"]


@pytest.mark.posix
@pytest.mark.parametrize("force", [False, True])
def test_a_target_that_is_not_a_file(task: Task, archive: str, tmp_path: Any, force: bool) -> None:
    ensure_layer(task.store, "os", archive)
    os.mkfifo(tmp_path / "pipe")
    task.fails(
        FailedPrecondition, "pipe is a named pipe on the node", ensure_export, "os", str(tmp_path / "pipe"), force=force
    )
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
