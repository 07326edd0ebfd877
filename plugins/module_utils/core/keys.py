# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for keys and names: what is allowed, and which keys belong to an unpack."""

from __future__ import annotations

from .errors import InvalidArgument

#: Longest key or name, in bytes of UTF-8.
MAXIMUM_KEY_LENGTH = 4096

#: The key of the active snapshot that an import fills: process id, time, random number, name of the result.
IMPORT_KEY = r"extract-[0-9]+-[-0-9T:.]+Z-[0-9a-f]{8} (?P<name>.+)"


def check_key(key: str, what: str) -> None:
    """Raise InvalidArgument for an empty or overlong key, or one that is not Unicode text."""
    if not key:
        raise InvalidArgument(f"{what} must not be empty")
    try:
        length = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{what} {key!r} is not valid Unicode: {error.reason}") from None
    if length > MAXIMUM_KEY_LENGTH:
        raise InvalidArgument(
            f"{what} is {length} bytes long; at most {MAXIMUM_KEY_LENGTH} bytes are allowed: {key[:64]!r}...",
            length=length,
            maximum=MAXIMUM_KEY_LENGTH,
        )


def is_unpack_key(key: str) -> bool:
    """Return True if ``key`` names an active snapshot that an image layer is unpacked into.

    Prepare gives such a snapshot no scratch disk, and Commit does not convert
    it. containerd writes ``extract-<unique> <chain id>`` and sends a backend
    ``<namespace>/<sequence>/extract-<unique> <chain id>`` (pkg/rootfs/apply.go).
    containerd's own snapshotter only asks whether the key contains "extract",
    so a container with that word in its name never gets a disk. Here the last
    path element must start with it. The text after the first space does not
    count, because it can be any name.
    """
    return key.split(" ", 1)[0].rsplit("/", 1)[-1].startswith("extract-")
