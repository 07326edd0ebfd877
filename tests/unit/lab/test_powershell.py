# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the PowerShell grammar of a lab node, and how a Windows command line passes arguments."""

from __future__ import annotations

import pytest

from lab.powershell import Call, Exit, Unsupported, command_line, parse, split_command_line

ACCEPTED = {
    "": [],
    " \n ;\r\n": [],
    "& 'C:\\a b\\x.exe'": [Call(("C:\\a b\\x.exe",), False)],
    "& C:\\x.exe -I -X utf8 a=b --n=1": [Call(("C:\\x.exe", "-I", "-X", "utf8", "a=b", "--n=1"), False)],
    "&'x'": [Call(("x",), False)],
    "$input | & 'x' '-c' 'y z'": [Call(("x", "-c", "y z"), True)],
    "$INPUT|&'x'": [Call(("x",), True)],
    "& 'it''s' \"double\" ''": [Call(("it's", "double", ""), False)],
    "& '\u2019\u2019'": [Call(("\u2019",), False)],
    "& 'two\nlines'": [Call(("two\nlines",), False)],
    "& '$input' '|' '&'": [Call(("$input", "|", "&"), False)],
    "& x; & y\nexit $LASTEXITCODE": [Call(("x",), False), Call(("y",), False), Exit(None)],
    "exit": [Exit(0)],
    "EXIT 3": [Exit(3)],
    "exit -1": [Exit(-1)],
    "exit $lastexitcode": [Exit(None)],
    "& exit": [Call(("exit",), False)],
}

REFUSED = [
    "Get-Process",
    "& $program",
    "& 'x' $env:PATH",
    '& "C:\\$x"',
    '& "a`tb"',
    "& 'unterminated",
    "& 'a\u2019b'",
    '& "a\u201db"',
    "& x | & y",
    "'text' | & x",
    "$input | x",
    "$input",
    "$input |",
    "&",
    "& ",
    "& & x",
    "& x > file",
    "& x (1)",
    "& x @args",
    "& x {1}",
    "& x a,b",
    "# comment",
    "exit 1 2",
    "exit 'x'",
    "exit $input",
    "& x && & y",
    "if (1) { & x }",
    "$x = 1",
    "& x \u00e9",
    "& x $input",
]


@pytest.mark.parametrize(("script", "statements"), ACCEPTED.items(), ids=range(len(ACCEPTED)))
def test_what_the_grammar_accepts(script, statements):
    assert parse(script) == statements


@pytest.mark.parametrize("script", REFUSED)
def test_what_the_grammar_refuses(script):
    with pytest.raises(Unsupported, match=r"^lab node: (?s:.)*A lab node understands"):
        parse(script)


def test_a_long_script_is_refused_quickly():
    with pytest.raises(Unsupported):
        parse("& x '" + "a''" * 200_000)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-c", "print(42)"), "-c print(42)"),
        (("import sys;x", "a b"), '"import sys;x" "a b"'),
        (("", "a"), "a"),
        (("a b\\",), '"a b\\\\"'),
        (("C:\\dir\\",), "C:\\dir\\"),
        (('print("x")',), 'print("x")'),
        (('"a b"',), '"a b"'),
    ],
)
def test_the_command_line_that_powershell_makes(words, line):
    assert command_line(words) == line


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("", []),
        ("  a\tb  ", ["a", "b"]),
        ('"a b" c', ["a b", "c"]),
        ('a"b c"d', ["ab cd"]),
        ('"" x', ["", "x"]),
        (r"a\\b", [r"a\\b"]),
        (r"a\"b", ['a"b']),
        (r"a\\" + '"b c"', ["a\\b c"]),
        (r"a\\\"b", ['a\\"b']),
        ('"a""b"', ['a"b']),
        ('"a b\\\\"', ["a b\\"]),
        ('"open end', ["open end"]),
    ],
)
def test_the_arguments_that_a_c_program_sees(line, arguments):
    assert split_command_line(line) == arguments


def test_a_quote_inside_a_word_is_lost_as_on_windows():
    assert split_command_line(command_line(("-c", 'print("x")'))) == ["-c", "print(x)"]
