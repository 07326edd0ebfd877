# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import images into a real containerd, and look at them with ``ctr``. Kill the task and containerd, and go on."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Set

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.discovery import Options
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.node import ContainerdNode
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.containerd_image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ociimage import chain_ids
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.outcome import Outcome
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import (
    LAYERS,
    Archive,
    config_of,
    digest_of,
    layer,
    packed,
)
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar
from ansible_collections.wcow.snapshotter.tests.peers.containerd import CALL_TIMEOUT, PROXY, SNAPSHOTTER, Containerd
from ansible_collections.wcow.snapshotter.tests.peers.test_serve import Service

pytestmark = [
    pytest.mark.requires_tool("containerd", "containerd"),
    pytest.mark.requires_tool("ctr", "containerd"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containerd mounts the snapshots of an image, which needs root"),
]

NAME = "registry.example.com/app:1.0"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MIB = 1 << 20

#: Where a task can be killed, and how often it comes by there: 3 layers, configuration and manifest; 7 pieces.
FAILPOINTS = {
    "image.write": 5,
    "image.piece": 7,
    "image.commit": 5,
    "image.apply": 3,
    "image.unpacked": 3,
    "image.record": 1,
}

#: Seconds for a task in its own process, on a machine that is busy.
TIMEOUT = 120.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    with Containerd(str(tmp_path_factory.mktemp("containerd")), collects=True) as running:
        yield running


@pytest.fixture
def peer(daemon: Containerd, request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Peer:
    return Peer(daemon, "n" + digest_of(request.node.name.encode())[7:15], tmp_path)


class Peer:
    """One namespace of a containerd."""

    snapshotter = SNAPSHOTTER

    def __init__(self, daemon: Containerd, namespace: str, directory: pathlib.Path) -> None:
        self.daemon = daemon
        self.namespace = namespace
        self.directory = directory
        self.ctr("namespaces", "create", namespace)

    def ensure(self, **arguments: Any) -> Outcome:
        """Perform the operation in this process."""
        options = Options(self.daemon.address, self.daemon.root, self.snapshotter)
        node = ContainerdNode(options, self.namespace, EmulatedLayers())
        outcome = ensure_image(node, **arguments)
        assert node.warnings == [], node.warnings
        return outcome

    def start(self, environment: Optional[Dict[str, str]] = None, **arguments: Any) -> subprocess.Popen[str]:
        """Start the operation in a process of its own."""
        request = {
            "protocol": 1,
            "store": "containerd",
            "address": self.daemon.address,
            "root": self.daemon.root,
            "snapshotter": SNAPSHOTTER,
            "namespace": self.namespace,
            "layers": "emulated",
            "operations": [{"operation": "ensure_image", "arguments": arguments}],
        }
        door = "ansible_collections.wcow.snapshotter.plugins.module_utils.core.door"
        path = self.directory / f"request-{time.time_ns()}.json"
        path.write_text(json.dumps(request))
        with path.open() as file:
            return subprocess.Popen(
                [sys.executable, "-m", door],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
                encoding="utf-8",
            )

    def ctr(self, *arguments: str) -> str:
        command = ["ctr", "-a", self.daemon.address, "-n", self.namespace, *arguments]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=CALL_TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def collect(self) -> None:
        self.ctr("leases", "create", "--id", "collect")
        self.ctr("leases", "rm", "--sync", "collect")

    def images(self) -> List[str]:
        return self.ctr("images", "ls", "-q").split()

    def content(self) -> Set[str]:
        return set(self.ctr("content", "ls", "-q").split())

    def snapshots(self) -> Set[str]:
        return {name for name, _parent, _kind in self.daemon.walk(self.namespace)}

    def checked(self) -> Dict[str, List[str]]:
        """Return what ``ctr images check`` says of each image: the words after its name and type."""
        rows = self.ctr("images", "check", "--snapshotter", self.snapshotter).splitlines()[1:]
        return {row.split()[0]: row.split()[3:] for row in rows}


def oci(directory: pathlib.Path, layers: List[bytes], name: str = NAME) -> str:
    """Write an archive with one image, as registries have it. Return its path."""
    archive = Archive()
    config = archive.json(config_of(layers), mediaType=CONFIG)
    blobs = [archive.blob(packed(plain), mediaType=LAYER) for plain in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": blobs}
    described = archive.json(manifest, mediaType=MANIFEST, annotations={"io.containerd.image.name": name})
    archive.index(described)
    return archive.write(directory / f"oci-{digest_of(b''.join(layers))[7:15]}.tar")


def saved(directory: pathlib.Path) -> str:
    archive = Archive()
    archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, NAME)]).encode()
    return archive.write(directory / "saved.tar")


