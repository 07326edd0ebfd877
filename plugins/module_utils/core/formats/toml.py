# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read TOML 1.0, the format of containerd's configuration files.

Python has a reader of its own (tomllib) since 3.11. Nodes may have 3.9, and one reader behaves the same everywhere.

Tables are dictionaries and arrays are lists. Strings, integers, floats and booleans are those of Python. A date or a
time is the text that the file has, because containerd's configuration has none.

A document, a key and the nesting of values have limits, so a hostile file costs neither much time nor a deep stack.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Pattern, Set, Tuple, Union

from ..errors import FailedPrecondition

#: The largest document that is read, in bytes. Configurations of nodes have less than 20 KB.
MAX_SIZE = 1 << 20

#: How many keys and arrays lead to a value at most.
MAX_DEPTH = 64

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

_BLANK = re.compile(r"[ \t]*")
# White space, line ends and comments. A comment has no control characters except the tab.
_BLANK_LINES = re.compile(r"(?:[ \t\n]+|#[^\x00-\x08\n-\x1f\x7f]*)*")
_LINE_END = re.compile(r"(?:#[^\x00-\x08\n-\x1f\x7f]*)?(?:\n|\Z)")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LITERAL = re.compile(r"[^'\x00-\x08\n-\x1f\x7f]*")
_LITERAL_LINES = re.compile(r"[^'\x00-\x08\x0b-\x1f\x7f]*")
_BASIC = re.compile(r'[^"\\\x00-\x08\n-\x1f\x7f]*')
_BASIC_LINES = re.compile(r'[^"\\\x00-\x08\x0b-\x1f\x7f]*')
_CONTINUATION = re.compile(r"[ \t]*\n[ \t\n]*")
_CODE_POINT = re.compile(r"u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}

# What stands for a value without quotes and brackets. One space may separate a date from a time.
_WORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*|[^\s,\[\]{}#=\"']+", re.ASCII)
_INTEGER = re.compile(
    r"[+-]?(?:0|[1-9](?:_?\d)*)|0x[\dA-Fa-f](?:_?[\dA-Fa-f])*|0o[0-7](?:_?[0-7])*|0b[01](?:_?[01])*", re.ASCII
)
_FLOAT = re.compile(
    r"[+-]?(?:(?:0|[1-9](?:_?\d)*)(?:\.\d(?:_?\d)*(?:[eE][+-]?\d(?:_?\d)*)?|[eE][+-]?\d(?:_?\d)*)|inf|nan)", re.ASCII
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?"
_ZONE = r"[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d"
_DATE_TIME = re.compile(rf"(\d{{4}})-(\d\d)-(\d\d)(?:[Tt ]{_TIME}(?:{_ZONE})?)?|{_TIME}", re.ASCII)
# Integers have 64 bits and a sign.
_TOO_LARGE = 1 << 63
_WORDS = {"true": True, "false": False}


class Span(NamedTuple):
    """Where a text has a header or a value.

    ``key`` leads to it from the top. A number selects an element of an array. A ``value`` of a section has a section
    ``depth``: how many parts of its key come from the header. A value inside an inline table or an array has the depth
    -1. ``start`` is the first character of the header or of the key, ``value`` that of the value, and ``end`` is behind
    the last character of either. An element of an array starts with its value.
    """

    kind: str
    key: Tuple[Union[str, int], ...]
    depth: int
    start: int
    value: int
    end: int


#: The kinds of spans: ``[key]``, ``[[key]]``, and ``key = value`` or an element of an array.
TABLE, ELEMENT, VALUE = "table", "element", "value"


def outline(text: str) -> List[Span]:
    """Return where a document has its headers and values, in their order; a value comes after those inside it.

    The text has neither a byte order mark nor CRLF. Raises FailedPrecondition as ``parse``.
    """
    document = _Document(text)
    document.parse()
    return document.spans


def parse(data: bytes) -> Dict[str, Any]:
    """Return the top table of a document in UTF-8, with or without a byte order mark, with LF or CRLF as line ends.

    Raises FailedPrecondition with the line of the first fault (``details["line"]``, from 1), and for a document beyond
    a limit.
    """
    if len(data) > MAX_SIZE:
        raise FailedPrecondition(f"the file has {len(data)} bytes; TOML files of up to {MAX_SIZE} bytes are read")
    if data.startswith(_UTF_16_MARKS):
        raise _error(1, "the file is in UTF-16; save it in UTF-8")
    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(line, f"byte 0x{data[error.start]:02x} is not UTF-8; save the file in UTF-8") from None
    return _Document(text.replace("\r\n", "\n")).parse()


class _Tables:
    """The tables of a document, and which of them a later line may change.

    Objects are known by their id, which is unique because the document keeps all of them.
    """

    def __init__(self) -> None:
        self.top: Dict[str, Any] = {}
        # The table that the last header names.
        self.current = self.top
        # The number of headers so far.
        self._section = 0
        # The section that wrote a table, by its header or with dotted keys. Only dotted keys of this section add to it.
        self._sections: Dict[int, int] = {}
        # The arrays that headers with two brackets fill. Other arrays and inline tables are complete where they end.
        self._arrays: Set[int] = set()
        self._inline: Set[int] = set()

    def open_table(self, key: List[str]) -> None:
        """Start the section of ``[key]``. Raises ValueError if the key has a value or a table already."""
        self._section += 1
        above = self._walk(key[:-1])
        table = above.setdefault(key[-1], {})
        if not self._is_table(table) or id(table) in self._sections:
            raise ValueError("has a value already")
        self._sections[id(table)] = self._section
        self.current = table

    def open_element(self, key: List[str]) -> None:
        """Start the section of ``[[key]]``. Raises ValueError if the key is not an array of tables."""
        self._section += 1
        above = self._walk(key[:-1])
        if key[-1] not in above:
            above[key[-1]] = []
            self._arrays.add(id(above[key[-1]]))
        array = above[key[-1]]
        if id(array) not in self._arrays:
            raise ValueError("has a value already, which is not an array of tables")
        self.current = {}
        self._sections[id(self.current)] = self._section
        array.append(self.current)

    def put(self, key: List[str], value: Any) -> None:
        """Set a key of the current section. Raises ValueError if it has a value, or is inside something complete."""
        table = self.current
        for part in key[:-1]:
            table = table.setdefault(part, {})
            if not self._is_table(table):
                raise ValueError(f"adds to {_shown(part)}, which has a value already")
            if self._sections.setdefault(id(table), self._section) != self._section:
                raise ValueError(f"adds to {_shown(part)}, which is a table of another section")
        if key[-1] in table:
            raise ValueError("has a value already")
        table[key[-1]] = value
        if isinstance(value, dict):
            self._inline.add(id(value))

    def locate(self, key: List[str]) -> Tuple[Union[str, int], ...]:
        """Return the key of a header with the numbers of the elements of arrays that it goes through."""
        found: List[Union[str, int]] = []
        table: Any = self.top
        for part in key:
            found.append(part)
            table = table[part]
            if id(table) in self._arrays:
                found.append(len(table) - 1)
                table = table[-1]
        return tuple(found)

    def _is_table(self, value: Any) -> bool:
        return isinstance(value, dict) and id(value) not in self._inline

    def _walk(self, key: List[str]) -> Dict[str, Any]:
        """Return the table at a key of a header. Create missing tables, and take the last element of an array."""
        table = self.top
        for part in key:
            inner = table.setdefault(part, {})
            if id(inner) in self._arrays:
                inner = inner[-1]
            if not self._is_table(inner):
                raise ValueError(f"adds to {_shown(part)}, which has a value already")
            table = inner
        return table


class _Document:
    """A document while it is read. ``_at`` is the position of the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.spans: List[Span] = []
        # The key of the value that is read, from the top.
        self._path: Tuple[Union[str, int], ...] = ()

    def parse(self) -> Dict[str, Any]:
        """Return the top table."""
        tables = _Tables()
        depth = 0
        header: Tuple[Union[str, int], ...] = ()
        while True:
            self._match(_BLANK_LINES)
            if self._at == len(self._text):
                return tables.top
            start = self._at
            change: Callable[[List[str]], None]
            kind, value_start = VALUE, start
            if self._take("[["):
                kind, key, change = ELEMENT, self._header("]]"), tables.open_element
                depth = len(key)
            elif self._take("["):
                kind, key, change = TABLE, self._header("]"), tables.open_table
                depth = len(key)
            else:
                key = self._assigned_key()
                value_start = self._at
                self._path = (*header, *key)
                change = functools.partial(tables.put, value=self._value(depth + len(key)))
            end = self._at
            self._match(_BLANK)
            line_end = _LINE_END.match(self._text, self._at)
            if line_end is None:
                raise self._fault(f"{self._next()} is where the line should end")
            self._apply(change, key, start)
            if kind != VALUE:
                header = tables.locate(key)
            path = header if kind != VALUE else (*header, *key)
            self.spans.append(Span(kind, path, len(header), start, value_start, end))
            self._at = line_end.end()

    def _apply(self, change: Callable[[List[str]], None], key: List[str], start: int) -> None:
        try:
            change(key)
        except ValueError as error:
            raise self._fault(f"the key {_shown('.'.join(key))} {error}", start) from None

    # -- keys ------------------------------------------------------------------------

    def _header(self, end: str) -> List[str]:
        key = self._key()
        self._require(end, "at the end of the header")
        return key

    def _assigned_key(self) -> List[str]:
        key = self._key()
        self._require("=", "after the key")
        self._match(_BLANK)
        return key

    def _key(self) -> List[str]:
        """Read a key with its dots, and the white space around it."""
        parts: List[str] = []
        while True:
            self._match(_BLANK)
            if self._take('"'):
                parts.append(self._basic())
            elif self._take("'"):
                parts.append(self._literal())
            else:
                bare = self._match(_BARE_KEY)
                if not bare:
                    raise self._fault(f"{self._next()} is where a key should be; quote a key with other characters")
                parts.append(bare)
            self._match(_BLANK)
            if not self._take("."):
                return parts
            if len(parts) == MAX_DEPTH:
                raise self._fault(f"a key has more than {MAX_DEPTH} parts")

    # -- values ----------------------------------------------------------------------

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._fault(f"more than {MAX_DEPTH} keys and arrays lead to a value")
        if self._take('"""'):
            self._take("\n")
            return self._basic_lines()
        if self._take('"'):
            return self._basic()
        if self._take("'''"):
            self._take("\n")
            return self._literal_lines()
        if self._take("'"):
            return self._literal()
        if self._take("["):
            return self._array(depth)
        if self._take("{"):
            return self._inline_table(depth)
        return self._word()

    def _array(self, depth: int) -> List[Any]:
        values: List[Any] = []
        while True:
            self._match(_BLANK_LINES)
            if self._take("]"):
                return values
            above, start = self._path, self._at
            self._path = (*above, len(values))
            values.append(self._value(depth + 1))
            self.spans.append(Span(VALUE, self._path, -1, start, start, self._at))
            self._path = above
            self._match(_BLANK_LINES)
            if not self._take(","):
                self._require("]", "or ',' in the array")
                return values

    def _inline_table(self, depth: int) -> Dict[str, Any]:
        tables = _Tables()
        self._match(_BLANK)
        if self._take("}"):
            return tables.top
        while True:
            start = self._at
            key = self._assigned_key()
            above, value_start = self._path, self._at
            self._path = (*above, *key)
            value = self._value(depth + len(key))
            self.spans.append(Span(VALUE, self._path, -1, start, value_start, self._at))
            self._path = above
            self._apply(functools.partial(tables.put, value=value), key, start)
            self._match(_BLANK)
            if not self._take(","):
                self._require("}", "or ',' in the inline table, which ends on its line")
                return tables.top

    def _word(self) -> Any:
        start = self._at
        word = self._match(_WORD)
        if not word:
            raise self._fault(f"{self._next()} is where a value should be")
        if word in _WORDS:
            return _WORDS[word]
        if _INTEGER.fullmatch(word):
            return self._integer(word, start)
        if _FLOAT.fullmatch(word):
            return float(word.replace("_", ""))
        date_time = _DATE_TIME.fullmatch(word)
        if date_time and (date_time[1] is None or _is_date(*map(int, date_time.groups()))):
            return word
        raise self._fault(f"{_shown(word)} is not a value; put a text in quotes", start)

    def _integer(self, word: str, start: int) -> int:
        # The longest are 64 binary digits with a "_" before each. The conversion of long numbers takes long.
        number = int(word.replace("_", ""), 0) if len(word) <= 130 else _TOO_LARGE
        if not -_TOO_LARGE <= number < _TOO_LARGE:
            raise self._fault(f"the number {_shown(word)} does not fit into 64 bits", start)
        return number

    # -- strings ---------------------------------------------------------------------

    def _literal(self) -> str:
        text = self._match(_LITERAL)
        self._end_string("'")
        return text

    def _literal_lines(self) -> str:
        parts: List[str] = []
        while True:
            parts.append(self._match(_LITERAL_LINES))
            if self._quotes("'", parts):
                return "".join(parts)

    def _basic(self) -> str:
        parts: List[str] = []
        while True:
            parts.append(self._match(_BASIC))
            if not self._take("\\"):
                self._end_string('"')
                return "".join(parts)
            parts.append(self._escape())

    def _basic_lines(self) -> str:
        parts: List[str] = []
        while True:
            parts.append(self._match(_BASIC_LINES))
            if not self._take("\\"):
                if self._quotes('"', parts):
                    return "".join(parts)
            elif not self._match(_CONTINUATION):
                parts.append(self._escape())

    def _quotes(self, quote: str, parts: List[str]) -> bool:
        """Read the quotes at the position. Add those that are text, and return True if the string ends with them."""
        count = 0
        # Two quotes may stand before the three that end the string.
        while count < 5 and self._take(quote):
            count += 1
        if not count:
            self._end_string(quote * 3)
        parts.append(quote * (count - 3 if count >= 3 else count))
        return count >= 3

    def _end_string(self, quotes: str) -> None:
        if not self._take(quotes):
            raise self._fault(f"{self._next()} is in a string that {quotes} should end")

    def _escape(self) -> str:
        code = self._match(_CODE_POINT)
        if code:
            number = int(code[1:], 16)
            if number < 0xD800 or 0xE000 <= number < 0x110000:
                return chr(number)
        elif self._text[self._at : self._at + 1] in _ESCAPES:
            self._at += 1
            return _ESCAPES[self._text[self._at - 1]]
        raise self._fault(
            "the string has a backslash that does not begin an escape sequence; write Windows paths in single quotes"
        )

    # -- characters ------------------------------------------------------------------

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _require(self, text: str, where: str) -> None:
        if not self._take(text):
            raise self._fault(f"{self._next()} is where {text!r} should be, {where}")

    def _match(self, pattern: Pattern[str]) -> str:
        """Read what a pattern matches at the position; empty if it does not match."""
        found = pattern.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _next(self) -> str:
        if self._at == len(self._text):
            return "the end of the file"
        character = self._text[self._at]
        return "the end of the line" if character == "\n" else repr(character)

    def _fault(self, what: str, at: Optional[int] = None) -> FailedPrecondition:
        return _error(self._text.count("\n", 0, self._at if at is None else at) + 1, what)


def _is_date(year: int, month: int, day: int) -> bool:
    import datetime as dt

    try:
        dt.date(year, month, day)
    except ValueError:
        return False
    return True


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else f"{word[:40]}...")


def _error(line: int, what: str) -> FailedPrecondition:
    return FailedPrecondition(f"line {line}: {what}", line=line)
