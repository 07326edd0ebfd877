# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from typing import List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import model


@pytest.mark.parametrize(
    ("parents", "read_only", "options"),
    [
        ([], False, ["rw", "parentLayerPaths=null"]),
        ([], True, ["ro", "parentLayerPaths=null"]),
        (["C:\\t\\1"], True, ["ro", 'parentLayerPaths=["C:\\\\t\\\\1"]']),
        (["C:\\b", "C:\\a"], False, ["rw", 'parentLayerPaths=["C:\\\\b","C:\\\\a"]']),
        (["/a<b>&c"], False, ["rw", 'parentLayerPaths=["/a\\u003cb\\u003e\\u0026c"]']),
        (["C:\\\u725b"], False, ["rw", 'parentLayerPaths=["C:\\\\\u725b"]']),
    ],
)
def test_layer_mount(parents: List[str], read_only: bool, options: List[str]) -> None:
    assert model.layer_mount("S", parents, read_only) == ("windows-layer", "S", options)


def test_now() -> None:
    first, second = model.now(), model.now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", first)
    assert second >= first
