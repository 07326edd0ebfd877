# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how layer tars are read and written. Python's tarfile is the peer on both sides."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import tracemalloc
import zlib

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import decompress, layertar, pax
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar, with_checksum
from hypothesis import given, settings
from hypothesis import strategies as st


def read(data, **limits):
    reader = layertar.LayerReader(io.BytesIO(data), **limits)
    return [(entry, b"".join(iter(reader.read, b""))) for entry in reader]


def refused(data, *parts, **limits):
    with pytest.raises(InvalidArgument) as caught:
        read(data, **limits)
    for part in parts:
        assert part in caught.value.message
    return caught.value.message


# -- valid tars ------------------------------------------------------------------


def test_an_ordinary_layer():
    data = tarfile_tar(
        ("Files", "directory"),
        ("Files/Windows/", "directory"),
        ("Files/Windows/a.txt", b"content"),
        ("Files/b.txt", "hard link", "Files/Windows/a.txt"),
        ("Files/link", "symlink", "Windows\\a.txt"),
        ("Files/.wh.gone.txt", b""),
        ("Hives/System_Delta", b"hive"),
        ("UtilityVM", "directory"),
        ("UtilityVM/Files", "directory"),
    )
    reader = layertar.LayerReader(io.BytesIO(data))
    seen = []
    for entry in reader:
        seen.append((entry.name, entry.kind, entry.link, reader.read()))
        assert entry.mtime_ns == 1_600_000_000 * 10**9
    assert seen == [
        ("Files", "directory", "", b""),
        ("Files/Windows", "directory", "", b""),
        ("Files/Windows/a.txt", "file", "", b"content"),
        ("Files/b.txt", "hard link", "Files/Windows/a.txt", b""),
        ("Files/link", "symlink", "Windows\\a.txt", b""),
        ("Files/gone.txt", "whiteout", "", b""),
        ("Hives/System_Delta", "file", "", b"hive"),
        ("UtilityVM", "directory", "", b""),
        ("UtilityVM/Files", "directory", "", b""),
    ]
    assert reader.entries == len(seen)
    assert reader.size == len(data)
    assert reader.digest == "sha256:" + hashlib.sha256(data).hexdigest()


def test_pax_records_come_along():
    records = {"MSWINDOWS.fileattr": "33", "MSWINDOWS.rawsd": "AQAU=", "LIBARCHIVE.creationtime": "-1.5"}
    ((entry, _),) = read(tarfile_tar(("Files/a", b"", "", records)))
    assert records.items() <= entry.pax.items()


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1.5", 1_500_000_000),
        ("-1.5", -1_500_000_000),
        ("0.000000001", 1),
        ("7", 7 * 10**9),
        ("1.1234567899", 1_123_456_789),
    ],
)
def test_pax_times(text, nanoseconds):
    ((entry, _),) = read(tarfile_tar(("Files/a", b"", "", {"mtime": text})))
    assert entry.mtime_ns == nanoseconds


@pytest.mark.parametrize("text", ["", "x", "1.x", "--1", "1e9", "\u0661", "9" * 40])
def test_damaged_pax_times_are_refused(text):
    data = layertar.header("Files/a", "file", pax={"mtime": text}) + layertar.END_MARK
    refused(data, "'Files/a' is refused: it has a time")


@pytest.mark.parametrize("text", ["-11644473601", "910692730085", "9" * 20])
def test_times_that_windows_cannot_hold(text):
    refused(layertar.header("Files/a", "file", pax={"mtime": text}) + layertar.END_MARK, "'Files/a' has a time")


def test_permission_bits_and_none():
    data = layertar.header("Files/a", "file", mode=0o4751) + layertar.header("Files/b", "file") + layertar.END_MARK
    assert [entry.mode for entry, _ in read(data)] == [0o751, 0]


def test_directories_are_spelled_as_first_seen():
    data = tarfile_tar(("Files/Windows/a", b""), ("Files/WINDOWS/b", b""), ("Files/windows", "directory"))
    assert [entry.name for entry, _ in read(data)] == ["Files/Windows/a", "Files/Windows/b", "Files/Windows"]


def test_a_global_header_holds_until_an_entry_says_otherwise():
    buffer = io.BytesIO()
    key = "MSWINDOWS.fileattr"
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={key: "1"}) as tar:
        tar.addfile(tarfile.TarInfo("Files/a"))
        info = tarfile.TarInfo("Files/b")
        info.pax_headers = {key: "2"}
        tar.addfile(info)
    assert [entry.pax[key] for entry, _ in read(buffer.getvalue())] == ["1", "2"]


