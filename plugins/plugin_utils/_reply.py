# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came back from the node: a reply, or the best account of why there is none.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, NamedTuple

PROTOCOL = 1

#: How PowerShell (any language: the identifier), cmd.exe and the alias of the Microsoft Store say "no such program".
MISSING = re.compile("CommandNotFoundException|is not recognized as |Python was not found; run without arguments")

#: What a shell returns for a program that is not there or not a program (POSIX XCU 2.8.2), and cmd.exe for the former.
MISSING_CODES = (126, 127, 9009)

#: What Python 2 and other programs say to our command line.
NOT_PYTHON_3 = re.compile("[Uu]nknown option|object has no attribute 'buffer'|[Ii]nvalid option|unrecognized option")

#: How boot.py's note starts, a line of its own ahead of the reply.
LOADER = '{"loader": '

RERUN = "Rerunning the task is safe: what is done already is found and kept."


class Output(NamedTuple):
    """How a command on the node ended."""

    code: int
    stdout: str
    stderr: str


class Reply(NamedTuple):
    """A reply of the loader or of the core, and the warnings that came with it."""

    body: Dict[str, Any]
    warnings: List[str]


class NodeFailure(Exception):
    """The node gave no usable reply. ``code`` is one of the core's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def excerpt(text: str) -> str:
    """The end of a program's output, fit for a message: at most six lines of 200 characters."""
    lines = ["".join(char if char.isprintable() else " " for char in line) for line in text.strip().splitlines()]
    return "\n".join(line if len(line) <= 200 else line[:199] + "…" for line in lines[-6:])


def parse(output: Output, python: str) -> Reply:
    """Read the reply, the last line of standard output.

    Lines ahead of it are somebody's noise, except the loader's warnings.
    Raises NodeFailure, whose message says what happened and what to do.
    """
    lines = [line.strip("\ufeff \t\r") for line in output.stdout.split("\n")]
    lines = [line for line in lines if line]
    if not lines or not lines[-1].startswith("{"):
        raise no_reply(output, python)
    try:
        body = json.loads(lines[-1])
        noted = [json.loads(line)["loader"]["warnings"] for line in lines[:-1] if line.startswith(LOADER)]
    except ValueError:
        raise NodeFailure(
            "unavailable",
            f"The node's reply of {len(lines[-1])} characters is not JSON: it breaks off or was changed. {RERUN}",
        ) from None
    if body.get("protocol") != PROTOCOL:
        raise NodeFailure(
            "internal", f"The node's reply has protocol {body.get('protocol')!r}, this collection speaks {PROTOCOL}"
        )
    warnings = sum(noted, list(body.get("warnings") or []))
    return Reply(body, [str(warning) for warning in warnings])


def no_reply(output: Output, python: str) -> NodeFailure:
    """Explain an output that holds no reply."""
    said = excerpt(output.stderr) or excerpt(output.stdout)
    if MISSING.search(output.stderr + output.stdout) or output.code in MISSING_CODES:
        return NodeFailure(
            "failed_precondition",
            f'No Python can be started on the node at "{python}". Install it with the role '
            "wcow.snapshotter.python_runtime, or set the variable wcow_python (or the option python) to the path of "
            "Python 3.9 or newer",
        )
    if "Traceback (most recent call last)" in output.stderr and not NOT_PYTHON_3.search(output.stderr):
        return NodeFailure(
            "internal", f"The program on the node crashed (exit code {output.code}). Its last words:\n{said}"
        )
    if said:
        return NodeFailure(
            "failed_precondition",
            f'"{python}" on the node did not answer as Python 3.9 or newer does (exit code {output.code}). Set the '
            f"variable wcow_python (or the option python) to a Python that does. It said:\n{said}",
        )
    return NodeFailure(
        "unavailable",
        f'The node ran "{python}", which ended with exit code {output.code} and no reply: it was stopped, or the '
        f"connection was lost. {RERUN}",
    )
