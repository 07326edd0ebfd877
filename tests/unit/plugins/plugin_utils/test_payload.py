# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the payload: the same source tree gives the same bytes, and ``strip`` keeps the code."""

from __future__ import annotations

import io
import os
import pathlib
import re
import shutil
import zipfile
import zlib

import pytest
from ansible_collections.wcow.snapshotter.plugins.plugin_utils import _payload


@pytest.fixture
def tree(tmp_path):
    return shutil.copytree(_payload.CORE, tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))


def test_two_builds_are_equal(tree):
    assert _payload.build(tree) == _payload.build(tree)


def test_times_modes_and_leftovers_do_not_matter(tree):
    before = _payload.build(tree)
    for number, path in enumerate(sorted(tree.rglob("*.py"))):
        os.utime(path, (number, number))
        path.chmod(0o600 if number % 2 else 0o755)
    cache = tree / "__pycache__"
    cache.mkdir()
    (cache / "errors.cpython-311.pyc").write_bytes(b"\0")
    (tree / "errors.py~").write_text("left by an editor")
    assert _payload.build(tree) == before


def test_directory_and_order_on_disk_do_not_matter(tree, tmp_path):
    again = tmp_path / "elsewhere" / "other"
    for path in sorted(tree.rglob("*.py"), reverse=True):
        target = again / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    assert _payload.build(again) == _payload.build(tree)


@pytest.mark.parametrize("change", ["content", "name", "addition"])
def test_names_and_contents_matter(tree, change):
    before = _payload.build(tree)
    if change == "content":
        (tree / "errors.py").write_text("# other\n")
    elif change == "name":
        (tree / "errors.py").rename(tree / "faults.py")
    else:
        (tree / "extra.py").write_text("")
    assert _payload.build(tree).digest != before.digest


def test_it_holds_the_core_and_says_where_boot_is(tree):
    payload = _payload.build(tree)
    assert payload.data[payload.boot.start : payload.boot.stop] == _payload.strip((tree / "boot.py").read_bytes())
    with zipfile.ZipFile(io.BytesIO(payload.data)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[0] == "core/boot.py"
        assert names[1:] == sorted(names[1:])
        assert {"core/__init__.py", "core/door.py", "core/layers/base.py"} <= set(names)
        assert all(name.endswith(".py") for name in names)


def test_docstrings_comments_and_failpoints_stay_here():
    # The comments for linters in this text are to be removed. They silence nothing.
    source = b'''# licence
# header

"""What it is."""

from typing import TYPE_CHECKING, Any, Callable, Dict, NamedTuple, Tuple

from .failpoint import failpoint
from . import other

__all__ = ["TEXT"]

_Check = Callable[[str], bool]

# why
TEXT = """
# not a comment
"""  # at the end of a line


def act():
    """Do it.

    And more.
    """
    failpoint("act.begun")
    return TEXT  # kept


class Empty(Exception):
    """Only words."""


class Pair(NamedTuple):
    """Its annotations are its fields."""

    first: int
    second: str = ""


if TYPE_CHECKING:
    from . import types


def measure(path: str, *more: Dict[str, "int"], limit: int = 3, **options: Any) -> Tuple[int, ...]:
    size: int = 0  # type: ignore[name-defined]
    other: str
    self.found: Dict[str, List[int]] = {"one: int = 1": [1]}
    return size
'''
    stripped = _payload.strip(source)
    assert stripped.count(b"\n") == source.count(b"\n")
    assert [line for line in stripped.decode().split("\n") if line] == [
        "# licence",
        "# header",
        "from typing import Callable, NamedTuple",
        "from . import other",
        "_Check = Callable[[str], bool]",
        'TEXT = """',
        "# not a comment",
        '"""  # at the end of a line',
        "def act():",
        "    return TEXT  # kept",
        "class Empty(Exception):",
        "    ...",
        "class Pair(NamedTuple):",
        "    first: int",
        '    second: str = ""',
        "def measure(path, *more, limit = 3, **options):",
        "    size = 0",
        "    other: str",
        '    self.found = {"one: int = 1": [1]}',
        "    return size",
    ]


def test_every_stripped_module_compiles_to_the_same_code(tree):
    import ast

    fields = set()

    class Words(ast.NodeTransformer):
        """Removes only what ``strip`` may remove."""

        is_read = False

        def visit_Module(self, node):
            names = [name for name in ast.walk(node) if isinstance(name, ast.Name) and name.id == "__all__"]
            self.is_read = any(isinstance(name.ctx, ast.Load) for name in names)
            return self.generic_visit(node)

        def visit_ClassDef(self, node):
            fields.update(child for child in node.body if isinstance(child, ast.AnnAssign))
            return self.generic_visit(node)

        def visit_AnnAssign(self, node):
            is_long = node.target.lineno < node.annotation.end_lineno
            if node in fields or node.value is None or is_long:
                return self.generic_visit(node)
            return ast.Assign([node.target], self.visit(node.value))

        def generic_visit(self, node):
            super().generic_visit(node)
            described = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            if described and ast.get_docstring(node) is not None:
                node.body[:1] = (
                    [] if len(node.body) > 1 or isinstance(node, ast.Module) else [ast.Expr(ast.Constant(...))]
                )
            if isinstance(node, ast.FunctionDef):
                node.returns = None
            if isinstance(node, ast.arg):
                node.annotation = None
            for part in ("body", "orelse", "finalbody"):
                if isinstance(getattr(node, part, None), list):
                    kept = [child for child in getattr(node, part) if not _payload._is_failpoint(child)]
                    kept = [child for child in kept if not _payload._is_for_annotations(child)]
                    kept = [child for child in kept if self.is_read or not _payload._is_export_list(child)]
                    setattr(node, part, kept)
            return node

    def without_types(module):
        """Remove what is imported for annotations alone. A name that the code uses stays."""
        used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom) and node.module == "typing":
                node.names = [alias for alias in node.names if alias.name in used]
        module.body = [node for node in module.body if not isinstance(node, ast.ImportFrom) or node.names]
        return module

    for path in tree.rglob("*.py"):
        source = path.read_bytes()
        wanted = ast.dump(without_types(Words().visit(ast.parse(source))))
        found = ast.dump(Words().visit(ast.parse(_payload.strip(source))))
        assert found == wanted, path
        compile(_payload.strip(source), str(path), "exec")


