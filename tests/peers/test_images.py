# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image gives the same chain of snapshots here as in a real containerd, and the core can read what it exports."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter

from lab import sample

from . import containerd

pytestmark = [pytest.mark.requires_tool("containerd", "containerd"), pytest.mark.requires_tool("ctr", "containerd")]

REPOSITORY = "registry.example.com/app"
NAME = f"{REPOSITORY}:sample"
PLATFORM = ("--platform", "windows/amd64")


@pytest.fixture
def directory(tmp_path_factory):
    # A socket's path can have at most 107 characters.
    return tmp_path_factory.mktemp("ctr")


@pytest.fixture
def daemon(directory, monkeypatch):
    # Images need leases, and leases need the garbage collector.
    needless = [plugin for plugin in containerd._DISABLED if "lease" not in plugin and "gc" not in plugin]
    monkeypatch.setattr(containerd, "_DISABLED", needless)
    with containerd.Containerd(str(directory)) as running:
        yield running


def ctr_images(daemon, *arguments):
    command = ["ctr", "-a", daemon._socket, "-n", "images", "images", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=containerd.CALL_TIMEOUT)


def chain(store, path, **options):
    """Import an image and return its snapshots in the form of ``Containerd.walk``."""
    result = ensure_image(store, src=str(path), **options).result
    return sorted((link["name"], link["parent"], "committed") for link in result["chain"])


def test_the_same_chain(daemon, directory):
    sample.write_image(directory / "image.tar", "10.0.20348.1")
    ctr_images(
        daemon,
        "import",
        "--snapshotter",
        containerd.SNAPSHOTTER,
        *PLATFORM,
        "--base-name",
        REPOSITORY,
        str(directory / "image.tar"),
    )
    ctr_images(daemon, "export", *PLATFORM, str(directory / "exported.tar"), NAME)
    (directory / "saved").mkdir()
    # The tarfile of Debian's Python 3.11 has no filters, and newer ones warn without them.
    subprocess.run(["tar", "-xf", directory / "exported.tar", "-C", directory / "saved"], check=True)
    # The export has two formats in one archive. Without index.json, only the format of docker save remains.
    (directory / "saved" / "index.json").unlink()

    store = Snapshotter(str(directory / "store"), EmulatedLayers())
    expected = sorted(daemon.walk("images"))
    assert len(expected) == 2
    assert chain(store, directory / "image.tar") == expected
    assert sorted((info.name, info.parent, info.kind) for info in store.walk()) == expected
    for path in (directory / "exported.tar", directory / "saved"):
        for reference in ("", NAME):
            assert chain(store, path, reference=reference) == expected
    store.close()
