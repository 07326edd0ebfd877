# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Care of a store: what is wrong with it, and what of that can be mended.

``check`` compares the metadata with the disk and gives each difference a
stable code, a severity, a sentence and a remedy. It holds no lock while it
looks, so what it suspects is looked at a second time before it is reported,
and a third time, under the locks that writers take, before it is mended.

What is mended is only what no record needs and what the disk itself proves:

* a directory without a record is destroyed only if its name or its mark proves
  that it was being removed or made (``directories``), and if no record is
  missing elsewhere. Any other is a layer whose metadata were lost, and may be
  all that is left of it: that is destroyed only where ``only`` names its code;
* no record is ever deleted, except that of an import whose process died;
* of two statements about the same thing, the one on disk wins.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from . import labels as label_rules
from .ensure import Outcome, list_snapshots
from .errors import FailedPrecondition, InvalidArgument, NotImplementedHere, SnapshotterError, Unavailable
from .failpoint import failpoint
from .layers import protection
from .layers.base import BLANK, FILES, SCRATCH, ScratchInfo, is_directory
from .lock import FileLock
from .metastore import Entry, Metastore
from .model import ACTIVE, COMMITTED, VIEW, Info, Usage
from .sizes import parse_size
from .snapshotter import IMPORT_KEY, METADATA_FILE, Snapshotter, is_unpack_key

ERROR = "error"
WARNING = "warning"
NOTICE = "notice"

#: NTFS allows 1,024 names of one file (CreateHardLink documentation); layers add names with every UtilityVM clone.
LINK_LIMIT = 1023
_LINKS_NEAR = 1000

# How the action of a finding begins in check mode.
_WOULD_BE = "would be "

#: An upload that nobody continued for so long is given up, seconds.
ABANDONED_SECONDS = 24 * 3600

#: code -> severity, and what to do. Codes are stable: they are never given another meaning.
CODES: Dict[str, Tuple[str, str]] = {
    "metadata_damaged": (
        ERROR,
        "Restore metadata.sqlite3 from a backup; docs/recovery.md says how to go on without one",
    ),
    "metadata_missing": (
        ERROR,
        "Restore metadata.sqlite3 from a backup; docs/recovery.md says how to go on without one",
    ),
    "metadata_index": (WARNING, "Run store_check with repair=true: indexes are built anew from the records"),
    "id_reuse": (WARNING, "Run store_check with repair=true: those numbers are then passed over"),
    "missing_directory": (ERROR, "What it held is lost; remove the snapshot, and make or import it again"),
    "incomplete_layer": (ERROR, "Remove the snapshot with those that are based on it, and import or commit it again"),
    "broken_chain": (ERROR, "Import the missing parent again, or remove this snapshot"),
    "missing_scratch": (ERROR, "Remove the snapshot and prepare it again"),
    "missing_uvm_scratch": (ERROR, "Remove the snapshot and prepare it again"),
    "unreadable_scratch": (ERROR, "Find out what holds the file or its rights and run the check again"),
    "damaged_scratch": (ERROR, "Remove the snapshot and prepare it again, or restore the disk from a backup"),
    "damaged_scratch_copy": (
        WARNING,
        "Run store_check with repair=true: the damaged copy is written anew from the good one",
    ),
    "scratch_size": (
        WARNING,
        "Run store_check with repair=true: a smaller disk grows, the label of a larger one is set",
    ),
    "orphan_directory": (WARNING, "Run store_check with repair=true: it is destroyed"),
    "linked_directory": (
        ERROR,
        "Put the directory that the link leads to in its place, or name the root that is meant",
    ),
    "unknown_directory": (
        WARNING,
        "It may be all that is left of a snapshot: look into it; repair=true with only=[unknown_directory] destroys it",
    ),
    "foreign_entry": (NOTICE, "It was not made by the collection and is left alone; move it to another place"),
    "leftover_removal": (WARNING, "Run store_check with repair=true: it is destroyed"),
    "interrupted_removal": (
        WARNING,
        "Run store_check with repair=true: it gets its name back, then remove the snapshot again",
    ),
    "stale_mark": (WARNING, "Run store_check with repair=true, or run the task again that was interrupted"),
    "abandoned_import": (
        WARNING,
        "Run store_check with repair=true: what was unpacked is removed; then import the layer again",
    ),
    "abandoned_upload": (WARNING, "Run store_check with repair=true: it is deleted"),
    "abandoned_draft": (NOTICE, "Run store_check with repair=true: it is deleted"),
    "stale_locks": (NOTICE, "Run store_check with repair=true: they are deleted"),
    "attached_unused": (WARNING, "Run store_check with repair=true: it is detached"),
    "usage_drift": (WARNING, "Run store_check with repair=true: the recorded usage is set to what was measured"),
    "links_near_limit": (WARNING, "Import the base layer again under another name and use that one for new snapshots"),
    "low_free_space": (WARNING, "Remove snapshots that are not needed, or move the store to a larger volume"),
    "unprotected_root": (
        WARNING,
        "Run the module store, or store_check with repair=true: only administrators and SYSTEM are let in then",
    ),
}


