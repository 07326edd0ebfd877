# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test what each error of SQLite means. Only damage may say so: it makes users restore a backup."""

from __future__ import annotations

import os
import sqlite3
import sys
from typing import Any, Optional

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.desired.store import ensure_store
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    Damaged,
    FailedPrecondition,
    Internal,
    SnapshotterError,
    Unavailable,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore import errors, file
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.errors import MAXIMUM_SIZE, translate
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.metastore.file import Metastore
from ansible_collections.wcow.snapshotter.tests.builders.stores import add_committed, open_store

#: Message, extended result code, expected error and a part of its message.
CASES = [
    ("database is locked", 5, Unavailable, "have kept the metadata locked"),
    ("database table is locked: snapshots", 6, Unavailable, "have kept the metadata locked"),
    ("database schema is locked: main", 6, Unavailable, "have kept the metadata locked"),
    ("locking protocol", 15, Unavailable, "have kept the metadata locked"),
    ("database or disk is full", 13, Unavailable, "the volume is full"),
    ("disk I/O error", 266, Unavailable, "check that the volume works"),
    ("disk I/O error", 778, Unavailable, "check that the volume works"),
    ("disk I/O error", 4874, Unavailable, "check that the volume works"),
    ("attempt to write a readonly database", 8, FailedPrecondition, "read-only for this user"),
    ("unable to open database file", 14, FailedPrecondition, "cannot be opened"),
    ("no such table: snapshots", 1, Unavailable, "has been removed meanwhile"),
    ("Expression tree is too large (maximum depth 1000)", 1, Internal, "Expression tree"),
    ("too many SQL variables", 1, Internal, "too many SQL variables"),
    ("database disk image is malformed", 11, Damaged, "restore it from a backup"),
    ("malformed database schema (t) - full of nonsense", 11, Damaged, "restore it from a backup"),
    ("file is not a database", 26, Damaged, "restore it from a backup"),
    ("unsupported file format", 1, Damaged, "restore it from a backup"),
    ("FOREIGN KEY constraint failed", 787, Damaged, "restore it from a backup"),
    ("string or blob too big", 18, Damaged, "restore it from a backup"),
    ("interrupted", 9, Damaged, "a query on it does not end"),
    ("Could not decode to UTF-8 column 'labels' with text 'x'", None, Damaged, "restore it from a backup"),
    ("Cannot operate on a closed database.", None, Internal, "closed database"),
]


def translated(text: str, code: Optional[int], path: str) -> SnapshotterError:
    error: Any = sqlite3.OperationalError(text)
    if code is not None:
        error.sqlite_errorcode = code
    return translate(error, path)


@pytest.mark.parametrize(("text", "code", "expected", "part"), CASES)
def test_the_code_decides_where_there_is_one_and_the_text_elsewhere(
    tmp_path: Any, text: str, code: Optional[int], expected: type, part: str
) -> None:
    path = str(tmp_path / "metadata.sqlite3")
    open(path, "wb").close()
    for found in (translated(text, code, path), translated(text, None, path)):
        assert type(found) is expected
        assert part in found.message
        assert ("backup" in found.message) == (expected is Damaged)


def test_python_gives_the_codes_of_real_errors(tmp_path: Any) -> None:
    path = str(tmp_path / "metadata.sqlite3")
    with open(path, "wb") as stream:
        stream.write(b"not SQLite" * 1000)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("SELECT 1 FROM sqlite_master")
    connection.close()
    assert isinstance(translate(caught.value, path), Damaged)
    if sys.version_info >= (3, 11):
        assert caught.value.sqlite_errorcode == 26


def test_a_metadata_file_that_is_gone_was_removed(tmp_path: Any) -> None:
    found = translated("attempt to write a readonly database", 1032, str(tmp_path / "metadata.sqlite3"))
    assert isinstance(found, Unavailable)
    assert "has been removed meanwhile" in found.message


def test_a_metadata_file_that_disappears_while_it_is_opened(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "metadata.sqlite3")
    Metastore(path, create=True).close()
    real = os.path.getsize

    def getsize(asked: str) -> int:
        os.unlink(asked)
        return real(asked)

    monkeypatch.setattr(os.path, "getsize", getsize)
    with pytest.raises(Unavailable, match="has been removed meanwhile; run the task again"):
        Metastore(path)


@pytest.mark.parametrize(("code", "expected"), [(13, "the volume is full"), (14, "its directory is missing")])
def test_a_directory_that_disappears_has_a_message(tmp_path: Any, code: int, expected: str) -> None:
    assert expected in translated("", code, str(tmp_path / "gone" / "metadata.sqlite3")).message


def test_no_room_for_side_files_is_a_full_volume(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_is_full", lambda _path: True)
    for text, code in (("disk I/O error", 4874), ("unable to open database file", 14)):
        assert "the volume is full" in translated(text, code, str(tmp_path / "metadata.sqlite3")).message


def test_the_limit_of_the_file_is_not_a_full_volume(tmp_path: Any) -> None:
    path = str(tmp_path / "metadata.sqlite3")
    with open(path, "wb") as stream:
        stream.truncate(MAXIMUM_SIZE - 1)
    assert "has reached the limit of 128 MiB" in translated("database or disk is full", 13, path).message


def test_an_io_error_destroys_nothing(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With force, state=absent removes damaged metadata. A volume that fails for a moment is not damage."""
    store = open_store(root)
    add_committed(store, "base")
    store.close()

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(file.Metastore, "_check_schema", fail)
        store = open_store(root)
        with pytest.raises(Unavailable, match="disk I/O error"):
            ensure_store(store, "absent", force=True)
        store.close()
    store = open_store(root)
    assert [info.name for info in store.walk()] == ["base"]
    store.close()
