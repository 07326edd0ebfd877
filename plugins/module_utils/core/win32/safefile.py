# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open, create and delete files below an open directory without leaving it.

The content of a layer is not trusted: a junction in it may lead anywhere. So
every path is relative to an open directory, and opening it fails with error
4395 at the first reparse point. The rules are those of hcsshim
(internal/safefile/safeopen.go).

All functions raise Win32Error, whose message has the whole path, and
InvalidArgument for a path that is not a plain relative path.
"""

from __future__ import annotations

from typing import Iterator, List, Tuple

from ..errors import InvalidArgument
from . import ntdll
from .errors import ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND, Win32Error
from .kernel32 import (
    DELETE,
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES,
    FILE_SHARE_READ,
    FILE_WRITE_ATTRIBUTES,
    GENERIC_READ,
    GENERIC_WRITE,
    SHARE_ALL,
    BasicInfo,
    DirectoryEntry,
    Handle,
    create_file,
    get_basic_info,
    list_directory,
    set_basic_info,
)


def open_root(path: str) -> Handle:
    """Open the directory at which all relative paths start. A reparse point is opened itself, not its target."""
    flags = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT
    return create_file(path, GENERIC_READ, SHARE_ALL, flags=flags)


def open_file(
    root: Handle,
    path: str,
    access: int,
    *,
    share: int = SHARE_ALL,
    disposition: int = ntdll.FILE_OPEN,
    options: int = 0,
) -> Handle:
    r"""Open or create ``path``, e.g. ``Files\Windows``, or the root again if it is empty; see ``ntdll.create_file``."""
    _validate(path)
    return ntdll.create_file(root, path, access, share=share, disposition=disposition, options=options)


def make_directory(root: Handle, path: str) -> None:
    """Create a directory. An existing name is an error (183)."""
    open_file(root, path, 0, disposition=ntdll.FILE_CREATE, options=ntdll.FILE_DIRECTORY_FILE).close()


def link(source_root: Handle, source: str, root: Handle, path: str) -> None:
    """Create the hard link ``path`` to the file ``source``; the roots may differ but must be on the same volume."""
    directory, _separator, name = path.rpartition("\\")
    with open_file(source_root, source, FILE_WRITE_ATTRIBUTES) as file, _open_directory(root, directory) as parent:
        ntdll.link_file(file, parent, name)


def remove(root: Handle, path: str) -> None:
    """Delete a file, a reparse point (not its target) or an empty directory, even if it is read-only."""
    with open_file(root, path, DELETE, options=ntdll.FILE_OPEN_REPARSE_POINT) as file:
        ntdll.delete_file(file)


def remove_all(root: Handle, path: str) -> None:
    """Delete ``path`` and everything below it. A missing path is not an error.

    The deletion continues after an error, to delete as much as possible, and
    raises the first error at the end.
    """
    first = None
    # A stack. A directory is on it twice: first to list it, then to delete it when it is empty.
    pending = []
    try:
        with open_file(root, path, FILE_READ_ATTRIBUTES, options=ntdll.FILE_OPEN_REPARSE_POINT) as file:
            pending.append((path, _is_plain_directory(get_basic_info(file).attributes)))
    except Win32Error as error:
        if not _is_missing(error):
            raise
    while pending:
        current, full = pending.pop()
        try:
            if full:
                pending.append((current, False))
                pending.extend(
                    (f"{current}\\{entry.name}", _is_plain_directory(entry.attributes))
                    for entry in _list(root, current)
                )
            else:
                remove(root, current)
        except Win32Error as error:
            if not _is_missing(error):
                first = first or error
    if first:
        raise first


def set_directory_info(root: Handle, path: str, info: BasicInfo) -> None:
    """Set times and attributes of a directory, which may be a reparse point; values of 0 are left unchanged."""
    options = ntdll.FILE_DIRECTORY_FILE | ntdll.FILE_OPEN_REPARSE_POINT
    with open_file(root, path, GENERIC_READ | GENERIC_WRITE, share=FILE_SHARE_READ, options=options) as directory:
        set_basic_info(directory, info)


def walk(root: Handle, path: str) -> Iterator[Tuple[str, int]]:
    """The directory ``path`` and everything below it, with attributes; a directory comes before its contents.

    Reparse points are listed but not entered.
    """
    pending = [path]
    yield path, FILE_ATTRIBUTE_DIRECTORY
    while pending:
        directory = pending.pop()
        for entry in _list(root, directory):
            current = f"{directory}\\{entry.name}"
            yield current, entry.attributes
            if _is_plain_directory(entry.attributes):
                pending.append(current)


def _open_directory(root: Handle, path: str) -> Handle:
    return open_file(root, path, GENERIC_READ, options=ntdll.FILE_DIRECTORY_FILE)


def _list(root: Handle, path: str) -> List[DirectoryEntry]:
    with _open_directory(root, path) as directory:
        return list_directory(directory)


def _is_missing(error: Win32Error) -> bool:
    """Whether an error says that the file, or a directory on the way to it, does not exist."""
    return error.winerror in {ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND}


def _is_plain_directory(attributes: int) -> bool:
    return attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT) == FILE_ATTRIBUTE_DIRECTORY


def _validate(path: str) -> None:
    if path and (set(path) & {":", "/", "\0"} or not {"", ".", ".."}.isdisjoint(path.split("\\"))):
        raise InvalidArgument(
            f"{path!r} is not a relative path for use in a layer: parts are separated by one backslash, are not "
            "empty, '.' or '..', and hold no colon, slash or NUL",
            path=path,
        )
