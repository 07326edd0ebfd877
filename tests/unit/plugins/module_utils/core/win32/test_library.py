# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the package on systems other than Windows, and the parts that work on every system."""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

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


# -- other systems -----------------------------------------------------------


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
def test_calls_fail_on_other_systems(call):
    with pytest.raises(NotImplementedHere, match="is a part of Windows, and this host runs"):
        call()


@pytest.mark.posix
def test_privileges_fail_on_other_systems():
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
def test_a_relative_path_does_not_have_a_long_form(path):
    with pytest.raises(InvalidArgument, match="not an absolute Windows path"):
        kernel32.long_path(path)


def test_a_path_below_a_root_is_a_plain_one():
    root = kernel32.Handle(1, "C:\\layer")
    for path in ("a:b", "a:b:$DATA", "..", "a\\..\\b", ".", "\\a", "a\\", "a\\\\b", "a/b", "a\0b", "C:\\x"):
        with pytest.raises(InvalidArgument, match="is not a relative path for use in a layer"):
            safefile.open_file(root, path, 0)


# -- processes that have a file open -------------------------------------------


def test_processes_are_read(monkeypatch):
    """Wine does not implement this call. It returns the number of ids, then the ids, each of the size of a pointer."""
    seen = []

    def answer(export, file, _status, buffer, size, kind):
        seen.append((export, file, size, kind))
        ctypes.memmove(buffer, struct.pack("<II3Q", 3, 0xFFFFFFFF, 4, 4711, 1 << 31), 32)
        return 0

    monkeypatch.setattr(ntdll.DLL, "call", answer)
    file = kernel32.Handle(1, "C:\\layer\\sandbox.vhdx")
    assert ntdll.get_processes(file) == [4, 4711, 1 << 31]
    assert seen == [("NtQueryInformationFile", file, 8192, 47)]


@pytest.mark.parametrize("moved", [0, 700, -300])
def test_the_start_of_windows_does_not_move_with_its_clock(monkeypatch, moved):
    """BootTime moves when the clock is set; BootTimeBias is the sum of these moves."""

    def answer(export, kind, buffer, size, _length):
        assert (export, kind, size) == ("NtQuerySystemInformation", 3, 48)
        ctypes.memmove(buffer, struct.pack("<3q2I2q", 1000 + moved, 0, 0, 0, 0, moved, 0), 48)
        return 0

    monkeypatch.setattr(ntdll.DLL, "call", answer)
    assert ntdll.get_boot_time() == 1000


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
    assert first.pop("microseconds") >= second.pop("microseconds") >= 0
    assert first == {"call": "a.Outer", "arguments": {"path": "C:\\1"}, "result": 7}
    assert second == {"call": "a.Inner", "arguments": {}, "error": "0x80004005"}


def test_what_raises_on_its_way_is_recorded_too(recording):
    with pytest.raises(InvalidArgument):
        vmcompute.unprepare_layer("C:\\\0")
    (record,) = trace.stop()
    assert record["call"] == "vmcompute.UnprepareLayer"
    assert record["arguments"] == {"path": "C:\\\0"}
    assert "NUL" in record["error"]


def test_threads_do_not_see_each_others_calls():
    """Each thread records a call before any thread ends its trace."""
    barrier = threading.Barrier(8, timeout=30)

    def record(number):
        trace.start()
        barrier.wait()
        with trace.Call(f"a.Call{number}", {}):
            barrier.wait()
        return [record["call"] for record in trace.stop()]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(record, range(8)))
    assert found == [[f"a.Call{number}"] for number in range(8)]
    assert trace.stop() == []


# -- libraries ---------------------------------------------------------------


@pytest.mark.posix
def test_missing_exports_are_known_on_windows_only():
    with pytest.raises(NotImplementedHere):
        library.Library("kernel32.dll", "every Windows", {}).missing()
