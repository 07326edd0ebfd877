# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network fails at each request of each module's task, and in each way. Then the task runs again.

Real ansible-playbook, pypsrp and pywinrm run against lab nodes, which break
the connection on request (docs/lab.md). Many nodes share one playbook, each
with a different fault.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import re
import sqlite3
import tarfile
import time
from typing import Any, Dict, NamedTuple, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _upload
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._action import UNTOUCHED
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._payload import payload
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import RERUN
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

from lab import faults, package, sample

NODES = 48
#: These faults do not take time.
BREAKS = ("drop-before", "drop-after", "cut")

#: Stands for the directory of a case on its node, with the store and everything else that the task uses.
HERE = "HERE"
#: Timeouts of clients in seconds. They are long enough for a busy machine and short enough for a test.
PATIENCE = {
    "ansible_psrp_operation_timeout": 3,
    "ansible_psrp_read_timeout": 20,
    "ansible_winrm_operation_timeout_sec": 1,
    "ansible_winrm_read_timeout_sec": 20,
}
#: Timeouts for tests of late answers. They are shorter than LATE seconds.
HASTE = {
    "ansible_psrp_operation_timeout": 2,
    "ansible_psrp_read_timeout": 8,
    "ansible_winrm_operation_timeout_sec": 2,
    "ansible_winrm_read_timeout_sec": 8,
}
LATE = 12.0


class Case(NamedTuple):
    """A task, and the operations of the core that create its initial state."""

    module: str
    options: Dict[str, Any]
    given: Tuple[Tuple[str, Dict[str, Any]], ...] = ()
    variables: Dict[str, Any] = {}


BASE = ("ensure_layer", {"name": "base", "src": rf"{HERE}\base.tar.gz"})
WORK = ("ensure_snapshot", {"state": "active", "key": "work", "parent": "base"})
IMAGE = ("ensure_image", {"src": rf"{HERE}\image.tar"})
MORE = ("ensure_snapshot", {"state": "active", "key": "more", "parent": "base"})
LOOK = ("ensure_snapshot", {"state": "view", "key": "look", "parent": "base"})
MOUNT = ("ensure_mount", {"state": "mounted", "key": "work", "target": rf"{HERE}\mnt"})

#: Each module in each state. Add a line for each new module.
CASES = {
    "snapshot-active": Case(
        "snapshot", {"key": "work", "parent": "base", "labels": {"team": "blue"}, "rootfs_size": "30GB"}, (BASE,)
    ),
    "snapshot-view": Case("snapshot", {"state": "view", "key": "look", "parent": "base"}, (BASE,)),
    "snapshot-committed": Case("snapshot", {"state": "committed", "name": "app", "key": "work"}, (BASE, WORK)),
    "snapshot-absent": Case("snapshot", {"state": "absent", "name": "base", "recursive": True}, (BASE, WORK)),
    "snapshot_set": Case(
        "snapshot_set",
        {
            "snapshots": [
                {"key": "more", "parent": "app", "rootfs_size": "30GB"},
                {"name": "app", "key": "work", "state": "committed"},
            ],
            "prune": True,
            "prune_filters": ["kind==view"],
        },
        (BASE, WORK, LOOK),
    ),
    "snapshot_info": Case("snapshot_info", {"usage": True, "mounts": True, "scratch": True}, (BASE, WORK)),
    "scratch": Case("scratch", {"key": "work", "size": "40GB"}, (BASE, WORK)),
    "scratch-many": Case("scratch", {"keys": ["work", "more"], "size": "40GB"}, (BASE, WORK, MORE)),
    "layer-imported": Case("layer", {"name": "base", "src": "base.tar.gz", "labels": {"team": "blue"}}),
    "layer-imported-remote": Case("layer", {"name": "base", "src": rf"{HERE}\base.tar.gz", "remote_src": True}),
    "layer-exported": Case("layer", {"state": "exported", "name": "base", "dest": rf"{HERE}\out.tar.gz"}, (BASE,)),
    # The node already has the base layer, from another image.
    "image-present": Case("image", {"src": "image.tar"}, (IMAGE,)),
    "image-present-remote": Case("image", {"src": rf"{HERE}\image.tar", "remote_src": True}),
    "image-absent": Case("image", {"state": "absent", "src": rf"{HERE}\image.tar", "remote_src": True}, (IMAGE,)),
    "mount-mounted": Case("mount", {"key": "work", "target": rf"{HERE}\mnt"}, (BASE, WORK)),
    "mount-unmounted": Case("mount", {"state": "unmounted", "target": rf"{HERE}\mnt"}, (BASE, WORK, MOUNT)),
    "store-present": Case("store", {"rootfs_size": "30GB"}),
    "store-absent": Case("store", {"state": "absent", "force": True}, (BASE, WORK)),
    "store_check": Case("store_check", {"repair": True, "inventory": True}, (BASE, WORK)),
    "python_runtime-present": Case(
        "python_runtime",
        {
            "python": rf"{HERE}\runtime\python.exe",
            "src": "python.zip",
            "version": "3.12.10",
            "checksum": hashlib.sha256(package.content("3.12.10")).hexdigest(),
        },
    ),
    "first-contact": Case("snapshot", {"key": "work"}, variables={"wcow_cache_dir": rf"{HERE}\cache"}),
}


