# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounting a layer at a directory: attached, and its volume bound there by bindflt.

Mappings and attachments are gone after a reboot, files are not. So a mount is
recorded three times (containerd core/mount/mount_windows.go has the second):

* in the layer directory, in ``attachment.json``;
* in the stream ``containerd.io-source`` of the target, written and read
  through the mapping: where it names the layer, the mount is there. containerd
  finds its layer by it, so that ``ctr`` can unmount what is mounted here;
* in the stream ``wcow.snapshotter-layer`` of the target directory itself,
  which the mapping hides: what an unmount that failed half-way goes on with.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import List, Optional, Sequence

from ..errors import FailedPrecondition, InvalidArgument, SnapshotterError
from ..failpoint import failpoint
from ..win32 import bindflt, vmcompute
from . import windows_attachment as attachment
from .base import FILES, SCRATCH

SOURCE = "containerd.io-source"
_LAYER = "wcow.snapshotter-layer"


def mount(directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
    """See ``LayerStore.mount``. A layer can be mounted at one place only."""
    found = attachment.read(directory)
    if found and mounted_at(directory):
        if _same(found.target, target) and found.read_only == read_only:
            return
        raise FailedPrecondition(
            f"{directory} is mounted at {found.target} already ({'read-only' if found.read_only else 'for writing'}): "
            "unmount it first"
        )
    # First, for where a dead process has bound the target already, it looks like a part of the layer.
    settle(directory)
    _check_target(target, [directory, *parents])
    if not read_only:
        _check_writable(directory, parents)
    source = _read_stream(target, SOURCE)
    if source and _is_mounted(source, target):
        raise FailedPrecondition(f"{target} is a mount of {source} already: unmount it first")
    made = not os.path.lexists(target)
    failpoint("mount.target")
    if made:
        os.makedirs(target)
    elif not stat.S_ISDIR(os.lstat(target).st_mode) or os.listdir(target):
        raise FailedPrecondition(f"{target} is not an empty directory: nothing can be mounted there")
    try:
        attachment.note(directory, attachment.Attachment(target, read_only))
        try:
            _write_stream(target, _LAYER, directory)
            attachment.attach(directory, parents)
        except BaseException:
            _forget_mount(directory, target)
            raise
        _bind(directory, parents, target, read_only)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(target)
        raise


def _bind(directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
    """Show an attached layer at the target; on any error it is detached again."""
    mapped = False
    try:
        with attachment.prefixed(f"failed to get layer mount path for {directory}"):
            volume = vmcompute.get_layer_mount_path(directory)
        if not parents:
            volume = os.path.join(volume, FILES)
            if not os.path.isdir(volume):
                raise FailedPrecondition(f"failed to find layer {directory}'s {FILES}: {volume} does not exist")
        elif not volume.endswith("\\"):
            volume += "\\"
        flags = bindflt.NO_MULTIPLE_TARGETS | (bindflt.READ_ONLY_MAPPING if read_only else 0)
        failed = f"failed to set volume mount path for layer {directory}: failed to bind target"
        with attachment.prefixed(f'{failed} "{volume}" to root "{target}"'):
            bindflt.setup_filter(target, volume, flags)
        mapped = True
        try:
            _write_stream(target, SOURCE, directory)
        except OSError as error:
            raise FailedPrecondition(f"failed to record source for layer {directory}: {error.strerror}") from error
    except BaseException:
        # If this fails too, the note stays, and the next operation on the layer goes on.
        with contextlib.suppress(SnapshotterError):
            if mapped:
                attachment.remove_mapping(target)
            attachment.detach(directory)
            _forget_mount(directory, target)
        raise


def unmount(target: str) -> None:
    """See ``LayerStore.unmount``. What failed half-way is continued when it is called again."""
    if not os.path.lexists(target):
        return
    source = _read_stream(target, SOURCE)
    mapped = attachment.remove_mapping(target)
    layer = _read_stream(target, _LAYER)
    if mapped and (source or layer):
        attachment.detach(source or layer)
    elif _is_noted(layer, target):
        with attachment.prefixed(f"failed to detach layer {layer}"):
            attachment.release(layer, prepared=True)
    if source or layer:
        _forget_mount(source or layer, target)


def settle(directory: str) -> None:
    """Undo what a dead process, an error or a reboot left of a mount or of other work on an attached layer."""
    found = attachment.read(directory)
    if found is None:
        return
    source = found.target and _read_stream(found.target, SOURCE)
    if found.target and (not source or _same(source, directory)):
        attachment.remove_mapping(found.target)
    with attachment.prefixed(f"failed to detach layer {directory}, which was left attached"):
        attachment.release(directory, prepared=bool(found.target))
    _forget_mount(directory, found.target)


def _forget_mount(directory: str, target: str) -> None:
    for path in (target, os.path.join(directory, FILES)):
        if _same(_read_stream(path, SOURCE), directory):
            _delete_stream(path, SOURCE)
    if _same(_read_stream(target, _LAYER), directory):
        _delete_stream(target, _LAYER)
    if _is_noted(directory, target):
        attachment.forget(directory)


def mounted_layer(target: str) -> Optional[str]:
    """The layer that is mounted at a target, or was before something went wrong."""
    layer = _read_stream(target, _LAYER)
    return _read_stream(target, SOURCE) or (layer if _is_noted(layer, target) else None)


def mounted_at(directory: str) -> List[str]:
    """The one target where the layer is mounted now, if any."""
    found = attachment.read(directory)
    return [found.target] if found and _is_mounted(directory, found.target) else []


def _is_mounted(directory: str, target: str) -> bool:
    return _is_noted(directory, target) and _same(_read_stream(target, SOURCE), directory)


def _is_noted(directory: str, target: str) -> bool:
    found = attachment.read(directory) if directory else None
    return found is not None and _same(found.target, target)


def _same(one: str, other: str) -> bool:
    return os.path.normcase(one) == os.path.normcase(other)


def _check_target(target: str, layers: List[str]) -> None:
    if os.path.dirname(target) == target:
        raise InvalidArgument(f"{target} is the root of a volume: mount at a directory below it")
    above = os.path.dirname(target)
    while os.path.dirname(above) != above:
        if _read_stream(above, SOURCE):
            raise InvalidArgument(f"{target} lies in the mount at {above}: mount somewhere else")
        above = os.path.dirname(above)
    place = os.path.join(os.path.normcase(os.path.realpath(target)), "")
    for layer in layers:
        other = os.path.join(os.path.normcase(os.path.realpath(layer)), "")
        if place.startswith(other) or other.startswith(place):
            raise InvalidArgument(f"mount target {target} and layer {layer} lie in one another: mount somewhere else")


def _check_writable(directory: str, parents: Sequence[str]) -> None:
    # Without parents it may be a base in the making, also one whose conversion was for nothing.
    if parents and not os.path.lexists(os.path.join(directory, SCRATCH)):
        raise FailedPrecondition(f"{directory} is a read-only layer: mount it read-only, or prepare a snapshot of it")


# -- alternate streams ---------------------------------------------------------


def _read_stream(path: str, name: str) -> str:
    """The text of an alternate stream, empty if there is none."""
    try:
        with open(f"{path}:{name}", encoding="utf-8") as stream:
            return stream.read()
    except (OSError, ValueError):
        return ""


def _write_stream(path: str, name: str, text: str) -> None:
    failpoint("stream.write")
    with open(f"{path}:{name}", "w", encoding="utf-8", newline="") as stream:
        stream.write(text)


def _delete_stream(path: str, name: str) -> None:
    failpoint("stream.delete")
    with contextlib.suppress(OSError):
        os.unlink(f"{path}:{name}")