def large(peer: Peer, size: int = 2 * MIB) -> List[bytes]:
    """Return layers whose second one needs several messages, because its bytes cannot be compressed.

    No other namespace has them: containerd would take its content from there.
    """
    noise = random.Random(peer.namespace).randbytes(size)
    middle = tarfile_tar(("Files", "directory"), ("Files/noise.bin", noise))
    return [layer(f"base-{peer.namespace}"), middle, layer(f"top-{peer.namespace}")]


def test_an_image_through_its_life(peer: Peer) -> None:
    path = oci(peer.directory, LAYERS)
    changed, result = peer.ensure(src=path, pinned=True, labels={"team": "blue"})
    assert changed
    assert peer.images() == [NAME]
    row = peer.ctr("images", "ls").splitlines()[1]
    assert result["manifest"] in row
    assert "windows/amd64" in row
    assert "io.cri-containerd.pinned=pinned,team=blue" in row
    assert peer.checked()[NAME][:2] == ["complete", "(4/4)"]
    assert peer.checked()[NAME][-1] == "true"
    snapshots, content = peer.snapshots(), peer.content()
    assert snapshots == {link["name"] for link in result["chain"]}
    assert len(content) == 5
    assert peer.ctr("leases", "ls", "-q") == ""
    peer.collect()
    assert (peer.snapshots(), peer.content()) == (snapshots, content)
    assert peer.ensure(src=path, pinned=True)[0] is False
    exported = peer.directory / "exported.tar"
    peer.ctr("images", "export", "--platform", "windows/amd64", str(exported), NAME)
    assert peer.ensure(src=str(exported))[0] is False
    assert peer.ensure(src=path, pinned=False, labels={"team": ""})[1]["actions"] == [f"tag {NAME}"]
    assert peer.ctr("images", "ls").splitlines()[1].split()[-1] == "-"
    peer.ctr("images", "rm", "--sync", NAME)
    assert (peer.snapshots(), peer.content()) == (set(), set())


def test_removal(peer: Peer) -> None:
    first, second = oci(peer.directory, LAYERS), oci(peer.directory, [*LAYERS[:2], layer("other")], "two:1")
    chain = peer.ensure(src=first)[1]["chain"]
    kept = peer.ensure(src=second)[1]
    before = peer.content()
    changed, result = peer.ensure(state="absent", names=[NAME])
    assert changed
    assert result["freed"]["snapshots"] == [chain[2]["name"]]
    assert set(result["freed"]["content"]) == before - peer.content()
    assert len(result["freed"]["content"]) == 3
    assert result["freed"]["bytes"] > 0
    assert peer.snapshots() == {link["name"] for link in kept["chain"]}
    assert peer.images() == ["docker.io/library/two:1"]
    assert peer.ensure(state="absent", src=second)[0] is True
    assert (peer.snapshots(), peer.content()) == (set(), set())


