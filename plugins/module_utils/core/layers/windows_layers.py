# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making read-only layers, and layer tars into layers and back (hcsshim pkg/ociwclayer, internal/wclayer).

Windows takes and gives a layer as a transport folder, except for base layers,
which are written to and read from their directory. Each operation here is a
reader's records fed to a writer; only when all of them have arrived is
Windows told to finish (ImportLayer, ProcessBaseImage), so that half a layer
never becomes one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from typing import BinaryIO, Callable, Generator, Iterator, Optional, Sequence

from ..errors import FailedPrecondition
from ..failpoint import failpoint
from ..formats import baselayer, layerfiletar, layertar, transport
from ..formats.layerfile import DIRECTORY_ATTRIBUTE, REPARSE_POINT, LayerFile, LayerRoot
from ..win32 import advapi32, kernel32, ntdll, offreg, vmcompute
from . import filetree, windows_attachment, windows_mounts
from .base import ImportResult
from .windows_root import WindowsRoot

# hcsshim internal/wclayer/converttobaselayer.go
_CONFIG = "Files/Windows/System32/config"
_HIVES = ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM")
Records = Generator[LayerFile, None, None]

_BOOT_CONFIGURATION = "UtilityVM/Files/EFI/Microsoft/Boot/BCD"


@contextlib.contextmanager
def _privileges() -> Iterator[None]:
    """All that reading and writing files of a layer takes; SeSecurityPrivilege for audit lists in descriptors."""
    with advapi32.privileges(advapi32.BACKUP, advapi32.RESTORE, advapi32.SECURITY):
        yield


def convert_scratch(directory: str, parents: Sequence[str]) -> None:
    """Make a layer with a scratch disk a read-only layer as well: export it, and import that into its directory."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_privileges())
        stack.enter_context(windows_attachment.initialised(directory, parents))
        root = stack.enter_context(WindowsRoot(stack.enter_context(_exported(directory, parents))))
        for name in (layertar.FILES, layertar.HIVES):
            # Of a conversion that was never committed: ImportLayer would leave there what the scratch lacks by now.
            filetree.remove(os.path.join(directory, name))
        stack.enter_context(windows_attachment.prefixed("failed to reimport snapshot"))
        _import(directory, parents, _without_mount(transport.read(root)))


def _without_mount(files: Records) -> Records:
    """The records without what a mount wrote to the root of the volume."""
    with contextlib.closing(files):
        for file in files:
            if file.name == layertar.FILES:
                yield file._replace(streams=(each for each in file.streams if each.name != windows_mounts.SOURCE))
            else:
                yield file


def convert_files(directory: str, parents: Sequence[str]) -> None:
    """Make a base in the making a layer over ``parents``: of its ``Files``, without deletions."""
    with _privileges(), WindowsRoot(directory) as root:
        _import(directory, parents, _with_hives(baselayer.read(root)))


def _with_hives(files: Records) -> Records:
    with contextlib.closing(files):
        yield from files
    yield LayerFile(layertar.HIVES, layertar.DIRECTORY, DIRECTORY_ATTRIBUTE)


def convert_base(directory: str) -> None:
    """Make a base in the making a base layer (hcsshim ConvertToBaseLayer).

    The hives that Windows wants are made empty where the files have none;
    those that are there, from an earlier attempt too, stay.
    """
    with _privileges():
        with WindowsRoot(directory) as root:
            path = ""
            for component in _CONFIG.split("/"):
                path = f"{path}/{component}" if path else component
                _make_directory(root, path)
            version = ntdll.get_version()
            for hive in _HIVES:
                if root.stat(f"{_CONFIG}/{hive}") is None:
                    offreg.create_empty_hive(
                        kernel32.long_path(root.path(f"{_CONFIG}/{hive}")), version.major, version.minor
                    )
            utility_vm = root.stat(layertar.UTILITY_VM_FILES) is not None
            if utility_vm:
                configuration = root.stat(_BOOT_CONFIGURATION)
                if configuration is None:
                    raise FailedPrecondition(
                        f"failed to find {root.path(_BOOT_CONFIGURATION)}: a utility VM needs its boot configuration"
                    )
                if configuration.attributes & (DIRECTORY_ATTRIBUTE | REPARSE_POINT):
                    raise FailedPrecondition(f"{root.path(_BOOT_CONFIGURATION)} is not a regular file")
        _process_base(directory, utility_vm)


def _make_directory(root: LayerRoot, name: str) -> None:
    found = root.stat(name)
    if found is None:
        root.make_directory(name)
    elif found.attributes & (DIRECTORY_ATTRIBUTE | REPARSE_POINT) != DIRECTORY_ATTRIBUTE:
        raise FailedPrecondition(f"{root.path(name)} is not a plain directory")


def _process_base(directory: str, utility_vm: bool) -> None:
    vmcompute.process_base_image(directory)
    if utility_vm:
        vmcompute.process_utility_image(os.path.join(directory, layertar.UTILITY_VM))


def import_tar(
    directory: str, parents: Sequence[str], stream: BinaryIO, progress: Optional[Callable[[int], None]]
) -> ImportResult:
    """See ``LayerStore.import_layer``."""
    reader = layertar.LayerReader(stream)
    records = _reported(layerfiletar.read(reader, advapi32.descriptor_from_sddl), reader, progress)
    with _privileges():
        try:
            if parents:
                _import(directory, parents, records)
            else:
                _import_base(directory, records)
        except BaseException:
            with WindowsRoot(directory) as root:
                for name in root.names(""):
                    root.remove_tree(name)
            raise
    return ImportResult(reader.size, reader.digest, reader.entries)


def _reported(files: Records, reader: layertar.LayerReader, progress: Optional[Callable[[int], None]]) -> Records:
    with contextlib.closing(files):
        for file in files:
            yield file
            if progress:
                progress(reader.size)


def _import(directory: str, parents: Sequence[str], files: Records) -> None:
    """Write records to a transport folder and have Windows import it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_folder(directory, "import"))
        root, layer, *below = (stack.enter_context(WindowsRoot(path)) for path in (folder, directory, *parents))
        writer = transport.Writer(root, layer, below)
        with contextlib.closing(files):
            for file in files:
                failpoint("import.entry")
                writer.add(file)
        failpoint("import.seal")
        writer.seal()
        vmcompute.import_layer(directory, folder, parents)
        writer.fix_up()
        failpoint("import.fixed")
    if writer.has_utility_vm:
        vmcompute.process_utility_image(os.path.join(directory, layertar.UTILITY_VM))


