# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test threads of one process that work on one root. Each thread has its own store object."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, SnapshotterError
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layertar
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import layer_tar

THREADS = 8


def files_tar(*names):
    return layer_tar(("Files", "directory"), *((f"Files/{name}", name.encode()) for name in names))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "snapshots").mkdir()
    return str(tmp_path)


@pytest.fixture
def base(root):
    path = layer_directory(root, "base")
    EmulatedLayers().import_layer(path, [], io.BytesIO(files_tar(*(f"file{number}" for number in range(20)))))
    return path


def layer_directory(root, name):
    path = os.path.join(root, "snapshots", name)
    os.mkdir(path)
    return path


def run(action):
    """Return the results of ``action(number)`` in threads that all start at the same moment."""
    barrier = threading.Barrier(THREADS, timeout=60)

    def start(number):
        barrier.wait()
        return action(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


def test_the_life_of_a_layer(root, base):
    def live(number):
        store = EmulatedLayers()
        own, name = f"own{number}", f"layer{number}"
        parent = layer_directory(root, f"{number}-parent")
        store.import_layer(parent, [base], io.BytesIO(files_tar(name)))
        parents = [parent, base]
        scratch = layer_directory(root, f"{number}-scratch")
        store.create_scratch(scratch, parents, 0)
        # All threads need the parent directory of the targets, which does not exist yet.
        target = os.path.join(root, "targets", str(number))
        store.mount(scratch, parents, target, read_only=False)
        with open(os.path.join(target, own), "w", encoding="utf-8") as file:
            file.write(own)
        os.unlink(os.path.join(target, "file0"))
        seen = sorted(os.listdir(target))
        store.unmount(target)
        store.grow_scratch(scratch, (21 + number) << 30)
        store.convert(scratch, parents)
        written = io.BytesIO()
        store.export_layer(scratch, parents, written)
        usage, info = store.disk_usage(scratch), store.scratch_info(scratch)
        for directory in (scratch, parent):
            store.destroy(directory)
        return seen, [entry.name for entry in layertar.LayerReader(io.BytesIO(written.getvalue()))], usage, info

    for number, (seen, entries, usage, info) in enumerate(run(live)):
        inherited = [f"file{each}" for each in range(1, 20)]
        assert seen == sorted([*inherited, f"layer{number}", f"own{number}"])
        assert entries == ["Files", "Files/file0", f"Files/own{number}"]
        assert usage.size > 0
        assert info.virtual_size == (21 + number) << 30
        assert not info.attached
    assert sorted(os.listdir(root)) == ["snapshots", "targets"]
    assert os.listdir(os.path.join(root, "snapshots")) == ["base"]
    # Only the targets remain. The mount records are gone.
    assert sorted(os.listdir(os.path.join(root, "targets"))) == [str(number) for number in range(THREADS)]


def test_one_of_many_gets_a_target(root, base):
    target = os.path.join(root, "mnt")
    layers = [layer_directory(root, str(number)) for number in range(THREADS)]
    for layer in layers:
        EmulatedLayers().create_scratch(layer, [base], 0)

    def mount(number):
        try:
            EmulatedLayers().mount(layers[number], [base], target, read_only=False)
        except SnapshotterError as error:
            return error
        return None

    results = run(mount)
    (winner,) = (number for number, error in enumerate(results) if error is None)
    assert all(isinstance(error, FailedPrecondition) for error in results if error)
    assert EmulatedLayers().mounted_layer(target) == os.path.realpath(layers[winner])
    assert len(os.listdir(target)) == 20
    EmulatedLayers().unmount(target)
    assert sorted(os.listdir(root)) == ["mnt", "snapshots"]
    assert [EmulatedLayers().mounted_at(layer) for layer in layers] == [[]] * THREADS
