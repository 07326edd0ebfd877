# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.vhdx import copies, creation, growth, reader
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import diskcopy

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def sparse_file(path, length, pieces):
    """Make a file of ``length`` bytes that has data only at ``pieces``, a list of (offset, data); return its path."""
    with open(path, "wb") as file:
        file.truncate(length)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def used(path):
    return path.stat().st_blocks * 512


def without_seek_data(monkeypatch):
    monkeypatch.delattr(os, "SEEK_DATA", raising=False)


def without_holes_on_the_volume(monkeypatch):
    lseek = os.lseek

    def refusing(descriptor, offset, whence):
        if whence in {os.SEEK_DATA, os.SEEK_HOLE}:
            raise OSError(errno.EINVAL, "Invalid argument")
        return lseek(descriptor, offset, whence)

    monkeypatch.setattr(os, "lseek", refusing)


def as_it_is(_):
    pass


GENERATOR = random.Random(1)
NOISE = GENERATOR.randbytes(3 * MIB + 5)


@pytest.mark.parametrize("environment", [as_it_is, without_seek_data, without_holes_on_the_volume])
@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        (0, []),
        (1, [(0, b"x")]),
        (1, []),
        (MIB, [(MIB - 1, b"x")]),
        (5 * MIB + 7, []),
        (5 * MIB + 7, [(0, b"start"), (5 * MIB, b"the end")]),
        (9 * MIB, [(MIB + 3, NOISE), (6 * MIB, bytes(2 * MIB)), (8 * MIB - 1, b"xy")]),
        (3 * MIB + 5, [(0, NOISE)]),
    ],
)
def test_copies_are_equal_to_the_byte(tmp_path, monkeypatch, environment, length, pieces):
    source = sparse_file(tmp_path / "source", length, pieces)
    environment(monkeypatch)
    assert diskcopy.copy_disk(source, tmp_path / "copy") == length
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


@pytest.mark.posix
def test_a_large_template_costs_only_its_data(tmp_path, monkeypatch):
    pieces = [(0, NOISE[:4096]), (7 * GIB + 4096, NOISE[:8192]), (20 * GIB - 5, b"tail!")]
    source = sparse_file(tmp_path / "source", 20 * GIB, pieces)
    reads = []
    read_at = diskcopy.read_at

    def counting(file, offset, length):
        reads.append(length)
        return read_at(file, offset, length)

    monkeypatch.setattr(diskcopy, "read_at", counting)
    assert diskcopy.copy_disk(str(source), str(tmp_path / "copy")) == 20 * GIB
    assert sum(reads) < MIB
    assert used(tmp_path / "copy") <= used(source) + 64 * KIB
    with open(tmp_path / "copy", "rb") as copy:
        for offset, data in pieces:
            copy.seek(offset)
            assert copy.read(len(data)) == data


@pytest.mark.posix
@pytest.mark.parametrize("environment", [as_it_is, without_seek_data, without_holes_on_the_volume])
def test_written_zeros_become_holes(tmp_path, monkeypatch, environment):
    source = sparse_file(tmp_path / "source", 64 * MIB, [(0, bytes(64 * MIB)), (5 * MIB, b"data")])
    environment(monkeypatch)
    diskcopy.copy_disk(source, tmp_path / "copy")
    assert used(tmp_path / "copy") <= 2 * MIB
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


def test_a_vhdx_template(tmp_path):
    creation.create(tmp_path / "blank.vhdx", 20 * GIB)
    diskcopy.copy_disk(tmp_path / "blank.vhdx", tmp_path / "sandbox.vhdx")
    assert reader.read_info(tmp_path / "sandbox.vhdx") == reader.read_info(tmp_path / "blank.vhdx")
    assert growth.grow(tmp_path / "sandbox.vhdx", 40 * GIB).virtual_size == 40 * GIB
    assert reader.read_info(tmp_path / "blank.vhdx").virtual_size == 20 * GIB


