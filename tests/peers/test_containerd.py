# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random operations have the same results on a real containerd and on this collection.

Each seed gives a sequence of operations over a few names. The test runs it in
an empty containerd namespace and on an empty store. It compares the outcome of
each operation (success or error class). After each success it compares the walk
(order, names, parents, kinds). At the end it compares labels, and whether the
times differ.

Known differences that are not defects of either side:

* Both refuse a request with two faults (a taken key *and* a missing parent).
  But containerd's metadata layer, which ctr uses, checks in a different order
  than its snapshotters. ``Model.faults`` returns what is wrong with a request.
  Both must name the fault if there is one, and one of the faults if there are
  two.
* containerd's native snapshotter measures a snapshot before it checks the kind.
  A view with a parent has no directory there, so committing such a view is
  ``unknown`` (our ``internal``) instead of ``failed_precondition``.
* ctr cannot set labels when it creates a snapshot, and cannot filter a walk.
"""

from __future__ import annotations

import json
import random
from typing import Any, Dict, List, NamedTuple, Optional, Set, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import MAXIMUM_LENGTH
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import ACTIVE, COMMITTED, VIEW
from ansible_collections.wcow.snapshotter.tests.peers.containerd import Containerd

pytestmark = [pytest.mark.requires_tool("containerd", "containerd"), pytest.mark.requires_tool("ctr", "containerd")]

SEEDS = range(200)
LENGTH = 15

# The names are few, so that they collide. A walk shows byte order, case and non-ASCII. For blanks see Containerd.walk.
NAMES = ("B", "a", "a/b", "z.9", "é")
LABELS = ("k=1", "k=2", "k=", "containerd.io/snapshot/x.y=1", "long=" + "v" * 4092, "long=" + "v" * 4093)


class Operation(NamedTuple):
    """One request. ``argument`` is the parent, the key of a commit, or the label."""

    verb: str
    name: str
    argument: str = ""

    def __str__(self) -> str:
        return " ".join(part if len(part) < 60 else f"{part[:10]}..." for part in self if part)


class Model:
    """A simple model of the contract: the existing names, and the faults of a request."""

    def __init__(self) -> None:
        self.snapshots: Dict[str, Tuple[str, str]] = {}

    def walk(self) -> List[Tuple[str, str, str]]:
        """Return name, parent and kind of all snapshots, in byte order of the names."""
        return [(name, *self.snapshots[name]) for name in sorted(self.snapshots, key=str.encode)]

    def kind(self, name: str) -> str:
        return self.snapshots.get(name, ("", ""))[1]

    def faults(self, operation: Operation) -> Set[str]:
        """Return the possible error classes of a request. An empty set means that the request must succeed."""
        verb, name, argument = operation
        kind = self.kind(name)
        found = set()
        if verb in ("prepare", "view", "commit"):
            if kind:
                found.add("already_exists")
            if argument and not self.kind(argument):
                found.add("not_found")
            elif argument and self.kind(argument) != (ACTIVE if verb == "commit" else COMMITTED):
                found.add("failed_precondition" if verb == "commit" else "invalid_argument")
            return found
        if not kind:
            found.add("not_found")
        if verb == "remove" and any(parent == name for parent, _kind in self.snapshots.values()):
            found.add("failed_precondition")
        if verb == "mounts" and kind == COMMITTED:
            found.add("failed_precondition")
        if verb == "label" and len(argument.replace("=", "", 1)) > MAXIMUM_LENGTH:
            found.add("invalid_argument")
        return found

    def apply(self, operation: Operation) -> None:
        """Apply a request that has no faults."""
        verb, name, argument = operation
        if verb == "commit":
            self.snapshots[name] = (self.snapshots.pop(argument)[0], COMMITTED)
        elif verb == "remove":
            del self.snapshots[name]
        elif verb in ("prepare", "view"):
            self.snapshots[name] = (argument, ACTIVE if verb == "prepare" else VIEW)


def draw_operation(draw: random.Random) -> Operation:
    verb = draw.choices(("prepare", "view", "commit", "remove", "label", "mounts"), (6, 3, 5, 3, 2, 1))[0]
    argument = ""
    if verb in ("prepare", "view"):
        argument = draw.choice(("", *NAMES))
    elif verb == "commit":
        argument = draw.choice(NAMES)
    elif verb == "label":
        argument = draw.choice(LABELS)
    return Operation(verb, draw.choice(NAMES), argument)


def sequence(seed: int) -> List[Operation]:
    """Return the operations of a seed. Half are retried until they have no fault, so that the stores fill up."""
    draw = random.Random(seed)
    model = Model()
    operations: List[Operation] = []
    for _step in range(LENGTH):
        operation = draw_operation(draw)
        if draw.random() < 0.5:
            operation = next(
                (other for other in (draw_operation(draw) for _try in range(20)) if not model.faults(other)), operation
            )
        operations.append(operation)
        if not model.faults(operation):
            model.apply(operation)
    return operations


def ask_containerd(containerd: Containerd, namespace: str, operation: Operation) -> str:
    verb, name, argument = operation
    arguments = ["/nowhere", name] if verb == "mounts" else [name, argument] if argument else [name]
    return containerd.call(namespace, verb, *arguments).outcome


class Ours:
    """A store of the collection, used through the core's door."""

    def __init__(self, root: str) -> None:
        self.root = root

    def request(self, operation: str, **arguments: Any) -> Dict[str, Any]:
        request = {
            "protocol": 1,
            "root": self.root,
            "layers": "emulated",
            "operations": [{"operation": operation, "arguments": arguments}],
        }
        return door.handle(json.dumps(request).encode())["results"][0]

    def ask(self, operation: Operation) -> str:
        verb, name, argument = operation
        if verb == "label":
            key, _equals, value = argument.partition("=")
            result = self.request("update", name=name, labels={key: value}, fieldpaths=[f"labels.{key}"])
        elif verb == "commit":
            result = self.request("commit", name=name, key=argument)
        elif verb in ("prepare", "view"):
            result = self.request(verb, key=name, parent=argument)
        else:
            result = self.request(verb, key=name)
        return "ok" if result["ok"] else result["error"]["code"]

    def infos(self) -> List[Dict[str, Any]]:
        return self.request("walk")["result"]

    def walk(self) -> List[Tuple[str, str, str]]:
        return [(info["name"], info["parent"], info["kind"]) for info in self.infos()]


