# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grammar of the PowerShell statements that start a program on a lab node.

::

    script    = [ statement ] { ( newline | ";" ) [ statement ] }
    statement = [ "$input" "|" ] "&" word { word }
              | "exit" [ "$LASTEXITCODE" | integer ]
    word      = 'single quoted, '' for a quote' | "double quoted, no $ or `" | bare-word

The first word of a call is the program. Everything else is refused, so a
playbook that passes on a lab node needs no other PowerShell.

The second half of this module passes words to a native program as Windows
PowerShell 5.1 does: it joins them into one command line, which the program's C
run time splits again. A quote inside a word is lost on the way, as on a real
host.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Unsupported(Exception):
    """A lab node does not know the script. The message says where it fails, and what a node understands."""


class Call(NamedTuple):
    """``& words``. If ``piped``, its standard input is ``$input``."""

    words: tuple[str, ...]
    piped: bool


class Exit(NamedTuple):
    """``exit code``. None means ``$LASTEXITCODE``."""

    code: int | None


Statement = Call | Exit

UNDERSTOOD = (
    "A lab node understands [$input |] & 'program' words, exit N and exit $LASTEXITCODE, "
    "separated by new lines or semicolons, and the scripts of the module python_runtime (docs/lab.md)."
)

# PowerShell treats each of these as the plain quote (about_Quoting_Rules). Two of them stand for one.
_SINGLE = "'\u2018\u2019\u201a\u201b"
_DOUBLE = '"\u201c\u201d\u201e'
_DOUBLED = "|".join(quote * 2 for quote in _SINGLE)
_TOKEN = re.compile(
    rf"""[ \t]*(?:
        '(?P<single>(?:[^{_SINGLE}]|{_DOUBLED})*)'
      | "(?P<double>[^{_DOUBLE}$`]*)"
      | (?P<variable>\$(?:input|LASTEXITCODE)\b)
      | (?P<operator>[|&])
      | (?P<separator>;|\r?\n)
      | (?P<word>[-\w./:\\=+%]+)
    )""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)
_INTEGER = re.compile(r"-?[0-9]{1,10}")
_QUOTE = re.compile(r'(\\*)"')


class _Token(NamedTuple):
    kind: str
    text: str


def parse(script: str) -> list[Statement]:
    """Return the statements of a script. Raises Unsupported."""
    statements = []
    pending: list[_Token] = []
    for token in [*_tokens(script), _Token("separator", "\n")]:
        if token.kind != "separator":
            pending.append(token)
        elif pending:
            statements.append(_statement(pending))
            pending = []
    return statements


def _tokens(script: str) -> list[_Token]:
    script = script.rstrip()
    tokens = []
    position = 0
    while position < len(script):
        match = _TOKEN.match(script, position)
        if match is None or match.lastgroup is None:
            raise Unsupported(f"lab node: at offset {position}: {script[position : position + 40]!r}. {UNDERSTOOD}")
        text = match.group(match.lastgroup)
        if match.lastgroup == "single":
            text = re.sub(f"({_DOUBLED})", lambda doubled: doubled.group()[0], text)
        tokens.append(_Token(match.lastgroup, text))
        position = match.end()
    return tokens


def _statement(tokens: list[_Token]) -> Statement:
    kinds = [token.kind for token in tokens]
    texts = [token.text for token in tokens]
    if kinds[0] == "word" and texts[0].lower() == "exit":
        if len(tokens) == 1:
            return Exit(0)
        if len(tokens) == 2 and kinds[1] == "variable" and texts[1].lower() == "$lastexitcode":
            return Exit(None)
        if len(tokens) == 2 and kinds[1] == "word" and _INTEGER.fullmatch(texts[1]):
            return Exit(int(texts[1]))
    piped = texts[0].lower() == "$input" and kinds[:2] == ["variable", "operator"] and texts[1] == "|"
    call = tokens[2:] if piped else tokens
    words = call[1:]
    if not words or call[0] != ("operator", "&") or any(w.kind not in ("single", "double", "word") for w in words):
        raise Unsupported(f"lab node: the statement {' '.join(texts)[:80]!r} is not supported. {UNDERSTOOD}")
    return Call(tuple(word.text for word in words), piped)


def command_line(words: tuple[str, ...]) -> str:
    """Return the command line that PowerShell 5.1 builds from the arguments of a program.

    Empty words are dropped. Words with blanks get quotes around them. Quotes
    inside a word are not escaped (PowerShell repository,
    src/System.Management.Automation/engine/NativeCommandParameterBinder.cs).
    """
    parts = []
    for word in words:
        outside_quotes = "".join(word.replace('\\"', "").split('"')[::2])
        if any(character.isspace() for character in outside_quotes):
            backslashes = len(word) - len(word.rstrip("\\"))
            parts.append(f'"{word}{chr(92) * backslashes}"')
        elif word:
            parts.append(word)
    return " ".join(parts)


def split_command_line(line: str) -> list[str]:
    """Return the arguments that a C program gets (Microsoft C run time, "Parsing C command-line arguments").

    2n backslashes before a quote give n backslashes, and the quote delimits.
    2n + 1 backslashes give n backslashes and a literal quote. A doubled quote
    inside quotes is a literal quote.
    """
    arguments = []
    current: list[str] = []
    started = quoted = False
    position = 0
    while position < len(line):
        match = _QUOTE.match(line, position)
        if match:
            started = True
            current.append("\\" * (len(match.group(1)) // 2))
            position = match.end()
            if len(match.group(1)) % 2:
                current.append('"')
            elif quoted and line[position : position + 1] == '"':
                current.append('"')
                position += 1
            else:
                quoted = not quoted
            continue
        character = line[position]
        if character in " \t" and not quoted:
            if started:
                arguments.append("".join(current))
            current, started = [], False
        else:
            current.append(character)
            started = True
        position += 1
    if started:
        arguments.append("".join(current))
    return arguments
