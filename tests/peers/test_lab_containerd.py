# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Use a lab's simulated containerd with containerd's own client ``ctr``, and read its databases with bbolt."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
import subprocess
from typing import Iterator, List

import pytest

from lab import sample as layers
from lab.bolt import Bucket
from lab.containerd import damage, messages, sample
from lab.containerd.calls import Call
from lab.containerd.database import Database
from lab.containerd.node import DAMAGES, NodeContainerd
from lab.containerd.server import Server
from lab.containerd.simulation import Simulation

from . import golang

BBOLT = golang.DEBIAN_PACKAGES / "src/go.etcd.io/bbolt"
BBOLT_PACKAGE = "golang-github-containerd-containerd-dev"

#: A machine of a user may lack the sources. CI installs them, and fails on a skip (WCOW_REQUIRE_ALL).
needs_bbolt = pytest.mark.skipif(not BBOLT.exists(), reason=f"bbolt is not installed (Debian package {BBOLT_PACKAGE})")

SNAPSHOTS = ("snapshots", "--snapshotter", "windows")


class Peer:
    """A simulated containerd in this process, with the sample. Its collector runs only when a client asks for it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.node = NodeContainerd(directory)
        self.simulation = Simulation(self.node.root)
        sample.fill(self.simulation)
        self.start()

    def start(self) -> None:
        self.server = Server(self.simulation, self.node.socket)
        self.simulation.collector.stop()

    def run(self, *arguments: str, namespace: str = sample.NAMESPACE) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "--address", str(self.node.socket), "--namespace", namespace, *arguments]
        return subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=60, check=False
        )

    def ctr(self, *arguments: str) -> str:
        """Return what a ctr command prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, *arguments: str) -> List[List[str]]:
        """Return the words of each line of a table without its heading."""
        return [line.split() for line in self.ctr(*arguments).splitlines()[1:]]

    def refusal(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0
        return done.stderr.strip()

    def collect(self) -> None:
        self.ctr("leases", "create", "--id", "collect")
        self.ctr("leases", "rm", "--sync", "collect")

    def databases(self) -> List[pathlib.Path]:
        return sorted(self.node.root.glob("*/meta*.db"))


@pytest.fixture
def peer(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    directory = tmp_path_factory.mktemp("node")
    monkeypatch.setenv("WCOW_EMULATED_DRIVES", str(directory))
    peer = Peer(directory)
    yield peer
    peer.server.stop()


pytestmark = pytest.mark.requires_tool("ctr", "containerd")


def test_what_ctr_lists(peer: Peer) -> None:
    version = peer.ctr("version")
    assert "Version:  v2.3.4" in version.partition("Server:")[2]
    images = peer.rows("images", "ls")
    assert images[0][0] == sample.IMAGE
    assert images[0][1] == "application/vnd.oci.image.manifest.v1+json"
    assert "windows/amd64" in images[0]
    assert images[1][0].startswith("sha256:")
    snapshots = peer.rows(*SNAPSHOTS, "ls")
    base = snapshots[1][0]
    assert snapshots == [["build-1", base, "Active"], [base, "Committed"], ["web", base, "Active"]]
    assert [row[0] for row in peer.rows(*SNAPSHOTS, "usage")] == ["build-1", base, "web"]
    assert [row[0] for row in peer.rows("leases", "ls")] == [sample.LEASE]
    assert peer.rows("containers", "ls") == [["web", sample.IMAGE, "io.containerd.runhcs.v1"]]
    assert len(peer.rows("content", "ls")) == 3
    assert peer.rows("namespaces", "ls") == [["k8s.io"]]
    assert ["io.containerd.snapshotter.v1", "windows", "windows/amd64", "ok"] in peer.rows("plugins", "ls")
    assert json.loads(peer.ctr("containers", "info", "web"))["SnapshotKey"] == "web"


def test_the_life_of_a_snapshot(peer: Peer) -> None:
    base = peer.rows(*SNAPSHOTS, "ls")[1][0]
    peer.ctr(*SNAPSHOTS, "prepare", "a", base)
    assert peer.refusal(*SNAPSHOTS, "prepare", "a", base) == ('ctr: snapshot "a": already exists')
    mount = peer.ctr(*SNAPSHOTS, "mounts", "/target", "a")
    assert mount.startswith(
        r"mount -t windows-layer C:\ProgramData\containerd\root\io.containerd.snapshotter.v1.windows"
    )
    peer.ctr(*SNAPSHOTS, "label", "a", "x=y")
    info = json.loads(peer.ctr(*SNAPSHOTS, "info", "a"))
    assert (info["Kind"], info["Parent"], info["Labels"]["x"]) == ("Active", base, "y")
    peer.ctr(*SNAPSHOTS, "commit", "b", "a")
    peer.ctr(*SNAPSHOTS, "view", "v", "b")
    assert peer.refusal(*SNAPSHOTS, "rm", "b") == (
        'ctr: failed to remove "b": cannot remove snapshot with child: failed precondition'
    )
    assert peer.refusal(*SNAPSHOTS, "info", "a") == "ctr: snapshot a does not exist: not found"
    tree = [line.strip(" \\_") for line in peer.ctr(*SNAPSHOTS, "tree").splitlines()]
    assert tree == [base, "b", "v", "build-1", "web"]
    peer.ctr(*SNAPSHOTS, "rm", "v", "b")
    assert len(peer.simulation.store.snapshotter.records()) == 5
    peer.collect()
    assert len(peer.simulation.store.snapshotter.records()) == 3


def test_an_import(peer: Peer, tmp_path: pathlib.Path) -> None:
    """Ctr writes the blobs, unpacks both layers, and exports the image again."""
    archive = tmp_path / "image.tar"
    layers.write_image(archive, "10.0.20348.1")
    options = ("--platform", "windows/amd64", "--base-name", "x", str(archive))
    peer.ctr("images", "import", "--snapshotter", "windows", *options)
    peer.ctr("images", "import", "--no-unpack", "--all-platforms", "--base-name", "x", str(archive))
    assert "x:sample" in peer.ctr("images", "ls", "-q").split()
    assert len(peer.rows(*SNAPSHOTS, "ls")) == 4
    top = max(peer.simulation.store.snapshotter.records(), key=lambda record: record.id)
    layer = peer.simulation.store.snapshotter.directory(top.id)
    assert (layer / "Files" / "app" / "version.txt").read_text() == "10.0.20348.1"
    assert [row[0] for row in peer.rows("leases", "ls")] == [sample.LEASE]
    exported = tmp_path / "exported.tar"
    peer.ctr("images", "export", "--platform", "windows/amd64", str(exported), "x:sample")
    assert exported.stat().st_size > 0
    blobs = len(peer.rows("content", "ls"))
    peer.ctr("images", "rm", "--sync", "x:sample")
    assert len(peer.rows(*SNAPSHOTS, "ls")) == 3
    assert len(peer.rows("content", "ls")) == 3 < blobs


def test_a_blob(peer: Peer, tmp_path: pathlib.Path) -> None:
    data = bytes(range(256)) * 40000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    source = tmp_path / "blob"
    source.write_bytes(data)
    command = ["ctr", "--address", str(peer.node.socket), "--namespace", sample.NAMESPACE, "content"]
    with source.open("rb") as file:
        subprocess.run([*command, "ingest", "--expected-digest", digest, "ref"], stdin=file, check=True, timeout=60)
    peer.ctr("content", "label", digest, "containerd.io/gc.root=1")
    assert subprocess.run([*command, "get", digest], stdout=subprocess.PIPE, check=True, timeout=60).stdout == data
    peer.collect()
    assert digest in peer.ctr("content", "ls", "-q").split()
    peer.ctr("content", "rm", digest)
    assert digest not in peer.ctr("content", "ls", "-q").split()


def test_errors_of_ctr(peer: Peer) -> None:
    assert peer.refusal("images", "tag", "none", "x") == 'ctr: image "none": not found'
    assert peer.refusal("leases", "rm", "none") == 'ctr: lease "none": not found'
    assert "not found" in peer.refusal("containers", "info", "none")
    assert "must be empty, but it still has images" in peer.refusal("namespaces", "rm", "k8s.io")
    done = peer.run(*SNAPSHOTS, "ls", namespace="a b")
    assert 'namespace validation: identifier "a b" must match' in done.stderr


def test_damage_as_ctr_sees_it(peer: Peer) -> None:
    peer.server.stop()
    peer.simulation = Simulation(peer.node.root)
    named = {kind: damage.damage(peer.simulation, kind).split()[2] for kind in DAMAGES}
    peer.start()
    keys = [row[0] for row in peer.rows(*SNAPSHOTS, "ls")]
    assert named["dangling-child"] in keys
    assert "cannot remove snapshot with child" in peer.refusal(*SNAPSHOTS, "rm", named["dangling-child"])
    assert named["lost-backend"] not in keys
    assert "missing parent" in peer.refusal(*SNAPSHOTS, "prepare", "x", named["lost-backend"])


@pytest.fixture(scope="module")
def boltpeer() -> pathlib.Path:
    return golang.build("boltpeer")


def dump(boltpeer: pathlib.Path, path: pathlib.Path) -> List[str]:
    done = subprocess.run([boltpeer, "dump", path], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout.splitlines()


def lines(bucket: Bucket, path: str = "") -> Iterator[str]:
    """Iterate over the lines that boltpeer prints for the buckets in memory."""
    for key, value in sorted(bucket.items.items()):
        inner = f"{path}/{key.hex()}"
        if isinstance(value, bytes):
            yield f"{inner} V {value.hex()}"
        else:
            yield f"{inner} B {value.sequence}"
            yield from lines(value, inner)


@pytest.mark.requires_tool("go", "golang-go")
@needs_bbolt
def test_bbolt_reads_both_databases(boltpeer: pathlib.Path, peer: Peer, tmp_path: pathlib.Path) -> None:
    """The check of bbolt finds nothing, and the contents are those in memory. Both write to the same file in turn."""
    base = peer.rows(*SNAPSHOTS, "ls")[1][0]
    prepare = messages.message("containerd.services.snapshots.v1.PrepareSnapshotRequest")
    for number in range(40):
        request = prepare(snapshotter="windows", key=f"key {number}", parent=base)
        with peer.simulation.store.lock:
            peer.simulation.snapshots.prepare(request, Call(sample.NAMESPACE))
    store = peer.simulation.store
    for path, database in zip(peer.databases(), (store.meta, store.snapshotter.database)):
        copy = tmp_path / path.name
        with store.lock:
            shutil.copy(path, copy)
            expected = list(lines(database.root))
        assert dump(boltpeer, copy) == expected
        assert len(expected) > 200
        subprocess.run([boltpeer, "put", copy, "v1", "new"], check=True, timeout=60)
        changed = Database(copy)
        assert list(lines(changed.root)) == sorted([*expected, "/7631/6e6577 V "])
        for size in (10, 100000, 10, 5000):
            with changed.update() as root:
                root.items[b"v1"] = Bucket({b"a": b"b" * size})
        changed.close()
        assert dump(boltpeer, copy) == ["/7631 B 0", f"/7631/61 V {'62' * 5000}"]


@pytest.mark.requires_tool("go", "golang-go")
@needs_bbolt
def test_bbolt_waits_for_the_lock(boltpeer: pathlib.Path, peer: Peer) -> None:
    for path in peer.databases():
        with subprocess.Popen([boltpeer, "dump", path], stdout=subprocess.DEVNULL) as waiting:
            try:
                with pytest.raises(subprocess.TimeoutExpired):
                    waiting.wait(1)
            finally:
                waiting.kill()
