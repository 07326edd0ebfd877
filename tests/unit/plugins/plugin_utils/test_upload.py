# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads against the real receiving side of the core."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import dispatch
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _upload
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._action import TaskFailure


class Node:
    """SnapshotterAction.ask without a connection in between."""

    def __init__(self, root):
        self.root = root
        self.asked = []

    def ask(self, operation, arguments, attachment=()):
        self.asked.append((operation, arguments.get("offset")))
        request = {
            "protocol": 1,
            "root": str(self.root),
            "layers": "emulated",
            "operations": [{"operation": operation, "arguments": arguments}],
        }
        data = "".join(f"{line}\n" for line in attachment).encode()
        (entry,) = dispatch.handle(json.dumps(request).encode(), io.BytesIO(data))["results"]
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
    # FIPS 180-2, appendix B.1
    assert _upload.sha256_of(str(tmp_path / "abc")) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
