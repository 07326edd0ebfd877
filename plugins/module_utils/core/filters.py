# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The filter language of containerd (pkg/filters, core/snapshots/storage/bolt.go).

A filter is a list of selectors that must all hold::

    filter    = "" | selector { "," selector }
    selector  = fieldpath [ operator value ]
    fieldpath = field { "." field }
    field     = word | quoted with "
    operator  = "==" | "!=" | "~="
    value     = bare | quoted with " (after ~= also with / or |)

``""`` holds for everything. White space is legal around an operator and after
a comma, nowhere else. Inside quotes a backslash starts an escape, so that a
backslash of a regular expression has to be doubled there and not in a bare
value. Regular expressions have the syntax of RE2, see ``regex``.

Text is ``str`` on both sides. ``\xHH`` and octal escapes stand for single
bytes of UTF-8, as in Go: a value that they leave invalid as UTF-8 carries the
bytes as lone surrogates (``surrogateescape``) and equals no text that has
none. A filter that itself holds a lone surrogate is what Go sees as invalid
UTF-8, and is refused with Go's message. Letters and symbols outside ASCII are
those of the interpreter's ``unicodedata``.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from .errors import InvalidArgument
from .model import KINDS, Info

if TYPE_CHECKING:
    from .regex import Pattern

#: Longest filter text in bytes of UTF-8. containerd has no limit of its own.
MAX_FILTER_BYTES = 64 * 1024

#: What a filter asks of an object: field path -> (value, is it present).
#: The value of an absent field is "".
Adaptor = Callable[[Tuple[str, ...]], Tuple[str, bool]]


class FilterError(ValueError):
    """The text is not a filter. The message is containerd's."""


class Selector(NamedTuple):
    """One condition. ``operator`` is ``""`` (presence), ``"=="``, ``"!="`` or ``"~="``.

    A ``value`` or a part of ``fieldpath`` that holds lone surrogates equals no
    text of the store, and cannot be encoded for a query.
    """

    fieldpath: Tuple[str, ...]
    operator: str
    value: str


class Filter:
    """Selectors that must all hold; without any it holds for everything."""

    def __init__(self, selectors: Tuple[Selector, ...]) -> None:
        self.selectors = selectors
        self._patterns: Dict[str, Union[Pattern, str]] = {}

    def matches(self, adaptor: Adaptor) -> bool:
        """Whether every selector holds for the object behind ``adaptor``.

        ``!=`` and ``~=`` take an absent field for ``""``, ``==`` does not hold
        for one. A regular expression that does not compile matches nothing.
        """
        return all(self._holds(selector, *adaptor(selector.fieldpath)) for selector in self.selectors)

    def warnings(self) -> List[str]:
        """One sentence for each regular expression that does not compile, for the reply."""
        texts = dict.fromkeys(selector.value for selector in self.selectors if selector.operator == "~=")
        patterns = [self._pattern(text) for text in texts]
        return [f"a filter matches nothing: {error}" for error in patterns if isinstance(error, str)]

    def _holds(self, selector: Selector, value: str, present: bool) -> bool:
        if selector.operator == "":
            return present
        if selector.operator == "==":
            return present and value == selector.value
        if selector.operator == "!=":
            return value != selector.value
        pattern = self._pattern(selector.value)
        return not isinstance(pattern, str) and pattern.search(value)

    def _pattern(self, text: str) -> Union[Pattern, str]:
        """The compiled expression, or the message that says why there is none."""
        if text not in self._patterns:
            from . import regex

            try:
                self._patterns[text] = regex.compile(text)
            except regex.RegexError as error:
                self._patterns[text] = str(error)
        return self._patterns[text]


class Filters:
    """Filters of which one must hold; without any they hold for everything."""

    def __init__(self, filters: Tuple[Filter, ...]) -> None:
        self.filters = filters

    def matches(self, adaptor: Adaptor) -> bool:
        """Whether one of the filters holds for the object behind ``adaptor``."""
        return not self.filters or any(one.matches(adaptor) for one in self.filters)

    def warnings(self) -> List[str]:
        """The warnings of all the filters, each once."""
        return list(dict.fromkeys(warning for one in self.filters for warning in one.warnings()))


