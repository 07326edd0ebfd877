# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Import and remove images as users do, against lab nodes over psrp and winrm."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import image
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import LAYERS, Archive, config_of, digest_of
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

from lab import sample

NODES = ("node1", "node2")
SERVER_2022 = "10.0.20348.2700"
SERVER_2025 = "10.0.26100.1742"
#: The Windows version that a lab node simulates.
ON_2022 = {"environment": {"WCOW_OS_VERSION": "10.0.20348"}}


@pytest.fixture
def lab(tmp_path_factory, request):
    options = ["--containerd"] if "containerd" in request.fixturenames else []
    # The path of the socket of a containerd is limited.
    started = Lab(tmp_path_factory.mktemp("i") / "lab", *options)
    yield started
    started.lab("down")


@pytest.fixture
def containerd(lab):
    """A lab whose nodes also have a simulated containerd."""
    return lab


@pytest.fixture
def archive(lab):
    """Write an image archive on the controller, in a directory where tasks look for files."""
    path = lab.controller() / "files" / "image.tar"
    sample.write_image(path, SERVER_2022, SERVER_2025)
    return path


def task(**options):
    return {"wcow.snapshotter.image": options, **ON_2022}


def names(result):
    return [snapshot["name"] for snapshot in result["snapshots"]]


def files_of(lab, node):
    return sorted(path.name for path in lab.file(node, "ProgramData/wcow/snapshots").glob("*/Files/app/*"))


LIST = {"wcow.snapshotter.snapshot_info": {}}


def test_an_image_of_the_controller(lab, archive):
    want = task(src="image.tar", labels={"team": "blue"})
    for node, results in lab.play(
        {**want, "check_mode": True, "diff": True}, LIST, {**want, "diff": True}, LIST, want
    ).items():
        planned, none, done, listed, again = results
        assert not any(result.get("failed") for result in results), (node, results)
        assert names(none) == []
        for key in ("changed", "actions", "chain", "chain_id", "config", "os_version", "diff"):
            assert planned[key] == done[key]
        assert done["os_version"] == SERVER_2022
        assert done["actions"] == [f"import {link['name']}" for link in done["chain"]]
        assert done["chain"][1]["parent"] == done["chain"][0]["name"] == done["chain"][0]["diff_id"]
        text = f"{done['chain'][0]['diff_id']} {done['chain'][1]['diff_id']}"
        assert done["chain_id"] == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        assert done["diff"]["before"] == {}
        labels = done["diff"]["after"][done["chain_id"]]["labels"]
        assert labels == {"containerd.io/snapshot.ref": done["chain_id"], "team": "blue"}
        assert sorted(names(listed)) == sorted(link["name"] for link in done["chain"])
        assert (again["changed"], again["actions"]) == (False, [])
        assert files_of(lab, node) == ["app.ini", "version.txt"]
        assert list(lab.file(node, "ProgramData/wcow/incoming").iterdir()) == []


@pytest.mark.long
def test_only_what_is_missing_is_sent(lab, archive):
    """The image for another Windows version has the same base layer. The archive no longer contains that blob."""
    lab.play(task(src="image.tar"))
    base = None
    with tarfile.open(archive) as whole:
        contents = {member.name: whole.extractfile(member).read() for member in whole}
    for name, data in contents.items():
        if data.startswith(b"\x1f\x8b") and b"cmd.exe" in gzip.decompress(data):
            base = name
    contents.pop(base)
    layout = archive.with_name("layout")
    for name, data in contents.items():
        (layout / name).parent.mkdir(parents=True, exist_ok=True)
        (layout / name).write_bytes(data)
    for results in lab.play(task(src="layout", os_version="10.0.26100"), LIST).values():
        assert results[0]["actions"] == [f"import {results[0]['chain_id']}"]
        assert [link["imported"] for link in results[0]["chain"]] == [False, True]
        assert len(names(results[1])) == 3
    remove = {"wcow.snapshotter.store": {"state": "absent", "force": True}}
    for _removed, refused in lab.play(remove, task(src="layout")).values():
        assert refused["error"]["code"] == "failed_precondition"
        assert "layout: layer 1 of 2" in refused["msg"]
        assert "is not in the archive" in refused["msg"]


