# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the package does where there is no Windows, and the parts of it that need none."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import struct
import subprocess
import sys

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import win32
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import (
    Internal,
    InvalidArgument,
    NotImplementedHere,
)
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.win32 import (
    advapi32,
    bindflt,
    kernel32,
    library,
    ntdll,
    safefile,
    trace,
    vmcompute,
)
from hypothesis import example, given
from hypothesis import strategies as st


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
        vmcompute.destroy_layer("C:\\layers\\1\0.bak")


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


# -- the answer of the bind filter -------------------------------------------


def answer(mappings):
    """The bytes that BfGetMappings gives: header, entries, targets, then names."""
    names = b""
    entries, targets = [], []
    start = 12 + 20 * len(mappings) + 8 * sum(len(mapping.targets) for mapping in mappings)

    def place(text):
        nonlocal names
        encoded = text.encode("utf-16-le", "surrogatepass")
        offset = start + len(names)
        names += encoded
        return len(encoded), offset

    for mapping in mappings:
        first = 12 + 20 * len(mappings) + 8 * len(targets)
        entries.append(struct.pack("<5I", *place(mapping.root), mapping.flags, len(mapping.targets), first))
        targets += [struct.pack("<2I", *place(target)) for target in mapping.targets]
    head = struct.pack("<3I", start + len(names), 0, len(mappings))
    return head + b"".join(entries) + b"".join(targets) + names


names = st.text(st.characters(exclude_characters="\0"), max_size=20)
mappings = st.lists(
    st.builds(bindflt.Mapping, names, st.lists(names, max_size=3), st.integers(0, 2**32 - 1)), max_size=4
)


@given(mappings)
@example([])
@example([bindflt.Mapping("\\Device\\HarddiskVolume2\\m", ["\\Device\\HarddiskVolume5\\"], 0x41)])
def test_bindings_are_read(expected):
    assert bindflt.parse_mappings(answer(expected)) == expected


@given(st.data(), mappings)
def test_damaged_bindings_are_an_error_or_bindings(data, given_mappings):
    image = bytearray(answer(given_mappings))
    image[data.draw(st.integers(0, len(image) - 1))] ^= data.draw(st.integers(1, 255))
    del image[data.draw(st.integers(0, len(image))) :]
    with contextlib.suppress(Internal):
        bindflt.parse_mappings(bytes(image))


def test_a_count_of_bindings_without_end_is_refused():
    with pytest.raises(Internal, match="bind filter"):
        bindflt.parse_mappings(struct.pack("<3I", 12, 0, 0xFFFFFFFF))


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