class Finding(NamedTuple):
    """One thing that is wrong.

    ``snapshot`` and ``id`` are empty and None where no snapshot is concerned,
    ``reclaimable`` is in bytes, ``repairable`` whether ``repair`` can mend it,
    ``repaired`` whether it did, and ``action`` what was done, would be done
    (check mode), or why it could not be.
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
    """The whole result. ``free`` and ``total`` are the volume's bytes; ``exists`` is false where there is no store."""

    exists: bool
    snapshots: int
    findings: List[Finding]
    free: int
    total: int


class _NotMended(Exception):
    """Why something was left as it is, a sentence."""


class _Case(NamedTuple):
    finding: Finding
    #: Mends it and says what was done. Raises _NotMended, SnapshotterError or OSError.
    mend: Optional[Callable[[], str]]
    #: What that would be.
    plan: str


def check(
    snapshotter: Snapshotter,
    *,
    repair: bool = False,
    quick: bool = False,
    minimum_free: int = 0,
    at_restart: bool = False,
    only: Sequence[str] = (),
) -> Report:
    """Look for everything that ``CODES`` names; with ``repair``, mend what can be mended.

    ``quick`` leaves out what has to visit all files of all layers (usage and
    link counts). ``minimum_free``: bytes that shall be free on the volume.
    ``at_restart``: what cannot be destroyed now is scheduled for the next
    start of the host. ``only``: the codes to report and mend, all if empty;
    ``unknown_directory`` is mended, that is destroyed, only if named here.
    In check mode ``repair`` only says what it would do. Waits for nobody
    longer than writers do, and raises Unavailable where that is too long.
    """
    unknown = [code for code in only if code not in CODES]
    if unknown:
        raise InvalidArgument(f"unknown finding code {unknown[0]!r}; known are {', '.join(sorted(CODES))}")
    with _Inspection(snapshotter, quick, minimum_free, at_restart, "unknown_directory" in only) as inspection:
        cases = [case for case in inspection.run() if not only or case.finding.code in only]
        findings = [_mended(case, snapshotter.rehearsing) if repair else case.finding for case in cases]
        free, total = _space(snapshotter.root)
        return Report(inspection.exists, len(inspection.entries), findings, free, total)


