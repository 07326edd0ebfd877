# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack and pack the layer tars of the emulated layer store."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, Dict, List, Sequence, Set, Tuple

from ...errors import FailedPrecondition, InvalidArgument, NotImplementedHere
from ...failpoint import failpoint
from ...formats.baselayer import check_order
from ...formats.ntfsnames import fold, path_key
from ...formats.tar import layerfiletar, layertar
from ...formats.transport import check_description
from ...model import ImportResult
from .. import filetree
from . import drives

# MS-FSCC 2.6, File Attributes.
_READ_ONLY = 0x1
_DIRECTORY = 0x10
_ARCHIVE = 0x20
_REPARSE_POINT = 0x400

# linux/limits.h, PATH_MAX. The check finds a longer path before thousands of directories are made.
_PATH_BYTES = 4096

_CHUNK = 1 << 20


def unpack(directory: str, parents: Sequence[str], stream: BinaryIO, digest: str) -> Tuple[ImportResult, List[str]]:
    """Unpack a layer tar into an empty directory; return what was read and the layer's tombstones.

    What Windows refuses, this refuses with the same words. Alternate streams
    are read and dropped, as other attributes of Windows are. No entry can leave
    the directory: the reader checks all names, and rejects entries below a link.
    """
    directory = filetree.verbatim(os.path.realpath(directory))
    reader = layertar.LayerReader(stream, expected=digest)
    tombstones = set()
    directories: List[Tuple[str, int, int]] = []
    inherited = ""
    added: Set[str] = set()
    os.mkdir(os.path.join(directory, layertar.FILES))
    for entry in reader:
        failpoint("import.entry")
        if entry.kind == layertar.STREAM:
            continue
        attributes = layerfiletar.record(entry, iter(()), lambda _sddl: b"").attributes
        if parents and not inherited and entry.name.startswith(layertar.UTILITY_VM):
            inherited = layertar.UTILITY_VM
            _clone_utility_vm(directory, parents[0])
        if entry.kind == layertar.WHITEOUT and not parents:
            raise InvalidArgument(f"base layer cannot have tombstones: an entry deletes {entry.name!r}")
        if entry.kind == layertar.WHITEOUT and entry.name.startswith(layertar.FILES):
            tombstones.add(entry.name[len(layertar.FILES) :].replace("/", "\\"))
            continue
        path = os.path.join(directory, *entry.name.split("/"))
        if inherited and entry.name.startswith(inherited):
            found = _plain_path(directory, entry.name)
            path = os.path.join(os.path.dirname(found), os.path.basename(entry.name))
            # The existing file is inherited and may be a hard link to the parent's file: replace, never write it.
            if entry.kind != layertar.DIRECTORY or os.path.islink(found) or not os.path.isdir(found):
                filetree.remove(found)
            elif found != path:
                os.rename(found, path)
        if entry.kind == layertar.WHITEOUT:
            continue
        in_utility_vm = inherited and entry.name.startswith(inherited)
        if not in_utility_vm or not os.path.isdir(os.path.dirname(path)):
            check_order(entry.name, added)
        if parents and not in_utility_vm and entry.kind != layertar.HARD_LINK:
            check_description(entry.name)
        added.add(fold(entry.name))
        if os.name == "posix" and len(os.fsencode(path)) >= _PATH_BYTES:
            raise InvalidArgument(f"entry {entry.name[:100]!r}... has a path that is too long for this host")
        if entry.kind == layertar.DIRECTORY:
            if not os.path.isdir(path):
                os.mkdir(path)
            directories.append((path, _mode(entry, attributes) | 0o700, entry.mtime_ns))
        elif entry.kind == layertar.SYMLINK:
            problem = filetree.link_fault(layertar.depth_of(entry.name), entry.link)
            if os.name == "nt" and (entry.link.startswith("\\") or ":" in entry.link):
                problem = "which on this host leads to the host's own files"
            if problem:
                raise NotImplementedHere(
                    f"entry {entry.name!r} links to {entry.link[:300]!r}, {problem}: this is a limit of "
                    "emulated layers, whose links are links of this host; layers of a Windows node keep any link"
                )
            filetree.symlink(entry.link, path, entry.mtime_ns)
        elif entry.kind == layertar.HARD_LINK:
            filetree.link(_link_target(directory, parents, entry), path)
        else:
            with open(path, "xb") as file:
                file.writelines(iter(reader.read, b""))
            filetree.set_attributes(path, _mode(entry, attributes), entry.mtime_ns)
    for path, mode, mtime_ns in directories:
        filetree.set_attributes(path, mode, mtime_ns)
    return ImportResult(reader.size, reader.digest, reader.entries, reader.warnings), sorted(tombstones)


