# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The larger grammar of PowerShell: what a lab node makes of it, and what it refuses."""

from __future__ import annotations

import pytest

from lab.dotnet import PowerShellError
from lab.host import HostFiles
from lab.language import FIRST_LINE, Script, Stopped, read
from lab.powershell import Call, Exit, Unsupported


class Node:
    """A node without programs: ``native`` answers with the words."""

    def __init__(self, files, lines=(), statements=1_000):
        self.files = files
        self.input = list(lines)
        self.statements = statements

    def native(self, words):
        if words[0] == "missing":
            raise PowerShellError("The term 'missing' is not recognized")
        return " ".join(words)

    def stopped(self):
        self.statements -= 1
        return self.statements < 0


@pytest.fixture
def node(tmp_path):
    files = HostFiles("node1", tmp_path)
    files.create(with_python=False)
    return Node(files, ['{"a": "b", "n": [1, 2]}', "second"])


def run(text, node):
    (script,) = read(FIRST_LINE + text)
    return script.run(node)


OUTPUTS = {
    "'it''s $plain'": ["it's $plain"],
    "$x = 'b'\n\"a$x.c\\$x\"": ["ab.c\\b"],
    "$x = 1\n$x++\n$x + 1": ["3"],
    "$t = @{ a = 'x'; b = @() }\n$t.b += 'y'\n$t.b += 'z'\n$t.c = 'new'\nConvertTo-Json -InputObject $t -Compress": [
        '{"a":"x","b":["y","z"],"c":"new"}'
    ],
    "$lines = @($input)\n$r = ConvertFrom-Json -InputObject $lines[0]\n$r.a\n$r.missing\n$r.n[1]\n$lines.Length": [
        "b",
        "2",
        "2",
    ],
    "if ('A' -eq 'a') {\n'same'\n} else {\n'other'\n}": ["same"],
    "if ('A' -ne 'a') {\n'other'\n} else {\n'same'\n}": ["same"],
    "if ($missing) {\n'there'\n}": [],
    "'abc' -match '^A.C$'": ["True"],
    "'abc' -notmatch 'b'": ["False"],
    "for ($i = 0; $i -lt 3; $i++) {\n$i\n}": ["0", "1", "2"],
    "foreach ($x in @($input)) {\n$x.Length\n}": ["23", "6"],
    "try {\nthrow 'no'\n'never'\n} catch {\n\"caught $_\"\n} finally {\n'done'\n}": ["caught no", "done"],
    "try {\ntry {\nthrow 'in'\n} catch {\nthrow\n}\n} catch {\n\"$_\"\n}": ["in"],
    "try {\n& missing\n} catch {\n'none'\n}": ["none"],
    "& \"pro gram\" -I -c 'x'": ["pro gram -I -c x"],
    "$v = & 'p' 1\n$v": ["p 1"],
    "[void][IO.Directory]::Exists('C:\\x')": [],
    "[IO.Directory]::Exists('C:\\windows')": ["True"],
    "[IO.Path]::GetDirectoryName('C:\\a\\b') + '|'": ["C:\\a|"],
    "(Get-Acl -LiteralPath 'C:\\Users').Sddl -match 'BU'": ["True"],
    "try {\n[IO.File]::ReadAllText('x')\n} catch {\n$_\n}": [
        'Exception calling "ReadAllText" with "1" argument(s): "The path \'x\' is not absolute."'
    ],
}


@pytest.mark.parametrize(("text", "output"), OUTPUTS.items(), ids=range(len(OUTPUTS)))
def test_what_a_script_says(text, output, node):
    assert run(text, node) == output


REFUSED = [
    "Get-Process",
    "Get-Acl -Path 'C:\\x'",
    "[IO.File]::Copy('a', 'b')",
    "[Diagnostics.Process]::Start('x')",
    '"$(1)"',
    '"`n"',
    "$x | Out-Null",
    "if ($x) { 1 } elseif ($y) { 2 }",
    "while ($true) { 1 }",
    "function f { 1 }",
    "$x = 1; $y = 2",
    "$x += 1",
    "1 + 2 + 3",
    "& 'x' > 'y'",
    "@(1, 2)",
    "$x = {\n1\n}",
    "try {\n1",
    "# comment",
    "[void]",
    "é",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_before_anything_runs(text):
    with pytest.raises(Unsupported, match=r"^lab node: line \d+: (?s:.)*no more PowerShell than the collection's own"):
        read(f"{FIRST_LINE}'before'\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "'text'.Split('x')",
        "(New-Object -TypeName Net.Sockets.TcpClient)",
        "$r = New-Object -TypeName Security.AccessControl.DirectorySecurity\n$r.SetSecurityDescriptorSddlForm('D:')",
        "[Guid]::NewGuid().ToString('B')",
        "Get-FileHash -LiteralPath 'C:\\x' -Algorithm MD5",
        "[IO.File]::Open('C:\\x', 'Create', 'ReadWrite', 'ReadWrite')",
    ],
)
def test_what_is_refused_when_it_is_reached(text, node):
    with pytest.raises(Unsupported, match="^lab node: "):
        run(text, node)


def test_only_a_script_that_says_so_has_the_larger_grammar():
    assert read("& 'x'\nexit 3") == [Call(("x",), False), Exit(3)]
    with pytest.raises(Unsupported, match="A lab node understands"):
        read("$x = 1")


def test_the_line_that_psrp_adds():
    script, exits = read(FIRST_LINE + "'x'\n\nexit $LASTEXITCODE")
    assert isinstance(script, Script)
    assert exits == Exit(None)


def test_an_end_from_outside_is_no_exception_of_the_script(node):
    node.statements = 2
    with pytest.raises(Stopped):
        run("try {\n'a'\n'b'\n'c'\n} catch {\n'caught'\n}", node)


def test_what_goes_wrong_in_a_script_is_an_exception_of_powershell(node):
    with pytest.raises(PowerShellError, match="Expecting property name"):
        run("ConvertFrom-Json -InputObject '{'", node)
    with pytest.raises(PowerShellError, match="not recognized"):
        run("& missing", node)


def test_rights_are_two_modes(node):
    text = """
$rights = New-Object -TypeName Security.AccessControl.DirectorySecurity
$rights.SetSecurityDescriptorSddlForm('O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)')
[void][IO.Directory]::CreateDirectory('C:\\a\\b', $rights)
(Get-Acl -LiteralPath 'C:\\a').Sddl
(Get-Acl -LiteralPath 'C:\\Windows').Sddl
"""
    closed, inherited = run(text, node)
    assert closed == "O:BAG:BAD:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)"
    assert "BU" in inherited
    assert node.files.native(r"C:\a\b").stat().st_mode & 0o777 == 0o700
