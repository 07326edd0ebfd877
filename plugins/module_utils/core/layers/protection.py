# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Access to a store: who owns its root and the entries in it, and who can change them.

Layers hold what containers wrote, including secrets, and administrators work
with them: an account that can write there can become an administrator.
containerd gives its own root the same descriptor (pkg/sys,
SddlAdministratorsLocalSystem). On POSIX, the user of this process and root
have the part of the administrators.

An entry can be reached by its own path even where its directory is protected
(Windows does not check access to the directories above, and a process may have
it open), so each entry counts on its own.
"""

from __future__ import annotations

import os
import stat
from typing import Callable, Tuple

from ..errors import FailedPrecondition, SnapshotterError

#: Owner Administrators; full access for them and SYSTEM, inherited by everything inside; nothing inherited from above.
SDDL = "O:BAD:P(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)"

# winnt.h: the tags of reparse points that stand for something else, such as symbolic links, junctions, mount points.
_NAME_SURROGATE = 0x20000000

# winerror.h: ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND.
_MISSING = (2, 3)


def is_protected(path: str) -> bool:
    """Return True if only administrators can change a directory, and ordinary accounts cannot even read it.

    Raises OSError, on Windows a SnapshotterError, if the rights cannot be read.
    """
    if os.name == "nt":
        from ..formats import sddl
        from ..win32 import advapi32

        return not sddl.fault(advapi32.read_security(path), advapi32.user_sid())
    status = os.stat(path)
    return _is_trusted(status.st_uid) and not status.st_mode & 0o077


def fault(path: str, display: Callable[[str], str] = str) -> str:
    """Return why a path is not safe to work on, as the end of a sentence; empty if it is, or does not exist.

    A safe entry is not a link, belongs to an administrator, and no other
    account can change it. ``display`` spells the target of a link.
    """
    link, access = faults(path, display)
    return link or access


def faults(path: str, display: Callable[[str], str] = str) -> Tuple[str, str]:
    """Return ``link_fault``, and unless that is one, what else makes a path unsafe, as ``fault`` does."""
    if os.name != "nt":
        # Each change of a store asks for all of its entries, so ask the system once for each.
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return "", ""
        except OSError as error:
            return "", f"cannot be examined: {error}"
        if not stat.S_ISLNK(status.st_mode):
            return "", _access_fault_of(status)
    link = link_fault(path, display)
    return link, "" if link else _access_fault(path)


def link_fault(path: str, display: Callable[[str], str] = str) -> str:
    """Return ``is a link to <target>`` for a link or a junction, empty for anything else."""
    try:
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode) and not getattr(status, "st_reparse_tag", 0) & _NAME_SURROGATE:
            return ""
        target = os.readlink(path).removeprefix("\\\\?\\")
    except OSError:
        return "is a link" if os.path.islink(path) else ""
    return f"is a link to {display(os.path.normpath(os.path.join(os.path.dirname(path), target)))}"


def _access_fault(path: str) -> str:
    try:
        if os.name == "nt":
            from ..formats import sddl
            from ..win32 import advapi32

            return sddl.fault(advapi32.read_security(path), advapi32.user_sid(), readable=True)
        status = os.lstat(path)
    except FileNotFoundError:
        return ""
    except (OSError, SnapshotterError) as error:
        # Not asked of the path: another task may have created it by now.
        return "" if getattr(error, "winerror", None) in _MISSING else f"cannot be examined: {error}"
    return _access_fault_of(status)


def _access_fault_of(status: os.stat_result) -> str:
    if not _is_trusted(status.st_uid):
        return f"belongs to the user {status.st_uid}"
    return "can be changed by other users" if status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode) else ""


def protect(path: str) -> None:
    """Give an entry of a store to the administrators alone (``SDDL``; POSIX: this user, mode 0700 or 0600).

    What a directory contains keeps its rights: layers have their own. Raises
    FailedPrecondition for a link and for a file with several names, otherwise
    as ``is_protected``.
    """
    if os.name == "nt":
        from ..win32 import advapi32

        advapi32.write_security(path, SDDL if os.path.isdir(path) else SDDL.replace("OICI", ""))
        return
    # By handle, so that no other user can replace the entry meanwhile. A FIFO must not block.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        is_directory = stat.S_ISDIR(status.st_mode)
        if not is_directory and status.st_nlink > 1:
            raise FailedPrecondition(f"{path} has {status.st_nlink} names (hard links): delete the others")
        if not _is_trusted(status.st_uid):
            os.fchown(handle, os.geteuid(), os.getegid())
        os.fchmod(handle, 0o700 if is_directory else 0o600)
    finally:
        os.close(handle)


def copy_access(source: str, target: str) -> None:
    """Give a file the owner and the access rights of another one. Raises as ``is_protected``."""
    if os.name == "nt":
        from ..win32 import advapi32

        advapi32.write_security(target, advapi32.read_security(source))
        return
    status = os.stat(source)
    own = os.stat(target)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _is_trusted(user: int) -> bool:
    return user in (0, os.geteuid())
