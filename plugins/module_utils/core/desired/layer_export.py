# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The desired state of one layer tar on the node: exported from a committed snapshot."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, List, cast

from ..errors import FailedPrecondition, SnapshotterError, Unavailable
from ..failpoint import failpoint
from ..files import os_error, special_kind, sync_directory
from ..formats.digest import format_digest
from ..model import COMMITTED
from ..outcome import Outcome
from .result import kind_and_parent

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore


def ensure_export(store: SnapshotStore, name: str, dest: str, force: bool = False) -> Outcome:
    """Write the layer of the committed snapshot ``name`` to the file ``dest`` on the node, unless it exists.

    The file is an OCI layer tar, gzipped if ``dest`` ends in ``.gz``; the same
    layer gives the same bytes. With ``force`` an existing file is replaced.
    Raises NotFound, FailedPrecondition (not committed, or ``dest`` cannot hold
    the file), Unavailable.
    """
    path = store.layers.native(dest)
    actions: List[str] = []
    layer = None
    exists = os.path.lexists(path)
    info = store.stat(name)
    if info.kind != COMMITTED:
        raise FailedPrecondition(
            f'"{name}" is {kind_and_parent(info)}; only a committed snapshot is a layer', name=name
        )
    if not os.path.isdir(os.path.dirname(path)):
        raise FailedPrecondition(f"the directory of {dest} does not exist on the node; create it first")
    try:
        kind = special_kind(os.stat(path).st_mode)
    except (OSError, ValueError):
        # There is nothing, or a link to nothing.
        kind = ""
    if kind:
        raise FailedPrecondition(f"{dest} is {kind} on the node; name the file to write")
    if force or not exists:
        if not store.dry_run:
            layer = _export(store, name, path, dest)
        actions.append(f"export {name}")
    diff = {"before": {dest: "present" if exists else "absent"}, "after": {dest: "present"}}
    return Outcome(bool(actions), {"layer": layer, "dest": dest, "actions": actions, "diff": diff})


def _export(store: SnapshotStore, name: str, path: str, dest: str) -> Dict[str, Any]:
    """Write the tar to a temporary file beside ``path`` and rename it. A leftover of that name is overwritten."""
    temporary = f"{path}.wcow-new"
    try:
        lock = store.lock_export(path)
        if lock is None:
            raise Unavailable(f"another process writes {dest}; run the task again when that has ended", dest=dest)
        try:
            return _write(store, name, path, temporary, dest)
        finally:
            lock.release()
    except OSError as error:
        raise os_error(error, f"cannot write {dest} on the node") from error


def _write(store: SnapshotStore, name: str, path: str, temporary: str, dest: str) -> Dict[str, Any]:
    if os.path.lexists(temporary):
        os.unlink(temporary)
        failpoint("export.cleared")
    try:
        failpoint("export.open")
        with open(temporary, "xb") as file:
            failpoint("export.write")
            plain = _DigestingWriter(file, compress=path.endswith(".gz"))
            try:
                store.export_layer(name, cast(BinaryIO, plain))
            except SnapshotterError as error:
                raise error.with_context(f'cannot export "{name}" to {dest}') from error
            plain.finish()
            failpoint("export.flush")
            os.fsync(file.fileno())
        failpoint("export.rename")
        os.replace(temporary, path)
        failpoint("export.renamed")
        sync_directory(os.path.dirname(path))
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
    return {"digest": plain.digest, "size": plain.size}


class _DigestingWriter(io.RawIOBase):
    """A stream for a plain tar: counts and hashes the bytes, and gzips them if asked."""

    def __init__(self, file: BinaryIO, compress: bool) -> None:
        super().__init__()
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()
        # A fixed header, so that the same tar gives the same file.
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 31) if compress else None

    @property
    def digest(self) -> str:
        return format_digest(self._hash)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        self._hash.update(data)
        try:
            self._file.write(self._gzip.compress(data) if self._gzip else data)
        except OSError as error:
            # Only here it is certain that the error is about this file, not about the layer that is read.
            raise os_error(error, "cannot write the file") from error
        return len(data)

    def finish(self) -> None:
        """Write what the compressor still holds."""
        if self._gzip:
            self._file.write(self._gzip.flush())
        self._file.flush()
