# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML page, with ``_page.css`` and ``_page.js`` in it.

``_page.html.j2`` makes all HTML. The script only sorts, searches and shows one
node at a time. The details of each node are in a ``noscript`` element, which a
browser that runs scripts takes for plain text: a page of 100,000 snapshots
opens at once, and the script turns the text of a node into elements when the
user opens that node. A browser without scripts shows everything.

Names, labels and messages are hostile. Jinja2 escapes each of them
(autoescape); the content security policy, which names the one script and the
one style sheet by their hashes, is a second protection.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
import re
import urllib.parse
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import jinja2
from markupsafe import Markup, escape

from ..module_utils.core.lineage import Lineage
from . import _report_usage
from ._text import written_out

HERE = pathlib.Path(__file__).parent

#: The states of nodes, the worst first -> a sign, which does not depend on colours, the words, the meaning.
STATES: Dict[str, Tuple[str, str, str]] = {
    "unreachable": ("✗", "unreachable", "the connection failed"),
    "failed": ("✗", "failed", "the node was reached, but could not be audited"),
    "unhealthy": ("!", "unhealthy", "the store has errors or warnings"),
    "no_store": ("\N{EN DASH}", "no store", "there is no store at the root"),
    "healthy": ("✓", "healthy", "no errors and no warnings"),
}
SEVERITIES = {"error": "✗", "warning": "!", "notice": "i"}
#: How something can be freed -> what the page says.
WAYS = {
    "collection": "containerd's next garbage collection",
    "repair": "store_check with repair: true",
    "restart": "a restart of the node, because files are in use",
    "manual": "see the finding",
}

#: Longer texts are folded after this number of characters.
FOLD = 160
#: Deeper layers are not indented further: _page.css has a rule for each depth.
DEEPEST = 16

_NONE = "\N{EN DASH}"

#: Longer words can wrap.
_LONGEST_WORD = 24
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")
_WORD_PART = re.compile(r"[^/\\:._@=,;&?+-]{1,24}[/\\:._@=,;&?+-]{0,4}|[/\\:._@=,;&?+-]{1,24}")
_BYTES = re.compile(r"\b([0-9]{4,19}(?: of [0-9]{4,19})?) bytes\b", re.ASCII)
_DIGEST = re.compile("sha256:[0-9a-f]{64}", re.ASCII)
#: As many characters as other tools show of a digest, after its algorithm.
_SHORT_DIGEST = len("sha256:") + 12


class Column(NamedTuple):
    """A column of a table. Numbers are at the right. In a card, a wide column has a line of its own."""

    title: str
    is_number: bool = False
    is_wide: bool = False


class Table(NamedTuple):
    """A table: its classes, the width in rem from which its rows are rows and not cards, and its columns."""

    classes: str
    width: int
    columns: Tuple[Column, ...]


_LAYERS = (
    Column("Kind, labels"),
    Column("Layer", is_number=True),
    Column("On layer", is_number=True),
    Column("Size", is_number=True),
    Column("Files", is_number=True),
    Column("Scratch", is_number=True),
    Column("Made (UTC)"),
)
TABLES: Dict[str, Table] = {
    "kinds": Table(
        "kinds",
        54,
        (
            Column("Finding"),
            Column("Severity"),
            Column("Nodes", is_number=True),
            Column("Findings", is_number=True),
            Column("Reclaimable", is_number=True),
            Column("What to do", is_wide=True),
        ),
    ),
    "fleet": Table(
        "fleet",
        72,
        (
            Column("Node"),
            Column("State"),
            Column("Findings", is_number=True),
            Column("Snapshots", is_number=True),
            Column("Layers", is_number=True),
            Column("Free", is_number=True),
            Column("Disk used", is_number=True),
            Column("Reclaimable", is_number=True),
            Column("Summary", is_wide=True),
        ),
    ),
    "findings": Table(
        "findings",
        68,
        (
            Column("Severity"),
            Column("Finding"),
            Column("Snapshot", is_wide=True),
            Column("What is wrong", is_wide=True),
            Column("What to do", is_wide=True),
            Column("Reclaimable", is_number=True),
        ),
    ),
    "freeable": Table(
        "freeable",
        44,
        (Column("What"), Column("How", is_wide=True), Column("Size", is_number=True), Column("Namespace")),
    ),
    "users": Table(
        "users",
        48,
        (
            Column("Name"),
            Column("Kind"),
            Column("Snapshots", is_number=True),
            Column("Size", is_number=True),
            Column("Only for it", is_number=True),
            Column("Namespace"),
        ),
    ),
    "own": Table("tree own", 66, (Column("Snapshot"), *_LAYERS)),
    "held": Table("tree held", 76, (Column("Snapshot"), Column("Needed by", is_wide=True), *_LAYERS)),
}