def extension(kind, *records):
    """Return an extended header. ``records`` are keys and values as bytes."""
    data = bytearray()
    for key, value in records:
        length = len(key) + len(value) + 3
        while len(str(length)) + len(key) + len(value) + 3 != length:
            length = len(str(length)) + len(key) + len(value) + 3
        data += b"%d %s=%s\n" % (length, key, value)
    block = bytearray(layertar.header("PaxHeader", "file", size=len(data)))
    block[156:157] = kind
    return bytes(with_checksum(block) + data + layertar.padding(len(data)))


def test_a_newer_global_header_replaces_an_older_one_but_not_an_own_record():
    key = b"MSWINDOWS.fileattr"
    first, second = extension(b"g", (key, b"1")), extension(b"g", (key, b"2"))
    entry = layertar.header("Files/a", "file") + layertar.END_MARK
    assert read(first + second + entry)[0][0].pax[key.decode()] == "2"
    assert read(extension(b"x", (key, b"3")) + first + entry)[0][0].pax[key.decode()] == "3"


@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_keys_that_nobody_reads_are_dropped_whatever_they_hold(kind):
    unknown = [
        (b"SCHILY.xattr.user.DOSATTRIB", b"\0\0\5\0\xd3\xff"),
        (b"comment", b"a\nb=c"),
        (b"\xff", b""),
        (b"pathX", b"/etc"),
        (b"MSWINDOWS.other", b"\xff"),
    ]
    data = extension(kind, *unknown, (b"MSWINDOWS.fileattr", b"33")) + layertar.header("Files/a", "file")
    ((entry, _),) = read(data + layertar.END_MARK)
    assert (entry.name, entry.pax) == ("Files/a", {"MSWINDOWS.fileattr": "33"})


def test_global_keys_that_nobody_reads_cost_no_memory():
    data = b"".join(
        extension(b"g", *((b"k%d" % number, b"v") for number in range(start, start + 10_000)))
        + layertar.header(f"Files/{start}", "file")
        for start in range(0, 100_000, 10_000)
    )
    data += layertar.END_MARK
    tracemalloc.start()
    try:
        assert all(entry.pax == {} for entry in layertar.LayerReader(io.BytesIO(data)))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_global_headers_hold_few_records_because_each_entry_gets_them():
    entry = layertar.header("Files/a", "file") + layertar.END_MARK
    many = [(b"MSWINDOWS.xattr.%d" % number, b"AA==") for number in range(64)]
    assert len(read(extension(b"g", *many) + entry)[0][0].pax) == 64
    for records in ([*many, (b"atime", b"1")], [(b"MSWINDOWS.xattr.a", b"A" * 65536)]):
        refused(extension(b"g", *records) + entry, "global extended headers", "apply to all entries")


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_extended_headers_before_one_entry_are_limited_together(kind):
    block = extension(kind, (b"k", b"v" * 300_000))
    entry = layertar.header("Files/a", "file") + layertar.END_MARK
    if kind in (b"x", b"g"):
        assert len(read(block * 3 + entry)) == 1
    refused(block * 4 + entry, "complete has 3000", "at most 1048576 bytes", "before one entry")


def test_extended_headers_of_a_whole_layer_are_limited(monkeypatch):
    monkeypatch.setattr(pax, "_MAX_EXTENSIONS", 100_000)
    parts = [extension(b"x", (b"k", b"v" * 30_000)) + layertar.header(f"Files/{number}", "file") for number in range(5)]
    assert len(read(b"".join(parts[:3]) + layertar.END_MARK)) == 3
    refused(b"".join(parts) + layertar.END_MARK, "after entry 'Files/2'", "at most 100000 bytes", "in one archive")


def test_an_alternate_stream_right_after_its_file():
    data = tarfile_tar(("Files/a", b"main"), ("Files/a:one", b"1"), ("Files/a:two", b"22"))
    assert [(entry.name, entry.kind, entry.link, content) for entry, content in read(data)] == [
        ("Files/a", "file", "", b"main"),
        ("Files/a", "alternate stream", "one", b"1"),
        ("Files/a", "alternate stream", "two", b"22"),
    ]


def test_alternate_streams_of_directories_and_links():
    data = tarfile_tar(
        ("Files/", "directory"),
        ("Files:root", b"0"),
        ("Files/d", "directory"),
        ("Files/d:one", b"1"),
        ("Files/d:two", b""),
        ("Files/s", "symlink", "d"),
        ("Files/s:three", b"3"),
    )
    streams = [(entry.name, entry.link, content) for entry, content in read(data) if entry.kind == layertar.STREAM]
    assert streams == [
        ("Files", "root", b"0"),
        ("Files/d", "one", b"1"),
        ("Files/d", "two", b""),
        ("Files/s", "three", b"3"),
    ]


