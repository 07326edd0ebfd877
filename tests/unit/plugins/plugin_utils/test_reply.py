# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came back, in all the ways in which it can be wrong."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import NodeFailure, Output, excerpt, parse

PYTHON = r"C:\Program Files\wcow\python\python.exe"
REPLY = '{"protocol": 1, "results": []}'
CRASH = """Traceback (most recent call last):
  File "core/dispatch.py", line 3, in serve
    raise RuntimeError("deep")
RuntimeError: deep
"""
POWERSHELL = """The term 'C:\\Program Files\\wcow\\python\\python.exe' is not recognized as the name of a cmdlet
    + FullyQualifiedErrorId : CommandNotFoundException"""
GERMAN = """Die Benennung "C:\\Python\\python.exe" wurde nicht als Name eines Cmdlet erkannt.
    + FullyQualifiedErrorId : CommandNotFoundException"""


@pytest.mark.parametrize(
    "stdout",
    [
        REPLY,
        REPLY + "\n",
        REPLY + "\r\n\r\n",
        "\ufeff" + REPLY,
        "Welcome to NODE7!\r\n\r\n" + REPLY,
        '{"not": "ours"}\n' + REPLY,
        "{ broken\n" + REPLY,
    ],
)
@pytest.mark.parametrize("code", [0, 1])
def test_a_reply_is_the_last_line(stdout, code):
    assert parse(Output(code, stdout, ""), PYTHON) == ({"protocol": 1, "results": []}, [])


def test_warnings_of_the_loader_and_of_the_reply_are_joined():
    stdout = '{"loader": {"warnings": ["cache"]}}\n{"protocol": 1, "warnings": ["store"], "results": []}\n'
    assert sorted(parse(Output(0, stdout, ""), PYTHON).warnings) == ["cache", "store"]


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        (Output(1, "", POWERSHELL), "failed_precondition", "No Python can be started"),
        (Output(0, "", POWERSHELL), "failed_precondition", "role wcow.snapshotter.python_runtime"),
        (Output(1, "", GERMAN), "failed_precondition", "variable wcow_python"),
        (Output(127, "", "/bin/sh: 1: python9: not found"), "failed_precondition", PYTHON),
        (Output(126, "", "/bin/sh: 1: /etc/passwd: Permission denied"), "failed_precondition", PYTHON),
        (Output(9009, "", ""), "failed_precondition", "No Python can be started"),
        (Output(2, "", "Unknown option: -I\nusage: python [option]"), "failed_precondition", "Python 3.9 or newer"),
        (
            Output(
                1, "", CRASH.replace("RuntimeError: deep", "AttributeError: 'file' object has no attribute 'buffer'")
            ),
            "failed_precondition",
            "Python 3.9 or newer",
        ),
        (Output(0, "hello\n", ""), "failed_precondition", "hello"),
        (Output(70, "", CRASH), "internal", "RuntimeError: deep"),
        (Output(0, "", ""), "unavailable", "connection was lost. Rerunning the task is safe"),
        (Output(1073807364, "", ""), "unavailable", "exit code 1073807364"),
        (Output(0, " \r\n\n", ""), "unavailable", "no reply"),
        (Output(0, REPLY[:-3], ""), "unavailable", "26 characters is not JSON"),
        (Output(0, REPLY + "\n" + REPLY[:1], ""), "unavailable", "Rerunning the task is safe"),
        (Output(0, REPLY + "\nbye", ""), "failed_precondition", "bye"),
        (Output(0, '{"protocol": 2, "results": []}', ""), "internal", "protocol 2, this collection speaks 1"),
        (Output(0, "{}", ""), "internal", "protocol None"),
    ],
)
def test_no_reply_is_explained(output, code, said):
    with pytest.raises(NodeFailure) as caught:
        parse(output, PYTHON)
    assert caught.value.code == code
    assert said in str(caught.value)


def test_an_excerpt_is_short_and_harmless():
    text = "\n".join(f"line {number}\x1b[31m" for number in range(100)) + "\n" + "x" * 10_000
    shown = excerpt(text)
    assert len(shown) < 6 * 201
    assert "\x1b" not in shown
    assert shown.splitlines()[0] == "line 95 [31m"
