# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of PowerShell in which the collection's scripts are written, and running it.

A script that begins with ``FIRST_LINE`` may use::

    $v = ... | $v.member = ... | $v.member += ... | [Type]::Member = ... | $v++ | throw ...
    if () {} else {} | for (;;) {} | foreach ($v in ...) {} | try {} catch {} finally {}
    'text' "text with $v" 12 $v @(...) @{ key = ...; ... } (...) [Type]::Member $v.Member $v[0]
    -eq -ne -lt -match -notmatch -bor +     one of them in an expression
    [Type]::Method(...) $v.Method(...) Verb-Noun -Parameter value & "program" words [void]...

with the types and cmdlets of ``dotnet``, and nothing else; one statement a
line. The whole script is read before any of it runs. Where Windows
PowerShell has subtleties that no script of the collection touches (scopes,
conversions, arrays of one), this has none.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import dotnet
from .powershell import Exit, Statement, Unsupported, parse

#: By this a script says that it wants more than to start a program.
FIRST_LINE = "$ErrorActionPreference = 'Stop'\n"
#: What the connection psrp adds to each script.
_LAST_LINE = "\nexit $LASTEXITCODE"


class Stopped(Exception):
    """The script was ended from outside."""


class Frame:
    """A run of a script: its variables, its output, and the node on which it runs."""

    def __init__(self, node: dotnet.Node) -> None:
        self.node = node
        self.output: list[Any] = []
        self.variables: dict[str, Any] = {"input": node.input, "true": True, "false": False, "null": None}
        self.caught: dotnet.PowerShellError | None = None


Evaluate = Callable[[Frame], Any]


class Script(NamedTuple):
    """A script of the larger grammar, ready to run: in a thread, since its input and output block."""

    statements: tuple[Evaluate, ...]

    def run(self, node: dotnet.Node) -> list[str]:
        """Its output, a line an object. Raises dotnet.PowerShellError, Stopped and Unsupported."""
        frame = Frame(node)
        _run(self.statements, frame)
        return [str(value) for value in frame.output]


def read(script: str) -> list[Statement | Script]:
    """The statements of a script in either grammar. Raises Unsupported."""
    if not script.startswith(FIRST_LINE):
        return [*parse(script)]
    exits: list[Statement | Script] = [Exit(None)] if script.rstrip().endswith(_LAST_LINE) else []
    text = script.rstrip().removesuffix(_LAST_LINE) if exits else script
    return [Script(tuple(_Reader(text).statements(""))), *exits]


def _run(statements: Sequence[Evaluate], frame: Frame) -> None:
    for statement in statements:
        if frame.node.stopped():
            raise Stopped
        value = statement(frame)
        if value is not None:
            frame.output.append(value)


_TOKEN = re.compile(
    r"""[ \t]*(?:
        '(?P<single>(?:[^']|'')*)'
      | "(?P<double>[^"`]*)"
      | (?P<variable>\$\w+)
      | (?P<type>\[[A-Za-z][\w.]*\])
      | (?P<number>[0-9]+)
      | (?P<dashed>-[A-Za-z]+)
      | (?P<word>[A-Za-z][\w.-]*)
      | (?P<symbol>@\(|@\{|::|\+=|\+\+|[-+=.,;&(){}\[\]])
      | (?P<newline>(?:[ \t]*\r?\n)+)
    )""",
    re.VERBOSE | re.ASCII,
)
_EXPANDED = re.compile(r"\$(\w+)|\$", re.ASCII)

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "-eq": lambda left, right: _folded(left) == _folded(right),
    "-ne": lambda left, right: _folded(left) != _folded(right),
    "-lt": operator.lt,
    "-match": lambda left, right: re.search(right, left, re.IGNORECASE) is not None,
    "-notmatch": lambda left, right: re.search(right, left, re.IGNORECASE) is None,
    "-bor": operator.or_,
    "+": lambda left, right: left + right if isinstance(left, int) else f"{left}{right}",
}


