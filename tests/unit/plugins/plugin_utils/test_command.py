# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test quoting: the shell passes on the path exactly as the user wrote it."""

from __future__ import annotations

import base64
import subprocess

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _command

PATHS = [
    "python",
    r"C:\Program Files\wcow\python\python.exe",
    "/opt/it's here/python",
    '/opt/$HOME `id` "x" \\ * & ; | > python',
    "/opt/no\nnewline",
    "",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_posix_shell_gets_the_words(path):
    line = _command.posix(path).replace(_command.BOOTSTRAP, "BOOTSTRAP")
    shown = subprocess.run(["/bin/sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    words = shown.stdout.decode().split("\0")[:-1]
    assert words == [path, "-I", "-X", "utf8", "-c", "BOOTSTRAP"]


@pytest.mark.parametrize(
    ("path", "literal"),
    [
        (r"C:\Program Files\python.exe", r"'C:\Program Files\python.exe'"),
        (r"C:\it's\python.exe", r"'C:\it''s\python.exe'"),
        ("C:\\\u2018a\u2019b\u201ac\u201bd", "'C:\\\u2018\u2018a\u2019\u2019b\u201a\u201ac\u201b\u201bd'"),
        (r'C:\$env:X `n "q"', r"""'C:\$env:X `n "q"'"""),
        ("'; exit 7 #", "'''; exit 7 #'"),
        ("", "''"),
    ],
)
def test_powershell_literals(path, literal):
    assert _command.quote(path) == literal


def test_the_three_forms_for_windows():
    script = r"$input | & 'C:\python.exe' -I -X utf8 -c 'import sys;exec(sys.stdin.buffer.readline())'"
    assert _command.psrp(r"C:\python.exe") == script
    assert _command.exiting(r"C:\python.exe") == script + "\nexit $LASTEXITCODE"
    prefix, encoded = _command.encoded(_command.exiting(r"C:\python.exe")).rsplit(" ", 1)
    assert prefix == "powershell.exe -NoProfile -NonInteractive -EncodedCommand"
    assert base64.b64decode(encoded).decode("utf-16-le") == _command.exiting(r"C:\python.exe")


def test_the_longest_path_fits_the_command_line_of_cmd():
    # cmd.exe accepts 8191 characters. Windows paths have at most 260, unless long paths are enabled.
    assert len(_command.encoded(_command.exiting("C:\\" + "x" * 256))) < 8191
