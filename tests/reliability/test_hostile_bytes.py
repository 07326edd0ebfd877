# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flipped bits, changed bytes, cuts and noise in each file format give a value or a clear error.

This module is not limited to POSIX: it also runs on Windows Python, and on each Python that the core supports.
"""

from __future__ import annotations

import base64
import io
import pathlib
import struct
from typing import Any, Callable, List, NamedTuple, Optional, Tuple, Type

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotImplementedHere,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import (
    backupstream,
    eas,
    ociimage,
    reparse,
    securitydescriptor,
    transport,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.layerfile import FileTimes, LayerFile
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import layerfiletar, layertar
from ansible_collections.wcow.snapshotter.tests.builders import vhdx_files
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import LAYERS, Archive, packed
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar, with_checksums
from ansible_collections.wcow.snapshotter.tests.builders.security_descriptors import security_descriptor
from ansible_collections.wcow.snapshotter.tests.builders.simulated_root import (
    ARCHIVE,
    EVERY_STREAM,
    MemoryRoot,
    MemorySource,
    Node,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

# -- damage ------------------------------------------------------------------


class LargeFile(bytes):
    """A file that a failure report must not print. Hypothesis prints how to reproduce the case."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def flip_and_cut(sample: bytes, bits: List[int], end: int, repair: bool = False) -> bytes:
    """Flip bits, correct the checksums of tar headers if ``repair``, and keep the bytes before ``end``."""
    data = bytearray(sample)
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    return (with_checksums(bytes(data)) if repair else bytes(data))[:end]


def flipped_bit_and_cut(sample: bytes) -> st.SearchStrategy[bytes]:
    """Flip one bit, and cut the file anywhere."""
    bit = st.integers(0, len(sample) * 8 - 1)
    return st.builds(flip_and_cut, st.just(sample), st.lists(bit, min_size=1, max_size=1), st.integers(0, len(sample)))


def flipped_bit_or_cut(sample: bytes) -> st.SearchStrategy[bytes]:
    """Flip one bit, cut the file anywhere, or both."""
    bit = st.integers(0, len(sample) * 8 - 1)
    return st.one_of(
        st.builds(flip_and_cut, st.just(sample), st.lists(bit, min_size=1, max_size=1), st.just(len(sample))),
        st.builds(flip_and_cut, st.just(sample), st.just([]), st.integers(0, len(sample))),
        flipped_bit_and_cut(sample),
    )


def flipped_bits_in_tar(sample: bytes) -> st.SearchStrategy[bytes]:
    """Flip up to four bits before the padding of the end. Sometimes cut the file, sometimes correct the checksums."""
    return st.builds(
        flip_and_cut,
        st.just(sample),
        st.lists(st.integers(0, len(sample.rstrip(b"\0")) * 8 - 1), min_size=1, max_size=4),
        st.one_of(st.just(len(sample)), st.integers(0, len(sample))),
        st.booleans(),
    )


def replace_bytes(sample: bytes, edits: List[Tuple[int, int, bytes]], repair: bool) -> bytes:
    """Replace bytes (position, length, new bytes), and correct the checksums of tar headers if ``repair``."""
    data = bytearray(sample)
    for position, length, new in edits:
        data[position : position + length] = new
    return with_checksums(bytes(data)) if repair else bytes(data)


