# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between the snapshotter and the disk.

A *layer directory* is ``<root>/snapshots/<id>``. It is in one of three states:

* **unfinished base**: ``Files`` (and perhaps ``UtilityVM``), no parents;
* **scratch**: ``sandbox.vhdx``, a copy of the template ``blank.vhdx`` of the
  base layer, over the whole chain of parents; for a Hyper-V isolated container
  also ``vm/sandbox.vhdx``;
* **read-only layer**: the result of ``import_layer`` or ``convert``, and the
  only state that can be a parent.

A base layer is made from a tar::

    store.import_layer(directory, [], stream)

A container's layer is mounted, and becomes a new layer of what was written::

    store.create_scratch(directory, parents, size=0)
    store.mount(directory, parents, target, read_only=False)
    ...                                 # write to target
    store.unmount(target)
    store.convert(directory, parents)   # now it can be a parent
    store.destroy(directory)

``parents`` is always the list of the parents' layer directories, nearest
first, base last. Every path argument is native (see ``native``).

A layer store keeps no state in memory between calls: what it must remember
(mounts) is on disk. Each request may run in a process of its own, or many
threads of one process may each use a store object of their own. The caller
serialises calls on one directory. Calls on different directories run in
parallel.

Each operation either completes or leaves the directory as it was, unless its
docstring says otherwise. An operation that fails raises a ``SnapshotterError``
whose message names the path. A process may die at any instruction: the next
call on the directory continues or undoes what is left. For a mount or an
attachment that nothing else would touch, ``interrupted_work`` reports it and
``finish_interrupted_work`` undoes it.
"""

from __future__ import annotations

import abc
import os
import stat
from typing import BinaryIO, List, NamedTuple, Optional, Sequence

from ..errors import FailedPrecondition, NotImplementedHere
from ..failpoint import failpoint
from ..files import file_error, sync_directory
from ..formats.ntfsnames import path_key
from ..model import ImportResult, Mount, ScratchInfo, Usage, layer_mount

#: Names in a layer directory that both stores, Windows and containerd share.
FILES = "Files"
SCRATCH = "sandbox.vhdx"
BLANK = "blank.vhdx"
UTILITY_VM = "UtilityVM"
UVM_TEMPLATE = "SystemTemplate.vhdx"

#: The directory beside ``snapshots`` for transport folders: what the Windows layer store imports or exports.
TRANSPORT = "transport"

#: The most processes that ``LayerStore.holders`` names.
MAX_HOLDERS = 8


class Measurement(NamedTuple):
    """The usage of a layer, the most hard links that one of its files has, and the path of that file."""

    usage: Usage
    links: int
    most_linked: str


def is_directory(status: os.stat_result) -> bool:
    """Return True for real directories only: junctions also report themselves as directories."""
    reparse_point = getattr(status, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT
    return stat.S_ISDIR(status.st_mode) and not reparse_point


def disk_info(path: str, attached: bool) -> ScratchInfo:
    """Read a VHDX file with our own parser. Raises as ``vhdx.read_info``."""
    from ..formats.vhdx import reader

    info = reader.read_info(path)
    return ScratchInfo(path, info.virtual_size, info.file_size, attached, volume_size=None)


class LayerStore(abc.ABC):
    """One way to keep layers on disk. The docstring of this module is part of the contract."""

    #: The value of ``layers`` in a request that selects this store.
    name: str

    #: Whether image layers are unpacked through a mount. Those of Windows are unpacked into the layer directory, so the
    #: snapshot of an unpack gets no scratch, and its commit converts nothing.
    unpacks_through_mount = False

    # -- paths ---------------------------------------------------------------

    def native(self, path: str) -> str:
        """The path that this process opens for a path that a user wrote.

        It is the same path, except in a store that stands in for Windows.
        Raises InvalidArgument for a path that is not absolute.
        """
        return path

    def native_source(self, path: str) -> str:
        r"""As ``native``, for a file that is only read: a file share is allowed, too (``\\server\share\image.tar``)."""
        return self.native(path)

    def display_path(self, path: str) -> str:
        """The inverse of ``native``: how messages and replies spell a native path."""
        return path

    def missing(self) -> List[str]:
        """What the host or the account lacks for this store, one phrase each; empty if nothing is missing."""
        return []

    @abc.abstractmethod
    def filesystem_type(self, path: str) -> str:
        """The file system, e.g. ``NTFS``, of the volume that holds ``path``.

        ``path`` need not exist: its nearest existing ancestor decides.
        """

    # -- making scratch disks ------------------------------------------------

    def template_info(self, parents: Sequence[str]) -> ScratchInfo:
        """The template that ``create_scratch`` would copy for these parents.

        Raises FailedPrecondition without parents ("no parent layers present")
        and for a missing or damaged template.
        """
        return disk_info(self._template(parents), attached=False)

    def _template(self, parents: Sequence[str]) -> str:
        """The path of the template, which exists. Raises as ``template_info``."""
        if not parents:
            raise FailedPrecondition("no parent layers present")
        template = os.path.join(parents[-1], BLANK)
        if not os.path.lexists(template):
            path = self.display_path(template)
            raise FailedPrecondition(
                f"failed to open {path}: the base layer has no template disk; import the base layer again", path=path
            )
        return template

    @abc.abstractmethod
    def create_base(self, directory: str) -> None:
        """Make an empty layer directory an unfinished base: create an empty ``Files`` in it."""

    @abc.abstractmethod
    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        """Copy the base layer's ``blank.vhdx`` to ``sandbox.vhdx`` and grow it to ``size`` bytes.

        A ``size`` that is 0 or below the template's keeps the template's size,
        because a disk never shrinks. The file is created exclusively, holes
        stay holes, and it is durable on return. On an error no file is left.

        Raises FailedPrecondition without parents ("no parent layers present")
        and for a missing or damaged template, InvalidArgument for a size above
        the limit of the format, Unavailable if the volume is full.
        """

    def create_uvm_scratch(self, directory: str, parents: Sequence[str]) -> None:
        """Copy the base layer's ``UtilityVM/SystemTemplate.vhdx`` to ``vm/sandbox.vhdx``.

        Call it before ``create_scratch`` of the same directory. Raises
        FailedPrecondition if the base layer has no utility VM or no template,
        and as ``create_scratch`` for the copy.
        """
        from .diskcopy import copy_disk

        if not parents:
            raise FailedPrecondition("no parent layers present")
        utility_vm = os.path.join(parents[-1], UTILITY_VM)
        if not os.path.isdir(utility_vm):
            raise FailedPrecondition(
                f'failed to find UtilityVM directory in base layer "{self.display_path(parents[-1])}": '
                "this image cannot run Hyper-V isolated containers"
            )
        template = os.path.join(utility_vm, UVM_TEMPLATE)
        if not os.path.isfile(template):
            raise FailedPrecondition(f'"{self.display_path(template)}" does not exist in Utility VM image')
        vm = os.path.join(directory, "vm")
        try:
            failpoint("uvm.directory")
            os.mkdir(vm)
        except OSError as error:
            raise file_error(error, f"cannot create utility VM scratch disk in {self.display_path(vm)}", vm) from error
        try:
            copy_disk(template, os.path.join(vm, SCRATCH))
        except BaseException:
            os.rmdir(vm)
            raise
        failpoint("uvm.copied")
        sync_directory(directory)

    @abc.abstractmethod
    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        """Make the scratch disk at least ``size`` bytes; return the disk as it is then.

        A disk never shrinks. A process may die during the growth: the disk
        then has the old or the new size. Raises NotFound without a scratch
        disk, FailedPrecondition for a disk that is mounted, InvalidArgument
        for a size above the limit of the format.
        """

    def _refuse_to_grow_mounted(self, directory: str) -> None:
        for target in self.mounted_at(directory):
            # A mount that was interrupted does not count: the growth ends it first.
            if self.is_mounted(directory, target):
                raise FailedPrecondition(
                    f"the scratch disk of {self.display_path(directory)} cannot grow while it is mounted at "
                    f"{self.display_path(target)}: unmount it first"
                )

    @abc.abstractmethod
    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        """The scratch disk of a layer directory, None if it has none."""

    # -- layers --------------------------------------------------------------

    @abc.abstractmethod
    def convert(self, directory: str, parents: Sequence[str]) -> None:
        """Turn a scratch, or without a scratch disk an unfinished base, into a read-only layer.

        An unfinished base that gets parents at its commit ("rebase") becomes
        a layer over them that has its ``Files`` and deletes nothing.

        The scratch stays usable: until the metadata says committed, the
        snapshot may be mounted, written and converted again. A conversion
        that an ended process left half done starts again from the beginning.
        """

    @abc.abstractmethod
    def import_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO, digest: str = "") -> ImportResult:
        """Unpack an OCI Windows layer tar into an empty layer directory. ``stream`` is not compressed.

        ``digest`` is what the tar must have, if that is known: layertar.WrongDigest
        is raised for another one, before the layer is complete.

        Without parents this makes a base layer and its templates. Raises
        InvalidArgument that names the entry for an entry that leaves the layer
        by its name or by a hard link, that is a device, or that no Windows
        layer may have. The target of a symbolic link is only text: any is
        kept, and the result warns of one that Windows may not find.
        NotImplementedHere is for what this store cannot keep. On any error the
        directory is empty again.
        """

    @abc.abstractmethod
    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        """Write a layer as an OCI Windows layer tar."""

    # -- mounts --------------------------------------------------------------

    @abc.abstractmethod
    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        """Show the merged tree of scratch and parents at ``target``.

        ``target`` is created if it does not exist; if it exists, it must be an
        empty directory. Mounting the same directory at the same target again
        changes nothing. Raises FailedPrecondition if the target is not empty
        or is the mount of another layer, InvalidArgument for a target that
        ``mount_rules.check_target`` refuses.
        """

    @abc.abstractmethod
    def unmount(self, target: str) -> None:
        """Undo ``mount``. Afterwards the scratch has everything that was written at the target.

        The target directory stays and is empty. A target that is not mounted
        or does not exist is not an error.
        """

    @abc.abstractmethod
    def mounted_layer(self, target: str) -> Optional[str]:
        """The layer directory that is mounted at ``target``, None if there is none.

        A mount that an ended process or a restart of the host left half made or
        half undone counts as well: ``unmount`` finishes it.
        """

    @abc.abstractmethod
    def mounted_at(self, directory: str) -> List[str]:
        """The targets where this layer directory is mounted now (native paths)."""

    def is_mounted(self, directory: str, target: str) -> bool:
        """Whether the layer directory is completely mounted at ``target``, so that ``mount`` would change nothing."""
        return any(path_key(path) == path_key(target) for path in self.mounted_at(directory))

    def runtime_mount(self, directory: str, parents: Sequence[str], read_only: bool) -> Mount:
        """How a container runtime mounts a layer directory on its parents. This mounts nothing.

        In a store that cannot be mounted in place, the work that makes it
        possible is part of the answer.
        """
        return layer_mount(self.display_path(directory), [self.display_path(path) for path in parents], read_only)

    # -- the end -------------------------------------------------------------

    def release(self, directory: str) -> None:  # noqa: B027 - a store that attaches nothing has nothing to do
        """Detach a layer directory that cannot be renamed because an ended process left it attached.

        A store that attaches layers raises if this layer is not attached, or
        cannot be detached.
        """

    def discard(self, directory: str) -> None:
        """Delete a layer directory that never became a layer. Otherwise as ``destroy``."""
        self.destroy(directory)

    @abc.abstractmethod
    def destroy(self, directory: str) -> None:
        """Delete a layer directory and everything below it. No link is followed.

        A missing directory is not an error. After a failure the rest stays,
        and calling again continues.
        """

    def destroy_with_retries(self, directory: str) -> None:
        """``destroy`` for cleanup: retry for about five seconds while the layer is in use.

        Between the attempts, what an ended process left attached is detached.
        Raises as ``destroy``.
        """
        self.destroy(directory)

    def destroy_at_restart(self, directory: str) -> int:
        """Delete what can be deleted of a layer directory now; let the host delete the rest when it restarts.

        For a directory that ``destroy`` cannot delete. No link is followed.
        Returns how many files and directories wait for the restart, 0 if
        nothing is left. Raises NotImplementedHere in a store whose host cannot
        do that.
        """
        raise NotImplementedHere(
            f"only Windows can delete {self.display_path(directory)} at its next start: "
            "end the programs that use it, and try again"
        )

    @abc.abstractmethod
    def holders(self, directory: str) -> List[str]:
        r"""What keeps a layer directory in use, as far as two seconds of search show; never raises.

        Phrases such as ``process 4711 (vmwp.exe) has C:\x\sandbox.vhdx open``,
        at most ``MAX_HOLDERS`` of them, and ``mounted at C:\y``.
        """

    # -- maintenance ---------------------------------------------------------

    @abc.abstractmethod
    def measure(self, directory: str) -> Measurement:
        """Visit all files of a layer directory. A hard-linked file counts once; no link is followed."""

    def disk_usage(self, directory: str) -> Usage:
        """Bytes and inodes of a layer directory, as ``measure`` counts them."""
        return self.measure(directory).usage

    @abc.abstractmethod
    def interrupted_work(self, directory: str) -> str:
        r"""What an ended process or a restart of the host left half done in a layer directory that is not in use.

        A phrase to end a sentence with, such as ``a mount of it at C:\y was
        interrupted``; empty if there is nothing.
        """

    @abc.abstractmethod
    def finish_interrupted_work(self, directory: str) -> None:
        """Undo what ``interrupted_work`` reports; nothing else of the layer changes."""
