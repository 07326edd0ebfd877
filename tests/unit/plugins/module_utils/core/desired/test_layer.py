# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test imports of layers from tars."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import tarfile
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.layer import ensure_layer
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.snapshot import ensure_snapshot
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.tar import decompress
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.labels import SNAPSHOT_REF
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.snapshotter import Snapshotter
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.staging import Staging
from ansible_collections.wcow.snapshotter.tests.builders.layer_tars import tarfile_tar
from ansible_collections.wcow.snapshotter.tests.builders.stores import open_store
from ansible_collections.wcow.snapshotter.tests.unit.plugins.module_utils.core.desired.task import Task

GIB = 1024**3


def test_layer(task: Task, archive: str) -> None:
    with gzip.open(archive) as file:
        digest = "sha256:" + hashlib.sha256(file.read()).hexdigest()
    wrong = "sha256:" + "0" * 64
    with pytest.raises(InvalidArgument, match=f"the layer's digest is {digest}, not {wrong}"):
        ensure_layer(task.store, "os", archive, digest=wrong)
    assert [info.name for info in task.store.walk()] == ["base"]
    done = task(ensure_layer, "os", archive, digest=digest, labels={"l": "1"})
    assert done.result["actions"] == ["import os"]
    assert done.result["snapshot"]["labels"] == {"l": "1", SNAPSHOT_REF: digest}
    imported = ensure_layer(task.store, "os2", archive).result["layer"]
    assert (imported["digest"], imported["entries"]) == (digest, 4)
    directory = os.path.join(task.store.root, "snapshots", str(task.store.stat("os").id))
    assert {"Files", "Hives", "blank.vhdx", "blank-base.vhdx"} <= set(os.listdir(directory))
    task.fails(
        AlreadyExists,
        '"os" is a committed snapshot without a parent, not .* with parent "base"',
        ensure_layer,
        "os",
        archive,
        parent="base",
    )
    nowhere = archive + "-elsewhere"
    task.fails(NotFound, f"src {re.escape(nowhere)} does not exist on the node", ensure_layer, "x", nowhere)
    assert (
        task(ensure_snapshot, "active", key="a", parent="os", rootfs_size="40GB").result["snapshot"]["rootfs_size"]
        == 40 * GIB
    )


@pytest.mark.parametrize("labels", [None, {"team": "blue"}, {"team": "green"}])
def test_a_task_that_is_quicker(store: Snapshotter, archive: str, monkeypatch: pytest.MonkeyPatch, labels: Any) -> None:
    """This task did not import anything, whatever it planned. Its labels still count."""
    slow = store.import_layer

    def import_layer(name: str, *arguments: Any) -> Any:
        monkeypatch.setattr(store, "import_layer", slow)
        ensure_layer(store, name, archive, labels={"team": "blue"})
        return slow(name, *arguments)

    monkeypatch.setattr(store, "import_layer", import_layer)
    done = ensure_layer(store, "os", archive, labels=labels)
    updated = labels == {"team": "green"}
    assert (done.changed, done.result["actions"]) == (updated, ["update os"] if updated else [])
    assert done.result["layer"] is None
    with gzip.open(archive) as file:
        found_by = {SNAPSHOT_REF: "sha256:" + hashlib.sha256(file.read()).hexdigest()}
    assert done.result["diff"]["before"]["os"]["labels"] == {"team": "blue", **found_by}
    assert (
        done.result["diff"]["after"]["os"]["labels"]
        == done.result["snapshot"]["labels"]
        == {**(labels or {"team": "blue"}), **found_by}
    )


