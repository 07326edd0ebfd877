# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many processes use one store: each answer is possible for a single process too, and each wait ends.

``WCOW_SEED`` repeats the random choices of a run, but not their timing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import sqlite3
import stat
import statistics
import tarfile
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import SnapshotterError, Unavailable
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.windows import attachment
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.lock import FileLock
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import errors as metastore_errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.store import METADATA_FILE
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed, open_store
from ansible_collections.wcow.snapshotter.tests.reliability import model
from ansible_collections.wcow.snapshotter.tests.reliability.linearizability import Call, NotLinearizable, linearize

pytestmark = pytest.mark.posix  # forked processes, SIGKILL

PROCESSES = 8
CALLS = 10_000
GIB = 1024**3

# A forked process starts at once, with the core imported. No process forks while a store is open.
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def root(tmp_path: Any) -> str:
    """Return the root of a store with a committed ``base``. The store is not open."""
    path = str(tmp_path / "root")
    store = open_store(path)
    add_committed(store, "base")
    store.close()
    return path


@pytest.fixture
def store(root: str) -> Iterator[Snapshotter]:
    opened = Snapshotter(root, EmulatedLayers())
    yield opened
    opened.close()


def _at_once(work: Callable[..., Any], arguments: List[Tuple[Any, ...]], timeout: float = 60) -> List[Any]:
    """Return the results of ``work`` for each of ``arguments``. Each runs in its own process; all start together."""
    gate = FORK.Barrier(len(arguments))
    pipes = [FORK.Pipe(duplex=False) for _ in arguments]

    def run(number: int) -> None:
        gate.wait(timeout)
        pipes[number][1].send(work(*arguments[number]))

    workers = [FORK.Process(target=run, args=(number,), daemon=True) for number in range(len(arguments))]
    deadline = time.monotonic() + timeout
    try:
        for worker in workers:
            worker.start()
        results = []
        for receiver, _sender in pipes:
            assert receiver.poll(max(0.0, deadline - time.monotonic())), "a process did not answer in time"
            results.append(receiver.recv())
        return results
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
        for pipe in pipes:
            for end in pipe:
                end.close()


def _ask(root: str, operation: str, **arguments: Any) -> Dict[str, Any]:
    """Run one operation through the door, as a task does."""
    request = {
        "protocol": 1,
        "root": root,
        "layers": "emulated",
        "operations": [{"operation": operation, "arguments": arguments}],
    }
    (result,) = door.handle(json.dumps(request).encode())["results"]
    return result


def _changed(results: List[Dict[str, Any]]) -> List[bool]:
    return sorted(result["changed"] for result in results if result["ok"])


def _errors(results: List[Dict[str, Any]]) -> List[str]:
    return sorted(result["error"]["code"] for result in results if not result["ok"])


# -- the checker itself --------------------------------------------------------


def _register(state: Any, call: Call) -> Any:
    """A variable with the operations write and read."""
    if call.operation == "write":
        return call.value
    return state if call.value == state else None


def _calls(*spans: Tuple[int, int, str, int]) -> List[Call]:
    return [
        Call(called, returned, process, operation, (), "ok", value)
        for process, (called, returned, operation, value) in enumerate(spans)
    ]


def test_a_history_whose_overlapping_writes_have_an_order_is_explained() -> None:
    history = _calls((0, 9, "write", 1), (1, 8, "write", 2), (2, 3, "read", 2), (4, 5, "read", 1))

    assert linearize(history, _register, ["read"], 0) == 1


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(_calls((0, 1, "write", 1), (2, 3, "read", 0)), id="a read after the write misses it"),
        pytest.param(
            _calls((0, 9, "write", 1), (1, 2, "read", 1), (3, 4, "read", 0)), id="two reads see a write come and go"
        ),
        pytest.param(
            _calls((0, 1, "write", 1), (0, 1, "write", 2), (2, 3, "read", 1), (4, 5, "read", 2)),
            id="writes that ended change places",
        ),
    ],
)
def test_a_history_that_no_order_explains_is_refused(history: List[Call]) -> None:
    with pytest.raises(NotLinearizable):
        linearize(history, _register, ["read"], 0)


def test_a_write_of_the_present_value_may_have_happened_later() -> None:
    history = _calls((0, 1, "write", 1), (2, 9, "write", 1), (3, 4, "write", 2), (10, 11, "read", 1))

    assert linearize(history, _register, ["read"], 0) == 1


