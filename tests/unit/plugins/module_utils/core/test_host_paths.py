# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that no reply of a lab node shows a path of the lab's own host: users see drive letters, whatever fails."""

from __future__ import annotations

import errno
import gzip
import inspect
import io
import json
import os
import sqlite3
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import drives
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import layer_tar
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed, open_store
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.check import situations

pytestmark = pytest.mark.posix

ROOT = "C:\\ProgramData\\wcow"
LAYER = layer_tar(("Files", "directory"), ("Files/a", b"x"))

SITUATIONS = [
    function
    for _name, function in inspect.getmembers(situations, inspect.isfunction)
    if inspect.signature(function).return_annotation == "None"
    and list(inspect.signature(function).parameters) == ["store"]
]


class Node:
    """A lab node. Its drives are in a directory whose name is in no reply."""

    def __init__(self, directory: Path) -> None:
        self.drives = directory / "secret host"
        self.root = self.drives / "C" / "ProgramData" / "wcow"
        self.root.parent.mkdir(parents=True)
        self.replies = 0

    def ask(self, *operations: Any, **keys: Any) -> List[Dict[str, Any]]:
        """Return the entries of the reply, which shows no path of the host."""
        listed = [{"operation": name, "arguments": arguments} for name, arguments in operations]
        request = {"protocol": 1, "root": ROOT, "layers": "emulated", "operations": listed, "on_error": "continue"}
        request["environment"] = {drives.VARIABLE: str(self.drives)}
        reply = door.handle(json.dumps({**request, **keys}).encode(), io.BytesIO())
        text = json.dumps(reply, ensure_ascii=False)
        for leak in ("secret host", str(self.drives.parent), drives.VARIABLE):
            assert leak not in text, text
        results: List[Dict[str, Any]] = reply["results"]
        return results

    def refused(self, *operations: Any, **keys: Any) -> str:
        """Return the messages of a reply in which every operation failed."""
        results = self.ask(*operations, **keys)
        assert not any(result["ok"] for result in results), results
        return "\n".join(result["error"]["message"] for result in results)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    # Requests set the variable themselves. The end of the test takes it back.
    monkeypatch.delenv(drives.VARIABLE, raising=False)
    monkeypatch.setenv(drives.VARIABLE, "")
    return Node(tmp_path)


@pytest.fixture
def store(node: Node) -> Snapshotter:
    """The store of the tests of the check, on the node's drive."""
    opened = open_store(str(node.root))
    opened.prepare("b", "")
    os.makedirs(situations.path(opened, "snapshots", "1", "UtilityVM", "Files"))
    opened.commit("base", "b")
    add_committed(opened, "app", "base")
    ensure_snapshot(opened, "active", key="work", parent="app", rootfs_size="40GB", uvm_scratch=True)
    opened.view("look", "app")
    return opened


#: What tasks ask a store, in an order in which later operations meet what earlier ones did.
QUESTIONS = (
    ("check", {"inventory": True}),
    ("list", {"usage": True, "mounts": True, "scratch": True}),
    ("ensure_scratch", {"key": "work", "size": "60GB"}),
    (
        "ensure_snapshot",
        {"state": "active", "key": "next", "parent": "app", "rootfs_size": "30GB", "uvm_scratch": True},
    ),
    ("ensure_mount", {"state": "mounted", "key": "work", "target": "C:\\mounts\\work"}),
    ("ensure_mount", {"state": "mounted", "key": "look", "target": "C:\\mounts\\look"}),
    ("mount", {"key": "look", "target": "C:\\mounts\\work"}),
    ("ensure_scratch", {"key": "work", "size": "80GB"}),
    ("ensure_snapshot", {"state": "committed", "key": "work", "name": "done"}),
    ("ensure_export", {"name": "app", "dest": "C:\\app.tar"}),
    ("ensure_mount", {"state": "unmounted", "key": "work"}),
    ("ensure_snapshot", {"state": "committed", "key": "next", "name": "new"}),
    ("ensure_snapshot", {"state": "absent", "key": "look"}),
    ("ensure_store", {"state": "absent"}),
)
REPAIRS = (
    ("check", {"repair": True, "inventory": True, "at_restart": True}),
    ("ensure_store", {"state": "present", "rootfs_size": "30GB", "force": True}),
    ("ensure_store", {"state": "absent", "force": True}),
)


@pytest.mark.parametrize("make", SITUATIONS, ids=lambda make: str(make.__name__))
def test_every_situation_of_the_check(node: Node, store: Snapshotter, make: Callable[[Snapshotter], None]) -> None:
    make(store)
    store.close()
    node.ask(*QUESTIONS, *REPAIRS, check_mode=True)
    node.ask(*QUESTIONS)
    node.ask(*REPAIRS)


def damage_record(node: Node) -> None:
    (node.root / "snapshots" / "3" / "sandbox.mounts.json").write_text("{")


def damage_target(node: Node) -> None:
    (node.drives / "C" / "mounts").mkdir()
    (node.drives / "C" / "mounts" / ".work.wcow-mount.json").write_text("{")


def damage_tombstones(node: Node) -> None:
    (node.root / "snapshots" / "2" / "tombstones.txt").write_text("?")


def add_special_file(node: Node) -> None:
    os.mkfifo(node.root / "snapshots" / "2" / "Files" / "pipe")


def add_two_cases(node: Node) -> None:
    for name in ("a", "A"):
        (node.root / "snapshots" / "2" / "Files" / name).touch()


def add_bad_name(node: Node) -> None:
    (node.root / "snapshots" / "2" / "Files" / "a:Zone.Identifier").touch()