@pytest.mark.parametrize(
    "owner",
    [("Files/x", "hard link", "Files/a"), ("Files/.wh.x", b""), ("Files/xx", b"")],
    ids=["hard link", "whiteout", "another file"],
)
def test_a_stream_without_its_owner_before_it(owner):
    refused(tarfile_tar(("Files/a", b""), owner, ("Files/x:s", b"1")), "'Files/x:s' is refused", "':'")


def test_what_is_not_read_is_skipped():
    data = tarfile_tar(("Files/a", b"x" * 1000), ("Files/b", b"yes"))
    reader = layertar.LayerReader(io.BytesIO(data))
    assert [reader.read() for entry in reader if entry.name == "Files/b"] == [b"yes"]


def test_whatever_follows_the_end_mark_is_part_of_the_digest():
    data = tarfile_tar(("Files/a", b"")) + b"\0" * 700_000 + b"tail"
    reader = layertar.LayerReader(io.BytesIO(data))
    list(reader)
    assert (reader.size, reader.digest) == (len(data), "sha256:" + hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_of_tarfile(tar_format):
    name = "Files/" + "/".join(["directory"] * 12) + "/file.txt"
    entries = [(name, b"content"), ("Files/target", b"t"), ("Files/link", "hard link", "Files/target")]
    if tar_format != tarfile.USTAR_FORMAT:
        entries += [("Files/\u00e9" + "n" * 120, b"x"), ("Files/long", "symlink", "t" * 150)]
    found = read(tarfile_tar(*entries, tar_format=tar_format))
    assert [entry.name for entry, _ in found] == [entry[0] for entry in entries]
    assert [entry.link for entry, _ in found] == [entry[2] if len(entry) > 2 else "" for entry in entries]
    assert found[0][1] == b"content"


def test_a_size_in_base_256_and_in_pax():
    block = bytearray(layertar.header("Files/a", "file", size=3))
    block[124:136] = b"\x80" + bytes(10) + b"\x03"
    assert read(with_checksum(block) + b"abc" + layertar.padding(3) + layertar.END_MARK)[0][1] == b"abc"
    data = layertar.header("Files/a", "file", pax={"size": "3"}) + b"abc" + layertar.padding(3) + layertar.END_MARK
    assert read(data)[0][1] == b"abc"


# -- refused tars ----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "/Files/a",
        "../a",
        "Files/../../a",
        "Files/..",
        "Files/./a",
        "./Files/a",
        "Files//a",
        "C:/a",
        "C:\\a",
        "Files\\a",
        "Files/a\\b",
        "Files/a:b",
        "Files/a::$DATA",
        'Files/"',
        "Files/a\nb",
        "Files/a?",
        "Files/" + "n" * 256,
        "Files/" + "n" * 300 + "/a",
        "Files/" + "\U0001f600" * 128,
        "Files/" + "/".join(["n" * 200] * 170),
        "Other/a",
        "files/a",
        "etc",
        "Files",
        "Hives",
        "UtilityVM",
        "UtilityVM/Files",
        "UtilityVM/other",
        "UtilityVM/SystemTemplate.vhdx",
    ],
)
def test_names_that_no_layer_holds(name):
    message = refused(layertar.header(name, "file") + layertar.END_MARK)
    assert repr(name)[:50] in message


@pytest.mark.parametrize(
    "name", ["Files/CON", "Files/aux.txt", "Files/dot.", "Files/space ", "Files/" + "\u4e00" * 255, "Files/.whatever"]
)
def test_odd_names_that_a_layer_may_hold(name):
    assert read(layertar.header(name, "file") + layertar.END_MARK)[0][0].name == name


