# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test changes of TOML files: tomllib reads exactly the wanted difference, and undoing gives the bytes back."""

from __future__ import annotations

import copy
import sys
from typing import Any, Dict, List, Sequence, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.formats import toml, tomledit
from hypothesis import example, given, settings
from hypothesis import strategies as st

BEGIN, END = "# BEGIN wcow.snapshotter\n", "# END wcow.snapshotter\n"


def changed(text: str, *key: str) -> str:
    document = tomledit.Document(text.encode())
    document.set(key, "new")
    result = document.result()
    assert tomledit.undo(result) == text.encode()
    return result.decode()


def test_a_value_is_replaced_with_its_line_kept() -> None:
    assert changed("[a]\n  b = 'old' # why\nc = 1\n", "a", "b") == (
        f"[a]\n{BEGIN}#|   b = 'old' # why\n  b = \"new\" # why\n{END}c = 1\n"
    )


def test_a_value_is_added_to_its_section() -> None:
    assert changed("[a]\n\n  b = 1 # why\n\n# about c\n[a.c]\nx = 1\n", "a", "d") == (
        f'[a]\n\n  b = 1 # why\n{BEGIN}  d = "new"\n{END}\n# about c\n[a.c]\nx = 1\n'
    )


def test_a_section_is_added_at_the_end() -> None:
    assert changed("a = 1", "b.c", "d") == f'a = 1\n{BEGIN}["b.c"]\nd = "new"\n{END}'.removesuffix("\n")


def test_a_value_is_added_to_an_inline_table() -> None:
    assert changed("a = { b = 1 }\n", "a", "c", "d") == (
        f'{BEGIN}#| a = {{ b = 1 }}\na = {{ b = 1, c.d = "new" }}\n{END}'
    )


def test_a_value_is_added_to_dotted_keys() -> None:
    assert changed("[a]\nb.c = 1\n[d]\n", "a", "b", "e") == f'[a]\nb.c = 1\n{BEGIN}b.e = "new"\n{END}[d]\n'


def test_line_ends_and_a_byte_order_mark_are_kept() -> None:
    document = tomledit.Document(b"\xef\xbb\xbfa = 1\r\nb = 2\nc = 3")
    document.set(("a",), 4)
    document.set(("c",), True)
    result = document.result()
    assert result == (
        b"\xef\xbb\xbf# BEGIN wcow.snapshotter\r\n#| a = 1\r\na = 4\r\n# END wcow.snapshotter\r\nb = 2\n"
        b"# BEGIN wcow.snapshotter\r\n#| c = 3\r\nc = true\r\n# END wcow.snapshotter"
    )
    assert tomledit.undo(result) == b"\xef\xbb\xbfa = 1\r\nb = 2\nc = 3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [{"x": "1"}]),
        ("[a]\nb = []\n", [{"x": "1"}]),
        ("[a]\nb = [ {y = 1}, # one\n  {y = 2}, # two\n]\n", [{"y": 1}, {"y": 2}, {"x": "1"}]),
        ("a = {b = [{y = 1}]}\n", [{"y": 1}, {"x": "1"}]),
        ("a = {}\n", [{"x": "1"}]),
        ("[[a.b]]\ny = 1\n[[a.b]]\ny = 2\n[c]\n", [{"y": 1}, {"y": 2}, {"x": "1"}]),
    ],
)
def test_an_element_is_appended(text: str, expected: List[Dict[str, Any]]) -> None:
    document = tomledit.Document(text.encode())
    document.append(("a", "b"), {"x": "1"})
    result = document.result()
    assert toml.parse(result)["a"]["b"] == expected
    assert tomledit.undo(result) == text.encode()


@pytest.mark.parametrize(
    ("text", "key"),
    [("a = 1", "a.b"), ("[[a]]", "a.b"), ("[a.b]", "a.b"), ("a.b.c = 1", "a.b"), ("[[a.b]]", "a.b")],
)
def test_a_value_in_the_way_is_refused(text: str, key: str) -> None:
    with pytest.raises(FailedPrecondition, match="correct the file"):
        tomledit.Document(text.encode()).set(key.split("."), "new")


@pytest.mark.parametrize("text", ["a = {b = 1}", "[a]\nb = 'x'", "[a.b]"])
def test_an_element_needs_a_list(text: str) -> None:
    with pytest.raises(FailedPrecondition, match="is not a list"):
        tomledit.Document(text.encode()).append(("a", "b"), {})


def test_nothing_to_change_gives_the_same_bytes() -> None:
    for data in (b"", b"\n", b"a = 1", b"\xef\xbb\xbf", b"\xef\xbb\xbfa=1\r\n", b"# x\r\n\r\n[b]\n"):
        assert tomledit.Document(data).result() == data
        assert tomledit.undo(data) == data


