# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of the filter language (containerd pkg/filters, scanner.go)."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import NamedTuple, Optional, Sequence

FIELD = "Field"
OPERATOR = "Operator"
VALUE = "Value"
QUOTED = "Quoted"
SEPARATOR = "Separator"
ILLEGAL = "Illegal"
END = "EOF"


class Token(NamedTuple):
    """A piece of a filter; ``position`` is its byte offset in UTF-8.

    ``kind`` is one of the constants above, or the character itself if no token
    begins with it. The text of a quoted token includes its quotes.
    """

    position: int
    kind: str
    text: str


#: What Scanner.peek returns for a character that a filter must not have. NUL itself is one of them.
BAD_CHARACTER = "\0"
#: White_Space of Unicode, Go's unicode.IsSpace. Python's str.isspace also accepts U+001C to U+001F.
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
    """Cuts a filter into tokens. ``error`` is the first message, ``""`` if there is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.error = ""
        self._value_expected = False
        self._offsets: Sequence[int] = range(len(text) + 1)
        if not text.isascii():
            self._offsets = list(accumulate((len(encode(char)) for char in text), initial=0))

    def offset(self) -> int:
        """The byte offset of the next character."""
        return self._offsets[self.position]

    def peek(self) -> str:
        """The next character; ``""`` at the end; ``BAD_CHARACTER``, with ``error`` set, if it is illegal."""
        char = self.text[self.position : self.position + 1]
        if char == "\0":
            self._fail("unexpected null")
        elif char == "\ufffd" or "\ud800" <= char <= "\udfff":
            self._fail("rune error")
            return BAD_CHARACTER
        return char

    def scan(self) -> Token:
        """The next token; at the end of the text, one of the kind ``END`` each time."""
        char = self.peek()
        while char in _SPACE:
            self.position += 1
            char = self.peek()
        start = self.position
        if not char:
            return self._token(start, END)
        self.position += 1
        if char == BAD_CHARACTER:
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
        """Go on to a comma, to white space or to a character that Go's unicode.IsGraphic excludes."""
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
        """Go past the closing quote; False if the literal is illegal."""
        legal = True
        while True:
            found = _PLAIN_RUN.match(self.text, self.position)
            if found:
                self.position = found.end()
            char = self.peek()
            self.position += len(char)
            if char == quote:
                return legal
            if char in {"", "\n", BAD_CHARACTER}:
                self._fail("quoted literal not terminated")
                return False
            if char == "\\" and not self._scan_escape(quote):
                legal = False

    def _scan_escape(self, quote: str) -> bool:
        """Go past a legal escape, and leave an illegal one to the literal."""
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


def encode(text: str) -> bytes:
    """The bytes of a filter, for messages and offsets; a lone surrogate shows as its escape."""
    return text.encode("utf-8", "backslashreplace")


def unquote(literal: str) -> str:
    """The text of a legal quoted literal. Raises ValueError if an escape is a number that is too large."""
    body = literal[1:-1]
    if "\\" not in body:
        return body
    try:
        return _ESCAPE.sub(_escaped_bytes, body.encode("utf-8")).decode("utf-8", "surrogateescape")
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _escaped_bytes(escape: re.Match[bytes]) -> bytes:
    """The bytes that an escape stands for. Raises ValueError or OverflowError if a number is too large."""
    single, short, long, octal, char = escape.groups()
    if char:
        return _SIMPLE_ESCAPES.get(char.decode(), char.decode()).encode()
    if single or octal:
        return bytes([int(single, 16) if single else int(octal, 8)])
    code = int(short or long, 16)
    # Go's utf8.EncodeRune writes the replacement character for a surrogate.
    return ("\ufffd" if 0xD800 <= code < 0xE000 else chr(code)).encode("utf-8")
