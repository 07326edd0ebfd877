# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Listing snapshots, for the info module and for audits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from .errors import NotFound, SnapshotterError
from .model import COMMITTED
from .outcome import Outcome

if TYPE_CHECKING:
    from .snapshots import SnapshotStore


def list_snapshots(
    store: SnapshotStore,
    names: Optional[List[str]] = None,
    filters: Optional[List[str]] = None,
    usage: bool = False,
    mounts: bool = False,
    scratch: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Return infos by name, by filters, or of all snapshots; with usage, mounts and scratch disks on request.

    The result has ``snapshots``, ``exists`` (whether there is a store) and
    ``mistakes``, sentences about filters with unknown fields, which are also
    warnings: such a filter matches nothing, or everything. Names that do not
    exist are left out. With both, a snapshot must be named and match. What
    cannot be read of a snapshot is None. The entry then has an ``error`` (code,
    message, details), the first one, and a warning has its message, unless
    ``quiet``: a check reports all that as findings.
    """

    def read(look: Callable[[str], Any], entry: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        try:
            found = look(entry["name"])
        except NotFound:
            raise
        except SnapshotterError as error:
            if not quiet and "error" not in entry:
                entry["error"] = {"code": error.code, "message": error.message, "details": error.details}
                store.warnings.append(error.message)
            return None
        return dict(found._asdict()) if found else None

    if names is not None and not filters:
        wanted = sorted(set(names), key=str.encode)
        infos = [found.info for found in store.describe(*wanted, scratch=False).values()]
    else:
        infos = store.walk(*(filters or []))
        if names is not None:
            infos = [info for info in infos if info.name in set(names)]
    listed = []
    for info in infos:
        entry: Dict[str, Any] = info._asdict()
        try:
            if usage:
                entry["usage"] = read(store.usage, entry)
            if mounts:
                entry["mounts"] = (
                    [] if info.kind == COMMITTED else [mount._asdict() for mount in store.mounts(info.name)]
                )
            if scratch:
                entry["scratch"] = read(store.scratch, entry) if info.kind != COMMITTED else None
        except NotFound:
            if not store.describe(info.name, scratch=False):
                # Another process removed it after the walk.
                continue
            raise
        listed.append(entry)
    mistakes: List[str] = []
    if filters:
        from .filters.language import parse_all

        mistakes = parse_all(filters).mistakes()
        store.warnings.extend(mistakes)
    return Outcome(False, {"snapshots": listed, "exists": store.exists(), "mistakes": mistakes})
