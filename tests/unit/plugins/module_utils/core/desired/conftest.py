# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that the tests of desired states share."""

from __future__ import annotations

import gzip
from typing import Any, Callable

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired import image as image_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task


@pytest.fixture
def task(store: Snapshotter) -> Task:
    return Task(store)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that sets the Windows version of this host. The version is empty at first."""

    def be(version: str) -> None:
        monkeypatch.setattr(image_module, "host_version", lambda: version)

    be("")
    return be


@pytest.fixture
def archive(tmp_path: Any) -> str:
    """A layer tar with four entries, compressed with gzip."""
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(
        gzip.compress(
            tarfile_tar(
                ("Files", "directory"),
                ("Files/Windows", "directory"),
                ("Hives", "directory"),
                ("Files/Windows/win.ini", b"hello"),
            )
        )
    )
    return str(path)
