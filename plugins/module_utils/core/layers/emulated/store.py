# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated layer store: Windows layers on any host, for labs, tests and CI.

What it models: the directory layout, the life of a layer, and the disks, which
are real VHDX files that are copied, grown and read as on Windows.

What it does not model: there is no NTFS inside the disks. The contents of a
scratch disk lie beside it in ``sandbox.contents``, so writing to a mount never
changes the disk file. Security descriptors, extended attributes, alternate
streams and file attributes other than read-only are checked and dropped. The
registry hives that Windows makes from a base layer are left out. A
mount is a copy of the merged tree, and unmounting copies the differences back,
so a mount costs as much as a copy of the whole tree.

On disk, in a layer directory::

    Files/                   a read-only layer or an unfinished base
    tombstones.txt           what a read-only layer deletes, if anything (hcsshim internal/wclayer/legacy.go)
    Hives/  Layout           made from a base layer
    UtilityVM/               Files, and in a base layer the two templates
    blank.vhdx               in a base layer: the template of all scratch disks
    sandbox.vhdx             a scratch disk
    sandbox.contents/        Files and tombstones.txt of the scratch, see contents.py
    sandbox.mounts.json      the targets of its mounts, see mounts.py
    sandbox.mounts.lock      locked while a mount is made or undone
    *.new  *.old             a replacement under way, see filetree.replace

