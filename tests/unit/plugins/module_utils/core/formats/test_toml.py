# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the reader of TOML, against tomllib where Python has it."""

from __future__ import annotations

import datetime as dt
import math
import sys
import time
from typing import Any

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import toml
from hypothesis import example, given, settings
from hypothesis import strategies as st

VALUES = [
    ("1", 1),
    ("+1_000", 1000),
    ("-0", 0),
    ("0xDead_beef", 0xDEADBEEF),
    ("0o755", 0o755),
    ("0b1_0", 2),
    ("9223372036854775807", 2**63 - 1),
    ("-9223372036854775808", -(2**63)),
    ("1.5", 1.5),
    ("-1e3", -1000.0),
    ("6.6_26e-3_4", 6.626e-34),
    ("+inf", math.inf),
    ("-inf", -math.inf),
    ("true", True),
    ("false", False),
    ("''", ""),
    (r"'C:\temp\x'", r"C:\temp\x"),
    (r'"\b\t\n\f\r\"\\\u00e9\U0001F4BE"', '\b\t\n\f\r"\\é💾'),
    ('"""\na\n  b"""', "a\n  b"),
    ('"""a \\\n   \n  b"""', "a b"),
    ('"""""a"""""', '""a""'),
    ("'''\na'b''c'''''", "a'b''c''"),
    ("1979-05-27", "1979-05-27"),
    ("1979-05-27T07:32:00.999Z", "1979-05-27T07:32:00.999Z"),
    ("1979-05-27 07:32:00-07:00", "1979-05-27 07:32:00-07:00"),
    ("07:32:00", "07:32:00"),
    ("[]", []),
    ("[1, 'a', [2.0], {b = 3}]", [1, "a", [2.0], {"b": 3}]),
    ("[ # comment\n 1,\n\n 2, # comment\n]", [1, 2]),
    ("{}", {}),
    ("{ a.b = 1, a.c = 2, 'd e' = [] }", {"a": {"b": 1, "c": 2}, "d e": []}),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_values(text: str, value: Any, line_end: str) -> None:
    document = f"key = {text} # comment\nnext = 0\n".replace("\n", line_end)
    found = toml.parse(document.encode())
    assert found == {"key": value, "next": 0}
    assert type(found["key"]) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(toml.parse(b"key = -nan")["key"])


def test_keys_and_tables() -> None:
    document = rb"""
        bare-key_1 = 1
        "quoted key" . 'C:\dir'.inner = 2
        a.b = 3
        a.c = 4
        [plugins]
        [plugins."io.containerd.gc.v1.scheduler"]
        x = 1
        [ deep . er . est ]
        [deep.er]
        y = 2
        [[list]]
        z = 1
        [list.inner]
        [[list]]
        [[list.inner]]
        [[list.inner]]
        w.v = 1
    """
    assert toml.parse(document) == {
        "bare-key_1": 1,
        "quoted key": {"C:\\dir": {"inner": 2}},
        "a": {"b": 3, "c": 4},
        "plugins": {"io.containerd.gc.v1.scheduler": {"x": 1}},
        "deep": {"er": {"est": {}, "y": 2}},
        "list": [{"z": 1, "inner": {}}, {"inner": [{}, {"w": {"v": 1}}]}],
    }


@pytest.mark.parametrize("document", [b"", b"\n\n", b"# comment", b"\xef\xbb\xbf", b" \t\r\n"])
def test_empty_documents(document: bytes) -> None:
    assert toml.parse(document) == {}


def test_a_byte_order_mark_is_skipped() -> None:
    assert toml.parse(b"\xef\xbb\xbfversion = 2\r\n") == {"version": 2}


INVALID = [
    (b"a = 1\nb\nc = 2", 2, "the end of the line is where '=' should be, after the key"),
    (b"a = 1 b = 2", 1, "'b' is where the line should end"),
    (b"= 1", 1, "'=' is where a key should be; quote a key with other characters"),
    (b"a. = 1", 1, "'=' is where a key should be; quote a key with other characters"),
    (b"\n\na = ", 3, "the end of the file is where a value should be"),
    (b"a = \n1", 1, "the end of the line is where a value should be"),
    (b"a = 1\na = 2", 2, "the key 'a' has a value already"),
    (b"a = 1\na.b = 2", 2, "the key 'a.b' adds to 'a', which has a value already"),
    (b"a.b = 1\n[a]", 2, "the key 'a' has a value already"),
    (b"[a]\n[a]", 2, "the key 'a' has a value already"),
    (b"a = {}\n[a.b]", 2, "the key 'a.b' adds to 'a', which has a value already"),
    (b"a = []\n[[a]]", 2, "the key 'a' has a value already, which is not an array of tables"),
    (b"[[a]]\n[a]", 2, "the key 'a' has a value already"),
    (b"[a.b]\n[a]\nb.c = 1", 3, "the key 'b.c' adds to 'b', which is a table of another section"),
    (b"a = {b = 1, b = 2}", 1, "the key 'b' has a value already"),
    (b"a = {b = 1,}", 1, "'}' is where a key should be; quote a key with other characters"),
    (b"a = {b = 1\n}", 1, "the end of the line is where '}' should be, or ',' in the inline table"),
    (b"a = [1 2]", 1, "'2' is where ']' should be, or ',' in the array"),
    (b"[a", 1, "the end of the file is where ']' should be, at the end of the header"),
    (b"[[a]", 1, "']' is where ']]' should be, at the end of the header"),
    (b"[]", 1, "']' is where a key should be; quote a key with other characters"),
    (b'a = "b', 1, 'the end of the file is in a string that " should end'),
    (b"a = 'b\n'", 1, "the end of the line is in a string that ' should end"),
    (b'a = """b\n\n""', 3, 'the end of the file is in a string that """ should end'),
    (b'a = "C:\\Program Files"', 1, "write Windows paths in single quotes"),
    (b'a = "\\ud800"', 1, "a backslash that does not begin an escape sequence"),
    (b'a = "\\U00110000"', 1, "a backslash that does not begin an escape sequence"),
    (b'a = "\x01"', 1, r"'\x01' is in a string that"),
    (b"# \x7f", 1, r"'\x7f' is where a key should be"),
    (b"a = 1\rb = 2", 1, r"'\r' is where the line should end"),
    (b"a = yes", 1, "'yes' is not a value; put a text in quotes"),
    (b"a = 01", 1, "'01' is not a value"),
    (b"a = 1__0", 1, "'1__0' is not a value"),
    (b"a = 1.", 1, "'1.' is not a value"),
    (b"a = +0x1", 1, "'+0x1' is not a value"),
    (b"a = 9223372036854775808", 1, "the number '9223372036854775808' does not fit into 64 bits"),
    (b"a = 1979-02-30", 1, "'1979-02-30' is not a value"),
    (b"a = 1979-05-27 25:00:00", 1, "'1979-05-27 25:00:00' is not a value"),
    (b"a = 1\nb = '\xff'", 2, "byte 0xff is not UTF-8; save the file in UTF-8"),
    ("a = 1".encode("utf-16"), 1, "the file is in UTF-16; save it in UTF-8"),
]


@pytest.mark.parametrize(("document", "line", "message"), INVALID)
def test_errors_name_the_line(document: bytes, line: int, message: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        toml.parse(document)
    assert caught.value.message.startswith(f"line {line}: ")
    assert message in caught.value.message
    assert caught.value.details["line"] == line


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_size_is_limited() -> None:
    assert toml.parse(b"#" * toml.MAX_SIZE) == {}
    with pytest.raises(FailedPrecondition, match=r"^the file has 1048577 bytes; TOML files of up to 1048576 bytes"):
        toml.parse(b"#" * (toml.MAX_SIZE + 1))


@pytest.mark.parametrize(
    "document",
    [
        b"a" + b".a" * 64 + b" = 1",
        b"[a" + b".a" * 64 + b"]",
        b"a = " + b"[" * 500_000,
        b"a = " + b"{a=" * 300_000,
        b"[" + b".".join([b"a"] * 40) + b"]\n" + b".".join([b"a"] * 40) + b" = 1",
    ],
    ids=lambda document: document[:10].decode(),
)
def test_the_depth_is_limited(document: bytes) -> None:
    with pytest.raises(FailedPrecondition, match="64"):
        toml.parse(document)


def test_the_deepest_documents() -> None:
    value: Any = toml.parse(b"a" + b".a" * 62 + b" = [1]")
    for _ in range(63):
        value = value["a"]
    assert value == [1]


@pytest.mark.parametrize(
    "document",
    [
        b"a = [" + b"1," * 500_000,
        b"\n" * 1_000_000,
        b'a = "' + b"\\n" * 500_000,
        b'a = """' + b'""x' * 300_000,
        b"a = " + b"9" * 1_000_000,
        b"a = 1." + b"9" * 1_000_000,
        b"".join(b"[[a.b]]\n" for _ in range(100_000)),
        b"".join(b"k%d = 1\n" % number for number in range(80_000)),
        b"[a]\n" * 200_000,
    ],
    ids=lambda document: document[:12].decode(),
)
def test_hostile_documents_take_little_time(document: bytes) -> None:
    start = time.process_time()
    try:
        toml.parse(document)
    except FailedPrecondition:
        pass
    assert time.process_time() - start < 20


# -- against tomllib ---------------------------------------------------------------------------------------------------

#: Parts of documents: headers, assignments, and the characters from which they are made.
LINES = st.sampled_from(
    [f"[{key}]" for key in ("a", "b", "a.b", "b.a", "a.b.c", "'a'.b")]
    + [f"[[{key}]]" for key in ("a", "b", "a.b", "b.c", "a.b.c")]
    + [
        f"{key} = {value}"
        for key in ("a", "b", "c", "a.b", "b.a", "a.b.c", '"a" . c', "b.c.d")
        for value in ("1", "{}", "[]", "[{}]", "{a = 1}", "{a.b = 1, a.c = 2}", "{a = {}, a.b = 1}", "'x'")
    ]
)
PIECES = st.one_of(
    st.sampled_from("=[]{},.'\"\\#\n\r\t _-+:019aeEuxob\x00\x1f\x7fé💾"),
    st.sampled_from(
        ['"""', "'''", "\r\n", "\n", "\n", "a = ", "b = ", "[a]\n", "[[a]]\n", "{a = 1}", "[1, 2]", "\\\n"]
    ),
    st.sampled_from(
        ["1979-05-27", "1979-02-30", "07:32:00", "T", "Z", "+07:00", "0x", "inf", "nan", "true", "1_0", "1e3"]
    ),
    st.sampled_from(["\\u00e9", "\\ud800", "\\U0001F4BE", "\ufeff"]),
)
WORDS = st.one_of(
    st.builds("{}-{:02}-{:02}".format, st.integers(1000, 2999), st.integers(0, 13), st.integers(0, 32)),
    st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 61)),
    st.from_regex(r"[+-]?[0-9_]{1,6}(\.[0-9_]{0,4})?([eE][+-]?[0-9_]{0,2})?", fullmatch=True),
    st.from_regex(r"[+-]?0[xob][0-9a-fA-F_]{0,6}", fullmatch=True),
)
DOCUMENTS = st.one_of(
    st.lists(LINES, max_size=8).map("\n".join),
    st.lists(PIECES, max_size=20).map("".join),
    WORDS.map("a = {}".format),
    st.text(max_size=20).map("a = '''{}'''\n".format),
    st.text(max_size=20).map('a = "{}" # b'.format),
)