def placed(value, here):
    """Return ``value`` with ``here`` in place of HERE."""
    return json.loads(json.dumps(value).replace(HERE, json.dumps(here)[1:-1]))


class Field:
    """A lab of many nodes, and the states of their stores."""

    def __init__(self, directory):
        self.lab = Lab(directory, nodes=NODES)
        for variables in self.lab.hosts.values():
            variables.update(PATIENCE)
        sample.write_layer(self.lab.controller() / "files" / "base.tar.gz")
        sample.write_image(self.lab.controller() / "files" / "image.tar", "10.0.20348.1")
        package.write_package(self.lab.controller() / "files" / "python.zip", "3.12.10")
        code = payload("own")
        for node in self.lab.nodes:
            cached = self.lab.file(node, f"Program Files/wcow/payload/wcow-{code.digest}.zip")
            cached.parent.mkdir(parents=True)
            cached.write_bytes(code.data)
        self.password = self.lab.hosts["node1"]["ansible_password"]
        self.rounds = 0

    def nodes_of(self, transport):
        return [node for node, variables in self.lab.hosts.items() if variables["ansible_connection"] == transport]

    def prepare(self, case, nodes):
        """Create a directory with the initial state on each node. Return the task and the variables of the play."""
        self.rounds += 1
        here = rf"C:\round-{self.rounds}"
        for node in nodes:
            directory = self.lab.file(node, f"round-{self.rounds}")
            sample.write_layer(directory / "base.tar.gz")
            sample.write_image(directory / "image.tar", "10.0.26100.1")
            self.ask(node, *case.given)
        task = {f"wcow.snapshotter.{case.module}": placed(case.options, here)}
        return task, {"wcow_root": rf"{here}\store", **placed(case.variables, here)}

    def ask(self, node, *operations):
        """Run operations of the core in this process, on the files of a node. Return their results."""
        if not operations:
            return []
        here = rf"C:\round-{self.rounds}"
        request = {
            "protocol": 1,
            "root": rf"{here}\store",
            "layers": "emulated",
            "operations": [{"operation": name, "arguments": arguments} for name, arguments in placed(operations, here)],
            "environment": {"WCOW_EMULATED_DRIVES": str(self.lab.directory / node)},
        }
        results = door.handle(json.dumps(request).encode())["results"]
        assert all(result["ok"] for result in results), results
        return [result["result"] for result in results]

    def state(self, node):
        """Return the state of the node without what differs each time: ids, times and paths.

        It also omits the leftovers of a killed import. ``store_check`` finds and repairs those.
        """
        found = [
            (info["kind"], info["name"], info["parent"], info["labels"], (info["scratch"] or {}).get("virtual_size"))
            for info in self.ask(node, ("list", {"scratch": True}))[0]["snapshots"]
            if not info["name"].startswith("extract-")
        ]
        here = self.lab.file(node, f"round-{self.rounds}")
        names = sorted(path.name for path in here.iterdir() if path.name not in ("store", "cache"))
        mounted = sorted(path.name for path in (here / "mnt").iterdir()) if (here / "mnt").exists() else None
        exported = (here / "out.tar.gz").read_bytes() if (here / "out.tar.gz").exists() else None
        return {"snapshots": found, "names": names, "mounted": mounted, "exported": exported}

    def assert_whole(self, node):
        """Assert that the store has no partly finished changes."""
        store = self.lab.file(node, f"round-{self.rounds}/store")
        if not (store / "metadata.sqlite3").exists():
            assert not store.exists() or list(store.iterdir()) == []
            return
        with contextlib.closing(sqlite3.connect(store / "metadata.sqlite3")) as metadata:
            assert metadata.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert metadata.execute("PRAGMA foreign_key_check").fetchall() == []
        infos = self.ask(node, ("walk", {}))[0]
        directories = {path.name for path in (store / "snapshots").glob("[0-9]*")}
        assert directories <= {str(info["id"]) for info in infos}
        # A view gets its directory with its first mount.
        assert directories >= {str(info["id"]) for info in infos if info["kind"] != "view"}
        assert not (store / "incoming").exists() or list((store / "incoming").iterdir()) == []

    def injected(self):
        """Return for each node how many faults have happened so far."""
        return {node: sum("injected" in entry for entry in entries) for node, entries in self.lab.requests().items()}

    def play(self, task, variables, nodes):
        """Run one task and return its result for each node. The output must never contain the password."""
        results = self.lab.play(task, variables=variables, nodes=nodes)
        assert self.password not in self.lab.output
        return {node: result for node, (result,) in results.items()}

    def undisturbed(self, case):
        """Return the smallest number of requests of the task for each transport, and the state after the task."""
        nodes = [node for transport in ("psrp", "winrm") for node in self.nodes_of(transport)[:3]]
        task, variables = self.prepare(case, nodes)
        before = self.lab.requests()
        for result in self.play(task, variables, nodes).values():
            assert not failed(result), result
        after = self.lab.requests()
        wanted = self.state(nodes[0])
        assert all(self.state(node) == wanted for node in nodes)
        counts: Dict[str, int] = {}
        for node in nodes:
            transport = self.lab.hosts[node]["ansible_connection"]
            count = len(after[node]) - len(before[node])
            counts[transport] = min(count, counts.get(transport, count))
        return counts, wanted

    def disturbed(self, case, wanted, plan):
        """Run the task once with the fault in ``plan`` for each node, and once without faults.

        Return the results of both runs, and how many of the faults happened.
        """
        nodes = list(plan)
        task, variables = self.prepare(case, nodes)
        before = self.injected()
        for node, fault in plan.items():
            faults.arm(self.lab.directory / node, fault)
        first = self.play(task, variables, nodes)
        for node, fault in plan.items():
            assert_good_account(first[node], node, self.lab.output, fault)
            # If the task had fewer requests than the fault's position, the fault is still armed.
            faults.arm(self.lab.directory / node, None)
            if not failed(first[node]):
                assert self.state(node) == wanted, fault
        if any(fault.kind in ("down", "die") for fault in plan.values()):
            time.sleep(max(fault.seconds for fault in plan.values()))
        second = self.play(task, variables, nodes)
        # Count only now, because the log has an entry for a delay only after the delay.
        happened = {node: count - before[node] for node, count in self.injected().items()}
        for node, fault in plan.items():
            assert not failed(second[node]), (fault, second[node])
            assert failed(first[node]) or not second[node]["changed"], fault
            if UNTOUCHED in first[node].get("msg", "") and case.module not in READERS:
                assert second[node]["changed"], (fault, first[node])
            assert self.state(node) == wanted, (fault, first[node])
            self.assert_whole(node)
        return first, second, sum(happened.values())


