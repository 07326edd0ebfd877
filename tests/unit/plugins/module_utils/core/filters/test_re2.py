# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the matcher with fixed cases, with google-re2 as a peer and with hostile input."""

from __future__ import annotations

import os
import random
import time
import unicodedata
from typing import Any, Callable, Optional

import hypothesis
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import re2 as regex
from hypothesis import strategies


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", ["", "a"], []),
        ("b", ["abc"], ["", "ac"]),
        ("a.c", ["xabcx", "a牛c"], ["a\nc", "ac"]),
        ("(?s)a.c", ["a\nc"], ["ac"]),
        ("[a-c0]x", ["bx", "0x"], ["dx", "-x"]),
        ("[^a-c]x", ["dx", "\nx"], ["ax", "x"]),
        ("[]a]x", ["]x", "ax"], ["x"]),
        ("[^]a]x", ["bx"], ["]x", "ax"]),
        ("[a-]x", ["-x", "ax"], ["bx"]),
        ("[[:alpha:][:^ascii:]]x", ["ax", "éx"], ["1x"]),
        ("[[:a]x", [":x", "[x"], ["bx"]),
        (r"\d\D\w\W\s\S", ["1éa牛 x", "1ab. x"], ["1ab.\vx", "\u0661ab. x", "1aéb x"]),
        (r"[\d\S]", ["1", "a"], [" ", "\n"]),
        (r"^\pL\p{Nd}\PL$", ["é٣1", "牛1-"], ["1a1", "a1a"]),
        (r"[^\pL\p{^N}]", ["1"], ["a", "-"]),
        (r"\p{Any}\P{^Any}", ["ab"], ["a"]),
        (r"\P{Any}", [], ["a"]),
        ("^a$", ["a"], ["ab", "ba", "a\n", "b\na\nb"]),
        ("(?m)^a$", ["a", "b\na\nb"], ["ab"]),
        (r"(?m)\Aa\z", ["a"], ["b\na\nb"]),
        (r"\ba\b", ["x a y", "a", "éaé"], ["ab", "a_"]),
        (r"\Ba\B", ["bab"], ["a", "ab"]),
        (r"^\B$", [""], ["a"]),
        ("(?i)straße K", ["STRAßE k", "Stra\u1e9ee \u212a"], ["STRASSE K"]),
        ("(?i)[^k]", ["a"], ["k", "K", "\u212a"]),
        (r"(?i)[[:upper:]]x", ["aX", "\u017fx"], ["1x"]),
        (r"(?i)[^\W]", ["k", "\u212a"], ["é"]),
        (r"(?i)^\p{Lu}\P{Lu}", ["a1", "A牛"], ["aa", "11"]),
        (r"(?i)a(?-i)\p{Lu}", ["aB", "AB"], ["ab"]),
        ("(?i)\u03c3", ["ς", "Σ"], ["s"]),
        ("(?i)i", ["I"], ["\u0130", "\u0131"]),
        ("a(?i)b|c", ["aB", "C"], ["AB"]),
        ("(?i:a)b", ["Ab"], ["AB"]),
        ("(?i)a(?-i)b", ["Ab"], ["AB"]),
        ("(?i)a(?-i:b)c", ["AbC"], ["ABC"]),
        ("(?is-m:A.)^", [], ["a\n"]),
        ("(?:a|b)c", ["bc"], ["ab"]),
        ("(?P<n>a)(?<m>b)", ["ab"], ["ba"]),
        ("^(|a|bc)$", ["", "a", "bc"], ["b"]),
        ("^a*b+c?$", ["b", "aabbc"], ["a", "bcc"]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{2,}$", ["aa", "aaaa"], ["a"]),
        ("^a{1,2}$", ["a", "aa"], ["", "aaa"]),
        ("^a{0}$", [""], ["a"]),
        ("^(a{2}){3}$", ["aaaaaa"], ["aaaaa"]),
        ("^a*?b+?c??d{1,2}?$", ["bd", "aabbcdd"], ["ad"]),
        ("(?U)^a+$", ["aa"], ["b"]),
        ("x{,2}", ["x{,2}"], ["xx"]),
        ("x{01}", ["x{01}"], ["x"]),
        ("x{", ["x{"], ["x"]),
        (r"\Qa.b*\Ec", ["a.b*c"], ["axbc"]),
        (r"\Qab\E+$", ["abb"], ["abab."]),
        (r"\Qa", ["a"], ["Q"]),
        (r"^\x41\x{725b}\101\07\0\a\f\n\r\t\v\.\_\-$", ["A牛A\x07\0\a\f\n\r\t\v._-"], [""]),
        (r"[\x41-\103\]\n]x", ["Bx", "]x", "\nx"], ["Dx"]),
        (r"\x{d800}|\x{10ffff}", ["\U0010ffff"], ["\ud800"]),
        # A byte that is not UTF-8 counts as U+FFFD, as in Go.
        ("^a.\ufffd$", ["a\udcff\udcfe"], ["a\udcff"]),
    ],
)
def test_search(pattern: str, matching: list[str], other: list[str]) -> None:
    compiled = regex.compile(pattern)
    assert [text for text in matching + other if compiled.search(text)] == matching


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "missing closing ): `(`"),
        ("(a|b", "missing closing ): `(a|b`"),
        ("a)", "unexpected ): `a)`"),
        ("[a", "missing closing ]: `[a`"),
        ("x[]a", "missing closing ]: `[]a`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        (r"[a-\d]", r"invalid escape sequence: `\d`"),
        ("[[:word:]-[:nope:]]", "invalid character class range: `[:nope:]`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a|+?", "missing argument to repetition operator: `+?`"),
        ("({2})", "missing argument to repetition operator: `{2}`"),
        (r"\Q\E*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a+{2}?", "invalid nested repetition operator: `+{2}?`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a{1,99999999999}", "invalid repeat count: `{1,99999999999}`"),
        ("(a{10}){101}", "invalid repeat count: `{101}`"),
        ("((a{500})*b{2,}){3}", "invalid repeat count: `{3}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
        ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
        ("(?i--s)a", "invalid or unsupported Perl syntax: `(?i--`"),
        ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
        ("(?<=a)", "invalid named capture: `(?<=a)`"),
        ("(?P<n-o>a)", "invalid named capture: `(?P<n-o>`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        (r"\8", r"invalid escape sequence: `\8`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\é", r"invalid escape sequence: `\é`"),
        (r"\x{110000}", r"invalid escape sequence: `\x`"),
        (r"\xg", r"invalid escape sequence: `\x`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        (r"\pX", r"invalid character class range: `\pX` (general categories are known, scripts are not)"),
        (r"\p", r"invalid character class range: `\p` (general categories are known, scripts are not)"),
        (r"[\p{Greek}]", r"invalid character class range: `\p{Greek}` (general categories are known, scripts are not)"),
        (r"\p{L", r"invalid character class range: `\p{L` (general categories are known, scripts are not)"),
        ("a\udcff", r"invalid UTF-8: `a\udcff`"),
    ],
)
def test_errors(pattern: str, message: str) -> None:
    with pytest.raises(regex.RegexError) as raised:
        regex.compile(pattern)
    assert str(raised.value) == f"error parsing regexp: {message}"


def test_limits() -> None:
    regex.compile("(ab){1000}")
    regex.compile("(?:" + "a?" * 4 + "){500}")
    regex.compile("((((((((a{2}){2}){2}){2}){2}){2}){2}){2}){2}")
    regex.compile("(" * regex.MAX_DEPTH + ")" * regex.MAX_DEPTH)
    for pattern in ["(abc){1000}", "((a|){1000}){0,1}" * 8, "(){1000}" * 9, r"\b" * 2000 + "(){1000}" * 7 + "a" * 2000]:
        with pytest.raises(regex.RegexError, match="expression too large"):
            regex.compile(pattern)
    with pytest.raises(regex.RegexError, match="expression nests too deeply"):
        regex.compile("(" * (regex.MAX_DEPTH + 1))
    with pytest.raises(regex.RegexError, match="expression too large: 4097 characters, the limit is 4096"):
        regex.compile("a" * (regex.MAX_PATTERN_LENGTH + 1))


def test_a_full_cache_is_dropped_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regex, "MAX_CACHED_TRANSITIONS", 5)
    compiled = regex.compile(r"a.{6}b\b")
    text = ("ab" * 3 + "a" + "cb" * 5) * 10
    for _ in range(3):
        assert compiled.search(text + "ax12345b")
        assert not compiled.search(text + "ax12345b6")
    assert len(compiled._states) <= 7


SEEDED = random.Random(20260101)
LETTERS = "".join(SEEDED.choice("ab") for _ in range(4096))
SPACED = "".join(SEEDED.choice("a \n_b") for _ in range(4096))
SCRIPTS = "".join(chr(SEEDED.randrange(0x80, 0x800)) for _ in range(4096))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("((a*)*)*c", LETTERS),
        ("(a|aa)+$", "a" * 4095 + "b"),
        ("(a?){1000}a{1000}c", "a" * 4096),
        ("(a|b){1000}c", LETTERS),
        (".{0,1000}c", LETTERS),
        ("((a{1,10}){1,10}){1,10}c", LETTERS),
        ("(a.{1000}b.{1000}|b.)c", LETTERS),
        ("(.*)(.*)(.*)(.*)(.*)c", LETTERS),
        ("(" * 150 + r"(?:a\b|b\B|^_|$\n|(?m:^ |$b)|c?){140}" + ")*b?" * 150 + "c", SPACED),
        ("(" * 249 + "(?:a?){1000}" + ")*b?" * 249 + "c", LETTERS),
        ("|".join(f"[\\pL{chr(0x80 + index)}]Q" for index in range(450)), SCRIPTS),
        ("(?i)" + "|".join(f"[{chr(0x80 + index)}-{chr(0x85 + 2 * index)}]Q" for index in range(500)), SCRIPTS),
        ("(?i)" + r"[\x00-\x{1e943}]Q" * 200, SCRIPTS),
    ],
)
def test_hostile_input_takes_less_than_a_second(pattern: str, text: str) -> None:
    started = time.process_time()
    assert not regex.compile(pattern).search(text)
    assert time.process_time() - started < 1.0