def replaced_bytes_in_tar(sample: bytes) -> st.SearchStrategy[bytes]:
    """Replace up to four pieces with shorter or longer ones. Sometimes correct the checksums."""
    position = st.integers(0, len(sample.rstrip(b"\0")))
    edits = st.lists(st.tuples(position, st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=4)
    return st.builds(replace_bytes, st.just(sample), edits, st.booleans())


def change_and_cut(sample: bytes, changes: List[Tuple[int, int]], end: Optional[int]) -> bytes:
    """Set bytes to (position, value), and keep the bytes before ``end``."""
    data = bytearray(sample)
    for position, value in changes:
        data[position] = value
    return LargeFile(data[:end])


def changed_bytes_and_cut(sample: bytes) -> st.SearchStrategy[bytes]:
    """Change up to four bytes, and sometimes cut the file."""
    change = st.tuples(st.integers(0, len(sample) - 1), st.integers(0, 255))
    end = st.one_of(st.none(), st.integers(0, len(sample)))
    return st.builds(change_and_cut, st.just(sample), st.lists(change, min_size=1, max_size=4), end)


# -- samples -----------------------------------------------------------------

ATTRIBUTES = eas.encode([eas.ExtendedAttribute(b"foo", b"bar"), eas.ExtendedAttribute(b"fizz", b"buzz")])
LINK = reparse.encode(reparse.Link("C:\\Windows", False))
LAYER = tarfile_tar(
    ("Files", "directory"),
    ("Files/d", "directory"),
    ("Files/d/a", b"a" * 700, "", {"MSWINDOWS.fileattr": "33", "comment": "c" * 300}),
    ("Files/l", "symlink", "d\\a"),
    ("Files/h", "hard link", "Files/d/a"),
    ("Files/d/.wh.gone", b""),
    ("Hives/System_Delta", b"hive"),
)
NO_RIGHTS = base64.b64encode(struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)).decode()
RECORDS = tarfile_tar(
    ("Files", "directory", "", {"MSWINDOWS.rawsd": NO_RIGHTS}),
    ("Files:s", b"of a directory"),
    ("Files/a", b"content", "", {"MSWINDOWS.fileattr": "33", "MSWINDOWS.xattr.a": "AQID", "atime": "2.5"}),
    ("Files/a:x", b"note"),
    ("Files/h", "hard link", "Files/a"),
    ("Files/j", "symlink", "C:\\d", {"MSWINDOWS.mountpoint": "1", "LIBARCHIVE.creationtime": "1"}),
    ("Files/s", "symlink", "a"),
    ("Files/.wh.gone", b""),
)
#: The parts of a VHDX file that contain structures. Nothing reads the rest of the file.
DISK_PLACES = [
    (0, 64),
    *((header, 96) for header in vhdx_files.HEADERS),
    *((table, 100) for table in vhdx_files.TABLES),
    (vhdx_files.METADATA, 260),
    (vhdx_files.METADATA + 65536, 32),
    (vhdx_files.METADATA + 70000, 8),
    (vhdx_files.METADATA + 19 * 4096 - 3, 8),
    (vhdx_files.LOG, 200),
    (vhdx_files.LOG + 4096, 16),
]


