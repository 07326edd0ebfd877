# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The prose checker: each rule finds its example, and only prose is checked."""

from __future__ import annotations

import pytest
from ansible_collections.wcow.snapshotter.tests.prose import check


def lines(file, text):
    return [problem.line for problem in check.check_text(file, text)]


@pytest.mark.parametrize("rule", check.RULES["rules"], ids=lambda rule: rule["example"])
def test_each_rule_finds_its_example(rule):
    (problem,) = check.check_text("a.md", rule["example"])
    assert problem.message.endswith(f"write {rule['instead']}")


def test_the_whole_message_names_file_line_rule_and_replacement():
    (problem,) = check.check_text("docs/a.md", "Fine.\n\nThe file is no\ndirectory.\n")
    assert str(problem) == "docs/a.md:3: glossary: 'is no': write is not a, or has no"


@pytest.mark.parametrize(
    "text",
    [
        "There is no store.",
        "It is no longer there.",
        "A set of records takes care of it.",
        "It continues where the connection was broken off.",
        "`is no` and ``nobody``",
        "[nothing](nobody.md)",
        "<!-- nobody -->",
        "```\nnobody\n```",
    ],
)
def test_what_is_allowed(text):
    assert lines("a.md", text) == []


def test_the_cells_of_a_table_and_the_items_of_a_list_are_checked():
    assert lines("a.md", "| a | b |\n|---|---|\n| fine | nobody |\n\n* fine\n* nobody\n") == [3, 6]


def test_a_proselint_check_that_is_on():
    (problem,) = check.check_text("a.md", "It waits for ever.")
    assert problem.rule == "archaism"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("word " * 40 + ".", []),
        ("Fine.\n\n" + "word " * 41 + ".", [3]),
        ("word " * 30 + ". " + "word " * 30 + ".", []),
        ("word " * 30 + "`code. with words` " * 11 + ".", [1]),
        ("* " + "word " * 30 + "\n* " + "word " * 30 + "\n", []),
        ("| " + "word " * 30 + "| " + "word " * 30 + "|\n|---|---|\n", []),
    ],
)
def test_long_sentences(text, wanted):
    assert lines("a.md", text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nobody = 1\n", []),
        ('KEYS = ("nobody", "whoever")\n', []),
        ("# nobody does\n", [1]),
        ("# It is\n# no file.\n", [1]),
        ('def f():\n    """One line.\n\n    Then nobody.\n    """\n', [4]),
        ('"""``nobody``, and C(nobody) too."""\n', []),
        ('raise E(\n    "this is"\n    f" no file: {nobody}"\n)\n', [2]),
        ('a = "what it is"; b = "no file there"\n', []),
        ('say("built\\nanew")\n', [1]),
    ],
)
def test_python(text, wanted):
    assert lines("a.py", text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: nobody\n", []),
        ("# nobody\na: 1  # nobody\n", [1, 2]),
        ("description:\n  - Fine.\n  - This is\n    no file.\n", [3]),
        ("msg: a {{ nobody }} b\n", []),
        ("- name: Nobody\n  when: nobody is defined\n", [1]),
    ],
)
def test_yaml(text, wanted):
    assert lines("a.yml", text) == wanted


def test_each_file_of_the_list_exists():
    for path in [*check.RULES["files"], *check.RULES.get("skip", ())]:
        assert (check.CHECKOUT / path).exists(), path


def test_strings_of_tests_are_data():
    text = '"""The stray module."""\n\n\ndef test_it():\n    """A broken thing."""\n'
    text += '    assert read("a broken disk") == "two strays"\n'
    assert [problem.line for problem in check.check_text("tests/builders/x.py", text)] == [1, 5]
    assert [problem.line for problem in check.check_text("plugins/x.py", text)] == [1, 5, 6, 6]
