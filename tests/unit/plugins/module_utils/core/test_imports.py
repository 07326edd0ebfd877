# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the import rules of docs/architecture.md: imports go downward, form no cycles and keep to allowed modules."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Set

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core import door

CORE = Path(door.__file__).parent

#: The layers of the core, top first. A module imports modules of its own layer or of one below it.
#: ``x/`` stands for all modules of a package.
LAYERS: List[List[str]] = [
    ["boot"],
    ["door", "serve/"],
    ["stores", "reply", "request"],
    ["desired/", "check/"],
    ["listing", "snapshotter", "staging", "containerd/", "proxy/"],
    ["store"],
    ["snapshots", "records", "directories"],
    ["metastore/"],
    ["filters/"],
    ["layers/"],
    ["win32/"],
    ["formats/", "rpc/"],
    ["outcome", "keys", "labels", "sizes", "lineage", "lock"],
    ["files", "model"],
    ["errors", "failpoint"],
]

#: Only these modules may import ``win32``: the Windows layer store, protection and deletion, the lock of containerd's
#: databases, what asks for services and processes, the named pipes of containerd and of the proxy snapshotter, its
#: service, the restart of containerd, and the door (traces).
WIN32_USERS = (
    "win32/",
    "layers/windows/",
    "layers/protection",
    "layers/filetree",
    "containerd/lock",
    "containerd/programs",
    "containerd/connection",
    "containerd/restart",
    "door",
    "proxy/windows",
    "serve/main",
    "serve/windows_service",
)

#: These modules use the interface. They import neither the metadata nor the implementation.
INTERFACE_USERS = ("desired/", "check/", "door", "listing", "staging", "snapshots", "request", "reply")


def modules() -> Iterator[str]:
    for path in sorted(CORE.rglob("*.py")):
        yield path.relative_to(CORE).with_suffix("").as_posix().replace("/__init__", "")


def path_of(module: str) -> Path:
    return CORE / module / "__init__.py" if (CORE / module).is_dir() else CORE / f"{module}.py"


def imports(module: str, *, types_too: bool = True) -> Set[str]:
    """Return what a module imports, also inside functions. ``types_too`` includes imports only for annotations."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    ignored: Set[ast.AST] = set()
    if not types_too:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                ignored.update(ast.walk(node))
    found: Set[str] = set()
    package = list(path_of(module).parent.relative_to(CORE).parts)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level or node in ignored:
            continue
        base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        for alias in node.names:
            inner = "/".join([*base, alias.name])
            target = inner if path_of(inner).exists() else "/".join(base)
            if target and target != module:
                found.add(target)
    return found


def is_in(module: str, places: Sequence[str]) -> bool:
    return any(module == place or (place.endswith("/") and f"{module}/".startswith(place)) for place in places)


def layer_of(module: str) -> int:
    found = [number for number, places in enumerate(LAYERS) if is_in(module, places)]
    assert len(found) == 1, f"{module} has no layer: add it to LAYERS, and to docs/architecture.md"
    return found[0]


@pytest.mark.parametrize("module", [module for module in modules() if module != "."])
def test_imports_go_downward(module: str) -> None:
    upward = {target for target in imports(module) if layer_of(target) < layer_of(module)}
    assert not upward, f"{module} imports {', '.join(sorted(upward))} from a layer above its own"


def test_there_are_no_cycles() -> None:
    graph: Dict[str, Set[str]] = {module: imports(module, types_too=False) for module in modules()}
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", [module for module in modules() if not is_in(module, WIN32_USERS)])
def test_only_the_layer_stores_call_windows(module: str) -> None:
    assert not [target for target in imports(module) if is_in(target, ("win32/",))]


@pytest.mark.parametrize("module", [module for module in modules() if is_in(module, INTERFACE_USERS)])
def test_what_works_on_the_interface_names_no_implementation(module: str) -> None:
    assert not [target for target in imports(module) if is_in(target, ("metastore/", "snapshotter"))]
