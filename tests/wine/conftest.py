# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running Windows for all tests of a session."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import pytest
from ansible_collections.wcow.snapshotter.tests.wine import kit


class Folder(NamedTuple):
    """A folder on drive C:, as a Windows program names it, and as this machine does."""

    windows: str
    path: pathlib.Path


@pytest.fixture(scope="session")
def windows():
    with kit.temporary_windows() as started:
        yield started


@pytest.fixture
def winpython(windows):
    """Runs Windows Python, see ``kit.Windows.python``; output is text, and a failure shows what it wrote."""

    def run(*arguments, check=True, **options):
        done = windows.python(*arguments, capture_output=True, encoding="utf-8", **options)
        if check and done.returncode:
            pytest.fail(f"Windows Python ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    return run


@pytest.fixture
def folder(windows, tmp_path):
    """An empty folder for this test, beside those of other tests."""
    path = windows.drive / "tests" / tmp_path.name
    path.mkdir(parents=True)
    return Folder(rf"C:\tests\{path.name}", path)