@pytest.mark.parametrize("text", [b"\xed\xa0\x80", b"\xe4bc", b"a\x81\x40"])
def test_a_name_in_the_header_that_is_no_unicode_text(text):
    block = layertar.header("Files/abc", "file").replace(b"abc", text)
    refused(with_checksum(block) + layertar.END_MARK, "the name of entry 'Files/", "is not UTF-8", "tar --format=pax")
    own = extension(b"x", (b"path", b"Files/good"))
    assert read(own + with_checksum(block) + layertar.END_MARK)[0][0].name == "Files/good"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (("blobs/", "directory"), "the archive is an image, not a layer; import it with the module image"),
        (("oci-layout", b"{}"), "the archive is an image"),
        (("index.json", b"{}"), "the archive is an image"),
        (("manifest.json", b"[]"), "the archive is an image"),
        (("ab" * 32 + ".json", b"{}"), "the archive is an image"),
        (("ab" * 32 + "/layer.tar", b""), "the archive is an image"),
        (("layer/", "directory"), "if they are in 'layer', pack what is in it (tar -C layer -cf layer.tar Files)"),
        (
            ("layer/Files/a", b""),
            "it is in a directory 'layer'; pack what is in that (tar -C layer -cf layer.tar Files)",
        ),
        (("a/b/Hives/", "directory"), "it is in a directory 'a/b'"),
        (("Files\\Windows\\a", b""), "backslashes separate its names"),
        ((".\\Files\\a", b""), "backslashes separate its names"),
        (("layer\\Files", b""), "backslashes separate its names"),
        (("files/a", b""), "the letters must be as in Files, Hives and UtilityVM"),
        (("etc/passwd", b""), "it looks like a layer of a Linux image"),
        (("Windows/System32/", "directory"), "the files of Windows must be below Files"),
    ],
)
def test_another_archive_is_named(entry, text):
    refused(tarfile_tar(entry), f"entry {entry[0]!r} is refused", text)


NO_TARS = [
    (b"", "empty"),
    (lzma.compress(b"x" * 600), "compressed with xz"),
    (lzma.compress(b"x" * 600, format=lzma.FORMAT_ALONE), "compressed with lzma"),
    (bz2.compress(b"x" * 600), "compressed with bzip2"),
    (
        gzip.compress(gzip.compress(b"x" * 600, mtime=0), mtime=0),
        "compressed with gzip, and was compressed already before",
    ),
    (b"PK\x03\x04" + bytes(600), "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c" + bytes(600), "a 7z archive"),
    (b"MSWIM\0\0\0" + bytes(600), "a Windows image (WIM)"),
    (b"vhdxfile" + bytes(600), "a virtual disk (VHDX)"),
    (b"conectix" + bytes(600), "a virtual disk (VHD)"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", "a pointer of Git LFS"),
    (b"\xef\xbb\xbf\r\n<!DOCTYPE HTML><html>", "an HTML page"),
    (b'<?xml version="1.0"?><Error>', "an XML document"),
    (b'{"schemaVersion": 2}', "a JSON document"),
    (b"Not Found\n", "a text that begins with 'Not Found"),
]


@pytest.mark.parametrize(("data", "text"), NO_TARS)
def test_a_file_that_is_no_tar_is_named(data, text):
    for file in (data, gzip.compress(data)):
        with pytest.raises(InvalidArgument) as caught:
            list(layertar.LayerReader(layertar.open_layer(io.BytesIO(file))))
        if data or file is data:
            assert f"it is not the tar of a layer, but {text}" in caught.value.message


@pytest.mark.parametrize("name", ["BZh", "PK\x03\x04", "{", "MZ", "<html"])
def test_a_tar_is_a_tar_whatever_its_first_name_is(name):
    refused(tarfile_tar((name, b"")), f"entry {name!r}")


@pytest.mark.parametrize("name", ["Files/.wh.", "Files/.wh..", "Files/.wh...", "Hives/.wh.System_Delta"])
def test_tombstones_that_delete_nothing_sensible(name):
    refused(tarfile_tar((name, b"")), f"invalid tombstone {name!r}")


@pytest.mark.parametrize("name", ["Files/.wh.d/a", "Files/.wh..wh..opq/a", "Files/d/.wh.d/.wh.a", "Files/.wh.d/"])
def test_nothing_lies_below_a_name_that_means_a_deletion(name):
    refused(tarfile_tar((name, "directory" if name.endswith("/") else b"")), repr(name))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Files/.wh.a", layertar.FILE),
        ("Files/.wh.a", layertar.DIRECTORY),
        ("Files/.wh.d/a", layertar.SYMLINK),
        ("Files/.wh.d/a", layertar.WHITEOUT),
    ],
)
def test_a_name_that_would_be_read_as_a_deletion_is_not_written(name, kind):
    with pytest.raises(InvalidArgument, match="means a deletion; rename or remove it"):
        layertar.header(name, kind)


@pytest.mark.parametrize(
    "name", ["Files/.wh..wh..opq", "Files/d/.wh..wh..opq", "Files/.wh..wh.plnk", "Files/.wh..wh.a"]
)
@pytest.mark.parametrize("expected", [False, True])
def test_an_opaque_whiteout_is_refused_by_name(name, expected):
    data = tarfile_tar(("Files/d", "directory"), (name, b""))
    refused(data, f"entry {name!r} is an opaque whiteout", expected=digest_of(data) if expected else "")


