# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the payload's importer and its place in the cache, without a node."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import time
import traceback
import zipfile

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import boot

FILES = {
    "sample_core/__init__.py": b'"""A package."""\nfrom . import ground\n',
    "sample_core/ground.py": b"VALUE = 'caf\xc3\xa9'\n\n\ndef fall():\n    raise RuntimeError('fell')  # here\n",
    "sample_core/upper/__init__.py": b"",
    "sample_core/upper/door.py": b"from ..ground import VALUE\n",
}
PATH = "/nowhere/wcow-0.zip"


def zipped(stored=()):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED)
    return target.getvalue()


@pytest.fixture
def importer():
    found = boot.PayloadImporter(PATH, zipped())
    sys.meta_path.insert(0, found)
    yield found
    sys.meta_path.remove(found)
    for name in [name for name in sys.modules if name.split(".")[0] == "sample_core"]:
        del sys.modules[name]


@pytest.mark.parametrize("stored", [(), tuple(FILES), ("sample_core/ground.py",)])
def test_every_file_is_read_as_zipfile_reads_it(stored):
    data = zipped(stored)
    importer = boot.PayloadImporter(PATH, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert list(importer.entries) == archive.namelist()
        for name in archive.namelist():
            assert importer.read(name) == archive.read(name) == FILES[name]


def test_packages_and_relative_imports_work(importer):
    import sample_core.upper.door

    assert sample_core.upper.door.VALUE == "café"
    assert sample_core.ground.__file__ == PATH + "/sample_core/ground.py"
    assert sample_core.upper.__path__ == []
    assert sample_core.ground.__spec__.loader is importer


def test_what_the_zip_lacks_is_left_to_others(importer):
    assert importer.find_spec("sample_core.absent") is None
    with pytest.raises(ModuleNotFoundError, match=r"sample_core\.absent"):
        importlib.import_module("sample_core.absent")


def test_a_traceback_shows_source_lines(importer):
    import sample_core.ground

    with pytest.raises(RuntimeError) as caught:
        sample_core.ground.fall()
    assert "raise RuntimeError('fell')  # here" in "".join(traceback.format_exception(*caught._excinfo))


def test_keep_writes_the_whole_file_and_nothing_else(tmp_path, capsys):
    path = tmp_path / "new" / "payload" / "wcow-1.zip"
    boot.keep(str(path), b"bytes")
    assert path.read_bytes() == b"bytes"
    assert os.listdir(path.parent) == ["wcow-1.zip"]
    assert capsys.readouterr().out == ""
    if os.name == "posix":
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_keep_removes_its_own_old_files_only(tmp_path):
    old = time.time() - boot.KEEP_SECONDS - 60
    for name in ("wcow-old.zip", "wcow-old.zip.0a.tmp", "photos.zip"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (old, old))
    (tmp_path / "wcow-other.zip").write_bytes(b"")
    boot.keep(str(tmp_path / "wcow-new.zip"), b"bytes")
    assert sorted(os.listdir(tmp_path)) == ["photos.zip", "wcow-new.zip", "wcow-other.zip"]


def test_keep_warns_where_it_cannot_write(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    boot.keep(str(tmp_path / "file" / "payload" / "wcow-1.zip"), b"bytes")
    note = json.loads(capsys.readouterr().out)
    assert "cannot be kept in " + str(tmp_path / "file" / "payload") in note["loader"]["warnings"][0]


@pytest.mark.posix
def test_keep_does_not_wait_for_a_named_pipe(tmp_path, capsys, monkeypatch):
    os.mkfifo(tmp_path / "wcow-1.zip")

    def replace(source, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", replace)
    boot.keep(str(tmp_path / "wcow-1.zip"), b"bytes")
    assert "cannot be kept in" in capsys.readouterr().out


def test_keep_is_content_with_a_file_that_is_there(tmp_path, capsys, monkeypatch):
    path = tmp_path / "wcow-1.zip"
    path.write_bytes(b"bytes")

    def replace(source, target):
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    monkeypatch.setattr(os, "replace", replace)
    boot.keep(str(path), b"bytes")
    assert capsys.readouterr().out == ""
    assert os.listdir(tmp_path) == ["wcow-1.zip"]
