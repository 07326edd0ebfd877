# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report about a fleet: odd answers, hostile text, files."""

from __future__ import annotations

import copy
import csv
import html.parser
import io
import json

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _page, _report
from hypothesis import example, given
from hypothesis import strategies as st

AUDITED = "2026-11-24T08:36:01Z"
GIB = 1024**3
NONE = "\N{EN DASH}"

FINDING = {
    "code": "leftover_removal",
    "severity": "warning",
    "snapshot": "",
    "id": 7,
    "path": r"C:\wcow\snapshots\rm-7",
    "message": r"C:\wcow\snapshots\rm-7 waits to be destroyed",
    "remedy": "Run store_check with repair=true: it is destroyed",
    "reclaimable": GIB,
    "repairable": True,
    "repaired": False,
    "action": "",
}


def snapshot(name, parent="", number=1, **fields):
    return {
        "name": name,
        "kind": "committed",
        "parent": parent,
        "id": number,
        "labels": {},
        "created": AUDITED,
        "updated": AUDITED,
        "usage": {"size": 100, "inodes": 3},
        "scratch": None,
        **fields,
    }


CHECK = {
    "changed": False,
    "exists": True,
    "healthy": False,
    "summary": "2 snapshots, 1 problem",
    "counts": {"error": 0, "warning": 1, "notice": 0},
    "reclaimable": GIB,
    "free": 10 * GIB,
    "total": 40 * GIB,
    "findings": [FINDING],
    "inventory": [snapshot("base"), snapshot("work", "base", 2)],
}


def node(name="node1", check=CHECK, audited=AUDITED):
    return _report.node_of(name, audited, check)


def page_of(*nodes):
    return "".join(_page.page(_report.report_of(AUDITED, nodes)))


# -- what a node says ----------------------------------------------------------


def test_states():
    assert node()["state"] == "unhealthy"
    assert node()["size"] == 200
    assert node(check={**CHECK, "healthy": True})["state"] == "healthy"
    assert node(check={**CHECK, "healthy": True, "exists": False})["state"] == "no_store"
    gone = node(check={"unreachable": True, "msg": "No route to host", "changed": False})
    assert (gone["state"], gone["message"], gone["free"]) == ("unreachable", "No route to host", None)
    assert node(check={"failed": True, "msg": "No Python"})["state"] == "failed"
    bare = {name: value for name, value in CHECK.items() if name != "inventory"}
    assert node(check=bare)["message"] == "The node was checked without inventory: true"
    assert node(check=None)["message"] == "The node has returned nothing"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("free",), "<script>"),
        (("free",), True),
        (("healthy",), "no"),
        (("counts", "error"), None),
        (("counts",), []),
        (("findings",), {}),
        (("findings", 0, "message"), 5),
        (("findings", 0), "text"),
        (("inventory",), None),
    ],
)
def test_an_answer_of_another_form_costs_only_its_node(path, value):
    check = copy.deepcopy(CHECK)
    place = check
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    odd = node(check=check)
    assert odd["state"] == "failed"
    assert "The node's answer cannot be used: the check" in odd["message"]
    assert "node1" in page_of(odd, node("node2"))


def test_labels_are_texts():
    odd = node(check={**CHECK, "inventory": [snapshot("base", labels={"team": ["blue"]})]})
    assert odd["message"] == (
        "The node's answer cannot be used: the check.inventory.labels is not what it must be: \"['blue']\""
    )


def test_what_is_not_known_stays_on_the_node():
    check = {**CHECK, "password": "secret"}
    assert "secret" not in json.dumps(node(check=check))


def test_the_order_is_worst_first_then_by_name():
    healthy = {**CHECK, "healthy": True}
    nodes = [node(f"node{number}", check=healthy) for number in (10, 9, 1)]
    nodes += [node("a"), node("b", check=None), node("c", check={"unreachable": True})]
    ordered = [one["node"] for one in _report.report_of(AUDITED, nodes)["nodes"]]
    assert ordered == ["c", "b", "a", "node1", "node9", "node10"]


def test_of_a_node_the_latest_audit_counts():
    old, new = node(check=None, audited="2026-11-23T08:36:01Z"), node()
    for nodes in ([old, new], [new, old]):
        assert _report.report_of(AUDITED, nodes)["nodes"] == [new]


# -- files ---------------------------------------------------------------------


def test_files(tmp_path):
    report = _report.report_of(AUDITED, [node()])
    paths = _report.write(str(tmp_path / "deep" / "er"), report)
    assert [path.rpartition("/")[2] for path in paths] == [
        "report.json",
        "nodes.csv",
        "snapshots.csv",
        "findings.csv",
        "report.html",
    ]
    assert _report.read(paths[0]) == report["nodes"]
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == sorted(
        path.rpartition("/")[2] for path in paths
    )


