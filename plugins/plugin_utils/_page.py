# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML page that needs nothing else, with ``_page.css`` and ``_page.js`` in it.

All that is to be read is HTML made here; the script only sorts, searches and
shows one node at a time. The details of each node stand in a ``noscript``
element: a browser that runs scripts takes that for plain text, so that a page
of 100,000 snapshots opens at once, and the script turns the text of a node into
elements when somebody opens the node. A browser without scripts shows it all.

Names, labels and messages are hostile: nothing of them gets into the page but
through ``shown``. The content security policy, which knows the one script and
the one style sheet by their hashes, is a second lock.

FOR INTERNAL USE OF THE COLLECTION ONLY; it may change without notice.
"""

from __future__ import annotations

import base64
import hashlib
import html
import pathlib
import urllib.parse
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

#: The states of nodes, the worst first -> a sign that tells them apart without colours, the words, what they mean.
STATES: Dict[str, Tuple[str, str, str]] = {
    "unreachable": ("✗", "unreachable", "the connection failed"),
    "failed": ("✗", "failed", "the node was reached, but could not be audited"),
    "unhealthy": ("!", "unhealthy", "the store has errors or warnings"),
    "no_store": ("\N{EN DASH}", "no store", "there is no store on the node"),
    "healthy": ("✓", "healthy", "no errors and no warnings"),
}
SEVERITIES = {"error": "✗", "warning": "!", "notice": "i"}

#: Longer texts are folded after so many characters.
FOLD = 160
#: Layers that lie deeper are not indented further: _page.css has a rule for each depth.
DEEPEST = 16

_NONE = "\N{EN DASH}"


def shown(text: str) -> str:
    """``text`` as HTML: escaped, what cannot be seen or reorders its neighbours (controls, bidi) made visible."""
    safe = html.escape(text)
    if not safe.isprintable():
        safe = "".join(
            char if char == "\n" or char.isprintable() else f"<i>{char.encode('unicode_escape').decode()}</i>"
            for char in safe
        )
    # Letters that run from right to left must not carry away what stands beside them.
    return safe if safe.isascii() else f"<bdi>{safe}</bdi>"


def folded(text: str) -> str:
    """``shown``, with only the beginning of a long text until it is opened."""
    if len(text) <= FOLD:
        return shown(text)
    return f"<details><summary>{shown(text[: FOLD // 2])}…</summary>{shown(text)}</details>"


def size(count: Optional[int]) -> str:
    """Bytes as people read them, in powers of 1024."""
    if count is None:
        return _NONE
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count} B" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def anchor(node: str) -> str:
    """The name of a node's section. The same node has the same one in every report."""
    return "node-" + urllib.parse.quote(node.encode("utf-8", "backslashreplace"), safe="")


def page(report: Dict[str, Any]) -> Iterator[str]:
    """The whole page, in pieces."""
    style, script = (_source(name) for name in ("_page.css", "_page.js"))
    nodes = report["nodes"]
    yield (
        "<!doctype html>\n"
        '<html lang="en">\n'
        '<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; base-uri 'none'; "
        f"form-action 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Windows container snapshots: {_count(len(nodes), 'node')}</title>\n"
        f"<style>{style}</style>\n"
        "<header>\n"
        '<h1><a href="#fleet">Windows container snapshots</a></h1>\n'
        f"<p>{_count(len(nodes), 'node')}, {_count(sum(len(node['snapshots']) for node in nodes), 'snapshot')}, "
        f"report of {_time(report['generated'])} UTC</p>\n"
        '<form role="search" hidden><label for="search">Search</label> '
        '<input id="search" type="search" placeholder="node, snapshot, label, finding" autocomplete="off" '
        'spellcheck="false"> <span role="status"></span></form>\n'
        "</header>\n<main>\n"
    )
    yield '<section id="fleet">\n'
    yield from _overview(nodes)
    yield from _fleet(nodes)
    yield "</section>\n"
    for node in nodes:
        yield f'<section id="{anchor(node["node"])}" class="node"><noscript>\n'
        yield from _details(node)
        yield "</noscript></section>\n"
    yield f"</main>\n<script>{script}</script>\n</html>\n"


def _source(name: str) -> str:
    # What says whose it is stays in the file.
    text = (pathlib.Path(__file__).parent / name).read_text(encoding="utf-8")
    return "\n" + text.partition("*/\n")[2]


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _time(stamp: str) -> str:
    return shown(stamp[:16].replace("T", " "))


