# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that an image becomes one chain of snapshots despite interruptions, and that unneeded layers are removed."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired import image as image_module
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.image import ensure_image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer import ensure_layer
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.ociimage import chain_ids
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import drives
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated.store import EmulatedLayers
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import (
    LAYERS,
    Archive,
    blob_name,
    config_of,
    digest_of,
    layer,
    packed,
)

DIFF_IDS = [digest_of(plain) for plain in LAYERS]
CHAIN = chain_ids(DIFF_IDS)
PARENTS = ["", *CHAIN[:-1]]
IMPORTS = [f"import {name}" for name in CHAIN]
REMOVALS = [f"remove {name}" for name in reversed(CHAIN)]


@pytest.fixture
def store(open_store: Callable[..., Snapshotter]) -> Snapshotter:
    """An empty store."""
    return open_store()


@pytest.fixture
def src(tmp_path: Any, host: Any) -> str:
    archive = Archive()
    archive.index(archive.image())
    return archive.write(tmp_path / "image.tar")


def names(store: Snapshotter) -> List[str]:
    return [info.name for info in store.walk()]


def content(store: Snapshotter, name: str) -> List[str]:
    directory = store.directories.directory(store.stat(name).id)
    return sorted(os.listdir(os.path.join(directory, "Files")))


def reference(chain_id: str) -> Dict[str, str]:
    """The label by which containerd finds a layer."""
    return {"containerd.io/snapshot.ref": chain_id}


def test_a_chain_of_snapshots(store: Snapshotter, open_store: Callable[..., Snapshotter], src: str) -> None:
    planned = ensure_image(open_store(dry_run=True), src=src, labels={"team": "blue"})
    assert not names(store)
    done = ensure_image(store, src=src, labels={"team": "blue"})
    assert planned == done
    assert done.changed
    assert done.result["actions"] == IMPORTS
    assert done.result["chain_id"] == CHAIN[-1]
    assert done.result["chain"] == [
        {"name": name, "parent": parent, "diff_id": diff_id, "imported": True}
        for name, parent, diff_id in zip(CHAIN, PARENTS, DIFF_IDS)
    ]
    assert done.result["config"] == digest_of(json.dumps(config_of(LAYERS)).encode())
    assert done.result["os_version"] == "10.0.20348.1"
    assert done.result["diff"]["before"] == {}
    assert done.result["diff"]["after"][CHAIN[2]] == {
        "kind": "committed",
        "parent": CHAIN[1],
        "labels": {**reference(CHAIN[2]), "team": "blue"},
    }
    assert {info.name: (info.kind, info.parent) for info in store.walk()} == {
        name: ("committed", parent) for name, parent in zip(CHAIN, PARENTS)
    }
    assert [content(store, name) for name in CHAIN] == [["base.txt"], ["middle.txt"], ["top.txt"]]
    assert [store.stat(name).labels for name in CHAIN] == [
        reference(CHAIN[0]),
        reference(CHAIN[1]),
        {**reference(CHAIN[2]), "team": "blue"},
    ]
    again = ensure_image(store, src=src, labels={"team": "blue"})
    assert not again.changed
    assert again.result["actions"] == []
    assert not any(link["imported"] for link in again.result["chain"])
    store.prepare("work", CHAIN[-1])


@pytest.fixture
def trial(store: Snapshotter, open_store: Callable[..., Snapshotter]) -> Snapshotter:
    """The same store, opened for a dry run."""
    return open_store(dry_run=True)


@pytest.fixture
def share(tmp_path: Any, host: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    r"""The directory that acts as the share ``\\files\images``."""
    monkeypatch.setenv(drives.VARIABLE, str(tmp_path / "drives"))
    (tmp_path / "drives" / "UNC" / "files").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "drives" / "UNC" / "files" / "images").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.mark.posix
@pytest.mark.parametrize("src", [r"\\files\images\i.tar", r"\\?\UNC\Files\Images\i.tar", r"\\files\images\layout"])
def test_an_image_on_a_share(store: Snapshotter, trial: Snapshotter, share: Any, src: str) -> None:
    archive = Archive()
    archive.index(archive.image())
    archive.write(share / "i.tar")
    archive.write_directory(share / "layout")
    planned = ensure_image(trial, src=src)
    assert planned == ensure_image(store, src=src)
    assert names(store) == sorted(CHAIN)
    assert not ensure_image(store, src=src).changed


