# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount a layer at a directory: attach it and bind its volume there with bindflt.

Mappings and attachments are gone after a restart, files are not. So a mount is
recorded in three places (containerd core/mount/mount_windows.go has the second):

* in the layer directory, in ``attachment.json``, see record.py;
* in the stream ``containerd.io-source`` of the target, written and read
  through the mapping: if it names the layer, the mount is there. containerd
  finds its layer by it, so ``ctr`` can unmount what is mounted here;
* in the stream ``wcow.snapshotter-layer`` of the target directory itself,
  which the mapping hides: an unmount that failed half-way continues from it.
"""

from __future__ import annotations

import contextlib
import os
from typing import List, Optional, Sequence

from ...errors import FailedPrecondition, SnapshotterError
from ...failpoint import failpoint
from ...formats.ntfsnames import path_key
from ...win32 import bindflt, vmcompute
from .. import mount_rules
from ..base import FILES
from . import attachment, record

#: The stream that containerd reads, too.
SOURCE_STREAM = "containerd.io-source"
_LAYER_STREAM = "wcow.snapshotter-layer"


def mount(directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
    """See ``LayerStore.mount``. A layer can be mounted at one target only. Raises OSError, too."""
    found = record.read(directory)
    if found and mounted_at(directory):
        if _is_same(found.target, target) and found.read_only == read_only:
            return
        raise FailedPrecondition(
            f"{directory} is mounted at {found.target} already ({'read-only' if found.read_only else 'for writing'}): "
            "unmount it first"
        )
    # First, because a target that an ended process has bound looks like a part of the layer.
    finish_interrupted_work(directory)
    mount_rules.check_target(target, [directory, *parents], _has_source)
    if not read_only:
        mount_rules.check_writable(directory, parents)
    source = _read_stream(target, SOURCE_STREAM)
    if source and _is_mounted(source, target):
        raise FailedPrecondition(f"{target} is a mount of {source} already: unmount it first")
    created = mount_rules.make_target(target)
    try:
        record.write(directory, record.Attachment(target, read_only))
        try:
            _write_stream(target, _LAYER_STREAM, directory)
            attachment.attach(directory, parents)
        except BaseException:
            _delete_records(directory, target)
            raise
        _bind(directory, parents, target, read_only)
    except BaseException:
        if created:
            with contextlib.suppress(OSError):
                os.rmdir(target)
        raise


def _bind(directory: str, parents: Sequence[str], target: str, read_only: bool) -> None:
    """Show an attached layer at the target; on any error detach it again."""
    mapped = False
    try:
        with attachment.add_context(f"failed to get layer mount path for {directory}"):
            volume = vmcompute.get_layer_mount_path(directory)
        if not parents:
            volume = os.path.join(volume, FILES)
            if not os.path.isdir(volume):
                raise FailedPrecondition(f"failed to find layer {directory}'s {FILES}: {volume} does not exist")
        elif not volume.endswith("\\"):
            volume += "\\"
        flags = bindflt.NO_MULTIPLE_TARGETS | (bindflt.READ_ONLY_MAPPING if read_only else 0)
        failed = f"failed to set volume mount path for layer {directory}: failed to bind target"
        with attachment.add_context(f'{failed} "{volume}" to root "{target}"'):
            bindflt.setup_filter(target, volume, flags)
        mapped = True
        try:
            _write_stream(target, SOURCE_STREAM, directory)
        except OSError as error:
            raise FailedPrecondition(f"failed to record source for layer {directory}: {error.strerror}") from error
    except BaseException:
        # If this fails too, the record stays, and the next operation on the layer continues.
        with contextlib.suppress(SnapshotterError):
            if mapped:
                attachment.remove_mapping(target)
            attachment.detach(directory)
            _delete_records(directory, target)
        raise


def unmount(target: str) -> None:
    """See ``LayerStore.unmount``. A call that failed half-way can be repeated."""
    if not os.path.lexists(target):
        return
    source = _read_stream(target, SOURCE_STREAM)
    mapped = attachment.remove_mapping(target)
    layer = _read_stream(target, _LAYER_STREAM)
    is_ours = _is_recorded(layer, target) and record.may_be_attached(layer)
    # What runs in the layer can write the stream of its root, but not the stream that the mapping hides.
    mounted = layer if is_ours else source or layer
    if mapped and mounted:
        attachment.detach(mounted)
    elif is_ours:
        with attachment.add_context(f"failed to detach layer {layer}"):
            attachment.release(layer, prepared=True)
    for directory in filter(None, {layer, source}):
        _delete_records(directory, target)


def finish_interrupted_work(directory: str) -> None:
    """Undo what an ended process, an error or a restart left of a mount or of other work on an attached layer."""
    found = record.read(directory)
    if found is None:
        return
    source = found.target and _read_stream(found.target, SOURCE_STREAM)
    if found.target and (not source or _is_same(source, directory)):
        attachment.remove_mapping(found.target)
    if record.may_be_attached(directory):
        with attachment.add_context(f"failed to detach layer {directory}, which was left attached"):
            attachment.release(directory, prepared=bool(found.target))
    _delete_records(directory, found.target)


def _delete_records(directory: str, target: str) -> None:
    for path in (target, os.path.join(directory, FILES)):
        if _is_same(_read_stream(path, SOURCE_STREAM), directory):
            _delete_stream(path, SOURCE_STREAM)
    if _is_same(_read_stream(target, _LAYER_STREAM), directory):
        _delete_stream(target, _LAYER_STREAM)
    if _is_recorded(directory, target):
        record.delete(directory)


# -- what is mounted -----------------------------------------------------------


def mounted_layer(target: str) -> Optional[str]:
    """The layer that is mounted at a target, or whose mount there was interrupted."""
    layer = _read_stream(target, _LAYER_STREAM)
    return _read_stream(target, SOURCE_STREAM) or (layer if _is_recorded(layer, target) else None)


def mounted_at(directory: str) -> List[str]:
    """The one target where the layer is mounted now, if any."""
    found = record.read(directory)
    return [found.target] if found and _is_mounted(directory, found.target) else []


def _is_mounted(directory: str, target: str) -> bool:
    return _is_recorded(directory, target) and _is_same(_read_stream(target, SOURCE_STREAM), directory)


def _is_recorded(directory: str, target: str) -> bool:
    found = record.read(directory) if directory else None
    return found is not None and _is_same(found.target, target)


def _has_source(target: str) -> bool:
    return bool(_read_stream(target, SOURCE_STREAM))


def _is_same(one: str, other: str) -> bool:
    return path_key(one) == path_key(other)


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
