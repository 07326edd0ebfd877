# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the text of the scripts for nodes without Python: it is valid PowerShell, short enough and fully documented."""

from __future__ import annotations

import base64
import os
import pathlib
import re
import subprocess
import sys

import pytest
import tree_sitter
import tree_sitter_powershell
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _command, _powershell, _shapes
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import NodeFailure, Output

COLLECTION = pathlib.Path(_powershell.__file__).parents[2]
SCRIPTS = {"Look": _powershell.LOOK, "Install": _powershell.INSTALL, "Clean": _powershell.CLEAN}
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))

#: Ansible's winrm connection puts this before a script (ShellModule._encode_script of ansible-core).
WINRM = "PowerShell -NoProfile -NonInteractive -ExecutionPolicy Unrestricted -EncodedCommand "
#: cmd.exe does not accept a longer line.
COMMAND_LINE = 8191


def problems(script):
    """Return the nodes of the syntax tree that stand for errors."""
    waiting = [PARSER.parse(script.encode()).root_node]
    found = []
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.is_error or node.is_missing:
            found.append(node)
    return found


def nodes(script, kind):
    waiting = [PARSER.parse(script.encode()).root_node]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.type == kind:
            yield node.text.decode()


@pytest.mark.parametrize("script", [*SCRIPTS.values(), _command.exiting(r"C:\it's\python.exe")])
def test_the_grammar_of_powershell_knows_it(script):
    assert problems(script) == []


@pytest.mark.parametrize("script", ["if ($x { }", "try { 1 } catch", "$a = @{ b = }", "foreach ($x on $y) { }"])
def test_the_grammar_knows_what_is_wrong(script):
    assert problems(script)


#: Print the syntax errors of the script in the file WCOW_SCRIPT. The exit code is the number of errors.
PARSE = """$tokens = $null
$errors = $null
$text = [IO.File]::ReadAllText($env:WCOW_SCRIPT)
[void][System.Management.Automation.Language.Parser]::ParseInput($text, [ref]$tokens, [ref]$errors)
foreach ($problem in $errors) { "line $($problem.Extent.StartLineNumber): $($problem.Message)" }
exit $errors.Count
"""


def run_powershell(powershell, script, text="", **environment):
    """Run a script in a real PowerShell with the options that connection ssh uses."""
    _program, *options = _command.encoded(script).split(" ")
    return subprocess.run(
        [powershell, *options],
        input=text,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("script", "is_valid"),
    [
        *((script, True) for script in SCRIPTS.values()),
        (_command.exiting(r"C:\it's\python.exe"), True),
        ("if ($x { }", False),
        ("$a = @{ b = }", False),
    ],
)
def test_powershell_itself_parses_it(powershell, tmp_path, script, is_valid):
    """This test needs pwsh or powershell on PATH. The fixture documents what happens without it."""
    file = tmp_path / "script.ps1"
    file.write_text(script, encoding="ascii")
    done = run_powershell(powershell, PARSE, WCOW_SCRIPT=str(file))
    assert (done.returncode == 0) == (done.stdout.strip() == "") == is_valid, done


def test_powershell_itself_runs_the_start(powershell):
    """This test needs pwsh or powershell on PATH. The fixture documents what happens without it."""
    text = "print(sys.stdin.buffer.readline().split(), sys.flags.isolated);sys.exit(9)\nthe request\n"
    done = run_powershell(powershell, _command.exiting(sys.executable), text)
    assert (done.returncode, done.stdout.strip()) == (9, "[b'the', b'request'] 1"), done


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_it_fits_into_a_command_line(script):
    assert script.isascii()
    assert len(script) <= _powershell.LONGEST
    encoded = base64.b64encode(script.encode("utf-16-le")).decode()
    assert len(WINRM + encoded) <= COMMAND_LINE
    assert len(_command.encoded(script)) <= COMMAND_LINE
    assert _command.encoded(script).endswith(encoded)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_nothing_becomes_code(script):
    """Scripts run only the cmdlets in this list, and Python with constant code."""
    commands = set(nodes(script, "command_name"))
    assert {"ConvertFrom-Json", "ConvertTo-Json"} <= commands
    assert commands <= {
        "Add-Type",
        "ConvertFrom-Json",
        "ConvertTo-Json",
        "Get-Acl",
        "Get-FileHash",
        "New-Object",
        "Start-Sleep",
    }
    assert not re.search(r"iex|Invoke-|ScriptBlock|\$ExecutionContext|\$\(|\$env:", script, re.IGNORECASE)
    for called in re.findall(r"& .*", script):
        assert re.fullmatch(
            r"""& "\$(directory|new)\\python\.exe" -I -c 'import sys;print\(sys\.version\.split\(\)\[0\]\)'""", called
        )


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_manual_has_each_line(name):
    manual = (COLLECTION / "docs" / "powershell.md").read_text(encoding="utf-8")
    section = re.search(rf"^### {name}$(.*?)(?=^##|\Z)", manual, re.DOTALL | re.MULTILINE).group(1)
    assert "".join(re.findall(r"^```powershell\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)) == SCRIPTS[name]


def test_the_manual_has_the_start():
    manual = (COLLECTION / "docs" / "powershell.md").read_text(encoding="utf-8")
    assert _command.exiting(r"C:\Program Files\wcow\python\python.exe") in manual


def test_the_answer_is_the_last_line():
    output = Output(0, '\ufeffnoise\r\n{"left":[]}\r\n\r\n', "")
    assert _powershell.parse(output, _shapes.CLEANED) == {"left": []}


@pytest.mark.parametrize(
    "reply",
    [
        '{"left":"all"}',
        '{"left":[1]}',
        '{"error":5,"step":"look"}',
        '{"error":"full"}',
        '{"error":"full","step":["look"]}',
        '{"other":[]}',
    ],
)
def test_an_answer_of_another_form_is_a_failure_of_the_node(reply):
    with pytest.raises(NodeFailure, match="The node's reply cannot be used: the reply.*has an unexpected value"):
        _powershell.parse(Output(0, reply, ""), _shapes.CLEANED)


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (Output(1, "", "The term 'x' is not recognized"), "failed_precondition", "The term 'x' is not recognized"),
        (Output(0, '{"left":[]', ""), "failed_precondition", '{"left":[]'),
        (Output(0, "[1]", ""), "failed_precondition", "[1]"),
        (Output(5, "", ""), "unavailable", "Rerunning the task is safe"),
    ],
)
def test_no_answer_is_explained(output, code, words):
    with pytest.raises(NodeFailure) as caught:
        _powershell.parse(output, _shapes.CLEANED)
    assert caught.value.code == code
    assert words in str(caught.value)
