# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A layer store that only pretends: what check mode runs the operations on."""

from __future__ import annotations

import os
from typing import BinaryIO, Callable, Dict, List, Optional, Sequence

from ..errors import NotFound
from ..model import Usage
from .base import ImportResult, LayerStore, ScratchInfo


class Rehearsal(LayerStore):
    """Reads through ``store``; remembers what would have been written, writes nothing.

    Scratch disks have the sizes that they would get, so that a later
    operation of the same request plans with them. Contents are not modelled.
    """

    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self.name = store.name
        self._scratch: Dict[str, ScratchInfo] = {}

    def native(self, path: str) -> str:
        return self._store.native(path)

    def presented(self, path: str) -> str:
        return self._store.presented(path)

    def missing(self) -> List[str]:
        return self._store.missing()

    def filesystem_type(self, path: str) -> str:
        return self._store.filesystem_type(path)

    def template_info(self, parents: Sequence[str]) -> ScratchInfo:
        return self._store.template_info(parents)

    def create_base(self, directory: str) -> None:
        pass

    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> ScratchInfo:
        if parents and not os.path.isdir(parents[-1]):
            # The base is itself only planned: its template is not known yet.
            template = ScratchInfo(os.path.join(directory, "sandbox.vhdx"), 0, 0, False, None)
        else:
            template = self._store.template_info(parents)
        made = template._replace(virtual_size=max(size, template.virtual_size))
        self._scratch[directory] = made
        return made

    def create_uvm_scratch(self, directory: str, parents: Sequence[str]) -> None:
        pass

    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        found = self.scratch_info(directory)
        if found is None:
            raise NotFound(f"{self.presented(directory)} has no scratch disk")
        grown = found._replace(virtual_size=max(size, found.virtual_size))
        self._scratch[directory] = grown
        return grown

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        return self._scratch.get(directory) or self._store.scratch_info(directory)

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        pass

    def import_layer(
        self, directory: str, parents: Sequence[str], stream: BinaryIO, progress: Optional[Callable[[int], None]] = None
    ) -> ImportResult:
        return ImportResult(0, "", 0)

    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        pass

    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        pass

    def unmount(self, target: str) -> None:
        pass

    def mounted_layer(self, target: str) -> Optional[str]:
        return self._store.mounted_layer(target)

    def mounted_at(self, directory: str) -> List[str]:
        return self._store.mounted_at(directory)

    def destroy(self, directory: str) -> None:
        pass

    def disk_usage(self, directory: str) -> Usage:
        return self._store.disk_usage(directory)
