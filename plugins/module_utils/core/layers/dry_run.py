# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layer store of check mode: it changes nothing."""

from __future__ import annotations

import os
from typing import BinaryIO, Dict, List, Optional, Sequence

from ..errors import NotFound
from ..model import ImportResult, ScratchInfo
from .base import LayerStore, Measurement


class DryRun(LayerStore):
    """Read through ``store`` and write nothing.

    The object remembers the sizes that scratch disks would get and the targets
    that would be unmounted, so that a later operation of the same request sees
    them. Contents of layers are not modelled.
    """

    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self.name = store.name
        self._scratch: Dict[str, ScratchInfo] = {}
        self._unmounted: List[str] = []

    def native(self, path: str) -> str:
        return self._store.native(path)

    def native_source(self, path: str) -> str:
        return self._store.native_source(path)

    def display_path(self, path: str) -> str:
        return self._store.display_path(path)

    def missing(self) -> List[str]:
        return self._store.missing()

    def filesystem_type(self, path: str) -> str:
        return self._store.filesystem_type(path)

    def template_info(self, parents: Sequence[str]) -> ScratchInfo:
        return self._store.template_info(parents)

    def create_base(self, directory: str) -> None:
        pass

    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        if parents and not os.path.isdir(parents[-1]):
            # The dry run has not created the base layer either, so its template is unknown.
            template = ScratchInfo(os.path.join(directory, "sandbox.vhdx"), 0, 0, False, None)
        else:
            template = self._store.template_info(parents)
        self._scratch[directory] = template._replace(virtual_size=max(size, template.virtual_size))

    def create_uvm_scratch(self, directory: str, parents: Sequence[str]) -> None:
        pass

    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        found = self.scratch_info(directory)
        if found is None:
            raise NotFound(f"{self.display_path(directory)} has no scratch disk")
        self._refuse_to_grow_mounted(directory)
        grown = found._replace(virtual_size=max(size, found.virtual_size))
        self._scratch[directory] = grown
        return grown

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        return self._scratch.get(directory) or self._store.scratch_info(directory)

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        pass

    def import_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO, digest: str = "") -> ImportResult:
        return ImportResult(0, "", 0)

    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        pass

    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        pass

    def unmount(self, target: str) -> None:
        self._unmounted.append(target)

    def mounted_layer(self, target: str) -> Optional[str]:
        return None if target in self._unmounted else self._store.mounted_layer(target)

    def mounted_at(self, directory: str) -> List[str]:
        return [target for target in self._store.mounted_at(directory) if target not in self._unmounted]

    def is_mounted(self, directory: str, target: str) -> bool:
        return self._store.is_mounted(directory, target)

    def destroy(self, directory: str) -> None:
        pass

    def destroy_with_retries(self, directory: str) -> None:
        pass

    def destroy_at_restart(self, directory: str) -> int:
        # Only Windows can do this: other stores raise, and the dry run of them raises too.
        return 0 if self.name == "windows" else self._store.destroy_at_restart(directory)

    def holders(self, directory: str) -> List[str]:
        return self._store.holders(directory)

    def measure(self, directory: str) -> Measurement:
        return self._store.measure(directory)

    def interrupted_work(self, directory: str) -> str:
        return self._store.interrupted_work(directory)

    def finish_interrupted_work(self, directory: str) -> None:
        pass