@pytest.fixture(scope="module")
def peer() -> Callable[[str], Optional[Any]]:
    """Return a function that compiles with google-re2, or returns None for an expression that google-re2 refuses."""
    re2 = pytest.importorskip("re2")
    options = re2.Options()
    options.log_errors = False

    def compiled(pattern: str) -> Optional[Any]:
        try:
            return re2.compile(pattern, options)
        except re2.error:
            return None

    return compiled


def ours(pattern: str) -> Optional[regex.Pattern]:
    try:
        return regex.compile(pattern)
    except regex.RegexError:
        return None


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        (r"\C", False),  # matches one byte; Go does not support it
        ("(?P<é>a)", False),  # group names are ASCII in Go
        ("((a{1000}){0}){1000}", True),  # Go does not count repeats inside {0}
    ],
)
def test_syntax_where_go_and_re2_differ_is_go_s(
    pattern: str, accepted: bool, peer: Callable[[str], Optional[Any]]
) -> None:
    assert (ours(pattern) is not None) == accepted
    assert (peer(pattern) is not None) == (not accepted)


def test_word_boundaries_are_between_characters_as_go_s(peer: Callable[[str], Optional[Any]]) -> None:
    theirs = peer(r"\B")
    assert theirs
    assert theirs.search("aéa")  # RE2 tests the position between the two bytes of é
    assert not regex.compile(r"\B").search("aéa")


