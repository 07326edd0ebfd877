# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may touch the root of a store.

Layers hold what containers wrote, secrets too, and are worked on by
administrators: whoever can write there can become one. containerd gives its
own root the same descriptor (pkg/sys, SddlAdministratorsLocalSystem).
"""

from __future__ import annotations

import os
import re
import stat

#: Owned by Administrators; full access for them and SYSTEM, handed down to what is made inside; nothing from above.
SDDL = "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)"

# Administrators, SYSTEM, whoever of these makes an object, TrustedInstaller.
_TRUSTED = ("BA", "SY", "CO", "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464")
# Everyone, Users, Authenticated Users, Interactive, Network, Guests, Anonymous: to them nothing at all is open.
_CROWDS = ("WD", "BU", "AU", "IU", "NU", "BG", "AN")
# What an account that an administrator has let in, a backup program for example, may have: reading.
_READING = ("FR", "FX", "GR", "GX", "RC", "0x1200a9", "0x120089", "0x1200a0")

_OWNER = re.compile(r"O:(S-[-0-9]+|[A-Z]{2})")
# Type, (flags,) rights, (two GUIDs,) account (MS-DTYP 2.5.1.1); what follows in conditional entries does not matter.
_ACE = re.compile(r"\(([A-Z]+);[A-Z]*;(0x[0-9a-f]+|[A-Z]*);[^;]*;[^;]*;([-A-Z0-9]+)")


def is_protected(path: str) -> bool:
    """Whether only administrators can write into a directory and the crowd cannot even read it.

    On POSIX: whether only its owner can do anything there. Raises OSError, on
    Windows a SnapshotterError, if that cannot be read.
    """
    if os.name == "nt":
        from ..win32 import advapi32

        return allows_administrators_only(advapi32.read_security(path))
    return not stat.S_IMODE(os.stat(path).st_mode) & 0o077


def protect(path: str) -> None:
    """Give a directory ``SDDL`` (POSIX: mode 0700). What is in it keeps what it has: layers have rights of their own.

    Raises as ``is_protected`` does.
    """
    if os.name == "nt":
        from ..win32 import advapi32

        advapi32.write_security(path, SDDL)
    else:
        os.chmod(path, 0o700)


def allows_administrators_only(sddl: str) -> bool:
    """Whether a security descriptor, as text, is as ``is_protected`` wants it."""
    owner = _OWNER.match(sddl)
    if owner is not None and owner[1] not in _TRUSTED:
        return False
    _head, separator, entries = sddl.partition("D:")
    if not separator or "NO_ACCESS_CONTROL" in entries:
        # No list at all: everybody may do everything.
        return False
    return all(_is_harmless(*ace) for ace in _ACE.findall(entries.partition("S:")[0]))


def _is_harmless(kind: str, rights: str, account: str) -> bool:
    if kind not in ("A", "OA", "XA", "ZA") or account in _TRUSTED:
        return True
    pieces = [rights] if rights.startswith("0x") else [rights[at : at + 2] for at in range(0, len(rights), 2)]
    return account not in _CROWDS and all(piece in _READING for piece in pieces)