@pytest.mark.parametrize("kind", ["fifo", "character device", "block device"])
def test_special_files(kind):
    refused(tarfile_tar(("Files/ok", b""), ("Files/special", kind)), "'Files/special'", kind.replace("fifo", "FIFO"))


def test_unknown_types_and_sparse_files():
    block = bytearray(layertar.header("Files/a", "file"))
    for kind, text in ((b"S", "sparse"), (b"V", "unknown type 'V'")):
        block[156:157] = kind
        refused(with_checksum(block) + layertar.END_MARK, "'Files/a'", text)
    refused(
        layertar.header("Files/a", "file", pax={"GNU.sparse.major": "1"}) + layertar.END_MARK, "'Files/a'", "sparse"
    )


def read_link(link, **pax):
    data = layertar.header("Files/d/l", "symlink", link=link, pax={"linkpath": link, **pax}) + layertar.END_MARK
    reader = layertar.LayerReader(io.BytesIO(data))
    (entry,) = reader
    assert (entry.kind, entry.link) == ("symlink", link)
    return reader.warnings


@pytest.mark.parametrize(
    ("link", "doubt"),
    [
        ("", "is empty"),
        ("/etc/passwd", "is an absolute path of another system"),
        ("../../etc/passwd", "goes up above the root of the drive"),
        ("..\\..\\x", "goes up above the root of the drive"),
        ("d/../../../x", "goes up above the root of the drive"),
        ("C:\\..\\x", "goes up above the root of the drive"),
        ("\\..\\x", "goes up above the root of the drive"),
        ("\\\\server\\share", "leads to the network"),
        ("//server/share", "leads to the network"),
        ("\\\\?\\UNC\\server\\share", "leads to the network"),
        ("\\\\?\\Volume{1}\\x", "a volume or a device"),
        ("\\??\\Volume{1}\\", "a volume or a device"),
        ("D:\\data", "leads to drive D:"),
        ("\\\\?\\D:\\data", "leads to drive D:"),
        ("C:", "has the part 'C:', which contains ':'"),
        ("C:x", "has the part 'C:x', which contains ':'"),
        ("a:b", "has the part 'a:b', which contains ':'"),
        ("x\0y", "has the part 'x\\x00y'"),
        ("Files/C:\\bin\\busybox.exe", "has the part 'C:', which contains ':'"),
        ("Files/../pkg/bin.js", "begins with Files"),
        ("n" * 300, "is longer than 255 UTF-16 units"),
    ],
)
def test_links_that_windows_may_not_follow_are_kept_with_a_warning(link, doubt):
    (warning,) = read_link(link)
    assert f"'Files/d/l' links to {link[:200]!r}, which " in warning
    assert doubt in warning


@pytest.mark.parametrize(
    "link",
    [
        *("x", "../x", "..\\x", "d/e", ".\\x", "d/../x", "d/../../x", "C:\\Users", "c:\\", "\\Users"),
        *("C:/Users", "C:\\d\\..\\x", "\\\\?\\C:\\Users", "\\??\\C:\\x\\"),
    ],
)
def test_links_that_windows_can_follow(link):
    assert read_link(link) == []


def test_a_junction_must_be_absolute_for_windows():
    assert "is not absolute" in read_link("d", **{"MSWINDOWS.mountpoint": "1"})[0]
    assert "is empty" in read_link("", **{"MSWINDOWS.mountpoint": "1"})[0]
    assert read_link("C:\\d", **{"MSWINDOWS.mountpoint": "1"}) == []


def test_the_bytes_of_a_link_may_be_no_unicode_text():
    pax_link = extension(b"x", (b"linkpath", b"a\xff")) + layertar.header("Files/l", "symlink")
    plain_link = with_checksum(layertar.header("Files/m", "symlink", link="abc").replace(b"abc", b"b\xff\0"))
    assert [entry.link for entry, _ in read(pax_link + plain_link + layertar.END_MARK)] == ["a\ufffd", "b\ufffd"]


def test_a_warning_names_few_of_many_links():
    links = [layertar.header(f"Files/{number}", "symlink", link="/x") for number in range(10)]
    reader = layertar.LayerReader(io.BytesIO(b"".join(links) + layertar.END_MARK))
    list(reader)
    (warning,) = reader.warnings
    assert warning.count("links to") == 3
    assert warning.endswith("; and 7 more")


@pytest.mark.parametrize(
    "link",
    [
        "../x",
        "Files/../x",
        "/Files/a",
        "C:/a",
        "Hives/a",
        "UtilityVM/a",
        "Files",
        "Files/d",
        "Files/s",
        "Files/s/x",
        "Files/a/x",
        "",
    ],
)
def test_hard_links_to_what_is_no_file_of_the_layer(link):
    data = tarfile_tar(
        ("Files/a", b""), ("Files/d", "directory"), ("Files/s", "symlink", "a"), ("Files/l", "hard link", link)
    )
    refused(data, "invalid hard link in layer", "'Files/l'")