def _table(name: str, caption: str, columns: Sequence[str], rows: Iterable[str], hint: str = "") -> Iterator[str]:
    """A table whose columns with ``#`` before their names hold numbers; rows are ``<tr>`` without end tags."""
    heads = "".join(
        f'<th scope="col" class="n">{column[1:]}' if column.startswith("#") else f'<th scope="col">{column}'
        for column in columns
    )
    yield (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="{name}"><caption>{caption}{hint}</caption><thead><tr>{heads}</thead><tbody>\n'
    )
    yield from rows
    yield "</tbody></table></div>\n"


def _badge(kind: str, sign: str, words: str) -> str:
    return f'<span class="badge {kind}"><span aria-hidden="true">{sign}</span> {words}</span>'


def _state(node: Dict[str, Any]) -> str:
    sign, words, _meaning = STATES[node["state"]]
    return _badge(node["state"], sign, words)


def _severity(severity: str) -> str:
    # Of a severity that is unknown here the node's own word is shown, in no colour.
    if severity not in SEVERITIES:
        return shown(severity)
    return _badge(severity, SEVERITIES[severity], severity)


# -- the fleet -----------------------------------------------------------------


def _overview(nodes: Sequence[Dict[str, Any]]) -> Iterator[str]:
    """How many nodes are in each state, and which findings there are."""
    yield '<ul class="tiles">\n'
    for state, (sign, words, meaning) in STATES.items():
        number = sum(node["state"] == state for node in nodes)
        if number:
            yield (
                f'<li data-query="is:{state}" class="{state}"><b>{number:,}</b> '
                f'<span><span aria-hidden="true">{sign}</span> {words}</span><small>{meaning}</small>\n'
            )
    yield (
        "</ul>\n"
        f"<p>Layers take {_sum(nodes, 'size')}; {_sum(nodes, 'free')} of {_sum(nodes, 'total')} are free, "
        f"{_sum(nodes, 'reclaimable')} can be reclaimed.</p>\n"
    )
    kinds: Dict[str, List[Tuple[str, Dict[str, Any]]]] = {}
    for node in nodes:
        for finding in node["findings"]:
            if not finding["repaired"]:
                kinds.setdefault(finding["code"], []).append((node["node"], finding))
    if kinds:
        severities = list(SEVERITIES)
        ordered = sorted(
            kinds.items(),
            key=lambda kind: (
                severities.index(kind[1][0][1]["severity"]) if kind[1][0][1]["severity"] in severities else 3,
                -len(kind[1]),
            ),
        )
        yield from _table(
            "kinds",
            "Findings of the fleet",
            ("Finding", "Severity", "#Nodes", "#Findings", "#Reclaimable", "What to do"),
            (_kind(code, found) for code, found in ordered),
        )


def _sum(nodes: Sequence[Dict[str, Any]], name: str) -> str:
    return size(sum(node[name] or 0 for node in nodes))


def _kind(code: str, found: Sequence[Tuple[str, Dict[str, Any]]]) -> str:
    first = found[0][1]
    # What is shown is what is searched for, and half a surrogate pair is shown as an escape.
    query = html.escape(code.encode("utf-8", "backslashreplace").decode("utf-8"))
    return (
        f'<tr><th scope="row" data-query="{query}">{folded(code)}<td>{_severity(first["severity"])}'
        f"<td>{len({node for node, _finding in found}):,}<td>{len(found):,}"
        f"<td>{size(sum(finding['reclaimable'] for _node, finding in found) or None)}<td>{folded(first['remedy'])}\n"
    )


def _fleet(nodes: Sequence[Dict[str, Any]]) -> Iterator[str]:
    yield from _table(
        "fleet",
        "Nodes",
        (
            "Node",
            "State",
            "#Errors",
            "#Warnings",
            "#Notices",
            "#Snapshots",
            "#Size",
            "#Free",
            "#Disk used",
            "#Reclaimable",
            "Summary",
        ),
        (_row(node) for node in nodes),
    )


def _row(node: Dict[str, Any]) -> str:
    answered = node["free"] is not None
    counts = node["counts"]
    numbers = [
        *(f"{counts[level]:,}" if answered else _NONE for level in SEVERITIES),
        f"{len(node['snapshots']):,}" if answered else _NONE,
        *(size(node[name]) for name in ("size", "free")),
        _used(node["free"], node["total"]),
        size(node["reclaimable"] or None),
    ]
    return (
        f'<tr data-state="{node["state"]}"><th scope="row"><a href="#{anchor(node["node"])}">{shown(node["node"])}</a>'
        f"<td>{_state(node)}<td>{'<td>'.join(numbers)}<td><div>{shown(node['message'][:FOLD])}</div>\n"
    )


def _used(free: Optional[int], total: Optional[int]) -> str:
    if not total or free is None:
        return _NONE
    return _meter(total - free, total)


