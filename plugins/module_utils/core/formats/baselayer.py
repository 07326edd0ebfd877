# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and write base layers: plain files in the layer directory (hcsshim internal/wclayer/baselayer*.go)."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import Dict, List, Set, Tuple

from ..errors import InvalidArgument
from . import backupstream, utilityvm
from .layerfile import DIRECTORY_ATTRIBUTE, FileTimes, LayerFile, LayerRoot, Records, walk
from .ntfsnames import fold
from .tar import layertar

#: Not part of any layer (hcsshim internal/wclayer/legacy.go; moby issue 32838).
RECYCLE_BIN = fold(layertar.FILES + "/$Recycle.Bin")


def read(layer: LayerRoot, *, max_size: int = layertar.MAX_SIZE) -> Records:
    """Yield the records of a base layer, without the files that ProcessBaseImage and ProcessUtilityImage created.

    Close the iterator to close the last file. Raises
    InvalidArgument for a file of more than ``max_size`` bytes.
    """
    tops = [layertar.FILES]
    utility_vm = layer.stat(layertar.UTILITY_VM_FILES)
    if utility_vm:
        tops.append(layertar.UTILITY_VM)
    links: Dict[bytes, str] = {}
    for top in tops:
        for name, info in walk(layer, top, _is_left_out):
            # The times of UtilityVM itself are those at which Windows created the templates.
            times = utility_vm.times if utility_vm and name == layertar.UTILITY_VM else info.times
            first = name
            if info.links > 1 and not info.attributes & DIRECTORY_ATTRIBUTE:
                first = links.setdefault(info.identity, name)
            if first != name:
                yield LayerFile(name, layertar.HARD_LINK, info.attributes, times, link=first)
                continue
            with closing(layer.open_backup(name, security=True)) as source:
                yield backupstream.load(name, info.attributes, times, source, layer.path(name), max_size=max_size)


class Writer:
    """Fills an empty layer directory; ``finish`` it before ProcessBaseImage and ProcessUtilityImage.

    After an error the directory holds a part of a layer. The caller deletes it.
    """

    def __init__(self, layer: LayerRoot) -> None:
        self._layer = layer
        self._added: Set[str] = set()
        self._directories: List[Tuple[str, int, FileTimes]] = []
        #: Whether ProcessUtilityImage must be called.
        self.has_utility_vm = False

    def add(self, file: LayerFile) -> None:
        """Write one file. Raises InvalidArgument for files that a base layer cannot hold."""
        if file.kind == layertar.WHITEOUT:
            raise InvalidArgument(f"base layer cannot have tombstones: an entry deletes {file.name!r}")
        check_order(file.name, self._added)
        self._added.add(fold(file.name))
        if file.kind == layertar.HARD_LINK:
            if fold(file.link) not in self._added:
                raise InvalidArgument(f"failed to find link target {file.link!r} of {file.name!r}")
            self._layer.link(file.name, self._layer, file.link)
            return
        if fold(file.name) == fold(layertar.UTILITY_VM_FILES):
            self.has_utility_vm = True
        write_file(self._layer, file)
        if file.kind == layertar.DIRECTORY:
            self._directories.append((file.name, file.attributes, file.times))

    def finish(self) -> None:
        """Restore the times of each directory, which adding files changed."""
        for name, attributes, times in reversed(self._directories):
            self._layer.set_info(name, attributes, times)
        if self.has_utility_vm:
            utilityvm.check(self._layer)


def check_order(name: str, added: Set[str]) -> None:
    """Raise InvalidArgument if a file is in ``added``, a set of folded names, or if its directory is not.

    A directory created without its entry would silently get the wrong security descriptor.
    """
    above = name.rpartition("/")[0]
    if above and fold(above) not in added:
        raise InvalidArgument(f"{name!r} comes before the directory that it is in, or without it")
    if fold(name) in added:
        raise InvalidArgument(f"{name!r} is in the layer twice")


def write_file(layer: LayerRoot, file: LayerFile, *, existing: bool = False) -> None:
    """Write a file or directory to a layer directory; with ``existing`` the directory may already be there."""
    with ExitStack() as stack:
        sinks = [layer.create_backup(file.name, file.attributes, file.times, security=True, existing=existing)]
        stack.enter_context(closing(sinks[0]))
        backup = utilityvm.BACKUPS.get(fold(file.name))
        if backup and file.kind == layertar.FILE:
            sinks.append(layer.create_backup(backup, 0, FileTimes(0, 0, 0, 0), security=False))
            stack.enter_context(closing(sinks[1]))
        for data in backupstream.encode(file):
            for sink in sinks:
                sink.write(data)


def _is_left_out(name: str) -> bool:
    # Of the utility VM only the files count: the rest is disks that Windows creates from them.
    above, _slash, base = name.rpartition("/")
    return fold(name) == RECYCLE_BIN or (above == layertar.UTILITY_VM and fold(base) != fold(layertar.FILES))
