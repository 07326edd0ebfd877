# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The snapshot operations on containerd's store, through its API (``core/snapshots`` has the interface).

What the operations create belongs to a lease until the object is closed, and has the label ``containerd.io/gc.root``
from the start, so that containerd's garbage collection keeps it afterwards.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from .. import labels as label_rules
from ..errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    SnapshotterError,
)
from ..filters import language
from ..keys import check_key
from ..model import Info, Mount, Usage, now
from .client import LEASE_SECONDS, Client

#: containerd keeps a snapshot that has this label, with any value, and all its parents.
ROOT_LABEL = "containerd.io/gc.root"

#: The type of containerd's plugins that are snapshotters.
SNAPSHOTTER_PLUGIN = "io.containerd.snapshotter.v1"

# What to do about containerd's sentences.
_ADVICE_CHILD = (
    "Remove its children first; snapshot_info lists them. If it has none, containerd keeps a link to a child that is "
    "gone: store_check with repair=true removes it"
)
_ADVICE_DIFFERENT = (
    "The two databases of containerd differ about this snapshot; store_check shows how, and says what to do"
)
_ADVICE_PARENT = (
    "Create or import the parent first, or correct its name; snapshot_info lists the snapshots. To name an image, set "
    "parent_image"
)
_ADVICE_COMMIT = "Commit the parent first, or name a committed snapshot"
_ADVICE_KEY = "Correct the key or name, the namespace or the snapshotter; snapshot_info lists the snapshots"
_ADVICE_TAKEN = "Choose another key or name, or remove the snapshot that has it"
_ADVICE_DIRECTORY = (
    "A directory has the id that containerd gives next, because containerd was killed in the middle of a Prepare; "
    "store_check with repair=true removes it"
)

# The class of an error, a part of its message, and the advice. The first one that fits counts.
_ADVICE: Tuple[Tuple[Type[SnapshotterError], str, str], ...] = (
    (FailedPrecondition, "cannot remove snapshot with child", _ADVICE_CHILD),
    (NotFound, "missing parent", _ADVICE_DIFFERENT),
    (NotFound, "parent", _ADVICE_PARENT),
    (NotFound, "", _ADVICE_KEY),
    (AlreadyExists, "", _ADVICE_TAKEN),
    (InvalidArgument, "parent", _ADVICE_COMMIT),
    (SnapshotterError, "file exists", _ADVICE_DIRECTORY),
)