def test_the_same_manifest_as_ctr(peer: Peer) -> None:
    """What docker save wrote has no manifest. containerd's own import makes one for it."""
    path = saved(peer.directory)
    result = peer.ensure(src=path)[1]
    manifest = peer.ctr("content", "get", result["manifest"])
    assert peer.checked()[NAME][:2] == ["complete", "(4/4)"]
    peer.ctr("images", "rm", "--sync", NAME)
    peer.ctr("images", "import", "--no-unpack", "--all-platforms", "--base-name", "registry.example.com/app", path)
    (row,) = peer.ctr("images", "ls").splitlines()[1:]
    assert row.split()[2] == result["manifest"]
    assert peer.ctr("content", "get", result["manifest"]) == manifest
    again = peer.ensure(src=path)[1]
    assert {action.split()[0] for action in again["actions"]} == {"unpack", "label"}
    assert peer.checked()[NAME][-1] == "true"
    assert peer.ensure(src=path)[0] is False


def test_content_of_another_namespace(peer: Peer) -> None:
    """Containerd has these blobs already, so none is read."""
    path = oci(peer.directory, large(peer))
    peer.ensure(src=path)
    other = Peer(peer.daemon, f"{peer.namespace}-other", peer.directory)
    changed, _result = other.ensure(src=path)
    assert changed
    assert other.checked()[NAME][:2] == ["complete", "(4/4)"]
    # The content stays because the other namespace needs it.
    freed = peer.ensure(state="absent", names=[NAME])[1]["freed"]
    assert len(freed["content"]) == 5
    other.collect()
    assert other.checked()[NAME][:2] == ["complete", "(4/4)"]


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_task_that_is_killed(peer: Peer, point: str) -> None:
    """No record is without its content, and the next run completes the image."""
    path = oci(peer.directory, large(peer))
    for number in sorted({1, FAILPOINTS[point]}):
        with peer.start({"WCOW_FAILPOINT": f"{point}#{number}"}, src=path) as task:
            assert task.wait(TIMEOUT) == -signal.SIGKILL, f"{point}#{number}"
        peer.collect()
        assert peer.images() == []
        changed, _result = peer.ensure(src=path)
        assert changed
        peer.collect()
        assert peer.checked()[NAME][:2] == ["complete", "(4/4)"]
        assert peer.checked()[NAME][-1] == "true"
        assert peer.ensure(src=path)[0] is False
        remove_all(peer)


def remove_all(peer: Peer) -> None:
    """Remove the image, and the leases of killed tasks."""
    for lease in peer.ctr("leases", "ls", "-q").split():
        peer.ctr("leases", "rm", lease)
    peer.ensure(state="absent", names=[NAME])
    assert (peer.snapshots(), peer.content()) == (set(), set())


def test_a_blob_is_resumed(peer: Peer) -> None:
    layers = large(peer, 5 * MIB)
    path = oci(peer.directory, layers)
    with peer.start({"WCOW_FAILPOINT": "image.piece#4"}, src=path) as task:
        assert task.wait(TIMEOUT) == -signal.SIGKILL
    with Client(connect(peer.daemon.address, peer.namespace)) as client:
        (ingest,) = client.ingests()
    assert ingest.ref == f"wcow-{digest_of(packed(layers[1]))}"
    assert ingest.offset == 3 * MIB
    # The part of the archive that containerd has is not read again: it can be anything.
    data = pathlib.Path(path).read_bytes()
    start = data.index(packed(layers[1]))
    pathlib.Path(path).write_bytes(data[:start] + bytes(2 * MIB) + data[start + 2 * MIB :])
    assert peer.ensure(src=path)[0] is True


def test_a_blob_that_was_begun_with_other_bytes(peer: Peer) -> None:
    """An earlier archive was damaged. What it left is dropped, and the good one is read from its start."""
    layers = large(peer, 5 * MIB)
    path = pathlib.Path(oci(peer.directory, layers))
    good = path.read_bytes()
    start = good.index(packed(layers[1]))
    path.write_bytes(good[: start + 100] + bytes(1000) + good[start + 1100 :])
    with peer.start({"WCOW_FAILPOINT": "image.piece#4"}, src=str(path)) as task:
        assert task.wait(TIMEOUT) == -signal.SIGKILL
    path.write_bytes(good)
    assert peer.ensure(src=str(path))[0] is True


