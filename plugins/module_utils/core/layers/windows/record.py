# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an attachment: ``attachment.json`` in the layer directory.

Windows keeps a layer attached after the process that attached it has ended.
So the record is written before a layer is attached and deleted after it is
detached. A record that belongs to no mount tells the next operation to undo
what an ended process left. A layer without a record is not ours to detach: if
it is attached, another program did that, perhaps for a running container.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple, Optional, Tuple

from ...errors import FailedPrecondition
from ...failpoint import failpoint

_FILE = "attachment.json"

# What two readings of the start of one Windows may differ by, in units of 100 ns.
_TOLERANCE = 10 * 10**7


class Attachment(NamedTuple):
    """What a layer is attached for: a mount at ``target``, or other work if ``target`` is empty."""

    target: str
    read_only: bool


def exists(directory: str) -> bool:
    """Whether a layer directory has a record."""
    return os.path.lexists(os.path.join(directory, _FILE))


def read(directory: str) -> Optional[Attachment]:
    """The record in a layer directory, None if there is none. Raises FailedPrecondition if it is damaged."""
    found = _read(directory)
    return found[0] if found else None


def may_be_attached(directory: str) -> bool:
    """Whether the collection may have attached a layer: it has a record, written since the host started.

    A restart of the host detaches all layers. What is attached after it under
    an older record was attached by another program. Raises as ``read``.
    """
    from ...win32 import ntdll

    found = _read(directory)
    return found is not None and abs(found[1] - ntdll.get_boot_time()) <= _TOLERANCE


def _read(directory: str) -> Optional[Tuple[Attachment, int]]:
    """The record, and when the Windows that it was written in had started: 0 for one of an older release."""
    import json

    path = os.path.join(directory, _FILE)
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
        boot = int(fields.pop("boot", 0))
        return Attachment(**fields), boot
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError):
        raise FailedPrecondition(f"{path} is damaged: delete it if the layer is not mounted", path=path) from None


def write(directory: str, attachment: Attachment) -> None:
    """Write the record, durably and as a whole."""
    import json

    from ...win32 import ntdll

    path = os.path.join(directory, _FILE)
    new = path + ".new"
    failpoint("record.write")
    with open(new, "w", encoding="utf-8") as file:
        json.dump({**attachment._asdict(), "boot": ntdll.get_boot_time()}, file)
        file.flush()
        failpoint("record.flush")
        os.fsync(file.fileno())
    failpoint("record.rename")
    os.replace(new, path)
    failpoint("record.renamed")


def delete(directory: str) -> None:
    """Delete the record, if there is one."""
    failpoint("record.delete")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, _FILE))