def parse(text: str) -> Filter:
    """Read one filter. Raises FilterError."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_FILTER_BYTES:
        raise FilterError(
            f"filters: parse error: a filter of {size} bytes is longer than the limit of {MAX_FILTER_BYTES} bytes, "
            "divide it into several filters"
        )
    return Filter(_Parser(text).selectors() if text else ())


def parse_all(texts: Sequence[str]) -> Filters:
    """Read filters of which one must hold. Raises InvalidArgument."""
    try:
        return Filters(tuple([parse(text) for text in texts]))
    except FilterError as error:
        raise InvalidArgument(f"{error}: invalid argument") from error


def snapshot_adaptor(info: Info) -> Adaptor:
    """The fields of a snapshot: ``kind``, ``name``, ``parent`` and ``labels.<key>``.

    A label key may be spread over several parts of the path, which are joined
    with ``.``. ``parent`` is present even where it is ``""``. Parts after the
    other fields are ignored; any other field is absent.
    """

    def field(fieldpath: Tuple[str, ...]) -> Tuple[str, bool]:
        if fieldpath[0] == "kind":
            return info.kind, info.kind in KINDS
        if fieldpath[0] == "name":
            return info.name, True
        if fieldpath[0] == "parent":
            return info.parent, True
        if fieldpath[0] == "labels":
            key = ".".join(fieldpath[1:])
            return info.labels.get(key, ""), key in info.labels
        return "", False

    return field


FIELD = "Field"
OPERATOR = "Operator"
VALUE = "Value"
QUOTED = "Quoted"
SEPARATOR = "Separator"
ILLEGAL = "Illegal"
END = "EOF"


class Token(NamedTuple):
    """A piece of a filter: ``position`` is its byte offset in UTF-8.

    ``kind`` is one of the constants above, or the character itself where it
    begins none of them. The text of a quoted token includes its quotes.
    """

    position: int
    kind: str
    text: str


#: What Scanner.peek gives for a character that a filter must not hold. NUL is one of them, so it cannot be confused.
_BAD_CHARACTER = "\0"
#: White_Space of Unicode, Go's unicode.IsSpace. Python's str.isspace takes in U+001C to U+001F as well.
_SPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000").union(map(chr, range(0x2000, 0x200B)))
_OCTAL = frozenset("01234567")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_ESCAPED_CODE_DIGITS = {"x": 2, "u": 4, "U": 8}
_SIMPLE_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

_FIELD_RUN = re.compile("[A-Za-z0-9_]+")
_OPERATOR_RUN = re.compile("[=!~]+")
_ASCII_VALUE_RUN = re.compile("[!-+\\--~]*")
_PLAIN_RUN = re.compile('[^\\\\"/|\n\0\ud800-\udfff\ufffd]*')
_ESCAPE = re.compile(rb"\\(?:x(..)|u(.{4})|U(.{8})|([0-7]{3})|(.))")


class Scanner:
    """Cuts a filter into tokens (scanner.go). ``error`` is the first message, ``""`` while all is well."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.error = ""
        self._value_expected = False
        self._offsets: Sequence[int] = range(len(text) + 1)
        if not text.isascii():
            self._offsets = list(accumulate((len(_encode(char)) for char in text), initial=0))

    def offset(self) -> int:
        """The byte offset of the next character."""
        return self._offsets[self.position]

    def peek(self) -> str:
        """The next character, ``""`` at the end, ``_BAD_CHARACTER`` with ``error`` set where it is illegal."""
        char = self.text[self.position : self.position + 1]
        if char == "\0":
            self._fail("unexpected null")
        elif char == "\ufffd" or "\ud800" <= char <= "\udfff":
            self._fail("rune error")
            return _BAD_CHARACTER
        return char

    def scan(self) -> Token:
        """The next token; at the end of the text always one of kind ``END``."""
        char = self.peek()
        while char in _SPACE:
            self.position += 1
            char = self.peek()
        start = self.position
        if not char:
            return self._token(start, END)
        self.position += 1
        if char == _BAD_CHARACTER:
            return Token(self._offsets[start], ILLEGAL, "")
        if char in {'"', "/", "|"}:
            return self._token(start, QUOTED if self._scan_quoted(char) else ILLEGAL)
        if char in {",", "."}:
            self._value_expected = False
            return self._token(start, SEPARATOR)
        if char in {"=", "!", "~"}:
            self._value_expected = True
            return self._token(start, OPERATOR, _OPERATOR_RUN)
        if self._value_expected:
            self._value_expected = False
            self._scan_value()
            return self._token(start, VALUE)
        if _FIELD_RUN.match(char):
            return self._token(start, FIELD, _FIELD_RUN)
        return Token(self._offsets[start], char, "")

    def _token(self, start: int, kind: str, run: Optional[re.Pattern[str]] = None) -> Token:
        found = run.match(self.text, start) if run else None
        if found:
            self.position = found.end()
        return Token(self._offsets[start], kind, self.text[start : self.position])

    def _scan_value(self) -> None:
        """Go on to a comma, white space or whatever Go's unicode.IsGraphic excludes."""
        while True:
            found = _ASCII_VALUE_RUN.match(self.text, self.position)
            if found:
                self.position = found.end()
            char = self.peek()
            if char.isascii():
                return
            import unicodedata

            if unicodedata.category(char)[0] not in "LMNPS":
                return
            self.position += 1

    def _scan_quoted(self, quote: str) -> bool:
        """Go on past the closing quote; False where the literal is illegal."""
        legal = True
        while True:
            found = _PLAIN_RUN.match(self.text, self.position)
            if found:
                self.position = found.end()
            char = self.peek()
            self.position += len(char)
            if char == quote:
                return legal
            if char in {"", "\n", _BAD_CHARACTER}:
                self._fail("quoted literal not terminated")
                return False
            if char == "\\" and not self._scan_escape(quote):
                legal = False

    def _scan_escape(self, quote: str) -> bool:
        """Go past a legal escape; an illegal one is left for the literal to go over."""
        char = self.peek()
        if char in _SIMPLE_ESCAPES or char in {"\\", quote}:
            self.position += 1
            return True
        digits, missing = _HEXADECIMAL, _ESCAPED_CODE_DIGITS.get(char, 0)
        if missing:
            self.position += 1
        elif char in _OCTAL:
            digits, missing = _OCTAL, 3
        else:
            self._fail("illegal escape sequence")
            return False
        while missing and self.peek() in digits:
            self.position += 1
            missing -= 1
        if missing:
            self._fail("illegal numeric escape sequence")
        return not missing

    def _fail(self, message: str) -> None:
        self.error = self.error or message


