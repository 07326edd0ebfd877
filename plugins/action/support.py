# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what a maintainer needs to know about a node into one file on the controller (``describe_node``, ``check``)."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import json
import os
import sys
import urllib.parse
from typing import Any, Callable, Dict, List

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.release import __version__ as ansible_version

from ..module_utils.core.files import refuse_special
from ..plugin_utils._action import SnapshotterAction, TaskFailure
from ..plugin_utils._redact import redact
from ..plugin_utils._text import one_line
from ..plugin_utils._version import collection_version

FORMAT = "wcow.snapshotter.support"
VERSION = 1

#: Packages of the connections, whose versions matter.
LIBRARIES = ("pypsrp", "pywinrm", "requests", "urllib3")

#: Native calls at the end of the trace that the file has.
LONGEST_TRACE = 500


class ActionModule(SnapshotterAction):
    """Documented in plugins/modules/support.py."""

    module = "wcow.snapshotter.support"
    operation = "describe_node"
    payload_kind = "service"
    stores = ("own", "containerd")
    returned = ("file", "problems")
    options = {
        "dest": {"type": "str", "required": True},
        "lines": {"type": "int", "default": 200},
        "replace": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"text": {"type": "str", "required": True}, "by": {"type": "str", "required": True}},
        },
    }

    def perform(self, options: Dict[str, Any]) -> Dict[str, Any]:
        if not 0 <= options["lines"] <= 10000:
            raise TaskFailure("invalid_argument", f"lines={options['lines']}: give a number from 0 to 10000")
        replaced = [(entry["text"], entry["by"]) for entry in options["replace"] if entry["text"]]
        name = redact(str(self._host), replaced)
        path = os.path.join(os.path.abspath(os.path.expanduser(options["dest"])), file_name(name))
        sections = self._sections(options["lines"])
        described = {
            "format": FORMAT,
            "version": VERSION,
            "node": str(self._host),
            "collected": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "controller": self._controller(),
            "settings": {name: value for name, value in self._node.items() if value},
            **sections,
        }
        problems = [
            f"{section}: {found['error']['message']}" for section, found in sections.items() if "error" in found
        ]
        # The warnings are in the file. They are not about this task.
        self._warnings.clear()
        if not self._task.check_mode:
            write_private(path, json.dumps(redact(described, replaced), indent=2, ensure_ascii=True) + "\n")
        return {"changed": True, "result": {"file": path, "problems": redact(problems, replaced)}}

    def _controller(self) -> Dict[str, Any]:
        versions: Dict[str, str] = {}
        for library in LIBRARIES:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[library] = importlib.metadata.version(library)
        return {
            "collection": collection_version(),
            "ansible_core": ansible_version,
            "python": sys.version.split()[0],
            "platform": sys.platform,
            "connection": str(self._connection.transport),
            "libraries": versions,
        }

    def _sections(self, lines: int) -> Dict[str, Dict[str, Any]]:
        """Ask the node. An answer that fails is the content of its section and does not end the others."""
        asked: Dict[str, Callable[[], Any]] = {
            "machine": lambda: self._answer("describe_node", {"lines": lines}),
            # A node in trouble may not answer in time if it has to visit all files.
            "check": lambda: self._answer("check", {"quick": True}),
            # In check mode, this says what a task would need before it can create a store, and what containerd answers.
            "store": lambda: self._answer("ensure_store", {}),
            "trace": self._trace_of_check,
        }
        sections: Dict[str, Dict[str, Any]] = {}
        lost = ""
        for section, ask in asked.items():
            self._warnings.clear()
            found: Dict[str, Any]
            try:
                if lost:
                    raise TaskFailure("unavailable", f"not asked, because the connection failed for {lost}")
                found = {"result": ask()}
            except AnsibleConnectionFailure as failure:
                lost = section
                found = {"error": {"code": "unreachable", "message": one_line(str(failure))}}
            except TaskFailure as failure:
                found = {"error": {"code": failure.code, "message": str(failure), "details": failure.details}}
            except AnsibleError as failure:
                # Such as a connection plugin that lacks a package.
                found = {"error": {"code": "controller", "message": one_line(str(failure))}}
            if self._warnings:
                found["warnings"] = list(dict.fromkeys(self._warnings))
            sections[section] = found
        return sections

    def _answer(self, operation: str, arguments: Dict[str, Any]) -> Dict[str, Any]:
        """Return the result of an operation, which changes nothing."""
        result: Dict[str, Any] = self.ask(operation, arguments, check_mode=True)["result"]
        return {key: value for key, value in result.items() if key != "diff"}

    def _trace_of_check(self) -> List[Dict[str, Any]]:
        """Return the native calls of a quick check. An answer that is lost to a value in them loses nothing else."""
        self._wants_trace = True
        self.ask("check", {"quick": True}, check_mode=True)
        return list(self._trace)[-LONGEST_TRACE:]


def file_name(node: str) -> str:
    """Return the name of the file of a node. Two nodes never have the same."""
    return urllib.parse.quote(node, safe="") + ".json"


def write_private(path: str, text: str) -> None:
    """Write a file that only its owner can read, as a whole. Raises TaskFailure."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        refuse_special(path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(
                temporary, "w", encoding="ascii", opener=lambda name, _flags: os.open(name, flags, 0o600)
            ) as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise TaskFailure(
            "failed_precondition",
            f"Cannot write {path}: {error.strerror}. Make sure that the user who runs Ansible may write to the "
            "directory, and that the volume has free space",
        ) from None