# The rest omits the known differences: the cases above, scripts, and the size limits that the module documents.
CHARACTERS = "abkKsS019_ -.\n"
FOREIGN_CHARACTERS = "éÉß\u1e9e\u017f\u212a\u03c3ςΣ牛\U0001f402"
ITEMS = [
    *"abkKsS019_ -.^$é\u017f\u212a牛",
    *[
        "[ab]",
        "[^a]",
        "[a-k]",
        "[^é-牛k]",
        r"[^\W]",
        r"[\d_]",
        "[[:alpha:]]",
        "[[:^upper:]]",
        "[[:punct:]a]",
        "[]a]",
        "[a-]",
    ],
    *[
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\s",
        r"\S",
        r"\A",
        r"\z",
        r"\pL",
        r"\PL",
        r"\p{Lu}",
        r"\p{^Lu}",
        r"[^\pL]",
        r"[\PNa]",
    ],
    *["(?i)", "(?-i)", "(?m)", "(?s)", r"\x41", r"\x{6b}", r"\101", r"\Qa*\E", r"\.", r"\n"],
]
REPEATS = ["*", "+", "?", "*?", "{0}", "{2}", "{1,2}", "{0,2}", "{2,}", "{1,3}?"]
GROUPS = ["({})", "(?:{})", "(?i:{})", "(?P<n>{})", "(?ms:{})", "(?-s:{})"]


def expression(choice: random.Random, items: list[str]) -> str:
    """Return a random expression that follows the grammar."""
    operands: list[str] = []
    for _step in range(choice.randint(1, 10)):
        kind = choice.choices(["item", "repeat", "group", "alternatives", "sequence"], [10, 5, 2, 2, 1])[0]
        last = operands.pop() if operands and kind != "item" else ""
        if kind == "item":
            operands.append(choice.choice(items))
        elif kind == "repeat":
            operands.append((last if last in ITEMS else f"(?:{last})") + choice.choice(REPEATS))
        elif kind == "group":
            operands.append(choice.choice(GROUPS).replace("{}", last))
        else:
            first = operands.pop() if operands else ""
            operands.append(first + ("|" if kind == "alternatives" else "") + last)
    return "".join(operands)


