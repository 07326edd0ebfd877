# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated layer store: Windows layers on any host, for labs, tests and CI.

What it models: the directory layout, the life of a layer, and the disks, which
are real VHDX files that are copied, grown and read as on Windows. What it does
not: nobody formats NTFS inside the disks. What the volume inside
``sandbox.vhdx`` would hold lies beside it in ``sandbox.contents``, so the size
of that file never changes with what is written. Security descriptors, extended
attributes, alternate streams and file attributes other than read-only are not
kept; the registry hives that Windows makes from a base layer are one-line
markers. A mount is a copy of the merged tree, and unmounting takes the
differences back, so a mount costs what a copy of the whole tree costs.

On disk, in a layer directory::

    Files/                   a read-only layer or a base in the making
    tombstones.txt           what a read-only layer deletes (hcsshim internal/wclayer/legacy.go)
    Hives/  Layout           made from a base layer
    UtilityVM/               Files, and in a base layer the two templates
    blank.vhdx               in a base layer: the template of all scratch disks
    sandbox.vhdx             a scratch disk
    sandbox.contents/        Files and tombstones.txt that belong into it
    sandbox.mounts.json      the targets of its mounts; .lock: held while one is made or undone
    *.new  *.old             a replacement under way, see filetree.replace

and beside a mount's target ``/a/b`` the hidden file ``/a/.b.wcow-mount.json``,
from which an unmount finds the layer again.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional, Sequence

from ..durable import sync_directory
from ..errors import FailedPrecondition, InvalidArgument, NotFound, SnapshotterError, Unavailable, os_error
from ..failpoint import failpoint
from ..lock import FileLock
from . import drives, filetree
from .base import (
    BLANK,
    FILES,
    SCRATCH,
    UTILITY_VM,
    UVM_TEMPLATE,
    ImportResult,
    LayerStore,
    ScratchInfo,
    Survey,
    disk_info,
)

#: Names another file system than NTFS for all volumes, so that labs can rehearse the refusal.
FILESYSTEM_VARIABLE = "WCOW_EMULATED_FILESYSTEM"

#: The disk that containers get unless they ask for more (containerd integration/windows_rootfs_size_test.go).
TEMPLATE_SIZE = 20 * 1024**3

TOMBSTONES = "tombstones.txt"
CONTENTS = "sandbox.contents"
MOUNTS = "sandbox.mounts.json"
MOUNTS_LOCK = "sandbox.mounts.lock"
HIVES = ("DefaultUser_Base", "Sam_Base", "Security_Base", "Software_Base", "System_Base")

_TOMBSTONES_HEADER = "\ufeffVersion 1.0"
_MARKER = b"A stand-in of the emulated layer store.\n"

# The states of a mount. A record is written before the target is touched, and
# says SAVED once the scratch holds all that was written there, if anything was.
_FILLING = "filling"
_MOUNTED = "mounted"
_SAVED = "saved"


