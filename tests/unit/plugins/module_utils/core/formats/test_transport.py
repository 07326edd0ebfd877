# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test transport folders: ImportLayer makes a layer of written records, and ExportLayer makes records of a layer."""

from __future__ import annotations

import io
import struct
import tarfile
from contextlib import closing

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import (
    reparse,
    transport,
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
from ansible_collections.wcow.snapshotter.tests.builders.simulated_root import (
    ARCHIVE,
    DIRECTORY,
    REPARSE,
    MemoryRoot,
    Node,
    export_layer,
    import_layer,
    stream,
)

TIMES = FileTimes(UNIX_EPOCH, UNIX_EPOCH + 10, UNIX_EPOCH + 20, UNIX_EPOCH + 30)
OTHER_TIMES = FileTimes(UNIX_EPOCH + 1, UNIX_EPOCH + 11, UNIX_EPOCH + 21, UNIX_EPOCH + 31)
BOOT = "UtilityVM/Files/EFI/Microsoft/Boot"
JUNCTION = reparse.encode(reparse.Link("C:\\d", True))


def file(name, content=b"", attributes=ARCHIVE, alternates=(), times=TIMES, **fields):
    streams = (Stream(stream, len(data), iter([data])) for stream, data in [("", content), *alternates])
    return LayerFile(name, "file", attributes, times, streams=streams, **fields)


def directory(name, attributes=DIRECTORY, times=TIMES, **fields):
    return LayerFile(name, "directory", attributes, times, **fields)


def link(name, target):
    return LayerFile(name, "hard link", ARCHIVE, TIMES, link=target)


def whiteout(name):
    return LayerFile(name, "whiteout")


def make(*files, parents=(), layer=None):
    """Make a layer of records; return the layer, the transport folder and the writer."""
    return make_from(files, parents=parents, layer=layer)


def make_from(files, *, parents=(), layer=None):
    folder = MemoryRoot("C:\\temp")
    layer = layer or MemoryRoot()
    writer = transport.Writer(folder, layer, parents)
    try:
        for each in files:
            writer.add(each)
        writer.seal()
        import_layer(folder, layer)
        writer.fix_up()
    finally:
        assert (folder.open, layer.open) == (0, 0)
    return layer, folder, writer


def contents(each):
    return [(stream.name, b"".join(stream.chunks)) for stream in each.streams]


def read(folder, **limits):
    found = [(each._replace(streams=None), contents(each)) for each in transport.read(folder, **limits)]
    assert folder.open == 0
    return found


def everything():
    """Return records in the order of reading. All four times are equal where the export gives only one time."""
    made = FileTimes(*[TIMES.write] * 4)
    return [
        directory("Files", times=made),
        whiteout("Files/gone"),
        file("Files/a", b"content", ARCHIVE | 1, [("x", b"note")], security=b"S", eas=b"E"),
        directory("Files/d", DIRECTORY | 2, security=b"S"),
        whiteout("Files/d/gone"),
        LayerFile("Files/d/hard", "hard link", ARCHIVE | 1, TIMES, link="Files/a"),
        directory("Files/junction", DIRECTORY | REPARSE, reparse=JUNCTION),
        directory("Hives", times=made),
        file("Hives/System_Delta", b"hive", times=made),
    ]


# -- the folder ------------------------------------------------------------------


def test_what_is_in_a_folder():
    """A file has its attributes, then its backup stream. A hive is raw. A directory has a description beside it."""
    folder = MemoryRoot()
    writer = transport.Writer(folder, MemoryRoot(), [])
    for each in everything():
        writer.add(each)
    assert folder.tree() == [
        "Files",
        "Files.$wcidirs$",
        "Files/a",
        "Files/d",
        "Files/d.$wcidirs$",
        "Files/junction.$wcidirs$",
        "Hives",
        "Hives.$wcidirs$",
        "Hives/System_Delta",
    ]
    writer.seal()
    assert folder.node("Files/junction").attributes == DIRECTORY
    assert folder.node("Files/a").content == b"\x21\0\0\0" + b"".join(
        [stream(3, b"S"), stream(2, b"E"), stream(1, b"content"), stream(4, b"note", name=":x:$DATA")]
    )
    assert folder.node("Files/d.$wcidirs$").content == b"\x12\0\0\0" + stream(3, b"S")
    assert folder.node("Files/junction.$wcidirs$").content == b"\x10\4\0\0" + stream(8, JUNCTION)
    assert folder.node("Hives/System_Delta").content == b"hive"
    assert folder.node("Files/a").times == TIMES


def test_a_layer_comes_back_as_it_went_in():
    layer, _, writer = make(*everything())
    assert not writer.has_utility_vm
    folder = MemoryRoot()
    export_layer(layer, folder, ["\\gone", "\\d\\gone"])
    expected = [(each._replace(streams=None), contents(each)) for each in everything()]
    assert read(folder) == expected


def test_a_commit_is_an_export_read_by_an_import():
    layer, _, _ = make(*everything())
    exported = MemoryRoot()
    export_layer(layer, exported, ["\\gone"])
    copy, _, _ = make_from(transport.read(exported))
    assert copy.tree() == layer.tree()
    for name in layer.tree():
        mine, theirs = copy.node(name), layer.node(name)
        assert (mine.content, mine.security, mine.eas) == (theirs.content, theirs.security, theirs.eas)
        assert (mine.reparse, mine.alternates, mine.attributes) == (
            theirs.reparse,
            theirs.alternates,
            theirs.attributes,
        )
        assert (mine.times, mine.links) == (theirs.times, theirs.links)


def test_tars_of_one_layer_are_equal():
    """Import a tar and export the layer: the exported tar equals the imported one."""

    def tar(folder):
        buffer = io.BytesIO()
        layerfiletar.write(transport.read(folder), buffer)
        return buffer.getvalue()

    layer, _, _ = make(*(each._replace(eas=b"", security=b"") for each in everything()))
    folders = [MemoryRoot(), MemoryRoot()]
    export_layer(layer, folders[0], ["\\gone"])
    data = tar(folders[0])
    reader = layertar.LayerReader(io.BytesIO(data))
    copy, _, _ = make_from(layerfiletar.read(reader, str.encode))
    export_layer(copy, folders[1], ["\\gone"])
    assert tar(folders[1]) == data


def test_the_trace_of_an_export():
    """The tar has the names, types and records of the tar that the real snapshotter made of the same export."""
    folder = MemoryRoot()
    layer = MemoryRoot()
    for name in ["Files", "Files/Windows", "Files/app", "Files/empty dir", "Hives"]:
        layer.add(name, Node(DIRECTORY)).security = b"S" * 20
    for name in ["Files/Windows/changed.txt", "Files/app/new.txt"]:
        layer.add(name, Node(ARCHIVE)).security = b"S" * 20
    for name in ["DefaultUser", "Sam", "Security", "Software", "System"]:
        layer.add(f"Hives/{name}_Delta", Node(ARCHIVE))
    export_layer(layer, folder, ["\\gone.txt", "\\app\\dead.txt"])
    buffer = io.BytesIO()
    layerfiletar.write(transport.read(folder), buffer)
    buffer.seek(0)
    described = {"MSWINDOWS.fileattr", "LIBARCHIVE.creationtime", "atime", "ctime", "mtime"}
    secured = {*described, "MSWINDOWS.rawsd"}
    with tarfile.open(fileobj=buffer) as tar:
        assert [(info.name, info.type, info.mode, set(info.pax_headers)) for info in tar] == [
            ("Files", b"5", 0o40000, described),
            ("Files/.wh.gone.txt", b"0", 0, set()),
            ("Files/Windows", b"5", 0o40000, secured),
            ("Files/Windows/changed.txt", b"0", 0o100000, secured),
            ("Files/app", b"5", 0o40000, secured),
            ("Files/app/.wh.dead.txt", b"0", 0, set()),
            ("Files/app/new.txt", b"0", 0o100000, secured),
            ("Files/empty dir", b"5", 0o40000, secured),
            ("Hives", b"5", 0o40000, described),
            ("Hives/DefaultUser_Delta", b"0", 0o100000, described),
            ("Hives/Sam_Delta", b"0", 0o100000, described),
            ("Hives/Security_Delta", b"0", 0o100000, described),
            ("Hives/Software_Delta", b"0", 0o100000, described),
            ("Hives/System_Delta", b"0", 0o100000, described),
        ]


# -- reading ---------------------------------------------------------------------


@pytest.fixture
def folder():
    layer, _, _ = make(*everything())
    exported = MemoryRoot("C:\\export")
    export_layer(layer, exported)
    return exported


def test_the_recycle_bin_is_left_out(folder):
    folder.make_directory("Files/$recycle.bin")
    folder.make_directory("Files/$recycle.bin/x")
    assert not [each for each, _ in read(folder) if "recycle" in each.name]


def test_deletions_in_directories_that_the_export_lacks_are_kept(folder):
    text = b"\xef\xbb\xbfVersion 1.0\n\\no\\such\\z\n\n\\D\\y\n"
    folder.node("tombstones.txt").content = text
    assert [each.name for each, _ in read(folder) if each.kind == "whiteout"] == ["Files/D/y", "Files/no/such/z"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "begins with b''"),
        (b"Version 1.0\n", "begins with b'Version 1.0'"),
        (b"\xef\xbb\xbfVersion 2.0\n", "invalid tombstones file"),
        (b"\xef\xbb\xbfVersion 1.0\nx", "is not a path"),
        (b"\xef\xbb\xbfVersion 1.0\n\\", "is not a path"),
        (b"\xef\xbb\xbfVersion 1.0\n\\..\\x", "is not a path"),
        (b"\xef\xbb\xbfVersion 1.0\n\\a\\\\b", "is not a path"),
        (b"\xef\xbb\xbfVersion 1.0\n\\a:b", "is not a path"),
        (b"\xef\xbb\xbfVersion 1.0\n\\a\xff", "is not a path"),
        (b"\xef\xbb\xbfVersion 1.0\n\\" + b"a" * 300, "is not a path"),
    ],
)
def test_tombstones_that_are_refused(folder, text, said):
    folder.node("tombstones.txt").content = text
    with pytest.raises(InvalidArgument) as caught:
        read(folder)
    assert said in caught.value.message
    assert "C:\\export\\tombstones.txt" in caught.value.message
    assert len(caught.value.message) < 1000


