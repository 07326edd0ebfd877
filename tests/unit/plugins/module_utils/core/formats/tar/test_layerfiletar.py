# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test records read from and written to layer tars. Python's tarfile makes and reads the tars as the peer."""

from __future__ import annotations

import base64
import io
import struct
import tarfile

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import (
    eas,
    reparse,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.layerfile import (
    UNIX_EPOCH,
    FileTimes,
    LayerFile,
    Stream,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import (
    layerfiletar,
    layertar,
)
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import MTIME, tarfile_tar
from hypothesis import given, settings
from hypothesis import strategies as st

DESCRIPTOR = struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)
SECOND = 10**7


def no_sddl(text):
    raise AssertionError(text)


def read(data, from_sddl=no_sddl):
    """Return the records of a tar, each as (record without streams, list of its streams as (name, data))."""
    found = []
    for file in layerfiletar.read(layertar.LayerReader(io.BytesIO(data)), from_sddl):
        streams = [(stream.name, b"".join(stream.chunks)) for stream in file.streams]
        found.append((file._replace(streams=None), streams))
    return found


def with_streams(file, *streams):
    return file._replace(streams=(Stream(name, len(data), iter([data])) for name, data in streams))


def write(*files):
    buffer = io.BytesIO()
    layerfiletar.write(iter(files), buffer)
    return buffer.getvalue()


def entries(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(info, tar.extractfile(info).read() if info.isreg() else None) for info in tar]


# -- reading ---------------------------------------------------------------------


def test_a_file_with_everything():
    pax = {
        "MSWINDOWS.fileattr": "33",
        "MSWINDOWS.rawsd": base64.b64encode(DESCRIPTOR).decode(),
        "MSWINDOWS.sd": "not looked at",
        "MSWINDOWS.xattr.b": base64.b64encode(b"value b").decode(),
        "MSWINDOWS.xattr.a": "",
        "LIBARCHIVE.creationtime": "-1.5",
        "atime": "2",
        "ctime": "3.1234567",
        "mtime": "4.0000001",
    }
    ((file, streams),) = read(tarfile_tar(("Files/a", b"content", "", pax)))
    times = FileTimes(
        UNIX_EPOCH - 3 * SECOND // 2, UNIX_EPOCH + 2 * SECOND, UNIX_EPOCH + 31234567, UNIX_EPOCH + 4 * SECOND + 1
    )
    assert file.times == FileTimes(times[0], times[1], times[3], times[2])
    assert (file.name, file.kind, file.attributes, file.security) == ("Files/a", "file", 33, DESCRIPTOR)
    assert eas.decode(file.eas) == [(b"a", b"", 0), (b"b", b"value b", 0)]
    assert streams == [("", b"content")]


def test_a_file_with_nothing():
    ((file, streams),) = read(tarfile_tar(("Files/a", b"")))
    written = UNIX_EPOCH + MTIME // 10**9 * SECOND
    assert file == LayerFile("Files/a", "file", 0, FileTimes(*[written] * 4), streams=None)
    assert streams == [("", b"")]


def test_directories_and_links():
    data = tarfile_tar(
        ("Files", "directory"),
        ("Files/d/", "directory", "", {"MSWINDOWS.fileattr": "2066"}),
        ("Files/d/a", b"a"),
        ("Files/hard", "hard link", "Files/d/a"),
        ("Files/soft", "symlink", "d/a", {"MSWINDOWS.fileattr": "1024"}),
        ("Files/softdir", "symlink", "d", {"MSWINDOWS.fileattr": "1040"}),
        ("Files/junction", "symlink", "C:\\d", {"MSWINDOWS.mountpoint": "1"}),
        ("Files/d/.wh.gone", b""),
    )
    files = {file.name: file for file, _ in read(data)}
    assert (files["Files"].kind, files["Files"].attributes) == ("directory", 16)
    assert (files["Files/d"].kind, files["Files/d"].attributes) == ("directory", 2066)
    assert (files["Files/hard"].kind, files["Files/hard"].link) == ("hard link", "Files/d/a")
    assert (files["Files/soft"].kind, reparse.decode(files["Files/soft"].reparse)) == ("file", ("d\\a", False))
    assert (files["Files/softdir"].kind, reparse.decode(files["Files/softdir"].reparse)) == ("directory", ("d", False))
    assert (files["Files/junction"].kind, files["Files/junction"].attributes) == ("directory", 16)
    assert reparse.decode(files["Files/junction"].reparse) == ("C:\\d", True)
    assert files["Files/d/gone"] == LayerFile("Files/d/gone", "whiteout", streams=None)
    assert [streams for _, streams in read(data)] == [[], [], [("", b"a")], [], [], [], [], []]


def test_alternate_streams_belong_to_the_file_before():
    data = tarfile_tar(("Files/a", b"a"), ("Files/a:x", b"note"), ("Files/a:y", b""), ("Files/b", b"b"))
    assert [(file.name, streams) for file, streams in read(data)] == [
        ("Files/a", [("", b"a"), ("x", b"note"), ("y", b"")]),
        ("Files/b", [("", b"b")]),
    ]


def test_streams_that_are_not_taken_are_skipped():
    data = tarfile_tar(("Files/a", b"a"), ("Files/a:x", b"note"), ("Files/b", b"b"), ("Files/b:y", b"y"))
    names = []
    for file in layerfiletar.read(layertar.LayerReader(io.BytesIO(data)), no_sddl):
        names.append(file.name)
        if file.name == "Files/b":
            next(file.streams)
    assert names == ["Files/a", "Files/b"]


def test_an_old_layer_has_descriptors_in_sddl():
    texts = []

    def from_sddl(text):
        texts.append(text)
        return DESCRIPTOR

    ((file, _),) = read(tarfile_tar(("Files/a", b"", "", {"MSWINDOWS.sd": "O:BAG:SYD:"})), from_sddl)
    assert file.security == DESCRIPTOR
    assert texts == ["O:BAG:SYD:"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("MSWINDOWS.fileattr", "0x20", "file attributes '0x20'"),
        ("MSWINDOWS.fileattr", "4294967296", "not a number of 32 bits"),
        ("MSWINDOWS.fileattr", "-1", "not a number of 32 bits"),
        ("MSWINDOWS.fileattr", "16", "attribute of a directory"),
        ("MSWINDOWS.rawsd", "AQ==", "security descriptor is cut off"),
        ("MSWINDOWS.rawsd", "A", "damaged security descriptor"),
        ("MSWINDOWS.rawsd", "AQ\u00e4=", "damaged security descriptor"),
        ("MSWINDOWS.xattr.a", "!", "damaged extended attribute"),
        ("MSWINDOWS.xattr.", "", "is not one of NTFS"),
        ("MSWINDOWS.xattr." + "a" * 256, "", "is not one of NTFS"),
        ("atime", "x", "has a time 'x'"),
        ("ctime", "1e3", "has a time '1e3'"),
        ("ctime", "", "has a time ''"),
        ("LIBARCHIVE.creationtime", "-11644473601", "a time that Windows cannot hold"),
        ("LIBARCHIVE.creationtime", "99999999999999", "a time that Windows cannot hold"),
    ],
)
def test_records_that_are_refused(key, value, said):
    with pytest.raises(InvalidArgument) as caught:
        read(tarfile_tar(("Files/a", b"", "", {key: value})))
    assert caught.value.message.startswith("entry 'Files/a' is refused: ")
    assert said in caught.value.message