#: Modules whose tasks change nothing here, even if they run to their end.
READERS = ("snapshot_info", "store_check")

#: These cases also run outside the long lane.
QUICK = ("snapshot-active",)


def failed(result):
    return result.get("failed") or result.get("unreachable")


def assert_good_account(result, node, output, fault):
    """Assert what a user reads: the host, that the connection failed, and whether anything can have changed."""
    if failed(result):
        assert result.get("unreachable") or result["error"]["code"] == "unavailable", (fault, result)
        assert RERUN in result["msg"] or UNTOUCHED in result["msg"], (fault, result)
        assert re.search(rf"^fatal: \[{node}\]: (UNREACHABLE|FAILED)!", output, re.MULTILINE), output


def in_rounds(assignments, nodes):
    """Assign faults to nodes, one per node and round. ``assignments`` are (transport, fault)."""
    waiting = {transport: [fault for other, fault in assignments if other == transport] for transport in nodes}
    while any(waiting.values()):
        plan = {}
        for transport, others in nodes.items():
            plan.update(zip(others, waiting[transport]))
            del waiting[transport][: len(others)]
        yield plan


@pytest.fixture(scope="module")
def shared_field(tmp_path_factory):
    started = Field(tmp_path_factory.mktemp("lab"))
    # All nodes have the payload, so a task takes the same requests on each. first-contact uses another cache directory.
    started.lab.play({"wcow.snapshotter.snapshot_info": {}})
    yield started
    started.lab.lab("down")
    assert (started.lab.directory / "lab.log").read_text() == ""


