# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""The filter language of containerd (pkg/filters, core/snapshots/storage/bolt.go).

A filter is a list of selectors, which must all hold::

    filter    = "" | selector { "," selector }
    selector  = fieldpath [ operator value ]
    fieldpath = field { "." field }
    field     = word | quoted with "
    operator  = "==" | "!=" | "~="
    value     = bare | quoted with " (after ~= also with / or |)

``""`` matches everything. White space is legal around an operator and after a
comma, nowhere else. Inside quotes a backslash starts an escape: a backslash of
a regular expression is doubled there, but not in a bare value. Regular
expressions have the syntax of RE2, see ``re2``.

Filters and values are ``str``. ``\xHH`` and octal escapes stand for single
bytes of UTF-8, as in Go. If they make a value invalid as UTF-8, it carries
these bytes as lone surrogates (``surrogateescape``), and equals no text
without them. A filter that has a lone surrogate is to Go invalid UTF-8, and is
refused with Go's message. Letters and symbols outside ASCII are those of the
interpreter's ``unicodedata``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Sequence, Tuple, Union

from ..errors import InvalidArgument
from ..model import KINDS, Info
from .scanner import BAD_CHARACTER, FIELD, ILLEGAL, OPERATOR, QUOTED, VALUE, Scanner, Token, encode, unquote

if TYPE_CHECKING:
    from .re2 import Pattern

#: Longest filter text in bytes of UTF-8. containerd has no limit of its own.
MAX_FILTER_BYTES = 64 * 1024

# What to do about a filter that cannot be read, for the detail ``advice`` of the error.
_ADVICE_QUOTES = (
    "The character between >| and |< is wrong there. Between dots, quote what has other characters than letters, "
    'digits and _, and quote a value with a comma or a space: labels."containerd.io/gc.root"=="a b"'
)
_ADVICE_OPERATOR = f"The operators are == (equal), != (not equal) and ~= (regular expression). {_ADVICE_QUOTES}"

# The fields of a snapshot, each the first part of a path.
_FIELDS = ("kind", "name", "parent", "labels")

#: How a filter reads an object: field path -> (value, whether it is present). The value of an absent field is "".
Adaptor = Callable[[Tuple[str, ...]], Tuple[str, bool]]


class FilterError(ValueError):
    """The text is not a filter. The message is containerd's."""


class Selector(NamedTuple):
    """One condition. ``operator`` is ``""`` (presence), ``"=="``, ``"!="`` or ``"~="``.

    A ``value`` or a part of ``fieldpath`` that has lone surrogates equals no
    text in the store, and cannot be encoded for a query.
    """

    fieldpath: Tuple[str, ...]
    operator: str
    value: str


class Filter:
    """Selectors that must all hold. Without selectors, it matches everything."""

    def __init__(self, selectors: Tuple[Selector, ...]) -> None:
        self.selectors = selectors
        self._patterns: Dict[str, Union[Pattern, str]] = {}

    def matches(self, adaptor: Adaptor) -> bool:
        """Whether every selector holds for the object behind ``adaptor``.

        To ``!=`` and ``~=`` an absent field is ``""``; ``==`` does not hold for
        it. A regular expression that does not compile matches nothing.
        """
        return all(self._holds(selector, *adaptor(selector.fieldpath)) for selector in self.selectors)

    def warnings(self) -> List[str]:
        """A sentence for each regular expression that does not compile, for the reply."""
        texts = dict.fromkeys(selector.value for selector in self.selectors if selector.operator == "~=")
        patterns = [self._pattern(text) for text in texts]
        return [f"a filter matches nothing: {error}" for error in patterns if isinstance(error, str)]

    def mistakes(self) -> List[str]:
        """A sentence for each selector that does not depend on the snapshot.

        containerd accepts unknown fields and kinds. Snapshots do not have
        them, so such a selector is a slip of the pen.
        """
        found = []
        for field, operator, value in self.selectors:
            path = ".".join(field)
            if field[0] not in _FIELDS:
                found.append(
                    f'snapshots have no field "{path}", so a filter that names it is wrong: the fields are kind, name, '
                    'parent and labels."KEY"'
                )
            elif field == ("labels",):
                found.append('a filter names labels without a key: write labels."KEY"')
            elif field[0] == "kind" and operator in ("==", "!=") and value not in KINDS:
                found.append(
                    f'no snapshot has the kind "{value}" that a filter names: {", ".join(KINDS)} are the kinds'
                )
        return found

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
        """The compiled expression, or the message that says why it does not compile."""
        if text not in self._patterns:
            from . import re2 as regex

            try:
                self._patterns[text] = regex.compile(text)
            except regex.RegexError as error:
                self._patterns[text] = str(error)
        return self._patterns[text]


