# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill tasks on containerd's store before and after each call, and between any two changes that they make on disk.

The simulated containerd of a lab node goes on meanwhile, as the real one does. After the kill, each snapshot is in the
state before or in the state after the task. A rerun of the task leads to the state after. Then garbage is collected,
and the store has no findings.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.keys import is_unpack_key
from ansible_collections.wcow.snapshotter.tests.unit.lab.containerd.conftest import Host

from lab import sample as layers
from lab.containerd import sample

from . import kit

pytestmark = pytest.mark.posix

ROOT_LABEL = "containerd.io/gc.root"

MOUNT = ("ensure_mount", {"state": "mounted", "key": "build", "target": r"C:\mnt"})

IMAGE = ("ensure_image", {"src": r"C:\image.tar", "names": ["app"], "pinned": True})

#: The operations, each with the operations that make the state before it.
CASES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "prepare": (("ensure_snapshot", {"state": "active", "key": "new", "parent": "{base}", "rootfs_size": "30GB"}),),
    "view": (("ensure_snapshot", {"state": "view", "key": "new", "parent": "{base}"}),),
    "commit": (("ensure_snapshot", {"state": "committed", "name": "new", "key": "build"}),),
    "labels": (("ensure_snapshot", {"state": "active", "key": "build", "parent": "{base}", "labels": {"a": "b"}}),),
    "grow": (("ensure_scratch", {"key": "build", "size": "40GB"}),),
    "remove": (("ensure_snapshot", {"state": "absent", "key": "build"}),),
    "remove all": (("ensure_snapshot", {"state": "absent", "name": "tools", "recursive": True}),),
    "a set": (
        (
            "ensure_set",
            {
                "snapshots": [
                    {"state": "active", "key": "new", "parent": "made"},
                    {"state": "committed", "name": "made", "key": "build"},
                ],
                "prune": True,
                "prune_filters": ["kind==view"],
            },
        ),
    ),
    "mount": (MOUNT,),
    "unmount": (("ensure_mount", {"state": "unmounted", "key": "build"}), MOUNT),
    "export": (("ensure_export", {"name": "{base}", "dest": r"C:\out.tar"}),),
    "image": (IMAGE,),
    "remove an image": (("ensure_image", {"state": "absent", "names": ["app"]}), IMAGE),
}

#: The operations that `make test` kills. `make test-long` kills the others, too.
QUICK = ("prepare", "commit", "remove", "labels")

#: What the collector of containerd leaves after these operations: it does not delete the link of a parent to a child
#: that it removes.
LEFT_BY_CONTAINERD = {"remove an image": ("dangling_child",)}


class Node:
    """A lab node with containerd, whose state can be saved and restored."""

    def __init__(self, directory: Any, requests: kit.Requests) -> None:
        self.directory = directory
        self.requests = requests
        self.host = Host(directory)
        sample.fill(self.host.simulation)
        self.layer = ""
        self.base = next(name for name in self.host.client().names() if name.startswith("sha256:"))

    def keep(self) -> None:
        self.host.server.stop()
        kept = self.directory.with_name("kept")
        shutil.rmtree(kept, ignore_errors=True)
        kit.copy_tree(str(self.directory / "C"), str(kept))
        self.host.start()

    def back(self) -> None:
        self.host.server.stop()
        shutil.rmtree(self.directory / "C")
        kit.copy_tree(str(self.directory.with_name("kept")), str(self.directory / "C"))
        self.host.start()

    def request(self, operation: str, arguments: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
        filled = json.loads(json.dumps(arguments).replace("{base}", self.base))
        return {
            "protocol": 1,
            "store": "containerd",
            "namespace": sample.NAMESPACE,
            "check_mode": check_mode,
            "operations": [{"operation": operation, "arguments": filled}],
        }

    def run(self, operation: str, arguments: dict[str, Any], **environment: str) -> kit.Ended:
        return self.requests.run(self.request(operation, arguments), **environment)

    def ask(self, operation: str, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        """Return the result of an operation that succeeds, in this process."""
        (entry,) = door.handle(json.dumps(self.request(operation, arguments, check_mode)).encode())["results"]
        assert entry["ok"], entry
        return entry["result"]

    def observed(self) -> dict[str, Any]:
        """Return what a user sees: snapshots with their disks, mounts, files of exports."""
        state: dict[str, Any] = {}
        for snapshot in self.ask("list", scratch=True)["snapshots"]:
            labels = {key: value for key, value in snapshot["labels"].items() if key != ROOT_LABEL}
            name = snapshot["name"]
            # What a killed import left belongs to its lease, which ends by itself. When the record of an image is
            # gone, containerd collects its layers soon.
            if is_unpack_key(name) or (snapshot["collectable"] and name == self.layer):
                continue
            state[name] = (snapshot["kind"], snapshot["parent"])
            state[f"labels of {name}"] = labels
            state[f"disk of {name}"] = snapshot["scratch"] and snapshot["scratch"]["virtual_size"]
            assert ROOT_LABEL in snapshot["labels"] or not snapshot["collectable"], name
        for image in self.host.client()("Images", "List").images:
            state[f"image {image.name}"] = (image.target.digest, dict(image.labels))
        state["exported"] = os.path.exists(self.directory / "C" / "out.tar")
        return state


@pytest.fixture(scope="module")
def node(tmp_path_factory, request):
    directory = tmp_path_factory.mktemp("n") / "node"
    directory.mkdir()
    services = directory / "services.json"
    services.write_text(json.dumps({"services": {"containerd": {"command_line": "c.exe", "is_running": True}}}))
    patch = pytest.MonkeyPatch()
    patch.setenv("WCOW_EMULATED_DRIVES", str(directory))
    patch.setenv("WCOW_EMULATED_SERVICES", str(services))
    patch.setenv("PROGRAMDATA", r"C:\ProgramData")
    with kit.Requests() as requests:
        node = Node(directory, requests)
        layers.write_image(directory / "C" / "image.tar", "10.0.20348.1")
        node.layer = node.ask(IMAGE[0], check_mode=True, **IMAGE[1])["chain_id"]
        for key in ("build", "t"):
            node.ask("ensure_snapshot", state="active", key=key, parent="{base}")
        node.ask("ensure_snapshot", state="committed", name="tools", key="t")
        node.ask("ensure_snapshot", state="view", key="inspect", parent="tools")
        node.keep()
        yield node
        node.host.close()
    patch.undo()


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES]
)
def test_killed_anywhere(name, node, tmp_path, figures):
    operation, *given = CASES[name]

    def restore() -> None:
        node.back()
        for step in given:
            node.ask(step[0], **step[1])

    restore()
    before = node.observed()
    log = tmp_path / "log"
    done = node.run(*operation, WCOW_FAILPOINTS_LOG=str(log))
    assert done.reply["results"][0]["changed"], done.reply
    after = node.observed()
    passed = log.read_text(encoding="utf-8").splitlines()
    points = kit.chosen(passed)
    assert len(points) > 4
    for point in points:
        restore()
        assert node.run(*operation, WCOW_FAILPOINT=point).killed, point
        found = node.observed()
        for key in {*before, *after, *found}:
            assert found.get(key) in (before.get(key), after.get(key)), (point, key)
        reply = node.run(*operation).reply
        assert reply["results"][0]["ok"], (point, reply)
        assert node.observed() == after, point
        node.host.client().collect()
        assert node.observed() == after, point
        findings = [finding["code"] for finding in node.ask("check")["findings"]]
        assert [code for code in findings if code not in LEFT_BY_CONTAINERD.get(name, ())] == [], (point, findings)
    figures(operations_killed=1, kills=len(points), losses=0)
