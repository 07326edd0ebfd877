# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the defaults of snapshot_set: which options an item gets from them."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.action.snapshot_set import _complete

DEFAULTS = {"parent": "base", "rootfs_size": "40GB", "labels": {"team": "blue", "job": "0"}}


@pytest.mark.parametrize(
    ("item", "completed"),
    [
        ({"key": "a"}, {"key": "a", **DEFAULTS}),
        ({"key": "a", "rootfs_size": "60GB"}, {"key": "a", **DEFAULTS, "rootfs_size": "60GB"}),
        # `default(omit)` in a list becomes nothing. A variable can be none.
        ({"key": "a", "rootfs_size": None}, {"key": "a", **DEFAULTS}),
        ({"key": "a", "labels": {"job": "1"}}, {"key": "a", **DEFAULTS, "labels": {"team": "blue", "job": "1"}}),
        ({"key": "a", "labels": "no labels"}, {"key": "a", **DEFAULTS, "labels": "no labels"}),
        (
            {"key": "a", "parent_image": "app:1"},
            {"key": "a", "parent_image": "app:1", "rootfs_size": "40GB", "labels": DEFAULTS["labels"]},
        ),
        (
            {"key": "a", "state": "view"},
            {"key": "a", "state": "view", "parent": "base", "labels": DEFAULTS["labels"]},
        ),
        ("a", "a"),
    ],
)
def test_an_item_takes_precedence(item, completed):
    assert _complete(item, DEFAULTS) == completed


def test_the_state_can_be_a_default():
    assert _complete({"key": "a"}, {"state": "absent", "rootfs_size": "40GB"}) == {"key": "a", "state": "absent"}