@pytest.mark.parametrize("target", ["", "d", "/usr/bin/x", "D:\\data", "Files/..", "\\\\server\\share", "..\\..\\.."])
@pytest.mark.parametrize("records", [{}, {"MSWINDOWS.mountpoint": "1"}])
def test_the_target_of_a_link_is_kept_whatever_it_is(target, records):
    stream = io.BytesIO(tarfile_tar(("Files/l", "symlink", target, records)))
    (file,) = layerfiletar.read(layertar.LayerReader(stream), no_sddl)
    assert reparse.decode(file.reparse) == (target.replace("/", "\\"), bool(records))


def test_a_tar_that_is_cut_off_in_a_stream():
    data = tarfile_tar(("Files/a", b"a" * 1000))
    with pytest.raises(InvalidArgument, match="cut off"):
        read(data[:1000])


# -- writing ---------------------------------------------------------------------

TIMES = FileTimes(UNIX_EPOCH + SECOND // 2, UNIX_EPOCH + 2 * SECOND, UNIX_EPOCH + 3 * SECOND, UNIX_EPOCH + 4 * SECOND)
TIME_RECORDS = {"LIBARCHIVE.creationtime": "0.5", "atime": "3", "ctime": "3"}


def test_what_a_tar_holds():
    """Types, modes and records equal those of go-winio. Its export trace shows them for files and directories."""
    link = reparse.encode(reparse.Link("d\\a", False))
    junction = reparse.encode(reparse.Link("C:\\d", True))
    data = write(
        LayerFile("Files", "directory", 16, TIMES),
        LayerFile("Files/gone", "whiteout"),
        with_streams(
            LayerFile("Files/a", "file", 32, TIMES, DESCRIPTOR, eas.encode([eas.ExtendedAttribute(b"E", b"v", 128)])),
            ("", b"content"),
            ("x", b"note"),
        ),
        LayerFile("Files/hard", "hard link", 32, TIMES, link="Files/a"),
        LayerFile("Files/soft", "file", 1056, TIMES, reparse=link),
        LayerFile("Files/junction", "directory", 1040, TIMES, reparse=junction),
    )
    found = [(info.name, info.type, info.mode, info.linkname, content) for info, content in entries(data)]
    assert found == [
        ("Files", b"5", 0o40000, "", None),
        ("Files/.wh.gone", b"0", 0, "", b""),
        ("Files/a", b"0", 0o100000, "", b"content"),
        ("Files/a:x", b"0", 0o100000, "", b"note"),
        ("Files/hard", b"1", 0o644, "Files/a", None),
        ("Files/soft", b"2", 0o120000, "d\\a", None),
        ("Files/junction", b"2", 0o160000, "C:\\d", None),
    ]
    pax = {info.name: info.pax_headers for info, _ in entries(data)}
    rawsd = base64.b64encode(DESCRIPTOR).decode()
    assert pax == {
        "Files": {**TIME_RECORDS, "MSWINDOWS.fileattr": "16"},
        "Files/.wh.gone": {},
        "Files/a": {
            **TIME_RECORDS,
            "MSWINDOWS.fileattr": "32",
            "MSWINDOWS.rawsd": rawsd,
            "MSWINDOWS.xattr.E": base64.b64encode(b"v").decode(),
        },
        "Files/a:x": {"atime": "3", "ctime": "3"},
        "Files/hard": {**TIME_RECORDS, "MSWINDOWS.fileattr": "32"},
        "Files/soft": {**TIME_RECORDS, "MSWINDOWS.fileattr": "1056"},
        "Files/junction": {**TIME_RECORDS, "MSWINDOWS.fileattr": "1040", "MSWINDOWS.mountpoint": "1"},
    }
    assert {info.mtime for info, _ in entries(data)} == {0, 3}


def test_a_file_whose_only_stream_is_an_alternate_one():
    data = write(with_streams(LayerFile("Files/a", "file", 32, TIMES), ("x", b"note")))
    assert [(info.name, content) for info, content in entries(data)] == [("Files/a", b""), ("Files/a:x", b"note")]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (LayerFile("Files/a\ud800", "file"), "is not Unicode text"),
        (LayerFile("Files/a:b", "file"), "which NTFS does not allow"),
        (LayerFile("Files/" + "a" * 300, "file"), "longer than 255"),
        (LayerFile("Files/..", "whiteout"), "is not the name of a file"),
        (LayerFile("Files/.wh.x", "file"), "means a deletion; rename or remove it"),
        (LayerFile("Files/.wh.x", "directory"), "means a deletion; rename or remove it"),
        (LayerFile("Files/.wh.x/y", "whiteout"), "means a deletion; rename or remove it"),
        (with_streams(LayerFile("Files/a", "file"), ("", b""), ("x:y", b"")), "which NTFS does not allow"),
        (
            LayerFile("Files/a", "file", reparse=struct.pack("<IHH", 0x80000018, 0, 0)),
            "unsupported reparse point 80000018",
        ),
        (LayerFile("Files/a", "file", reparse=b"cut"), "a reparse point has 3 bytes"),
        (LayerFile("Files/a", "file", reparse=reparse.encode(reparse.Link("\udc00", False))), "is not Unicode text"),
        (LayerFile("Files/a", "file", eas=b"bad"), "invalid extended attribute buffer"),
        (LayerFile("Files/a", "file", eas=eas.encode([eas.ExtendedAttribute(b"a=b", b"")])), "cannot be a PAX key"),
        (LayerFile("Files/a", "file", eas=eas.encode([eas.ExtendedAttribute(b"\xff", b"")])), "cannot be a PAX key"),
    ],
)
def test_what_a_tar_cannot_hold(file, said):
    with pytest.raises(InvalidArgument) as caught:
        write(file)
    assert said in caught.value.message
    assert "cannot be written to a layer tar" in caught.value.message


