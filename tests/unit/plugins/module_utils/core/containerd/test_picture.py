# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import os
import pathlib
import time
from typing import Any, Callable, List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import picture
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.lock import DatabaseLock
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd.picture import Paths, read_picture
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    Damaged,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import bolt
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.model import Info
from ansible_collections.wcow.snapshotter.tests.builders.containerd_databases import (
    SNAPSHOTTER,
    TIME_TEXT,
    Objects,
    Records,
    bucket,
    database,
    metadata,
    store,
    write_root,
)


def two_layers() -> Objects:
    objects = Objects()
    objects.snapshot("base", labels={"a": "of the entry", "b": "1"})
    objects.snapshot("top", "base")
    return objects


def two_records() -> Records:
    records = Records()
    records.add("k8s.io/1/base", labels={"a": "of the record", "containerd.io/snapshot.ref": "x"})
    records.add("k8s.io/2/top", 2, "k8s.io/1/base")
    return records


@pytest.fixture
def root(tmp_path: pathlib.Path) -> str:
    write_root(str(tmp_path), metadata(k8s=two_layers()), store(two_records()), ["1", "2"])
    return str(tmp_path)


def test_entries_records_and_directories_are_joined(root: str) -> None:
    found = read_picture(root, SNAPSHOTTER)
    assert [(each.namespace, each.key) for each in found.snapshots] == [("k8s.io", "base"), ("k8s.io", "top")]
    assert all(each.has_directory and each.record == found.store.records[each.entry.name] for each in found.snapshots)
    assert found.directories == picture.Directories((1, 2), (), ())
    assert (found.orphans, found.unknown, found.is_running, found.next_id) == ({}, (), False, 3)


def test_an_info_is_that_of_the_api(root: str) -> None:
    base, top = read_picture(root, SNAPSHOTTER).snapshots
    labels = {"a": "of the entry", "b": "1", "containerd.io/snapshot.ref": "x"}
    assert base.info() == Info("committed", "base", "", labels, TIME_TEXT, TIME_TEXT, 1)
    assert top.info() == Info("active", "top", "base", {}, TIME_TEXT, TIME_TEXT, 2)


def test_what_is_only_on_one_side_is_there(tmp_path: pathlib.Path) -> None:
    objects, records = two_layers(), two_records()
    objects.snapshot("lost")
    records.add("k8s.io/9/removed")
    records.add("k8s.io/10/strange", 4)
    objects.snapshot("strange", name="k8s.io/10/strange")
    names = ["1", "3", "7", "rm-5", "rm-x", "new-8", "007", "0", "rm-007", "x"]
    write_root(str(tmp_path), metadata(k8s=objects), store(records), names)
    found = read_picture(str(tmp_path), SNAPSHOTTER)
    assert [(each.key, each.has_directory, each.info() is None) for each in found.snapshots] == [
        ("base", True, False),
        ("lost", False, True),
        ("strange", False, True),
        ("top", False, False),
    ]
    assert found.snapshots[1].record is None
    assert list(found.orphans) == ["k8s.io/9/removed"]
    assert found.directories == picture.Directories((1, 3, 7), (5,), ("0", "007", "new-8", "rm-007", "rm-x", "x"))
    assert found.unknown == (f"{found.paths.store}: 1 snapshots have the unknown kind 4",)


def test_the_same_key_in_two_namespaces(tmp_path: pathlib.Path) -> None:
    other = Objects()
    other.snapshot("base", name="other/7/base")
    other.snapshot("foreign", snapshotter="native")
    records = two_records()
    records.add("other/7/base")
    write_root(str(tmp_path), metadata(k8s=two_layers(), other=other), store(records), ["1", "2", "3"])
    found = read_picture(str(tmp_path), SNAPSHOTTER).snapshots
    assert [(each.namespace, each.key, each.record and each.record.id) for each in found] == [
        ("k8s.io", "base", 1),
        ("k8s.io", "top", 2),
        ("other", "base", 3),
    ]


def test_a_snapshotter_without_snapshots(tmp_path: pathlib.Path) -> None:
    write_root(str(tmp_path), metadata(k8s=Objects()), None)
    found = read_picture(str(tmp_path), SNAPSHOTTER)
    assert (found.snapshots, found.orphans, found.next_id) == ([], {}, 1)
    assert found.directories == picture.Directories((), (), ())


def test_a_lost_snapshotter_leaves_entries_without_records(tmp_path: pathlib.Path) -> None:
    write_root(str(tmp_path), metadata(k8s=two_layers()), None)
    found = read_picture(str(tmp_path), SNAPSHOTTER)
    assert [(each.key, each.record) for each in found.snapshots] == [("base", None), ("top", None)]


def test_the_process_that_has_the_database_open_is_seen(root: str) -> None:
    with DatabaseLock(Paths(root, SNAPSHOTTER).metadata) as lock:
        assert lock.acquire()
        assert read_picture(root, SNAPSHOTTER).is_running


