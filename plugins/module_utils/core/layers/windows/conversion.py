# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make read-only layers; import and export layer tars (hcsshim pkg/ociwclayer, internal/wclayer).

Windows imports and exports a layer as a transport folder. A base layer is
written to and read from its own directory instead. Each operation feeds the
records of a reader to a writer, and calls Windows (ImportLayer,
ProcessBaseImage) only after the last record, so an incomplete layer never
becomes a layer.
"""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, Generator, Iterator, Sequence

from ...errors import FailedPrecondition
from ...failpoint import failpoint
from ...files import translating_os_errors
from ...formats import baselayer, transport
from ...formats.layerfile import DIRECTORY_ATTRIBUTE, REPARSE_POINT, LayerFile, LayerRoot
from ...formats.tar import layerfiletar, layertar
from ...model import ImportResult
from ...win32 import advapi32, kernel32, ntdll, offreg, vmcompute
from .. import filetree, protection
from ..base import TRANSPORT
from . import attachment, mounts
from .root import WindowsRoot

# hcsshim internal/wclayer/converttobaselayer.go
_CONFIG = "Files/Windows/System32/config"
_HIVES = ("DEFAULT", "SAM", "SECURITY", "SOFTWARE", "SYSTEM")
_BOOT_CONFIGURATION = "UtilityVM/Files/EFI/Microsoft/Boot/BCD"

_Records = Generator[LayerFile, None, None]


@contextlib.contextmanager
def _privileges() -> Iterator[None]:
    """Enable what reading and writing the files of a layer takes; SeSecurityPrivilege is for audit lists."""
    with advapi32.privileges(advapi32.BACKUP, advapi32.RESTORE, advapi32.SECURITY):
        yield


def convert_scratch(directory: str, parents: Sequence[str]) -> None:
    """Make a layer with a scratch disk a read-only layer as well: export it, and import that into its directory."""
    _prepare_transport(directory)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_privileges())
        stack.enter_context(attachment.activate_for_export(directory, parents))
        root = stack.enter_context(WindowsRoot(stack.enter_context(_exported(directory, parents))))
        for name in (layertar.FILES, layertar.HIVES):
            # From a conversion that was not committed. ImportLayer would keep files that the scratch no longer has.
            filetree.remove(os.path.join(directory, name))
        _import(directory, parents, _without_mount(transport.read(root)))


def _without_mount(files: _Records) -> _Records:
    """The records without the stream that a mount writes to the root of the volume."""
    with contextlib.closing(files):
        for file in files:
            if file.name == layertar.FILES:
                yield file._replace(streams=(each for each in file.streams if each.name != mounts.SOURCE_STREAM))
            else:
                yield file


def convert_files(directory: str, parents: Sequence[str]) -> None:
    """Make an unfinished base a layer over ``parents`` that has its ``Files`` and deletes nothing."""
    _prepare_transport(directory)
    with _privileges(), WindowsRoot(directory) as root:
        _import(directory, parents, _with_hives(baselayer.read(root)))


def _with_hives(files: _Records) -> _Records:
    with contextlib.closing(files):
        yield from files
    yield LayerFile(layertar.HIVES, layertar.DIRECTORY, DIRECTORY_ATTRIBUTE)


def convert_base(directory: str) -> None:
    """Make an unfinished base a base layer (hcsshim ConvertToBaseLayer).

    A registry hive that Windows needs and that is missing is created empty.
    Existing hives, including those of an earlier attempt, are kept.
    """
    with attachment.add_context("hcsshim::ConvertToBaseLayer - failed failed in Win32"), _privileges():
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
                        r"UtilityVM must contain 'EFI\Microsoft\Boot\BCD': failed to find "
                        f"{root.path(_BOOT_CONFIGURATION)}: a utility VM needs its boot configuration"
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


def import_tar(directory: str, parents: Sequence[str], stream: BinaryIO, digest: str = "") -> ImportResult:
    """See ``LayerStore.import_layer``."""
    _prepare_transport(directory)
    reader = layertar.LayerReader(stream, expected=digest)
    records = layerfiletar.read(reader, advapi32.descriptor_from_sddl)
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
    return ImportResult(reader.size, reader.digest, reader.entries, reader.warnings)


def _import(directory: str, parents: Sequence[str], files: _Records) -> None:
    """Write records to a transport folder, and import the folder with ImportLayer."""
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


def _import_base(directory: str, files: _Records) -> None:
    with WindowsRoot(directory) as root, contextlib.closing(files):
        writer = baselayer.Writer(root)
        for file in files:
            failpoint("import.entry")
            writer.add(file)
        writer.finish()
    _process_base(directory, writer.has_utility_vm)


def export_tar(directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
    """See ``LayerStore.export_layer``. A base layer is read in its own directory, as in hcsshim since 2023."""
    _prepare_transport(directory)
    with _privileges(), attachment.activate_for_export(directory, parents):
        if parents:
            with _exported(directory, parents) as folder, WindowsRoot(folder) as root:
                _write_tar(transport.read(root), stream)
        else:
            with WindowsRoot(directory) as root:
                _write_tar(baselayer.read(root), stream)


def _write_tar(files: _Records, stream: BinaryIO) -> None:
    with contextlib.closing(_without_mount(files)) as own:
        layerfiletar.write(own, stream)


@contextlib.contextmanager
def _exported(directory: str, parents: Sequence[str]) -> Iterator[str]:
    with _folder(directory, "export") as folder:
        vmcompute.export_layer(directory, folder, parents)
        yield folder


def delete_transport(directory: str) -> None:
    """Delete the transport folders that an ended process left for a layer directory or a removal directory."""
    parent, name = os.path.split(directory)
    for purpose in ("import", "export"):
        filetree.remove(_folder_path(os.path.join(parent, name.removeprefix("rm-")), purpose))


def _folder_path(directory: str, purpose: str) -> str:
    snapshots, name = os.path.split(directory)
    return os.path.join(os.path.dirname(snapshots), TRANSPORT, f"{name}-{purpose}")


def _prepare_transport(directory: str) -> None:
    """Make the directory of the transport folders, to which only administrators have access.

    hcsshim uses %TEMP%, where other accounts can create a folder of the same
    name. Call this outside ``_privileges``: setting the rights ends that block.
    Raises FailedPrecondition if another account has made the directory.
    """
    path = os.path.dirname(_folder_path(directory, ""))
    with translating_os_errors("cannot create", path):
        try:
            os.mkdir(path)
            protection.protect(path)
        except FileExistsError:
            pass
    fault = protection.fault(path)
    if fault:
        raise FailedPrecondition(f"{path} {fault}: examine it, then run the module store with state=present", path=path)


@contextlib.contextmanager
def _folder(directory: str, purpose: str) -> Iterator[str]:
    """An empty transport folder, deleted at the end of the block.

    Its name is that of the layer directory and the purpose. So the next attempt
    finds what an ended process left, and operations on different layers never
    share a folder.
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
