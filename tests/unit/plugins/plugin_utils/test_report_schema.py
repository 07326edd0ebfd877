# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold report.json to its JSON Schema, and the schema to the shapes that a report is checked with."""

from __future__ import annotations

import json
import pathlib

import jsonschema
import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _page, _report, _shapes
from ansible_collections.wcow.snapshotter.tests.browser import fleet

SCHEMA = json.loads((pathlib.Path(__file__).parents[4] / "docs" / "report.schema.json").read_text(encoding="utf-8"))

REPORTS = {
    "own": fleet.fleet(20, 12),
    "mixed": fleet.mixed(),
    "containerd": fleet.of_containerd(),
    "hostile": fleet.hostile(),
}


def strict(schema):
    """Return the schema without permission for further keys."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: strict(value) for name, value in schema.items()}
    if "properties" in schema and schema.get("type") == "object":
        closed["additionalProperties"] = False
    return closed


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", REPORTS)
def test_reports_have_what_the_schema_describes_and_nothing_else(name):
    # A report is read from its file, where half of a surrogate pair is an escape.
    report = json.loads(json.dumps(REPORTS[name]))
    jsonschema.Draft202012Validator(strict(SCHEMA)).validate(report)


def changed(path, value):
    report = json.loads(json.dumps(REPORTS["containerd"]))
    holder = report
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return report


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("generated",), "yesterday"),
        (("nodes", 0, "state"), "fine"),
        (("nodes", 0, "free"), -1),
        (("nodes", 0, "total"), 1 << 63),
        (("nodes", 0, "findings", 0, "message"), None),
        (("nodes", 0, "freeable", 0, "how"), "magic"),
        (("nodes", 0, "snapshots", 0, "used_by", "images"), [1]),
        (("nodes", 0, "snapshots", 0, "labels"), {"a": 1}),
        (("nodes", 0, "users"), {}),
    ],
)
def test_the_schema_refuses_other_values(path, value):
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(changed(path, value))


def test_readers_accept_keys_of_later_releases():
    report = changed(("nodes", 0, "temperature"), 21)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)


def outline(shape):
    """Return the schema of a shape of _shapes.py, without descriptions."""
    if isinstance(shape, dict):
        return {
            "type": "object",
            "required": [name for name in shape if not name.endswith("?")],
            "properties": {name.rstrip("?"): outline(inner) for name, inner in shape.items()},
        }
    if isinstance(shape, list):
        return {"type": "array", "items": outline(shape[0])}
    if isinstance(shape, tuple):
        inner = outline(shape[0])
        if "type" in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}
    if shape == _shapes.LABELS:
        return {"type": "object", "additionalProperties": {"type": "string"}}
    names = {str: "string", _shapes.LINE: "string", bool: "boolean"}
    references = {int: "number", _shapes.TIME: "time"}
    return {"type": names[shape]} if shape in names else {"$ref": f"#/$defs/{references[shape]}"}


def bare(schema):
    """Return the schema without what a shape cannot say."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    names = [name for name in schema if name not in ("description", "enum")]
    made = {name: bare(schema[name]) for name in names if name != "properties"}
    if "properties" in schema:
        made["properties"] = {name: bare(value) for name, value in schema["properties"].items()}
        made.setdefault("required", [])
    return made


def test_the_schema_has_each_key_that_a_report_can_have():
    assert bare(SCHEMA["$defs"]["node"]) == outline(_report.NODE)


def described(schema, place):
    for name, inner in schema.get("properties", {}).items():
        yield f"{place}.{name}", "description" in inner
        yield from described(inner.get("items", inner), f"{place}.{name}")


def test_each_key_of_a_node_is_described():
    missing = [place for place, is_described in described(SCHEMA["$defs"]["node"], "node") if not is_described]
    # These names say all: a count of each severity, a list of each kind.
    assert {place.rpartition(".")[0] for place in missing} == {
        "node.counts",
        "node.containerd.sources",
        "node.snapshots.used_by",
    }


def test_the_lists_of_words_are_those_of_the_program():
    properties = SCHEMA["$defs"]["node"]["properties"]
    assert properties["state"]["enum"] == list(_page.STATES)
    assert properties["freeable"]["items"]["properties"]["how"]["enum"] == list(_page.WAYS)