def test_hard_links_find_their_target_in_any_case_or_in_a_parent():
    data = tarfile_tar(
        ("Files/D/a", b""), ("Files/l", "hard link", "Files/d/A"), ("Files/m", "hard link", "Files/parent")
    )
    assert [entry.link for entry, _ in read(data)] == ["", "Files/D/a", "Files/parent"]


def test_links_in_hives():
    refused(tarfile_tar(("Hives/l", "symlink", "x")), "'Hives/l'", "no links")


@pytest.mark.parametrize(
    "first", [("Files/x", "symlink", "d"), ("Files/x", b"file"), ("Files/x", "hard link", "Files/a")]
)
@pytest.mark.parametrize("then", ["Files/x/evil", "Files/X/evil", "Files/x/deep/er", "Files/x/.wh.evil"])
def test_nothing_is_written_through_a_link_or_file(first, then):
    refused(tarfile_tar(("Files/a", b""), first, (then, b"evil")), repr(then), "lies below 'Files/x'")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("Files/x", b""), ("Files/x", b"")),
        (("Files/x", b""), ("Files/X", b"")),
        (("Files/x", b""), ("Files/X", "directory")),
        (("Files/x", "directory"), ("Files/X", b"")),
        (("Files/x/y", b""), ("Files/X", "symlink", "z")),
        (("Files/x", "symlink", "z"), ("Files/x", "directory")),
        (("Files/\u00e9", b""), ("Files/\u00c9", b"")),
    ],
)
def test_two_entries_for_one_name(first, second):
    refused(tarfile_tar(first, second), second[0], "already")


def test_names_that_are_two_to_windows():
    assert len(read(tarfile_tar(("Files/\u00df", b""), ("Files/SS", b"")))) == 2


# -- what a digest allows --------------------------------------------------------


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("rest", [0, 1, 412, 512], ids=["a mark", "padding", "no mark", "half a mark"])
def test_a_layer_whose_digest_is_right_needs_no_end_mark(rest):
    whole = layertar.header("Files/a", "file", size=100) + b"x" * 100
    data = whole + bytes({0: 412 + 1024, 1: 0}.get(rest, rest + 412 if rest == 512 else 412))
    assert [entry.name for entry, _ in read(data, expected=digest_of(data))] == ["Files/a"]
    if rest:
        refused(data, "the layer is cut off, ", "get it again, or if it must be like this, give its digest")
        refused(data, "the layer is cut off, ", expected=digest_of(b""))
    else:
        refused(data, f"the layer's digest is {digest_of(data)}, not", expected=digest_of(b""))


@pytest.mark.parametrize("length", [300, 512 + 50, 512 + 100 + 200])
def test_a_digest_does_not_complete_an_entry(length):
    data = (layertar.header("Files/a", "file", size=100) + b"x" * 100 + bytes(412))[:length]
    refused(data, "the layer is cut off", expected=digest_of(data))


def test_names_that_begin_with_a_dot():
    data = tarfile_tar(
        ("./", "directory"),
        ("./Files/", "directory"),
        ("././Files/a", b"1"),
        ("./Files/a:s", b"2"),
        ("./Files/h", "hard link", "./Files/a"),
        ("./Files/l", "symlink", "./a"),
        ("./Files/.wh.gone", b""),
    )
    found = [(entry.name, entry.kind, entry.link) for entry, _ in read(data, expected=digest_of(data))]
    assert found == [
        ("Files", "directory", ""),
        ("Files/a", "file", ""),
        ("Files/a", "alternate stream", "s"),
        ("Files/h", "hard link", "Files/a"),
        ("Files/l", "symlink", "./a"),
        ("Files/gone", "whiteout", ""),
    ]
    refused(data, "entry './' is refused", "give its digest")
    refused(tarfile_tar(("./Files/a", b"")), "entry './Files/a' is refused", "give its digest")
    for name in ("./../a", "./Files/./a", ".//../Files/a"):
        refused(layertar.header(name, "file") + layertar.END_MARK, "is not the name of a file", expected=digest_of(b""))


# -- damage and bombs ------------------------------------------------------------


def test_a_layer_that_is_cut_off_anywhere():
    data = tarfile_tar(("Files/a", b"x" * 600), ("Files/b", b"y", "", {"comment": "c" * 600}))
    for length in range(0, len(data.rstrip(b"\0")) + 512, 37):
        message = refused(data[:length], "cut off")
        assert ("'Files/a'" in message) == (length >= 512 + 1024)