def test_a_folder_that_is_no_export():
    with pytest.raises(FailedPrecondition, match="tombstones.txt does not exist"):
        read(MemoryRoot())


def test_tombstones_without_end(folder, monkeypatch):
    monkeypatch.setattr(transport, "_MAX_TOMBSTONES", 10)
    with pytest.raises(InvalidArgument, match="at most 10"):
        read(folder)


def test_a_directory_without_its_description(folder):
    folder.remove("Files/d.$wcidirs$")
    with pytest.raises(FailedPrecondition, match="without a description"):
        read(folder)


@pytest.mark.parametrize("content", [b"", b"\x20\0\0", struct.pack("<I", DIRECTORY), b"\x20\0\0\0\1"])
def test_a_damaged_file(folder, content):
    folder.node("Files/a").content = content
    with pytest.raises(InvalidArgument, match="a is (cut off|damaged)|is cut off"):
        read(folder)
    assert folder.open == 0


def test_a_folder_without_hives_has_its_own_times(folder):
    folder.remove_tree("Hives")
    folder.node("Files").times = OTHER_TIMES
    assert read(folder)[0][0].times == FileTimes(*[OTHER_TIMES.write] * 4)


def test_a_file_that_is_too_large(folder):
    with pytest.raises(InvalidArgument, match="at most 5"):
        read(folder, max_size=5)


