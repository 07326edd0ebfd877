# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a configuration file and its imports.

The order, the paths and the patterns are containerd's (cmd/containerd/server/config/config.go). The files are read
breadth first: a file, then its imports in the order of the list, then theirs. A path that contains ``*`` is a pattern.
A pattern may find nothing, but any other path must exist.

Paths are those of the node: Windows paths on Windows and on a lab node with drives, otherwise POSIX paths.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import ntpath
import os
import posixpath
import re
from collections import deque
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from ..errors import FailedPrecondition, SnapshotterError
from ..files import EMULATED_DRIVES, file_error, only_files, translating_os_errors
from ..formats import toml
from ..layers.emulated import drives

#: How many files and directories the imports of a configuration may name.
MAX_FILES = 1000


#: New contents of files by their paths on the node; None for a file that is to be removed.
Changes = Mapping[str, Optional[bytes]]


class ConfigFile(NamedTuple):
    """One file of a configuration: its path on the node, and its top table."""

    path: str
    table: Dict[str, Any]


def read_files(path: str, release: Tuple[int, ...] = (), changes: Optional[Changes] = None) -> List[ConfigFile]:
    """Return a configuration file and its imports, in the order in which containerd merges them.

    ``changes`` are read instead of what is on disk.

    ``release`` is containerd's version as numbers, empty if it is not known. Older releases resolve a relative pattern
    against the working directory of containerd, which is not known here, so it finds nothing.

    Raises NotFound if a file is missing, and FailedPrecondition if one is not TOML or its imports are not a list of
    paths. containerd does not start then.
    """
    paths = path_rules()
    if not paths.isabs(path):
        raise FailedPrecondition(
            f"containerd was started with the configuration file {path!r}, whose path is relative to a directory that "
            f"is not known; start containerd with an absolute path"
        )
    changes = changes or {}
    files: List[ConfigFile] = []
    loaded = set()
    pending = deque([path])
    count = 1
    importers = {path: ""}
    while pending:
        each = pending.popleft()
        if each in loaded:
            continue
        loaded.add(each)
        try:
            table = _parse(each, read_file(each, changes))
        except SnapshotterError as error:
            raise error.with_context(f"{importers[each]} imports a file") if importers[each] else error from None
        files.append(ConfigFile(each, table))
        for found in _resolve(each, table, release, changes):
            importers.setdefault(found, each)
            pending.append(found)
            count += 1
        if count > MAX_FILES:
            raise FailedPrecondition(f"the configuration {path} has more than {MAX_FILES} imports")
    return files


def path_rules() -> Any:
    """Return the module for the paths of this node: ntpath or posixpath."""
    return ntpath if os.name == "nt" or EMULATED_DRIVES in os.environ else posixpath


def exists(path: str) -> bool:
    """Return True if something is at an absolute path of this node."""
    return os.path.exists(drives.to_native(path))


def read_file(path: str, changes: Optional[Changes] = None) -> bytes:
    """Return the content of a file of this node, up to one byte more than ``toml.MAX_SIZE``.

    Raises NotFound if it is missing, and as ``os_error``.
    """
    native = drives.to_native(path)
    reading = translating_os_errors("cannot read", native, translate=file_error, display=drives.display_path)
    with reading:
        if changes and path in changes:
            changed = changes[path]
            if changed is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), native)
            return changed
        with open(native, "rb", opener=only_files) as file:
            return file.read(toml.MAX_SIZE + 1)


def import_patterns(path: str, table: Dict[str, Any], release: Tuple[int, ...] = ()) -> List[str]:
    """Return the absolute patterns among the imports of a file that containerd resolves as they are written here."""
    return [each for each in _absolute_imports(path, table, release) if "*" in each]


def _parse(path: str, data: bytes) -> Dict[str, Any]:
    try:
        return toml.parse(data)
    except FailedPrecondition as error:
        raise error.with_context(path) from None


def _resolve(parent: str, table: Dict[str, Any], release: Tuple[int, ...], changes: Changes) -> List[str]:
    found: List[str] = []
    for each in _absolute_imports(parent, table, release):
        found.extend(_glob(each, changes) if "*" in each else [each])
    return found


def _absolute_imports(parent: str, table: Dict[str, Any], release: Tuple[int, ...]) -> List[str]:
    paths = path_rules()
    imports = table.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(each, str) and each for each in imports):
        raise FailedPrecondition(f"{parent}: imports is not a list of paths; correct the file")
    found: List[str] = []
    for each in imports:
        if "*" in each and not paths.isabs(each) and _uses_working_directory(release):
            continue
        found.append(paths.normpath(paths.join(paths.dirname(parent), each)))
    return found


def _uses_working_directory(release: Tuple[int, ...]) -> bool:
    return bool(release) and (release < (1, 6, 29) or (1, 7) <= release < (1, 7, 16))


def _glob(pattern: str, changes: Changes) -> List[str]:
    """Return the paths that a pattern finds, in the order of Go's filepath.Glob."""
    paths = path_rules()
    drive, rest = paths.splitdrive(pattern)
    found = [drive + paths.sep]
    for component in filter(None, rest.split(paths.sep)):
        if any(character in component for character in "*?["):
            # Go negates a set of characters with "^". Both tell upper from lower case, on Windows, too.
            matches = re.compile(fnmatch.translate(component.replace("[^", "[!"))).match
            found = [paths.join(each, name) for each in found for name in _names(each, changes) if matches(name)]
        else:
            found = [paths.join(each, component) for each in found]
        if len(found) > MAX_FILES:
            raise FailedPrecondition(f"the import {pattern} finds more than {MAX_FILES} files and directories")
    return [each for each in found if (changes[each] is not None if each in changes else exists(each))]


def _names(directory: str, changes: Changes) -> List[str]:
    paths = path_rules()
    names = {paths.basename(each) for each in changes if paths.dirname(each) == directory}
    # The pattern finds nothing else in what is not a directory, or cannot be read.
    with contextlib.suppress(OSError):
        names.update(os.listdir(drives.to_native(directory)))
    return sorted(names)