class EmulatedLayers(LayerStore):
    """The layer store of hosts without Windows containers; see the module's text."""

    name = "emulated"

    # -- paths ---------------------------------------------------------------

    def native(self, path: str) -> str:
        return drives.to_native(path)

    def native_source(self, path: str) -> str:
        return drives.to_native(path, shares=True)

    def presented(self, path: str) -> str:
        return drives.to_presented(path)

    def filesystem_type(self, path: str) -> str:
        return os.environ.get(FILESYSTEM_VARIABLE) or "NTFS"

    # -- making scratch disks ------------------------------------------------

    def create_base(self, directory: str) -> None:
        with self._told("cannot make a base layer in", directory):
            os.mkdir(os.path.join(directory, FILES))
            failpoint("base.made")
            sync_directory(directory)

    def create_scratch(self, directory: str, parents: Sequence[str], size: int) -> None:
        from .diskcopy import copy_disk

        template = self.template_info(parents)
        copy_disk(template.path, os.path.join(directory, SCRATCH), size if size > template.virtual_size else 0)

    def grow_scratch(self, directory: str, size: int) -> ScratchInfo:
        from ..formats import vhdx

        found = self.scratch_info(directory)
        if found is None:
            raise NotFound(f"{self.presented(directory)} has no scratch disk")
        if size <= found.virtual_size:
            return found
        vhdx.grow(found.path, size)
        return disk_info(found.path, found.attached)

    def scratch_info(self, directory: str) -> Optional[ScratchInfo]:
        scratch = os.path.join(directory, SCRATCH)
        if not os.path.lexists(scratch):
            return None
        return disk_info(scratch, attached=bool(self.mounted_at(directory)))

    # -- layers --------------------------------------------------------------

    def convert(self, directory: str, parents: Sequence[str]) -> None:
        """See the base class. The new ``Files`` share their bytes with the scratch's contents.

        They may, for neither is ever edited in place, only replaced. A layer
        that is mounted for writing is refused, for what is written at the
        target is not yet in the scratch.
        """
        self._refuse_mounted_for_writing(directory)
        files = os.path.join(directory, FILES)
        with self._told("cannot convert layer", directory):
            filetree.settle(files)
            if os.path.lexists(os.path.join(directory, SCRATCH)):
                own = self._own(directory)
                failpoint("convert.new")
                with _replacement(files) as new:
                    filetree.write_children(_own_tree(own), new, hard_links=True)
                failpoint("convert.tombstones")
                _write_tombstones(directory, _read_tombstones(own))
            elif not os.path.isdir(files):
                raise FailedPrecondition(f"{self.presented(directory)} has neither a scratch disk nor {FILES}")
            elif not parents:
                self._finish_base(directory)

    def import_layer(
        self, directory: str, parents: Sequence[str], stream: BinaryIO, progress: Optional[Callable[[int], None]] = None
    ) -> ImportResult:
        from .emulated_tar import unpack

        with self._told("cannot import a layer into", directory):
            if os.listdir(directory):
                raise FailedPrecondition(
                    f"{self.presented(directory)} is not empty: a layer is imported into a new one"
                )
            try:
                result, tombstones = unpack(directory, parents, stream, progress)
                if parents:
                    _write_tombstones(directory, tombstones)
                else:
                    self._finish_base(directory)
                failpoint("import.flush")
                filetree.sync(directory)
                failpoint("import.flushed")
            except BaseException:
                failpoint("import.empty")
                filetree.empty(directory)
                raise
        return result

    def export_layer(self, directory: str, parents: Sequence[str], stream: BinaryIO) -> None:
        from .emulated_tar import pack

        with self._told("cannot export layer", directory):
            own = self._own(directory)
            pack(directory, _own_tree(own), _read_tombstones(own), parents, stream)

    def _finish_base(self, directory: str) -> None:
        """Make what vmcompute's ProcessBaseImage and ProcessUtilityImage make. May be done again."""
        hives = os.path.join(directory, "Hives")
        failpoint("base.hives")
        os.makedirs(hives, exist_ok=True)
        for place in [*(os.path.join(hives, name) for name in HIVES), os.path.join(directory, "Layout")]:
            if not os.path.lexists(place):
                _write_file(place, _MARKER)
        self._make_templates(directory, "blank-base.vhdx", BLANK)
        utility_vm = os.path.join(directory, UTILITY_VM)
        if os.path.isdir(os.path.join(utility_vm, FILES)):
            self._make_templates(utility_vm, "SystemTemplateBase.vhdx", UVM_TEMPLATE)

    def _make_templates(self, directory: str, *names: str) -> None:
        from ..formats import vhdx

        for name in names:
            place = os.path.join(directory, name)
            if not os.path.lexists(place):
                new = place + ".new"
                filetree.remove(new)
                vhdx.create(new, TEMPLATE_SIZE)
                failpoint("base.template")
                os.rename(new, place)
                failpoint("base.templated")
                sync_directory(directory)

    # -- mounts --------------------------------------------------------------

    def mount(self, directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
        """See the base class. A read-only mount has no write bits.

        Root may ignore them: what is written there is thrown away at the unmount.
        """
        target = os.path.abspath(target)
        self._check_target(target, [directory, *parents])
        wanted = {
            "directory": os.path.realpath(directory),
            "parents": [os.path.realpath(parent) for parent in parents],
            "target": target,
            "read_only": read_only,
        }
        with self._told("cannot mount at", target), self._mounting(directory):
            found = _read_json(_record_path(target))
            if found and {**found, **wanted} != found:
                raise FailedPrecondition(
                    f"{self.presented(target)} is a mount of {self.presented(found['directory'])} already"
                    f" ({'read-only' if found['read_only'] else 'for writing'}): unmount it first"
                )
            if found and found["state"] == _MOUNTED:
                return
            if found:
                # A dead process left it half made or half undone.
                self._undo_mount(found)
            if not read_only:
                self._check_writable(directory, parents)
            tree = self._merged(parents)
            own = self._own(directory)
            filetree.overlay(tree, _own_tree(own), _read_tombstones(own))
            made = not os.path.lexists(target)
            failpoint("mount.target")
            if made:
                os.makedirs(target)
            elif not stat.S_ISDIR(os.lstat(target).st_mode) or os.listdir(target):
                raise FailedPrecondition(
                    f"{self.presented(target)} is not an empty directory: nothing can be mounted there"
                )
            try:
                _write_json(os.path.join(directory, MOUNTS), [*self.mounted_at(directory), target])
                self._fill(tree, wanted)
            except BaseException:
                if made:
                    with contextlib.suppress(OSError):
                        os.rmdir(target)
                raise

    def _fill(self, tree: filetree.Node, record: Dict[str, Any]) -> None:
        """Claim the target of a mount, which is an empty directory, and make the tree there; or neither."""
        target = record["target"]
        filling = {**record, "state": _FILLING}
        failpoint("mount.claim")
        _claim_json(_record_path(target), filling)
        failpoint("mount.fill")
        try:
            filetree.write_children(tree, target, read_only=record["read_only"])
            # What a power cut took would look as if it had been deleted there.
            filetree.sync(target)
            failpoint("mount.filled")
            _write_json(_record_path(target), {**record, "state": _MOUNTED})
        except BaseException:
            self._undo_mount(filling)
            raise

    def unmount(self, target: str) -> None:
        target = os.path.abspath(target)
        with self._told("cannot unmount", target):
            record = _read_json(_record_path(target))
            if not record:
                return
            with self._mounting(record["directory"]):
                # Another process may have been faster.
                record = _read_json(_record_path(target))
                if record:
                    self._undo_mount({**record, "target": target})

    def _undo_mount(self, record: Dict[str, Any]) -> None:
        target, directory = record["target"], record["directory"]
        place = _record_path(target)
        if os.path.isdir(target):
            if record["state"] == _MOUNTED:
                if not record["read_only"]:
                    self._save(directory, record["parents"], target)
                failpoint("unmount.saved")
                _write_json(place, {**record, "state": _SAVED})
            failpoint("unmount.empty")
            filetree.empty(target)
        failpoint("unmount.forget")
        os.unlink(place)
        failpoint("unmount.forgotten")
        sync_directory(os.path.dirname(place))
        if os.path.isdir(directory):
            _write_json(os.path.join(directory, MOUNTS), self.mounted_at(directory))

    def mounted_layer(self, target: str) -> Optional[str]:
        record = _read_json(_record_path(os.path.abspath(target)))
        return record["directory"] if record else None

    def mounted_at(self, directory: str) -> List[str]:
        return [record["target"] for record in self._records(directory)]

    def is_mounted(self, directory: str, target: str) -> bool:
        record = _read_json(_record_path(os.path.abspath(target)))
        return super().is_mounted(directory, target) and record is not None and record["state"] == _MOUNTED

    def _records(self, directory: str) -> List[Dict[str, Any]]:
        """The mounts of a layer: the targets that it lists and whose own records agree."""
        targets = _read_json(os.path.join(directory, MOUNTS)) or []
        records = [_read_json(_record_path(target)) for target in targets]
        real = os.path.realpath(directory)
        return [record for record in records if record and record["directory"] == real]

    @contextlib.contextmanager
    def _mounting(self, directory: str) -> Iterator[None]:
        """Keep other processes from mounting or unmounting the same layer meanwhile."""
        lock = FileLock(os.path.join(directory, MOUNTS_LOCK))
        # A lock would make the directory of a layer that is gone.
        if os.path.isdir(directory) and not lock.acquire():
            raise Unavailable(
                f"{self.presented(directory)} is being mounted or unmounted by another process: try again"
            )
        with lock:
            yield

    def _check_target(self, target: str, layers: List[str]) -> None:
        if os.path.dirname(target) == target:
            raise InvalidArgument(f"{self.presented(target)} is the root of a volume: mount at a directory below it")
        above = os.path.dirname(target)
        while os.path.dirname(above) != above:
            if os.path.lexists(_record_path(above)):
                raise InvalidArgument(
                    f"{self.presented(target)} lies in the mount at {self.presented(above)}: mount somewhere else"
                )
            above = os.path.dirname(above)
        real = os.path.join(os.path.realpath(target), "")
        for layer in layers:
            other = os.path.join(os.path.realpath(layer), "")
            if real.startswith(other) or other.startswith(real):
                raise InvalidArgument(
                    f"mount target {self.presented(target)} and layer {self.presented(layer)} lie in one another:"
                    " mount somewhere else"
                )

    def _check_writable(self, directory: str, parents: Sequence[str]) -> None:
        # Without parents it may be a base in the making, also one whose conversion was for nothing.
        if parents and not os.path.lexists(os.path.join(directory, SCRATCH)):
            raise FailedPrecondition(
                f"{self.presented(directory)} is a read-only layer: mount it read-only, or prepare a snapshot of it"
            )
        self._refuse_mounted_for_writing(directory)

    def _refuse_mounted_for_writing(self, directory: str) -> None:
        for record in self._records(directory):
            if not record["read_only"]:
                raise FailedPrecondition(
                    f"{self.presented(directory)} is mounted for writing at {self.presented(record['target'])}:"
                    " unmount it first"
                )

    def _save(self, directory: str, parents: Sequence[str], target: str) -> None:
        """Take what is at the target into the scratch (or the base in the making)."""
        if not os.path.isdir(directory):
            raise FailedPrecondition(
                f"the layer {self.presented(directory)} is gone, so there is no place for what was written to "
                f"{self.presented(target)}: move it elsewhere and delete {self.presented(_record_path(target))}"
            )
        present = filetree.scan(target)
        if os.path.lexists(os.path.join(directory, SCRATCH)):
            place = os.path.join(directory, CONTENTS)
            filetree.settle(place)
            difference = filetree.compare(self._merged(parents), present)
            failpoint("save.new")
            with _replacement(place) as new:
                os.mkdir(os.path.join(new, FILES))
                filetree.write_children(difference.changes, os.path.join(new, FILES))
                _write_tombstones(new, difference.tombstones)
        else:
            place = os.path.join(directory, FILES)
            filetree.settle(place)
            failpoint("save.new")
            with _replacement(place) as new:
                filetree.write_children(present, new)

    def _merged(self, parents: Sequence[str]) -> filetree.Node:
        """The tree of a chain of read-only layers, nearest first."""
        if not parents:
            return filetree.empty_tree()
        base, *others = reversed(parents)
        tree = filetree.scan(os.path.join(base, FILES))
        for parent in others:
            filetree.overlay(tree, filetree.scan(os.path.join(parent, FILES)), _read_tombstones(parent))
        return tree

    def _own(self, directory: str) -> str:
        """Where a layer's own Files and tombstones.txt lie: beside its scratch disk, or in itself."""
        if os.path.lexists(os.path.join(directory, SCRATCH)):
            contents = os.path.join(directory, CONTENTS)
            filetree.settle(contents)
            return contents
        filetree.settle(os.path.join(directory, FILES))
        return directory

    # -- the end -------------------------------------------------------------

    def destroy(self, directory: str) -> None:
        with self._told("cannot delete layer", directory):
            filetree.remove(directory)

    def holders(self, directory: str) -> List[str]:
        from .open_files import users

        found = []
        with contextlib.suppress(OSError, SnapshotterError):
            found = [f"mounted at {self.presented(target)}" for target in self.mounted_at(directory)]
        return found + users(directory)

    def survey(self, directory: str) -> Survey:
        if not os.path.isdir(directory):
            raise NotFound(f"layer directory {self.presented(directory)} does not exist")
        with self._told("cannot measure", directory):
            return filetree.survey(directory)

    def unsettled(self, directory: str) -> str:
        halves = [record["target"] for record in self._records(directory) if record["state"] != _MOUNTED]
        return f"a mount of it at {self.presented(halves[0])} was interrupted" if halves else ""

    def settle(self, directory: str) -> None:
        for record in self._records(directory):
            if record["state"] != _MOUNTED:
                self.unmount(record["target"])

    # -- errors --------------------------------------------------------------

    @contextlib.contextmanager
    def _told(self, action: str, path: str) -> Iterator[None]:
        """Turn an operating system's error into one of ours that says what was tried."""
        try:
            yield
        except OSError as error:
            where = error.filename if isinstance(error.filename, str) and error.filename != path else ""
            what = f"{action} {self.presented(path)}" + (f": {self.presented(where)}" if where else "")
            raise os_error(error, what, path=self.presented(path)) from error


@contextlib.contextmanager
def _replacement(path: str) -> Iterator[str]:
    """An empty directory to fill, which then takes the place of ``path``; on an error it is removed."""
    new = path + ".new"
    os.mkdir(new)
    try:
        yield new
        filetree.sync(new)
    except BaseException:
        filetree.remove(new)
        raise
    filetree.replace(new, path)


def _own_tree(own: str) -> filetree.Node:
    """What lies in the Files of ``_own``'s answer; a scratch disk that was never written has none."""
    files = os.path.join(own, FILES)
    return filetree.scan(files) if os.path.isdir(files) else filetree.empty_tree()


def _record_path(target: str) -> str:
    return os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.wcow-mount.json")


def _read_tombstones(directory: str) -> List[str]:
    path = os.path.join(directory, TOMBSTONES)
    try:
        with open(path, encoding="utf-8") as file:
            header, *lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        header, lines = "", []
    if header != _TOMBSTONES_HEADER:
        raise FailedPrecondition(f"invalid tombstones file {path}: it must be UTF-8 and begin with Version 1.0")
    return [line for line in lines if line]


def _write_tombstones(directory: str, paths: List[str]) -> None:
    _write_file(os.path.join(directory, TOMBSTONES), "\n".join([_TOMBSTONES_HEADER, *paths, ""]).encode())


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding="ascii") as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise FailedPrecondition(
            f"{path} is damaged: look into it, and delete it if nothing is mounted there"
        ) from None


def _write_json(path: str, value: object) -> None:
    _write_file(path, json.dumps(value).encode("ascii"))


def _claim_json(path: str, value: object) -> None:
    """Write a file that must not exist, all of it or nothing."""
    new = f"{path}.{os.getpid()}"
    _write_json(new, value)
    failpoint("claim.link")
    try:
        filetree.link(new, path)
        failpoint("claim.linked")
    finally:
        os.unlink(new)


def _write_file(path: str, data: bytes) -> None:
    """Replace a file, durably, so that a reader finds the old or the new one."""
    new = path + ".new"
    failpoint("file.write")
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            failpoint("file.flush")
            os.fsync(file.fileno())
        failpoint("file.rename")
        os.replace(new, path)
    except BaseException:
        filetree.remove(new)
        raise
    failpoint("file.renamed")
    sync_directory(os.path.dirname(path))
