# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in a real browser: read, sorted, searched, operated by keyboard, attacked. Pictures of it are kept."""

from __future__ import annotations

import os
import pathlib
import time

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _page, _report
from ansible_collections.wcow.snapshotter.tests.browser import fleet
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

pytestmark = pytest.mark.requires_tool("chromium", "chromium")

NODES, SNAPSHOTS = 500, 200
PICTURES = pathlib.Path(__file__).parents[2] / ".cache" / "report-browser"
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 390, "height": 844}
#: Seconds that anything may take on a busy machine; opening the largest report takes two on a quiet one.
PATIENCE = 20


@pytest.fixture(scope="module")
def browser():
    # Chromium's own sandbox does not work for root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=options)
        yield started
        started.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The reports by name, written as files."""
    directory = tmp_path_factory.mktemp("reports")
    made = {"large": fleet.fleet(NODES, SNAPSHOTS), "small": fleet.fleet(80, 12), "hostile": fleet.hostile()}
    for name, report in made.items():
        _report.write(str(directory / name), report)
    return directory, made


@pytest.fixture
def visit(browser, reports):
    """``visit(name)`` opens a report in a page of its own; nothing may go wrong in it or leave it."""
    directory, _made = reports
    contexts, troubles = [], []

    def visited(name, fragment="", **options):
        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        address = (directory / name / "report.html").as_uri()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: None if request.url.startswith(address) else troubles.append(request.url),
        )
        page.goto(address + fragment)
        return page

    yield visited
    for context in contexts:
        context.close()
    assert troubles == []


def picture(page, name, **options):
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", **options)


def names(page):
    """The names in the fleet's table that are not filtered out, in order."""
    return page.locator(".fleet tbody tr:not([hidden]) th").all_text_contents()


def column(page, table, number):
    return page.locator(f"section.open {table} tbody tr > :nth-child({number})").all_text_contents()


def head(page, table, name):
    return page.locator(f"section.open {table} thead th").filter(has_text=name)


def test_the_largest_fleet(visit, reports):
    directory, made = reports
    report = made["large"]
    started = time.monotonic()
    page = visit("large")
    expect(page.locator(".fleet tbody tr")).to_have_count(NODES)
    opened = time.monotonic() - started
    assert opened < PATIENCE
    assert names(page) == [node["node"] for node in report["nodes"]]
    picture(page, "large-fleet-light")

    # Sorting: one way, the other, as it was. The numbers that are read are sorted by, whatever their unit.
    free = {node["node"]: -1 if node["free"] is None else round(node["free"], -8) for node in report["nodes"]}
    button = head(page, ".fleet", "Free").get_by_role("button")
    button.click()
    expect(head(page, ".fleet", "Free")).to_have_attribute("aria-sort", "descending")
    assert [free[name] for name in names(page)] == sorted(free.values(), reverse=True)
    button.press("Enter")
    expect(head(page, ".fleet", "Free")).to_have_attribute("aria-sort", "ascending")
    assert [free[name] for name in names(page)] == sorted(free.values())
    button.press("Enter")
    assert head(page, ".fleet", "Free").get_attribute("aria-sort") is None
    assert names(page) == [node["node"] for node in report["nodes"]]

    # Searching: by what a node has, though nothing of that is an element yet.
    assert page.locator(".tree").count() == 0
    chain = next(one["name"] for one in report["nodes"][-1]["snapshots"][5:] if one["kind"] == "committed")
    owners = [node["node"] for node in report["nodes"] if any(chain == one["name"] for one in node["snapshots"])]
    started = time.monotonic()
    page.get_by_label("Search").fill(chain)
    expect(page.get_by_role("status")).to_have_text(f"{len(owners)} of {NODES} nodes")
    searched = time.monotonic() - started
    assert names(page) == owners

    # A node: opened by keyboard; the search shows the way to what it has found.
    started = time.monotonic()
    page.locator(".fleet tbody tr:not([hidden]) a").first.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_contain_text(owners[0])
    took = time.monotonic() - started
    expect(page.get_by_role("heading", level=2)).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("1 of 2")
    shown = page.locator("section.open .tree tbody tr:not([hidden]) th").all_text_contents()
    assert shown[-1] == chain
    assert 1 < len(shown) < SNAPSHOTS
    page.get_by_label("Search").fill("")
    expect(page.locator("section.open .tree tbody tr:not([hidden])")).to_have_count(SNAPSHOTS)
    picture(page, "large-node-light")
    page.go_back()
    expect(page.locator(".fleet")).to_be_visible()
    size = (directory / "large" / "report.html").stat().st_size / 1e6
    print(f"{NODES} x {SNAPSHOTS}: {size:.1f} MB, opened in {opened:.1f} s, searched {searched:.1f}, node {took:.1f}")