def check_store(
    snapshotter: Snapshotter,
    repair: bool = False,
    quick: bool = False,
    minimum_free: Union[int, str] = 0,
    at_restart: bool = False,
    only: Sequence[str] = (),
    inventory: bool = False,
) -> Outcome:
    """``check`` in the form of a reply: findings, counts by severity, bytes, and a sentence for people.

    With ``inventory`` also all snapshots as they are then, usage (unless
    ``quick``) and disks among them; what of that cannot be read is None, for a
    finding tells why.
    """
    report = check(
        snapshotter,
        repair=repair,
        quick=quick,
        minimum_free=0 if str(minimum_free).strip() in ("", "0") else parse_size(minimum_free, "minimum_free"),
        at_restart=at_restart,
        only=only,
    )
    left = [finding for finding in report.findings if not finding.repaired]
    would = [finding for finding in left if finding.action.startswith(_WOULD_BE)]
    open_ones = [finding for finding in left if finding.severity != NOTICE]
    result = {
        "exists": report.exists,
        "healthy": not open_ones,
        "snapshots": report.snapshots,
        "findings": [finding._asdict() for finding in report.findings],
        "counts": {level: sum(finding.severity == level for finding in left) for level in (ERROR, WARNING, NOTICE)},
        "reclaimable": sum(finding.reclaimable for finding in left),
        "reclaimed": sum(finding.reclaimable for finding in report.findings if finding.repaired),
        "free": report.free,
        "total": report.total,
        "summary": _summary(report, open_ones),
        "diff": {
            "before": {"findings": [finding.message for finding in report.findings]},
            "after": {"findings": [finding.message for finding in left if finding not in would]},
        },
    }
    if inventory:
        result["inventory"] = _inventory(snapshotter, not quick)
    return Outcome(len(left) < len(report.findings) or bool(would), result)


def _inventory(snapshotter: Snapshotter, usage: bool) -> List[Dict[str, Any]]:
    try:
        listed = list_snapshots(snapshotter, usage=usage, scratch=True, tolerant=True)
    except FailedPrecondition:
        # No metadata that can be read, or a link where the layers should be.
        return []
    found: List[Dict[str, Any]] = listed.result["snapshots"]
    return found


def _summary(report: Report, left: List[Finding]) -> str:
    if not report.exists:
        return "There is no store here"
    words = f"{_count(report.snapshots, 'snapshot')}, {_count(len(left), 'problem')}"
    repaired = sum(finding.repaired for finding in report.findings)
    if repaired:
        words += f", {repaired} repaired"
    reclaimable = sum(finding.reclaimable for finding in left)
    if reclaimable:
        words += f"; {reclaimable} bytes can be reclaimed"
    worst = next((finding for finding in left if finding.severity == ERROR), None) or (left[0] if left else None)
    return words + (f"; first: {worst.message}" if worst else "")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _mended(case: _Case, rehearsing: bool) -> Finding:
    finding = case.finding
    if case.mend is None:
        return finding
    if rehearsing:
        return finding._replace(action=_WOULD_BE + case.plan)
    try:
        return finding._replace(repaired=True, action=case.mend())
    except _NotMended as reason:
        return finding._replace(action=f"not repaired: {reason}")
    except SnapshotterError as error:
        return finding._replace(action=f"not repaired: {error.message}")
    except OSError as error:
        return finding._replace(action=f"not repaired: {error.strerror or error}")


def _space(path: str) -> Tuple[int, int]:
    """Free and total bytes of the volume of ``path`` or of its nearest directory that exists."""
    import shutil

    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    usage = shutil.disk_usage(path)
    return usage.free, usage.total


