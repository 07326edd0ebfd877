# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""Regular expressions of RE2, in linear time.

``re`` of the standard library has another syntax and takes exponential time on
hostile input, so filters do not use it. The syntax is that of Go's
regexp/syntax (https://github.com/google/re2/wiki/Syntax), with Go's messages.
A search only answers whether an expression matches anywhere in a text. What
the groups match does not matter, so lazy and greedy repeats are the same.

An expression becomes a position automaton (Glushkov): it has one position for
each character or class, after counted repeats are expanded, and ``follow``
edges between them. The positions reached so far are the bits of one integer.
Each such set of positions becomes a state of a deterministic automaton, whose
transitions are cached up to a limit. Nothing backtracks: a text of n characters
takes n steps, and a step takes at most ``MAX_POSITIONS / 4`` table look-ups.
With the limits below, compiling any expression and searching a text of 4,096
characters takes less than one second on a core of 2 GHz; the worst known
expressions take half of that.

Differences from Go:

* Expressions that are longer than ``MAX_PATTERN_LENGTH``, deeper than
  ``MAX_DEPTH`` or larger than ``MAX_POSITIONS`` or ``MAX_PROGRAM`` do not
  compile. ``(ab){1000}`` does. Go's limits are higher.
* ``\p{...}`` accepts the short names of general categories (``\pL``,
  ``\p{Lu}``) and ``Any``, but no scripts such as ``\p{Greek}``: the standard
  library has no table of scripts.
* Categories and case folding are those of the interpreter's Unicode version.
  Folding is simple folding, as Go's, derived from ``str.casefold``.
* In a text, each lone surrogate stands for one byte that is not UTF-8, and
  matches as U+FFFD, as in Go. In an expression it is an error.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from operator import xor
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

#: Characters of an expression.
MAX_PATTERN_LENGTH = 4096
#: Groups inside groups.
MAX_DEPTH = 250
#: Characters and classes of an expression, after its counted repeats are expanded.
MAX_POSITIONS = 2048
#: Instructions of a program: positions, assertions, alternations, repeats.
MAX_PROGRAM = 4 * MAX_POSITIONS
#: RE2's limit on {n,m}, and on the product of nested ones.
MAX_REPEAT = 1000
#: Cached transitions. When there are more, all are dropped.
MAX_CACHED_TRANSITIONS = 10_000

_MAX_CODE = 0x10FFFF

_Ranges = Tuple[Tuple[int, int], ...]


class RegexError(ValueError):
    """The expression does not compile. The message is that of Go's regexp/syntax."""


def compile(pattern: str) -> Pattern:  # noqa: A001 - named as in re
    """Compile an expression. Raises RegexError."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise RegexError(
            f"error parsing regexp: expression too large: {len(pattern)} characters, the limit is {MAX_PATTERN_LENGTH}"
        )
    return Pattern(_Parser(pattern))


class _Category(NamedTuple):
    r"""``\p`` or ``\P`` inside a class, ``folded`` under ``(?i)``."""

    names: FrozenSet[str]
    folded: bool
    negated: bool


class _Class(NamedTuple):
    """A set of characters: those in ``ranges``, those equal to one in ``folded`` but for case, and the categories."""

    ranges: _Ranges
    folded: _Ranges = ()
    categories: Tuple[_Category, ...] = ()
    negated: bool = False


class _Instruction(NamedTuple):
    """One step of a program in postfix order.

    CLASS and ASSERTION push an operand; their argument is the index of the
    class or the bit of the assertion. CONCAT and ALTERNATE join as many operands
    as their argument says. The others change one operand.
    """

    operation: int
    argument: int = 0


_CLASS, _ASSERTION, _CONCAT, _ALTERNATE, _STAR, _PLUS, _QUEST = range(7)

_BEGIN_TEXT, _END_TEXT, _BEGIN_LINE, _END_LINE, _WORD_BOUNDARY, _NO_WORD_BOUNDARY = (1 << bit for bit in range(6))

#: The kinds of neighbour that a place in the text has on each side; assertions depend on nothing else.
_EDGE, _NEWLINE, _WORD, _OTHER = range(4)


def _assertions(before: int, after: int) -> int:
    """The assertions that hold between two neighbours in the text, as bits."""
    holding = _WORD_BOUNDARY if (before == _WORD) != (after == _WORD) else _NO_WORD_BOUNDARY
    if before == _EDGE:
        holding |= _BEGIN_TEXT
    if before in (_EDGE, _NEWLINE):
        holding |= _BEGIN_LINE
    if after == _EDGE:
        holding |= _END_TEXT
    if after in (_EDGE, _NEWLINE):
        holding |= _END_LINE
    return holding


def _neighbour(char: str) -> int:
    if not char:
        return _EDGE
    if char == "\n":
        return _NEWLINE
    return _WORD if char == "_" or (char.isascii() and char.isalnum()) else _OTHER


class _State:
    """A state of the deterministic automaton: the positions reached, and the neighbour before the next character."""

    __slots__ = ("before", "positions", "transitions")

    def __init__(self, positions: int, before: int) -> None:
        self.positions = positions
        self.before = before
        #: By character; "" is the end of the text.
        self.transitions: Dict[str, _State] = {}


_MATCHED = _State(0, _EDGE)
_FAILED = _State(0, _EDGE)


class Pattern:
    """A compiled expression."""

    def __init__(self, source: _Parser) -> None:
        self._code = source.code
        members = [0] * len(source.classes)
        position = 0
        asserted = 0
        for operation, argument in self._code:
            if operation == _CLASS:
                position += 1
                members[argument] |= 1 << position
            elif operation == _ASSERTION:
                asserted |= argument
        # The bits of the assertions that the expression has.
        self._asserted = asserted
        self._alphabet = _Alphabet(list(zip(source.classes, members)))
        self._automata: Dict[int, _Automaton] = {}
        self._states: Dict[Tuple[int, int], _State] = {}
        self._cached = 0
        # Bit 0 is the place before the expression. It stays set, so the search is unanchored.
        self._start = self._state(1, _EDGE)

    def search(self, text: str) -> bool:
        """Whether the expression matches anywhere in the text."""
        state = self._start
        for char in text:
            following = state.transitions.get(char) or self._step(state, char)
            if following is _MATCHED:
                return True
            state = following
        return (state.transitions.get("") or self._step(state, "")) is _MATCHED

    def _step(self, state: _State, char: str) -> _State:
        """Compute a transition and cache it."""
        after = _neighbour(char) if self._asserted else _EDGE
        holding = _assertions(state.before, after) & self._asserted
        automaton = self._automata.get(holding)
        if automaton is None:
            automaton = self._automata[holding] = _Automaton(self._code, holding)
        if state.positions & automaton.accepting:
            target = _MATCHED
        elif not char:
            target = _FAILED
        else:
            target = self._state(1 | automaton.follow(state.positions) & self._alphabet.positions(char), after)
        self._cached += 1
        if self._cached > MAX_CACHED_TRANSITIONS:
            self._forget()
        state.transitions[char] = target
        return target

    def _state(self, positions: int, before: int) -> _State:
        state = self._states.get((positions, before))
        if state is None:
            state = self._states[positions, before] = _State(positions, before)
        return state

    def _forget(self) -> None:
        for state in self._states.values():
            state.transitions.clear()
        self._states = {(self._start.positions, self._start.before): self._start}
        self._cached = 0


#: A part of an expression: whether it matches the empty text, its first positions as bits, the list of its last
#: positions.
_Operand = Tuple[bool, int, List[int]]


class _Automaton:
    """The ``follow`` edges and the accepting positions of a program where the assertions in ``holding`` hold.

    All assertions between two characters are about one place in the text.
    There, an assertion either holds and matches the empty text, or nothing.
    """

    def __init__(self, code: List[_Instruction], holding: int) -> None:
        follow = [0]
        stack: List[_Operand] = []
        for operation, argument in code:
            if operation == _CLASS:
                stack.append((False, 1 << len(follow), [len(follow)]))
                follow.append(0)
            elif operation == _ASSERTION:
                stack.append((bool(argument & holding), 0, []))
            elif operation in (_CONCAT, _ALTERNATE):
                operands = stack[len(stack) - argument :]
                del stack[len(stack) - argument :]
                stack.append(_alternate(operands) if operation == _ALTERNATE else _concatenate(operands, follow))
            else:
                nullable, first, last = stack.pop()
                if operation != _QUEST:
                    for position in last:
                        follow[position] |= first
                stack.append((nullable or operation != _PLUS, first, last))
        nullable, follow[0], last = stack.pop()
        self.accepting = int(nullable)
        for position in last:
            self.accepting |= 1 << position
        # For each group of four positions: what follows each of its sixteen subsets, by hexadecimal digit.
        self._rows: List[Dict[str, int]] = []
        for start in range(0, len(follow), 4):
            unions = [0]
            for successors in follow[start : start + 4]:
                unions += [union | successors for union in unions]
            self._rows.append(dict(zip("0123456789abcdef", unions)))

    def follow(self, positions: int) -> int:
        """The positions that can follow these."""
        following = 0
        for row, digit in zip(self._rows, reversed(f"{positions:x}")):
            if digit != "0":
                following |= row[digit]
        return following


def _alternate(operands: List[_Operand]) -> _Operand:
    nullable, firsts, lasts = False, 0, []
    for part_nullable, first, last in operands:
        nullable = nullable or part_nullable
        firsts |= first
        lasts += last
    return nullable, firsts, lasts


def _concatenate(operands: List[_Operand], follow: List[int]) -> _Operand:
    """The operand for a sequence; adds the edges between its parts to ``follow``."""
    nullable, firsts, lasts = True, 0, []
    for part_nullable, first, last in reversed(operands):
        if firsts:
            for position in last:
                follow[position] |= firsts
        if nullable:
            lasts += last
        firsts = first | firsts if part_nullable else first
        nullable = nullable and part_nullable
    return nullable, firsts, lasts


class _Alphabet:
    """Which positions a character matches. Each class comes with its positions, as bits."""

    def __init__(self, classes: List[Tuple[_Class, int]]) -> None:
        self._ranges = _RangeTable((one.ranges, bits) for one, bits in classes)
        self._folded = _RangeTable((one.folded, bits) for one, bits in classes)
        self._folds = any(one.folded or any(item.folded for item in one.categories) for one, _targets in classes)
        self._categories = [(one.categories, bits) for one, bits in classes if one.categories]
        self._by_category: Dict[Tuple[str, ...], int] = {}
        self._negated = 0
        for one, bits in classes:
            if one.negated:
                self._negated |= bits

    def positions(self, char: str) -> int:
        """The positions that the character matches, as bits."""
        if "\ud800" <= char <= "\udfff":
            char = "\ufffd"
        bits = self._ranges.bits(char)
        equivalents = _case_equivalents(char) if self._folds else ()
        for equivalent in equivalents:
            bits |= self._folded.bits(equivalent)
        if self._categories:
            bits |= self._category_positions(char, equivalents)
        return bits ^ self._negated

    def _category_positions(self, char: str, equivalents: Tuple[str, ...]) -> int:
        from unicodedata import category

        names = (category(char), *map(category, equivalents))
        bits = self._by_category.get(names)
        if bits is None:
            bits = 0
            for items, positions in self._categories:
                if any(_in_category(item, names) for item in items):
                    bits |= positions
            self._by_category[names] = bits
        return bits


def _in_category(item: _Category, names: Tuple[str, ...]) -> bool:
    """Whether a character matches; ``names`` are its category and those of its case equivalents."""
    return any(name in item.names for name in (names if item.folded else names[:1])) != item.negated


class _RangeTable:
    """From a character to the union of the bits of all ranges that contain it."""

    def __init__(self, classes: Iterable[Tuple[_Ranges, int]]) -> None:
        # The ranges of one class are disjoint, so each of their ends toggles the bits of the class.
        toggles = {0: 0}
        for ranges, bits in classes:
            for low, high in ranges:
                toggles[low] = toggles.get(low, 0) ^ bits
                toggles[high + 1] = toggles.get(high + 1, 0) ^ bits
        self._starts = sorted(toggles)
        self._bits: List[int] = list(accumulate((toggles[start] for start in self._starts), xor))

    def bits(self, char: str) -> int:
        return self._bits[bisect_right(self._starts, ord(char)) - 1]


def _case_equivalents(char: str) -> Tuple[str, ...]:
    """The characters that differ from this one only by case, and itself (unicode.SimpleFold)."""
    if char.isascii():
        # Two ASCII letters have an equivalent outside ASCII. They are named here so that ASCII text needs no table.
        return (char, char.swapcase(), *{"k": "\u212a", "s": "\u017f"}.get(char.lower(), ""))
    return _case_table().get(char, (char,))


@cache
def _case_table() -> Dict[str, Tuple[str, ...]]:
    """The case equivalents of each character that has others. Takes about 30 ms."""
    classes: Dict[str, List[str]] = {}
    # The last character with a case equivalent is U+1E943 (Adlam).
    for char in map(chr, range(ord("A"), 0x1E944)):
        folded = char.casefold()
        if len(folded) > 1:
            # Full folding makes several characters of it. Simple folding, if there is one, is the small letter.
            folded = char.lower()
        if folded != char and len(folded) == 1:
            classes.setdefault(folded, [folded]).append(char)
    return {char: tuple(equals) for equals in classes.values() for char in equals}


def _pairs(text: str) -> _Ranges:
    """Ranges from one string of lowest and highest characters in turn."""
    return tuple((ord(low), ord(high)) for low, high in zip(text[::2], text[1::2]))


_PERL_CLASSES = {"d": _pairs("09"), "s": _pairs("\t\n\f\r  "), "w": _pairs("09AZ__az")}
_POSIX_CLASSES = {
    "alnum": _pairs("09AZaz"),
    "alpha": _pairs("AZaz"),
    "ascii": _pairs("\0\x7f"),
    "blank": _pairs("\t\t  "),
    "cntrl": _pairs("\0\x1f\x7f\x7f"),
    "digit": _pairs("09"),
    "graph": _pairs("!~"),
    "lower": _pairs("az"),
    "print": _pairs(" ~"),
    "punct": _pairs("!/:@[`{~"),
    "space": _pairs("\t\r  "),
    "upper": _pairs("AZ"),
    "word": _pairs("09AZ__az"),
    "xdigit": _pairs("09AFaf"),
}
#: The second letters of the general categories, by the first one. Cn (unassigned) has no name in RE2.
_CATEGORIES = {"C": "cfos", "L": "lmotu", "M": "cen", "N": "dlo", "P": "cdefios", "S": "ckmo", "Z": "lps"}


def _merge(ranges: Iterable[Tuple[int, int]]) -> _Ranges:
    """The same characters in ascending ranges that neither overlap nor touch."""
    merged: List[Tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(ranges: _Ranges) -> _Ranges:
    """All characters outside merged ranges."""
    lows = [0] + [high + 1 for _low, high in ranges]
    highs = [low - 1 for low, _high in ranges] + [_MAX_CODE]
    return tuple((low, high) for low, high in zip(lows, highs) if low <= high)


_FOLD, _MULTI_LINE, _DOT_ALL, _UNGREEDY = 1, 2, 4, 8
_FLAGS = {"i": _FOLD, "m": _MULTI_LINE, "s": _DOT_ALL, "U": _UNGREEDY}

_COUNT = re.compile(r"\{(0|[1-9][0-9]*)(,?)((?:0|[1-9][0-9]*)?)\}")
_NAMED_GROUP = re.compile(r"\(\?P?<[A-Za-z0-9_]+>")
_FLAG_GROUP = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_BAD_GROUP = re.compile(r"\(\?[imsU]*(?:-[imsU]*)?.?", re.DOTALL)
_OCTAL_ESCAPE = re.compile(r"\\(0[0-7]{0,2}|[1-7][0-7]{1,2})")
_HEXADECIMAL_ESCAPE = re.compile(r"\\x(?:\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2}))")
_POSIX_CLASS = re.compile(r"\[:(\^?)(.*?):\]", re.DOTALL)
_CONTROL_ESCAPES = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class _Group:
    """An open group, or the whole expression.

    ``flags`` are restored after the group. ``last`` is where the code of the
    item begins that a repeat would apply to, None if there is none. The largest
    product of nested counts is in ``last_repeats`` for the last item, in
    ``repeats`` for the items before it.
    """

    def __init__(self, start: int, flags: int) -> None:
        self.start = start
        self.flags = flags
        self.alternatives = 1
        self.items = 0
        self.last: Optional[int] = None
        self.repeats = 1
        self.last_repeats = 1

    def add(self, start: int, repeats: int = 1) -> None:
        self.items += 1
        self.last = start
        self.repeats = max(self.repeats, self.last_repeats)
        self.last_repeats = repeats


class _Parser:
    """Turns an expression into postfix code. Raises RegexError."""

    def __init__(self, pattern: str) -> None:
        self.code: List[_Instruction] = []
        # The classes of the code, with their indexes.
        self.classes: Dict[_Class, int] = {}
        self._pattern = pattern
        self._position = 0
        self._flags = 0
        self._groups = [_Group(0, 0)]
        if any("\ud800" <= char <= "\udfff" for char in pattern):
            raise self._error("invalid UTF-8", pattern)
        repeated_from: Optional[int] = None
        while self._position < len(pattern):
            start = self._position
            counts = self._counts()
            if counts:
                self._repeat(start, repeated_from, *counts)
                repeated_from = start
            else:
                self._item()
                repeated_from = None
        if len(self._groups) > 1:
            raise self._error("missing closing )", pattern)
        self._close()
        if sum(instruction.operation == _CLASS for instruction in self.code) > MAX_POSITIONS:
            raise self._too_large()

    def _error(self, problem: str, excerpt: str, remedy: str = "") -> RegexError:
        shown = excerpt.encode("utf-8", "backslashreplace").decode("utf-8")
        return RegexError(f"error parsing regexp: {problem}: `{shown}`{remedy}")

    def _too_large(self) -> RegexError:
        remedy = f" (more than {MAX_POSITIONS} characters with its repeats expanded; split it into several filters)"
        return self._error("expression too large", self._pattern, remedy)

    def _emit(self, operation: int, argument: int = 0) -> None:
        if len(self.code) >= MAX_PROGRAM:
            raise self._too_large()
        self.code.append(_Instruction(operation, argument))

    def _join(self, operation: int, operands: int) -> None:
        """Make one operand of any number of them."""
        if operands != 1:
            self._emit(operation, operands)

    def _add(self, operation: int, argument: int) -> None:
        """Add an item of one instruction to the group."""
        self._groups[-1].add(len(self.code))
        self._emit(operation, argument)

    def _add_class(self, one: _Class) -> None:
        self._add(_CLASS, self.classes.setdefault(one, len(self.classes)))

    def _add_literal(self, code: int) -> None:
        ranges = ((code, code),)
        self._add_class(_Class((), ranges) if self._flags & _FOLD else _Class(ranges))

    def _item(self) -> None:
        """Read anything that is not a repeat."""
        char = self._pattern[self._position]
        if char == "(":
            self._open()
        elif char == "[":
            self._bracket()
        elif char == "\\":
            self._backslash()
        else:
            self._position += 1
            if char == "|":
                self._end_alternative()
                self._groups[-1].alternatives += 1
            elif char == ")":
                if len(self._groups) == 1:
                    raise self._error("unexpected )", self._pattern)
                group = self._close()
                self._flags = group.flags
                self._groups[-1].add(group.start, group.repeats)
            elif char == "^":
                self._add(_ASSERTION, _BEGIN_LINE if self._flags & _MULTI_LINE else _BEGIN_TEXT)
            elif char == "$":
                self._add(_ASSERTION, _END_LINE if self._flags & _MULTI_LINE else _END_TEXT)
            elif char == ".":
                self._add_class(_Class(() if self._flags & _DOT_ALL else _pairs("\n\n"), negated=True))
            else:
                self._add_literal(ord(char))

    def _open(self) -> None:
        start = self._position
        flags = self._flags
        if self._pattern.startswith("(?", start):
            named = _NAMED_GROUP.match(self._pattern, start)
            changed = _FLAG_GROUP.match(self._pattern, start)
            if named:
                self._position = named.end()
            elif changed:
                self._position = changed.end()
                for name in changed[1]:
                    self._flags |= _FLAGS[name]
                for name in (changed[2] or "-")[1:]:
                    self._flags &= ~_FLAGS[name]
                if changed[3] == ")":
                    return
            else:
                raise self._bad_group(start)
        else:
            self._position += 1
        if len(self._groups) > MAX_DEPTH:
            raise self._error("expression nests too deeply", self._pattern)
        self._groups.append(_Group(len(self.code), flags))

    def _bad_group(self, start: int) -> RegexError:
        if self._pattern.startswith(("(?P<", "(?<"), start):
            name, end, _rest = self._pattern[start:].partition(">")
            return self._error("invalid named capture", name + end)
        return self._error("invalid or unsupported Perl syntax", next(_BAD_GROUP.finditer(self._pattern, start))[0])

    def _end_alternative(self) -> None:
        group = self._groups[-1]
        self._join(_CONCAT, group.items)
        group.items = 0
        group.last = None

    def _close(self) -> _Group:
        """Finish the innermost group: its code becomes one operand, its ``repeats`` cover all items."""
        self._end_alternative()
        group = self._groups.pop()
        self._join(_ALTERNATE, group.alternatives)
        group.repeats = max(group.repeats, group.last_repeats)
        return group

    def _counts(self) -> Optional[Tuple[int, Optional[int]]]:
        """Read a repeat operator: its least and greatest count (None: unlimited). None if there is no operator."""
        start = self._position
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._pattern[start])
        if simple:
            self._position += 1
            return simple
        found = _COUNT.match(self._pattern, start)
        if not found or (found[3] and not found[2]):
            return None
        self._position = found.end()
        least = int(found[1])
        greatest = int(found[3]) if found[3] else None if found[2] else least
        if max(least, greatest or 0) > MAX_REPEAT or (greatest is not None and least > greatest):
            raise self._error("invalid repeat count", found[0])
        return least, greatest

    def _repeat(self, start: int, repeated_from: Optional[int], least: int, greatest: Optional[int]) -> None:
        """Apply the repeat operator at ``start``; ``repeated_from`` is the start of one directly before it."""
        if self._pattern.startswith("?", self._position):
            self._position += 1
        if repeated_from is not None:
            raise self._error("invalid nested repetition operator", self._pattern[repeated_from : self._position])
        group = self._groups[-1]
        operator = self._pattern[start : self._position]
        if group.last is None:
            raise self._error("missing argument to repetition operator", operator)
        group.last_repeats = (
            1 if greatest == 0 else group.last_repeats * max(1, least if greatest is None else greatest)
        )
        if operator[0] == "{" and max(least, greatest or 0) > 1 and group.last_repeats > MAX_REPEAT:
            raise self._error("invalid repeat count", operator)

        once = self.code[group.last :]
        copies = max(least, greatest or 0)
        if (len(once) + 1) * copies > MAX_PROGRAM:
            raise self._too_large()
        del self.code[group.last :]
        if greatest is not None:
            self.code += once * least + [*once, _Instruction(_QUEST)] * (greatest - least)
            self._join(_CONCAT, greatest)
        elif least:
            self.code += [*once * least, _Instruction(_PLUS)]
            self._join(_CONCAT, least)
        else:
            self.code += [*once, _Instruction(_STAR)]

    def _backslash(self) -> None:
        """Read what begins with a backslash, outside a class."""
        follower = self._pattern[self._position + 1 : self._position + 2]
        assertion = {"A": _BEGIN_TEXT, "z": _END_TEXT, "b": _WORD_BOUNDARY, "B": _NO_WORD_BOUNDARY}.get(follower)
        if assertion:
            self._position += 2
            self._add(_ASSERTION, assertion)
        elif follower == "Q":
            quoted, _end, rest = self._pattern[self._position + 2 :].partition("\\E")
            self._position = len(self._pattern) - len(rest)
            for char in quoted:
                self._add_literal(ord(char))
        else:
            ranges: List[Tuple[int, int]] = []
            categories: List[_Category] = []
            if self._named_class(ranges, categories):
                self._add_class(_Class(_merge(ranges), categories=tuple(categories)))
            else:
                self._add_literal(self._escape())

    def _bracket(self) -> None:
        """Read a class in brackets."""
        start = self._position
        self._position += 1
        negated = self._pattern.startswith("^", self._position)
        if negated:
            self._position += 1
        ranges: List[Tuple[int, int]] = []
        folded: List[Tuple[int, int]] = []
        categories: List[_Category] = []
        first = self._position
        while self._position == first or not self._pattern.startswith("]", self._position):
            posix = _POSIX_CLASS.match(self._pattern, self._position)
            if posix:
                if posix[2] not in _POSIX_CLASSES:
                    raise self._error("invalid character class range", posix[0])
                ranges += self._ascii_class(_POSIX_CLASSES[posix[2]], negated=bool(posix[1]))
                self._position = posix.end()
            elif not self._named_class(ranges, categories):
                (folded if self._flags & _FOLD else ranges).append(self._range(start))
        self._position += 1
        self._add_class(_Class(_merge(ranges), _merge(folded), tuple(categories), negated))

    def _range(self, bracket: int) -> Tuple[int, int]:
        """Read one character or a range of them in the class that starts at ``bracket``."""
        start = self._position
        low = high = self._class_character(bracket)
        # A minus before the closing bracket is a literal.
        if self._pattern.startswith("-", self._position) and self._pattern[
            self._position + 1 : self._position + 2
        ] not in {"", "]"}:
            self._position += 1
            high = self._class_character(bracket)
            if high < low:
                raise self._error("invalid character class range", self._pattern[start : self._position])
        return low, high

    def _class_character(self, bracket: int) -> int:
        if self._position == len(self._pattern):
            raise self._error("missing closing ]", self._pattern[bracket:])
        char = self._pattern[self._position]
        if char == "\\":
            return self._escape()
        self._position += 1
        return ord(char)

    def _named_class(self, ranges: List[Tuple[int, int]], categories: List[_Category]) -> bool:
        r"""Read ``\d``, ``\pL`` or the like into a class; False if there is none here."""
        follower = self._pattern[self._position + 1 : self._position + 2]
        if not self._pattern.startswith("\\", self._position) or not follower:
            return False
        if follower.lower() in _PERL_CLASSES:
            self._position += 2
            ranges += self._ascii_class(_PERL_CLASSES[follower.lower()], negated=follower.isupper())
            return True
        if follower in {"p", "P"}:
            self._unicode_class(ranges, categories)
            return True
        return False

    def _ascii_class(self, ranges: _Ranges, negated: bool) -> _Ranges:
        if self._flags & _FOLD:
            chars = [chr(code) for low, high in ranges for code in range(low, high + 1)]
            ranges = tuple((ord(same), ord(same)) for char in chars for same in _case_equivalents(char))
        return _complement(_merge(ranges)) if negated else ranges

    def _unicode_class(self, ranges: List[Tuple[int, int]], categories: List[_Category]) -> None:
        start = self._position
        end = start + 3
        if self._pattern.startswith("{", start + 2):
            end = self._pattern.find("}", start) + 1 or len(self._pattern)
        self._position = end
        name = self._pattern[start + 2 : end]
        if name.startswith("{") and name.endswith("}"):
            name = name[1:-1]
        negated = self._pattern[start + 1] == "P"
        if name.startswith("^"):
            name = name[1:]
            negated = not negated
        if name == "Any":
            ranges += [] if negated else [(0, _MAX_CODE)]
            return
        names = frozenset(
            major + minor for major, minors in _CATEGORIES.items() for minor in minors if name in {major, major + minor}
        )
        if not names:
            excerpt = self._pattern[start:end]
            raise self._error(
                "invalid character class range", excerpt, " (general categories are known, scripts are not)"
            )
        categories.append(_Category(names, bool(self._flags & _FOLD), negated))

    def _escape(self) -> int:
        """Read an escape that stands for one character."""
        start = self._position
        follower = self._pattern[start + 1 : start + 2]
        if not follower:
            raise self._error("trailing backslash at end of expression", "")
        self._position += 2
        octal = _OCTAL_ESCAPE.match(self._pattern, start)
        if octal:
            self._position = octal.end()
            return int(octal[1], 8)
        hexadecimal = _HEXADECIMAL_ESCAPE.match(self._pattern, start)
        if hexadecimal:
            code = int(hexadecimal[1] or hexadecimal[2], 16)
            if code <= _MAX_CODE:
                self._position = hexadecimal.end()
                return code
        if follower in _CONTROL_ESCAPES:
            return ord(_CONTROL_ESCAPES[follower])
        if follower.isascii() and not follower.isalnum():
            return ord(follower)
        raise self._error("invalid escape sequence", self._pattern[start : self._position])
