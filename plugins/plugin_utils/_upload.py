# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Upload a file to the node in pieces; resume an interrupted upload.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO, Callable, Dict

from ..module_utils.core.errors import InvalidArgument
from ..module_utils.core.files import only_files
from ..module_utils.core.formats.ntfsnames import check_escapes
from ..module_utils.core.formats.tar.decompress import is_zstd
from ._action import TaskFailure
from ._call import lines_of
from ._zstd import repacked

#: Stands for a file that is not sent yet: enough to ask whether the node needs it, or to change labels.
UNSENT = {"staged": "sha256:" + 64 * "0"}

#: Bytes in one call: about 22 MB on the wire, where WinRM takes 50 MB of one command by default.
PIECE = 16 * 1024 * 1024


def check_source(src: str) -> None:
    """Raise TaskFailure for a path that cannot be what the user meant."""
    try:
        check_escapes("src", src)
    except InvalidArgument as error:
        raise TaskFailure(error.code, error.message) from None


def sha256_of(path: str) -> str:
    """The digest of a file as OCI writes it: ``sha256:`` and 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=only_files) as file:
        while block := file.read(1024 * 1024):
            digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def import_layer(
    arguments: Dict[str, Any], name: str, transfer: Callable[[], str], ask: Callable[..., Dict[str, Any]]
) -> Dict[str, Any]:
    """Send a layer and import it; return the entry of the reply to ``ensure_layer``, which tells what this task did.

    ``transfer`` sends the file and returns its digest. A task that is faster
    deletes what it imported, so a transfer that fails is not a failure if the
    snapshot exists by then. The node knows only the digest of the file, so
    ``name`` precedes its messages.
    """
    try:
        source = {"staged": transfer()}
    except TaskFailure:
        if is_missing(arguments, ask):
            raise
        source = UNSENT
    try:
        return ask("ensure_layer", {**arguments, "src": source})
    except TaskFailure as failure:
        raise TaskFailure(failure.code, f"{name}: {failure}", failure.details) from None


def is_missing(arguments: Dict[str, Any], ask: Callable[..., Dict[str, Any]]) -> bool:
    """Return whether ``ensure_layer`` with these arguments would import the file."""
    plan = ask("ensure_layer", {**arguments, "src": UNSENT}, check_mode=True)
    return any(action.startswith("import ") for action in plan["result"]["actions"])


def upload(path: str, ask: Callable[..., Dict[str, Any]], diff_id: str = "") -> str:
    """Send the layer at ``path`` to the node; return the digest that names it there.

    A layer that is compressed with zstd is sent with gzip; ``diff_id`` is the
    digest of the plain tar, if it is known. ``ask`` is SnapshotterAction.ask.
    Raises TaskFailure, and OSError if it is not a file or cannot be read. The
    node verifies the digest of the whole.
    """
    with open(path, "rb", opener=only_files) as file:
        if is_zstd(file.read(4)):
            file.seek(0)
            return send_repacked(file, path, diff_id, ask)
        digest = sha256_of(path)
        send(file, 0, file.seek(0, 2), digest, ask)
    return digest


def send_repacked(stream: BinaryIO, name: str, diff_id: str, ask: Callable[..., Dict[str, Any]]) -> str:
    """Send a zstd layer, as ``_zstd.repacked`` repacks it; return the digest of what the node has."""
    with repacked(stream, name, diff_id) as packed:
        digest = sha256_of(packed.name)
        send(packed, 0, packed.seek(0, 2), digest, ask)
    return digest


def send(
    file: BinaryIO, start: int, size: int, digest: str, ask: Callable[..., Dict[str, Any]], name: str = ""
) -> None:
    """Send ``size`` bytes from ``start`` of an open file to the node; ``digest`` is theirs. Raises as ``upload``.

    ``name`` is what messages call the file, by default its own name.
    """
    name = name or file.name
    arguments = {"digest": digest, "size": size}
    state = ask("stage", arguments)["result"]
    while not state["complete"]:
        offset = state["offset"]
        if offset >= max(size, 1):
            raise TaskFailure(
                "internal", f"The node's reply cannot be used: it asks for byte {offset} of {size} of {name}"
            )
        file.seek(start + offset)
        piece = list(lines_of(file.read(min(PIECE, size - offset))))
        state = ask("stage", {**arguments, "offset": offset}, piece)["result"]
        if not state["complete"] and state["offset"] <= offset:
            raise TaskFailure("internal", f"The upload of {name} stops at byte {offset}: the file changed meanwhile")
