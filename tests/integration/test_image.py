# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images as users import and remove them, against lab nodes over psrp and winrm."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.modules import image
from ansible_collections.wcow.snapshotter.tests.integration.nodes import Lab

from lab import sample

NODES = ("node1", "node2")
SERVER_2022 = "10.0.20348.2700"
SERVER_2025 = "10.0.26100.1742"
#: Which Windows a lab node stands for.
ON_2022 = {"environment": {"WCOW_OS_VERSION": "10.0.20348"}}


@pytest.fixture
def lab(tmp_path):
    started = Lab(tmp_path / "lab")
    yield started
    started.lab("down")


@pytest.fixture
def archive(lab):
    """On the controller, where tasks look for files."""
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
        assert done["diff"]["after"][done["chain_id"]]["labels"] == {"team": "blue"}
        assert sorted(names(listed)) == sorted(link["name"] for link in done["chain"])
        assert (again["changed"], again["actions"]) == (False, [])
        assert files_of(lab, node) == ["app.ini", "version.txt"]
        assert list(lab.file(node, "ProgramData/wcow/incoming").iterdir()) == []


@pytest.mark.long
def test_only_what_is_missing_is_sent(lab, archive):
    """The image for another Windows has the same base layer, whose blob is not even in the archive any more."""
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


@pytest.mark.long
def test_a_rerun_after_an_interruption(lab, archive):
    """The second layer is damaged on its way; the first one is there, and is not sent again."""
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
        "the version of the node is not known; there are images for 10.0.20348.2700, 10.0.26100.1742: choose one",
        "for Windows 10.0.14393, which is what the node is; there are images for 10.0.20348.2700, 10.0.26100.1742",
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
    """The share is a directory that is no node's."""
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


def test_the_examples(lab, archive):
    """One archive on the controller, and one of several images on the node."""
    archive.rename(archive.with_name("nanoserver-ltsc2022.tar"))
    for node in NODES:
        write_two_images(lab.file(node, "images/all.tar"))
    tasks = yaml.safe_load(image.EXAMPLES)
    assert tasks[0].pop("register") == "nanoserver"
    tasks[1]["wcow.snapshotter.snapshot"]["parent"] = "{{ result_0.chain_id }}"
    for node, results in lab.play(*[{**example, **ON_2022} for example in tasks]).items():
        assert [(result.get("failed", False), result["changed"]) for result in results] == [(False, True)] * 4, (
            node,
            results,
        )
        nanoserver, work, app, removed = results
        assert work["snapshot"]["parent"] == nanoserver["chain_id"]
        # The base layer is the same, and stays.
        assert app["actions"] == [f"import {app['chain_id']}"]
        assert removed["actions"] == [f"remove {app['chain_id']}"]
        assert removed["kept"] == [nanoserver["chain"][0]["name"]]


def write_two_images(path):
    """The archive of ``sample.write_image``, each version a named image of its own."""
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
