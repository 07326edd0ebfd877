# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test Windows paths on a host without drive letters."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument, NotFound
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.layers.emulated import drives


@pytest.fixture
def top(tmp_path, monkeypatch):
    monkeypatch.setenv(drives.VARIABLE, str(tmp_path))
    (tmp_path / "C" / "Program Files" / "wcow").mkdir(parents=True)
    (tmp_path / "D").mkdir()
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
        "/",
        "/srv",
        "//srv/share/a",
        "C/a",
    ],
)
def test_paths_that_are_not_absolute(top, path):
    with pytest.raises(InvalidArgument) as caught:
        drives.to_native(path)
    assert repr(path)[:100] in caught.value.message or "empty" in caught.value.message
    assert caught.value.message.count(":") >= 1


@pytest.mark.posix
def test_posix_paths_are_native_where_no_drives_are_emulated(top, monkeypatch):
    with pytest.raises(InvalidArgument, match="'/srv' is not absolute: give one that starts with a drive"):
        drives.to_native("/srv")
    monkeypatch.delenv(drives.VARIABLE)
    assert drives.to_native("/srv/../a:b") == "/srv/../a:b"
    with pytest.raises(InvalidArgument, match=drives.VARIABLE):
        drives.to_native("C:\\a")
    with pytest.raises(InvalidArgument, match=drives.VARIABLE):
        drives.to_native("\\\\files\\images", shares=True)


def test_only_the_drives_that_the_host_has(top):
    with pytest.raises(NotFound, match="'z:.*' is on the drive Z:, which this host does not have"):
        drives.to_native("z:\\wcow")
    os.rmdir(os.path.join(top, "D"))
    with pytest.raises(NotFound, match="is on the drive D:"):
        drives.to_native("D:\\")


@pytest.mark.posix
def test_a_share_has_a_directory_of_its_own(top):
    os.makedirs(os.path.join(top, "UNC", "files", "Images"))
    for path in ("\\\\files\\images\\x.tar", "\\\\?\\UNC\\FILES\\Images\\x.tar"):
        assert drives.to_native(path, shares=True) == os.path.join(top, "UNC/files/Images/x.tar")
    assert drives.to_native("C:\\a", shares=True) == os.path.join(top, "C/a")
    with pytest.raises(InvalidArgument, match="not absolute"):
        drives.to_native("a", shares=True)


@pytest.mark.parametrize("path", ["C:\\", "C:\\a\\b c", "D:\\x", "\\\\files\\images\\x"])
def test_display_path_is_the_inverse(top, path):
    assert drives.display_path(drives.to_native(path, shares=True)) == path


@pytest.mark.posix
def test_sentences_show_windows_paths(top):
    for said, shown in {
        f"cannot read {top}/C/Program Files/a: it is damaged": "cannot read C:\\Program Files\\a: it is damaged",
        f"cannot rename {top}/C/a to {top}/d/b/c; try again": "cannot rename C:\\a to D:\\b\\c; try again",
        f"[Errno 2] No such file: '{top}/C/a/b'": "[Errno 2] No such file: 'C:\\a\\b'",
        f"5 bytes free on {top}/C; try again": "5 bytes free on C:\\; try again",
        f"cannot read {top}/UNC/files/images/x.tar": "cannot read \\\\files\\images\\x.tar",
        f"{top}/faults.json and {top}": f"{drives.VARIABLE}/faults.json and {drives.VARIABLE}",
        f"{top}x/C/a and /srv{top}/C/a": f"{top}x/C/a and /srv{top}/C/a",
        f"{top}/C": "C:\\",
    }.items():
        assert drives.display(said) == shown
    reply = {"a": [f"{top}/C/x", 7, None, True], f"{top}/C/y": (f"{top}/C/z",)}
    assert drives.display(reply) == {"a": ["C:\\x", 7, None, True], "C:\\y": ["C:\\z"]}


@pytest.mark.posix
def test_drives_behind_a_link(tmp_path, monkeypatch):
    real = tmp_path / "real"
    (real / "C").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    monkeypatch.setenv(drives.VARIABLE, str(tmp_path / "link"))
    for path in (drives.to_native("C:\\a"), os.path.realpath(drives.to_native("C:\\a"))):
        assert drives.display_path(path) == "C:\\a"
        assert drives.display(f"{path}: damaged") == "C:\\a: damaged"


def test_other_paths_are_displayed_unchanged(top, monkeypatch):
    for path in ("/srv/a", top, os.path.join(top, "CC", "a"), top + "x/C/a"):
        assert drives.display_path(path) == path
    monkeypatch.delenv(drives.VARIABLE)
    assert drives.display_path(os.path.join(top, "C/a")) == os.path.join(top, "C/a")
    assert drives.display(os.path.join(top, "C/a")) == os.path.join(top, "C/a")