def test_nothing_stays_open_when_reading_ends_early(folder):
    with closing(transport.read(folder)) as files:
        for each in files:
            if each.name == "Files/a":
                break
        assert folder.open == 1
    assert folder.open == 0


# -- writing ---------------------------------------------------------------------


def base(*names):
    root = MemoryRoot("C:\\base")
    for name in ["Files", "Files/d", *names]:
        root.add(name, Node(DIRECTORY if name in ("Files", "Files/d") or name.endswith("dir") else ARCHIVE))
    return root


def test_links_into_parents_and_into_the_layer_itself():
    parents = [base("Files/b", "Files/x dir"), base("Files/a", "Files/b", "Files/x dir")]
    layer, _, _ = make(
        directory("Files"),
        link("Files/1", "Files/a"),
        link("Files/2", "Files/b"),
        file("Files/own"),
        link("Files/3", "Files/OWN"),
        link("Files/4", "Files/3"),
        parents=parents,
    )
    assert layer.node("Files/1") is parents[1].node("Files/a")
    assert layer.node("Files/2") is parents[0].node("Files/b")
    assert layer.node("Files/3") is layer.node("Files/own")
    assert layer.node("Files/4") is layer.node("Files/own")
    assert layer.node("Files").times == TIMES


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("Files/1", "Files/none", "failed to find link target 'Files/none' of 'Files/1'"),
        ("Files/1", "Files/d", "failed to find link target"),
        ("Files/1", "UtilityVM/Files/a", "invalid hard link in layer"),
        ("Hives/1", "Files/a", "invalid hard link in layer"),
        ("Files/1", "Files", "invalid hard link in layer"),
    ],
)
def test_links_that_are_refused(name, target, said):
    with pytest.raises(InvalidArgument, match=said):
        make(directory("Files"), directory("Hives"), link(name, target), parents=[base("Files/a")])


