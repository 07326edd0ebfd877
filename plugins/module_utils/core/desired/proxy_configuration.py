# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a task changes containerd's configuration, so that containerd knows the proxy snapshotter."""

from __future__ import annotations

import difflib
import re
from typing import Any, Dict, List, Optional, Tuple

from ..containerd import config_change, config_dump, discovery, proxy_plugin
from ..containerd.client import Client
from ..containerd.connection import connect
from ..containerd.node import KUBERNETES
from ..containerd.proxy_settings import Settings
from ..errors import SnapshotterError

# What restarts a containerd that is not a service of its own.
_RESTARTS = {
    config_change.RKE2: "restart the service rke2, which starts it",
    config_change.K0S: "k0s restarts it after a change of its directory; if it did not, restart k0s",
}

# Settings of registries in containerd's configuration that a difference must not show.
_SECRET = re.compile(r"^(\s*(?:password|auth|identitytoken|token|secret)\s*=).*$", re.IGNORECASE | re.MULTILINE)


class Configuration:
    """The configuration of this node's containerd, and how a task changes it.

    ``options`` select the containerd, and ``settings`` are what it has to know. Raises as ``discovery.find``.
    """

    def __init__(self, options: discovery.Options, settings: Settings) -> None:
        self.found = discovery.find(options)
        self._release = config_dump.read_release(self.found.executable) or self._ask_release()
        if self.found.configuration.is_ambiguous and self._release:
            self.found = discovery.find(options, self._release)
        self._settings = settings
        self._change = config_change.Change((), False, "", ())
        self._is_verified = False
        self.restart_needed = False

    @property
    def is_service(self) -> bool:
        """Whether containerd is a service of its own."""
        return self.found.program == f"service {discovery.SERVICE}"

    @property
    def remedy(self) -> str:
        """What a person does if containerd has to start again and the task cannot do it."""
        return _RESTARTS.get(self._change.manager, "restart it")

    def plan(self, *, present: bool) -> None:
        """Find out what has to change, and ask containerd about it. Raises as ``proxy_plugin.plan``, ``verify``."""
        self._change = proxy_plugin.plan(self.found, self._settings, self._release, present=present)
        self._is_verified = config_dump.verify(self._change, self.found, self._settings, self._release, present=present)
        self.restart_needed = self._change.needs_restart or (present and self._is_unknown())

    def apply(self) -> None:
        """Write the files. Raises as ``config_change.apply``."""
        config_change.apply(self._change)

    def actions(self) -> List[str]:
        """Return what changes, as actions of a task."""
        return [f"{_verb(file)} {file.path}" for file in self._change.files]

    def describe(self) -> Dict[str, Any]:
        """Return the configuration as the module returns it."""
        return {
            "files": [{"path": file.path, "action": _verb(file)} for file in self._change.files],
            "manager": self._change.manager,
            "notes": list(self._change.notes),
            "verified": self._is_verified,
        }

    def add_diff(self, before: Optional[Dict[str, Any]], after: Optional[Dict[str, Any]]) -> Dict[str, Any]:
        """Return the difference of a service together with that of the files."""
        sides: Dict[str, Dict[str, List[str]]] = {"before": {}, "after": {}}
        for file in self._change.files:
            sides["before"][file.path], sides["after"][file.path] = excerpts(file.before or b"", file.after or b"")
        return {
            "before": {"service": before, "configuration": sides["before"]},
            "after": {"service": after, "configuration": sides["after"]},
        }

    def _is_unknown(self) -> bool:
        """Return True if containerd runs and has not loaded the plugin."""
        try:
            with Client(connect(self.found.address.value, KUBERNETES)) as client:
                plugins = client.plugins("type==io.containerd.snapshotter.v1")
        except SnapshotterError:
            return False
        return self._settings.name not in [plugin.id for plugin in plugins if not plugin.problem]

    def _ask_release(self) -> str:
        try:
            with Client(connect(self.found.address.value, KUBERNETES)) as client:
                return client.version().version
        except SnapshotterError:
            return ""


def excerpts(before: bytes, after: bytes) -> Tuple[List[str], List[str]]:
    """Return the lines of two texts that differ, with one line around them. Values of secrets are left out."""
    old, new = (_without_secrets(text.decode("utf-8", "replace")).splitlines() for text in (before, after))
    left: List[str] = []
    right: List[str] = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(1):
        if left or right:
            left.append("...")
            right.append("...")
        left += old[group[0][1] : group[-1][2]]
        right += new[group[0][3] : group[-1][4]]
    return left, right


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1...", text)


def _verb(file: config_change.FileChange) -> str:
    if file.before is None:
        return "create"
    return "remove" if file.after is None else "change"
