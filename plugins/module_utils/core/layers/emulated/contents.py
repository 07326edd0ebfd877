# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an emulated layer holds: its own files, and the paths that it deletes.

Both lie in its *contents directory*: ``Files`` and ``tombstones.txt``. For a
layer with a scratch disk that is ``sandbox.contents``, in place of the volume
inside the disk; for any other layer it is the layer directory itself.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, List, Sequence

from ...errors import FailedPrecondition
from ...failpoint import failpoint
from .. import filetree
from ..base import FILES, SCRATCH
from . import small_files

TOMBSTONES = "tombstones.txt"
SCRATCH_CONTENTS = "sandbox.contents"

# hcsshim internal/wclayer/legacy.go
_TOMBSTONES_HEADER = "\ufeffVersion 1.0"


def find(directory: str) -> str:
    """The contents directory of a layer directory, after an interrupted replacement in it is finished."""
    if os.path.lexists(os.path.join(directory, SCRATCH)):
        contents = os.path.join(directory, SCRATCH_CONTENTS)
        filetree.finish_replacement(contents)
        return contents
    filetree.finish_replacement(os.path.join(directory, FILES))
    return directory


def read(contents: str) -> filetree.Node:
    """The tree of the ``Files`` in a contents directory; an empty tree for a scratch that was never written."""
    files = os.path.join(contents, FILES)
    return filetree.scan(files) if os.path.isdir(files) else filetree.empty_tree()


def merge(parents: Sequence[str]) -> filetree.Node:
    """The tree that a chain of read-only layers shows, nearest layer first."""
    if not parents:
        return filetree.empty_tree()
    base, *others = reversed(parents)
    tree = filetree.scan(os.path.join(base, FILES))
    for parent in others:
        filetree.overlay(tree, filetree.scan(os.path.join(parent, FILES)), read_tombstones(parent))
    return tree


def save(directory: str, parents: Sequence[str], target: str) -> None:
    """Make the tree at ``target`` the contents of a layer: of its scratch, or of an unfinished base.

    A scratch gets only what differs from its parents.
    """
    tree = filetree.scan(target)
    if os.path.lexists(os.path.join(directory, SCRATCH)):
        path = os.path.join(directory, SCRATCH_CONTENTS)
        filetree.finish_replacement(path)
        difference = filetree.compare(merge(parents), tree)
        failpoint("save.new")
        with replacement(path) as new:
            os.mkdir(os.path.join(new, FILES))
            filetree.write_children(difference.changes, os.path.join(new, FILES))
            write_tombstones(new, difference.tombstones)
    else:
        path = os.path.join(directory, FILES)
        filetree.finish_replacement(path)
        failpoint("save.new")
        with replacement(path) as new:
            filetree.write_children(tree, new)


@contextlib.contextmanager
def replacement(path: str, *, flush_name: bool = True) -> Iterator[str]:
    """An empty directory to fill, which replaces ``path`` at the end of the block; on an error it is removed.

    ``flush_name`` as in ``filetree.replace``.
    """
    new = path + ".new"
    os.mkdir(new)
    try:
        yield new
        # An empty directory has only its name, which is flushed with the directory above.
        if os.listdir(new):
            filetree.sync(new)
    except BaseException:
        filetree.remove(new)
        raise
    filetree.replace(new, path, flush_name=flush_name)


def read_tombstones(contents: str) -> List[str]:
    """The paths that a layer deletes, with backslashes; none without a file. Raises FailedPrecondition."""
    path = os.path.join(contents, TOMBSTONES)
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


def has_tombstones(contents: str) -> bool:
    """Whether there is a list of paths that a layer deletes. A layer without one deletes nothing."""
    return os.path.lexists(os.path.join(contents, TOMBSTONES))


def write_tombstones(contents: str, paths: Sequence[str]) -> None:
    """Write the paths that a layer deletes. They and the names in this directory are durable then."""
    small_files.write(os.path.join(contents, TOMBSTONES), "\n".join([_TOMBSTONES_HEADER, *paths, ""]).encode())
