# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The layer store of real nodes: Windows' own layers, kept by the Host Compute Service.

What is called, with what and in which order is what containerd's snapshotter
and hcsshim do (docs/windows.md lists the calls, docs/behaviour.md where this
differs and why). A layer directory holds::

    Files/  Hives/              a read-only layer; a base in the making has Files only
    Layout  blank-base.vhdx     made from a base layer by ProcessBaseImage
    blank.vhdx                  in a base layer: the template of all scratch disks
    UtilityVM/                  Files, and in a base layer the two templates
    sandbox.vhdx                a scratch disk
    vm/sandbox.vhdx             that of a utility VM
    attachment.json             while the layer is attached, see windows_attachment

Everything that loads a DLL is imported when it is first needed: most requests
need none.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import BinaryIO, Callable, Iterator, List, Optional, Sequence

from ..errors import FailedPrecondition, InvalidArgument, NotFound, NotImplementedHere, SnapshotterError
from ..failpoint import failpoint
from ..formats.ntfsnames import components_of, share_components
from .base import FILES, SCRATCH, ImportResult, LayerStore, ScratchInfo, Survey, disk_info, is_directory

RECORD = "attachment.json"

#: The first Windows with the bind filter: Windows Server 2019 (hcsshim osversion/windowsbuilds.go).
OLDEST_BUILD = 17763

_ABSOLUTE = re.compile(r"[A-Za-z]:[\\/]")
_VERBATIM = "\\\\?\\"


