# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the package does where there is no Windows, and the parts of it that need none."""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import struct
import subprocess
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import win32
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    InvalidArgument,
    NotImplementedHere,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import (
    advapi32,
    kernel32,
    library,
    ntdll,
    safefile,
    trace,
    vmcompute,
)


@pytest.fixture
def recording():
    trace.start()
    yield
    trace.stop()


# -- where there is no Windows -----------------------------------------------


def test_every_module_imports():
    for module in pkgutil.iter_modules(win32.__path__):
        importlib.import_module(f"{win32.__name__}.{module.name}")


def test_errors_do_not_load_ctypes():
    program = f"import sys; import {win32.__name__}.errors; sys.exit('ctypes' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60
    )


@pytest.mark.posix
@pytest.mark.parametrize(
    "call",
    [
        lambda: vmcompute.activate_layer("C:\\1"),
        lambda: kernel32.create_file("C:\\1", 0),
        lambda: safefile.open_root("C:\\1"),
        ntdll.get_version,
        advapi32.is_administrator,
    ],
)
def test_calls_say_that_this_is_no_windows(call):
    with pytest.raises(NotImplementedHere, match="is a part of Windows, and this host runs"):
        call()


@pytest.mark.posix
def test_privileges_say_that_this_is_no_windows():
    with pytest.raises(NotImplementedHere), advapi32.privileges(advapi32.BACKUP):
        raise AssertionError("not reached")


def test_a_nul_in_a_text_is_refused_before_the_call():
    with pytest.raises(InvalidArgument, match="NUL"):
        vmcompute.activate_layer("C:\\layers\\1\0.bak")


# -- paths -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "long"),
    [
        ("C:\\a\\b", "\\\\?\\C:\\a\\b"),
        ("c:/a/./b//c/..", "\\\\?\\c:\\a\\b"),
        ("C:\\", "\\\\?\\C:\\"),
        ("\\\\server\\share\\x", "\\\\?\\UNC\\server\\share\\x"),
        ("\\\\?\\Volume{0}\\x", "\\\\?\\Volume{0}\\x"),
        ("\\\\.\\PhysicalDrive1", "\\\\.\\PhysicalDrive1"),
        ("C:\\trailing. ", "\\\\?\\C:\\trailing. "),
    ],
)
def test_long_paths(path, long):
    assert kernel32.long_path(path) == long


@pytest.mark.parametrize("path", ["", "x", "x\\y", "C:", "C:x", "\\x", "..\\x", "/etc/passwd"])
def test_a_relative_path_has_no_long_form(path):
    with pytest.raises(InvalidArgument, match="not an absolute Windows path"):
        kernel32.long_path(path)


def test_a_path_below_a_root_is_a_plain_one():
    root = kernel32.Handle(1, "C:\\layer")
    for path in ("a:b", "a:b:$DATA", "..", "a\\..\\b", ".", "\\a", "a\\", "a\\\\b", "a/b", "a\0b", "C:\\x"):
        with pytest.raises(InvalidArgument, match="is not a relative path for use in a layer"):
            safefile.open_file(root, path, 0)


# -- who has a file open -------------------------------------------------------


def test_processes_are_read(monkeypatch):
    """Wine has no answer to this. Behind their number comes a list of ids, each as wide as a pointer."""
    seen = []

    def answer(export, file, _status, buffer, size, kind):
        seen.append((export, file, size, kind))
        ctypes.memmove(buffer, struct.pack("<II3Q", 3, 0xFFFFFFFF, 4, 4711, 1 << 31), 32)
        return 0

    monkeypatch.setattr(ntdll.DLL, "call", answer)
    file = kernel32.Handle(1, "C:\\layer\\sandbox.vhdx")
    assert ntdll.get_processes(file) == [4, 4711, 1 << 31]
    assert seen == [("NtQueryInformationFile", file, 8192, 47)]


# -- the trace ---------------------------------------------------------------


def test_nothing_is_recorded_unasked():
    with trace.Call("a.B", {}):
        pass
    assert trace.stop() == []


def test_calls_are_recorded_in_the_order_of_entry(recording):
    with trace.Call("a.Outer", {"path": "C:\\1"}) as outer:
        with trace.Call("a.Inner", {}) as inner:
            inner.failed = 0x80004005
        outer.result = 7
    first, second = trace.stop()
    assert first.pop("seconds") >= second.pop("seconds") >= 0
    assert first == {"call": "a.Outer", "arguments": {"path": "C:\\1"}, "result": 7}
    assert second == {"call": "a.Inner", "arguments": {}, "error": "0x80004005"}


def test_what_raises_on_its_way_is_recorded_too(recording):
    with pytest.raises(InvalidArgument):
        vmcompute.unprepare_layer("C:\\\0")
    (record,) = trace.stop()
    assert record["call"] == "vmcompute.UnprepareLayer"
    assert record["arguments"] == {"path": "C:\\\0"}
    assert "NUL" in record["error"]


# -- libraries ---------------------------------------------------------------


@pytest.mark.posix
def test_what_is_missing_cannot_be_told_elsewhere():
    with pytest.raises(NotImplementedHere):
        library.Library("kernel32.dll", "every Windows", {}).missing()