def _meter(part: int, whole: int) -> str:
    share = min(max(part / whole, 0), 1)
    return f'{share:.0%} <meter value="{share:.2f}" aria-hidden="true"></meter>'


# -- a node --------------------------------------------------------------------


def _details(node: Dict[str, Any]) -> Iterator[str]:
    yield (
        f'<p><a href="#fleet">All nodes</a></p>\n<h2 tabindex="-1">{shown(node["node"])} {_state(node)}</h2>\n'
        f'<p class="says">{folded(node["message"])}</p>\n'
        f"<p>Audited {_time(node['audited'])} UTC"
    )
    if node["free"] is not None:
        yield (
            f"; layers take {size(node['size'])}; {size(node['free'])} of {size(node['total'])} are free, "
            f"{size(node['reclaimable'])} can be reclaimed"
        )
    yield ".</p>\n"
    if node["findings"]:
        yield from _table(
            "findings",
            "Findings",
            ("Severity", "Finding", "Snapshot", "What is wrong", "What to do", "#Reclaimable"),
            (_finding(finding) for finding in node["findings"]),
        )
    if node["snapshots"]:
        yield from _table(
            "tree",
            "Layers",
            (
                "Snapshot",
                "Kind",
                "#Layer",
                "#On layer",
                "#Size",
                "#Files",
                "#Scratch disk",
                "#Written",
                "#Of the disk",
                "Labels",
                "Made (UTC)",
            ),
            (_snapshot(*place) for place in tree(node["snapshots"])),
            ": each stands below the one that it is based on",
        )


def _finding(finding: Dict[str, Any]) -> str:
    action = f"<p>{folded(finding['action'])}</p>" if finding["action"] else ""
    return (
        f'<tr><td>{_severity(finding["severity"])}<th scope="row">{folded(finding["code"])}'
        f"<td>{folded(finding['snapshot']) or _NONE}<td>{folded(finding['message'])}"
        f"<td>{folded(finding['remedy'])}{action}<td>{size(finding['reclaimable'] or None)}\n"
    )


def _snapshot(snapshot: Dict[str, Any], depth: int, parent: str) -> str:
    usage = snapshot["usage"] or {}
    scratch = snapshot["scratch"]
    disk = [_NONE] * 3
    if scratch:
        virtual, written = scratch["virtual_size"], scratch["file_size"]
        disk = [size(virtual), size(written), _meter(written, virtual) if virtual else _NONE]
    inodes = usage.get("inodes")
    return (
        f'<tr><th scope="row" class="d{min(depth, DEEPEST)}">{folded(snapshot["name"])}'
        f"<td>{shown(snapshot['kind'])}<td>{snapshot['id']}<td>{parent}<td>{size(usage.get('size'))}"
        f"<td>{_NONE if inodes is None else f'{inodes:,}'}<td>{'<td>'.join(disk)}"
        f"<td>{_labels(snapshot['labels'])}<td>{_time(snapshot['created'])}\n"
    )


def _labels(labels: Dict[str, str]) -> str:
    if not labels:
        return _NONE
    lines = "".join(f"<p>{shown(name)}={shown(value)}</p>" for name, value in sorted(labels.items()))
    return f"<details><summary>{_count(len(labels), 'label')}</summary>{lines}</details>"


def tree(snapshots: Sequence[Dict[str, Any]]) -> Iterator[Tuple[Dict[str, Any], int, str]]:
    """Each snapshot below its parent, as (snapshot, depth, the parent's layer or what is known of it).

    What has lost its parent stands at depth 0, and so does what a damaged store
    shows as its own ancestor.
    """
    numbers = {snapshot["name"]: str(snapshot["id"]) for snapshot in snapshots}
    children: Dict[str, List[Dict[str, Any]]] = {}
    for snapshot in sorted(snapshots, key=lambda snapshot: str(snapshot["name"]), reverse=True):
        parent = snapshot["parent"] if snapshot["parent"] in numbers else ""
        children.setdefault(parent, []).append(snapshot)

    def descend(start: List[Tuple[Dict[str, Any], int]]) -> Iterator[Tuple[Dict[str, Any], int, str]]:
        while start:
            snapshot, depth = start.pop()
            parent = snapshot["parent"]
            yield snapshot, depth, numbers.get(parent, "missing: " + folded(parent) if parent else _NONE)
            start.extend((child, depth + 1) for child in children.pop(snapshot["name"], ()))

    yield from descend([(snapshot, 0) for snapshot in children.pop("", ())])
    while children:
        _ancestor, circle = children.popitem()
        yield from descend([(snapshot, 0) for snapshot in circle])
