# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Layer tars into and out of the directories of the emulated layer store."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import FailedPrecondition, InvalidArgument, NotImplementedHere
from ..failpoint import failpoint
from ..formats import layertar
from . import drives, filetree
from .base import ImportResult

# MS-FSCC 2.6, File Attributes.
_READ_ONLY = 0x1
_DIRECTORY = 0x10
_ARCHIVE = 0x20
_REPARSE_POINT = 0x400

#: linux/limits.h, PATH_MAX; what is longer would be found out after thousands of directories were made.
_PATH_BYTES = 4096

_CHUNK = 1 << 20


def unpack(
    directory: str, parents: Sequence[str], stream: BinaryIO, progress: Optional[Callable[[int], None]]
) -> Tuple[ImportResult, List[str]]:
    """Unpack a layer tar into an empty directory; returns what was read, and the layer's tombstones.

    Nothing here can leave the directory: the reader has checked all names, and
    no link that it let through has an entry below it.
    """
    directory = filetree.verbatim(os.path.realpath(directory))
    reader = layertar.LayerReader(stream)
    tombstones = set()
    directories: List[Tuple[str, int, int]] = []
    inherited = ""
    os.mkdir(os.path.join(directory, layertar.FILES))
    for entry in reader:
        failpoint("import.entry")
        if parents and not inherited and entry.name.startswith(layertar.UTILITY_VM):
            inherited = layertar.UTILITY_VM
            _clone_utility_vm(directory, parents[0])
        if entry.kind == layertar.WHITEOUT and not parents:
            raise InvalidArgument(f"base layer cannot have tombstones: an entry deletes {entry.name!r}")
        if entry.kind == layertar.WHITEOUT and entry.name.startswith(layertar.FILES):
            tombstones.add(entry.name[len(layertar.FILES) :].replace("/", "\\"))
            continue
        place = os.path.join(directory, *entry.name.split("/"))
        if inherited and entry.name.startswith(inherited):
            found = _plain_path(directory, entry.name)
            place = os.path.join(os.path.dirname(found), os.path.basename(entry.name))
            # What is there was inherited, perhaps as another name of the parent's file.
            if entry.kind != layertar.DIRECTORY or os.path.islink(found) or not os.path.isdir(found):
                filetree.remove(found)
            elif found != place:
                os.rename(found, place)
        if entry.kind == layertar.WHITEOUT:
            continue
        if os.name == "posix" and len(os.fsencode(place)) >= _PATH_BYTES:
            raise InvalidArgument(f"entry {entry.name[:100]!r}... has a path that is too long for this host")
        _make_directories(directory, os.path.dirname(place))
        if entry.kind == layertar.DIRECTORY:
            _make_directories(directory, place)
            directories.append((place, _mode(entry) | 0o700, entry.mtime_ns))
        elif entry.kind == layertar.SYMLINK:
            if os.name == "nt" and (entry.link.startswith("\\") or ":" in entry.link):
                raise NotImplementedHere(
                    f"entry {entry.name!r} links to {entry.link!r}, which on this host would be the host's own"
                )
            filetree.symlink(entry.link, place, entry.mtime_ns)
        elif entry.kind == layertar.HARD_LINK:
            filetree.link(_link_target(directory, parents, entry), place)
        elif entry.kind == layertar.FILE:
            with open(place, "xb") as file:
                file.writelines(iter(reader.read, b""))
            filetree.set_attributes(place, _mode(entry), entry.mtime_ns)
        else:
            raise NotImplementedHere(
                f"entry '{entry.name}:{entry.link}' is an alternate stream, which the emulated layer store cannot hold"
            )
        if progress:
            progress(reader.size)
    for place, mode, mtime_ns in directories:
        filetree.set_attributes(place, mode, mtime_ns)
    return ImportResult(reader.size, reader.digest, reader.entries), sorted(tombstones)


def _make_directories(directory: str, place: str) -> None:
    """``os.makedirs`` for a place in a layer directory, of any depth: that one recurses."""
    if os.path.isdir(place):
        return
    if os.path.isdir(os.path.dirname(place)):
        os.mkdir(place)
        return
    path = directory
    for component in place[len(directory) + 1 :].split(os.sep):
        path = os.path.join(path, component)
        if not os.path.isdir(path):
            os.mkdir(path)


