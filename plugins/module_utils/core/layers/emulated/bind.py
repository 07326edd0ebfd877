# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated layers that a containerd on Linux can mount: for its test suite, and for tests with its plugins.

A runtime cannot mount an emulated layer. This store mounts it beforehand (by copying, see ``mounts``), at
``<root>/transport/<id>-runtime``, and answers with a bind mount of that directory. The mount ends when the layer is
converted or destroyed. The snapshot itself does not count as mounted meanwhile.
"""

from __future__ import annotations

import os
from typing import List, Optional, Sequence

from ...model import Mount, ScratchInfo
from .. import filetree
from ..base import TRANSPORT, Measurement
from . import mounts
from .store import EmulatedLayers

_REMOVAL = "rm-"


class BindLayers(EmulatedLayers):
    """The layer store of tests with a containerd that is not one of Windows; see the module's text."""

    name = "bind"
    unpacks_through_mount = True

    def runtime_mount(self, directory: str, parents: Sequence[str], read_only: bool) -> Mount:
        target = _target(directory)
        # Views are mounted for writing, too, because the copy keeps its write bits then. The bind mount protects it.
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        self.mount(directory, parents, target, read_only=False)
        os.chmod(target, 0o755)  # noqa: S103 - containers of all users enter the root of their file system
        return Mount("bind", target, ["rbind", "ro" if read_only else "rw"])

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        self._end_runtime_mount(directory)
        super().convert(directory, parents)

    def destroy(self, directory: str) -> None:
        number = os.path.basename(directory)[len(_REMOVAL) :]
        target = _target(os.path.join(os.path.dirname(directory), number))
        if number.isdecimal() and os.path.lexists(target):
            # What was written there goes with the layer.
            filetree.remove(target)
            filetree.remove(mounts.record_path(target))
        super().destroy(directory)

    def mounted_at(self, directory: str) -> List[str]:
        return [target for target in super().mounted_at(directory) if target != _target(directory)]

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        found = super().scratch_info(directory)
        return found and found._replace(attached=bool(self.mounted_at(directory)))

    def measure(self, directory: str) -> Measurement:
        """See the base class. What a runtime has written counts, as far as it differs from the parents."""
        target = _target(directory)
        if not mounts.is_complete(target):
            return super().measure(directory)
        return filetree.measure(target)

    def _end_runtime_mount(self, directory: str) -> None:
        target = _target(directory)
        self.unmount(target)
        if os.path.isdir(target):
            os.rmdir(target)


def _target(directory: str) -> str:
    root = os.path.dirname(os.path.dirname(os.path.realpath(directory)))
    return os.path.join(root, TRANSPORT, os.path.basename(directory) + "-runtime")
