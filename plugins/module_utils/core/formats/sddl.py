# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can access what a security descriptor protects, by its text form SDDL (MS-DTYP 2.5.1.1)."""

from __future__ import annotations

import re
from typing import Iterator

# Administrators, SYSTEM, the local Administrator, TrustedInstaller; CREATOR OWNER and OWNER RIGHTS, which stand for one
# of the others where the owner is one of them.
_TRUSTED = ("BA", "SY", "LA", "CO", "OW", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464")
# Accounts that may read if an administrator allows it, such as that of a backup program: operators and administrators
# of a domain, services, virtual machines, and accounts that were created. All other accounts with names of two letters
# (MS-DTYP 2.4.2.4) or with small numbers are groups of users or of programs.
_READERS = re.compile(r"BO|DA|EA|S-1-5-80(?:-[0-9]+){5}|S-1-5-83-[-0-9]+|S-1-5-21(?:-[0-9]+){3}-[0-9]{4,}")
# Rights to read, as names and as a mask: GENERIC_READ, GENERIC_EXECUTE, and what they stand for.
_READ_RIGHTS = ("FR", "FX", "GR", "GX", "RC")
_READ_MASK = 0xA0000000 | 0x001200A9

_DESCRIPTOR = re.compile(
    r"(?:O:(?P<owner>S-[-0-9]+|[A-Z]{2}))?(?:G:(?:S-[-0-9]+|[A-Z]{2}))?"
    r"(?:D:(?P<flags>[A-Z_]*?)(?P<entries>\(.*|S:.*|))",
    re.DOTALL,
)
# Type, flags, rights, two GUIDs, account, and perhaps a condition (MS-DTYP 2.5.1.1).
_ENTRY = re.compile(r"([A-Z]+);[A-Z]*;(0x[0-9a-fA-F]+|[A-Z]*);[^;]*;[^;]*;([-A-Z0-9]+)(?:;.*)?", re.DOTALL)
_DENYING = ("D", "OD", "XD")


def fault(sddl: str, user: str = "", *, readable: bool = False) -> str:
    """Return why a security descriptor, as text, does not keep other accounts out; empty if it does.

    ``user`` is the SID of an administrator: that of this process. With
    ``readable``, any account may read.
    """
    found = _DESCRIPTOR.fullmatch(sddl)
    if found is None or "NO_ACCESS_CONTROL" in found["flags"]:
        # Without an access list, every account has full access.
        return "has no access list that the collection understands"
    trusted = (*_TRUSTED, user)
    if found["owner"] is not None and found["owner"] not in trusted:
        return f"belongs to {found['owner']}"
    for text in _split_entries(found["entries"]):
        entry = _ENTRY.fullmatch(text)
        if entry is None:
            return f"has an access list that the collection does not understand: {text}"
        kind, rights, account = entry.groups()
        if kind in _DENYING or account in trusted:
            continue
        if not _is_reading(rights):
            return f"can be changed by {account}"
        if not readable and not _READERS.fullmatch(account):
            return f"can be read by {account}"
    return ""


def _split_entries(text: str) -> Iterator[str]:
    """Yield the contents of each outer pair of parentheses. Conditions contain parentheses and strings."""
    depth = start = 0
    is_quoted = False
    for at, character in enumerate(text):
        is_quoted ^= character == '"'
        if is_quoted:
            continue
        if character == "(":
            depth += 1
            start = at + 1 if depth == 1 else start
        elif character == ")":
            depth -= 1
            if depth == 0:
                yield text[start:at]
        elif depth == 0:
            # The audit list follows, which gives no access.
            return
    if depth:
        yield text[start:]


def _is_reading(rights: str) -> bool:
    if rights.startswith("0x"):
        return not int(rights, 16) & ~_READ_MASK
    return all(rights[at : at + 2] in _READ_RIGHTS for at in range(0, len(rights), 2))
