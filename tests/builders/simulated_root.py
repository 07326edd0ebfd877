# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An NTFS volume in memory as the layer formats see it, with simulations of ImportLayer and ExportLayer.

Modelled: one tree for each root, names in any case, hard links, alternate
streams, attributes, four times, and security descriptors, extended attributes
and reparse points as bytes. Also modelled: backup streams in the order of
BackupRead including holes, the change of a directory's time when its entries
change, and all errors that the interface names.

Not modelled: rights, sharing violations, the effects of attributes (a read-only
file can be written and deleted), following links, and streams of a directory in
listings. The real DLLs also do more than move files: here, hives are not merged
and parents are not read.
"""

from __future__ import annotations

import itertools
import struct

from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.layerfile import (
    FileInfo,
    FileTimes,
    LayerRoot,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ntfsnames import fault, fold

DIRECTORY = 0x10
ARCHIVE = 0x20
SPARSE = 0x200
REPARSE = 0x400

_numbers = itertools.count(1)
# Each action gets its own time, so that a test notices a time that was not set back.
_clock = itertools.count(1_000)


class Node:
    """A file or directory. ``holes`` is None, or the (offset, data) pairs of a sparse file."""

    def __init__(self, attributes):
        self.attributes = attributes
        self.times = FileTimes(*[next(_clock)] * 4)
        self.content = None if attributes & DIRECTORY else b""
        self.holes = None
        self.security = b""
        self.eas = b""
        self.reparse = b""
        self.alternates = {}
        self.links = 1
        self.number = next(_numbers)
        self.children = {}

    def backup(self, security):
        """Return the backup stream that BackupRead gives."""
        parts = []
        if security and self.security:
            parts.append(stream(3, self.security))
        if self.reparse:
            parts.append(stream(8, self.reparse))
        if self.holes is not None:
            parts.append(stream(1, b"", attributes=8))
            parts += (stream(9, struct.pack("<q", offset) + data) for offset, data in self.holes)
            parts.append(stream(9, struct.pack("<q", len(self.content))))
        elif self.content is not None:
            parts.append(stream(1, self.content))
        if self.eas:
            parts.append(stream(2, self.eas))
        parts += (stream(4, data, name=f":{name}:$DATA") for name, data in self.alternates.items())
        # Layers do not keep this stream.
        parts.append(stream(7, bytes(64)))
        return b"".join(parts)

    def restore(self, data, security):
        """Apply a backup stream as BackupWrite does, even one that is cut off. The code under test is not used here."""
        position = 0
        while position < len(data):
            id_, _, size, name_size = struct.unpack_from("<IIQI", data, position)
            name = data[position + 20 : position + 20 + name_size].decode("utf-16-le", "surrogatepass")
            begin = position + 20 + name_size
            value = data[begin : begin + size]
            if id_ == 1:
                self.content = value
            elif id_ == 2:
                self.eas = value
            elif id_ == 3 and security:
                self.security = value
            elif id_ == 4:
                assert name.startswith(":")
                assert name.endswith(":$DATA")
                self.alternates[name[1:-6]] = value
            elif id_ == 8:
                self.reparse = value
                self.attributes |= REPARSE
            else:
                assert id_ in (3, 7), id_
            position = begin + size


def stream(id_, data, *, attributes=0, name=""):
    """Return one stream of a backup stream, as WIN32_STREAM_ID defines it."""
    text = name.encode("utf-16-le", "surrogatepass")
    return struct.pack("<IIQI", id_, attributes, len(data), len(text)) + text + data


#: The backup streams of a file that has a stream of every kind.
EVERY_STREAM = [
    stream(3, b"security"),
    stream(8, b"reparse"),
    stream(1, b"content"),
    stream(5, b"link"),
    stream(2, b"eas"),
    stream(4, b"note", name=":x:$DATA"),
    stream(7, bytes(64)),
    stream(4, b"", name=":y:$DATA"),
]


class MemorySource:
    def __init__(self, root, data):
        self.root = root
        self.data = data
        self.position = 0
        root.open += 1
        self.closed = False

    def read(self, limit):
        assert not self.closed
        data = self.data[self.position : self.position + limit]
        self.position += len(data)
        return data

    def skip(self, count):
        skipped = min(count, len(self.data) - self.position)
        self.position += skipped
        return skipped

    def rewind(self):
        self.position = 0

    def close(self):
        self.root.open -= not self.closed
        self.closed = True


class MemorySink:
    def __init__(self, root, finish):
        self.root = root
        self.parts = []
        self.finish = finish
        root.open += 1
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.root.written += len(data)
        if self.root.written > self.root.space:
            raise FailedPrecondition("no space left on the volume")
        self.parts.append(data)

    def close(self):
        if not self.closed:
            self.closed = True
            self.root.open -= 1
            self.finish(b"".join(self.parts))


class MemoryRoot(LayerRoot):
    """``open`` counts the open files. ``space`` is how many bytes may be written."""

    def __init__(self, name="C:\\layer"):
        self.name = name
        self.top = Node(DIRECTORY)
        self.open = 0
        self.written = 0
        self.space = 1 << 40

    # -- the interface -------------------------------------------------------

    def path(self, name):
        return self.name + "\\" + name.replace("/", "\\")

    def stat(self, name):
        try:
            node = self.node(name)
        except NotFound:
            return None
        size = len(node.content or b"")
        return FileInfo(node.attributes, node.times, size, node.links, node.number.to_bytes(16, "little"))

    def names(self, name):
        return [spelled for spelled, _ in self.node(name).children.values()][::-1]

    def open_file(self, name):
        node = self.node(name)
        if node.content is None:
            raise FailedPrecondition(f"{self.path(name)} is a directory")
        return MemorySource(self, node.content)

    def open_backup(self, name, *, security):
        return MemorySource(self, self.node(name).backup(security))

    def create_file(self, name, times):
        node = self.add(name, Node(ARCHIVE))

        def finish(data):
            node.content = data
            self._set(node, 0, times)

        return MemorySink(self, finish)

    def create_backup(self, name, attributes, times, *, security, existing=False):
        if existing and self.stat(name):
            node = self.node(name)
            assert node.attributes & DIRECTORY
        else:
            node = self.add(name, Node(attributes or ARCHIVE))

        def finish(data):
            node.restore(data, security)
            self._set(node, attributes, times)

        return MemorySink(self, finish)

    def make_directory(self, name):
        self.add(name, Node(DIRECTORY))

    def set_info(self, name, attributes, times):
        node = self.node(name)
        assert node.attributes & DIRECTORY
        self._set(node, attributes, times)

    def link(self, name, root, target):
        node = root.node(target)
        if node.attributes & DIRECTORY:
            raise FailedPrecondition(f"{root.path(target)} is a directory")
        self.add(name, node)
        node.links += 1

    def remove(self, name):
        node = self.node(name)
        if node.children:
            raise FailedPrecondition(f"{self.path(name)} is not empty")
        node.links -= 1
        above, key = self._locate(name)
        del above.children[key]
        self._touch(above)

    def remove_tree(self, name):
        if self.stat(name):
            for child in self.names(name):
                self.remove_tree(f"{name}/{child}")
            self.remove(name)

    # -- for tests -----------------------------------------------------------

    def node(self, name):
        if not name:
            return self.top
        above, key = self._locate(name)
        if key not in above.children:
            raise NotFound(f"{self.path(name)} does not exist")
        return above.children[key][1]

    def add(self, name, node):
        above, key = self._locate(name)
        if key in above.children:
            raise AlreadyExists(f"{self.path(name)} exists already")
        above.children[key] = (name.rpartition("/")[2], node)
        self._touch(above)
        return node

    def tree(self):
        """Return all names except that of the root."""
        found = []
        pending = [""]
        while pending:
            name = pending.pop()
            found.append(name)
            pending += [f"{name}/{child}".lstrip("/") for child in self.names(name)]
        return sorted(found)[1:]

    def _locate(self, name):
        node = self.top
        *above, last = name.split("/")
        for component in [*above, last]:
            if fault(component) and fault(component) != "is not Unicode text":
                raise InvalidArgument(f"{name!r} is not a relative path")
        for component in above:
            if fold(component) not in node.children:
                raise NotFound(f"{self.path(name)} does not exist")
            node = node.children[fold(component)][1]
            if not node.attributes & DIRECTORY:
                raise NotFound(f"{self.path(name)} does not exist")
            if node.reparse:
                raise InvalidArgument(f"{self.path(name)} lies behind a reparse point")
        return node, fold(last)

    def _set(self, node, attributes, times):
        node.attributes = attributes or node.attributes
        if node.reparse:
            node.attributes |= REPARSE
        node.times = FileTimes(*(new or old for new, old in zip(times, node.times)))

    def _touch(self, node):
        now = next(_clock)
        node.times = node.times._replace(write=now, change=now)


# -- the DLL -------------------------------------------------------------------


def import_layer(folder, layer):
    """Move the contents of a transport folder into a layer directory. Replace entries with the same names."""
    for name in folder.tree():
        node = folder.node(name)
        if name.endswith(".$wcidirs$"):
            continue
        if not name.startswith("Files/"):
            if not layer.stat(name):
                layer.add(name, Node(DIRECTORY) if node.attributes & DIRECTORY else node)
            continue
        described = folder.node(name + ".$wcidirs$") if node.attributes & DIRECTORY else node
        attributes = struct.unpack_from("<I", described.content)[0]
        if layer.stat(name) and not node.attributes & DIRECTORY:
            layer.remove(name)
        if not layer.stat(name):
            layer.add(name, Node(attributes))
        made = layer.node(name)
        made.restore(described.content[4:], True)
        made.times = described.times


def export_layer(layer, folder, tombstones=()):
    """Fill an empty folder with a layer in transport form."""
    numbers = {}
    for name in layer.tree():
        node = layer.node(name)
        if not name.startswith("Files/"):
            copy = folder.add(name, Node(node.attributes))
            copy.content, copy.times = node.content, node.times
            continue
        if node.number in numbers:
            folder.link(name, folder, numbers[node.number])
            continue
        described_name = name
        if node.attributes & DIRECTORY:
            folder.make_directory(name)
            described_name += ".$wcidirs$"
        else:
            numbers[node.number] = name
        described = folder.add(described_name, Node(ARCHIVE))
        described.content = struct.pack("<I", node.attributes) + node.backup(True)
        described.times = node.times
    lines = [b"\xef\xbb\xbfVersion 1.0", *(path.encode() for path in tombstones), b""]
    folder.add("tombstones.txt", Node(ARCHIVE)).content = b"\r\n".join(lines)
