# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs or removes a private Python on the node. The one module that needs no Python there."""

from __future__ import annotations

import json
import ntpath
import os
import re
from typing import Any, Dict, List, Optional, Sequence

from ..module_utils.core.errors import InvalidArgument
from ..module_utils.core.files import file_problem, only_files
from ..module_utils.core.formats.digest import hex_digits, parse_digest
from ..plugin_utils import _powershell
from ..plugin_utils._action import SnapshotterAction, TaskFailure
from ..plugin_utils._call import lines_of
from ..plugin_utils._reply import RERUN, NodeFailure, unusable
from ..plugin_utils._shapes import CLEANED, INSTALLED, LOOKED, Malformed, read_json
from ..plugin_utils._upload import sha256_of

#: The default package, the embeddable one of python.org. The digest is from the release page of Python 3.12.10.
VERSION = "3.12.10"
CHECKSUM = "4acbed6dd1c744b0376e3b1cf57ce906f9dc9e95e68824584c8099a63025a3c3"
URL = "https://www.python.org/ftp/python/{version}/python-{version}-embed-amd64.zip"

#: Bytes of a package at most. Those of python.org have 8 to 12 MB. By default WinRM accepts 50 MB of base64.
LARGEST = 32 * 1024 * 1024

VERSIONS = re.compile(r"3\.(?:9|[1-9][0-9])\.[0-9]{1,2}")
PYTHON_PATH = re.compile(r"[A-Za-z]:[\\/](?:[^\\/:*?\"<>|]+[\\/])+python\.exe", re.IGNORECASE)

