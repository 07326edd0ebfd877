# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real containerd keeps its snapshots in our store: ctr, images, adoption, garbage collection, and kills."""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import threading
import time
from typing import Any, Dict, Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import COMMITTED

from lab import sample

from .containerd import CALL_TIMEOUT, PROXY, Containerd
from .proxy import PATIENCE, Service, eventually

pytestmark = [
    pytest.mark.requires_tool("containerd", "containerd"),
    pytest.mark.requires_tool("ctr", "containerd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd mounts the snapshots of an image, which needs root"),
]

ROOT_LABEL = {"containerd.io/gc.root": "test"}


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    # A socket's path can have at most 107 characters.
    return str(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def service(directory: str) -> Iterator[Service]:
    running = Service(directory)
    yield running
    assert running.stop() == 0


@pytest.fixture
def daemon(directory: str, service: Service) -> Iterator[Containerd]:
    with Containerd(directory, collects=True, proxy=service.address) as running:
        yield running


@pytest.fixture
def client(daemon: Containerd) -> Iterator[Client]:
    with Client(connect(daemon.address, "default")) as opened:
        yield opened


def ctr(daemon: Containerd, *arguments: str) -> str:
    command = ["ctr", "-a", daemon.address, "-n", "default", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=CALL_TIMEOUT, encoding="utf-8").stdout


def test_the_commands_of_ctr(daemon: Containerd, client: Client, service: Service) -> None:
    def call(*arguments: str) -> str:
        answer = daemon.call("default", *arguments)
        assert answer.outcome == "ok", answer.message
        return answer.output

    call("prepare", "a")
    call("commit", "base", "a")
    call("prepare", "b", "base")
    call("commit", "top", "b")
    call("view", "v", "top")
    assert daemon.walk("default") == [("base", "", "committed"), ("top", "base", "committed"), ("v", "top", "view")]
    assert call("tree").split() == ["base", "\\_", "top", "\\_", "v"]
    call("label", "top", "containerd.io/snapshot/x=1", "other=2")
    assert json.loads(call("info", "top"))["Labels"]["other"] == "2"
    assert "base" in call("usage")
    assert "parentLayerPaths" not in call("mounts", "/mnt", "v")
    refused = daemon.call("default", "rm", "top")
    assert (refused.outcome, "cannot remove snapshot with child" in refused.message) == ("failed_precondition", True)
    assert daemon.call("default", "info", "none").outcome == "not_found"
    assert daemon.call("default", "prepare", "v").outcome == "already_exists"
    store = service.open()
    # Only some labels reach a backend.
    infos = {info.name.rpartition("/")[2]: info for info in store.walk()}
    assert infos["top"].labels == {"containerd.io/snapshot/x": "1"}
    store.close()
    for name in ("v", "top", "base"):
        call("rm", name)
    # containerd forgets a removal that happens during a collection, until the next one (gc/scheduler, run).
    client.collect_garbage()
    eventually(lambda: service.names() == [] and service.layers() == [])


def import_image(daemon: Containerd, directory: str) -> List[str]:
    """Import an image with two layers. Return the chain ids of its snapshots, from the base."""
    path = pathlib.Path(directory, "image.tar")
    sample.write_image(path, "10.0.20348.1")
    ctr(daemon, "images", "import", "--snapshotter", PROXY, "--platform", "windows/amd64", str(path))
    rows = daemon.walk("default")
    (base,) = (name for name, parent, _kind in rows if not parent)
    (top,) = (name for name, parent, _kind in rows if parent == base)
    return [base, top]


def test_an_image_is_unpacked_into_the_store(daemon: Containerd, service: Service, directory: str) -> None:
    chain = import_image(daemon, directory)
    assert {name.rpartition("/")[2] for name in service.names()} == set(chain)
    store = service.open()
    infos = {info.name.rpartition("/")[2]: info for info in store.walk()}
    assert infos[chain[1]].parent == infos[chain[0]].name
    (mount,) = store.prepare("look", infos[chain[1]].name)
    assert os.listdir(mount.source)
    store.remove("look")
    assert not check(store).findings
    store.close()
    for image in ctr(daemon, "images", "ls", "-q").split():
        ctr(daemon, "images", "rm", "--sync", image)
    with Client(connect(daemon.address, "default")) as client:
        client.collect_garbage()
    eventually(lambda: service.names() == [])


def test_layers_of_the_store_are_adopted(daemon: Containerd, client: Client, service: Service) -> None:
    """The calls are those of containerd's unpacker (core/unpack/unpacker.go)."""
    store = service.open()
    chain = [f"sha256:{number:064}" for number in range(7)]
    for number, name in enumerate(chain):
        store.prepare("temporary", chain[number - 1] if number else "")
        store.commit(name, "temporary", {SNAPSHOT_REF: name})
    before = service.layers()
    for number, name in enumerate(chain):
        parent = chain[number - 1] if number else ""
        with pytest.raises(errors.AlreadyExists):
            client.prepare(PROXY, f"extract-1-x {name}", parent, {SNAPSHOT_REF: name, **ROOT_LABEL})
        info = client.stat(PROXY, name)
        assert (info.kind, info.parent) == (COMMITTED, parent)
    assert service.layers() == before
    client.prepare(PROXY, "container", chain[-1], ROOT_LABEL)
    # The collector keeps them, also when containerd needs them no longer.
    client.collect_garbage()
    assert len(client.snapshots(PROXY)) == 8
    client.remove_snapshot(PROXY, "container")
    for name in reversed(chain):
        client.remove_snapshot(PROXY, name)
    client.collect_garbage()
    assert (client.snapshots(PROXY), service.names()) == ([], chain)
    # Another pull adopts them again.
    with pytest.raises(errors.AlreadyExists):
        client.prepare(PROXY, f"extract-2-x {chain[0]}", "", {SNAPSHOT_REF: chain[0]})
    store.close()


def test_the_collector_removes_what_containerd_created_and_nothing_else(
    client: Client, service: Service, daemon: Containerd
) -> None:
    store = service.open()
    store.prepare("temporary")
    store.commit("of a playbook", "temporary")
    store.prepare("in work")
    client.prepare(PROXY, "kept", labels=ROOT_LABEL)
    client.prepare(PROXY, "garbage")
    client.collect_garbage()
    assert [name.rpartition("/")[2] for name in service.names()] == ["kept", "in work", "of a playbook"]
    client.remove_snapshot(PROXY, "kept")
    client.collect_garbage()
    assert service.names() == ["in work", "of a playbook"]
    store.close()


def test_a_restart_of_the_service(client: Client, service: Service) -> None:
    client.prepare(PROXY, "a", labels=ROOT_LABEL)
    assert service.stop() == 0
    with pytest.raises(errors.Unavailable):
        client.stat(PROXY, "a")
    service.start()
    end = time.monotonic() + PATIENCE
    while True:
        try:
            assert client.stat(PROXY, "a").name == "a"
            break
        except errors.Unavailable:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("rounds", [5, pytest.param(30, marks=pytest.mark.long)])
def test_kills_of_the_service_and_of_containerd(directory: str, rounds: int, figures: Any) -> None:
    """After each round of work and kills, nothing is lost or leaked: containerd, records and layers agree."""
    chance = random.Random(20261129)
    service = Service(directory)
    daemon = Containerd(directory, collects=True, proxy=service.address)
    committed: Dict[str, str] = {}
    try:
        for number in range(rounds):
            stop = threading.Event()
            workers = [
                threading.Thread(target=work, args=(daemon.address, f"{number}-{worker}", committed, stop))
                for worker in range(3)
            ]
            for worker in workers:
                worker.start()
            time.sleep(chance.uniform(0.1, 1.0))
            both = chance.random()
            if both < 0.7:
                service.kill()
            if both > 0.4:
                daemon.kill()
            stop.set()
            for worker in workers:
                worker.join()
            if both < 0.7:
                service.start()
            if both > 0.4:
                daemon.start()
        with Client(connect(daemon.address, "default")) as client:
            settle(client)
            known = {info.name: info for info in client.snapshots(PROXY)}
            assert set(committed) <= set(known), "a commit that was answered is lost"
            eventually(lambda: not [name for name in service.layers() if not name.isdecimal()])
            store = service.open()
            records = store.walk()
            assert sorted(info.name.split("/", 2)[2] for info in records) == sorted(known)
            assert service.layers() == sorted(str(info.id) for info in records)
            # What a killed call leaves is a recorded lock owner and a lock file. The next call takes them over.
            assert {finding.code for finding in check(store).findings} <= {"stale_locks", "stale_mark"}
            check(store, repair=True)
            assert not check(store).findings
            store.close()
            figures(kill_rounds=rounds, commits_checked=len(committed))
    finally:
        daemon.stop()
        service.stop()


def work(address: str, prefix: str, committed: Dict[str, str], stop: threading.Event) -> None:
    """Create, commit and remove snapshots until an error or the end, as three clients of containerd do at once."""
    parent = ""
    with Client(connect(address, "default")) as client:
        try:
            for number in range(1000):
                if stop.is_set():
                    return
                name = f"{prefix}-{number}"
                client.prepare(PROXY, f"{name}-key", parent, ROOT_LABEL)
                client.commit(PROXY, name, f"{name}-key", ROOT_LABEL)
                committed[name] = parent
                client.prepare(PROXY, f"{name}-x", name, ROOT_LABEL)
                client.remove_snapshot(PROXY, f"{name}-x")
                parent = name
        except errors.SnapshotterError:
            # The process that answered was killed.
            return


def settle(client: Client) -> None:
    """Let containerd collect what an interrupted call left: it looks only at snapshotters with a removal."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            client.prepare(PROXY, "settle", labels=ROOT_LABEL)
            client.remove_snapshot(PROXY, "settle")
            client.collect_garbage()
            return
        except errors.SnapshotterError:
            assert time.monotonic() < end
            time.sleep(0.2)
