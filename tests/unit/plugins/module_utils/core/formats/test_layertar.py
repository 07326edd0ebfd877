# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and writing layer tars; Python's own tarfile is the peer on both sides."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import layertar
from hypothesis import given, settings
from hypothesis import strategies as st

TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}


def pack(*entries, tar_format=tarfile.PAX_FORMAT):
    """A tar made by tarfile; an entry is (name, content or kind, link, pax records)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, what, *rest in entries:
            info = tarfile.TarInfo(name)
            info.mtime = 1_600_000_000
            info.linkname = rest[0] if rest else ""
            info.pax_headers = rest[1] if len(rest) > 1 else {}
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.type = TYPES[what]
                tar.addfile(info)
    return buffer.getvalue()


def read(data, **limits):
    reader = layertar.LayerReader(io.BytesIO(data), **limits)
    return [(entry, b"".join(iter(reader.read, b""))) for entry in reader]


def refused(data, *parts, **limits):
    with pytest.raises(InvalidArgument) as caught:
        read(data, **limits)
    for part in parts:
        assert part in caught.value.message
    return caught.value.message


# -- what is read ----------------------------------------------------------------


def test_an_ordinary_layer():
    data = pack(
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
    ((entry, _),) = read(pack(("Files/a", b"", "", records)))
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
    ((entry, _),) = read(pack(("Files/a", b"", "", {"mtime": text})))
    assert entry.mtime_ns == nanoseconds


@pytest.mark.parametrize("text", ["", "x", "1.x", "--1", "1e9", "\u0661", "9" * 40])
def test_broken_pax_times_are_refused(text):
    data = layertar.header("Files/a", "file", pax={"mtime": text}) + layertar.END_MARK
    refused(data, "'Files/a' is refused: it has a time")


@pytest.mark.parametrize("text", ["-11644473601", "910692730085", "9" * 20])
def test_times_that_windows_cannot_hold(text):
    refused(layertar.header("Files/a", "file", pax={"mtime": text}) + layertar.END_MARK, "'Files/a' has a time")


def test_permission_bits_and_none():
    data = layertar.header("Files/a", "file", mode=0o4751) + layertar.header("Files/b", "file") + layertar.END_MARK
    assert [entry.mode for entry, _ in read(data)] == [0o751, 0]


def test_directories_are_spelled_as_first_seen():
    data = pack(("Files/Windows/a", b""), ("Files/WINDOWS/b", b""), ("Files/windows", "directory"))
    assert [entry.name for entry, _ in read(data)] == ["Files/Windows/a", "Files/Windows/b", "Files/Windows"]


def test_a_global_header_holds_until_an_entry_says_otherwise():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "all"}) as tar:
        tar.addfile(tarfile.TarInfo("Files/a"))
        info = tarfile.TarInfo("Files/b")
        info.pax_headers = {"comment": "own"}
        tar.addfile(info)
    assert [entry.pax["comment"] for entry, _ in read(buffer.getvalue())] == ["all", "own"]


def test_an_alternate_stream_right_after_its_file():
    data = pack(("Files/a", b"main"), ("Files/a:one", b"1"), ("Files/a:two", b"22"))
    assert [(entry.name, entry.kind, entry.link, content) for entry, content in read(data)] == [
        ("Files/a", "file", "", b"main"),
        ("Files/a", "alternate stream", "one", b"1"),
        ("Files/a", "alternate stream", "two", b"22"),
    ]


def test_alternate_streams_of_directories_and_links():
    data = pack(
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
    refused(pack(("Files/a", b""), owner, ("Files/x:s", b"1")), "'Files/x:s' is refused", "':'")


def test_what_is_not_read_is_skipped():
    data = pack(("Files/a", b"x" * 1000), ("Files/b", b"yes"))
    reader = layertar.LayerReader(io.BytesIO(data))
    assert [reader.read() for entry in reader if entry.name == "Files/b"] == [b"yes"]


def test_whatever_follows_the_end_mark_is_part_of_the_digest():
    data = pack(("Files/a", b"")) + b"\0" * 700_000 + b"tail"
    reader = layertar.LayerReader(io.BytesIO(data))
    list(reader)
    assert (reader.size, reader.digest) == (len(data), "sha256:" + hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_of_tarfile(tar_format):
    name = "Files/" + "/".join(["directory"] * 12) + "/file.txt"
    entries = [(name, b"content"), ("Files/target", b"t"), ("Files/link", "hard link", "Files/target")]
    if tar_format != tarfile.USTAR_FORMAT:
        entries += [("Files/\u00e9" + "n" * 120, b"x"), ("Files/long", "symlink", "t" * 150)]
    found = read(pack(*entries, tar_format=tar_format))
    assert [entry.name for entry, _ in found] == [entry[0] for entry in entries]
    assert [entry.link for entry, _ in found] == [entry[2] if len(entry) > 2 else "" for entry in entries]
    assert found[0][1] == b"content"


def test_a_size_in_base_256_and_in_pax():
    block = bytearray(layertar.header("Files/a", "file", size=3))
    block[124:136] = b"\x80" + bytes(10) + b"\x03"
    assert read(_checksummed(block) + b"abc" + layertar.padding(3) + layertar.END_MARK)[0][1] == b"abc"
    data = layertar.header("Files/a", "file", pax={"size": "3"}) + b"abc" + layertar.padding(3) + layertar.END_MARK
    assert read(data)[0][1] == b"abc"


def _checksummed(block):
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


# -- what is refused -------------------------------------------------------------


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


def test_a_name_in_the_header_that_is_no_unicode_text():
    block = layertar.header("Files/abc", "file").replace(b"abc", b"\xed\xa0\x80")
    refused(_checksummed(block) + layertar.END_MARK, "which NTFS does not allow")


@pytest.mark.parametrize("name", ["Files/.wh.", "Files/.wh..", "Files/.wh...", "Hives/.wh.System_Delta"])
def test_tombstones_that_delete_nothing_sensible(name):
    refused(pack((name, b"")), f"invalid tombstone {name!r}")


@pytest.mark.parametrize("name", ["Files/.wh.d/a", "Files/.wh..wh..opq/a", "Files/d/.wh.d/.wh.a", "Files/.wh.d/"])
def test_nothing_lies_below_a_name_that_means_a_deletion(name):
    refused(pack((name, "directory" if name.endswith("/") else b"")), repr(name))


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


def test_an_opaque_whiteout_is_not_special():
    assert read(pack(("Files/.wh..wh..opq", b"")))[0][0].name == "Files/.wh..opq"


@pytest.mark.parametrize("kind", ["fifo", "character device", "block device"])
def test_special_files(kind):
    refused(pack(("Files/ok", b""), ("Files/special", kind)), "'Files/special'", kind.replace("fifo", "FIFO"))


def test_unknown_types_and_sparse_files():
    block = bytearray(layertar.header("Files/a", "file"))
    for kind, text in ((b"S", "sparse"), (b"V", "unknown type 'V'")):
        block[156:157] = kind
        refused(_checksummed(block) + layertar.END_MARK, "'Files/a'", text)
    refused(
        layertar.header("Files/a", "file", pax={"GNU.sparse.major": "1"}) + layertar.END_MARK, "'Files/a'", "sparse"
    )


@pytest.mark.parametrize(
    "link",
    [
        "",
        "/etc/passwd",
        "../../etc/passwd",
        "..\\..\\x",
        "d/../../x",
        "d/../x",
        "\\\\server\\share",
        "D:\\x",
        "C:x",
        "//x",
        "a:b",
        "C:\\..\\x",
        "\\..\\x",
        "\\\\?\\Volume{1}\\x",
        "x\0y",
    ],
)
def test_symbolic_links_out_of_the_layer(link):
    data = layertar.header("Files/d/l", "symlink", link=link, pax={"linkpath": link}) + layertar.END_MARK
    refused(data, "'Files/d/l'")


@pytest.mark.parametrize(
    "link", ["x", "../x", "..\\x", "d/e", ".\\x", "C:\\Users", "c:\\", "\\Users", "\\\\?\\C:\\Users", "\\??\\C:\\x\\"]
)
def test_symbolic_links_inside_the_layer(link):
    assert read(layertar.header("Files/d/l", "symlink", link=link) + layertar.END_MARK)[0][0].link == link


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
    data = pack(("Files/a", b""), ("Files/d", "directory"), ("Files/s", "symlink", "a"), ("Files/l", "hard link", link))
    refused(data, "invalid hard link in layer", "'Files/l'")


def test_hard_links_find_their_target_in_any_case_or_in_a_parent():
    data = pack(("Files/D/a", b""), ("Files/l", "hard link", "Files/d/A"), ("Files/m", "hard link", "Files/parent"))
    assert [entry.link for entry, _ in read(data)] == ["", "Files/D/a", "Files/parent"]


def test_links_in_hives():
    refused(pack(("Hives/l", "symlink", "x")), "'Hives/l'", "no links")


@pytest.mark.parametrize(
    "first", [("Files/x", "symlink", "d"), ("Files/x", b"file"), ("Files/x", "hard link", "Files/a")]
)
@pytest.mark.parametrize("then", ["Files/x/evil", "Files/X/evil", "Files/x/deep/er", "Files/x/.wh.evil"])
def test_nothing_is_written_through_a_link_or_file(first, then):
    refused(pack(("Files/a", b""), first, (then, b"evil")), repr(then), "lies below 'Files/x'")


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
    refused(pack(first, second), second[0], "already")


def test_names_that_are_two_to_windows():
    assert len(read(pack(("Files/\u00df", b""), ("Files/SS", b"")))) == 2


# -- damage and bombs ------------------------------------------------------------


def test_a_layer_that_is_cut_off_anywhere():
    data = pack(("Files/a", b"x" * 600), ("Files/b", b"y", "", {"comment": "c" * 600}))
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
    data = bytearray(pack(("Files/a", b""), ("Files/b", b"")))
    data[512 + 5] ^= 1
    refused(bytes(data), "checksum", "after entry 'Files/a'")
    refused(b"this is no tar" * 100, "is it a tar?")


@pytest.mark.parametrize("field", [slice(100, 108), slice(124, 136), slice(136, 148)])
def test_a_number_that_is_none(field):
    block = bytearray(layertar.header("Files/a", "file"))
    block[field] = b"9" * (field.stop - field.start)
    refused(_checksummed(block) + layertar.END_MARK, "is not a number")


def test_a_negative_size():
    block = bytearray(layertar.header("Files/a", "file"))
    block[124:136] = b"\xff" * 12
    refused(_checksummed(block) + layertar.END_MARK, "negative size")


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
        # Half a pair of UTF-16, which NTFS would keep, is no UTF-8, which pax wants.
        b"18 path=Files/\xed\xa0\x80\n",
        b"21 linkpath=C:\\a\xed\xb2\x80b\n",
    ],
)
def test_damaged_pax_records(records):
    block = bytearray(layertar.header("PaxHeader", "file", size=len(records)))
    block[156:157] = b"x"
    data = _checksummed(block) + records + layertar.padding(len(records))
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
        refused(_checksummed(block), "extended header", "at most")


def test_limits():
    data = pack(*((f"Files/{number}", b"x") for number in range(5)))
    refused(data, "'Files/3'", "at most 3", max_entries=3)
    refused(pack(("Files/big", b"x" * 5000)), "'Files/big'", "larger than 4096 bytes", max_size=4096)
    refused(layertar.header("Files/huge", "file", size=1 << 60), "'Files/huge'")
    refused(pack(("Files/a", b"")) + bytes(100_000), "after its end mark", max_size=20_000)


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
    ((entry, _),) = read(layertar.header("Files/a", "file", pax={"c": "x" * length}) + layertar.END_MARK)
    assert entry.pax["c"] == "x" * length


# -- compression -----------------------------------------------------------------


def test_plain_and_gzip():
    data = pack(("Files/a", b"content" * 1000))
    for packed in (data, gzip.compress(data), gzip.compress(data[:700]) + gzip.compress(data[700:]) + b"\0" * 50):
        assert layertar.open_layer(io.BytesIO(packed)).read() == data
    assert layertar.open_layer(io.BytesIO(b"")).read() == b""
    assert layertar.open_layer(io.BytesIO(b"ab")).read() == b"ab"


def test_gzip_that_is_cut_off_or_damaged():
    packed = gzip.compress(pack(("Files/a", bytes(range(256)) * 100)))
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


def test_zstd_is_named():
    with pytest.raises(InvalidArgument, match="zstd"):
        layertar.open_layer(io.BytesIO(b"\x28\xb5\x2f\xfd rest"))


def test_a_gzip_bomb(monkeypatch):
    monkeypatch.setattr(layertar, "_RATIO_GRACE", 1 << 20)
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(16)) + packer.flush()
    stream = layertar.open_layer(io.BytesIO(bomb))
    with pytest.raises(InvalidArgument, match="more than 250 times its size"):
        while stream.read(1 << 16):
            pass
    assert len(layertar.open_layer(io.BytesIO(bomb), max_ratio=2000).read()) == 16 << 20


# -- peers and hostile bytes -----------------------------------------------------

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
    found = read(pack(*entries, tar_format=tar_format))
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


SAMPLE = pack(
    ("Files", "directory"),
    ("Files/d", "directory"),
    ("Files/d/a", b"a" * 700, "", {"MSWINDOWS.fileattr": "33", "comment": "c" * 300}),
    ("Files/l", "symlink", "d\\a"),
    ("Files/h", "hard link", "Files/d/a"),
    ("Files/d/.wh.gone", b""),
    ("Hives/System_Delta", b"hive"),
)


@settings(max_examples=1000)
@given(st.data())
def test_mutated_layers_raise_nothing_but_our_errors(data):
    layer = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(SAMPLE.rstrip(b"\0"))))
        layer[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    if data.draw(st.booleans()):
        # Give the headers right checksums again, so that what is behind them is reached.
        for start in range(0, len(layer) - 511, 512):
            if layer[start + 257 : start + 262] == b"ustar":
                layer[start : start + 512] = _checksummed(layer[start : start + 512])
    try:
        found = read(bytes(layer))
    except InvalidArgument:
        return
    for entry, _ in found:
        assert entry.name.split("/")[0] in ("Files", "Hives", "UtilityVM")
        assert ".." not in entry.name.split("/")