def comparable(value: Any) -> Any:
    """Return a value of tomllib or of ours, with one text for all dates and times, and one for all NaNs."""
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if isinstance(value, (dt.date, dt.time)):
        text = value.isoformat()
        return text[:19]
    if isinstance(value, str) and (value[4:5] == "-" or value[2:3] == ":"):
        return value.upper().replace(" ", "T")[:19] if value[4:5] == "-" else value[:8]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


# Older versions of Python have no tomllib.
if sys.version_info >= (3, 11):
    import tomllib

    @pytest.mark.parametrize("document", [case[0] for case in INVALID if b"9223372036854775808" not in case[0]])
    def test_tomllib_rejects_the_same(document: bytes) -> None:
        with pytest.raises(ValueError, match="."):
            tomllib.loads(document.decode())

    @settings(max_examples=3000)
    @given(DOCUMENTS)
    @example("a.b.c = 1\n[a]\nb.d = 2")
    @example("[a.b]\n[a]\nc.d = 1\nc.e = 2\n[a.c]")
    @example("[[a]]\n[a.b]\n[[a]]\n[a.b]")
    @example('a = """a\\  \n\n  b"""""')
    @example("a = 1979-05-27 # 07:32:00")
    def test_documents_read_like_tomllib(document: str) -> None:
        try:
            expected = comparable(tomllib.loads(document))
        except ValueError:
            # tomllib takes a text, which has no byte order mark.
            if not document.startswith("\ufeff"):
                with pytest.raises(FailedPrecondition, match="^line [0-9]+: "):
                    toml.parse(document.encode())
            return
        assert comparable(toml.parse(document.encode())) == expected


@given(st.binary(max_size=200))
def test_any_bytes_give_a_table_or_an_error(data: bytes) -> None:
    try:
        found = toml.parse(data)
    except FailedPrecondition:
        return
    assert isinstance(found, dict)
