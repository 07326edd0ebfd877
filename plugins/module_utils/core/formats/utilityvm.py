# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The utility VM of a layer, which boots Hyper-V isolated containers (hcsshim internal/wclayer/legacy.go)."""

from __future__ import annotations

from contextlib import closing
from typing import List, Tuple

from ..errors import FailedPrecondition
from .layerfile import DIRECTORY_ATTRIBUTE, REPARSE_POINT, FileTimes, LayerRoot, is_plain_directory, walk
from .ntfsnames import fold
from .tar import layertar

_BCD = layertar.UTILITY_VM_FILES + "/EFI/Microsoft/Boot/BCD"

#: The files of the boot configuration, which ProcessUtilityImage changes, by folded name, and the
#: copies of the originals that an import keeps beside the layer's files (hcsshim
#: pkg/ociwclayer/import.go; Docker's graph driver reads them to export the original layer).
BACKUPS = {
    fold(_BCD): "bcd.bak",
    fold(_BCD + ".LOG"): "bcd.log.bak",
    fold(_BCD + ".LOG1"): "bcd.log1.bak",
    fold(_BCD + ".LOG2"): "bcd.log2.bak",
}

_CHUNK = 1 << 20


def clone(parent: LayerRoot, layer: LayerRoot) -> None:
    """Create a layer's utility VM with everything in the parent's, because utility VMs cannot be stacked.

    Hard links share the files, except for those that Windows changes later:
    ``BACKUPS``. If the parent has no utility VM, the new one is empty.
    """
    layer.make_directory(layertar.UTILITY_VM)
    top = parent.stat(layertar.UTILITY_VM_FILES)
    if top is None:
        layer.make_directory(layertar.UTILITY_VM_FILES)
        return
    if not is_plain_directory(top):
        raise FailedPrecondition(f"{parent.path(layertar.UTILITY_VM_FILES)} is not a plain directory")
    directories: List[Tuple[str, int, FileTimes]] = []
    for name, info in walk(parent, layertar.UTILITY_VM_FILES, lambda _: False):
        if not info.attributes & (DIRECTORY_ATTRIBUTE | REPARSE_POINT) and fold(name) not in BACKUPS:
            layer.link(name, parent, name)
            continue
        with closing(parent.open_backup(name, security=True)) as source:
            sink = layer.create_backup(name, info.attributes, info.times, security=True)
            with closing(sink):
                while data := source.read(_CHUNK):
                    sink.write(data)
        if info.attributes & DIRECTORY_ATTRIBUTE:
            directories.append((name, info.attributes, info.times))
    for name, attributes, times in reversed(directories):
        layer.set_info(name, attributes, times)


def check(layer: LayerRoot) -> None:
    """Raise FailedPrecondition if the utility VM of a layer is not safe to pass to ProcessUtilityImage.

    Below a link, that function would change files outside of the layer.
    """
    info = layer.stat(layertar.UTILITY_VM)
    if info is None or not is_plain_directory(info):
        raise FailedPrecondition(f"{layer.path(layertar.UTILITY_VM)} is not a plain directory")
