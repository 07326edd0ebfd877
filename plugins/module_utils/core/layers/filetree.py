# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read, overlay, compare, write and remove trees of files.

A tree in memory lists what a directory holds; the bytes stay in the files. No
function follows a link. Names are compared as NTFS compares them. A tree may
have any depth, so no function recurses.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import FailedPrecondition, SnapshotterError
from ..failpoint import failpoint
from ..files import sync_directory
from ..formats.ntfsnames import fault, fold
from ..model import Usage
from .base import Measurement, is_directory

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symlink"

# A process that only reads a file (a virus scanner, an indexer) closes it soon.
_REMOVAL_ATTEMPTS = 4
_REMOVAL_PAUSE = 0.05
_COMPARE_BYTES = 1 << 20
# linux/limits.h, PATH_MAX.
_LINK_BYTES = 4096


class Node:
    """A file, directory or symbolic link at the native path ``path``.

    ``mode`` has permission bits only; the owner can always read files, and
    list and change directories. ``children`` maps folded names to nodes and is
    empty except in directories.
    """

    __slots__ = ("children", "identity", "kind", "mode", "mtime_ns", "name", "owner", "path", "size")

    def __init__(self, name: str, path: str, kind: str, mode: int, mtime_ns: int) -> None:
        self.name = name
        self.path = path
        self.kind = kind
        self.mode = mode & 0o777 | (0o700 if kind == DIRECTORY else 0o400)
        self.mtime_ns = mtime_ns
        #: User and group, where this process can set them (root on POSIX); otherwise None.
        self.owner: Optional[Tuple[int, int]] = None
        #: In bytes; 0 except for files.
        self.size = 0
        #: Equal for two names of one file; None for a file with a single name.
        self.identity: Optional[Tuple[int, int]] = None
        self.children: Dict[str, Node] = {}


class Difference(NamedTuple):
    r"""What turns one tree into another.

    ``changes`` has everything that is new or differs, and the directories
    above it. ``tombstones`` lists the paths that are gone, with a backslash
    before each name (``\dir\file``).
    """

    changes: Node
    tombstones: List[str]


def verbatim(path: str) -> str:
    """The path in the form that Windows does not interpret: of any length, and without device names."""
    return "\\\\?\\" + os.path.abspath(path) if os.name == "nt" and not path.startswith("\\\\") else path


def empty_tree() -> Node:
    """A tree without contents, such as the parents of a base layer show."""
    return Node("", "", DIRECTORY, 0o755, 0)


def scan(top: str) -> Node:
    """Read the tree at ``top``.

    Raises FailedPrecondition for what a Windows layer cannot hold: special
    files, links out of the layer, names that NTFS does not allow, two names
    that differ only in case.
    """
    top = verbatim(top)
    try:
        root = _read_node(top, os.lstat(top))
    except FileNotFoundError:
        raise FailedPrecondition(f"{top} does not exist") from None
    if root.kind != DIRECTORY:
        raise FailedPrecondition(f"{top} is not a directory")
    pending = [(root, 0)]
    while pending:
        directory, depth = pending.pop()
        with os.scandir(directory.path) as entries:
            for entry in entries:
                # On Windows, the entry's own stat lacks link counts and inode numbers.
                status = os.lstat(entry.path) if os.name == "nt" else entry.stat(follow_symlinks=False)
                node = _read_node(entry.path, status)
                problem = fault(node.name)
                if problem:
                    raise FailedPrecondition(f"the name of {entry.path!r} {problem}: rename it")
                twin = directory.children.setdefault(fold(node.name), node)
                if twin is not node:
                    raise FailedPrecondition(
                        f"{entry.path!r} and {twin.path!r} are the same file to Windows: rename or delete one of them"
                    )
                if node.kind == DIRECTORY:
                    pending.append((node, depth + 1))
                elif node.kind == SYMLINK:
                    problem = link_fault(depth, os.readlink(entry.path))
                    if problem:
                        raise FailedPrecondition(
                            f"the link {entry.path!r} has a target {problem}: remove it (a limit of emulated layers)"
                        )
    return root