def test_an_image_with_zstd_layers(lab):
    """The controller verifies and repacks the layers; the node verifies their diff ids."""
    zstandard = pytest.importorskip("zstandard")
    archive = Archive()
    layers = [{**archive.blob(zstandard.compress(plain))} for plain in LAYERS]
    archive.index(archive.json({"config": archive.json(config_of(LAYERS, SERVER_2022)), "layers": layers}))
    files = lab.controller() / "files"
    files.mkdir()
    archive.write(files / "image.tar")
    for done, listed in lab.play(task(src="image.tar"), LIST).values():
        assert done["actions"] == [f"import {link['name']}" for link in done["chain"]]
        assert [link["diff_id"] for link in done["chain"]] == [digest_of(plain) for plain in LAYERS]
        assert len(names(listed)) == len(LAYERS)


@pytest.mark.long
def test_a_rerun_after_an_interruption(lab, archive):
    """The second layer is damaged during the transfer. The first one is complete and is not sent again."""
    whole = archive.read_bytes()
    with tarfile.open(archive) as opened:
        index = json.loads(opened.extractfile("index.json").read())
        nested = json.loads(opened.extractfile(_blob(index["manifests"][0])).read())
        manifest = json.loads(opened.extractfile(_blob(nested["manifests"][0])).read())
        member = opened.getmember(_blob(manifest["layers"][1]))
    damaged = bytearray(whole)
    damaged[member.offset_data + 30] ^= 1
    archive.write_bytes(damaged)
    for (refused,) in lab.play(task(src="image.tar")).values():
        assert refused["error"]["code"] == "invalid_argument"
        assert "image.tar: layer 2 of 2" in refused["msg"]
        assert "the archive is damaged, get it again" in refused["msg"]
    archive.write_bytes(whole)
    for done, listed in lab.play(task(src="image.tar"), LIST).values():
        assert done["actions"] == [f"import {done['chain_id']}"]
        assert len(names(listed)) == 2


def _blob(descriptor):
    return "blobs/" + descriptor["digest"].replace(":", "/")


def test_five_tasks_at_once(lab, archive):
    """One task imports each layer. The results of the others say that they changed nothing."""
    plain = tarfile_tar(("Files", "directory"), ("Files/large", os.urandom(3_000_000)))
    archive.with_name("layer.tar").write_bytes(plain)
    aliases = [f"alias{number}" for number in range(5)]
    for alias in aliases:
        lab.hosts[alias] = dict(lab.hosts["node1"])
    tasks = [
        task(src="image.tar", labels={"team": "blue"}),
        {"wcow.snapshotter.layer": {"name": "os", "src": "layer.tar"}},
    ]
    results = lab.play(*({**one, "diff": True} for one in tasks), LIST, nodes=aliases)
    imports = []
    for found in results.values():
        image_result, layer_result, listed = found
        assert not any(result.get("failed") for result in found), found
        for result in (image_result, layer_result):
            assert result["changed"] == bool(result["actions"])
            assert (result["diff"]["before"] != result["diff"]["after"]) == result["changed"]
            imports += result["actions"]
        assert (layer_result["layer"] is not None) == layer_result["changed"]
        for link in image_result["chain"]:
            assert link["imported"] == (f"import {link['name']}" in image_result["actions"])
    assert sorted(imports) == sorted(f"import {name}" for name in names(listed))
    assert list(lab.file("node1", "ProgramData/wcow/incoming").iterdir()) == []


