# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test which files a configuration consists of. tests/peers compares the result with containerd."""

from __future__ import annotations

import pathlib
from typing import Any, List, Tuple

import pytest
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.containerd import imports
from ansible_collections.wcow.snapshotter.plugins.module_utils.core.errors import FailedPrecondition, NotFound

MAIN = r"C:\Program Files\containerd\config.toml"
FOLDER = r"C:\Program Files\containerd"


def paths(path: str, release: Tuple[int, ...] = ()) -> List[str]:
    return [file.path for file in imports.read_files(path, release)]


def test_imports_are_read_breadth_first(node: Any) -> None:
    node.write(MAIN, r"imports = ['C:\b.toml', 'C:\a.toml']")
    node.write(r"C:\b.toml", r"imports = ['C:\c.toml', 'C:\a.toml']")
    node.write(r"C:\a.toml", r"imports = ['C:\d.toml']")
    node.write(r"C:\c.toml", "version = 2")
    node.write(r"C:\d.toml", "")
    assert paths(MAIN) == [MAIN, r"C:\b.toml", r"C:\a.toml", r"C:\c.toml", r"C:\d.toml"]
    assert imports.read_files(MAIN)[3].table == {"version": 2}


def test_a_file_is_read_once(node: Any) -> None:
    node.write(MAIN, r"imports = ['C:\a.toml', 'C:\.\a.toml', 'C:\Program Files\containerd\config.toml']")
    node.write(r"C:\a.toml", r"imports = ['C:\a.toml']")
    assert paths(MAIN) == [MAIN, r"C:\a.toml"]


def test_patterns(node: Any) -> None:
    node.write(MAIN, r"imports = ['conf.d\*.toml', 'C:\*\x?.[ab]*.toml', 'C:\none\*.toml', 'C:\y\x*']")
    for name in ("b.toml", "a.toml", ".hidden.toml", "a.TXT", r"inner\c.toml"):
        node.write(rf"{FOLDER}\conf.d\{name}", "")
    for path in (r"C:\z\x1.a.toml", r"C:\y\x2.b.toml", r"C:\y\x2.c.toml", r"C:\y\x22.a.toml"):
        node.write(path, "")
    assert paths(MAIN) == [
        MAIN,
        *(rf"{FOLDER}\conf.d\{name}" for name in (".hidden.toml", "a.toml", "b.toml")),
        *(r"C:\y\x2.b.toml", r"C:\z\x1.a.toml", r"C:\y\x2.c.toml", r"C:\y\x22.a.toml"),
    ]


def test_sets_that_are_negated(node: Any) -> None:
    node.write(MAIN, r"imports = ['[^a]*.toml']")
    node.write(rf"{FOLDER}\a.toml", "")
    node.write(rf"{FOLDER}\b.toml", "")
    assert paths(MAIN) == [MAIN, rf"{FOLDER}\b.toml"]


@pytest.mark.parametrize(
    ("release", "count"),
    [((), 2), ((1, 6, 28), 1), ((1, 6, 29), 2), ((1, 7, 0), 1), ((1, 7, 15), 1), ((1, 7, 16), 2), ((2, 0, 0), 2)],
)
def test_relative_patterns_of_old_releases_find_nothing(node: Any, release: Tuple[int, ...], count: int) -> None:
    node.write(MAIN, r"imports = ['conf.d\*.toml']")
    node.write(rf"{FOLDER}\conf.d\a.toml", "")
    assert len(paths(MAIN, release)) == count


def test_a_relative_path_belongs_to_its_file(node: Any) -> None:
    node.write(MAIN, r"imports = ['..\shared/a.toml']")
    node.write(r"C:\Program Files\shared\a.toml", "")
    assert paths(MAIN) == [MAIN, r"C:\Program Files\shared\a.toml"]


def test_a_missing_import_names_its_file(node: Any) -> None:
    node.write(MAIN, r"imports = ['C:\none.toml']")
    with pytest.raises(NotFound) as caught:
        imports.read_files(MAIN)
    assert caught.value.message.startswith(rf"{MAIN} imports a file: cannot read C:\none.toml: ")


def test_a_directory_is_not_a_file(node: Any) -> None:
    node.write(MAIN, r"imports = ['C:\Program Files']")
    with pytest.raises(FailedPrecondition, match="it is a directory, not a file"):
        imports.read_files(MAIN)


@pytest.mark.parametrize("text", ["imports = 'x'", "imports = [1]", "imports = ['']", "[imports]"])
def test_imports_of_a_wrong_type(node: Any, text: str) -> None:
    node.write(MAIN, text)
    with pytest.raises(FailedPrecondition) as caught:
        imports.read_files(MAIN)
    assert caught.value.message == rf"{MAIN}: imports is not a list of paths; correct the file"


def test_errors_name_file_and_line(node: Any) -> None:
    node.write(MAIN, "version = 2\nroot =")
    with pytest.raises(FailedPrecondition) as caught:
        imports.read_files(MAIN)
    assert caught.value.message == rf"{MAIN}: line 2: the end of the file is where a value should be"


def test_a_relative_configuration_is_refused(node: Any) -> None:
    with pytest.raises(FailedPrecondition, match="relative to a directory that is not known"):
        imports.read_files("config.toml")


def test_the_number_of_files_is_limited(node: Any) -> None:
    node.write(MAIN, r"imports = ['*.t']")
    for number in range(imports.MAX_FILES + 1):
        node.write(rf"{FOLDER}\{number}.t", "")
    with pytest.raises(FailedPrecondition, match="finds more than 1000 files"):
        imports.read_files(MAIN)


@pytest.mark.posix
def test_paths_of_posix(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WCOW_EMULATED_DRIVES", raising=False)
    main = tmp_path / "config.toml"
    main.write_text("imports = ['conf.d/*.toml']")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text("")
    assert paths(str(main)) == [str(main), str(tmp_path / "conf.d" / "a.toml")]
