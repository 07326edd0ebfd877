# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private Python is on the node, or not: the one module that works without a Python there."""

from __future__ import annotations

import json
import ntpath
import os
import re
from typing import Any, Dict, List, Optional, Sequence

from ..plugin_utils import _powershell
from ..plugin_utils._action import SnapshotterAction, TaskFailure
from ..plugin_utils._call import lines_of
from ..plugin_utils._reply import RERUN
from ..plugin_utils._upload import sha256_of

#: The default package, python.org's embeddable one, and its digest as the release page of Python 3.12.10 gives it.
VERSION = "3.12.10"
CHECKSUM = "4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3"
URL = "https://www.python.org/ftp/python/{version}/python-{version}-embed-amd64.zip"

#: Packages of python.org have 8 to 12 MB. WinRM takes 50 MB of one command by default, base64 included.
LARGEST = 32 * 1024 * 1024

SHA256 = re.compile("(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
VERSIONS = re.compile(r"3\.(?:9|[1-9][0-9])\.[0-9]{1,2}")
PLACE = re.compile(r"[A-Za-z]:[\\/](?:[^\\/:*?\"<>|]+[\\/])+python\.exe", re.IGNORECASE)

#: The steps of the scripts, as a message says them: the error's code, what failed, and what to do.
STEPS = {
    "look": ("internal", "cannot be looked at", "See what the message says about its directory"),
    "prepare": ("failed_precondition", "cannot be prepared", "Its drive must be NTFS, its name free for a directory"),
    "receive": (
        "unavailable",
        "did not arrive",
        "If the node cannot reach the URL, download the package to the controller and name it with the option src",
    ),
    "verify": (
        "failed_precondition",
        "is not the one that was asked for, was not unpacked, and is deleted",
        "Compare the option checksum with what the publisher says; a proxy may have sent a page of its own",
    ),
    "unpack": ("failed_precondition", "cannot be unpacked", "The drive may be full"),
    "try": (
        "failed_precondition",
        "does not run as it should on this node, and is deleted",
        "The options version, url and checksum must mean one package, for the node's kind of processor",
    ),
    "replace": (
        "unavailable",
        "cannot be replaced or removed, and stays as it was",
        "Its python.exe may be running: let tasks of other controllers end, then run the task again",
    ),
    "clean": ("unavailable", "has left-overs that cannot be removed", "Run the task again"),
}


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/python_runtime.py."""

    module = "wcow.snapshotter.python_runtime"
    returned = ("runtime", "actions")
    options = {
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "version": {"type": "str", "default": VERSION},
        "checksum": {"type": "str"},
        "url": {"type": "str"},
        "src": {"type": "str"},
    }

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        if not self._windows():
            raise TaskFailure(
                "failed_precondition", f"{self.module} is for Windows nodes: connect with psrp, winrm, or ssh to one"
            )
        directory = _directory(self._node["python"])
        wanted = None if options["state"] == "absent" else _wanted(options)
        package = None
        if wanted and options["src"]:
            package = self._find_needle("files", options["src"])
            _check_file(package, wanted)
        found = self._script("look", _powershell.LOOK, {"directory": directory})
        now = _installed(found)
        if found["exists"] and not found["empty"] and not found.get("marker"):
            raise TaskFailure(
                "failed_precondition",
                f"{directory} holds something that this module did not install, and is left alone. Remove it, or set "
                "the variable wcow_python (or the option python) to a place of the runtime's own",
            )
        actions: List[str] = []
        if wanted and now != wanted:
            actions.append(
                f"replace {now['version']} by {wanted['version']}" if now else f"install {wanted['version']}"
            )
        elif not wanted and found["exists"]:
            actions.append("remove")
        if found["left"]:
            actions.append("clean")
        if actions and not self._task.check_mode:
            self._change(directory, wanted, package, options["url"], actions)
        return {"changed": bool(actions), "result": self._told(now, wanted, actions)}

    def _change(
        self,
        directory: str,
        wanted: Optional[Dict[str, str]],
        package: Optional[str],
        url: Optional[str],
        actions: List[str],
    ) -> None:
        """Bring about what ``actions`` say."""
        request: Dict[str, Any] = {"directory": directory}
        if wanted and actions != ["clean"]:
            lines: Sequence[str] = ()
            if package:
                with open(package, "rb") as file:
                    lines = list(lines_of(file.read()))
            else:
                request["url"] = url or URL.format(version=wanted["version"])
            marker = json.dumps(wanted)
            self._script("install", _powershell.INSTALL, {**request, **wanted, "marker": marker}, lines)
        done = self._script("clean", _powershell.CLEAN, {"directory": directory, "absent": "remove" in actions})
        self._warnings += [f"Left for the next run, something on the node uses it: {left}" for left in done["left"]]

    def _script(
        self, operation: str, script: str, request: Dict[str, Any], lines: Sequence[str] = ()
    ) -> Dict[str, Any]:
        """The answer of one of the scripts of plugin_utils/_powershell.py. Raises as ``ask`` does."""
        # The connections psrp and winrm encode a script for PowerShell by themselves.
        line = script if self._connection.transport in ("psrp", "winrm") else _powershell.over_ssh(script)
        data = "\n".join([json.dumps(request), *lines, ""])
        reply = self._reach(operation, lambda: _powershell.parse(self._send(line, data)))
        if "error" in reply:
            if "left" in reply:
                self._warnings.append(f"Left for the next run: {reply['left']}")
            code, what, remedy = STEPS[reply["step"]]
            thing = f"The runtime at {request['directory']}"
            if reply["step"] in ("receive", "verify", "unpack", "try"):
                thing = f"The package from {request.get('url', 'the controller')}"
            message = f"{thing} {what}: {reply['error']}. {remedy}. {RERUN}"
            raise TaskFailure(code, message, {"step": reply["step"]})
        return reply

    def _told(
        self, now: Optional[Dict[str, str]], wanted: Optional[Dict[str, str]], actions: List[str]
    ) -> Dict[str, Any]:
        runtime = {"python": self._node["python"], **wanted} if wanted else None
        before = {"python": self._node["python"], **now} if now else None
        return {"runtime": runtime, "actions": actions, "diff": {"before": before or {}, "after": runtime or {}}}


def _directory(python: str) -> str:
    """The directory of a runtime whose python.exe is to be at ``python``. Raises TaskFailure."""
    if not PLACE.fullmatch(python) or any(part in (".", "..") for part in re.split(r"[\\/]", python)):
        raise TaskFailure(
            "invalid_argument",
            f'"{python}" is no place for a runtime: it has a directory of its own on a local drive, and in it '
            r"python.exe, as in C:\Program Files\wcow\python\python.exe (option python, variable wcow_python)",
        )
    return ntpath.dirname(ntpath.normpath(python))


def _wanted(options: Dict[str, Any]) -> Dict[str, str]:
    """Version and digest of the package that the options mean. Raises TaskFailure."""
    if options["url"] and options["src"]:
        raise TaskFailure("invalid_argument", "The package comes from url or from src: give one of them, not both")
    if options["url"] and not re.match("https?://[^/]", options["url"], re.IGNORECASE):
        raise TaskFailure("invalid_argument", f"{options['url']!r} is not a URL that begins with https:// or http://")
    if not VERSIONS.fullmatch(options["version"]):
        raise TaskFailure(
            "invalid_argument", f"{options['version']!r} is not a version from 3.9.0 on, such as {VERSION}"
        )
    if not options["checksum"] and (options["version"] != VERSION or options["url"]):
        raise TaskFailure(
            "invalid_argument",
            f"Only the digest of the default package, {VERSION} for amd64, is known here: give the SHA-256 of yours in "
            "the option checksum, as its publisher states it",
        )
    checksum = SHA256.fullmatch(options["checksum"] or CHECKSUM)
    if not checksum:
        raise TaskFailure(
            "invalid_argument", f"{options['checksum']!r} is not a SHA-256: 64 hexadecimal digits, after sha256: or not"
        )
    return {"version": options["version"], "sha256": checksum.group(1).lower()}


def _check_file(path: str, wanted: Dict[str, str]) -> None:
    """Raise TaskFailure if the file of the controller is not the package: what is wrong here need not travel."""
    if os.path.getsize(path) > LARGEST:
        raise TaskFailure("invalid_argument", f"{path} on the controller is larger than {LARGEST >> 20} MiB")
    digest = sha256_of(path).split(":")[1]
    if digest != wanted["sha256"]:
        raise TaskFailure(
            "failed_precondition",
            f"{path} on the controller has the SHA-256 {digest}, not {wanted['sha256']}: it is another package, or "
            "damaged. Compare the option checksum with what its publisher states",
        )


def _installed(found: Dict[str, Any]) -> Optional[Dict[str, str]]:
    """Version and digest of a runtime that can be trusted and that runs, else None."""
    try:
        marker = json.loads(found.get("marker") or "null")
    except ValueError:
        return None
    sound = isinstance(marker, dict) and found["protected"] and found.get("version") == marker.get("version")
    return {"version": str(marker["version"]), "sha256": str(marker.get("sha256"))} if sound else None
