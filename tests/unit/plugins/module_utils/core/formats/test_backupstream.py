# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how backup streams are read and written."""

from __future__ import annotations

import io
import itertools
import struct

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import backupstream
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.layerfile import (
    FileTimes,
    LayerFile,
    Stream,
)
from ansible_collections.wcow.snapshotter.tests.builders.simulated_root import (
    EVERY_STREAM,
    MemoryRoot,
    MemorySource,
    stream,
)
from hypothesis import given, settings
from hypothesis import strategies as st

TIMES = FileTimes(1, 2, 3, 4)
MAX_SIZE = 1 << 20


def load(data, *, start=0, max_size=MAX_SIZE):
    """Return the record of a backup stream and its streams as (name, data)."""
    source = MemorySource(MemoryRoot(), data)
    source.skip(start)
    file = backupstream.load("Files/a", 0x20, TIMES, source, "C:\\a", start=start, max_size=max_size)
    found = []
    for each in file.streams:
        content = b"".join(each.chunks)
        assert len(content) == each.size
        found.append((each.name, content))
    return file, found


def block(offset, data=b""):
    return stream(9, struct.pack("<q", offset) + data)


FULL = b"".join(EVERY_STREAM)
BOUNDARIES = list(itertools.accumulate(len(part) for part in EVERY_STREAM))


def test_a_file_with_everything():
    file, streams = load(FULL)
    assert (file.name, file.kind, file.attributes, file.times) == ("Files/a", "file", 0x20, TIMES)
    assert (file.security, file.eas, file.reparse) == (b"security", b"eas", b"reparse")
    assert streams == [("", b"content"), ("x", b"note"), ("y", b"")]


def test_a_file_without_anything():
    file, streams = load(b"")
    assert (file.security, file.eas, file.reparse, streams) == (b"", b"", b"", [])


def test_bytes_before_the_stream():
    assert load(b"$$$$" + FULL, start=4)[1] == load(FULL)[1]


def test_headers_by_hand():
    """The bytes of one stream, written by hand from MS-BKUP 2.1."""
    data = bytes.fromhex("04000000 00000000 0300000000000000 12000000") + ":ab:$DATA".encode("utf-16-le") + b"abc"
    assert data == stream(4, b"abc", name=":ab:$DATA")
    (header,) = backupstream.BackupReader(MemorySource(MemoryRoot(), data), "a")
    assert header == (4, 0, 3, ":ab:$DATA")


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([], b""),
        ([block(10)], bytes(10)),
        ([block(0, b"ab"), block(6, b"cd"), block(10)], b"ab\0\0\0\0cd\0\0"),
        ([block(3, b"ab"), block(5, b"cd")], b"\0\0\0abcd"),
        ([block(200_000, b"x")], bytes(200_000) + b"x"),
    ],
)
def test_sparse_files_come_with_zeros(blocks, content):
    assert load(stream(1, b"", attributes=8) + b"".join(blocks))[1] == [("", content)]


def test_a_sparse_file_without_holes():
    assert load(stream(1, b"full", attributes=8))[1] == [("", b"full")]


def test_a_sparse_alternate_stream():
    data = stream(1, b"a") + stream(4, b"", attributes=8, name=":x:$DATA") + block(2, b"b")
    assert load(data)[1] == [("", b"a"), ("x", b"\0\0b")]


@pytest.mark.parametrize(
    "data",
    [
        block(0),
        stream(1, b"ab") + block(2),
        stream(1, b"", attributes=8) + block(4, b"ab") + block(5),
        stream(1, b"", attributes=8) + block(-1),
        stream(1, b"", attributes=8) + stream(2, b"") + block(3),
        stream(1, b"", attributes=8) + stream(9, b"short"),
        stream(1, b"") + stream(1, b""),
        stream(0, b""),
        stream(11, b""),
        struct.pack("<IIQI", 4, 0, 0, 3) + b"abc",
        struct.pack("<IIQI", 4, 0, 0, 1 << 31),
        struct.pack("<IIQI", 3, 0, 1 << 40, 0),
        struct.pack("<IIQI", 2, 0, 65537, 0) + bytes(65537),
        stream(1, bytes(MAX_SIZE + 1)),
        struct.pack("<IIQI", 1, 0, 1 << 63, 0),
        stream(1, b"", attributes=8) + block((1 << 63) - 1),
    ],
)
def test_damaged_streams_are_refused(data):
    with pytest.raises(InvalidArgument) as caught:
        load(data)
    assert "C:\\a" in caught.value.message


