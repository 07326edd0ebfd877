# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lifecycle tests of the integration lane, on lab nodes that run Windows Python, over both layer stores."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import creation
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab
from ansible_collections.wcow.snapshotter.tests.integration.test_lifecycle import (  # noqa: F401 - pytest collects them here, with the lab below
    NODES,
    run_the_examples,
    test_bad_input,
    test_the_acceptance_playbook,
    test_the_demo,
)
from ansible_collections.wcow.snapshotter.tests.wine import kit


def real_disks(folder):
    """The environment for layers with contents, and for real disks that grow; the template is in ``folder``."""
    template = folder / "template.vhdx"
    creation.create(str(template), 20 << 30)
    templates = ("WCSTUB_BLANK", "WCSTUB_BLANK_BASE", "WCSTUB_UVM", "WCSTUB_UVM_BASE")
    return {
        **dict.fromkeys(templates, kit.windows_path(template)),
        "WCSTUB_CONTENTS": "1",
        "WCSTUB_EXPAND": kit.expander(),
        "WCSTUB_VOLUME": "\\\\?\\C:\\",
        "WINEKIT_DISK_LENGTH": str(1 << 40),
    }


@pytest.fixture
def lab():
    with contextlib.ExitStack() as stack:
        # In the cache: a Windows must be in the file system of its installation.
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-", dir=kit.CACHE)))
        kit.launcher(directory / "python", **real_disks(directory))
        started = Lab(directory / "lab", "--python", str(directory / "python"))
        stack.callback(started.lab, "down")
        for node in NODES:
            drive = started.directory / node / "C"
            # Wine needs its own spelling of these names; the lab on Linux uses the spelling of Windows.
            for name in ("Users", "Windows"):
                (drive / name).rename(drive / name.lower())
                (drive / name).symlink_to(name.lower())
            stack.enter_context(kit.Windows(drive.parent / "windows", drive))
        started.inventory["windows"]["vars"]["wcow_layers"] = "emulated"
        yield started


@pytest.fixture
def lab_with_windows_layers(lab):
    lab.inventory["windows"]["vars"]["wcow_layers"] = "windows"
    return lab


def test_the_demo_over_windows_layers(lab_with_windows_layers):
    test_the_demo(lab_with_windows_layers)


def test_the_examples(lab):
    run_the_examples(lab, has_containerd=False)


def test_the_examples_over_windows_layers(lab_with_windows_layers):
    run_the_examples(lab_with_windows_layers, has_containerd=False)


def test_the_acceptance_playbook_over_windows_layers(lab_with_windows_layers):
    test_the_acceptance_playbook(lab_with_windows_layers)
