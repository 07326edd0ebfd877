# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line that starts Python on the node, quoted for the shell that reads it.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import base64
import re
import shlex

#: All that is compiled from the command line; the loader is the first line of standard input.
#: bytes and ``buffer``: with code page 65001 Windows may put a BOM first, which exec of bytes accepts (ansible#15770).
BOOTSTRAP = "import sys;exec(sys.stdin.buffer.readline())"

#: PowerShell takes each of these for a single quote: ``CharExtensions.IsSingleQuote`` in
#: PowerShell/PowerShell src/System.Management.Automation/engine/parser/CharTraits.cs.
SINGLE_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")


#: What only a path of Windows begins with: a drive, or a share.
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def is_path_of_windows(path: str) -> bool:
    """Return True for an absolute path that no POSIX host has."""
    return WINDOWS_PATH.match(path) is not None


def quote(text: str) -> str:
    """``text`` as a PowerShell string literal in which nothing is expanded."""
    return "'" + SINGLE_QUOTES.sub(r"\1\1", text) + "'"


def posix(python: str) -> str:
    """The command line for a POSIX shell."""
    return f"{shlex.quote(python)} -I -X utf8 -c {shlex.quote(BOOTSTRAP)}"


def psrp(python: str) -> str:
    """The script for the connection psrp, which passes the exit code on by itself."""
    return f"$input | & {quote(python)} -I -X utf8 -c {quote(BOOTSTRAP)}"


def exiting(python: str) -> str:
    """The script for the connections winrm and ssh. Without its second line, any failure would be a 1."""
    return f"{psrp(python)}\nexit $LASTEXITCODE"


def encoded(script: str) -> str:
    """The command line that runs a PowerShell script over ssh: the shell on the node may be cmd.exe or PowerShell."""
    text = base64.b64encode(script.encode("utf-16-le")).decode("ascii")
    return f"powershell.exe -NoProfile -NonInteractive -EncodedCommand {text}"