def test_a_layer_without_its_end_mark():
    data = layertar.header("Files/a", "file")
    refused(data, "cut off, after entry 'Files/a'")
    refused(data + bytes(512), "cut off")
    refused(data + bytes(512) + data, "single block of zeros")


def test_a_pax_header_without_its_entry():
    data = layertar.header("Files/a", "file", pax={"comment": "c"})
    refused(data[:1024] + layertar.END_MARK, "in the middle of an entry")


def test_a_damaged_header():
    data = bytearray(tarfile_tar(("Files/a", b""), ("Files/b", b"")))
    data[512 + 5] ^= 1
    refused(bytes(data), "checksum", "after entry 'Files/a'")
    refused(b"this is no tar" * 100, "is it a tar?")


@pytest.mark.parametrize("field", [slice(100, 108), slice(124, 136), slice(136, 148)])
def test_a_number_that_is_none(field):
    block = bytearray(layertar.header("Files/a", "file"))
    block[field] = b"9" * (field.stop - field.start)
    refused(with_checksum(block) + layertar.END_MARK, "is not a number")


def test_a_negative_size():
    block = bytearray(layertar.header("Files/a", "file"))
    block[124:136] = b"\xff" * 12
    refused(with_checksum(block) + layertar.END_MARK, "negative size")


@pytest.mark.parametrize(
    "records",
    [
        b"",
        b"x",
        b"99 a=b\n",
        b"6 a=bX",
        b"3 \n",
        b"5 =b\n",
        b"6 abc\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"1" * 600,
        b"11 path=\xff\xfe\n",
        # pax requires UTF-8. Half a UTF-16 surrogate pair is not valid UTF-8, although NTFS would keep it.
        b"18 path=Files/\xed\xa0\x80\n",
        b"21 linkpath=C:\\a\xed\xb2\x80b\n",
    ],
)
def test_damaged_pax_records(records):
    block = bytearray(layertar.header("PaxHeader", "file", size=len(records)))
    block[156:157] = b"x"
    data = with_checksum(block) + records + layertar.padding(len(records))
    rest = layertar.header("Files/a", "file") + layertar.END_MARK
    if not records:
        assert len(read(data + rest)) == 1
    else:
        refused(data + rest, "extended header")


@pytest.mark.parametrize("size", ["-1", "x", "", "1e3", "\u0663", "9" * 30])
def test_a_pax_size_that_is_none(size):
    refused(layertar.header("Files/a", "file", pax={"size": size}) + layertar.END_MARK, "'Files/a'")


def test_an_endless_extended_header_is_not_read():
    for kind in (b"x", b"g", b"L", b"K"):
        block = bytearray(layertar.header("PaxHeader", "file", size=8**11 - 1))
        block[156:157] = kind
        refused(with_checksum(block), "extended header", "at most")


def test_limits():
    data = tarfile_tar(*((f"Files/{number}", b"x") for number in range(5)))
    refused(data, "'Files/3'", "at most 3", max_entries=3)
    refused(tarfile_tar(("Files/big", b"x" * 5000)), "'Files/big'", "larger than 4096 bytes", max_size=4096)
    refused(layertar.header("Files/huge", "file", size=1 << 60), "'Files/huge'")
    refused(tarfile_tar(("Files/a", b"")) + bytes(100_000), "after its end mark", max_size=20_000)


# -- writing ---------------------------------------------------------------------


@pytest.mark.parametrize("time_ns", [0, 1, -1, 1_600_000_000_123_456_789, -1_500_000_000, 8**11 * 10**9, 10**9])
def test_what_is_written_is_read_back(time_ns):
    name = "Files/" + "d" * 120 + "/\u00e9.txt"
    data = layertar.header(name, "file", size=3, mode=0o640, mtime_ns=time_ns, pax={"MSWINDOWS.fileattr": "32"})
    data += b"abc" + layertar.padding(3)
    data += (
        layertar.header("Files/l", "hard link", link=name)
        + layertar.header("Files/d/gone", "whiteout")
        + layertar.END_MARK
    )
    (entry, content), (link, _), (gone, _) = read(data)
    assert (entry.name, entry.mode, entry.mtime_ns, content) == (name, 0o640, time_ns, b"abc")
    assert entry.pax["MSWINDOWS.fileattr"] == "32"
    assert (link.kind, link.link) == ("hard link", name)
    assert (gone.kind, gone.name) == ("whiteout", "Files/d/gone")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [name, "Files/l", "Files/d/.wh.gone"]
        assert tar.extractfile(members[0]).read() == b"abc"
        assert members[0].mtime == pytest.approx(time_ns / 10**9)
        assert members[1].linkname == name