#: For each step of the scripts: the code of the error, what failed, and what to do.
STEPS = {
    "look": ("internal", "cannot be inspected", "Check the directory and its access rights"),
    "prepare": (
        "failed_precondition",
        "cannot be prepared",
        "The drive must be NTFS, and the path must not be a file",
    ),
    "receive": (
        "unavailable",
        "did not arrive",
        "If the node cannot reach the URL, download the package to the controller and name it in the option src",
    ),
    "verify": (
        "failed_precondition",
        "is not the requested one, and was deleted before it was unpacked",
        "Compare the option checksum with the digest of the publisher. A proxy may have sent an error page instead",
    ),
    "unpack": ("failed_precondition", "cannot be unpacked", "The drive may be full"),
    "try": (
        "failed_precondition",
        "does not work on this node, and was deleted",
        "The options version, url and checksum must belong to one package, for the processor of the node",
    ),
    "replace": (
        "unavailable",
        "cannot be replaced or removed, and is unchanged",
        "Its python.exe may be running: wait for the tasks of other controllers, then run the task again",
    ),
    "clean": ("unavailable", "has leftovers that cannot be removed", "Run the task again"),
}


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/python_runtime.py."""

    module = "wcow.snapshotter.python_runtime"
    stores = ("own", "containerd")
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
                "failed_precondition",
                f"{self.module} is for Windows nodes: connect to {self._host} with psrp or winrm, or with ssh and the "
                "variable ansible_shell_type (cmd or powershell)",
            )
        directory = _directory(self._node["python"])
        wanted = None if options["state"] == "absent" else _wanted(options)
        package = None
        if wanted and options["src"]:
            package = self._find_needle("files", options["src"])
            _check_file(package, wanted)
        found = self._script("look", _powershell.LOOK, LOOKED, {"directory": directory})
        now = _installed(found)
        if found["exists"] and not found["empty"] and not found.get("marker"):
            raise TaskFailure(
                "failed_precondition",
                f"{directory} contains files that this module did not install, and is left alone. Remove it, or set "
                "the variable wcow_python (or the option python) to a path in a directory for the runtime only",
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
        return {"changed": bool(actions), "result": self._result_of(now, wanted, actions)}

    def _change(
        self,
        directory: str,
        wanted: Optional[Dict[str, str]],
        package: Optional[str],
        url: Optional[str],
        actions: List[str],
    ) -> None:
        """Carry out ``actions``."""
        request: Dict[str, Any] = {"directory": directory}
        if wanted and actions != ["clean"]:
            lines: Sequence[str] = ()
            if package:
                with open(package, "rb", opener=only_files) as file:
                    lines = list(lines_of(file.read()))
            else:
                request["url"] = url or URL.format(version=wanted["version"])
            marker = json.dumps(wanted)
            self._script("install", _powershell.INSTALL, INSTALLED, {**request, **wanted, "marker": marker}, lines)
        absent = "remove" in actions
        done = self._script("clean", _powershell.CLEAN, CLEANED, {"directory": directory, "absent": absent})
        self._warnings += [f"Left for the next run, because a process uses it: {left}" for left in done["left"]]

    def _script(
        self, operation: str, script: str, shape: Dict[str, Any], request: Dict[str, Any], lines: Sequence[str] = ()
    ) -> Dict[str, Any]:
        """Run a script of plugin_utils/_powershell.py, and return its reply, which has ``shape``. Raises as ``ask``."""
        line = self._line_of(script)
        data = "\n".join([json.dumps(request), *lines, ""])
        output = self._reach(operation, lambda: self._send(line, data))
        try:
            reply = _powershell.parse(output, shape)
            if "error" in reply and reply["step"] not in STEPS:
                raise unusable(Malformed(f"the reply names the step {reply['step'][:100]!r}"))
        except NodeFailure as failure:
            raise TaskFailure(failure.code, str(failure)) from None
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

    def _result_of(
        self, now: Optional[Dict[str, str]], wanted: Optional[Dict[str, str]], actions: List[str]
    ) -> Dict[str, Any]:
        runtime = {"python": self._node["python"], **wanted} if wanted else None
        before = {"python": self._node["python"], **now} if now else None
        return {"runtime": runtime, "actions": actions, "diff": {"before": before or {}, "after": runtime or {}}}


def _directory(python: str) -> str:
    """Return the directory of a runtime with its python.exe at ``python``. Raises TaskFailure."""
    if not PYTHON_PATH.fullmatch(python) or any(part in (".", "..") for part in re.split(r"[\\/]", python)):
        raise TaskFailure(
            "invalid_argument",
            f'"{python}" is not a valid path for a runtime, which is python.exe in a directory of its own on a local '
            r"drive, such as C:\Program Files\wcow\python\python.exe (option python, variable wcow_python)",
        )
    return ntpath.dirname(ntpath.normpath(python))


def _wanted(options: Dict[str, Any]) -> Dict[str, str]:
    """Return version and digest of the package that the options describe. Raises TaskFailure."""
    if options["url"] and options["src"]:
        raise TaskFailure("invalid_argument", "The package comes from url or from src: set one of them, not both")
    if options["url"] and not re.match("https?://[^/]", options["url"], re.IGNORECASE):
        raise TaskFailure("invalid_argument", f"{options['url']!r} is not a URL that begins with https:// or http://")
    if not VERSIONS.fullmatch(options["version"]):
        raise TaskFailure(
            "invalid_argument", f"{options['version']!r} is not a version from 3.9.0 on, such as {VERSION}"
        )
    if not options["checksum"] and (options["version"] != VERSION or options["url"]):
        raise TaskFailure(
            "invalid_argument",
            f"The collection only knows the digest of the default package, {VERSION} for amd64: set the option "
            "checksum to the SHA-256 that the publisher of your package states",
        )
    try:
        checksum = parse_digest(options["checksum"] or CHECKSUM, "checksum")
    except InvalidArgument as error:
        raise TaskFailure(error.code, error.message) from None
    return {"version": options["version"], "sha256": hex_digits(checksum)}


def _check_file(path: str, wanted: Dict[str, str]) -> None:
    """Raise TaskFailure if the file on the controller is not the package, before it is sent."""
    try:
        problem = file_problem(path)
        if not problem and os.path.getsize(path) > LARGEST:
            problem = f"is larger than {LARGEST >> 20} MiB"
        digest = "" if problem else hex_digits(sha256_of(path))
    except OSError as error:
        raise TaskFailure("failed_precondition", f"Cannot read {path} on the controller: {error.strerror}") from None
    if problem:
        raise TaskFailure("invalid_argument", f"{path} on the controller {problem}")
    if digest != wanted["sha256"]:
        raise TaskFailure(
            "failed_precondition",
            f"{path} on the controller has the SHA-256 {digest}, not {wanted['sha256']}: it is another package, or "
            "damaged. Compare the option checksum with the digest of the publisher",
        )


def _installed(found: Dict[str, Any]) -> Optional[Dict[str, str]]:
    """Return version and digest of a runtime that is protected and works; None otherwise."""
    try:
        marker = read_json(found.get("marker") or "null")
    except ValueError:
        return None
    sound = isinstance(marker, dict) and found["protected"] and found.get("version") == marker.get("version")
    return {"version": str(marker["version"]), "sha256": str(marker.get("sha256"))} if sound else None