def samples(choice: random.Random, pattern: str, characters: str) -> list[str]:
    """Return all short parts, prefixes and suffixes of a random text of few characters, mostly from the pattern."""
    few = [char for char in pattern if char in characters] * 2 + choice.sample(characters, 3)
    text = "".join(choice.choices(few, k=8))
    spans = [(start, end) for start in range(9) for end in range(start, 9) if end - start < 4 or not start or end == 8]
    return list(dict.fromkeys(text[start:end] for start, end in spans))


#: Cases from one draw. Hypothesis takes five times as long to draw an expression as both matchers take to match it.
CASES = 20
PEER_SETTINGS = hypothesis.settings(
    max_examples=500 if os.environ.get("WCOW_FUZZ") == "1" else 30,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
CHOICES = strategies.randoms(use_true_random=True)


def assert_same(pattern: str, samples: list[str], peer: Callable[[str], Optional[Any]]) -> None:
    mine, theirs = ours(pattern), peer(pattern)
    assert (mine is None) == (theirs is None), pattern
    if mine and theirs:
        for sample in samples:
            assert mine.search(sample) == (theirs.search(sample) is not None), (pattern, sample)


@PEER_SETTINGS
@hypothesis.given(choice=CHOICES)
def test_same_answer_as_re2(choice: random.Random, peer: Callable[[str], Optional[Any]]) -> None:
    for _case in range(CASES):
        pattern = expression(choice, ITEMS)
        assert_same(pattern, samples(choice, pattern, CHARACTERS + FOREIGN_CHARACTERS), peer)


@PEER_SETTINGS
@hypothesis.given(choice=CHOICES)
def test_same_assertions_as_re2(choice: random.Random, peer: Callable[[str], Optional[Any]]) -> None:
    for _case in range(CASES):
        pattern = expression(choice, [r"\b", r"\B", "^", "$", r"\A", r"\z", "(?m)", *"ab_ \n."])
        assert_same(pattern, samples(choice, pattern, "ab_ \n"), peer)


@PEER_SETTINGS
@hypothesis.given(choice=CHOICES)
def test_same_syntax_as_re2(choice: random.Random, peer: Callable[[str], Optional[Any]]) -> None:
    tokens = [*ITEMS, *REPEATS, *"()|[]{}*?\\-^:,<>=!P1i", "(?", "[[:", ":]", "(?P<", "\\Q", "\\E", "\\x"]
    for _case in range(CASES):
        pattern = "".join(choice.choices(tokens, k=choice.randint(0, 8)))
        if "\\C" not in pattern and "\\B" not in pattern:
            assert_same(pattern, samples(choice, pattern, CHARACTERS), peer)


def test_same_case_folding_as_re2(peer: Callable[[str], Optional[Any]]) -> None:
    """Each character that this Python and RE2 both know has the same case equivalents in both."""
    # Unicode 15.1 added these simple foldings to CaseFolding.txt. The methods of str do not have them.
    added = set("\u0390\u1fd3\u03b0\u1fe3\ufb05\ufb06")
    equivalents = regex._case_table()
    characters = sorted(set(equivalents) - added)
    everything = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x1E944)]))

    def found(pattern: str, text: str) -> set[str]:
        theirs = peer(pattern)
        assert theirs is not None
        return {char for char in theirs.findall(text) if unicodedata.category(char) != "Cn"}

    # No character has an equivalent outside the table, so each is compared only with the table.
    escapes = [f"\\x{{{ord(char):x}}}" for char in characters]
    assert found(f"(?i)[{''.join(escapes)}]", everything) <= set(equivalents)
    for char, escape in zip(characters, escapes):
        assert found(f"(?i){escape}", "".join(equivalents)) == set(equivalents[char]), char


def test_same_categories_as_re2(peer: Callable[[str], Optional[Any]]) -> None:
    """This test covers U+0001 to U+036F, where all Unicode versions have the same categories."""
    everything = "".join(map(chr, range(1, 0x370)))
    minor_names = [major + minor for major, minors in regex._CATEGORIES.items() for minor in minors]
    for name in [*regex._CATEGORIES, *minor_names]:
        negated = [] if name in minor_names else [f"\\P{{{name}}}", f"(?i)\\p{{{name}}}"]
        for pattern in [f"\\p{{{name}}}", f"(?i)[^\\P{{{name}}}]", *negated]:
            theirs = peer(pattern)
            assert theirs
            matching = theirs.findall(everything)
            # One search for all matching characters and one for all others. One per character takes five times as long.
            assert regex.compile(f"^(?:{pattern})*$").search("".join(matching)), pattern
            assert not regex.compile(pattern).search("".join(sorted(set(everything) - set(matching)))), pattern