def _import_base(directory: str, files: Records) -> None:
    with WindowsRoot(directory) as root, contextlib.closing(files):
        writer = baselayer.Writer(root)
        for file in files:
            failpoint("import.entry")
            writer.add(file)
        writer.finish()
    _process_base(directory, writer.has_utility_vm)


def export_tar(directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
    """See ``LayerStore.export_layer``. A base layer is read where it lies, as hcsshim does since 2023."""
    with _privileges(), windows_attachment.initialised(directory, parents):
        if parents:
            with _exported(directory, parents) as folder, WindowsRoot(folder) as root:
                _write_tar(transport.read(root), stream)
        else:
            with WindowsRoot(directory) as root:
                _write_tar(baselayer.read(root), stream)


def _write_tar(files: Records, stream: BinaryIO) -> None:
    with contextlib.closing(_without_mount(files)) as own:
        layerfiletar.write(own, stream)


@contextlib.contextmanager
def _exported(directory: str, parents: Sequence[str]) -> Iterator[str]:
    with _folder(directory, "export") as folder:
        vmcompute.export_layer(directory, folder, parents)
        yield folder


def forget_transport(directory: str) -> None:
    """Delete what a dead process left of the transport folders of a layer, also of one that was set aside."""
    above, name = os.path.split(directory)
    for purpose in ("import", "export"):
        filetree.remove(_folder_path(os.path.join(above, name.replace("rm-", "", 1)), purpose))


def _folder_path(directory: str, purpose: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{purpose} {os.path.normcase(directory)}".encode()).digest()[:8], "big")
    return os.path.join(tempfile.gettempdir(), f"hcs{number}")


@contextlib.contextmanager
def _folder(directory: str, purpose: str) -> Iterator[str]:
    """An empty folder for transport, gone afterwards.

    Its name, ``hcs`` and a number as hcsshim's, is made from that of the layer
    directory, so that the next attempt finds what a dead process left there.
    """
    folder = _folder_path(directory, purpose)
    filetree.remove(folder)
    failpoint("folder.make")
    os.mkdir(folder)
    try:
        failpoint("folder.made")
        yield folder
    finally:
        filetree.remove(folder)
