# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the report about all nodes: unusual replies, hostile text and the files."""

from __future__ import annotations

import copy
import csv
import html.parser
import io
import json
import os

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


# -- replies of a node ---------------------------------------------------------


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
    assert node(check=None)["message"] == "The node returned nothing"


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
        (("free",), -1),
        (("total",), 1 << 63),
        pytest.param(("total",), 1 << 40_000, id="digits"),
        (("reclaimable",), 1.5),
        (("inventory", 0, "usage", "size"), 10**400),
        (("inventory", 0, "created"), "9999-13-31T00:00:00Z"),
        (("inventory", 0, "updated"), "99999-01-01T00:00:00Z"),
        (("inventory", 0, "created"), "9999-12-31T23:59:59+00:00"),
        (("inventory", 0, "labels"), [["a", "b"]]),
        (("findings", 0, "id"), 1e999),
    ],
)
def test_an_answer_of_another_form_costs_only_its_node(path, value):
    check = copy.deepcopy(CHECK)
    holder = check
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    odd = node(check=check)
    assert odd["state"] == "failed"
    assert "The node's answer cannot be used: the check" in odd["message"]
    assert "node1" in page_of(odd, node("node2"))


def test_labels_are_texts():
    odd = node(check={**CHECK, "inventory": [snapshot("base", labels={"team": ["blue"]})]})
    assert odd["message"] == (
        "The node's answer cannot be used: the check.inventory.labels has an unexpected value: \"['blue']\""
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


def test_numbers_in_names_have_any_length():
    names = ["n" + "9" * 5000, "n" + "0" * 5000 + "1", "n2", "n10"]
    ordered = [one["node"] for one in _report.report_of(AUDITED, [node(name) for name in names])["nodes"]]
    assert ordered == [names[1], "n2", "n10", names[0]]


def test_a_report_that_is_nested_deeply_is_refused(tmp_path):
    (tmp_path / "report.json").write_text("[" * 100_000)
    with pytest.raises(_report.Malformed, match="is not JSON: it is nested too deeply"):
        _report.read(str(tmp_path / "report.json"))


def test_a_reason_forges_no_line():
    message = node(check={"failed": True, "msg": "a\nb\r\x1b[2K\u202ec"})["message"]
    assert message == "a\n" + r"b \x1b[2K\u202ec"


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
        "users.csv",
        "metrics.prom",
        "report.html",
    ]
    assert _report.read(paths[0]) == report["nodes"]
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == sorted(
        path.rpartition("/")[2] for path in paths
    )


def test_the_metrics_can_have_another_place(tmp_path):
    collector = tmp_path / "textfile" / "wcow.prom"
    collector.parent.mkdir()
    paths = _report.write(str(tmp_path / "report"), _report.report_of(AUDITED, [node()]), str(collector))
    assert str(collector) in paths
    assert not (tmp_path / "report" / "metrics.prom").exists()
    assert collector.read_text(encoding="utf-8").endswith("# EOF\n")


def test_metrics_without_a_directory_leave_the_report_as_it_was(tmp_path):
    missing = tmp_path / "textfile"
    with pytest.raises(FileNotFoundError) as caught:
        _report.write(str(tmp_path / "report"), _report.report_of(AUDITED, [node()]), str(missing / "wcow.prom"))
    assert caught.value.filename == str(missing)
    assert list(tmp_path.iterdir()) == []


def test_errors_come_before_warnings_and_notices():
    severities = ("notice", "warning", "error", "odd", "notice", "error")
    findings = [{**FINDING, "severity": severity, "id": number} for number, severity in enumerate(severities)]
    ordered = node(check={**CHECK, "findings": findings})["findings"]
    assert [(one["severity"], one["id"]) for one in ordered] == [
        ("error", 2),
        ("error", 5),
        ("warning", 1),
        ("notice", 0),
        ("notice", 4),
        ("odd", 3),
    ]


def test_a_failure_leaves_the_file_of_before(tmp_path):
    def failing():
        yield "half"
        raise OSError(28, "No space left on device")

    (tmp_path / "report.json").write_text("before")
    with pytest.raises(OSError, match="No space left on device: .*report.json'$"):
        _report._write(str(tmp_path / "report.json"), "utf-8", failing())
    assert (tmp_path / "report.json").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.posix
