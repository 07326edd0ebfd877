# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the prose of the project: ``python tests/prose/check.py [PATH ...]``.

``rules.yml`` has the rules and the list of files; paths given as arguments replace that list. proselint matches the
rules, both its own and ours. It sees each file with everything but prose blanked out, so that its line numbers are
those of the file:

* Markdown: without code, link targets and HTML.
* Python: comments, docstrings and strings of at least two words, without values and ``code``. In tests, other strings
  are data, so only comments and docstrings count.
* YAML: comments and the values of the keys that ``rules.yml`` lists, without Jinja expressions.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from pathlib import Path
from typing import Iterator, List, NamedTuple, Sequence, Tuple

import yaml
from markdown_it import MarkdownIt
from proselint.checks import __register__ as proselint_checks
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, CheckFlags, CheckResult
from proselint.tools import LintFile

CHECKOUT = Path(__file__).parents[2]
RULES = yaml.safe_load(Path(__file__).with_name("rules.yml").read_text(encoding="utf-8"))
SUFFIXES = (".md", ".py", ".yml", ".yaml")

#: Stands for what is not prose. It is neither a word nor white space, so no rule matches across it.
BLANK = "\0"

MARKDOWN_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)|(?<=\])\([^)\s]+\)|<!--.*?-->|https?://\S+", re.DOTALL)
PYTHON_CODE = re.compile(r"``.+?``|`[^`\n]+`|\b[A-Z]+\([^)\n]*\)|:\w+:`[^`]+`|https?://\S+", re.DOTALL)
YAML_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|`[^`\n]+`|\b[A-Z]+\([^)\n]*\)|https?://\S+", re.DOTALL)
STRING = re.compile(r"([A-Za-z]*)('''|\"\"\"|'|\")(.*)\2", re.DOTALL)

_LINE_STARTS = ("NEWLINE", "INDENT", "DEDENT", "ENCODING")


class Problem(NamedTuple):
    """One violation: ``file:line: rule: message``."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        """Return the line that editors and people can follow."""
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


# -- rules ----------------------------------------------------------------------------------------------------------


def words(expression: str) -> re.Pattern[str]:
    """Compile an expression of rules.yml: whole words, any case, any white space."""
    return re.compile(rf"\b(?:{expression})\b".replace(" ", r"\s+"), re.IGNORECASE)


def make_check(number: int, rule: dict[str, str]) -> Check:
    """Return the proselint check for one rule of rules.yml."""
    pattern, unless = words(rule["pattern"]), words(rule.get("unless", "(?!)"))

    def find(text: str, check: Check) -> Iterator[CheckResult]:
        allowed = [match.span() for match in unless.finditer(text)]
        for match in pattern.finditer(text):
            if not any(start <= match.start() < end or start < match.end() <= end for start, end in allowed):
                found = " ".join(match[0].split())
                yield CheckResult(check.path, f"'{found}': write {rule['instead']}", match.span(), None)

    return Check(find, path=f"wcow.{number}", flags=CheckFlags(allow_quotes=True))


def register() -> dict[str, bool]:
    """Register all checks with proselint and return which of them are on."""
    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many(proselint_checks)
        registry.register_many(tuple(make_check(number, rule) for number, rule in enumerate(RULES["rules"], 1)))
    return {"wcow": True, **dict.fromkeys(RULES["proselint"], True)}


# -- what is prose --------------------------------------------------------------------------------------------------


def blank(text: str) -> str:
    """Blank out a text but keep its line ends."""
    return re.sub(r"[^\n]", BLANK, text)


def keep(text: str, spans: Sequence[Tuple[int, int]]) -> str:
    """Blank out a text except for the spans, which are sorted and do not overlap."""
    parts, end = [], 0
    for start, stop in spans:
        parts += [blank(text[end:start]), text[start:stop]]
        end = stop
    return "".join([*parts, blank(text[end:])])


def hide(pattern: re.Pattern[str], text: str) -> str:
    """Blank out each match."""
    return pattern.sub(lambda match: blank(match[0]), text)


def line_starts(text: str) -> List[int]:
    """Return the offset of each line, and of the end."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def markdown_blocks(text: str) -> Iterator[Tuple[int, int]]:
    """Yield the first and last line (exclusive, from 0) of each paragraph, heading, list item and table row."""
    seen = -1
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("paragraph_open", "heading_open", "tr_open") and token.map and token.map[0] > seen:
            yield token.map[0], token.map[1]
            seen = token.map[1] - 1


def markdown_prose(text: str) -> str:
    starts = line_starts(text)
    return hide(MARKDOWN_CODE, keep(text, [(starts[first], starts[last]) for first, last in markdown_blocks(text)]))


def python_prose(text: str, *, strings: bool = True) -> str:
    """Keep comments, docstrings and, with ``strings``, other strings of at least two words. Adjacent literals are one.

    Quotes and layout between the literals of one string become white space, so that a rule sees the whole string.
    """
    starts = line_starts(text)
    prose = list(blank(text))
    literals: List[Tuple[int, int, str]] = []
    depth = 0  # of f-strings, which are several tokens since Python 3.12
    before = after = "NEWLINE"  # the tokens around the literals: those around a docstring are line ends and indents

    def flush() -> None:
        is_docstring = before in _LINE_STARTS and after == "NEWLINE"
        if (strings or is_docstring) and len("".join(part for _, _, part in literals).split()) >= 2:
            begin, end = literals[0][0], literals[-1][1]
            prose[begin:end] = re.sub(r"[^\n]", " ", text[begin:end])
            for start, stop, part in literals:
                prose[start:stop] = part
        literals.clear()

    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        start = starts[token.start[0] - 1] + token.start[1]
        end = starts[token.end[0] - 1] + token.end[1]
        kind = tokenize.tok_name[token.type]
        depth += (kind == "FSTRING_START") - (kind == "FSTRING_END")
        if kind in ("FSTRING_START", "FSTRING_END"):
            literals.append((start, end, " " * (end - start)))
        elif kind == "FSTRING_MIDDLE":
            literals.append((start, end, hide(PYTHON_CODE, text[start:end])))
        elif depth:
            literals.append((start, end, blank(text[start:end])))
        elif kind == "STRING":
            literals.append((start, end, string_prose(text[start:end])))
        elif kind == "COMMENT":
            comment = token.string.lstrip("#:")
            prose[start:end] = " " * (len(token.string) - len(comment)) + hide(PYTHON_CODE, comment)
        elif kind != "NL":
            after = kind
            flush()
            before = kind
    # A comment or string may continue on the next line: what stands before it there is white space, not code.
    return re.sub(r"(?m)^\0+(?= )", lambda match: " " * len(match[0]), "".join(prose))


def string_prose(literal: str) -> str:
    """Return a string literal of the same length with its quotes, escapes and values blanked out."""
    match = STRING.fullmatch(literal)
    assert match, literal
    before, after = match.start(3), len(literal) - match.end(3)
    body = match[3]
    if "f" in match[1].lower():
        body = re.sub(r"\{[^{}]*\}", lambda value: blank(value[0]), body)
    if "r" not in match[1].lower():
        body = re.sub(r"\\[^\n]", "  ", body)
    return " " * before + hide(PYTHON_CODE, body) + " " * after


def yaml_prose(text: str) -> str:
    spans = list(yaml_values(text))
    offset = 0
    for line in text.splitlines(keepends=True):
        match = re.search(r"(?:^|\s)#+ (.*)", line)
        if match and not any(start <= offset + match.start() < end for start, end in spans):
            spans.append((offset + match.start(1), offset + match.end(1)))
        offset += len(line)
    kept = hide(YAML_CODE, keep(text, sorted(spans)))
    return re.sub(r"(?m)^\0+(?!\0|$)", lambda match: " " * len(match[0]), kept)


def yaml_values(text: str) -> Iterator[Tuple[int, int]]:
    """Yield the span of each scalar that is the value of a key for prose, or an item of such a value."""
    waiting = [(node, False) for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node]
    while waiting:
        node, is_prose = waiting.pop()
        if isinstance(node, yaml.MappingNode):
            waiting += [(value, key.value in RULES["yaml_keys"]) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(value, is_prose) for value in node.value]
        elif is_prose:
            yield node.start_mark.index, node.end_mark.index


PROSE = {".md": markdown_prose, ".py": python_prose, ".yml": yaml_prose, ".yaml": yaml_prose}


# -- checking -------------------------------------------------------------------------------------------------------


def long_sentences(text: str) -> Iterator[Tuple[int, int]]:
    """Yield line and number of words of each sentence on a Markdown page that is too long."""
    starts = line_starts(text)
    for first, last in markdown_blocks(text):
        block = hide(MARKDOWN_CODE, text[starts[first] : starts[last]])
        for match in re.finditer(r"(?:[^.!?|]|[.!?](?![\s)*]|$))+", block):
            words = len(re.findall(rf"{BLANK}+|[^\W_][\w'-]*", match[0]))
            if words > RULES["longest_sentence"]:
                begin = match.start() + len(match[0]) - len(match[0].lstrip())
                yield first + 1 + block.count("\n", 0, begin), words


def check_text(file: str, text: str) -> List[Problem]:
    """Return the problems of one file, by line."""
    suffix = Path(file).suffix
    enabled = register()
    config = {"max_errors": sys.maxsize, "checks": enabled}
    found = []
    if text:
        prose = PROSE[suffix](text)
        if suffix == ".py" and any(Path(file).is_relative_to(path) for path in RULES["strings_are_data"]):
            prose = python_prose(text, strings=False)
        for result in LintFile(file, prose).lint(config):
            check = result.check_result
            rule = "glossary" if check.check_path.startswith("wcow.") else check.check_path
            found.append(Problem(file, result.pos[0], rule, check.message))
    if suffix == ".md":
        limit = RULES["longest_sentence"]
        found += [
            Problem(file, line, "long sentence", f"{words} words; write sentences of at most {limit}")
            for line, words in long_sentences(text)
        ]
    return sorted(found, key=lambda problem: problem.line)


def expand(paths: Sequence[str], skip: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the files at these paths of the checkout, in order."""
    skipped = [CHECKOUT / path for path in skip]
    for path in (CHECKOUT / path for path in paths):
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in SUFFIXES and not any(one == file or one in file.parents for one in skipped):
                yield file


def main(arguments: Sequence[str]) -> int:
    """Print all problems. Return 1 if there are any."""
    files = list(expand(arguments) if arguments else expand(RULES["files"], RULES.get("skip", ())))
    found = []
    for file in files:
        found += check_text(str(file.relative_to(CHECKOUT)), file.read_text(encoding="utf-8"))
    for problem in found:
        print(problem)
    print(f"{len(files)} files checked, {len(found)} problems", file=sys.stderr)
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
