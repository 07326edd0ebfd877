# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layer store of Windows nodes: the layers of the Host Compute Service.

The calls, their arguments and their order are those of containerd's
snapshotter and hcsshim. docs/windows.md lists the calls, docs/behaviour.md the
differences and their reasons. A layer directory holds::

    Files/  Hives/              a read-only layer; an unfinished base has only Files
    Layout  blank-base.vhdx     made from a base layer by ProcessBaseImage
    blank.vhdx                  in a base layer: the template of all scratch disks
    UtilityVM/                  Files, and in a base layer the two templates
    sandbox.vhdx                a scratch disk
    vm/sandbox.vhdx             the scratch disk of a utility VM
    attachment.json             while the layer is attached, see record.py

Modules that load a DLL are imported when they are first needed: most requests
need none.
"""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, Callable, ContextManager, List, Optional, Sequence

from ...errors import FailedPrecondition, InvalidArgument, NotFound, NotImplementedHere, SnapshotterError
from ...failpoint import failpoint
from ...files import file_error, translating_os_errors
from ...formats.ntfsnames import drive_components, share_components
from ...model import ImportResult, ScratchInfo
from ..base import FILES, SCRATCH, LayerStore, Measurement, disk_info, is_directory
from . import record

#: The first Windows with the bind filter: Windows Server 2019 (hcsshim osversion/windowsbuilds.go).
OLDEST_BUILD = 17763


class WindowsLayers(LayerStore):
    """The layer store of Windows Server, Windows 10 and Windows 11; see the module's text.

    Raises NotImplementedHere on another system.
    """

    name = "windows"

    def __init__(self) -> None:
        if os.name != "nt":
            raise NotImplementedHere(
                "layers: windows works on Windows hosts only; layers: emulated works on every host"
            )

    # -- paths ---------------------------------------------------------------

    def native(self, path: str) -> str:
        drive, *components = drive_components(path)
        return f"{drive}\\" + "\\".join(components)

    def native_source(self, path: str) -> str:
        share = share_components(path)
        return "\\\\" + "\\".join(share) if share else self.native(path)

    def missing(self) -> List[str]:
        """See the base class. offreg.dll is not checked: only making a base layer needs it."""
        from ...win32 import advapi32, bindflt, ntdll, virtdisk, vmcompute

        missing = []
        version = ntdll.get_version()
        if version.build < OLDEST_BUILD:
            missing.append(f"Windows Server 2019 (build {OLDEST_BUILD}) or newer: this is build {version.build}")
        for library in (vmcompute.DLL, virtdisk.DLL, bindflt.DLL):
            missing += library.missing()
        if not advapi32.is_administrator():
            missing.append("the rights of an elevated administrator")
        return missing

    def filesystem_type(self, path: str) -> str:
        from ...win32 import kernel32

        return kernel32.filesystem_name(kernel32.volume_of(path))

    # -- making scratch disks ------------------------------------------------

    def create_base(self, directory: str) -> None:
        with _translating_os_errors("cannot make a base layer in", directory):
            os.mkdir(os.path.join(directory, FILES))

    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        """See the base class.

        A template that our parser cannot read is copied all the same: Windows
        reports a damaged disk when it attaches the copy.
        """
        from ..diskcopy import copy_disk

        scratch = os.path.join(directory, SCRATCH)
        copy_disk(self._template(parents), scratch)
        failpoint("scratch.copied")
        try:
            if size:
                self._expand(directory, size)
        except BaseException:
            # The caller deletes the whole directory; the first error is the one to report.
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise

    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        """See the base class. The disk must not be attached. The next call completes an interrupted growth."""
        from . import mounts

        if not os.path.lexists(os.path.join(directory, SCRATCH)):
            raise NotFound(f"{directory} has no scratch disk")
        self._refuse_to_grow_mounted(directory)
        mounts.finish_interrupted_work(directory)
        self._expand(directory, size)
        return disk_info(os.path.join(directory, SCRATCH), attached=False)

    @staticmethod
    def _expand(directory: str, size: int) -> None:
        from ...formats.vhdx.structures import MAX_VIRTUAL_SIZE
        from ...win32 import vmcompute
        from . import volume

        if size > MAX_VIRTUAL_SIZE:
            raise InvalidArgument(
                f"invalid disk size {size}: must be from 1 to {MAX_VIRTUAL_SIZE} bytes (64 TiB)", size=size
            )
        try:
            vmcompute.expand_sandbox_size(directory, size)
            volume.grow(directory)
        except SnapshotterError as error:
            raise error.with_context(f"failed to expand sandbox vhdx size to {size} bytes") from error

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        scratch = os.path.join(directory, SCRATCH)
        if not os.path.lexists(scratch):
            return None
        from . import mounts, volume

        mounted = bool(mounts.mounted_at(directory))
        attached = mounted or volume.is_in_use(scratch)
        found = disk_info(scratch, attached)
        return found._replace(volume_size=volume.size(directory)) if mounted else found

    # -- layers --------------------------------------------------------------

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        from . import conversion, mounts

        mounts.finish_interrupted_work(directory)
        if os.path.lexists(os.path.join(directory, SCRATCH)):
            conversion.convert_scratch(directory, parents)
        elif not os.path.isdir(os.path.join(directory, FILES)):
            raise FailedPrecondition(f"{directory} has neither a scratch disk nor {FILES}")
        elif parents:
            conversion.convert_files(directory, parents)
        else:
            conversion.convert_base(directory)

    def import_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO, digest: str = "") -> ImportResult:
        from . import conversion

        with _translating_os_errors("cannot import a layer into", directory):
            if os.listdir(directory):
                raise FailedPrecondition(f"{directory} is not empty: a layer is imported into a new one")
        return conversion.import_tar(directory, parents, stream, digest)

    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        from . import conversion, mounts

        mounts.finish_interrupted_work(directory)
        conversion.export_tar(directory, parents, stream)

    # -- mounts --------------------------------------------------------------

    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        from . import mounts

        with _translating_os_errors("cannot mount at", target):
            mounts.mount(directory, parents, target, read_only)

    def unmount(self, target: str) -> None:
        from . import mounts

        with _translating_os_errors("cannot unmount", target):
            mounts.unmount(target)

    def mounted_layer(self, target: str) -> Optional[str]:
        from . import mounts

        return mounts.mounted_layer(target)

    def mounted_at(self, directory: str) -> List[str]:
        # Most layers were never attached, and a list of snapshots asks this for each of them.
        if not record.exists(directory):
            return []
        from . import mounts

        return mounts.mounted_at(directory)

    # -- the end -------------------------------------------------------------

    def release(self, directory: str) -> None:
        from . import attachment

        with attachment.add_context("failed to deactivate layer following failed rename"):
            attachment.release(directory, missing_ok=False)

    def discard(self, directory: str) -> None:
        """See the base class. Windows does not know the directory as a layer, so its files are simply deleted."""
        from .. import filetree

        with _translating_os_errors("cannot delete", directory):
            filetree.remove(directory)

    def destroy(self, directory: str) -> None:
        from . import cleanup

        self._destroy(directory, cleanup.destroy)

    def destroy_with_retries(self, directory: str) -> None:
        from . import cleanup

        self._destroy(directory, cleanup.destroy_with_retries)

    def _destroy(self, directory: str, destroy: Callable[[str], None]) -> None:
        if not os.path.lexists(directory):
            return
        self._refuse_mounted(directory)
        from .. import filetree
        from . import conversion

        with _translating_os_errors("cannot destroy layer", directory):
            if is_directory(os.lstat(directory)):
                destroy(directory)
            else:
                # DestroyLayer would follow the link.
                filetree.remove(directory)
            conversion.delete_transport(directory)

    def destroy_at_restart(self, directory: str) -> int:
        self._refuse_mounted(directory)
        from . import cleanup

        with _translating_os_errors("cannot destroy layer", directory):
            return cleanup.destroy_at_restart(directory)

    def _refuse_mounted(self, directory: str) -> None:
        targets = self.mounted_at(directory)
        if targets:
            raise FailedPrecondition(f"{directory} is mounted at {targets[0]}: unmount it first")

    def holders(self, directory: str) -> List[str]:
        from . import cleanup

        found = []
        with contextlib.suppress(OSError, SnapshotterError):
            found = [f"mounted at {target}" for target in self.mounted_at(directory)]
        return found + cleanup.holders(directory)

    # -- maintenance ---------------------------------------------------------

    def measure(self, directory: str) -> Measurement:
        from ...win32 import advapi32
        from .. import filetree

        if not os.path.isdir(directory):
            raise NotFound(f"layer directory {directory} does not exist")
        # Not even administrators may list some directories of a base layer.
        with _translating_os_errors("cannot measure", directory), advapi32.privileges(advapi32.BACKUP):
            return filetree.measure(directory)

    def interrupted_work(self, directory: str) -> str:
        if not record.exists(directory):
            return ""
        from . import mounts

        found = record.read(directory)
        if found is None or mounts.mounted_at(directory):
            return ""
        work = f"a mount of it at {found.target}" if found.target else "work on it"
        return f"{work} was interrupted, so that it may still be attached"

    def finish_interrupted_work(self, directory: str) -> None:
        from . import mounts

        with _translating_os_errors("cannot detach", directory):
            mounts.finish_interrupted_work(directory)


def _translating_os_errors(action: str, path: str) -> ContextManager[None]:
    return translating_os_errors(action, path, translate=file_error)