def image_archive() -> bytes:
    archive = Archive()
    platform = {"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}
    archive.index(archive.json({"manifests": [{**archive.image(), "platform": platform}]}))
    return archive.tar()


def change_disk(changes: List[Tuple[Tuple[int, int], int, int]], log: bool, repair: bool) -> bytes:
    """Change bytes of a differencing disk. Add a pending log if ``log``, and correct the checksums if ``repair``."""
    image = vhdx_files.others_file(flags=2, locator=vhdx_files.LOCATOR)
    if log:
        updates = vhdx_files.size_sectors(image, 2 * vhdx_files.GIB)
        vhdx_files.pending(image, (0, vhdx_files.log_entry(updates, 1)))
    for (start, length), distance, value in changes:
        image[start + distance % length] = value
    if repair:
        for header in vhdx_files.HEADERS:
            vhdx_files.checksum(image, header, 4096)
        for table in vhdx_files.TABLES:
            vhdx_files.checksum(image, table, 64 * vhdx_files.KIB)
        entry_length = struct.unpack_from("<I", image, vhdx_files.LOG + 8)[0]
        if entry_length in (4096, 8192, 12288):
            vhdx_files.checksum(image, vhdx_files.LOG, entry_length)
    return LargeFile(image)


CHANGED_DISKS = st.builds(
    change_disk,
    st.lists(st.tuples(st.sampled_from(DISK_PLACES), st.integers(0, 259), st.integers(0, 255)), min_size=1, max_size=6),
    st.booleans(),
    st.booleans(),
)

# -- reading -----------------------------------------------------------------


def read_backup_stream(data: bytes, path: pathlib.Path) -> None:
    source = MemorySource(MemoryRoot(), data)
    file = backupstream.load("Files/a", 0x20, FileTimes(1, 2, 3, 4), source, "C:\\a", start=0, max_size=1 << 20)
    for stream in file.streams:
        assert len(b"".join(stream.chunks)) == stream.size


def read_attributes(data: bytes, path: pathlib.Path) -> None:
    assert len(eas.decode(data)) <= 4


def read_reparse_point(data: bytes, path: pathlib.Path) -> None:
    assert isinstance(reparse.decode(data), reparse.Link)


def read_security_descriptor(data: bytes, path: pathlib.Path) -> None:
    assert isinstance(securitydescriptor.fault(data), str)


def read_layer(data: bytes, path: pathlib.Path) -> None:
    reader = layertar.LayerReader(io.BytesIO(data))
    names = []
    for entry in reader:
        b"".join(iter(reader.read, b""))
        names.append(entry.name.split("/"))
    for parts in names:
        assert parts[0] in ("Files", "Hives", "UtilityVM")
        assert ".." not in parts


def read_records(data: bytes, path: pathlib.Path) -> None:
    found: List[LayerFile] = []
    for file in layerfiletar.read(layertar.LayerReader(io.BytesIO(data)), str.encode):
        for stream in file.streams:
            b"".join(stream.chunks)
        found.append(file)
    assert len(found) <= 6
    assert all(file.name.startswith(("Files", "Hives", "UtilityVM")) for file in found)


def read_tombstones(data: bytes, path: pathlib.Path) -> None:
    folder = MemoryRoot()
    folder.add("tombstones.txt", Node(ARCHIVE)).content = b"\xef\xbb\xbfVersion 1.0\r\n" + data
    for file in transport.read(folder):
        for stream in file.streams:
            b"".join(stream.chunks)
        assert file.name.startswith("Files/")
    assert folder.open == 0


def read_image(data: bytes, path: pathlib.Path) -> None:
    """Read an image. Each blob and layer that can be read must have the right digest."""
    path.write_bytes(data)
    (image,) = ociimage.read_images(str(path), "windows/amd64")
    for layer, plain in zip(image.layers, LAYERS):
        with ociimage.BlobReader(ociimage.blob_of(layer, "it")) as blob:
            content = blob.read()
            blob.finish(layer, "it")
        assert content == packed(plain)
    assert len(image.layers) == len(LAYERS)


def read_disk(data: bytes, path: pathlib.Path) -> None:
    info = vhdx_files.info_of(data)
    assert 0 <= info.virtual_size <= 64 * vhdx_files.TIB
    assert info.file_size == len(data)


def refuse_disk(data: bytes, path: pathlib.Path) -> None:
    vhdx_files.info_of(data)
    raise AssertionError("noise was read as a disk")


# -- all formats -------------------------------------------------------------


class Format(NamedTuple):
    """The number of cases, how bytes are damaged, the function that reads them, and the errors that report the damage.

    ``read`` gets the bytes, and the path of a file that it may write. ``deadline`` is in milliseconds.
    """

    cases: int
    damaged: st.SearchStrategy[bytes]
    read: Callable[[bytes, pathlib.Path], None]
    errors: Tuple[Type[SnapshotterError], ...] = (InvalidArgument,)
    deadline: Optional[int] = None
    example: Any = None


FORMATS = {
    "backup stream": Format(
        1500, flipped_bit_and_cut(b"".join(EVERY_STREAM)), read_backup_stream, (InvalidArgument, FailedPrecondition)
    ),
    "backup stream of noise": Format(1000, st.binary(max_size=300), read_backup_stream),
    "extended attributes": Format(2000, flipped_bit_and_cut(ATTRIBUTES), read_attributes),
    "reparse point": Format(2000, flipped_bit_or_cut(LINK), read_reparse_point),
    "security descriptor": Format(1500, flipped_bit_and_cut(security_descriptor()), read_security_descriptor, ()),
    "layer tar": Format(1000, replaced_bytes_in_tar(LAYER), read_layer),
    "records of a layer tar": Format(1200, flipped_bits_in_tar(RECORDS), read_records),
    "tombstones": Format(1000, st.binary(max_size=60), read_tombstones),
    "image archive": Format(1000, changed_bytes_and_cut(image_archive()), read_image, (SnapshotterError,)),
    "disk": Format(
        200,
        CHANGED_DISKS,
        read_disk,
        (FailedPrecondition, NotImplementedHere),
        deadline=2000,
        example=([((vhdx_files.METADATA, 260), 10, 255)], True, True),
    ),
    "disk of noise": Format(100, st.binary(max_size=400).map(b"vhdxfile".__add__), refuse_disk, (FailedPrecondition,)),
}


def assert_clear(error: SnapshotterError) -> None:
    assert 10 < len(error.message) < 2000, error.message


# Hypothesis marks its own tests with this marker. It does not find the test that is nested in this one.
@pytest.mark.hypothesis
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_give_a_value_or_a_clear_error(name: str, tmp_path: pathlib.Path, figures: Any) -> None:
    tested = FORMATS[name]

    @settings(max_examples=tested.cases, deadline=tested.deadline)
    @given(tested.damaged)
    def check(data: bytes) -> None:
        try:
            tested.read(data, tmp_path / "file")
        except tested.errors as error:
            assert_clear(error)

    if tested.example:
        check = example(change_disk(*tested.example))(check)
    check()
    figures(generated_cases=tested.cases)
