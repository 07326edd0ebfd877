# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Split a Windows command line into arguments, and join them.

A process on Windows gets one text and splits it by itself. The rules are those of programs in Go, such as containerd
(os/exec_windows.go). They differ from those of CommandLineToArgvW only in the first argument, which CommandLineToArgvW
reads as a path in which ``\`` and ``"`` do not affect each other.
"""

from __future__ import annotations

import re
from typing import List, Sequence

from ..errors import InvalidArgument

# Backslashes and the quote behind them, or white space, or other text.
_PIECE = re.compile(r'(\\*)"|([ \t]+)|(\\+|[^\\" \t]+)')


def split(text: str) -> List[str]:
    r"""Return the arguments, the program first.

    White space separates arguments, except between quotes. Backslashes before a quote count half. If their number is
    odd, the quote is a part of the argument. Two quotes between quotes are one quote, and end what is between quotes.
    """
    arguments: List[str] = []
    parts: List[str] = []
    is_argument = is_quoted = False
    at = 0
    while True:
        found = _PIECE.match(text, at)
        if found is None:
            break
        at = found.end()
        backslashes, blank, other = found.groups()
        if blank and not is_quoted:
            if is_argument:
                arguments.append("".join(parts))
            parts, is_argument = [], False
            continue
        is_argument = True
        if backslashes is None:
            parts.append(blank or other)
            continue
        parts.append("\\" * (len(backslashes) // 2))
        if len(backslashes) % 2:
            parts.append('"')
            continue
        if is_quoted and text.startswith('"', at):
            parts.append('"')
            at += 1
        is_quoted = not is_quoted
    if is_argument:
        arguments.append("".join(parts))
    return arguments


def join(arguments: Sequence[str]) -> str:
    r"""Return a command line that ``split``, and each program, splits into these arguments. The program is quoted.

    Without the quotes, Windows would try ``C:\Program.exe`` first for a program in ``C:\Program Files``. Raises
    InvalidArgument for a program with a quote, and for a percent sign, which stands for a variable of the environment
    in the command line of a service.
    """
    for argument in arguments:
        if "%" in argument or "\0" in argument:
            raise InvalidArgument(f"{argument!r} cannot be a part of a service's command line; choose a path without %")
    program, *rest = arguments
    if '"' in program:
        raise InvalidArgument(f"{program!r} cannot be a program: it has a quote")
    return " ".join([f'"{program}"', *(_quote(argument) for argument in rest)])


def _quote(argument: str) -> str:
    if argument and not re.search(r'[\s"]', argument):
        return argument
    # Backslashes count half before a quote, also before the one at the end.
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + (found[2] and '\\"'), argument) + '"'