def test_a_named_pipe_is_neither_read_nor_replaced(tmp_path):
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        _report.read(str(tmp_path / "report.json"))
    with pytest.raises(OSError, match="it is a named pipe, not a file"):
        _report.write(str(tmp_path), _report.report_of(AUDITED, [node()]))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda report: report.update(version=2), "is not a report.json of this collection"),
        (lambda report: report.pop("nodes"), "has an unexpected value: 'None'"),
        (lambda report: report["nodes"][0].update(state="fine"), "'node1' has the unknown state 'fine'"),
        (lambda report: report["nodes"][0]["snapshots"][0].update(id="1"), "snapshots.id has an unexpected value"),
        (lambda report: report["nodes"][0].update(audited="9999-12-31T23:59:59Z"), "'node1' was audited in the future"),
        (lambda report: report["nodes"][0].update(audited="yesterday"), "audited has an unexpected value"),
        (lambda report: report["nodes"][0].update(size=1 << 70), "is not JSON: a number has 22 digits"),
        (lambda report: report["nodes"][0].update(size=1 << 63), "is not JSON: a number has 19 digits"),
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
        "\u200b=1",
        "\ufeff=1",
        "\ufeff\u2060 \u00a0\t=1",
        "\u202e@x",
        "\u180e-1",
        "\x1b+1",
        "\x00=1",
        "\x01text",
        "\x85=1",
        "\u2028=1",
        "\u3164=1",
        "\u034f\ufe0f=1",
        "\U000e0001=1",
        "\ue000=1",
        "\ufe66\u0031",
        "\ufe62x",
        "\ufe63x",
        "\ufe6bx",
        "\u2212x",
        "\u207ax",
        "\u208cx",
    ],
)
def test_no_formula_gets_into_a_cell(text):
    assert _report.escape_formula(text) == "'" + text
    table = _report.snapshots_csv(
        _report.report_of(AUDITED, [node(text, {**CHECK, "inventory": [snapshot(text, labels={text: text})]})])
    )
    (row,) = csv.DictReader(io.StringIO(table, newline=""))
    assert (row["node"], row["name"]) == ("'" + text, "'" + text)
    assert json.loads(row["labels"]) == {text: text}


def test_numbers_and_other_text_stay():
    for value in (-5, 0, None, "", "a=b", "sha256:=", "{}", "\u200bname", "\u00fcber=1", " a", "\u4e2d-1"):
        assert _report.escape_formula(value) == value


class Reader(html.parser.HTMLParser):
    """Collects the tags, attributes and text of a page."""

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
    inventory = [snapshot(text, "lost " + text, kind=text, labels={text: text})]
    finding = {**FINDING, **dict.fromkeys(("code", "severity", "snapshot", "message", "remedy", "action"), text)}
    check = {**CHECK, "summary": text, "findings": [finding], "inventory": inventory}
    page = page_of(node(text, check))
    found = seen(page)
    assert node(text, check)["state"] == "unhealthy"
    # These tags fold long texts, isolate right-to-left text and mark invisible characters.
    assert found.tags <= plain.tags | {"details", "summary", "bdi", "i", "wbr"}
    assert found.attributes <= plain.attributes
    assert page.count("<noscript") == page.count("</noscript") == 1
    assert page.count("<script") == page.count("</script") == 1
    page.encode("utf-8")
    _report.snapshots_csv(_report.report_of(AUDITED, [node(text, check)]))


@given(st.text(max_size=300))
def test_what_can_be_seen_is_shown_as_it_is(text):
    if all(char == "\n" or char.isprintable() for char in text):
        assert seen(_page.escape_html(text)).text == text


def test_what_cannot_be_seen_is_written_out():
    assert _page.escape_html("a\u202eb\ud800\0") == r"<bdi>a<i>\u202e</i>b<i>\ud800</i><i>\x00</i></bdi>"


def test_long_texts_are_folded():
    text = "x" * 4096
    folded = str(_page.fold_long(text))
    assert folded.startswith("<details><summary>")
    assert folded.replace("<wbr>", "") == f"<details><summary>{'x' * 80}…</summary>{text}</details>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a word of internationalisation", "a word of internationalisation"),
        (
            r"C:\ProgramData\wcow\snapshots\rm-7 waits",
            r"C:\<wbr>ProgramData\<wbr>wcow\<wbr>snapshots\<wbr>rm-<wbr>7 waits",
        ),
        ("x" * 30, "x" * 24 + "<wbr>" + "x" * 6),
    ],
)
def test_long_words_can_wrap(text, shown):
    assert _page.escape_html(text) == shown


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
        ("base", 0, ""),
        ("a", 1, "1"),
        ("z", 1, "1"),
        ("deep", 2, "2"),
        ("other", 0, ""),
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
    assert f"class=d{_page.DEEPEST}>" in page_of(node(check={**CHECK, "inventory": found}))


def test_the_page_needs_nothing_from_elsewhere():
    page = page_of(node())
    found = seen(page)
    assert not found.tags & {"link", "img", "iframe", "object", "base"}
    assert not found.attributes & {"src", "srcset", "action", "style", "onclick"}
    assert "default-src 'none'" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