@pytest.fixture
def field(shared_field, monkeypatch):
    # The core takes this variable from each request and leaves it in the environment. The fixture restores it.
    monkeypatch.setenv("WCOW_EMULATED_DRIVES", os.devnull)
    return shared_field


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES]
)
def test_a_break_at_each_request(field, name, figures):
    case = CASES[name]
    requests, wanted = field.undisturbed(case)
    assignments = [
        (transport, faults.Fault(kind, at))
        for transport, count in requests.items()
        for at in range(1, count + 1)
        for kind in BREAKS
    ]
    happened = sum(
        field.disturbed(case, wanted, plan)[-1]
        for plan in in_rounds(assignments, {transport: field.nodes_of(transport) for transport in requests})
    )
    # The number of requests varies by one, because output may come in one piece or in two.
    assert happened >= 0.9 * len(assignments)
    figures(network_faults=happened, losses=0)


#: Requests of a task over psrp: Create, Receive, Command, Send, Receive, Receive, Delete. The value is True if the task
#: succeeds, for example because the client repeats the request by itself.
PSRP_SLOW = {
    faults.Fault("late", 1, LATE): False,
    faults.Fault("late", 2, LATE): True,
    faults.Fault("late", 3, LATE): False,
    faults.Fault("late", 4, LATE): False,
    faults.Fault("late", 5, LATE): True,
    faults.Fault("delay", 1, LATE): False,
    faults.Fault("delay", 4, LATE): False,
    faults.Fault("delay", 4, 0.5): True,
    faults.Fault("down", 4, 2.0): False,
    faults.Fault("down", 5, 2.0): False,
    faults.Fault("die", 5, 2.0): False,
}
#: The same over winrm: Create, Command, Send, Receive, Signal, Delete. It asks for output even without a reply to Send.
WINRM_SLOW = {
    faults.Fault("late", 1, LATE): False,
    faults.Fault("late", 2, LATE): False,
    faults.Fault("late", 3, LATE): True,
    faults.Fault("late", 4, LATE): False,
    faults.Fault("late", 5, LATE): False,
    faults.Fault("delay", 1, LATE): False,
    faults.Fault("delay", 3, LATE): False,
    faults.Fault("delay", 3, 0.5): True,
    faults.Fault("down", 3, 2.0): False,
    faults.Fault("down", 4, 2.0): False,
    faults.Fault("die", 4, 2.0): False,
}