def link_fault(depth: int, link: str) -> str:
    """Return why a link of this host in an emulated layer may not have this target; empty if it may.

    What the host would follow must stay in the layer: a path that goes up
    above it, or that goes up after its first name, which may be a link itself,
    could leave it. On Windows, C: is the layer itself; on POSIX, drives and
    backslashes are letters of a name. ``depth`` is the number of directories
    between the root of the layer's files and the link.
    """
    if not link or "\0" in link:
        return "which this host cannot store"
    if link.startswith("/"):
        return "which is an absolute path of another system"
    if os.name == "posix":
        if len(link.encode("utf-8", "surrogateescape")) >= _LINK_BYTES:
            return "which is too long for this host"
    else:
        plain = link[4:] if link[:4] in ("\\\\?\\", "\\??\\") else link
        if plain[:3].upper() == "C:\\":
            link, depth = plain[3:], 0
        elif link.startswith("\\\\") or plain != link or ":" in link:
            return "which leads out of the layer"
        elif link.startswith("\\"):
            depth = 0
    components = [each for each in link.replace(os.sep, "/").split("/") if each not in ("", ".")]
    climbs = 0
    while components[climbs : climbs + 1] == [".."]:
        climbs += 1
    if climbs > depth or ".." in components[climbs:]:
        return "which leads out of the layer"
    return ""


def overlay(lower: Node, upper: Node, tombstones: Iterable[str]) -> None:
    """Lay ``upper`` over ``lower``, which becomes the merged tree.

    The tombstones remove entries of ``lower``, never of ``upper``.
    """
    for path in tombstones:
        *above, last = (fold(name) for name in path.strip("\\").split("\\"))
        directory: Optional[Node] = lower
        for name in above:
            directory = directory.children.get(name) if directory else None
        if directory:
            directory.children.pop(last, None)
    pending = [(lower, upper)]
    while pending:
        below, above_it = pending.pop()
        below.name, below.mode, below.mtime_ns = above_it.name, above_it.mode, above_it.mtime_ns
        below.owner = above_it.owner
        for key, node in above_it.children.items():
            old = below.children.get(key)
            if old and old.kind == node.kind == DIRECTORY:
                pending.append((old, node))
            else:
                below.children[key] = node


def compare(lower: Node, upper: Node) -> Difference:
    """What must be laid over ``lower`` to get ``upper``.

    Files that are equal in everything else are compared byte by byte, because
    a program may reset a file's time after it wrote the file. The difference
    consumes ``upper``.
    """
    tombstones: List[str] = []
    directories: List[Tuple[Node, str, bool]] = []
    pending: List[Tuple[Optional[Node], Node, str]] = [(lower, upper, "")]
    while pending:
        below, above, prefix = pending.pop()
        old_children = below.children if below else {}
        tombstones += (f"{prefix}\\{old.name}" for key, old in old_children.items() if key not in above.children)
        for key, node in list(above.children.items()):
            old = old_children.get(key)
            alike = (
                old is not None
                and (old.kind, old.name, old.size, old.owner) == (node.kind, node.name, node.size, node.owner)
                and (node.kind == SYMLINK or (old.mode, old.mtime_ns) == (node.mode, node.mtime_ns))
            )
            if node.kind == DIRECTORY:
                directories.append((above, key, alike))
                pending.append((old if old and old.kind == DIRECTORY else None, node, f"{prefix}\\{node.name}"))
            elif old and alike and _same_content(old, node):
                del above.children[key]
    for parent, key, alike in reversed(directories):
        if alike and not parent.children[key].children:
            del parent.children[key]
    return Difference(upper, sorted(tombstones))


def write_children(tree: Node, target: str, *, read_only: bool = False, hard_links: bool = False) -> None:
    """Write everything below ``tree`` to the empty directory ``target``.

    Files are copied, or with ``hard_links`` linked if the file system can do
    that. ``read_only`` removes all write bits.
    """
    import shutil

    mask = 0o555 if read_only else 0o777
    made: List[Tuple[str, Node]] = []
    pending = [(tree, verbatim(target))]
    while pending:
        directory, path = pending.pop()
        for node in directory.children.values():
            destination = os.path.join(path, node.name)
            failpoint("tree.write")
            if node.kind == DIRECTORY:
                os.mkdir(destination)
                made.append((destination, node))
                pending.append((node, destination))
            elif node.kind == SYMLINK:
                symlink(os.readlink(node.path), destination, node.mtime_ns)
                set_owner(destination, node.owner)
            elif hard_links:
                link(node.path, destination)
            else:
                shutil.copyfile(node.path, destination, follow_symlinks=False)
                set_owner(destination, node.owner)
                set_attributes(destination, node.mode & mask, node.mtime_ns)
    for destination, node in reversed(made):
        set_owner(destination, node.owner)
        set_attributes(destination, node.mode & mask, node.mtime_ns)


