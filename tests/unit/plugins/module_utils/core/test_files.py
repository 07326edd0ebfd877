# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test files, directories and the translation of errors. tests/reliability/test_power_loss.py tests the flushes."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
import stat
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.files import (
    file_error,
    file_problem,
    make_directories,
    only_files,
    os_error,
    refuse_special,
    translating_os_errors,
)


def test_all_that_is_missing_is_made(tmp_path: pathlib.Path) -> None:
    make_directories(str(tmp_path / "a" / "b"))
    make_directories(str(tmp_path / "a" / "b"))
    assert os.listdir(tmp_path / "a") == ["b"]


@pytest.mark.posix
def test_only_the_owner_may_enter(tmp_path: pathlib.Path) -> None:
    umask = os.umask(0o022)
    try:
        make_directories(str(tmp_path / "a" / "b"))
    finally:
        os.umask(umask)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")]
    assert modes == [0o755, 0o700]


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    make_directories(str(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) & 0o755 == 0o755


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_the_way(tmp_path: pathlib.Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        make_directories(str(tmp_path / "file" / below))
    assert os.listdir(tmp_path) == ["file"]


def failure(code: int, path: Any = None, winerror: int = 0) -> OSError:
    error = OSError(code, os.strerror(code), path)
    if winerror:
        # Only on Windows, the types of OSError have this attribute.
        error.winerror = winerror  # type: ignore[attr-defined, unused-ignore]
    return error


@pytest.mark.parametrize("translate", [os_error, file_error])
@pytest.mark.parametrize(
    ("error", "expected", "remedy"),
    [
        (failure(errno.ENOSPC), errors.Unavailable, "; free some space on its volume and run the task again"),
        (failure(errno.EDQUOT), errors.Unavailable, "; free some space on its volume and run the task again"),
        (failure(errno.EMFILE), errors.Unavailable, "; raise the limit, "),
        (failure(errno.EBUSY), errors.Unavailable, "; another program uses it: "),
        (failure(errno.EACCES, winerror=32), errors.Unavailable, "; another program uses it: "),
        (failure(errno.EACCES, winerror=33), errors.Unavailable, "; another program uses it: "),
        (failure(errno.EACCES, winerror=5), errors.FailedPrecondition, "; is the volume read-only, "),
        (failure(errno.EROFS), errors.FailedPrecondition, "; is the volume read-only, "),
        (failure(errno.ELOOP), errors.InvalidArgument, "; choose another path"),
        (failure(errno.EIO), errors.Internal, "; check the disk that it lies on"),
        (failure(errno.ENOTDIR), errors.FailedPrecondition, ""),
        (failure(errno.EISDIR), errors.FailedPrecondition, ""),
        (failure(errno.EFBIG), errors.FailedPrecondition, ""),
    ],
)
def test_errors_name_the_object_and_the_remedy(translate: Any, error: OSError, expected: Any, remedy: str) -> None:
    found = translate(error, "cannot read disk x", path="x")
    assert type(found) is expected
    assert found.message.startswith(f"cannot read disk x: {error.strerror}")
    assert remedy in found.message
    assert found.details["path"] == "x"


@pytest.mark.parametrize(
    ("code", "of_a_layer", "of_a_named_file"),
    [
        (errno.ENOENT, errors.FailedPrecondition, errors.NotFound),
        (errno.EEXIST, errors.FailedPrecondition, errors.AlreadyExists),
    ],
)
def test_what_is_missing_or_there_already(code: int, of_a_layer: Any, of_a_named_file: Any) -> None:
    assert type(os_error(failure(code), "cannot read x")) is of_a_layer
    assert type(file_error(failure(code), "cannot read x", "x")) is of_a_named_file


@pytest.mark.parametrize(
    ("needed", "text"), [(7, "needs 7 bytes, {} free on {}; free"), (0, ": {} bytes free on {}; ")]
)
def test_a_full_volume_is_named(tmp_path: pathlib.Path, needed: int, text: str) -> None:
    found = file_error(failure(errno.ENOSPC), "cannot write x", str(tmp_path / "missing" / "x"), needed)
    assert text.format(found.details["free"], found.details["volume"]) in found.message
    assert found.details["needed"] == needed


def test_a_block_names_its_path_and_the_file_that_failed() -> None:
    def fail(path: Any, **options: Any) -> errors.SnapshotterError:
        with pytest.raises(errors.SnapshotterError) as caught, translating_os_errors("cannot delete", "/a", **options):
            raise failure(errno.ENOENT, path)
        return caught.value

    reason = os.strerror(errno.ENOENT)
    for path in ("/a", "", None, b"/a/b"):
        assert fail(path).message == f"cannot delete /a: {reason}"
    assert fail("/a/b").message == f"cannot delete /a: /a/b: {reason}"
    shown = fail("/a/b", display=lambda path: path.upper())
    assert (type(shown), shown.message) == (errors.FailedPrecondition, f"cannot delete /A: /A/B: {reason}")
    assert shown.details == {"path": "/A"}
    assert type(fail("/a", translate=file_error)) is errors.NotFound


@pytest.mark.posix
@pytest.mark.parametrize("mode", ["rb", "r+b", "ab", "wb"])
def test_only_files_are_opened(tmp_path: pathlib.Path, mode: str) -> None:
    """Opening a named pipe would wait for its other end, and so would this test."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        specials = {"pipe": "a named pipe", "link": "a named pipe", "socket": "a socket", ".": "a directory"}
        for name, kind in (*specials.items(), ("/dev/null", "a device"), ("/dev/zero", "a device")):
            path = str(tmp_path / name)
            with pytest.raises(OSError, match=f"it is {kind}, not a file"):
                open(path, mode, opener=only_files)
            with pytest.raises(OSError, match=f"it is {kind}, not a file"):
                refuse_special(path)
            assert file_problem(path) == f"is {kind}, not a file"


def test_files_are_opened(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "file")
    refuse_special(path)
    with pytest.raises(FileNotFoundError):
        open(path, "rb", opener=only_files)
    with open(path, "ab", opener=only_files) as file:
        file.write(b"one")
    with open(path, "rb", opener=only_files) as file:
        assert file.read() == b"one"
    refuse_special(path)
    assert file_problem(path) == ""
    os.truncate(path, 0)
    assert file_problem(path) == "is empty (0 bytes)"
