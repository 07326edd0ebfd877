# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of the controller on its way to the node, in pieces, continued where an earlier try broke off.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO, Callable, Dict

from ._action import TaskFailure
from ._call import lines_of

#: Bytes in one call: about 22 MB on the wire, where WinRM takes 50 MB of one command by default.
PIECE = 16 * 1024 * 1024


def sha256_of(path: str) -> str:
    """The digest of a file as OCI writes it: ``sha256:`` and 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1024 * 1024):
            digest.update(block)
        return f"sha256:{digest.hexdigest()}"


def upload(path: str, ask: Callable[..., Dict[str, Any]]) -> str:
    """Bring the file at ``path`` to the node; return the digest by which the core knows it there.

    ``ask`` is SnapshotterAction.ask. Raises TaskFailure, and OSError if the
    file cannot be read. The node verifies the digest of the whole.
    """
    digest = sha256_of(path)
    with open(path, "rb") as file:
        send(file, 0, file.seek(0, 2), digest, ask)
    return digest


def send(file: BinaryIO, start: int, size: int, digest: str, ask: Callable[..., Dict[str, Any]]) -> None:
    """Bring ``size`` bytes from ``start`` of an open file to the node, whose digest is known. Raises as ``upload``."""
    arguments = {"digest": digest, "size": size}
    state = ask("stage", arguments)["result"]
    while not state["complete"]:
        offset = state["offset"]
        file.seek(start + offset)
        piece = list(lines_of(file.read(min(PIECE, size - offset))))
        state = ask("stage", {**arguments, "offset": offset}, piece)["result"]
        if not state["complete"] and state["offset"] <= offset:
            raise TaskFailure(
                "internal", f"The upload of {file.name} stops at byte {offset}: the file changed meanwhile"
            )