names = st.sampled_from(["a", "b.", "c ", "CON", "\u00e4\u6f22\U0001f600", "n" * 255]).map(lambda name: "Files/" + name)
# A tar gives the other two times the value of the write time.
times = st.tuples(*[st.integers(0, (1 << 63) - SECOND)] * 2).map(lambda pair: FileTimes(pair[0], *[pair[1]] * 3))
attributes = st.builds(
    eas.ExtendedAttribute,
    st.text(st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters="="), min_size=1, max_size=20).map(
        str.encode
    ),
    st.binary(max_size=50),
    st.just(0),
)


@st.composite
def records(draw):
    name = draw(names)
    common = {
        "times": draw(times),
        "security": draw(st.sampled_from([b"", DESCRIPTOR])),
        "eas": eas.encode(sorted({each.name: each for each in draw(st.lists(attributes, max_size=3))}.values())),
    }
    if draw(st.booleans()):
        return LayerFile(name, "directory", draw(st.integers(0, 15)) | 16, **common), ()
    if draw(st.booleans()):
        link = reparse.encode(reparse.Link(draw(st.sampled_from(["a", "b\\c", "C:\\x"])), False))
        return LayerFile(name, "file", 1024, reparse=link, **common), ()
    streams = draw(st.dictionaries(st.sampled_from(["x", "y.z", "\u00e4"]), st.binary(max_size=600), max_size=2))
    return LayerFile(name, "file", draw(st.integers(0, 15)), **common), (("", draw(st.binary())), *streams.items())


@settings(max_examples=300)
@given(st.lists(records(), max_size=4, unique_by=lambda record: record[0].name))
def test_what_was_written_is_read(some):
    data = write(*(with_streams(file, *streams) for file, streams in some))
    found = read(data)
    assert found == [(file._replace(streams=None), list(streams)) for file, streams in some]
    assert write(*(with_streams(file, *streams) for file, streams in found)) == data
    assert len(entries(data)) == sum(max(len(streams), 1) for _, streams in some)
