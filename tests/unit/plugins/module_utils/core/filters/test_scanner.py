# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the scanner with containerd's own cases (pkg/filters/scanner_test.go)."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.filters.scanner import (
    END,
    FIELD,
    ILLEGAL,
    OPERATOR,
    QUOTED,
    SEPARATOR,
    VALUE,
    Scanner,
)

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
        # containerd's table does not have these cases.
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
    scanner = Scanner(text)
    tokens = []
    for _ in range(len(text) + 1):
        tokens.append(scanner.scan())
        if tokens[-1].kind == END:
            break
    assert [(token.kind, token.position, token.text) for token in tokens] == [read_token(one) for one in expected]
    assert scanner.error == error
    assert scanner.scan().kind == END


def read_token(short: str) -> tuple[str, int, str]:
    """Return the token for a text of kind, position and token text, such as ``F0 name``."""
    head, _, text = short[1:].partition(" ")
    return KINDS.get(short[0], short[0]), int(head), text