def test_a_node_by_its_address(visit, reports):
    report = reports[1]["small"]
    node = report["nodes"][0]
    page = visit("small", "#" + _page.anchor(node["node"]), color_scheme="dark")
    expect(page.locator("#fleet")).to_be_hidden()
    expect(page.get_by_role("heading", level=2)).to_contain_text(node["node"])
    page.get_by_role("link", name="All nodes").click()
    bad = next(node for node in report["nodes"] if node["findings"] and node["counts"]["error"])
    page.get_by_role("link", name=bad["node"]).click()
    for finding in bad["findings"]:
        expect(page.locator("section.open .findings")).to_contain_text(finding["remedy"])
    places = list(_page.tree(bad["snapshots"]))
    assert column(page, ".tree", 1) == [snapshot["name"] for snapshot, _depth, _parent in places]
    assert column(page, ".tree", 4) == [parent for _snapshot, _depth, parent in places]
    picture(page, "small-node-dark")

    # Words that are about the node and not about its rows hide nothing.
    page.get_by_label("Search").fill("is:unhealthy")
    expect(page.get_by_role("status")).to_have_text("No row has that; all are shown")
    assert page.locator("section.open .tree tbody tr:visible").count() == len(places)

    # Sorted by size, the tree is a list; and a tree again afterwards.
    button = head(page, ".tree", "Size").get_by_role("button")
    button.click()
    sizes = [snapshot["usage"]["size"] for snapshot, _depth, _parent in places]
    assert column(page, ".tree", 5) == [_page.size(size) for size in sorted(sizes, reverse=True)]
    button.click()
    button.click()
    assert column(page, ".tree", 1) == [snapshot["name"] for snapshot, _depth, _parent in places]

    # What the address names may not exist.
    page.evaluate("() => { location.hash = '#search'; }")
    expect(page.locator("#fleet")).to_be_visible()


def test_tiles_and_kinds_are_searches(visit, reports):
    report = reports[1]["small"]
    page = visit("small", color_scheme="dark")
    picture(page, "small-fleet-dark")
    for state in {node["state"] for node in report["nodes"]}:
        tile = page.locator(f".tiles .{state} button")
        tile.click()
        expect(tile).to_have_attribute("aria-pressed", "true")
        assert names(page) == [node["node"] for node in report["nodes"] if node["state"] == state]
        tile.click()
        assert len(names(page)) == len(report["nodes"])
    page.get_by_role("button", name="low_free_space").click()
    codes = {node["node"]: {one["code"] for one in node["findings"]} for node in report["nodes"]}
    assert names(page) == [name for name in codes if "low_free_space" in codes[name]]
    page.get_by_label("Search").fill("nothing has this")
    expect(page.get_by_role("status")).to_have_text("0 of 80 nodes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(visit, reports, scheme):
    """The rules of axe-core (WCAG 2 A and AA, contrast among them, and its best practices)."""
    report = reports[1]["small"]
    # The policy of the page would keep out axe, too.
    page = visit("small", color_scheme=scheme, bypass_csp=True)
    # One node of each state, and the fleet.
    some = {node["state"]: _page.anchor(node["node"]) for node in report["nodes"]}
    assert set(some) == set(_page.STATES)
    for address in ["fleet", *some.values()]:
        page.evaluate("address => { location.hash = address; }", address)
        page.wait_for_selector(f"[id='{address}'].open")
        result = Axe().run(page)
        assert result.violations_count == 0, result.generate_report()


def test_a_narrow_window(visit):
    page = visit("small", viewport=NARROW)
    picture(page, "small-fleet-narrow")
    page.locator(".fleet a").first.click()
    page.locator("section.open").wait_for()
    picture(page, "small-node-narrow")
    # Tables scroll in their frames; the page does not.
    assert page.evaluate("() => document.documentElement.scrollWidth") == NARROW["width"]


def test_without_scripts_all_is_there_to_read(visit, reports):
    report = reports[1]["small"]
    page = visit("small", java_script_enabled=False)
    tables = sum(bool(node["snapshots"]) for node in report["nodes"])
    assert page.locator(".tree:visible").count() == tables
    assert page.locator("button").count() == 0
    expect(page.get_by_label("Search")).to_be_hidden()
    picture(page, "small-without-scripts")
    name = report["nodes"][5]["node"]
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", name=name)).to_be_in_viewport()


@pytest.mark.parametrize("scripts", [True, False])
def test_hostile_names(visit, reports, scripts):
    report = reports[1]["hostile"]
    page = visit("hostile", java_script_enabled=scripts)
    readable = [node["node"].encode("utf-8", "backslashreplace").decode() for node in report["nodes"]]
    unseen = {"\u202e": r"\u202e", "\u2066": r"\u2066", "\u200b": r"\u200b", "\t": r"\t", "\0": r"\x00"}
    for char, escape in unseen.items():
        readable = [name.replace(char, escape) for name in readable]
    assert names(page) == readable
    for number in range(len(readable)):
        if scripts:
            page.locator(".fleet tbody a").nth(number).click()
            expect(page.locator("section.open h2")).to_contain_text(readable[number].partition("\n")[0])
            if readable[number] != "plain":
                found = set(column(page, ".tree", 1))
                assert {name for name in readable if len(name) < _page.FOLD and name != "plain"} <= found
            page.go_back()
    picture(page, f"hostile-{'with' if scripts else 'without'}-scripts", full_page=scripts)
    assert page.title() == f"Windows container snapshots: {len(readable)} nodes"
    assert page.locator("img, iframe, object, embed, link, base, [onerror], [onmouseover]").count() == 0
    assert page.locator("script").count() == 1
    if scripts:
        for word in ("<script>document.title", "&amp;escaped", "</noscript>"):
            page.get_by_label("Search").fill(word)
            expect(page.get_by_role("status")).to_have_text(f"{len(readable) - 1} of {len(readable)} nodes")