@functools.cache
def _table_styles() -> Markup:
    """The rules that follow from ``TABLES``: numbers at the right, and cards instead of rows in a narrow window."""
    rules = []
    for name, table in TABLES.items():
        columns = list(enumerate(table.columns, 1))
        numbers = ",".join(f".{name} td:nth-child({place})" for place, column in columns if column.is_number)
        rules.append(f"{numbers} {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}")
        cards = [
            f".{name}, .{name} :is(caption, thead, tbody, th, td) {{ display: block; }}",
            f".{name} thead tr {{ display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0 .9rem .6rem; }}",
            f".{name} thead th {{ padding: 0; border: 0; }}",
            f".{name} tbody tr {{ display: grid; gap: .4rem 1rem; padding: .7rem .9rem; }}",
            f".{name} tbody tr {{ grid-template-columns: repeat(auto-fill, minmax(max(8.25rem, 15%), 1fr)); }}",
            f".{name} tbody tr {{ border-top: 1px solid var(--line); }}",
            f".{name} tbody tr > :nth-child(n) {{ width: auto; min-width: 0; padding: 0; border: 0; }}",
            f".{name} tbody tr > th {{ grid-column: 1 / -1; margin-left: calc(var(--depth, 0) * .5rem); }}",
            f".{name} td:empty {{ display: none; }}",
            f".{name} tr td:nth-child(n) {{ white-space: normal; text-align: left; }}",
            f".{name} td::before {{ display: block; color: var(--soft); font-size: .8rem; }}",
        ]
        for place, column in columns:
            cards.append(f'.{name} td:nth-child({place})::before {{ content: "{column.title}"; }}')
            if column.is_wide:
                cards.append(f".{name} td:nth-child({place}) {{ grid-column: 1 / -1; }}")
        if table.columns[0].title == "Severity":
            cards.append(f".{name} tbody tr > th {{ grid-column: 2 / -1; align-self: end; line-height: 1.5rem; }}")
        rules.append(f"@container (max-width: {table.width - 0.01}rem) {{\n" + "\n".join(cards) + "\n}")
    return Markup("\n".join(rules) + "\n")  # noqa: S704 (ours)


def escape_html(text: str) -> Markup:
    """``text`` as HTML, with invisible and reordering characters (controls, bidi) written out.

    Long words, such as paths and digests, can wrap after their separators, and
    after each 24 other characters. No other word breaks.
    """
    if len(text) <= _LONGEST_WORD:
        safe = _escape_word(text)
    else:
        parts, end = [], 0
        for word in _LONG_WORD.finditer(text):
            parts.append(_escape_word(text[end : word.start()]))
            parts.append("<wbr>".join(map(_escape_word, _WORD_PART.findall(word[0]))))
            end = word.end()
        safe = "".join([*parts, _escape_word(text[end:])])
    # Right-to-left letters must not move the text beside them.
    return Markup(safe if text.isascii() else f"<bdi>{safe}</bdi>")  # noqa: S704 (escaped above)


def _escape_word(text: str) -> str:
    safe = str(escape(text))
    if safe.isprintable():
        return safe
    return "".join(char if char == "\n" or char.isprintable() else f"<i>{written_out(char)}</i>" for char in safe)


def show_name(text: str) -> Markup:
    """``fold_long`` for the name of a snapshot. A digest shows its beginning until the user asks for all of it."""
    if _DIGEST.fullmatch(text):
        return Markup(f"{text[:_SHORT_DIGEST]}<span>{text[_SHORT_DIGEST:]}</span>")  # noqa: S704 (hexadecimal digits)
    return fold_long(text)


