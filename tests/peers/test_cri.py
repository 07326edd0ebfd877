# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base layers that tasks have placed are adopted when CRI pulls an image, as kubelet does.

Debian's registry and containerd run on loopback. The proxy snapshotter is the snapshotter of CRI.
"""

from __future__ import annotations

import pathlib
from typing import Iterator, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.check.inspection import check
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.client import Client
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.connection import connect
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer import ensure_layer
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ociimage import chain_ids
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import digest_of, layer, packed

from .containerd import PROXY, Containerd
from .cri import NEEDED, Cri, Registry, image_of
from .proxy import Service, eventually

pytestmark = NEEDED

NAMESPACE = "k8s.io"

#: The layers of a base image, and those of an application on top of it.
BASE = [layer("base"), layer("update")]
APPLICATION = [layer("runtime"), layer("application")]
CHAIN = chain_ids([digest_of(plain) for plain in (*BASE, *APPLICATION)])


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    # A socket's path can have at most 107 characters.
    return str(tmp_path_factory.mktemp("cri"))


@pytest.fixture
def service(directory: str) -> Iterator[Service]:
    running = Service(directory)
    yield running
    assert running.stop() == 0


@pytest.fixture
def registry(directory: str) -> Iterator[Registry]:
    running = Registry(directory)
    yield running
    running.stop()


@pytest.fixture
def daemon(directory: str, service: Service) -> Iterator[Containerd]:
    with Containerd(directory, collects=True, proxy=service.address, cri=True) as running:
        yield running


@pytest.fixture
def cri(daemon: Containerd) -> Iterator[Cri]:
    client = Cri(daemon.address)
    yield client
    client.close()


@pytest.fixture
def client(daemon: Containerd) -> Iterator[Client]:
    with Client(connect(daemon.address, NAMESPACE)) as opened:
        yield opened


def place_base_image(service: Service, directory: str) -> None:
    """Do what an image task does on a node before the first pull."""
    archive, manifest = image_of(BASE)
    archive.index(manifest)
    store = service.open_for_import()
    done = ensure_image(store, src=archive.write(pathlib.Path(directory, "base.tar")))
    assert [link["imported"] for link in done.result["chain"]] == [True, True]
    store.close()


def short_names(service: Service) -> List[str]:
    """Return the names of the store's snapshots. Those of containerd begin with its namespace and a number."""
    return sorted(name.rpartition("/")[2] for name in service.names())


def test_a_pull_unpacks_only_what_is_new(
    directory: str, service: Service, registry: Registry, cri: Cri, client: Client
) -> None:
    place_base_image(service, directory)
    store = service.open_for_import()
    placed = [store.stat(name) for name in CHAIN[:2]]
    image = registry.push("application", *image_of([*BASE, *APPLICATION]))
    cri.pull(image)
    assert cri.images() == [image]

    # The tasks made the layers 1 and 2. The pull made one more for each new layer, and none for the others.
    assert service.layers() == ["1", "2", "3", "4"]
    assert [store.stat(name) for name in CHAIN[:2]] == placed
    blobs = [digest_of(packed(plain)) for plain in (*BASE, *APPLICATION)]
    assert set(registry.fetched()).intersection(blobs) == set(blobs[2:])
    # The chain as the store has it, and as containerd has it.
    infos = {info.name.rpartition("/")[2]: info for info in store.walk()}
    assert sorted(infos) == sorted(CHAIN)
    assert [infos[name].parent for name in CHAIN] == ["", CHAIN[0], CHAIN[1], infos[CHAIN[2]].name]
    assert infos[CHAIN[2]].name.startswith(f"{NAMESPACE}/")
    assert [client.stat(PROXY, name).parent for name in CHAIN] == ["", *CHAIN[:3]]
    # A container sees the files of all layers. containerd on Linux does not know that those of Windows are in "Files".
    (mount,) = client.prepare(PROXY, "container", CHAIN[3], {"containerd.io/gc.root": "test"})
    seen = [sorted(file.name for file in pathlib.Path(mount.source, at).glob("*.txt")) for at in ("", "Files")]
    assert seen == [["base.txt", "update.txt"], ["application.txt", "runtime.txt"]]

    # Garbage collection keeps what the image needs.
    client.remove_snapshot(PROXY, "container")
    client.collect_garbage()
    eventually(lambda: service.layers() == ["1", "2", "3", "4"])
    assert {info.name for info in client.snapshots(PROXY)} == set(CHAIN)
    # The playbook's layers stay when the image goes. Those that containerd unpacked go with it.
    cri.remove(image)
    client.collect_garbage()
    eventually(lambda: service.layers() == ["1", "2"])
    assert (cri.images(), client.snapshots(PROXY)) == ([], [])
    assert short_names(service) == sorted(CHAIN[:2])
    # The next pull adopts them again.
    cri.pull(image)
    eventually(lambda: len(service.layers()) == 4)
    assert [store.stat(name) for name in CHAIN[:2]] == placed
    assert not check(store).findings
    store.close()