def test_a_failure_leaves_the_file_of_before(tmp_path):
    def broken():
        yield "half"
        raise OSError(28, "No space left on device")

    (tmp_path / "report.json").write_text("before")
    with pytest.raises(OSError, match="No space left"):
        _report._write(str(tmp_path / "report.json"), "utf-8", broken())
    assert (tmp_path / "report.json").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report.update(version=2), "is no report.json of this collection"),
        (lambda report: report.pop("nodes"), "is not what it must be: 'None'"),
        (lambda report: report["nodes"][0].update(state="fine"), "'node1' has the unknown state 'fine'"),
        (lambda report: report["nodes"][0]["snapshots"][0].update(id="1"), "snapshots.id is not what it must be"),
    ],
)
def test_what_is_merged_is_checked(tmp_path, change, said):
    report = _report.report_of(AUDITED, [node()])
    change(report)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    with pytest.raises(_report.Malformed, match=said):
        _report.read(str(path))


# -- hostile text --------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n1",
        " =1",
        "\u00a0=1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
    ],
)
def test_no_formula_gets_into_a_cell(text):
    assert _report.guarded(text) == "'" + text
    table = _report.snapshots_csv(
        _report.report_of(AUDITED, [node(text, {**CHECK, "inventory": [snapshot(text, labels={text: text})]})])
    )
    row = list(csv.reader(io.StringIO(table, newline="")))[1]
    assert row[:2] == ["'" + text, "'" + text]
    assert json.loads(row[-1]) == {text: text}


def test_numbers_and_other_text_stay():
    for value in (-5, 0, None, "", "a=b", "sha256:=", "{}"):
        assert _report.guarded(value) == value


class Reader(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags = set()
        self.attributes = set()
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}

    def handle_data(self, data):
        self.text += data


def seen(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@given(
    st.text(
        st.one_of(st.characters(), st.sampled_from("<>&\"'/=!-\u202e\u200f\n\t\0"), st.characters(categories=["Cs"])),
        min_size=1,
        max_size=300,
    )
)
@example("\ud800")
def test_text_stays_text(text):
    plain = seen(page_of(node()))
    inventory = [snapshot(text, "lost " + text, kind=text, created=text, labels={text: text})]
    finding = {**FINDING, **dict.fromkeys(("code", "severity", "snapshot", "message", "remedy", "action"), text)}
    check = {**CHECK, "summary": text, "findings": [finding], "inventory": inventory}
    page = page_of(node(text, check))
    found = seen(page)
    # What folds long texts, isolates letters that run the other way, and marks what cannot be seen.
    assert found.tags <= plain.tags | {"details", "summary", "bdi", "i"}
    assert found.attributes <= plain.attributes
    assert page.count("<noscript") == page.count("</noscript") == 1
    assert page.count("<script") == page.count("</script") == 1
    page.encode("utf-8")
    _report.snapshots_csv(_report.report_of(AUDITED, [node(text, check)]))


@given(st.text(max_size=300))
def test_what_can_be_seen_is_shown_as_it_is(text):
    if all(char == "\n" or char.isprintable() for char in text):
        assert seen(_page.shown(text)).text == text


def test_what_cannot_be_seen_is_written_out():
    assert _page.shown("a\u202eb\ud800\0") == r"a<i>\u202e</i>b<i>\ud800</i><i>\x00</i>"


def test_long_texts_are_folded():
    text = "x" * 4096
    assert _page.folded(text) == f"<details><summary>{'x' * 80}…</summary>{text}</details>"


# -- the page ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, NONE),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (42949672960, "40.0 GiB"),
        (2**64, "16384.0 PiB"),
        (-5, "-5 B"),
    ],
)
def test_sizes(count, text):
    assert _page.size(count) == text


def test_the_tree():
    found = [
        snapshot("base", number=1),
        snapshot("z", "base", 2),
        snapshot("a", "base", 3),
        snapshot("deep", "z", 4),
        snapshot("alone", "lost", 5),
        snapshot("other", number=6),
    ]
    assert [(one["name"], depth, parent) for one, depth, parent in _page.tree(found)] == [
        ("alone", 0, "missing: lost"),
        ("base", 0, NONE),
        ("a", 1, "1"),
        ("z", 1, "1"),
        ("deep", 2, "2"),
        ("other", 0, NONE),
    ]


@pytest.mark.parametrize(
    "parents",
    [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "a", "d": "b", "e": "", "f": "d"}],
)
def test_a_tree_that_bites_its_tail_ends(parents):
    found = [snapshot(name, parent, number) for number, (name, parent) in enumerate(parents.items(), 1)]
    assert sorted(one["name"] for one, _depth, _parent in _page.tree(found)) == sorted(parents)


def test_a_long_chain():
    found = [snapshot(str(number), str(number - 1) if number else "", number) for number in range(5000)]
    assert [depth for _one, depth, _parent in _page.tree(found)] == list(range(5000))
    assert f'class="d{_page.DEEPEST}"' in page_of(node(check={**CHECK, "inventory": found}))


def test_the_page_needs_nothing_from_elsewhere():
    page = page_of(node())
    found = seen(page)
    assert not found.tags & {"link", "img", "iframe", "object", "base"}
    assert not found.attributes & {"src", "srcset", "action", "style", "onclick"}
    assert "default-src 'none'" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
