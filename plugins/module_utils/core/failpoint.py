# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Named places where a test may end this process, as a power switch would.

There is one between any two changes of state on disk, in the form of a
statement of its own. Nodes never get them: what is sent to them has neither
these statements nor this module (plugins/plugin_utils/_payload.py). Here they
do nothing unless the environment of the process says so at its start:

* ``WCOW_FAILPOINT=<name>``: the process ends there at once, nothing is cleaned
  up. With ``<name>#<n>`` only when it comes by for the n-th time, from 1;
* ``WCOW_FAILPOINT_ERROR``, in the same form: an I/O error is raised there;
* ``WCOW_FAILPOINTS_LOG=<file>``: the name of each point that is passed is
  appended to the file, a line each.
"""

from __future__ import annotations

import os
from typing import List

_FATAL = os.environ.get("WCOW_FAILPOINT", "")
_FAILING = os.environ.get("WCOW_FAILPOINT_ERROR", "")
_LOG = os.environ.get("WCOW_FAILPOINTS_LOG", "")
_ARMED = bool(_FATAL or _FAILING or _LOG)

_passed: List[str] = []


def failpoint(name: str) -> None:
    """Mark a place. Raises OSError (EIO) if the environment asks for an error here."""
    if _ARMED:
        _pass(name)


def _pass(name: str) -> None:
    _passed.append(name)
    if _LOG:
        with open(_LOG, "a", encoding="utf-8") as log:
            log.write(name + "\n")
    if _is_meant(_FATAL, name):
        _die()
    if _is_meant(_FAILING, name):
        import errno

        raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (asked for at failpoint {name})")


def _is_meant(wanted: str, name: str) -> bool:
    place, _separator, number = wanted.partition("#")
    return place == name and (not number or _passed.count(name) == int(number))


def _die() -> None:
    if os.name == "nt":
        import ctypes

        kernel32 = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
        kernel32.GetCurrentProcess.restype = ctypes.c_void_p
        kernel32.TerminateProcess(ctypes.c_void_p(kernel32.GetCurrentProcess()), 1)
    else:
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