class ContainerdSnapshots:
    """The snapshots of one snapshotter in the namespace of ``client``. It implements ``snapshots.Snapshots``.

    ``close`` ends the lease and closes the client. The API does not tell the id
    of a snapshot: it is 0 in infos. ``is_patient``: ``remove`` returns when
    containerd has collected the layer, too; otherwise it does that about a
    second later.

    Every operation raises in addition: Unavailable (no connection; the
    deadline), FailedPrecondition (not containerd; no permission; closed),
    InvalidArgument (containerd has no such snapshotter).
    """

    def __init__(self, client: Client, snapshotter: str, *, is_patient: bool = False) -> None:
        self.client = client
        self.snapshotter = snapshotter
        self.is_patient = is_patient
        self._lease = ""

    @property
    def warnings(self) -> List[str]:
        """Sentences for the user about what went wrong without failing an operation."""
        return self.client.warnings

    # -- reading -------------------------------------------------------------

    def stat(self, key: str) -> Info:
        with self._advice():
            return self.client.stat(self.snapshotter, key)

    def walk(self, *filters: str) -> List[Info]:
        """See the interface. containerd selects where it is certain to select the same snapshots."""
        wanted = language.parse_all(filters)
        with self._advice():
            infos = self.client.snapshots(self.snapshotter, *(filters if _mean_the_same(wanted) else ()))
        self.warnings.extend(wanted.warnings())
        found = [info for info in infos if wanted.matches(language.snapshot_adaptor(info))]
        return sorted(found, key=lambda info: info.name.encode())

    def usage(self, key: str) -> Usage:
        with self._advice():
            return self.client.usage(self.snapshotter, key)

    def mounts(self, key: str) -> List[Mount]:
        with self._advice():
            return self.client.mounts(self.snapshotter, key)

    def exists(self) -> bool:
        """Return True if containerd has the namespace."""
        return any(found.name == self.client.connection.namespace for found in self.client.namespaces())

    # -- changing ------------------------------------------------------------

    def prepare(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        return self._create(self.client.prepare, key, parent, labels)

    def view(self, key: str, parent: str = "", labels: Optional[Mapping[str, str]] = None) -> List[Mount]:
        return self._create(self.client.view, key, parent, labels)

    def commit(self, name: str, key: str, labels: Optional[Mapping[str, str]] = None, parent: str = "") -> Info:
        """See the interface. Raises NotImplementedHere for a parent that the active snapshot does not have."""
        check_key(name, "name")
        wanted = _with_root(labels or {})
        with self._advice():
            self._check_parent(key, parent)
            self._hold()
            self.client.commit(self.snapshotter, name, key, wanted)
            return self.client.stat(self.snapshotter, name)

    def update(self, name: str, labels: Optional[Mapping[str, str]] = None, fieldpaths: Sequence[str] = ()) -> Info:
        """See the interface. The root label goes only if a field path names it: without it, the snapshot goes, too."""
        wanted = dict(labels or {})
        label_rules.validate(wanted)
        with self._advice():
            if not fieldpaths or "labels" in fieldpaths:
                root = self.client.stat(self.snapshotter, name).labels.get(ROOT_LABEL)
                if root is not None:
                    wanted.setdefault(ROOT_LABEL, root)
            return self.client.update_snapshot(self.snapshotter, name, wanted, fieldpaths)

    def remove(self, key: str) -> None:
        with self._advice():
            self.client.remove_snapshot(self.snapshotter, key)
            if self.is_patient:
                self.client.collect_garbage()

    def remove_all(self, keys: Sequence[str]) -> List[str]:
        removed: List[str] = []
        with self._advice():
            try:
                for key in keys:
                    try:
                        self.client.remove_snapshot(self.snapshotter, key)
                    except NotFound:
                        continue
                    removed.append(key)
            finally:
                if removed and self.is_patient:
                    self.client.collect_garbage()
        return removed

    def close(self) -> None:
        lease, self._lease = self._lease, ""
        if lease:
            self.client.connection.lease = ""
            self.client.drop_lease(lease)
        self.client.close()

    # -- the parts of the above ----------------------------------------------

    def _create(
        self,
        call: Callable[[str, str, str, Mapping[str, str]], List[Mount]],
        key: str,
        parent: str,
        labels: Optional[Mapping[str, str]],
    ) -> List[Mount]:
        check_key(key, "key")
        wanted = _with_root(labels or {})
        with self._advice():
            self._hold()
            return call(self.snapshotter, key, parent, wanted)

    def _hold(self) -> None:
        """Create the lease of this object, once. Objects that only read need none."""
        if not self._lease:
            lease = self.client.new_lease_id()
            self.client.create_lease(lease, seconds=LEASE_SECONDS)
            self._lease = self.client.connection.lease = lease

    def _check_parent(self, key: str, parent: str) -> None:
        """Refuse a parent for a commit that is not the one that the snapshot has: older versions ignore that field."""
        if not parent:
            return
        actual = self.client.stat(self.snapshotter, key).parent
        if actual == parent:
            return
        if actual:
            raise InvalidArgument(
                f'snapshot "{key}" has the parent "{actual}", and cannot be committed with the parent "{parent}"',
                key=key,
                parent=actual,
            )
        raise NotImplementedHere(
            f'snapshot "{key}" has no parent, and containerd cannot give it the parent "{parent}" at its commit; '
            "prepare it with the parent",
            key=key,
        )

    @contextlib.contextmanager
    def _advice(self) -> Iterator[None]:
        """Add to containerd's errors what to do."""
        try:
            yield
        except SnapshotterError as error:
            if "advice" in error.details or "grpc_status" not in error.details:
                raise
            advice = self._advice_for(error)
            if not advice:
                raise
            raise type(error)(error.message, **error.details, advice=advice) from None

    def _advice_for(self, error: SnapshotterError) -> str:
        if "snapshotter not loaded" in error.message:
            return self._other_snapshotters()
        for kind, part, advice in _ADVICE:
            if isinstance(error, kind) and part in error.message:
                return advice
        return ""

    def _other_snapshotters(self) -> str:
        """Name the snapshotters that containerd has, and why this one could not start."""
        try:
            plugins = self.client.plugins(f"type=={SNAPSHOTTER_PLUGIN}")
        except SnapshotterError:
            return "Correct the name of the snapshotter"
        problems: Dict[str, str] = {plugin.id: plugin.problem for plugin in plugins}
        loaded = ", ".join(sorted(name for name, problem in problems.items() if not problem)) or "none"
        reason = problems.get(self.snapshotter)
        if reason:
            return f"This snapshotter could not start ({reason}). See the log of containerd; it has loaded: {loaded}"
        return f"Correct the name of the snapshotter; containerd has loaded: {loaded}"


def _with_root(labels: Mapping[str, str]) -> Dict[str, str]:
    """Return labels with the root label, whose value is the present time, as from ``ctr``. Raises InvalidArgument."""
    wanted = {ROOT_LABEL: now(), **labels}
    label_rules.validate(wanted)
    return wanted


def _mean_the_same(wanted: language.Filters) -> bool:
    """Whether containerd is certain to select what these filters select here.

    It has another engine for regular expressions. A value with bytes that are
    not UTF-8 cannot be sent.
    """
    return all(
        selector.operator != "~=" and (selector.value + "".join(selector.fieldpath)).isprintable()
        for one in wanted.filters
        for selector in one.selectors
    )