def test_fix_ups_over_what_is_there():
    """As in the trace, the layer directory may already have names that the layer deletes or links."""
    layer = MemoryRoot()
    for name in ["Files", "Files/app"]:
        layer.make_directory(name)
    layer.add("Files/gone", Node(ARCHIVE | 1))
    layer.add("Files/app/hard", Node(ARCHIVE))
    make(
        directory("Files"),
        directory("Files/app"),
        whiteout("Files/gone"),
        whiteout("Files/never was"),
        whiteout("Files/never/was"),
        file("Files/app/own"),
        link("Files/app/hard", "Files/app/own"),
        layer=layer,
    )
    assert layer.tree() == ["Files", "Files/app", "Files/app/hard", "Files/app/own"]
    assert layer.node("Files/app/hard") is layer.node("Files/app/own")
    assert {layer.node(name).times for name in ("Files", "Files/app")} == {TIMES}


def test_what_a_layer_holds_itself_is_not_deleted():
    files = [directory("Files"), whiteout("Files/a"), file("Files/A"), whiteout("Files/d"), directory("Files/d")]
    layer, _, _ = make(*files, file("Files/d/x"))
    assert layer.tree() == ["Files", "Files/A", "Files/d", "Files/d/x"]


def test_the_deletion_of_a_directory_that_is_not_empty():
    with pytest.raises(FailedPrecondition, match="is not empty"):
        make(directory("Files"), whiteout("Files/d"), layer=base("Files/d/x"))


@pytest.mark.parametrize("name", ["Hives/System_Delta", "Files", "Hives", "UtilityVM", "UtilityVM/Files", "x"])
def test_deletions_that_are_refused(name):
    with pytest.raises(InvalidArgument, match=f"invalid tombstone '{name}'"):
        make(whiteout(name), parents=[MemoryRoot()])


def test_a_file_without_its_directory():
    with pytest.raises(InvalidArgument, match="'Files/d/a' comes before the directory that it is in, or without it"):
        make(directory("Files"), file("Files/d/a"))
    with pytest.raises(InvalidArgument, match="'Files/d/l' comes before the directory that it is in, or without it"):
        make(directory("Files"), link("Files/d/l", "Files/a"), parents=[base("Files/a")])
    with pytest.raises(InvalidArgument, match="'UtilityVM/Files/d/a' comes before the directory"):
        make(file("UtilityVM/Files/d/a"), parents=[base("Files/a")])


def test_a_file_that_would_describe_a_directory():
    with pytest.raises(InvalidArgument, match="would describe a directory"):
        make(directory("Files"), file("Files/d.$WCIDIRS$"))


def test_two_files_of_one_name():
    with pytest.raises(InvalidArgument, match="'Files/A' is in the layer twice"):
        make(directory("Files"), file("Files/a"), file("Files/A"))


def test_a_file_below_a_junction():
    with pytest.raises(SnapshotterError, match="does not exist"):
        make(directory("Files"), directory("Files/j", DIRECTORY | REPARSE, reparse=JUNCTION), file("Files/j/a"))