def test_two_tasks_at_once(peer: Peer) -> None:
    path = oci(peer.directory, large(peer, 20 * MIB))
    tasks = [peer.start(src=path) for _task in range(2)]
    entries = []
    for task in tasks:
        output, _errors = task.communicate(timeout=TIMEOUT)
        entries += json.loads(output)["results"]
    assert [entry["ok"] for entry in entries] == [True, True], entries
    assert peer.checked()[NAME][:2] == ["complete", "(4/4)"]
    assert peer.ctr("leases", "ls", "-q") == ""
    assert not [name for name in peer.snapshots() if name.startswith("extract-")]
    assert peer.ensure(src=path)[0] is False


def test_the_proxy_snapshotter(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its records are elsewhere. Layers that its store has already are adopted, not unpacked."""
    directory = tmp_path_factory.mktemp("proxy")
    service = Service(str(directory))
    try:
        store = service.open()
        known = chain_ids([digest_of(plain) for plain in LAYERS])
        for name, parent in zip(known, ["", *known]):
            store.prepare("temporary", parent)
            store.commit(name, "temporary", {"containerd.io/snapshot.ref": name})
        store.close()
        with Containerd(str(directory), collects=True, proxy=service.address) as daemon:
            peer = Peer(daemon, "n", directory)
            # Another snapshotter has snapshots already.
            peer.ctr("snapshots", "--snapshotter", SNAPSHOTTER, "prepare", "other")
            peer.snapshotter = PROXY
            path = oci(directory, [*LAYERS, layer("fourth")])
            changed, result = peer.ensure(src=path)
            assert changed
            assert [link["imported"] for link in result["chain"]] == [False, False, False, True]
            peer.collect()
            assert peer.checked()[NAME][-1] == "true"
            assert peer.ensure(src=path)[0] is False
    finally:
        assert service.stop() == 0


def test_a_new_containerd(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It has no namespace yet, and gets that of Kubernetes."""
    with Containerd(str(tmp_path_factory.mktemp("new")), collects=True) as daemon:
        path = oci(tmp_path_factory.mktemp("archive"), LAYERS)
        node = ContainerdNode(Options(daemon.address, daemon.root, SNAPSHOTTER), "", EmulatedLayers())
        result = ensure_image(node, src=path).result
        assert result["containerd"]["namespace"] == "k8s.io"
        assert ensure_image(node, src=path).changed is False
        windows = ContainerdNode(Options(daemon.address, daemon.root, "windows"), "", EmulatedLayers())
        with pytest.raises(FailedPrecondition, match="has not loaded the snapshotter windows: there is no such plugin"):
            ensure_image(windows, src=path)


def test_containerd_is_killed_meanwhile(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The task says that the connection was lost, or goes on with the next containerd. A second run completes it."""
    with Containerd(str(tmp_path_factory.mktemp("killed")), collects=True) as daemon:
        peer = Peer(daemon, "n", tmp_path_factory.mktemp("archive"))
        path = oci(peer.directory, large(peer, 30 * MIB))
        for delay in (0.1, 0.3, 0.6):
            with peer.start(src=path) as task:
                killer = threading.Timer(delay, daemon.kill)
                killer.start()
                killer.join()
                output, _errors = task.communicate(timeout=TIMEOUT)
                pathlib.Path(daemon.address).unlink(missing_ok=True)
                daemon.start()
            (entry,) = json.loads(output)["results"]
            if not entry["ok"]:
                assert entry["error"]["code"] in ("unavailable", "failed_precondition"), entry
        peer.ensure(src=path)
        peer.collect()
        assert peer.checked()[NAME][:2] == ["complete", "(4/4)"]
        assert peer.checked()[NAME][-1] == "true"
        assert peer.ensure(src=path)[0] is False
