# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layer stores on which the contract suite runs."""

from __future__ import annotations

import os
from typing import Any, Iterator

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.windows.store import WindowsLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

LAYER_STORES = {"emulated": EmulatedLayers, **({"windows": WindowsLayers} if os.name == "nt" else {})}


@pytest.fixture(params=sorted(LAYER_STORES))
def layers(request: pytest.FixtureRequest) -> Any:
    return LAYER_STORES[request.param]()


@pytest.fixture
def snapshotter(tmp_path: Any, layers: Any) -> Iterator[Snapshotter]:
    opened = Snapshotter(os.path.join(str(tmp_path), "root"), layers)
    yield opened
    opened.close()
