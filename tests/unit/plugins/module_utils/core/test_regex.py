# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matcher against fixed cases, against google-re2 as a peer, and against hostile input."""

from __future__ import annotations

import random
import time
import unicodedata
from typing import Any, Callable, Optional

import hypothesis
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import regex
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
    """Compile with google-re2; None where it refuses."""
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
        (r"\C", False),  # one byte, which Go does not support
        ("(?P<é>a)", False),  # Go's names of groups are ASCII
        ("((a{1000}){0}){1000}", True),  # Go does not look for repeats below {0}
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
    assert theirs.search("aéa")  # RE2 looks between the two bytes of é
    assert not regex.compile(r"\B").search("aéa")


# Left out below is what the two differ in: the cases above, scripts, and the limits of size that the module documents.
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


def patterns(items: list[str]) -> strategies.SearchStrategy[str]:
    """Expressions that keep to the grammar."""

    def grown(smaller: strategies.SearchStrategy[str]) -> strategies.SearchStrategy[str]:
        groups = strategies.sampled_from(["({})", "(?:{})", "(?i:{})", "(?P<n>{})", "(?ms:{})", "(?-s:{})"])
        grouped = strategies.tuples(groups, smaller).map(lambda pair: pair[0].replace("{}", pair[1]))
        repeated = strategies.tuples(grouped | strategies.sampled_from(items), strategies.sampled_from(REPEATS))
        return (
            repeated.map("".join)
            | strategies.lists(smaller, min_size=2, max_size=4).map("".join)
            | strategies.lists(smaller, min_size=2, max_size=3).map("|".join)
            | grouped
        )

    return strategies.recursive(strategies.sampled_from(items), grown, max_leaves=10)


def texts(characters: str) -> strategies.SearchStrategy[list[str]]:
    return strategies.lists(strategies.text(characters, max_size=8), min_size=4, max_size=8)


PEER_SETTINGS = hypothesis.settings(
    max_examples=1000,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)


def assert_same(pattern: str, samples: list[str], peer: Callable[[str], Optional[Any]]) -> None:
    mine, theirs = ours(pattern), peer(pattern)
    assert (mine is None) == (theirs is None), pattern
    if mine and theirs:
        for sample in samples:
            assert mine.search(sample) == (theirs.search(sample) is not None), (pattern, sample)


@PEER_SETTINGS
@hypothesis.given(pattern=patterns(ITEMS), samples=texts(CHARACTERS + FOREIGN_CHARACTERS))
def test_same_answer_as_re2(pattern: str, samples: list[str], peer: Callable[[str], Optional[Any]]) -> None:
    assert_same(pattern, samples, peer)


@PEER_SETTINGS
@hypothesis.given(pattern=patterns([r"\b", r"\B", "^", "$", r"\A", r"\z", "(?m)", *"ab_ \n."]), samples=texts("ab_ \n"))
def test_same_assertions_as_re2(pattern: str, samples: list[str], peer: Callable[[str], Optional[Any]]) -> None:
    assert_same(pattern, samples, peer)


@PEER_SETTINGS
@hypothesis.given(
    pattern=strategies.lists(
        strategies.sampled_from(
            [*ITEMS, *REPEATS, *"()|[]{}*?\\-^:,<>=!P1i", "(?", "[[:", ":]", "(?P<", "\\Q", "\\E", "\\x"]
        ),
        max_size=8,
    ).map("".join),
    samples=texts(CHARACTERS),
)
def test_same_syntax_as_re2(pattern: str, samples: list[str], peer: Callable[[str], Optional[Any]]) -> None:
    hypothesis.assume("\\C" not in pattern and "\\B" not in pattern)
    assert_same(pattern, samples, peer)


def test_same_case_folding_as_re2(peer: Callable[[str], Optional[Any]]) -> None:
    """All characters that this Python and RE2 both know have the same case equivalents."""
    # Simple foldings that Unicode 15.1 added to CaseFolding.txt; str has no trace of them.
    added = set("\u0390\u1fd3\u03b0\u1fe3\ufb05\ufb06")
    equivalents = regex._case_table()
    everything = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x1E944)]))
    for char in sorted(set(equivalents) - added):
        theirs = peer(f"(?i)\\x{{{ord(char):x}}}")
        assert theirs is not None
        assert {found for found in theirs.findall(everything) if unicodedata.category(found) != "Cn"} == set(
            equivalents[char]
        ), char


def test_same_categories_as_re2(peer: Callable[[str], Optional[Any]]) -> None:
    """Over the Basic Latin to Greek blocks, which Unicode versions agree about."""
    for name in [*"CLMNPSZ", *(major + minor for major, minors in regex._CATEGORIES.items() for minor in minors)]:
        for pattern in [f"\\p{{{name}}}", f"\\P{{{name}}}", f"(?i)\\p{{{name}}}", f"(?i)[^\\P{{{name}}}]"]:
            mine, theirs = ours(pattern), peer(pattern)
            assert mine
            assert theirs
            for char in map(chr, range(1, 0x370)):
                assert mine.search(char) == (theirs.search(char) is not None), (pattern, char)