@pytest.mark.parametrize("cut", range(1, len(FULL)))
def test_streams_that_are_cut_off(cut):
    if cut in BOUNDARIES:
        load(FULL[:cut])
        return
    with pytest.raises(InvalidArgument, match="is cut off"):
        load(FULL[:cut])


@pytest.mark.parametrize(
    "later",
    [
        b"",
        stream(1, b"other content"),
        stream(1, b"cont"),
        stream(1, b"content") + stream(4, b"new", name=":n:$DATA"),
        stream(1, b"", attributes=8) + block(5) + block(9),
    ],
)
def test_a_file_that_changes_between_the_readings(later):
    source = MemorySource(MemoryRoot(), stream(1, b"content"))
    file = backupstream.load("Files/a", 0x20, TIMES, source, "C:\\a")
    source.data = later
    with pytest.raises(FailedPrecondition, match="was changed while it was read"):
        for each in file.streams:
            b"".join(each.chunks)


def test_streams_that_are_not_taken_are_skipped():
    source = MemorySource(MemoryRoot(), FULL)
    file = backupstream.load("Files/a", 0x20, TIMES, source, "C:\\a")
    assert [each.name for each in file.streams] == ["", "x", "y"]


def test_a_source_without_data_is_not_read_again():
    data = stream(3, b"security") + stream(1, b"")
    source = MemorySource(MemoryRoot(), data)
    file = backupstream.load("Files/a", 0x20, TIMES, source, "C:\\a")
    source.close()
    assert [(each.name, each.size) for each in file.streams] == [("", 0)]


# -- writing ---------------------------------------------------------------------


def record(streams, **fields):
    contents = (Stream(name, len(data), iter([data])) for name, data in streams)
    return LayerFile("Files/a", "file", streams=contents, **fields)


def test_the_order_of_what_is_written():
    file = record([("", b"content"), ("x", b"note")], security=b"S", eas=b"E", reparse=b"R")
    assert b"".join(backupstream.encode(file)) == b"".join(
        [stream(3, b"S"), stream(2, b"E"), stream(8, b"R"), stream(1, b"content"), stream(4, b"note", name=":x:$DATA")]
    )


def test_an_empty_file_has_a_data_stream():
    assert b"".join(backupstream.encode(record([("", b"")]))) == stream(1, b"")


names = st.text(st.characters(blacklist_characters=':/\\\0*?<>|"', min_codepoint=32), min_size=1, max_size=20)


@settings(max_examples=300)
@given(
    st.dictionaries(st.one_of(st.just(""), names), st.binary(max_size=100), max_size=5),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_what_was_written_is_read(streams, security, eas, reparse):
    data = b"".join(backupstream.encode(record(list(streams.items()), security=security, eas=eas, reparse=reparse)))
    file, found = load(data)
    assert found == list(streams.items())
    assert (file.security, file.eas, file.reparse) == (security, eas, reparse)
    again = record(found, security=file.security, eas=file.eas, reparse=file.reparse)
    assert b"".join(backupstream.encode(again)) == data


def test_a_stream_that_is_read_in_small_pieces():
    class Slow(io.BytesIO):
        def read(self, limit):
            return super().read(min(limit, 1))

    reader = backupstream.BackupReader(Slow(FULL), "a")
    headers = []
    for header in reader:
        headers.append((header.id, b"".join(iter(reader.read, b""))))
    assert headers[:3] == [(3, b"security"), (8, b"reparse"), (1, b"content")]
    assert len(headers) == 8