def _folded(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


class _Reader:
    """Turns the text of a script into functions that run it, by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[_Token] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise self._refusal(position)
            self._tokens.append(_Token(match.lastgroup, match.group(match.lastgroup), match.start(match.lastgroup)))
            position = match.end()
        self._tokens += [_Token("newline", "\n", position), _Token("end", "", position)]
        self._next = 0

    def _refusal(self, offset: int) -> Unsupported:
        line = self._text.count("\n", 0, offset) + 1
        return Unsupported(
            f"lab node: line {line}: {self._text[offset : offset + 40]!r}. A lab node knows no more PowerShell than "
            "the collection's own scripts use (docs/lab.md)."
        )

    # -- tokens --

    def _peek(self, *texts: str) -> bool:
        token = self._tokens[self._next]
        return token.kind in ("symbol", "word", "dashed", "end") and token.text.lower() in texts

    def _take(self, kind: str) -> str:
        token = self._tokens[self._next]
        if token.kind != kind:
            raise self._refusal(token.offset)
        self._next += 1
        return token.text

    def _accept(self, *texts: str) -> bool:
        found = self._peek(*texts)
        self._next += found
        return found

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._refusal(self._tokens[self._next].offset)

    def _skip_lines(self) -> None:
        while self._tokens[self._next].kind == "newline":
            self._next += 1

    # -- statements --

    def statements(self, end: str) -> list[Evaluate]:
        """The statements up to the symbol ``end``, which is taken."""
        found = []
        self._skip_lines()
        while not self._peek(end):
            found.append(self._statement())
            if not self._peek(end):
                self._take("newline")
                self._skip_lines()
        self._next += 1
        return found

    def _block(self) -> list[Evaluate]:
        self._expect("{")
        return self.statements("}")

    def _statement(self) -> Evaluate:
        if self._accept("if"):
            return self._if()
        if self._accept("try"):
            return self._try()
        if self._accept("for"):
            return self._for()
        if self._accept("foreach"):
            return self._foreach()
        if self._accept("throw"):
            return _throw(None if self._tokens[self._next].kind == "newline" else self._expression())
        if self._tokens[self._next].text.lower() == "[void]":
            self._next += 1
            return _silent(self._expression())
        if self._tokens[self._next].kind in ("variable", "type"):
            return self._assignment()
        return self._pipeline()

    def _assignment(self) -> Evaluate:
        """``target = value``, ``target += value``, ``$v++``, or an expression by itself."""
        start = self._next
        target: Any
        if self._tokens[self._next].kind == "variable":
            target = self._take("variable")[1:].lower()
            if self._accept("++"):
                return lambda frame: frame.variables.update({target: frame.variables[target] + 1})
            member = self._take("word") if self._accept(".") else ""
            if self._accept("="):
                return _assign(target, member, self._pipeline())
            if member and self._accept("+="):
                return _append(target, member, self._expression())
        else:
            name = self._take("type")[1:-1]
            member = self._take("word") if self._accept("::") else ""
            if self._accept("="):
                setting = self._static(name, f"{member}=", start)
                value = self._expression()
                return lambda frame: setting(frame.node, value(frame))
        self._next = start
        return self._expression()

    def _if(self) -> Evaluate:
        self._expect("(")
        condition = self._expression()
        self._expect(")")
        then = self._block()
        otherwise = self._block() if self._accept("else") else []
        return lambda frame: _run(then if condition(frame) else otherwise, frame)

    def _for(self) -> Evaluate:
        self._expect("(")
        first = self._statement()
        self._expect(";")
        condition = self._expression()
        self._expect(";")
        step = self._statement()
        self._expect(")")
        body = self._block()

        def run(frame: Frame) -> None:
            first(frame)
            while condition(frame):
                _run([*body, step], frame)

        return run

    def _foreach(self) -> Evaluate:
        self._expect("(")
        variable = self._take("variable")[1:].lower()
        self._expect("in")
        values = self._expression()
        self._expect(")")
        body = self._block()

        def run(frame: Frame) -> None:
            for value in list(values(frame)):
                frame.variables[variable] = value
                _run(body, frame)

        return run

    def _try(self) -> Evaluate:
        body = self._block()
        handler = self._block() if self._accept("catch") else None
        final = self._block() if self._accept("finally") else []

        def run(frame: Frame) -> None:
            try:
                _run(body, frame)
            except dotnet.PowerShellError as error:
                if handler is None:
                    raise
                frame.caught, frame.variables["_"] = error, str(error)
                _run(handler, frame)
            finally:
                _run(final, frame)

        return run

    # -- expressions --

    def _pipeline(self) -> Evaluate:
        if self._accept("&"):
            words = []
            while self._tokens[self._next].kind != "newline" and not self._peek(")"):
                words.append(self._word())
            return lambda frame: frame.node.native([str(word(frame)) for word in words])
        if self._tokens[self._next].kind == "word":
            return self._command()
        return self._expression()

    def _word(self) -> Evaluate:
        token = self._tokens[self._next]
        if token.kind in ("word", "dashed"):
            self._next += 1
            return _constant(token.text)
        return self._postfix()

    def _command(self) -> Evaluate:
        offset = self._tokens[self._next].offset
        command = dotnet.COMMANDS.get(self._take("word").lower())
        if command is None:
            raise self._refusal(offset)
        parameters: dict[str, Evaluate] = {}
        while self._tokens[self._next].kind == "dashed":
            name = self._take("dashed")[1:].lower()
            if name not in command.parameters:
                raise self._refusal(self._tokens[self._next - 1].offset)
            is_switch = self._tokens[self._next].kind in ("newline", "dashed") or self._peek(")")
            parameters[name] = _constant(True) if is_switch else self._word()
        return lambda frame: command.run(frame.node, {name: value(frame) for name, value in parameters.items()})

    def _expression(self) -> Evaluate:
        left = self._postfix()
        token = self._tokens[self._next]
        operation = _OPERATORS.get(token.text.lower()) if token.kind in ("dashed", "symbol") else None
        if operation is None:
            return left
        self._next += 1
        right = self._postfix()
        return lambda frame: operation(left(frame), right(frame))

    def _postfix(self) -> Evaluate:
        value = self._primary()
        while True:
            if self._accept("."):
                name = self._take("word")
                value = _call(value, name, self._arguments()) if self._accept("(") else _member(value, name)
            elif self._accept("["):
                value = _item(value, self._expression())
                self._expect("]")
            else:
                return value

    def _arguments(self) -> list[Evaluate]:
        found = []
        while not self._accept(")"):
            found.append(self._expression())
            if not self._peek(")"):
                self._expect(",")
        return found

    def _primary(self) -> Evaluate:
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "single":
            return _constant(token.text.replace("''", "'"))
        if token.kind == "double":
            return self._expandable(token)
        if token.kind == "number":
            return _constant(int(token.text))
        if token.kind == "variable":
            return _variable(token.text[1:].lower())
        if token.kind == "type":
            return self._static_member(token)
        if token.text == "@{":
            return self._table()
        if token.text == "@(":
            if self._accept(")"):
                return lambda _frame: []
            inner = self._pipeline()
            self._expect(")")
            return lambda frame: dotnet.array(inner(frame))
        if token.text == "(":
            inner = self._pipeline()
            self._expect(")")
            return inner
        raise self._refusal(token.offset)

    def _expandable(self, token: _Token) -> Evaluate:
        if any(found.group(1) is None for found in _EXPANDED.finditer(token.text)):
            raise self._refusal(token.offset)

        def expand(frame: Frame) -> str:
            return _EXPANDED.sub(lambda found: str(_variable(found.group(1).lower())(frame)), token.text)

        return expand

    def _table(self) -> Evaluate:
        entries: dict[str, Evaluate] = {}
        while not self._accept("}"):
            name = self._take("word")
            self._expect("=")
            entries[name] = self._expression()
            if not self._peek("}"):
                self._expect(";")
        return lambda frame: {name: value(frame) for name, value in entries.items()}

    def _static(self, type_name: str, member: str, index: int) -> Callable[..., Any]:
        found = dotnet.STATIC.get((type_name.lower(), member.lower()))
        if found is None:
            raise self._refusal(self._tokens[index].offset)
        return found

    def _static_member(self, token: _Token) -> Evaluate:
        start = self._next - 1
        self._expect("::")
        name = self._take("word")
        function = self._static(token.text[1:-1], name, start)
        if self._accept("("):
            arguments = self._arguments()
            return lambda frame: dotnet.invoke(name, function, frame.node, *(value(frame) for value in arguments))
        return lambda frame: function(frame.node)


def _constant(value: Any) -> Evaluate:
    return lambda _frame: value


def _variable(name: str) -> Evaluate:
    def evaluate(frame: Frame) -> Any:
        return frame.variables.get(name)

    return evaluate


def _member(value: Evaluate, name: str) -> Evaluate:
    return lambda frame: dotnet.member(value(frame), name)


def _call(value: Evaluate, name: str, arguments: Sequence[Evaluate]) -> Evaluate:
    def evaluate(frame: Frame) -> Any:
        method = dotnet.member(value(frame), name)
        return dotnet.invoke(name, method, *(argument(frame) for argument in arguments))

    return evaluate


def _item(value: Evaluate, index: Evaluate) -> Evaluate:
    return lambda frame: value(frame)[index(frame)]


def _silent(value: Evaluate) -> Evaluate:
    def evaluate(frame: Frame) -> None:
        value(frame)

    return evaluate


def _assign(variable: str, member: str, value: Evaluate) -> Evaluate:
    def evaluate(frame: Frame) -> None:
        if member:
            frame.variables[variable][member] = value(frame)
        else:
            frame.variables[variable] = value(frame)

    return evaluate


def _append(variable: str, member: str, value: Evaluate) -> Evaluate:
    def evaluate(frame: Frame) -> None:
        table = frame.variables[variable]
        table[member] = [*table[member], value(frame)]

    return evaluate


def _throw(value: Evaluate | None) -> Evaluate:
    def evaluate(frame: Frame) -> None:
        if value is not None:
            raise dotnet.PowerShellError(str(value(frame)))
        if frame.caught is not None:
            raise frame.caught

    return evaluate
