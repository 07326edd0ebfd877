# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The transport folder of ExportLayer and ImportLayer: a layer with parents, outside its layer directory.

The layout is that of hcsshim internal/wclayer/legacy.go::

    tombstones.txt           what the layer deletes; only in an export
    Files/...                for each file its attributes, 4 bytes, and its backup stream
    Files/dir                a plain directory, and beside it
    Files/dir.$wcidirs$      its attributes and its backup stream
    Hives/*_Delta            changes of the registry, as they are
"""

from __future__ import annotations

import struct
from contextlib import closing
from typing import Dict, List, Sequence, Set, Tuple

from ..errors import FailedPrecondition, InvalidArgument, NotFound
from . import backupstream, utilityvm
from .baselayer import RECYCLE_BIN, check_order, write_file
from .layerfile import (
    DIRECTORY_ATTRIBUTE,
    FileInfo,
    FileTimes,
    LayerFile,
    LayerRoot,
    Records,
    is_plain_directory,
    walk,
)
from .ntfsnames import fault, fold
from .tar import layertar

TOMBSTONES = "tombstones.txt"
TOMBSTONES_HEADER = b"\xef\xbb\xbfVersion 1.0"
DESCRIPTION_SUFFIX = ".$wcidirs$"
SYSTEM_HIVE = layertar.HIVES + "/System_Delta"

_ATTRIBUTES = struct.Struct("<I")
# A million deletions of 60 letters; anything longer is rejected as corrupt.
_MAX_TOMBSTONES = 64 * 1024**2
_CHUNK = 1 << 20


def read(folder: LayerRoot, *, max_size: int = layertar.MAX_SIZE) -> Records:
    """Yield the records of an exported layer: each directory, its whiteouts, then its contents.

    Whiteouts in directories that the export lacks come last. Close the
    iterator to close the last file. Raises FailedPrecondition for a folder
    that is not an export, InvalidArgument for a damaged file in it and for one
    of more than ``max_size`` bytes.
    """
    tombstones = _read_tombstones(folder)
    links: Dict[bytes, str] = {}
    for top in sorted(folder.names("")):
        if top == TOMBSTONES or top.endswith(DESCRIPTION_SUFFIX):
            continue
        for name, info in walk(folder, top, _is_left_out):
            first = name
            if info.links > 1 and not info.attributes & DIRECTORY_ATTRIBUTE:
                first = links.setdefault(info.identity, name)
            yield from _read_file(folder, name, first, info, max_size)
            yield from tombstones.pop(fold(name), [])
    for deleted in tombstones.values():
        yield from deleted


def _read_file(folder: LayerRoot, name: str, first: str, info: FileInfo, max_size: int) -> Records:
    if not _is_below(name, layertar.FILES):
        # The export created these just now; only their contents are old.
        hive = folder.stat(SYSTEM_HIVE) if name in (layertar.FILES, layertar.HIVES) else None
        times = FileTimes(*[(hive or info).times.write] * 4)
        if first != name:
            yield LayerFile(name, layertar.HARD_LINK, info.attributes, times, link=first)
            return
        with closing(folder.open_backup(name, security=False)) as source:
            yield backupstream.load(name, info.attributes, times, source, folder.path(name), max_size=max_size)
        return
    place = name
    if info.attributes & DIRECTORY_ATTRIBUTE:
        place += DESCRIPTION_SUFFIX
        description = folder.stat(place)
        if description is None:
            raise FailedPrecondition(f"the directory {folder.path(name)} was exported without a description")
        info = description
    with closing(folder.open_file(place)) as source:
        word = source.read(_ATTRIBUTES.size)
        if len(word) != _ATTRIBUTES.size:
            raise InvalidArgument(f"{folder.path(place)} is cut off: it has {len(word)} bytes")
        attributes: int = _ATTRIBUTES.unpack(word)[0]
        if bool(attributes & DIRECTORY_ATTRIBUTE) != (place != name):
            raise InvalidArgument(f"{folder.path(place)} is damaged: it has the attributes {attributes:#x}")
        if first != name:
            yield LayerFile(name, layertar.HARD_LINK, attributes, info.times, link=first)
        else:
            yield backupstream.load(
                name, attributes, info.times, source, folder.path(place), start=len(word), max_size=max_size
            )


def _read_tombstones(folder: LayerRoot) -> Dict[str, List[LayerFile]]:
    """Return the whiteouts of an exported layer by the folded name of their directory."""
    place = folder.path(TOMBSTONES)
    info = folder.stat(TOMBSTONES)
    if info is None:
        raise FailedPrecondition(f"{place} does not exist: the layer was not exported in full")
    if info.size > _MAX_TOMBSTONES:
        raise InvalidArgument(f"{place} has {info.size} bytes: at most {_MAX_TOMBSTONES}")
    with closing(folder.open_file(TOMBSTONES)) as source:
        data = b"".join(iter(lambda: source.read(_CHUNK), b""))
    first, *lines = data.split(b"\n")
    if first.rstrip(b"\r") != TOMBSTONES_HEADER:
        raise InvalidArgument(f"invalid tombstones file: {place} begins with {first[:40]!r}")
    tombstones: Dict[str, List[LayerFile]] = {}
    for line in filter(None, (line.rstrip(b"\r") for line in lines)):
        path = line.decode("utf-8", "surrogateescape")
        components = path[1:].split("\\")
        if not path.startswith("\\") or any(fault(component) for component in components):
            raise InvalidArgument(f"invalid tombstones file: {place} has the line {line[:300]!r}, which is not a path")
        directory = "/".join([layertar.FILES, *components[:-1]])
        file = LayerFile(f"{directory}/{components[-1]}", layertar.WHITEOUT)
        tombstones.setdefault(fold(directory), []).append(file)
    return tombstones


class Writer:
    """Writes a layer with parents: a transport folder for ImportLayer, and afterwards what ImportLayer omits.

    ``folder`` is empty. ``parents`` are layer directories, nearest first. The
    order of calls: ``add`` for each file, ``seal``, ImportLayer, ``fix_up``,
    and ProcessUtilityImage if ``has_utility_vm``. After an error ``folder``
    and ``layer`` hold parts of a layer. The caller deletes them.
    """

    def __init__(self, folder: LayerRoot, layer: LayerRoot, parents: Sequence[LayerRoot]) -> None:
        self._folder = folder
        self._layer = layer
        self._parents = parents
        self._added: Set[str] = set()
        self._tombstones: List[str] = []
        self._links: List[Tuple[str, LayerRoot, str]] = []
        self._directories: List[Tuple[str, int, FileTimes]] = []
        self._reparse_directories: List[str] = []
        #: Whether ProcessUtilityImage must be called.
        self.has_utility_vm = False

    def add(self, file: LayerFile) -> None:
        """Add one file. Raises InvalidArgument for files that a layer cannot hold."""
        name = file.name
        if _is_below(name, layertar.UTILITY_VM) or name == layertar.UTILITY_VM:
            self._begin_utility_vm()
        if file.kind == layertar.WHITEOUT:
            self._delete(name)
            return
        # In the utility VM, the directories of the parent's are there already.
        is_in_clone = _is_below(name, layertar.UTILITY_VM) and self._layer.stat(name.rpartition("/")[0]) is not None
        if name != layertar.UTILITY_VM and not is_in_clone:
            check_order(name, self._added)
        if file.kind == layertar.HARD_LINK:
            self._links.append((name, self._link_root(file), file.link))
        elif _is_below(name, layertar.UTILITY_VM):
            self._add_to_utility_vm(file)
        elif name != layertar.UTILITY_VM:
            self._add_to_folder(file)
        self._added.add(fold(name))

    def seal(self) -> None:
        """Complete the transport folder."""
        # Only now, so that no file is written through them.
        for name in self._reparse_directories:
            self._folder.make_directory(name)

    def fix_up(self) -> None:
        """Delete files, create links and set times in the layer directory, in this order: ImportLayer does not do it.

        Files of the layer itself are not deleted. Raises FailedPrecondition if
        a directory to delete is not empty.
        """
        for name in self._tombstones:
            if fold(name) not in self._added:
                _remove(self._layer, name)
        for name, root, target in self._links:
            _remove(self._layer, name)
            self._layer.link(name, root, target)
        # Deletions and links change the times of the directory they are in.
        for name, attributes, times in reversed(self._directories):
            self._layer.set_info(name, attributes, times)
        if self.has_utility_vm:
            utilityvm.check(self._layer)

    def _begin_utility_vm(self) -> None:
        if not self.has_utility_vm:
            utilityvm.clone(self._parents[0], self._layer)
            self.has_utility_vm = True

    def _delete(self, name: str) -> None:
        if _is_below(name, layertar.UTILITY_VM_FILES):
            self._layer.remove_tree(name)
        elif _is_below(name, layertar.FILES):
            self._tombstones.append(name)
        else:
            raise InvalidArgument(f"invalid tombstone {name!r}")

    def _link_root(self, file: LayerFile) -> LayerRoot:
        """Return the layer directory that has the target of a hard link: this one or the nearest such parent."""
        top = layertar.FILES
        roots = self._parents
        if _is_below(file.name, layertar.UTILITY_VM_FILES):
            # The utility VM of the parent was cloned.
            top, roots = layertar.UTILITY_VM_FILES, [self._layer]
        if not _is_below(file.name, top) or not _is_below(file.link, top):
            raise InvalidArgument(f"invalid hard link in layer: {file.name!r} links to {file.link!r}")
        if fold(file.link) in self._added:
            return self._layer
        for root in roots:
            info = root.stat(file.link)
            if info is not None and not info.attributes & DIRECTORY_ATTRIBUTE:
                return root
        raise InvalidArgument(f"failed to find link target {file.link!r} of {file.name!r}")

    def _add_to_utility_vm(self, file: LayerFile) -> None:
        if not _is_below(file.name + "/", layertar.UTILITY_VM_FILES):
            raise InvalidArgument(f"invalid UtilityVM layer: {file.name!r} is not below {layertar.UTILITY_VM_FILES}")
        existing = self._layer.stat(file.name)
        plain = file.kind == layertar.DIRECTORY and not file.reparse
        keep = plain and existing is not None and is_plain_directory(existing)
        if existing is not None and not keep:
            # A cloned file may share its contents with the parent: replace it, never write to it.
            self._layer.remove_tree(file.name)
        write_file(self._layer, file, existing=keep)
        if file.kind == layertar.DIRECTORY:
            self._directories.append((file.name, file.attributes, file.times))

    def _add_to_folder(self, file: LayerFile) -> None:
        name = file.name
        check_description(name)
        if file.kind == layertar.DIRECTORY:
            self._directories.append((name, file.attributes, file.times))
            if file.reparse:
                self._reparse_directories.append(name)
            else:
                self._folder.make_directory(name)
            name += DESCRIPTION_SUFFIX
        elif _is_below(name, layertar.HIVES):
            with closing(self._folder.create_backup(name, 0, file.times, security=False)) as sink:
                for data in backupstream.encode(file):
                    sink.write(data)
            return
        with closing(self._folder.create_file(name, file.times)) as sink:
            sink.write(_ATTRIBUTES.pack(file.attributes))
            for data in backupstream.encode(file):
                sink.write(data)


def check_description(name: str) -> None:
    """Raise InvalidArgument for a name that a transport folder gives to descriptions of directories."""
    if fold(name).endswith(fold(DESCRIPTION_SUFFIX)):
        raise InvalidArgument(f"{name!r} has a name that would describe a directory: {DESCRIPTION_SUFFIX} is taken")


def _is_below(name: str, directory: str) -> bool:
    return name.startswith(directory + "/")


def _is_left_out(name: str) -> bool:
    return name.endswith(DESCRIPTION_SUFFIX) or fold(name) == RECYCLE_BIN


def _remove(root: LayerRoot, name: str) -> None:
    try:
        root.remove(name)
    except NotFound:
        pass