def test_sources_that_are_not_files_and_digests(lab, archive):
    """The error comes before anything is sent. A digest may be spelled as Get-FileHash prints it."""
    files = archive.parent
    sample.write_layer(files / "layer.tar.gz")
    digits = hashlib.sha256(gzip.decompress((files / "layer.tar.gz").read_bytes())).hexdigest().upper()
    (files / "empty").write_bytes(b"")
    (files / "directory").mkdir()
    os.mkfifo(files / "pipe")
    os.mkfifo(lab.file("node1", "pipe"))
    cases = [
        ({"src": ""}, "src is empty: it must name the layer tar"),
        ({"src": "empty"}, "empty on the controller is empty (0 bytes): src must be a layer tar"),
        ({"src": "directory"}, "directory on the controller is a directory, not a file: src must be a layer tar"),
        ({"src": "pipe"}, "pipe on the controller is a named pipe, not a file: src must be a layer tar"),
        ({"src": r"C:\pipe", "remote_src": True}, r"C:\pipe on the node is a named pipe, not a file: src must be a"),
        ({"src": "layer.tar.gz", "digest": "md5:00"}, "digest 'md5:00' is not sha256: and 64 hexadecimal digits"),
    ]
    images = [
        ({"src": ""}, "src is empty: it must name the image"),
        ({"src": "empty"}, "empty: it is empty (0 bytes): get it again"),
        ({"src": "directory"}, "directory: it holds neither index.json"),
        ({"src": "pipe"}, "pipe on the controller: it is a named pipe, not a file"),
        ({"src": r"C:\pipe", "remote_src": True}, r"cannot read C:\pipe on the node: it is a named pipe, not a file"),
        ({"chain_id": "base", "state": "absent"}, "chain_id 'base' is not sha256: and 64 hexadecimal digits"),
    ]
    tasks = [{"wcow.snapshotter.layer": {"name": "os", **options}} for options, _said in cases]
    tasks += [task(**options) for options, _said in images]
    (results,) = lab.play(*tasks, nodes=["node1"]).values()
    for (_options, said), result in zip(cases + images, results):
        assert said in result["msg"], result["msg"]
    assert not lab.file("node1", "ProgramData/wcow").exists()
    layer_task = {"wcow.snapshotter.layer": {"name": "os", "src": "layer.tar.gz", "digest": digits}}
    ((done,),) = lab.play(layer_task, nodes=["node1"]).values()
    assert done["changed"]


@pytest.mark.long
def test_removing(lab, archive):
    gone = task(src="image.tar", state="absent")
    on_top = {"wcow.snapshotter.snapshot": {"key": "work", "parent": "{{ result_0.chain[0].name }}"}}
    results = lab.play(
        task(src="image.tar"),
        on_top,
        {**gone, "check_mode": True},
        gone,
        gone,
        {"wcow.snapshotter.snapshot": {"key": "work", "state": "absent"}},
        task(chain_id="{{ result_0.chain[0].name }}", state="absent"),
    )
    for made, _prepared, planned, done, again, _removed, rest in results.values():
        base, top = (link["name"] for link in made["chain"])
        assert planned["actions"] == done["actions"] == [f"remove {top}"]
        assert planned["kept"] == done["kept"] == again["kept"] == [base]
        assert not again["changed"]
        assert rest["actions"] == [f"remove {base}"]
        assert "config" not in rest


def test_which_windows_and_what_is_no_image(lab, archive):
    sample.write_layer(archive.with_name("layer.tar.gz"))
    image_of = {"wcow.snapshotter.image": {"src": "image.tar"}}
    tasks = [
        image_of,
        {**image_of, "environment": {"WCOW_OS_VERSION": "10.0.14393"}},
        task(src="layer.tar.gz"),
        task(src="image.tar", platform="windows/arm64"),
        task(src="image.tar", reference="other"),
        task(src="nowhere.tar"),
        task(src=r"C:\nowhere.tar", remote_src=True),
        task(src="image.tar", labels={"version": 1.10}),
        task(state="absent"),
    ]
    said = [
        "the node's Windows version is unknown; there are images for 10.0.20348.2700, 10.0.26100.1742: choose one",
        "for Windows 10.0.14393, the version of the node; there are images for 10.0.20348.2700, 10.0.26100.1742",
        "it is compressed with gzip as a whole",
        "it holds no image for windows/arm64; what it lists: windows/amd64",
        "it holds no image named 'other'; what it names: sample",
        "nowhere.tar",
        r"C:\nowhere.tar: there is no such file or directory",
        "put the value in quotes",
        "state is absent but any of the following are missing: src, chain_id",
    ]
    for node, results in lab.play(*tasks).items():
        for message, result in zip(said, results):
            assert result["failed"]
            assert message in result["msg"], result["msg"]
        assert not lab.file(node, "ProgramData/wcow").exists()


