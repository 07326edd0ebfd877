# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare what we read in containerd's databases with containerd: its garbage collector, and what ctr says."""

from __future__ import annotations

import json
import pathlib
import random
import subprocess
import time
from typing import Any, Dict, Iterator, List, Set, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.databases import (
    Metadata,
    decode_metadata,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.picture import read_picture
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.references import References
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.times import parse_rfc3339
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt
from ansible_collections.wcow.snapshotter.tests.builders.containerd_databases import Objects, metadata

from lab import sample

from . import containerd, golang

#: Random databases in all, and in one batch.
DATABASES = 1000
BATCH = 200

KEYS = [f"key {number}" for number in range(8)]
DIGESTS = [f"sha256:{number:064x}" for number in range(6)]
NAMES = ["one", "two", "three"]
SNAPSHOTTERS = ["windows", "native"]
PAST, FUTURE = "2001-01-01T00:00:00Z", "2099-01-01T00:00:00+01:00"

needs_sources = pytest.mark.skipif(
    not (golang.DEBIAN_PACKAGES / "src/github.com/containerd/containerd").exists(),
    reason="the sources of containerd are missing (Debian package golang-github-containerd-containerd-dev)",
)


def read(path: pathlib.Path) -> Metadata:
    data = path.read_bytes()
    return decode_metadata(bolt.read_state(lambda offset, length: data[offset : offset + length]))


def snapshots(found: Metadata) -> Set[Tuple[str, str, str]]:
    return {
        (name, snapshotter, key)
        for name, namespace in found.namespaces.items()
        for snapshotter, entries in namespace.snapshots.items()
        for key in entries
    }


def random_labels(draw: random.Random) -> Dict[str, str]:
    labels = {}
    for _label in range(draw.choice((0, 0, 1, 2))):
        name, values = draw.choice(
            [
                ("containerd.io/gc.ref.content", DIGESTS),
                ("containerd.io/gc.ref.content.l.0", DIGESTS),
                ("containerd.io/gc.ref.content/x", DIGESTS),
                ("containerd.io/gc.ref.contents", DIGESTS),
                ("containerd.io/gc.ref.snapshot.windows", KEYS),
                ("containerd.io/gc.ref.snapshot.windows/x", KEYS),
                ("containerd.io/gc.ref.snapshot.native", KEYS),
                ("containerd.io/gc.ref.snapshot", KEYS),
                ("other", KEYS),
            ]
        )
        labels[name] = draw.choice(values)
    if draw.random() < 0.05:
        labels["containerd.io/gc.root"] = draw.choice((PAST, "x"))
    return labels


def random_namespace(draw: random.Random) -> Objects:
    objects = Objects()
    for snapshotter in SNAPSHOTTERS:
        for key in draw.sample(KEYS, draw.randrange(len(KEYS))):
            parent = draw.choice(["", *KEYS])
            objects.snapshot(key, parent, random_labels(draw), snapshotter=snapshotter)
    for digest in draw.sample(DIGESTS, draw.randrange(len(DIGESTS))):
        objects.blob(digest, random_labels(draw))
    for name in draw.sample(NAMES, draw.randrange(3)):
        labels = random_labels(draw)
        if draw.random() < 0.3:
            labels["containerd.io/gc.expire"] = draw.choice((PAST, FUTURE))
        objects.image(name, draw.choice(DIGESTS), labels)
    for name in draw.sample(NAMES, draw.randrange(2)):
        objects.container(name, draw.choice(KEYS), draw.choice(SNAPSHOTTERS), **random_labels(draw))
    for name in draw.sample(NAMES, draw.randrange(3)):
        labels = {}
        if draw.random() < 0.5:
            labels["containerd.io/gc.expire"] = draw.choice((PAST, FUTURE, "tomorrow"))
        if draw.random() < 0.5:
            labels["containerd.io/gc.flat"] = PAST
        resources = [(draw.choice(SNAPSHOTTERS), draw.choice(KEYS)) for _resource in range(draw.randrange(3))]
        content = draw.sample(DIGESTS, draw.randrange(2))
        objects.lease(name, labels, resources, content, ingests=draw.sample(["ref"], draw.randrange(2)))
    if draw.random() < 0.5:
        objects.ingest("ref", draw.choice(["", *DIGESTS]), go_time(draw.choice((2001, 2099))))
    return objects


def go_time(year: int) -> bytes:
    return b"\1" + ((year - 1) * 31_556_952).to_bytes(8, "big") + bytes(4) + b"\xff\xff"


@pytest.fixture(scope="module")
def gcpeer() -> pathlib.Path:
    return golang.build("gcpeer")


@pytest.mark.requires_tool("go", "golang-go")
@needs_sources
@pytest.mark.parametrize("first", range(0, DATABASES, BATCH))
def test_the_garbage_collector_frees_what_we_say(
    gcpeer: pathlib.Path, tmp_path: pathlib.Path, first: int, figures: Any
) -> None:
    """The collector is that of containerd 1.6, with the labels of that version."""
    expected: Dict[pathlib.Path, Set[Tuple[str, str, str]]] = {}
    freed = kept = 0
    for seed in range(first, first + BATCH):
        draw = random.Random(seed)
        path = tmp_path / f"{seed}.db"
        path.write_bytes(metadata(3, k8s=random_namespace(draw), other=random_namespace(draw)))
        found = read(path)
        expected[path] = snapshots(found)
        for name, namespace in found.namespaces.items():
            references = References(namespace, time.time_ns(), found.version)
            for snapshotter in namespace.snapshots:
                expected[path] -= {(name, snapshotter, key) for key in references.freed(snapshotter)}
        freed += len(snapshots(found) - expected[path])
        kept += len(expected[path])
    subprocess.run([gcpeer, tmp_path / "content", *expected], check=True, timeout=300)
    for path, left in expected.items():
        assert snapshots(read(path)) == left, f"the random namespaces of the seed {path.stem}"
    assert min(freed, kept) > BATCH
    figures(snapshots_as_the_collector_frees_or_keeps_them=freed + kept)


# -- a real containerd -----------------------------------------------------------

IMAGE = "registry.example.com/app:sample"
NAMESPACE = "images"


class Ctr:
    """Runs ctr on one daemon."""

    def __init__(self, daemon: containerd.Containerd) -> None:
        self.daemon = daemon

    def run(self, *arguments: str, namespace: str = NAMESPACE) -> str:
        command = ["ctr", "-a", self.daemon._socket, "-n", namespace, *arguments]
        done = subprocess.run(
            command, check=True, capture_output=True, encoding="utf-8", timeout=containerd.CALL_TIMEOUT
        )
        return done.stdout

    def snapshots(self, *arguments: str, namespace: str = NAMESPACE) -> str:
        return self.run("snapshots", "--snapshotter", containerd.SNAPSHOTTER, *arguments, namespace=namespace)

    def keys(self, namespace: str) -> List[str]:
        return [row[0] for row in self.daemon.walk(namespace)]

    def table(self, *arguments: str) -> List[List[str]]:
        """Return the rows of a list, without its first line."""
        return [line.split() for line in self.run(*arguments).splitlines()[1:] if line.strip()]


@pytest.fixture
def ctr(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ctr]:
    # Images need leases, and leases need the garbage collector.
    needless = [plugin for plugin in containerd._DISABLED if "lease" not in plugin and "gc" not in plugin]
    monkeypatch.setattr(containerd, "_DISABLED", needless)
    # A socket's path can have at most 107 characters.
    directory = tmp_path_factory.mktemp("ctr")
    with containerd.Containerd(str(directory)) as daemon:
        sample.write_image(directory / "image.tar", "10.0.20348.1")
        running = Ctr(daemon)
        running.run(
            *("images", "import", "--snapshotter", containerd.SNAPSHOTTER, "--platform", "windows/amd64"),
            *("--base-name", IMAGE.partition(":")[0], str(directory / "image.tar")),
        )
        yield running


def root(ctr: Ctr) -> str:
    return str(pathlib.Path(ctr.daemon._socket).parent / "root")


def labels(text: str) -> Dict[str, str]:
    """Return the labels in a table of ctr."""
    return {} if text in ("", "-") else dict(pair.split("=", 1) for pair in text.split(","))


@pytest.mark.requires_tool("containerd", "containerd")
@pytest.mark.requires_tool("ctr", "containerd")
def test_a_picture_is_what_ctr_says(ctr: Ctr) -> None:
    top = next(row[0] for row in ctr.daemon.walk(NAMESPACE) if row[1])
    ctr.snapshots("prepare", "container", top)
    ctr.snapshots("label", "container", "a/b.c=ä")
    ctr.snapshots("prepare", "build", namespace="other")
    ctr.snapshots("commit", "built", "build", namespace="other")
    ctr.run("leases", "create", "--id", "kept", "x=y")
    ctr.run("containers", "create", "--rootfs", "--label", "kind=test", str(root(ctr)), "plain")

    found = read_picture(root(ctr), containerd.SNAPSHOTTER)
    assert (found.unknown, found.orphans, found.is_running) == ((), {}, True)
    assert [(each.namespace, each.key) for each in found.snapshots] == [
        (namespace, key) for namespace in (NAMESPACE, "other") for key in ctr.keys(namespace)
    ]
    for each in found.snapshots:
        info = each.info()
        expected = json.loads(ctr.snapshots("info", each.key, namespace=each.namespace))
        assert info is not None
        assert (info.kind, info.name, info.parent) == (expected["Kind"].lower(), each.key, expected.get("Parent", ""))
        assert info.labels == expected.get("Labels", {})
        for ours, theirs in ((info.created, expected["Created"]), (info.updated, expected["Updated"])):
            assert parse_rfc3339(ours) == parse_rfc3339(theirs)
        if info.kind == "committed":
            usage = ctr.snapshots("usage", "-b", each.key, namespace=each.namespace).split()[-2:]
            assert each.record is not None
            assert each.record.usage is not None
            assert [str(each.record.usage.size), str(each.record.usage.inodes)] == usage

    namespace = found.metadata.namespaces[NAMESPACE]
    assert sorted(found.metadata.namespaces) == [row[0] for row in ctr.table("namespaces", "ls")]
    assert {name: [image.media_type, image.digest] for name, image in namespace.images.items()} == {
        row[0]: row[1:3] for row in ctr.table("images", "ls")
    }
    assert {digest: blob.labels for digest, blob in namespace.blobs.items()} == {
        row[0]: labels(row[-1]) for row in ctr.table("content", "ls")
    }
    assert {name: lease.labels for name, lease in namespace.leases.items()} == {
        row[0]: labels(row[-1]) for row in ctr.table("leases", "ls")
    }
    plain = json.loads(ctr.run("containers", "info", "plain"))
    container = namespace.containers["plain"]
    assert (container.image, container.labels) == (plain.get("Image", ""), plain["Labels"])
    assert (container.snapshotter, container.snapshot_key) == (plain["Snapshotter"], plain["SnapshotKey"])

    directories = sorted(pathlib.Path(found.paths.snapshots).iterdir())
    assert {str(layer) for layer in found.directories.layers} == {path.name for path in directories}
    assert found.next_id > max(found.directories.layers)
    assert all(each.has_directory for each in found.snapshots)

    references = References(namespace, time.time_ns(), found.metadata.version)
    assert references.used_by(containerd.SNAPSHOTTER, top).images == (IMAGE,)
    assert references.used_by(containerd.SNAPSHOTTER, top).labelled == ((containerd.SNAPSHOTTER, "container"),)
    assert list(references.freed(containerd.SNAPSHOTTER)) == []


@pytest.mark.requires_tool("containerd", "containerd")
@pytest.mark.requires_tool("ctr", "containerd")
def test_the_collector_removes_what_we_say(ctr: Ctr) -> None:
    chain = ctr.daemon.walk(NAMESPACE)
    top = next(row[0] for row in chain if row[1])
    ctr.snapshots("prepare", "mine")
    # ctr labels what it prepares, but not its views.
    ctr.snapshots("view", "view", top)
    before = read_picture(root(ctr), containerd.SNAPSHOTTER)
    ctr.run("images", "rm", "--sync", IMAGE)
    after = read_picture(root(ctr), containerd.SNAPSHOTTER)
    namespace = before.metadata.namespaces[NAMESPACE]
    namespace.images.clear()
    freed = set(References(namespace, time.time_ns(), 3).freed(containerd.SNAPSHOTTER))
    assert freed - {"view"} == {row[0] for row in chain}
    assert {each.key for each in before.snapshots} - freed == {each.key for each in after.snapshots} == {"mine"}
    assert after.orphans == {}


@pytest.mark.requires_tool("containerd", "containerd")
@pytest.mark.requires_tool("ctr", "containerd")
def test_each_picture_of_a_busy_containerd_is_one_moment(ctr: Ctr, figures: Any) -> None:
    """A record is there before its entry, and an entry is removed before its record."""
    top = next(row[0] for row in ctr.daemon.walk(NAMESPACE) if row[1])
    loop = 'for number in $(seq 40); do "$@" prepare key-$number "$0" >/dev/null && "$@" rm key-$number; done'
    command = ["ctr", "-a", ctr.daemon._socket, "-n", NAMESPACE, "snapshots", "--snapshotter", containerd.SNAPSHOTTER]
    seen: Set[int] = set()
    pictures = 0
    with subprocess.Popen(["sh", "-ec", loop, top, *command]) as busy:
        while busy.poll() is None:
            found = read_picture(root(ctr), containerd.SNAPSHOTTER)
            assert all(each.record is not None for each in found.snapshots)
            records = found.store.records.values()
            assert len(found.store.children) == sum(1 for record in records if record.parent)
            seen.add(found.store.last_id)
            pictures += 1
    assert busy.returncode == 0
    assert len(seen) > 5
    figures(pictures_of_a_busy_containerd=pictures)