def link(source: str, destination: str) -> None:
    """Create a hard link to a file, or a copy if the file system has no hard links."""
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        import shutil

        shutil.copy2(source, destination, follow_symlinks=False)


def symlink(target: str, destination: str, mtime_ns: int) -> None:
    """Create a symbolic link, and set its time if the system has a call for that."""
    os.symlink(target, destination)
    if os.utime in os.supports_follow_symlinks:
        os.utime(destination, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def set_attributes(path: str, mode: int, mtime_ns: int) -> None:
    """Set permission bits and modification time of a file or directory."""
    # Set the time first: on Windows, the time of a read-only file cannot be set.
    os.utime(path, ns=(mtime_ns, mtime_ns))
    os.chmod(path, mode)


def set_owner(path: str, owner: Optional[Tuple[int, int]]) -> None:
    """Set user and group of a file, a directory or a link itself. ``None`` leaves them as they are."""
    if owner is not None and os.name == "posix":
        os.lchown(path, *owner)


def sync(top: str) -> None:
    """Make every file and directory of a tree durable.

    Call it once after all writing: the first fsync makes the file system write
    its journal, and the others find little left to do.
    """
    directories = [verbatim(top)]
    for directory in iter(directories):  # the loop appends to the list
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_directory(os.lstat(entry.path)):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    _sync_file(entry.path)
    for directory in reversed(directories):
        sync_directory(directory)


def replace(new: str, path: str, *, flush_name: bool = True) -> None:
    """Replace ``path`` by the complete and durable directory ``new`` (``path + ".new"``).

    No system call replaces a directory that is not empty, so for a moment
    there is no ``path``. After a crash, ``finish_replacement`` repairs that.
    Without ``flush_name`` the caller makes the new name durable, by
    ``sync_directory``.
    """
    failpoint("replace.old")
    is_old = os.path.lexists(path)
    if is_old:
        os.rename(path, path + ".old")
    failpoint("replace.rename")
    os.rename(new, path)
    failpoint("replace.renamed")
    if flush_name or is_old:
        # What was replaced goes only when its replacement is durable.
        sync_directory(os.path.dirname(path))
    if is_old:
        remove(path + ".old")


def finish_replacement(path: str) -> None:
    """After an interrupted ``replace`` of a directory, restore the old state or complete the new one.

    ``.old`` exists only after ``.new`` is complete. So ``.new`` without
    ``.old`` is unfinished and is removed; with ``.old`` and without ``path``
    it is the new state.
    """
    if not os.path.lexists(path) and os.path.lexists(path + ".old"):
        failpoint("replace.finish")
        os.rename(path + ".new", path)
        failpoint("replace.finished")
        sync_directory(os.path.dirname(path))
    remove(path + ".new")
    remove(path + ".old")


def measure(top: str) -> Measurement:
    """Add up the lengths of all files, and count files and directories, ``top`` included.

    A file with several hard links counts once. Holes count as data, as they do
    in containerd on Windows (continuity fs/du_windows.go). What another
    process deletes meanwhile does not count. Raises FileNotFoundError if
    ``top`` does not exist.
    """
    size, inodes, links, most_linked = 0, 1, 1, ""
    seen = set()
    directories = [verbatim(top)]
    for directory in iter(directories):  # the loop appends to the list
        try:
            names = os.listdir(directory)
        except FileNotFoundError:
            if directory == directories[0]:
                raise
            continue
        for path in (os.path.join(directory, name) for name in names):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                if status.st_nlink > links:
                    links, most_linked = status.st_nlink, path
            inodes += 1
            if is_directory(status):
                directories.append(path)
            elif stat.S_ISREG(status.st_mode):
                size += status.st_size
    return Measurement(Usage(size, inodes), links, most_linked)


def remove(top: str) -> None:
    """Delete a file, a link or a tree, even if it is read-only, in a directory that is not a link.

    A missing path is not an error.
    """
    _retry(_remove_once, top.rstrip(os.sep))


def unlink(path: str) -> None:
    """Delete a file or a link, once, in a directory that is not a link. Raises OSError."""
    directory, name = os.path.split(path)
    if os.name != "posix":
        from ..win32 import safefile
        from ..win32.errors import Win32Error

        try:
            with safefile.open_root(directory) as root:
                safefile.remove(root, name)
        except Win32Error as error:
            raise OSError(0, error.message, path, error.winerror) from error
        return
    with _opened_parent(directory) as parent:
        os.unlink(name, dir_fd=parent)


def empty(top: str) -> None:
    """Delete everything in a directory."""
    _retry(_empty_once, top)


def _retry(action: Callable[[str], None], top: str) -> None:
    for attempt in range(_REMOVAL_ATTEMPTS):
        try:
            action(verbatim(top))
            return
        except (OSError, SnapshotterError):
            if attempt == _REMOVAL_ATTEMPTS - 1:
                raise
            time.sleep(_REMOVAL_PAUSE * 2**attempt)


def _remove_once(top: str) -> None:
    try:
        os.lstat(top)
    except FileNotFoundError:
        return
    failpoint("tree.remove")
    directory, name = os.path.split(top)
    if os.name != "posix":
        _delete_by_handles(directory, [name])
    else:
        with _opened_parent(directory) as parent:
            if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                _empty_once(name, parent)
                failpoint("tree.rmdir")
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
    failpoint("tree.removed")


def _empty_once(top: str, parent: Optional[int] = None) -> None:
    if os.name != "posix":
        _delete_by_handles(top, os.listdir(top))
        return
    handle = _open_directory(top, parent)
    try:
        _empty_handle(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _opened_parent(directory: str) -> Iterator[int]:
    """Open a directory, which is not a link, to delete in it."""
    handle = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _delete_by_handles(directory: str, names: List[str]) -> None:
    """Delete by handle: DeleteFile rejects read-only files, and clearing the attribute would affect every hard link."""
    from ..win32 import safefile

    with safefile.open_root(directory) as root:
        for name in names:
            safefile.remove_all(root, name)


def _empty_handle(top: int) -> None:
    """Empty an open directory.

    Each name is used relative to an open directory, never in a path that
    another process could redirect meanwhile. Directories inside directories
    are first moved up, so two handles are enough for a tree of any depth.
    """
    moved = 0
    token = os.urandom(4).hex()
    while True:
        names = os.listdir(top)
        if not names:
            return
        for name in names:
            failpoint("tree.delete")
            if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
                os.unlink(name, dir_fd=top)
                continue
            directory = _open_directory(name, top)
            try:
                for child in os.listdir(directory):
                    if stat.S_ISDIR(os.lstat(child, dir_fd=directory).st_mode):
                        # Opening it makes it writable, which moving a directory requires.
                        os.close(_open_directory(child, directory))
                        moved += 1
                        temporary = f".removed-{token}-{moved}"
                        os.rename(child, temporary, src_dir_fd=directory, dst_dir_fd=top)
                    else:
                        os.unlink(child, dir_fd=directory)
            finally:
                os.close(directory)
            os.rmdir(name, dir_fd=top)


def _open_directory(path: str, parent: Optional[int] = None) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    os.fchmod(handle, stat.S_IMODE(os.fstat(handle).st_mode) | 0o700)
    return handle


def _read_node(path: str, status: os.stat_result) -> Node:
    """The node of the file at ``path``, without children. Raises FailedPrecondition for special files."""
    if stat.S_ISLNK(status.st_mode):
        kind = SYMLINK
    elif is_directory(status):
        kind = DIRECTORY
    elif stat.S_ISREG(status.st_mode):
        kind = FILE
    else:
        raise FailedPrecondition(f"{path!r} is neither a file nor a directory nor a symbolic link: remove it")
    node = Node(os.path.basename(path), path, kind, status.st_mode, status.st_mtime_ns)
    if os.name == "posix" and not os.geteuid():
        node.owner = status.st_uid, status.st_gid
    if kind == FILE:
        node.size = status.st_size
        node.identity = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
    return node


def _same_content(one: Node, other: Node) -> bool:
    if one.identity and one.identity == other.identity:
        return True
    if one.kind == SYMLINK:
        return os.readlink(one.path) == os.readlink(other.path)
    with open(one.path, "rb", buffering=0) as left, open(other.path, "rb", buffering=0) as right:
        while True:
            data = left.read(_COMPARE_BYTES)
            if data != right.read(_COMPARE_BYTES):
                return False
            if not data:
                return True


def _sync_file(path: str) -> None:
    # Windows flushes only through a handle with write access, which a read-only file does not grant.
    if os.name == "nt" and not os.access(path, os.W_OK):
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
