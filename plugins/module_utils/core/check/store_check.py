# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check of a store: find problems, and repair those that can be repaired safely.

``check`` compares the records with the disk. Each problem that it finds has a
stable code, a severity, a sentence and a remedy. It holds no lock while it
looks. It therefore looks at each suspected problem a second time before it
reports it, and a third time, under the locks that writers take, before it
repairs it.

A repair changes only what no record needs, and relies on what the disk proves:

* It destroys a directory without a record only if the name or the marker file
  of the directory proves an interrupted removal or creation (``directories``),
  and if no record is missing elsewhere. Any other directory is a layer whose
  record was lost, and may be all that is left of it: a repair destroys it only
  where ``only`` names its code.
* It deletes no record, except that of an import whose process has ended.
* Where the records and the disk disagree, the disk wins.

To add a finding:

1. Add its code to ``findings.CODES`` and to the table in docs/recovery.md.
2. Choose the subject by what is wrong: ``metadata`` (the file of the records), ``directories`` (an entry of
   ``snapshots``), ``snapshots`` (one snapshot, its parents, its layer), ``disks`` (a VHDX file), ``leftovers``
   (other files that a process left behind), ``volume`` (space, access) or ``service`` (the proxy snapshotter).
3. Yield ``state.report(...)`` there, with its repair; only a new subject needs a line in ``inspection``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

from ..errors import FailedPrecondition, SnapshotterError
from ..listing import list_snapshots
from ..outcome import Outcome
from .inspection import check
from .reply import make_reply
from .volume import parse_minimum_free

if TYPE_CHECKING:
    from ..store import OwnSnapshots


def check_store(
    snapshots: OwnSnapshots,
    repair: bool = False,
    quick: bool = False,
    minimum_free: Union[int, str] = 0,
    at_restart: bool = False,
    only: Sequence[str] = (),
    inventory: bool = False,
) -> Outcome:
    """``check`` in the form of a reply: findings, counts by severity, bytes, and a summary in one sentence.

    With ``inventory`` also all snapshots as they are after the repair, with
    their usage (unless ``quick``) and disks. What cannot be read is None; a
    finding says why. ``rootfs_size`` is the default size of scratch disks in
    bytes, None for that of the template, and ``proxy_snapshotter`` how the
    service does that serves the store (``proxy.served``), None without one.
    """
    # A check of containerd's root would find neither a store nor a problem.
    snapshots.store.refuse_containerd()
    report = check(
        snapshots,
        repair=repair,
        quick=quick,
        minimum_free=parse_minimum_free(minimum_free),
        at_restart=at_restart,
        only=only,
    )
    listed = _list_inventory(snapshots, not quick) if inventory else None
    return make_reply(report, snapshots.store.display_root, listed, rootfs_size=_default_size(snapshots))


def _default_size(snapshots: OwnSnapshots) -> Optional[int]:
    try:
        has_store = snapshots.store.has_metadata() and not snapshots.store.is_retired()
        return snapshots.store.read_summary()[1] or None if has_store else None
    except SnapshotterError:
        # A finding says why.
        return None


def _list_inventory(snapshots: OwnSnapshots, usage: bool) -> List[Dict[str, Any]]:
    try:
        listed = list_snapshots(snapshots, usage=usage, scratch=True, quiet=True)
    except FailedPrecondition:
        # The metadata cannot be read, or ``snapshots`` is a link.
        return []
    found: List[Dict[str, Any]] = listed.result["snapshots"]
    return found