def fill_target(node: Node) -> None:
    (node.drives / "C" / "mounts" / "work" / "full").mkdir(parents=True)


def block_target(node: Node) -> None:
    (node.drives / "C" / "mounts").touch()


def block_locks(node: Node) -> None:
    for entry in (node.root / "locks").iterdir():
        entry.unlink()
    (node.root / "locks").rmdir()
    (node.root / "locks").touch()


def remove_hard(node: Node) -> None:
    (node.root / "metadata.sqlite3").unlink()
    (node.root / "metadata.sqlite3").mkdir()


def replace_schema(node: Node) -> None:
    with sqlite3.connect(node.root / "metadata.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def belong_to_containerd(node: Node) -> None:
    (node.root / "metadata.db").touch()


def belong_to_someone_else(node: Node) -> None:
    (node.root / "metadata.sqlite3").unlink()
    (node.root / "letters").mkdir()


DAMAGES = (
    damage_record, damage_target, damage_tombstones, add_special_file, add_two_cases, add_bad_name, fill_target,
    block_target, block_locks, remove_hard, replace_schema, belong_to_containerd, belong_to_someone_else,
)  # fmt: skip


@pytest.mark.parametrize("make", DAMAGES, ids=lambda make: str(make.__name__))
def test_damages_of_other_kinds(node: Node, store: Snapshotter, make: Callable[[Node], None]) -> None:
    store.close()
    make(node)
    node.ask(*QUESTIONS, *REPAIRS, check_mode=True)
    node.ask(*QUESTIONS)
    node.ask(*REPAIRS)


def test_files_that_cannot_be_imported(node: Node) -> None:
    images = node.drives / "C" / "images"
    images.mkdir()
    contents = {
        "empty": b"",
        "text": b"x" * 2000,
        "cut.tar": LAYER[:700],
        "cut.tar.gz": gzip.compress(LAYER)[:-9],
        "directories.tar": layer_tar(("Files", "directory"), ("Files/d/a", b"x")),
        "image.tar": b"\x28\xb5\x2f\xfd" + bytes(600),
    }
    for name, content in contents.items():
        (images / name).write_bytes(content)
    (images / "layout").mkdir()
    sources = [*contents, "missing", "layout", "layout\\missing", "text\\below"]
    for operation in ("ensure_layer", "ensure_image"):
        name = {"name": "x"} if operation == "ensure_layer" else {}
        node.refused(*((operation, {**name, "src": f"C:\\images\\{source}"}) for source in sources))
        assert "network" not in node.refused((operation, {**name, "src": "\\\\files\\images\\x.tar"}))


def test_paths_that_are_refused(node: Node) -> None:
    for root in ("/srv", str(node.root), "Z:\\wcow", "C:\\a:Zone.Identifier", "C:\\..\\..\\x\0", "wcow"):
        (request,) = (
            {"protocol": 1, "root": root, "layers": "emulated", "operations": [{"operation": "walk", "arguments": {}}]},
        )
        os.environ[drives.VARIABLE] = str(node.drives)
        reply = door.handle(json.dumps(request).encode())
        assert not all(result["ok"] for result in reply["results"]) or "error" in reply
    (node.drives / "C" / "file").touch()
    node.refused(("walk", {}), ("ensure_store", {}), root="C:\\file")
    node.refused(("ensure_store", {}), ("prepare", {"key": "a"}), root="C:\\file\\below")
    assert "this host does not have" in node.refused(("prepare", {"key": "a"}), root="D:\\wcow")
    node.ask(("prepare", {"key": "base"}), ("commit", {"name": "b", "key": "base"}), ("prepare", {"key": "a"}))
    targets = ("C:\\", "C:\\file", "C:\\file\\x", f"{ROOT}\\snapshots\\2\\x", "/mnt", "Z:\\x", "C:\\" + "n\\" * 2100)
    node.refused(*(("mount", {"key": "a", "target": target}) for target in targets))
    node.refused(*(("ensure_export", {"name": "b", "dest": dest}) for dest in (*targets[:1], "C:\\no\\x", "/x.tar")))


def failing(genuine: Callable[..., Any], code: int) -> Callable[..., Any]:
    """Return a function of ``os`` that fails with an error for each path of the node, and works elsewhere."""

    def fail(path: Any, *rest: Any, **options: Any) -> Any:
        if isinstance(path, int) or "secret host" in os.fspath(path):
            raise OSError(code, os.strerror(code), path if isinstance(path, str) else None)
        return genuine(path, *rest, **options)

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENAMETOOLONG])
def test_errors_of_the_host(node: Node, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    (node.drives / "C" / "layer.tar").write_bytes(LAYER)
    operations = (
        ("ensure_store", {}),
        ("ensure_layer", {"name": "base", "src": "C:\\layer.tar"}),
        ("prepare", {"key": "a", "parent": "base"}),
        ("mount", {"key": "a", "target": "C:\\m"}),
        ("check", {"repair": True}),
    )
    kinds = ("fsync", "rename", "replace", "mkdir", "chmod", "listdir", "open", "scandir")
    for name in kinds:
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(getattr(os, name), code))
            node.ask(*operations)
    node.ask(*operations)
    for name in kinds:
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(getattr(os, name), code))
            node.ask(*operations, *QUESTIONS, *REPAIRS)


def test_a_defect_of_the_core(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Metastore, *_: Any, **_options: Any) -> None:
        raise ValueError(f"unexpected: {node.root}/metadata.sqlite3")

    monkeypatch.setattr(Metastore, "write", fail)
    assert node.refused(("prepare", {"key": "a"})) == f"ValueError: unexpected: {ROOT}\\metadata.sqlite3"