def test_nothing_stays_open_when_the_volume_is_full():
    folder, layer = MemoryRoot(), MemoryRoot()
    folder.space = 60
    writer = transport.Writer(folder, layer, [])
    writer.add(directory("Files"))
    with pytest.raises(FailedPrecondition, match="no space"):
        writer.add(file("Files/a", bytes(100)))
    assert folder.open == 0


# -- the utility VM --------------------------------------------------------------


@pytest.fixture
def parent():
    root = base()
    for name in ["UtilityVM", "UtilityVM/Files", "UtilityVM/Files/EFI", "UtilityVM/Files/EFI/Microsoft", BOOT]:
        root.make_directory(name)
    for name in [f"{BOOT}/BCD", f"{BOOT}/bootmgfw.efi", "UtilityVM/Files/kernel", "UtilityVM/Files/old"]:
        root.add(name, Node(ARCHIVE)).content = b"parent's"
    return root


def utility_vm(*files):
    return [directory("Files"), directory("UtilityVM"), directory("UtilityVM/Files"), *files]


def test_a_utility_vm_begins_as_the_parents(parent):
    layer, folder, writer = make(
        *utility_vm(
            file("UtilityVM/Files/kernel", b"new", security=b"S"),
            whiteout("UtilityVM/Files/old"),
            whiteout("UtilityVM/Files/never was"),
            link("UtilityVM/Files/hard", f"{BOOT}/bootmgfw.efi"),
            file(f"{BOOT}/BCD", b"new hive"),
        ),
        parents=[parent],
    )
    assert writer.has_utility_vm
    assert folder.tree() == ["Files", "Files.$wcidirs$"]
    assert layer.node("UtilityVM/Files/kernel").content == b"new"
    assert layer.node("UtilityVM/Files/kernel").security == b"S"
    assert layer.node("UtilityVM/Files/hard") is parent.node(f"{BOOT}/bootmgfw.efi")
    assert layer.node("UtilityVM/Files").times == TIMES
    assert layer.node(f"{BOOT}/BCD").content == layer.node("bcd.bak").content == b"new hive"
    assert layer.stat("UtilityVM/Files/old") is None
    assert parent.node("UtilityVM/Files/kernel").content == b"parent's"
    assert parent.node(f"{BOOT}/BCD").content == b"parent's"
    assert parent.node("UtilityVM/Files/old").links == 1


def test_the_descriptor_of_the_utility_vm_itself_is_not_stored(parent):
    """The code of containerd fails: nothing takes the descriptor."""
    layer, _, writer = make(
        directory("Files"), directory("UtilityVM", security=b"S"), directory("UtilityVM/Files"), parents=[parent]
    )
    assert writer.has_utility_vm
    assert layer.node("UtilityVM").security == b""


def test_files_of_another_kind_are_replaced(parent):
    layer, _, _ = make(
        *utility_vm(
            directory("UtilityVM/Files/kernel"),
            file("UtilityVM/Files/kernel/x"),
            directory("UtilityVM/Files/EFI", DIRECTORY | REPARSE, reparse=JUNCTION),
        ),
        parents=[parent],
    )
    assert layer.tree() == [
        "Files",
        "UtilityVM",
        "UtilityVM/Files",
        "UtilityVM/Files/EFI",
        "UtilityVM/Files/kernel",
        "UtilityVM/Files/kernel/x",
        "UtilityVM/Files/old",
    ]
    assert layer.node("UtilityVM/Files/EFI").reparse == JUNCTION
    assert parent.stat(f"{BOOT}/BCD")


def test_a_deletion_alone_makes_a_utility_vm(parent):
    layer, _, writer = make(directory("Files"), whiteout("UtilityVM/Files/old"), parents=[parent])
    assert writer.has_utility_vm
    assert layer.stat("UtilityVM/Files/kernel")
    assert layer.stat("UtilityVM/Files/old") is None


def test_a_file_beside_the_utility_vms_files(parent):
    with pytest.raises(InvalidArgument, match="invalid UtilityVM layer"):
        make(*utility_vm(file("UtilityVM/x")), parents=[parent])
