# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A version of the proxy snapshotter that can run, as the payload of a task has it."""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.proxy import versions
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _payload


@pytest.fixture(scope="session")
def make_version() -> Callable[..., versions.Version]:
    def make(version: str = "1.0.0", module: str = "core.serve.emulated_service") -> versions.Version:
        payload = _payload.payload("service")
        boot = payload.data[payload.boot.start : payload.boot.stop]
        return versions.make_version(version, payload.data, boot, module)

    return make


@pytest.fixture
def home(tmp_path: Any) -> str:
    return os.path.join(str(tmp_path), "snapshotter")


@pytest.fixture
def command(tmp_path: Any, home: str) -> Callable[..., List[str]]:
    """Return the program of a version that is written, with its arguments."""

    def make(version: versions.Version, **settings: str) -> List[str]:
        given = {
            "service": "wcow-test",
            "address": os.path.join(str(tmp_path), "socket"),
            "root": os.path.join(str(tmp_path), "root"),
            "layers": "emulated",
            "version": version.version,
            "log": os.path.join(home, "logs", "service.log"),
            "log-level": "info",
            **settings,
        }
        program = os.path.join(home, version.name, versions.START)
        options = [text for name, value in given.items() for text in (f"--{name}", value)]
        return [sys.executable, "-I", "-X", "utf8", program, *options]

    return make
