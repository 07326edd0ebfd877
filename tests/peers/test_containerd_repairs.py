# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repair the store of a real containerd: each fault, kills of the repair and of containerd, two repairs at once."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from typing import Any, Callable, Dict, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.picture import Picture, read_picture
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.snapshots import ROOT_LABEL
from ansible_collections.wcow.snapshotter.tests.peers.containerd import SNAPSHOTTER, Containerd
from ansible_collections.wcow.snapshotter.tests.peers.containerd_check import Checked, CheckProcess, check

from lab import sample

pytestmark = [pytest.mark.requires_tool("containerd", "containerd"), pytest.mark.requires_tool("ctr", "containerd")]

NAMESPACE = "repairs"
ROOT = {ROOT_LABEL: "x"}


class Store:
    """The store of a daemon with the committed snapshot ``base``, the snapshot ``work`` on it, and faults."""

    def __init__(self, daemon: Containerd, *, is_new: bool = True) -> None:
        self.daemon = daemon
        if not is_new:
            return
        with self.client() as client:
            client.prepare(SNAPSHOTTER, "new", labels=ROOT)
            client.commit(SNAPSHOTTER, "base", "new", ROOT)
            (mount,) = client.prepare(SNAPSHOTTER, "work", "base", ROOT)
        pathlib.Path(mount.source, "precious").write_text("data", encoding="utf-8")

    def client(self) -> Client:
        return Client(connect(self.daemon.address, NAMESPACE))

    def picture(self) -> Picture:
        return read_picture(self.daemon.root, SNAPSHOTTER)

    def path(self, name: object) -> pathlib.Path:
        return pathlib.Path(self.picture().paths.snapshots, str(name))

    def keys(self) -> List[str]:
        return sorted(found.key for found in self.picture().snapshots)

    def check(self, **options: Any) -> Checked:
        return check(self.daemon, **options)

    def assert_healthy(self) -> None:
        """There are no findings, nothing that a record needs was touched, and containerd works."""
        assert self.check().findings == []
        with self.client() as client:
            (mount,) = client.mounts(SNAPSHOTTER, "work")
            assert pathlib.Path(mount.source, "precious").read_text(encoding="utf-8") == "data"
            (mount,) = client.prepare(SNAPSHOTTER, "probe", "base", ROOT)
            assert os.listdir(mount.source) == []
            client.remove_snapshot(SNAPSHOTTER, "probe")
            client.collect_garbage()
        assert self.keys() == ["base", "work"]
        assert self.check().findings == []

    def restore(self, database: str) -> Callable[[], None]:
        """Stop the daemon, copy a database, and start it. Return what puts the copy back in the same way."""
        paths = self.picture().paths
        path = pathlib.Path(getattr(paths, database))
        kept = path.with_name("kept.db")

        def put_back() -> None:
            self.daemon.stop()
            shutil.move(kept, path)
            self.daemon.start()

        self.daemon.stop()
        shutil.copyfile(path, kept)
        self.daemon.start()
        return put_back


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Containerd(str(tmp_path_factory.mktemp("repairs")), collects=True) as daemon:
        yield Store(daemon)


# -- faults, as containerd leaves them -------------------------------------------------


def uncollected_record(store: Store) -> None:
    """A record whose Prepare did not reach meta.db."""
    put_back = store.restore("metadata")
    with store.client() as client:
        for key in ("gone 1", "gone 2"):
            client.prepare(SNAPSHOTTER, key, "base", ROOT)
    put_back()


def dangling_child(store: Store) -> None:
    """The collector of containerd removes a child, and leaves the key with its parent."""
    with store.client() as client:
        client.prepare(SNAPSHOTTER, "child", "base")
        client.view(SNAPSHOTTER, "child view", "base")
        client.collect_garbage()


def missing_record(store: Store) -> None:
    put_back = store.restore("store")
    with store.client() as client:
        client.prepare(SNAPSHOTTER, "lost new", "base", ROOT)
        client.commit(SNAPSHOTTER, "lost", "lost new", ROOT)
        client.prepare(SNAPSHOTTER, "lost child", "lost", ROOT)
    ids = [found.record.id for found in store.picture().snapshots if found.record and "lost" in found.key]
    put_back()
    for layer_id in ids:
        shutil.rmtree(store.path(layer_id))


def next_directory(store: Store) -> None:
    path = store.path(store.picture().next_id)
    path.mkdir()
    (path / "old").write_text("of an interrupted Prepare", encoding="utf-8")


def leftover_removal(store: Store) -> None:
    with store.client() as client:
        client.prepare(SNAPSHOTTER, "to remove", labels=ROOT)
        client.remove_snapshot(SNAPSHOTTER, "to remove")
        client.collect_garbage()
    store.path(f"rm-{store.picture().next_id - 1}").mkdir()