def test_the_label_for_adoption(store: Snapshotter, archive: str, tmp_path: Any) -> None:
    """Its value is the chain id of image-spec config.md: the diff id, or SHA-256 of "<parent's> <diff id>"."""
    with gzip.open(archive) as file:
        plain = file.read()
    diff_id = "sha256:" + hashlib.sha256(plain).hexdigest()
    second = "sha256:" + hashlib.sha256(f"{diff_id} {diff_id}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {diff_id}".encode()).hexdigest()
    (tmp_path / "plain.tar").write_bytes(plain)
    ensure_layer(store, "os", archive)
    ensure_layer(store, "tools", str(tmp_path / "plain.tar"), parent="os", digest=diff_id, labels={"team": "blue"})
    ensure_layer(store, "app", archive, parent="tools")
    labels = [store.stat(name).labels for name in ("os", "tools", "app")]
    assert labels == [{SNAPSHOT_REF: diff_id}, {SNAPSHOT_REF: second, "team": "blue"}, {SNAPSHOT_REF: third}]
    # The chain id of "base" is not known: a task committed it from an active snapshot.
    ensure_layer(store, "unknown", archive, parent="base", digest=diff_id)
    ensure_layer(store, "above", archive, parent="unknown", digest=diff_id)
    ensure_layer(store, "unwanted", archive, labels={SNAPSHOT_REF: ""})
    ensure_layer(store, "chosen", archive, labels={SNAPSHOT_REF: "sha256:" + 64 * "1"})
    labels = [store.stat(name).labels for name in ("unknown", "above", "unwanted", "chosen")]
    assert labels == [{}, {}, {}, {SNAPSHOT_REF: "sha256:" + 64 * "1"}]


@pytest.mark.parametrize("with_parent", [False, True])
def test_the_label_of_a_layer_that_exists(task: Task, archive: str, with_parent: bool) -> None:
    """A layer gets the label later only if its name says what it contains: its tar is not read again."""
    store = task.store
    with gzip.open(archive) as file:
        diff_id = "sha256:" + hashlib.sha256(file.read()).hexdigest()
    name, parent = diff_id, ""
    if with_parent:
        ensure_layer(store, "os", archive)
        name, parent = "sha256:" + hashlib.sha256(f"{diff_id} {diff_id}".encode()).hexdigest(), "os"
    for existing in (name, "sha256:" + 64 * "2", "other"):
        ensure_layer(store, existing, archive, parent=parent, labels={SNAPSHOT_REF: ""})
    done = task(ensure_layer, name, archive + "-gone", parent=parent, digest=diff_id)
    assert (done.result["actions"], done.result["snapshot"]["labels"]) == ([f"update {name}"], {SNAPSHOT_REF: name})
    assert not ensure_layer(store, name, archive, parent=parent).changed
    for other in ("sha256:" + 64 * "2", "other"):
        assert not ensure_layer(store, other, archive, parent=parent, digest=diff_id).changed
        assert store.stat(other).labels == {}


@pytest.mark.parametrize("form", ["{}", "sha256:{}", "SHA256:{}"])
def test_digests_in_other_spellings(store: Snapshotter, archive: str, form: str) -> None:
    with gzip.open(archive) as file:
        digits = hashlib.sha256(file.read()).hexdigest().upper()
    assert ensure_layer(store, "os", archive, digest=form.format(digits)).changed


@pytest.mark.parametrize("src", ["nothing", {"staged": "sha256:" + 64 * "0"}])
def test_a_bad_digest_is_refused_first(task: Task, src: Any) -> None:
    """The controller asks before it sends the file."""
    task.fails(InvalidArgument, "digest 'md5:0' is not sha256: and 64 hex", ensure_layer, "os", src, digest="md5:0")


def test_sources_that_are_not_files_with_content(task: Task, tmp_path: Any) -> None:
    (tmp_path / "empty").write_bytes(b"")
    for src in ("", " "):
        task.fails(InvalidArgument, "src is empty: it must name the layer tar", ensure_layer, "os", src)
    task.fails(
        InvalidArgument, "empty on the node is empty .0 bytes.: src must", ensure_layer, "os", str(tmp_path / "empty")
    )
    task.fails(InvalidArgument, "on the node is a directory, not a file: src must", ensure_layer, "os", str(tmp_path))
    task.fails(NotFound, "does not exist on the node", ensure_layer, "os", str(tmp_path / "empty" / "x"))


