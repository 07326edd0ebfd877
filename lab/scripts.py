# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the script that a client sends, and does what it does.

The collection sends three PowerShell scripts, all constants:
plugins/plugin_utils/_powershell.py has their text, docs/powershell.md explains
it. A lab node recognizes each script by its SHA-256, and calls a function of
this module instead. It refuses a script that differs in more than indentation.
After a change to a script, change the function first, then the digest: the
unit test prints the new one.
"""

from __future__ import annotations

import hashlib
import json
import ntpath
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .powershell import Exit, Statement, Unsupported, parse
from .windows import ScriptError, Windows

#: The first line of each script of the collection.
_FIRST_LINE = "$ErrorActionPreference = 'Stop'"
#: The last line, which Ansible's psrp connection appends to every script.
_LAST_LINE = "exit $LASTEXITCODE"

Request = dict[str, Any]
Reply = dict[str, Any]


class Script(NamedTuple):
    """A script of the collection; ``first_step`` is the step in which it reads its request."""

    name: str
    first_step: str
    function: Callable[[Windows, Request, Sequence[str]], Reply]

    def run(self, windows: Windows, lines: Sequence[str]) -> str:
        """Run the script on a node, and return its one line of output.

        ``lines`` is the standard input: the request as JSON, then data. Blocks
        until the script ends. Raises ``windows.Stopped``.
        """
        try:
            request = json.loads(lines[0])
        except (IndexError, ValueError) as error:
            reply = {"step": self.first_step, "error": str(error)}
        else:
            reply = self.function(windows, request, lines[1:])
        return json.dumps(reply, separators=(",", ":"))


def read(script: str) -> list[Statement | Script]:
    """Return the statements of a script. Raises Unsupported."""
    lines = _lines(script)
    exits: list[Statement | Script] = [Exit(None)] if lines[-1:] == [_LAST_LINE] else []
    digest = digest_of(script)
    if digest in SCRIPTS:
        return [SCRIPTS[digest], *exits]
    if lines[:1] == [_FIRST_LINE]:
        raise Unsupported(
            f"lab node: the PowerShell script with the SHA-256 {digest} is unknown. Known are the scripts "
            f"{', '.join(known.name for known in SCRIPTS.values())} of this version of the collection. "
            "After a change to plugin_utils/_powershell.py, change lab/scripts.py too (docs/lab.md)."
        )
    return [*parse(script)]


def digest_of(script: str) -> str:
    """Return the SHA-256 by which a node recognizes a script, in hexadecimal digits.

    The digest ignores indentation and empty lines, which Ansible's winrm
    connection removes (``ShellModule._encode_script`` of ansible-core), and
    the line that its psrp connection appends.
    """
    lines = _lines(script)
    if lines[-1:] == [_LAST_LINE]:
        lines.pop()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _lines(script: str) -> list[str]:
    return [line.strip() for line in script.splitlines() if line.strip()]


def look(windows: Windows, request: Request, _lines: Sequence[str]) -> Reply:
    """Report what is at the directory of a runtime, and beside it."""
    directory = request["directory"]
    program, marker = rf"{directory}\python.exe", rf"{directory}\wcow-runtime.json"
    try:
        exists = windows.directory_exists(directory)
        reply: Reply = {"exists": exists, "empty": True, "protected": False, "left": []}
        if windows.directory_exists(ntpath.dirname(directory)):
            reply["left"] = _leftovers(windows, directory)
        if exists:
            reply["protected"] = windows.is_protected(directory)
            reply["empty"] = windows.is_empty(directory)
        if windows.file_exists(marker):
            reply["marker"] = windows.read_text(marker)
            if reply["protected"]:
                try:
                    reply["version"] = windows.python_version(program)
                except ScriptError:
                    reply["version"] = ""
    except ScriptError as error:
        return {"step": "look", "error": str(error)}
    return reply


def install(windows: Windows, request: Request, lines: Sequence[str]) -> Reply:
    """Replace what is at the directory by a package from a URL, or from ``lines`` of base64."""
    directory = request["directory"]
    run = uuid.uuid4().hex
    new, old = f"{directory}.wcow-new-{run}", f"{directory}.wcow-old-{run}"
    package = rf"{new}\package.zip"
    step = "prepare"
    try:
        windows.create_protected_directory(new)
        if not windows.is_protected(new):
            raise ScriptError(f"{new} has other rights than it was made with")
        step = "receive"
        if request.get("url"):
            windows.download(request["url"], package)
        else:
            windows.write_base64(package, lines)
        step = "verify"
        digest = windows.sha256(package)
        if digest.lower() != request["sha256"].lower():
            raise ScriptError(f"its SHA-256 is {digest}")
        step = "unpack"
        windows.extract(package, new)
        windows.delete_file(package)
        step = "try"
        version = windows.python_version(rf"{new}\python.exe")
        if version != request["version"]:
            raise ScriptError(f"its python.exe answers '{version}'")
        windows.write_text(rf"{new}\wcow-runtime.json", request["marker"])
        step = "replace"
        _raise_if_running(windows, directory)
        if windows.directory_exists(directory):
            windows.move_directory(directory, old)
        _move_into_place(windows, new, directory, old)
    except ScriptError as error:
        reply = {"step": step, "error": str(error)}
        try:
            windows.delete_directory(new)
        except ScriptError:
            reply["left"] = new
        return reply
    return {"installed": True}


def _move_into_place(windows: Windows, new: str, directory: str, old: str) -> None:
    """Rename ``new`` to ``directory`` in at most ten tries, a second apart. Put ``old`` back if all fail."""
    for attempt in range(1, 11):
        try:
            windows.move_directory(new, directory)
            return
        except ScriptError:
            if attempt == 10:
                if windows.directory_exists(old):
                    windows.move_directory(old, directory)
                raise
            time.sleep(1)


def clean(windows: Windows, request: Request, _lines: Sequence[str]) -> Reply:
    """Remove leftovers beside the directory, and with ``absent`` the runtime too."""
    directory = request["directory"]
    left: list[str] = []
    step = "replace"
    try:
        if request.get("absent"):
            _raise_if_running(windows, directory)
            windows.move_directory(directory, f"{directory}.wcow-old-{uuid.uuid4().hex}")
        step = "clean"
        for path in _leftovers(windows, directory):
            try:
                windows.delete_file(rf"{path}\python.exe")
                windows.delete_directory(path)
            except ScriptError as error:
                left.append(f"{path}, {error}")
    except ScriptError as error:
        return {"step": step, "error": str(error)}
    return {"left": left}


def _leftovers(windows: Windows, directory: str) -> list[str]:
    return windows.directories(ntpath.dirname(directory), f"{ntpath.basename(directory)}.wcow-*")


def _raise_if_running(windows: Windows, directory: str) -> None:
    program = rf"{directory}\python.exe"
    if windows.file_exists(program):
        windows.open_for_writing(program)


#: The scripts by their digests.
SCRIPTS = {
    "76c62e0dae75fcffe05c2c5d10b1451d75df53dd0db9134b5d2ed68476054b07": Script("look", "look", look),
    "470a3387e80aa0ec02a5af5b3baf908ae792baab0c9ffe60dc705edbb61b67a6": Script("install", "prepare", install),
    "d29e8cd93731beb49330f3a47a512ca1b1628f4a2298ab3320ae31bc8b021a80": Script("clean", "replace", clean),
}