def test_a_name_given_to_two_processes_is_not_a_history_of_a_store() -> None:
    twice = [Call(0, 5, process, "prepare", ("k", "", "m"), "ok", [process + 1]) for process in range(2)]

    with pytest.raises(NotLinearizable):
        linearize(twice, model.step, model.READS, model.EMPTY)


def test_unavailable_is_an_answer_only_while_another_call_may_hold_the_snapshot() -> None:
    refused = Call(5, 6, 0, "remove", ("k",), "unavailable", None)
    before = Call(0, 4, 1, "grow", ("k", 1), "ok", 1)
    meanwhile = before._replace(returned=7)

    assert model.unexcused([before, refused]) == [refused]
    assert model.unexcused([meanwhile, refused]) == []


# -- any answer could be that of a single process ------------------------------

KEYS = [f"k{number}" for number in range(8)]
NAMES = [f"c{number}" for number in range(5)]

OPERATIONS = {
    "prepare": 18,
    "view": 6,
    "commit": 16,
    "remove": 18,
    "update": 7,
    "stat": 9,
    "walk": 5,
    "usage": 4,
    "scratch": 4,
    "mounts": 3,
    "grow": 5,
    "mount": 2,
    "unmount": 4,
}


def _choose(choice: random.Random, mark: str) -> Tuple[str, Tuple[Any, ...]]:
    (operation,) = choice.choices(list(OPERATIONS), list(OPERATIONS.values()))
    anything = KEYS + NAMES
    key = choice.choice(KEYS)
    parent = choice.choice(["", "", "", *NAMES, choice.choice(KEYS)])
    if operation in ("prepare", "view"):
        return operation, (key, parent, mark)
    if operation == "commit":
        late = choice.choice(["", "", "", *NAMES])
        return operation, (choice.choice([*NAMES, choice.choice(KEYS)]), key, late, mark)
    if operation == "update":
        return operation, (choice.choice(anything), mark)
    if operation == "walk":
        return operation, (choice.choice(["", "active", "view", "committed"]),)
    if operation == "grow":
        return operation, (key, choice.randrange(21, 60) * GIB)
    if operation in ("mount", "unmount"):
        return operation, (key,)
    return operation, (choice.choice(anything),)


def _seen(info: Any) -> Tuple[Any, ...]:
    return info.name, info.kind, info.parent, info.labels.get("mark"), info.id


def _layers_in(mounts: Any) -> List[int]:
    """Return the ids in the one mount: the id of the source, then the ids of the parents."""
    (mount,) = mounts
    return [int(number) for number in re.findall(r"snapshots[\\/]+(\d+)", " ".join([mount.source, *mount.options]))]


def _perform(store: Snapshotter, mounts: str, operation: str, arguments: Tuple[Any, ...]) -> Any:
    """Run one operation of the model on the store. Return its result in the form of the model."""
    key = arguments[0]
    if operation in ("prepare", "view"):
        return _layers_in(getattr(store, operation)(key, arguments[1], {"mark": arguments[2]}))
    if operation == "commit":
        name, key, parent, mark = arguments
        return _seen(store.commit(name, key, {"mark": mark}, parent))
    if operation == "update":
        store.update(key, {"mark": arguments[1]})
    elif operation == "stat":
        return _seen(store.stat(key))
    elif operation == "walk":
        return [_seen(info) for info in store.walk(*([f"kind=={key}"] if key else []))]
    elif operation == "usage":
        return store.usage(key).size
    elif operation == "scratch":
        found = store.scratch(key)
        return found.virtual_size if found else 0
    elif operation == "mounts":
        return _layers_in(store.mounts(key))
    elif operation == "grow":
        return store.grow_scratch(key, arguments[1]).virtual_size
    elif operation == "mount":
        store.mount(key, os.path.join(mounts, key))
    elif operation == "unmount":
        store.unmount(os.path.join(mounts, key))
    else:
        store.remove(key)
    return None


