# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU reads the disks that we write, and we read the disks that QEMU writes.

QEMU can neither create nor open a differencing VHDX. The unit tests cover those.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import (
    creation,
    growth,
    reader,
    replay,
    view,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import diskcopy

pytestmark = [pytest.mark.requires_tool("qemu-img", "qemu-utils"), pytest.mark.requires_tool("qemu-io", "qemu-utils")]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


def run(*command):
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, (command, finished.stdout, finished.stderr)
    return finished.stdout


def check(path):
    assert run("qemu-img", "check", "-f", "vhdx", path).strip() == "No errors were found on the image."


def virtual_size(path):
    return json.loads(run("qemu-img", "info", "-f", "vhdx", "--output=json", path))["virtual-size"]


def write(path, *writes):
    """Write ``(offset, length, pattern)`` to the disk."""
    commands = itertools.chain.from_iterable(("-c", f"write -P {p} {offset} {size}") for offset, size, p in writes)
    run("qemu-io", "-f", "vhdx", *commands, path)


def write_raw(path, writes):
    with open(path, "r+b") as raw:
        for offset, size, pattern in writes:
            raw.seek(offset)
            raw.write(bytes([pattern]) * size)


def verify(path, *writes):
    """Fail unless the disk reads as written. qemu-io reports a difference only in its output."""
    commands = itertools.chain.from_iterable(("-c", f"read -P {p} {offset} {size}") for offset, size, p in writes)
    output = run("qemu-io", "-r", "-f", "vhdx", *commands, path)
    assert "failed" not in output, output


@pytest.mark.parametrize("block_size", [MIB, 2 * MIB, 32 * MIB, 256 * MIB])
@pytest.mark.parametrize("size", [512, MIB, MIB + 512, 20 * GIB, 128 * GIB, 2 * TIB + 512, 64 * TIB])
def test_qemu_accepts_what_create_writes(tmp_path, size, block_size):
    path = tmp_path / "disk.vhdx"
    creation.create(path, size, block_size=block_size)
    check(path)
    report = json.loads(run("qemu-img", "info", "-f", "vhdx", "--output=json", path))
    assert (report["virtual-size"], report["cluster-size"]) == (size, block_size)
    assert report["format"] == "vhdx"


def test_qemu_accepts_small_physical_sectors(tmp_path):
    """The test does not use logical sectors of 4096 bytes, because QEMU does not open such a disk."""
    path = tmp_path / "disk.vhdx"
    creation.create(path, 20 * GIB, physical_sector_size=512)
    check(path)


@pytest.mark.parametrize("block_size", [MIB, 32 * MIB])
def test_data_survives_growth(tmp_path, block_size):
    path = tmp_path / "disk.vhdx"
    creation.create(path, GIB, block_size=block_size)
    # The first block, the border between two blocks, and the last sector.
    data = [(0, 4096, 0x11), (100 * MIB - 512, 1024, 0x22), (GIB - 512, 512, 0x33)]
    write(path, *data)
    run("qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, tmp_path / "before.raw")
    for size in (GIB + 512, 3 * GIB, 127 * GIB, 128 * GIB, 5 * TIB, 64 * TIB):
        assert growth.grow(path, size).virtual_size == size
        check(path)
        assert virtual_size(path) == size
        if size == 3 * GIB:
            # All old bytes are there. The added part is zero except for what the previous step wrote.
            write_raw(tmp_path / "before.raw", data[3:])
            run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", tmp_path / "before.raw", path)
        verify(path, *data, (size - 512, 512, 0))
        data.append((size - 512, 512, size // GIB % 200 + 1))
        write(path, data[-1])
    verify(path, *data)
    check(path)


def test_a_copied_template_is_the_same_disk(tmp_path):
    path = tmp_path / "blank.vhdx"
    creation.create(path, 20 * GIB)
    write(path, (0, 4096, 0x11), (19 * GIB, MIB, 0x22))
    diskcopy.copy_disk(path, tmp_path / "sandbox.vhdx")
    check(tmp_path / "sandbox.vhdx")
    run("qemu-img", "compare", "-f", "vhdx", "-F", "vhdx", path, tmp_path / "sandbox.vhdx")


@pytest.mark.parametrize("size", [40 * GIB, 200 * GIB, 40 * TIB])
def test_a_copied_template_can_be_larger(tmp_path, size):
    path = tmp_path / "blank.vhdx"
    creation.create(path, 20 * GIB)
    data = [(0, 4096, 0x11), (19 * GIB, MIB, 0x22)]
    write(path, *data)
    diskcopy.copy_disk(path, tmp_path / "sandbox.vhdx", size)
    check(tmp_path / "sandbox.vhdx")
    assert virtual_size(tmp_path / "sandbox.vhdx") == size
    verify(tmp_path / "sandbox.vhdx", *data, (size - 4096, 4096, 0))


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (64 * MIB, ""),
        (64 * MIB, "block_size=1M"),
        (65 * MIB, "block_size=2M,log_size=4M"),
        (300 * MIB, "block_size=256M"),
    ],
)
def test_we_read_what_qemu_makes(tmp_path, subformat, size, options):
    path = tmp_path / "disk.vhdx"
    run(
        "qemu-img",
        "create",
        "-f",
        "vhdx",
        "-o",
        ",".join(filter(None, [f"subformat={subformat}", options])),
        path,
        size,
    )
    info = reader.read_info(path)
    report = json.loads(run("qemu-img", "info", "-f", "vhdx", "--output=json", path))
    assert (info.virtual_size, info.block_size) == (size, report["cluster-size"])
    assert (info.disk_type, info.log_pending, info.file_size) == (subformat, False, path.stat().st_size)
    assert (info.logical_sector_size, info.physical_sector_size) == (512, 512)


def test_we_grow_what_qemu_makes(tmp_path):
    path = tmp_path / "disk.vhdx"
    run("qemu-img", "create", "-f", "vhdx", path, GIB)
    before = reader.read_info(path)
    data = [(0, 4096, 0x11), (GIB - 512, 512, 0x33)]
    write(path, *data)
    for size in (2 * GIB, 40 * TIB):
        info = growth.grow(path, size)
        assert info == before._replace(virtual_size=size, file_size=path.stat().st_size)
        check(path)
        assert virtual_size(path) == size
        verify(path, *data, (size - 4096, 4096, 0))


def test_qemu_and_we_recover_alike_from_a_crash_at_any_write(tmp_path, monkeypatch):
    """Cut the growth after each of its writes. QEMU must replay the log with the same result as we do."""
    path = tmp_path / "disk.vhdx"
    creation.create(path, GIB)
    data = [(5 * MIB, 4096, 0x11)]
    write(path, *data)
    before = path.read_bytes()
    operations = []

    class Recording(io.FileIO):
        def write(self, data):
            operations.append((self.tell(), bytes(data)))
            return super().write(data)

        def truncate(self, size=None):
            operations.append((size, None))
            return super().truncate(size)

    def opened(path, mode, buffering):
        assert buffering == 0
        return Recording(path, mode.replace("b", ""))

    with monkeypatch.context() as patch:
        patch.setattr(view, "open", opened, raising=False)
        growth.grow(path, 200 * GIB)

    ours, theirs = tmp_path / "ours.vhdx", tmp_path / "theirs.vhdx"
    sizes, replays = [], 0
    for count in range(len(operations) + 1):
        for survivor in (ours, theirs):
            survivor.write_bytes(before)
            for offset, written in operations[:count]:
                if written is None:
                    os.truncate(survivor, offset)
                    continue
                with open(survivor, "r+b") as file:
                    file.seek(offset)
                    file.write(written)
        replays += reader.read_info(ours).log_pending
        sizes.append(replay.replay_log(ours).virtual_size)
        check(ours)
        assert virtual_size(ours) == sizes[-1]
        run("qemu-img", "check", "-f", "vhdx", "-r", "all", theirs)
        check(theirs)
        assert not reader.read_info(theirs).log_pending
        # The headers before this offset differ, because their sequence numbers and GUIDs count sessions.
        assert theirs.read_bytes()[192 * KIB :] == ours.read_bytes()[192 * KIB :]
        verify(ours, *data)
    assert sizes == sorted(sizes)
    assert set(sizes) == {GIB, 200 * GIB}
    assert replays > 4
