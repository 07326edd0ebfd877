# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the documentation lists what the action plugins take and return."""

from __future__ import annotations

import importlib
import pathlib
import re

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.doc_fragments.node import ModuleDocFragment
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action

COLLECTION = pathlib.Path(_action.__file__).parents[2]
PACKAGE = "ansible_collections.wcow.snapshotter.plugins"
MODULES = sorted(path.stem for path in (COLLECTION / "plugins" / "modules").glob("*.py"))

#: The keys that the argument specification and the documentation of an option share.
SHARED = ("type", "required", "default", "choices", "elements", "aliases")


def load(kind, name):
    return importlib.import_module(f"{PACKAGE}.{kind}.{name}")


def shared(options):
    """Return what the two have in common. The documentation of an option also describes each choice."""
    found = {name: {key: option[key] for key in SHARED if key in option} for name, option in options.items()}
    return {
        name: {**option, "choices": list(option["choices"])} if "choices" in option else option
        for name, option in found.items()
    }


def all_options(documented):
    """Return the options and suboptions of a documentation, with their names."""
    found = list(documented.items())
    for name, option in found:
        found += [(f"{name}.{key}", value) for key, value in option.get("suboptions", {}).items()]
    return found


def returned_values(documented):
    found = list(documented.items())
    for name, value in found:
        found += [(f"{name}.{key}", inner) for key, inner in value.get("contains", {}).items()]
    return found


#: The modules that work on a node and have its options. The other modules work on the controller alone.
NODE_MODULES = [name for name in MODULES if issubclass(load("action", name).ActionModule, _action.SnapshotterAction)]

#: The modules whose work the core does. python_runtime also works on nodes without a Python for the core.
CORE_MODULES = [name for name in NODE_MODULES if name != "python_runtime"]


def test_each_module_has_an_action_plugin():
    assert sorted(path.stem for path in (COLLECTION / "plugins" / "action").glob("*.py")) == MODULES


def test_the_action_group_holds_all_modules_that_have_a_node():
    runtime = yaml.safe_load((COLLECTION / "meta" / "runtime.yml").read_text())
    assert runtime["action_groups"] == {"all": NODE_MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_options_are_documented(name):
    documented = yaml.safe_load(load("modules", name).DOCUMENTATION)["options"]
    assert shared(load("action", name).ActionModule.options) == shared(documented)


@pytest.mark.parametrize("name", [*MODULES, "node"])
def test_descriptions_are_lists_and_each_choice_has_one(name):
    """`ansible-doc` begins a line for each entry of a list. A choice that is not described is a riddle."""
    module = ModuleDocFragment if name == "node" else load("modules", name)
    for option, value in all_options(yaml.safe_load(module.DOCUMENTATION)["options"]):
        assert isinstance(value["description"], list), option
        if "choices" in value:
            assert all(isinstance(text, str) and text.endswith(".") for text in value["choices"].values()), option
    if name != "node":
        for key, value in returned_values(yaml.safe_load(module.RETURN)):
            text = value["description"]
            assert isinstance(text, list) or ". " not in text.replace("e.g. ", ""), key


@pytest.mark.parametrize("name", NODE_MODULES)
def test_rules_about_several_options_are_documented(name):
    """Each option that a state requires, or that excludes another one, says so, or the option that requires it does."""
    plugin = load("action", name).ActionModule
    documented = yaml.safe_load(load("modules", name).DOCUMENTATION)["options"]
    said = {option: " ".join(value["description"]) for option, value in documented.items()}
    for option, value, required, *_any in plugin.required_if:
        for other in required:
            by_option = f"({option}={str(value).lower()})" in said[other] and "equired" in said[other]
            by_value = re.search(rf"V\({value}\)[^.]* requires? [^.]*O\({other}\)", said[option])
            assert by_option or by_value, (option, value, other)
    for group in (*plugin.mutually_exclusive, *plugin.required_one_of):
        for one in group:
            assert any(f"O({other})" in said[one] for other in group if other != one), group


def test_node_options_are_documented():
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert shared(_action.NODE_OPTIONS) == shared(documented)
    for name, option in documented.items():
        assert f"C(wcow_{name})" in " ".join(option["description"])


@pytest.mark.parametrize("name", MODULES)
def test_returned_keys_are_documented(name):
    documented = yaml.safe_load(load("modules", name).RETURN)
    error = ["error"] if name in NODE_MODULES else []
    assert set(documented) == {*load("action", name).ActionModule.returned, *error}
    assert all("sample" in value and "returned" in value for value in documented.values())


@pytest.mark.parametrize("name", CORE_MODULES)
def test_the_plugin_knows_its_name_and_its_operation(name):
    from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door

    plugin = load("action", name).ActionModule
    assert plugin.module == f"wcow.snapshotter.{name}"
    arguments = set(door.OPERATIONS[plugin.operation].arguments)
    if name == "layer":
        arguments |= set(door.OPERATIONS["ensure_export"].arguments)
    if name == "scratch":
        arguments = arguments - {"size"} | {"rootfs_size"}
    # These options put several operations into one request, or concern the controller alone.
    others = {
        "layer": {"remote_src"},
        "image": {"remote_src"},
        "scratch": {"keys"},
        "snapshot_set": {"defaults"},
        "support": {"dest", "replace"},
    }.get(name, set())
    # The action sets "assume" in check mode, and "version" to that of the collection.
    assert set(plugin.options) - {"state", *others} == arguments - {"state", "assume", "version"}


@pytest.mark.parametrize("name", NODE_MODULES)
def test_python_is_required_where_the_core_does_the_work(name):
    requirements = yaml.safe_load(load("modules", name).DOCUMENTATION).get("requirements", [])
    assert [text.startswith("Python 3.9 or newer on the node") for text in requirements] == [True] * (
        name in CORE_MODULES
    )


@pytest.mark.parametrize("name", NODE_MODULES)
def test_examples_use_documented_options(name):
    plugin = load("action", name).ActionModule
    for task in yaml.safe_load(load("modules", name).EXAMPLES):
        # An example may need a snapshot, which it creates with another module.
        arguments = task.get(plugin.module) or {}
        assert set(arguments) <= {*plugin.options, *_action.NODE_OPTIONS}
