# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change settings of a TOML file, reversibly.

Everything else stays byte for byte: comments, order, line ends, a byte order mark. What changes is in blocks, which
keep the lines that they replace::

    # BEGIN wcow.snapshotter
    #| snapshotter = "windows" # a comment of the user
    snapshotter = "wcow" # a comment of the user
    # END wcow.snapshotter

So ``undo`` needs no TOML and no copy of the file: it puts the lines back that the blocks keep, and removes the rest of
the blocks. Lines outside of blocks may change in between.
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from ..errors import FailedPrecondition
from . import toml

BEGIN = "# BEGIN wcow.snapshotter"
END = "# END wcow.snapshotter"
_KEPT = "#| "

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROLS = re.compile(r'[\x00-\x1f\x7f"\\]')


class _Edit(NamedTuple):
    """New text for the characters from ``start`` to ``end`` of the value ``statement``."""

    start: int
    end: int
    text: str
    statement: toml.Span


class Document:
    """A TOML file without blocks, and the changes to it. ``table`` is its top table before the changes.

    Each key is changed at most once. Raises FailedPrecondition as ``toml.parse`` for data that is not TOML.
    """

    def __init__(self, data: bytes) -> None:
        self.table = toml.parse(data)
        self._mark = _BYTE_ORDER_MARK if data.startswith(_BYTE_ORDER_MARK) else b""
        text = data[len(self._mark) :].decode("utf-8")
        # A last line without an end gets one, and loses it in the result.
        self._is_open = bool(text) and not text.endswith("\n")
        ends_with_crlf = [line.endswith("\r") for line in text.split("\n")[:-1]]
        self._line_end = "\r\n" if ends_with_crlf[:1] == [True] else "\n"
        self._ends = ["\r\n" if each else "\n" for each in ends_with_crlf] + [self._line_end] * self._is_open
        self._text = text.replace("\r\n", "\n") + "\n" * self._is_open
        self._spans = toml.outline(self._text)
        self._edits: List[_Edit] = []
        # New lines before a line, by the number of that line from 0.
        self._inserts: Dict[int, List[str]] = {}
        # New sections at the end, by their headers.
        self._sections: Dict[str, List[str]] = {}

    def set(self, key: Sequence[str], value: Any) -> None:
        """Set a value: a text, a boolean, an integer, a table or a list of these.

        Raises FailedPrecondition for a key that has sections, and for one that leads into what is not a table.
        """
        path = tuple(key)
        exists = self._look_up(path) is not None
        found = self._find_value(path)
        if found:
            self._replace(found.value, found.end, literal(value))
        elif exists:
            raise FailedPrecondition(f"the key {_dotted(path)} has tables, not a value; correct the file")
        elif not self._add_inline(path, value):
            self._add_line(path, value)

    def append(self, key: Sequence[str], table: Dict[str, Any]) -> None:
        """Append a table to an array of tables, which is created if it does not exist.

        Raises FailedPrecondition for another value, and for a key that leads into what is not a table.
        """
        path = tuple(key)
        found = self._look_up(path)
        if found is not None and not isinstance(found, list):
            raise FailedPrecondition(f"the key {_dotted(path)} is not a list; correct the file")
        array = self._find_value(path)
        if array:
            elements = [span for span in self._spans if span.key[:-1] == path and isinstance(span.key[-1], int)]
            if elements:
                self._replace(elements[-1].end, elements[-1].end, f", {literal(table)}")
            else:
                self._replace(array.value + 1, array.value + 1, literal(table))
        elif not self._add_inline(path, [table]):
            number = len(self._sections)
            # Each element has a header of its own; the number keeps them apart.
            self._sections[f"[[{_dotted(path)}]]\n{number}"] = [
                f"{quote(name)} = {literal(value)}" for name, value in table.items()
            ]

    def new_sections(self) -> List[str]:
        """Return the lines of the changes that are sections at the end of the file."""
        return [line for header, values in self._sections.items() for line in (header.partition("\n")[0], *values)]

    def result(self) -> bytes:
        """Return the file with the changes in blocks."""
        lines = self._text.split("\n")[:-1]
        originals = [line + end for line, end in zip(lines, self._ends)]
        inserts = {number: list(new) for number, new in self._inserts.items()}
        if self._sections:
            inserts.setdefault(len(lines), []).extend(self.new_sections())
        written: List[str] = []
        replaced = self._replaced_lines()
        number = 0
        while number <= len(lines):
            if number in inserts:
                written.append(self._block([], inserts[number]))
            last, new = replaced.get(number, (number + 1, None))
            if new is None:
                written += originals[number:last]
            else:
                written.append(self._block(originals[number:last], new))
            number = last
        text = "".join(written)
        if self._is_open:
            text = text[: -len(self._line_end)]
        return self._mark + text.encode("utf-8")

    # -- changing ------------------------------------------------------------------------------------------------------

    def _look_up(self, path: Tuple[str, ...]) -> Any:
        """Return the value or the table at a key; None if there is none."""
        found: Any = self.table
        for length, part in enumerate(path):
            if not isinstance(found, dict):
                raise FailedPrecondition(f"the key {_dotted(path[:length])} is not a table; correct the file")
            if part not in found:
                return None
            found = found[part]
        return found

    def _find_value(self, path: Tuple[str, ...]) -> Optional[toml.Span]:
        return next((span for span in self._spans if span.kind == toml.VALUE and span.key == path), None)

    def _replace(self, start: int, end: int, text: str) -> None:
        statement = next(
            span for span in self._spans if span.kind == toml.VALUE and span.depth >= 0 and end <= span.end
        )
        self._edits.append(_Edit(start, end, text, statement))

    def _add_inline(self, path: Tuple[str, ...], value: Any) -> bool:
        """Add a value to the inline table that its key leads into. Return False if there is none."""
        # The innermost one: an inline table is complete, so no dotted key from outside adds to it.
        for length in range(len(path) - 1, 0, -1):
            table = self._find_value(path[:length])
            if table is None:
                continue
            inner = self._text[table.value + 1 : table.end - 1].rstrip(" \t")
            at = table.value + 1 + len(inner)
            separator = ", " if inner.strip() else " "
            self._replace(at, at, f"{separator}{_dotted(path[length:])} = {literal(value)}")
            return True
        return False

    def _add_line(self, path: Tuple[str, ...], value: Any) -> None:
        """Add a line to the section that has the table of a value, or a new section."""
        table = path[:-1]
        after: Optional[toml.Span] = None
        name = quote(path[-1])
        section: Tuple[Union[str, int], ...] = ()
        for span in self._spans:
            if span.kind != toml.VALUE:
                section = span.key
                if span.kind == toml.TABLE and section == table:
                    after, name = span, quote(path[-1])
            elif span.depth >= 0 and section == table:
                after = span
            elif len(section) < len(table) and span.depth >= 0 and span.key[: len(table)] == table:
                # Dotted keys make the table, so it cannot have a header.
                after, name = span, _dotted(path[len(section) :])
        line = f"{name} = {literal(value)}"
        if after:
            self._insert(self._text.count("\n", 0, after.end) + 1, self._indent(after) + line)
        elif table:
            self._sections.setdefault(f"[{_dotted(table)}]", []).append(line)
        else:
            self._insert(0, line)

    def _insert(self, number: int, line: str) -> None:
        self._inserts.setdefault(number, []).append(line)

    def _indent(self, span: toml.Span) -> str:
        line = self._text[self._text.rfind("\n", 0, span.start) + 1 : span.start]
        return line[: len(line) - len(line.lstrip(" \t"))]

    # -- writing -------------------------------------------------------------------------------------------------------

    def _replaced_lines(self) -> Dict[int, Tuple[int, List[str]]]:
        """Return the new lines by the number of the first line that they replace, with the number behind the last."""
        replaced: Dict[int, Tuple[int, List[str]]] = {}
        by_statement: Dict[toml.Span, List[_Edit]] = {}
        for edit in self._edits:
            by_statement.setdefault(edit.statement, []).append(edit)
        for statement, edits in by_statement.items():
            start = self._text.rfind("\n", 0, statement.start) + 1
            end = self._text.index("\n", statement.end)
            text, at = "", start
            # Edits at the same position stay in their order.
            for edit in sorted(edits, key=lambda each: each.start):
                text += self._text[at : edit.start] + edit.text
                at = edit.end
            text += self._text[at:end]
            first = self._text.count("\n", 0, start)
            replaced[first] = (self._text.count("\n", 0, end) + 1, text.split("\n"))
        return replaced

    def _block(self, originals: Sequence[str], new: Sequence[str]) -> str:
        kept = "".join(_KEPT + line for line in originals)
        return "".join([BEGIN, self._line_end, kept, *(line + self._line_end for line in new), END, self._line_end])