@pytest.mark.parametrize("size", [21 * GIB, 40 * GIB + 1, 200 * GIB, 64 * 1024 * GIB])
def test_a_larger_copy_of_a_template_is_as_one_that_has_grown(tmp_path, size):
    blank, grown, sandbox = (tmp_path / name for name in ("blank.vhdx", "grown.vhdx", "sandbox.vhdx"))
    creation.create(blank, 20 * GIB)
    before = blank.read_bytes()
    diskcopy.copy_disk(blank, grown)
    growth.grow(grown, size)
    diskcopy.copy_disk(blank, sandbox, size)
    assert reader.read_info(sandbox) == reader.read_info(grown)
    assert copies.check(sandbox) == []
    assert blank.read_bytes() == before
    assert growth.grow(sandbox, 64 * 1024 * GIB).virtual_size == 64 * 1024 * GIB


def test_a_copy_that_is_large_enough_already(tmp_path):
    creation.create(tmp_path / "blank.vhdx", 20 * GIB)
    diskcopy.copy_disk(tmp_path / "blank.vhdx", tmp_path / "sandbox.vhdx", GIB)
    assert (tmp_path / "sandbox.vhdx").read_bytes() == (tmp_path / "blank.vhdx").read_bytes()


def test_a_larger_copy_that_cannot_be_made_is_no_copy(tmp_path):
    creation.create(tmp_path / "blank.vhdx", 20 * GIB)
    sparse_file(tmp_path / "noise", MIB, [(0, b"data")])
    with pytest.raises(errors.InvalidArgument, match="must be from 1 to 70368744177664 bytes"):
        diskcopy.copy_disk(tmp_path / "blank.vhdx", tmp_path / "copy", 65 * 1024 * GIB)
    with pytest.raises(errors.FailedPrecondition, match="copy is not a usable VHDX file"):
        diskcopy.copy_disk(tmp_path / "noise", tmp_path / "copy", GIB)
    assert not (tmp_path / "copy").exists()


