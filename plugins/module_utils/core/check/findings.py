# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of finding codes, and the values that a check returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from ..proxy.served import Served

ERROR = "error"
WARNING = "warning"
NOTICE = "notice"

#: The action of a finding begins with this in check mode.
WOULD_BE = "would be "

#: code -> severity and remedy. Codes are stable: a code never gets another meaning.
CODES: Dict[str, Tuple[str, str]] = {
    "metadata_damaged": (
        ERROR,
        "Restore metadata.sqlite3 from a backup; docs/recovery.md describes how to continue without one",
    ),
    "metadata_missing": (
        ERROR,
        "Restore metadata.sqlite3 from a backup; docs/recovery.md describes how to continue without one",
    ),
    "metadata_index": (WARNING, "Run store_check with repair=true: it rebuilds the indexes from the records"),
    "id_reuse": (WARNING, "Run store_check with repair=true: it skips the ids that are in use"),
    "missing_directory": (ERROR, "Its contents are lost: remove the snapshot, then create or import it again"),
    "incomplete_layer": (
        ERROR,
        "Remove the snapshot and the snapshots that are based on it, then import or commit it again",
    ),
    "broken_chain": (ERROR, "Import the missing parent again, or remove this snapshot"),
    "missing_scratch": (ERROR, "Remove the snapshot and prepare it again"),
    "missing_uvm_scratch": (ERROR, "Remove the snapshot and prepare it again"),
    "unreadable_scratch": (
        ERROR,
        "Find out which process has the file open, or correct its permissions, then run the check again",
    ),
    "damaged_scratch": (ERROR, "Remove the snapshot and prepare it again, or restore the disk from a backup"),
    "damaged_scratch_copy": (
        WARNING,
        "Run store_check with repair=true: it rewrites the damaged copy from the good one",
    ),
    "scratch_size": (
        WARNING,
        "Run store_check with repair=true: it grows a disk that is too small, or sets the label of a larger one",
    ),
    "orphan_directory": (WARNING, "Run store_check with repair=true: it destroys the directory"),
    "linked_directory": (
        ERROR,
        "Replace the link with what it leads to, or set root to the root that is meant",
    ),
    "unknown_directory": (
        WARNING,
        "It may be all that is left of a snapshot: examine it; repair=true with only=[unknown_directory] destroys it",
    ),
    "foreign_entry": (NOTICE, "The collection did not create it and leaves it alone; move it to another place"),
    "leftover_removal": (WARNING, "Run store_check with repair=true: it destroys the directory"),
    "leftover_transport": (WARNING, "Run store_check with repair=true: it deletes the folder"),
    "interrupted_removal": (
        WARNING,
        "Run store_check with repair=true: it renames the directory back; then remove the snapshot again",
    ),
    "stale_mark": (WARNING, "Run store_check with repair=true, or run the interrupted task again"),
    "abandoned_import": (
        WARNING,
        "Run store_check with repair=true: it removes the unpacked files; then import the layer again",
    ),
    "abandoned_upload": (WARNING, "Run store_check with repair=true: it deletes the file"),
    "abandoned_draft": (NOTICE, "Run store_check with repair=true: it deletes the file"),
    "stale_locks": (NOTICE, "Run store_check with repair=true: it deletes the files"),
    "attached_unused": (WARNING, "Run store_check with repair=true: it detaches the layer"),
    "usage_drift": (WARNING, "Run store_check with repair=true: it records the measured usage"),
    "links_near_limit": (WARNING, "Import the base layer again under another name and use that one for new snapshots"),
    "low_free_space": (WARNING, "Remove snapshots that are not needed, or move the store to a larger volume"),
    "unprotected_root": (
        WARNING,
        "Run the module store, or store_check with repair=true: then only administrators and SYSTEM have access",
    ),
    "unprotected_entry": (
        WARNING,
        "Find out who put it there; then run store_check with repair=true: administrators get it, locks are deleted",
    ),
    "proxy_not_answering": (
        ERROR,
        "Start the service wcow-snapshotter; its log says why it ended. Without it, containerd starts no containers",
    ),
    # Of containerd's store only.
    "unknown_schema": (WARNING, "Install a newer version of the collection; this one repairs nothing in this store"),
    "uncollected_record": (
        WARNING,
        "Run store_check with repair=true while containerd runs: it lets containerd remove the record and the layer",
    ),
    "dangling_child": (
        WARNING,
        "Run store_check with repair=true while containerd runs: it removes the child that does not exist",
    ),
    "missing_record": (
        ERROR,
        "Run store_check with repair=true while containerd runs: it removes the entry; then import the image again",
    ),
    "next_directory": (
        ERROR,
        "Run store_check with repair=true: it removes the directory before a new snapshot gets its files",
    ),
    "abandoned_repair": (WARNING, "Run store_check with repair=true while containerd runs: it removes the snapshot"),
    "missing_snapshot": (WARNING, "Remove the container or the lease; kubelet makes a new container"),
    "record_mismatch": (
        WARNING,
        "Remove the snapshot and the snapshots that are based on it, then import or pull the image again",
    ),
    "record_index": (
        ERROR,
        "Stop containerd and restore metadata.db from a backup, or remove all images and pull them again",
    ),
}


def refuse_unknown(codes: Sequence[str]) -> None:
    """Raise InvalidArgument for a code that does not exist."""
    unknown = [code for code in codes if code not in CODES]
    if unknown:
        raise InvalidArgument(f"unknown finding code {unknown[0]!r}; known are {', '.join(sorted(CODES))}")


class Finding(NamedTuple):
    """One problem.

    ``snapshot`` is empty and ``id`` is None where the problem concerns no
    snapshot. ``reclaimable`` is in bytes. ``repairable`` says whether
    ``repair`` can correct the problem, ``repaired`` whether it did, and
    ``action`` what was done, what would be done (check mode), or why it
    failed.
    """

    code: str
    severity: str
    snapshot: str
    id: Optional[int]
    path: str
    message: str
    remedy: str
    reclaimable: int
    repairable: bool
    repaired: bool
    action: str


class Report(NamedTuple):
    """The whole result. ``free`` and ``total``: bytes of the volume. ``exists`` is false where there is no store.

    ``served`` is the proxy snapshotter, None if there is none.
    """

    exists: bool
    snapshots: int
    findings: List[Finding]
    free: int
    total: int
    served: Optional[Served] = None


class NotRepaired(Exception):
    """A repair left something as it is; the message is a sentence that says why."""


class Case(NamedTuple):
    """A finding with its repair.

    ``repair`` corrects the problem and returns what it did, a phrase that
    completes "it was"; None if there is no repair. It raises NotRepaired,
    SnapshotterError or OSError. ``plan`` is the phrase that completes "it
    would be".
    """

    finding: Finding
    repair: Optional[Callable[[], str]]
    plan: str