def disagreement(operations: List[Operation], containerd: Containerd, directory: str) -> Optional[str]:
    """Run ``operations`` on both, in an unused directory. Return the first difference, or None."""
    namespace = "peer-" + directory.rpartition("/")[2]
    model = Model()
    store = Ours(directory)
    for operation in operations:
        expected = model.faults(operation) or {"ok"}
        tolerated = {"internal"} if operation.verb == "commit" and model.kind(operation.argument) == VIEW else set()
        theirs, ours = ask_containerd(containerd, namespace, operation), store.ask(operation)
        if ours not in expected or theirs not in expected | tolerated:
            return f"{operation}: containerd {theirs}, ours {ours}, expected {' or '.join(sorted(expected))}"
        if ours == "ok":
            model.apply(operation)
            peer, walk = containerd.walk(namespace), store.walk()
            if not peer == walk == model.walk():
                return f"walk after {operation}: containerd {peer}, ours {walk}, expected {model.walk()}"
    for info in store.infos():
        peer_info = containerd.info(namespace, info["name"])
        theirs = (peer_info["Labels"], peer_info["Updated"] != peer_info["Created"])
        ours = (info["labels"], info["updated"] != info["created"])
        if theirs != ours:
            return f"labels of {info['name']} and whether it was updated: containerd {theirs}, ours {ours}"
    return None


@pytest.fixture(scope="module")
def containerd(tmp_path_factory):
    with Containerd(str(tmp_path_factory.mktemp("containerd"))) as daemon:
        yield daemon


@pytest.mark.parametrize("seed", SEEDS)
def test_same_answers(seed, containerd, tmp_path):
    operations = sequence(seed)
    difference = disagreement(operations, containerd, str(tmp_path / f"{seed}-0"))
    if difference is None:
        return
    # Drop operations that the difference does not need: one pass from the end, at most LENGTH more runs.
    for position in reversed(range(LENGTH)):
        shorter = operations[:position] + operations[position + 1 :]
        smaller_difference = disagreement(shorter, containerd, str(tmp_path / f"{seed}-{position + 1}"))
        if smaller_difference:
            operations, difference = shorter, smaller_difference
    pytest.fail(f"seed {seed}: {difference}\nto see it again: {'; '.join(map(str, operations))}", pytrace=False)


def test_sequences_reach_every_outcome(tmp_path):
    """The seeds above are only useful if together they reach each outcome of each operation."""
    seen = set()
    for seed in SEEDS:
        store = Ours(str(tmp_path / str(seed)))
        seen |= {(operation.verb, store.ask(operation)) for operation in sequence(seed)}
    create = {"ok", "already_exists", "not_found", "invalid_argument"}
    assert seen == {
        (verb, outcome)
        for verb, outcomes in {
            "prepare": create,
            "view": create,
            "commit": {"ok", "already_exists", "not_found", "failed_precondition"},
            "remove": {"ok", "not_found", "failed_precondition"},
            "label": {"ok", "not_found", "invalid_argument"},
            "mounts": {"ok", "not_found", "failed_precondition"},
        }.items()
        for outcome in outcomes
    }
