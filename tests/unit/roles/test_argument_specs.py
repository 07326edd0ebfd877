# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the argument specification of each role has every variable that the role reads, and no other."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any, Dict, Iterator, List, Set

import jinja2
import jinja2.meta
import pytest
import yaml
from ansible.plugins.loader import filter_loader, test_loader
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _action

ROLES = {path.name: path for path in sorted((pathlib.Path(_action.__file__).parents[2] / "roles").iterdir())}

#: The options that each module reads from the variables ``wcow_<option>`` of the host.
EVERYWHERE = {"store", "root", "layers", "python", "cache_dir"}
OF_CONTAINERD = {"address", "namespace", "snapshotter"}

#: The module python_runtime accepts all options of a node, and only this one has an effect.
OF_RUNTIME = {"python"}

#: Keywords of a task whose value is an expression without braces.
BARE = ("when", "that", "failed_when", "changed_when")

#: Variables of Ansible, and functions in expressions.
MAGIC = {"ansible_check_mode", "ansible_failed_result", "inventory_hostname", "now", "omit", "query"}


def read(role: str, file: str) -> Any:
    return yaml.safe_load((ROLES[role] / file).read_text(encoding="utf-8"))


def options_of(role: str) -> Dict[str, Dict[str, Any]]:
    options: Dict[str, Dict[str, Any]] = read(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return options


def tasks_of(role: str) -> Iterator[Dict[str, Any]]:
    """Yield the tasks and blocks of a role."""
    waiting: List[Dict[str, Any]] = list(read(role, "tasks/main.yml"))
    while waiting:
        task = waiting.pop()
        yield task
        for part in ("block", "rescue", "always"):
            waiting += task.get(part, ())


def expressions(value: Any, *, bare: bool = False) -> Iterator[str]:
    """Yield the templates in a value. ``bare`` adds the braces."""
    if isinstance(value, str):
        yield f"{{{{ {value} }}}}" if bare else value
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item, bare=bare)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from expressions(item, bare=bare or key in BARE)


def read_variables(task: Dict[str, Any]) -> Set[str]:
    """Return the variables in the templates of one task, without those of the tasks in a block."""
    environment = jinja2.Environment(autoescape=True)
    environment.filters.update(dict.fromkeys(_names(filter_loader), str))
    environment.tests.update(dict.fromkeys(_names(test_loader), bool))
    own = {key: value for key, value in task.items() if key not in ("block", "rescue", "always")}
    found: Set[str] = set()
    for text in expressions(own):
        found |= jinja2.meta.find_undeclared_variables(environment.parse(text))
    return found


def _names(loader: Any) -> List[str]:
    return [plugin.ansible_name.rpartition(".")[2] for plugin in loader.all()]


def made_variables(task: Dict[str, Any]) -> Set[str]:
    """Return the variables that a task itself makes."""
    control = task.get("loop_control", {})
    facts = task.get("ansible.builtin.set_fact", {})
    return {task.get("register"), control.get("loop_var"), *task.get("vars", {}), *facts} - {None}


def modules_of(role: str) -> Set[str]:
    """Return the modules of this collection that a role uses."""
    prefix = "wcow.snapshotter."
    return {key[len(prefix) :] for task in tasks_of(role) for key in task if key.startswith(prefix)}


def variables_of_nodes(role: str) -> Set[str]:
    """Return the host variables that the modules of a role read."""
    actions = {
        name: importlib.import_module(f"ansible_collections.wcow.snapshotter.plugins.action.{name}").ActionModule
        for name in modules_of(role)
    }
    if set(actions) == {"python_runtime"}:
        return {f"wcow_{name}" for name in OF_RUNTIME}
    with_containerd = all("containerd" in action.stores for action in actions.values())
    return {f"wcow_{name}" for name in (EVERYWHERE | OF_CONTAINERD if with_containerd else EVERYWHERE)}


def test_these_are_all_options_of_a_node():
    assert set(_action.NODE_OPTIONS) == EVERYWHERE | OF_CONTAINERD


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_that_a_role_reads_is_an_option(role: str) -> None:
    tasks = list(tasks_of(role))
    made = set().union(*(made_variables(task) for task in tasks))
    found = set().union(*(read_variables(task) for task in tasks)) - made - MAGIC
    assert found | variables_of_nodes(role) == set(options_of(role))


@pytest.mark.parametrize("role", ROLES)
def test_variables_of_the_host_are_documented_as_the_modules_have_them(role: str) -> None:
    for name, option in options_of(role).items():
        if name.startswith("wcow_"):
            wanted = _action.NODE_OPTIONS[name[len("wcow_") :]]
            assert {key: option[key] for key in ("type", "choices", "default") if key in option} == wanted, name


@pytest.mark.parametrize("role", ROLES)
def test_each_option_has_a_description_and_a_type(role: str) -> None:
    waiting = list(options_of(role).items())
    for name, option in waiting:
        assert isinstance(option["description"], list), name
        assert option["type"], name
        waiting += option.get("options", {}).items()