def test_a_read_only_source_gives_a_writable_copy(tmp_path):
    source = sparse_file(tmp_path / "source", MIB, [(0, b"data")])
    source.chmod(0o400)
    before = source.stat()
    diskcopy.copy_disk(source, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mode & 0o777 == (0o600 if os.name == "posix" else 0o666)
    assert source.stat().st_mtime_ns == before.st_mtime_ns


def test_file_and_directory_are_flushed(tmp_path, monkeypatch):
    source = sparse_file(tmp_path / "source", MIB, [(0, b"data")])
    flushed = []
    fsync = os.fsync

    def recording(descriptor):
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    copy = tmp_path / "copy"
    diskcopy.copy_disk(source, copy)
    assert flushed == [copy.stat().st_ino] + ([tmp_path.stat().st_ino] if os.name == "posix" else [])


def test_a_missing_source(tmp_path):
    source, copy = tmp_path / "blank.vhdx", tmp_path / "copy"
    with pytest.raises(errors.FailedPrecondition) as caught:
        diskcopy.copy_disk(source, copy)
    assert caught.value.message == (
        f"cannot copy disk {source} to {copy}: cannot read {source}: No such file or directory"
    )
    assert not copy.exists()


def test_a_directory_as_the_source(tmp_path):
    with pytest.raises(errors.FailedPrecondition, match="cannot read"):
        diskcopy.copy_disk(tmp_path, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_destination_stays_as_it_is(tmp_path):
    source = sparse_file(tmp_path / "source", MIB, [(0, b"data")])
    (tmp_path / "copy").write_bytes(b"precious")
    with pytest.raises(errors.AlreadyExists, match="cannot copy disk .*source to .*copy: File exists"):
        diskcopy.copy_disk(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"precious"
    with pytest.raises(errors.AlreadyExists):
        diskcopy.copy_disk(source, source)
    assert source.stat().st_size == MIB


def test_no_directory_for_the_destination(tmp_path):
    source = sparse_file(tmp_path / "source", MIB, [(0, b"data")])
    with pytest.raises(errors.NotFound, match="cannot copy disk"):
        diskcopy.copy_disk(source, tmp_path / "missing" / "copy")


def test_a_source_that_shrinks_meanwhile(tmp_path, monkeypatch):
    source = sparse_file(tmp_path / "source", 3 * MIB + 5, [(0, NOISE)])
    write_at = diskcopy.write_at

    def shrinking(file, offset, data):
        os.truncate(source, MIB + 1)
        write_at(file, offset, data)

    monkeypatch.setattr(diskcopy, "write_at", shrinking)
    with pytest.raises(errors.FailedPrecondition, match="source became shorter during the copy; try again"):
        diskcopy.copy_disk(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_nothing_is_left_on_an_error(tmp_path, monkeypatch, error):
    source = sparse_file(tmp_path / "source", 3 * MIB + 5, [(0, NOISE)])
    written = []
    write_at = diskcopy.write_at

    def failing(file, offset, data):
        written.append(offset)
        if len(written) == 3:
            raise error
        write_at(file, offset, data)

    monkeypatch.setattr(diskcopy, "write_at", failing)
    with pytest.raises((errors.Internal, KeyboardInterrupt)):
        diskcopy.copy_disk(source, tmp_path / "copy")
    assert len(written) == 3
    assert not (tmp_path / "copy").exists()


@pytest.fixture
def on_a_small_volume():
    """Return a function that runs Python source with a private 2 MiB volume at the environment's ``VOLUME``."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("a private volume needs Linux and unshare (Debian package util-linux)")

    def run(tmp_path, source):
        volume = tmp_path / "volume"
        volume.mkdir()
        mounted = 'mount -t tmpfs -o size=2m none "$1" || exit 77; shift; exec "$@"'
        program = "from pathlib import Path\n" + textwrap.dedent(source)
        finished = subprocess.run(
            ["unshare", "-rm", "sh", "-c", mounted, "sh", str(volume), sys.executable, "-c", program],
            env={**os.environ, "VOLUME": str(volume), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if finished.returncode == 77 or "unshare failed" in finished.stderr:
            pytest.skip(f"mounting is not allowed here: {finished.stderr.strip()}")
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


PREPARED = f"""
import os
from {errors.__name__} import Unavailable
from {creation.__name__} import create
from {growth.__name__} import grow
from {reader.__name__} import read_info
from {diskcopy.__name__} import copy_disk
volume = Path(os.environ["VOLUME"])
GIB = 1 << 30
def fill(rest):
    with open(volume / "filler", "wb", buffering=0) as file:
        stat = os.statvfs(volume)
        file.write(bytes(stat.f_bavail * stat.f_bsize - rest))
"""


@pytest.mark.posix
def test_a_really_full_volume_while_copying(tmp_path, on_a_small_volume):
    source = sparse_file(tmp_path / "source", 9 * MIB, [(MIB, NOISE)])
    output = on_a_small_volume(
        tmp_path,
        f"""
        {textwrap.indent(PREPARED, " " * 8)}
        source = Path({str(source)!r})
        try:
            copy_disk(source, volume / "sandbox.vhdx")
        except Unavailable as error:
            print(error.message)
        assert list(volume.iterdir()) == []
        """,
    )
    assert output.startswith(f"cannot copy disk {source} to {tmp_path}/volume/sandbox.vhdx: No space left on device: ")
    assert f"needs {-(-len(NOISE) // 4096) * 4096} bytes, " in output
    assert output.rstrip().endswith(f"free on {tmp_path}/volume; free some space on its volume and run the task again")


@pytest.mark.posix
def test_a_really_full_volume_while_creating_and_growing(tmp_path, on_a_small_volume):
    output = on_a_small_volume(
        tmp_path,
        f"""
        {textwrap.indent(PREPARED, " " * 8)}
        fill(8192)
        try:
            create(volume / "blank.vhdx", 20 * GIB)
        except Unavailable as error:
            print(error.message)
        assert [path.name for path in volume.iterdir()] == ["filler"]

        (volume / "filler").unlink()
        created = create(volume / "blank.vhdx", 20 * GIB)
        fill(0)
        try:
            grow(volume / "blank.vhdx", 200 * GIB)
        except Unavailable as error:
            print(error.message)
        assert read_info(volume / "blank.vhdx") == created
        (volume / "filler").unlink()
        print(grow(volume / "blank.vhdx", 200 * GIB).virtual_size)
        """,
    )
    created, grown, size = output.splitlines()
    assert created.startswith(
        f"cannot create disk {tmp_path}/volume/blank.vhdx: No space left on device: needs 4194304 "
    )
    assert grown.startswith(f"cannot grow disk {tmp_path}/volume/blank.vhdx: No space left on device: needs 1048576 ")
    assert int(size) == 200 * GIB
    assert list(Path(tmp_path / "volume").iterdir()) == []
