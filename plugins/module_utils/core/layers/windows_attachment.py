# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attaching layers: ActivateLayer and PrepareLayer, what undoes them, and the volume that they make.

Windows keeps a layer attached beyond the end of the process that did it, so
each attachment is noted in the layer directory first, in ``attachment.json``,
and whoever finds such a note that belongs to no mount undoes what it tells of.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Iterator, NamedTuple, Optional, Sequence

from ..errors import FailedPrecondition, SnapshotterError, Unavailable, os_error
from ..failpoint import failpoint
from ..lock import FileLock
from ..win32 import bindflt, vmcompute
from ..win32.errors import (
    ERROR_DEVICE_NOT_CONNECTED,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_FOUND,
    ERROR_NOT_READY,
    ERROR_PATH_NOT_FOUND,
    Win32Error,
)
from .windows import RECORD

# What BfRemoveMapping says of a path that is no mapping (go-winio pkg/bindfilter).
_NOT_MAPPED = (ERROR_INVALID_PARAMETER, ERROR_NOT_FOUND)

# Windows Server 2019 under load; the pair succeeds when tried again (hcsshim internal/layers/wcow_mount.go).
_TRANSIENT = (ERROR_NOT_READY, ERROR_DEVICE_NOT_CONNECTED)
_ATTEMPTS = 5
_PAUSE = 0.1

# Of a layer that is not attached: nothing is left to undo.
_NOT_ATTACHED = (
    ERROR_FILE_NOT_FOUND,
    ERROR_PATH_NOT_FOUND,
    ERROR_NOT_READY,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_FOUND,
)

# PrepareLayer itself gives up after some four minutes.
_LOCK_SECONDS = 300


class Attachment(NamedTuple):
    """The note of an attachment: the mount's target and kind, an empty target for other work."""

    target: str
    read_only: bool


@contextlib.contextmanager
def prefixed(text: str) -> Iterator[None]:
    """Put ``text: `` before the message of an error of ours."""
    try:
        yield
    except SnapshotterError as error:
        raise error.prefixed(text) from error


# -- the note ----------------------------------------------------------------


def read(directory: str) -> Optional[Attachment]:
    """The note in a layer directory, None without one. Raises FailedPrecondition for a damaged one."""
    path = os.path.join(directory, RECORD)
    try:
        with open(path, encoding="utf-8") as file:
            return Attachment(**json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise FailedPrecondition(f"{path} is damaged: delete it if the layer is not mounted", path=path) from None


def note(directory: str, attachment: Attachment) -> None:
    """Write the note, durably and as a whole."""
    path = os.path.join(directory, RECORD)
    new = path + ".new"
    failpoint("note.write")
    with open(new, "w", encoding="utf-8") as file:
        json.dump(attachment._asdict(), file)
        file.flush()
        failpoint("note.flush")
        os.fsync(file.fileno())
    failpoint("note.rename")
    os.replace(new, path)
    failpoint("note.renamed")


def forget(directory: str) -> None:
    """Delete the note."""
    failpoint("note.forget")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, RECORD))


# -- attaching ---------------------------------------------------------------


def attach(directory: str, parents: Sequence[str]) -> None:
    """ActivateLayer and PrepareLayer; on any error the layer is not attached.

    The pair is tried up to five times for the two codes that Windows gives
    under load.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _attach(directory, parents)
            return
        except Win32Error as error:
            if error.winerror not in _TRANSIENT:
                raise
            if attempt == _ATTEMPTS:
                raise error.prefixed("layer retry loop failed") from error
        time.sleep(_PAUSE)


def _attach(directory: str, parents: Sequence[str]) -> None:
    with prefixed(f"failed to activate layer {directory}"):
        vmcompute.activate_layer(directory)
    try:
        with prefixed(f"failed to prepare layer {directory}"), _preparing():
            vmcompute.prepare_layer(directory, parents)
    except BaseException:
        # After a time-out the layer may be prepared all the same.
        with contextlib.suppress(Win32Error):
            release(directory)
        raise


@contextlib.contextmanager
def _preparing() -> Iterator[None]:
    """One PrepareLayer at a time on a host: side by side they run into time-outs (moby#27588).

    The lock lies where only administrators can make files; elsewhere anybody
    could be there first, and hold it. What containerd prepares meanwhile it
    cannot keep out: hcsshim's own lock is inside its process.
    """
    programs = os.environ.get("PROGRAMW6432") or os.environ.get("PROGRAMFILES", r"C:\Program Files")
    path = os.path.join(programs, "wcow", "locks", "prepare-layer")
    lock = FileLock(path)
    try:
        # Whoever can open the file can hold the lock. Python 3.12.4 and newer make an access list of the mode.
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        taken = lock.acquire(_LOCK_SECONDS)
    except OSError as error:
        raise os_error(error, f"cannot lock {path}") from error
    if not taken:
        raise Unavailable(
            f"{path} has been held for {_LOCK_SECONDS} seconds: other layers are being prepared; run the task again"
        )
    with lock:
        yield


def detach(directory: str) -> None:
    """UnprepareLayer and DeactivateLayer; the first error ends it."""
    with prefixed(f"failed to unprepare layer {directory}"):
        vmcompute.unprepare_layer(directory)
    with prefixed(f"failed to deactivate layer {directory}"):
        vmcompute.deactivate_layer(directory)


def release(directory: str, *, prepared: bool = False, missing_ok: bool = True) -> None:
    """Detach a layer that may be prepared, only active, or neither.

    Unless it is known to be prepared, DeactivateLayer goes first, for that is
    all that is missing where a conversion died, and refuses a layer that is
    prepared. Raises the last error of DeactivateLayer; that it is not active
    is one only if ``missing_ok`` is false.
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
        if prepared:
            raise
        release(directory, prepared=True, missing_ok=missing_ok)


def remove_mapping(target: str) -> bool:
    """BfRemoveMapping; False if there was no mapping."""
    try:
        bindflt.remove_mapping(target)
    except Win32Error as error:
        if error.winerror not in _NOT_MAPPED:
            raise error.prefixed(f"failed to unmount {target}") from error
        return False
    return True


@contextlib.contextmanager
def initialised(directory: str, parents: Sequence[str]) -> Iterator[None]:
    """The state in which ExportLayer works: active, and prepared at least once before.

    The layer is deactivated afterwards whatever happens. If Windows refuses
    that, the note stays, and the next operation on the layer tries again.
    """
    note(directory, Attachment("", read_only=False))
    try:
        attach(directory, parents)
    except BaseException:
        forget(directory)
        raise
    try:
        with prefixed(f"failed to unprepare layer {directory}"):
            vmcompute.unprepare_layer(directory)
        yield
    finally:
        try:
            release(directory)
        except Win32Error:
            pass
        else:
            forget(directory)