def test_an_image_and_a_layer_on_a_share(lab, archive, tmp_path):
    """The share is a directory outside all nodes."""
    share = tmp_path / "images"
    sample.write_image(share / "image.tar", SERVER_2022)
    sample.write_layer(share / "layer.tar.gz")
    for node in NODES:
        server = lab.directory / node / "UNC" / "files.example.com"
        server.mkdir(parents=True)
        (server / "images").symlink_to(share)
    layer_task = {"name": "os", "src": r"\\?\UNC\FILES.example.com\Images\layer.tar.gz", "remote_src": True}
    tasks = [
        task(src=r"\\files.example.com\images\image.tar", remote_src=True),
        {"wcow.snapshotter.layer": layer_task},
        task(src=r"\\files.example.com\docs\image.tar", remote_src=True),
    ]
    for node, (chain, layer, unreachable) in lab.play(*tasks).items():
        assert [result.get("failed", False) for result in (chain, layer, unreachable)] == [False, False, True], node
        assert layer["layer"]["digest"] == chain["chain"][0]["diff_id"]
        assert r"cannot read \\files.example.com\docs\image.tar on the node" in unreachable["msg"]
        assert "WinRM passes no credentials on" in unreachable["msg"]


def test_an_image_of_containerd(containerd, archive):
    """Over both connections: from the controller, then from the node, with and without changes."""
    lab, wanted = containerd, {"store": "containerd", "names": ["app"], "pinned": True}
    for node in NODES:
        sample.write_image(lab.file(node, "images/image.tar"), SERVER_2022, SERVER_2025)
    from_controller = task(src="image.tar", **wanted)
    from_node = task(src=r"C:\images\image.tar", remote_src=True, **wanted)
    gone = task(store="containerd", names=["app"], state="absent")
    plan = {"check_mode": True, "diff": True}
    tasks = [{**from_controller, **plan}, {**from_controller, "diff": True}, from_controller, from_node]
    tasks += [{**gone, **plan}, gone, gone, from_node, task(store="containerd", src="image.tar", state="absent")]
    for node, results in lab.play(*tasks).items():
        assert not any(result.get("failed") for result in results), (node, results)
        planned, done, _again, _other, unplanned, removed, _nothing, imported, by_archive = results
        assert [result["changed"] for result in results] == [True, True, False, False, True, True, False, True, True]
        for key in ("actions", "chain", "chain_id", "config", "manifest", "images", "os_version", "diff"):
            assert planned[key] == done[key], (node, key)
        assert done["images"] == [
            {
                "name": "docker.io/library/app:latest",
                "target": done["manifest"],
                "labels": {"io.cri-containerd.pinned": "pinned"},
                "pinned": True,
            }
        ]
        assert done["containerd"]["namespace"] == "k8s.io"
        # The sample image of the node has the base layer, too.
        assert [link["imported"] for link in done["chain"]] == [False, True]
        assert unplanned["freed"] == removed["freed"]
        assert removed["freed"]["snapshots"] == [done["chain_id"]]
        assert imported["manifest"] == done["manifest"]
        assert by_archive["actions"] == ["untag docker.io/library/app:latest"]


def test_containerd_needs_a_name(containerd, archive):
    tasks = [task(store="containerd", src="image.tar"), task(src="image.tar", pinned=True)]
    for unnamed, own in containerd.play(*tasks).values():
        assert "the archive does not name the image: set names to what kubelet asks for" in unnamed["msg"]
        assert "pinned and unpack are about records of images" in own["msg"]