and beside a mount's target ``/a/b`` the record ``/a/.b.wcow-mount.json``.
"""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, ContextManager, List, Optional, Sequence, Tuple

from ...errors import FailedPrecondition, NotFound, SnapshotterError
from ...failpoint import failpoint
from ...files import sync_directory, translating_os_errors
from ...model import ImportResult, ScratchInfo
from .. import filetree
from ..base import FILES, SCRATCH, LayerStore, Measurement, disk_info
from . import base_layer, contents, drives, mounts

#: Names another file system than NTFS for all volumes, so that labs can test the refusal.
FILESYSTEM_VARIABLE = "WCOW_EMULATED_FILESYSTEM"


class EmulatedLayers(LayerStore):
    """The layer store of hosts without Windows containers; see the module's text."""

    name = "emulated"

    def __init__(self) -> None:
        # The template that was read last, and the state of its file then.
        self._template_read: Optional[Tuple[Tuple[object, ...], ScratchInfo]] = None

    # -- paths ---------------------------------------------------------------

    def native(self, path: str) -> str:
        return drives.to_native(path)

    def native_source(self, path: str) -> str:
        return drives.to_native(path, shares=True)

    def display_path(self, path: str) -> str:
        return drives.display_path(path)

    def filesystem_type(self, path: str) -> str:
        return os.environ.get(FILESYSTEM_VARIABLE) or "NTFS"

    # -- making scratch disks ------------------------------------------------

    def template_info(self, parents: Sequence[str]) -> ScratchInfo:
        """See the base class. A template is read again when the file has changed since the last time."""
        path = self._template(parents)
        with _translating_os_errors("cannot read", path):
            status = os.stat(path)
        state = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._template_read is None or self._template_read[0] != state:
            self._template_read = (state, super().template_info(parents))
        return self._template_read[1]

    def create_base(self, directory: str) -> None:
        with _translating_os_errors("cannot make a base layer in", directory):
            os.mkdir(os.path.join(directory, FILES))
            failpoint("base.made")
            sync_directory(directory)

    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        from ..diskcopy import copy_disk

        template = self.template_info(parents)
        copy_disk(template.path, os.path.join(directory, SCRATCH), size if size > template.virtual_size else 0)

    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        from ...formats.vhdx import growth

        scratch = os.path.join(directory, SCRATCH)
        if not os.path.lexists(scratch):
            raise NotFound(f"{self.display_path(directory)} has no scratch disk")
        self._refuse_to_grow_mounted(directory)
        self.finish_interrupted_work(directory)
        grown = growth.grow(scratch, size)
        return ScratchInfo(scratch, grown.virtual_size, grown.file_size, attached=False, volume_size=None)

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        scratch = os.path.join(directory, SCRATCH)
        if not os.path.lexists(scratch):
            return None
        return disk_info(scratch, attached=bool(mounts.targets(directory)))

    # -- layers --------------------------------------------------------------

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        """See the base class. The new ``Files`` are hard links to the files of the scratch.

        That is safe because neither is ever edited in place, only replaced. A
        layer that is mounted for writing is refused: its scratch does not have
        yet what is written at the target.
        """
        mounts.refuse_mounted_for_writing(directory)
        files = os.path.join(directory, FILES)
        with _translating_os_errors("cannot convert layer", directory):
            filetree.finish_replacement(files)
            if os.path.lexists(os.path.join(directory, SCRATCH)):
                own = contents.find(directory)
                failpoint("convert.new")
                with contents.replacement(files, flush_name=False) as new:
                    filetree.write_children(contents.read(own), new, hard_links=True)
                failpoint("convert.tombstones")
                tombstones = contents.read_tombstones(own)
                if tombstones or contents.has_tombstones(directory):
                    contents.write_tombstones(directory, tombstones)
                else:
                    sync_directory(directory)
            elif not os.path.isdir(files):
                raise FailedPrecondition(f"{self.display_path(directory)} has neither a scratch disk nor {FILES}")
            elif not parents:
                base_layer.finish(directory)

    def import_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO, digest: str = "") -> ImportResult:
        from .tar import unpack

        with _translating_os_errors("cannot import a layer into", directory):
            if os.listdir(directory):
                raise FailedPrecondition(
                    f"{self.display_path(directory)} is not empty: a layer is imported into a new one"
                )
            try:
                result, tombstones = unpack(directory, parents, stream, digest)
                if parents:
                    contents.write_tombstones(directory, tombstones)
                else:
                    base_layer.finish(directory)
                failpoint("import.flush")
                filetree.sync(directory)
                failpoint("import.flushed")
            except BaseException:
                failpoint("import.empty")
                filetree.empty(directory)
                raise
        return result

    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        from .tar import pack

        with _translating_os_errors("cannot export layer", directory):
            own = contents.find(directory)
            pack(directory, contents.read(own), contents.read_tombstones(own), parents, stream)

    # -- mounts --------------------------------------------------------------

    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        """See the base class. A read-only mount has no write bits.

        Root can write there all the same; the unmount discards what it wrote.
        """
        target = os.path.abspath(target)
        with _translating_os_errors("cannot mount at", target):
            mounts.mount(directory, parents, target, read_only)

    def unmount(self, target: str) -> None:
        target = os.path.abspath(target)
        with _translating_os_errors("cannot unmount", target):
            mounts.unmount(target)

    def mounted_layer(self, target: str) -> Optional[str]:
        return mounts.layer_of(os.path.abspath(target))

    def mounted_at(self, directory: str) -> List[str]:
        return mounts.targets(directory)

    def is_mounted(self, directory: str, target: str) -> bool:
        return super().is_mounted(directory, target) and mounts.is_complete(os.path.abspath(target))

    # -- the end -------------------------------------------------------------

    def destroy(self, directory: str) -> None:
        with _translating_os_errors("cannot delete layer", directory):
            filetree.remove(directory)

    def holders(self, directory: str) -> List[str]:
        from .open_files import users

        found = []
        with contextlib.suppress(OSError, SnapshotterError):
            found = [f"mounted at {self.display_path(target)}" for target in mounts.targets(directory)]
        return found + users(directory)

    # -- maintenance ---------------------------------------------------------

    def measure(self, directory: str) -> Measurement:
        if not os.path.isdir(directory):
            raise NotFound(f"layer directory {self.display_path(directory)} does not exist")
        with _translating_os_errors("cannot measure", directory):
            return filetree.measure(directory)

    def interrupted_work(self, directory: str) -> str:
        targets = mounts.interrupted(directory)
        return f"a mount of it at {self.display_path(targets[0])} was interrupted" if targets else ""

    def finish_interrupted_work(self, directory: str) -> None:
        for target in mounts.interrupted(directory):
            self.unmount(target)


def _translating_os_errors(action: str, path: str) -> ContextManager[None]:
    return translating_os_errors(action, path, display=drives.display_path)