#: All faults, in an order in which none repairs another one.
FAULTS: Dict[str, Callable[[Store], None]] = {
    make.__name__: make
    for make in (dangling_child, missing_record, leftover_removal, uncollected_record, next_directory)
}

#: What a repair does, while containerd runs.
REPAIRED = {
    "uncollected_record": "removed by containerd's garbage collection",
    "dangling_child": "removed from the children of the snapshot",
    "missing_record": "removed from meta.db",
    "next_directory": "removed with a throw-away snapshot",
    "leftover_removal": "destroyed",
}


@pytest.mark.parametrize("code", FAULTS)
def test_each_repair(store: Store, code: str) -> None:
    FAULTS[code](store)
    found = store.check().findings
    assert {(finding["code"], finding["repairable"], finding["action"]) for finding in found} == {(code, True, "")}
    planned = store.check(repair=True, check_mode=True)
    assert (planned.changed, planned.actions()) == (True, {code: f"would be {REPAIRED[code]}"})
    assert store.check().findings == found
    done = store.check(repair=True)
    assert (done.changed, done.actions()) == (True, {code: REPAIRED[code]})
    assert done.result["healthy"]
    store.assert_healthy()


def test_all_at_once(store: Store) -> None:
    for make in FAULTS.values():
        make(store)
    done = store.check(repair=True)
    assert done.actions() == REPAIRED
    store.assert_healthy()


def test_while_containerd_is_stopped(store: Store) -> None:
    for make in FAULTS.values():
        make(store)
    store.daemon.stop()
    done = store.check(repair=True)
    refused = (
        "not repaired: containerd does not run, and only containerd changes its records; start it, then run this again"
    )
    assert done.actions() == {
        **dict.fromkeys(REPAIRED, refused),
        "leftover_removal": "destroyed",
        "next_directory": "destroyed",
    }
    assert {finding["code"] for finding in done.findings if finding["repairable"]} == {
        "leftover_removal",
        "next_directory",
    }
    store.daemon.start()
    store.check(repair=True)
    store.assert_healthy()


# -- interrupted repairs, and two at once ----------------------------------------------

#: Where a repair of all faults can be killed. A test compares it with what a repair passes.
FAILPOINTS = (
    "check.abandoned.removed",
    "check.delete",
    "check.deleted",
    "check.entries.collect",
    "check.entry.remove",
    "check.throw_away.collect",
    "check.throw_away.collected",
    "check.throw_away.prepare",
    "check.throw_away.remove",
    "check.unlink.remove",
    "check.unlink.removed",
    "check.unlink.view",
)

#: Where it can be killed while containerd is stopped.
FAILPOINTS_STOPPED = ("check.delete", "check.deleted", "check.locked", "check.rename")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return containerd's root directory with all faults, and with what an interrupted repair left."""
    directory = tmp_path_factory.mktemp("faulty")
    with Containerd(str(directory), collects=True) as daemon:
        store = Store(daemon)
        for make in FAULTS.values():
            make(store)
        assert CheckProcess(daemon, {"WCOW_FAILPOINT": "check.unlink.remove"}, repair=True).wait().was_killed
        # The repair did this before it was killed.
        uncollected_record(store)
        next_directory(store)
    return pathlib.Path(daemon.root)


