# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The utility VM in a layer: what a Hyper-V isolated container boots (hcsshim internal/wclayer/legacy.go)."""

from __future__ import annotations

from contextlib import closing
from typing import List, Tuple

from ..errors import FailedPrecondition
from . import layertar
from .layerfile import DIRECTORY_ATTRIBUTE, REPARSE_POINT, FileTimes, LayerRoot, is_plain_directory, walk
from .ntfsnames import fold

_BCD = layertar.UTILITY_VM_FILES + "/EFI/Microsoft/Boot/BCD"

#: The boot configuration, which ProcessUtilityImage changes, by folded names: where an import
#: keeps it as it was, beside the layer's files (hcsshim pkg/ociwclayer/import.go; Docker's
#: graph driver reads these, to give out the layer as it came).
BACKUPS = {
    fold(_BCD): "bcd.bak",
    fold(_BCD + ".LOG"): "bcd.log.bak",
    fold(_BCD + ".LOG1"): "bcd.log1.bak",
    fold(_BCD + ".LOG2"): "bcd.log2.bak",
}

_CHUNK = 1 << 20


def clone(parent: LayerRoot, layer: LayerRoot) -> None:
    """Begin a layer's utility VM, of which there can be no stack, with all that the parent's has.

    Files are shared by hard links, except for what Windows changes later:
    ``BACKUPS``. A parent without a utility VM gives an empty one.
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
    """Raise FailedPrecondition if the utility VM of a layer is none that ProcessUtilityImage may be let loose on.

    What it does below a link, it would do outside of the layer.
    """
    info = layer.stat(layertar.UTILITY_VM)
    if info is None or not is_plain_directory(info):
        raise FailedPrecondition(f"{layer.path(layertar.UTILITY_VM)} is not a plain directory")