@pytest.mark.posix
def test_a_named_pipe_is_not_opened(task: Task, tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    task.fails(InvalidArgument, "on the node is a named pipe, not a file", ensure_layer, "os", str(tmp_path / "pipe"))


@pytest.mark.posix
@pytest.mark.parametrize("name", ["{}", "{}.part"])
def test_a_named_pipe_among_the_staged_files(store: Snapshotter, name: str) -> None:
    """Nothing waits for its other end. A file replaces the pipe."""
    data = b"not a layer"
    digits = hashlib.sha256(data).hexdigest()
    staging = Staging(store.root, store.layers)
    os.makedirs(os.path.join(store.root, "incoming"), exist_ok=True)
    os.mkfifo(os.path.join(store.root, "incoming", name.format(digits)))
    lines = io.BytesIO(base64.b64encode(data))
    with pytest.raises(NotFound, match="has not been received"):
        ensure_layer(store, "os", {"staged": f"sha256:{digits}"})
    assert staging.receive(f"sha256:{digits}", len(data), 0, lines)["complete"]
    assert staging.discard(f"sha256:{digits}")


def test_a_digest_outranks_what_a_layer_looks_like(store: Snapshotter, tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(decompress, "_RATIO_GRACE", 1 << 16)
    xattr = {"SCHILY.xattr.user.DOSATTRIB": "\0\0\5\0\udcd3"}
    shapes = {
        "mark": tarfile_tar(("Files", "directory"), ("Files/a", b""))[:1024],
        "zeros": gzip.compress(tarfile_tar(("Files", "directory"), ("Files/a", bytes(1 << 20)))),
        "dot": tarfile_tar(("./", "directory"), ("./Files", "directory"), ("./Files/a", b"a")),
        "xattr": tarfile_tar(("Files", "directory"), ("Files/a", b"", "", xattr)),
    }
    for name, data in shapes.items():
        path = tmp_path / name
        path.write_bytes(data)
        plain = gzip.decompress(data) if name == "zeros" else data
        if name != "xattr":
            for digest in ("", "sha256:" + 64 * "0"):
                with pytest.raises(InvalidArgument, match="give its digest" if not digest else "cut off|times|digest"):
                    ensure_layer(store, name, str(path), parent="base", digest=digest)
        digest = "sha256:" + hashlib.sha256(plain).hexdigest()
        assert ensure_layer(store, name, str(path), parent="base", digest=digest).result["layer"]["digest"] == digest


@pytest.mark.parametrize(
    ("src", "written"),
    [("C:\new.tar", r"\n"), ("C:\temp.tar", r"\t"), ("/srv/a\rb", r"\r"), ("C:\x07pp.tar", r"\a"), ("\x1b", r"\e")],
)
def test_a_path_in_which_yaml_saw_an_escape(task: Task, src: str, written: str) -> None:
    message = rf"src .* contains the control character that YAML makes of {re.escape(written)} in double quotes"
    task.fails(InvalidArgument, message, ensure_layer, "x", src)


def test_a_refused_layer_leaves_nothing(store: Snapshotter, tmp_path: Any) -> None:
    path = str(tmp_path / "evil.tar")
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("Files/good"))
        tar.addfile(tarfile.TarInfo("Files/../../evil"))
    before = sorted(os.listdir(os.path.join(store.root, "snapshots")))
    with pytest.raises(InvalidArgument, match="evil"):
        ensure_layer(store, "x", path)
    assert sorted(os.listdir(os.path.join(store.root, "snapshots"))) == before
    assert [info.name for info in store.walk()] == ["base"]
    assert not os.path.exists(os.path.join(store.root, "evil"))


def test_only_check_mode_assumes_that_the_parent_exists(store: Snapshotter, archive: str) -> None:
    """A real import makes a dry run first, to know whether the node needs the file. It must not assume anything."""
    trial = open_store(store.root, dry_run=True)
    with pytest.raises(NotFound, match='missing parent "os" bucket: not found'):
        ensure_layer(trial, "app", archive, parent="os")
    planned = ensure_layer(trial, "app", archive, parent="os", assume=True)
    assert planned.result["actions"] == ["import app"]
    assert len(trial.warnings) == 1
    with pytest.raises(NotFound, match='missing parent "os" bucket: not found'):
        ensure_layer(store, "app", archive, parent="os", assume=True)
    assert [info.name for info in store.walk()] == ["base"]