@pytest.mark.posix
@pytest.mark.parametrize("src", [r"\\files\images\none.tar", r"\\files\docs\i.tar", r"\\elsewhere\images\i.tar"])
def test_a_share_that_cannot_be_reached(store: Snapshotter, share: Any, src: str) -> None:
    for function in (lambda: ensure_image(store, src=src), lambda: ensure_layer(store, "x", src)):
        with pytest.raises(NotFound) as caught:
            function()
        assert caught.value.message.startswith(f"cannot read {src} on the node: No such file or directory; ")
        assert "WinRM passes no credentials on" in caught.value.message


@pytest.mark.posix
def test_a_share_that_may_not_be_read(store: Snapshotter, share: Any) -> None:
    (share / "loop.tar").symlink_to("loop.tar")
    for src in (r"\\files\images\loop.tar", r"\\files\images\loop.tar\x"):
        with pytest.raises(FailedPrecondition, match="WinRM passes no credentials on"):
            ensure_image(store, src=src)
    with pytest.raises(InvalidArgument, match="names no share"):
        ensure_image(store, src=r"\\files")


def test_labels_of_an_image_that_is_there(store: Snapshotter, src: str) -> None:
    ensure_image(store, src=src, labels={"a": "1", "b": "2"})
    changed = ensure_image(store, src=src, labels={"a": "", "c": "3"})
    assert changed.result["actions"] == [f"update {CHAIN[-1]}"]
    assert store.stat(CHAIN[-1]).labels == {**reference(CHAIN[-1]), "b": "2", "c": "3"}
    assert changed.result["diff"]["before"][CHAIN[-1]]["labels"] == {
        **reference(CHAIN[-1]),
        "a": "1",
        "b": "2",
    }
    assert not ensure_image(store, src=src).changed


def test_layers_without_the_label_for_adoption(
    store: Snapshotter, open_store: Callable[..., Snapshotter], src: str
) -> None:
    """They get it, also those below the top, and are not imported again."""
    ensure_image(store, src=src)
    for name in CHAIN[:2]:
        store.update(name, {}, [])
    store.remove(CHAIN[2])
    planned = ensure_image(open_store(dry_run=True), src=src)
    done = ensure_image(store, src=src)
    assert planned == done
    assert done.result["actions"] == [f"import {CHAIN[2]}", f"update {CHAIN[0]}", f"update {CHAIN[1]}"]
    assert [store.stat(name).labels for name in CHAIN] == [reference(name) for name in CHAIN]
    assert not ensure_image(store, src=src).changed


@pytest.mark.parametrize("form", ["directory", "docker save"])
def test_other_forms(store: Snapshotter, tmp_path: Any, host: Any, form: str) -> None:
    archive = Archive()
    if form == "directory":
        archive.index(archive.image())
        path = archive.write_directory(tmp_path / "image")
    else:
        archive.files["manifest.json"] = json.dumps([archive.save(LAYERS, "app:1")]).encode()
        path = archive.write(tmp_path / "image.tar")
    assert ensure_image(store, src=path).result["actions"] == IMPORTS


def test_the_same_layer_twice(store: Snapshotter, tmp_path: Any, host: Any) -> None:
    archive = Archive()
    archive.index(archive.image([LAYERS[0], LAYERS[1], LAYERS[1]]))
    done = ensure_image(store, src=archive.write(tmp_path / "image.tar"))
    assert len({link["name"] for link in done.result["chain"]}) == len(names(store)) == 3


# -- interruptions -------------------------------------------------------------


