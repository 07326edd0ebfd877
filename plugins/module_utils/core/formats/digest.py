# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SHA-256 digests as text: ``sha256:`` and 64 lower-case hexadecimal digits.

This is the only kind of digest (image-spec descriptor.md) that the core uses.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash

_PREFIX = "sha256:"
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_WRITTEN = re.compile("(?:sha256:)?([0-9a-f]{64})", re.ASCII | re.IGNORECASE)


def is_digest(text: str) -> bool:
    """Return whether the text is a digest."""
    return bool(_DIGEST.fullmatch(text))


def parse_digest(text: str, what: str) -> str:
    """Return the digest that a user wrote; ``what`` names it in the error.

    The prefix can be missing and the digits can be upper case, as Get-FileHash
    prints them. Raises InvalidArgument for anything else.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if not written:
        raise InvalidArgument(f"{what} {text[:200]!r} is not sha256: and 64 hexadecimal digits")
    return _PREFIX + written.group(1).lower()


def digest_of(data: bytes) -> str:
    """Return the digest of ``data``."""
    return format_digest(hashlib.sha256(data))


def chain_id(parent: str, diff_id: str) -> str:
    """Return the digest that stands for a layer and all below it. ``parent`` is that of the parent, empty for a base.

    image-spec config.md, "Layer ChainID"; identity.ChainID is what containerd calls.
    """
    return digest_of(f"{parent} {diff_id}".encode("ascii")) if parent else diff_id


def format_digest(sha256: _Hash) -> str:
    """Return the digest of all that a SHA-256 object was fed."""
    return _PREFIX + sha256.hexdigest()


def hex_digits(digest: str) -> str:
    """Return the hexadecimal digits of a digest, for file names."""
    return digest[len(_PREFIX) :]