@pytest.mark.parametrize("store", ["own", "containerd"])
def test_a_parent_by_the_name_of_an_image(containerd, archive, store):
    """The same tasks on each store: a plan, the import, snapshots on top of the image, and an image that moves."""
    sample.write_image(archive.with_name("next.tar"), "10.0.20348.2800")
    name = "registry.example.com/app:1.4"

    def of(module, **options):
        return {f"wcow.snapshotter.{module}": {"store": store, **options}, **ON_2022}

    image = of("image", src="image.tar", names=[name])
    web = of("snapshot", key="web-1", parent_image=name)
    items = [{"key": "one", "parent_image": name}, {"key": "look", "parent_image": name, "state": "view"}]
    tasks = [{**image, "check_mode": True}, {**web, "check_mode": True}, web, image, web, web]
    tasks += [of("snapshot_set", snapshots=items), of("image", src="next.tar", names=[name]), web]
    tasks += [
        of("snapshot", key="web-1", parent="{{ result_3.chain_id }}"),
        of("snapshot", key="next", parent_image=name),
    ]
    for node, results in containerd.play(*tasks).items():
        plan, assumed, unknown, done, made, again, many, moved, stale, kept, following = results
        assert [index for index, result in enumerate(results) if result.get("failed")] == [2, 8], (node, results)
        assert (plan["names"], plan["chain_id"]) == (done["names"], done["chain_id"])
        assert done["names"] == [name]
        assert assumed["snapshot"]["parent"] == name
        assert "Check mode assumes that an earlier task" in assumed["warnings"][0]
        assert unknown["error"]["code"] == "not_found"
        assert f'no image has the name "{name}"' in unknown["msg"]
        assert (made["changed"], again["changed"]) == (True, False)
        for snapshot in (made["snapshot"], *(outcome["snapshot"] for outcome in many["outcomes"])):
            assert (snapshot["parent"], snapshot["parent_image"]) == (done["chain_id"], name)
        assert stale["error"]["code"] == "already_exists"
        assert f'the top layer of the image "{name}" is "{moved["chain_id"]}"; remove "web-1" first' in stale["msg"]
        assert kept["changed"] is False
        assert following["snapshot"]["parent"] == moved["chain_id"] != done["chain_id"]


def test_an_image_of_containerd_that_is_not_unpacked(containerd, archive):
    wanted = {"store": "containerd", "names": ["app"]}
    snapshot = {"wcow.snapshotter.snapshot": {"store": "containerd", "key": "web-1", "parent_image": "app"}, **ON_2022}
    pulled = {"wcow.snapshotter.snapshot": {"store": "containerd", "key": "b", "parent_image": "windows-base:1.0"}}
    tasks = [task(src="image.tar", unpack=False, **wanted), snapshot, pulled, task(src="image.tar", **wanted), snapshot]
    for _packed, refused, unknown, unpacked, done in containerd.play(*tasks).values():
        assert 'the image "docker.io/library/app:latest" is not unpacked in the snapshotter windows' in refused["msg"]
        assert "The module image with this name unpacks it" in refused["msg"]
        assert 'in the namespace k8s.io, no image has the name "docker.io/library/windows-base:1.0"' in unknown["msg"]
        assert "the nearest names are registry.example.com/library/windows-base:1.0, docker.io/" in unknown["msg"]
        assert done["snapshot"]["parent"] == unpacked["chain_id"]


def test_the_examples(containerd, archive):
    """One archive is on the controller. The other one has several images and is on the node."""
    lab = containerd
    archive.rename(archive.with_name("nanoserver-ltsc2022.tar"))
    for node in NODES:
        write_two_images(lab.file(node, "images/all.tar"))
    tasks = yaml.safe_load(image.EXAMPLES)
    for node, results in lab.play(*[{**example, **ON_2022} for example in tasks]).items():
        assert [(result.get("failed", False), result["changed"]) for result in results] == [(False, True)] * 6, (
            node,
            results,
        )
        nanoserver, work, app, removed, pinned, gone = results
        assert work["snapshot"]["parent"] == nanoserver["chain_id"]
        # Both images have the same base layer, and it stays.
        assert app["actions"] == [f"import {app['chain_id']}"]
        assert removed["actions"] == [f"remove {app['chain_id']}"]
        assert removed["kept"] == [nanoserver["chain"][0]["name"]]
        assert [image["pinned"] for image in pinned["images"]] == [True]
        assert gone["freed"]["snapshots"] == [pinned["chain_id"]]


def write_two_images(path):
    """Write the archive of ``sample.write_image``, with each version as a separate image with its own name."""
    sample.write_image(path, "10.0.20348.1", "10.0.20348.2")
    with tarfile.open(path) as whole:
        contents = {member.name: whole.extractfile(member).read() for member in whole}
    (nested,) = json.loads(contents["index.json"])["manifests"]
    manifests = json.loads(contents[_blob(nested)])["manifests"]
    for manifest, name in zip(manifests, ("registry.example.com/app:1.4", "registry.example.com/app:1.5")):
        manifest["annotations"] = {"io.containerd.image.name": name}
    contents["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    layout = path.with_name("layout")
    for name, data in contents.items():
        (layout / name).parent.mkdir(parents=True, exist_ok=True)
        (layout / name).write_bytes(data)
    with tarfile.open(path, "w") as archive:
        archive.add(layout, ".")
