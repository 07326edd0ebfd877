# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lab nodes that several files use."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab


@pytest.fixture
def lab_with_containerd(tmp_path_factory):
    """Two nodes, each with a simulated containerd."""
    # The path of a socket must be short, so the directory does not have the name of a test.
    started = Lab(tmp_path_factory.mktemp("c") / "lab", "--containerd")
    yield started
    started.lab("down")