@pytest.mark.parametrize("bad", range(3))
def test_a_rerun_goes_on_with_the_first_missing_layer(store: Snapshotter, tmp_path: Any, host: Any, bad: int) -> None:
    """The rerun does not read the tars of layers that exist."""
    archive = Archive()
    archive.index(archive.image())
    blobs = [blob_name(digest_of(packed(plain))) for plain in LAYERS]
    whole = archive.files[blobs[bad]]
    archive.files[blobs[bad]] = (
        whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    )  # the checksum that ends the gzip stream
    with pytest.raises(InvalidArgument, match=rf"layer {bad + 1} of 3 \({DIFF_IDS[bad]}\): .* layer is damaged"):
        ensure_image(store, src=archive.write(tmp_path / "image.tar"))
    assert sorted(names(store)) == sorted(CHAIN[:bad])
    archive.files[blobs[bad]] = whole
    for blob in blobs[:bad]:
        archive.files[blob] = b"no layer at all"
    assert ensure_image(store, src=archive.write(tmp_path / "image.tar")).result["actions"] == IMPORTS[bad:]


def test_a_task_that_is_quicker(store: Snapshotter, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Snapshotter(store.root, EmulatedLayers())
    slow = store.import_layer

    def import_layer(*arguments: Any) -> Any:
        if not names(other):
            ensure_image(other, src=src, labels={"team": "blue"})
        return slow(*arguments)

    monkeypatch.setattr(store, "import_layer", import_layer)
    done = ensure_image(store, src=src, labels={"team": "green"})
    other.close()
    assert done.result["actions"] == [f"update {CHAIN[-1]}"]
    assert store.stat(CHAIN[-1]).labels == {**reference(CHAIN[-1]), "team": "green"}
    assert sorted(done.result["diff"]["before"]) == sorted(CHAIN)
    assert done.result["diff"]["before"][CHAIN[-1]]["labels"] == {**reference(CHAIN[-1]), "team": "blue"}


def test_bad_labels_are_refused_before_anything_is_imported(store: Snapshotter, src: str) -> None:
    with pytest.raises(InvalidArgument, match="greater than maximum size"):
        ensure_image(store, src=src, labels={"l": "v" * 5000})
    assert not names(store)


def test_other_meanings_of_a_name(store: Snapshotter, src: str) -> None:
    store.prepare("key", "")
    store.commit("base", "key")
    store.prepare("key", "base")
    store.commit(CHAIN[0], "key")
    for state in ("present", "absent"):
        with pytest.raises(
            AlreadyExists, match=f'"{CHAIN[0]}" is not a layer of this image: it is committed with parent "b'
        ):
            ensure_image(store, state, src=src)
    store.remove(CHAIN[0])
    store.prepare(CHAIN[0], "")
    with pytest.raises(AlreadyExists, match='it is active with parent "", not committed'):
        ensure_image(store, src=src)


# -- bad layers ----------------------------------------------------------------


def damaged(store: Snapshotter, tmp_path: Any, change: Callable[[Archive, Any], None]) -> Any:
    """Change the manifest or the layers of an image; return the error that its import raises."""
    archive = Archive()
    manifest = json.loads(archive.files.pop(blob_name(archive.image()["digest"])))
    change(archive, manifest)
    archive.index(archive.json(manifest))
    with pytest.raises((InvalidArgument, FailedPrecondition, NotImplementedHere)) as refused:
        ensure_image(store, src=archive.write(tmp_path / "image.tar"))
    return refused.value


def test_layers_with_other_contents(store: Snapshotter, tmp_path: Any, host: Any) -> None:
    """A layer matches the manifest but not the configuration, then the configuration but not the manifest."""

    def other_diff_id(archive: Archive, manifest: Any) -> None:
        manifest["layers"][1] = archive.blob(packed(layer("other")))

    error = damaged(store, tmp_path, other_diff_id)
    assert f"layer 2 of 3 ({DIFF_IDS[1]}) has the diff id {digest_of(layer('other'))}" in str(error)

    def other_digest(archive: Archive, manifest: Any) -> None:
        archive.files[blob_name(manifest["layers"][1]["digest"])] = LAYERS[1]
        manifest["layers"][1]["size"] = len(LAYERS[1])

    error = damaged(store, tmp_path, other_digest)
    assert f"layer 2 of 3 ({DIFF_IDS[1]}) has the digest {DIFF_IDS[1]}" in str(error)
    assert names(store) == CHAIN[:1]


def test_bytes_after_a_layer_count(store: Snapshotter, tmp_path: Any, host: Any) -> None:
    def trailing(archive: Archive, manifest: Any) -> None:
        data = packed(LAYERS[0]) + bytes(4096)
        archive.files[blob_name(manifest["layers"][0]["digest"])] = data
        manifest["layers"][0]["size"] = len(data)

    assert "layer 1 of 3" in str(damaged(store, tmp_path, trailing))


def test_nothing_is_imported_if_a_layer_is_not_there(
    store: Snapshotter, tmp_path: Any, host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def foreign(_archive: Archive, manifest: Any) -> None:
        manifest["layers"][2] = {"digest": digest_of(b"x"), "size": 1, "urls": ["https://example.com/x"]}

    error = damaged(store, tmp_path, foreign)
    assert error.code == "failed_precondition"
    assert f"image.tar: layer 3 of 3 ({DIFF_IDS[2]}) is not in the archive" in str(error)
    assert "https://example.com/x" in str(error)

    def zstd(archive: Archive, manifest: Any) -> None:
        manifest["layers"][2] = archive.blob(b"\x28\xb5\x2f\xfd...")

    monkeypatch.setattr(image_module, "zstd_codec", lambda: None)
    error = damaged(store, tmp_path, zstd)
    assert error.code == "not_implemented"
    assert "is compressed with zstd, which Python before 3.14 cannot read: send the image from the controller" in str(
        error
    )
    assert not names(store)


# -- which image ---------------------------------------------------------------

VERSIONS = ("10.0.17763.5", "10.0.20348.900", "10.0.20348.1100", "10.0.2034.1")


@pytest.fixture
def many(tmp_path: Any, host: Any) -> str:
    """An archive of one image: its index has a variant for each version."""
    archive = Archive()
    variants = [archive.image([LAYERS[0], layer(version)], version) for version in VERSIONS]
    archive.index(archive.json({"manifests": variants}))
    return archive.write(tmp_path / "many.tar")


@pytest.mark.parametrize(
    ("node", "asked", "chosen"),
    [
        ("10.0.17763", "", "10.0.17763.5"),
        ("10.0.20348", "", "10.0.20348.1100"),
        ("10.0.22631", "", "10.0.20348.1100"),
        ("10.0.26100", "", "10.0.20348.1100"),
        ("10.0.20348", "10.0.20348.900", "10.0.20348.900"),
        ("10.0.20348", "10.0.17763", "10.0.17763.5"),
        ("", "10.0.20348", "10.0.20348.1100"),
    ],
)
def test_the_image_for_a_windows(store: Snapshotter, host: Any, many: str, node: str, asked: str, chosen: str) -> None:
    host(node)
    assert ensure_image(store, src=many, os_version=asked).result["os_version"] == chosen
    assert not store.warnings


@pytest.mark.parametrize(
    ("node", "asked", "message"),
    [
        (
            "10.0.20347",
            "",
            "for Windows 10.0.20347, the version of the node; there are images for 10.0.17763.5, 10.0.2",
        ),
        ("10.0.20348", "10.0.14393", "for Windows 10.0.14393, the version in os_version; there are images for"),
        ("", "", "Windows version is unknown; .* choose one with os_version"),
    ],
)
def test_no_image_for_a_windows(store: Snapshotter, host: Any, many: str, node: str, asked: str, message: str) -> None:
    host(node)
    with pytest.raises(FailedPrecondition, match=message):
        ensure_image(store, src=many, os_version=asked)


@pytest.mark.parametrize("node", ["10.0.19045", "10.0.27500"])
def test_a_single_image_that_the_node_cannot_run(store: Snapshotter, host: Any, src: str, node: str) -> None:
    host(node)
    assert ensure_image(store, src=src).changed
    assert f"the image is for Windows 10.0.20348.1, and the node is Windows {node}" in store.warnings[0]


@pytest.mark.parametrize("node", ["10.0.20348", "10.0.22631", "10.0.26100", ""])
def test_a_single_image_for_an_older_windows(store: Snapshotter, host: Any, src: str, node: str) -> None:
    host(node)
    assert ensure_image(store, src=src).changed
    assert not store.warnings
    with pytest.raises(FailedPrecondition, match="there are images for 10.0.20348.1"):
        ensure_image(store, src=src, os_version="10.0.26100")


@pytest.mark.parametrize(
    ("build", "runs", "refuses"),
    [
        (14393, [14393], [17763, 20348]),
        (17763, [17763], [14393, 17762, 17764, 20348]),
        (20347, [20347], [17763, 20346, 20348]),
        (20348, [20348], [17763, 19045, 20347, 20349, 22631, 26100]),
        (20349, [20348, 20349], [17763, 20347, 20350]),
        (22631, [20348, 22000, 22631], [17763, 20347, 22632, 25398, 26100]),
        (25398, [20348, 22631, 25398], [17763, 26100]),
        (26100, [20348, 22631, 25398, 26100], [17763, 20347, 26101]),
        (26101, [26100, 26101], [20348, 25398, 26099, 26102]),
    ],
)
def test_which_windows_runs_which_image(build: int, runs: List[int], refuses: List[int]) -> None:
    """Revisions do not matter. The cases are next to the limits of containerd's rule."""
    for image in runs:
        assert image_module.can_run(f"10.0.{build}", f"10.0.{image}")
        assert image_module.can_run(f"10.0.{build}", f"10.0.{image}.99999")
    for image in refuses:
        assert not image_module.can_run(f"10.0.{build}", f"10.0.{image}.1")


@pytest.mark.parametrize(
    ("image", "runs"),
    [("", True), ("10.0", False), ("10", False), ("10.0.x", False), ("6.0.20348", False), ("10.1.20348.1", False)],
)
def test_versions_that_are_not_builds(image: str, runs: bool) -> None:
    assert image_module.can_run("10.0.20348", image) is runs


def test_an_image_without_a_version_comes_last(store: Snapshotter, tmp_path: Any, host: Any) -> None:
    host("10.0.26100")
    archive = Archive()
    variants = [archive.image([layer("none")], ""), archive.image([LAYERS[0]], "10.0.17763.1")]
    for variant, chosen in ((None, ""), (archive.image([LAYERS[1]]), "10.0.20348.1")):
        archive.index(archive.json({"manifests": [*variants, *([variant] if variant else [])]}))
        assert ensure_image(store, src=archive.write(tmp_path / "i.tar")).result["os_version"] == chosen


def test_the_version_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WCOW_OS_VERSION", raising=False)
    if os.name == "nt":
        assert image_module.host_version().startswith("10.0.")
        return
    assert image_module.host_version() == ""
    monkeypatch.setenv("WCOW_OS_VERSION", "10.0.20348.2700")
    assert image_module.host_version() == "10.0.20348"


# -- removing ------------------------------------------------------------------


@pytest.mark.parametrize("by", ["src", "chain_id"])
def test_removing_all(store: Snapshotter, open_store: Callable[..., Snapshotter], src: str, by: str) -> None:
    ensure_image(store, src=src)
    which = {"src": src} if by == "src" else {"chain_id": CHAIN[-1]}
    planned = ensure_image(open_store(dry_run=True), "absent", **which)
    assert len(names(store)) == 3
    done = ensure_image(store, "absent", **which)
    assert planned == done
    assert done.result["actions"] == REMOVALS
    assert done.result["kept"] == []
    assert done.result["diff"]["after"] == {}
    assert not names(store)
    again = ensure_image(store, "absent", **which)
    assert not again.changed
    assert again.result["chain_id"] == CHAIN[-1]


def test_what_others_need_stays(store: Snapshotter, src: str) -> None:
    ensure_image(store, src=src)
    store.prepare("work", CHAIN[1])
    done = ensure_image(store, "absent", src=src)
    assert done.result["actions"] == REMOVALS[:1]
    assert done.result["kept"] == CHAIN[:2]
    assert not ensure_image(store, "absent", src=src).changed
    store.remove("work")
    assert ensure_image(store, "absent", chain_id=CHAIN[1]).result["actions"] == REMOVALS[1:]


def test_a_chain_on_a_layer_of_another_name(store: Snapshotter) -> None:
    """The parent does not belong to the image, so it stays."""
    store.prepare("key", "")
    store.commit("base", "key")
    store.prepare("key", "base")
    store.commit(CHAIN[2], "key")
    assert ensure_image(store, "absent", chain_id=CHAIN[2]).result["actions"] == REMOVALS[:1]
    assert names(store) == ["base"]


def test_a_removal_that_was_interrupted(store: Snapshotter, src: str) -> None:
    ensure_image(store, src=src)
    store.remove(CHAIN[2])
    assert ensure_image(store, "absent", src=src).result["actions"] == REMOVALS[1:]


# -- data from the controller --------------------------------------------------


def offer(*images: Any) -> Any:
    return {"images": list(images)}


IMAGE = {"config": digest_of(b"config"), "os_version": "10.0.20348.1", "diff_ids": DIFF_IDS}


def test_planning_for_the_controller(
    store: Snapshotter, open_store: Callable[..., Snapshotter], src: str, host: Any
) -> None:
    host("10.0.20348")
    other = {**IMAGE, "os_version": "10.0.17763.1", "config": digest_of(b"other")}
    planned = ensure_image(open_store(dry_run=True), src=offer(other, IMAGE))
    assert planned.result["actions"] == IMPORTS
    assert planned.result["config"] == IMAGE["config"]
    with pytest.raises(Unavailable, match="layer 1 of 3 .* run the task again"):
        ensure_image(store, src=offer(IMAGE))
    ensure_image(store, src=src)
    assert ensure_image(store, src=offer(IMAGE), labels={"a": "1"}).result["actions"] == [f"update {CHAIN[-1]}"]
    assert ensure_image(store, "absent", src=offer(IMAGE)).result["actions"] == REMOVALS


# -- the door ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "state=present needs src"),
        ({"src": "/a", "chain_id": CHAIN[0]}, "and not chain_id"),
        ({"state": "there", "src": "/a"}, "not one of present, absent"),
        ({"state": "absent"}, "exactly one of src and chain_id"),
        ({"state": "absent", "src": "/a", "chain_id": CHAIN[0]}, "exactly one of src and chain_id"),
        ({"state": "absent", "chain_id": CHAIN[0], "labels": {"a": "b"}}, "no labels"),
        ({"state": "absent", "chain_id": CHAIN[0], "names": ["app:1"]}, "no labels or names"),
        ({"state": "absent", "names": ["app:1"]}, "exactly one of src and chain_id, and no labels or names"),
        ({"state": "absent", "chain_id": "base"}, "chain_id 'base' is not sha256:"),
        ({"src": ["/a"]}, "src must be a path, or"),
        ({"src": {"images": []}}, "src must be a path, or"),
        ({"src": {"images": [1]}}, "src must be a path, or"),
        ({"src": {"images": [{}]}}, "an image in src must have"),
        ({"src": offer({**IMAGE, "diff_ids": []})}, "an image in src must have"),
        ({"src": offer({**IMAGE, "diff_ids": [[]]})}, "an image in src must have"),
        ({"src": offer({**IMAGE, "diff_ids": "sha256"})}, "an image in src must have"),
        ({"src": offer({**IMAGE, "os_version": None})}, "an image in src must have"),
        ({"src": offer({**IMAGE, "config": "config"})}, "an image in src must have"),
        ({"src": "/a", "platform": "linux/amd64"}, "a: platform 'linux/amd64' is not"),
    ],
)
def test_bad_requests(tmp_path: Any, arguments: Any, message: str) -> None:
    if arguments.get("src") == "/a":
        arguments = {**arguments, "src": str(tmp_path / "a")}
    request = {
        "protocol": 1,
        "root": str(tmp_path / "root"),
        "layers": "emulated",
        "operations": [{"operation": "ensure_image", "arguments": arguments}],
    }
    (entry,) = door.handle(json.dumps(request).encode())["results"]
    assert entry["error"]["code"] == "invalid_argument"
    assert message in entry["error"]["message"]
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("options", [{"pinned": False}, {"unpack": True}])
def test_options_of_containerd_only(store: Snapshotter, options: Any) -> None:
    for given in ({"src": "/image.tar"}, {"state": "absent", "chain_id": CHAIN[0]}):
        with pytest.raises(InvalidArgument, match="which our own store does not have: leave them out, or set store"):
            ensure_image(store, **given, **options)
