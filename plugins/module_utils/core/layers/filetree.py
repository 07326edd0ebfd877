# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of files: read, laid over one another, compared, written and removed.

A tree in memory says what a directory holds; the bytes stay in the files. No
function here follows a link, and names are equal as NTFS takes them to be.
Trees are as deep as they like, so nothing here recurses.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from ..durable import sync_directory
from ..errors import FailedPrecondition, SnapshotterError
from ..failpoint import failpoint
from ..formats.ntfsnames import fault, fold, link_fault
from ..model import Usage
from .base import Survey, is_directory

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symlink"

# Another process that only looks (a virus scanner, an indexer) lets go within moments.
_REMOVAL_ATTEMPTS = 4
_REMOVAL_PAUSE = 0.05
_COMPARE_BYTES = 1 << 20


class Node:
    """A file, directory or symbolic link that lies at the native path ``path``.

    Of the mode only the permission bits count, and an owner may always read
    its files and list and change its directories. ``children`` maps folded
    names to nodes; it stays empty for all but directories.
    """

    __slots__ = ("children", "identity", "kind", "mode", "mtime_ns", "name", "path", "size")

    def __init__(self, name: str, path: str, kind: str, mode: int, mtime_ns: int) -> None:
        self.name = name
        self.path = path
        self.kind = kind
        self.mode = mode & 0o777 | (0o700 if kind == DIRECTORY else 0o400)
        self.mtime_ns = mtime_ns
        #: In bytes; 0 for all but files.
        self.size = 0
        #: Equal for two names of one file; None for a file with a single name.
        self.identity: Optional[Tuple[int, int]] = None
        self.children: Dict[str, Node] = {}


class Difference(NamedTuple):
    """What makes one tree of another.

    ``changes`` holds what is new or other, and the directories above it;
    ``tombstones`` the paths that are gone, backslashes between their names and
    one in front.
    """

    changes: Node
    tombstones: List[str]


def verbatim(path: str) -> str:
    """The path in the form that Windows takes as it is: any length, and no name in it is a device's."""
    return "\\\\?\\" + os.path.abspath(path) if os.name == "nt" and not path.startswith("\\\\") else path


def empty_tree() -> Node:
    """A tree without contents: what lies below a layer without parents."""
    return Node("", "", DIRECTORY, 0o755, 0)


def scan(top: str) -> Node:
    """The tree that lies at ``top``.

    Raises FailedPrecondition for what a Windows layer cannot hold: special
    files, links out of the layer, names that NTFS does not allow, two names
    that differ in case only.
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
                # On Windows an entry's own stat lacks links and inode numbers.
                status = os.lstat(entry.path) if os.name == "nt" else entry.stat(follow_symlinks=False)
                node = _read_node(entry.path, status)
                problem = fault(node.name)
                if problem:
                    raise FailedPrecondition(f"the name of {entry.path!r} {problem}: rename it")
                twin = directory.children.setdefault(fold(node.name), node)
                if twin is not node:
                    raise FailedPrecondition(
                        f"{entry.path!r} and {twin.path!r} are one file to Windows: rename or delete one of them"
                    )
                if node.kind == DIRECTORY:
                    pending.append((node, depth + 1))
                elif node.kind == SYMLINK:
                    problem = link_fault(depth, os.readlink(entry.path))
                    if problem:
                        raise FailedPrecondition(f"the link {entry.path!r} has a target {problem}: remove it")
    return root


def overlay(lower: Node, upper: Node, tombstones: Iterable[str]) -> None:
    """Lay ``upper`` over ``lower``, which becomes the merged tree.

    The tombstones hide what is below, never what ``upper`` itself holds.
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
        for key, node in above_it.children.items():
            old = below.children.get(key)
            if old and old.kind == node.kind == DIRECTORY:
                pending.append((old, node))
            else:
                below.children[key] = node