def pack(
    directory: str, files: filetree.Node, tombstones: Sequence[str], parents: Sequence[str], stream: BinaryIO
) -> None:
    """Write a layer as a tar: the tree ``files``, what it deletes, and the rest of the layer directory.

    The same layer gives the same bytes: entries are sorted, and an entry tells
    nothing but what an import restores. Of a base layer, what was made from
    its files is left out, as hcsshim does (internal/wclayer/baselayerreader.go).
    """
    _pack_tree(layertar.FILES, files, tombstones, stream)
    hives = os.path.join(directory, layertar.HIVES)
    if parents and os.path.isdir(hives):
        _pack_tree(layertar.HIVES, filetree.scan(hives), [], stream)
    utility_vm = os.path.join(directory, *layertar.UTILITY_VM_FILES.split("/"))
    if os.path.isdir(utility_vm):
        # An import begins with what the parent has.
        below = os.path.join(parents[0], *layertar.UTILITY_VM_FILES.split("/")) if parents else ""
        lower = filetree.scan(below) if os.path.isdir(below) else filetree.empty_tree()
        difference = filetree.compare(lower, filetree.scan(utility_vm))
        # Its own time is that of the templates' making.
        stream.write(_header(layertar.UTILITY_VM, difference.changes))
        _pack_tree(layertar.UTILITY_VM_FILES, difference.changes, difference.tombstones, stream)
    stream.write(layertar.END_MARK)


def _pack_tree(root: str, tree: filetree.Node, tombstones: Sequence[str], stream: BinaryIO) -> None:
    stream.write(_header(root, tree))
    stream.writelines(layertar.header(root + path.replace("\\", "/"), layertar.WHITEOUT) for path in tombstones)
    names: Dict[Tuple[int, int], str] = {}
    pending = _children(root, tree)
    while pending:
        name, node = pending.pop()
        first = names.setdefault(node.identity, name) if node.kind == filetree.FILE and node.identity else name
        if first != name:
            stream.write(_header(name, node, layertar.HARD_LINK, first))
            continue
        stream.write(_header(name, node))
        if node.kind == filetree.FILE:
            _write_content(node, stream)
        pending += _children(name, node)


def _children(name: str, node: filetree.Node) -> List[Tuple[str, filetree.Node]]:
    """In reverse, since the last of a list is taken first."""
    return [(f"{name}/{child.name}", child) for _name, child in sorted(node.children.items(), reverse=True)]


def _header(name: str, node: filetree.Node, kind: str = "", link: str = "") -> bytes:
    attributes = _DIRECTORY if node.kind == filetree.DIRECTORY else _ARCHIVE
    if node.kind == filetree.SYMLINK:
        attributes |= _REPARSE_POINT
        link = os.readlink(node.path)
    elif node.kind == filetree.FILE and not node.mode & 0o222:
        attributes |= _READ_ONLY
    kind = kind or node.kind
    return layertar.header(
        name,
        kind,
        size=node.size if kind == layertar.FILE else 0,
        mode=node.mode,
        mtime_ns=node.mtime_ns,
        link=link,
        pax={
            layertar.FILE_ATTRIBUTES: str(attributes),
            layertar.CREATION_TIME: layertar.time_text(node.mtime_ns),
        },
    )


def _write_content(node: filetree.Node, stream: BinaryIO) -> None:
    left = node.size
    with open(node.path, "rb", buffering=0) as file:
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                raise FailedPrecondition(f"{node.path} became shorter while it was read")
            stream.write(data)
            left -= len(data)
    stream.write(layertar.padding(node.size))


def _mode(entry: layertar.Entry) -> int:
    """The permission bits of an entry; Windows writes none, but says what is read-only."""
    text = entry.pax.get(layertar.FILE_ATTRIBUTES, "0")
    if not (text.isascii() and text.isdigit() and int(text[:11]) < 1 << 32):
        raise InvalidArgument(
            f"entry {entry.name!r} has file attributes {text[:40]!r} that are not a number of 32 bits"
        )
    mode = entry.mode or (0o755 if entry.kind == layertar.DIRECTORY else 0o644)
    return mode & ~0o222 if int(text) & _READ_ONLY and entry.kind == layertar.FILE else mode


def _clone_utility_vm(directory: str, parent: str) -> None:
    """A utility VM cannot be stacked, so a layer that changes it begins with all that its parent has."""
    source = os.path.join(parent, *layertar.UTILITY_VM_FILES.split("/"))
    target = os.path.join(directory, *layertar.UTILITY_VM_FILES.split("/"))
    os.makedirs(target)
    if os.path.isdir(source):
        filetree.write_children(filetree.scan(source), target, hard_links=True)


def _link_target(directory: str, parents: Sequence[str], entry: layertar.Entry) -> str:
    """The file that a hard link names: in this layer, or in the nearest parent that has it."""
    layers = [directory]
    if entry.link.startswith(layertar.FILES):
        layers += parents
    for layer in layers:
        path = _plain_path(os.path.realpath(layer), entry.link)
        if os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode):
            return path
    raise InvalidArgument(f"failed to find link target {entry.link!r} of entry {entry.name!r}")


def _plain_path(directory: str, name: str) -> str:
    """Where an entry's name is in a layer directory whose files the reader does not know, whatever its case."""
    path = drives.find(directory, name.split("/"))
    above = os.path.dirname(path)
    # On Windows realpath gives names as they are spelled on disk.
    if os.path.normcase(os.path.realpath(above)) != os.path.normcase(above):
        raise InvalidArgument(f"entry {name!r} is refused: it lies below a link of a parent layer")
    return path
