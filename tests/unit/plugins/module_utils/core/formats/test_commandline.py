# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Test the rules for command lines. tests/wine compares them with CommandLineToArgvW."""

from __future__ import annotations

import subprocess
from typing import List

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import InvalidArgument
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats.commandline import join, split
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", []),
        ("  \t ", []),
        ("a", ["a"]),
        (r"C:\bin\containerd.exe --root D:\x", [r"C:\bin\containerd.exe", "--root", "D:\\x"]),
        (
            r'"C:\Program Files\containerd\containerd.exe" --run-service',
            [r"C:\Program Files\containerd\containerd.exe", "--run-service"],
        ),
        (r'a --root="C:\Program Files\x\\" b', ["a", r"--root=C:\Program Files\x" + "\\", "b"]),
        (r"a \\.\pipe\containerd-containerd", ["a", r"\\.\pipe\containerd-containerd"]),
        (r'a "" b', ["a", "", "b"]),
        (r"a \"b c\" d", ["a", '"b', 'c"', "d"]),
        (r'a "b""c" d', ["a", 'b"c d']),
        (r'a "b c', ["a", "b c"]),
        (r'a b\\"c d"', ["a", r"b\c d"]),
        (r"a b\\\"c", ["a", r"b\"c"]),
    ],
)
def test_arguments(text: str, arguments: List[str]) -> None:
    assert split(text) == arguments


@given(st.lists(st.text(st.sampled_from('ab \t"\\')), min_size=1))
def test_what_python_joins_is_split_again(arguments: List[str]) -> None:
    assert split(subprocess.list2cmdline(arguments)) == arguments


@given(st.text(st.sampled_from('ab \t"\\')))
def test_any_text_is_split(text: str) -> None:
    joined = "".join(split(text))
    assert joined.replace("\\", "").replace('"', "").strip() or not text.strip(' \t"\\')


@given(st.lists(st.text(st.sampled_from('ab \t"\\')), max_size=4))
def test_what_is_joined_is_split_again(arguments: List[str]) -> None:
    program = r"C:\Program Files\python.exe"
    joined = join([program, *arguments])
    # Also for programs that read it with the rules of Windows, the program ends at its quote.
    assert joined.startswith(f'"{program}"')
    assert split(joined) == [program, *arguments]


@pytest.mark.parametrize("arguments", [["a%b"], ["a", r"D:\100%"], ["a", "b\0c"], ['a"b']])
def test_what_cannot_be_a_command_line_of_a_service(arguments: List[str]) -> None:
    """Windows replaces %NAME% in it."""
    with pytest.raises(InvalidArgument):
        join(arguments)