def _encode(text: str) -> bytes:
    """The bytes of a filter for messages; a lone surrogate shows as its escape."""
    return text.encode("utf-8", "backslashreplace")


class _Parser:
    """Reads selectors (parser.go). One character of look-ahead, white space included, decides what comes next."""

    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text)

    def selectors(self) -> Tuple[Selector, ...]:
        selectors = [self._selector()]
        while self._scanner.peek() == ",":
            self._scanner.scan()
            selectors.append(self._selector())
        char = self._scanner.peek()
        if char:
            shown = "\ufffd" if char == _BAD_CHARACTER else char
            raise self._error(self._scanner.offset(), f"unexpected input: {shown}")
        return tuple(selectors)

    def _selector(self) -> Selector:
        fieldpath = [self._field()]
        while self._scanner.peek() == ".":
            self._scanner.scan()
            fieldpath.append(self._field())
        if self._scanner.peek() in {",", ""}:
            return Selector(tuple(fieldpath), "", "")
        operator = self._operator()
        return Selector(tuple(fieldpath), operator, self._value('"/|' if operator == "~=" else '"'))

    def _field(self) -> str:
        token = self._scan()
        if token.kind == FIELD:
            return token.text
        if token.kind == QUOTED:
            return self._unquote(token, '"')
        raise self._error(token.position, "expected field or quoted")

    def _operator(self) -> str:
        token = self._scan()
        if token.kind != OPERATOR:
            raise self._error(token.position, 'expected an operator ("=="|"!="|"~=")')
        if token.text not in {"==", "!=", "~="}:
            raise self._error(token.position, f'unsupported operator "{token.text}"')
        return token.text

    def _value(self, quotes: str) -> str:
        token = self._scan()
        if token.kind in {VALUE, FIELD}:
            return token.text
        if token.kind == QUOTED:
            return self._unquote(token, quotes)
        raise self._error(token.position, "expected value or quoted")

    def _scan(self) -> Token:
        token = self._scanner.scan()
        if token.kind == ILLEGAL:
            raise self._error(token.position, self._scanner.error)
        return token

    def _unquote(self, token: Token, quotes: str) -> str:
        if token.text[0] not in quotes:
            raise self._error(token.position, "invalid quote encountered")
        body = token.text[1:-1]
        if "\\" not in body:
            return body
        try:
            return _ESCAPE.sub(_escaped_bytes, body.encode("utf-8")).decode("utf-8", "surrogateescape")
        except (ValueError, OverflowError):
            raise self._error(token.position, "unquoting failed: quote syntax error") from None

    def _error(self, position: int, message: str) -> FilterError:
        """The error at a byte offset; a part of a character shows as an escape."""
        text = _encode(self._scanner.text)
        where = text
        if position < len(text):
            where = b"%s >|%s|< %s" % (text[:position], text[position : position + 1], text[position + 1 :])
        return FilterError(f"filters: parse error: [{where.decode('utf-8', 'backslashreplace')}]: {message}")


def _escaped_bytes(escape: re.Match[bytes]) -> bytes:
    """The bytes that an escape stands for. Raises ValueError or OverflowError where a number is too large."""
    single, short, long, octal, char = escape.groups()
    if char:
        return _SIMPLE_ESCAPES.get(char.decode(), char.decode()).encode()
    if single or octal:
        return bytes([int(single, 16) if single else int(octal, 8)])
    code = int(short or long, 16)
    # Go's utf8.EncodeRune writes the replacement character for a surrogate.
    return ("\ufffd" if 0xD800 <= code < 0xE000 else chr(code)).encode("utf-8")
