# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the metrics of a report with the parsers of prometheus_client: OpenMetrics, and the older text format."""

from __future__ import annotations

import re

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _page, _report, _report_metrics, _report_usage
from ansible_collections.wcow.snapshotter.tests.browser import fleet
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families

FORMATS = {"OpenMetrics": text_string_to_metric_families, "text": parser.text_string_to_metric_families}


def samples(report, read=text_string_to_metric_families):
    """Return all samples as {name: {labels: value}}."""
    found = {}
    for family in read("".join(_report_metrics.metrics(report))):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.timestamp is None
            values = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in values
            values[labels] = sample.value
    return found


def of(node, **labels):
    return frozenset({"node": node, **labels}.items())


@pytest.mark.parametrize("read", FORMATS.values(), ids=FORMATS)
def test_the_metrics_have_the_numbers_of_the_report(read):
    report = fleet.fleet(20, 12)
    found = samples(report, read)
    assert found["wcow_report_timestamp_seconds"] == {frozenset(): 1795509361}
    answered = [node for node in report["nodes"] if node["free"] is not None]
    assert len(answered) == 18
    for name, key in (
        ("wcow_volume_free_bytes", "free"),
        ("wcow_volume_total_bytes", "total"),
        ("wcow_layers_bytes", "size"),
        ("wcow_reclaimable_bytes", "reclaimable"),
    ):
        assert found[name] == {of(node["node"]): node[key] for node in answered}
    for node in report["nodes"]:
        name = node["node"]
        for state in _page.STATES:
            assert found["wcow_node_state"][of(name, state=state)] == (node["state"] == state)
        assert found["wcow_audit_timestamp_seconds"][of(name)] == 1795509361
        for finding in node["findings"]:
            labels = of(name, code=finding["code"], severity=finding["severity"])
            same = [one for one in node["findings"] if one["code"] == finding["code"]]
            assert found["wcow_findings_by_code"][labels] == len(same)
    for node in answered:
        name = node["node"]
        for severity, count in node["counts"].items():
            assert found["wcow_findings"][of(name, severity=severity)] == count
        for kind in ("active", "view", "committed"):
            count = sum(snapshot["kind"] == kind for snapshot in node["snapshots"])
            assert found["wcow_snapshots"][of(name, kind=kind)] == count
        uses = [found["wcow_disk_use_bytes"][of(name, use=use)] for use in _report_usage.USES]
        assert sum(uses) == node["total"]


def test_the_metrics_of_proxy_snapshotters():
    report = fleet.mixed()
    found = samples(report)
    served = [node for node in report["nodes"] if node.get("proxy_snapshotter")]
    assert found["wcow_proxy_snapshotter_up"] == {
        of(node["node"]): node["proxy_snapshotter"]["health"] is not None for node in served
    }
    assert sorted(found["wcow_proxy_snapshotter_up"].values()) == [0, 1, 1, 1, 1]
    assert set(found["wcow_proxy_snapshotter_calls"].values()) == {48_213}
    assert len(found["wcow_proxy_snapshotter_calls"]) == 4
    assert found["wcow_rootfs_size_bytes"] == {of(node["node"]): 40 * fleet.GIB for node in served}


def test_a_node_that_did_not_answer_has_its_state_alone():
    report = _report.report_of(fleet.AUDITED, [_report.node_of("away", fleet.AUDITED, {"unreachable": True})])
    assert set(samples(report)) == {
        "wcow_report_timestamp_seconds",
        "wcow_node_state",
        "wcow_audit_timestamp_seconds",
    }


@pytest.mark.parametrize("read", FORMATS.values(), ids=FORMATS)
@given(
    text=st.text(
        st.one_of(st.characters(), st.sampled_from('"\\\n\r{}=,#\u2028'), st.characters(categories=["Cs"])), min_size=1
    )
)
def test_hostile_names_stay_inside_their_label(read, text):
    found = [fleet.finding("damaged_scratch"), {**fleet.finding("damaged_scratch"), "code": text}]
    report = _report.report_of(
        fleet.AUDITED, [_report.node_of(text, fleet.AUDITED, fleet.check(found, [fleet.snapshot(1, "base")]))]
    )
    lines = "".join(_report_metrics.metrics(report))
    assert all(re.fullmatch(r"#.*|wcow_[a-z_]+(\{.*\})? [0-9]+", line) for line in lines.splitlines())
    names = {dict(labels)["node"] for labels in samples(report, read)["wcow_node_state"]}
    assert len(names) == 1


def test_the_parser_refuses_what_is_not_complete():
    """The proof that the other tests use a strict parser."""
    lines = "".join(_report_metrics.metrics(fleet.fleet(1, 1)))
    with pytest.raises(ValueError, match="EOF"):
        list(openmetrics.parser.text_string_to_metric_families(lines.replace("# EOF\n", "")))