def append(data: bytes, lines: Sequence[str]) -> bytes:
    """Return a file with a block of lines at its end. The file need not be TOML."""
    is_open = bool(data) and not data.endswith(b"\n")
    first = data.partition(b"\n")
    line_end = b"\r\n" if first[1] and first[0].endswith(b"\r") else b"\n"
    block = line_end.join(line.encode("utf-8") for line in (BEGIN, *lines, END))
    return data + (line_end + block if is_open else block + line_end)


def undo(data: bytes) -> bytes:
    """Return a file without the blocks, with the lines that they replaced. The file need not be TOML.

    Raises FailedPrecondition for a block without an end.
    """
    mark = _BYTE_ORDER_MARK if data.startswith(_BYTE_ORDER_MARK) else b""
    lines = data[len(mark) :].split(b"\n")
    lines = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    kept: List[bytes] = []
    inside = False
    begin = 0
    for number, line in enumerate(lines, 1):
        plain = line.rstrip(b"\r\n")
        if not inside and plain == BEGIN.encode():
            inside, begin, originals = True, number, True
        elif inside and plain == END.encode():
            inside = False
            if not line.endswith(b"\n") and kept:
                # The text had no line end before either.
                kept[-1] = kept[-1].removesuffix(b"\n").removesuffix(b"\r")
        elif inside:
            originals = originals and line.startswith(_KEPT.encode())
            if originals:
                kept.append(line[len(_KEPT) :])
        else:
            kept.append(line)
    if inside:
        raise FailedPrecondition(
            f"line {begin}: {BEGIN!r} is not followed by {END!r}; delete what is left of the block by hand, or restore "
            f"the file from its backup",
            line=begin,
        )
    return mark + b"".join(kept)


def _dotted(key: Sequence[Union[str, int]]) -> str:
    return ".".join(quote(str(part)) for part in key)


def quote(key: str) -> str:
    """Return a key as TOML writes it."""
    return key if _BARE.fullmatch(key) else _basic(key)


def literal(value: Any) -> str:
    """Return a value as TOML writes it on one line. A text with backslashes is in single quotes if possible."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{quote(name)} = {literal(inner)}' for name, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if "\\" in value and "'" not in value and not re.search(r"[\x00-\x1f\x7f]", value):
        return f"'{value}'"
    return _basic(value)


def _basic(text: str) -> str:
    return f'"{_CONTROLS.sub(lambda found: _escape(found[0]), text)}"'


def _escape(character: str) -> str:
    return f"\\{character}" if character in '"\\' else f"\\u{ord(character):04X}"