def test_an_unknown_version_is_named_with_its_file(tmp_path: pathlib.Path) -> None:
    write_root(str(tmp_path), metadata(5, k8s=two_layers()), store(two_records()))
    found = read_picture(str(tmp_path), SNAPSHOTTER)
    assert found.unknown == (
        f"{found.paths.metadata}: the schema has the version 5, and the known versions are 3 and 4",
    )
    assert len(found.snapshots) == 2


# -- a store that changes ------------------------------------------------------------


def changing(monkeypatch: pytest.MonkeyPatch, *changes: Callable[[], None]) -> List[int]:
    """Run the next of these functions each time after the directories are listed. Return the list of these times."""
    listed: List[int] = []
    rest = list(changes)
    list_directories = picture._list_directories

    def list_and_change(path: str) -> Any:
        found = list_directories(path)
        listed.append(len(found.layers))
        if rest:
            rest.pop(0)()
        return found

    monkeypatch.setattr(picture, "_list_directories", list_and_change)
    return listed


def test_a_change_of_either_database_starts_again(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(root, SNAPSHOTTER)
    objects, records = two_layers(), two_records()
    objects.snapshot("new")
    records.add("k8s.io/3/new")

    def change_metadata() -> None:
        pathlib.Path(paths.metadata).write_bytes(metadata(transaction=3, k8s=objects))

    def change_store() -> None:
        pathlib.Path(paths.store).write_bytes(store(records, 3))
        os.mkdir(os.path.join(paths.snapshots, "3"))

    listed = changing(monkeypatch, change_metadata, change_store)
    found = read_picture(root, SNAPSHOTTER)
    assert listed == [2, 2, 3]
    assert [each.key for each in found.snapshots if each.has_directory] == ["base", "new", "top"]


def test_a_database_that_appears_starts_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_root(str(tmp_path), metadata(k8s=two_layers()), None)
    path = pathlib.Path(Paths(str(tmp_path), SNAPSHOTTER).store)
    listed = changing(monkeypatch, lambda: path.write_bytes(store(two_records())) and None)
    found = read_picture(str(tmp_path), SNAPSHOTTER)
    assert len(listed) == 2
    assert len(found.store.records) == 2


def test_a_store_that_never_stops_changing_is_reported(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pathlib.Path(Paths(root, SNAPSHOTTER).metadata)

    def change(number: int) -> None:
        path.write_bytes(metadata(transaction=number, k8s=two_layers()))

    changing(monkeypatch, *[functools.partial(change, number) for number in range(3, 10_000)])
    start = time.monotonic()
    message = r"changed during each attempt to read both, for 0\.05 seconds; run the task again"
    with pytest.raises(Unavailable, match=message):
        read_picture(root, SNAPSHOTTER, seconds=0.05)
    assert time.monotonic() - start < 30

    def read_state(_read: Any, seconds: float) -> bolt.State:
        time.sleep(seconds)
        raise bolt.Changing("the database changed")

    monkeypatch.setattr(bolt, "read_state", read_state)
    with pytest.raises(Unavailable, match=message):
        read_picture(root, SNAPSHOTTER, seconds=0.05)


# -- bad input -----------------------------------------------------------------------


def test_a_root_without_containerd_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*meta\.db; is .* containerd's root directory"):
        read_picture(str(tmp_path), SNAPSHOTTER)


@pytest.mark.parametrize("name", ["metadata", "store"])
@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0" * 8192, bytes(8192)], ids=["empty", "SQLite", "zeros"])
def test_another_file_is_named(root: str, name: str, data: bytes) -> None:
    path = getattr(Paths(root, SNAPSHOTTER), name)
    pathlib.Path(path).write_bytes(data)
    with pytest.raises(FailedPrecondition, match="the file is not a bbolt database of version 2") as raised:
        read_picture(root, SNAPSHOTTER)
    assert raised.value.message.startswith(f"{path}: ")
    assert raised.value.details["path"] == path


@pytest.mark.parametrize("name", ["metadata", "store"])
def test_a_truncated_database_is_named(root: str, name: str) -> None:
    path = pathlib.Path(getattr(Paths(root, SNAPSHOTTER), name))
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(Damaged, match="the database is damaged: the file has .*; nothing was changed") as raised:
        read_picture(root, SNAPSHOTTER)
    assert raised.value.message.startswith(f"{path}: ")


def test_a_damaged_record_is_named_with_its_file(root: str) -> None:
    path = pathlib.Path(Paths(root, SNAPSHOTTER).store)
    path.write_bytes(database(bucket({b"v1": bucket({b"snapshots": bucket({b"k": b"1"})})})))
    with pytest.raises(Damaged, match="metadata.db: the record of the snapshot 'k' is damaged"):
        read_picture(root, SNAPSHOTTER)


@pytest.mark.posix
@pytest.mark.parametrize("name", ["metadata", "store"])
def test_a_special_file_is_an_error(root: str, name: str) -> None:
    path = getattr(Paths(root, SNAPSHOTTER), name)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(FailedPrecondition, match="it is a named pipe, not a file"):
        read_picture(root, SNAPSHOTTER)
