# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the node's output: a reply, or the reason why it has none.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple

from ._shapes import NEEDS_PAYLOAD, NOTE, REPLY, Malformed, fit, read_json
from ._text import one_line

PROTOCOL = 1

#: How PowerShell (any language: the identifier), cmd.exe and the alias of the Microsoft Store say "no such program".
MISSING = re.compile("CommandNotFoundException|is not recognized as |Python was not found; run without arguments")

#: What a shell returns for a program that is not there or not a program (POSIX XCU 2.8.2), and cmd.exe for the former.
MISSING_CODES = (126, 127, 9009)

#: What cmd.exe and PowerShell say to a line for ``/bin/sh``, which Ansible puts around a command for a POSIX host. The
#: words of cmd.exe exist in other languages, too: they miss nothing but a better message.
NO_POSIX_SHELL = re.compile("CommandNotFoundException|is not recognized as |The system cannot find the path specified")

#: What Python 2 and other programs say to our command line.
NOT_PYTHON_3 = re.compile("[Uu]nknown option|object has no attribute 'buffer'|[Ii]nvalid option|unrecognized option")

#: How boot.py's note starts, a line of its own ahead of the reply.
LOADER = '{"loader": '

RERUN = "Rerunning the task is safe: it finds and keeps what is already done."


class Output(NamedTuple):
    """How a command on the node ended."""

    code: int
    stdout: str
    stderr: str


class Reply(NamedTuple):
    """A reply of the loader or of the core, and the warnings that came with it."""

    body: Dict[str, Any]
    warnings: List[str]


def is_from_windows(output: Output) -> bool:
    """Return True if a shell of Windows refused a command line for a POSIX shell."""
    return output.code != 0 and NO_POSIX_SHELL.search(output.stderr + output.stdout) is not None


class NodeFailure(Exception):
    """The node gave no usable reply. ``code`` is one of the core's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def excerpt(text: str) -> str:
    """The end of a program's output, fit for a message: at most six lines of 200 characters.

    Each line begins with a bar, so that none can pass for a line of Ansible.
    """
    lines = [one_line(line) for line in text.strip().splitlines()[-6:]]
    return "\n".join("| " + (line if len(line) <= 200 else line[:199] + "…") for line in lines)


def parse(output: Output, python: str) -> Reply:
    """Read the reply, the last line of standard output.

    Other lines before it are ignored, except the loader's warnings.
    Raises NodeFailure, whose message has the cause and the remedy.
    """
    lines = [line.strip("\ufeff \t\r") for line in output.stdout.split("\n")]
    lines = [line for line in lines if line]
    if not lines or not lines[-1].startswith("{"):
        raise no_reply(output, python)
    try:
        body = read_json(lines[-1])
        notes = [read_json(line) for line in lines[:-1] if line.startswith(LOADER)]
    except ValueError as error:
        raise NodeFailure(
            "unavailable",
            f"The node's reply of {len(lines[-1])} characters is not JSON: it breaks off or was changed "
            f"({one_line(str(error))}). {RERUN}",
        ) from None
    try:
        protocol = fit(body, {"protocol?": int}, "the reply").get("protocol")
        if protocol != PROTOCOL:
            raise NodeFailure(
                "internal", f"The node's reply has protocol {protocol}, this collection speaks {PROTOCOL}"
            )
        body = fit(body, NEEDS_PAYLOAD if "need_payload" in body else REPLY, "the reply")
        noted = [fit(note, NOTE, "the loader's note")["loader"]["warnings"] for note in notes]
    except Malformed as error:
        raise unusable(error) from None
    return Reply(body, sum(noted, list(body.get("warnings", ()))))


def unusable(error: Malformed) -> NodeFailure:
    """Explain a reply that is complete but has another form than the collection expects."""
    return NodeFailure(
        "internal",
        f"The node's reply cannot be used: {error}. The core does not answer like this: find out what else runs as "
        "Python on this node, or changes its output",
    )


def no_reply(output: Output, python: str) -> NodeFailure:
    """Explain an output that holds no reply."""
    said = excerpt(output.stderr) or excerpt(output.stdout)
    if MISSING.search(output.stderr + output.stdout) or output.code in MISSING_CODES:
        return NodeFailure(
            "failed_precondition",
            f'No Python can be started on the node at "{python}". Install it with the role '
            "wcow.snapshotter.python_runtime, which installs nothing in check mode, or set the variable wcow_python "
            "(or the option python) to the path of Python 3.9 or newer",
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
