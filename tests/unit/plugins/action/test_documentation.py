# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation says what the action plugins take and return."""

from __future__ import annotations

import importlib
import pathlib

import pytest
import yaml
from ansible_collections.wcow.snapshotter.plugins.doc_fragments.node import ModuleDocFragment
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action

COLLECTION = pathlib.Path(_action.__file__).parents[2]
PACKAGE = "ansible_collections.wcow.snapshotter.plugins"
MODULES = sorted(path.stem for path in (COLLECTION / "plugins" / "modules").glob("*.py"))

#: What both an argument specification and the documentation of an option say.
SHARED = ("type", "required", "default", "choices", "elements")


def load(kind, name):
    return importlib.import_module(f"{PACKAGE}.{kind}.{name}")


def shared(options):
    return {name: {key: option[key] for key in SHARED if key in option} for name, option in options.items()}


#: All but those that are about the controller alone: they have no node, and so none of its options.
NODE_MODULES = [name for name in MODULES if issubclass(load("action", name).ActionModule, _action.SnapshotterAction)]

#: Those that the core does the work for. The one that is left works where there is no Python for a core.
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
    from ansible_collections.wcow.snapshotter.plugins.module_utils.core import dispatch

    plugin = load("action", name).ActionModule
    assert plugin.module == f"wcow.snapshotter.{name}"
    arguments = set(dispatch.OPERATIONS[plugin.operation].arguments)
    if name == "layer":
        arguments |= set(dispatch.OPERATIONS["ensure_export"].arguments)
    # What is about several operations in one request, or about the controller alone.
    others = {"layer": {"remote_src"}, "image": {"remote_src"}, "scratch": {"keys"}}.get(name, set())
    assert set(plugin.options) - {"state", *others} == arguments - {"state"}


@pytest.mark.parametrize("name", NODE_MODULES)
def test_examples_use_documented_options(name):
    plugin = load("action", name).ActionModule
    for task in yaml.safe_load(load("modules", name).EXAMPLES):
        # An example may need a snapshot to work on, and makes it with another module.
        arguments = task.get(plugin.module) or {}
        assert set(arguments) <= {*plugin.options, *_action.NODE_OPTIONS}
