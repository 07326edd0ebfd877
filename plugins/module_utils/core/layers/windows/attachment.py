# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach and detach layers: ActivateLayer and PrepareLayer, and the calls that undo them."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator, Sequence

from ...errors import SnapshotterError, Unavailable
from ...files import translating_os_errors
from ...lock import FileLock
from ...win32 import bindflt, vmcompute
from ...win32.errors import (
    ERROR_ALREADY_EXISTS,
    ERROR_DEVICE_NOT_CONNECTED,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_FOUND,
    ERROR_NOT_READY,
    ERROR_PATH_NOT_FOUND,
    Win32Error,
)
from . import record

# BfRemoveMapping of a path that is not a mapping (go-winio pkg/bindfilter).
_NOT_MAPPED = (ERROR_INVALID_PARAMETER, ERROR_NOT_FOUND)

# Windows Server 2019 under load; a retry succeeds (hcsshim internal/layers/wcow_mount.go).
_TRANSIENT = (ERROR_NOT_READY, ERROR_DEVICE_NOT_CONNECTED)
_ATTEMPTS = 5
_PAUSE = 0.1

# DeactivateLayer of a layer that is not attached.
_NOT_ATTACHED = (
    ERROR_FILE_NOT_FOUND,
    ERROR_PATH_NOT_FOUND,
    ERROR_NOT_READY,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_FOUND,
)

# PrepareLayer itself times out after about four minutes.
_LOCK_SECONDS = 300


@contextlib.contextmanager
def add_context(text: str) -> Iterator[None]:
    """Put ``text: `` before the message of a SnapshotterError."""
    try:
        yield
    except SnapshotterError as error:
        raise error.with_context(text) from error


def attach(directory: str, parents: Sequence[str]) -> None:
    """ActivateLayer and PrepareLayer. After an error the layer is as it was before; it must have its record.

    The two codes that Windows returns under load are retried, up to five
    attempts in all.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _attach(directory, parents)
            return
        except Win32Error as error:
            if error.winerror not in _TRANSIENT:
                raise
            if attempt == _ATTEMPTS:
                raise error.with_context("layer retry loop failed") from error
        time.sleep(_PAUSE)


def _attach(directory: str, parents: Sequence[str]) -> None:
    with add_context(f"failed to activate layer {directory}"):
        vmcompute.activate_layer(directory)
    try:
        with add_context(f"failed to prepare layer {directory}"), _lock_prepare():
            vmcompute.prepare_layer(directory, parents)
    except BaseException as error:
        if not _is_foreign(error):
            # After a time-out the layer may be prepared all the same.
            with contextlib.suppress(Win32Error):
                release(directory)
        raise


def _is_foreign(error: BaseException) -> bool:
    """Whether PrepareLayer failed because another process has the layer prepared.

    Not even our own activation is undone then: the other process has the disk
    from the same activation, and a container may run on it.
    """
    return isinstance(error, Win32Error) and error.winerror == ERROR_ALREADY_EXISTS


@contextlib.contextmanager
def _lock_prepare() -> Iterator[None]:
    """Allow one PrepareLayer at a time on a host: concurrent calls time out (moby#27588).

    The lock file is in a directory where only administrators can create files,
    so that no other account can create it first and hold the lock. It does not
    cover containerd: the lock of hcsshim is internal to containerd's process.
    """
    programs = os.environ.get("PROGRAMW6432") or os.environ.get("PROGRAMFILES", r"C:\Program Files")
    path = os.path.join(programs, "wcow", "locks", "prepare-layer")
    lock = FileLock(path)
    with translating_os_errors("cannot lock", path):
        # Every account that can open the file can hold the lock. From 3.12.4 on, Python makes an ACL of the mode.
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        acquired = lock.acquire(_LOCK_SECONDS)
    if not acquired:
        raise Unavailable(
            f"{path} has been held for {_LOCK_SECONDS} seconds: other layers are being prepared; run the task again"
        )
    with lock:
        yield


def detach(directory: str) -> None:
    """UnprepareLayer and DeactivateLayer of a prepared layer. Raises the first error."""
    with add_context(f"failed to unprepare layer {directory}"):
        vmcompute.unprepare_layer(directory)
    with add_context(f"failed to deactivate layer {directory}"):
        vmcompute.deactivate_layer(directory)


def release(directory: str, *, prepared: bool = False, missing_ok: bool = True) -> None:
    """Detach a layer that may be prepared, only active, or neither.

    Unless the layer is known to be prepared, DeactivateLayer is tried first:
    it is the only call needed after an interrupted conversion, and it refuses
    a prepared layer. UnprepareLayer follows only if the layer may be attached
    by us: it would take the files from a container of another program. Raises
    the last error of DeactivateLayer. A layer that is not active is an error
    only if ``missing_ok`` is false.
    """
    if prepared:
        with contextlib.suppress(Win32Error):
            vmcompute.unprepare_layer(directory)
    try:
        vmcompute.deactivate_layer(directory)
    except Win32Error as error:
        if error.winerror in _NOT_ATTACHED:
            if missing_ok:
                return
            raise
        if prepared or not record.may_be_attached(directory):
            raise
        release(directory, prepared=True, missing_ok=missing_ok)


def remove_mapping(target: str) -> bool:
    """BfRemoveMapping; return False if there was no mapping."""
    try:
        bindflt.remove_mapping(target)
    except Win32Error as error:
        if error.winerror not in _NOT_MAPPED:
            raise error.with_context(f"failed to unmount {target}") from error
        return False
    return True


@contextlib.contextmanager
def activate_for_export(directory: str, parents: Sequence[str]) -> Iterator[None]:
    """Bring a layer into the state in which ExportLayer works: active, and prepared once before.

    The layer is deactivated at the end of the block. If Windows refuses that,
    the record stays, and the next operation on the layer tries again.
    """
    record.write(directory, record.Attachment("", read_only=False))
    try:
        attach(directory, parents)
    except BaseException:
        record.delete(directory)
        raise
    try:
        with add_context(f"failed to unprepare layer {directory}"):
            vmcompute.unprepare_layer(directory)
        yield
    finally:
        try:
            release(directory)
        except Win32Error:
            pass
        else:
            record.delete(directory)