class Filters:
    """Filters of which one must match. Without filters, they match everything."""

    def __init__(self, filters: Tuple[Filter, ...]) -> None:
        self.filters = filters
        # For each field path, and each value that a filter demands there: these filters. A task can name thousands of
        # snapshots in as many filters, and each is then compared with one snapshot only.
        self._by_value: Dict[Tuple[str, ...], Dict[str, List[Filter]]] = {}
        self._others: List[Filter] = []
        for one in filters:
            demands = [selector for selector in one.selectors if selector.operator == "=="]
            if demands:
                demand = min(demands, key=_matches_many)
                self._by_value.setdefault(demand.fieldpath, {}).setdefault(demand.value, []).append(one)
            else:
                self._others.append(one)

    def matches(self, adaptor: Adaptor) -> bool:
        """Whether one of the filters matches the object behind ``adaptor``."""
        if not self.filters or any(one.matches(adaptor) for one in self._others):
            return True
        return any(
            one.matches(adaptor)
            for path, by_value in self._by_value.items()
            for one in by_value.get(adaptor(path)[0], ())
        )

    def warnings(self) -> List[str]:
        """The warnings of all filters, each once."""
        return list(dict.fromkeys(warning for one in self.filters for warning in one.warnings()))

    def mistakes(self) -> List[str]:
        """The mistakes of all filters, each once."""
        return list(dict.fromkeys(mistake for one in self.filters for mistake in one.mistakes()))


def _matches_many(selector: Selector) -> int:
    """How many snapshots may have a value, as a rank: one a name, most of them a kind."""
    return {"name": 0, "labels": 1, "parent": 2}.get(selector.fieldpath[0], 3)


def parse(text: str) -> Filter:
    """Read one filter. Raises FilterError."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_FILTER_BYTES:
        raise FilterError(
            f"filters: parse error: a filter of {size} bytes is longer than the limit of {MAX_FILTER_BYTES} bytes, "
            "split it into several filters"
        )
    return Filter(_Parser(text).selectors() if text else ())


def parse_all(texts: Sequence[str]) -> Filters:
    """Read filters of which one must match. Raises InvalidArgument."""
    try:
        return Filters(tuple([parse(text) for text in dict.fromkeys(texts)]))
    except FilterError as error:
        advice = _ADVICE_OPERATOR if "unsupported operator" in str(error).rpartition("]: ")[2] else _ADVICE_QUOTES
        raise InvalidArgument(f"{error}: invalid argument", advice=advice) from error


def snapshot_adaptor(info: Info) -> Adaptor:
    """The fields of a snapshot: ``kind``, ``name``, ``parent`` and ``labels.<key>``.

    All parts of the path after ``labels`` are joined with ``.`` to the key.
    Parts after one of the other fields are ignored. ``parent`` is present even
    if it is ``""``. Unknown fields are absent.
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


class _Parser:
    """Reads selectors (parser.go). The next character, white space included, decides what comes next."""

    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text)

    def selectors(self) -> Tuple[Selector, ...]:
        selectors = [self._selector()]
        while self._scanner.peek() == ",":
            self._scanner.scan()
            selectors.append(self._selector())
        char = self._scanner.peek()
        if char:
            shown = "\ufffd" if char == BAD_CHARACTER else char
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
        try:
            return unquote(token.text)
        except ValueError:
            raise self._error(token.position, "unquoting failed: quote syntax error") from None

    def _error(self, position: int, message: str) -> FilterError:
        """The error at a byte offset; the bytes of a character that is cut there show as escapes."""
        text = encode(self._scanner.text)
        where = text
        if position < len(text):
            where = b"%s >|%s|< %s" % (text[:position], text[position : position + 1], text[position + 1 :])
        return FilterError(f"filters: parse error: [{where.decode('utf-8', 'backslashreplace')}]: {message}")
