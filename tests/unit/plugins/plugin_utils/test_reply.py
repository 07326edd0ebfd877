# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test how replies of a node are parsed, and every way in which a reply can be wrong."""

from __future__ import annotations

import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import NodeFailure, Output, excerpt, parse
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._text import one_line, several_lines, without_secrets

PYTHON = r"C:\Program Files\wcow\python\python.exe"
REPLY = '{"protocol": 1, "results": []}'
CRASH = """Traceback (most recent call last):
  File "core/door.py", line 3, in serve
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
        (Output(1, "", POWERSHELL), "failed_precondition", "which installs nothing in check mode"),
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
    assert len(shown) < 6 * 203
    assert "\x1b" not in shown
    assert shown.splitlines()[0] == r"| line 95\x1b[31m"


def test_no_line_of_an_excerpt_passes_for_one_of_ansible():
    shown = excerpt("fatal: [node2]: FAILED! => {}\rok: [node3]\u2028ok: [node4]")
    assert all(line.startswith("| ") for line in shown.split("\n"))
    assert len(shown.split("\n")) == len(shown.splitlines()) == 3


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"results":' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        (
            '{"protocol":1,"error":{"code":"internal","message":"x","details":' + '{"a":' * 900 + "1" + "}" * 902,
            "deeply",
        ),
        ('{"protocol":' + "9" * 5000 + "}", "a number has 5000 digits"),
        ('{"protocol":1,"results":[{"result":{"free":' + "9" * 300 + "}}]}", "a number has 300 digits"),
        ('{"protocol":1,"results":[{"result":{"free":9223372036854775808}}]}', "a number has 19 digits"),
        ('{"protocol":1e999}', "1e999 is not a whole number"),
        ('{"protocol":NaN}', "NaN is not a whole number"),
        ('{"protocol":"1"}', "the reply.protocol has an unexpected value"),
        ('{"protocol":1,"results":{}}', "the reply.results has an unexpected value"),
        ('{"protocol":1,"results":["ok"]}', "the reply.results has an unexpected value: 'ok'"),
        ('{"protocol":1,"results":[{"ok":1}]}', "the reply.results.ok"),
        ('{"protocol":1,"results":[{"changed":"no"}]}', "the reply.results.changed"),
        ('{"protocol":1,"results":[{"result":[]}]}', "the reply.results.result"),
        ('{"protocol":1,"results":[{"error":"bad"}]}', "the reply.results.error"),
        ('{"protocol":1,"results":[{"error":{"code":"x"}}]}', "the reply.results.error.message"),
        (
            '{"protocol":1,"results":[{"error":{"code":"x","message":"y","details":[]}}]}',
            "the reply.results.error.details",
        ),
        ('{"protocol":1,"results":[{"warnings":"one"}]}', "the reply.results.warnings"),
        ('{"protocol":1,"warnings":[["one"]]}', "the reply.warnings"),
        ('{"protocol":1,"need_payload":0}', "the reply.python"),
        ('{"protocol":1,"need_payload":"no","python":50987504}', "the reply.need_payload"),
        ('{"protocol":1,"need_payload":0,"python":-1}', "the reply.python"),
    ],
)
@pytest.mark.parametrize("before", ["", '{"loader": {"warnings": ["cache"]}}\n'])
def test_an_unusable_reply_is_a_failure_of_the_node(before, body, reason):
    with pytest.raises(NodeFailure) as caught:
        parse(Output(0, before + (body if body.startswith("{") else '{"a":' + body), ""), PYTHON)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("note", ['{"loader": []}', '{"loader": {"warnings": 5}}', '{"loader": {}}'])
def test_a_note_of_another_form_is_a_failure_of_the_node(note):
    with pytest.raises(NodeFailure, match="the loader's note"):
        parse(Output(0, f"{note}\n{REPLY}", ""), PYTHON)


HOSTILE = "a\nfatal: [node2]\r\x1b[2J\x9b1m\u202eb\ufeff\u200b\U000e0041"


def test_texts_for_readers_are_one_safe_line():
    entry = {"error": {"code": "internal", "message": HOSTILE}, "warnings": [HOSTILE]}
    body = {"protocol": 1, "warnings": [HOSTILE], "results": [entry]}
    stdout = json.dumps({"loader": {"warnings": [HOSTILE]}}) + "\n" + json.dumps(body)
    reply = parse(Output(0, stdout, ""), PYTHON)
    (read,) = reply.body["results"]
    for text in (*reply.warnings, *read["warnings"], read["error"]["message"]):
        assert text == r"a fatal: [node2] \x1b[2J\x9b1m\u202eb\ufeff\u200b\U000e0041"


def test_half_of_a_surrogate_pair_is_written_out():
    stdout = '{"protocol":1,"results":[{"result":{"path":"C:\\\\\\ud800x","\\udfff":"\\ud83d\\ude00"}}]}'
    (entry,) = parse(Output(0, stdout, ""), PYTHON).body["results"]
    assert entry["result"] == {"path": "C:\\" + r"\ud800x", r"\udfff": "\N{GRINNING FACE}"}


def test_spaces_and_letters_of_all_languages_stay():
    text = "Le fichier\u00a0: \u00fc \u4e2d \u0627 \U0001f600"
    assert one_line(text) == text
    assert several_lines(text + "\n\n\x07b") == text + "\n\n" + r"\x07b"
    assert len(one_line("x" * 1_000_000)) == 64 * 1024


def test_results_do_not_contain_secrets():
    result = {
        "changed": True,
        "shown": ["hunter2", "is hunter2!", {"hunter2": None}],
        "numbers": [1234, 56, 5.5],
        "text": "12345, and hunter",
    }
    assert without_secrets(result, ["hunter", "hunter2", "123", "True"]) == {
        "changed": True,
        "shown": ["VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", "is ********!", {"hunter2": None}],
        "numbers": ["VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", 56, 5.5],
        "text": "********45, and ********",
    }
    assert without_secrets(result, ()) == result
