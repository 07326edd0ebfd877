# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scripts for bare nodes as text: PowerShell, short enough, and documented line by line."""

from __future__ import annotations

import base64
import pathlib
import re

import pytest
import tree_sitter
import tree_sitter_powershell
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _command, _powershell
from ansible_collections.wcow.snapshotter.plugins.plugin_utils._reply import NodeFailure, Output

COLLECTION = pathlib.Path(_powershell.__file__).parents[2]
SCRIPTS = {"Look": _powershell.LOOK, "Install": _powershell.INSTALL, "Clean": _powershell.CLEAN}
PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))

#: What Ansible's winrm connection puts before a script (ShellModule._encode_script of ansible-core).
WINRM = "PowerShell -NoProfile -NonInteractive -ExecutionPolicy Unrestricted -EncodedCommand "
#: cmd.exe takes no longer line.
COMMAND_LINE = 8191


def problems(script):
    """The nodes of the syntax tree that stand for what is wrong."""
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


@pytest.mark.parametrize("script", [*SCRIPTS.values(), _command.winrm(r"C:\it's\python.exe")])
def test_the_grammar_of_powershell_knows_it(script):
    assert problems(script) == []


@pytest.mark.parametrize("script", ["if ($x { }", "try { 1 } catch", "$a = @{ b = }", "foreach ($x on $y) { }"])
def test_the_grammar_knows_what_is_wrong(script):
    assert problems(script)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_it_fits_into_a_command_line(script):
    assert script.isascii()
    assert len(script) <= _powershell.LONGEST
    encoded = base64.b64encode(script.encode("utf-16-le")).decode()
    assert len(WINRM + encoded) <= COMMAND_LINE
    assert len(_powershell.over_ssh(script)) <= COMMAND_LINE
    assert _powershell.over_ssh(script).endswith(encoded)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_nothing_becomes_code(script):
    """The only programs are cmdlets of a list, and Python with code that is a constant."""
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
    assert _command.winrm(r"C:\Program Files\wcow\python\python.exe") in manual


def test_the_answer_is_the_last_line():
    assert _powershell.parse(Output(0, '\ufeffnoise\r\n{"left":[]}\r\n\r\n', "")) == {"left": []}


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
        _powershell.parse(output)
    assert caught.value.code == code
    assert words in str(caught.value)