class _Inspection:
    """One look at one store."""

    def __init__(
        self, snapshotter: Snapshotter, quick: bool, minimum_free: int, at_restart: bool, unknown_too: bool
    ) -> None:
        self._snapshotter = snapshotter
        self._directories = snapshotter.directories
        self._layers = snapshotter.layers
        self._quick = quick
        self._minimum_free = minimum_free
        self._at_restart = at_restart
        self._unknown_too = unknown_too
        self._cases: List[_Case] = []
        self._path = os.path.join(snapshotter.root, METADATA_FILE)
        # In check mode the snapshotter works on a copy; this looks at the real thing, and in check mode never writes.
        self._metadata: Optional[Metastore] = None
        self.exists = os.path.lexists(self._path)
        self.entries: List[Entry] = []
        self._last = 0
        self._infos: Dict[str, Info] = {}
        self._names: Dict[int, str] = {}
        self._layers_there: Dict[int, bool] = {}
        # A parent without a record: then any directory without one may be its layer.
        self._lost_records = False

    def __enter__(self) -> _Inspection:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._metadata is not None:
            self._metadata.close()

    def run(self) -> List[_Case]:
        """All cases: of the metadata, of directories, of each snapshot by name, of everything else."""
        if self._directories.is_link():
            path = self._directories.snapshots
            self._found("linked_directory", f"{self._layers.presented(path)} is a link; it is not followed", path=path)
        elif self._read_metadata():
            for number, name in sorted(self._numbered()):
                self._check_directory(number, name)
            for entry in self.entries:
                self._check_snapshot(entry)
            self._check_locks()
        self._check_incoming()
        self._check_volume()
        return [case for case in self._cases if self._is_still_so(case.finding)]

    def _found(
        self,
        code: str,
        message: str,
        mend: Optional[Callable[[], str]] = None,
        plan: str = "",
        *,
        info: Optional[Info] = None,
        number: Optional[int] = None,
        path: str = "",
        reclaimable: int = 0,
    ) -> None:
        severity, remedy = CODES[code]
        self._cases.append(
            _Case(
                Finding(
                    code,
                    severity,
                    info.name if info else "",
                    info.id if info else number,
                    self._layers.presented(path) if path else "",
                    message,
                    remedy,
                    reclaimable,
                    mend is not None,
                    False,
                    "",
                ),
                mend,
                plan,
            )
        )

    def _is_still_so(self, finding: Finding) -> bool:
        """Whether living processes have not changed meanwhile what a finding is about."""
        if finding.id is None or self._metadata is None:
            return True
        with self._metadata.read() as tx:
            name = tx.id_map().get(finding.id, "")
        return name == finding.snapshot

    # -- the metadata --------------------------------------------------------

    def _read_metadata(self) -> bool:
        """Read all records; whether there are any that can be believed."""
        if not self.exists:
            lost = 0 if self._snapshotter.is_containerds() else self._snapshotter.count_lost_layers()
            if lost:
                # That is no empty store, nor none.
                self.exists = True
                shown = self._layers.presented(self._path)
                self._found("metadata_missing", f"{shown} is gone, but there are {lost} layers", path=self._path)
            return False
        try:
            self._metadata = Metastore(self._path)
            with self._metadata.read() as tx:
                damage = tx.damage()
                if not damage.beyond_repair:
                    self.entries = tx.census()
                    self._last = tx.next_id() - 1
        except FailedPrecondition as error:
            self._found("metadata_damaged", error.message, path=self._path)
            return False
        for problem in damage.beyond_repair:
            self._found("metadata_damaged", f"The metadata is damaged: {problem}", path=self._path)
        if damage.beyond_repair:
            return False
        for problem in damage.indexes:
            self._found(
                "metadata_index",
                f"An index of the metadata disagrees with the records: {problem}",
                self._reindex,
                "built anew",
                path=self._path,
            )
        self._infos = {entry.info.name: entry.info for entry in self.entries}
        self._names = {info.id: name for name, info in self._infos.items()}
        self._lost_records = any(info.parent and info.parent not in self._infos for info in self._infos.values())
        highest = max(self._names, default=0)
        if highest > self._last:
            self._found(
                "id_reuse",
                f"The next snapshot would get the number {self._last + 1}, but {highest} is in use",
                lambda: self._burn(highest),
                "passed over",
                path=self._path,
            )
            self._last = highest
        return True

    def _writable(self) -> Metastore:
        if self._metadata is None:
            raise FailedPrecondition("database not open")
        return self._metadata

    def _reindex(self) -> str:
        with self._writable().write() as tx:
            tx.rebuild_indexes()
        return "built anew"

    def _burn(self, number: int) -> str:
        self._writable().burn(number)
        return "passed over"

    # -- directories ---------------------------------------------------------

    def _numbered(self) -> Iterator[Tuple[int, str]]:
        """The entries of ``snapshots`` that are layers, as number and name; what else is there is reported."""
        top = self._directories.snapshots
        for name in sorted(os.listdir(top)) if os.path.lexists(top) else ():
            path = os.path.join(top, name)
            match = re.fullmatch(r"(?:rm-)?([1-9][0-9]{0,18})", name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                # Living processes make, rename and destroy meanwhile.
                continue
            if self._directories.is_mark(name):
                continue
            if match is None or not is_directory(status):
                self._found("foreign_entry", f"{self._layers.presented(path)} is no layer of this store", path=path)
            else:
                yield int(match[1]), name

    def _check_directory(self, number: int, name: str) -> None:
        path = os.path.join(self._directories.snapshots, name)
        shown = self._layers.presented(path)
        owner = self._names.get(number)
        if owner is not None:
            # A view's draft has that name too; what mends it knows the difference.
            if name.startswith("rm-") and not self._is_held(number):
                info = self._infos[owner]
                if info.kind != VIEW and os.path.lexists(self._directories.directory(number)):
                    why = f'bears the number of "{owner}", whose layer is in its place; no task deletes it'
                    self._found("unknown_directory", f"{shown} {why}", info=info, path=path)
                    return
                self._found(
                    "interrupted_removal",
                    f'{shown} belongs to "{owner}": a removal or mount of it was interrupted',
                    lambda: self._put_back(info),
                    "given its name back",
                    info=info,
                    path=path,
                )
            return
        beyond = number > self._last + 1
        if not beyond and (self._is_held(number) or (number > self._last and self._is_being_made())):
            return
        removed, draft = name.startswith("rm-"), self._directories.is_draft(number)
        if beyond or self._lost_records or not (removed or draft):
            code = "unknown_directory"
            if self._lost_records:
                says = "has no record, and records were lost"
            elif beyond:
                says = "has no record, and this metadata has never given out its number"
            else:
                says = "has no record, but was in use: this metadata is older, or was begun anew"
        elif removed:
            code, says = "leftover_removal", "waits to be destroyed"
        else:
            code, says = "orphan_directory", "has no record, its making was interrupted"
        sure = code != "unknown_directory" or self._unknown_too
        self._found(
            code,
            f"{shown} {says}",
            (lambda: self._destroy(number)) if sure else None,
            "destroyed",
            number=number,
            path=path,
            reclaimable=self._size(path) if sure else 0,
        )

    def _is_being_made(self) -> bool:
        """Whether somebody writes now, who may be about to give the next number a record."""
        try:
            with self._writable().write(wait=False):
                return False
        except Unavailable:
            return True
        except FailedPrecondition:
            # Nobody writes to a store that cannot be written.
            return False

    def _is_held(self, number: int) -> bool:
        """Whether a living process works on a snapshot's files. Makes no lock file."""
        if not os.path.exists(self._directories.lock_path(number)):
            return False
        try:
            lock = self._directories.lock(number)
        except SnapshotterError:
            # A store that cannot be written has nobody who works on it.
            return False
        if lock is None:
            return True
        lock.release()
        return False

    def _size(self, path: str) -> int:
        try:
            return self._layers.disk_usage(path).size
        except (OSError, SnapshotterError):
            return 0

    def _put_back(self, info: Info) -> str:
        with self._writable().write() as tx:
            if tx.id_map().get(info.id) != info.name:
                raise _NotMended("another process has changed it meanwhile")
            lock = self._lock(info.id)
            with lock:
                self._directories.recover(info.id, info.kind)
        return "thrown away, a view holds nothing of its own" if info.kind == VIEW else "given its name back"

    def _destroy(self, number: int) -> str:
        """Destroy the directories of a number that has no record."""
        with self._writable().write() as tx:
            if number in tx.id_map():
                raise _NotMended("it has a record now")
            lock = self._lock(number)
            try:
                if number <= self._last + 1:
                    tx.burn(number)
                aside = self._directories.aside(number)
                if not os.path.lexists(aside):
                    self._directories.set_aside(number)
                self._directories.finish(number)
            except BaseException:
                lock.release()
                raise
        with lock:
            try:
                self._layers.destroy_patiently(aside)
            except SnapshotterError as error:
                raise _NotMended(self._why_not_destroyed(aside, error)) from error
        self._directories.forget_lock(number)
        return "destroyed"

    def _why_not_destroyed(self, aside: str, error: SnapshotterError) -> str:
        said = error.message
        holders = self._layers.holders(aside)
        if holders:
            said += f"; in use: {'; '.join(holders)}"
        if self._at_restart:
            try:
                count = self._layers.destroy_at_restart(aside)
            except SnapshotterError as refused:
                return f"{said}; and not scheduled: {refused.message}"
            return f"{said}; {count} files and directories are scheduled for the next start of the host"
        return said

    def _lock(self, number: int) -> FileLock:
        lock = self._directories.lock(number)
        if lock is None:
            raise _NotMended("another process works on it; run the task again when that has ended")
        return lock

    # -- snapshots -----------------------------------------------------------

    def _check_snapshot(self, entry: Entry) -> None:
        info = entry.info
        directory = self._directories.directory(info.id)
        if self._is_held(info.id):
            # Whoever works on it leaves it whole or marked.
            return
        if entry.holder:
            self._found(
                "stale_mark",
                f'"{info.name}" is marked as being committed by {entry.holder}, which has ended',
                lambda: self._clear_mark(info),
                "taken away",
                info=info,
                path=directory,
            )
        if info.kind == ACTIVE and re.fullmatch(IMPORT_KEY, info.name):
            self._found(
                "abandoned_import",
                f'"{info.name}" is what an import that was interrupted left',
                lambda: self._remove(info),
                "removed",
                info=info,
                path=directory,
                reclaimable=self._size(directory),
            )
            return
        if not self._check_chain(info):
            return
        if not os.path.isdir(directory):
            if info.kind != VIEW and not self._has_layer(info.id):
                self._found(
                    "missing_directory",
                    f'The layer of "{info.name}" ({info.kind}) is not there',
                    info=info,
                    path=directory,
                )
            return
        self._check_attachment(info, directory)
        if info.kind == COMMITTED:
            self._check_layer(entry, directory)
        elif info.parent and not is_unpack_key(info.name):
            self._check_scratch(info, directory)

    def _check_chain(self, info: Info) -> bool:
        """Whether all parents have their layers; the nearest that has not is reported."""
        parent, seen = info.parent, {info.name}
        while parent:
            above = self._infos.get(parent)
            if above is None or parent in seen:
                problem = "has no record" if above is None else "is its own ancestor"
                self._found("broken_chain", f'"{info.name}" is based on "{parent}", which {problem}', info=info)
                return False
            if not self._has_layer(above.id):
                self._found(
                    "broken_chain",
                    f'"{info.name}" is based on "{above.name}", whose layer is not there',
                    info=info,
                    path=self._directories.directory(above.id),
                )
                return False
            seen.add(parent)
            parent = above.parent
        return True

    def _has_layer(self, number: int) -> bool:
        if number not in self._layers_there:
            directory, aside = self._directories.directory(number), self._directories.aside(number)
            self._layers_there[number] = os.path.isdir(directory) or os.path.lexists(aside)
        return self._layers_there[number]

    def _check_attachment(self, info: Info, directory: str) -> None:
        left = self._layers.unsettled(directory)
        if left:
            self._found(
                "attached_unused",
                f'"{info.name}": {left}, and no process works with it',
                lambda: self._settle(info, directory),
                "detached",
                info=info,
                path=directory,
            )

    def _check_layer(self, entry: Entry, directory: str) -> None:
        info = entry.info
        template = os.path.join(directory, BLANK)
        if not os.path.isdir(os.path.join(directory, FILES)):
            self._found("incomplete_layer", f'The layer of "{info.name}" has no {FILES}', info=info, path=directory)
        elif not info.parent and not os.path.lexists(template):
            self._found(
                "incomplete_layer",
                f'The base layer "{info.name}" has no {BLANK}, from which scratch disks are made',
                info=info,
                path=template,
            )
        elif not info.parent:
            self._check_disk(info, template)
        if self._quick:
            return
        try:
            survey = self._layers.survey(directory)
        except SnapshotterError as error:
            self._found("incomplete_layer", f'"{info.name}" cannot be read: {error.message}', info=info, path=directory)
            return
        if survey.usage != entry.usage:
            self._found(
                "usage_drift",
                f'"{info.name}" is recorded with {entry.usage.size} bytes in {entry.usage.inodes} files, '
                f"but has {survey.usage.size} bytes in {survey.usage.inodes}",
                lambda: self._set_usage(info, survey.usage),
                "set to what was measured",
                info=info,
                path=directory,
            )
        if survey.links >= _LINKS_NEAR:
            self._found(
                "links_near_limit",
                f'{self._layers.presented(survey.most_linked)} of "{info.name}" has {survey.links} names; '
                f"NTFS allows {LINK_LIMIT}",
                info=info,
                path=survey.most_linked,
            )

    def _check_scratch(self, info: Info, directory: str) -> None:
        """The disks of an active snapshot, or of a view that was mounted once."""
        wanted = _wanted(info)
        scratch = os.path.join(directory, SCRATCH)
        uvm = os.path.join(directory, "vm", SCRATCH)
        if wanted.uvm and info.kind == ACTIVE:
            if not os.path.lexists(uvm):
                self._found("missing_uvm_scratch", f'"{info.name}" has no UVM scratch disk', info=info, path=uvm)
            else:
                self._check_disk(info, uvm)
        if not os.path.lexists(scratch):
            self._found("missing_scratch", f'"{info.name}" has no scratch disk', info=info, path=scratch)
            return
        if self._check_disk(info, scratch) and info.kind == ACTIVE and wanted.size:
            self._check_size(info, directory, wanted.size)

    def _check_disk(self, info: Info, path: str) -> bool:
        """Whether a disk can be used; what is wrong with it is reported."""
        from .formats import vhdx

        try:
            damage = vhdx.check(path)
        except Unavailable:
            # Windows keeps a disk that is attached to itself, and mends its log when it attaches it.
            return False
        except (FailedPrecondition, NotImplementedHere) as error:
            code = "damaged_scratch" if "is not a usable VHDX file" in error.message else "unreadable_scratch"
            self._found(code, f'A disk of "{info.name}": {error.message}', info=info, path=path)
            return False
        if damage:
            self._found(
                "damaged_scratch_copy",
                f'A disk of "{info.name}" can be used, but has lost what is kept twice: {", ".join(damage)}',
                lambda: self._repair_disk(info, path),
                "written anew from the good copy",
                info=info,
                path=path,
            )
        return True

    def _check_size(self, info: Info, directory: str, wanted: int) -> None:
        found = self._layers.scratch_info(directory)
        if found is None or found.virtual_size == wanted:
            return
        numbers = self._parent_ids(info)
        try:
            template = self._layers.template_info([self._directories.directory(number) for number in numbers])
        except SnapshotterError:
            return
        if found.virtual_size < wanted:
            self._found(
                "scratch_size",
                f'The scratch disk of "{info.name}" has {found.virtual_size} bytes, its label says {wanted}',
                lambda: self._grow(info, wanted),
                f"grown to {wanted} bytes",
                info=info,
                path=found.path,
            )
        elif found.virtual_size > max(wanted, template.virtual_size):
            self._found(
                "scratch_size",
                f'The scratch disk of "{info.name}" has {found.virtual_size} bytes, its label says only {wanted}',
                lambda: self._set_size_label(info, found),
                f"labelled with {found.virtual_size} bytes",
                info=info,
                path=found.path,
            )

    def _parent_ids(self, info: Info) -> Tuple[int, ...]:
        with self._writable().read() as tx:
            return tx.parent_ids(info.parent)

    def _clear_mark(self, info: Info) -> str:
        with self._writable().write() as tx, self._lock(info.id):
            tx.set_holder(info.name, None)
        return "taken away"

    def _remove(self, info: Info) -> str:
        self._snapshotter.remove(info.name)
        return "removed"

    def _settle(self, info: Info, directory: str) -> str:
        with self._lock(info.id):
            self._layers.settle(directory)
        return "detached"

    def _set_usage(self, info: Info, usage: Usage) -> str:
        with self._writable().write() as tx:
            tx.set_usage(info.name, usage)
        return "set to what was measured"

    def _repair_disk(self, info: Info, path: str) -> str:
        from .formats import vhdx

        with self._lock(info.id):
            vhdx.repair(path)
        return "written anew from the good copy"

    def _grow(self, info: Info, size: int) -> str:
        grown = self._snapshotter.grow_scratch(info.name, size)
        return f"grown to {grown.virtual_size} bytes"

    def _set_size_label(self, info: Info, found: ScratchInfo) -> str:
        label = label_rules.ROOTFS_SIZE_BYTES
        self._snapshotter.update(info.name, {label: str(found.virtual_size)}, [f"labels.{label}"])
        return f"labelled with {found.virtual_size} bytes"

    # -- everything else -----------------------------------------------------

    def _check_locks(self) -> None:
        """Lock files of numbers that are gone. They hold nothing; there is one finding for all."""
        try:
            names = os.listdir(self._directories.locks)
        except FileNotFoundError:
            return
        stale = [
            int(name)
            for name in names
            if re.fullmatch("[1-9][0-9]{0,18}", name)
            and int(name) not in self._names
            and int(name) <= self._last
            and not os.path.lexists(self._directories.aside(int(name)))
            and not os.path.lexists(self._directories.directory(int(name)))
            and not self._is_held(int(name))
        ]
        if stale:
            self._found(
                "stale_locks",
                f"{len(stale)} lock files belong to snapshots that are gone",
                lambda: self._forget_locks(stale),
                "deleted",
                path=self._directories.locks,
            )

    def _forget_locks(self, numbers: List[int]) -> str:
        for number in numbers:
            # Released first: Windows deletes no file that is open.
            self._lock(number).release()
            self._directories.forget_lock(number)
        return "deleted"

    def _check_incoming(self) -> None:
        """Uploads that nobody continues, and drafts of metadata."""
        oldest = time.time() - ABANDONED_SECONDS
        for directory, code, wanted in (
            (self._directories.incoming, "abandoned_upload", "[0-9a-f]{64}(?:[.]part)?"),
            (self._snapshotter.root, "abandoned_draft", re.escape(METADATA_FILE) + "[.][0-9]+[.]new(?:-wal|-shm)?"),
        ):
            try:
                names = sorted(os.listdir(directory))
            except FileNotFoundError:
                continue
            for name in names:
                path = os.path.join(directory, name)
                status = os.lstat(path)
                if re.fullmatch(wanted, name) and status.st_mtime < oldest:
                    self._found(
                        code,
                        f"{self._layers.presented(path)} was left over, nobody has written it for a day",
                        lambda path=path, size=status.st_size: self._delete(path, size),  # type: ignore[misc]
                        "deleted",
                        path=path,
                        reclaimable=status.st_size,
                    )

    @staticmethod
    def _delete(path: str, size: int) -> str:
        if os.lstat(path).st_size != size:
            raise _NotMended("it grows again")
        failpoint("check.delete")
        os.unlink(path)
        failpoint("check.deleted")
        return "deleted"

    def _check_volume(self) -> None:
        root = self._snapshotter.root
        free, total = _space(root)
        if free < self._minimum_free:
            self._found(
                "low_free_space",
                f"{free} of {total} bytes are free on the volume of the store; {self._minimum_free} are wanted",
                path=root,
            )
        if self.exists and not protection.is_protected(root):
            self._found(
                "unprotected_root",
                "Users who are not administrators may get at the store",
                lambda: self._protect(root),
                "protected",
                path=root,
            )

    @staticmethod
    def _protect(root: str) -> str:
        failpoint("check.protect")
        protection.protect(root)
        failpoint("check.protected")
        return "protected"


def _wanted(info: Info) -> label_rules.ScratchOptions:
    """What the labels say now; an update may have made them unreadable, which changes nothing on disk."""
    try:
        return label_rules.scratch_options(info.labels)
    except SnapshotterError:
        return label_rules.ScratchOptions(0, label_rules.UVM_SCRATCH in info.labels, [])