def test_what_is_not_toml_can_have_a_block() -> None:
    for template in (b"", b"{{ template }}", b"{{ x }}\r\n{{ y }}\r\n"):
        result = tomledit.append(template, ["a", "b"])
        assert b"a" in result
        assert tomledit.undo(result) == template


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match=r"^line 2: '# BEGIN wcow.snapshotter' is not followed by"):
        tomledit.undo(b"a = 1\n# BEGIN wcow.snapshotter\nb = 2\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("C:\\a", "'C:\\a'"),
        ("C:\\it's", '"C:\\\\it\'s"'),
        ('say "a"', '"say \\"a\\""'),
        ("a\nb\x7f", '"a\\u000Ab\\u007F"'),
        ("é", '"é"'),
        (True, "true"),
        (7, "7"),
        ([{"a": 1, "b c": []}], '[{ a = 1, "b c" = [] }]'),
    ],
)
def test_literals(value: Any, text: str) -> None:
    assert tomledit.literal(value) == text
    assert toml.parse(f"a = {text}".encode()) == {"a": value}


# -- random documents --------------------------------------------------------------------------------------------------

KEYS = ("a", "b", "c", "a.b", "b.a", "a.b.c", "'a'.b", 'b . "c"', "c.d")
VALUES = (
    "1",
    "'#'",
    "{}",
    "{ a = 1 }",
    "{a.b = 1, b = {c = 2}}",
    "[]",
    "[{a = 1}, {b = 2}]",
    "[ # x\n  {a = 1},\n  # y\n]",
    '"""\n[a]\n# b = 1\n"""',
)
LINES = st.one_of(
    st.sampled_from([f"[{key}]" for key in KEYS]),
    st.sampled_from([f"[[{key}]]" for key in KEYS]),
    st.builds("{} = {}".format, st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.sampled_from(["", "# comment", "  # indented", "#| kept", "\t"]),
)


@st.composite
def documents(draw: Any) -> bytes:
    """Return a document with comments, all forms of tables, mixed line ends, and maybe a byte order mark."""
    lines: List[str] = []
    for line in draw(st.lists(LINES, max_size=12)):
        try:
            toml.parse("\n".join([*lines, line]).encode())
        except FailedPrecondition:
            continue
        lines.append(line)
    indent = draw(st.sampled_from(["", "  ", "\t"]))
    comment = draw(st.sampled_from(["", " # why", "#"]))
    text = "\n".join(indent + line + comment if line[:1] not in "#\t " else line for line in lines)
    text += draw(st.sampled_from(["", "\n", "\n\n"]))
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\r\n", "\n"]]))
    parts = text.split("\n")
    data = "".join(part + ends[number % len(ends)] for number, part in enumerate(parts[:-1])) + parts[-1]
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + data.encode()


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "append"]),
        st.sampled_from(["b.c", "b.x", "d", "a.b.c", "a.b.x", "a.y", "c.d", "c.e.f", "c.e.g", "e.h.i", "e.h.j"]),
    ),
    min_size=1,
    max_size=4,
    # No key is inside another one.
    unique_by=lambda edit: edit[1],
)


if sys.version_info >= (3, 11):
    import tomllib

    @settings(max_examples=500)
    @given(documents(), EDITS)
    @example(b"a.b.c = 1", [("set", "a.b.x"), ("set", "a.d.e")])
    @example(b"a = 1", [("set", "a"), ("set", "c.e.f"), ("append", "c.e.g")])
    @example(b"a = {b = {c = 2}}", [("set", "a.b.x"), ("append", "a.x")])
    def test_exactly_the_wanted_keys_change(data: bytes, edits: List[Tuple[str, str]]) -> None:
        table = tomllib.loads(data.removeprefix(b"\xef\xbb\xbf").decode().replace("\r\n", "\n"))
        document = tomledit.Document(data)
        expected = copy.deepcopy(table)
        for kind, name in edits:
            key = name.split(".")
            try:
                if kind == "set":
                    document.set(key, name)
                else:
                    document.append(key, {"k": "v"})
            except FailedPrecondition:
                # Something is in the way: a value, or a table that a value would replace.
                assert is_in_the_way(table, kind, key)
                continue
            inner = expected
            for part in key[:-1]:
                inner = inner.setdefault(part, {})
            if kind == "set":
                inner[key[-1]] = name
            else:
                inner.setdefault(key[-1], []).append({"k": "v"})
        result = document.result()
        assert tomllib.loads(result.removeprefix(b"\xef\xbb\xbf").decode()) == expected
        assert toml.parse(result) == expected
        assert tomledit.undo(result) == data


def is_in_the_way(table: Dict[str, Any], kind: str, key: Sequence[str]) -> bool:
    inner: Any = table
    for part in key:
        if not isinstance(inner, dict):
            return True
        if part not in inner:
            return False
        inner = inner[part]
    return isinstance(inner, (dict, list)) if kind == "set" else not isinstance(inner, list)


@given(documents())
def test_the_outline_finds_the_text_of_each_value(data: bytes) -> None:
    text = data.removeprefix(b"\xef\xbb\xbf").decode().replace("\r\n", "\n")
    table = toml.parse(text.encode())
    for span in toml.outline(text):
        found: Any = table
        for part in span.key:
            found = found[part]
        if span.kind == toml.VALUE:
            assert toml.parse(f"x = {text[span.value : span.end]}".encode()) == {"x": found}
        else:
            assert text[span.start : span.end].startswith("[")
