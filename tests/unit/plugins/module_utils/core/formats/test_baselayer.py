# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test base layers: written from records and read as records."""

from __future__ import annotations

import io
from contextlib import closing

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    FailedPrecondition,
    InvalidArgument,
    SnapshotterError,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import (
    baselayer,
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
from ansible_collections.wcow.snapshotter.tests.builders.simulated_root import (
    ARCHIVE,
    DIRECTORY,
    REPARSE,
    MemoryRoot,
    Node,
)

TIMES = FileTimes(UNIX_EPOCH, UNIX_EPOCH + 10, UNIX_EPOCH + 20, UNIX_EPOCH + 30)
BCD = "UtilityVM/Files/EFI/Microsoft/Boot/BCD"


def file(name, content=b"", attributes=ARCHIVE, alternates=(), **fields):
    streams = (Stream(stream, len(data), iter([data])) for stream, data in [("", content), *alternates])
    return LayerFile(name, "file", attributes, TIMES, streams=streams, **fields)


def directory(name, attributes=DIRECTORY, **fields):
    return LayerFile(name, "directory", attributes, TIMES, **fields)


def make(*files, layer=None):
    return make_from(files, layer=layer)


def make_from(files, *, layer=None):
    layer = layer or MemoryRoot()
    writer = baselayer.Writer(layer)
    try:
        for each in files:
            writer.add(each)
        writer.finish()
    finally:
        assert layer.open == 0
    return layer, writer


def everything():
    junction = reparse.encode(reparse.Link("C:\\d", True))
    return [
        directory("Files", security=b"S"),
        directory("Files/d", DIRECTORY | 2, eas=b"E"),
        file("Files/d/a", b"content", ARCHIVE | 1, [("x", b"note")], security=b"S", eas=b"E"),
        LayerFile("Files/d/hard", "hard link", ARCHIVE, TIMES, link="Files/d/a"),
        directory("Files/junction", DIRECTORY | REPARSE, reparse=junction),
        directory("UtilityVM"),
        directory("UtilityVM/Files"),
        file("UtilityVM/Files/kernel"),
    ]


def test_a_layer_is_written():
    layer, writer = make(*everything())
    assert layer.tree() == sorted(each.name for each in everything())
    assert writer.has_utility_vm
    node = layer.node("Files/d/a")
    assert (node.content, node.security, node.eas, node.alternates) == (b"content", b"S", b"E", {"x": b"note"})
    assert (node.links, node.attributes) == (2, ARCHIVE | 1)
    assert layer.node("Files/d/hard") is node
    assert layer.node("Files/junction").reparse == everything()[4].reparse
    # The writer sets times and attributes of a directory after the last change inside it.
    assert {layer.node(name).times for name in layer.tree()} == {TIMES}
    assert layer.node("Files/d").attributes == DIRECTORY | 2


def test_a_layer_is_read_as_it_was_written():
    layer, _ = make(*everything())
    layer.add("UtilityVM/SystemTemplate.vhdx", Node(ARCHIVE))
    layer.add("Hives", Node(DIRECTORY))
    layer.add("blank.vhdx", Node(ARCHIVE))
    layer.add("Files/$RECYCLE.BIN", Node(DIRECTORY))
    layer.add("Files/$RECYCLE.BIN/x", Node(ARCHIVE))
    layer.set_info("Files", DIRECTORY, TIMES)
    found = [(each._replace(streams=None), contents(each)) for each in baselayer.read(layer)]
    expected = [(each._replace(streams=None), contents(each)) for each in everything()]
    # A hard link has the attributes of its file.
    hard = expected[3][0]._replace(attributes=ARCHIVE | 1)
    assert found == [*expected[:3], (hard, []), *expected[4:]]
    assert layer.open == 0


def contents(each):
    return [(stream.name, b"".join(stream.chunks)) for stream in each.streams]


def test_sparse_files_are_read_in_full():
    layer, _ = make(directory("Files"), file("Files/a"))
    node = layer.node("Files/a")
    node.holes = [(100_000, b"data")]
    node.content = bytes(200_000)
    (_, each) = ((each, contents(each)) for each in baselayer.read(layer))
    assert each[1] == [("", bytes(100_000) + b"data" + bytes(99_996))]


def test_the_boot_configuration_is_kept_as_it_came():
    above = [BCD.rsplit("/", count)[0] for count in range(5, 0, -1)]
    layer, _ = make(
        *map(directory, above),
        file(BCD, b"hive", security=b"S"),
        file(BCD + ".LOG", b"log"),
        directory(BCD + ".LOG1"),
        layer=None,
    )
    assert layer.node("bcd.bak").content == b"hive"
    assert layer.node("bcd.bak").security == b""
    assert layer.node("bcd.log.bak").content == b"log"
    assert layer.stat("bcd.log1.bak") is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([LayerFile("Files/a", "whiteout")], "base layer cannot have tombstones: an entry deletes 'Files/a'"),
        ([file("Files/a")], "'Files/a' comes before the directory that it is in"),
        (
            [directory("Files"), LayerFile("Files/b", "hard link", link="Files/a")],
            "failed to find link target 'Files/a'",
        ),
    ],
)
def test_what_a_base_layer_cannot_have(files, said):
    with pytest.raises(InvalidArgument, match=said):
        make(*files)


def test_a_utility_vm_that_was_swapped_for_a_junction():
    layer = MemoryRoot()
    writer = baselayer.Writer(layer)
    writer.add(directory("UtilityVM"))
    writer.add(directory("UtilityVM/Files"))
    layer.node("UtilityVM").reparse = reparse.encode(reparse.Link("C:\\", True))
    with pytest.raises(SnapshotterError, match="behind a reparse point"):
        writer.finish()


def test_nothing_stays_open_when_the_volume_is_full():
    layer = MemoryRoot()
    layer.space = 100
    with pytest.raises(FailedPrecondition, match="no space"):
        make(directory("Files"), file("Files/a", bytes(101)), layer=layer)


def test_nothing_stays_open_when_reading_ends_early():
    layer, _ = make(*everything())
    with closing(baselayer.read(layer)) as files:
        next(files)
        assert layer.open == 1
    assert layer.open == 0


def test_a_file_that_is_too_large():
    layer, _ = make(directory("Files"), file("Files/a", bytes(101)))
    with pytest.raises(InvalidArgument, match="has 101 bytes: a layer has at most 100"):
        list(baselayer.read(layer, max_size=100))


def test_alternate_streams_of_directories_and_links_go_into_a_tar_and_back():
    links = [
        directory("Files/j", DIRECTORY | REPARSE, reparse=reparse.encode(reparse.Link("C:\\d", True))),
        file("Files/s", attributes=ARCHIVE | REPARSE, reparse=reparse.encode(reparse.Link("d", False))),
    ]
    layer, _ = make(directory("Files"), directory("Files/d"), *links)
    names = ["Files", "Files/d", "Files/j", "Files/s"]
    for number, name in enumerate(names):
        layer.node(name).alternates.update({"x": b"%d" % number, "y": bytes(number)})
    buffer = io.BytesIO()
    layerfiletar.write(baselayer.read(layer), buffer)
    buffer.seek(0)
    copy, _ = make_from(layerfiletar.read(layertar.LayerReader(buffer), str.encode))
    for number, name in enumerate(names):
        assert copy.node(name).alternates == {"x": b"%d" % number, "y": bytes(number)}
        assert copy.node(name).reparse == layer.node(name).reparse
    again = io.BytesIO()
    layerfiletar.write(baselayer.read(copy), again)
    assert again.getvalue() == buffer.getvalue()
