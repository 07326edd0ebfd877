# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files below an open directory, reached without leaving it.

A layer is content from somewhere else: a junction in it may lead anywhere. So
every path is relative to the handle of a directory, and is opened in a way
that fails with error 4395 at the first reparse point on it. The rules are
those of hcsshim (internal/safefile/safeopen.go).

All functions raise Win32Error, whose message has the whole path, and
InvalidArgument for a path that is not plainly a relative one.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Tuple

from ..errors import InvalidArgument
from . import ntdll
from .errors import (
    ERROR_ALREADY_EXISTS,
    ERROR_DIRECTORY,
    ERROR_FILE_NOT_FOUND,
    ERROR_PATH_NOT_FOUND,
    Win32Error,
    call_error,
)
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
    get_standard_info,
    list_directory,
    set_basic_info,
)


class Status(NamedTuple):
    """What ``lstat`` knows: times and attributes, size in bytes, number of names."""

    basic: BasicInfo
    size: int
    links: int

    @property
    def is_plain_directory(self) -> bool:
        """Whether it is a directory and no reparse point."""
        return _is_plain_directory(self.basic.attributes)

    @property
    def is_plain_file(self) -> bool:
        """Whether it is neither a directory nor a reparse point."""
        return not self.basic.attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)


def open_root(path: str) -> Handle:
    """Open the directory that all relative paths start from. A reparse point is opened itself, not what it leads to."""
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
    r"""Open or create what is at ``path``, e.g. ``Files\Windows``; see ``ntdll.create_file``. Empty: the root again."""
    _validate(path)
    return ntdll.create_file(root, path, access, share=share, disposition=disposition, options=options)


def open_parent(root: Handle, path: str) -> Tuple[Handle, str]:
    """The directory that holds ``path``, to be closed by the caller, and the last name of it."""
    directory, _separator, name = path.rpartition("\\")
    return open_file(root, directory, GENERIC_READ, options=ntdll.FILE_DIRECTORY_FILE), name


def lstat(root: Handle, path: str) -> Status:
    """Times, attributes, size and links of what is at ``path``; of a reparse point, its own."""
    options = ntdll.FILE_OPEN_REPARSE_POINT
    with open_file(root, path, FILE_READ_ATTRIBUTES, options=options) as file:
        standard = get_standard_info(file)
        return Status(get_basic_info(file), standard.size, standard.links)


def exists(root: Handle, path: str) -> bool:
    """Whether there is anything at ``path``. A reparse point on the way is an error all the same."""
    try:
        open_file(root, path, FILE_READ_ATTRIBUTES, options=ntdll.FILE_OPEN_REPARSE_POINT).close()
    except Win32Error as error:
        if is_missing(error):
            return False
        raise
    return True


def ensure_not_reparse_point(root: Handle, path: str) -> None:
    """Fail (4395) if what is at ``path`` is a reparse point, or if nothing is."""
    open_file(root, path, FILE_READ_ATTRIBUTES).close()


def make_directory(root: Handle, path: str) -> None:
    """Create a directory; an error (183) if there is anything of that name."""
    open_file(root, path, 0, disposition=ntdll.FILE_CREATE, options=ntdll.FILE_DIRECTORY_FILE).close()


def make_directories(root: Handle, path: str) -> None:
    """Create a directory and those on the way to it, as far as they do not exist.

    Raises Win32Error (267) if one of them is there but is no plain directory.
    """
    end = -1
    while end < len(path):
        end = path.find("\\", end + 1)
        end = len(path) if end < 0 else end
        directory = path[:end]
        try:
            make_directory(root, directory)
        except Win32Error as error:
            if error.winerror != ERROR_ALREADY_EXISTS:
                raise
            if not lstat(root, directory).is_plain_directory:
                raise call_error("NtCreateFile", ERROR_DIRECTORY, f"{root.path}\\{directory}") from None


def link(source_root: Handle, source: str, root: Handle, path: str) -> None:
    """Give the file at ``source`` the further name ``path``, perhaps below another root of the same volume."""
    with open_file(source_root, source, FILE_WRITE_ATTRIBUTES) as file:
        parent, name = open_parent(root, path)
        with parent:
            ntdll.link_file(file, parent, name)


def remove(root: Handle, path: str) -> None:
    """Delete a file, a reparse point (not what it leads to) or an empty directory, also a read-only one."""
    with open_file(root, path, DELETE, options=ntdll.FILE_OPEN_REPARSE_POINT) as file:
        ntdll.delete_file(file)


def remove_all(root: Handle, path: str) -> None:
    """Delete what is at ``path`` and, if that is a directory, all below it. Nothing there is no error.

    Goes on after an error, so that as much as possible is gone, and then
    raises the first one.
    """
    first = None
    # What is to be deleted, last first: directories come twice, before and after they were emptied.
    pending = [(path, _is_plain_directory(lstat(root, path).basic.attributes))] if exists(root, path) else []
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
            if not is_missing(error):
                first = first or error
    if first:
        raise first


def set_directory_info(root: Handle, path: str, info: BasicInfo) -> None:
    """Set times and attributes of a directory, which may be a reparse point; what is 0 stays."""
    options = ntdll.FILE_DIRECTORY_FILE | ntdll.FILE_OPEN_REPARSE_POINT
    with open_file(root, path, GENERIC_READ | GENERIC_WRITE, share=FILE_SHARE_READ, options=options) as directory:
        set_basic_info(directory, info)


def walk(root: Handle, path: str = "") -> Iterator[Tuple[str, DirectoryEntry]]:
    """All that is below ``path``, with paths from the root: parents before children, names of a directory sorted.

    Names sort by code point, which is the order of their UTF-8 bytes. Reparse
    points are told of, not entered.
    """
    prefix = f"{path}\\" if path else ""
    pending: List[Tuple[str, DirectoryEntry]] = _sorted(root, path, prefix)
    while pending:
        current, entry = pending.pop()
        yield current, entry
        if _is_plain_directory(entry.attributes):
            pending.extend(_sorted(root, current, f"{current}\\"))


def is_missing(error: Win32Error) -> bool:
    """Whether an error says that the file, or a directory on the way to it, does not exist."""
    return error.winerror in {ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND}


def _sorted(root: Handle, path: str, prefix: str) -> List[Tuple[str, DirectoryEntry]]:
    """The entries of a directory with their paths, last first."""
    entries = sorted(_list(root, path), key=lambda entry: entry.name, reverse=True)
    return [(prefix + entry.name, entry) for entry in entries]


def _list(root: Handle, path: str) -> List[DirectoryEntry]:
    with open_file(root, path, GENERIC_READ, options=ntdll.FILE_DIRECTORY_FILE) as directory:
        return list_directory(directory)


def _is_plain_directory(attributes: int) -> bool:
    return attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT) == FILE_ATTRIBUTE_DIRECTORY


def _validate(path: str) -> None:
    if path and (set(path) & {":", "/", "\0"} or not {"", ".", ".."}.isdisjoint(path.split("\\"))):
        raise InvalidArgument(
            f"{path!r} is not a relative path for use in a layer: parts are separated by one backslash, are not "
            "empty, '.' or '..', and hold no colon, slash or NUL",
            path=path,
        )
