# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface between the snapshotter and the disk.

A *layer directory* is ``<root>/snapshots/<id>``. Three states:

* **base in the making**: ``Files`` (and perhaps ``UtilityVM``), no parents;
* **scratch**: ``sandbox.vhdx``, a copy of the template ``blank.vhdx`` that lies
  in the base layer, over the whole chain of parents; with a Hyper-V isolated
  container also ``vm/sandbox.vhdx``;
* **read-only layer**: what ``import_layer`` or ``convert`` leave behind, the
  only state that may be somebody's parent.

``parents`` is always the list of parent directories, nearest first, base
last, and every path handed in is native (see ``native``). A layer store keeps
no state in memory between calls: each request is a process of its own, so
what has to be remembered (mounts) is on disk.

Each operation either does its whole work or leaves the directory as it found
it, unless its text says otherwise; each raises a ``SnapshotterError`` whose
message names the path. Calls on one directory are serialised by the caller;
calls on different directories run side by side.
"""

from __future__ import annotations

import abc
import os
import stat
from typing import BinaryIO, Callable, List, NamedTuple, Optional, Sequence

from ..durable import sync_directory
from ..errors import FailedPrecondition, NotImplementedHere
from ..failpoint import failpoint
from ..model import Usage

#: Names in a layer directory that both stores, Windows and containerd share.
FILES = "Files"
SCRATCH = "sandbox.vhdx"
BLANK = "blank.vhdx"
UTILITY_VM = "UtilityVM"
UVM_TEMPLATE = "SystemTemplate.vhdx"

#: Of what ``LayerStore.holders`` tells, enough for a person.
MAX_HOLDERS = 8


class ScratchInfo(NamedTuple):
    """What is known of a scratch disk. Sizes in bytes.

    ``virtual_size`` is the size of the disk that a container sees as C:,
    ``file_size`` the length of the VHDX file, ``attached`` whether the disk
    is in use now, ``volume_size`` the size of the NTFS volume inside where the
    store can tell (None where it cannot, for example when not attached).
    """

    path: str
    virtual_size: int
    file_size: int
    attached: bool
    volume_size: Optional[int]


class Survey(NamedTuple):
    """All files of a layer: their usage, and which of them has the most names (hard links), how many."""

    usage: Usage
    links: int
    most_linked: str


class ImportResult(NamedTuple):
    """What an import read: tar bytes after decompression, their SHA-256, entries."""

    size: int
    digest: str
    entries: int


def is_directory(status: os.stat_result) -> bool:
    """Whether it is a directory in truth: a junction says of itself that it is one."""
    reparse_point = getattr(status, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT
    return stat.S_ISDIR(status.st_mode) and not reparse_point


def disk_info(path: str, attached: bool) -> ScratchInfo:
    """What our own parser reads of a VHDX file. Raises as ``vhdx.read_info``."""
    from ..formats import vhdx

    info = vhdx.read_info(path)
    return ScratchInfo(path, info.virtual_size, info.file_size, attached, volume_size=None)


class LayerStore(abc.ABC):
    """One way to keep layers on disk. The class text of this module is the contract."""

    #: The value of ``layers`` in a request that selects this store.
    name: str

    # -- paths ---------------------------------------------------------------

    def native(self, path: str) -> str:
        """The path that this process opens for a path that a user wrote.

        The same, except in a store that stands in for a Windows host.
        Raises InvalidArgument for a path that is not absolute.
        """
        return path

    def native_source(self, path: str) -> str:
        r"""As ``native``, of what a task only reads: that may be on a file share, ``\\server\share\image.tar``."""
        return self.native(path)

    def presented(self, path: str) -> str:
        """The inverse of ``native``: how replies spell a native path."""
        return path

    def missing(self) -> List[str]:
        """What this host or account lacks for this store, a phrase each; none if all is there."""
        return []

    @abc.abstractmethod
    def filesystem_type(self, path: str) -> str:
        """The file system, e.g. ``NTFS``, of the volume that holds ``path``.

        ``path`` need not exist; its nearest existing ancestor decides.
        """

    # -- making scratch disks ------------------------------------------------

    def template_info(self, parents: Sequence[str]) -> ScratchInfo:
        """The template that ``create_scratch`` would copy for these parents.

        Raises FailedPrecondition for no parents ("no parent layers present")
        or a missing or damaged template.
        """
        return disk_info(self._template(parents), attached=False)

    def _template(self, parents: Sequence[str]) -> str:
        """The path of that template, which is there. Raises as ``template_info``."""
        if not parents:
            raise FailedPrecondition("no parent layers present")
        template = os.path.join(parents[-1], BLANK)
        if not os.path.lexists(template):
            path = self.presented(template)
            raise FailedPrecondition(
                f"failed to open {path}: the base layer has no template disk; import the base layer again", path=path
            )
        return template

    @abc.abstractmethod
    def create_base(self, directory: str) -> None:
        """Make an existing empty layer directory a base in the making: an empty ``Files``."""

    @abc.abstractmethod
    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        """Copy the base layer's ``blank.vhdx`` to ``sandbox.vhdx``; grow it to ``size``.

        ``size`` 0 keeps the template's size; a size below the template's
        changes nothing, since a disk never shrinks. The file is created
        exclusively, holes stay holes, and it is durable on return.
        Raises FailedPrecondition for no parents ("no parent layers present")
        or a missing or damaged template, InvalidArgument for a size above the
        format's limit, Unavailable when the volume is full. On any error no
        file is left.
        """

    def create_uvm_scratch(self, directory: str, parents: Sequence[str]) -> None:
        """Copy the base layer's ``UtilityVM/SystemTemplate.vhdx`` to ``vm/sandbox.vhdx``.

        To be called before ``create_scratch`` of the same directory. Raises
        FailedPrecondition if the base has no utility VM or no template, and
        as ``create_scratch`` does for the copy.
        """
        from ..formats.vhdx import file_error
        from .diskcopy import copy_disk

        if not parents:
            raise FailedPrecondition("no parent layers present")
        utility_vm = os.path.join(parents[-1], UTILITY_VM)
        if not os.path.isdir(utility_vm):
            raise FailedPrecondition(
                f'failed to find UtilityVM directory in base layer "{self.presented(parents[-1])}": '
                "this image cannot run Hyper-V isolated containers"
            )
        template = os.path.join(utility_vm, UVM_TEMPLATE)
        if not os.path.isfile(template):
            raise FailedPrecondition(f'"{self.presented(template)}" does not exist in Utility VM image')
        vm = os.path.join(directory, "vm")
        try:
            failpoint("uvm.directory")
            os.mkdir(vm)
        except OSError as error:
            raise file_error(error, f"cannot create utility VM scratch disk in {self.presented(vm)}", vm) from error
        try:
            copy_disk(template, os.path.join(vm, SCRATCH))
        except BaseException:
            os.rmdir(vm)
            raise
        failpoint("uvm.copied")
        sync_directory(directory)

    @abc.abstractmethod
    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        """Make the scratch disk at least ``size`` bytes, and say what it is now.

        Never shrinks; safe at any instruction: a reader finds the old size or
        the new one. Raises NotFound without a scratch disk, InvalidArgument
        above the format's limit.
        """

    @abc.abstractmethod
    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        """The scratch disk of a layer directory, or None if it has none."""

    # -- layers --------------------------------------------------------------

    @abc.abstractmethod
    def convert(self, directory: str, parents: Sequence[str]) -> None:
        """Turn a scratch (or, without one, a base in the making) into a read-only layer.

        A base in the making that got parents at its commit ("rebase") becomes
        a layer over them: its ``Files`` and no deletions.

        The scratch stays usable: until the metadata says committed, the
        snapshot may still be mounted and written, and be converted again.
        A conversion that a dead process left half done is done anew.
        """

    @abc.abstractmethod
    def import_layer(
        self, directory: str, parents: Sequence[str], stream: BinaryIO, progress: Optional[Callable[[int], None]] = None
    ) -> ImportResult:
        """Unpack an OCI Windows layer tar (plain; the caller decompresses) into an empty layer directory.

        Without parents this makes a base layer, templates included. An entry
        that leaves the layer by its name or by a link, that is a device or
        that no Windows layer may hold is refused by name (InvalidArgument).
        On any error the directory is empty again.
        """

    @abc.abstractmethod
    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        """Write a layer as an OCI Windows layer tar."""

    # -- mounts --------------------------------------------------------------

    @abc.abstractmethod
    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        """Make the merged tree of scratch and parents readable at ``target``.

        ``target`` is created if it does not exist and must be empty. Mounting
        the same directory at the same target again changes nothing.
        Raises FailedPrecondition if the target is not empty or is a mount of
        something else.
        """

    @abc.abstractmethod
    def unmount(self, target: str) -> None:
        """Undo ``mount``. What was written is in the scratch afterwards.

        The target directory itself stays, empty. An unmounted or missing
        target is no error.
        """

    @abc.abstractmethod
    def mounted_layer(self, target: str) -> Optional[str]:
        """The layer directory that is mounted at ``target``, None if there is none.

        A mount that a dead process or a restart of the host left half made or
        half undone counts: ``unmount`` has something to do.
        """

    @abc.abstractmethod
    def mounted_at(self, directory: str) -> List[str]:
        """The targets where this layer directory is mounted now (native paths)."""

    def is_mounted(self, directory: str, target: str) -> bool:
        """Whether this layer directory is mounted at ``target``, whole, so that ``mount`` has nothing to do."""
        wanted = os.path.normcase(target)
        return any(os.path.normcase(place) == wanted for place in self.mounted_at(directory))

    # -- the end -------------------------------------------------------------

    def release(self, directory: str) -> None:  # noqa: B027 - a store that attaches nothing has nothing to do
        """Let go of a layer directory that cannot be renamed because a dead process left it attached.

        A store that attaches layers raises if this one was not, or cannot be released.
        """

    def discard(self, directory: str) -> None:
        """Delete a layer directory in the making, that nobody ever used as a layer. As ``destroy`` otherwise."""
        self.destroy(directory)

    @abc.abstractmethod
    def destroy(self, directory: str) -> None:
        """Delete a layer directory and all below it, following no link.

        A missing directory is no error. On failure the rest stays, and
        calling again continues.
        """

    def destroy_patiently(self, directory: str) -> None:
        """``destroy`` for cleanup: tried again, for some five seconds in all, while something has the layer in use.

        In between, what a dead process left attached is detached. Raises as
        ``destroy`` does.
        """
        self.destroy(directory)

    def destroy_at_restart(self, directory: str) -> int:
        """Delete what can be deleted now of a layer directory, and have the host delete the rest when it starts next.

        For what ``destroy`` cannot delete; no link is followed. Returns how
        many files and directories wait for that start, 0 if all is gone.
        Raises NotImplementedHere in a store whose host cannot do that.
        """
        raise NotImplementedHere(
            f"only Windows can delete {self.presented(directory)} at its next start: end what uses it, and try again"
        )

    @abc.abstractmethod
    def holders(self, directory: str) -> List[str]:
        r"""Who keeps a layer directory in use, as far as that can be known in two seconds; never raises.

        Phrases such as ``process 4711 (vmwp.exe) has C:\x\sandbox.vhdx open``
        and ``mounted at C:\y``; the processes at most ``MAX_HOLDERS``.
        """

    # -- looking after it ----------------------------------------------------

    @abc.abstractmethod
    def survey(self, directory: str) -> Survey:
        """Visit all files of a layer directory; each hard-linked file counts once, no link is followed."""

    def disk_usage(self, directory: str) -> Usage:
        """Bytes and inodes of a layer directory, as ``survey`` finds them."""
        return self.survey(directory).usage

    @abc.abstractmethod
    def unsettled(self, directory: str) -> str:
        """What a dead process or a restart of the host left half done in a layer directory that nobody works on.

        A phrase that begins a sentence's second half; empty if there is nothing.
        """

    @abc.abstractmethod
    def settle(self, directory: str) -> None:
        """Undo what ``unsettled`` tells of; nothing else of the layer changes."""