def pack(
    directory: str, files: filetree.Node, tombstones: Sequence[str], parents: Sequence[str], stream: BinaryIO
) -> None:
    """Write a layer as a tar: the tree ``files``, the tombstones, and the rest of the layer directory.

    The same layer always gives the same bytes: entries are sorted and carry
    only what an import restores. What was made from the files of a base layer
    is left out, as in hcsshim (internal/wclayer/baselayerreader.go).
    """
    _pack_tree(layertar.FILES, files, tombstones, stream)
    hives = os.path.join(directory, layertar.HIVES)
    if parents and os.path.isdir(hives):
        _pack_tree(layertar.HIVES, filetree.scan(hives), [], stream)
    utility_vm = os.path.join(directory, *layertar.UTILITY_VM_FILES.split("/"))
    if os.path.isdir(utility_vm):
        # An import starts from the parent's files, so only the difference is written.
        below = os.path.join(parents[0], *layertar.UTILITY_VM_FILES.split("/")) if parents else ""
        lower = filetree.scan(below) if os.path.isdir(below) else filetree.empty_tree()
        difference = filetree.compare(lower, filetree.scan(utility_vm))
        # Not with the directory's own time, which changes when the templates are made.
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
    """The children with their names, in reverse order, because the caller takes the last one first."""
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
                raise FailedPrecondition(f"{node.path} became shorter while it was read: export the layer again")
            stream.write(data)
            left -= len(data)
    stream.write(layertar.padding(node.size))


def _mode(entry: layertar.Entry, attributes: int) -> int:
    """The permission bits of an entry. Windows writes none, only the read-only attribute."""
    mode = entry.mode or (0o755 if entry.kind == layertar.DIRECTORY else 0o644)
    return mode & ~0o222 if attributes & _READ_ONLY and entry.kind == layertar.FILE else mode


def _clone_utility_vm(directory: str, parent: str) -> None:
    """Link the parent's utility VM into a layer that changes it, because utility VMs do not stack."""
    source = os.path.join(parent, *layertar.UTILITY_VM_FILES.split("/"))
    target = os.path.join(directory, *layertar.UTILITY_VM_FILES.split("/"))
    os.makedirs(target)
    if os.path.isdir(source):
        filetree.write_children(filetree.scan(source), target, hard_links=True)


def _link_target(directory: str, parents: Sequence[str], entry: layertar.Entry) -> str:
    """The target file of a hard link: in this layer, or in the nearest parent that has it."""
    if parents and entry.name.partition("/")[0] != entry.link.partition("/")[0]:
        raise InvalidArgument(f"invalid hard link in layer: {entry.name!r} links to {entry.link!r}")
    layers = [directory]
    if entry.link.startswith(layertar.FILES):
        layers += parents
    for layer in layers:
        path = _plain_path(os.path.realpath(layer), entry.link)
        if os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode):
            return path
    raise InvalidArgument(f"failed to find link target {entry.link!r} of {entry.name!r}")


def _plain_path(directory: str, name: str) -> str:
    """The path of an entry's name, in any case, in a layer directory whose links the reader has not checked."""
    path = drives.find(directory, name.split("/"))
    parent = os.path.dirname(path)
    # On Windows, realpath returns names as they are spelled on disk.
    if path_key(os.path.realpath(parent)) != path_key(parent):
        raise InvalidArgument(f"entry {name!r} is refused: it lies below a link of a parent layer")
    return path