def compare(lower: Node, upper: Node) -> Difference:
    """What has to be laid over ``lower`` to get ``upper``.

    Files are compared byte by byte where all else is equal, since a program
    may set a file's time back after it wrote. ``upper`` is left without the
    directories' children: the difference takes them.
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
                and (old.kind, old.name, old.size) == (node.kind, node.name, node.size)
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
    """Make what is below ``tree`` in the empty directory ``target``.

    Files are copies, with ``hard_links`` further names of the same files where
    the file system has such. ``read_only`` takes away all write bits.
    """
    import shutil

    mask = 0o555 if read_only else 0o777
    made: List[Tuple[str, Node]] = []
    pending = [(tree, verbatim(target))]
    while pending:
        directory, path = pending.pop()
        for node in directory.children.values():
            place = os.path.join(path, node.name)
            failpoint("tree.write")
            if node.kind == DIRECTORY:
                os.mkdir(place)
                made.append((place, node))
                pending.append((node, place))
            elif node.kind == SYMLINK:
                symlink(os.readlink(node.path), place, node.mtime_ns)
            elif hard_links:
                link(node.path, place)
            else:
                shutil.copyfile(node.path, place, follow_symlinks=False)
                set_attributes(place, node.mode & mask, node.mtime_ns)
    for place, node in reversed(made):
        set_attributes(place, node.mode & mask, node.mtime_ns)


def link(source: str, place: str) -> None:
    """A further name for a file, or a copy of it where the file system has one name a file only."""
    try:
        os.link(source, place)
    except FileExistsError:
        raise
    except OSError:
        import shutil

        shutil.copy2(source, place, follow_symlinks=False)


def symlink(target: str, place: str, mtime_ns: int) -> None:
    """Make a symbolic link, with its own time where the system has a call for that."""
    os.symlink(target, place)
    if os.utime in os.supports_follow_symlinks:
        os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def set_attributes(path: str, mode: int, mtime_ns: int) -> None:
    """Set permission bits and modification time of a file or directory."""
    # The time first: on Windows a read-only file does not take one.
    os.utime(path, ns=(mtime_ns, mtime_ns))
    os.chmod(path, mode)


def sync(top: str) -> None:
    """Make a tree durable, every file and directory of it.

    After the writing, not during it: then the first call lets the file system
    write its journal, and the many others find little left to do.
    """
    directories = [verbatim(top)]
    for directory in iter(directories):  # the list grows on the way
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_directory(os.lstat(entry.path)):
                    directories.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    _sync_file(entry.path)
    for directory in reversed(directories):
        sync_directory(directory)


def replace(new: str, path: str) -> None:
    """Put the complete and durable directory ``new`` (``path + ".new"``) in the place of ``path``.

    No system call does this for directories that have contents, so there is a
    moment without ``path``; ``settle`` ends what a crash then leaves.
    """
    failpoint("replace.aside")
    if os.path.lexists(path):
        os.rename(path, path + ".old")
    failpoint("replace.rename")
    os.rename(new, path)
    failpoint("replace.renamed")
    sync_directory(os.path.dirname(path))
    remove(path + ".old")


def settle(path: str) -> None:
    """Bring a directory that ``replace`` replaces back to the old or on to the new state.

    ``.old`` exists only once ``.new`` is complete, so ``.new`` without ``.old``
    is an unfinished piece of work, and with it and without ``path`` the new state.
    """
    if not os.path.lexists(path) and os.path.lexists(path + ".old"):
        failpoint("settle.rename")
        os.rename(path + ".new", path)
        failpoint("settle.renamed")
        sync_directory(os.path.dirname(path))
    remove(path + ".new")
    remove(path + ".old")


def survey(top: str) -> Survey:
    """The lengths of all files, the number of files and directories, ``top`` included, and the most names of one.

    A file with several names counts once. A length is what the file system
    says it is: holes count, as they do in containerd on Windows (continuity
    fs/du_windows.go).
    """
    size, inodes, links, most_linked = 0, 1, 1, ""
    seen = set()
    directories = [verbatim(top)]
    for directory in iter(directories):  # the list grows on the way
        # What another process deletes meanwhile does not count; only the layer itself must be there.
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
    return Survey(Usage(size, inodes), links, most_linked)


def remove(top: str) -> None:
    """Delete a file, a link or a tree, read-only parts too. A missing one is no error."""
    _patiently(_remove_once, top)


def empty(top: str) -> None:
    """Delete all that is in a directory."""
    _patiently(_empty_once, top)


def _patiently(action: Callable[[str], None], top: str) -> None:
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
        status = os.lstat(top)
    except FileNotFoundError:
        return
    failpoint("tree.remove")
    if os.name != "posix":
        _delete_by_handles(os.path.dirname(top), [os.path.basename(top)])
    elif is_directory(status):
        _empty_once(top)
        failpoint("tree.rmdir")
        os.rmdir(top)
    else:
        os.unlink(top)
    failpoint("tree.removed")


def _empty_once(top: str) -> None:
    if os.name != "posix":
        _delete_by_handles(top, os.listdir(top))
        return
    handle = _open_directory(top)
    try:
        _empty_handle(handle)
    finally:
        os.close(handle)


def _delete_by_handles(directory: str, names: List[str]) -> None:
    """Delete on Windows, whose own calls for it mind read-only marks: to take one off would change all hard links."""
    from ..win32 import safefile

    with safefile.open_root(directory) as root:
        for name in names:
            safefile.remove_all(root, name)


def _empty_handle(top: int) -> None:
    """Empty an open directory.

    Each name is used relative to an open directory, never through a path that
    somebody could bend meanwhile. Directories inside directories are first
    moved up, so that two handles are enough for a tree of any depth.
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
                        # To move a directory one must be allowed to write it.
                        os.close(_open_directory(child, directory))
                        moved += 1
                        place = f".removed-{token}-{moved}"
                        os.rename(child, place, src_dir_fd=directory, dst_dir_fd=top)
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
    """The node of what lies at ``path``, without its children. Raises FailedPrecondition for special files."""
    if stat.S_ISLNK(status.st_mode):
        kind = SYMLINK
    elif is_directory(status):
        kind = DIRECTORY
    elif stat.S_ISREG(status.st_mode):
        kind = FILE
    else:
        raise FailedPrecondition(f"{path!r} is neither a file nor a directory nor a symbolic link: remove it")
    node = Node(os.path.basename(path), path, kind, status.st_mode, status.st_mtime_ns)
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
    # Windows flushes only through a handle that may write, which a read-only file does not give.
    if os.name == "nt" and not os.access(path, os.W_OK):
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
