# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings about protection: links, and entries that other accounts own, can change or (the root) read."""

from __future__ import annotations

import functools
import os
from typing import Generator, Iterator, List

from ..failpoint import failpoint
from ..layers import protection
from .findings import Case
from .state import StoreState

#: The codes whose repair makes a store safe, so that the other repairs may work in it.
PROTECTION = ("unprotected_root", "unprotected_entry")


def check_links(state: StoreState) -> Generator[Case, None, List[str]]:
    """Report links in place of directories and files of the store, and return them. Nothing below them is looked at."""
    links = []
    for path in state.snapshots.store.own_paths():
        fault = protection.link_fault(path, state.display)
        if fault:
            links.append(path)
            message = f"{state.display(path)} {fault}; it is not followed"
            yield state.report("linked_directory", message, path=path)
    return links


def check_protection(state: StoreState) -> Iterator[Case]:
    """Report a root that other accounts can access, and entries in it that they own or can change."""
    root = state.root
    if not state.exists:
        return
    fault = protection.fault(root)
    if fault or not protection.is_protected(root):
        message = f"{state.display(root)} {fault or 'can be read by users who are not administrators'}"
        yield state.report("unprotected_root", message, lambda: _protect(root), "protected", path=root)
    for path in state.snapshots.store.own_paths()[1:]:
        if not protection.link_fault(path):
            yield from _check_entry(state, path)


def check_contents(state: StoreState, directory: str) -> Iterator[Case]:
    """Report what another account has put into a directory of the store.

    Layers get an owner again. Locks and incoming files hold nothing that a
    task cannot make again, so they are deleted.
    """
    deletes = directory != state.directories.snapshots
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        path = os.path.join(directory, name)
        if deletes:
            yield from _check_entry(state, path, deletes=True)
        elif not protection.link_fault(path):
            yield from _check_entry(state, path)
        elif name.isdecimal() and int(name) in state.records.names:
            message = f"{state.display(path)} {protection.link_fault(path, state.display)}; it is not followed"
            yield state.report(
                "linked_directory", message, info=state.records.infos[state.records.names[int(name)]], path=path
            )


def _check_entry(state: StoreState, path: str, deletes: bool = False) -> Iterator[Case]:
    fault = protection.fault(path, state.display)
    if fault:
        repair = functools.partial(_delete if deletes else _protect, path)
        plan = "deleted" if deletes else "protected"
        yield state.report("unprotected_entry", f"{state.display(path)} {fault}", repair, plan, path=path)


def _protect(path: str) -> str:
    failpoint("check.protect")
    protection.protect(path)
    failpoint("check.protected")
    return "protected"


def _delete(path: str) -> str:
    from ..layers import filetree

    failpoint("check.delete")
    filetree.remove(path)
    failpoint("check.deleted")
    return "deleted"
