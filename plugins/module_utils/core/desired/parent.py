# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parent of a snapshot: the top layer of an image, and what a dry run assumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ..errors import AlreadyExists, InvalidArgument, NotFound
from ..formats.digest import is_digest
from ..formats.imagenames import canonical_name
from ..model import Description

if TYPE_CHECKING:
    from ..snapshots import SnapshotStore


def find_parent(store: SnapshotStore, image: str, current: Optional[Description], assume: bool = True) -> str:
    """Return the name of the top layer of an image, the one that the node runs best.

    ``current`` is the snapshot that has it as its parent, if it exists. With ``assume``, a dry run assumes that an
    earlier task imports an image that does not exist. Raises AlreadyExists if the snapshot has another parent, and as
    ``top_layers`` and ``choose_image``.
    """
    from .image import choose_image

    if is_digest(image):
        raise InvalidArgument(f"parent_image is {image}, which is not the name of an image: for a chain id, set parent")
    name = canonical_name(image)
    try:
        layers = store.top_layers(name)
    except NotFound as error:
        if not store.dry_run or not assume:
            raise
        if current is None:
            return name
        store.warnings.append(error.message)
        return current.info.parent
    parent = choose_image(store.warnings, layers, "", "set parent to the chain id of one instead of parent_image").name
    if current is not None and current.info.parent != parent:
        raise AlreadyExists(
            f'"{current.info.name}" has the parent "{current.info.parent}", and the top layer of the image "{name}" is '
            f'"{parent}"; remove "{current.info.name}" first, use another key or name, or keep it: set parent instead '
            "of parent_image",
            **current.info._asdict(),
        )
    return parent


def assume_parent(store: SnapshotStore, parent: str) -> None:
    """In a dry run, commit ``parent`` as a base layer if it does not exist, and warn.

    The earlier tasks of a play changed nothing in check mode, and this request
    does not know them. One of them can be the one that imports the parent.
    """
    if not store.dry_run or not parent or store.describe(parent, scratch=False):
        return
    # An unpack key has no disk, and its commit converts nothing.
    key = f"extract-dry-run {parent}"
    store.prepare(key)
    store.commit(parent, key)
    store.warnings.append(
        f'The parent "{parent}" does not exist. Check mode assumes that an earlier task of the play would create it; '
        "without such a task, the real run fails"
    )
