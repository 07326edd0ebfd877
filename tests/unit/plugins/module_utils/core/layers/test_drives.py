# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows paths on a host without drive letters."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers import drives


@pytest.fixture
def top(tmp_path, monkeypatch):
    monkeypatch.setenv(drives.VARIABLE, str(tmp_path))
    (tmp_path / "C" / "Program Files" / "wcow").mkdir(parents=True)
    return str(tmp_path)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("path", "native"),
    [
        ("C:\\a\\b", "C/a/b"),
        ("C:/a/b", "C/a/b"),
        ("c:\\a", "C/a"),
        ("C:\\", "C"),
        ("D:\\new", "D/new"),
        ("C:\\a\\", "C/a"),
        ("C:\\a\\\\b", "C/a/b"),
        ("C:\\a\\.\\b\\..\\c", "C/a/c"),
        ("C:\\..\\..\\a", "C/a"),
        ("\\\\?\\C:\\a", "C/a"),
        ("C:\\PROGRAM files\\WCOW\\New", "C/Program Files/wcow/New"),
        ("C:\\\u00e9t\u00e9", "C/\u00e9t\u00e9"),
    ],
)
def test_native(top, path, native):
    assert drives.to_native(path) == os.path.join(top, native)


@pytest.mark.posix
def test_an_exact_match_wins_over_another_case(top):
    os.mkdir(os.path.join(top, "C", "DATA"))
    os.mkdir(os.path.join(top, "C", "data"))
    assert drives.to_native("C:\\data\\x") == os.path.join(top, "C/data/x")
    assert drives.to_native("C:\\Data\\x") == os.path.join(top, "C/DATA/x")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "a\\b",
        "\\a",
        "C:",
        "C:a",
        "CC:\\a",
        "1:\\a",
        "\\\\server\\share\\a",
        "\\\\?\\UNC\\server\\share",
        "\\\\.\\PhysicalDrive0",
        "\\\\?\\Volume{1}\\a",
        "C:\\a\0b",
        "/a\0b",
        "C:\\a?",
        "C:\\a*",
        'C:\\"a"',
        "C:\\<a>",
        "C:\\a|b",
        "C:\\a:b",
        "C:\\a\nb",
        "C:\\" + "n" * 256,
    ],
)
def test_what_is_no_absolute_path(top, path):
    with pytest.raises(InvalidArgument) as caught:
        drives.to_native(path)
    assert repr(path)[:100] in caught.value.message or "empty" in caught.value.message
    assert caught.value.message.count(":") >= 1


@pytest.mark.posix
def test_posix_paths_are_native(top, monkeypatch):
    assert drives.to_native("/srv/../a:b") == "/srv/../a:b"
    monkeypatch.delenv(drives.VARIABLE)
    assert drives.to_native("/srv") == "/srv"
    with pytest.raises(InvalidArgument, match=drives.VARIABLE):
        drives.to_native("C:\\a")


@pytest.mark.posix
def test_a_share_has_a_directory_of_its_own(top):
    os.makedirs(os.path.join(top, "UNC", "files", "Images"))
    for path in ("\\\\files\\images\\x.tar", "\\\\?\\UNC\\FILES\\Images\\x.tar"):
        assert drives.to_native(path, shares=True) == os.path.join(top, "UNC/files/Images/x.tar")
    assert drives.to_native("C:\\a", shares=True) == os.path.join(top, "C/a")
    with pytest.raises(InvalidArgument, match="not absolute"):
        drives.to_native("a", shares=True)


@pytest.mark.parametrize("path", ["C:\\", "C:\\a\\b c", "Z:\\x", "\\\\files\\images\\x"])
def test_presented_is_the_inverse(top, path):
    assert drives.to_presented(drives.to_native(path, shares=True)) == path


def test_other_paths_are_presented_as_they_are(top, monkeypatch):
    for path in ("/srv/a", top, os.path.join(top, "CC", "a"), top + "x/C/a"):
        assert drives.to_presented(path) == path
    monkeypatch.delenv(drives.VARIABLE)
    assert drives.to_presented(os.path.join(top, "C/a")) == os.path.join(top, "C/a")