def test_a_file_of_more_than_8_gib_has_its_size_in_pax():
    size = 8**11 + 5
    reader = layertar.LayerReader(io.BytesIO(layertar.header("Files/a", "file", size=size)))
    assert next(iter(reader)).size == size


@pytest.mark.parametrize(
    ("time_ns", "text"), [(-1_500_000_000, "-1.5"), (0, "0"), (10**9, "1"), (1, "0.000000001"), (1_120_000_000, "1.12")]
)
def test_time_text(time_ns, text):
    assert layertar.time_text(time_ns) == text


@pytest.mark.parametrize("length", [1, 88, 89, 90, 91, 92, 93, 94, 95, 986, 987, 988, 989, 990, 9990])
def test_a_pax_record_counts_its_own_digits(length):
    # The key is as long as the shortest one that is kept.
    ((entry, _),) = read(layertar.header("Files/a", "file", pax={"ctime": "x" * length}) + layertar.END_MARK)
    assert entry.pax["ctime"] == "x" * length


# -- compression -----------------------------------------------------------------


def test_plain_and_gzip():
    data = tarfile_tar(("Files/a", b"content" * 1000))
    for packed in (data, gzip.compress(data), gzip.compress(data[:700]) + gzip.compress(data[700:]) + b"\0" * 50):
        assert layertar.open_layer(io.BytesIO(packed)).read() == data
    assert layertar.open_layer(io.BytesIO(b"")).read() == b""
    assert layertar.open_layer(io.BytesIO(b"ab")).read() == b"ab"


def test_gzip_that_is_cut_off_or_damaged():
    packed = gzip.compress(tarfile_tar(("Files/a", bytes(range(256)) * 100)))
    for length in range(2, len(packed), 7):
        with pytest.raises(InvalidArgument, match="cut off"):
            layertar.open_layer(io.BytesIO(packed[:length])).read()
    for position in range(2, len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x10
        try:
            layertar.open_layer(io.BytesIO(bytes(damaged))).read()
        except InvalidArgument:
            pass
    with pytest.raises(InvalidArgument, match="damaged"):
        layertar.open_layer(io.BytesIO(packed + b"garbage")).read()


def test_zstd_is_named(monkeypatch):
    monkeypatch.setattr(decompress, "zstd_codec", lambda: None)
    with pytest.raises(InvalidArgument, match="compressed with zstd, which Python before 3.14 cannot read"):
        layertar.open_layer(io.BytesIO(b"\x28\xb5\x2f\xfd rest"))


def test_a_gzip_bomb(monkeypatch):
    monkeypatch.setattr(decompress, "_RATIO_GRACE", 1 << 20)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(16)) + packer.flush()
    stream = layertar.open_layer(io.BytesIO(bomb))
    with pytest.raises(InvalidArgument, match="more than 250 times its size"):
        while stream.read(1 << 16):
            pass
    assert len(layertar.open_layer(io.BytesIO(bomb), max_ratio=2000).read()) == 16 << 20
    with pytest.raises(InvalidArgument, match="give its digest"):
        layertar.open_layer(io.BytesIO(bomb), digest=digest_of(b"")).read()
    # Also in the middle of a stream, and with a second member.
    middle = io.BytesIO(b"before" + bomb + gzip.compress(b"end"))
    middle.seek(6)
    plain = bytes(16 << 20) + b"end"
    assert layertar.open_layer(middle, digest=digest_of(plain)).read() == plain


# -- peers -----------------------------------------------------

_names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"*/:<>?\\|'), min_size=1, max_size=120
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh."))


@settings(max_examples=150)
@given(
    st.dictionaries(_names, st.binary(max_size=1500), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_tarfile_writes_and_we_read(files, tar_format):
    unique = {layertar.fold(name): name for name in files}
    entries = [(f"Files/{name}", files[name]) for name in unique.values()]
    found = read(tarfile_tar(*entries, tar_format=tar_format))
    assert [(entry.name, content) for entry, content in found] == entries


@settings(max_examples=150)
@given(st.dictionaries(_names, st.binary(max_size=1500), max_size=6), st.integers(-(10**19), 10**19))
def test_we_write_and_tarfile_reads(files, time_ns):
    data = b"".join(
        layertar.header(f"Files/{name}", "file", size=len(content), mtime_ns=time_ns)
        + content
        + layertar.padding(len(content))
        for name, content in files.items()
    )
    with tarfile.open(fileobj=io.BytesIO(data + layertar.END_MARK)) as tar:
        assert {member.name[6:]: tar.extractfile(member).read() for member in tar} == files
