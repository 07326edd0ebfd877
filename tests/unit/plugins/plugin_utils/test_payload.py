# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Same tree, same bytes."""

from __future__ import annotations

import io
import os
import shutil
import zipfile

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


def test_place_and_order_on_disk_do_not_matter(tree, tmp_path):
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
        assert {"core/__init__.py", "core/dispatch.py", "core/layers/base.py"} <= set(names)
        assert all(name.endswith(".py") for name in names)


def test_docstrings_comments_and_failpoints_stay_here():
    source = b'''# licence
# header

"""What it is."""

from .failpoint import failpoint
from . import other

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
'''
    stripped = _payload.strip(source)
    assert stripped.count(b"\n") == source.count(b"\n")
    assert [line for line in stripped.decode().split("\n") if line] == [
        "# licence",
        "# header",
        "from . import other",
        'TEXT = """',
        "# not a comment",
        '"""  # at the end of a line',
        "def act():",
        "    return TEXT  # kept",
        "class Empty(Exception):",
        '    """Only words."""',
    ]


def test_every_stripped_module_compiles_to_the_same_code(tree):
    import ast

    class Words(ast.NodeTransformer):
        """Takes out what ``strip`` may take out, and nothing else."""

        def generic_visit(self, node):
            super().generic_visit(node)
            described = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            if described and len(node.body) > 1 and ast.get_docstring(node) is not None:
                del node.body[0]
            for part in ("body", "orelse", "finalbody"):
                if isinstance(getattr(node, part, None), list):
                    kept = [child for child in getattr(node, part) if not _payload._is_failpoint(child)]
                    setattr(node, part, kept)
            return node

    for path in tree.rglob("*.py"):
        source = path.read_bytes()
        wanted = ast.dump(Words().visit(ast.parse(source)))
        found = ast.dump(Words().visit(ast.parse(_payload.strip(source))))
        assert found == wanted, path
        compile(_payload.strip(source), str(path), "exec")


def test_it_fits_into_one_message_of_winrm():
    # The most that pywinrm puts into one Send; the first contact of a node has no request to spare.
    import base64
    import zlib

    assert len(base64.b64encode(zlib.compress(_payload.payload().data, 9))) < 200_000