@pytest.mark.long
def test_answers_that_come_late_and_nodes_that_go_away(field, figures, monkeypatch):
    case = CASES["snapshot-active"]
    wanted = field.undisturbed(case)[1]
    slow = [*zip(field.nodes_of("psrp"), PSRP_SLOW.items()), *zip(field.nodes_of("winrm"), WINRM_SLOW.items())]
    for node, _expected in slow:
        for name, value in HASTE.items():
            monkeypatch.setitem(field.lab.hosts[node], name, value)
    before = field.lab.requests()
    first, _second, happened = field.disturbed(case, wanted, {node: fault for node, (fault, _success) in slow})
    after = field.lab.requests()
    assert happened == len(slow)
    for node, (fault, success) in slow:
        assert bool(failed(first[node])) is not success, (fault, first[node])
        # Clients repeat some requests, but never start a command twice: two runs of the task give at most two commands.
        commands = [entry for entry in after[node][len(before[node]) :] if entry["action"] == "Command"]
        assert len(commands) <= 2, fault
    figures(network_faults=happened, losses=0)


@pytest.mark.long
def test_a_client_that_waits_for_a_node_to_come_back(field, figures, monkeypatch):
    """The client can retry to connect. This is safe, because it has not yet sent anything that could happen twice."""
    node = field.nodes_of("psrp")[0]
    monkeypatch.setitem(field.lab.hosts[node], "ansible_psrp_reconnection_retries", 6)
    monkeypatch.setitem(field.lab.hosts[node], "ansible_psrp_reconnection_backoff", 1)
    task, variables = field.prepare(Case("snapshot", {"key": "work"}), [node])
    faults.arm(field.lab.directory / node, faults.Fault("down", 1, 4.0))
    ((lost, made, again),) = field.lab.play(task, task, task, variables=variables, nodes=[node]).values()
    assert lost["unreachable"]
    assert UNTOUCHED in lost["msg"]
    assert (made["changed"], again["changed"]) == (True, False)
    field.assert_whole(node)
    figures(network_faults=1, losses=0)


def write_large_layer(path):
    """Write a layer that is uploaded in two pieces."""
    sample.write_layer(path)
    path.write_bytes(gzip.decompress(path.read_bytes()))
    size = _upload.PIECE + (2 << 20)
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("Files/noise.bin")
        entry.size = size
        archive.addfile(entry, io.BytesIO(random.Random(size).randbytes(size)))


@pytest.mark.long
def test_an_upload_that_breaks_off(field, figures):
    write_large_layer(field.lab.controller() / "files" / "large.tar")
    case = Case("layer", {"name": "large", "src": "large.tar"})
    requests, wanted = field.undisturbed(case)
    plan = {
        node: faults.Fault(kind, round(requests[transport] * share), 1.0)
        for transport in requests
        for node, (kind, share) in zip(
            field.nodes_of(transport), [("drop-before", 0.4), ("down", 0.5), ("cut", 0.7), ("die", 0.92)]
        )
    }
    before = field.lab.requests()
    first, second, happened = field.disturbed(case, wanted, plan)
    after = field.lab.requests()
    assert happened == len(plan)
    for node, fault in plan.items():
        assert failed(first[node]), fault
        assert second[node]["changed"], fault
        if fault.kind == "die":
            # The first piece arrived and was not sent again. On the wire it is base64 in base64, 16/9 of its size.
            sent = sum(entry["received"] for entry in after[node][len(before[node]) :])
            assert sent < 1.5 * 16 / 9 * _upload.PIECE
    figures(network_faults=happened, losses=0)
