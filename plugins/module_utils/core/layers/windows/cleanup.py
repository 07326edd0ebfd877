# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Destroy layers that are in use: retry, name the processes that hold them, delete the rest at the next restart."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator, List

from ...errors import SnapshotterError
from ...win32 import advapi32, kernel32, ntdll, safefile, trace, virtdisk
from ...win32.errors import (
    ERROR_ACCESS_DENIED,
    ERROR_BUSY,
    ERROR_DEVICE_NOT_CONNECTED,
    ERROR_LOCK_VIOLATION,
    ERROR_NOT_READY,
    ERROR_SHARING_VIOLATION,
    Win32Error,
    hcs_error,
    win32_code,
)
from ..base import MAX_HOLDERS, SCRATCH
from . import attachment, destroy_process

# winerror.h. Windows returns it for a directory whose files are deleted but still open in a process.
_ERROR_DIR_NOT_EMPTY = 145

# Windows also returns these until a virus scanner, or the service itself, has closed the layer's files.
_TRANSIENT = (
    ERROR_ACCESS_DENIED,
    ERROR_BUSY,
    ERROR_DEVICE_NOT_CONNECTED,
    ERROR_LOCK_VIOLATION,
    ERROR_NOT_READY,
    ERROR_SHARING_VIOLATION,
    _ERROR_DIR_NOT_EMPTY,
)
# Seconds between the attempts, five seconds in all.
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)

# Limit of the search for holders: a base layer has about 200,000 files.
_SEARCH_SECONDS = 2.0
# The process id of the Windows kernel.
_KERNEL = 4


def destroy_with_retries(directory: str) -> None:
    """DestroyLayer, retried for five seconds while the layer is in use."""
    for pause in _PAUSES:
        try:
            destroy(directory)
            return
        except Win32Error as error:
            if error.winerror not in _TRANSIENT:
                raise
        _detach(directory)
        time.sleep(pause)
    destroy(directory)


def destroy(directory: str) -> None:
    """DestroyLayer, once, in a process of its own, because it can end the process that calls it."""
    with trace.Call("vmcompute.DestroyLayer", {"path": directory}) as call:
        hresult = destroy_process.destroy(directory)
        if hresult & 0x80000000:
            call.failed = win32_code(hresult)
    if hresult & 0x80000000:
        raise hcs_error("DestroyLayer", "DestroyLayer", hresult)


def _detach(directory: str) -> None:
    """Detach what an ended process, or a user who looked into the disk, left attached."""
    scratch = os.path.join(directory, SCRATCH)
    with contextlib.suppress(Win32Error):
        attachment.release(directory)
    if os.path.lexists(scratch):
        with contextlib.suppress(Win32Error):
            virtdisk.detach_virtual_disk(scratch)


def destroy_at_restart(directory: str) -> int:
    """See ``LayerStore.destroy_at_restart``."""
    parent, name = os.path.split(directory)
    with advapi32.privileges(advapi32.BACKUP, advapi32.RESTORE), safefile.open_root(parent) as root:
        with contextlib.suppress(Win32Error):
            safefile.remove_all(root, name)
        if not os.path.lexists(directory):
            return 0
        rest = [path for path, _attributes in safefile.walk(root, name)]
        # Windows deletes in the order of these calls, and only empty directories.
        for path in reversed(rest):
            kernel32.delete_at_restart(f"{parent}\\{path}")
    return len(rest)


def holders(directory: str) -> List[str]:
    """The processes that have files of a layer directory open, as far as Windows tells; the scratch disk is first."""
    found: List[str] = []
    deadline = time.monotonic() + _SEARCH_SECONDS
    with contextlib.suppress(OSError, SnapshotterError), advapi32.privileges(advapi32.BACKUP):
        for path in _paths(directory):
            if len(found) >= MAX_HOLDERS or time.monotonic() > deadline:
                break
            if _is_open(path):
                found += [f"{process} has {path} open" for process in _processes(path)]
    return found[:MAX_HOLDERS]


def _paths(directory: str) -> Iterator[str]:
    scratch = os.path.join(directory, SCRATCH)
    if os.path.lexists(scratch):
        yield scratch
    parent, name = os.path.split(directory)
    with safefile.open_root(parent) as root:
        for path, _attributes in safefile.walk(root, name):
            if f"{parent}\\{path}" != scratch:
                yield f"{parent}\\{path}"


def _is_open(path: str) -> bool:
    """Whether a file or directory cannot be opened exclusively."""
    flags = kernel32.FILE_FLAG_BACKUP_SEMANTICS | kernel32.FILE_FLAG_OPEN_REPARSE_POINT
    try:
        kernel32.create_file(path, kernel32.GENERIC_READ, 0, flags=flags).close()
    except Win32Error as error:
        return error.winerror == ERROR_SHARING_VIOLATION
    return False


def _processes(path: str) -> List[str]:
    """The processes that have a file open: ``process 4711 (vmwp.exe)``; an unknown process if Windows names none."""
    flags = kernel32.FILE_FLAG_BACKUP_SEMANTICS | kernel32.FILE_FLAG_OPEN_REPARSE_POINT
    processes = []
    with (
        contextlib.suppress(Win32Error),
        kernel32.create_file(path, kernel32.FILE_READ_ATTRIBUTES, flags=flags) as file,
    ):
        processes = [process for process in ntdll.get_processes(file) if process != os.getpid()]
    return [f"process {process} ({_name(process)})" for process in processes] or ["an unknown process"]


def _name(process: int) -> str:
    if process == _KERNEL:
        return "System"
    try:
        return kernel32.process_name(process)
    except Win32Error:
        return "unknown"