def test_an_export_list_that_the_module_reads_stays():
    source = b"__all__ = ['act']\n\ndef __dir__():\n    return __all__\n"
    assert _payload.strip(source) == source


@pytest.mark.parametrize("kind", ["containerd", "service"])
def test_every_module_that_the_payload_imports_is_in_it(kind):
    import ast
    import importlib.util

    with zipfile.ZipFile(io.BytesIO(_payload.payload(kind).data)) as archive:
        sources = {name: archive.read(name) for name in archive.namelist()}
    modules = {name[: -len(".py")].replace("/", ".").replace(".__init__", ""): name for name in sources}
    for module, name in modules.items():
        package = module if name.endswith("/__init__.py") else module.rpartition(".")[0]
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package).rstrip(".")
                assert base in modules, (name, base)
                if not node.module:
                    known = {f"{base}.{alias.name}" for alias in node.names}
                    assert known <= set(modules), (name, known - set(modules))


def test_only_the_module_that_installs_it_sends_the_service():
    def names(kind):
        with zipfile.ZipFile(io.BytesIO(_payload.payload(kind).data)) as archive:
            return set(archive.namelist())

    own, containerd, service = map(names, ("own", "containerd", "service"))
    assert own < containerd < service
    assert "core/serve/windows_service.py" in service - containerd
    assert "core/containerd/client.py" in containerd - own
    # Each entry excludes something, so that none of them stays after the file has another name.
    for entry in (*_payload.NOT_SENT, *_payload.CONTAINERD, *_payload.SERVICE):
        assert (_payload.CORE / entry).exists(), entry


def test_it_fits_into_one_message_of_winrm():
    # pywinrm puts at most this many characters into one Send. The first task on a node must not need another request.
    import base64
    import zlib

    assert len(base64.b64encode(zlib.compress(_payload.payload("own").data, 9))) < 200_000


def test_the_sizes_in_the_readme():
    readme = (pathlib.Path(__file__).parents[4] / "README.md").read_text(encoding="utf-8")
    said = re.search(r"\((\d+) KB compressed, (\d+) KB for .*, (\d+) KB for the proxy snapshotter\)", readme)
    sizes = [len(zlib.compress(_payload.payload(kind).data, 9)) for kind in ("own", "containerd", "service")]
    assert [int(size) for size in said.groups()] == pytest.approx([size / 1000 for size in sizes], rel=0.01)
