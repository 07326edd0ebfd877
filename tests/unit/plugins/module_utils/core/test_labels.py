# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Dict

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import labels
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import (
    ROOTFS_SIZE_BYTES,
    ROOTFS_SIZE_GB,
    UVM_SCRATCH,
)

GIB = 1024**3


@pytest.mark.parametrize(
    ("given", "size", "uvm"),
    [
        ({}, 0, False),
        ({"other": "x"}, 0, False),
        ({ROOTFS_SIZE_GB: "30"}, 30 * GIB, False),
        ({ROOTFS_SIZE_GB: "0"}, 0, False),
        ({ROOTFS_SIZE_GB: "4294967295"}, 4294967295 * GIB, False),
        ({ROOTFS_SIZE_BYTES: "1"}, 1, False),
        ({ROOTFS_SIZE_BYTES: "0007"}, 7, False),
        ({ROOTFS_SIZE_BYTES: "0" * 40 + "7"}, 7, False),
        ({ROOTFS_SIZE_BYTES: "18446744073709551615"}, 2**64 - 1, False),
        ({ROOTFS_SIZE_GB: "30", ROOTFS_SIZE_BYTES: "1073741824"}, GIB, False),
        ({ROOTFS_SIZE_GB: "30", ROOTFS_SIZE_BYTES: "0"}, 0, False),
        ({UVM_SCRATCH: ""}, 0, True),
        ({UVM_SCRATCH: "false", ROOTFS_SIZE_BYTES: "5"}, 5, True),
    ],
)
def test_scratch_options(given: Dict[str, str], size: int, uvm: bool) -> None:
    options = labels.scratch_options(given)
    assert (options.size, options.uvm) == (size, uvm)
    assert len(options.warnings) == (ROOTFS_SIZE_GB in given)


def test_the_deprecation_warning_is_the_sentence_of_containerd() -> None:
    assert labels.scratch_options({ROOTFS_SIZE_GB: "1"}).warnings == [
        (
            '"containerd.io/snapshot/io.microsoft.container.storage.rootfs.size-gb" label is deprecated, please use '
            '"containerd.io/snapshot/windows/rootfs.sizebytes" instead.'
        )
    ]


@pytest.mark.parametrize(
    ("label", "text", "problem"),
    [
        *[
            (label, text, "invalid syntax")
            for label in (ROOTFS_SIZE_GB, ROOTFS_SIZE_BYTES)
            for text in ("", "x", "-1", "+1", " 1", "1 ", "0x10", "1_000", "1.0", "1e9", "\u0661", "\u00b2", "40GB")
        ],
        (ROOTFS_SIZE_GB, "4294967296", "value out of range"),
        (ROOTFS_SIZE_BYTES, "18446744073709551616", "value out of range"),
        (ROOTFS_SIZE_BYTES, "9" * 5000, "value out of range"),
    ],
)
def test_malformed_size(label: str, text: str, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f'failed to parse label "{label}"=.*: {problem}$'):
        labels.scratch_options({label: text})


def test_malformed_old_label_beside_a_good_new_one() -> None:
    with pytest.raises(InvalidArgument) as caught:
        labels.scratch_options({ROOTFS_SIZE_GB: "x", ROOTFS_SIZE_BYTES: "1073741824"})
    assert caught.value.message == (
        f'failed to parse label "{ROOTFS_SIZE_GB}"="x": strconv.ParseUint: parsing "x": invalid syntax'
    )


@pytest.mark.parametrize(("key", "value"), [("k" * 96, "v" * 4000), ("", "v" * 4096), ("\u725b" * 1365, "v")])
def test_longest_label(key: str, value: str) -> None:
    labels.validate({key: value})
    with pytest.raises(InvalidArgument, match=r"\(4097 bytes\) greater than maximum size \(4096 bytes\), key: "):
        labels.validate({key: value + "v"})