class WindowsLayers(LayerStore):
    """The layer store of Windows Server and Windows 10 and 11; see the module's text.

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
        plain = path.removeprefix(_VERBATIM)
        if "\0" in path or not _ABSOLUTE.match(plain):
            raise InvalidArgument(f"path {path!r} must start with a drive letter, such as C:\\data")
        return f"{plain[:2]}\\" + "\\".join(components_of(path, plain[3:]))

    def native_source(self, path: str) -> str:
        share = share_components(path)
        return "\\\\" + "\\".join(share) if share else self.native(path)

    def missing(self) -> List[str]:
        """See the base class. offreg.dll is asked for only when a base layer is made."""
        from ..win32 import advapi32, bindflt, ntdll, virtdisk, vmcompute

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
        from ..win32 import kernel32

        return kernel32.filesystem_name(kernel32.volume_of(path))

    # -- making scratch disks ------------------------------------------------

    def create_base(self, directory: str) -> None:
        with _told("cannot make a base layer in", directory):
            os.mkdir(os.path.join(directory, FILES))

    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        """See the base class.

        A template that only Windows can read is copied all the same: whether
        it is sound shows when it is attached.
        """
        from .diskcopy import copy_disk

        scratch = os.path.join(directory, SCRATCH)
        copy_disk(self._template(parents), scratch)
        failpoint("scratch.copied")
        try:
            if size:
                self._expand(directory, size)
        except BaseException:
            # Who asked deletes the whole directory; what is wrong is said by the first error.
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise

    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        """See the base class. The disk must not be attached; an interrupted growth is finished by the next one."""
        from . import windows_mounts

        if not os.path.lexists(os.path.join(directory, SCRATCH)):
            raise NotFound(f"{directory} has no scratch disk")
        targets = windows_mounts.mounted_at(directory)
        if targets:
            raise FailedPrecondition(
                f"the scratch disk of {directory} cannot grow while it is mounted at {targets[0]}: unmount it first"
            )
        windows_mounts.settle(directory)
        self._expand(directory, size)
        return disk_info(os.path.join(directory, SCRATCH), attached=False)

    @staticmethod
    def _expand(directory: str, size: int) -> None:
        from ..formats.vhdx import MAX_VIRTUAL_SIZE
        from ..win32 import vmcompute
        from . import windows_volume

        if size > MAX_VIRTUAL_SIZE:
            raise InvalidArgument(
                f"invalid disk size {size}: must be from 1 to {MAX_VIRTUAL_SIZE} bytes (64 TiB)", size=size
            )
        try:
            vmcompute.expand_sandbox_size(directory, size)
            windows_volume.grow(directory)
        except SnapshotterError as error:
            raise error.prefixed(f"failed to expand sandbox vhdx size to {size} bytes") from error

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        scratch = os.path.join(directory, SCRATCH)
        if not os.path.lexists(scratch):
            return None
        from . import windows_mounts, windows_volume

        mounted = bool(windows_mounts.mounted_at(directory))
        attached = mounted or windows_volume.is_in_use(scratch)
        found = disk_info(scratch, attached)
        return found._replace(volume_size=windows_volume.size(directory)) if mounted else found

    # -- layers --------------------------------------------------------------

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        from . import windows_layers, windows_mounts

        windows_mounts.settle(directory)
        if os.path.lexists(os.path.join(directory, SCRATCH)):
            windows_layers.convert_scratch(directory, parents)
        elif not os.path.isdir(os.path.join(directory, FILES)):
            raise FailedPrecondition(f"{directory} has neither a scratch disk nor {FILES}")
        elif parents:
            windows_layers.convert_files(directory, parents)
        else:
            windows_layers.convert_base(directory)

    def import_layer(
        self, directory: str, parents: Sequence[str], stream: BinaryIO, progress: Optional[Callable[[int], None]] = None
    ) -> ImportResult:
        from . import windows_layers

        with _told("cannot import a layer into", directory):
            if os.listdir(directory):
                raise FailedPrecondition(f"{directory} is not empty: a layer is imported into a new one")
        return windows_layers.import_tar(directory, parents, stream, progress)

    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        from . import windows_layers, windows_mounts

        windows_mounts.settle(directory)
        windows_layers.export_tar(directory, parents, stream)

    # -- mounts --------------------------------------------------------------

    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        from . import windows_mounts

        with _told("cannot mount at", target):
            windows_mounts.mount(directory, parents, target, read_only)

    def unmount(self, target: str) -> None:
        from . import windows_mounts

        with _told("cannot unmount", target):
            windows_mounts.unmount(target)

    def mounted_layer(self, target: str) -> Optional[str]:
        from . import windows_mounts

        return windows_mounts.mounted_layer(target)

    def mounted_at(self, directory: str) -> List[str]:
        # Most layers were never attached, and this is asked for each of a list.
        if not os.path.lexists(os.path.join(directory, RECORD)):
            return []
        from . import windows_mounts

        return windows_mounts.mounted_at(directory)

    # -- the end -------------------------------------------------------------

    def release(self, directory: str) -> None:
        from . import windows_attachment

        with windows_attachment.prefixed("failed to deactivate layer following failed rename"):
            windows_attachment.release(directory, missing_ok=False)

    def discard(self, directory: str) -> None:
        """See the base class. Nothing in it was ever a layer, so Windows need not be asked."""
        from . import filetree

        with _told("cannot delete", directory):
            filetree.remove(directory)

    def destroy(self, directory: str) -> None:
        from . import windows_cleanup

        self._destroy(directory, windows_cleanup.destroy)

    def destroy_patiently(self, directory: str) -> None:
        from . import windows_cleanup

        self._destroy(directory, windows_cleanup.destroy_patiently)

    def _destroy(self, directory: str, destroy: Callable[[str], None]) -> None:
        if not os.path.lexists(directory):
            return
        self._refuse_mounted(directory)
        from . import filetree, windows_layers

        with _told("cannot destroy layer", directory):
            if is_directory(os.lstat(directory)):
                destroy(directory)
            else:
                # Windows would be told to destroy what a link leads to.
                filetree.remove(directory)
            windows_layers.forget_transport(directory)

    def destroy_at_restart(self, directory: str) -> int:
        self._refuse_mounted(directory)
        from . import windows_cleanup

        with _told("cannot destroy layer", directory):
            return windows_cleanup.destroy_at_restart(directory)

    def _refuse_mounted(self, directory: str) -> None:
        targets = self.mounted_at(directory)
        if targets:
            raise FailedPrecondition(f"{directory} is mounted at {targets[0]}: unmount it first")

    def holders(self, directory: str) -> List[str]:
        from . import windows_cleanup

        found = []
        with contextlib.suppress(OSError, SnapshotterError):
            found = [f"mounted at {target}" for target in self.mounted_at(directory)]
        return found + windows_cleanup.holders(directory)

    def survey(self, directory: str) -> Survey:
        from ..win32 import advapi32
        from . import filetree

        if not os.path.isdir(directory):
            raise NotFound(f"layer directory {directory} does not exist")
        # Some directories of a base layer are closed even to administrators.
        with _told("cannot measure", directory), advapi32.privileges(advapi32.BACKUP):
            return filetree.survey(directory)

    def unsettled(self, directory: str) -> str:
        if not os.path.lexists(os.path.join(directory, RECORD)):
            return ""
        from . import windows_attachment, windows_mounts

        found = windows_attachment.read(directory)
        if found is None or windows_mounts.mounted_at(directory):
            return ""
        work = f"a mount of it at {found.target}" if found.target else "work on it"
        return f"{work} was interrupted, so that it may still be attached"

    def settle(self, directory: str) -> None:
        from . import windows_mounts

        with _told("cannot detach", directory):
            windows_mounts.settle(directory)


@contextlib.contextmanager
def _told(action: str, path: str) -> Iterator[None]:
    """Turn an operating system's error into one of ours that says what was tried."""
    try:
        yield
    except OSError as error:
        from ..formats.vhdx import file_error

        at = f" ({error.filename})" if error.filename and error.filename != path else ""
        raise file_error(error, f"{action} {path}{at}", path) from error
