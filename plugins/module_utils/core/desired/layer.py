# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one layer: imported from an OCI layer tar.

By the label ``containerd.io/snapshot.ref``, a containerd that has the store as its snapshotter finds the layer instead
of unpacking it. Its value is the chain id. It follows from the diff id and from the chain id of the parent, so a layer
gets the label if its parent has it, or if it has no parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, Mapping, Optional, Union

from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, SnapshotterError
from ..files import only_files
from ..formats.digest import chain_id, is_digest, parse_digest
from ..formats.imagenames import canonical_name
from ..labels import SNAPSHOT_REF
from ..model import Description, ImportResult
from ..outcome import Outcome
from ..staging import Staging
from . import labels as label_changes
from .parent import assume_parent, find_parent
from .result import as_returned, outcome, require_committed
from .sources import find_source, require_file, unreadable

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore, Unpack


def ensure_layer(
    store: SnapshotStore,
    name: str,
    src: Union[str, Mapping[str, str]],
    parent: str = "",
    labels: Optional[Mapping[str, str]] = None,
    digest: str = "",
    assume: bool = False,
    parent_image: str = "",
) -> Outcome:
    """Import the committed snapshot ``name`` from an OCI layer tar, unless it exists.

    ``src`` is a path on the node or a share, or ``{"staged": digest}`` for a
    file that ``stage`` received, which is deleted after the import. The tar
    may be gzipped. ``digest`` (of the plain tar, the diff id; any spelling of
    ``parse_digest``) is verified before the commit. With ``assume``, a dry run
    assumes that an earlier task creates a parent that does not exist. ``labels``
    outrank the label with the chain id. A dry run does not read the tar, so it
    shows that label only if ``digest`` is given. ``parent_image`` names the
    image whose top layer is the parent. Raises AlreadyExists if the name
    belongs to something else, InvalidArgument for a bad archive or digest and
    for a ``src`` that is not a file, NotFound if there is nothing.
    """
    if not isinstance(src, Mapping) and not src.strip():
        raise InvalidArgument("src is empty: it must name the layer tar")
    if parent and parent_image:
        raise InvalidArgument("parent and parent_image exclude each other: set one of them")
    digest = parse_digest(digest, "digest") if digest else ""
    before = store.describe(name)
    imported: Optional[ImportResult] = None
    found = before.get(name)
    if parent_image:
        parent = find_parent(store, parent_image, found, assume)
    if found is None:
        if assume:
            assume_parent(store, parent)
        try:
            # A real import learns the diff id from the tar.
            planned = _reference(store, parent, digest) if store.dry_run else {}
            imported = _import(store, name, src, parent, {**planned, **(labels or {})}, digest)
        except (AlreadyExists, FailedPrecondition, NotFound):
            # Another task was faster, and has deleted the staged file. Its snapshot is what this task found.
            before = store.describe(name)
            found = before.get(name)
            if found is None:
                raise
    actions = []
    after = found
    if imported is not None:
        actions.append(f"import {name}")
        after = store.describe(name).get(name)
    elif found is not None:
        require_committed(found.info, parent)
        # The layer is not compared with the tar. Only a name that is the chain id says what it contains.
        known = _reference(store, parent, digest) if is_digest(name) else {}
        wanted = {**(known if known.get(SNAPSHOT_REF) == name else {}), **(labels or {})}
        changed = label_changes.changes(found.info.labels, wanted, False, [])
        if changed:
            after = found._replace(info=label_changes.write(store, name, changed))
            actions.append(f"update {name}")
    if isinstance(src, Mapping) and not store.dry_run:
        Staging(store.root, store.layers).discard(src["staged"])
    layer = None
    if imported is not None and not store.dry_run:
        layer = {"size": imported.size, "digest": imported.digest, "entries": imported.entries}
    snapshot = as_returned(after)
    if snapshot and parent_image:
        snapshot["parent_image"] = canonical_name(parent_image)
    return outcome(actions, before, _by_name(after), snapshot=snapshot, layer=layer)


def _by_name(found: Optional[Description]) -> Mapping[str, Description]:
    return {} if found is None else {found.info.name: found}


def _reference(store: SnapshotStore, parent: str, diff_id: str) -> Dict[str, str]:
    """Return the label with the chain id of a layer, nothing if that is not known."""
    below = ""
    if parent and diff_id:
        found = store.describe(parent, scratch=False).get(parent)
        below = found.info.labels.get(SNAPSHOT_REF, "") if found else ""
    return {SNAPSHOT_REF: chain_id(below, diff_id)} if diff_id and (not parent or is_digest(below)) else {}


def _import(
    store: SnapshotStore,
    name: str,
    src: Union[str, Mapping[str, str]],
    parent: str,
    labels: Mapping[str, str],
    digest: str,
) -> ImportResult:
    staged = src["staged"] if isinstance(src, Mapping) else ""
    staging = Staging(store.root, store.layers)
    path = "" if staged else find_source(store.layers, str(src))
    if staged and not store.dry_run:
        staging.require(staged)
    if path:
        require_file(store.layers, path)

    def fill(unpack: Unpack) -> ImportResult:
        from ..formats.tar import layertar

        source = staging.open(staged) if staged else open(path, "rb", opener=only_files)
        try:
            with source as stream, layertar.open_layer(stream, digest=digest) as plain:
                result = unpack(plain, digest)
                return result._replace(labels=_reference(store, parent, result.digest))
        except OSError as error:
            raise unreadable(staged or store.layers.display_path(path), error) from error
        except SnapshotterError as error:
            if staged:
                raise
            raise error.with_context(store.layers.display_path(path)) from error

    return store.import_layer(name, parent, labels, fill)