@pytest.fixture
def again(faulty: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Return a store with a copy of these files."""
    directory = tmp_path_factory.mktemp("again")
    shutil.copytree(faulty, directory / "root")
    with Containerd(str(directory), collects=True) as daemon:
        yield Store(daemon, is_new=False)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_the_failpoints_are_known(again: Store, tmp_path: pathlib.Path, is_running: bool) -> None:
    if not is_running:
        again.daemon.stop()
    log = tmp_path / "log"
    CheckProcess(again.daemon, {"WCOW_FAILPOINTS_LOG": str(log)}, repair=True).wait()
    passed = {name for name in log.read_text(encoding="utf-8").split() if name.startswith("check.")}
    assert passed == set(FAILPOINTS if is_running else FAILPOINTS_STOPPED)


@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_killed_repair_is_finished_by_the_next_one(again: Store, name: str, figures: Any) -> None:
    assert CheckProcess(again.daemon, {"WCOW_FAILPOINT": name}, repair=True).wait().was_killed
    again.check(repair=True)
    again.assert_healthy()
    figures(kills_of_a_repair_of_containerd=1)


@pytest.mark.parametrize("name", FAILPOINTS_STOPPED)
def test_a_killed_repair_lets_containerd_start(again: Store, name: str, figures: Any) -> None:
    again.daemon.stop()
    assert CheckProcess(again.daemon, {"WCOW_FAILPOINT": name}, repair=True).wait().was_killed
    again.daemon.start()
    again.check(repair=True)
    again.assert_healthy()
    figures(kills_of_a_repair_of_containerd=1)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_two_repairs_at_once(again: Store, is_running: bool) -> None:
    if not is_running:
        again.daemon.stop()
    both = [CheckProcess(again.daemon, {}, repair=True) for _controller in range(2)]
    for process in both:
        assert not process.wait().was_killed
    if not is_running:
        again.daemon.start()
        again.check(repair=True)
    again.assert_healthy()


# -- containerd is killed under load ---------------------------------------------------


#: How many layers of the load stay. A store that grew without end would make each round slower than the one before.
KEPT = 300


class Load:
    """Clients that create and remove snapshots without a pause. ``kept`` has the keys that stay."""

    def __init__(self, store: Store, threads: int = 3) -> None:
        self.kept: List[str] = []
        self._store = store
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        draw = random.Random(number)
        with self._store.client() as client:
            while not self._end.is_set():
                key = f"{number} {draw.randrange(10**9)}"
                try:
                    self._work(client, draw, key)
                except errors.SnapshotterError:
                    # containerd was killed.
                    self._end.wait(0.02)

    def _work(self, client: Client, draw: random.Random, key: str) -> None:
        """Create a layer with a child, and remove both in one of the two ways, or keep the layer."""
        (mount,) = client.prepare(SNAPSHOTTER, f"{key} new", "base", ROOT)
        pathlib.Path(mount.source, key).write_text(key, encoding="utf-8")
        client.commit(SNAPSHOTTER, key, f"{key} new", ROOT)
        labels = ROOT if draw.random() < 0.7 else {}
        client.prepare(SNAPSHOTTER, f"{key} child", key, labels)
        if draw.random() < 0.1 and len(self.kept) < KEPT:
            self.kept.append(key)
        elif labels:
            client.remove_snapshot(SNAPSHOTTER, f"{key} child")
            client.remove_snapshot(SNAPSHOTTER, key)
        else:
            # Nothing needs the layer any more, so the collector removes it with its child.
            client.update_snapshot(SNAPSHOTTER, key, {}, ["labels"])
            client.collect_garbage()


def of_windows(findings: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Leave out the directories in which the native snapshotter begins a Prepare. That of Windows has none."""
    return [
        finding
        for finding in findings
        if finding["code"] != "foreign_entry" or not os.path.basename(finding["path"]).startswith("new-")
    ]


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_containerd_is_killed_under_load(store: Store, tmp_path: pathlib.Path, rounds: int, figures: Any) -> None:
    draw = random.Random(rounds)
    load = Load(store)
    found: Counter[str] = Counter()
    try:
        for _round in range(rounds):
            checks = [CheckProcess(store.daemon, {}, repair=True, pause=2.0) for _controller in range(2)]
            time.sleep(draw.uniform(0.5, 3.5))
            store.daemon.kill()
            time.sleep(draw.uniform(0, 1))
            store.daemon.start()
            for process in checks:
                checked = process.wait()
                found.update(finding["code"] for finding in checked.findings)
    finally:
        load.stop()
    with store.client() as client:
        client.collect_garbage()
    last = store.check(pause=2.0, repair=True)
    found.update(finding["code"] for finding in last.findings)
    assert [finding["message"] for finding in of_windows(store.check(pause=2.0).findings)] == []
    with store.client() as client:
        for key in load.kept:
            (mount,) = client.prepare(SNAPSHOTTER, f"{key} again", key, ROOT)
            assert pathlib.Path(mount.source, key).read_text(encoding="utf-8") == key
            client.remove_snapshot(SNAPSHOTTER, f"{key} again")
        (mount,) = client.mounts(SNAPSHOTTER, "work")
        assert pathlib.Path(mount.source, "precious").read_text(encoding="utf-8") == "data"
    image = tmp_path / "image.tar"
    sample.write_image(image, "10.0.20348.1")
    arguments = ("--snapshotter", SNAPSHOTTER, "--platform", "windows/amd64", "--base-name", "a.example/b", str(image))
    command = ["ctr", "-a", store.daemon.address, "-n", NAMESPACE, "images", "import", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    keys = {row[0].partition(" ")[0] for row in store.daemon.walk(NAMESPACE)}
    assert {key.partition(" ")[0] for key in load.kept} | {"base", "work"} <= keys
    figures(kills_of_containerd_under_load=rounds, findings_after_kills_of_containerd=sum(found.values()))
