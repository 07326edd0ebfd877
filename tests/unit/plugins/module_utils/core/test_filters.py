# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter language against containerd's own cases.

Scanner and corpus: pkg/filters/scanner_test.go, filter_test.go. Walk:
core/snapshots/testsuite/testsuite.go.
"""

from __future__ import annotations

import subprocess
import sys
import time

import hypothesis
import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import errors, filters, model
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters import (
    END,
    FIELD,
    ILLEGAL,
    OPERATOR,
    QUOTED,
    SEPARATOR,
    VALUE,
    Selector,
)
from hypothesis import strategies

KINDS = {"F": FIELD, "O": OPERATOR, "V": VALUE, "Q": QUOTED, "S": SEPARATOR, "I": ILLEGAL, "E": END}
NOT_TERMINATED = "quoted literal not terminated"


@pytest.mark.parametrize(
    ("text", "expected", "error"),
    [
        ("name", ["F0 name", "E4"], ""),
        (
            "name==value,foo!=bar",
            ["F0 name", "O4 ==", "V6 value", "S11 ,", "F12 foo", "O15 !=", "V17 bar", "E20"],
            "",
        ),
        (
            "name==value,labels.foo=value,other.bar~=match",
            [
                *["F0 name", "O4 ==", "V6 value", "S11 ,"],
                *["F12 labels", "S18 .", "F19 foo", "O22 =", "V23 value", "S28 ,"],
                *["F29 other", "S34 .", "F35 bar", "O38 ~=", "V40 match", "E45"],
            ],
            "",
        ),
        (
            "name~=[abc]+,foo=test",
            ["F0 name", "O4 ~=", "V6 [abc]+", "S12 ,", "F13 foo", "O16 =", "V17 test", "E21"],
            "",
        ),
        (
            r"name~=[abc]\+,foo=test",
            ["F0 name", "O4 ~=", r"V6 [abc]\+", "S13 ,", "F14 foo", "O17 =", "V18 test", "E22"],
            "",
        ),
        (
            "name~=/[abc]{0,2}/,foo=test",
            ["F0 name", "O4 ~=", "Q6 /[abc]{0,2}/", "S18 ,", "F19 foo", "O22 =", "V23 test", "E27"],
            "",
        ),
        (
            "name~=牛,labels.moo=true",
            ["F0 name", "O4 ~=", "V6 牛", "S9 ,", "F10 labels", "S16 .", "F17 moo", "O20 =", "V21 true", "E25"],
            "",
        ),
        (
            "name~=|牛|,labels.moo=true",
            ["F0 name", "O4 ~=", "Q6 |牛|", "S11 ,", "F12 labels", "S18 .", "F19 moo", "O22 =", "V23 true", "E27"],
            "",
        ),
        (r'name~="asdf\n\tfooo"', ["F0 name", "O4 ~=", r'Q6 "asdf\n\tfooo"', "E20"], ""),
        ("foo\0bar", ["F0 foo", "I3", "F4 bar", "E7"], "unexpected null"),
        ("foo = bar    ", ["F0 foo", "O4 =", "V6 bar", "E13"], ""),
        (
            "compound.labels==punctuated_value.foo-bar",
            ["F0 compound", "S8 .", "F9 labels", "O15 ==", "V17 punctuated_value.foo-bar", "E41"],
            "",
        ),
        ("interrupted=", ["F0 interrupted", "O11 =", "E12"], ""),
        ("doublevalue=value value", ["F0 doublevalue", "O11 =", "V12 value", "F18 value", "E23"], ""),
        (
            '"leading quote".postquote==value',
            ['Q0 "leading quote"', "S15 .", "F16 postquote", "O25 ==", "V27 value", "E32"],
            "",
        ),
        ("input==,id!=ff", ["F0 input", "O5 ==", "S7 ,", "F8 id", "O10 !=", "V12 ff", "E14"], ""),
        (
            r"input~=/foo\/bar/,id!=ff",
            ["F0 input", "O5 ~=", r"Q7 /foo\/bar/", "S17 ,", "F18 id", "O20 !=", "V22 ff", "E24"],
            "",
        ),
        (
            "input~=|foo/bar|,id!=ff",
            ["F0 input", "O5 ~=", "Q7 |foo/bar|", "S16 ,", "F17 id", "O19 !=", "V21 ff", "E23"],
            "",
        ),
        (
            "labels.containerd.io/key==value",
            ["F0 labels", "S6 .", "F7 containerd", "S17 .", "F18 io", "I20 /key==value", "E31"],
            NOT_TERMINATED,
        ),
        (
            'labels."containerd.io\nkey"==value',
            ["F0 labels", "S6 .", 'I7 "containerd.io\n', "F22 key", 'I25 "==value', "E33"],
            NOT_TERMINATED,
        ),
        (r'labels."\g"', ["F0 labels", "S6 .", r'I7 "\g"', "E11"], "illegal escape sequence"),
        (r'labels."\xaz"', ["F0 labels", "S6 .", r'I7 "\xaz"', "E13"], "illegal numeric escape sequence"),
        # Beyond the peer's table.
        ("", ["E0"], ""),
        ("a\ufffdb", ["F0 a", "I1", "F4 b", "E5"], "rune error"),
        ("a\udcffb", ["F0 a", "I1", "F7 b", "E8"], "rune error"),
        ("a==\x01b\x01c", ["F0 a", "O1 ==", "V3 \x01b", "\x015", "F6 c", "E7"], ""),
        ("a==b\x1cc", ["F0 a", "O1 ==", "V3 b", "\x1c4", "F5 c", "E6"], ""),
        ("a== \u2003b\u3000c", ["F0 a", "O1 ==", "V7 b", "F11 c", "E12"], ""),
        ("a==\u00adb\u00ad", ["F0 a", "O1 ==", "V3 \u00adb", "\u00ad6", "E8"], ""),
        (r'"\1', [r'I0 "\1', "E3"], "illegal numeric escape sequence"),
        ('"\\', ['I0 "\\', "E2"], "illegal escape sequence"),
        ('"\\\0"', ['I0 "\\\0', 'I3 "', "E4"], "unexpected null"),
        ("a?b", ["F0 a", "?1", "F2 b", "E3"], ""),
    ],
)
def test_scanner(text: str, expected: list[str], error: str) -> None:
    scanner = filters.Scanner(text)
    tokens = []
    for _ in range(len(text) + 1):
        tokens.append(scanner.scan())
        if tokens[-1].kind == END:
            break
    assert [(token.kind, token.position, token.text) for token in tokens] == [read_token(one) for one in expected]
    assert scanner.error == error
    assert scanner.scan().kind == END


def read_token(short: str) -> tuple[str, int, str]:
    """A token from its kind, position and text, as in ``F0 name``."""
    head, _, text = short[1:].partition(" ")
    return KINDS.get(short[0], short[0]), int(head), text


#: name, other, labels
CORPUS = [
    ("foo", "", {"foo": "true"}),
    ("bar", "", {}),
    ("foo", "", {"foo": "present", "more complex label": "present"}),
    ("bar", "", {"bar": "true"}),
    ("fooer", "", {'more complex label with \\ and "': "present"}),
    ("fooer", "", {'more complex label with \\ and ".post': "present"}),
    ("baz", "too complex, yo", {}),
    ("bazo", "abc", {}),
    ("compound", "", {"foo": "omg_asdf.asdf-qwer"}),
]


def corpus_adaptor(name: str, other: str, labels: dict[str, str]) -> filters.Adaptor:
    def field(fieldpath: tuple[str, ...]) -> tuple[str, bool]:
        if fieldpath[0] == "labels":
            key = ".".join(fieldpath[1:])
            return labels.get(key, ""), key in labels
        value = {"name": name, "other": other}.get(fieldpath[0], "")
        return value, value != ""

    return field


ALL = list(range(9))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ALL),
        ("name", ALL),
        ("labels.foo", [0, 2, 8]),
        ("labels.foo,name", [0, 2, 8]),
        ("labels.foo==true", [0]),
        ("labels.foo==omg_asdf.asdf-qwer", [8]),
        ("name==bar", [1, 3]),
        ("name!=bar", [0, 2, 4, 5, 6, 7, 8]),
        ("name==bar,labels.bar", [3]),
        ("name==bar,labels.bar==true", [3]),
        ("name==bar,labels.bar==wrong", []),
        ('other=="too complex, yo"', [6]),
        ("other~=[abc]+,name!=foo", [6, 7]),
        ("other~=/[abc]+/,name!=foo", [6, 7]),
        ("other~=/[abc]{1,2}/,name!=foo", [6, 7]),
        (r'other~=/[abc]{0,1}"\//,name!=foo', []),
        ('name==foo,labels."more complex label"', [2]),
        (r'labels."more complex label with \\ and \""==present', [4]),
        (r'labels."more complex label with \\ and \"".post==present', [5]),
        # Absent fields.
        ('labels.foo!=""', [0, 2, 8]),
        ("labels.foo!=true", [1, 2, 3, 4, 5, 6, 7, 8]),
        ('labels.foo==""', []),
        ("labels.x~=/.*/", ALL),
        ("labels.x~=/.+/", []),
        ("id", []),
        # Spaces, operators inside values, escapes.
        ("name == bar, labels.bar", [3]),
        ("name\n==\tbar", [1, 3]),
        ("labels.foo==omg=x", []),
        (r'other=="\x74oo\040complex\u002c yo"', [6]),
        (r"other~=/^\\w+$/", [7]),
        (r"other~=^\w+$", [7]),
        (r"other~=|yo$\|^abc|", [6, 7]),
        # An expression that does not compile matches nothing.
        ("other~=(", []),
        (r"other~=(.)\1", []),
    ],
)
def test_corpus(text: str, expected: list[int]) -> None:
    found = filters.parse(text)
    assert [index for index in ALL if found.matches(corpus_adaptor(*CORPUS[index]))] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels.|foo|==omg_asdf.asdf-qwer", "[labels. >|||< foo|==omg_asdf.asdf-qwer]: invalid quote encountered"),
        (
            r'labels.?"more complex label with \\ and \"".post==present',
            r'[labels. >|?|< "more complex label with \\ and \"".post==present]: expected field or quoted',
        ),
        ("name==foo,", "[name==foo,]: expected field or quoted"),
        ("labels.", "[labels.]: expected field or quoted"),
        (",name", "[ >|,|< name]: expected field or quoted"),
        ("image~=,id?=?fbaq", "[image~= >|,|< id?=?fbaq]: expected value or quoted"),
        ("image~=.*", "[image~= >|.|< *]: expected value or quoted"),
        ("image==", "[image==]: expected value or quoted"),
        ("labels.ns/key==value", "[labels.ns >|/|< key==value]: quoted literal not terminated"),
        ("labels.key==/value", "[labels.key== >|/|< value]: quoted literal not terminated"),
        ("name==/foo/", "[name== >|/|< foo/]: invalid quote encountered"),
        ("name!=|foo|", "[name!= >|||< foo|]: invalid quote encountered"),
        ("labels.a-b==c", '[labels.a >|-|< b==c]: expected an operator ("=="|"!="|"~=")'),
        ("name=foo", '[name >|=|< foo]: unsupported operator "="'),
        ("name===foo", '[name >|=|< ==foo]: unsupported operator "==="'),
        ("name=!foo", '[name >|=|< !foo]: unsupported operator "=!"'),
        ("a==b ,c", "[a==b >| |< ,c]: unexpected input:  "),
        ("a==b ", "[a==b >| |< ]: unexpected input:  "),
        ("a ", '[a ]: expected an operator ("=="|"!="|"~=")'),
        ('a=="b"c', '[a=="b" >|c|< ]: unexpected input: c'),
        ("a==b\0", "[a==b >|\0|< ]: unexpected input: \ufffd"),
        ("a\0", "[a >|\0|< ]: unexpected null"),
        ("a==\0", "[a== >|\0|< ]: unexpected null"),
        ("a==\ufffd", "[a== >|\\xef|< \\xbf\\xbd]: rune error"),
        ("a==\ud800", "[a== >|\\|< ud800]: rune error"),
        ("labels.牛==x", "[labels. >|\\xe7|< \\x89\\x9b==x]: expected field or quoted"),
        ("牛", "[ >|\\xe7|< \\x89\\x9b]: expected field or quoted"),
        (r'a=="\777"', r'[a== >|"|< \777"]: unquoting failed: quote syntax error'),
        (r'a=="\U00110000"', r'[a== >|"|< \U00110000"]: unquoting failed: quote syntax error'),
        (r"a~=/\d+/", r"[a~= >|/|< \d+/]: illegal escape sequence"),
        (r'a=="\u12"', r'[a== >|"|< \u12"]: illegal numeric escape sequence'),
        (r'a=="\/"', r'[a== >|"|< \/"]: illegal escape sequence'),
    ],
)
def test_parse_errors(text: str, message: str) -> None:
    with pytest.raises(filters.FilterError) as parse_error:
        filters.parse(text)
    assert str(parse_error.value) == f"filters: parse error: {message}"
    with pytest.raises(errors.InvalidArgument) as argument_error:
        filters.parse_all(["name", text])
    assert argument_error.value.message == f"filters: parse error: {message}: invalid argument"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'a=="\a\b\f\n\r\t\v\\\""', '\a\b\f\n\r\t\v\\"'),
        (r'a=="\xe7\x89\x9b"', "牛"),
        (r'a=="\347\211\233"', "牛"),
        (r'a=="\u725b\U0001f402"', "牛\U0001f402"),
        (r'a=="x\xffy"', "x\udcffy"),
        (r'a=="\ud800"', "\ufffd"),
        (r'a=="\x00"', "\0"),
        ('a=="it\'s, =  /|"', "it's, =  /|"),
        ('a==""', ""),
        ("a==b==c", "b==c"),
        ('a==b"c|d/e', 'b"c|d/e'),
        ("a==é\u0301²€", "é\u0301²€"),
    ],
)
def test_values(text: str, value: str) -> None:
    assert filters.parse(text).selectors == (Selector(("a",), "==", value),)


def test_selectors_are_plain_data() -> None:
    parsed = filters.parse(r'kind, labels."containerd.io/gc".root~=/^\\d/, 0_a."x"!=b')
    assert parsed.selectors == (
        Selector(("kind",), "", ""),
        Selector(("labels", "containerd.io/gc", "root"), "~=", r"^\d"),
        Selector(("0_a", "x"), "!=", "b"),
    )
    assert filters.parse("").selectors == ()


def test_several_filters_are_alternatives() -> None:
    bar = corpus_adaptor("bar", "", {})
    assert filters.parse_all([]).matches(bar)
    assert not filters.parse_all(["name==foo"]).matches(bar)
    assert filters.parse_all(["name==foo", "name==bar"]).matches(bar)
    assert filters.parse_all(["name==foo", ""]).matches(bar)


def test_a_bad_expression_is_a_warning() -> None:
    parsed = filters.parse_all(["other~=(,name~=(", "name~=a+", r"name~=\p{Greek}", "other~=("])
    prefix = "a filter matches nothing: error parsing regexp: "
    assert parsed.warnings() == [
        prefix + "missing closing ): `(`",
        prefix + "invalid character class range: `\\p{Greek}` (general categories are known, scripts are not)",
    ]
    assert parsed.matches(corpus_adaptor("bar", "", {}))
    assert filters.parse("name").warnings() == []


def test_an_expression_or_value_that_is_not_utf8() -> None:
    parsed = filters.parse(r'other~="\xff"')
    assert not parsed.matches(corpus_adaptor("", "\udcff", {}))
    assert parsed.warnings() == ["a filter matches nothing: error parsing regexp: invalid UTF-8: `\\udcff`"]


def test_length_limit() -> None:
    longest = "a==" + "b" * (filters.MAX_FILTER_BYTES - 3)
    assert len(filters.parse(longest).selectors[0].value) == filters.MAX_FILTER_BYTES - 3
    with pytest.raises(errors.InvalidArgument, match="a filter of 65539 bytes is longer than the limit of 65536 bytes"):
        filters.parse_all([longest[:-2] + "牛" + "\u00e9"])


#: key, kind, parent, label l
WALK = [
    ("a-np", "active", "", ""),
    ("p", "committed", "", ""),
    ("a", "active", "p", ""),
    ("v", "view", "p", ""),
    ("p-wl", "committed", "", "1"),
    ("a-wl", "active", "p-wl", "2"),
    ("v-wl", "view", "p-wl", "3"),
    ("a-np-wl", "active", "", "2"),
]
GC = 'labels."containerd.io/gc.root"==check-walk'


def walk_info(name: str, kind: str, parent: str, label: str) -> model.Info:
    labels = {"containerd.io/gc.root": "check-walk", **({"l": label} if label else {})}
    return model.Info(kind, name, parent, labels, "2026-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00.000000000Z", 1)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([GC], {row[0] for row in WALK}),
        ([f"kind==active,{GC}"], {"a-np", "a", "a-wl", "a-np-wl"}),
        ([f"kind==view,{GC}"], {"v", "v-wl"}),
        ([f"kind==committed,{GC}"], {"p", "p-wl"}),
        (["name==p", "name==a-np-wl"], {"p", "a-np-wl"}),
        (["name==a-wl,labels.l"], {"a-wl"}),
        (["parent==p"], {"a", "v"}),
        ([f'parent!="",{GC}'], {"a", "v", "a-wl", "v-wl"}),
        (["labels.l"], {"p-wl", "a-wl", "v-wl", "a-np-wl"}),
        (["labels.l==2"], {"a-wl", "a-np-wl"}),
        # The adaptor beyond the peer's cases.
        (['parent==""'], {"a-np", "p", "p-wl", "a-np-wl"}),
        (["parent"], {row[0] for row in WALK}),
        (['labels."containerd.io/gc".root'], {row[0] for row in WALK}),
        (["kind.anything==view", "name.x==p"], {"v", "v-wl", "p"}),
        (["labels"], set()),
        (["id", "created", "updated", "size"], set()),
        ([r"name~=/^a-(np|wl)$/"], {"a-np", "a-wl"}),
    ],
)
def test_walk(texts: list[str], expected: set[str]) -> None:
    parsed = filters.parse_all(texts)
    infos = [walk_info(*row) for row in WALK]
    assert {info.name for info in infos if parsed.matches(filters.snapshot_adaptor(info))} == expected


@hypothesis.settings(max_examples=1500)
@hypothesis.given(
    strategies.text(strategies.sampled_from('ab0_.,=!~/|"\\ xu1\n\0牛\ufffd\ud800-?'), max_size=24)
    | strategies.text(strategies.characters(), max_size=24)
)
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    try:
        parsed = filters.parse(text)
    except filters.FilterError as error:
        message = str(error)
    else:
        message = "filters: parse error: ["
        parsed.matches(corpus_adaptor(*CORPUS[0]))
    assert message.encode("utf-8").startswith(b"filters: parse error: [")


def test_a_thousand_filters_parse_in_50_ms() -> None:
    text = f"kind==active,{GC},name~=/^build-[0-9]+$/"
    started = time.process_time()
    filters.parse_all([text] * 1000)
    # Ten times the target, as tests share the machine.
    assert time.process_time() - started < 0.5


def test_regex_is_imported_only_when_a_pattern_is_matched() -> None:
    package = filters.__name__.rpartition(".")[0]
    code = (
        f"import sys; from {package} import filters\n"
        "parsed = filters.parse_all(['name~=a'])\n"
        f"before = '{package}.regex' in sys.modules\n"
        "parsed.matches(lambda path: ('a', True))\n"
        f"print(before, '{package}.regex' in sys.modules, 'unicodedata' in sys.modules)\n"
    )
    reply = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert reply.stdout.split() == ["False", "True", "False"]