def fold_long(text: str) -> Markup:
    """``escape_html``; a long text shows its beginning until the user opens it."""
    if len(text) <= FOLD:
        return escape_html(text)
    return Markup("<details><summary>%s…</summary>%s</details>") % (escape_html(text[: FOLD // 2]), escape_html(text))


def size(count: Optional[int]) -> str:
    """A number of bytes for readers, in powers of 1024."""
    if count is None:
        return _NONE
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count} B" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def cell(count: Optional[int]) -> str:
    """``size`` for a cell of a table, which is empty if the number is unknown."""
    return "" if count is None else size(count)


def meter(part: int, whole: int) -> str:
    """A bar that repeats for the eye what stands beside it."""
    share = min(part / whole, 1) if whole else 0
    return f' <meter value="{share:.2f}" aria-hidden="true"></meter>'


def in_units(text: str) -> str:
    """A message with its large numbers of bytes in units."""
    return _BYTES.sub(lambda found: " of ".join(size(int(number)) for number in found[1].split(" of ")), text)


# -- charts --------------------------------------------------------------------


class Use(NamedTuple):
    """A part of a disk: a key of ``_report_usage.USES``, its words, the bytes, and their share of the disk."""

    kind: str
    words: str
    bytes: int
    share: float

    @property
    def percent(self) -> str:
        return _percent(self.share)


def _percent(share: float) -> str:
    """A share for readers: what exists is not 0%, and what is not all is not 100%."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{share:.0%}"


def _parts(sums: Mapping[str, int]) -> List[Use]:
    total = sum(sums.values())
    return [
        Use(kind, _report_usage.USES[kind], count, count / total) for kind, count in sums.items() if count and total
    ]


def uses_of(node: Mapping[str, Any]) -> List[Use]:
    """What uses the disk of a node, without what uses nothing. Empty if it is unknown."""
    return _parts(_report_usage.disk(node))


def _uses_of_all(nodes: Sequence[Mapping[str, Any]]) -> List[Use]:
    sums = dict.fromkeys(_report_usage.USES, 0)
    for node in nodes:
        for kind, count in _report_usage.disk(node).items():
            sums[kind] += count
    return _parts(sums)


def draw_bar(parts: Sequence[Use]) -> Markup:
    """A bar of a disk, with a stripe for each use."""
    words = ", ".join(f"{use.words} {use.percent}" for use in parts)
    stripes, left = [], 0.0
    for use in parts:
        # A use that exists can be seen.
        width = max(use.share * 1000, 4)
        stripes.append(f'<rect class="{use.kind}" x="{min(left, 996):.0f}" width="{width:.0f}" height="10"/>')
        left += use.share * 1000
    return Markup(
        '<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="%s">%s</svg>'
    ) % (
        words,
        Markup("".join(stripes)),  # noqa: S704 (numbers, and words of ours)
    )


def pillar(count: int, most: int) -> Markup:
    """A column of a chart, as high as ``count`` is beside ``most``."""
    height = round(100 * count / most)
    return Markup(  # noqa: S704 (numbers)
        '<svg class="pillar" viewBox="0 0 10 100" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect y="{100 - height}" width="10" height="{height}"/></svg>'
    )


class Bin(NamedTuple):
    """How many nodes have from ``low`` to ``low`` + 10 percent free. ``most`` is the number of the largest bin."""

    low: int
    nodes: int
    most: int

    @property
    def range(self) -> str:
        return f"{self.low}-{self.low + 10}"

    @property
    def kind(self) -> str:
        return "scarce" if self.low < 10 else "low" if self.low < 20 else "enough"


def _bin(node: Mapping[str, Any]) -> Optional[int]:
    total: int = node["total"] or 0
    free: int = node["free"]
    return min(10 * min(free, total) // total, 9) * 10 if total else None


def range_of(node: Mapping[str, Any]) -> str:
    """The range of free space of a node in percent, such as ``20-30``, for the search."""
    low = _bin(node)
    return "" if low is None else f"{low}-{low + 10}"


def _spread(nodes: Sequence[Mapping[str, Any]]) -> List[Bin]:
    bins = [_bin(node) for node in nodes]
    counts = [bins.count(low) for low in range(0, 100, 10)]
    return [Bin(number * 10, count, max(counts)) for number, count in enumerate(counts)] if max(counts) else []


def used_percent(node: Mapping[str, Any]) -> int:
    """How many percent of the disk are used."""
    return round(100 * (1 - _free_share(node)))


def _free_share(node: Mapping[str, Any]) -> float:
    return min(node["free"] / node["total"], 1.0) if node["total"] else 1.0


def _worst(nodes: Sequence[Mapping[str, Any]]) -> List[Tuple[Mapping[str, Any], str, List[Use], str]]:
    """The ten nodes to look at first, each with the reason, the uses of its disk and the free share of it."""
    states = list(STATES)

    def rank(node: Mapping[str, Any]) -> Tuple[Any, ...]:
        counts = node["counts"]
        return states.index(node["state"]), -counts["error"], -counts["warning"], _free_share(node)

    found = []
    for node in sorted(nodes, key=rank)[:10]:
        left = [finding for finding in by_severity(node["findings"]) if not finding["repaired"]]
        reason = shorten(left[0]["message"] if left else node["message"])
        if len(left) > 1:
            reason += f" (and {_count(len(left) - 1, 'other finding')})"
        found.append((node, reason, uses_of(node), _percent(_free_share(node))))
    return found


def shorten(text: str) -> str:
    """The first line of ``text``, cut after a word if it is long."""
    line = in_units(text.split("\n", 1)[0])
    if len(line) <= FOLD:
        return line if "\n" not in text else f"{line} …"
    return f"{line[:FOLD].rpartition(' ')[0] or line[:FOLD]} …"


def anchor(node: str) -> str:
    """The id of a node's section, the same in every report."""
    return "node-" + urllib.parse.quote(node.encode("utf-8", "backslashreplace"), safe="")


def page(report: Mapping[str, Any]) -> Iterator[str]:
    """The whole page, in pieces."""
    nodes = report["nodes"]
    style, script = _source("_page.css") + _table_styles(), _source("_page.js")
    return _template().generate(
        nodes=nodes,
        generated=report["generated"],
        snapshots=sum(len(node["snapshots"]) for node in nodes),
        tally={state: sum(node["state"] == state for node in nodes) for state in STATES},
        sums={name: sum(node[name] or 0 for node in nodes) for name in ("size", "free", "total", "reclaimable")},
        kinds=_kinds(nodes),
        verdict=_verdict(nodes),
        spread=_spread(nodes),
        uses=_uses_of_all(nodes),
        measured=sum(bool(node["total"]) for node in nodes),
        worst=_worst(nodes),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        show=escape_html,
        fold=fold_long,
        size=size,
        name=show_name,
        cell=cell,
        uses=uses_of,
        used=used_percent,
        bar=draw_bar,
        pillar=pillar,
        range=range_of,
        shorten=shorten,
        units=in_units,
        by_severity=by_severity,
        severity_rank=severity_rank,
        depth=_depth,
        number=_number,
        numbers=_numbers,
        time=_time,
        count=_count,
        duration=_duration,
        anchor=anchor,
        tree=tree,
        needs=needs,
        ways=_ways,
    )
    environment.globals.update(STATES=STATES, SEVERITIES=SEVERITIES, FOLD=FOLD, WAYS=WAYS, TABLES=TABLES)
    return environment.from_string((HERE / "_page.html.j2").read_text(encoding="utf-8"))


def _source(name: str) -> Markup:
    """The text of a file of ours, without its licence header."""
    return Markup("\n" + (HERE / name).read_text(encoding="utf-8").partition("*/\n")[2])  # noqa: S704 (ours)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _number(number: int) -> str:
    return f"{number:,}"


def _numbers(snapshot: Dict[str, Any]) -> Markup:
    """The cells of a snapshot's numbers, made here because 100,000 snapshots make this the costliest part of a page."""
    usage, disk = snapshot["usage"], snapshot["scratch"]
    cells = [size(usage["size"]), _number(usage["inodes"])] if usage else ["", ""]
    if disk:
        written, virtual = disk["file_size"], disk["virtual_size"]
        cells += [f"{size(written)} of {size(virtual)}{meter(written, virtual)}"]
    else:
        cells += [""]
    return Markup("<td>" + "<td>".join(cells))  # noqa: S704 (numbers)


def _depth(depth: int) -> Markup:
    """The attribute of a name in the tree, nothing at the top."""
    return Markup(f" class=d{min(depth, DEEPEST)}") if depth else Markup()  # noqa: S704 (a number)


def needs(snapshot: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """What needs a snapshot of containerd's store, as pairs of kind and name."""
    used_by = snapshot.get("used_by", {})
    return [(kind, name) for plural, kind in _report_usage.KINDS.items() for name in used_by.get(plural, ())]


def _ways(items: Sequence[Mapping[str, Any]]) -> List[Tuple[str, int]]:
    """How much each way of freeing frees, in bytes."""
    return [
        (words, sum(item["size"] or 0 for item in items if item["how"] == way))
        for way, words in WAYS.items()
        if any(item["how"] == way for item in items)
    ]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _duration(milliseconds: int) -> str:
    """A time in the largest unit that fits."""
    seconds = milliseconds // 1000
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return _count(seconds // length, unit)
    return _count(seconds, "second")


def _time(stamp: str) -> Markup:
    return escape_html(stamp[:16].replace("T", " "))


def severity_rank(finding: Mapping[str, Any]) -> int:
    """Sort key of findings: errors come before warnings, and those before notices."""
    severities = list(SEVERITIES)
    return severities.index(finding["severity"]) if finding["severity"] in severities else len(severities)


def by_severity(findings: Sequence[Mapping[str, Any]]) -> List[Mapping[str, Any]]:
    """The findings, errors first."""
    return sorted(findings, key=severity_rank)


def _verdict(nodes: Sequence[Mapping[str, Any]]) -> str:
    bad = sum(node["state"] != "healthy" for node in nodes)
    if not nodes:
        return "There is no node"
    if not bad:
        return "The node is healthy" if len(nodes) == 1 else f"All {len(nodes):,} nodes are healthy"
    return f"{bad:,} of {_count(len(nodes), 'node')} need{'s' if bad == 1 else ''} attention"


def _kinds(nodes: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The findings of the fleet by code, the most severe and then the most frequent first."""
    kinds: Dict[str, List[Tuple[str, Dict[str, Any]]]] = {}
    for node in nodes:
        for finding in node["findings"]:
            if not finding["repaired"]:
                kinds.setdefault(finding["code"], []).append((node["node"], finding))
    rows = [
        {
            "code": code,
            # The search looks for shown text, and half a surrogate pair is shown as an escape.
            "query": code.encode("utf-8", "backslashreplace").decode("utf-8"),
            "severity": found[0][1]["severity"],
            "rank": severity_rank(found[0][1]),
            "remedy": found[0][1]["remedy"],
            "nodes": len({node for node, _finding in found}),
            "findings": len(found),
            "reclaimable": sum(finding["reclaimable"] for _node, finding in found),
        }
        for code, found in kinds.items()
    ]
    return sorted(rows, key=lambda row: (severity_rank(row), -row["findings"]))


def tree(snapshots: Sequence[Dict[str, Any]]) -> Iterator[Tuple[Dict[str, Any], int, str]]:
    """Each snapshot below its parent, as (snapshot, depth, id of the parent's layer or a note about the parent).

    A snapshot without its parent is at depth 0. So is one member of a parent
    cycle, which only damaged records have. The namespaces of containerd each
    have their own snapshots.
    """
    by_name = {
        _full_name(snapshot, snapshot["name"]): snapshot
        for snapshot in sorted(snapshots, key=lambda snapshot: _full_name(snapshot, snapshot["name"]))
    }
    parents = {
        name: _full_name(snapshot, snapshot["parent"]) if snapshot["parent"] else ""
        for name, snapshot in by_name.items()
    }
    for name, depth in Lineage(parents).forest():
        parent = parents[name]
        if parent in by_name:
            yield by_name[name], depth, str(by_name[parent]["id"])
        else:
            missing = by_name[name]["parent"]
            yield by_name[name], depth, Markup("missing: ") + fold_long(missing) if missing else ""


def _full_name(snapshot: Mapping[str, Any], name: str) -> str:
    """A name with its namespace. A namespace has no slash."""
    return f"{snapshot['namespace']}/{name}" if "namespace" in snapshot else name
