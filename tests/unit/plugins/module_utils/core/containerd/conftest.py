# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for a node whose drives are directories."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Dict

import pytest


class Node:
    """A Windows node: files on its drives, services and processes."""

    def __init__(self, directory: pathlib.Path, services: pathlib.Path) -> None:
        self._directory = directory
        self._services = services
        self._programs: Dict[str, Any] = {"services": {}, "processes": {}}

    def write(self, path: str, text: str) -> str:
        """Write a file at a path with a drive."""
        drive, rest = path.split(":\\")
        file = self._directory.joinpath(drive, *rest.split("\\"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        return path

    def add_service(self, name: str, command_line: str, *, is_running: bool = True) -> None:
        self._programs["services"][name] = {"command_line": command_line, "is_running": is_running}
        self._services.write_text(json.dumps(self._programs), encoding="utf-8")

    def add_process(self, process: int, command_line: str) -> None:
        self._programs["processes"][str(process)] = command_line
        self._services.write_text(json.dumps(self._programs), encoding="utf-8")


@pytest.fixture
def node(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    services = tmp_path / "services.json"
    services.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("WCOW_EMULATED_DRIVES", str(tmp_path / "drives"))
    monkeypatch.setenv("WCOW_EMULATED_SERVICES", str(services))
    monkeypatch.setenv("PROGRAMFILES", r"C:\Program Files")
    monkeypatch.setenv("PROGRAMDATA", r"C:\ProgramData")
    return Node(tmp_path / "drives", services)