def test_a_whole_image_is_adopted(
    directory: str, service: Service, registry: Registry, cri: Cri, client: Client
) -> None:
    """A pull of the base image itself unpacks nothing. Only the absence of containerd's image frees its layers."""
    place_base_image(service, directory)
    image = registry.push("base", *image_of(BASE))
    cri.pull(image)
    assert service.layers() == ["1", "2"]
    assert {info.name for info in client.snapshots(PROXY)} == set(CHAIN[:2])
    client.prepare(PROXY, "container", CHAIN[1], {"containerd.io/gc.root": "test"})
    store = service.open_for_import()
    # A container keeps the layers, whatever a task wants.
    kept = ensure_image(store, state="absent", chain_id=CHAIN[1])
    assert (kept.changed, kept.result["kept"]) == (False, CHAIN[:2])
    client.remove_snapshot(PROXY, "container")
    cri.remove(image)
    client.collect_garbage()
    eventually(lambda: short_names(service) == sorted(CHAIN[:2]))
    removed = ensure_image(store, state="absent", chain_id=CHAIN[1])
    assert removed.changed
    # The service destroys the layer of the container after its answer.
    eventually(lambda: service.layers() == [])
    store.close()


def test_layers_of_layer_tasks_are_adopted(
    directory: str, service: Service, registry: Registry, cri: Cri, client: Client
) -> None:
    """They have names that an administrator chose."""
    store = service.open_for_import()
    names = ["servercore", "servercore-update"]
    for name, parent, plain in zip(names, ["", *names], BASE):
        path = pathlib.Path(directory, f"{name}.tar.gz")
        path.write_bytes(packed(plain))
        ensure_layer(store, name, str(path), parent=parent, digest=digest_of(plain))
    assert [store.stat(name).labels for name in names] == [{SNAPSHOT_REF: CHAIN[0]}, {SNAPSHOT_REF: CHAIN[1]}]
    cri.pull(registry.push("application", *image_of([*BASE, APPLICATION[0]])))
    assert service.layers() == ["1", "2", "3"]
    assert short_names(service) == sorted([*names, CHAIN[2]])
    assert [client.stat(PROXY, name).parent for name in CHAIN[:3]] == ["", *CHAIN[:2]]
    with pytest.raises(errors.FailedPrecondition, match="cannot remove snapshot with child"):
        store.remove("servercore-update")
    store.close()


def test_without_the_layers_all_is_unpacked(service: Service, registry: Registry, cri: Cri) -> None:
    """What the other tests show is the work of the labels."""
    cri.pull(registry.push("application", *image_of([*BASE, *APPLICATION])))
    assert service.layers() == ["1", "2", "3", "4"]
    assert all(name.startswith(f"{NAMESPACE}/") for name in service.names())
    assert len(registry.fetched()) == 5
