# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test uploads against the code of the core that receives them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.action import image
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import ociimage
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import decompress
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _upload, _zstd
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._action import TaskFailure
from ansible_collections.wcow.snapshotter.tests.builders.image_archives import LAYERS, packed
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar


class Node:
    """Replaces ``SnapshotterAction.ask``: it calls the door directly, without a connection."""

    def __init__(self, root):
        self.root = root
        self.asked = []

    def ask(self, operation, arguments, attachment=(), check_mode=False):
        self.asked.append((operation, arguments.get("offset")))
        request = {
            "protocol": 1,
            "root": str(self.root),
            "layers": "emulated",
            "check_mode": check_mode,
            "operations": [{"operation": operation, "arguments": arguments}],
        }
        data = "".join(f"{line}\n" for line in attachment).encode()
        (entry,) = door.handle(json.dumps(request).encode(), io.BytesIO(data))["results"]
        if "error" in entry:
            raise TaskFailure(entry["error"]["code"], entry["error"]["message"])
        return entry

    def received(self):
        (file,) = (self.root / "incoming").iterdir()
        return file.read_bytes()


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(_upload, "PIECE", 1_000_000)
    return Node(tmp_path / "root")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "layer.tar"
    path.write_bytes(bytes(range(250)) * 10_000)
    return path


def test_a_file_arrives_in_pieces(node, file):
    assert _upload.upload(str(file), node.ask) == _upload.sha256_of(str(file))
    assert node.asked == [("stage", None), ("stage", 0), ("stage", 1_000_000), ("stage", 2_000_000)]
    assert node.received() == file.read_bytes()


def test_an_upload_continues_where_it_broke_off(node, file):
    arguments = {"digest": _upload.sha256_of(str(file)), "size": 2_500_000, "offset": 0}
    node.ask("stage", arguments, [base64.b64encode(file.read_bytes()[:1_234_567]).decode()])
    node.asked.clear()
    _upload.upload(str(file), node.ask)
    assert node.asked == [("stage", None), ("stage", 1_234_567), ("stage", 2_234_567)]
    assert node.received() == file.read_bytes()


def test_a_file_that_is_there_is_not_sent_again(node, file):
    _upload.upload(str(file), node.ask)
    node.asked.clear()
    _upload.upload(str(file), node.ask)
    assert node.asked == [("stage", None)]


def test_a_part_of_a_file(node, file):
    content = file.read_bytes()[700:2_000_700]
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with file.open("rb") as opened:
        _upload.send(opened, 700, len(content), digest, node.ask)
    assert node.asked == [("stage", None), ("stage", 0), ("stage", 1_000_000)]
    assert node.received() == content


