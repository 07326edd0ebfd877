# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the count of records that use a snapshotter."""

from __future__ import annotations

import pathlib

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.usage import Users, count_users
from ansible_collections.wcow.snapshotter.tests.builders.containerd_databases import Objects, metadata, write_root


def test_users_in_all_namespaces(tmp_path: pathlib.Path) -> None:
    root = str(tmp_path)
    assert count_users(root, "wcow") == Users(0, 0, 0)
    kubernetes, other, unused = Objects(), Objects(), Objects()
    for number in range(3):
        kubernetes.snapshot(f"layer-{number}", snapshotter="wcow")
    kubernetes.snapshot("windows")
    kubernetes.container("a", "layer-2", "wcow")
    kubernetes.container("b", "windows")
    # Its snapshot is lost, and it still names the snapshotter.
    other.container("c", "gone", "wcow")
    unused.snapshot("windows")
    write_root(root, metadata(k8s=kubernetes, other=other, unused=unused), None)
    assert count_users(root, "wcow") == Users(3, 2, 2)
    assert count_users(root, "windows") == Users(2, 1, 2)
    assert count_users(root, "cimfs") == Users(0, 0, 0)