def _work(root: str, mounts: str, process: int, seed: int, count: int) -> Tuple[List[Call], List[str]]:
    """Run ``count`` random operations. Return the history and all warnings. Sometimes close and reopen the store."""
    choice = random.Random(f"{seed}.{process}")
    store = Snapshotter(root, EmulatedLayers())
    warnings: List[str] = []
    history = []
    for number in range(count):
        operation, arguments = _choose(choice, f"{process}.{number}")
        called = time.monotonic_ns()
        try:
            code, value = "ok", _perform(store, mounts, operation, arguments)
        except SnapshotterError as error:
            code, value = error.code, error.message
        except Exception as error:  # noqa: BLE001 - any error is part of the history
            code, value = "crash", repr(error)
        history.append(Call(called, time.monotonic_ns(), process, operation, arguments, code, value))
        if choice.random() < 0.05:
            warnings += store.warnings
            store.close()
            store = Snapshotter(root, EmulatedLayers())
    warnings += store.warnings
    store.close()
    return history, warnings


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("WCOW_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"WCOW_SEED={chosen}")
    return chosen


def test_random_operations_of_many_processes_are_linearizable(tmp_path: Any, seed: int, figures: Any) -> None:
    root, mounts = str(tmp_path / "root"), str(tmp_path / "mounts")
    Snapshotter(root, EmulatedLayers()).close()
    os.mkdir(mounts)

    work = [(root, mounts, process, seed, CALLS // PROCESSES) for process in range(PROCESSES)]
    results = _at_once(_work, work, timeout=120)

    history = [call for calls, _warnings in results for call in calls]
    store = Snapshotter(root, EmulatedLayers())
    # The last call of the history shows that no acknowledged change was lost.
    end = time.monotonic_ns()
    history.append(Call(end, end, PROCESSES, "walk", ("",), "ok", [_seen(info) for info in store.walk()]))
    assert [call for call in history if call.code == "crash"] == []
    assert [text for _calls, warnings in results for text in warnings] == []
    assert model.unexcused(history) == []
    state = linearize(history, model.step, model.READS, model.EMPTY)
    for entry in state:
        at = [os.path.join(mounts, entry.name)] if entry.mounted else []
        assert store.mounted_at(entry.name) == at
        if entry.size:
            assert store.scratch(entry.name).virtual_size == entry.size
    store.close()
    _check_invariants(root)
    succeeded = dict.fromkeys(OPERATIONS, 0)
    for call in history:
        succeeded[call.operation] += call.code == "ok"
    print(f"succeeded: {succeeded}; unavailable: {sum(call.code == 'unavailable' for call in history)}")
    assert min(succeeded.values()) > CALLS // 500, "with these choices an operation almost never succeeds"
    made = [call.value[0] for call in history if call.operation == "prepare" and call.code == "ok"]
    assert len(set(made)) == len(made), "an id was given out twice"
    figures(concurrent_operations=len(history), losses=0)


def _check_invariants(root: str) -> None:
    """Check the properties that every idle store has."""
    connection = sqlite3.connect(os.path.join(root, METADATA_FILE))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("SELECT count(*) FROM snapshots WHERE holder IS NOT NULL").fetchone() == (0,)
    records = dict(connection.execute("SELECT id, kind FROM snapshots"))
    connection.close()
    directories = {int(name) for name in os.listdir(os.path.join(root, "snapshots"))}
    assert directories <= set(records), "a directory without a record"
    assert {number for number in records if records[number] != "view"} <= directories, "a record without a directory"
    locks = os.path.join(root, "locks")
    for name in os.listdir(locks):
        with FileLock(os.path.join(locks, name)) as lock:
            assert lock.acquire(), f"{name} is still locked"


# -- long commits --------------------------------------------------------------


class SlowLayers(EmulatedLayers):
    """Layers whose conversions create a file when they begin, and then sleep."""

    def __init__(self, started: str, seconds: float) -> None:
        super().__init__()
        self._started = started
        self._seconds = seconds

    def convert(self, directory: str, parents: Any) -> None:
        open(self._started, "x").close()
        time.sleep(self._seconds)
        super().convert(directory, parents)


@pytest.fixture
def converting(root: str, tmp_path: Any) -> Iterator[Callable[[float], Any]]:
    """Return ``converting(seconds)``: it starts a process that commits ``key``, and waits for the conversion."""
    started = str(tmp_path / "started")
    workers = []

    def commit(seconds: float) -> None:
        store = Snapshotter(root, SlowLayers(started, seconds))
        store.prepare("key", "base")
        store.commit("name", "key")
        store.close()

    def begin(seconds: float) -> Any:
        worker = FORK.Process(target=commit, args=(seconds,), daemon=True)
        workers.append(worker)
        worker.start()
        deadline = time.monotonic() + 20
        while not os.path.exists(started):
            assert worker.is_alive(), "the process ended before its conversion began"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return worker

    yield begin
    for worker in workers:
        worker.kill()
        worker.join()


def _prepare_times(store: Snapshotter, name: str) -> List[float]:
    """Return the durations of ten prepares in seconds."""
    times = []
    for number in range(10):
        begin = time.monotonic()
        store.prepare(f"{name}{number}", "base")
        times.append(time.monotonic() - begin)
    return times


def test_a_long_commit_blocks_no_other_key(root: str, converting: Any, figures: Any) -> None:
    committer = converting(5.0)
    store = Snapshotter(root, EmulatedLayers())

    # On a busy machine, try again while the conversion lasts.
    times: List[float] = []
    for batch in itertools.count():
        times = _prepare_times(store, f"batch{batch}.")
        print(f"prepares during a conversion: median {statistics.median(times):.4f} s, longest {max(times):.4f} s")
        assert committer.is_alive(), "the conversion ended before ten prepares stayed under 100 ms each"
        if max(times) < 0.1:
            break
    committer.join(20)
    assert store.stat("name").kind == "committed"
    store.close()
    figures(concurrent_operations=len(times) + 1, losses=0)


def test_an_operation_on_a_key_that_is_being_committed_names_the_committer(root: str, converting: Any) -> None:
    committer = converting(30.0)
    store = Snapshotter(root, EmulatedLayers())

    for refused in (
        lambda: store.commit("other", "key"),
        lambda: store.remove("key"),
        lambda: store.update("key", {"a": "b"}),
        lambda: store.grow_scratch("key", 30 * GIB),
        lambda: store.mount("key", root + "-mount"),
    ):
        begin = time.monotonic()
        with pytest.raises(Unavailable, match=f"is being committed by process {committer.pid} since .*; run the task"):
            refused()
        assert time.monotonic() - begin < 5
    assert store.stat("key").kind == "active"
    assert store.usage("key").size > 0
    assert [info.name for info in store.walk()] == ["base", "key"]
    store.close()


@pytest.mark.parametrize("operation", ["commit", "remove", "update", "grow", "mount", "prepare"])
def test_a_committer_that_died_is_taken_over(root: str, converting: Any, operation: str, figures: Any) -> None:
    committer = converting(60.0)
    committer.kill()
    committer.join()
    store = Snapshotter(root, EmulatedLayers())

    assert store.stat("key").kind == "active"
    if operation == "commit":
        assert store.commit("name", "key").kind == "committed"
    elif operation == "remove":
        store.remove("key")
        assert [info.name for info in store.walk()] == ["base"]
    elif operation == "update":
        assert store.update("key", {"a": "b"}).labels == {"a": "b"}
    elif operation == "grow":
        assert store.grow_scratch("key", 30 * GIB).virtual_size == 30 * GIB
    elif operation == "mount":
        store.mount("key", root + "-mount")
        store.unmount(root + "-mount")
    else:
        store.prepare("name", "base")  # the name that the dead process was about to use
    assert store.warnings == []
    store.close()
    if operation == "prepare":
        # No operation has used the key yet; the next one clears the lock owner.
        assert _ask(root, "remove", key="key")["ok"]
    _check_invariants(root)
    figures(kills=1, losses=0)


# -- two tasks, one key --------------------------------------------------------


@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("state", ["active", "view"])
def test_the_same_snapshot_wanted_at_once_is_made_once(root: str, state: str, processes: int, figures: Any) -> None:
    def task() -> Dict[str, Any]:
        return _ask(root, "ensure_snapshot", state=state, key="k", parent="base", labels={"a": "b"})

    results = _at_once(task, [()] * processes)

    assert _errors(results) == []
    assert _changed(results) == [False] * (processes - 1) + [True]
    assert len({result["result"]["snapshot"]["id"] for result in results}) == 1
    _check_invariants(root)
    figures(concurrent_operations=processes, losses=0)


def test_one_key_wanted_over_different_parents_has_one_winner(root: str, figures: Any) -> None:
    for name in ("one", "two"):
        assert _ask(root, "prepare", key="k", parent="base")["ok"]
        assert _ask(root, "commit", key="k", name=name)["ok"]

    def task(parent: str) -> Dict[str, Any]:
        return _ask(root, "ensure_snapshot", state="active", key="k", parent=parent)

    results = _at_once(task, [("one",), ("two",)] * 4)

    assert _errors(results) == ["already_exists"] * 4
    assert _changed(results) == [False, False, False, True]
    parent = _ask(root, "stat", key="k")["result"]["parent"]
    for result in results:
        if result["ok"]:
            assert result["result"]["snapshot"]["parent"] == parent
        else:
            assert f'"k" is an active snapshot with parent "{parent}"' in result["error"]["message"]
    _check_invariants(root)
    figures(concurrent_operations=len(results), losses=0)


def test_one_key_committed_under_two_names_has_one_winner(root: str, figures: Any) -> None:
    assert _ask(root, "prepare", key="k", parent="base")["ok"]

    def task(name: str) -> Dict[str, Any]:
        return _ask(root, "ensure_snapshot", state="committed", name=name, key="k")

    results = _at_once(task, [("one",), ("two",)])

    (error,) = _errors(results)
    assert error in ("unavailable", "not_found")  # still being committed, or committed already
    assert _changed(results) == [True]
    assert [info["name"] for info in _ask(root, "walk")["result"]] in (["base", "one"], ["base", "two"])
    _check_invariants(root)
    figures(concurrent_operations=2, losses=0)


def test_a_snapshot_removed_at_once_by_many_is_removed_once(root: str, figures: Any) -> None:
    assert _ask(root, "prepare", key="k", parent="base")["ok"]

    results = _at_once(lambda: _ask(root, "ensure_snapshot", state="absent", key="k"), [()] * PROCESSES)

    assert _errors(results) == []
    assert _changed(results) == [False] * (PROCESSES - 1) + [True]
    _check_invariants(root)
    figures(concurrent_operations=PROCESSES, losses=0)


def _rerun(root: str, results: List[Dict[str, Any]], *tasks: Tuple[str, Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Run the tasks that got "unavailable" again. Return the results of all tasks."""
    assert set(_errors(results)) <= {"unavailable"}
    return [
        result if result["ok"] else _ask(root, operation, **arguments)
        for result, (operation, arguments) in zip(results, tasks)
    ]


def test_a_disk_grown_to_many_sizes_at_once_gets_the_largest(root: str, figures: Any) -> None:
    assert _ask(root, "prepare", key="k", parent="base")["ok"]
    tasks = [("ensure_scratch", {"key": "k", "size": (30 + number) * GIB}) for number in range(PROCESSES)]

    results = _at_once(lambda operation, arguments: _ask(root, operation, **arguments), tasks)
    results = _rerun(root, results, *tasks)

    assert _errors(results) == []
    for result, (_operation, arguments) in zip(results, tasks):
        assert result["result"]["scratch"]["virtual_size"] >= arguments["size"]
    store = Snapshotter(root, EmulatedLayers())
    largest = (30 + PROCESSES - 1) * GIB
    assert store.scratch("k").virtual_size == largest
    store.close()
    _check_invariants(root)
    figures(concurrent_operations=PROCESSES, losses=0)


@pytest.mark.parametrize("state", ["active", "view"])
def test_a_mount_wanted_at_once_by_many_is_made_once(root: str, state: str, figures: Any) -> None:
    target = root + "-mount"
    assert _ask(root, "ensure_snapshot", state=state, key="k", parent="base")["ok"]
    for wanted, there in (("mounted", [target]), ("unmounted", [])):
        arguments = {"state": wanted, "target": target, **({"key": "k"} if there else {})}
        tasks = [("ensure_mount", arguments)] * PROCESSES

        results = _at_once(lambda operation, arguments: _ask(root, operation, **arguments), tasks)
        results = _rerun(root, results, *tasks)

        assert _errors(results) == []
        assert True in _changed(results)
        store = Snapshotter(root, EmulatedLayers())
        assert store.mounted_at("k") == there
        store.close()
    _check_invariants(root)
    figures(concurrent_operations=2 * PROCESSES, losses=0)


@pytest.mark.parametrize("staged", [False, True])
def test_a_layer_imported_at_once_by_many_is_there_once(root: str, tmp_path: Any, staged: bool, figures: Any) -> None:
    source: Any = str(tmp_path / "layer.tar")
    with tarfile.open(source, "w") as tar:
        directory = tarfile.TarInfo("Files")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        tar.addfile(tarfile.TarInfo("Files/one.txt"))
    if staged:
        with open(source, "rb") as file:
            source = {"staged": "sha256:" + hashlib.sha256(file.read()).hexdigest()}
        os.mkdir(os.path.join(root, "incoming"))
        os.rename(tmp_path / "layer.tar", os.path.join(root, "incoming", source["staged"][7:]))
    arguments = {"name": "layer", "parent": "base", "src": source}

    results = _at_once(lambda: _ask(root, "ensure_layer", **arguments), [()] * PROCESSES)

    assert _errors(results) == []
    assert _changed(results) == [False] * (PROCESSES - 1) + [True]
    assert [info["name"] for info in _ask(root, "walk")["result"]] == ["base", "layer"]
    assert not staged or os.listdir(os.path.join(root, "incoming")) == []
    _check_invariants(root)
    figures(concurrent_operations=PROCESSES, losses=0)


# -- every wait ends ------------------------------------------------------------


def test_metadata_that_is_locked_for_too_long_is_unavailable(
    root: str, store: Snapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setattr(metastore_errors, "BUSY_TIMEOUT", 0.5)
    other = sqlite3.connect(os.path.join(root, METADATA_FILE), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    busy = Snapshotter(root, EmulatedLayers())

    for change in (lambda: busy.prepare("k", "base"), lambda: busy.remove("base"), lambda: busy.update("base", {})):
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="have kept the metadata locked for 0.5 s; run the task again"):
            change()
        assert 0.5 <= time.monotonic() - begin < 5
    busy.close()
    # A reader does not wait for a writer.
    monkeypatch.setattr(metastore_errors, "BUSY_TIMEOUT", 60.0)
    busy = Snapshotter(root, EmulatedLayers())
    begin = time.monotonic()
    assert [info.name for info in busy.walk()] == ["base"]
    assert time.monotonic() - begin < 30
    other.execute("ROLLBACK")
    busy.prepare("k", "base")
    busy.close()
    other.close()
    _check_invariants(root)


def test_a_write_queue_that_is_held_for_too_long_is_unavailable(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metastore_errors, "BUSY_TIMEOUT", 0.5)
    store = Snapshotter(root, EmulatedLayers())
    with FileLock(os.path.join(root, METADATA_FILE + "-turn")) as queue:
        assert queue.acquire()
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="have kept the metadata locked"):
            store.prepare("k", "base")
        assert 0.5 <= time.monotonic() - begin < 5
    store.prepare("k", "base")
    store.close()


def test_a_snapshot_whose_files_are_in_use_is_unavailable_at_once(root: str) -> None:
    store = Snapshotter(root, EmulatedLayers())
    store.prepare("k", "base")
    with FileLock(os.path.join(root, "locks", str(store.stat("k").id))) as lock:
        assert lock.acquire()
        for refused in (
            lambda: store.commit("name", "k"),
            lambda: store.remove("k"),
            lambda: store.grow_scratch("k", 30 * GIB),
            lambda: store.mount("k", root + "-mount"),
        ):
            with pytest.raises(Unavailable, match='snapshot "k" is in use by another process of the collection'):
                refused()
        store.prepare("other", "base")
    store.remove("k")
    store.close()
    _check_invariants(root)


def test_layers_of_all_stores_of_a_host_are_prepared_one_at_a_time(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRAMW6432", str(tmp_path))
    monkeypatch.setattr(attachment, "_LOCK_SECONDS", 0.3)
    with attachment._lock_prepare():
        begin = time.monotonic()
        with (
            pytest.raises(Unavailable, match="prepare-layer has been held for 0.3 seconds"),
            attachment._lock_prepare(),
        ):
            pass
        assert 0.3 <= time.monotonic() - begin < 5
    with attachment._lock_prepare():
        pass
    assert stat.S_IMODE(os.stat(tmp_path / "wcow" / "locks").st_mode) == 0o700


def _write_again_and_again(root: str, process: int, seconds: float) -> List[float]:
    """Prepare snapshots without a pause. Return their durations in seconds."""
    store = Snapshotter(root, EmulatedLayers())
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.monotonic()
        store.prepare(f"{process}.{len(times)}", "base")
        times.append(time.monotonic() - begin)
    store.close()
    return times


def test_no_writer_keeps_the_others_out(root: str, figures: Any) -> None:
    # A starved writer gives up after 30 s. No writer in this test may come near that limit.
    waits = _at_once(_write_again_and_again, [(root, process, 4.0) for process in range(PROCESSES)])

    counts = [len(times) for times in waits]
    longest = max(map(max, waits))
    print(f"prepares of each of {PROCESSES} writers in 4 s: {sorted(counts)}; longest wait {longest * 1e3:.0f} ms")
    assert longest < 4
    assert min(counts) * 4 > max(counts)
    figures(concurrent_operations=sum(counts), losses=0)
