# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the description of services and processes. tests/wine shows those of Windows."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.programs import (
    Program,
    find_processes,
    find_service,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition


def test_described_programs(node: Any) -> None:
    node.add_service("containerd", r"C:\containerd.exe --run-service", is_running=False)
    node.add_process(4, r"C:\other.exe")
    node.add_process(8, r'"C:\Program Files\ContainerD.exe" --root C:\x')
    node.add_process(12, "/usr/bin/containerd")
    assert find_service("containerd", "containerd.exe") == Program(
        "service containerd", r"C:\containerd.exe --run-service", False
    )
    assert find_service("other", "containerd.exe") is None
    assert list(find_processes("containerd.exe")) == [
        Program("process 8", r'"C:\Program Files\ContainerD.exe" --root C:\x', True),
        Program("process 12", "/usr/bin/containerd", True),
    ]


def test_an_empty_description(node: Any) -> None:
    assert find_service("containerd", "containerd.exe") is None
    assert not list(find_processes("containerd.exe"))


@pytest.mark.parametrize("text", ["", "{", "[1"])
def test_a_description_that_is_not_json(
    node: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, text: str
) -> None:
    path = tmp_path / "damaged.json"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("WCOW_EMULATED_SERVICES", str(path))
    with pytest.raises(FailedPrecondition, match="which WCOW_EMULATED_SERVICES names"):
        find_service("containerd", "containerd.exe")


@pytest.mark.posix
def test_a_host_without_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WCOW_EMULATED_SERVICES", raising=False)
    assert find_service("containerd", "containerd.exe") is None
    assert not list(find_processes("containerd.exe"))