def test_an_empty_file(node, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    _upload.upload(str(tmp_path / "empty"), node.ask)
    assert node.received() == b""


@pytest.mark.parametrize("change", ["shorter", "other"])
def test_a_file_that_changes_meanwhile_is_noticed(node, file, change):
    def ask(operation, arguments, attachment=()):
        if arguments.get("offset") == 0:
            data = file.read_bytes()
            file.write_bytes(data[:1_500_000] if change == "shorter" else data[:1_500_000] + b"x" * 1_000_000)
        return node.ask(operation, arguments, attachment)

    with pytest.raises(TaskFailure, match="changed"):
        _upload.upload(str(file), ask)


def test_a_digest_is_written_as_oci_does(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # From FIPS 180-2, B.1.
    assert _upload.sha256_of(str(tmp_path / "abc")) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.fixture
def layer(tmp_path):
    path = tmp_path / "layer.tar.gz"
    path.write_bytes(packed(LAYERS[0]))
    return path


def test_a_layer_is_sent_and_imported(node, layer):
    done = _upload.import_layer({"name": "os"}, "layer.tar", lambda: _upload.upload(str(layer), node.ask), node.ask)
    assert (done["changed"], done["result"]["actions"]) == (True, ["import os"])
    assert list((node.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("moment", ["while it sends", "after it sent"])
def test_another_task_imports_the_same_layer(node, layer, moment):
    """The other task deletes the file that both sent."""

    def transfer():
        digest = _upload.upload(str(layer), node.ask)
        node.ask("ensure_layer", {"name": "os", "src": {"staged": digest}})
        if moment == "while it sends":
            raise TaskFailure("unavailable", "another task sends other bytes")
        return digest

    done = _upload.import_layer({"name": "os"}, "layer.tar", transfer, node.ask)
    assert (done["changed"], done["result"]["actions"], done["result"]["layer"]) == (False, [], None)
    with pytest.raises(TaskFailure, match="with parent"):
        _upload.import_layer({"name": "os", "parent": "other"}, "layer.tar", transfer, node.ask)


def test_a_transfer_that_fails(node):
    def transfer():
        raise TaskFailure("unavailable", "the volume is full")

    with pytest.raises(TaskFailure, match="the volume is full"):
        _upload.import_layer({"name": "os"}, "layer.tar", transfer, node.ask)


# -- layers with zstd ----------------------------------------------------------

LAYER = tarfile_tar(("Files", "directory"), ("Files/a", bytes(range(256)) * 500))
SKIPPABLE = b"\x52\x2a\x4d\x18\4\0\0\0abcd"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def zstandard():
    return pytest.importorskip("zstandard")


@pytest.mark.parametrize("before", [b"", SKIPPABLE])
def test_a_zstd_layer_arrives_with_gzip_and_the_same_diff_id(node, tmp_path, zstandard, before):
    path = tmp_path / "layer.tar.zst"
    pack = zstandard.ZstdCompressor().compress
    path.write_bytes(before + pack(LAYER[:5000]) + pack(LAYER[5000:]))
    digest = _upload.upload(str(path), node.ask, digest_of(LAYER))
    assert gzip.decompress(node.received()) == LAYER
    assert digest == digest_of(node.received())
    # A second task continues where the first one stopped, so the bytes must be the same.
    assert _upload.upload(str(path), node.ask) == digest
    node.ask("ensure_layer", {"name": "os", "src": {"staged": digest}, "digest": digest_of(LAYER)})
    assert not list((tmp_path / "root" / "incoming").iterdir())


@pytest.mark.parametrize("change", [lambda data: data[:-4], lambda data: data[:20] + b"\xff" * 40 + data[60:]])
def test_a_damaged_zstd_layer_is_not_sent(node, tmp_path, zstandard, change):
    path = tmp_path / "layer.tar.zst"
    path.write_bytes(change(zstandard.ZstdCompressor(write_checksum=True).compress(LAYER)))
    with pytest.raises(TaskFailure, match=r"layer\.tar\.zst: the compressed layer is (cut off|damaged)"):
        _upload.upload(str(path), node.ask)
    assert not node.asked


def test_a_zstd_bomb_stays_on_the_controller_unless_its_digest_is_right(node, tmp_path, zstandard, monkeypatch):
    monkeypatch.setattr(decompress, "_RATIO_GRACE", 1 << 16)
    plain = tarfile_tar(("Files", "directory"), ("Files/zeros", bytes(4 << 20)))
    path = tmp_path / "layer.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(plain))
    with pytest.raises(TaskFailure, match="more than 250 times its size"):
        _upload.upload(str(path), node.ask, digest_of(b""))
    assert not node.asked
    _upload.upload(str(path), node.ask, digest_of(plain))
    assert gzip.decompress(node.received()) == plain


def test_a_controller_without_zstd_names_the_package(node, tmp_path, monkeypatch):
    monkeypatch.setattr(_zstd, "codec", lambda: None)
    path = tmp_path / "layer.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(TaskFailure, match=r"install the package zstandard for it \(pip install zstandard\)") as caught:
        _upload.upload(str(path), node.ask)
    assert caught.value.code == "failed_precondition"
    assert not node.asked


def test_a_full_temporary_directory_is_named(node, tmp_path, zstandard, monkeypatch):
    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_zstd.shutil, "copyfileobj", refuse)
    path = tmp_path / "layer.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(LAYER))
    with pytest.raises(TaskFailure, match="Cannot repack .* No space left on device; set TMPDIR"):
        _upload.upload(str(path), node.ask)


def test_a_node_with_zstd_reads_such_a_layer_itself(node, tmp_path, zstandard, monkeypatch):
    """A codec with the interface of ``compression.zstd``, which Python 3.14 brings, stands for it."""
    own = _zstd.codec()
    monkeypatch.setattr(decompress, "zstd_codec", lambda: own)
    path = tmp_path / "layer.tar.zst"
    path.write_bytes(SKIPPABLE + zstandard.ZstdCompressor().compress(LAYER))
    done = node.ask("ensure_layer", {"name": "os", "src": str(path), "digest": digest_of(LAYER)})
    assert done["result"]["layer"]["digest"] == digest_of(LAYER)


@pytest.mark.parametrize("offset", [2_500_000, 2_500_001, (1 << 63) - 1])
def test_a_node_that_asks_for_more_than_there_is(file, offset):
    def ask(_operation, _arguments, _attachment=()):
        return {"result": {"offset": offset, "complete": False}}

    with pytest.raises(TaskFailure, match=f"The node's reply cannot be used: it asks for byte {offset} of 2500000"):
        _upload.upload(str(file), ask)


def test_a_node_that_chooses_an_image_that_was_not_offered():
    layer = ociimage.Layer("sha256:a", "", -1, None, ())
    offered = [ociimage.Image("config", "10.0.1", (layer,)), ociimage.Image("other", "10.0.2", (layer, layer))]
    link = {"diff_id": "sha256:a", "name": "n", "parent": "", "imported": True}
    assert image.chosen(offered, {"config": "config", "chain": [link]}) is offered[0]
    for result in (
        {"config": "third", "chain": [link]},
        {"chain": [link]},
        {"config": "config", "chain": [link, link]},
        {"config": "other", "chain": [link, {**link, "diff_id": "sha256:b"}]},
    ):
        with pytest.raises(TaskFailure, match="it chooses an image that was not offered"):
            image.chosen(offered, result)
