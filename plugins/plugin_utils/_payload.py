# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The core as one file that the node can keep: a zip with the same bytes for the same tree.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import functools
import hashlib
import io
import pathlib
import zipfile
from typing import NamedTuple

CORE = pathlib.Path(__file__).parent.parent / "module_utils" / "core"

#: What the loader executes, and so the first entry.
BOOT = "core/boot.py"


class Payload(NamedTuple):
    """The zip file, its SHA-256 in hexadecimal, and where in it the source of boot.py lies."""

    digest: str
    data: bytes
    boot: range


def build(core: pathlib.Path) -> Payload:
    """Pack the Python files below ``core``.

    Order, times, modes and the making system are fixed, so that the bytes
    depend on the names and contents of the files alone.
    Raises OSError if a file cannot be read.
    """
    names = {"core/" + path.relative_to(core).as_posix(): path for path in core.rglob("*.py")}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(names, key=lambda name: (name != BOOT, name)):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            # Compressed as one piece on its way (_call.py), which is a quarter less than file by file.
            archive.writestr(entry, names[name].read_bytes(), zipfile.ZIP_STORED)
    data, boot = target.getvalue(), names[BOOT].read_bytes()
    start = data.index(boot)
    return Payload(hashlib.sha256(data).hexdigest(), data, range(start, start + len(boot)))


@functools.cache
def payload() -> Payload:
    """The payload of this collection, built once in a process."""
    return build(CORE)
