# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repair what is wrong on disk: directories that no record can own, or that the task names.

While containerd is stopped, a repair holds the locks of its databases. A containerd that starts meanwhile waits for
them, and the service manager of Windows gives up after 30 seconds. So they are held for a few seconds, for the last
reading and for changes of names: what is then destroyed has a name that no record can own.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from ...containerd.lock import lock_databases
from ...containerd.node import ContainerdNode
from ...containerd.picture import Paths, Picture
from ...errors import SnapshotterError
from ...failpoint import failpoint
from ...layers import protection
from ..destruction import destroy
from ..findings import NotRepaired
from .problems import REMOVAL, Identity, Problem, find_problems

#: Seconds for which a task holds the locks of containerd's databases at a time.
LOCKED_SECONDS = 10.0

#: Seconds to wait for another task that has the locks, if it is not containerd.
LOCK_PATIENCE = 5.0

# Seconds between two such times. bbolt looks every 0.05 seconds whether the lock is free.
_FREE_SECONDS = 0.5

# Which file a path leads to, for as long as the file exists.
_File = Tuple[int, int]


def repair(
    node: ContainerdNode, problems: Sequence[Problem], at_restart: bool, *, is_running: bool
) -> Dict[Identity, str]:
    """Rename directories of interrupted removals back, and destroy all others. Return why each failed, or ``""``.

    ``is_running`` says whether containerd ran when the task began.
    """
    reasons: Dict[Identity, str] = {}
    waiting = list(problems)
    while waiting:
        try:
            waiting = _rename(node, waiting, reasons, is_running)
        except (NotRepaired, SnapshotterError) as error:
            reasons.update((problem.identity, explain(error)) for problem in waiting)
            break
        if waiting:
            time.sleep(_FREE_SECONDS)
    for problem in problems:
        if problem.code != "interrupted_removal" and not reasons[problem.identity]:
            reasons[problem.identity] = destroy_removal(node, problem, at_restart)
    return reasons


def destroy_removal(node: ContainerdNode, problem: Problem, at_restart: bool) -> str:
    """Destroy the removal directory for the layer of a problem. Return why that failed, or ``""``."""
    failpoint("check.delete")
    try:
        destroy(node.layers, _removal_directory(problem), at_restart)
    except (NotRepaired, SnapshotterError, OSError) as error:
        return explain(error)
    failpoint("check.deleted")
    return ""


def move_aside(node: ContainerdNode, problem: Problem) -> None:
    """Rename a directory because of which containerd, which runs, refuses a Prepare. Do nothing if it is gone.

    No record can own it while it is there. Another process can rename it first, and containerd can then use its id:
    such a directory is another one, and gets its name back. Raises NotRepaired and the errors of a reading.
    """
    removal = _removal_directory(problem)
    _check_links(node, problem)
    before = _identify(problem.path)
    if before is None or problem.identity not in find_problems(node, node.read()):
        return
    if os.path.lexists(removal):
        raise NotRepaired(f"{node.layers.display_path(removal)} exists, too; run the check again")
    if _identify(problem.path) != before:
        return
    failpoint("check.move_aside")
    os.rename(problem.path, removal)
    failpoint("check.moved_aside")
    if _identify(removal) != before or owner(node.read(), problem):
        os.rename(removal, problem.path)
        raise NotRepaired("another process replaced it; run the check again")


def owner(picture: Picture, problem: Problem) -> str:
    """Return the key of the record that has the id of a directory, ``""`` if none has it."""
    return next((key for key, record in picture.store.records.items() if record.id == problem.layer_id), "")


def explain(error: Exception) -> str:
    """Return the sentence of an error, with what to do."""
    if isinstance(error, SnapshotterError):
        advice = error.details.get("advice")
        return f"{error.message}. {advice}" if advice else error.message
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _rename(
    node: ContainerdNode, problems: List[Problem], reasons: Dict[Identity, str], is_running: bool
) -> List[Problem]:
    """Give directories the name that their repair needs. Return the problems for which there was no time.

    Raises NotRepaired, and the errors of a reading.
    """
    with _locked(node, is_running):
        end = time.monotonic() + LOCKED_SECONDS
        picture = node.read()
        if is_running and not picture.is_running:
            raise NotRepaired(
                "containerd stopped meanwhile, or another task has repaired this store; run the check again"
            )
        if not is_running and time.monotonic() > end:
            raise NotRepaired(
                f"the databases could not be read in {LOCKED_SECONDS:g} seconds, and a containerd that starts must not "
                "wait longer; run the check again when the node has less to do"
            )
        found = find_problems(node, picture)
        for number, problem in enumerate(problems):
            if not is_running and number and time.monotonic() > end:
                return problems[number:]
            try:
                if problem.identity not in found:
                    raise NotRepaired("it is not there any more")
                _rename_one(node, problem)
                reasons[problem.identity] = ""
            except (NotRepaired, OSError) as error:
                reasons[problem.identity] = explain(error)
    return []


def _rename_one(node: ContainerdNode, problem: Problem) -> None:
    _check_links(node, problem)
    if problem.code == "interrupted_removal":
        name = os.path.join(os.path.dirname(problem.path), str(problem.layer_id))
    else:
        # If the destruction fails halfway, the name says that the rest is a leftover.
        name = _removal_directory(problem)
    if name != problem.path:
        failpoint("check.rename")
        os.rename(problem.path, name)


@contextlib.contextmanager
def _locked(node: ContainerdNode, is_running: bool) -> Iterator[None]:
    """Hold containerd's locks in the block if it is stopped. Raises NotRepaired if another process has them."""
    if is_running:
        yield
        return
    paths = Paths(node.root, node.snapshotter)
    with lock_databases(paths.metadata, paths.store, seconds=LOCK_PATIENCE) as has_locks:
        if not has_locks:
            raise NotRepaired("containerd started meanwhile, or another task repairs this store; run the check again")
        failpoint("check.locked")
        yield


def _removal_directory(problem: Problem) -> str:
    """Return the path of the removal directory for the layer of a problem."""
    return os.path.join(os.path.dirname(problem.path), f"{REMOVAL}{problem.layer_id}")


def _check_links(node: ContainerdNode, problem: Problem) -> None:
    for path in (os.path.dirname(problem.path), problem.path):
        fault = protection.link_fault(path, node.layers.display_path)
        if fault:
            raise NotRepaired(f"{node.layers.display_path(path)} {fault}")


def _identify(path: str) -> Optional[_File]:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
